"""The whole form of a hop: keys, then whole records compressed against the old ones. For hops of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edged.errors import WireError
from edged.feed import limits
from edged.feed.cbor import check_items
from edged.feed.coding.changes import Entry, Lookup
from edged.feed.coding.octets import Octets, decode_text, shared_bytes, write_counted, write_varint
from edged.feed.coding.sections import read_section, write_section
from edged.feed.names import check_collection, check_key

LEVEL = 19
CONTEXT_BYTES = 16 << 20  # of old records; those beyond are not compressed against


def encode_whole(changes: Sequence[Entry], old: Lookup, dictionary: bytes) -> bytes:
    """changes: in the order of collection and key."""
    out = bytearray()
    write_section(out, pack_keys(changes), dictionary, LEVEL)
    values = bytearray()
    for _, _, value in changes:
        if value is not None:
            write_counted(values, value)
    write_section(out, bytes(values), dictionary + old_values(changes, old), LEVEL, last=True)
    return bytes(out)


def decode_whole(data: bytes, old: Lookup, dictionary: bytes, max_bytes: int) -> list[Entry]:
    """The changes in the order of collection and key. Raises WireError."""
    octets = Octets(data, "hop")
    keys = unpack_keys(read_section(octets, dictionary, "keys", max_bytes), max_bytes)
    context = dictionary + old_values(keys, old)
    values = Octets(read_section(octets, context, "values", max_bytes, last=True), "hop values")
    octets.end()
    changes: list[Entry] = []
    for collection, key, mark in keys:
        value = None if mark is None else values.counted(limits.VALUE_BYTES, "size of a value")
        if value is not None:
            check_items(value, "decode hop: a value")
        changes.append((collection, key, value))
    values.end()
    return changes


def old_values(changes: Iterable[Entry], old: Lookup) -> bytes:
    """The old bytes of every touched record; for a new one those of its neighbour, which is likely to be like it."""
    found = bytearray()
    last = ("", "")
    for collection, key, _ in changes:
        value = old.get(collection, key)
        if value is None:
            neighbour = old.before(collection, key)
            if neighbour is None or (collection, neighbour[0]) == last:
                continue
            last, value = (collection, neighbour[0]), neighbour[1]
        if len(found) + len(value) > CONTEXT_BYTES:
            break
        found += value
    return bytes(found)


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
