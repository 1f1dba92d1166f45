"""The whole form of a hop: keys, then whole records by columns, compressed against the old ones laid out alike.

For hops of any size: it decodes in some 20 microseconds a record. Records that were there are named by their places
among all of their collection where many of them change, by their keys otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from edged.errors import WireError
from edged.feed import limits, zstd
from edged.feed.coding.changes import Entry, Lookup
from edged.feed.coding.columns import apart, read_values, together, write_values
from edged.feed.coding.octets import (
    Octets,
    decode_text,
    read_section,
    shared_bytes,
    write_counted,
    write_section,
    write_varint,
)
from edged.feed.names import check_collection, check_key

LEVEL = 19
TRIAL = zstd.FrameForm(level=6)  # tells as well which grouping is the better one
APART_BYTES = 4096  # of content in which grouping is of no consequence
CONTEXT_BYTES = 16 << 20  # of old records; those beyond are not compressed against
GROUPINGS = (apart, together)
BY_KEY, BY_PLACE = 0, 2  # added to the number of the grouping: how old records are named
PLACES_EACH = 256  # records gone past for one change, at most, where they are named by places
CHANGED, NEW, DELETED = range(3)
PLACE_STREAMS = ("kinds", "places", "new keys")


def encode_whole(changes: Sequence[Entry], old: Lookup, dictionary: bytes, *, places_each: int = PLACES_EACH) -> bytes:
    """changes: in the order of collection and key; places_each: see PLACES_EACH."""
    by_place = BY_PLACE if are_dense(changes, old, places_each) else BY_KEY
    out = bytearray([by_place])
    if by_place:
        for stream in pack_places(changes, old):
            write_section(out, stream, dictionary, LEVEL)
    else:
        write_section(out, pack_keys(changes), dictionary, LEVEL)
    context = list(old_values(changes, old))
    values = [value for _, _, value in changes if value is not None]
    layouts = [(write_values(values, grouping), dictionary + write_values(context, grouping)) for grouping in GROUPINGS]
    group = 0
    if len(layouts[0][0]) > APART_BYTES:
        tried = [len(zstd.compress(content, TRIAL, prior)) for content, prior in layouts]
        group = tried.index(min(tried))
    out[0] += group
    write_section(out, *layouts[group], LEVEL, last=True)
    return bytes(out)


def decode_whole(data: bytes, old: Lookup, dictionary: bytes, max_bytes: int) -> list[Entry]:
    """The changes in the order of collection and key. Raises WireError."""
    octets = Octets(data, "hop")
    naming, group = divmod(octets.byte(), 2)
    if naming > 1:
        raise WireError(f"decode hop: naming {naming} is not known here; update edged")
    if naming:
        streams = [read_section(octets, dictionary, name, max_bytes) for name in PLACE_STREAMS]
        keys = list(unpack_places(streams, old, max_bytes))
    else:
        keys = unpack_keys(read_section(octets, dictionary, "keys", max_bytes), max_bytes)
    prior = dictionary + write_values(old_values(keys, old), GROUPINGS[group])
    content = read_section(octets, prior, "values", max_bytes, last=True)
    octets.end()
    count = sum(mark is not None for _, _, mark in keys)
    values = read_values(content, count, max_bytes, "hop values")
    changes = [(collection, key, None if mark is None else next(values)) for collection, key, mark in keys]
    if next(values, None) is not None:
        raise WireError("decode hop: more values than keys")
    return changes


def old_values(changes: Iterable[Entry], old: Lookup) -> Iterator[bytes]:
    """The old bytes of every touched record; for a new one those of its neighbour, which is likely to be like it."""
    room = CONTEXT_BYTES
    last = ("", "")
    for collection, key, _ in changes:
        value = old.get(collection, key)
        if value is None:
            neighbour = old.before(collection, key)
            if neighbour is None or (collection, neighbour[0]) == last:
                continue
            last, value = (collection, neighbour[0]), neighbour[1]
        room -= len(value)
        if room < 0:
            return
        yield value


def are_dense(changes: Sequence[Entry], old: Lookup, each: int) -> bool:
    """Whether so many of their records change that counting those between them is cheaper than naming them."""
    for collection in {change[0] for change in changes}:
        most = each * sum(change[0] == collection for change in changes)
        if next(islice(old.keys(collection), most, None), None) is not None:
            return False
    return True


def pack_places(changes: Sequence[Entry], old: Lookup) -> tuple[bytes, bytes, bytes]:
    """Three streams. Kinds: of each change, a byte; places: of each old record, how many stand between it and the one
    before; new keys: by collection its name and number of changes, and of each new key what it shares and the rest."""
    kinds, places, names = bytearray(), bytearray(), bytearray()
    current, previous = "", b""
    walk: Iterator[str] = iter(())
    for collection, key, value in changes:
        if collection != current:
            current, previous, walk = collection, b"", old.keys(collection)
            write_counted(names, collection.encode())
            write_varint(names, sum(change[0] == collection for change in changes))
        if value is not None and old.get(collection, key) is None:
            kinds.append(NEW)
            shared = shared_bytes(previous, key.encode())
            write_varint(names, shared)
            write_counted(names, key.encode()[shared:])
            previous = key.encode()
            continue
        kinds.append(CHANGED if value is not None else DELETED)
        gap = 0
        for found in walk:
            if found == key:
                break
            gap += 1
        write_varint(places, gap)
    return bytes(kinds), bytes(places), bytes(names)


def unpack_places(streams: Sequence[bytes], old: Lookup, max_bytes: int) -> Iterator[Entry]:
    """The changes with b"" for every value, checked as in unpack_keys."""
    kinds, places, names = (Octets(data, f"hop {what}") for data, what in zip(streams, PLACE_STREAMS, strict=True))
    collection, room = b"", max_bytes
    while names.at < len(names.data):
        name = names.counted(limits.NAME_CHARACTERS, "size of a collection's name")
        if name <= collection:
            raise WireError("decode hop keys: collections are not in order")
        collection, previous, last = name, b"", b""
        text = check_collection(decode_text(name, "hop keys"))
        walk = old.keys(text)
        for _ in range(names.varint(len(kinds.data), "number of changes")):
            kind = kinds.byte()
            if kind == NEW:
                shared = names.varint(len(previous), "shared bytes of a key")
                key = previous = previous[:shared] + names.counted(limits.KEY_BYTES, "size of a key")
            elif kind > DELETED:
                raise WireError(f"decode hop keys: kind {kind} of a change is not known here")
            else:
                found = next(islice(walk, places.varint(limits.BLOB_BYTES, "place of a record"), None), None)
                if found is None:
                    raise WireError("decode hop keys: names a record that is not here; it was made for another version")
                key = found.encode()
            if key <= last:
                raise WireError("decode hop keys: keys are not in order")
            last = key
            room -= len(key)
            if room < 0:
                raise WireError(f"decode hop keys: more than {max_bytes} bytes of keys")
            yield text, check_key(decode_text(key, "hop keys")), None if kind == DELETED else b""
    kinds.end()
    places.end()


def pack_keys(changes: Sequence[Entry]) -> bytes:
    """By collection: its name, the number of changes, and for each what it shares with the key before and the rest."""
    out = bytearray()
    current, previous = "", b""
    counts: dict[str, int] = {}
    for collection, _, _ in changes:
        counts[collection] = counts.get(collection, 0) + 1
    for collection, key, value in changes:
        if collection != current:
            current, previous = collection, b""
            write_counted(out, collection.encode())
            write_varint(out, counts[collection])
        data = key.encode()
        shared = shared_bytes(previous, data)
        write_varint(out, shared * 2 + (value is None))
        write_counted(out, data[shared:])
        previous = data
    return bytes(out)


def unpack_keys(data: bytes, max_bytes: int) -> list[Entry]:
    """The changes with b"" for every value, checked for order and for names that are not acceptable."""
    octets = Octets(data, "hop keys")
    found: list[Entry] = []
    collection, spent = b"", 0
    while octets.at < len(data):
        name = octets.counted(limits.NAME_CHARACTERS, "size of a collection's name")
        if name <= collection:
            raise WireError("decode hop keys: collections are not in order")
        collection, previous = name, b""
        text = check_collection(decode_text(name, "hop keys"))
        for _ in range(octets.varint(len(data), "number of changes")):
            shared, deleted = divmod(octets.varint(len(previous) * 2 + 1, "shared bytes of a key"), 2)
            key = previous[:shared] + octets.counted(limits.KEY_BYTES, "size of a key")
            if key <= previous:
                raise WireError("decode hop keys: keys are not in order")
            spent += len(key)
            if spent > max_bytes:
                raise WireError(f"decode hop keys: more than {max_bytes} bytes of keys")
            found.append((text, check_key(decode_text(key, "hop keys")), None if deleted else b""))
            previous = key
    return found
