"""Requests by app and place, by every protocol, GET and HEAD, from memory too: each counted once, where it belongs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edged.access.usage import OTHER
from tests.access.test_apps import TOKENS, Room
from tests.http.protocols import PROTOCOLS, Ask, everywhere
from tests.http.tls.pem import make

TARGETS = {
    "/v1/catalog/titles/t1": "catalog/titles",
    "/v1/catalog/titles?limit=2": "catalog/titles",
    "/v1/catalog/titles?where.year=1991": "catalog/titles",
    "/v1/catalog/titles/%74nothing": "catalog/titles",
    "/v1/c%61talog/t%69tles/t2": "catalog/titles",
    "http://localhost/v1/catalog/titles/t2": "catalog/titles",
    "/v1/catalog": "catalog",
    "/v1/catalog/changes?since=0": "catalog/changes",
    "/v1/catalog/made-up": OTHER,
    "/v1/nothing/at-all": OTHER,
    "/v1/%zz/at-all": OTHER,
    "/api/x": "proxy:/api",
    "/elsewhere": OTHER,
}


async def test_each_request_is_counted_once_and_where_it_belongs(tmp_path: Path) -> None:
    room = Room()
    expected: Counter[tuple[str, str]] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    asked = [(name, target, method) for name in TOKENS for target in TARGETS for method in ("GET", "HEAD")]
    async with everywhere(room.guard, make(tmp_path, "localhost")) as found:
        for protocol in PROTOCOLS * 2:
            mine = [item for item in asked if protocol.startswith("h1") or item[1].startswith("/")]
            asks = [Ask(target, method, [("authorization", f"Bearer {TOKENS[name]}")]) for name, target, method in mine]
            for (name, target, _), got in zip(mine, await found.ask(protocol, *asks), strict=True):
                expected[name, TARGETS[target]] += 1
                refused[name, TARGETS[target]] += got.status == 403
    room.counting.catch_up()
    counts = {(used.app, used.place): tally.count for used, tally in room.book.tallies.items() if tally.count.answers}
    assert {who: count.answers for who, count in counts.items()} == dict(expected)
    assert {who: count.refused for who, count in counts.items()} == {who: refused[who] for who in expected}
