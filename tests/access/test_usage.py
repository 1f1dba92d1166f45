"""What is counted is what was answered, by every protocol, from memory too; it is kept within bounds and survives."""

from __future__ import annotations

import csv
import io
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from edged.access import usage, usagefile
from edged.access.apps import Access
from edged.access.usage import DAY_S, HOUR_S, OTHER, Count, UsageBook, Used, shown
from edged.access.usagefile import UsageKeeper, decode_book, encode_book, read_book, write_book
from edged.cli.usage import text_of
from edged.clock import Clock
from edged.http.application import Application, ByTask, Client
from edged.http.meter import Meter
from edged.http.request import Request
from edged.serve.apps import Api
from edged.serve.counting import Counting
from edged.serve.guard import Guard
from tests.access.test_apps import TOKENS, Room
from tests.http.protocols import PROTOCOLS, Ask, everywhere
from tests.http.tls.pem import make
from tests.serve.asking import make_service
from tests.serve.memory import make_dataset
from tests.system.programs import Device, Origin, edged, edged_json, get, running, titles

NOW = 1_800_000_000.0
FILMS = Used("local", "internal", "catalog/titles")


def counted(book: UsageBook) -> dict[Used, Count]:
    return {used: tally.count for used, tally in book.tallies.items() if tally.count.answers}


async def test_every_answer_is_counted_once_by_every_protocol_with_its_bytes(tmp_path: Path) -> None:
    service, book = make_service({"catalog": make_dataset()}), UsageBook(10)
    guard = Guard(Api(service), service, Access(), Counting(book, Meter(), service.catalog, None))
    paths = ["/v1/catalog/titles/1990%2FFilm_0000", "/v1/catalog/titles?limit=3", "/v1/catalog/titles?where.year=1991"]
    paths += ["/v1/catalog/titles/none", "/v1/catalog", "/v1/catalog/nothing/x", "/v1", "/v1/catalog/changes?since=0"]
    asked = [Ask(path) for path in paths for _ in range(5)]
    async with everywhere(guard, make(tmp_path, "localhost")) as found:
        total, remembered = 0, 0
        for protocol in PROTOCOLS:
            before = {used: (one.answers, one.sent_bytes) for used, one in counted(book).items()}
            got = await found.ask(protocol, *asked)
            assert {one.status for one in got} == {200, 404}
            bodies = sum(len(one.body) for one, what in zip(got, asked, strict=True) if "/titles" in what.target)
            films = counted(book)[FILMS]
            answers, sent = before.get(FILMS, (0, 0))
            assert films.answers - answers == 20
            assert bodies < films.sent_bytes - sent < bodies + 20 * 700
            total += len(asked)
            assert sum(one.answers for one in counted(book).values()) == total
        remembered = found.meter.remembered + found.secure.remembered
        assert sum(one.remembered for one in counted(book).values()) == remembered > 30
    assert counted(book)[Used("local", "internal", "catalog")].answers == 20
    assert counted(book)[Used("local", "internal", "catalog/changes")].answers == 20
    assert counted(book)[Used("local", "internal", OTHER)].answers == 40
    assert 0 < counted(book)[FILMS].seconds < 10


async def test_use_is_an_apps_and_refusals_are_counted() -> None:
    room = Room()
    for token, target in (
        (TOKENS["launcher"], "/v1/catalog/titles/t1"),
        (TOKENS["launcher"], "/v1/catalog/secret"),
        (TOKENS["launcher"], "/elsewhere"),
        (TOKENS["boss"], "/v1/catalog/secret?where.kind=plan"),
        ("wrong-token-00000001", "/v1/catalog/titles/t1"),
    ):
        room.ask(target, token)
    room.counting.catch_up()
    refused = {(used.app, used.place): tally.count.refused for used, tally in room.book.tallies.items()}
    assert refused == {
        ("launcher", "catalog/titles"): 0,
        ("launcher", "catalog/secret"): 1,
        ("launcher", OTHER): 1,
        ("boss", "catalog/secret"): 0,
        ("unknown", "catalog/titles"): 1,
    }


