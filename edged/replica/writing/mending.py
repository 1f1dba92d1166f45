"""What a writer does about damage that reading or an audit has found: what it can make anew by itself it does at once,
slices it marks for sync to fetch."""

from __future__ import annotations

from collections.abc import Iterable

from edged.errors import DamageError
from edged.replica.audit import Finding, read_whole
from edged.replica.files import disk as files
from edged.replica.files.manifest import Manifest, decode_commit, file_name
from edged.replica.writing.compaction import Merge, MergePolicy
from edged.replica.writing.live import Live


def mend(live: Live, findings: Iterable[Finding]) -> int:
    """Act on `findings`, and in any case on a directory that was removed and on damage to the manifests.

    Returns how many things were made anew here. Findings on files that the live version does not name any more are
    passed over. Raises StoreError.
    """
    mended = int(live.renew()) + mend_manifests(live)
    needed, indexes = live.manifest.files(), index_files(live.manifest)
    lost: dict[str, set[str]] = {}
    for finding in findings:
        directory, _, name = finding.file.rpartition("/")
        if directory == files.PACKS and name not in needed:
            continue
        if name in indexes:
            lost.setdefault(indexes[name], set()).add(name)
        elif finding.slice_name:
            live.marked[finding.slice_name] = finding.what
        elif directory == files.PACKS or not finding.file:
            if live.manifest.settings is not None:  # schema and takedowns; without them `status` asks sync for both
                live.pool.forget(file_name(live.manifest.settings.number))
        elif finding.file == files.TOUCHED:  # the manifest has a head too, and sync brings the newer one again
            live.disk.remove(files.TOUCHED)
    for slice_name, names in lost.items():
        if live.damage_of(slice_name) is None:
            mended += mend_indexes(live, slice_name, names)
    return mended


def index_files(manifest: Manifest) -> dict[str, str]:
    """The slice of each index file."""
    return {
        file_name(ref.index.number): name
        for name, state in manifest.slices.items()
        for ref in state.packs()
        if ref.index is not None
    }


def mend_indexes(live: Live, slice_name: str, names: Iterable[str]) -> int:
    """Make the index files anew from their packs, if those are whole; otherwise the slice is marked."""
    for name in names:
        live.pool.forget(name)
    try:
        Merge(live, slice_name, MergePolicy()).run("index")
    except DamageError as fault:
        live.marked[slice_name] = str(fault)
        return 0
    return 1


def mend_manifests(live: Live) -> int:
    """Write `manifest` again where it does not say what this writer knows, and `manifest.1` if it is damaged."""
    if not live.manifest.generation:
        return 0
    mended, fault = 0, live.decay()
    if fault is not None:
        if live.fault is not None and isinstance(live.fault.__cause__, OSError):
            return 0  # the disk did not deliver it when this writer began, which so knows of an older version only
        live.fault = fault
        live.swap(live.manifest, b"", live.manifest.next_file)
        mended += 1
    try:
        decode_commit(read_whole(live.root / files.PREVIOUS), files.PREVIOUS)
    except DamageError:
        if (live.root / files.PREVIOUS).exists():
            live.disk.link(files.MANIFEST, files.PREVIOUS)
            live.disk.sync(live.root)
            live.previous = live.manifest
            live.clean()
            mended += 1
    return mended
