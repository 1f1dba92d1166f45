"""What stands beside the coded bits of a hop of many changes: bit by bit is for what can be foretold.

Texts are gathered by field, in the order in which fields come first, and compressed together. What looks like chance
(tokens, the lower bits of large numbers) stands there as the bits that it is worth, and costs no time.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from itertools import pairwise

from edged.errors import WireError
from edged.feed.coding.octets import Bits, Octets, read_section, write_counted, write_section
from edged.feed.coding.textmodel import Field

LEVEL = 19
TEXTS_FOLLOW, BITS_FOLLOW = 1, 2  # what stands aside
ASIDE_LEAST_BYTES = 6  # of a text that is written aside
TRIED_BYTES = 64  # of a field's texts are coded bit by bit before it is judged
DENSE_BITS = 3.7  # a byte: what zstd comes to as well
ASIDE_AFTER_BYTES = 2048  # of texts, which are coded bit by bit
CODED, ASIDE, PACKED = range(3)  # ways in which a text goes

DIGITS, SMALL, CAPITAL = string.digits, string.ascii_lowercase, string.ascii_uppercase
ALPHABETS = tuple(  # of tokens; the smallest that has all of a text's characters is taken
    alphabet.encode()
    for alphabet in (
        DIGITS,
        DIGITS + SMALL[:6],
        DIGITS + CAPITAL[:6],
        DIGITS + SMALL,
        DIGITS + CAPITAL,
        DIGITS + CAPITAL + SMALL,
        DIGITS + CAPITAL + SMALL + "-_",
        DIGITS + CAPITAL + SMALL + "+/",
    )
)
HEXADECIMAL = 2  # the last alphabet that no word is of
UUID = len(ALPHABETS)  # hexadecimal digits with hyphens after 8, 12, 16 and 20 of them
KINDS = bytes.maketrans(
    (DIGITS + SMALL + CAPITAL).encode(), b"0" * len(DIGITS) + b"a" * len(SMALL) + b"A" * len(CAPITAL)
)
UUID_BYTES, UUID_GROUPS = 36, (0, 8, 12, 16, 20, 32)
UUID_FORM = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PACKED_AT_ONCE = 64  # characters that become one number
TOKEN_BYTES = {1: 12, 2: 12, UUID: 36}  # from so many on a text may be a token at first sight; 16 in other alphabets
PLAIN_FIELD_BYTES = 8  # likewise in a field that had tokens, or whose texts cost as much as chance


class Aside:
    """Texts and bits that stand beside the coded bits."""

    def __init__(self, columns: Sequence[bytes] | None = None, bits: bytes = b"") -> None:
        """columns: those to be read, None to write; bits: to be read as well."""
        self.bits = Bits(None if columns is None else bits, "hop, bits aside")
        self.tokens: set[str] = set()  # the fields that had one
        self.given = None if columns is None else list(columns)
        self.columns: dict[str, bytearray] = {}
        self.ends: dict[str, int] = {}
        self.left = ASIDE_AFTER_BYTES
        self.costs: dict[str, tuple[int, int]] = {}

    def way(self, text: bytes, path: str, field: Field) -> int:
        """How a text goes best: CODED is for the first few, and where it makes short."""
        count, cost = self.costs.get(path, (0, 0))
        alphabet = alphabet_of(text)
        if alphabet >= 0 and self.is_chance(text, alphabet, path, field):
            self.tokens.add(path)
            return PACKED
        if len(text) < ASIDE_LEAST_BYTES or (
            self.left >= len(text) and (count < TRIED_BYTES or cost * 8 < count * DENSE_BITS)
        ):
            self.left -= len(text)
            return CODED
        return ASIDE

    def is_chance(self, text: bytes, alphabet: int, path: str, field: Field) -> bool:
        """Whether a text is worth as many bits as its alphabet takes: by its looks, or by what others of its field
        have cost."""
        known = path in self.tokens
        if looks_random(text, alphabet, PLAIN_FIELD_BYTES if known else TOKEN_BYTES.get(alphabet, 16)):
            return known or not field.holds(text)
        count, cost = self.costs.get(path, (0, 0))
        return alphabet <= HEXADECIMAL and (known or (count >= TRIED_BYTES and cost * 8 > count * bits_each(alphabet)))

    def paid(self, path: str, count: int, cost: int) -> None:
        """Take note that so many bytes of a field's text have come to `cost` coded bytes."""
        total, spent = self.costs.get(path, (0, 0))
        self.costs[path] = total + count, spent + cost

    def text(self, new: bytes, size: int, path: str) -> bytes:
        column = self.columns.get(path)
        if column is None:
            if self.given is not None and len(self.columns) >= len(self.given):
                raise WireError(f"decode hop: no text stands aside for {path:.200}")
            column = self.columns[path] = (
                bytearray() if self.given is None else bytearray(self.given[len(self.columns)])
            )
            self.ends[path] = 0
        if self.given is None:
            column += new
            return new
        start = self.ends[path]
        self.ends[path] = start + size
        if start + size > len(column):
            raise WireError(f"decode hop: {size} bytes of text aside, {len(column) - start} are left at {path:.200}")
        return bytes(column[start : start + size])

    def token(self, new: bytes, size: int, alphabet: int) -> bytes:
        """A text as the number that it is in the digits of its alphabet. Raises WireError."""
        if alphabet == UUID:
            if size != UUID_BYTES:
                raise WireError(f"decode hop: a UUID of {size} bytes is named; fetch it again")
            plain = self.digits(new.replace(b"-", b""), 32, ALPHABETS[1])
            return b"-".join([plain[low:high] for low, high in pairwise(UUID_GROUPS)])
        found = bytearray()
        for start in range(0, size, PACKED_AT_ONCE):
            count = min(PACKED_AT_ONCE, size - start)
            found += self.digits(new[start : start + count], count, ALPHABETS[alphabet])
        return bytes(found)

    def digits(self, new: bytes, count: int, alphabet: bytes) -> bytes:
        base = len(alphabet)
        number = 0
        for octet in new:
            number = number * base + alphabet.index(octet)
        number = self.bits.number(number, (base**count - 1).bit_length())
        found = bytearray(count)
        for place in range(count - 1, -1, -1):
            number, digit = divmod(number, base)
            found[place] = alphabet[digit]
        if number:
            raise WireError("decode hop: a packed text is beyond its alphabet; fetch it again")
        return bytes(found)

    def write(self, out: bytearray, dictionary: bytes) -> None:
        """Append what of texts and bits there is, after a byte that tells."""
        bits = self.bits.finish()
        out.append(TEXTS_FOLLOW * bool(self.columns) + BITS_FOLLOW * bool(bits))
        if self.columns:
            texts = bytearray()
            for column in self.columns.values():
                write_counted(texts, bytes(column))
            write_section(out, bytes(texts), dictionary, LEVEL)
        if bits:
            write_counted(out, bits)

    def finish(self) -> None:
        """Raise WireError if texts or bits are left over."""
        self.bits.finish()
        if self.given is not None and (
            len(self.columns) != len(self.given) or any(self.ends[path] != len(c) for path, c in self.columns.items())
        ):
            raise WireError("decode hop: texts aside are left over; fetch it again")


