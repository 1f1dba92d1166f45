"""Packs: immutable runs of records in key order, read in place from mapped memory. Specification: docs/replica.md.

A pack is a header with a table of sections, and the sections: `meta` (CBOR), `ents` (the entries), `offs` (where each
entry begins), `hash` (an open-addressing table for point gets), `filt` (a bit for each hash, in packs that lie over
others), `vers` (the version of each entry, where they differ), `rcnt` (entries by falling version) and `crcs` (the
CRC-32 of each 4,096-byte page before it). Opening checks the header, `meta` and `crcs`; every other page is checked
when it is first relied upon, and each value by the checksum in its zstd frame at every read, so that a damaged byte
can never be served.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Literal, Protocol, cast

from edged.errors import DamageError
from edged.feed import limits
from edged.feed.zstd import MAGIC as MAGIC_NUMBER
from edged.feed.zstd import DamagedFrame
from edged.replica.packs.frames import Frames
from edged.replica.packs.packmeta import EMPTY_SPAN, FORMAT, UNREAD, CollectionSpan, read_meta

MAGIC = b"\x89EDGPK\r\n"
HEADER = struct.Struct("<8sHHI")  # magic, format, number of sections, bytes of the whole pack
SECTION = struct.Struct("<4sII")  # tag, offset from the pack's begin, length
CRC = struct.Struct("<I")
PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
KEY_PREFIX = tuple(struct.pack("<H", size) for size in range(limits.KEY_BYTES + 1))
SECTIONS = 16
WALK = 64  # entries that a walk takes at a time
NO_FRAMES = Frames(b"")
REMOTE = 0x18  # bit 3 of a frame header is reserved (RFC 8878 section 3.1.1.1.1), so no frame begins so
REMOTE_BIT = 0x08
REMOTE_ENTRY = struct.Struct("<BHII")  # REMOTE, place in `remotes`, first and last-plus-one byte in that file


class Buffer(Protocol):
    """What a pack is read from: bytes or a mapped file."""

    def __getitem__(self, place: slice, /) -> bytes: ...
    def __len__(self) -> int: ...


def hash_slots(count: int) -> int:
    """Slots of the table for `count` entries: odd, and filled to 7/10."""
    return count * 10 // 7 | 1


class Pack:
    """A pack in `buffer` from byte `at` on. Any method raises DamageError where bytes are not as they were written."""

    __slots__ = (
        "at", "bits", "body_end", "buffer", "crc", "crcs", "file", "filter", "first_page", "frames", "header_bytes",
        "meta", "number", "offsets", "offsets_at", "recent", "remotes", "seen", "size", "slots", "table", "table_at",
        "versions",
    )  # fmt: skip

    def __init__(self, buffer: Buffer, at: int, size: int, file: str, number: int = 0) -> None:
        """file: the name of what `buffer` holds, for messages; number: that file's number in the replica."""
        self.buffer, self.at, self.size, self.file, self.number = buffer, at, size, file, number
        self.meta = UNREAD
        sections = self.read_header()
        whole = memoryview(cast(bytes, buffer))[at : at + size]
        for tag in (b"meta", b"ents", b"offs"):
            if tag not in sections:
                raise self.damage(f"section {tag.decode()} is missing")
        start, length = sections[b"meta"]
        self.check(start, start + length)
        self.meta = read_meta(bytes(whole[start : start + length]), file)
        count = self.meta.entries
        self.offsets = self.words(whole, sections[b"offs"], count + 1)
        self.offsets_at = sections[b"offs"][0]
        self.table: memoryview[int] | None = None
        self.slots = self.bits = self.table_at = 0
        if b"hash" in sections:
            self.slots, self.bits = hash_slots(count), count.bit_length()
            self.table = self.words(whole, sections[b"hash"], self.slots)
            self.table_at = sections[b"hash"][0]
        self.filter = self.read_filter(sections)
        self.versions: memoryview[int] | None = None
        self.recent: memoryview[int] | None = None
        if b"vers" in sections:
            wide = sections[b"vers"][1] == 8 * count  # versions lie 2^32 and more apart
            self.versions = self.words(whole, sections[b"vers"], count, "Q" if wide else "I")
        if b"rcnt" in sections:
            self.recent = self.words(whole, sections[b"rcnt"], sections[b"rcnt"][1] // 4)
        for tag in (b"vers", b"rcnt"):
            start, length = sections.get(tag, (0, 0))
            if length:
                self.check(start, start + length)
        self.frames: Frames = NO_FRAMES
        self.remotes: list[tuple[Buffer, Frames]] = []

    def read_header(self) -> dict[bytes, tuple[int, int]]:
        """The sections' places, after checking header and `crcs`."""
        head = self.buffer[self.at : self.at + HEADER.size]
        if len(head) < HEADER.size or len(self.buffer) < self.at + self.size:
            raise self.damage("cut short")
        magic, form, number, total = HEADER.unpack(head)
        if magic != MAGIC or form != FORMAT or not 1 <= number <= SECTIONS or total != self.size:
            raise self.damage(f"not a pack of format {FORMAT} and {self.size} bytes")
        self.header_bytes = HEADER.size + number * SECTION.size + CRC.size
        header = self.buffer[self.at : self.at + self.header_bytes]
        if len(header) < self.header_bytes:
            raise self.damage("cut short")
        sections: dict[bytes, tuple[int, int]] = {}
        for place in range(number):
            tag, start, length = SECTION.unpack_from(header, HEADER.size + place * SECTION.size)
            if start < self.header_bytes or start + length > self.size:
                raise self.damage("its table of sections is damaged")
            sections[tag] = (start, length)
        self.body_end, length = sections.get(b"crcs", (0, 0))
        sums = self.buffer[self.at + self.body_end : self.at + self.body_end + length]
        self.crc = CRC.unpack(header[-CRC.size :])[0]
        if length % 4 or not length or zlib.crc32(sums, zlib.crc32(header[: -CRC.size])) != self.crc:
            raise self.damage("the checksum of its header does not hold")
        self.crcs = memoryview(sums).cast("I")
        self.first_page = self.header_bytes >> PAGE_SHIFT
        self.seen = bytearray(len(self.crcs))
        return sections

    def read_filter(self, sections: dict[bytes, tuple[int, int]]) -> bytes:
        """The bits of `filt`, b"" where there is none. Copied, as it is relied upon without another check."""
        start, length = sections.get(b"filt", (0, 0))
        if not length:
            return b""
        if length != 1 << (self.meta.entries - 1).bit_length():
            raise self.damage(f"a filter has {length} bytes for {self.meta.entries} entries")
        self.check(start, start + length)
        return self.buffer[self.at + start : self.at + start + length]

    def words(
        self, whole: memoryview[int], section: tuple[int, int], number: int, form: Literal["I", "Q"] = "I"
    ) -> memoryview[int]:
        """`number` words of 32 bits ("I") or 64 ("Q")."""
        start, length = section
        size = 4 if form == "I" else 8
        if length != size * number:
            raise self.damage(f"a section has {length} bytes, expected {size * number}")
        return whole[start : start + length].cast(form)

    def damage(self, what: str) -> DamageError:
        fault = DamageError(f"read {self.file}: {what}; fetch its slice again (edged does so at the next sync)")
        fault.slice_name = self.meta.slice_name
        return fault

    def check(self, start: int, end: int) -> None:
        """Make sure of the pages that hold bytes `start` to `end` of the pack; each is checked once."""
        seen = self.seen
        first = (start >> PAGE_SHIFT) - self.first_page
        last = (end - 1 >> PAGE_SHIFT) - self.first_page
        if first < 0 or last >= len(seen):
            raise self.damage("an entry lies outside")
        for page in range(first, last + 1):
            if not seen[page]:
                self.check_page(page)

    def check_page(self, page: int) -> None:
        start = max(page + self.first_page << PAGE_SHIFT, self.header_bytes)
        end = min(page + self.first_page + 1 << PAGE_SHIFT, self.body_end)
        if zlib.crc32(self.buffer[self.at + start : self.at + end]) != self.crcs[page]:
            raise self.damage(f"the checksum of bytes {start} to {end} does not hold")
        self.seen[page] = 1

    def recheck(self, place: int) -> None:
        """Check the pages of an entry anew: those that were checked may have come from the disk once more since."""
        word = self.offsets_at + 4 * place
        self.forget(word, word + 8)
        self.check(word, word + 8)
        self.forget(self.offsets[place], self.offsets[place + 1])
        self.entry(place)

    def forget(self, start: int, end: int) -> None:
        """Have the pages that hold bytes `start` to `end` checked again when they are next relied upon."""
        for page in range((start >> PAGE_SHIFT) - self.first_page, (end - 1 >> PAGE_SHIFT) - self.first_page + 1):
            self.seen[page] = 0

    def check_all(self) -> None:
        """Check header and every page anew."""
        self.read_header()
        self.check(self.header_bytes, self.body_end)

    def __len__(self) -> int:
        return self.meta.entries

    def span(self, collection: str) -> CollectionSpan:
        """The places of a collection's entries; an empty span where there are none."""
        return self.meta.spans.get(collection, EMPTY_SPAN)

    def entry(self, place: int) -> tuple[bytes, int, int]:
        """(key, first byte, last-plus-one byte of the frame), the bytes counted from the buffer's begin."""
        word = self.offsets_at + 4 * place
        self.check(word, word + 8)
        start, end = self.offsets[place], self.offsets[place + 1]
        self.check(start, end)
        start += self.at
        head = self.buffer[start : start + 2]
        middle = start + 2 + (head[0] | head[1] << 8)
        return self.buffer[start + 2 : middle], middle, end + self.at

    def key(self, place: int) -> bytes:
        return self.entry(place)[0]

    def frame(self, place: int) -> bytes:
        """The bytes after the key: a frame, a pointer into another file, or nothing for a tombstone."""
        _, middle, end = self.entry(place)
        return self.buffer[middle:end]

    def value(self, place: int) -> bytes | None:
        """The value, None for a tombstone."""
        frame = self.frame(place)
        return self.decode(frame) if frame else None

    def value_after(self, place: int, key: str) -> bytes | None:
        """The value of an entry that is known to be at `place`, in a pack whose pages have been checked."""
        offsets = self.offsets
        frame = self.buffer[
            self.at + offsets[place] + 2 + (len(key) if key.isascii() else len(key.encode())) : self.at
            + offsets[place + 1]
        ]
        if not frame:
            return None
        try:
            return self.frames.engine.decompress(MAGIC_NUMBER + frame)
        except (DamagedFrame, MemoryError):
            return self.decode(frame)

    def decode(self, frame: bytes) -> bytes:
        """The value in what `frame()` gave, unless that is empty."""
        try:
            if frame[0] & REMOTE_BIT:
                buffer, frames, start, end = self.resolve(frame)
                return frames.decompress(buffer[start:end])
            return self.frames.decompress(frame)
        except (DamagedFrame, MemoryError, struct.error, IndexError) as fault:
            raise self.damage(f"a value does not decompress: {fault}") from fault

    def resolve(self, frame: bytes) -> tuple[Buffer, Frames, int, int]:
        """Where the frame is that a remote entry points to."""
        _, ordinal, start, end = REMOTE_ENTRY.unpack(frame)
        buffer, frames = self.remotes[ordinal]
        return buffer, frames, start, end

    def pointer(self, frame: bytes) -> tuple[int, bytes, int, int]:
        """(file number, SHA-256 of its dictionary, first, last-plus-one byte) of what a remote entry points to."""
        _, ordinal, start, end = REMOTE_ENTRY.unpack(frame)
        number, dictionary = self.meta.remotes[ordinal]
        return number, dictionary, start, end

    def version(self, place: int) -> int:
        """The dataset version at which the entry last changed, as far back as is known."""
        low = self.meta.versions[0]
        return low if self.versions is None else low + self.versions[place]

    def changed_since(self, since: int) -> Iterator[int]:
        """Places of the entries of later versions than `since`, in no order."""
        low, high = self.meta.versions
        if low > since:
            yield from range(self.meta.entries)
        elif high > since and self.recent is not None and self.versions is not None:
            for place in self.recent:
                if low + self.versions[place] <= since:
                    return
                yield place

    def find(self, collection: str, key: bytes) -> int:
        """The place of an entry, -1 where there is none."""
        if collection not in self.meta.spans:
            return -1
        if self.table is None:
            place = self.bisect(collection, key)
            return place if place < self.meta.spans[collection].high and self.key(place) == key else -1
        word = KEY_PREFIX[len(key)] + key
        value = zlib.crc32(word, zlib.crc32(collection.encode()))
        bits = self.filter
        if bits and not bits[value >> 33 - len(bits).bit_length()] >> (value & 7) & 1:
            return -1
        return self.probe(collection, word, value)

    def probe(self, collection: str, word: bytes, value: int) -> int:
        """The place of the entry that begins with `word` (a key behind its length) and hashes to `value`, or -1."""
        table, bits, seen = self.table, self.bits, self.seen
        if table is None:
            return self.find(collection, word[2:])
        slot = value % self.slots
        shift = self.table_at - (self.first_page << PAGE_SHIFT)
        while True:
            page = shift + 4 * slot >> PAGE_SHIFT
            if not seen[page]:
                self.check_page(page)
            found = table[slot]
            if not found:
                return -1
            if found >> bits == value >> bits:
                place = (found & (1 << bits) - 1) - 1
                span = self.meta.spans[collection]
                if span.low <= place < span.high and self.key(place) == word[2:]:
                    return place
                self.check_page(page)  # a chance of 1 in 2 ** (32 - bits), or bytes that have changed since
                if place < self.meta.entries:
                    self.recheck(place)
            slot = slot + 1 if slot + 1 < self.slots else 0

    def bisect(self, collection: str, key: bytes, *, after: bool = False) -> int:
        """The first place of the collection whose key is at least `key` (greater than it with `after`)."""
        span = self.span(collection)
        low, high = span.low, span.high
        while low < high:
            middle = low + high >> 1
            found = self.key(middle)
            if found < key or (after and found == key):
                low = middle + 1
            else:
                high = middle
        return low

    def walk(self, low: int, high: int) -> Iterator[tuple[bytes, int]]:
        """(key, place) of the entries from `low` up to `high`."""
        buffer, offsets, at = self.buffer, self.offsets, self.at
        while low < high:
            stop = min(low + WALK, high)
            word = self.offsets_at + 4 * low
            self.check(word, word + 4 * (stop - low) + 4)
            starts = offsets[low : stop + 1].tolist()
            self.check(starts[0], starts[-1])
            run = buffer[at + starts[0] : at + starts[-1]]
            base = starts[0]
            for place in range(low, stop):
                begin = starts[place - low] - base
                yield run[begin + 2 : begin + 2 + (run[begin] | run[begin + 1] << 8)], place
            low = stop
