"""tests/vectors against the code (decoded, and encoded again), and against the CDDL of docs/feed.md."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import cbor2
import pytest

from edged.errors import ChainError, EdgedError, TrustError, WireError
from edged.feed import bundle, cbor, chain, digest, head, limits, patch, takedowns, zstd
from edged.feed.ahead import laidhop
from edged.feed.blob import BlobRef
from edged.feed.coding import (
    arithmetic,
    aside,
    differences,
    guessing,
    hop,
    knowledge,
    modelledhop,
    textmodel,
    texts,
    treecoding,
    wholehop,
)
from edged.feed.coding import snapshot as snapshotcoding
from edged.feed.coding.changes import Change
from edged.feed.rollout import bucket_of
from edged.feed.trust import cose
from edged.feed.trust import root as trust
from edged.feed.trust.sealing import bound_to, unseal
from tests.cddl import Cddl
from tests.vectors import generate
from tests.vectors.generate import Held

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs/feed.md").read_text(encoding="utf-8")
Json = dict[str, Any]
Records = dict[tuple[str, str], bytes]


def vectors(name: str) -> Json:
    loaded: Json = json.loads((generate.HERE / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def records_of(items: list[Json]) -> Records:
    return {(item["collection"], item["key"]): bytes.fromhex(item["value"]) for item in items}


# --- the files are what the code writes ---


@pytest.mark.parametrize("name", sorted(generate.FILES))
def test_encoding_again_gives_the_published_bytes(name: str) -> None:
    published = vectors(name)
    if published.get("zstd", generate.ZSTD) != generate.ZSTD:
        pytest.skip(f"frames were made by zstd {published['zstd']}; decoding is tested all the same")
    assert generate.FILES[name]() == published


def test_every_vector_file_is_generated_and_described() -> None:
    on_disk = {path.stem for path in generate.HERE.glob("*.json")}
    assert on_disk == set(generate.FILES)
    for name in on_disk:
        assert f"`{name}.json`" in DOCUMENT, f"docs/feed.md does not say what {name}.json shows"


# --- and decode to what they say ---


def test_records_have_one_encoding() -> None:
    for case in vectors("cbor")["accepted"]:
        data = bytes.fromhex(case["cbor"])
        assert cbor.decode(data, "vector") == case["json"]
        assert cbor.encode(cbor.decode(data, "vector")) == data


@pytest.mark.parametrize("case", vectors("cbor")["refused"], ids=lambda case: case["why"])
def test_every_other_encoding_is_refused(case: Json) -> None:
    with pytest.raises(WireError):
        cbor.decode(bytes.fromhex(case["cbor"]), "vector")


def lanes_of(records: Records) -> bytes:
    """The digest's state by its definition, lane by lane."""
    lanes = [0] * 1024
    for (collection, key), value in records.items():
        name, word = collection.encode(), key.encode()
        material = b"edged/1 record" + struct.pack(">H", len(name)) + name + struct.pack(">H", len(word)) + word + value
        element = struct.unpack("<1024H", hashlib.shake_128(material).digest(2048))
        lanes = [(lane + more) % 65_536 for lane, more in zip(lanes, element, strict=True)]
    return struct.pack("<1024H", *lanes)


@pytest.mark.parametrize("case", vectors("digest")["cases"], ids=lambda case: case["name"])
def test_the_digest_is_what_its_definition_says(case: Json) -> None:
    records = records_of(case["records"])
    state = lanes_of(records)
    assert hashlib.sha256(state).hexdigest() == case["state_sha256"]
    assert case["digest"] == case["state_sha256"][:32]
    assert state.hex().startswith(case["state_begin"])
    total = digest.SetHash(state)
    for (collection, key), value in records.items():
        total.remove(collection, key, value)
    assert total.digest() == digest.EMPTY_DIGEST


