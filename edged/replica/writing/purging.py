"""Takedowns on the device: what is taken down leaves packs and dictionaries too, where hiding only keeps it from apps.

The hop that comes with a takedown takes the record out of the content. Where a pin holds a version whose content has
it, it is cut out: that slice is then no signed version's, and the next one is taken from a snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import cbor2

from edged.errors import DamageError
from edged.feed.coding.changes import Change
from edged.feed.coding.knowledge import samples, without
from edged.replica.audit import packs_in
from edged.replica.files import disk as files
from edged.replica.files.manifest import file_name
from edged.replica.files.settings import ReplicaSettings, takedown_mark
from edged.replica.files.touched import read_touched
from edged.replica.layers.layers import Layers
from edged.replica.layers.pool import Pool
from edged.replica.packs.pack import Pack
from edged.replica.writing.compaction import Merge, MergePolicy
from edged.replica.writing.live import Live
from edged.replica.writing.staging import Staging

SHORT_BYTES, PIECE_BYTES = 6, 12
FEW = 2  # samples that share what is no commonplace


def purge(live: Live) -> int:
    """Rid every slice of what is taken down. Returns the bytes written to flash.

    A slice found damaged is marked, and fetched anew without it. Raises StoreError; what is held is then as it was.
    """
    settings = live.settings()
    if settings is None:
        return 0
    start, mark = live.flash_bytes_written, takedown_mark(settings)
    rid: set[str] = set()
    for name in sorted(live.manifest.slices):
        if live.manifest.slices[name].purged == mark or live.damage_of(name) is not None:
            continue
        try:
            purge_slice(live, name, settings)
        except DamageError as fault:
            live.marked[name] = str(fault)
        else:
            rid.add(name)
    if rid or live.flash_bytes_written != start:
        # Written even where nothing but the mark is new: the version to fall back to must not name the old files.
        slices = {name: state._replace(purged=mark) for name, state in live.manifest.slices.items() if name in rid}
        live.swap(live.manifest._replace(slices={**live.manifest.slices, **slices}), b"", live.manifest.next_file)
        touched = live.root / files.TOUCHED
        if read_touched(touched, live.manifest) is live.manifest:  # a head of a version before, with its hop
            live.disk.remove(files.TOUCHED)
    return live.flash_bytes_written - start


def purge_slice(live: Live, name: str, settings: ReplicaSettings) -> None:
    """Merge a slice anew where its files hold something of a record taken down."""
    layers = live.layers(name)
    packs = [*layers.fresh, *layers.middle, *layers.base, *pointed_into(layers, live.pool)]
    values = {value for collection, key in settings.hidden for value in values_of(packs, collection, key.encode())}
    held = [record for record in settings.hidden if layers.get(*record) is not None]
    if held:
        cut_out(live, name, held)
    dictionaries = {sha256: live.pool.frames_of(sha256).dictionary for sha256 in layers.state.dictionaries}
    tainted = {sha256: resembling(data, values) for sha256, data in dictionaries.items()}
    clean = tuple(sha256 for sha256 in dictionaries if not tainted[sha256])
    if values or len(clean) < len(dictionaries):
        newest = layers.state.dictionaries[-1] if dictionaries else b""
        replacement = (
            without(dictionaries[newest], tainted[newest]) if newest in dictionaries.keys() - set(clean) else b""
        )
        merge = Merge(live, name, MergePolicy())
        merge.use_dictionaries(clean, replacement)
        merge.run("base")


def cut_out(live: Live, name: str, records: Iterable[tuple[str, str]]) -> None:
    """Take records out of the content of the slice's version, durably."""
    held = read_touched(live.root / files.TOUCHED, live.manifest)
    with Staging(live) as staging:
        staged = staging.staged(name)
        changes = [Change(collection, key, None) for collection, key in records]
        staging.apply_changes(name, staged.state.version, changes)
        staged.state = staged.state._replace(cut=True)
        staging.commit(held.version, held.head, as_of=held.as_of, fresh_s=held.fresh_s, expires_s=held.expires_s)


def values_of(packs: Iterable[Pack], collection: str, key: bytes) -> Iterator[bytes]:
    """Every value of a record that lies in one of the packs, replaced ones included. Raises DamageError."""
    for pack in packs:
        place = pack.find(collection, key)
        value = pack.value(place) if place >= 0 else None
        if value is not None:
            yield value


def pointed_into(layers: Layers, pool: Pool) -> Iterator[Pack]:
    """The packs in files of which only values that others point to are read. Raises DamageError."""
    for number in layers.state.remotes:
        file = file_name(number)
        data = pool.map(file)
        for start, size in packs_in(data[:], file):
            pack = Pack(data, start, size, file, number)
            pool.equip(pack)
            yield pack


def resembling(dictionary: bytes, values: set[bytes]) -> set[bytes]:
    """The samples of a dictionary that may be of one of the records `values`, as it is or as it was once.

    A dictionary tells no keys. So a sample goes that shares a piece of text with one of them which few samples have:
    rather too many than one too few.
    """
    wanted = {piece for value in values for piece in pieces(value)}
    if not wanted:
        return set()
    shared = {value: wanted & pieces(value) for _, value in samples(dictionary)}
    count = Counter(piece for found in shared.values() for piece in found)
    return {value for value, found in shared.items() if any(count[piece] <= FEW for piece in found)}


def pieces(value: bytes) -> set[bytes]:
    """All runs of PIECE_BYTES in the texts of a record, and shorter texts that tell something whole."""
    found: set[bytes] = set()
    for text in texts(cbor2.loads(value)):
        data = text.encode()
        if len(data) >= SHORT_BYTES:
            found.update(data[at : at + PIECE_BYTES] for at in range(max(len(data) - PIECE_BYTES, 0) + 1))
    return found


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)
