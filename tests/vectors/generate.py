"""Writes the test vectors beside this file: `python -m tests.vectors.generate [DIRECTORY]`.

Fixed keys, times and records give the same files each time; only frames of another release of the zstd library may
differ (each file with frames names the one that made them), and those decode to the same content.
Bytes are in hexadecimal. docs/feed.md says what each file shows.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.feed import bundle, cbor, chain, digest, head, patch, schema, takedowns, zstd
from edged.feed.ahead import laidhop, sealed
from edged.feed.blob import BlobRef
from edged.feed.coding import hop
from edged.feed.coding import snapshot as snapshotcoding
from edged.feed.coding.changes import Change, sort_key
from edged.feed.coding.modelledhop import encode_mass
from edged.feed.coding.wholehop import PLACES_EACH, encode_whole
from edged.feed.rollout import bucket_of
from edged.feed.trust import cose, sealing
from edged.feed.trust import root as trust
from tests.vectors import mass as mass_cases

HERE = Path(__file__).parent
ZSTD = ".".join(map(str, zstandard.ZSTD_VERSION))
SIGNED_AT = 1_790_000_000  # 2026-09-21T14:13:20Z
EXPIRES_AT = SIGNED_AT + 730 * 86_400
AHEAD_KEY = bytes(range(32))  # of a version ahead
Json = dict[str, Any]


def secret(name: str) -> bytes:
    """The 32-byte seed of a key for tests. Everybody knows it, so nothing but tests may trust it."""
    return hashlib.sha256(f"edged test key {name}".encode()).digest()


def signing_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secret(name))


def public(name: str) -> bytes:
    return cose.public_bytes(signing_key(name))


TITLES: dict[str, Json] = {
    "1931/The_Quiet_Orchard": {"title": "The Quiet Orchard", "year": 1931, "genres": ["Drama"], "rating": 6.5},
    "1999/Bridge_of_Torvika": {"title": "Bridge of Torvika", "year": 1999, "genres": ["Crime", "Drama"], "rating": 7.1},
    "2024/Último_Verão": {"title": "Último Verão", "year": 2024, "genres": [], "rating": None, "region": ["BR"]},
}
ROWS: dict[str, Json] = {"home/00": {"name": "Trending now", "titles": ["1999/Bridge_of_Torvika"]}}

OLD = {("rows", key): cbor.encode_record(value, key) for key, value in ROWS.items()} | {
    ("titles", key): cbor.encode_record(value, key) for key, value in TITLES.items()
}
CHANGES = [
    Change(
        "rows", "home/00", cbor.encode({"name": "Trending now", "titles": ["2025/Signal", "1999/Bridge_of_Torvika"]})
    ),
    Change("titles", "1931/The_Quiet_Orchard", None),
    Change("titles", "1999/Bridge_of_Torvika", cbor.encode({**TITLES["1999/Bridge_of_Torvika"], "rating": 7.2})),
    Change(
        "titles", "2025/Signal", cbor.encode({"title": "Signal", "year": 2025, "genres": ["Thriller"], "rating": 8})
    ),
]


class Held:
    """Records in memory, as hop coding looks them up."""

    def __init__(self, records: Mapping[tuple[str, str], bytes]) -> None:
        self.records = dict(records)
        self.order = sorted((collection, key.encode()) for collection, key in records)

    def get(self, collection: str, key: str) -> bytes | None:
        return self.records.get((collection, key))

    def keys(self, collection: str) -> Iterator[str]:
        return (key.decode() for name, key in self.order if name == collection)

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        place = bisect.bisect_left(self.order, (collection, key.encode())) - 1
        if place < 0 or self.order[place][0] != collection:
            return None
        found = self.order[place][1].decode()
        return found, self.records[collection, found]


def after_changes() -> dict[tuple[str, str], bytes]:
    new = dict(OLD)
    for change in CHANGES:
        if change.value is None:
            del new[change.collection, change.key]
        else:
            new[change.collection, change.key] = change.value
    return new


def records_json(records: Mapping[tuple[str, str], bytes]) -> list[Json]:
    ordered = sorted(records.items(), key=lambda item: (item[0][0], item[0][1].encode()))
    return [{"collection": where[0], "key": where[1], "value": value.hex()} for where, value in ordered]


def digest_of(records: Mapping[tuple[str, str], bytes]) -> digest.SetHash:
    total = digest.SetHash()
    for (collection, key), value in records.items():
        total.add(collection, key, value)
    return total


# --- the files -------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    23,
    24,
    -1,
    -257,
    65_536,
    (1 << 64) - 1,
    -(1 << 63),
    0.0,
    -0.0,
    1.5,
    0.1,
    1e300,
    "",
    "Verão 🌊",
    [],
    [1, [2, [3]]],
    {},
    {"b": 1, "a": 2, "aa": 3, "": 4},
    TITLES["2024/Último_Verão"],
]
REFUSED = {
    "1801": "an integer that is not in its shortest form",
    "fb3ff8000000000000": "a float that a shorter one expresses",
    "9f01ff": "an array of indefinite length",
    "7f6161ff": "a text of indefinite length",
    "a2616101616102": "a map with the same key twice",
    "a2616201616102": "a map whose keys are not in order",
    "c074323032362d30392d32315430303a30303a30305a": "a tag",
    "f7": "undefined",
    "0101": "a second item after the first",
    "6261": "a text cut short",
    "61ff": "a text that is not UTF-8",
    "81" * 65 + "01": "nested deeper than 64 levels",
}


def cbor_file() -> Json:
    accepted = [{"json": value, "cbor": cbor.encode_record(value, "vector").hex()} for value in VALUES]
    return {"accepted": accepted, "refused": [{"cbor": data, "why": why} for data, why in REFUSED.items()]}


def digest_file() -> Json:
    one = dict(list(OLD.items())[:1])
    cases: dict[str, Mapping[tuple[str, str], bytes]] = {
        "no record": {},
        "one record": one,
        "four records": OLD,
        "after the hop of hop.json": after_changes(),
        "an empty value and a key of one byte": {("c", "k"): b""},
    }
    return {
        "cases": [
            {
                "name": name,
                "records": records_json(records),
                "state_sha256": hashlib.sha256(digest_of(records).state()).hexdigest(),
                "state_begin": digest_of(records).state()[:32].hex(),
                "digest": digest_of(records).digest().hex(),
            }
            for name, records in cases.items()
        ]
    }


def first_root() -> trust.Root:
    roots = trust.role_of(2, [public("root a"), public("root b"), public("root c")])
    return trust.Root(1, SIGNED_AT, EXPIRES_AT, roots, trust.role_of(1, [public("head 1")]))


def second_root() -> trust.Root:
    """Root key a gives way to d, the head key to another."""
    roots = trust.role_of(2, [public("root b"), public("root c"), public("root d")])
    return trust.Root(2, SIGNED_AT + 3600, EXPIRES_AT + 3600, roots, trust.role_of(1, [public("head 2")]))


def trust_file() -> Json:
    names = ("root a", "root b", "root c", "root d", "head 1", "head 2")
    signed = ((first_root(), ("root a", "root b")), (second_root(), ("root b", "root c", "root d")))
    return {
        "aad": trust.AAD.hex(),
        "keys": {
            name: {"seed": secret(name).hex(), "public": public(name).hex(), "id": cose.key_id(public(name)).hex()}
            for name in names
        },
        "roots": [
            {
                "number": root.number,
                "signed_by": list(signers),
                "payload": trust.encode_root(root).hex(),
                "document": trust.sign_root(root, [signing_key(name) for name in signers]).hex(),
            }
            for root, signers in signed
        ],
    }


def dictionary() -> bytes:
    """One of raw content, without entropy tables: a collection's name, then values of it."""
    return cbor.encode("titles") + b"".join(cbor.encode(value) for value in TITLES.values())


