"""Point gets: the one path of edged where every tenth of a microsecond is looked at.

`getter` makes one function for one collection of one version. It assumes that bytes are as written, and is told
otherwise by what it finds: a value proves itself by the checksum in its frame, a key by being compared, a miss by the
checksums of the pages it looked at. Whatever does not fit is asked again of the layers, which check what they touch,
and once more where an entry seems to be the one, but is not, or is a tombstone. A miss by a slot of the hash table
alone rests on the check of its page when that was first used.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from edged.errors import DamageError
from edged.feed import limits
from edged.feed.zstd import MAGIC, DamagedFrame
from edged.replica.layers.layers import ALL_SHOWN, Layers, Shown, SortedRun
from edged.replica.packs.pack import KEY_PREFIX, PAGE_SHIFT, REMOTE_BIT, REMOTE_ENTRY, Pack

Getter = Callable[[str], bytes | None]
ELSEWHERE = -1 << 40  # a slot on no page: a fingerprint was met, so what its entry says has to be checked too


class Hides(Protocol):
    """What of a collection is not there. shown: what of the base is not to be looked at."""

    @property
    def shown(self) -> Shown: ...
    def __call__(self, key: str, pack: Pack, place: int, /) -> bool:
        """Whether the record of a key is not there, its entry being at a place of a pack."""


class HiddenKeys:
    """What is taken down, and nothing else."""

    shown: Shown = ALL_SHOWN

    def __init__(self, keys: Collection[str]) -> None:
        self.keys = keys

    def __call__(self, key: str, pack: Pack, place: int, /) -> bool:
        return key in self.keys


class Following(NamedTuple):
    """When a getter has to ask elsewhere: `moved` is asked once `counter[0]` is not `seen` any more."""

    counter: Any = (0,)
    seen: int = 0
    moved: Getter | None = None


STILL = Following()  # never


def getter(
    layers: Sequence[Layers],
    collection: str,
    hidden: Collection[str],
    fault: DamageError | None,
    following: Following = STILL,
) -> Getter:
    """key to value, None where there is none. fault: raised for a miss, as the record may be in a damaged slice."""
    if len(layers) == 1 and fault is None:
        return of_slice(layers[0], collection, hidden, following)
    parts = [of_slice(one, collection, (), STILL) for one in layers]
    lost = frozenset(hidden)
    counter, seen, moved = following

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


def shown_getter(
    layers: Sequence[Layers],
    collection: str,
    hides: Hides,
    fault: DamageError | None,
    following: Following = STILL,
) -> Getter:
    """As `getter`, of a collection whose records have windows: an entry is found first, and judged by its place."""
    counter, seen, moved = following

    def get(key: str) -> bytes | None:
        if counter[0] != seen and moved is not None:
            return moved(key)
        try:
            if len(key.encode()) > limits.KEY_BYTES:
                return None
        except UnicodeEncodeError:  # in no key
            return None
        for one in layers:
            found = one.locate(collection, key)
            if found is None:
                continue
            pack, place = found
            if hides(key, pack, place):
                return None
            if not pack.frame(place):  # the word of a tombstone is not taken without another look
                pack.recheck(place)
            value = pack.value(place)
            if value is not None:
                return value
        if fault is not None:
            raise fault
        return None

    return get


def probe_of(pack: Pack) -> tuple[Any, ...]:
    """What a probe needs of a pack, in the order in which it unpacks it. The last: from a slot's byte to its page."""
    shift = pack.table_at - (pack.first_page << PAGE_SHIFT)
    return (
        pack.table, pack.slots, (1 << pack.bits) - 1, pack.offsets, pack.buffer, pack.frames.engine,
        pack.seen, shift,
    )  # fmt: skip


def filter_of(pack: Pack | None) -> tuple[bytes, int]:
    """The bits of a pack's filter, and by how much to shift a hash to come to their byte. All set if it has none."""
    if pack is None or not pack.filter:
        return b"\xff", 32
    return pack.filter, 33 - len(pack.filter).bit_length()


def plain(pack: Pack) -> bool:
    """Whether a pack can be probed in place: a file of its own with a hash table."""
    return pack.table is not None and not pack.at