def test_a_root_of_trust_leads_to_the_next_by_a_threshold_of_both() -> None:
    file = vectors("trust")
    first, second = (bytes.fromhex(item["document"]) for item in file["roots"])
    root = trust.read_root(first, "trust file")
    assert root == generate.first_root()
    assert trust.verify_root(second, root) == generate.second_root()
    with pytest.raises(TrustError, match="numbered 1"):
        trust.verify_root(first, root)
    for name, key in file["keys"].items():
        assert generate.secret(name).hex() == key["seed"]
        assert cose.key_id(bytes.fromhex(key["public"])).hex() == key["id"]
    lonely = trust.sign_root(generate.second_root(), [generate.signing_key("root c"), generate.signing_key("root d")])
    with pytest.raises(TrustError, match="1 of the 2 root keys of the root before it"):
        trust.verify_root(lonely, root)


def test_the_head_is_verified_over_the_received_bytes() -> None:
    file = vectors("head")
    document = bytes.fromhex(file["document"])
    found = trust.verify_head(document, generate.first_root(), "catalog")
    assert found.head == generate.example_head()
    assert head.encode_head(found.head).hex() == file["payload"]
    with pytest.raises(TrustError, match="signed for dataset 'catalog'"):
        trust.verify_head(document, generate.first_root(), "other")
    for place in range(len(document)):
        damaged = bytearray(document)
        damaged[place] ^= 1
        with pytest.raises(EdgedError) as refused:
            trust.verify_head(bytes(damaged), generate.first_root(), "catalog")
        assert isinstance(refused.value, TrustError | WireError)


def test_the_head_that_offers_a_version() -> None:
    file = vectors("head")["offering"]
    found = head.decode_head(bytes.fromhex(file["payload"]))
    assert found == generate.offering_head()
    assert found.offer is not None
    assert bucket_of(found.offer.salt, file["device_id"]) == file["bucket"]


def test_the_version_ahead_and_its_release() -> None:
    file = {name: bytes.fromhex(text) for name, text in vectors("head")["ahead"].items()}
    assert head.decode_head(file["announcing"]) == generate.announcing_head(file["sealed"])
    assert head.decode_head(file["releasing"]) == generate.releasing_head(file["sealed"])
    assert unseal(file["key"], file["bound_to"], file["sealed"]) == file["hop"]
    assert file["bound_to"] == bound_to("catalog", "core", 2, 3)


def test_a_head_signed_anew_is_what_its_patch_makes_of_the_one_before() -> None:
    file = vectors("head")
    document, found = bytes.fromhex(file["patch"]["document"]), bytes.fromhex(file["patch"]["patch"])
    assert patch.decode_patch(bytes.fromhex(file["document"]), found) == document
    signed_at = trust.verify_head(document, generate.first_root(), "catalog").head.signed_at
    assert signed_at == generate.example_head().signed_at + 60
    assert len(found) < 64 + 20


def test_the_chain_lists_what_the_other_files_hold() -> None:
    file = vectors("chain")
    blob = bytes.fromhex(file["blob"])
    found = chain.decode_chain(blob)
    assert found == generate.example_chain()
    assert zstd.decompress(blob, "chain", limits.CHAIN_BYTES).hex() == file["cbor"]
    signed = trust.verify_head(bytes.fromhex(vectors("head")["document"]), generate.first_root(), "catalog").head
    signed.chain.check(blob, "chain")
    (snapshot,) = found.slices["core"].snapshots
    (part,) = (bytes.fromhex(part) for part in vectors("snapshot")["parts"])
    snapshot.parts[0].check(part, "part")
    assert snapshot.dictionary is not None
    snapshot.dictionary.check(bytes.fromhex(vectors("snapshot")["dictionary_blob"]), "dictionary")


def test_takedowns_name_their_records() -> None:
    file = vectors("takedowns")
    entries = {(entry["collection"], entry["key"]) for entry in file["entries"]}
    assert takedowns.decode_takedowns(bytes.fromhex(file["blob"])) == entries