def read_aside(octets: Octets, dictionary: bytes, most: int) -> Aside:
    """What `Aside.write` wrote, of at most `most` bytes of texts. Raises WireError."""
    follow = octets.byte()
    if follow > TEXTS_FOLLOW + BITS_FOLLOW:
        raise WireError(f"decode hop: {follow} stands where it is said what is aside; update edged")
    texts = read_section(octets, dictionary, "texts", most) if follow & TEXTS_FOLLOW else b""
    bits = octets.counted(len(octets.data), "size of the bits aside") if follow & BITS_FOLLOW else b""
    return Aside(unpack_texts(texts), bits)


def unpack_texts(data: bytes) -> list[bytes]:
    """The columns of texts. Raises WireError."""
    octets = Octets(data, "hop, texts aside")
    found = []
    while octets.at < len(data):
        found.append(octets.counted(len(data), "size of a field's texts"))
    return found


# --- what a text is worth -------------------------------------------------------------------------------------------


def alphabet_of(text: bytes) -> int:
    """The number of the smallest alphabet that has all characters of `text`; -1 if none has."""
    if len(text) < PLAIN_FIELD_BYTES:
        return -1
    if len(text) == UUID_BYTES and UUID_FORM.fullmatch(text):
        return UUID
    for number, alphabet in enumerate(ALPHABETS):
        if not text.translate(None, alphabet):
            return number
    return -1


def bits_each(alphabet: int) -> float:
    """What a character of an alphabet takes."""
    return math.log2(len(ALPHABETS[alphabet]))


def looks_random(text: bytes, alphabet: int, least: int) -> bool:
    """Whether digits, small and capital letters take turns as they do in tokens, and in words and numbers do not."""
    if alphabet == 0 or len(text) < least:
        return False
    kinds = text.translate(KINDS, b"-_+/")
    turns = sum(one != other for one, other in pairwise(kinds))
    return turns * 4 >= len(kinds)
