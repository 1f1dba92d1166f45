"""Every bound of the rules on both sides: exactly at it, and one beyond."""

from __future__ import annotations

import pytest

from edged.http.fields import Fields, write_date
from edged.proxy.rules.answer import answer_from, hit_status
from edged.proxy.rules.circuit import Circuit
from edged.proxy.rules.decisions import (
    Ask,
    CacheEntry,
    Receipt,
    Serve,
    Windows,
    decide,
    is_shareable,
    is_worth_keeping,
    make_entry,
    may_serve_failing,
    read_request,
    receive,
)
from edged.proxy.rules.directives import FOREVER_S, read_seconds
from edged.proxy.rules.forward import LENGTH_DIGITS, TARGET_BYTES, Refused, check_fields, check_framing, check_target
from edged.proxy.rules.freshness import HEURISTIC_MAX_S, lifetime_s, read_policy
from edged.proxy.rules.invalidation import GROUP_CHARACTERS, MAX_GROUPS, GroupLedger, invalidates, read_groups
from edged.proxy.rules.structured import FIELD_BYTES, Malformed, read_dictionary, read_list, read_targeted
from edged.proxy.rules.validation import same_length
from edged.proxy.rules.vary import MAX_VARIANTS, Variant, add_variant

NOW_S, WALL_S = 5_000.0, 1_800_000_000.0
DATE = b"Fri, 15 Jan 2027 08:00:00 GMT"  # WALL_S


def fields(*pairs: tuple[str, str]) -> Fields:
    return tuple((name.lower().encode(), value.encode()) for name, value in pairs)


def stored(*pairs: tuple[str, str], status: int = 200, delay_s: float = 0.0) -> CacheEntry:
    received = receive(status, (*fields(*pairs), (b"date", DATE)), Receipt(NOW_S, WALL_S, delay_s))
    return make_entry(read_request(b"GET", b"http://x/", ()), received, size=3, order=1, private=False)


@pytest.mark.parametrize(
    ("response", "request_", "last_s", "then"),
    [
        ("max-age=60", "", 59.999, Ask("stale")),
        ("max-age=60", "max-age=9", 9, Ask("request")),
        ("max-age=60", "min-fresh=50", 10, Ask("request")),
        ("max-age=60", "max-stale=5", 65, Ask("stale")),
        ("max-age=60", "max-stale=0", 60, Ask("stale")),
        ("max-age=60, stale-while-revalidate=5", "", 64.999, Ask("stale")),
    ],
)
def test_how_long_a_response_serves(response: str, request_: str, last_s: float, then: Ask) -> None:
    entry = stored(("Cache-Control", response))
    request = read_request(b"GET", b"http://x/", fields(("Cache-Control", request_)) if request_ else ())
    assert isinstance(decide(request, entry, NOW_S + last_s), Serve)
    assert decide(request, entry, NOW_S + last_s + 0.001) == then


@pytest.mark.parametrize(
    ("response", "request_", "windows", "unreachable", "last_s"),
    [
        ("max-age=60", "", Windows(100, 0), True, 160),
        ("max-age=60", "", Windows(0, 7), False, 67),
        ("max-age=60, stale-if-error=9", "", Windows(0, 7), False, 69),
        ("max-age=60", "stale-if-error=11", Windows(0, 7), False, 71),
        ("max-age=60", "", Windows(0, 0), True, 60),
    ],
)
def test_how_long_a_response_covers_for_its_upstream(
    response: str, request_: str, windows: Windows, unreachable: bool, last_s: float
) -> None:
    entry = stored(("Cache-Control", response))
    request = read_request(b"GET", b"http://x/", fields(("Cache-Control", request_)) if request_ else ())
    assert may_serve_failing(request, entry, NOW_S + last_s, windows, unreachable=unreachable)
    assert not may_serve_failing(request, entry, NOW_S + last_s + 0.001, windows, unreachable=unreachable)


def test_what_came_as_old_as_it_may_get_is_neither_shared_nor_fresh() -> None:
    young, old = (
        stored(("Cache-Control", "max-age=60"), ("Age", "59")),
        stored(("Cache-Control", "max-age=60"), ("Age", "60")),
    )
    assert is_shareable(young)
    assert not is_shareable(old)
    assert is_worth_keeping(stored(("Cache-Control", "max-age=1")))
    assert not is_worth_keeping(stored(("Cache-Control", "max-age=0")))
    assert is_worth_keeping(stored(("Cache-Control", "max-age=0"), ("ETag", '"a"')))


