"""Point gets: the one path of edged where every tenth of a microsecond is looked at.

`getter` makes one function for one collection of one version. It assumes that bytes are as written, and is told
otherwise by what it finds: a value proves itself by the checksum in its frame, a key by being compared, a miss by the
checksums of the pages it looked at. Whatever does not fit is asked again of the layers, which check what they touch.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edged.errors import DamageError
from edged.replica.frames import MAGIC, DamagedFrame
from edged.replica.layers import Layers
from edged.replica.pack import KEY_PREFIX, PAGE_SHIFT, Pack

Getter = Callable[[str], bytes | None]
STILL = (0,)  # a counter that never moves


def getter(
    layers: Sequence[Layers],
    collection: str,
    hidden: Iterable[str],
    fault: DamageError | None,
    *,
    counter: Any = STILL,
    seen: int = 0,
    moved: Getter | None = None,
) -> Getter:
    """key to value, None where there is none.

    fault: raised for a miss, as the record may be in a damaged slice; moved: asked instead once `counter[0]` is not
    `seen` any more.
    """
    if len(layers) == 1 and fault is None:
        return of_slice(layers[0], collection, hidden, counter, seen, moved)
    parts = [of_slice(one, collection, (), STILL, 0, None) for one in layers]
    lost = frozenset(hidden)

    def get(key: str) -> bytes | None:
        if counter[0] != seen and moved is not None:
            return moved(key)
        if key in lost:
            return None
        for part in parts:
            value = part(key)
            if value is not None:
                return value
        if fault is not None:
            raise fault
        return None

    return get


def probe_of(pack: Pack) -> tuple[Any, ...]:
    """What a probe needs of a pack, in the order in which it unpacks it."""
    shift = pack.table_at - (pack.first_page << PAGE_SHIFT)
    return (
        pack.table, pack.slots, pack.bits, (1 << pack.bits) - 1, pack.offsets, pack.buffer, pack.frames.local,
        pack.seen, shift,
    )  # fmt: skip


def of_slice(  # noqa: C901  # one function because each call inside it costs a tenth of a get
    layers: Layers, collection: str, hidden: Iterable[str], counter: Any, seen: int, moved: Getter | None
) -> Getter:
    """The getter of one slice: a dictionary of fresh entries, then the middle packs, then one base pack."""
    fresh: dict[str, Any] = {**layers.overlay.get(collection, {}), **dict.fromkeys(hidden, False)}
    chain = layers.chains.get(collection)
    packs = chain.packs if chain is not None else []
    firsts = chain.firsts if chain is not None else []
    middles = [pack for pack in layers.middle if collection in pack.meta.spans]
    plain = bool(packs) and all(pack.table is not None and not pack.at for pack in packs)
    base = [probe_of(pack) for pack in packs] if plain else []
    seed = zlib.crc32(collection.encode())
    crc32, prefixes, below, fetch = zlib.crc32, KEY_PREFIX, layers.locate_below, fresh.get

    def thorough(key: str) -> bytes | None:
        found = below(collection, key)
        return None if found is None else found[0].value(found[1])

    def get(key: str) -> bytes | None:
        if counter[0] != seen and moved is not None:
            return moved(key)
        hit = fetch(key)
        if hit is not None:
            return (hit and hit[0].value_after(hit[1], key)) or None
        try:
            word = key.encode()
            word = prefixes[len(word)] + word
        except (UnicodeEncodeError, IndexError):  # in no key
            return None
        value = crc32(word, seed)
        for pack in middles:
            place = pack.probe(collection, word, value)
            if place >= 0:
                return pack.value(place)
        if not base:
            return thorough(key)
        table, slots, bits, mask, offsets, buffer, local, checked, shift = base[bisect_right(firsts, key) - 1]
        slot = first = value % slots
        found = table[slot]
        while found:
            if found >> bits == value >> bits:
                place = (found & mask) - 1
                start = offsets[place]
                middle = start + len(word)
                if buffer[start:middle] == word:
                    try:
                        return local.decompress(MAGIC + buffer[middle : offsets[place + 1]])  # type: ignore[no-any-return]
                    except (DamagedFrame, MemoryError):  # a tombstone, a pointer or damage
                        return thorough(key)
                first = -1 << 40
            slot += 1
            if slot == slots:
                break
            found = table[slot]
        else:
            # A miss stands if the page of the table that says so is known to be whole.
            page = shift + 4 * slot >> PAGE_SHIFT
            if page == shift + 4 * first >> PAGE_SHIFT and checked[page]:
                return None
        return thorough(key)

    return get
