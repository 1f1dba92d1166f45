"""Parts of a snapshot that is being taken: each becomes a base pack, kept in `staging/` until the version is live."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from edged.errors import ChainError, DamageError
from edged.feed.blob import BlobRef
from edged.feed.digest import SetHash
from edged.replica.files import disk as files
from edged.replica.files.disk import Disk
from edged.replica.files.manifest import PackRef, SliceState
from edged.replica.layers.pool import Pool
from edged.replica.packs.frames import SNAPSHOT_LEVEL, Frames
from edged.replica.packs.pack import Pack
from edged.replica.packs.packbuilder import PackBuilder


def part_name(slice_name: str, ref: BlobRef) -> str:
    """The name below `staging/` of the pack that is made of a part."""
    return f"{slice_name}.{ref.name}.pack"


def parts_on_disk(disk: Disk, slice_name: str) -> frozenset[bytes]:
    """SHA-256 of the parts of a slice that lie staged from an attempt before, unchecked."""
    found = set()
    for name in disk.names(files.STAGING):
        rest = name.removeprefix(f"{slice_name}.").removesuffix(".pack")
        if len(rest) == 64 and name == f"{slice_name}.{rest}.pack":
            found.add(bytes.fromhex(rest))
    return frozenset(found)


def clear_parts(disk: Disk) -> None:
    for name in disk.names(files.STAGING):
        disk.remove(f"{files.STAGING}/{name}")


def dictionary_of(state: SliceState) -> bytes:
    """The SHA-256 of the dictionary of a snapshot, b"" for none."""
    return state.dictionaries[0] if state.dictionaries else b""


def open_part(disk: Disk, slice_name: str, state: SliceState, version: int | None, ref: BlobRef) -> Pack | None:
    """The pack that was made of a part of the snapshot of `version`, if it is on disk and whole."""
    name = part_name(slice_name, ref)
    if name not in disk.names(files.STAGING):
        return None
    try:
        memory = files.map_file(disk.root / files.STAGING / name)
        pack = Pack(memory, 0, len(memory), name)
        pack.check_all()
    except DamageError:  # cut short by a power loss: the part is fetched again
        return None
    fits = pack.meta.dictionary == dictionary_of(state) and pack.meta.versions in ((version, version), (0, 0))
    return pack if fits and pack.meta.slice_name == slice_name else None


def build_part(
    slice_name: str, version: int, sha256: bytes, records: Iterable[tuple[str, str, bytes]], frames: Frames
) -> bytes:
    """The pack of a part. sha256: of the dictionary of `frames`."""
    builder, total = PackBuilder(slice_name, sha256), SetHash()
    for collection, key, value in records:
        total.add(collection, key, value)
        builder.add(collection, key.encode(), frames.compress(value, SNAPSHOT_LEVEL), version)
    return builder.finish(state=total.state())


def with_part(state: SliceState, pack: Pack, ref: PackRef, pool: Pool) -> SliceState:
    """`state` with one pack more in its base. Raises ChainError where it overlaps another."""
    total = SetHash(state.state)
    if pack.meta.state:
        total.merge(SetHash(pack.meta.state))
    counts = dict(state.counts)
    for collection, span in pack.meta.spans.items():
        counts[collection] = counts.get(collection, 0) + span.high - span.low
    base = in_order((*state.base, ref), pool)
    return state._replace(records=state.records + len(pack), state=total.state(), counts=counts, base=base)


def in_order(refs: Iterable[PackRef], pool: Pool) -> tuple[PackRef, ...]:
    """Base packs by their first entry. Raises ChainError where two of them overlap."""

    def bounds(ref: PackRef) -> tuple[tuple[str, str], tuple[str, str]]:
        pack = pool.pack(ref)
        names = list(pack.meta.spans)
        return (names[0], pack.key(0).decode()), (names[-1], pack.key(len(pack) - 1).decode())

    known = sorted(((*bounds(ref), ref) for ref in refs if len(pool.pack(ref))), key=lambda item: item[:2])
    for one, other in pairwise(known):
        if other[0] <= one[1]:
            raise ChainError(f"parts of a snapshot overlap at {other[0][0]}/{other[0][1]!r}; fetch the snapshot again")
    return tuple(ref for _, _, ref in known)