@pytest.mark.parametrize(("status", "length", "expected"), [(204, None, 204), (203, b"3", 203), (200, b"3", 200)])
def test_a_204_alone_has_no_length(status: int, length: bytes | None, expected: int) -> None:
    entry = stored(("Cache-Control", "max-age=60"), status=status)
    answer = answer_from(entry, read_request(b"GET", b"http://x/", ()), NOW_S, hit_status(entry, NOW_S))
    assert answer.status == expected
    assert dict(answer.fields).get(b"content-length") == length
    assert (answer.span is None) == (status == 204)


@pytest.mark.parametrize(
    ("status", "control", "modified_s", "expected"),
    [
        (200, "", 1_000, 100),
        (200, "", 10 * HEURISTIC_MAX_S, HEURISTIC_MAX_S),
        (200, "", 10 * HEURISTIC_MAX_S - 10, HEURISTIC_MAX_S - 1),
        (200, "", 10 * HEURISTIC_MAX_S + 10, HEURISTIC_MAX_S),
        (200, "", 0, 0),
        (302, "", 1_000, 0),
        (302, "public", 1_000, 100),
        (404, "", 1_000, 100),
    ],
)
def test_a_guessed_lifetime(status: int, control: str, modified_s: int, expected: int) -> None:
    head = (
        (b"date", DATE),
        (b"last-modified", write_date(WALL_S - modified_s)),
        *(fields(("Cache-Control", control)) if control else ()),
    )
    assert lifetime_s(status, head, read_policy(status, head), WALL_S) == (expected, False)


@pytest.mark.parametrize(
    ("digits", "seconds"), [("2147483648", FOREVER_S), ("2147483647", FOREVER_S - 1), ("9" * 40, FOREVER_S)]
)
def test_seconds_that_overflow(digits: str, seconds: int) -> None:
    assert read_seconds(digits.encode()) == seconds


def test_the_longest_target_and_the_longest_length() -> None:
    check_target(b"/" * TARGET_BYTES)
    with pytest.raises(Refused) as refused:
        check_target(b"/" * (TARGET_BYTES + 1))
    assert refused.value.status == 414
    check_fields(((b"content-length", b"1" * LENGTH_DIGITS),))
    with pytest.raises(Refused):
        check_fields(((b"content-length", b"1" * (LENGTH_DIGITS + 1)),))
    check_framing(b"HTTP/1.1", ((b"content-length", b"1" * LENGTH_DIGITS),))
    with pytest.raises(Exception, match="one number"):
        check_framing(b"HTTP/1.1", ((b"content-length", b"1" * (LENGTH_DIGITS + 1)),))


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        (b"/%2525252e", False),  # "/%25252e", "/%252e", "/%2e", "/.": looked at in each
        (b"/%252541", True),
        (b"/%25252541", False),  # deeper than anybody means it
        (b"/a.b", True),
        (b"/...", True),
        (b"/.;x", False),
        (b"/..%20/x", False),
        (b"/x%2f..%2fy", False),
        (b"/%c0%ae%c0%ae/x", False),
        (b"/a..b;c=..", True),
    ],
)
def test_how_a_path_may_be_encoded(path: bytes, taken: bool) -> None:
    if taken:
        check_target(path)
    else:
        with pytest.raises(Refused):
            check_target(path)


def test_a_circuit_opens_at_its_limit_once_and_looks_ever_more_rarely() -> None:
    circuit = Circuit(limit=2, first_s=1.0, most_s=4.0)
    told = [(circuit.failed(), circuit.is_open) for _ in range(3)]
    assert told == [(False, False), (True, True), (False, True)]  # nobody is told twice
    assert (circuit.opened, circuit.delay_s) == (1, 1.0)
    delays = []
    for _ in range(3):
        circuit.missed()
        delays.append(circuit.delay_s)
    assert delays == [2.0, 4.0, 4.0]
    for _ in range(2):
        circuit.succeeded()
        assert [circuit.is_open, circuit.failed()] == [False, False]  # counted from the beginning


