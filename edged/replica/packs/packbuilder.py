"""Building packs in memory, entry by entry. What comes out is specified in docs/replica.md and read by pack.py."""

from __future__ import annotations

import struct
import zlib

from edged.feed import cbor
from edged.replica.packs.pack import (
    CRC,
    HEADER,
    KEY_PREFIX,
    MAGIC,
    PAGE_BYTES,
    REMOTE,
    REMOTE_ENTRY,
    SECTION,
    hash_slots,
)
from edged.replica.packs.packmeta import FORMAT, CollectionSpan, Meta

HASH_FROM = 64  # entries from which a pack carries a hash table


class PackBuilder:
    """Collects entries in the order of collection and key; `finish()` is the pack.

    Entries are given as frames of `dictionary` (Frames.compress), or pointers into other files.
    """

    def __init__(self, slice_name: str, dictionary: bytes) -> None:
        self.slice_name = slice_name
        self.dictionary = dictionary
        self.entries = bytearray()
        self.offsets: list[int] = []
        self.hashes: list[int] = []
        self.versions: list[int] = []
        self.spans: dict[str, list[int]] = {}
        self.remotes: dict[tuple[int, bytes], int] = {}
        self.seed = 0
        self.collection = ""

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def size(self) -> int:
        """Bytes so far, nearly."""
        return len(self.entries) + 10 * len(self.offsets)

    def add(self, collection: str, key: bytes, frame: bytes, version: int) -> None:
        """Append an entry; an empty frame is a tombstone."""
        if collection != self.collection or not self.spans:
            self.spans[collection] = [len(self.offsets), 0, 0]
            self.collection, self.seed = collection, zlib.crc32(collection.encode())
        word = KEY_PREFIX[len(key)] + key
        self.offsets.append(len(self.entries))
        self.entries += word
        self.entries += frame
        self.hashes.append(zlib.crc32(word, self.seed))
        self.versions.append(version)
        span = self.spans[collection]
        span[1] = len(self.offsets)
        span[2] += not frame

    def add_remote(
        self, collection: str, key: bytes, place: tuple[int, int, int], dictionary: bytes, version: int
    ) -> None:
        """Append an entry whose frame stays in another file. place: file number, first and last-plus-one byte."""
        number, start, end = place
        ordinal = self.remotes.setdefault((number, dictionary), len(self.remotes))
        self.add(collection, key, REMOTE_ENTRY.pack(REMOTE, ordinal, start, end), version)

    def finish(self, *, state: bytes = b"", upper: bool = False) -> bytes:
        """The pack. state: the LtHash sum to keep in it; upper: it will lie over others, so most keys are not in it."""
        low, high = (min(self.versions), max(self.versions)) if self.versions else (0, 0)
        meta = Meta(
            self.slice_name,
            self.dictionary,
            len(self.offsets),
            {name: CollectionSpan(*span) for name, span in self.spans.items()},
            (low, high),
            state,
            tuple(self.remotes),
        )
        sections: list[tuple[bytes, bytes | bytearray]] = [(b"meta", cbor.encode(meta.to_cbor()))]
        sections.append((b"ents", self.entries))
        sections.append((b"offs", b""))  # absolute, so filled in when `ents` has its place
        if len(self.offsets) >= HASH_FROM:
            sections.append((b"hash", hash_table(self.hashes)))
            if upper:
                sections.append((b"filt", hash_filter(self.hashes)))
        if low != high:
            sections.append((b"vers", version_words([version - low for version in self.versions], high - low)))
            order = sorted(range(len(self.versions)), key=self.versions.__getitem__, reverse=True)
            newer = [place for place in order if self.versions[place] > low]
            sections.append((b"rcnt", words(newer)))
        return assemble(sections, self.offsets)


def words(numbers: list[int]) -> bytes:
    """Little-endian 32-bit words."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def version_words(steps: list[int], most: int) -> bytes:
    """Words of 32 bits, or of 64 where versions lie 2^32 and more apart, as whoever signs them is free to number."""
    return words(steps) if most < 1 << 32 else struct.pack(f"<{len(steps)}Q", *steps)


def hash_table(hashes: list[int]) -> bytes:
    """Slots of 32 bits: the high bits of the hash, and in the low ones the entry's place plus one; 0 is free."""
    slots, bits = hash_slots(len(hashes)), len(hashes).bit_length()
    table = [0] * slots
    for place, value in enumerate(hashes, 1):
        slot = value % slots
        while table[slot]:
            slot = slot + 1 if slot + 1 < slots else 0
        table[slot] = value >> bits << bits | place
    return words(table)


def hash_filter(hashes: list[int]) -> bytearray:
    """One bit set for each hash, among 8 to 16 times as many: where it is not, there is no such entry."""
    bits = (len(hashes) - 1).bit_length()
    found = bytearray(1 << bits)
    for value in hashes:
        found[value >> 32 - bits] |= 1 << (value & 7)
    return found


def assemble(sections: list[tuple[bytes, bytes | bytearray]], offsets: list[int]) -> bytes:
    """Header and sections in one piece, `offs` and `crcs` filled in."""
    header_bytes = HEADER.size + (len(sections) + 1) * SECTION.size + CRC.size
    body = bytearray()
    table = bytearray()
    entries_at = 0
    for tag, data in sections:
        body += bytes(-(header_bytes + len(body)) % 4)
        start = header_bytes + len(body)
        if tag == b"ents":
            entries_at = start
        elif tag == b"offs":
            end = entries_at + len(sections[1][1])
            data = words([*(entries_at + offset for offset in offsets), end])
        table += SECTION.pack(tag, start, len(data))
        body += data
    body += bytes(-(header_bytes + len(body)) % 4)
    crcs = page_checksums(memoryview(body), header_bytes)
    start = header_bytes + len(body)
    table += SECTION.pack(b"crcs", start, len(crcs))
    header = HEADER.pack(MAGIC, FORMAT, len(sections) + 1, start + len(crcs)) + table
    return b"".join((header, CRC.pack(zlib.crc32(crcs, zlib.crc32(header))), body, crcs))


def page_checksums(body: memoryview, header_bytes: int) -> bytes:
    """The CRC-32 of each page of the pack, the first one beginning after the header."""
    sums, at = [], 0
    while at < len(body):
        end = min(len(body), (header_bytes + at | PAGE_BYTES - 1) + 1 - header_bytes)
        sums.append(zlib.crc32(body[at:end]))
        at = end
    return words(sums)
