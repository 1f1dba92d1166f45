"""Texts against others: the ends and runs that both share, the words that were replaced, and what is new of them.

One walk serves both directions, as in treecoding, which codes the values that the texts are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edged.errors import WireError
from edged.feed.coding.arithmetic import Coder
from edged.feed.coding.aside import CODED, PACKED, UUID, Aside, alphabet_of
from edged.feed.coding.differences import RUN_BYTES, WORD_PIECES, common_ends, common_run, replaced_words
from edged.feed.coding.guessing import Palette
from edged.feed.coding.knowledge import Knowledge
from edged.feed.coding.textmodel import END, HISTORY, Decisions, Field, HopMemory, TextCoder

CHANCE_BYTES = 2  # that two texts may share without having anything in common
PHRASE_BYTES = 64  # of words that are known by number
SAME_BITS, OTHER_BITS = 4, 16  # what it is taken to cost to say which words are gone: as in a text before, or not
KNOWN_BITS, BYTE_BITS = 5, 3  # likewise a known phrase, a byte
ENDS_BITS, RUN_BITS = 12, 14  # likewise shared ends, a shared run
PHRASES = 256  # of one field that are known by number
PHRASED_MOST = 64  # fields that have such
ALPHABET_SHIFT = 4  # bits of an alphabet's number
SPACE = b" "


@dataclass(frozen=True, slots=True)
class Piece:
    """Words of a text that are replaced: how many are kept between it and the piece before, or, backward, the end of
    the text; how many are gone; the phrase in their place, if that is filled."""

    kept: int
    gone: int
    phrase: bytes
    filled: bool
    backward: bool


class TextValues:
    """Codes texts. key and fresh are set for each record; aside: where texts go that are not coded byte by byte, None
    in the form for few changes, where all are."""

    def __init__(self, coder: Coder, knowledge: Knowledge, max_bytes: int) -> None:
        self.knowledge = knowledge
        self.decisions = Decisions(coder, knowledge.primed)
        self.texts = TextCoder(coder)
        self.fields: dict[str, Field] = {}
        self.memory = HopMemory()
        self.room = max_bytes
        self.priming = False
        self.key = ""
        self.fresh = False
        self.aside: Aside | None = None
        self.shared: dict[str, tuple[int, int]] = {}
        self.phrases: dict[str, Palette] = {}
        self.usual: dict[tuple[str, int, int], tuple[int, int, int]] = {}  # where words were replaced; to write

    def charge(self, size: int) -> None:
        """Every byte that comes out is paid for as it is made: a patch may repeat its base without end."""
        self.room -= size
        if self.room < 0:
            raise WireError("decode hop: holds more than the allowed bytes; take the snapshot")

    def field(self, path: str) -> Field:
        field = self.fields.get(path)
        if field is None:
            field = self.fields[path] = Field(self.knowledge.corpora.get(path), self.memory)
        return field

    def text(self, new: Any, base: str | None, path: str) -> str:
        """Text: the key; or what it begins and ends with in common with `base`, and the rest as characters."""
        decisions = self.decisions
        if not self.priming and decisions.flag(new == self.key, ("=", base is None), ("=", path)):
            self.charge(len(self.key))
            return self.key
        data = new.encode() if type(new) is str else b""
        old = b"" if base is None else base.encode()
        made = self.by_words(old, data, path) if self.aside is not None and SPACE in old else None
        if made is None:
            made = self.by_ends(old, data, path) if base is not None else self.between(b"", data, b"", path)
        try:
            return made.decode()
        except UnicodeDecodeError as fault:
            raise WireError(f"decode hop: not UTF-8 at {path:.200}") from fault

    def by_ends(self, old: bytes, new: bytes, path: str) -> bytes:
        """What both begin and end with, and what stands between."""
        decisions, fresh = self.decisions, self.fresh
        front, back = common_ends(old, new)
        usual = self.shared.get(path, (0, 0))
        if self.aside is not None and CHANCE_BYTES < sum(usual) <= len(old):
            front, back = unless_by_chance((front, back), usual)
            if decisions.flag((front, back) == usual, "u", ("u", path)):
                return self.between_ends(old, new, usual, path)
        if not decisions.flag(front + back > CHANCE_BYTES, ("e", fresh), ("e", path, fresh)):
            return self.between(b"", new, b"", path)
        front, back = decisions.number(front, "f", ("f", path)), decisions.number(back, "b", ("b", path))
        if front + back > len(old):
            raise WireError(f"decode hop: {front} and {back} bytes shared of {len(old)} at {path:.200}")
        self.shared[path] = front, back
        return self.between_ends(old, new, (front, back), path)

    def between_ends(self, old: bytes, new: bytes, ends: tuple[int, int], path: str) -> bytes:
        front, back = ends
        head, tail = old[:front], old[len(old) - back :]
        self.charge(front + back)
        return head + self.between(old[front : len(old) - back], new[front : len(new) - back], head, path) + tail

    def between(self, old: bytes, new: bytes, head: bytes, path: str) -> bytes:
        """What stands between two shared ends: runs that it has in common with the old text there, and the rest."""
        found = b""
        while len(old) >= RUN_BYTES and not self.priming:
            run = common_run(old, new)
            if not self.decisions.flag(run is not None, "2", ("2", path)):
                break
            at, size, place = run or (0, 0, 0)
            at = self.decisions.number(at, "2a", ("2a", path))
            left = self.decisions.number(len(old) - at - size, "2s", ("2s", path))
            size = len(old) - at - left
            if size < 0:
                raise WireError(f"decode hop: bytes {at} to {len(old) - left} are shared at {path:.200}")
            found += self.characters(new[:place], (head + found)[-HISTORY:], path)
            self.charge(size)
            found += old[at : at + size]
            old, new = old[at + size :], new[place + size :]
        return found + self.characters(new, (head + found)[-HISTORY:], path)

    def characters(self, new: bytes, head: bytes, path: str) -> bytes:
        """Text that comes after `head`, byte by byte, or aside."""
        if self.priming:
            return new
        field = self.field(path)
        if self.aside is not None:
            way = self.aside.way(new, path, field)
            if self.decisions.flag(way != CODED, "t", ("t", path)):
                return self.beside(new, way, path, self.aside)
        paid = self.decisions.coder.size()
        history = (bytes([END]) + head)[-HISTORY:]
        found = bytearray()
        while True:
            place = len(found)
            coded = self.texts.symbol(new[place] if place < len(new) else END, field, history)
            field.note(history, coded)
            if coded == END:
                if self.aside is not None:
                    self.aside.paid(path, place, self.decisions.coder.size() - paid)
                return bytes(found)
            self.charge(1)
            found.append(coded)
            history = (history + bytes([coded]))[-HISTORY:]

    def beside(self, new: bytes, way: int, path: str, aside: Aside) -> bytes:
        """Text that is not coded byte by byte."""
        packed = self.decisions.flag(way == PACKED, "tp", ("tp", path))
        alphabet = 0
        if packed:
            alphabet, wanted = 1, alphabet_of(new)
            for shift in range(ALPHABET_SHIFT - 1, -1, -1):
                alphabet = alphabet << 1 | self.decisions.flag(
                    wanted >> shift & 1, ("ta", alphabet), ("ta", path, alphabet)
                )
            alphabet -= 1 << ALPHABET_SHIFT
            if alphabet > UUID:
                raise WireError(f"decode hop: alphabet {alphabet} is not known here; update edged")
        size = self.decisions.position(len(new), "ts", ("ts", path))
        self.charge(size)
        return aside.token(new, size, alphabet) if packed else aside.text(new, size, path)

    # --- by words ---------------------------------------------------------------------------------------------------

    def by_words(self, old: bytes, new: bytes, path: str) -> bytes | None:
        """Text as the old one with some of its words replaced; None if it is told otherwise. Each piece: how many words
        stand before it, from the one before on, or after it to the end; how many are gone, and those in their place."""
        decisions = self.decisions
        before, after = old.split(SPACE), new.split(SPACE)
        pieces = self.pieces(old, new, before, after, path)
        if not decisions.flag(bool(pieces), "we", ("we", path)):
            return None
        count = decisions.number(len(pieces) - 1, "wn", ("wn", path)) + 1
        if count > WORD_PIECES:
            raise WireError(f"decode hop: {count} pieces of a text are replaced at {path:.200}")
        made: list[bytes] = []
        at = 0
        for number in range(count):
            piece = pieces[number] if pieces else Piece(0, 0, b"", False, False)
            single = decisions.flag(piece.gone == 1 and piece.filled, "w1", ("w1", path))
            start, end = self.place(piece, (at, len(before)), (path, number, count), single)
            self.charge(sum(map(len, before[at:start])) + start - at)
            made += before[at:start]
            if single or decisions.flag(piece.filled, "wi", ("wi", path)):
                made.append(self.phrase(piece.phrase, SPACE.join(before[start:end]), made[-1:], path))
            at = end
        self.charge(sum(map(len, before[at:])) + len(before) - at)
        return SPACE.join([*made, *before[at:]])

    def pieces(self, old: bytes, new: bytes, before: list[bytes], after: list[bytes], path: str) -> list[Piece]:
        """The runs of words that were replaced; none where that is likely to take more than to say it by ends."""
        found = replaced_words(before, after) if new else None
        if not found:
            return []
        pieces: list[Piece] = []
        known = self.phrases[path].numbers if path in self.phrases else {}
        cost = between = at = 0
        for number, (low, high, below, above) in enumerate(found):
            context = path, number, len(found)
            front, back, gone = self.usual.get(context, (-1, -1, -1))
            ahead, behind = low - at, len(before) - high
            backward = ahead != front and (behind == back or behind < ahead)
            same = high - low == gone and (ahead == front or behind == back)
            self.usual[context] = ahead, behind, high - low
            phrase = SPACE.join(after[below:above])
            cost += KNOWN_BITS if phrase in known else BYTE_BITS * (len(phrase) + 1)
            cost += SAME_BITS if same else OTHER_BITS
            between += sum(len(word) + 1 for word in before[at:low]) if at else 0
            at = high
            pieces.append(Piece(behind if backward else ahead, high - low, phrase, above > below, backward))
        ends = sum(common_ends(old, new))
        by_ends = BYTE_BITS * (len(new) - ends - between) + RUN_BITS * (len(found) - 1)
        return pieces if cost < by_ends + (ENDS_BITS if ends > CHANCE_BYTES else 0) else []

    def place(
        self, piece: Piece, within: tuple[int, int], context: tuple[str, int, int], single: int
    ) -> tuple[int, int]:
        """From which word to which they are gone. within: those that are left."""
        decisions = self.decisions
        at, end = within
        backward = bool(decisions.flag(piece.backward, ("wf", *context[1:]), ("wf", *context)))
        kept = decisions.position(piece.kept, ("ws", backward), ("ws", backward, *context))
        gone = 1 if single else decisions.number(piece.gone, ("wd", *context[1:]), ("wd", *context))
        if kept + gone > end - at:
            raise WireError(f"decode hop: {kept + gone} words of {end - at} are kept and replaced at {context[0]:.200}")
        start = end - kept - gone if backward else at + kept
        return start, start + gone

    def phrase(self, new: bytes, gone: bytes, before: list[bytes], path: str) -> bytes:
        """The words in the place of others: as they have come before in the field, or their characters."""
        palette = self.phrases.get(path)
        if palette is None:
            palette = Palette(PHRASES)
            if len(self.phrases) < PHRASED_MOST:
                self.phrases[path] = palette
        barred = {palette.numbers[gone]} if gone in palette.numbers else set()
        if len(palette.values) > len(barred):
            number = palette.numbers.get(new, -1)
            if self.decisions.flag(number >= 0, "wk", ("wk", path)):
                found: bytes = palette.values[palette.code(self.decisions.coder, number, barred)]
                self.charge(len(found))
                palette.note(found, found)
                return found
        found = self.characters(new, (SPACE.join([*before, b""]))[-HISTORY:], path)
        if len(found) <= PHRASE_BYTES:
            palette.note(found, found)
        return found


def unless_by_chance(now: tuple[int, int], usual: tuple[int, int]) -> tuple[int, int]:
    """What both ends share; by chance a byte or two more than usual tell nothing."""
    front, back = [last if 0 < one - last <= CHANCE_BYTES else one for one, last in zip(now, usual, strict=True)]
    return front, back
