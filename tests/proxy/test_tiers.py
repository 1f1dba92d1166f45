"""Memory and disk together: restarts, damage under way, clocks that jump, purging from outside, the fast lane."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from edged.access.identity import LOCAL, Identity
from edged.cli.main import build_parser
from edged.clock import BUILD_TIME_S
from edged.http.application import ByTask, Response
from edged.proxy.application import ProxyApplication
from edged.proxy.store.record import RESPONSE
from tests.proxy.driving import (
    WALL_S,
    Asked,
    Handler,
    KnownApplication,
    ReplyClient,
    Says,
    Time,
    call,
    make_request,
    running,
)

pytestmark = pytest.mark.trio
FRESH = (("Cache-Control", "max-age=1000"),)
HEAD = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


def numbered(origin_fields: tuple[tuple[str, str], ...] = FRESH, size: int = 1) -> Handler:
    count = [0]

    def says(asked: Asked) -> Says:
        count[0] += 1
        return Says(fields=origin_fields, pieces=(b"%d " % count[0] * size,))

    return says


@pytest.mark.parametrize("size", [1, 40_000, 700_000])
async def test_a_restart_finds_what_was_stored(tmp_path: Path, size: int) -> None:
    directory = tmp_path / "proxy"
    async with running(numbered(size=size), directory=directory) as (app, origin):
        first = await call(app, "/a")
        await call(app, "/a")
        await stored_on_disk(app, 1)
    async with running(origin.says, directory=directory, origin=origin) as (app, _):
        again = await call(app, "/a")
        part = await call(app, "/a", [("Range", "bytes=-3")])
    assert again.body == first.body
    assert again["Cache-Status"].startswith("edged; hit; ttl=")
    assert (part.status, part.body) == (206, first.body[-3:])
    assert len(origin.asked) == 1


async def stored_on_disk(app: ProxyApplication, count: int) -> None:
    """Wait until that many responses are on the disk."""
    store = app.gateway.cache.store
    assert store is not None
    with trio.fail_after(10):
        for _ in range(1000):
            keys: list[bytes] = await app.gateway.cache.in_store(store.list_keys)
            if sum(key[:1] == RESPONSE for key in keys) >= count:
                return
            await trio.sleep(0.01)


@pytest.mark.parametrize("harm", ["flip", "cut", "unlink"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_damaged_body_is_fetched_again_and_never_served(tmp_path: Path, harm: str, when: str) -> None:
    directory = tmp_path / "proxy"
    size = 1_000_000  # over what memory takes
    async with running(numbered(size=size), directory=directory) as (app, origin):
        first = await call(app, "/a")
        await stored_on_disk(app, 1)
    async with running(origin.says, directory=directory, origin=origin) as (app, _):
        if when == "after":
            assert (await call(app, "/a")).body == first.body  # checked whole once by now
        path = next(directory.rglob("*.val"))
        if harm == "unlink":
            path.unlink()
        elif harm == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            data = bytearray(path.read_bytes())
            data[-70_000] ^= 1
            path.write_bytes(data)
        second = await call(app, "/a")
        third = await call(app, "/a")
    if when == "after" and harm != "unlink":
        # It was sent as far as it was sound, and then broken off.
        assert not second.whole
        assert first.body.startswith(second.body)
        assert len(first.body) - len(second.body) <= 2 * 70_000
        assert third.whole
        second = third
    assert second.body == b"2 " * size
    assert len(origin.asked) == 2


async def test_variants_survive_a_restart(tmp_path: Path) -> None:
    def says(asked: Asked) -> Says:
        return Says(fields=(*FRESH, ("Vary", "Accept")), pieces=(asked.fields["accept"].encode(),))

    directory = tmp_path / "proxy"
    async with running(says, directory=directory) as (app, origin):
        for kind in ("a/a", "b/b"):
            await call(app, "/a", [("Accept", kind)])
        await stored_on_disk(app, 2)
    async with running(says, directory=directory, origin=origin) as (app, _):
        for kind in ("b/b", "a/a", "b/b"):
            reply = await call(app, "/a", [("Accept", kind)])
            assert (reply.body, reply["Cache-Status"][:10]) == (kind.encode(), "edged; hit")
        assert (await call(app, "/a", [("Accept", "c/c")]))["Cache-Status"].startswith("edged; fwd=vary-miss")
    assert len(origin.asked) == 3


async def test_an_answer_that_no_longer_varies_replaces_its_variants(tmp_path: Path) -> None:
    vary = [("Vary", "Accept")]

    def says(asked: Asked) -> Says:
        return Says(fields=(("Cache-Control", "max-age=0"), ("ETag", f'"{len(origin.asked)}"'), *vary))

    directory = tmp_path / "proxy"
    async with running(says, directory=directory) as (app, origin):
        await call(app, "/a", [("Accept", "a")])
        await stored_on_disk(app, 1)
        vary.clear()
        origin.says = lambda asked: Says(fields=FRESH)
        await call(app, "/a", [("Accept", "a")])
        await stored_on_disk(app, 1)
        await call(app, "/other")
        await stored_on_disk(app, 2)
    async with running(says, directory=directory, origin=origin) as (app, _):
        assert "hit" in (await call(app, "/a", [("Accept", "z")]))["Cache-Status"]


async def test_the_bitmap_of_what_the_disk_has_can_be_made_anew(tmp_path: Path) -> None:
    async with running(Says(fields=FRESH), directory=tmp_path / "proxy") as (app, origin):
        for number in range(30):
            await call(app, f"/{number}")
        await stored_on_disk(app, 30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.gateway.cache.renew_presence)
            nursery.start_soon(lambda: call(app, "/late"))
        await stored_on_disk(app, 31)
        app.gateway.cache.memory.clear()
        for name in [*(str(number) for number in range(30)), "late"]:
            assert "hit" in (await call(app, f"/{name}"))["Cache-Status"], name
        assert not app.gateway.cache.presence.may_have(b"never stored, and no collision either")
    assert len(origin.asked) == 31


# --- the clock -------------------------------------------------------------------------------------------------------


async def test_a_clock_that_jumps_neither_ages_nor_renews_anything(autojump_clock: trio.testing.MockClock) -> None:
    time = Time()
    async with running(Says(fields=FRESH), time=time) as (app, _origin):
        await call(app, "/a")
        for step in (40 * 365 * 86_400, -80 * 365 * 86_400, 3_600):
            time.step(step)
            assert (await call(app, "/a"))["Age"] == "0"
        await trio.sleep(1001)
        assert "fwd=stale" in (await call(app, "/a"))["Cache-Status"]


@pytest.mark.parametrize(
    ("stored_at", "down_s", "back_at", "expected"),
    [
        (WALL_S, 500, WALL_S + 500, "hit"),
        (WALL_S, 2_000, WALL_S + 2_000, "fwd=stale"),
        (WALL_S, 500, 0.0, "fwd=stale"),  # boots in 1970: its age cannot be known
        (0.0, 500, WALL_S, "fwd=stale"),  # stored while the clock was at 1970
        (WALL_S, 500, WALL_S - 86_400, "fwd=stale"),  # the clock went back: it would lie in the future
    ],
)
async def test_over_a_reboot(tmp_path: Path, stored_at: float, down_s: float, back_at: float, expected: str) -> None:
    del down_s
    directory = tmp_path / "proxy"
    async with running(Says(fields=FRESH), directory=directory, time=Time(stored_at), boot=b"one") as (app, origin):
        await app.gateway.cache.tend()
        await call(app, "/a")
        await stored_on_disk(app, 1)
    async with running(origin.says, directory=directory, time=Time(back_at), boot=b"two", origin=origin) as (app, _):
        assert expected in (await call(app, "/a"))["Cache-Status"]


async def test_booted_in_1970_offline_what_is_stored_serves_and_is_fresh_again_once_the_time_is_known(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "proxy"
    async with running(Says(fields=FRESH), directory=directory, boot=b"one") as (app, origin):
        await app.gateway.cache.tend()
        await call(app, "/a")
        await stored_on_disk(app, 1)
    time = Time(0.0)
    gone = Says(disconnect=True)
    origin.says = lambda asked: gone
    async with running(gone, directory=directory, time=time, boot=b"two", origin=origin) as (app, _):
        offline = await call(app, "/a")
        assert (offline.status, offline["Cache-Status"]) == (200, "edged; hit; detail=offline")
        time.step(WALL_S + 100)
        again = await call(app, "/a")
        assert again["Cache-Status"].startswith("edged; hit; ttl=900")
    assert BUILD_TIME_S < WALL_S


# --- purging from outside --------------------------------------------------------------------------------------------


def edged_cache(*words: str) -> int:
    args = build_parser(["cache", *words]).parse_args(["cache", *words])
    code: int = args.run(args)
    return code


async def test_purging_beside_a_running_proxy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(asked: Asked) -> Says:
        groups = (("Cache-Groups", '"g"'),) if asked.target == "/g" else ()
        return Says(fields=(*FRESH, *groups), pieces=(b"x" * 30_000,))

    directory = tmp_path / "proxy"
    async with running(says, directory=directory) as (app, origin):
        for path in ("/a", "/b/1", "/b/2", "/g", "/z"):
            await call(app, path)
        await stored_on_disk(app, 5)
        await trio.testing.wait_all_tasks_blocked(0.01)  # and the proxy has noted that
        await app.gateway.cache.tend()
        edged_cache("ls", "--dir", str(directory), "--json")
        listed = json.loads(capsys.readouterr().out)
        assert [item["url"] for item in listed["items"]] == [
            origin.url + path for path in ("/a", "/b/1", "/b/2", "/g", "/z")
        ]
        assert listed["bytes"] == 150_000
        edged_cache("purge", origin.url + "/a", "--dir", str(directory))
        edged_cache("purge", "--prefix", origin.url + "/b/", "--dir", str(directory))
        edged_cache("purge", "--group", "g", "--dir", str(directory))
        assert capsys.readouterr().out.split("\n")[:3] == ["1 purged", "2 purged", "1 purged"]
        await app.gateway.cache.tend()
        hits = {path: "hit" in (await call(app, path))["Cache-Status"] for path in ("/a", "/b/1", "/b/2", "/g", "/z")}
        assert hits == {"/a": False, "/b/1": False, "/b/2": False, "/g": False, "/z": True}
        edged_cache("ls", "--dir", str(directory))
        assert "30.0 kB" in capsys.readouterr().out


# --- at once ---------------------------------------------------------------------------------------------------------


def at_once(app: ProxyApplication, path: str = "/a", *fields: tuple[str, str], method: str = "GET") -> Response | None:
    """The answer that there is without any task; None where one must answer."""
    found = app.answer(make_request(app, path, fields, method))
    return found if isinstance(found, Response) else None


def holds(found: Response | None) -> bool:
    assert found is not None
    assert found.lease is not None
    return found.lease.holds()


async def test_memory_answers_like_a_task_and_for_as_long_as_not_a_byte_changes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Says(fields=(*FRESH, ("ETag", '"a"')))) as (app, origin):
        assert at_once(app) is None  # nothing stored: a task fetches
        await call(app, "/a")
        for later_s in (0.0, 0.4, 0.7, 10.0, 889.0):
            await trio.sleep(later_s)
            found = at_once(app)
            assert found is not None
            slow = ReplyClient([])
            assert app.gateway.exchange is not None
            context = app.read(make_request(app, "/a"))
            await app.gateway.exchange.retrieve(context, slow)
            assert (found.status, list(found.fields), found.body) == (200, slow.reply.fields, slow.reply.body)
            assert holds(found)
        await trio.sleep(0.85)
        assert holds(found)
        await trio.sleep(0.1)
        assert not holds(found)  # Age has grown
        await trio.sleep(200)
        assert at_once(app) is None  # stale by now
    assert len(origin.asked) == 1


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "/a", [("Content-Length", "0")]),
        ("GET", "/a", [("Authorization", "x")]),
        ("GET", "/a", [("X-Forwarded-Host", "x")]),
        ("GET", "/a", [("Cache-Control", "no-cache")]),
        ("GET", "/a", [("If-Match", '"b"')]),
        ("GET", "/b", []),
    ],
)
async def test_a_task_answers_what_memory_cannot(
    autojump_clock: trio.testing.MockClock, method: str, path: str, fields: list[tuple[str, str]]
) -> None:
    async with running(Says(fields=FRESH)) as (app, _):
        await call(app, "/a")
        assert isinstance(app.answer(make_request(app, path, fields, method)), ByTask)


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        (("If-None-Match", '"a"'), 304, b""),
        (("Range", "bytes=1-2"), 206, b"el"),
        (("Range", "bytes=9-"), 416, b""),
    ],
)
async def test_memory_answers_conditions_and_ranges(
    autojump_clock: trio.testing.MockClock, fields: tuple[str, str], status: int, body: bytes
) -> None:
    async with running(Says(fields=(*FRESH, ("ETag", '"a"')))) as (app, _):
        await call(app, "/a")
        found = at_once(app, "/a", fields)
    assert found is not None
    assert (found.status, found.body) == (status, body)


async def test_an_answer_is_not_given_again_once_it_was_made_invalid(autojump_clock: trio.testing.MockClock) -> None:
    async with running(numbered()) as (app, _):
        await call(app, "/a")
        before = at_once(app)
        assert before is not None
        assert before.body == b"1 "
        assert holds(before)
        await call(app, "/a", method="POST", body=b"x")
        assert not holds(before)
        assert at_once(app) is None
        await call(app, "/a")
        after = at_once(app)
        assert after is not None
        assert after.body == b"3 "


async def test_memory_of_one_app_never_gives_another_its_private_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, other = Identity("launcher", "partner"), Identity("player", "partner")
    async with running(Says(fields=(("Cache-Control", "private, max-age=60"),)), who=one) as (app, _):
        await call(app, "/a")
        assert at_once(app) is not None
        for who in (other, LOCAL):
            stranger = KnownApplication(app.gateway, who)
            assert at_once(stranger) is None


async def test_offline_answers_come_at_once_while_the_circuit_is_open(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(fields=(("Cache-Control", "max-age=10"),))) as (app, origin):
        circuit = app.gateway.upstreams[0].circuit
        await call(app, "/a")
        await trio.sleep(20)
        assert at_once(app) is None  # to be asked about
        while not circuit.failed():
            pass
        found = at_once(app)
        assert found is not None
        assert (b"cache-status", b"edged; hit; ttl=-10; detail=offline") in found.fields
        covered = app.gateway.counters.covered
        assert holds(found)
        assert app.gateway.counters.covered == covered + 1
        assert at_once(app, "/a", ("Cache-Control", "no-cache")) is None
        circuit.succeeded()
        assert not holds(found)
        assert at_once(app) is None
        await trio.sleep(86_400)
        while not circuit.failed():
            pass
        assert at_once(app) is None  # past the window
    assert len(origin.asked) == 1


async def test_the_memory_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    says = Says(fields=FRESH, pieces=(b"x" * 100_000,))
    async with running(says, settings={"memory": "2MiB"}) as (app, _):
        for number in range(60):
            await call(app, f"/{number}")
            assert at_once(app, f"/{number}") is not None
            assert app.gateway.cache.memory.cost_bytes <= 2 << 20
