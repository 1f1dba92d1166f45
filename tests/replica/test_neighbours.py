"""What hops ask of layers: keys in order, and the record below a key, however many ask and in which order."""

from __future__ import annotations

import random
from bisect import bisect_left
from pathlib import Path

import pytest

from edged.replica.layers.layers import Layers
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy, due, removed_share
from tests.replica.feeds import Publisher, made_up

MIDDLE = MergePolicy(fresh_packs=0, least_bytes=1 << 40)


def keys_of(publisher: Publisher) -> list[str]:
    return sorted((key for name, key in publisher.slices["core"] if name == "titles"), key=str.encode)


def remove(publisher: Publisher, writer: Writer, keys: list[str]) -> None:
    publisher.version += 1
    with writer.stage() as staging:
        data = publisher.hop("core", {("titles", key): None for key in keys})
        staging.apply_hop("core", publisher.version, data)
        staging.commit(publisher.version, b"h", as_of=1, fresh_s=1, expires_s=1)


def check(publisher: Publisher, layers: Layers, asked: list[str]) -> None:
    held = keys_of(publisher)
    assert list(layers.keys("titles")) == held
    for key in asked:
        place = bisect_left(held, key)
        name = held[place - 1] if place else None
        expected = None if name is None else (name, publisher.slices["core"]["titles", name])
        assert layers.before("titles", key) == expected


@pytest.mark.parametrize("order", ["rising", "falling", "any"])
def test_keys_and_neighbours_are_those_of_the_records_whatever_the_layers(tmp_path: Path, order: str) -> None:
    publisher, chance = Publisher({"core": made_up(300)}), random.Random(5)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        for step in range(6):
            publisher.hop_into(writer, 12, chance)
            held = keys_of(publisher)
            begin = chance.randrange(len(held) - 20)
            remove(publisher, writer, held[begin : begin + 15])  # a gap with tombstones in it
            asked = [*held, *(key + "~" for key in held), "", "\U0010ffff"] * 2
            asked.sort(key=str.encode, reverse=order == "falling")
            if order == "any":
                chance.shuffle(asked)
            check(publisher, writer.live.layers("core"), asked)
            if step % 2:
                writer.compact(policy=MIDDLE)
            check(publisher, writer.live.layers("core"), asked)
        assert list(writer.live.layers("core").keys("none such")) == []
        assert writer.live.layers("core").before("none such", "x") is None


def test_a_long_run_of_new_keys_in_one_gap_searches_it_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher({"core": made_up(100)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        layers = writer.live.layers("core")
        searches: list[str] = []
        search = layers.search_before

        def counted(collection: str, key: str) -> tuple[str, bytes] | None:
            searches.append(key)
            return search(collection, key)

        monkeypatch.setattr(layers, "search_before", counted)
        first = keys_of(publisher)[50]
        found = {layers.before("titles", f"{first}/{number:03}") for number in range(200)}
        assert found == {(first, publisher.slices["core"]["titles", first])}
        assert len(searches) == 2


def test_a_base_of_which_much_was_removed_is_written_anew(tmp_path: Path) -> None:
    """A window that rolls: what comes and goes is less than the base for ever, and what is gone takes its room."""
    publisher = Publisher({"core": {name: value for name, value in made_up(500).items() if name[0] == "titles"}})
    policy = MergePolicy(fresh_packs=1 << 20, tiny_packs=1 << 20, least_bytes=1)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        count = len(keys_of(publisher))
        most = int(count * policy.removed_share)
        remove(publisher, writer, keys_of(publisher)[: most - 1])
        assert due(writer.live.manifest.slices["core"], writer.live.pool, policy)[0] == ""
        remove(publisher, writer, keys_of(publisher)[:1])
        state = writer.live.manifest.slices["core"]
        assert removed_share(state, writer.live.pool) == most / count
        assert due(state, writer.live.pool, policy)[0] == "base"
        writer.compact(policy=policy)
        state = writer.live.manifest.slices["core"]
        assert (state.middle, state.fresh) == ((), ())
        assert {path.name for path in (tmp_path / "catalog/packs").iterdir()} == writer.live.manifest.files()
        check(publisher, writer.live.layers("core"), keys_of(publisher))
