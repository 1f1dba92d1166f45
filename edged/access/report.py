"""What a device tells its origin of use, where that is switched on: one day's counts, compressed CBOR. No I/O.

`[1, day, [[app, audience, place, answers, remembered, refused, bytes], …]]`, day: whole days since 1970, compressed by
zlib (RFC 1950). docs/privacy.md says the same in words, and what is never in it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import cbor2

from edged.access.usage import OTHER, Count, Used

FORMAT = 1
REPORT_BYTES, PLAIN_BYTES = 8 << 10, 64 << 10
ROWS = 200  # the most used; the rest of a dataset's is left out
NAME_CHARACTERS, PLACE_CHARACTERS = 64, 160
MOST_ANSWERS = 50_000_000  # of one device in one day: 600 a second, all day
MOST_BYTES = 1 << 42
AUDIENCES = ("internal", "partner", "public", "")
NAME = re.compile(r"[\w.@ -]{1,64}")


def rows_of(counted: Iterable[tuple[Used, Count]], dataset: str) -> list[tuple[Used, Count]]:
    """What of a day's use is a dataset's to be told of: no proxied service, and nothing of other datasets."""
    mine = [(used, count) for used, count in counted if used.place.partition("/")[0] == dataset]
    return sorted(mine, key=lambda row: -row[1].answers)[:ROWS]


def encode_report(day: int, rows: Iterable[tuple[Used, Count]]) -> bytes:
    """At most REPORT_BYTES: the least used are left out where it would be more."""
    left = [[*used, count.answers, count.remembered, count.refused, count.sent_bytes] for used, count in rows]
    while True:
        data = zlib.compress(cbor2.dumps([FORMAT, day, left]), 9)
        if len(data) <= REPORT_BYTES:
            return data
        left = left[: len(left) * 3 // 4]


def decode_report(data: bytes, dataset: str) -> tuple[int, list[tuple[Used, Count]]]:
    """The day and its rows. Raises ValueError for what no device sends."""
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(data, PLAIN_BYTES)
        if len(data) > REPORT_BYTES or not unpacking.eof or unpacking.unused_data:
            raise ValueError("larger than a report is")
        document = cbor2.loads(plain, max_depth=4, allow_indefinite=False, allow_duplicate_keys=False)
    except (zlib.error, cbor2.CBORError, RecursionError) as fault:
        raise ValueError(f"not a report: {fault}") from fault
    match document:
        case [1, int() as day, list() as rows] if len(rows) <= ROWS and 0 <= day < 1 << 20:
            return day, [row_of(row, dataset) for row in rows]
    raise ValueError(f"not a report of format {FORMAT}")


def row_of(row: object, dataset: str) -> tuple[Used, Count]:
    match row:
        case [str() as app, str() as audience, str() as place, *numbers] if len(numbers) == 4:
            pass
        case _:
            raise ValueError("a row is not names and numbers")
    if not NAME.fullmatch(app) or audience not in AUDIENCES or len(place) > PLACE_CHARACTERS:
        raise ValueError("a name that no configuration has")
    if place.partition("/")[0] != dataset or not place.isprintable():
        raise ValueError("a place of another dataset")
    counts = [number for number in numbers if type(number) is int and number >= 0]
    if len(counts) != len(numbers):
        raise ValueError("a count that is none")
    answers, remembered, refused, sent_bytes = counts
    if answers > MOST_ANSWERS or max(remembered, refused) > answers or sent_bytes > MOST_BYTES:
        raise ValueError("more than one device can have answered in a day")
    return Used(app, audience, place), Count(answers, remembered, refused, sent_bytes)


def or_other(used: Used) -> Used:
    """Where too many are told apart."""
    return Used(OTHER, used.audience, OTHER)