def of_slice(layers: Layers, collection: str, hidden: Collection[str], following: Following) -> Getter:
    """The getter of one slice: a dictionary of fresh entries, then the middle pack, then one base pack."""
    fresh: dict[str, Any] = layers.overlay.get(collection, {})
    if hidden:
        fresh = {**fresh, **dict.fromkeys(hidden, False)}
    chain = layers.chains.get(collection)
    packs = chain.packs if chain is not None else []
    middle = [pack for pack in layers.middle if collection in pack.meta.spans]
    below = layers.locate_below

    def thorough(key: str) -> bytes | None:
        found = below(collection, key)
        if found is None:
            return None
        pack, place = found
        if not pack.frame(place):  # the word of a tombstone is not taken without another look
            pack.recheck(place)
        return pack.value(place)

    if chain is not None and all(map(plain, (*packs, *middle))) and len(middle) <= 1:
        upper = middle[0] if middle else None
        return fast(fresh, upper, chain, collection, thorough, following)
    counter, seen, moved = following

    def get(key: str) -> bytes | None:
        if counter[0] != seen and moved is not None:
            return moved(key)
        hit = fresh.get(key)
        if hit is not None:
            return (hit and hit[0].value_after(hit[1], key)) or None
        try:
            return thorough(key) if len(key.encode()) <= limits.KEY_BYTES else None
        except UnicodeEncodeError:  # in no key
            return None

    return get


MISSED = object()


def middle_getter(pack: Pack, thorough: Getter) -> Callable[[str, bytes, int], Any]:
    """The value of the entry that begins with `word` and hashes to `value`; MISSED where there is none."""
    table, slots, mask, offsets, buffer, local, checked, shift = probe_of(pack)
    remotes = [(buffer, frames.engine) for buffer, frames in pack.remotes]
    unpack, size, first_page = REMOTE_ENTRY.unpack, REMOTE_ENTRY.size, pack.first_page

    def get(key: str, word: bytes, value: int) -> Any:
        slot = first = value % slots
        found = table[slot]
        while found:
            if found ^ value <= mask:
                place = (found & mask) - 1
                start = offsets[place]
                middle = start + len(word)
                if buffer[start:middle] == word:
                    frame = buffer[middle : offsets[place + 1]]
                    try:
                        if len(frame) != size or not frame[0] & REMOTE_BIT:
                            return local.decompress(MAGIC + frame)
                        # A pointer proves nothing of itself, so the pages that it lies on have to be known as whole.
                        page = (middle >> PAGE_SHIFT) - first_page
                        if checked[page] and checked[(middle + size - 1 >> PAGE_SHIFT) - first_page]:
                            _, ordinal, begin, end = unpack(frame)
                            data, frames = remotes[ordinal]
                            return frames.decompress(MAGIC + data[begin:end])
                    except (DamagedFrame, MemoryError, IndexError):  # a tombstone or damage
                        pass
                    return thorough(key)
                first = ELSEWHERE
            slot += 1
            if slot == slots:
                return thorough(key)
            found = table[slot]
        page = shift + 4 * slot >> PAGE_SHIFT
        return MISSED if checked[page] and page == shift + 4 * first >> PAGE_SHIFT else thorough(key)

    return get


def fast(
    fresh: dict[str, Any],
    upper: Pack | None,
    run: SortedRun,
    collection: str,
    thorough: Getter,
    following: Following,
) -> Getter:
    """The getter where all packs can be probed in place."""
    (counter, seen, moved), (firsts, packs) = following, run
    base = [probe_of(pack) for pack in (packs[0], *packs)]  # what sorts before the first key is looked for there too
    seed = zlib.crc32(collection.encode())
    crc32, prefixes, fetch = zlib.crc32, KEY_PREFIX, fresh.get
    probe_upper = middle_getter(upper, thorough) if upper is not None else None
    some, lift = filter_of(upper)

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
        if probe_upper is not None and some[value >> lift] >> (value & 7) & 1:
            data = probe_upper(key, word, value)
            if data is not MISSED:
                return data  # type: ignore[no-any-return]
        table, slots, mask, offsets, buffer, local, checked, shift = base[bisect_right(firsts, key)]
        slot = first = value % slots
        found = table[slot]
        while found:
            if found ^ value <= mask:  # the same high bits
                place = (found & mask) - 1
                start = offsets[place]
                middle = start + len(word)
                if buffer[start:middle] == word:
                    try:
                        return local.decompress(MAGIC + buffer[middle : offsets[place + 1]])  # type: ignore[no-any-return]
                    except (DamagedFrame, MemoryError):  # a tombstone, a pointer or damage
                        return thorough(key)
                first = ELSEWHERE
            slot += 1
            if slot == slots:
                return thorough(key)
            found = table[slot]
        # A miss stands if the page of the table that says so is known to be whole.
        page = shift + 4 * slot >> PAGE_SHIFT
        return None if checked[page] and page == shift + 4 * first >> PAGE_SHIFT else thorough(key)

    return get