@pytest.mark.parametrize(
    ("status", "hit"),
    [
        ("", 0),
        ("edged; hit; ttl=60", 1),
        ("edged; fwd=miss; stored", 0),
        ("cdn; hit, edged; fwd=miss; stored", 0),  # each cache adds itself at the end: RFC 9211 section 2
        ("cdn; fwd=miss, edged; hit; ttl=60", 1),
        ("edged; fwd=stale; detail=hit", 0),
    ],
)
async def test_an_answer_from_the_proxys_store_is_a_hit(status: str, hit: int) -> None:
    class Answering(Application):
        def answer(self, request: Request) -> ByTask:
            async def run(client: Client) -> None:
                await client.start(200, ((b"content-length", b"2"), (b"cache-status", status.encode())))
                await client.end(b"ok")

            return ByTask(run)

    class Kept:
        async def start(self, *_: Any) -> None: ...
        async def end(self, data: bytes) -> None: ...

    room = Room(())
    guard = Guard(Answering(), room.service, room.access, room.counting)
    answer = guard.answer(Request("GET", b"/api/x", ((b"host", b"localhost"),)))
    assert isinstance(answer, ByTask)
    await answer.run(cast("Client", Kept()))
    found = counted(room.book)[Used("local", "internal", "proxy:/api")]
    assert (found.answers, found.remembered) == (1, hit)


@pytest.mark.parametrize("apps", [True, False])
async def test_a_websocket_counts_once_and_by_what_it_says(apps: bool) -> None:
    class Talk(Application):
        async def websocket(self, request: Request, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "día"})
            await send({"type": "websocket.send", "bytes": b"12345"})
            await send({"type": "websocket.close"})

    room, sent = (Room() if apps else Room(())), []
    guard = Guard(Talk(), room.service, room.access, room.counting)
    fields = ((b"host", b"localhost"), (b"authorization", b"Bearer " + TOKENS["launcher"].encode()))

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        await trio.sleep_forever()

    await guard.websocket(Request("GET", b"/api/live", fields), receive, send)
    name, audience = ("launcher", "partner") if apps else ("local", "internal")
    found = counted(room.book)[Used(name, audience, "proxy:/api")]
    assert (found.answers, found.remembered, found.sent_bytes) == (1, 0, 9)
    assert len(sent) == 4


async def test_names_that_are_nowhere_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    for number in range(3000):
        room.ask(f"/v1/catalog/made_up_{number}", TOKENS["boss"])
        room.ask(f"/v1/made_up_{number}/x", TOKENS["boss"])
    assert {used.place for used in room.book.tallies} == {OTHER}
    monkeypatch.setattr(usage, "MOST_PLACES", 5)
    for number in range(20):
        room.book.tally_of(Used("boss", "internal", f"catalog/c{number}"))
    assert len(room.book.tallies) <= 6
    assert room.book.tally_of(Used("boss", "internal", "catalog/more")).used.place == OTHER


# --- the book and its file -------------------------------------------------------------------------------------------


def book_of(days: int, places: int = 3, keep_days: int = 400) -> UsageBook:
    book = UsageBook(keep_days)
    for day in range(days):
        for place in range(places):
            book.tally_of(Used("a", "public", f"catalog/{place}")).add(day + 1, 100, remembered=place == 0)
        book.turn(NOW + day * DAY_S)
    return book


def test_use_is_kept_by_hour_and_day_and_no_longer_than_asked() -> None:
    book = book_of(30, keep_days=10)
    days, hours = shown(book)["days"], shown(book)["hours"]
    assert [day["requests"] for day in days] == [3 * number for number in range(21, 31)]
    assert days[-1]["audiences"] == {"public": 90}
    assert days[-1]["places"] == {"catalog/0": 30, "catalog/1": 30, "catalog/2": 30}
    assert days[-1]["remembered"] == 30
    assert len(hours) == 30
    assert hours[-1]["hour"].endswith("Z")
    book.tally_of(Used("a", "public", "catalog/0")).add(1, 1, remembered=False)
    book.turn(NOW + 29 * DAY_S + HOUR_S)
    assert shown(book)["hours"][-1]["requests"] == 1
    assert shown(book)["days"][-1]["requests"] == 91


def test_a_file_gives_back_what_was_written_and_stays_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_of(400, places=12)
    data = encode_book(book)
    assert len(data) < usagefile.FILE_BYTES
    assert decode_book(data, 400).document() == book.document()
    write_book(tmp_path / "u", book)
    assert (tmp_path / "u").stat().st_mode & 0o777 == 0o600
    assert read_book(tmp_path / "u", 400).document() == book.document()
    monkeypatch.setattr(usagefile, "FILE_BYTES", 5000)
    assert len(encode_book(book)) <= 5000
    assert shown(book)["days"][-1]["requests"] == 12 * 400  # the newest stay


