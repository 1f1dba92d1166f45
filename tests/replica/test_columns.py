"""Interval and order columns, against what a look at every record says: on both sides of each bound."""

from __future__ import annotations

import random

import pytest

from edged.replica.indexes.columns import SHORT, ColumnWriter, read_columns
from edged.replica.indexes.terms import NEVER
from edged.replica.layers.query import runs_of

DAY = 86_400
LONGEST = (1 << 16) - 1
Spans = list[tuple[int, int] | None]


def spans_of(kind: str) -> Spans:
    chance = random.Random(kind)
    found: Spans = []
    for number in range(700):
        begin = 1_800_000_000 + chance.randrange(14 * DAY)
        found.append(None if number % 50 == 7 else (begin, begin + chance.choice((0, 1, 1800, LONGEST))))
    if kind == "one is longer":
        begin = 1_800_000_000 + 5 * DAY
        found[33] = (begin, begin + LONGEST + 1)
    if kind == "one never ends":
        found[33] = (1_800_000_000 + 5 * DAY, NEVER)
    if kind == "one is far away":
        found[33] = (1_800_000_000 + (1 << 33), 1_800_000_000 + (1 << 33) + 60)
    return found


@pytest.mark.parametrize("kind", ["short", "one is longer", "one never ends", "one is far away"])
@pytest.mark.parametrize("low", [0, 1000])
def test_an_interval_column_finds_what_overlaps(kind: str, low: int) -> None:
    spans = spans_of(kind)
    writer = ColumnWriter()
    writer.add_interval("guide", low, spans)
    column = read_columns(writer.table, memoryview(bytes(writer.data))).intervals["guide"]
    assert column.short == (kind in ("short", "one is far away"))
    assert isinstance(column.ends, memoryview)
    assert (column.ends.format == SHORT) == column.short
    chance = random.Random(1)
    edges = [edge for span in spans if span is not None for edge in span if edge != NEVER]
    for _ in range(300):
        begin = chance.choice(edges) + chance.choice((-1, 0, 1))
        end = begin + chance.choice((1, 2, 3600, DAY))
        expected = [
            number + low for number, span in enumerate(spans) if span is not None and span[0] < end and span[1] > begin
        ]
        assert column.overlapping(begin, end) == expected
        assert column.narrow(range(low, low + len(spans)), begin, end) == expected


def test_nothing_overlaps_where_no_record_has_an_interval() -> None:
    writer = ColumnWriter()
    writer.add_interval("guide", 0, [None, None])
    column = read_columns(writer.table, memoryview(bytes(writer.data))).intervals["guide"]
    assert column.overlapping(0, 1 << 40) == column.narrow([0, 1], 0, 1 << 40) == []


@pytest.mark.parametrize("falling", [False, True])
def test_runs_of_rising_ranks_are_those_within_bounds(falling: bool) -> None:
    chance = random.Random(2)
    for size in (0, 1, 2, 5, 60):
        ranks = sorted(chance.randrange(6) for _ in range(size))
        for least in range(-1, 8):
            for most in range(-1, 8):
                expected = sorted({rank for rank in ranks if least <= rank <= most}, reverse=falling)
                found = list(runs_of(ranks, least, most, falling=falling))
                assert [rank for rank, _, _ in found] == expected
                for rank, low, high in found:
                    assert ranks[low:high] == [rank] * ranks.count(rank)