def test_a_snapshot_part_gives_its_records_and_their_digest() -> None:
    file = vectors("snapshot")
    dictionary = snapshotcoding.unpack_dictionary(bytes.fromhex(file["dictionary_blob"]))
    assert dictionary.hex() == file["dictionary"]
    found: Records = {}
    for part in file["parts"]:
        decoded = snapshotcoding.decode_part(bytes.fromhex(part), dictionary, max_bytes=limits.PART_BYTES)
        found.update({(collection, key): value for collection, key, value in decoded})
    assert found == records_of(file["records"])
    signed = chain.decode_chain(bytes.fromhex(vectors("chain")["blob"])).slices["core"].snapshots[0]
    assert hashlib.sha256(lanes_of(found)).digest()[:16] == signed.digest


@pytest.mark.parametrize("case", vectors("hop")["cases"], ids=lambda case: case["name"])
def test_a_hop_turns_the_old_records_into_the_signed_new_ones(case: Json) -> None:
    file = vectors("hop")
    old, dictionary, blob = records_of(file["old"]), bytes.fromhex(case["dictionary"]), bytes.fromhex(case["blob"])
    assert hop.dictionary_tag(blob).hex() == case["tag"]
    changes = hop.unpack_hop(blob, Held(old), dictionary)
    assert changes == [
        Change(item["collection"], item["key"], None if item["value"] is None else bytes.fromhex(item["value"]))
        for item in file["changes"]
    ]
    for change in changes:
        if change.value is None:
            del old[change.collection, change.key]
        else:
            old[change.collection, change.key] = change.value
    assert old == records_of(file["new"])
    signed = trust.verify_head(bytes.fromhex(vectors("head")["document"]), generate.first_root(), "catalog").head
    assert hashlib.sha256(lanes_of(old)).digest()[:16] == signed.slices["core"].digest
    with pytest.raises(ChainError, match="fetch the dictionary"):
        hop.unpack_hop(blob, Held(old), dictionary + b"x")


@pytest.mark.parametrize("case", vectors("laid")["cases"], ids=lambda case: case["name"])
def test_a_hop_as_a_replica_stores_it_gives_the_records_and_their_digest(case: Json) -> None:
    dictionary = bytes.fromhex(vectors("laid")["dictionary"])
    old, new = records_of(case["old"]), records_of(case["new"])
    found = laidhop.laid_of(bytes.fromhex(case["blob"]))
    assert found is not None
    values = {
        (change.collection, change.key): change.value for change in laidhop.changes_with_values(found, dictionary)
    }
    assert {where: value for where, value in {**old, **values}.items() if value is not None} == new
    kinds = {where: 2 if value is None else int(where not in old) for where, value in values.items()}
    assert [kind for *_, kind in found.changes] == list(kinds.values())
    assert hashlib.sha256(lanes_of(new)).digest()[:16].hex() == case["digest"]
    if case["name"] == "with a sum":
        lanes = zip(*(struct.unpack("<1024H", sums) for sums in (lanes_of(old), found.sum)), strict=True)
        assert struct.pack("<1024H", *((one + other) % 65_536 for one, other in lanes)) == lanes_of(new)
    else:
        assert found.sum == b""


def test_a_bundle_holds_a_head_and_its_blobs() -> None:
    data = bytes.fromhex(vectors("bundle")["file"])
    file = io.BytesIO(data)
    layout = bundle.read_layout(file)
    assert layout.total_bytes == len(data)
    assert layout.bundle.head.hex() == vectors("head")["document"]
    for ref in layout.bundle.blobs:
        ref.check(layout.read_blob(file, ref, "blob"), "blob")
    signed = trust.verify_head(layout.bundle.head, trust.read_root(layout.bundle.roots[1], "root"), "catalog").head
    assert signed.chain in layout.bundle.blobs
    assert signed.takedowns in layout.bundle.blobs


# --- the CDDL of the document ---

BLOCKS = re.findall(r"```cddl\n(.*?)```", DOCUMENT, re.DOTALL)


