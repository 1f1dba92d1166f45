"""The rules by table: what RFC 9111 and its neighbours say of a request, a stored response and the time."""

from __future__ import annotations

import pytest

from edged.http.fields import Fields, value_of
from edged.proxy.rules.answer import answer_from, hit_status
from edged.proxy.rules.decisions import (
    Ask,
    CacheEntry,
    Receipt,
    Refuse,
    Serve,
    Windows,
    decide,
    freshen,
    is_shareable,
    make_entry,
    may_serve_failing,
    read_request,
    receive,
    received_fields,
    storing_scope,
)
from edged.proxy.rules.forward import answer_fields
from edged.proxy.rules.keys import digest, partition_of, private_scope
from edged.proxy.rules.status import CacheStatus, with_status
from edged.proxy.rules.vary import vary_names

URL = b"https://services.example/api/a"
NOW_S = 5_000.0
WALL_S = 1_800_000_000.0
DATE = b"Fri, 15 Jan 2027 08:00:00 GMT"  # WALL_S


def fields(*pairs: tuple[str, str]) -> Fields:
    return tuple((name.lower().encode(), value.encode()) for name, value in pairs)


def stored(
    *pairs: tuple[str, str], status: int = 200, wall_s: float | None = WALL_S, private: bool = False
) -> CacheEntry:
    request = read_request(b"GET", URL, ())
    head = (*fields(*pairs), (b"date", DATE))
    received = receive(status, head, Receipt(NOW_S, wall_s, 0.0))
    return make_entry(request, received, size=3, order=1, private=private)


@pytest.mark.parametrize(
    ("response", "later_s", "request_", "expected"),
    [
        ((("Cache-Control", "max-age=60"),), 59, (), Serve()),
        ((("Cache-Control", "max-age=60"),), 61, (), Ask("stale")),
        ((("Cache-Control", "max-age=60"), ("ETag", '"a"')), 61, (), Ask("stale", fields(("If-None-Match", '"a"')))),
        ((("Cache-Control", "max-age=60, s-maxage=5"),), 6, (), Ask("stale")),
        ((("Cache-Control", "max-age=60"), ("Age", "50")), 11, (), Ask("stale")),
        ((("Cache-Control", "no-cache, max-age=60"),), 1, (), Ask("stale")),
        ((("Cache-Control", "max-age=60"),), 1, (("Cache-Control", "no-cache"),), Ask("request")),
        ((("Cache-Control", "max-age=60"),), 9, (("Cache-Control", "max-age=8"),), Ask("request")),
        ((("Cache-Control", "max-age=60"),), 9, (("Cache-Control", "max-age=9"),), Serve()),
        ((("Cache-Control", "max-age=60"),), 9, (("Cache-Control", "min-fresh=52"),), Ask("request")),
        ((("Cache-Control", "max-age=60"),), 70, (("Cache-Control", "max-stale=10"),), Serve(stale=True)),
        ((("Cache-Control", "max-age=60"),), 71, (("Cache-Control", "max-stale=10"),), Ask("stale")),
        ((("Cache-Control", "max-age=60, must-revalidate"),), 70, (("Cache-Control", "max-stale"),), Ask("stale")),
        ((("Cache-Control", "max-age=60"),), 70, (("Cache-Control", "only-if-cached"),), Refuse()),
        ((("Cache-Control", "max-age=60"),), 7, (("Cache-Control", "only-if-cached"),), Serve()),
        ((("Cache-Control", "max-age=60, stale-while-revalidate=5"),), 64, (), Serve(stale=True, refresh=True)),
        ((("Cache-Control", "max-age=60, stale-while-revalidate=5"),), 66, (), Ask("stale")),
        ((("Cache-Control", "max-age=60, immutable"),), 7, (("Cache-Control", "max-age=0"),), Serve()),
        ((("Cache-Control", "max-age=60, immutable"),), 7, (("Cache-Control", "no-cache"),), Ask("request")),
        ((("Cache-Control", "max-age=60"),), 7, (("Authorization", "x"),), Ask("uri-miss")),
        ((("Cache-Control", "max-age=60, public"),), 7, (("Authorization", "x"),), Serve()),
        ((("Cache-Control", "max-age=60"),), 7, (("Cache-Control", "no-store"),), Ask("request")),
        ((("Expires", "Fri, 15 Jan 2027 08:01:00 GMT"),), 59, (), Serve()),
        ((("Expires", "0"),), 0, (), Ask("stale")),
        ((("Edged-Cache-Control", "max-age=5"), ("Cache-Control", "max-age=60")), 6, (), Ask("stale")),
        ((("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store")), 6, (), Serve()),
        ((("CDN-Cache-Control", 'max-age="60"'), ("Cache-Control", "max-age=5")), 6, (), Ask("stale")),
        ((("Last-Modified", "Fri, 15 Jan 2027 07:00:00 GMT"),), 359, (), Serve()),
        (
            (("Last-Modified", "Fri, 15 Jan 2027 07:00:00 GMT"),),
            361,
            (),
            Ask("stale", ((b"if-modified-since", b"Fri, 15 Jan 2027 07:00:00 GMT"),)),
        ),
    ],
)
def test_decisions(
    response: tuple[tuple[str, str], ...],
    later_s: float,
    request_: tuple[tuple[str, str], ...],
    expected: object,
) -> None:
    entry = stored(*response)
    assert decide(read_request(b"GET", URL, fields(*request_)), entry, NOW_S + later_s) == expected


