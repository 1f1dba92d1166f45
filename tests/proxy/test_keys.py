"""Whatever decides an answer parts those who may have it: hosts, people, versions, ways of asking."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from edged.access.identity import Identity
from edged.config import ProxyConfig, RouteConfig
from edged.proxy.application import ProxyApplication
from edged.proxy.gateway import Gateway
from tests.proxy.driving import Asked, Handler, Says, call, make_request, running

pytestmark = pytest.mark.trio
FRESH = (("Cache-Control", "max-age=60"),)
APP = Identity("launcher", "partner")


def says_field(name: str, *more: tuple[str, str]) -> Handler:
    """An upstream whose answer shows what a field of the request has said, and does not say that it depends on it."""
    return lambda asked: Says(fields=(*FRESH, *more), pieces=(asked.fields.get(name, "none").encode(),))


async def bodies(app: ProxyApplication, *asked: list[tuple[str, str]]) -> list[bytes]:
    return [(await call(app, "/a", fields)).body for fields in asked]


async def test_the_host_that_goes_upstream_is_part_of_the_key(autojump_clock: trio.testing.MockClock) -> None:
    async with running(says_field("host"), keep_host=True) as (app, origin):
        hosts = [[("Host", name)] for name in ("a.example", "b.example:81", "a.example", "A.Example")]
        found = [(await call(app, "/a", fields)).body for fields in hosts]
    assert found == [b"a.example", b"b.example:81", b"a.example", b"a.example"]
    assert len(origin.asked) == 2


@pytest.mark.parametrize("host", ["a/b", "a b", "a?b", "a#b", "x@a", "[::1", "a:b", "a:123456", ""])
async def test_a_host_that_is_none_goes_nowhere(autojump_clock: trio.testing.MockClock, host: str) -> None:
    async with running(Says(), keep_host=True) as (app, origin):
        assert (await call(app, "/a", [("Host", host)])).status == 400
    assert not origin.asked


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Original-URL", "Forwarded", "X-HTTP-Method-Override"]
)
async def test_a_field_that_steers_the_service_poisons_nobody(
    autojump_clock: trio.testing.MockClock, name: str
) -> None:
    async with running(says_field(name.lower())) as (app, origin):
        found = await bodies(app, [(name, "evil")], [], [(name, "evil")], [(name, "other")], [])
        assert (await call(app, "/a", method="POST")).status == 200
        assert await bodies(app, [(name, "evil")], []) == [b"evil", b"none"]
    assert found == [b"evil", b"none", b"evil", b"other", b"none"]
    assert len(origin.asked) == 3 + 1 + 2  # a POST ends what is kept in every scope


async def test_what_connection_takes_away_selects_nothing(autojump_clock: trio.testing.MockClock) -> None:
    says = says_field("origin", ("Vary", "Origin"))
    async with running(says) as (app, _):
        found = await bodies(
            app,
            [("Origin", "https://a.example"), ("Connection", "Origin")],
            [("Origin", "https://a.example")],
            [],
        )
    assert found == [b"none", b"https://a.example", b"none"]


async def test_authorization_that_connection_takes_away_is_none(autojump_clock: trio.testing.MockClock) -> None:
    async with running(says_field("authorization")) as (app, origin):
        found = await bodies(app, [("Authorization", "x"), ("Connection", "authorization")], [])
    assert found == [b"none", b"none"]
    assert len(origin.asked) == 1


@pytest.mark.parametrize("name", ["Cookie", "Authorization", "X-Api-Key", "X-Auth-Token"])
async def test_one_app_that_asks_for_several_people_gets_each_their_own(
    autojump_clock: trio.testing.MockClock, name: str
) -> None:
    def says(asked: Asked) -> Says:
        return Says(fields=(("Cache-Control", "private, max-age=60"),), pieces=(asked.fields[name.lower()].encode(),))

    async with running(says, who=APP) as (app, origin):
        assert await bodies(app, [(name, "ann")], [(name, "bob")], [(name, "ann")]) == [b"ann", b"bob", b"ann"]
    assert len(origin.asked) == 2


@pytest.mark.parametrize("named", ["Cache-Control", "cache-control, vary"])
async def test_what_is_private_stays_so_although_connection_names_it(
    autojump_clock: trio.testing.MockClock, named: str
) -> None:
    def says(asked: Asked) -> Says:
        fields = (
            ("Cache-Control", "private, max-age=60"),
            ("Connection", named),
            ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
        )
        return Says(fields=fields, pieces=(asked.fields.get("cookie", "").encode(),))

    async with running(says) as (app, _):
        assert await bodies(app, [("Cookie", "ann")], [("Cookie", "bob")], []) == [b"ann", b"bob", b""]


async def test_an_answer_for_one_web_origin_is_not_given_to_another(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        origin = asked.fields.get("origin")
        allow = () if origin is None else (("Access-Control-Allow-Origin", origin),)
        return Says(fields=(*FRESH, *allow))

    async with running(says) as (app, _):
        for page in ("https://a.example", "https://b.example", "https://a.example"):
            assert (await call(app, "/a", [("Origin", page)]))["access-control-allow-origin"] == page


async def test_a_coding_is_given_only_to_who_takes_it(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        coded = "gzip" in asked.fields.get("accept-encoding", "")
        return Says(fields=(*FRESH, *((("Content-Encoding", "gzip"),) if coded else ())), pieces=(b"%d" % coded,))

    async with running(says) as (app, _):
        found = await bodies(app, [("Accept-Encoding", "gzip")], [], [("Accept-Encoding", "gzip")])
    assert found == [b"1", b"0", b"0"]  # what is not coded everyone takes


def versions(live: list[bytes]) -> Handler:
    """An upstream of one document in versions, that knows ranges and conditions."""

    def says(asked: Asked) -> Says:
        data, tag = live[0] * 100, f'"{live[0].decode()}"'
        fields = (("Cache-Control", "max-age=1"), ("ETag", tag))
        if asked.fields.get("if-match", tag) != tag:
            return Says(status=412, fields=(("Cache-Control", "max-age=60"),))
        if asked.fields.get("if-none-match") == tag:
            return Says(status=304, fields=fields)
        if "range" in asked.fields and asked.fields.get("if-range", tag) == tag:
            return Says(status=206, fields=(*fields, ("Content-Range", "bytes 50-99/100")), pieces=(data[50:],))
        return Says(fields=fields, pieces=(data,))

    return says


@pytest.mark.parametrize(
    "more",
    [
        [("Cache-Control", "no-store")],
        [("Authorization", "x")],
        [("Cache-Control", "no-cache")],
        [("Cache-Control", "max-age=0")],
        [("X-Forwarded-Host", "x")],
        [],
    ],
)
@pytest.mark.parametrize("later_s", [0.5, 2])
async def test_a_range_is_never_parted_from_its_condition(
    autojump_clock: trio.testing.MockClock, more: list[tuple[str, str]], later_s: float
) -> None:
    live = [b"A"]
    async with running(versions(live)) as (app, _):
        await call(app, "/a")
        await trio.sleep(later_s)
        live[0] = b"B"
        joined = await call(app, "/a", [("Range", "bytes=50-"), ("If-Range", '"A"'), *more])
        assert (joined.status, joined["etag"]) in ((200, '"B"'), (206, '"A"'))
        assert set(joined.body) <= set(joined["etag"].encode())
        pinned = await call(app, "/a", [("Range", "bytes=50-"), ("If-Match", '"A"'), *more])
        assert pinned.status == 412 or (pinned.status, pinned["etag"]) == (206, '"A"')
        plain = await call(app, "/a")
        assert plain.status == 200  # the 412 was for one request alone


async def test_a_304_for_another_version_has_the_whole_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        if "if-none-match" in asked.fields:
            return Says(status=304, fields=(("ETag", '"other"'),))
        assert "range" not in asked.fields
        return Says(fields=(("Cache-Control", "max-age=1"), ("ETag", '"A"')), pieces=(b"whole",))

    async with running(says) as (app, _):
        await call(app, "/a")
        await trio.sleep(2)
        assert (await call(app, "/a", [("Range", "bytes=1-")])).body in (b"whole", b"hole")


async def test_a_head_with_credentials_changes_nothing_for_others(autojump_clock: trio.testing.MockClock) -> None:
    def says(asked: Asked) -> Says:
        who = asked.fields.get("authorization", "nobody")
        return Says(fields=(*FRESH, ("ETag", '"a"'), ("X-Name", who)))

    async with running(says) as (app, origin):
        await call(app, "/a")
        await call(app, "/a", [("Authorization", "ann")], method="HEAD")
        assert (await call(app, "/a"))["x-name"] == "nobody"
    assert len(origin.asked) == 2


@pytest.mark.parametrize("control", ["private, max-age=60", "no-store", "no-store, max-age=60"])
async def test_a_304_may_say_that_nothing_is_kept_any_more(
    autojump_clock: trio.testing.MockClock, control: str
) -> None:
    def says(asked: Asked) -> Says:
        if "if-none-match" in asked.fields:
            return Says(status=304, fields=(("ETag", '"a"'), ("Cache-Control", control)))
        return Says(fields=(("Cache-Control", "max-age=1"), ("ETag", '"a"')))

    async with running(says) as (app, origin):
        await call(app, "/a")
        await trio.sleep(2)
        assert (await call(app, "/a")).body == b"hello"
        await call(app, "/a")
    assert [("if-none-match" in asked.fields) for asked in origin.asked] == [False, True, False]


def key_of(tmp_path: Path, path: bytes, **route: object) -> bytes:
    config = RouteConfig(**{"prefix": "/a", "upstream": "http://x.example", **route})  # type: ignore[arg-type]
    app = ProxyApplication(Gateway(ProxyConfig(routes=[config]), None))
    return app.read(make_request(app, path.decode())).shared


async def test_two_ways_of_asking_one_service_do_not_share(tmp_path: Path) -> None:
    plain = key_of(tmp_path, b"/a/x")
    assert key_of(tmp_path, b"/a/x", timeout_s=9.0) == plain
    assert key_of(tmp_path, b"/a/x", ca="/one") != plain  # http:// here, so that no file is read
    assert key_of(tmp_path, b"/a/x", cert="/one", key="/one") != plain
    stripped = {"strip_prefix": True, "upstream": "http://x.example"}
    assert key_of(tmp_path, b"/a/a/x", **stripped) != plain  # the same URL there, whose Location reads differently


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ("/login?next=/x", "/api/login?next=/x"),
        ("http://127.0.0.1:{port}/login", "/api/login"),
        ("http://127.0.0.1:{port}", "/api/"),
        ("http://LOCALHOST:8484/login#top", "http://LOCALHOST:8484/login#top"),
        ("https://other.example/login", "https://other.example/login"),
        ("//other.example/x", "//other.example/x"),
        ("relative", "relative"),
        ("http://127.0.0.1:{port}0/x", "http://127.0.0.1:{port}0/x"),
    ],
)
async def test_a_location_leads_where_apps_find_it(
    autojump_clock: trio.testing.MockClock, place: str, seen: str
) -> None:
    port = 0

    def says(asked: Asked) -> Says:
        fields = (("Location", place.replace("{port}", str(port))), ("Cache-Control", "max-age=60"))
        return Says(status=302, fields=fields)

    async with running(says, prefix="/api", strip_prefix=True) as (app, origin):
        port = origin.port
        for _ in range(2):  # as it comes, and as it is kept
            assert (await call(app, "/api/a"))["location"] == seen.replace("{port}", str(port))
        assert (await call(app, "/api/a", method="POST"))["location"] == seen.replace("{port}", str(port))
    assert [asked.target for asked in origin.asked] == ["/a", "/a"]


async def test_a_location_below_the_base_of_the_upstream(autojump_clock: trio.testing.MockClock) -> None:
    places = iter(["/v2/next", "/elsewhere", "/v2", "/v2x"])
    async with running(lambda asked: Says(status=301, fields=(("Location", next(places)),))) as (_, origin):
        config = RouteConfig("/api", f"{origin.url}/v2", strip_prefix=True)
        app = ProxyApplication(Gateway(ProxyConfig(routes=[config]), None))
        async with trio.open_nursery() as nursery:
            await nursery.start(app.run)
            found = [(await call(app, f"/api/{number}"))["location"] for number in range(4)]
            nursery.cancel_scope.cancel()
    assert found == ["/api/next", "/elsewhere", "/api/", "/v2x"]
