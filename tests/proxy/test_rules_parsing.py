"""Parsing what peers send: dates, lists, directives, structured fields, Vary; no input raises, none is misread."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.http.fields import Fields, read_date, split_list, value_of, write_date
from edged.proxy.rules.digest import DigestCheck
from edged.proxy.rules.directives import FOREVER_S, read_directives, read_seconds
from edged.proxy.rules.forward import Refused, answer_fields, check_fields, check_target, under_prefix, upstream_fields
from edged.proxy.rules.freshness import initial_age_s, lifetime_s, read_policy
from edged.proxy.rules.invalidation import GroupLedger, invalid_urls, invalidates, read_groups
from edged.proxy.rules.structured import Malformed, read_dictionary, read_list, read_targeted
from edged.proxy.rules.vary import Variant, add_variant, choose, matches, select, vary_names

raw_text = st.binary(max_size=60)


@given(st.integers(0, 253_402_300_799))
def test_every_date_that_is_written_is_read_back(seconds: int) -> None:
    assert read_date(write_date(seconds)) == seconds


@given(st.integers(-2_000_000_000, 3_300_000_000))
def test_the_three_forms_of_a_date_agree(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    if not 1977 <= moment.year <= 2076:
        return
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    rfc850 = f"{days[moment.weekday()]}, {moment:%d-%b-%y %H:%M:%S} GMT"
    asctime = f"{moment:%a %b} {moment.day:2d} {moment:%H:%M:%S %Y}"
    assert read_date(rfc850.encode()) == read_date(asctime.encode()) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "0", "", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18 Aug 50 02:01:18 GMT", "Thu 18 Aug 2050 02:01:18 GMT",
        "Thu, 18  Aug  2050 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 02.01.18 GMT",
        "Thu, 18 Aug 2050 2:01:18 GMT", "Thu, 31 Jun 2050 02:01:18 GMT", "Thu, 18 Aug 2050 25:01:18 GMT",
        "Thu, 18 Foo 2050 02:01:18 GMT",
    ],
)  # fmt: skip
def test_a_date_is_read_to_the_letter_or_not_at_all(text: str) -> None:
    assert read_date(text.encode()) is None


@given(raw_text)
def test_nothing_a_peer_sends_raises(data: bytes) -> None:
    read_date(data)
    read_seconds(data)
    read_directives([data])
    split_list(data)
    read_targeted([data])
    read_policy(200, ((b"cache-control", data), (b"vary", data), (b"expires", data)))
    read_groups(((b"cache-groups", data),), b"cache-groups")
    DigestCheck(((b"content-digest", data), (b"repr-digest", data))).holds()
    invalid_urls(b"http://h/a", ((b"location", data),))
    matches(select((b"accept-language", b"foo"), ((b"accept-language", data),)), ((b"foo", data),))


@given(st.lists(st.text("abc;= ", min_size=1).map(str.strip).filter(bool), max_size=6))
def test_a_list_is_the_same_on_one_line_or_many(members: list[str]) -> None:
    joined = ", ".join(members).encode()
    assert split_list(joined) == [member.encode() for member in members]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("max-age=5", 5), ("max-age=005", 5), ('max-age="5"', 5), ("MAX-AGE=5", 5), ("max-age='5'", 0),
        ("max-age=5.0", 0), ("max-age =5", 0), ("max-age= 5", 0), ("max-age", 0), ("foo", None), ("max-age=-5", 0),
        ("max-age=1, max-age=9", 1),
        ('x="max-age=9", max-age=1', 1), ('x="a,max-age=9"', None), ("max-age=99999999999999", FOREVER_S),
    ],
)  # fmt: skip
def test_max_age(line: str, seconds: int | None) -> None:
    assert read_directives([line.encode()]).seconds(b"max-age") == seconds


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("a=1, b=2.5, c, d=?0, e=tok/en, f=\"x\\\"y\", g=:YQ==:, h=(1 2);p=1", {
            b"a": 1, b"b": 2.5, b"c": True, b"d": False, b"e": b"tok/en", b"f": 'x"y', b"g": b"YQ==", b"h": [1, 2]}),
        ("a=1,a=2", {b"a": 2}),
        ("", {}),
    ],
)  # fmt: skip
def test_dictionaries(text: str, members: dict[bytes, object]) -> None:
    assert read_dictionary(text.encode()) == members


@pytest.mark.parametrize("text", ["a=1,", "A=1", "a=", "a=1 b", "a=(1", 'a="x', "&&", "a=1.2345", "a=1;B", "a=:!:"])
def test_malformed_dictionaries_are_refused_whole(text: str) -> None:
    with pytest.raises(Malformed):
        read_dictionary(text.encode())


def test_lists_of_groups() -> None:
    assert read_list(b'"a", "b";x=1, c') == ["a", "b", b"c"]
    groups = read_groups(((b"cache-groups", b'"a", "b", c, "a", "' + b"x" * 33 + b'"'),), b"cache-groups")
    assert groups == ("a", "b")
    assert read_groups(((b"cache-groups", b'"a", '),), b"cache-groups") == ()


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        (["5"], 5),
        (["abc"], 0),
        (["-5"], 0),
        (["7, 0"], 7),
        (["0", "7"], 0),
        (["5.0"], 0),
        ([], 0),
        (["9" * 20], FOREVER_S),
    ],
)
def test_age_counts_its_first_number(ages: list[str], expected: int) -> None:
    fields: Fields = tuple((b"age", age.encode()) for age in ages)
    assert initial_age_s(fields, 0.0, None) == expected


def test_a_date_in_the_past_makes_an_answer_old_only_by_a_clock_that_is_set() -> None:
    fields: Fields = ((b"date", write_date(1_000)),)
    assert initial_age_s(fields, 2.0, 1_500.0) == 500
    assert initial_age_s(fields, 2.0, None) == 2


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_guessed_lifetime_is_a_tenth_and_bounded(modified: int, date: int, received: int) -> None:
    fields: Fields = ((b"last-modified", write_date(modified)), (b"date", write_date(date)))
    seconds, explicit = lifetime_s(200, fields, read_policy(200, fields), float(received))
    assert not explicit
    assert 0 <= seconds <= min(86_400, max(0, (date - modified) // 10 + 1))


# --- Vary ------------------------------------------------------------------------------------------------------------


def request(**values: str) -> Fields:
    return tuple((name.replace("_", "-").encode(), value.encode()) for name, value in values.items())


@pytest.mark.parametrize(
    ("names", "before", "now", "language", "expected"),
    [
        ("Foo", request(foo="1"), request(foo="1"), None, True),
        ("Foo", request(foo="1"), request(foo="2"), None, False),
        ("Foo", request(), request(foo="1"), None, False),
        ("Foo", request(foo="1"), request(), None, False),
        ("Foo", request(foo=""), request(), None, False),
        ("Foo", request(foo="1,2"), request(foo=" 1 ,  2 "), None, True),
        ("Foo", request(foo="1, 2"), ((b"foo", b"1"), (b"foo", b"2")), None, True),
        ("Foo", request(foo="1, 2"), request(foo="2, 1"), None, False),
        ("Accept-Language", request(accept_language="en, de"), request(accept_language="DE,en"), None, True),
        (
            "Accept-Language",
            request(accept_language="en, de"),
            request(accept_language="de;q=1, fr;q=0.5"),
            b"de",
            True,
        ),
        ("Accept-Language", request(accept_language="en, de"), request(accept_language="de, fr"), b"de", False),
        ("Accept-Language", request(accept_language="en, de"), request(accept_language="fr, de;q=0.9"), b"de", False),
        ("Foo, Bar", request(foo="1", bar="2"), request(bar="2", foo="1"), None, True),
    ],
)
def test_what_a_request_selects(
    names: str, before: Fields, now: Fields, language: bytes | None, expected: bool
) -> None:
    listed = vary_names(((b"vary", names.encode()),))
    assert listed is not None
    assert matches(select(listed, before), now, language) is expected


@pytest.mark.parametrize("lines", [["*"], ["*, *"], ["*", "*"], [", *"], ["", "*"], ["*, Foo"], ["Foo, *"]])
def test_a_star_selects_nothing(lines: list[str]) -> None:
    assert vary_names(tuple((b"vary", line.encode()) for line in lines)) is None


@given(st.lists(st.integers(0, 60), max_size=120))
def test_variants_stay_bounded_and_the_newest_match_wins(values: list[int]) -> None:
    variants: tuple[Variant, ...] = ()
    for order, value in enumerate(values):
        selecting = select((b"foo",), request(foo=str(value)))
        variants, gone = add_variant(variants, Variant(selecting, None, b"%d" % value, order))
        assert len(variants) <= 32
        assert not {variant.name for variant in gone} & {variant.name for variant in variants}
    if values:
        chosen = choose(variants, request(foo=str(values[-1])))
        assert chosen is not None
        assert chosen.order == len(values) - 1


# --- invalidation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [(b"POST", 200, True), (b"PURGE", 204, True), (b"PUT", 302, True), (b"POST", 500, False), (b"GET", 200, False)],
)
def test_only_unsafe_methods_that_succeed_invalidate(method: bytes, status: int, expected: bool) -> None:
    assert invalidates(method, status) is expected


def test_only_urls_of_the_same_origin_are_invalidated() -> None:
    fields: Fields = ((b"location", b"/b#x"), (b"content-location", b"http://other/c"))
    assert invalid_urls(b"http://h/a?b", fields) == (b"http://h/a?b", b"http://h/b")


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=60))
def test_an_invalidated_group_never_comes_back_however_many_there_are(steps: list[tuple[int, bool]]) -> None:
    ledger = GroupLedger(limit=3)
    stored: dict[int, int] = {}
    dead: set[int] = set()
    for order, (group, kill) in enumerate(steps, start=1):
        if kill:
            ledger.invalidate(b"o", (str(group),), order)
            dead.add(group)
        else:
            stored[group] = order
            dead.discard(group)
        assert len(ledger.since) <= 3
        for name, when in stored.items():
            if name in dead:
                assert not ledger.holds(b"o", (str(name),), when)
        if not kill:
            assert ledger.holds(b"o", (str(group),), order)
    again = GroupLedger(limit=3)
    again.load(ledger.dump())
    assert (again.floor, again.since) == (ledger.floor, ledger.since)


# --- forwarding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/a/../b", "/..", "/a/%2e%2E/b", "/a/./b", "/a\\b", "http://evil/a", "//x/../y", "a", "/a b", "/a#b", "/\x7f", ""],
)
def test_a_path_that_may_mean_something_else_upstream_is_refused(target: str) -> None:
    with pytest.raises(Refused):
        check_target(target.encode("latin-1"))


@pytest.mark.parametrize("target", ["/", "/a/b.c", "/a/..b", "/a?x=../y", "/%20", "/a//b"])
def test_ordinary_paths_pass(target: str) -> None:
    check_target(target.encode())


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/api", "/api", True),
        ("/api/x", "/api", True),
        ("/apix", "/api", False),
        ("/x", "/", True),
        ("/api", "/api/", True),
    ],
)
def test_a_route_takes_whole_segments(path: str, prefix: str, expected: bool) -> None:
    assert under_prefix(path.encode(), prefix.encode()) is expected


@pytest.mark.parametrize(
    "fields",
    [
        ((b"content-length", b"5"), (b"content-length", b"5")),
        ((b"content-length", b"5"), (b"transfer-encoding", b"chunked")),
        ((b"content-length", b"+5"),),
        ((b"content-length", b"5, 5"),),
        ((b"x y", b"1"),),
        ((b"x", b"1\r\nhost: evil"),),
        ((b"x", b"a\x00b"),),
    ],
)
def test_a_request_that_could_smuggle_another_is_refused(fields: Fields) -> None:
    with pytest.raises(Refused):
        check_fields(fields)


def forward(fields: Fields, method: bytes = b"GET", body: bool = False) -> Fields:
    return upstream_fields(fields, method=method, host=b"up", via=b"edged-1", body=body)


def test_nothing_of_the_connection_nor_of_edged_goes_upstream() -> None:
    passed = forward(
        (
            (b"host", b"localhost"),
            (b"connection", b"keep-alive, x-secret"),
            (b"x-secret", b"1"),
            (b"te", b"trailers"),
            (b"upgrade", b"h2c"),
            (b"transfer-encoding", b"chunked"),
            (b"proxy-authorization", b"x"),
            (b"expect", b"100-continue"),
            (b"accept", b"*/*"),
        )
    )
    assert passed == ((b"host", b"up"), (b"accept", b"*/*"), (b"via", b"1.1 edged-1"))


def test_credentials_for_the_service_go_upstream() -> None:
    assert (b"authorization", b"Bearer x") in forward(((b"authorization", b"Bearer x"),))


def test_the_framing_of_a_body_is_ours() -> None:
    assert (b"content-length", b"5") in forward(((b"content-length", b"5"),), body=True)
    assert (b"transfer-encoding", b"chunked") in forward(((b"transfer-encoding", b"chunked"),), body=True)
    assert forward(((b"content-length", b"0"),)) == ((b"host", b"up"), (b"via", b"1.1 edged-1"))


@pytest.mark.parametrize(
    ("method", "fields", "length"),
    [
        (b"POST", (), b"0"),
        (b"PUT", ((b"content-length", b"0"),), b"0"),
        (b"PATCH", (), b"0"),
        (b"DELETE", (), None),
        (b"DELETE", ((b"content-length", b"0"),), b"0"),
        (b"OPTIONS", (), None),
    ],
)
def test_that_there_is_no_body_is_said_where_one_is_expected(
    method: bytes, fields: Fields, length: bytes | None
) -> None:
    assert value_of(forward(fields, method), b"content-length") == length
    assert value_of(forward(fields, method), b"transfer-encoding") is None


def test_a_request_that_comes_back_is_a_loop() -> None:
    with pytest.raises(Refused) as refused:
        forward(((b"via", b"1.1 other, 1.1 edged-1"),))
    assert refused.value.status == 508


def test_an_answer_cannot_split_itself() -> None:
    fields: Fields = ((b"x", b"1\r\nset-cookie: a"), (b"y z", b"1"), (b"ok", b"1"), (b"connection", b"q"), (b"q", b"1"))
    assert answer_fields(200, fields) == ((b"ok", b"1"),)


# --- digests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", False),
        (b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", True),
        (b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:, md5=:AAAA:", True),
        (b"sha-256=5", False),
        (b"unknown=:AAAA:", True),
        (b"not a dictionary,", True),
    ],
)
def test_a_digest_is_checked_where_it_can_be(field: bytes, expected: bool) -> None:
    check = DigestCheck(((b"content-digest", field),))
    check.update(b"")
    assert check.holds() is expected