def packed_dictionary() -> bytes:
    return snapshotcoding.pack_dictionary(dictionary())


def snapshot_parts() -> list[bytes]:
    records = [(item["collection"], item["key"], bytes.fromhex(item["value"])) for item in records_json(OLD)]
    return list(snapshotcoding.encode_snapshot(records, dictionary()))


def snapshot_file() -> Json:
    return {
        "zstd": ZSTD,
        "dictionary": dictionary().hex(),
        "dictionary_blob": packed_dictionary().hex(),
        "records": records_json(OLD),
        "parts": [part.hex() for part in snapshot_parts()],
    }


def hop_blob(dictionary_used: bytes = b"") -> bytes:
    return hop.pack_hop(CHANGES, Held(OLD), dictionary_used)


def hop_file() -> Json:
    cases = []
    for name, used in (("without a dictionary", b""), ("with a dictionary", dictionary())):
        tag = hop.tag_of(used).hex()
        cases.append({"name": f"patches {name}", "dictionary": used.hex(), "tag": tag, "blob": hop_blob(used).hex()})
        for form, blob in (("patches of many", mass(used)), ("whole records", whole(used, by_key=False))):
            cases.append({"name": f"{form} {name}", "dictionary": used.hex(), "tag": tag, "blob": blob.hex()})
        blob = whole(used, by_key=True)
        cases.append({"name": f"whole records by key {name}", "dictionary": used.hex(), "tag": tag, "blob": blob.hex()})
    return {
        "zstd": ZSTD,
        "old": records_json(OLD),
        "new": records_json(after_changes()),
        "changes": [
            {"collection": c.collection, "key": c.key, "value": None if c.value is None else c.value.hex()}
            for c in CHANGES
        ],
        "cases": cases,
    }


