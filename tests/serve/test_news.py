"""What an idle device lets go of."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

import edged
from edged.replica.writer import Writer
from edged.serve.news import IDLE_S, News
from tests.replica.feeds import Publisher, made_up
from tests.serve.memory import make_dataset


async def test_pages_are_let_go_of_while_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    dataset = make_dataset(3)
    news = News({"catalog": dataset})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        await trio.sleep(IDLE_S / 2)
        assert dataset.relaxed == 0
        nursery.start_soon(news.wait, news.generation)
        await trio.sleep(3 * IDLE_S)
        assert dataset.relaxed == 0
        dataset.publish("titles", {"1": {}})
        await trio.sleep(1)
        await trio.sleep(IDLE_S * 2)
        assert dataset.relaxed == 2
        nursery.cancel_scope.cancel()


def mapped_kib(root: Path) -> int:
    """Of the files below a directory, what this process has resident."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = str(root) in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_a_replica_reads_on_after_it_has_let_go_of_its_pages(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(3000)})
    records = publisher.slices["core"]
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        dataset = replica.follow("catalog")
        view = dataset.view()
        assert {name: view.get_raw(*name) for name in records} == records
        before = mapped_kib(tmp_path)
        dataset.relax()
        assert mapped_kib(tmp_path) < before / 2
        assert {name: view.get_raw(*name) for name in records} == records
