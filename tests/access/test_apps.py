"""Apps and what they may ask for: one verdict by every protocol, from memory too, which tells nothing."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from edged.access.apps import Access
from edged.access.identity import Identity, Peer, attested
from edged.access.rights import App, Rate, Rights
from edged.access.usage import UsageBook
from edged.errors import RequestError
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.http.application import Answer, Application, ByTask, Client, Held, InThread, Response, Stream, StreamOver
from edged.http.meter import Meter
from edged.http.request import Request
from edged.http.server import Listening, serve
from edged.serve.apps import Api, Apps
from edged.serve.counting import Counting
from edged.serve.guard import Guard
from tests.http.protocols import PROTOCOLS, Ask, Got, ask_line, everywhere
from tests.http.tls.pem import make
from tests.serve.asking import make_service
from tests.serve.memory import MemoryDataset, film

TOKENS = {"launcher": "launcher-token-0001", "shop": "shop-token-00000002", "boss": "boss-token-00000003"}
SCHEMA = Schema(
    {
        "titles": CollectionSchema(("year", "genres"), ("title",), refs={"director": "people"}),
        "rows": CollectionSchema(refs={"items": "titles", "hero": "secret"}),
        "secret": CollectionSchema(("kind",), ("name",)),
    },
    {
        "small": {
            "titles": ViewRule(fields=("title", "genres")),
            "rows": ViewRule(fields=("items", "hero"), expand=("items", "hero")),
        }
    },
)


def hashed(token: str) -> bytes:
    return sha256(token.encode()).digest()


def app(name: str, *allow: str, **more: Any) -> App:
    return App(name, more.pop("audience", "partner"), Rights.of(allow), **more)


APPS = (
    app("launcher", "catalog/titles", "catalog/rows", "proxy:/api", token_sha256=hashed(TOKENS["launcher"])),
    app("shop", "catalog", "other/*", token_sha256=hashed(TOKENS["shop"]), audience="public"),
    app("boss", "*", token_sha256=hashed(TOKENS["boss"]), audience="internal"),
    app("settings", "catalog/*", uid=1001),
)


def make_catalog() -> dict[str, MemoryDataset]:
    catalog, other = MemoryDataset("catalog", schema=SCHEMA), MemoryDataset("other")
    catalog.publish("titles", {f"t{number}": film(number) | {"director": "ann"} for number in range(9)})
    catalog.publish("people", {"ann": {"name": "Ann"}})
    catalog.publish("rows", {"r1": {"items": ["t1", "t2"], "hero": "s1"}})
    catalog.publish("secret", {"s1": {"name": "the plan", "kind": "plan"}})
    other.publish("things", {"a": {"n": 1}})
    return {"catalog": catalog, "other": other}


class Upstream(Application):
    """What stands for the proxy: says what it got."""

    def answer(self, request: Request) -> Answer:
        async def run(client: Client) -> None:
            body = msgspec.json.encode([request.who.name, request.get(b"authorization")])
            await client.start(200, ((b"Content-Length", b"%d" % len(body)), (b"Cache-Control", b"no-store")))
            await client.end(body)

        return ByTask(run)

    @staticmethod
    def route_of(path: bytes) -> str | None:
        return "/api" if path.startswith(b"/api") else None


class Room:
    """A guarded API with a proxied service beside it."""

    def __init__(self, apps: tuple[App, ...] = APPS, origins: tuple[str, ...] = ()) -> None:
        self.catalog = make_catalog()
        self.service = make_service(self.catalog, origins)
        self.access = Access(apps)
        upstream = Upstream()
        self.book = UsageBook(10)
        self.counting = Counting(self.book, Meter(), self.catalog, upstream.route_of)
        self.guard = Guard(Apps(Api(self.service), upstream), self.service, self.access, self.counting)

    def ask(self, target: str, token: str = "", who: Identity | None = None, **fields: Any) -> Response:
        answer = self.any(target, token, who, **fields)
        assert isinstance(answer, Response), answer
        return answer

    def any(self, target: str, token: str = "", who: Identity | None = None, **fields: Any) -> Answer:
        method = fields.pop("method", "GET")
        pairs = {"host": "localhost"} | ({"authorization": f"Bearer {token}"} if token else {}) | fields
        lines = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in pairs.items())
        found = self.guard.identify(Peer(False, "127.0.0.1")) if who is None else who
        answer = self.guard.answer(Request(method, target.encode(), lines, who=found))
        while isinstance(answer, InThread):
            answer = answer.work()
        return answer

    def json(self, target: str, token: str, **fields: Any) -> Any:
        found = self.ask(target, token, **fields)
        assert found.status == 200, found.body
        return msgspec.json.decode(found.body)


# --- one verdict everywhere ------------------------------------------------------------------------------------------

TARGETS = {
    "/v1": {"launcher", "shop", "boss"},
    "/openapi.json": {"launcher", "shop", "boss"},
    "/v1/catalog": {"shop", "boss"},
    "/v1/catalog/titles": {"launcher", "boss"},
    "/v1/catalog/titles/t1": {"launcher", "boss"},
    "/v1/catalog/titles?keys=t1,t2": {"launcher", "boss"},
    "/v1/catalog/titles?where.year=1991&facets=genres": {"launcher", "boss"},
    "/v1/catalog/changes?since=0": {"launcher", "boss"},
    "/v1/catalog/changes?since=0&collection=secret": {"boss"},
    "/v1/catalog/secret": {"boss"},
    "/v1/catalog/secret/s1": {"boss"},
    "/v1/other": {"shop", "boss"},
    "/v1/other/things/a": {"shop", "boss"},
    "/api/x": {"launcher", "boss"},
    "/elsewhere": {"boss"},
}
CREDENTIALS: dict[str, tuple[tuple[str, str], ...]] = {
    **{name: (("authorization", f"Bearer {token}"),) for name, token in TOKENS.items()},
    "": (),
    "wrong": (("authorization", "Bearer launcher-token-0002"),),
    "basic": (("authorization", "Basic bGF1bmNoZXI6eA=="),),
}


def expected(name: str, host: str, allowed: set[str]) -> set[int]:
    if host != "localhost":
        return {421}
    if name not in TOKENS:
        return {401}
    return {200, 404} if name in allowed else {403}


async def test_the_verdict_is_the_same_by_every_protocol_and_from_memory(tmp_path: Path) -> None:
    room = Room()
    matrix = list(product(TARGETS, CREDENTIALS, ["localhost", "evil.example"], ["", "https://tv.example"]))
    asked = [
        Ask(target, fields=[*CREDENTIALS[name], *([("origin", origin)] if origin else [])], host=host)
        for target, name, host, origin in matrix
    ]
    seen: dict[int, set[tuple[int, bytes]]] = {}

    def check(number: int, got: Got) -> None:
        target, name, host, _ = matrix[number]
        assert got.status in expected(name, host, TARGETS[target]), (matrix[number], got)
        if got.status != 200 or target != "/v1":
            seen.setdefault(number, set()).add((got.status, got.body))

    async with everywhere(room.guard, make(tmp_path, "localhost")) as found:
        for protocol in PROTOCOLS:
            for _ in range(2):  # the second time from memory, all tokens on one connection
                for at in range(0, len(asked), 30):
                    for number, got in enumerate(await found.ask(protocol, *asked[at : at + 30]), at):
                        check(number, got)
        assert found.meter.remembered + found.secure.remembered > 100
    assert all(len(answers) == 1 for answers in seen.values()), "a protocol answers otherwise than the others"


async def test_a_denial_tells_nothing_of_what_is_there() -> None:
    room = Room()
    there = ["/v1/catalog/secret/s1", "/v1/catalog/secret", "/v1/catalog/secret?q=plan", "/v1/other", "/v1/catalog"]
    nowhere = ["/v1/catalog/secret/none", "/v1/catalog/nothing", "/v1/catalog/nothing?x=1", "/v1/nope", "/v1/nope/a"]
    answers = [room.ask(target, TOKENS["launcher"]) for target in there + nowhere]
    assert {found.status for found in answers} == {403}
    assert len({(found.fields, found.body) for found in answers}) == 1


async def test_what_an_app_may_not_have_is_in_no_list_count_or_expansion() -> None:
    room = Room((*APPS, app("desk", "catalog", "catalog/rows", token_sha256=hashed("desk-token-0000001"))))
    token = "desk-token-0000001"
    assert room.json("/v1", token)["datasets"][0]["dataset"] == "catalog"
    assert [item["dataset"] for item in room.json("/v1", token)["datasets"]] == ["catalog"]
    described = room.json("/v1/catalog", token)
    assert described["collections"] == {"rows": 1}
    assert described["refs"] == described["indexes"] == described["text"] == {}
    assert described["slices"]["core"]["records"] == 0
    assert room.json("/v1/catalog/rows/r1?view=small", token) == {"items": ["t1", "t2"], "hero": "s1"}
    refused = room.ask("/v1/catalog/rows?expand=items", token)
    assert refused.status == 400
    assert b"secret" not in refused.body
    changes = room.ask("/v1/catalog/changes?since=0", token, accept="application/x-ndjson").body
    assert [msgspec.json.decode(line)["collection"] for line in changes.splitlines()] == ["rows"]
    # the same for who may have them, also after it was remembered for who may not
    assert room.json("/v1/catalog/rows/r1?expand=hero", TOKENS["boss"])["hero"]["value"]["name"] == "the plan"
    seen = room.json("/v1/catalog/rows/r1?view=small", TOKENS["boss"])
    assert seen["items"][0]["value"]["title"].startswith("Film")
    assert room.json("/v1/catalog/rows/r1?view=small", token) == {"items": ["t1", "t2"], "hero": "s1"}
    assert len(room.ask("/v1/catalog/changes?since=0", TOKENS["boss"], accept="application/x-ndjson").body) > len(
        changes
    )


async def test_an_event_stream_tells_of_allowed_collections_alone() -> None:
    room = Room()
    target = "/v1/catalog/changes?since=0"
    everything = room.any(target, TOKENS["boss"], accept="text/event-stream")
    assert isinstance(everything, Stream)
    assert b"the plan" in b"".join(everything.pieces)
    some = room.any(target, TOKENS["launcher"], accept="text/event-stream")
    assert isinstance(some, Stream)
    told = b"".join(some.pieces)
    assert b"the plan" not in told
    assert b"Film" in told
    room.catalog["catalog"].publish("secret", {"s2": {"name": "another plan"}})
    assert some.follow is not None
    assert everything.follow is not None
    assert b"another plan" in b"".join(everything.follow())
    assert b"another plan" not in b"".join(some.follow())


# --- who it is -------------------------------------------------------------------------------------------------------


async def test_a_uid_is_an_app_whatever_credential_it_sends_on() -> None:
    room = Room((*APPS, app("browser", "proxy:/api", uid=1002, gid=5, exe="/usr/bin/browser")))
    peer = Identity("local", "internal", 1001, 100)
    assert room.ask("/v1/catalog/secret/s1", who=peer).status == 200
    assert room.ask("/v1/catalog/secret/s1", TOKENS["shop"], who=peer).status == 200
    assert room.ask("/v1/other/things/a", TOKENS["boss"], who=peer).status == 403
    for who in (Identity("local", "internal", 1002, 5), Identity("local", "internal", 1002, 6, "/usr/bin/browser")):
        assert room.ask("/v1", who=who).status == 401
    whole = Identity("local", "internal", 1002, 5, "/usr/bin/browser")
    assert room.ask("/v1", who=whole).status == 200
    # another user's process has its token on a Unix socket too
    assert room.ask("/v1/catalog/titles/t1", TOKENS["launcher"], who=Identity("local", "internal", 7)).status == 200


def test_the_kernel_says_who_a_peer_is() -> None:
    me = attested(Peer(True, "unix", os.getuid(), os.getpid(), os.getgid()), with_exe=True)
    assert (me.uid, me.gid, me.exe) == (os.getuid(), os.getgid(), os.readlink("/proc/self/exe"))
    assert attested(Peer(True, "unix", 5, 1 << 30, 6), with_exe=True).exe == ""
    assert attested(Peer(False, "192.0.2.1"), with_exe=True).uid is None


async def test_everybody_else_is_anonymous_where_that_is_configured() -> None:
    room = Room((*APPS, app("anonymous", "catalog/people", audience="public")))
    assert room.ask("/v1/catalog/people/ann").status == 200
    assert room.ask("/v1/catalog/titles/t1").status == 403
    assert room.ask("/v1/catalog/people/ann", "no-such-token-000000").status == 401
    assert room.ask("/v1/catalog/people/ann", authorization="Basic eDp5").status == 200


async def proxied(room: Room, token: str, **fields: Any) -> Any:
    answer = room.any("/api/x", token, **fields)
    assert isinstance(answer, ByTask), answer
    got: list[bytes] = []

    class Kept:
        async def start(self, status: int, _: object) -> None:
            assert status == 200

        async def end(self, data: bytes = b"") -> None:
            got.append(data)

    await answer.run(Kept())  # type: ignore[arg-type]  # what this one calls
    return msgspec.json.decode(b"".join(got))


async def test_a_service_behind_the_proxy_gets_no_token_of_edgeds_and_its_own() -> None:
    room = Room((*APPS, app("anonymous", "proxy:/api")))
    assert await proxied(room, TOKENS["launcher"]) == ["launcher", None]
    assert await proxied(room, "", authorization="Basic eDp5") == ["anonymous", "Basic eDp5"]
    assert await proxied(room, "a-token-of-the-service") == ["anonymous", "Bearer a-token-of-the-service"]


@pytest.mark.parametrize("token", ["browser-token-000001", *TOKENS.values()])
async def test_no_token_of_edgeds_goes_on_where_the_kernel_says_who_it_is_either(token: str) -> None:
    browser = app("browser", "proxy:/api", uid=1002, token_sha256=hashed("browser-token-000001"))
    room, peer = Room((*APPS, browser)), Identity("local", "internal", 1002, 5)
    assert await proxied(room, token, who=peer) == ["browser", None]
    assert await proxied(room, token.upper(), who=peer) == ["browser", f"Bearer {token.upper()}"]
    assert await proxied(room, "", who=peer, authorization=f"bearer  {token} ") == ["browser", None]


@pytest.mark.parametrize("who", [None, Identity("local", "internal", 1001, 100)])
@pytest.mark.parametrize("target", ["/v1", "/api/x"])
def test_two_credentials_are_none(target: str, who: Identity | None) -> None:
    room = Room((*APPS, app("anonymous", "*")))
    lines = tuple((b"authorization", f"Bearer {token}".encode()) for token in ("foreign", TOKENS["boss"]))
    for fields in (lines, lines[::-1]):
        request = Request("GET", target.encode(), ((b"host", b"localhost"), *fields), who=who or Identity("", ""))
        answer = room.guard.answer(request)
        assert isinstance(answer, Response)
        assert answer.status == 400
        assert room.guard.on_websocket(request) == "refuse"


async def test_a_preflight_needs_no_credential_and_learns_the_rules_of_cors_alone() -> None:
    room = Room(origins=("https://tv.example",))
    asking: dict[str, Any] = {"method": "OPTIONS", "access_control_request_method": "GET"}
    for target in ("/v1/catalog/secret", "/api/x", "/nowhere"):
        assert room.ask(target, origin="https://tv.example", **asking).status == 204
        assert room.ask(target, origin="https://evil.example", **asking).status == 403
    allowed = dict(room.ask("/api/x", origin="https://tv.example", **asking).fields)
    assert b"Authorization" in allowed[b"Access-Control-Allow-Headers"]
    refused = dict(room.ask("/v1/catalog", origin="https://tv.example").fields)
    assert refused[b"Access-Control-Allow-Origin"] == b"https://tv.example"  # so that a page can read why
    assert refused[b"WWW-Authenticate"].startswith(b"Bearer")


# --- the only shape --------------------------------------------------------------------------------------------------


async def test_a_view_is_the_only_shape_and_what_it_leaves_out_cannot_be_asked_by() -> None:
    token = "small-token-00000001"
    room = Room((app("small", "catalog/*", token_sha256=hashed(token), view="small"),))
    assert set(room.json("/v1/catalog/titles/t1", token)) == {"title", "genres"}
    assert set(room.json("/v1/catalog/titles?keys=t1", token)["items"][0]["value"]) == {"title", "genres"}
    assert room.json("/v1/catalog/titles?where.genres=Noir&count=1", token)["total"] == 4
    assert room.json("/v1/catalog/titles/t1?view=small&fields=title", token) == {"title": "Film número 1"}
    assert room.ask("/v1/catalog/titles/t1?view=other", token).status == 403
    for query in ("where.year=1991", "facets=year", "group=year", "distinct=year"):
        assert room.ask(f"/v1/catalog/titles?{query}", token).status == 403, query
    changes = room.ask("/v1/catalog/changes?since=0&collection=titles", token, accept="application/x-ndjson").body
    assert b"poster" not in changes


# --- rates -----------------------------------------------------------------------------------------------------------


async def test_who_asks_too_often_waits_and_nobody_else_does(autojump_clock: trio.testing.MockClock) -> None:
    limited = app("eager", "catalog/*", token_sha256=hashed("eager-token-0000001"), rate=Rate(10, 1.0))
    room = Room((*APPS, limited))
    statuses = [room.ask("/v1/catalog/titles/t1", "eager-token-0000001").status for _ in range(15)]
    assert statuses == [200] * 10 + [429] * 5
    refused = room.ask("/v1/catalog/titles/t1", "eager-token-0000001")
    assert dict(refused.fields)[b"Retry-After"] == b"1"
    assert room.ask("/v1/catalog/titles/t1", TOKENS["boss"]).status == 200
    await trio.sleep(0.5)
    assert [room.ask("/v1", "eager-token-0000001").status for _ in range(6)] == [200] * 5 + [429]
    counted = room.access.status()["eager"]
    assert (counted["requests"], counted["limited"]) == (22, 7)


async def test_what_takes_time_is_made_for_each_audience_apart() -> None:
    room = Room()
    limiters = {}
    for name, target in (
        ("boss", "/v1/catalog/secret?where.kind=plan"),
        ("launcher", "/v1/catalog/titles?where.year=1991"),
    ):
        lines = ((b"host", b"localhost"), (b"authorization", b"Bearer " + TOKENS[name].encode()))
        answer = room.guard.answer(Request("GET", target.encode(), lines))
        assert isinstance(answer, InThread)
        limiters[name] = answer.limiter
    assert limiters["boss"] is room.service.slow
    assert limiters["launcher"] is not room.service.slow
    assert limiters["launcher"].total_tokens == 1


async def test_an_answer_to_who_has_a_rate_is_counted_each_time(tmp_path: Path) -> None:
    limited = app("eager", "catalog/*", token_sha256=hashed("eager-token-0000001"), rate=Rate(10, 60.0))
    room = Room((limited,))
    asked = [Ask("/v1/catalog/titles/t1", fields=[("authorization", "Bearer eager-token-0000001")])] * 15
    async with everywhere(room.guard, make(tmp_path, "localhost")) as found:
        statuses = [got.status for protocol in ("h1", "h2") for got in await found.ask(protocol, *asked)]
    assert sorted(statuses) == [200] * 10 + [429] * 20


# --- connections -----------------------------------------------------------------------------------------------------


def test_an_app_has_its_share_of_connections() -> None:
    few, all_of = app("few", "*", connections=0.25), app("all", "*", audience="internal")
    access = Access((few, all_of), connections=10)
    peers = [Peer(False, "127.0.0.1") for _ in range(10)]  # equal, and yet others
    for peer in peers[:2]:
        access.bear(few, peer)
        access.bear(few, peer)  # of which it is already
    with pytest.raises(RequestError) as caught:
        access.bear(few, peers[2])
    assert (caught.value.status, dict(caught.value.headers)["Retry-After"]) == (429, "1")
    for peer in peers[2:]:
        access.bear(all_of, peer)
    access.bear(all_of, peers[0])  # now it asks for the other one
    access.bear(few, peers[2])
    assert access.status()["few"]["connections"] == 2
    assert access.status()["all"]["connections"] == 8
    assert access.status()["few"]["limited"] == 1
    for peer in peers:
        access.leave(peer)
        access.leave(peer)
    assert [counts["connections"] for counts in access.status().values()] == [0, 0]
    least = app("least", "*", connections=0.01)
    access.replace((least,))
    access.bear(least, peers[0])  # one at the least
    with pytest.raises(RequestError):
        access.bear(least, peers[1])
    access.replace((few,))
    access.leave(peers[0])
    assert not access.bearers


async def test_the_answer_to_one_too_many_is_its_connections_last() -> None:
    room = Room((app("site", "*", token_sha256=hashed("site-token-00000001"), connections=0.001),))
    fields = ((b"host", b"localhost"), (b"authorization", b"Bearer site-token-00000001"))
    found = []
    for peer in [Peer(False, "127.0.0.1") for _ in range(2)]:
        answer = room.guard.answer(Request("GET", b"/v1/nothing", fields, peer=peer))
        assert isinstance(answer, Response)
        found.append((answer.status, answer.last))
    assert found == [(404, False), (429, True)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_connection_that_is_one_too_many_ends_and_its_place_is_free_again(
    tmp_path: Path, protocol: str
) -> None:
    room = Room((*APPS, app("site", "catalog/*", token_sha256=hashed("site-token-00000001"), connections=0.001)))
    asked = Ask("/v1/catalog/titles/t1", fields=[("authorization", "Bearer site-token-00000001")])
    async with everywhere(room.guard, make(tmp_path, "localhost")) as found:
        async with await found.open("h1") as first:
            await ask_line(first, asked)
            assert [got.status for got in await found.ask(protocol, asked)] == [429]
            await ask_line(first, asked)
            boss = Ask(asked.target, fields=[("authorization", f"Bearer {TOKENS['boss']}")])
            assert [got.status for got in await found.ask(protocol, boss)] == [200]
        while room.access.bearers:  # noqa: ASYNC110 - the server tells nobody else
            await trio.sleep(0.01)
        assert [got.status for got in await found.ask(protocol, asked)] == [200]


# --- by the kernel's word, over a socket ------------------------------------------------------------------------------


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """What connects within does so as somebody else, as far as the kernel tells."""
    before = os.geteuid(), os.getegid()
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be several users")
async def test_the_verdict_by_uid_is_the_same_over_a_real_socket_whatever_is_sent_along() -> None:
    """uid x token x target, twice: from memory too. The token of edged's counts for uids that are no app's alone."""
    room = Room((*APPS, app("desk", "catalog/rows", "proxy:/api", uid=1003, gid=77)))
    users = {(1001, 5): "settings", (1003, 77): "desk", (1003, 78): "", (1004, 77): "", (0, 0): ""}
    own = {"settings": {target for target in TARGETS if target.startswith("/v1/catalog")}, "desk": {"/api/x"}}
    own = {name: {"/v1", "/openapi.json", *targets} for name, targets in own.items()}
    own["desk"] |= {"/v1/catalog/changes?since=0"}
    with tempfile.TemporaryDirectory() as directory, trio.fail_after(60):
        os.chmod(directory, 0o755)
        listening = Listening((f"unix:{directory}/apps.sock",), socket_mode=0o666)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, room.guard, listening))
            for uid, gid in users:
                with as_user(uid, gid):
                    sock = socket.socket(socket.AF_UNIX)
                    sock.connect(f"{directory}/apps.sock")
                async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                    for _, (target, (name, fields)) in product(range(2), product(TARGETS, CREDENTIALS.items())):
                        got = await ask_line(stream, Ask(target, fields=fields))
                        who = users[uid, gid]
                        allowed = target in own[who] if who else name in TARGETS[target]
                        expected = {200, 404} if allowed else {403} if who or name in TOKENS else {401}
                        assert got.status in expected, (uid, gid, target, name, got)
                        if target == "/api/x" and got.status == 200:
                            theirs = name in ("wrong", "basic") and bool(who)
                            assert msgspec.json.decode(got.body)[1] == (fields[0][1] if theirs else None)
            nursery.cancel_scope.cancel()


# --- a new configuration ---------------------------------------------------------------------------------------------


async def test_rights_that_are_taken_away_are_gone_at_once_on_open_connections(tmp_path: Path) -> None:
    room = Room()
    asked = Ask("/v1/catalog/titles/t1", fields=[("authorization", f"Bearer {TOKENS['launcher']}")])
    async with everywhere(room.guard, make(tmp_path, "localhost")) as found:
        for protocol in PROTOCOLS:
            assert [got.status for got in await found.ask(protocol, asked, asked)] == [200, 200]
        less = app("launcher", "catalog/rows", token_sha256=hashed(TOKENS["launcher"]))
        room.access.replace((less, *APPS[1:]))
        for protocol in PROTOCOLS:
            assert [got.status for got in await found.ask(protocol, asked, asked)] == [403, 403]
        room.access.replace(APPS)
        assert [got.status for got in await found.ask("h1", asked)] == [200]
        room.access.replace(APPS[1:])
        assert [got.status for got in await found.ask("h1", asked)] == [401]


async def test_streams_and_held_requests_end_with_the_rights() -> None:
    room = Room()
    version = room.catalog["catalog"].version
    held = room.any(f"/v1/catalog/changes?since={version}&wait=60", TOKENS["launcher"])
    assert isinstance(held, Held)
    stream = room.any("/v1/catalog/changes", TOKENS["launcher"], accept="text/event-stream")
    assert isinstance(stream, Stream)
    assert stream.follow is not None
    assert stream.signal is not None
    generation = stream.signal.generation
    list(stream.pieces)
    room.access.replace(APPS[1:])
    assert stream.signal.generation > generation  # so that who waits looks
    with pytest.raises(StreamOver):
        stream.follow()
    over = held.resume(False)
    assert isinstance(over, Response)
    assert over.status == 403


async def test_a_stream_that_is_over_ends_whole_by_every_protocol(tmp_path: Path) -> None:
    room = Room()
    fields = [("authorization", f"Bearer {TOKENS['launcher']}"), ("accept", "text/event-stream")]
    ended: list[Got] = []
    async with everywhere(room.guard, make(tmp_path, "localhost")) as found:

        async def listen(protocol: str) -> None:
            ended.extend(await found.ask(protocol, Ask("/v1/catalog/changes", fields=fields)))

        async with trio.open_nursery() as nursery:
            for protocol in PROTOCOLS:
                nursery.start_soon(listen, protocol)
            while found.meter.streams + found.secure.streams < len(PROTOCOLS):  # noqa: ASYNC110
                await trio.sleep(0.001)
            room.access.replace(APPS[1:])
    assert [(got.status, got.reset) for got in ended] == [(200, None)] * len(PROTOCOLS)


class Talk(Application):
    """Takes every WebSocket, and stays."""

    def __init__(self) -> None:
        self.who: list[str] = []

    def on_websocket(self, request: Request) -> Any:
        self.who.append(request.who.name)
        return "open"

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.who.append(f"{request.who.name} {request.get(b'authorization')}")
        await trio.sleep_forever()


async def test_a_websocket_is_judged_and_ends_with_the_rights() -> None:
    room, talk = Room(), Talk()
    guard = Guard(talk, room.service, room.access, room.counting)

    def asking(target: bytes, token: str) -> Request:
        fields = ((b"host", b"localhost"), (b"authorization", b"Bearer " + token.encode()))
        return Request("GET", target, fields)

    assert guard.on_websocket(asking(b"/api/live", TOKENS["shop"])) == "refuse"
    assert guard.on_websocket(asking(b"/api/live", "wrong-token-00000001")) == "refuse"
    request = asking(b"/api/live", TOKENS["launcher"])
    assert guard.on_websocket(request) == "open"

    async def never(*_: Any) -> Any:
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.websocket, request, never, never)
            await trio.testing.wait_all_tasks_blocked()
            assert talk.who == ["launcher", "launcher None"]
            room.access.replace(APPS[1:])


def test_without_apps_nothing_is_in_the_way() -> None:
    room = Room(())
    assert room.ask("/v1/catalog/secret/s1").status == 200
    assert room.ask("/v1/catalog/secret/s1", "any-token").status == 200


def test_every_token_is_compared() -> None:
    access = Access(APPS)
    assert [access.by_token(token) for token in TOKENS.values()] == list(APPS[:3])
    for wrong in ("", "x", TOKENS["boss"][:-1], "é"):
        assert access.by_token(wrong) is None
    with pytest.raises(RequestError, match="bearer token"):
        access.app_of(Identity("local", "internal"), "Bearer x", proxied=False)


ENTRIES = [
    (("catalog/titles",), "catalog", "titles", True),
    (("catalog/titles",), "catalog", "titles2", False),
    (("catalog/titles",), "catalog2", "titles", False),
    (("catalog/*",), "catalog", "anything", True),
    (("catalog",), "catalog", "titles", False),
    (("*",), "any", "thing", True),
    ((), "catalog", "titles", False),
    (("proxy:/catalog/titles",), "catalog", "titles", False),
]


@pytest.mark.parametrize(("allow", "dataset", "collection", "may"), ENTRIES)
def test_what_an_entry_allows(allow: tuple[str, ...], dataset: str, collection: str, may: bool) -> None:
    rights = Rights.of(allow)
    if may:
        rights.require_collection(dataset, collection)
    else:
        with pytest.raises(RequestError) as caught:
            rights.require_collection(dataset, collection)
        assert caught.value.status == 403
