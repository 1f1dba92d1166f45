"""What a writer does about damage that reading or an audit has found: what it can make anew by itself it does at once,
slices it marks for sync to fetch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edged.errors import DamageError
from edged.replica.audit import Fault, read_whole
from edged.replica.files import disk as files
from edged.replica.files.manifest import Manifest, decode_commit, file_name
from edged.replica.writing.compaction import Merge, Policy

if TYPE_CHECKING:
    from edged.replica.writer import Writer


def mend(writer: Writer, faults: Iterable[Fault]) -> int:
    """Act on `faults`, and on damage to the manifests in any case. Returns how many things were made anew here.

    Faults of files that the live version does not name any more are passed over. Raises StoreError.
    """
    mended = mend_manifests(writer)
    needed, indexes = writer.manifest.files(), index_files(writer.manifest)
    lost: dict[str, set[str]] = {}
    for fault in faults:
        directory, _, name = fault.file.rpartition("/")
        if directory == files.PACKS and name not in needed:
            continue
        if name in indexes:
            lost.setdefault(indexes[name], set()).add(name)
        elif fault.slice_name:
            writer.mark_damaged(fault.slice_name, fault.what)
        elif directory == files.PACKS or not fault.file:
            if writer.manifest.settings is not None:  # schema and takedowns; without them `status` asks sync for both
                writer.pool.forget(file_name(writer.manifest.settings.number))
        elif fault.file == files.TOUCHED:  # the manifest has a head too, and sync brings the newer one again
            writer.disk.remove(files.TOUCHED)
    for slice_name, names in lost.items():
        if writer.damage_of(slice_name) is None:
            mended += mend_indexes(writer, slice_name, names)
    return mended


def index_files(manifest: Manifest) -> dict[str, str]:
    """The slice of each index file."""
    return {
        file_name(ref.index.number): name
        for name, state in manifest.slices.items()
        for ref in state.packs()
        if ref.index is not None
    }


def mend_indexes(writer: Writer, slice_name: str, names: Iterable[str]) -> int:
    """Make the index files anew from their packs, if those are whole; otherwise the slice is marked."""
    for name in names:
        writer.pool.forget(name)
    try:
        Merge(writer, slice_name, Policy(), None).run("index")
    except DamageError as fault:
        writer.mark_damaged(slice_name, str(fault))
        return 0
    return 1


def mend_manifests(writer: Writer) -> int:
    """Write `manifest` again where it does not say what this writer knows, and `manifest.1` if it is damaged."""
    if not writer.manifest.generation:
        return 0
    mended, fault = 0, live_fault(writer)
    if fault is not None:
        if writer.fault is not None and isinstance(writer.fault.__cause__, OSError):
            return 0  # the disk did not deliver it when this writer began, which so knows of an older version only
        writer.fault = fault
        writer.swap(writer.manifest, b"", writer.manifest.next_file)
        mended += 1
    try:
        decode_commit(read_whole(writer.root / files.PREVIOUS), files.PREVIOUS)
    except DamageError:
        if (writer.root / files.PREVIOUS).exists():
            writer.disk.link(files.MANIFEST, files.PREVIOUS)
            writer.disk.sync(writer.root)
            writer.previous = writer.manifest
            writer.clean()
            mended += 1
    return mended


def live_fault(writer: Writer) -> DamageError | None:
    """Why `manifest` does not say what the writer has made live, None if it does."""
    what = f"{writer.root.name}/{files.MANIFEST}"
    try:
        found = decode_commit(read_whole(writer.root / files.MANIFEST), what)
    except DamageError as fault:
        return fault
    if found.generation != writer.manifest.generation:
        return DamageError(
            f"read {what}: generation {found.generation}, expected {writer.manifest.generation}; it is written again"
        )
    return None
