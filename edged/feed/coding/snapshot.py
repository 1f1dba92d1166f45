"""Snapshots: a slice's whole content in parts, each fetched, checked and decoded on its own, and its dictionary.

A part is one zstd frame over its records by columns. The dictionary is a sample of whole records behind zstd's entropy
tables; hops are coded with it, a replica compresses each record with it, and so is a part where that is smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.coding.columns import Record, apart, read_columns, together, write_columns
from edged.feed.coding.knowledge import tables_size
from edged.feed.coding.octets import Octets, read_section, write_section
from edged.feed.names import check_collection, check_key

PLAIN, WITH_DICTIONARY = 1, 2  # formats of a part
LEVEL = 19
TRIAL = zstd.FrameForm(level=5)  # tells as well which grouping suits a part, in a twentieth of the time
PART_CONTENT_BYTES = 3 << 20  # of keys and values in one part: some 0.2 to 0.8 MB as it travels
SMALL_PART_BYTES = 1 << 18  # a part of no more is tried with the dictionary; in larger ones it is of no use
SAMPLE_BYTES = 2 << 20  # that a dictionary is trained on
RECORD_LEVEL = 10  # at which a replica compresses records, so that the tables suit what is left of them then
SEGMENT_BYTES = 512  # only the tables of what is trained are used
DICTIONARY_SHARE = 16  # the dictionary takes at most one of so many parts of the content's bytes
DICTIONARY_LEAST_BYTES = 2048


def sample_evenly(records: Iterable[tuple[str, str, bytes]], most_bytes: int) -> tuple[list[tuple[str, bytes]], int]:
    """(collection, value) at even distances, together at most `most_bytes`, and the bytes of all values seen.

    Goes over `records` once and holds no more than the sample.
    """
    kept: list[tuple[str, bytes]] = []
    size, step, seen = 0, 1, 0
    for place, (collection, _, value) in enumerate(records):
        seen += len(value)
        if place % step:
            continue
        kept.append((collection, value))
        size += len(value)
        while size > most_bytes and len(kept) > 1:
            kept = kept[::2]
            step *= 2
            size = sum(len(item) for _, item in kept)
    return kept, seen


def train_dictionary(records: Iterable[tuple[str, str, bytes]], size: int = 64 << 10) -> bytes:
    """A dictionary of at most `size` bytes for a slice with these (collection, key, value), in order.

    Entropy tables as zstd trains them (none where there is too little to train on), then whole values, before the
    first of each collection its name: what edged.feed.coding.knowledge reads. Empty for a slice of next to nothing.
    """
    sample, seen = sample_evenly(records, SAMPLE_BYTES)
    size = min(size, max(DICTIONARY_LEAST_BYTES, seen // DICTIONARY_SHARE))
    tables = train_tables([value for _, value in sample], size)
    room = size - len(tables)
    content = bytearray()
    step = max(1.0, sum(len(value) for _, value in sample) / max(room, 1))
    place, named = 0.0, ""
    while place < len(sample):
        collection, value = sample[int(place)]
        item = (cbor.encode(collection) if collection != named else b"") + value
        if len(content) + len(item) <= room:
            named = collection
            content += item
        place += step
    # zstd takes a dictionary's first repeat offsets, up to 8, as they are
    return tables + bytes(content) if len(content) >= 8 else b""


def train_tables(sample: Sequence[bytes], size: int) -> bytes:
    """The head of a zstd dictionary of `size` bytes: magic number, id and entropy tables, without content."""
    trained = zstd.train(sample, size, RECORD_LEVEL, SEGMENT_BYTES)
    return trained[: tables_size(trained)]


def pack_dictionary(dictionary: bytes) -> bytes:
    """The dictionary as a blob."""
    return zstd.compress(dictionary)


def unpack_dictionary(data: bytes) -> bytes:
    """The dictionary in a blob. Raises WireError."""
    return zstd.decompress(data, "dictionary", limits.DICTIONARY_BYTES)


def encode_snapshot(
    records: Iterable[tuple[str, str, bytes]], dictionary: bytes, *, level: int = LEVEL
) -> Iterator[bytes]:
    """The parts of a snapshot of (collection, key, value) in the order of collection and key, a part at a time."""
    for batch in batches(records):
        yield encode_part(batch, dictionary, level)


def batches(records: Iterable[tuple[str, str, bytes]]) -> Iterator[list[Record]]:
    """Records a part at a time. Raises WireError for what is not in order, or not a name or key."""
    batch: list[Record] = []
    size = 0
    last = (b"", b"")
    for collection, key, value in records:
        name = (check_collection(collection).encode(), check_key(key).encode())
        if name <= last:
            raise WireError(f"encode snapshot: {collection}/{key!r} is not in order")
        last = name
        weight = len(name[1]) + len(value)
        if batch and size + weight > PART_CONTENT_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((*name, value))
        size += weight
    if batch:
        yield batch


def encode_part(batch: Sequence[Record], dictionary: bytes, level: int) -> bytes:
    """One part, its columns grouped as a quick trial says."""
    contents = [write_columns(batch, grouping) for grouping in (apart, together)]
    content = min(contents, key=lambda tried: len(zstd.compress(tried, TRIAL)))
    out = bytearray([PLAIN])
    write_section(out, content, b"", level, last=True)
    if dictionary and len(content) <= SMALL_PART_BYTES:
        other = bytearray([WITH_DICTIONARY])
        write_section(other, content, dictionary, level, last=True)
        if len(other) < len(out):
            out = other
    return bytes(out)


def decode_part(data: bytes, dictionary: bytes, *, max_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """The (collection, key, value) of one part, in order. Raises WireError, at the latest where it comes to the fault.

    max_bytes bounds its content: keys and values together, and what is unpacked at once to make them.
    """
    octets = Octets(data, "snapshot part")
    form = octets.byte()
    if form not in (PLAIN, WITH_DICTIONARY):
        raise WireError(f"decode snapshot part: format {form} is not known here; update edged")
    content = read_section(octets, dictionary if form == WITH_DICTIONARY else b"", "content", max_bytes, last=True)
    octets.end()
    yield from read_columns(content, max_bytes)