def test_a_clock_that_is_years_ahead_once_costs_nothing_that_was_kept() -> None:
    book = book_of(5, keep_days=10)
    for year in (10, 0):
        book.tally_of(FILMS).add(7, 1, remembered=False)
        book.turn(NOW + (5 + 365 * year) * DAY_S)
    days = [day["requests"] for day in shown(book)["days"]]
    assert days == [3, 6, 9, 12, 15, 7, 7]


def test_what_is_counted_while_the_clock_is_not_set_is_in_no_day(tmp_path: Path) -> None:
    now_s = 1000.0
    keeper = UsageKeeper(tmp_path, 10, Clock(lambda: now_s).dated)
    keeper.book.tally_of(FILMS).add(3, 30, remembered=False)
    keeper.close()
    now_s = NOW
    keeper = UsageKeeper(tmp_path, 10, Clock(lambda: now_s).dated)
    keeper.book.tally_of(FILMS).add(4, 40, remembered=True)
    found = keeper.report()()
    assert found["undated"]["places"] == {"catalog/titles": 3}
    assert [(day["requests"], day["places"]) for day in found["days"]] == [(4, {"catalog/titles": 4})]
    assert len(found["hours"]) == 1
    assert "3 requests came while the clock was not set" in text_of(found)
    assert {(row["day"], row["requests"]) for row in found["rows"]} == {("undated", 3), (found["days"][0]["day"], 4)}


def test_a_copy_stays_what_it_was_while_counting_goes_on() -> None:
    book = book_of(2)
    assert book.by_app == {("a", "public"): Count(9, 3, 0, 600)}
    copy, before = book.copy(), book.document()
    book.enter([(Used("a", "public", "catalog/0"), Count(5, 0, 0, 50))], NOW)
    assert copy.document() == before != book.document()


