"""What devices tell of use: once a day, of their datasets alone, of nobody; and what an origin takes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio

from edged.access.report import MOST_ANSWERS, REPORT_BYTES, decode_report, encode_report, rows_of
from edged.access.usage import DAY_S, OTHER, Count, UsageBook, Used
from edged.origin.publisher import Publisher
from edged.origin.serving import intake
from edged.origin.serving.intake import UsageIntake
from edged.sync import reporting
from edged.sync.reporting import offset_s, report_use
from edged.sync.subscription import Subscription
from tests.system.programs import get, running

DAY = 20_800
NOW = DAY * DAY_S + 40_000.0
ROWS = [
    (Used("launcher", "internal", "catalog/titles"), Count(10, 4, 0, 5000, 0.5)),
    (Used("shop", "public", "catalog"), Count(3, 0, 1, 900, 0.1)),
]


def packed(document: object) -> bytes:
    return zlib.compress(cbor2.dumps(document))


def test_a_report_says_what_was_used_of_one_dataset_and_no_more() -> None:
    day = dict(ROWS) | {
        Used("launcher", "internal", "proxy:/api"): Count(7),
        Used("launcher", "internal", "other"): Count(7),
        Used("launcher", "internal", "catalog2/titles"): Count(7),
    }
    data = encode_report(DAY, rows_of(day.items(), "catalog"))
    day_told, rows = decode_report(data, "catalog")
    assert day_told == DAY
    assert {used: (count.answers, count.sent_bytes) for used, count in rows} == {
        used: (count.answers, count.sent_bytes) for used, count in ROWS
    }
    assert cbor2.loads(zlib.decompress(data)) == [
        1,
        DAY,
        [["launcher", "internal", "catalog/titles", 10, 4, 0, 5000], ["shop", "public", "catalog", 3, 0, 1, 900]],
    ]


def test_a_report_is_bounded_whatever_was_used() -> None:
    many = [(Used(f"app{n * 7919 % 10007}", "partner", f"catalog/c{n * 104729}"), Count(n + 1)) for n in range(5000)]
    data = encode_report(DAY, rows_of(many, "catalog"))
    assert len(data) <= REPORT_BYTES
    _, rows = decode_report(data, "catalog")
    assert rows[0][1].answers == 5000  # the most used are told


ROW = ["launcher", "internal", "catalog/titles", 10, 4, 0, 5000]
WRONG: list[bytes] = [
    b"",
    b"noise",
    packed([2, DAY, [ROW]]),
    packed([1, -1, [ROW]]),
    packed([1, True, [ROW]])[:-3],
    packed([1, DAY, [ROW] * 201]),
    packed([1, DAY, [ROW[:-1]]]),
    packed([1, DAY, [["x" * 65, *ROW[1:]]]]),
    packed([1, DAY, [["<b>", *ROW[1:]]]]),
    packed([1, DAY, [[ROW[0], "friends", *ROW[2:]]]]),
    packed([1, DAY, [[*ROW[:2], "other/x", *ROW[3:]]]]),
    packed([1, DAY, [[*ROW[:2], "catalog/\x1b[2J", *ROW[3:]]]]),
    packed([1, DAY, [[*ROW[:3], -1, 0, 0, 0]]]),
    packed([1, DAY, [[*ROW[:3], True, 0, 0, 0]]]),
    packed([1, DAY, [[*ROW[:3], 1, 2, 0, 0]]]),
    packed([1, DAY, [[*ROW[:3], MOST_ANSWERS + 1, 0, 0, 0]]]),
    packed([1, DAY, [[*ROW[:3], 1.5, 0, 0, 0]]]),
    packed({"a": 1}),
    packed([1, DAY, [ROW]]) + b"more",
    zlib.compress(bytes(1 << 20)),
]


@pytest.mark.parametrize("data", WRONG)
def test_what_no_device_sends_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_report(data, "catalog")


# --- the origin ------------------------------------------------------------------------------------------------------


def test_an_origin_sums_up_and_keeps_it(tmp_path: Path) -> None:
    taking = UsageIntake(tmp_path / "usage", lambda: NOW)
    report = encode_report(DAY - 1, ROWS)
    assert [taking.take("catalog", f"10.0.0.{number}", report) for number in range(5)] == [(204, "")] * 5
    taking.close()
    again = UsageIntake(tmp_path / "usage", lambda: NOW)
    [day] = again.document("catalog")["days"]
    assert (day["requests"], day["audiences"]) == (65, {"internal": 50, "public": 15})
    assert (tmp_path / "usage" / "catalog.use").stat().st_mode & 0o077 == 0


def test_a_flood_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_ADDRESSES", 30)
    now = [NOW]
    taking = UsageIntake(tmp_path, lambda: now[0])
    report = encode_report(DAY, ROWS)
    answers = [taking.take("catalog", "10.0.0.1", report)[0] for _ in range(40)]
    assert answers == [204] * 20 + [429] * 20
    assert [taking.take("catalog", f"10.1.0.{n}", report)[0] for n in range(40)] == [204] * 29 + [429] * 11
    now[0] += 3600
    assert taking.take("catalog", "10.0.0.1", report)[0] == 204
    assert taking.take("catalog", "10.0.0.2", encode_report(DAY - 9, ROWS))[0] == 400
    assert taking.take("catalog", "10.0.0.2", encode_report(DAY + 9, ROWS))[0] == 400
    assert taking.take("catalog", "10.0.0.2", b"noise")[0] == 400
    assert taking.take("catalog", "10.0.0.2", None)[0] == 413


def test_made_up_names_take_bounded_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_NAMES", 50)
    monkeypatch.setattr(intake, "EACH_HOUR", 1000)
    taking = UsageIntake(tmp_path, lambda: NOW)
    for number in range(100):
        rows = [(Used(f"a{number}", "public", f"catalog/c{n}"), Count(1)) for n in range(10)]
        assert taking.take("catalog", "10.0.0.1", encode_report(DAY, rows))[0] == 204
    assert len(taking.book("catalog").days[DAY]) == 51
    assert taking.document("catalog")["days"][0]["requests"] == 1000
    assert taking.document("catalog")["days"][0]["places"][OTHER] == 950


# --- the device ------------------------------------------------------------------------------------------------------


async def told_in(days: float, autojump: Any, monkeypatch: pytest.MonkeyPatch, *, fails: int = 0) -> list[float]:
    times: list[float] = []
    book = UsageBook(400)

    async def tell(subscription: Subscription, urls: list[str], report: bytes) -> bool:
        times.append(NOW + trio.current_time())
        assert decode_report(report, "catalog")[0] == times[-1] // DAY_S - 1
        return len(times) > fails

    monkeypatch.setattr(reporting, "told_any", tell)
    subscription = Subscription("catalog", ("http://origin/catalog",), "", device_id="box-1")
    with trio.move_on_after(days * DAY_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_use, book, lambda: [subscription], lambda: NOW + trio.current_time())
            while True:
                book.enter(ROWS, NOW + trio.current_time())
                await trio.sleep(3600)
    return times


async def test_a_device_tells_once_a_day_at_its_own_time(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = await told_in(6, autojump_clock, monkeypatch)
    assert len(times) in (4, 5, 6)
    assert {round(time % DAY_S - offset_s("box-1")) for time in times[1:]} <= {0, 1}
    assert len({int(time // DAY_S) for time in times}) == len(times)


async def test_an_origin_that_is_away_is_told_later(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = await told_in(4, autojump_clock, monkeypatch, fails=3)
    assert len(times) >= 5
    assert times[1] - times[0] >= 3600


def test_devices_are_spread_over_the_day() -> None:
    offsets = sorted(offset_s(f"device {number}") for number in range(1000))
    assert offsets[0] < 600
    assert offsets[-1] > DAY_S - 600
    assert 0.45 < sum(offset < DAY_S / 2 for offset in offsets) / 1000 < 0.55


# --- over HTTP -------------------------------------------------------------------------------------------------------


def send(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as fault:
        fault.read()
        fault.close()
        return int(fault.code)


def test_a_served_origin_takes_reports_and_shows_their_sum(tmp_path: Path) -> None:
    import time

    Publisher.init(tmp_path / "feed").publish("catalog", [("titles", "a", {"n": 1})])
    words = ("origin", "serve", tmp_path / "feed", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    report = encode_report(int(time.time() // DAY_S), ROWS)
    with running(*words) as program:
        feed = program.wait_for(r"serving .* at (http://127\.0\.0\.1:\d+)")[1]
        admin = program.wait_for(r"for operators at (http://127\.0\.0\.1:\d+)")[1]
        assert send(f"{feed}/catalog/usage", report) == 204
        assert send(f"{feed}/catalog/usage", b"noise") == 400
        assert send(f"{feed}/catalog/usage", b"x" * 20_000) == 413
        assert send(f"{feed}/nope/usage", report) == 405
        assert send(f"{feed}/catalog/head", report) == 405
        assert get(f"{admin}/usage").json["datasets"]["catalog"]["days"][0]["requests"] == 13
        assert get(f"{feed}/catalog/usage").status == 404

        async def by_a_device() -> None:
            subscription = Subscription("catalog", ("file:///nowhere", f"{feed}/catalog"), "")
            assert await reporting.report_day(book, [subscription], int(time.time() // DAY_S))

        book = UsageBook(10)
        book.enter(ROWS, time.time())
        trio.run(by_a_device)
        assert get(f"{admin}/usage").json["datasets"]["catalog"]["days"][0]["requests"] == 26
        assert program.stop() == 0
    assert json.dumps(UsageIntake(tmp_path / "feed/private/usage", time.time).document("catalog")).count("launcher")