def test_nothing_stored_asks_or_refuses() -> None:
    assert decide(read_request(b"GET", URL, ()), None, NOW_S) == Ask("uri-miss")
    only = fields(("Cache-Control", "only-if-cached"))
    assert decide(read_request(b"GET", URL, only), None, NOW_S) == Refuse()


@pytest.mark.parametrize(
    ("method", "request_", "status", "response", "private_allowed", "expected"),
    [
        (b"GET", (), 200, (("Cache-Control", "max-age=1"),), False, "shared"),
        (b"GET", (), 200, (("Cache-Control", "no-store"),), False, "no"),
        (b"GET", (), 200, (("Cache-Control", "private, max-age=1"),), False, "no"),
        (b"GET", (), 200, (("Cache-Control", "private, max-age=1"),), True, "private"),
        (b"GET", (), 200, (("Cache-Control", 'private="a", max-age=1'),), False, "shared"),
        (b"GET", (("Authorization", "x"),), 200, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"GET", (("Authorization", "x"),), 200, (("Cache-Control", "max-age=1"),), True, "private"),
        (b"GET", (("Authorization", "x"),), 200, (("Cache-Control", "max-age=1, public"),), True, "shared"),
        (b"GET", (("Authorization", "x"),), 200, (("Cache-Control", "s-maxage=1"),), False, "shared"),
        (b"GET", (("Cache-Control", "no-store"),), 200, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"GET", (), 200, (("Cache-Control", "max-age=1"), ("Vary", "*")), False, "no"),
        (b"GET", (), 206, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"GET", (), 200, (), False, "shared"),
        (b"GET", (), 200, (("Set-Cookie", "a=b"),), False, "no"),
        (b"GET", (), 200, (("Set-Cookie", "a=b"), ("Cache-Control", "max-age=1")), False, "shared"),
        (b"GET", (("Cookie", "a=b"),), 200, (), False, "no"),
        (b"GET", (("Cookie", "a=b"),), 200, (), True, "private"),
        (b"GET", (("Cookie", "a=b"),), 200, (("Cache-Control", "public"),), False, "shared"),
        (b"GET", (("Cookie", "a=b"),), 200, (("Cache-Control", "max-age=1"),), False, "shared"),
        (b"GET", (("X-Api-Key", "k"),), 200, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"GET", (("X-Api-Key", "k"),), 200, (("Cache-Control", "max-age=1"),), True, "private"),
        (b"GET", (("X-Api-Key", "k"),), 200, (("Cache-Control", "s-maxage=1"),), False, "shared"),
        (b"GET", (("If-Match", '"a"'),), 412, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"GET", (), 431, (("Cache-Control", "public, max-age=1"),), False, "no"),
        (b"GET", (), 400, (("Cache-Control", "max-age=1"),), False, "shared"),
        (b"GET", (), 503, (), False, "no"),
        (b"GET", (), 503, (("Cache-Control", "max-age=1"),), False, "shared"),
        (b"GET", (), 599, (("Cache-Control", "max-age=1, must-understand, no-store"),), False, "no"),
        (b"GET", (), 200, (("Cache-Control", "max-age=1, must-understand, no-store"),), False, "shared"),
        (b"HEAD", (), 200, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"POST", (), 200, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"POST", (), 200, (("Cache-Control", "max-age=1"), ("Content-Location", "/a")), False, "shared"),
        (b"PUT", (), 200, (("Cache-Control", "max-age=1"),), False, "no"),
        (b"GET", (), 200, (("Edged-Cache-Control", "private"), ("Cache-Control", "max-age=1")), False, "no"),
    ],
)
def test_who_may_keep_an_answer(
    method: bytes,
    request_: tuple[tuple[str, str], ...],
    status: int,
    response: tuple[tuple[str, str], ...],
    private_allowed: bool,
    expected: str,
) -> None:
    request = read_request(method, URL, fields(*request_))
    received = receive(status, fields(*response), Receipt(NOW_S, WALL_S, 0.0))
    assert storing_scope(request, received, private_allowed=private_allowed) == expected


