"""Point gets: the one path of edged where every tenth of a microsecond is looked at.

`getter` makes one function for one collection of one version. It assumes that bytes are as written, and is told
otherwise by what it finds: a value proves itself by the checksum in its frame, its key by being compared. Whatever
does not fit, a miss included, is asked again of the layers, which check the pages that they rely on.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Container, Sequence
from typing import Any

from edged.errors import DamageError
from edged.replica.frames import MAGIC, DamagedFrame
from edged.replica.layers import Layers
from edged.replica.pack import KEY_PREFIX, Pack


def getter(
    layers: Sequence[Layers], collection: str, hidden: Container[str], fault: DamageError | None
) -> Callable[[str], bytes | None]:
    """key to value, None where there is none. fault: raised for a miss, as the record may be in a damaged slice."""

    def thorough(key: str) -> bytes | None:
        for one in layers:
            found = one.locate(collection, key)
            if found is not None:
                value = found[0].value(found[1])
                if value is not None:
                    return value
        if fault is not None:
            raise fault
        return None

    if len(layers) == 1 and not layers[0].middle and layers[0].chains.get(collection) is not None:
        return single(layers[0], collection, hidden, thorough)
    return guarded(hidden, thorough)


def guarded(hidden: Container[str], thorough: Callable[[str], bytes | None]) -> Callable[[str], bytes | None]:
    def get(key: str) -> bytes | None:
        if key in hidden:
            return None
        try:
            return thorough(key)
        except UnicodeEncodeError:  # an unpaired surrogate is in no key
            return None

    return get


def part_of(pack: Pack, dummy: Any = None) -> tuple[Any, ...]:
    """What a probe needs of a pack, in the order in which `single` unpacks it."""
    table = pack.table
    return table, pack.slots, pack.bits, (1 << pack.bits) - 1, pack.offsets, pack.buffer, pack.frames.local


def single(
    layers: Layers, collection: str, hidden: Container[str], thorough: Callable[[str], bytes | None]
) -> Callable[[str], bytes | None]:
    """For one slice without middle packs: a dictionary, then one base pack."""
    chain = layers.chains[collection]
    fresh = layers.overlay.get(collection, {})
    slow = guarded(hidden, thorough)
    if any(pack.table is None or pack.at for pack in chain.packs):
        return slow
    firsts, parts = chain.firsts, [part_of(pack) for pack in chain.packs]
    seed = zlib.crc32(collection.encode())
    crc32, prefixes = zlib.crc32, KEY_PREFIX

    def get(key: str) -> bytes | None:
        if key in fresh or key in hidden:
            return slow(key)
        try:
            word = key.encode()
            word = prefixes[len(word)] + word
        except (UnicodeEncodeError, IndexError):  # in no key
            return None
        table, slots, bits, mask, offsets, buffer, local = parts[bisect_right(firsts, key) - 1]
        value = crc32(word, seed)
        slot = value % slots
        found = table[slot]
        while found:
            if found >> bits == value >> bits:
                place = (found & mask) - 1
                start = offsets[place]
                middle = start + len(word)
                if buffer[start:middle] == word:
                    try:
                        data: bytes = local.decompress(MAGIC + buffer[middle : offsets[place + 1]])
                        return data
                    except (DamagedFrame, MemoryError):  # a tombstone, a pointer or damage
                        return slow(key)
            slot += 1
            if slot == slots:
                break
            found = table[slot]
        return slow(key)

    return get