def whole(dictionary_used: bytes, *, by_key: bool) -> bytes:
    """The same hop in form 1, which a publisher takes for large ones. by_key: as if there were many other records."""
    entries = [(change.collection, change.key, change.value) for change in sorted(CHANGES, key=sort_key)]
    coded = encode_whole(entries, Held(OLD), dictionary_used, places_each=0 if by_key else PLACES_EACH)
    return bytes([hop.FORMAT]) + hop.tag_of(dictionary_used) + bytes([hop.WHOLE]) + coded


def mass(dictionary_used: bytes) -> bytes:
    """The same hop in form 3, which a publisher takes for many changes."""
    entries = [(change.collection, change.key, change.value) for change in CHANGES]
    coded = encode_mass(entries, Held(OLD), dictionary_used)
    return bytes([hop.FORMAT]) + hop.tag_of(dictionary_used) + bytes([hop.MASS]) + coded


def laid_file() -> Json:
    """The same hop in form 4, and one of as many changes as have their sum beside them."""
    counted = {("titles", f"t{number:02}"): cbor.encode({"plays": number}) for number in range(laidhop.SUMMED)}
    counting = [
        Change(collection, key, cbor.encode({"plays": 1000 + number}) if number else None)
        for number, (collection, key) in enumerate(counted)
    ]
    cases = []
    for name, old, changes in (("a few changes", OLD, CHANGES), ("with a sum", counted, counting)):
        blob = laidhop.pack_laid(sorted(changes, key=sort_key), Held(old), dictionary())
        new = {where: value for where, value in ({**old, **valued(changes)}).items() if value is not None}
        cases.append(
            {
                "name": name,
                "old": records_json(old),
                "new": records_json(new),
                "digest": digest_of(new).digest().hex(),
                "blob": blob.hex(),
            }
        )
    return {"zstd": ZSTD, "dictionary": dictionary().hex(), "cases": cases}


def valued(changes: list[Change]) -> dict[tuple[str, str], bytes | None]:
    return {(change.collection, change.key): change.value for change in changes}


def example_schema() -> schema.Schema:
    rule = schema.ViewRule(
        ("title", "year", "poster.w342"), {"extract": 200}, {"title": "name"}, {"names": ("pt", "en")}
    )
    collections = {"titles": schema.CollectionSchema(("year", "genres"), ("title", "cast"))}
    return schema.Schema(collections, {"stb-basic": {"titles": rule}})


def example_chain() -> chain.Chain:
    parts = tuple(BlobRef.of(part) for part in snapshot_parts())
    blob = BlobRef.of(packed_dictionary())
    snapshot = chain.SnapshotRef(1, digest_of(OLD).digest(), len(OLD), blob, parts)
    delta = head.HopRef(1, 2, BlobRef.of(hop_blob(dictionary())))
    none = chain.SliceChain((chain.SnapshotRef(0, digest.EMPTY_DIGEST, 0, None, ()),))
    return chain.Chain(
        "catalog", 2, example_schema(), {"core": chain.SliceChain((snapshot,), (delta,)), "region-de": none}
    )


def chain_file() -> Json:
    blob = chain.encode_chain(example_chain())
    return {"zstd": ZSTD, "cbor": zstd.decompress(blob, "chain", 1 << 20).hex(), "blob": blob.hex()}


def takedown_file() -> Json:
    entries = [("titles", "1931/The_Quiet_Orchard"), ("titles", "2024/Último_Verão"), ("rows", "home/00")]
    blob = takedowns.encode_takedowns(entries)
    return {
        "zstd": ZSTD,
        "entries": [{"collection": collection, "key": key} for collection, key in sorted(entries)],
        "cbor": zstd.decompress(blob, "takedowns", 1 << 20).hex(),
        "blob": blob.hex(),
    }


def example_head() -> head.Head:
    """Version 2: `core` changed by the hop of hop.json, which is inlined and also a blob; `region-de` still empty."""
    blob = hop_blob(dictionary())
    new = after_changes()
    hops = (head.HopRef(1, 2, BlobRef.of(blob), blob), head.HopRef(0, 2, BlobRef(hashlib.sha256(b"").digest(), 70_000)))
    return head.Head(
        dataset="catalog",
        version=2,
        signed_at=SIGNED_AT + 7200,
        fresh_s=3600,
        expires_s=7 * 86_400,
        root=1,
        schema_version=1,
        chain=BlobRef.of(chain.encode_chain(example_chain())),
        slices={
            "core": head.SliceHead(2, digest_of(new).digest(), len(new), hops),
            "region-de": head.SliceHead(0, digest.EMPTY_DIGEST, 0),
        },
        takedowns=BlobRef.of(bytes.fromhex(takedown_file()["blob"])),
    )


