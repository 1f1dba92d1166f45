"""A life of a replica: snapshot, hops, merging, a slice more, a takedown, a slice less; the same at every run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import edged
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change
from edged.feed.coding.snapshot import encode_snapshot
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from edged.replica.writing.staging import Staging
from tests.replica.feeds import SCHEMA, Publisher, Records, made_up

POINTING = MergePolicy(fresh_packs=1, least_bytes=1 << 40, keep_bytes=1)
REBASING = MergePolicy(fresh_packs=1, least_bytes=1, base_share=0, pack_bytes=4000)
HIDDEN = ("titles", "1950/000000")
LAST = 8


@dataclass
class Scenario:
    """steps: what makes each version; states: what is read at each version (0: nothing)."""

    steps: dict[int, Callable[[Writer], None]] = field(default_factory=dict)
    states: dict[int, Records] = field(default_factory=lambda: {0: {}})

    def run(self, writer: Writer, committed: list[int], last: int = LAST) -> None:
        """Go on from what is held. committed: gets every version up to `last` whose commit has returned."""
        for version, step in list(self.steps.items())[:last]:
            if version > writer.live.manifest.version:
                step(writer)
                committed.append(version)
            if version == 4:
                writer.compact(policy=POINTING)
            if version == 7:
                writer.compact(policy=REBASING)
        writer.touch_head(b"touched", as_of=1000, fresh_s=1, expires_s=1)


def commit(staging: Staging, version: int) -> None:
    staging.commit(version, b"head", as_of=version, fresh_s=1, expires_s=1)


@cache
def scenario() -> Scenario:
    publisher = Publisher({"core": made_up(40), "region-br": made_up(30, seed=2, mark="br")})
    chance = random.Random(3)
    made = Scenario()
    parts = {
        name: [
            next(encode_snapshot([(*key, value) for key, value in half], publisher.dictionaries[name], level=3))
            for half in (sorted(records.items())[:20], sorted(records.items())[20:])
        ]
        for name, records in publisher.slices.items()
    }

    def snapshot(name: str, version: int) -> Callable[[Writer], None]:
        def step(writer: Writer) -> None:
            with writer.stage() as staging:
                staging.begin_snapshot(name, version, publisher.dictionaries[name])
                for part in parts[name]:
                    staging.add_part(name, BlobRef.of(part), part)
                staging.set_schema(SCHEMA, 1)
                commit(staging, version)

        return step

    def hop(changes: list[Change], version: int, hidden: bool) -> Callable[[Writer], None]:
        def step(writer: Writer) -> None:
            with writer.stage() as staging:
                staging.apply_changes("core", version, changes)
                if hidden:
                    staging.set_takedowns(b"list", [HIDDEN])
                commit(staging, version)

        return step

    def drop(writer: Writer) -> None:
        with writer.stage() as staging:
            staging.drop_slice("region-br")
            commit(staging, LAST)

    for version in range(1, LAST + 1):
        if version == 1:
            made.steps[version] = snapshot("core", version)
        elif version == 5:
            made.steps[version] = snapshot("region-br", version)
        elif version == LAST:
            made.steps[version] = drop
        else:
            changes = publisher.apply("core", publisher.edit("core", 6, chance))
            made.steps[version] = hop(changes, version, version == 6)
        regional = publisher.slices["region-br"] if 5 <= version < LAST else {}
        state = {**regional, **publisher.slices["core"]}
        if version >= 6:
            state.pop(HIDDEN, None)
        made.states[version] = state
    return made


def read_everything(data_dir: Path) -> tuple[int, Records]:
    """The version that a reader finds, and all of its records, by listing and by getting each."""
    if not (data_dir / "catalog/manifest").exists() and not (data_dir / "catalog/manifest.1").exists():
        return 0, {}
    with edged.open(data_dir) as replica:
        view = replica["catalog"].view()
        found = {(name, key): value for name in view.collections for key, value in view.scan(name)}
        assert {name: view.get_raw(*name) for name in found} == found
        assert sum(view.collections.values()) == len(found)
        return view.version, found


def check_survivor(data_dir: Path, committed: list[int]) -> None:
    """Whatever happened: a whole version, none lost whose commit had returned, and life goes on from it."""
    made = scenario()
    version, found = read_everything(data_dir)
    assert version >= max(committed, default=0)
    assert found == made.states[version]
    with Writer.open(data_dir, "catalog") as writer:
        assert all(held.damaged is None for held in writer.status().slices.values())
        made.run(writer, [])
        with writer.stage() as staging:  # and the next commit sweeps up all that was left
            commit(staging, LAST)
        on_disk = {path.name for path in (data_dir / "catalog/packs").iterdir()}
        assert on_disk == writer.live.manifest.files() | writer.live.previous.files()
        assert list((data_dir / "catalog/staging").iterdir()) == []
    assert read_everything(data_dir) == (LAST, made.states[LAST])
