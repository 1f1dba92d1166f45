"""Requests through the proxy, with an upstream that counts: hits, collapsing, being offline, private answers."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from edged.access.identity import Identity
from edged.proxy.application import ProxyApplication
from edged.proxy.store.record import primary_key
from tests.http.bodies import BROKEN, WHOLE
from tests.proxy.driving import Asked, Origin, Reply, Says, call, running

FRESH = (("Cache-Control", "max-age=60"),)
pytestmark = pytest.mark.trio


async def test_a_hit_does_not_go_upstream(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(fields=FRESH)) as (app, origin):
        first = await call(app, "/api/a?b=1")
        await trio.sleep(10)
        second = await call(app, "/api/a?b=1")
    assert (first.status, first.body, first.whole) == (200, b"hello", True)
    assert first["Cache-Status"] == "edged; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    assert (second.status, second.body, second.whole) == (200, b"hello", True)
    assert second["Cache-Status"] == "edged; hit; ttl=50"
    assert second["Age"] == "10"
    assert second["Date"]
    assert len(origin.asked) == 1
    assert origin.asked[0].target == "/api/a?b=1"


async def test_a_stale_answer_is_asked_about_and_freshened(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        if asked.fields.get("if-none-match") == '"a"':
            return Says(304, (*FRESH, ("ETag", '"a"'), ("X", "2")))
        return Says(fields=(*FRESH, ("ETag", '"a"'), ("X", "1")))

    async with running(says) as (app, origin):
        await call(app, "/a")
        await trio.sleep(70)
        fresh = await call(app, "/a", [("If-None-Match", '"other"')])
        again = await call(app, "/a", [("If-None-Match", '"a"')])
    assert (fresh.status, fresh.body, fresh["X"]) == (200, b"hello", "2")
    assert fresh["Cache-Status"] == "edged; fwd=stale; fwd-status=304; ttl=60"
    assert (again.status, again.body) == (304, b"")
    assert [asked.fields.get("if-none-match") for asked in origin.asked] == [None, '"a"']


async def test_a_304_for_another_response_is_not_believed(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        if "if-none-match" in asked.fields:
            return Says(304, (("ETag", '"b"'),))
        return Says(fields=(*FRESH, ("ETag", '"a"')), pieces=(b"%d" % len(origin.asked),))

    async with running(says) as (app, origin):
        await call(app, "/a")
        await trio.sleep(70)
        assert (await call(app, "/a")).body == b"3"
    assert len(origin.asked) == 3


@pytest.mark.parametrize("kept", [True, False])
async def test_five_hundred_misses_make_one_request(
    autojump_clock: trio.testing.MockClock, kept: bool, tmp_path: Path
) -> None:
    async def slowly() -> None:
        await trio.sleep(1)

    body = tuple(bytes([number]) * 30_000 for number in range(8))
    replies: list[Reply] = []

    async def ask(app: ProxyApplication) -> None:
        replies.append(await call(app, "/a"))

    says = Says(fields=FRESH, pieces=body, before=slowly, between=slowly, length=kept)
    async with running(says) as (app, origin), trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(ask, app)
    assert len(origin.asked) == 1
    assert {(reply.status, reply.whole, hashlib.sha256(reply.body).digest()) for reply in replies} == {
        (200, True, hashlib.sha256(b"".join(body)).digest())
    }
    assert sum("collapsed" in reply["Cache-Status"] for reply in replies) == 499


async def test_waiters_stream_while_it_fills(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[float, bytes]] = []

    async def slowly() -> None:
        await trio.sleep(5)

    async def note(piece: bytes) -> None:
        if piece:
            seen.append((round(trio.current_time() - start), piece))

    says = Says(fields=FRESH, pieces=(b"one", b"two", b"three"), between=slowly)
    async with running(says) as (app, origin), trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(lambda: call(app, "/a"))
        await trio.sleep(1)
        reply = await call(app, "/a", on_piece=note)
    assert seen == [(1, b"one"), (5, b"two"), (10, b"three")]
    assert reply.whole
    assert len(origin.asked) == 1


async def test_when_the_owner_goes_another_takes_over_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(10)

    gone = trio.Event()
    replies: list[tuple[float, Reply]] = []

    async def wait(app: ProxyApplication) -> None:
        reply = await call(app, "/a")
        replies.append((trio.current_time() - start, reply))

    async with running(Says(fields=FRESH, before=slowly)) as (app, origin):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            owner = trio.CancelScope()

            async def own() -> None:
                with owner:
                    await call(app, "/a", gone=gone)

            nursery.start_soon(own)
            await trio.sleep(1)
            for _ in range(20):
                nursery.start_soon(wait, app)
            await trio.sleep(1)
            owner.cancel()  # its task is cancelled, as when a server stops a connection
    assert len(origin.asked) == 2
    assert {reply.body for _, reply in replies} == {b"hello"}
    assert max(took for took, _ in replies) < 13


async def test_an_owner_whose_client_goes_fetches_on_for_those_who_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slowly() -> None:
        await trio.sleep(10)

    gone = trio.Event()
    async with running(Says(fields=FRESH, before=slowly)) as (app, origin), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call(app, "/a", gone=gone))
        await trio.sleep(1)
        nursery.start_soon(lambda: call(app, "/a"))
        await trio.sleep(1)
        gone.set()
    assert len(origin.asked) == 1


async def test_a_client_that_goes_alone_ends_the_request(autojump_clock: trio.testing.MockClock) -> None:
    gone = trio.Event()
    async with running(Says(fields=FRESH, before=trio.sleep_forever)) as (app, _origin):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: call(app, "/a", gone=gone))
            await trio.sleep(1)
            gone.set()
        assert app.gateway.upstreams[0].pool.connections == []
        assert app.gateway.exchange is not None
        assert app.gateway.exchange.fetcher.flights == {}


async def test_what_is_not_shared_does_not_make_anyone_wait_in_line(autojump_clock: trio.testing.MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(1)

    async with running(Says(fields=(("Cache-Control", "no-store"),), before=slowly)) as (app, origin):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(lambda: call(app, "/a"))
        assert trio.current_time() - start < 2.5  # the first, then all the others at once
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(lambda: call(app, "/a"))
        assert trio.current_time() - start < 1.5  # it is known by now: nobody waits
    assert len(origin.asked) == 60


async def test_waiters_for_another_variant_go_on_their_own(autojump_clock: trio.testing.MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(1)

    def says(asked: Asked) -> Says:
        language = asked.fields["accept-language"]
        return Says(fields=(*FRESH, ("Vary", "Accept-Language")), pieces=(language.encode(),), before=slowly)

    replies: dict[str, bytes] = {}

    async def ask(app: ProxyApplication, language: str) -> None:
        replies[language] = (await call(app, "/a", [("Accept-Language", language)])).body

    async with running(says) as (app, origin):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for language in ("de", "en", "fr"):
                    nursery.start_soon(ask, app, language)
    assert replies == {"de": b"de", "en": b"en", "fr": b"fr"}
    assert len(origin.asked) == 3


async def test_a_failing_upstream_is_asked_once_for_all_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(1)

    replies: list[Reply] = []

    async def ask(app: ProxyApplication) -> None:
        replies.append(await call(app, "/a"))

    says = Says(before=slowly, disconnect=True)
    async with running(says, retry=False) as (app, origin), trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask, app)
    assert len(origin.asked) == 1
    assert {(reply.status, reply["Cache-Status"]) for reply in replies} == {
        (504, "edged; fwd=uri-miss; detail=offline")
    }


async def test_stale_while_revalidate_answers_at_once_and_asks_once(autojump_clock: trio.testing.MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(5)

    def says(asked: Asked) -> Says:
        number = len(origin.asked)
        fields = (("Cache-Control", "max-age=10, stale-while-revalidate=60"),)
        return Says(fields=fields, pieces=(b"%d" % number,), before=slowly)

    async with running(says) as (app, origin):
        await call(app, "/a")
        await trio.sleep(20)
        start = trio.current_time()
        replies = [await call(app, "/a") for _ in range(5)]
        assert trio.current_time() - start < 1
        await trio.sleep(6)
        after = await call(app, "/a")
    assert {reply.body for reply in replies} == {b"1"}
    assert replies[0]["Cache-Status"].endswith("detail=stale-while-revalidate")
    assert after.body == b"2"
    assert len(origin.asked) == 2


# --- offline ---------------------------------------------------------------------------------------------------------


async def test_offline_stored_answers_come_within_the_window(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(fields=FRESH), offline_s=1_000) as (app, origin):
        await call(app, "/a")
        origin.says = lambda asked: Says(disconnect=True)
        await trio.sleep(500)
        inside = await call(app, "/a")
        missing = await call(app, "/b")
        await trio.sleep(600)
        outside = await call(app, "/a")
    assert (inside.status, inside.body) == (200, b"hello")
    assert inside["Cache-Status"] == "edged; hit; ttl=-440; detail=offline"
    assert (missing.status, missing["Content-Type"]) == (504, "application/problem+json")
    assert missing["Cache-Status"] == "edged; fwd=uri-miss; detail=offline"
    assert outside.status == 504


async def test_an_error_is_covered_only_as_far_as_was_said(autojump_clock: trio.testing.MockClock) -> None:
    fields = {"/a": (("Cache-Control", "max-age=10, stale-if-error=100"),), "/b": (("Cache-Control", "max-age=10"),)}
    async with running(lambda asked: Says(fields=fields[asked.target])) as (app, origin):
        await call(app, "/a")
        await call(app, "/b")
        origin.says = lambda asked: Says(503, pieces=(b"down",))
        await trio.sleep(60)
        covered = await call(app, "/a")
        shown = await call(app, "/b")
        await trio.sleep(60)
        late = await call(app, "/a")
    assert (covered.status, covered["Cache-Status"]) == (200, "edged; hit; ttl=-50; detail=upstream-error")
    assert (shown.status, shown.body) == (503, b"down")
    assert (late.status, late.body) == (503, b"down")


async def test_the_circuit_opens_fails_fast_and_closes_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    origin = Origin(lambda asked: Says(fields=FRESH))
    async with trio.open_nursery() as nursery:
        up = await serve_on(nursery, origin)
        async with running(origin.says, origin=origin, serve=False) as (app, _):
            assert (await call(app, "/a")).status == 200
            up.cancel()
            await app.gateway.upstreams[0].pool.aclose()
            await trio.sleep(100)
            assert [(await call(app, f"/{number}")).status for number in range(2)] == [504, 504]
            assert app.status()["upstreams"] == {"/": False}
            start = trio.current_time()
            for number in range(50):
                reply = await call(app, f"/{number}")
                assert (reply.status, reply["Cache-Status"]) == (504, "edged; fwd=uri-miss; detail=offline")
            stale = await call(app, "/a")
            assert (stale.status, stale["Cache-Status"][:11]) == (200, "edged; hit;")
            assert trio.current_time() - start < 0.5
            await serve_on(nursery, origin, origin.port)
            await trio.sleep(61)
            assert app.status()["upstreams"] == {"/": True}
            assert (await call(app, "/b")).status == 200
        nursery.cancel_scope.cancel()


async def serve_on(nursery: trio.Nursery, origin: Origin, port: int = 0) -> trio.CancelScope:
    """Let an upstream listen until its scope is cancelled."""
    scope = trio.CancelScope()

    async def serve(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        with scope:
            await trio.serve_tcp(origin.serve, port, host="127.0.0.1", task_status=task_status)

    listeners = await nursery.start(serve)
    origin.port = listeners[0].socket.getsockname()[1]
    return scope


async def test_silence_is_cut_by_the_routes_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(before=trio.sleep_forever), timeout_s=3) as (app, _origin):
        start = trio.current_time()
        reply = await call(app, "/a")
        assert 2.9 < trio.current_time() - start < 3.5
    assert reply.status == 504


# --- for whom --------------------------------------------------------------------------------------------------------

PRIVATE = (("Cache-Control", "private, max-age=60"),)


async def test_a_private_answer_is_kept_for_its_app_alone(autojump_clock: trio.testing.MockClock) -> None:
    one, other = Identity("launcher", "partner"), Identity("player", "partner")
    async with running(Says(fields=PRIVATE), who=one) as (app, origin):
        await call(app, "/a")
        again = await call(app, "/a")
        assert again["Cache-Status"] == "edged; hit; ttl=60"
        app.who = other
        foreign = await call(app, "/a")
        assert "hit" not in foreign["Cache-Status"]
    assert len(origin.asked) == 2


async def test_nobody_in_particular_gets_no_private_cache(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(fields=PRIVATE)) as (app, origin):
        await call(app, "/a")
        await call(app, "/a")
    assert len(origin.asked) == 2


async def test_credentials_of_one_user_never_open_the_answer_of_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def says(asked: Asked) -> Says:
        return Says(fields=FRESH, pieces=(asked.fields.get("authorization", "nobody").encode(),))

    async with running(says, who=Identity("launcher", "partner")) as (app, origin):
        for _ in range(2):
            for user in ("alice", "bob"):
                assert (await call(app, "/a", [("Authorization", user)])).body == user.encode()
        assert (await call(app, "/a")).body == b"nobody"
    assert len(origin.asked) == 3


# --- invalidation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
async def test_a_post_makes_its_url_invalid_for_everyone(kept: bool, tmp_path: Path) -> None:
    launcher = Identity("launcher", "partner")

    def says(asked: Asked) -> Says:
        if asked.method == "POST":
            return Says(201, (("Location", "/b"),))
        return Says(fields=PRIVATE if asked.target == "/private" else FRESH)

    async with running(says, directory=tmp_path / "proxy" if kept else None, who=launcher) as (app, origin):
        for path in ("/a", "/b", "/c", "/private"):
            await call(app, path)
        app.who = Identity("player", "partner")
        await call(app, "/a", method="POST", body=b"x")
        await call(app, "/private", method="POST", body=b"x")
        app.who = launcher
        hits = {path: "hit" in (await call(app, path))["Cache-Status"] for path in ("/a", "/b", "/c", "/private")}
    assert hits == {"/a": False, "/b": False, "/c": True, "/private": False}
    assert [asked.body for asked in origin.asked if asked.method == "POST"] == [b"x", b"x"]


async def test_a_group_is_made_invalid_by_name(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        if asked.method == "PUT":
            return Says(204, (("Cache-Group-Invalidation", '"rights"'),))
        groups = '"rights", "x"' if asked.target == "/a" else '"x"'
        return Says(fields=(*FRESH, ("Cache-Groups", groups)))

    async with running(says) as (app, _origin):
        await call(app, "/a")
        await call(app, "/b")
        await call(app, "/any", method="PUT", body=b"x")
        assert "hit" not in (await call(app, "/a"))["Cache-Status"]
        assert "hit" in (await call(app, "/a"))["Cache-Status"]
        assert "hit" in (await call(app, "/b"))["Cache-Status"]


async def test_an_answer_asked_for_before_a_post_is_not_stored_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slowly() -> None:
        await trio.sleep(5)

    def says(asked: Asked) -> Says:
        if asked.method == "POST":
            return Says()
        return Says(fields=FRESH, pieces=(b"%d" % len(origin.asked),), before=slowly)

    async with running(says) as (app, origin):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: call(app, "/a"))
            await trio.sleep(1)
            await call(app, "/a", method="POST", body=b"x")
        assert "hit" not in (await call(app, "/a"))["Cache-Status"]


# --- integrity -------------------------------------------------------------------------------------------------------


async def test_an_answer_whose_digest_is_wrong_is_not_stored(autojump_clock: trio.testing.MockClock) -> None:
    right = b64encode(hashlib.sha256(b"hello").digest()).decode()
    wrong = b64encode(hashlib.sha256(b"other").digest()).decode()

    def says(asked: Asked) -> Says:
        return Says(fields=(*FRESH, ("Content-Digest", f"sha-256=:{right if asked.target == '/a' else wrong}:")))

    async with running(says) as (app, _origin):
        for path in ("/a", "/b"):
            await call(app, path)
            await trio.testing.wait_all_tasks_blocked()
        assert "hit" in (await call(app, "/a"))["Cache-Status"]
        assert "hit" not in (await call(app, "/b"))["Cache-Status"]


async def test_an_answer_that_breaks_off_is_not_stored_and_not_ended(autojump_clock: trio.testing.MockClock) -> None:
    raw = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhalf"
    async with running(Says(raw=raw), timeout_s=1) as (app, origin):
        reply = await call(app, "/a")
        assert (reply.status, reply.body, reply.whole) == (200, b"half", False)
        assert app.gateway.exchange is not None
        assert await app.gateway.cache.find(primary_key(b"", origin.url.encode() + b"/a"), ()) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_an_upstream_that_breaks_its_framing_is_a_502(autojump_clock: trio.testing.MockClock, raw: bytes) -> None:
    async with running(Says(raw=raw), timeout_s=1, retry=False) as (app, _origin):
        reply = await call(app, "/a")
    assert reply.status == 502
    assert reply["Cache-Status"] == "edged; fwd=uri-miss; detail=upstream-error"


@pytest.mark.parametrize("what", BROKEN)
async def test_chunks_that_two_readers_may_read_in_two_ways_are_no_whole_answer(
    autojump_clock: trio.testing.MockClock, what: str
) -> None:
    lines = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n"
    async with running(Says(raw=lines + BROKEN[what][0]), timeout_s=1, retry=False) as (app, origin):
        reply = await call(app, "/a")
        assert not reply.whole or reply.status == 502
        assert app.gateway.exchange is not None
        assert await app.gateway.cache.find(primary_key(b"", origin.url.encode() + b"/a"), ()) is None
        assert app.gateway.upstreams[0].pool.connections == []


@pytest.mark.parametrize("what", WHOLE)
async def test_chunks_with_extensions_and_trailers_are_a_whole_answer(
    autojump_clock: trio.testing.MockClock, what: str
) -> None:
    lines = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n"
    async with running(Says(raw=lines + WHOLE[what]), timeout_s=1) as (app, origin):
        first = await call(app, "/a")
        again = await call(app, "/a")
    assert (first.status, first.whole, again.body) == (200, True, first.body)
    assert len(origin.asked) == 1


UNASKED = {
    "of known length": (b"Content-Length: 2", b"ok", b"no"),
    "in chunks": (b"Transfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n", b"2\r\nno\r\n0\r\n\r\n"),
    "without a body": (b"Transfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n", b""),
}


@pytest.mark.parametrize("what", UNASKED)
async def test_bytes_past_an_answer_never_become_the_answer_to_another(
    autojump_clock: trio.testing.MockClock, what: str
) -> None:
    # The upstream sends a second answer that nobody has asked for; it must not go to whoever asks next.
    framing, first, second = UNASKED[what]
    head = b"HTTP/1.1 200 OK\r\n%b\r\nCache-Control: no-store\r\n\r\n" % framing

    def says(asked: Asked) -> Says:
        return Says(raw=head + first + head + second) if asked.target == "/a" else Says(pieces=(b"mine",))

    async with running(says) as (app, origin):
        assert (await call(app, "/a")).body == b"ok"
        assert (await call(app, "/b")).body == b"mine"
    assert [asked.target for asked in origin.asked] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/a/../b", [], 400),
        ("/a%2f%2e%2e/b", [], 400),
        ("/a%2f..b/c", [], 200),
        ("/%2e%2e/b", [], 400),
        ("/a", [("Content-Length", "1"), ("Content-Length", "1")], 400),
        ("/a", [("Content-Length", "1"), ("Transfer-Encoding", "chunked")], 400),
        ("/a", [("X", "a\r\nHost: evil")], 400),
        ("/" + "a" * 9000, [], 414),
    ],
)
async def test_a_request_that_could_smuggle_goes_nowhere(
    autojump_clock: trio.testing.MockClock, path: str, fields: list[tuple[str, str]], status: int
) -> None:
    async with running(Says()) as (app, origin):
        assert (await call(app, path, fields)).status == status
    assert len(origin.asked) == (status == 200)


async def test_a_route_that_leads_back_to_edged_ends_in_508(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says()) as (app, origin):
        assert app.gateway.exchange is not None
        via = "1.1 " + app.gateway.exchange.via.decode()
        assert (await call(app, "/a", [("Via", via)])).status == 508
        assert (await call(app, "/a", [("Via", "1.1 other")])).status == 200
    assert origin.asked[0].fields["via"] == "1.1 other, " + via


# --- through ---------------------------------------------------------------------------------------------------------


async def test_an_event_stream_passes_as_it_comes_and_ends_with_its_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slowly() -> None:
        await trio.sleep(100)

    gone, seen = trio.Event(), []

    async def note(piece: bytes) -> None:
        seen.append((round(trio.current_time() - start), piece))
        if len(seen) == 3:
            gone.set()

    fields = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"))
    says = Says(fields=fields, pieces=tuple(b"data: %d\n\n" % n for n in range(1000)), between=slowly, length=False)
    async with running(says, timeout_s=200) as (app, _origin):
        start = trio.current_time()
        reply = await call(app, "/events", [("Accept", "text/event-stream")], gone=gone, on_piece=note)
    assert seen == [(0, b"data: 0\n\n"), (100, b"data: 1\n\n"), (200, b"data: 2\n\n")]
    assert not reply.whole


async def test_a_body_streams_up_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(201)) as (app, origin):
        reply = await call(app, "/a", method="PUT", body=[b"one", b"two", b"three"])
        sized = await call(app, "/a", method="PUT", body=b"sized")
    assert (reply.status, reply["Cache-Status"]) == (201, "edged; fwd=method; fwd-status=201")
    assert sized.status == 201
    assert [(asked.body, asked.fields.get("transfer-encoding")) for asked in origin.asked] == [
        (b"onetwothree", "chunked"),
        (b"sized", None),
    ]


async def test_a_large_answer_that_nobody_reads_is_not_read_either(autojump_clock: trio.testing.MockClock) -> None:
    # 64 MB to a client that takes one piece an hour: what is in memory stays bounded.
    async def one_piece(piece: bytes) -> None:
        await trio.sleep(3600)

    piece = b"x" * (1 << 20)
    async with running(Says(fields=FRESH, pieces=(piece,) * 64), timeout_s=1e6) as (app, _origin):
        with trio.move_on_after(36_000):
            await call(app, "/a", on_piece=one_piece)
        assert app.gateway.cache.memory.cost_bytes < 4 << 20


async def test_longest_prefix_stripped_and_joined(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(), prefix="/api", strip_prefix=True, keep_host=True) as (app, origin):
        assert (await call(app, "/api/x?y")).status == 200
        assert (await call(app, "/api")).status == 200
        assert (await call(app, "/apix")).status == 404
    assert [(asked.target, asked.fields["host"]) for asked in origin.asked] == [
        ("/x?y", "localhost:8484"),
        ("/", "localhost:8484"),
    ]


async def test_a_head_is_answered_from_a_stored_get(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Says(fields=FRESH)) as (app, origin):
        await call(app, "/a")
        reply = await call(app, "/a", method="HEAD")
        missed = await call(app, "/b", method="HEAD")
    assert (reply.status, reply.body, reply["Content-Length"], reply["Cache-Status"][:10]) == (
        200,
        b"",
        "5",
        "edged; hit",
    )
    assert (missed.status, missed.body, missed["Content-Length"]) == (200, b"", "5")
    assert [asked.method for asked in origin.asked] == ["GET", "HEAD"]