def test_a_year_of_many_apps_fits() -> None:
    book = UsageBook(400)
    for day in range(400):
        counts = [
            (Used(f"app-{n % 20}", "partner", f"catalog/c{n}"), Count(n * day, n, 0, n * 9173, n / 7))
            for n in range(60)
        ]
        book.enter(counts, NOW + day * DAY_S)
        book.turn(NOW + day * DAY_S)
    assert len(encode_book(book)) <= usagefile.FILE_BYTES
    assert sum(map(len, book.days.values())) <= usage.MOST_ROWS


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "bomb"])
def test_a_damaged_file_costs_itself(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    import zlib

    data = bytearray(encode_book(book_of(3)))
    match damage:
        case "cut":
            data = data[:-5]
        case "flipped":
            data[40] ^= 1
        case "foreign":
            data = bytearray(b"something else")
        case "empty":
            data = bytearray()
        case _:
            body = zlib.compress(bytes(usagefile.PLAIN_BYTES + 1))
            data = bytearray(usagefile.MAGIC + zlib.crc32(body).to_bytes(4, "big") + body)
    (tmp_path / "u").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert read_book(tmp_path / "u", 10).days == {}
    assert "use is counted from now on" in caplog.text


@pytest.mark.parametrize(
    "row", [[1, 0, -1, 0, 0, 0, 0.0], [1, 5, 1, 0, 0, 0, 0.0], [1, 0, 1, 0], [1, 0, 1, 0, 0, 0, 1e13]]
)
def test_a_document_that_was_never_written_is_refused(row: list[float]) -> None:
    with pytest.raises((ValueError, IndexError)):
        UsageBook(1).load({"used": [["a", "public", "x"]], "hours": [], "days": [row], "reported": 0})


async def test_a_full_disk_costs_nothing_but_the_file(
    tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edged.errors import StoreError

    keeper, writes = UsageKeeper(tmp_path, 10, lambda: NOW + trio.current_time()), []

    def fails(path: Path, book: UsageBook) -> None:
        writes.append(path)
        if len(writes) < 3:
            raise StoreError("the disk is full")
        write_book(path, book)

    async def here(work: Callable[..., Any], *arguments: Any) -> Any:  # for virtual time does not wait for threads
        return work(*arguments)

    monkeypatch.setattr(usagefile, "write_book", fails)
    monkeypatch.setattr(usagefile, "in_thread", here)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        for _ in range(4):
            keeper.book.tally_of(FILMS).add(5, 100, remembered=False)
            await trio.sleep(1000)
        assert caplog.text.count("the disk is full") == 1
        nursery.cancel_scope.cancel()
    keeper.close()
    assert len(writes) <= 6  # once in a quarter of an hour at most, and at the end
    assert shown(read_book(tmp_path / usagefile.NAME, 10))["days"][-1]["requests"] == 20


async def test_nothing_is_written_while_nothing_is_asked(tmp_path: Path, autojump_clock: Any) -> None:
    keeper = UsageKeeper(tmp_path, 10, lambda: NOW + trio.current_time())
    with trio.move_on_after(10 * HOUR_S):
        await keeper.run()
    assert os.listdir(tmp_path) == []


async def test_what_is_written_to_flash_is_kept_by_day_and_costs_one_write_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    start = NOW - NOW % DAY_S  # the first second of a day
    written, writes = {"catalog": 0, "news": 0}, []

    async def here(work: Callable[..., Any], *arguments: Any) -> Any:
        writes.append(trio.current_time())
        return work(*arguments)

    def keeper() -> UsageKeeper:
        made = UsageKeeper(tmp_path, 3, lambda: start + trio.current_time() - began)
        made.flash = lambda: written
        return made

    monkeypatch.setattr(usagefile, "in_thread", here)
    began = trio.current_time()
    first = keeper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        await trio.sleep(HOUR_S / 2)
        for _ in range(2 * 24 - 1):
            written["catalog"] += 1000
            written["news"] += 10
            await trio.sleep(HOUR_S)
        nursery.cancel_scope.cancel()
    assert len(writes) == 1  # after the first day; nothing was asked
    written["news"] = 0  # a dataset that was removed and added again
    first.close()
    assert [one["bytes"] for one in shown(read_book(tmp_path / usagefile.NAME, 3))["flash"]] == [24 * 1010, 23 * 1010]
    # The next process counts from its own start on, and the oldest days go.
    written.update(catalog=0, news=0)
    second = keeper()
    for day in range(2, 5):
        written["catalog"] += 7
        began = trio.current_time() - day * DAY_S
        second.turn(second.clock())
    assert list(second.book.flash.values()) == [7, 7, 7]
    second.turn(None)
    assert sum(second.book.flash.values()) == 21


def test_a_file_of_before_flash_was_counted_is_read(tmp_path: Path) -> None:
    book = UsageBook(10)
    book.enter([(FILMS, Count(3))], NOW)
    document = book.document()
    del document["flash"]
    again = UsageBook(10)
    again.load(document)
    assert (again.flash, again.days) == ({}, book.days)
    for damage in ([[1, -5]], [[1]], [["x", 1]]):
        with pytest.raises((ValueError, TypeError)):
            UsageBook(10).load({**document, "flash": damage})


# --- in a daemon -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_daemon_tells_its_use_running_and_stopped(tmp_path: Path, workers: int) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(3))
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, admin = one.getsockname()[1], two.getsockname()[1]
    text = config.read_text().replace(
        '[serve]\nbind = ["127.0.0.1:0"]', f'[serve]\nworkers = {workers}\nbind = ["127.0.0.1:{port}"]'
    )
    config.write_text(text.replace('[admin]\nbind = ["127.0.0.1:0"]', f'[admin]\nbind = ["127.0.0.1:{admin}"]'))
    with device.running(config) as daemon:
        daemon.wait_version(1)
        for _ in range(40):
            assert get(f"{daemon.apps}/v1/catalog/titles?limit=1").status == 200
        found = edged_json("usage", "--config", config)
        if workers == 1:
            assert (
                'edged_app_requests_total{app="local",audience="internal"} 40\n'
                in get(f"{daemon.admin}/metrics").body.decode()
            )
            assert found["days"][-1]["places"] == {"catalog/titles": 40}
            assert found["days"][-1]["audiences"] == {"internal": 40}
        assert daemon.program.stop() == 0
    found = edged_json("usage", "--config", config)
    assert found["days"][-1]["places"] == {"catalog/titles": 40}
    shown_text = edged("usage", "--config", config).stdout
    assert "catalog/titles" in shown_text
    assert "█" in shown_text
    rows = list(csv.DictReader(io.StringIO(edged("usage", "--config", config, "--csv").stdout)))
    assert [(row["app"], row["audience"], row["place"], row["requests"]) for row in rows] == [
        ("local", "internal", "catalog/titles", "40")
    ]
    with running("run", "--config", config) as program:  # and goes on from there
        program.wait_for("serving apps")
        get(f"http://127.0.0.1:{port}/v1/catalog/titles?limit=1")
        assert program.stop() == 0
    assert edged_json("usage", "--config", config)["days"][-1]["requests"] == 41


def test_usage_without_a_daemon_and_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "edged.toml").write_text(
        f'[daemon]\ndata_dir = "{tmp_path}"\n[admin]\nbind = ["unix:{tmp_path}/none"]\n'
    )
    found = edged("usage", "--config", tmp_path / "edged.toml", code=1)
    assert "is `edged run` running" in found.stderr