@pytest.mark.parametrize(
    ("response", "stale_s", "unreachable", "expected"),
    [
        ((("Cache-Control", "max-age=1"),), 99, True, True),
        ((("Cache-Control", "max-age=1"),), 101, True, False),
        ((("Cache-Control", "max-age=1"),), 5, False, True),
        ((("Cache-Control", "max-age=1"),), 11, False, False),
        ((("Cache-Control", "max-age=1, stale-if-error=500"),), 499, False, True),
        ((("Cache-Control", "max-age=1, stale-if-error=500"),), 499, True, True),
        ((("Cache-Control", "max-age=1, must-revalidate"),), 1, True, False),
        ((("Cache-Control", "max-age=1, proxy-revalidate"),), 1, True, False),
        ((("Cache-Control", "s-maxage=1"),), 1, True, False),
        ((("Cache-Control", "max-age=1, no-cache"),), 1, True, False),
    ],
)
def test_an_upstream_that_is_gone_or_fails(
    response: tuple[tuple[str, str], ...], stale_s: float, unreachable: bool, expected: bool
) -> None:
    request = read_request(b"GET", URL, ())
    windows = Windows(offline_s=100, if_error_s=10)
    now_s = NOW_S + 1 + stale_s
    assert may_serve_failing(request, stored(*response), now_s, windows, unreachable=unreachable) is expected


def test_a_client_that_wants_no_stale_answer_gets_none() -> None:
    request = read_request(b"GET", URL, fields(("Cache-Control", "no-cache")))
    entry = stored(("Cache-Control", "max-age=1"))
    assert not may_serve_failing(request, entry, NOW_S + 2, Windows(100, 100), unreachable=True)


def test_an_unknown_age_is_never_fresh_but_serves_offline() -> None:
    entry = stored(("Cache-Control", "max-age=1000000"))
    lost = type(entry)(**{name: getattr(entry, name) for name in entry.__slots__} | {"received_s": None})
    request = read_request(b"GET", URL, ())
    assert isinstance(decide(request, lost, NOW_S), Ask)
    assert may_serve_failing(request, lost, NOW_S, Windows(1, 0), unreachable=True)
    assert not may_serve_failing(request, lost, NOW_S, Windows(0, 0), unreachable=True)


def test_a_304_freshens_and_keeps_what_it_does_not_name() -> None:
    entry = stored(("Cache-Control", "max-age=1"), ("ETag", '"a"'), ("X", "1"), ("Content-Length", "3"))
    update = fields(
        ("Cache-Control", "max-age=9"), ("Content-Length", "7"), ("X", "2"), ("Connection", "Y"), ("Y", "z")
    )
    fresh = freshen(entry, update, Receipt(NOW_S + 10, WALL_S + 10, 0.0))
    assert fresh.lifetime_s == 9
    assert fresh.age_s(NOW_S + 10) == pytest.approx(0)
    assert value_of(fresh.fields, b"x") == b"2"
    assert value_of(fresh.fields, b"etag") == b'"a"'
    assert value_of(fresh.fields, b"content-length") == b"3"
    assert value_of(fresh.fields, b"y") is None


def test_fields_of_the_connection_and_those_listed_are_not_kept() -> None:
    entry = stored(
        ("Connection", "a, close"),
        ("A", "1"),
        ("Keep-Alive", "x"),
        ("Cache-Control", 'max-age=9, no-cache="b"'),
        ("B", "2"),
        ("C", "3"),
        ("Age", "1"),
    )
    assert [name for name, _ in entry.fields] == [b"cache-control", b"c", b"date"]