def test_a_ledger_that_is_full_forgets_the_oldest_and_all_that_is_older_with_it() -> None:
    ledger = GroupLedger(limit=2)
    ledger.invalidate(b"o", ("a",), 5)
    ledger.invalidate(b"o", ("b",), 6)
    assert ledger.holds(b"o", ("c",), 1)
    assert not ledger.holds(b"o", ("a",), 5)
    assert ledger.holds(b"o", ("a",), 6)
    ledger.invalidate(b"o", ("c",), 7)
    assert ledger.floor == 5
    assert not ledger.holds(b"o", ("d",), 5)
    assert ledger.holds(b"o", ("d",), 6)
    assert ledger.holds(b"o", (), 1)
    assert not ledger.holds(b"o", ("d", "c"), 7)
    with pytest.raises(ValueError, match="not a ledger"):
        ledger.load([5, [[b"o", "a", 1]] * 3])
    ledger.load([5, [[b"o", "a", 1], [b"o", "b", 2]]])


def test_how_many_groups_and_how_long() -> None:
    names = [f"g{number}" for number in range(MAX_GROUPS + 1)]
    value = ", ".join(f'"{name}"' for name in names)
    assert read_groups(fields(("Cache-Groups", value)), b"cache-groups") == tuple(names[:MAX_GROUPS])
    fits, long = "a" * GROUP_CHARACTERS, "a" * (GROUP_CHARACTERS + 1)
    assert read_groups(fields(("Cache-Groups", f'"{fits}", "{long}"')), b"cache-groups") == (fits,)


@pytest.mark.parametrize(("status", "expected"), [(199, False), (200, True), (399, True), (400, False)])
def test_which_answers_invalidate(status: int, expected: bool) -> None:
    assert invalidates(b"POST", status) == expected


def test_variants_at_their_bound() -> None:
    variants: tuple[Variant, ...] = ()
    for number in range(MAX_VARIANTS):
        new = Variant(((b"a", b"%d" % number),), None, b"%d" % number, number)
        variants, gone = add_variant(variants, new)
        assert gone == ()
    assert len(variants) == MAX_VARIANTS
    variants, gone = add_variant(variants, Variant(((b"a", b"x"),), None, b"x", 99))
    assert (len(variants), [variant.name for variant in gone]) == (MAX_VARIANTS, [b"0"])
    same = Variant(((b"a", b"x"),), None, b"y", 100)
    variants, gone = add_variant(variants, same)
    assert (len(variants), [variant.name for variant in gone], variants[-1]) == (MAX_VARIANTS, [b"x"], same)


def test_the_longest_structured_field() -> None:
    long = b"a=" + b"1" + b" " * (FIELD_BYTES - 3)
    assert read_dictionary(long) == {b"a": 1}
    with pytest.raises(Malformed):
        read_dictionary(long + b" ")
    assert read_list(b"1" + b" " * (FIELD_BYTES - 1)) == [1]
    with pytest.raises(Malformed):
        read_list(b"1" + b" " * FIELD_BYTES)


def test_what_a_targeted_field_says_by_its_types() -> None:
    found = read_targeted([b'max-age=60, a, b="text", c=token, d=?0, e=1.5, f=(1 2), stale-if-error=3'])
    assert found is not None
    expected = {b"max-age": b"60", b"a": None, b"b": b"text", b"c": b"token", b"stale-if-error": b"3"}
    assert dict(found.values) == expected
    for wrong in (b'max-age="60"', b"s-maxage=1.5", b"stale-if-error=?1", b"stale-while-revalidate=(1)", b""):
        assert read_targeted([wrong]) is None
    assert read_targeted([]) is None
    forever = read_targeted([b"max-age=%d" % (FOREVER_S + 1)])
    assert forever is not None
    assert forever.seconds(b"max-age") == FOREVER_S


@pytest.mark.parametrize(
    ("stored_length", "told", "same"), [("5", None, True), ("5", "5", True), ("5", "6", False), (None, "5", False)]
)
def test_a_length_that_a_head_request_tells_is_the_stored_one(
    stored_length: str | None, told: str | None, same: bool
) -> None:
    def length(value: str | None) -> Fields:
        return fields() if value is None else fields(("Content-Length", value))

    assert same_length(length(stored_length), length(told)) is same
