"""What differs between an old value and a new one: in a map, in a list, in a text."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from edged.feed import cbor
from edged.feed.coding.knowledge import name_order
from edged.feed.coding.octets import shared_bytes
from edged.feed.coding.transforms import replaced, same
from edged.feed.fieldpath import ABSENT

KEEP, EDIT, INSERT, DROP, CUT = range(5)  # steps that make one list of another
MOVED_MOST = 64  # items of a list that may have been moved
RUN_BYTES = 5  # shared by two texts between their shared ends, before it is worth saying
RUN_TEXT_BYTES = 1024  # of a text in which such a run is looked for

WORD_PIECES = 8  # runs of words of a text that were replaced
WORDS_MOST = 64  # among which they are looked for where they are not as many as before: the time grows by the square


@dataclass(frozen=True, slots=True)
class Pattern:
    """What happened to the fields of a map. touched: changed, added or dropped; set: those that are there after it."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    touched: frozenset[str]
    set: tuple[str, ...]

    def fits(self, base: dict[str, Any]) -> bool:
        """Whether it can happen to this map."""
        return (
            all(name in base for name in self.changed)
            and all(name in base for name in self.dropped)
            and not any(name in base for name in self.added)
        )


def pattern_of(base: dict[str, Any], new: dict[str, Any]) -> Pattern:
    changed = tuple([name for name in base if name in new and not same(base[name], new[name])])
    dropped = tuple([name for name in base if name not in new])
    added = tuple([name for name in new if name not in base])
    changed, dropped, added = (tuple(sorted(names, key=name_order)) for names in (changed, dropped, added))
    return Pattern(changed, added, dropped, frozenset((*changed, *dropped)), (*changed, *added))


def is_moved(base: list[Any], new: list[Any]) -> bool:
    """Whether items that both lists hold come in another order."""
    was, now = [cbor.encode(item) for item in base], [cbor.encode(item) for item in new]
    if len(now) > MOVED_MOST:
        return False
    kept, taken = [item for item in was if item in now], [item for item in now if item in was]
    return len(kept) == len(taken) and kept != taken


def common_run(old: bytes, new: bytes) -> tuple[int, int, int] | None:
    """(where in `old`, size, where in `new`) of the first run that both share, None if there is none of RUN_BYTES."""
    if not new or len(old) > RUN_TEXT_BYTES or len(new) > RUN_TEXT_BYTES:
        return None
    for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        if block.size >= RUN_BYTES:
            return block.a, block.size, block.b
    return None


def replaced_words(old: list[bytes], new: list[bytes]) -> list[tuple[int, int, int, int]] | None:
    """(from, to) in `old` and in `new` of the runs of words that differ; None if they are more than WORD_PIECES, or
    take long to find."""
    front, back = 0, 0
    least = min(len(old), len(new))
    while front < least and old[front] == new[front]:
        front += 1
    while back < least - front and old[-1 - back] == new[-1 - back]:
        back += 1
    before, after = old[front : len(old) - back], new[front : len(new) - back]
    found: list[tuple[int, int, int, int]] = []
    if len(before) == len(after):
        at = 0
        for place in range(len(before) + 1):
            if place == len(before) or before[place] == after[place]:
                if place > at:
                    found.append((front + at, front + place, front + at, front + place))
                at = place + 1
        if len(found) <= WORD_PIECES:
            return found
    if max(len(before), len(after)) > WORDS_MOST:
        return None
    found = [(front + a, front + b, front + c, front + d) for a, b, c, d in replaced(before, after)]
    return found if len(found) <= WORD_PIECES else None


def edit_script(base: list[Any], new: list[Any]) -> list[tuple[int, Any]]:
    """The steps, each with its new item, that make `new` of `base`; what is left of `base` after the last is cut."""
    old_items, new_items = [cbor.encode(item) for item in base], [cbor.encode(item) for item in new]
    steps: list[tuple[int, Any]] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, old_items, new_items, autojunk=False).get_opcodes():
        if tag == "equal":
            steps += [(KEEP, ABSENT)] * (i2 - i1)
            continue
        both = min(i2 - i1, j2 - j1)
        steps += [(EDIT, item) for item in new[j1 : j1 + both]]
        steps += [(INSERT, item) for item in new[j1 + both : j2]]
        steps += [(DROP, ABSENT)] * (i2 - i1 - both)
    while steps and steps[-1][0] == DROP:
        steps.pop()
    return steps


def common_ends(old: bytes, new: bytes) -> tuple[int, int]:
    """How many bytes both begin with, and how many of the others both end with."""
    front = shared_bytes(old, new)
    return front, shared_bytes(old[front:][::-1], new[front:][::-1])