CDDL = Cddl("\n".join(BLOCKS))


def items() -> dict[str, tuple[str, bytes]]:
    """What the vectors hold of CBOR: name to the rule of docs/feed.md and the bytes."""
    file = vectors("trust")
    found = {f"root {item['number']}": ("trust-document", item["document"]) for item in file["roots"]}
    found |= {f"root {item['number']}, payload": ("root", item["payload"]) for item in file["roots"]}
    found |= {
        "head": ("head-document", vectors("head")["document"]),
        "head, payload": ("head", vectors("head")["payload"]),
        "head, offering": ("head", vectors("head")["offering"]["payload"]),
        "head, ahead": ("head", vectors("head")["ahead"]["announcing"]),
        "head, released": ("head", vectors("head")["ahead"]["releasing"]),
        "chain": ("chain", vectors("chain")["cbor"]),
        "takedowns": ("takedowns", vectors("takedowns")["cbor"]),
    }
    found |= {
        f"laid hop, {case['name']}": ("laid-hop", case["blob"][2 * hop.HEADER_BYTES + 2 :])
        for case in vectors("laid")["cases"]
    }
    header = bytes.fromhex(vectors("bundle")["file"])[len(bundle.MAGIC) :]
    found["bundle, header"] = ("bundle-header", header[4 : 4 + int.from_bytes(header[:4], "big")].hex())
    found |= {f"record {n}": ("record", case["cbor"]) for n, case in enumerate(vectors("cbor")["accepted"])}
    return {name: (rule, bytes.fromhex(data)) for name, (rule, data) in found.items()}


@pytest.mark.parametrize("name", sorted(items()))
def test_the_published_cddl_describes_the_vectors(name: str) -> None:
    rule, data = items()[name]
    assert CDDL.matches(rule, data)


def wrong_items() -> dict[str, tuple[str, Any]]:
    payload = cbor2.loads(bytes.fromhex(vectors("head")["payload"]))
    root = cbor2.loads(bytes.fromhex(vectors("trust")["roots"][0]["payload"]))
    listed = cbor2.loads(bytes.fromhex(vectors("chain")["cbor"]))
    return {
        "a head of format 1": ("head", {**payload, 1: 1}),
        "a head without its chain": ("head", {field: item for field, item in payload.items() if field != 8}),
        "a digest of 31 bytes": ("head", {**payload, 7: {"core": [2, bytes(31), 0, []]}}),
        "a hash of 20 bytes": ("head", {**payload, 8: [5, bytes(20)]}),
        "a key of 31 bytes": ("root", {**root, 5: [1, [bytes(31)]]}),
        "a slice with a name that leaves its directory": ("head", {**payload, 7: {"../core": [0, bytes(16), 0, []]}}),
        "a hop without its hash": ("head", {**payload, 7: {"core": [2, bytes(16), 0, [[1, 2, 5]]]}}),
        "an offer to more than all": ("head", {**payload, 11: [b"saltsalt", 1001, 9, {}, payload[8], 1]}),
        "a chain without a schema": ("chain", {field: item for field, item in listed.items() if field != 4}),
        "a snapshot without parts": ("chain", {**listed, 5: {"core": [[[1, bytes(16), 4, None]], [], []]}}),
        "takedowns of a number": ("takedowns", {1: 1, 2: {"titles": [5]}}),
        "a laid hop with half a sum": ("laid-hop", [bytes(1024), []]),
        "a laid hop with a number for a frame": ("laid-hop", [b"", [["titles", ["a"], [5], b"\0"]]]),
    }


@pytest.mark.parametrize("name", sorted(wrong_items()))
def test_the_published_cddl_refuses_what_the_code_refuses(name: str) -> None:
    rule, item = wrong_items()[name]
    data = cbor.encode(item)
    assert not CDDL.matches(rule, data)
    decoders = {"head": head.decode_head, "root": trust.decode_root, "laid-hop": laidhop.decode_laid}
    packed = {"chain": chain.decode_chain, "takedowns": takedowns.decode_takedowns}
    with pytest.raises(WireError):
        packed[rule](zstd.compress(data)) if rule in packed else decoders[rule](data)


