"""What a decoder takes of the room that it was given: each byte that comes out is paid for, whichever way it comes."""

from __future__ import annotations

import pytest

from edged.errors import WireError
from edged.feed.coding.arithmetic import BITS_MOST, ArithmeticDecoder, ArithmeticEncoder
from edged.feed.coding.aside import Aside
from edged.feed.coding.texts import TextValues
from edged.feed.coding.treecoding import knowledge_of

OLD = b"amber night river stone glass tower window"
NEW = b"amber night of the old and quiet town stone glass tower door"
ROOM = 1000


def writing() -> tuple[ArithmeticEncoder, TextValues]:
    """Where the words of one text were replaced already: it is only from the second on that they are told by words."""
    encoder = ArithmeticEncoder(BITS_MOST)
    values = TextValues(encoder, knowledge_of(b""), ROOM)
    values.aside = Aside()
    assert values.by_words(OLD, NEW, "t") is None
    return encoder, values


def charged(values: TextValues, old: bytes, new: bytes) -> int:
    before = values.room
    assert values.by_words(old, new, "t") == new
    return before - values.room


def test_words_of_a_text_are_charged_once_each_with_the_space_behind_them() -> None:
    _, values = writing()
    for _ in range(2):  # the second time the phrases are known by their numbers
        # Both phrases are charged without the space behind them, and so is none behind the end.
        assert charged(values, OLD, NEW) == len(NEW) - 1


@pytest.mark.parametrize("short", [0, 1])
def test_a_known_phrase_is_refused_where_there_is_no_room_for_it(short: int) -> None:
    encoder, values = writing()
    needed = charged(values, OLD, NEW) + charged(values, OLD, NEW)
    reading = TextValues(ArithmeticDecoder(encoder.finish(), "test"), knowledge_of(b""), needed - short)
    reading.aside = Aside([])
    assert reading.by_words(OLD, b"", "t") is None
    assert reading.by_words(OLD, b"", "t") == NEW
    if short:
        with pytest.raises(WireError, match="more than the allowed bytes"):
            reading.by_words(OLD, b"", "t")
    else:
        assert reading.by_words(OLD, b"", "t") == NEW