def head_file() -> Json:
    offering = offering_head()
    assert offering.offer is not None
    return {
        "zstd": ZSTD,
        "aad": head.AAD.hex(),
        "key": "head 1",
        "payload": head.encode_head(example_head()).hex(),
        "document": trust.sign_head(example_head(), signing_key("head 1")).hex(),
        "offering": {
            "payload": head.encode_head(offering).hex(),
            "device_id": "a box",
            "bucket": bucket_of(offering.offer.salt, "a box"),
        },
        "ahead": ahead_vectors(),
        "patch": patch_vectors(),
    }


def patch_vectors() -> Json:
    """The head signed anew a minute later, as what differs from the one above."""
    before = trust.sign_head(example_head(), signing_key("head 1"))
    later = replace(example_head(), signed_at=example_head().signed_at + 60)
    after = trust.sign_head(later, signing_key("head 1"))
    return {"document": after.hex(), "patch": (patch.encode_patch(before, after) or b"").hex()}


def ahead_vectors() -> Json:
    """A hop of `core` sealed, a head that has it fetched, and one that gives the key."""
    bound = sealing.bound_to(example_head().dataset, "core", 2, 3)
    sealed_hop = sealing.seal(AHEAD_KEY, bound, b"the bytes of a hop")
    return {
        "key": AHEAD_KEY.hex(),
        "bound_to": bound.hex(),
        "hop": b"the bytes of a hop".hex(),
        "sealed": sealed_hop.hex(),
        "announcing": head.encode_head(announcing_head(sealed_hop)).hex(),
        "releasing": head.encode_head(releasing_head(sealed_hop)).hex(),
    }


def announcing_head(sealed_hop: bytes) -> head.Head:
    """The same with version 3 ahead, to be fetched within five minutes."""
    hops = {"core": sealed.SealedHop(2, BlobRef.of(sealed_hop))}
    return replace(example_head(), ahead=sealed.Ahead(3, example_head().signed_at, 300, hops))


def releasing_head(sealed_hop: bytes) -> head.Head:
    """Version 3, with the key of what was fetched ahead of it."""
    hops = {"core": sealed.SealedHop(2, BlobRef.of(sealed_hop))}
    core = head.SliceHead(3, digest.EMPTY_DIGEST, 0)
    slices = {"core": core, "region-de": head.SliceHead(0, digest.EMPTY_DIGEST, 0)}
    return replace(example_head(), version=3, slices=slices, released=sealed.Released(AHEAD_KEY, hops))


def offering_head() -> head.Head:
    """The same with version 3, in which `core` is empty again, offered to a twentieth of the devices."""
    ref = BlobRef(hashlib.sha256(b"").digest(), 600)
    core = head.SliceHead(3, digest.EMPTY_DIGEST, 0, (head.HopRef(2, 3, ref),))
    slices = {"core": core, "region-de": head.SliceHead(0, digest.EMPTY_DIGEST, 0)}
    return replace(example_head(), offer=head.Offer(b"saltsalt", 50, 3, slices, ref, 1))


def bundle_file() -> Json:
    blobs = [packed_dictionary(), *snapshot_parts(), hop_blob(dictionary()), chain.encode_chain(example_chain())]
    blobs.append(bytes.fromhex(takedown_file()["blob"]))
    packed = bundle.Bundle(
        dataset="catalog",
        slices=frozenset(example_head().slices),
        head=trust.sign_head(example_head(), signing_key("head 1")),
        roots={item["number"]: bytes.fromhex(item["document"]) for item in trust_file()["roots"]},
        blobs=tuple(BlobRef.of(blob) for blob in blobs),
    )
    return {"zstd": ZSTD, "file": (packed.encode() + b"".join(blobs)).hex()}


def mass_file() -> Json:
    return {"zstd": ZSTD, "cases": [{"name": name, **mass_cases.described(data)} for name, data in mass_cases.cases()]}


FILES = {
    "mass": mass_file,
    "cbor": cbor_file,
    "digest": digest_file,
    "trust": trust_file,
    "head": head_file,
    "chain": chain_file,
    "takedowns": takedown_file,
    "snapshot": snapshot_file,
    "hop": hop_file,
    "laid": laid_file,
    "bundle": bundle_file,
}


def main(directory: Path) -> None:
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1, ensure_ascii=False)
        (directory / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
