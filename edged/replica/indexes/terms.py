"""What the indexes hold of a record: terms of declared fields, and folded words of declared text fields."""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

from edged.feed.fieldpath import ABSENT, reach

# Letters that Unicode does not decompose but that a remote control's keyboard does not have either.
PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
)
# Scripts that are written without spaces: each sign is a word of its own, so that any part of a title can be found.
# Indic vowel signs are no letters to Unicode, but parts of words.
WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
INDIC_WORD = re.compile(WORD.pattern.replace(r"[^\W_]+", r"(?:[^\W_]|[\u0900-\u0963\u0966-\u0dff])+"))
UNSPACED = re.compile(r"([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
INNER = str.maketrans("", "", "'’‘ʼ`.")  # "O'Brien" and "OBrien", "S.W.A.T." and "SWAT" are one word
ELIDED = re.compile(r"[^\W_]['’‘ʼ`.]([^\W\d_]{3,})")  # "Brien" is one too, and so is "amore" in "Dell'amore"
HYPHENATED = re.compile(r"[^\W_]+(?:[-‐‑·][^\W_]+)+")  # "Spider-Man" and "Spiderman", "WALL·E" and "Walle"
HYPHENS = str.maketrans("", "", "-‐‑·")
LONGEST_JOINED = 24
# With which titles are not put in order, as in a library; a viewer may leave them out.
ARTICLES = frozenset(
    (
        "the",
        "a",
        "an",
        "le",
        "la",
        "les",
        "une",
        "das",
        "el",
        "los",
        "las",
        "il",
        "lo",
        "gli",
        "ein",
        "eine",
        "het",
        "os",
    )
)


SIGN, ALL_BITS = 1 << 63, (1 << 64) - 1
EXACT = 1 << 53  # from here on a double leaves integers out
NEVER = 1 << 62  # seconds
LONG_AGO = 1 << 60
# RFC 3339 section 5.6; without an offset it would be a time of nowhere
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def fold(text: str) -> str:
    """`text` without case, diacritics and other differences that a viewer does not type."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).translate(PLAIN)


def words(text: str, *, spelt_out: bool = False) -> list[str]:
    """The folded words of `text`, in order. spelt_out: with "and" for "&", which otherwise is no word."""
    if spelt_out and "&" in text:
        text = text.replace("&", " and ")
    return split(fold(text))


def split(plain: str) -> list[str]:
    plain = plain.translate(INNER)
    if plain.isascii():
        return WORD.findall(plain)
    return INDIC_WORD.findall(UNSPACED.sub(r" \1 ", plain))


def other_forms(text: str) -> Iterator[str]:
    """Further words by which `text` is found: what follows an apostrophe, what hyphens join, "and" for "&"."""
    plain = fold(text)
    if plain.isalnum():
        return
    yield from ELIDED.findall(plain)
    for found in HYPHENATED.findall(plain):
        joined = found.translate(HYPHENS)
        if len(joined) <= LONGEST_JOINED and not joined.isdigit():
            yield joined
    if "&" in plain:
        yield "and"


def without_article(found: list[str]) -> list[str]:
    """The words of a title as they are put in order."""
    return found[1:] if len(found) > 1 and found[0] in ARTICLES else found


def first_words(text: str) -> Iterator[str]:
    """What a viewer may begin to type of a title: its first word in every form, and the one after an article."""
    found = words(text)
    if found:
        yield found[0]
        yield without_article(found)[0]
        first = fold(text).split(maxsplit=1)
        yield from other_forms(first[0]) if first else ()


def field_values(value: Any, path: str) -> Iterator[Any]:
    """What a record holds under a dotted path; a list there stands for each of its items, objects are passed over."""
    for found in reach(value, path):
        yield from leaves(found)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif value is not ABSENT and not isinstance(value, dict):
        yield value


def term(value: Any) -> bytes | None:
    """A scalar as an index holds it: a letter for its kind and its JSON text. None for what is not indexed."""
    if value is True or value is False:
        return b"btrue" if value else b"bfalse"
    if value is None:
        return b"znull"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    if isinstance(value, int | float):
        return b"n" + repr(value).encode()
    return b"s" + value.encode("utf-8", "surrogatepass") if isinstance(value, str) else None


def value_of(item: bytes) -> Any:
    """The scalar of which `term` makes `item`."""
    if item[:1] == b"s":
        return item[1:].decode("utf-8", "surrogatepass")
    if item[:1] == b"n":
        text = item[1:].decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return {b"btrue": True, b"bfalse": False}.get(item)


def by_text(counts: Mapping[bytes, int], most: int | None = None) -> dict[str, int]:
    """Counts of terms by their values as text, the `most` frequent first.

    The number 7 and the text "7" count together, as they do in a condition.
    """
    every: dict[bytes, int] = {}
    for item, count in counts.items():
        every[item[1:]] = every.get(item[1:], 0) + count  # without the letter of its kind
    first = sorted(every.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    return {text.decode("utf-8", "surrogatepass"): count for text, count in first}


def order_term(value: Any) -> bytes | None:
    """A scalar so that bytes sort as values do: null, false, true, numbers, texts by code point. None for no scalar."""
    if value is None:
        return b"a"
    if value is True or value is False:
        return b"b1" if value else b"b0"
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if not isinstance(value, int | float) or value != value:
        return None
    try:
        nearest = float(value)
    except OverflowError:  # records hold 64 bits at most, but a bound may be anything
        nearest = math.inf if value > 0 else -math.inf
    bits = int.from_bytes(struct.pack(">d", nearest), "big")
    bits ^= SIGN if not bits & SIGN else ALL_BITS
    if value == 0:
        bits = SIGN  # 0.0 and -0.0 are one number
    exact = b""
    if abs(nearest) >= EXACT and not math.isinf(nearest):
        exact = struct.pack(">H", max(0, min(int(value) - int(nearest) + (1 << 15), (1 << 16) - 1)))
    return b"n" + bits.to_bytes(8, "big") + exact


def kind_end(bound: bytes) -> bytes:
    """The first bytes after all terms of the same kind as `bound`: a range holds no values of other kinds."""
    return bytes([bound[0] + 1])


def order_term_of(record: Any, path: str, *, times: bool = False) -> bytes | None:
    """By which an ordered index holds a record: of a list the least item; None without the field.

    times: the field is one of an interval's, so a text that is a time counts as that.
    """
    values = field_values(record, path)
    found = [item for item in map(order_term, map(as_time, values) if times else values) if item is not None]
    return min(found, default=None)


def time_of(value: Any) -> int | None:
    """Whole seconds since 1970 of a number or a text of RFC 3339; None for what is no time."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if -LONG_AGO < value < LONG_AGO else None
    if isinstance(value, float):
        return int(value // 1) if -LONG_AGO < value < LONG_AGO else None
    if isinstance(value, str) and TIME.fullmatch(value):
        from datetime import datetime  # here, as most times are numbers, and it takes half a megabyte

        try:
            return int(datetime.fromisoformat(value.upper()).timestamp() // 1)
        except (ValueError, OverflowError):
            return None
    return None


def as_time(value: Any) -> Any:
    """Seconds since 1970 in the place of a text that is a time; any other value as it is."""
    found = time_of(value) if isinstance(value, str) else None
    return value if found is None else found


def span_of(record: Any, paths: Sequence[str]) -> tuple[int, int] | None:
    """Begin and end of an interval in seconds; no end is NEVER. None without a begin, or with none before the end."""
    begin, end = (next(field_values(record, path), None) for path in paths)
    first, last = time_of(begin), NEVER if end is None else time_of(end)
    return (first, last) if first is not None and last is not None and first < last else None


def wanted_terms(value: Any) -> tuple[bytes, ...]:
    """The terms that a condition asks for: those of any of a tuple's items."""
    wanted = map(term, value if isinstance(value, tuple) else (value,))
    return tuple([one for one in wanted if one is not None])


def record_terms(record: Any, path: str) -> set[bytes]:
    """All terms of a record's field."""
    found = {term(value) for value in field_values(record, path)}
    return {item for item in found if item is not None}


def record_words(record: Any, path: str) -> list[str]:
    """The folded words of a record's text field, in order; of a list, those of its items one after the other."""
    return [word for text in record_texts(record, path) for word in words(text)]


def record_texts(record: Any, path: str) -> Iterator[str]:
    """The texts of a record's field."""
    return (text for text in field_values(record, path) if isinstance(text, str))


def standing(record: Any, path: str) -> float:
    """By which equally good finds are put in order: the less the better, so that the greatest number is best."""
    for value in field_values(record, path) if path else ():
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return -float(value)
    return inf if path else 0.0