def test_the_published_limits_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([0-9,]+) \|", DOCUMENT, re.MULTILINE))
    code = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert {name: int(value.replace(",", "")) for name, value in rows.items()} == code


def test_the_published_constants_of_the_model_are_those_of_the_code() -> None:
    # Change one and every hop of this coding means something else: then the coding byte must change too.
    text = " ".join(DOCUMENT.split())
    for said in (
        f"hops of at most {modelledhop.CHANGES_MOST:,} changes",
        f"another end, and more than {arithmetic.BITS_MOST:,} bits and {modelledhop.CHANGE_BITS} for each change",
        f"learning from a pair (below) counts for {treecoding.LESSON_BITS} bits",
        f"from -{arithmetic.LOGIT_MOST:,} to {arithmetic.LOGIT_MOST:,}",
        f"is the lesser of {arithmetic.ONE - arithmetic.SURE:,}",
        f"at most {textmodel.CONTEXTS_MOST:,} contexts are remembered",
        f"of at most {textmodel.CONTEXTS_MOST:,} in all fields of the hop together",
        f"new values together have at most {modelledhop.NEW_BYTES:,} bytes",
        f"records of {modelledhop.OLD_BYTES:,} bytes together, in form 3 of {modelledhop.MASS_OLD_BYTES:,}",
        f"the base has 2 to {differences.MOVED_MOST} items",
        f"while {differences.RUN_BYTES} bytes or more of the base",
        f"{guessing.LESSONS} times a path",
        f"up to {guessing.PALETTE} of a path",
        f"{guessing.KEPT} kept by score",
        f"the first {guessing.SOURCES} fields",
        f"at most {treecoding.GUIDED_MOST} maps and fields",
        f"where it is over {treecoding.LEANING} the base counts as 0",
        f"grows by 1, up to {textmodel.SEEN_MOST}",
        f"so up to {textmodel.SHORT_BITS} bits",
        f"and {textmodel.SPARE_BITS} bits or more that would",
        f"pieces replaced, {differences.WORD_PIECES} at most",
        f"the first {texts.PHRASES} of up to {texts.PHRASE_BYTES} bytes, in the first {texts.PHRASED_MOST} paths",
        f"{guessing.COUNTED} for each time; when a value has {guessing.COUNT_MOST:,}",
        f"Each {aside.PACKED_AT_ONCE} of them",
        f"Alphabet {aside.UUID} is of UUIDs",
        f"up to {textmodel.LENGTH_MOST}; then the bits",
        f"the first {textmodel.FOLLOWERS} at or after `last - {textmodel.NEAREST_BYTES} * max(1, z * z)`",
        f"with `d` {', '.join(map(str, textmodel.DOUBT))} by order",
        f"all {textmodel.WEIGHT:,} at first",
        f"- probability) * {textmodel.RATE} >> 16`",
        f"field names, the first {knowledge.NAMES} met",
        f"each collection the last {knowledge.PRIMERS} values",
        f"had {knowledge.PATH_CHARACTERS} characters or more",
        f"up to {treecoding.LEARN_BYTES} bytes of each",
        f"these would exceed {wholehop.CONTEXT_BYTES:,} bytes",
        f"whole numbers of up to {modelledhop.DIGITS} digits",
    ):
        assert said.lower() in text.lower(), f"docs/feed.md does not say: {said}"


def test_a_blob_is_refused_unless_it_is_what_its_name_says() -> None:
    part = bytes.fromhex(vectors("snapshot")["parts"][0])
    ref = BlobRef.of(part)
    assert ref.check(part, "part") == part
    for damaged in (part[:-1], part + b"\0", bytes([part[0] ^ 1]) + part[1:]):
        with pytest.raises(WireError, match="fetch it again"):
            ref.check(damaged, "part")