@pytest.mark.parametrize(
    ("request_", "status", "span"),
    [
        ((("If-None-Match", '"a"'),), 304, None),
        ((("If-None-Match", 'W/"a", "b"'),), 304, None),
        ((("If-None-Match", '"b"'), ("If-Modified-Since", "Fri, 15 Jan 2027 08:00:00 GMT")), 200, (0, 2)),
        ((("If-None-Match", "*"),), 304, None),
        ((("If-Modified-Since", "Friday, 15-Jan-27 07:00:00 GMT"),), 304, None),
        ((("If-Modified-Since", "Fri, 15 Jan 2027 06:59:59 GMT"),), 200, (0, 2)),
        ((("Range", "bytes=1-"),), 206, (1, 2)),
        ((("Range", "bytes=-1"),), 206, (2, 2)),
        ((("Range", "bytes=0-0"),), 206, (0, 0)),
        ((("Range", "bytes=0-99"),), 206, (0, 2)),
        ((("Range", "bytes=3-"),), 416, None),
        ((("Range", "bytes=-0"),), 416, None),
        ((("Range", "bytes=2-1"),), 200, (0, 2)),
        ((("Range", "bytes=0-0,2-2"),), 200, (0, 2)),
        ((("Range", "lines=0-1"),), 200, (0, 2)),
        ((("Range", "bytes=0-0"), ("If-Range", '"a"')), 206, (0, 0)),
        ((("Range", "bytes=0-0"), ("If-Range", 'W/"a"')), 200, (0, 2)),
        ((("Range", "bytes=0-0"), ("If-Range", "Fri, 15 Jan 2027 07:00:00 GMT")), 206, (0, 0)),
        ((("Range", "bytes=0-0"), ("If-Range", "Fri, 15 Jan 2027 07:00:01 GMT")), 200, (0, 2)),
        ((("Range", "bytes=0-0"), ("If-None-Match", '"a"')), 304, None),
    ],
)
def test_conditions_and_ranges_are_answered_from_the_stored_whole(
    request_: tuple[tuple[str, str], ...], status: int, span: tuple[int, int] | None
) -> None:
    entry = stored(("Cache-Control", "max-age=60"), ("ETag", '"a"'), ("Last-Modified", "Fri, 15 Jan 2027 07:00:00 GMT"))
    answer = answer_from(entry, read_request(b"GET", URL, fields(*request_)), NOW_S + 5, hit_status(entry, NOW_S + 5))
    assert (answer.status, answer.span and (answer.span.first, answer.span.last)) == (status, span)
    assert value_of(answer.fields, b"age") == b"5"
    assert value_of(answer.fields, b"cache-status") == b"edged; hit; ttl=55"


def test_a_head_has_the_length_and_no_body() -> None:
    entry = stored(("Cache-Control", "max-age=60"))
    answer = answer_from(entry, read_request(b"HEAD", URL, ()), NOW_S, CacheStatus(hit=True))
    assert (answer.span, value_of(answer.fields, b"content-length")) == (None, b"3")


def test_cache_status_comes_after_those_nearer_to_the_origin() -> None:
    entry = stored(("Cache-Control", "max-age=60"))
    before = (*entry.fields, (b"cache-status", b"origin; fwd=miss"))
    entry = type(entry)(**{name: getattr(entry, name) for name in entry.__slots__} | {"fields": before})
    answer = answer_from(entry, read_request(b"GET", URL, ()), NOW_S, CacheStatus(hit=True))
    assert value_of(answer.fields, b"cache-status") == b"origin; fwd=miss, edged; hit"


@pytest.mark.parametrize("before", [b";;;,", b"", b"a b", b"(a b)", b"?1", b"3", b'"a', b"a,", b"a; ;b", b"x" * 9000])
def test_a_cache_status_that_is_no_list_does_not_take_ours_with_it(before: bytes) -> None:
    assert with_status(((b"cache-status", before),), CacheStatus(hit=True)) == ((b"cache-status", b"edged; hit"),)


@pytest.mark.parametrize("before", [b"a", b'"a b"; hit; ttl=-3', b"a; fwd=miss, b;detail=x"])
def test_any_cache_status_that_is_a_list_goes_on(before: bytes) -> None:
    fields = with_status(((b"cache-status", before),), CacheStatus(hit=True))
    assert fields == ((b"cache-status", before + b", edged; hit"),)


def test_a_date_that_is_missing_is_added_only_while_the_clock_is_set() -> None:
    assert received_fields((), Receipt(NOW_S, WALL_S, 0)) == ((b"date", DATE),)
    assert received_fields(((b"date", b"soon"),), Receipt(NOW_S, WALL_S, 0)) == ((b"date", DATE),)
    assert received_fields((), Receipt(NOW_S, None, 0)) == ()


