"""What the indexes hold of a record: terms of declared fields, and folded words of declared text fields."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from edged.feed.fieldpath import ABSENT, reach

# Letters that Unicode does not decompose but that a remote control's keyboard does not have either.
PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
)
# Scripts that are written without spaces: each sign is a word of its own, so that any part of a title can be found.
WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
UNSPACED = re.compile(r"([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
INNER = str.maketrans("", "", "'’‘ʼ`.")  # "O'Brien" and "OBrien", "S.W.A.T." and "SWAT" are one word


def fold(text: str) -> str:
    """`text` without case, diacritics and other differences that a viewer does not type."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).translate(PLAIN)


def words(text: str) -> list[str]:
    """The folded words of `text`, in order."""
    plain = fold(text).translate(INNER)
    if plain.isascii():
        return WORD.findall(plain)
    return WORD.findall(UNSPACED.sub(r" \1 ", plain))


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
    return [word for text in field_values(record, path) if isinstance(text, str) for word in words(text)]
