"""What HTTP means, whoever answers: fields, dates, validators, ranges, status lines, problem documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.http.fields import Fields, date_of, members_of, names_of, read_date, split_list, value_of, write_date
from edged.http.framing import chunk, reason_of, status_line
from edged.http.problem import make_problem
from edged.http.ranges import ByteRange, RangeNotSatisfiable, content_range, partial_fields, wanted_range
from edged.http.validators import (
    if_range_holds,
    is_conditional,
    names_tag,
    not_modified,
    precondition_failed,
    strong_equal,
    weak_equal,
)

NOV_6 = 784111777  # the example of RFC 9110 section 5.6.7
WRITTEN = b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_a_field_of_several_lines_is_one_list() -> None:
    fields = ((b"a", b"x, y"), (b"b", b"other"), (b"a", b" Z ,, "))
    assert value_of(fields, b"a") == b"x, y,  Z ,, "
    assert value_of(fields, b"c") is None
    assert members_of(fields, b"a") == [b"x", b"y", b"Z"]
    assert names_of(fields, b"a") == [b"x", b"y", b"z"]


def test_commas_and_escapes_in_quoted_strings_split_nothing() -> None:
    assert split_list(rb'"a,b", "c\",d" ,e') == [b'"a,b"', rb'"c\",d"', b"e"]
    assert split_list(b'"open, to the end') == [b'"open, to the end']


@pytest.mark.parametrize(
    "text", [WRITTEN, b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994", WRITTEN.lower()]
)
def test_a_date_is_read_in_all_three_forms(text: bytes) -> None:
    assert read_date(text) == NOV_6


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        WRITTEN + b" ",
        WRITTEN.replace(b"GMT", b"UTC"),
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Jun 1994 08:49:37 GMT",
        b"Sun, 06 Xyz 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 30:49:37 GMT",
        b"x" * 40,
    ],
)
def test_what_is_no_date_is_none(text: bytes) -> None:
    assert read_date(text) is None


@given(st.integers(0, 1 << 35))
def test_a_written_date_reads_back(second: int) -> None:
    assert read_date(write_date(second + 0.9)) == second
    assert write_date(second) == datetime.fromtimestamp(second, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()


def test_two_digits_of_a_year_mean_the_century_that_is_near() -> None:
    assert read_date(b"Sunday, 06-Nov-76 08:49:37 GMT") == int(datetime(2076, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp())
    assert read_date(b"Sunday, 06-Nov-77 08:49:37 GMT") == int(datetime(1977, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp())


def test_a_leap_second_and_a_repeated_date() -> None:
    assert read_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())
    assert date_of(((b"date", WRITTEN), (b"date", WRITTEN)), b"date") is None
    assert date_of(((b"date", WRITTEN),), b"date") == NOV_6


def test_weak_and_strong_comparison_as_the_table_of_the_rfc() -> None:  # RFC 9110 section 8.8.3.2
    table = [
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'"1"', True, True),
    ]
    for one, other, strong, weak in table:
        assert (strong_equal(one, other), weak_equal(one, other)) == (strong, weak)


@pytest.mark.parametrize(
    ("listed", "tag", "named"),
    [
        (b'"a"', b'"a"', True),
        (b'W/"a"', b'"a"', True),
        (b'"b", "a"', b'"a"', True),
        (b'"b,a"', b'"a"', False),
        (b"*", b'"a"', True),
        (b"*", None, True),
        (b'"a"', None, False),
        (b'"a', b'"a"', False),
        (b"", b'"a"', False),
    ],
)
def test_if_none_match_names_a_tag(listed: bytes, tag: bytes | None, named: bool) -> None:
    assert names_tag(listed, tag) is named


def lines(**fields: bytes) -> Fields:
    return tuple((name.replace("_", "-").encode(), value) for name, value in fields.items())


def test_a_condition_on_the_time_counts_only_without_one_on_the_tag() -> None:
    stored = lines(etag=b'"a"', last_modified=WRITTEN)
    assert not_modified(lines(if_modified_since=WRITTEN), stored)
    assert not_modified(lines(if_modified_since=write_date(NOV_6 + 1)), stored)
    assert not not_modified(lines(if_modified_since=write_date(NOV_6 - 1)), stored)
    assert not not_modified(lines(if_none_match=b'"b"', if_modified_since=WRITTEN), stored)
    assert not not_modified((), stored)


def test_without_last_modified_the_date_counts_and_then_the_receipt() -> None:
    asked = lines(if_modified_since=WRITTEN)
    assert not_modified(asked, lines(date=WRITTEN))
    assert not not_modified(asked, ())
    assert not_modified(asked, (), NOV_6)
    assert not not_modified(asked, (), NOV_6 + 1)


def test_if_match_compares_strongly_and_goes_before_the_time() -> None:
    stored = lines(etag=b'"a"', last_modified=WRITTEN)
    assert not precondition_failed(lines(if_match=b'"b", "a"'), stored)
    assert precondition_failed(lines(if_match=b'W/"a"'), stored)
    assert not precondition_failed(lines(if_match=b"*"), stored)
    assert precondition_failed(lines(if_match=b'"a"'), lines(etag=b'W/"a"'))
    assert precondition_failed(lines(if_match=b'"a"'), ())
    late = write_date(NOV_6 - 1)
    assert precondition_failed(lines(if_unmodified_since=late), stored)
    assert not precondition_failed(lines(if_unmodified_since=WRITTEN), stored)
    assert not precondition_failed(lines(if_match=b'"a"', if_unmodified_since=late), stored)
    assert not precondition_failed(lines(if_unmodified_since=late), ())


def test_if_range_is_a_strong_tag_or_the_very_date() -> None:
    stored = lines(etag=b'"a"', last_modified=WRITTEN)
    assert if_range_holds((), stored)
    assert if_range_holds(lines(if_range=b'"a"'), stored)
    assert not if_range_holds(lines(if_range=b'W/"a"'), lines(etag=b'W/"a"'))
    assert if_range_holds(lines(if_range=WRITTEN), stored)
    assert not if_range_holds(lines(if_range=write_date(NOV_6 + 1)), stored)
    assert not if_range_holds(lines(if_range=b"nonsense"), stored)
    assert not if_range_holds(lines(if_range=b'"a"'), ())


@pytest.mark.parametrize("name", ["if_none_match", "if_modified_since", "if_match", "if_unmodified_since", "if_range"])
def test_each_condition_makes_a_request_conditional(name: str) -> None:
    assert is_conditional(lines(**{name: b"x"}))
    assert not is_conditional(lines(accept=b"x"))


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (b"bytes=0-0", ByteRange(0, 0)),
        (b"bytes=2-", ByteRange(2, 9)),
        (b"bytes=9-9", ByteRange(9, 9)),
        (b"bytes=5-99", ByteRange(5, 9)),
        (b"bytes=-3", ByteRange(7, 9)),
        (b"bytes=-99", ByteRange(0, 9)),
        (b"Bytes= 1-2 ", ByteRange(1, 2)),
        (b"bytes=5-4", None),
        (b"bytes=-", None),
        (b"bytes=0-1,3-4", None),
        (b"items=0-1", None),
        (b"bytes=x", None),
    ],
)
def test_a_range_of_ten_bytes(asked: bytes, wanted: ByteRange | None) -> None:
    assert wanted_range(lines(range=asked), (), 10) == wanted


@pytest.mark.parametrize(
    ("asked", "size"), [(b"bytes=10-", 10), (b"bytes=10-12", 10), (b"bytes=-0", 10), (b"bytes=-1", 0)]
)
def test_a_range_without_a_byte_in_it_is_not_satisfiable(asked: bytes, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        wanted_range(lines(range=asked), (), size)


def test_two_range_fields_and_an_if_range_that_does_not_hold_get_the_whole() -> None:
    one = (b"range", b"bytes=0-1")
    assert wanted_range((one, one), (), 10) is None
    assert wanted_range((one, (b"if-range", b'"b"')), lines(etag=b'"a"'), 10) is None


def test_the_fields_of_a_part() -> None:
    whole = lines(etag=b'"a"', content_length=b"10")
    found = partial_fields(whole, ByteRange(2, 4), 10)
    assert found == lines(etag=b'"a"', content_range=b"bytes 2-4/10", content_length=b"3")
    assert content_range(None, 10) == (b"content-range", b"bytes */10")


def test_status_lines_have_the_reasons_of_today_on_every_python() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(413) == b"HTTP/1.1 413 Content Too Large\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
    assert (reason_of(599), reason_of(799)) == ("Internal Server Error", "Error")


def test_a_chunk_of_nothing_is_nothing() -> None:
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert chunk(b"") == b""


def test_a_problem_document_has_all_four_members() -> None:
    fields, body = make_problem(421, "Host 'x' is not answered here")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Misdirected Request",
        "status": 421,
        "detail": "Host 'x' is not answered here",
    }
    assert dict(fields) == {
        b"Content-Type": b"application/problem+json",
        b"Cache-Control": b"no-store",
        b"Content-Length": b"%d" % len(body),
    }
    assert dict(make_problem(404, "", b"max-age=1")[0])[b"Cache-Control"] == b"max-age=1"
