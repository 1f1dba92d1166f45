"""Snapshots: a slice's whole content in parts, each fetched, checked and decoded on its own, and its dictionary.

The dictionary is a sample of whole records behind zstd's entropy tables. Because they are whole records, the parts
refer to them instead of repeating them, so the dictionary costs the snapshot next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import zstandard

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.knowledge import TABLES_END, tables_size
from edged.feed.names import check_collection, check_key
from edged.feed.octets import Octets, decode_text, shared_bytes, write_counted, write_varint
from edged.feed.sections import read_section, write_section

PART = 1  # format: keys, separated values
LEVEL = 19
PART_CONTENT_BYTES = 6 << 20  # of keys and values in one part: about 1 MB as it travels
SAMPLE_BYTES = 2 << 20


def sample_evenly(records: Iterable[tuple[str, str, bytes]], most_bytes: int) -> list[tuple[str, bytes]]:
    """Values at even distances over all of `records`, together at most `most_bytes`, seen once and held boundedly."""
    kept: list[tuple[str, bytes]] = []
    size, step = 0, 1
    for place, (collection, _, value) in enumerate(records):
        if place % step:
            continue
        kept.append((collection, value))
        size += len(value)
        while size > most_bytes and len(kept) > 1:
            kept = kept[::2]
            step *= 2
            size = sum(len(item) for _, item in kept)
    return kept


def train_dictionary(records: Iterable[tuple[str, str, bytes]], size: int = 64 << 10) -> bytes:
    """A dictionary of at most `size` bytes for a slice with these (collection, key, value).

    Entropy tables as zstd trains them, then whole values. Without tables where there is too little to train on.
    """
    sample = sample_evenly(records, SAMPLE_BYTES)
    tables = train_tables([value for _, value in sample])
    room = size - len(tables)
    content: list[bytes] = []
    step = max(1.0, sum(len(value) for _, value in sample) / max(room, 1))
    place, named = 0.0, ""
    while place < len(sample):
        collection, value = sample[int(place)]
        item = (cbor.encode(collection) if collection != named else b"") + value
        if len(item) <= room:
            named = collection
            content.append(item)
            room -= len(item)
        place += step
    if sum(map(len, content)) < len(TABLES_END):
        return b""
    return tables + b"".join(content)


def train_tables(sample: Sequence[bytes]) -> bytes:
    """The head of a zstd dictionary: magic number, id and entropy tables, without content."""
    try:
        trained = zstandard.train_dictionary(16 << 10, list(sample), level=LEVEL, dict_id=1).as_bytes()
    except zstandard.ZstdError:  # too few or too small samples; a raw dictionary needs no tables
        return b""
    return trained[: tables_size(trained)]


def pack_dictionary(dictionary: bytes) -> bytes:
    """The dictionary as a blob."""
    return zstd.compress(dictionary, 22)


def unpack_dictionary(data: bytes) -> bytes:
    """The dictionary in a blob. Raises WireError."""
    return zstd.decompress(data, "dictionary", limits.DICTIONARY_BYTES)


def encode_snapshot(
    records: Iterable[tuple[str, str, bytes]], dictionary: bytes, *, level: int = LEVEL
) -> Iterator[bytes]:
    """The parts of a snapshot of (collection, key, value) in the order of collection and key, a part at a time."""
    batch: list[tuple[bytes, bytes, bytes]] = []
    size = 0
    for collection, key, value in records:
        entry = (check_collection(collection).encode(), check_key(key).encode(), value)
        if batch and entry[:2] <= batch[-1][:2]:
            raise WireError(f"encode snapshot: {collection}/{key!r} is not in order")
        weight = len(entry[1]) + len(value)
        if size + weight > PART_CONTENT_BYTES and batch:
            yield encode_part(batch, dictionary, level)
            batch, size = [], 0
        batch.append(entry)
        size += weight
    if batch:
        yield encode_part(batch, dictionary, level)


def encode_part(batch: list[tuple[bytes, bytes, bytes]], dictionary: bytes, level: int) -> bytes:
    out = bytearray([PART])
    keys = bytearray()
    current, previous = b"", b""
    counts: dict[bytes, int] = {}
    for collection, _, _ in batch:
        counts[collection] = counts.get(collection, 0) + 1
    for collection, key, _ in batch:
        if collection != current:
            current, previous = collection, b""
            write_counted(keys, collection)
            write_varint(keys, counts[collection])
        shared = shared_bytes(previous, key)
        write_varint(keys, shared)
        write_counted(keys, key[shared:])
        previous = key
    write_section(out, bytes(keys), dictionary, level)
    values = b"".join(value for _, _, value in batch)
    used = set(values)
    mark = next((octet for octet in range(255, -1, -1) if octet not in used), None)
    if mark is None:
        sizes = bytearray()
        for _, _, value in batch:
            write_varint(sizes, len(value))
        out += b"\0\0"
        write_section(out, bytes(sizes), dictionary, level)
    else:
        out += bytes([1, mark])
        values = bytes([mark]).join(value for _, _, value in batch)
    write_section(out, values, dictionary, level, last=True)
    return bytes(out)


def decode_part(data: bytes, dictionary: bytes, *, max_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """The (collection, key, value) of one part, in order. max_bytes bounds its content. Raises WireError."""
    octets = Octets(data, "snapshot part")
    form = octets.byte()
    if form != PART:
        raise WireError(f"decode snapshot part: format {form} is not known here; update edged")
    names = list(part_keys(read_section(octets, dictionary, "keys", max_bytes), max_bytes))
    marked, mark = octets.byte(), octets.byte()
    if marked > 1 or (not marked and mark):
        raise WireError(f"decode snapshot part: marks {marked} and {mark} are not known here")
    if marked:
        values = read_section(octets, dictionary, "values", max_bytes, last=True).split(bytes([mark]), len(names))
    else:
        sizes = Octets(read_section(octets, dictionary, "sizes", max_bytes), "snapshot part, sizes")
        content = Octets(read_section(octets, dictionary, "values", max_bytes, last=True), "snapshot part, values")
        values = [content.take(sizes.varint(limits.VALUE_BYTES, "size of a value")) for _ in names]
        sizes.end()
        content.end()
    octets.end()
    if len(values) != len(names):
        raise WireError(f"decode snapshot part: expected {len(names)} values, got {len(values)} or more")
    for (collection, key), value in zip(names, values, strict=True):
        yield collection, key, value


def part_keys(data: bytes, max_bytes: int) -> Iterator[tuple[str, str]]:
    octets = Octets(data, "snapshot keys")
    collection, spent = b"", 0
    while octets.at < len(data):
        name = octets.counted(limits.NAME_CHARACTERS, "size of a collection's name")
        if name <= collection:
            raise WireError("decode snapshot keys: collections are not in order")
        collection, previous = name, b""
        text = check_collection(decode_text(name, "snapshot keys"))
        for _ in range(octets.varint(len(data), "number of records")):
            shared = octets.varint(len(previous), "shared bytes of a key")
            key = previous[:shared] + octets.counted(limits.KEY_BYTES, "size of a key")
            if key <= previous:
                raise WireError("decode snapshot keys: keys are not in order")
            spent += len(key)
            if spent > max_bytes:
                raise WireError(f"decode snapshot keys: more than {max_bytes} bytes of keys")
            yield text, check_key(decode_text(key, "snapshot keys"))
            previous = key