def test_an_expires_without_date_is_not_trusted_while_the_clock_is_at_1970() -> None:
    request = read_request(b"GET", URL, ())
    head = fields(("Expires", "Fri, 15 Jan 2027 08:01:00 GMT"))
    entry = make_entry(request, receive(200, head, Receipt(NOW_S, None, 0)), size=0, order=1, private=False)
    assert entry.lifetime_s == 0
    assert not is_shareable(entry)


@pytest.mark.parametrize(
    ("control", "kept"), [("max-age=9", False), ("private, max-age=9", False), ("public, max-age=9", True)]
)
def test_a_cookie_is_kept_only_where_the_answer_is_for_everyone(control: str, kept: bool) -> None:
    entry = stored(("Cache-Control", control), ("Set-Cookie", "sid=1"))
    assert (value_of(entry.fields, b"set-cookie") is not None) == kept
    later = freshen(entry, fields(("Set-Cookie", "sid=2")), Receipt(NOW_S + 1, WALL_S + 1, 0.0))
    assert value_of(later.fields, b"set-cookie") == (b"sid=2" if kept else None)


def test_what_connection_takes_away_of_an_answer_still_says_for_whom_it_is() -> None:
    head = fields(
        ("Cache-Control", "private, max-age=60"), ("Connection", "Cache-Control, Vary, X"), ("Vary", "Cookie")
    )
    received = receive(200, answer_fields(200, (*head, (b"x", b"1"))), Receipt(NOW_S, WALL_S, 0.0))
    assert received.policy.private
    assert vary_names(received.fields) == (b"cookie",)
    assert value_of(received.fields, b"x") is None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("If-Match", '"a"'), Serve()),
        (("If-Match", "*"), Serve()),
        (("If-Match", '"b"'), Ask("request")),
        (("If-Match", 'W/"a"'), Ask("request")),
        (("If-Unmodified-Since", "Thu, 14 Jan 2027 08:00:00 GMT"), Serve()),
        (("If-Unmodified-Since", "Thu, 14 Jan 2027 07:59:59 GMT"), Ask("request")),
    ],
)
def test_a_request_for_one_version_is_not_answered_with_another(
    condition: tuple[str, str], expected: Serve | Ask
) -> None:
    entry = stored(("Cache-Control", "max-age=60"), ("ETag", '"a"'), ("Last-Modified", "Thu, 14 Jan 2027 08:00:00 GMT"))
    request = read_request(b"GET", URL, fields(("Range", "bytes=1-"), condition))
    assert decide(request, entry, NOW_S) == expected
    stale = decide(request, entry, NOW_S + 61)
    assert isinstance(stale, Ask)
    assert stale.conditions == ()
    windows = Windows(offline_s=100, if_error_s=0)
    assert may_serve_failing(request, entry, NOW_S + 61, windows, unreachable=True) == (expected == Serve())


@pytest.mark.parametrize(
    ("response", "names"),
    [
        ((("Access-Control-Allow-Origin", "https://a.example"),), (b"origin",)),
        ((("Access-Control-Allow-Origin", "*"),), ()),
        ((("Content-Encoding", "gzip"),), (b"accept-encoding",)),
        ((("Content-Encoding", "gzip"), ("Vary", "Cookie")), (b"accept-encoding", b"cookie")),
    ],
)
def test_what_an_answer_was_made_for_selects_it_although_vary_is_silent(
    response: tuple[tuple[str, str], ...], names: tuple[bytes, ...]
) -> None:
    assert vary_names(fields(*response)) == names


@pytest.mark.parametrize(
    "field",
    ["X-Forwarded-Host", "X-Forwarded-Anything", "Forwarded", "X-Original-URL", "X-HTTP-Method-Override", "X-Real-IP"],
)
def test_fields_that_steer_a_service_part_what_is_kept(field: str) -> None:
    plain, one, other = ((), fields((field, "a")), fields((field, "b")))
    keys = {partition_of(asked, ()) for asked in (plain, one, other, fields(("Accept", "x")))}
    assert partition_of(plain, ()) == b""
    assert len(keys) == 3


def test_no_two_lists_of_fields_have_one_name() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert private_scope("a", fields(("Cookie", "x")), b"") != private_scope("a", fields(("X-Api-Key", "x")), b"")
    assert private_scope("a", fields(("Accept", "x")), b"") == private_scope("a", (), b"")
