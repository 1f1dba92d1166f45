"""Damaged and hostile bytes for every decoder of the feed: clear errors, little memory, nothing left half decoded."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ChainError, TrustError, WireError
from edged.feed import bundle, cbor, limits, zstd
from edged.feed.blob import BlobRef
from edged.feed.chain import PageRef, decode_chain, decode_page, encode_chain, encode_page
from edged.feed.coding.changes import Change, Entry
from edged.feed.coding.hop import MASS, WHOLE, pack_hop, unpack_hop
from edged.feed.coding.modelledhop import encode_mass
from edged.feed.coding.snapshot import (
    decode_part,
    encode_snapshot,
    pack_dictionary,
    train_dictionary,
    unpack_dictionary,
)
from edged.feed.coding.wholehop import encode_whole
from edged.feed.head import HopRef, Offer, SliceHead, decode_head, encode_head
from edged.feed.takedowns import decode_takedowns, encode_takedowns
from edged.feed.trust import root as trust
from edged.feed.trust import succession
from tests.feed.making import DIGEST, HEAD_KEY, OTHER_KEY, ROOT_KEY, blob, chain, head, root
from tests.sync.simulator import RecordLookup

MEMORY_BYTES = 16 << 20
FAST = zstd.FrameForm(level=1)
PAGE = PageRef(4, 8, 100, blob(50))
RECORDS = [("titles", f"t{n:03}", cbor.encode({"title": f"A film, number {n}", "year": 1900 + n})) for n in range(80)]
DICTIONARY = train_dictionary(RECORDS) or cbor.encode("films and years")
HOP_DICTIONARY = cbor.encode("titles") + b"".join(value for _, _, value in RECORDS[:3])  # a large one takes its time
OLD = RecordLookup({(collection, key): value for collection, key, value in RECORDS})
CHANGES = [
    Change("titles", "t001", cbor.encode({"title": "A film, renamed", "year": 1901})),
    Change("titles", "t002", None),
    Change("titles", "t0800", cbor.encode({"title": "A new one", "year": 2000})),
]


@dataclass(frozen=True, slots=True)
class Decoder:
    """good: bytes that `decode` takes; packed: whether they are one zstd frame, whose content is damaged too."""

    good: bytes
    decode: Callable[[bytes], object]
    packed: bool = False


def offering() -> bytes:
    slices = {"core": SliceHead(8, DIGEST, 12, (HopRef(7, 8, blob(20)),))}
    return encode_head(replace(head(), offer=Offer(b"saltsalt", 50, 8, slices, blob(21), 2)))


def bundled() -> bytes:
    document = trust.sign_head(head(), HEAD_KEY)
    made = bundle.Bundle("catalog", frozenset(["core"]), document, {1: trust.sign_root(root(), [ROOT_KEY])}, (blob(5),))
    return made.encode() + bytes(5)


def read_whole(data: bytes) -> object:
    return bundle.read_layout(io.BytesIO(data))


def hop_of(whole: bool) -> bytes:
    coded = pack_hop(CHANGES, OLD, HOP_DICTIONARY)
    if not whole:
        return coded
    entries = [(change.collection, change.key, change.value) for change in CHANGES]
    return coded[:5] + bytes([WHOLE]) + encode_whole(entries, OLD, HOP_DICTIONARY)


def hop_of_many() -> bytes:
    """Tokens, words in the place of others, values of a small set: each form of a text and of a number."""
    entries: list[Entry] = []
    for number, (collection, key, _) in enumerate(RECORDS[:40]):
        title = f"A play, number {'ten' if number % 2 else 'four'} of {number}"
        token = f"{number * 7919 * 104_729 * 15_485_863:016x}"
        value = {"title": title, "year": 1900 + number, "seed": number << 40, "tier": "ab"[number % 2], "token": token}
        entries.append((collection, key, cbor.encode_record(value, key)))
    return pack_hop([], OLD, HOP_DICTIONARY)[:5] + bytes([MASS]) + encode_mass(entries, OLD, HOP_DICTIONARY)


PART = next(iter(encode_snapshot(RECORDS, DICTIONARY, level=3)))
DECODERS = {
    "head": Decoder(encode_head(head()), decode_head),
    "head that offers": Decoder(offering(), decode_head),
    "signed head": Decoder(trust.sign_head(head(), HEAD_KEY), lambda data: trust.verify_head(data, root(), "catalog")),
    "root of trust": Decoder(
        trust.sign_root(root(), [ROOT_KEY, OTHER_KEY]), lambda data: trust.read_root(data, "root")
    ),
    "kept roots": Decoder(
        succession.restore(trust.sign_root(root(), [ROOT_KEY]), None, "trust file").encode(),
        lambda data: succession.decode_roots(data, "kept roots"),
    ),
    "chain": Decoder(encode_chain(chain()), decode_chain, packed=True),
    "page": Decoder(
        encode_page([HopRef(4, 6, blob(7)), HopRef(6, 8, blob(8))]), lambda data: decode_page(data, PAGE), packed=True
    ),
    "takedowns": Decoder(encode_takedowns({("titles", "a"), ("titles", "b")}), decode_takedowns, packed=True),
    "dictionary": Decoder(pack_dictionary(DICTIONARY), unpack_dictionary, packed=True),
    "snapshot part": Decoder(PART, lambda data: list(decode_part(data, DICTIONARY, max_bytes=limits.PART_BYTES))),
    "hop of patches": Decoder(
        hop_of(whole=False), lambda data: unpack_hop(data, OLD, HOP_DICTIONARY, max_bytes=1 << 20)
    ),
    "hop of many": Decoder(hop_of_many(), lambda data: unpack_hop(data, OLD, HOP_DICTIONARY, max_bytes=1 << 20)),
    "hop of whole records": Decoder(
        hop_of(whole=True), lambda data: unpack_hop(data, OLD, HOP_DICTIONARY, max_bytes=1 << 20)
    ),
    "bundle": Decoder(bundled(), read_whole),
}


@contextmanager
def bounded() -> Iterator[None]:
    """Fails if more than MEMORY_BYTES were needed at once."""
    tracemalloc.start()
    try:
        yield
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most <= MEMORY_BYTES


def tried(decode: Callable[[bytes], object], data: bytes) -> None:
    """Decode, or be refused as content."""
    with suppress(WireError, TrustError, ChainError):  # anything else fails the test
        decode(data)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        match draw(st.integers(0, 3)):
            case 0 if data:
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : at + draw(st.integers(1, 9))]
            case 2:
                data[at:at] = draw(st.binary(min_size=1, max_size=9))
            case _:
                data[at:at] = data[draw(st.integers(0, at)) : at]
    return bytes(data)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_what_is_whole_is_taken(name: str) -> None:
    DECODERS[name].decode(DECODERS[name].good)


@pytest.mark.parametrize("name", sorted(DECODERS))
@given(data=st.data())
def test_damaged_bytes_are_refused_with_little_memory(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    with bounded():
        tried(decoder.decode, data.draw(damaged(decoder.good)))


@pytest.mark.parametrize("name", sorted(name for name, decoder in DECODERS.items() if decoder.packed))
@given(data=st.data())
def test_damage_within_the_frame_is_refused_with_little_memory(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    content = data.draw(damaged(zstd.decompress(decoder.good, "test", 1 << 20)))
    with bounded():
        tried(decoder.decode, zstd.compress(content, FAST))


@pytest.mark.parametrize("name", sorted(DECODERS))
@given(noise=st.binary(max_size=300))
def test_noise_is_refused_with_little_memory(name: str, noise: bytes) -> None:
    with bounded():
        tried(DECODERS[name].decode, noise)


# ---- bombs


def lying(data: bytes, claimed: int, window_log: int | None = None) -> bytes:
    """The frame of `data` with another content size, or window, in its header (RFC 8878 section 3.1.1.1)."""
    frame = zstandard.ZstdCompressor(write_content_size=False, write_checksum=False).compress(data)
    window = zstandard.get_frame_parameters(frame).window_size
    descriptor = (window.bit_length() - 1 if window_log is None else window_log) - 10 << 3
    return frame[:4] + bytes([0b1100_0000, descriptor]) + claimed.to_bytes(8, "little") + frame[6:]


def bombs(most: int) -> dict[str, bytes]:
    return {
        "as large as it says": zstd.compress(bytes(most + 1), FAST),
        "of unknown size": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20)),
        "says less than it holds": lying(bytes(1 << 20), 10),
        "says more than it holds": lying(bytes(10), min(most, 1 << 20)),
        "says 2^63": lying(bytes(10), 1 << 63),
        "a window of 128 MiB": lying(bytes(10), 10, 27),
        "two frames": zstd.compress(b"a") + zstd.compress(b"b"),
        "followed by a skippable frame": zstd.compress(b"a") + b"\x50\x2a\x4d\x18\x01\x00\x00\x00x",
        "cut short": zstd.compress(bytes(range(256)) * 9)[:-3],
        "nothing": b"",
    }


MOST = {
    "chain": limits.CHAIN_BYTES,
    "page": limits.PAGE_BYTES,
    "takedowns": limits.CHAIN_BYTES,
    "dictionary": limits.DICTIONARY_BYTES,
}


@pytest.mark.parametrize("bomb", sorted(bombs(1)))
@pytest.mark.parametrize("name", sorted(MOST))
def test_bombs_in_a_frame(name: str, bomb: str) -> None:
    data = bombs(MOST[name])[bomb]
    with bounded(), pytest.raises(WireError):
        DECODERS[name].decode(data)


def section(content: bytes, claimed: int | None = None) -> bytes:
    """A last section that is compressed, after the format byte of a part without dictionary."""
    frame = zstandard.ZstdCompressor(write_content_size=False, write_checksum=False).compress(content)
    size = (claimed if claimed is not None else len(content)) * 2 + 1
    number = bytearray()
    while size > 127:
        number.append(size & 127 | 128)
        size >>= 7
    return bytes([1, *number, size]) + frame[4:]


@pytest.mark.parametrize("claimed", [0, 10, limits.PART_BYTES, limits.PART_BYTES + 1, 1 << 40, 1 << 62])
def test_bombs_in_a_section(claimed: int) -> None:
    for content in (bytes(1 << 20), b"x"):
        with bounded(), pytest.raises(WireError):
            list(decode_part(section(content, claimed), b"", max_bytes=1 << 20))


# ---- CBOR and names


def listed(item: bytes, count: int, rest: int = 0) -> bytes:
    """A list of so many times the same, and a text of `rest` bytes."""
    text = b"\x7a" + rest.to_bytes(4, "big") + bytes([97]) * rest
    return b"\x9a" + (count + 1).to_bytes(4, "big") + item * count + text


NESTED, MAP_OF_ONE = b"\x81\x81\x81\x80", b"\xa1\x00\x00"
NAMED = ["head", "chain", "page", "takedowns", "root of trust", "bundle"]


@pytest.mark.parametrize(
    ("name", "item", "heads"),
    [*((name, NESTED, 4) for name in NAMED), ("chain", MAP_OF_ONE, 3)],
)
def test_small_items_that_take_much_memory(name: str, item: bytes, heads: int) -> None:
    """A signature proves who sent it, not that it is kind: as many items as fit, and as many as are allowed."""
    most = {"page": limits.PAGE_BYTES, "root of trust": limits.TRUST_BYTES, "head": limits.HEAD_BYTES}.get(
        name, limits.CHAIN_BYTES
    )
    allowed = min(limits.ITEMS - 8, (most - 16) // len(item) * heads) // heads
    for content in (
        listed(item, (most - 16) // len(item)),
        listed(item, allowed, max(0, most - 16 - allowed * len(item))),
    ):
        packed = DECODERS[name].packed
        data = zstd.compress(content, FAST) if packed else content
        if name == "bundle":
            data = bundle.MAGIC + len(content).to_bytes(4, "big") + content
        with bounded(), pytest.raises((WireError, TrustError)):
            DECODERS[name].decode(data)


def test_a_value_of_too_many_items_enters_no_replica() -> None:
    """Every later reader of the value decodes it."""
    value = listed(b"\x80", 1 << 18)
    with pytest.raises(WireError, match="more than 98304 items"):
        cbor.encode_record([[] for _ in range(1 << 18)], "titles/t1")
    part = next(iter(encode_snapshot([("titles", "t1", value)], b"", level=1)))
    with bounded(), pytest.raises(WireError, match="more than 98304 items"):
        list(decode_part(part, b"", max_bytes=limits.PART_BYTES))
    hop = pack_hop([], OLD, b"")[:5] + bytes([WHOLE]) + encode_whole([("titles", "t1", value)], OLD, b"")
    with bounded(), pytest.raises(WireError, match="more than 98304 items"):
        unpack_hop(hop, OLD, b"")


@pytest.mark.parametrize("level", [0x81, 0xA1, 0xD8])
def test_deep_nesting(level: int) -> None:
    for length in (10_000, 1_000_000):
        data = bytes([level]) * length + b"\x00"
        for decode in (decode_head, lambda raw: decode_chain(zstd.compress(raw, FAST))):
            with bounded(), pytest.raises(WireError):
                decode(data)


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("a2010101 01".replace(" ", "")),  # {1: 1, 1: 1}
        bytes.fromhex("a201010102"),  # {1: 1, 1: 2}
        bytes.fromhex("a202010101"),  # out of order
        bytes.fromhex("a1180101"),  # a long form
        bytes.fromhex("bf0101ff"),  # of indefinite length
        bytes.fromhex("9b7fffffffffffffff"),  # a list that says it has 2^63 items
        bytes.fromhex("bb7fffffffffffffff"),
        bytes.fromhex("5b7fffffffffffffff"),
        bytes.fromhex("7b7fffffffffffffff"),
        bytes.fromhex("a10101f6"),  # something after it
    ],
)
def test_cbor_that_can_be_read_in_two_ways(data: bytes) -> None:
    for decode in (decode_head, lambda raw: decode_chain(zstd.compress(raw)), trust.decode_root):
        with bounded(), pytest.raises(WireError):
            decode(data)


OUTSIDE = ["..", "../x", "a/../b", "/etc/passwd", "a\\b", "a\0b", "", ".", "core/", "%2e%2e", "a" * 65, "é", "a..b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_try_to_leave_a_directory(name: str) -> None:
    for wrong in (replace(head(), dataset=name), replace(head(), slices={name: SliceHead(0, DIGEST, 0)})):
        with pytest.raises(WireError):
            decode_head(encode_head(wrong))
    entry = chain().slices["kids"]
    for listed in (replace(chain(), dataset=name), replace(chain(), slices={name: entry})):
        with pytest.raises(WireError):
            decode_chain(encode_chain(listed))
    with pytest.raises(WireError):
        decode_takedowns(zstd.compress(cbor.encode({1: 1, 2: {name: ["a"]}})))


@pytest.mark.parametrize("size", [-1, limits.BLOB_BYTES + 1, 1 << 63])
def test_blobs_of_impossible_sizes(size: int) -> None:
    with pytest.raises(WireError):
        BlobRef.from_cbor([size, DIGEST], "test")
