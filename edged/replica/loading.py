"""From the files to a view: the newest manifest that can be read, and as many of its slices as can be opened."""

from __future__ import annotations

import os.path
from collections.abc import Callable
from typing import NamedTuple

from edged.errors import DamageError, StoreError
from edged.files import StrPath
from edged.replica.files.disk import MANIFEST, PREVIOUS, TOUCHED, holds_version, map_file
from edged.replica.files.manifest import Manifest, decode_commit
from edged.replica.files.settings import ReplicaSettings
from edged.replica.files.touched import read_touched
from edged.replica.layers.layers import Layers
from edged.replica.layers.pool import Pool
from edged.replica.packs.pack import Buffer
from edged.replica.view import View

ATTEMPTS = 20  # a writer would have to commit twice during each


class LoadedVersion(NamedTuple):
    """A version with what the next one can take over."""

    manifest: Manifest
    layers: dict[str, Layers]
    view: View


def read_manifest(root: StrPath, read: Callable[[str], Buffer] = map_file) -> tuple[Manifest, DamageError | None]:
    """The newest readable manifest, and why it is not the newest, if it is not. Raises StoreError, DamageError.

    read: gives a file's content.
    """

    def commit(name: str) -> Manifest:
        return decode_commit(read(os.path.join(root, name)), f"{os.path.basename(root)}/{name}")

    if not holds_version(root):
        raise StoreError(f"open {root}: nothing has been synced here yet; run `edged sync` or `edged run`")
    try:
        return commit(MANIFEST), None
    except DamageError as fault:
        try:
            return commit(PREVIOUS), fault
        except DamageError:
            pass  # what is wrong with the newest one is what counts
        raise


def nothing(root: StrPath, fault: StoreError | None = None) -> LoadedVersion:
    """What stands for a version where there is none, or none that can be read (`fault`)."""
    manifest = Manifest(os.path.basename(root))
    return LoadedVersion(manifest, {}, View(manifest, ReplicaSettings(), {}, {}, fault=fault))


def load(root: StrPath, pool: Pool, former: LoadedVersion | None, *, may_be_empty: bool = False) -> LoadedVersion:
    """The version on disk. A slice with a damaged or missing file is left out and named in the view's `broken`.

    may_be_empty: where there is no version yet, one numbered 0 that holds nothing stands for it; otherwise raises
    StoreError there. Raises DamageError where no manifest can be read.
    """
    if may_be_empty and not holds_version(root):
        return nothing(root)
    for attempt in range(ATTEMPTS):
        manifest, fault = read_manifest(root)
        layers: dict[str, Layers] = {}
        broken: dict[str, DamageError] = {}
        for name, state in manifest.slices.items():
            old = former.layers.get(name) if former is not None else None
            try:
                layers[name] = old if old is not None and old.state == state else Layers(name, state, pool, old)
            except DamageError as damage:
                damage.slice_name = name
                broken[name] = damage
        settings = ReplicaSettings()
        try:
            settings = pool.settings_of(manifest.settings)
        except DamageError as damage:
            # Without the takedowns nothing may be shown: a record that must not be seen could be.
            broken.update((name, damage) for name in manifest.slices)
            layers.clear()
        # A writer may have committed and removed files meanwhile; then the manifest at hand is not the newest.
        if not broken or attempt == ATTEMPTS - 1 or read_manifest(root)[0].generation == manifest.generation:
            break
    manifest = read_touched(os.path.join(root, TOUCHED), manifest)
    pool.keep(manifest)
    return LoadedVersion(manifest, layers, View(manifest, settings, layers, broken, fault=fault))
