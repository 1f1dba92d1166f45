"""Field blocks to fields and back (HPACK, RFC 7541).

A dynamic table's state is a value here, and decoding is a function: (state, block) to (fields, next state). Connections
whose tables hold the same share the state, so what one of them has sent needs no decoding when another sends it.
Our own blocks never touch the peer's table: they are the same bytes on every connection, and are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpack.table import HeaderTable

from edged.http.h2.frames import ConnectionFault, ErrorCode
from edged.http.h2.huffman import HuffmanDecoder, HuffmanError
from edged.http.memory import OBJECT_BYTES, Memo

Field = tuple[bytes, bytes]

TABLE_BYTES = 4096  # what a peer's table may hold, the protocol's default: we never offer another size
ENTRY_BYTES = 32  # what each entry counts beside its bytes (RFC 7541 section 4.1)
STATES = 256  # remembered at most, each of at most TABLE_BYTES and a tuple of 128
LONGEST_INTEGER = 4  # bytes after the prefix: more than any length or index here can be
STATIC: tuple[Field, ...] = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
STATIC_FIELDS = {field: number for number, field in enumerate(STATIC, 1)}
STATIC_NAMES = {name: number for number, (name, _) in reversed(list(enumerate(STATIC, 1)))}
NEVER_INDEXED = frozenset({b"set-cookie", b"authorization", b"www-authenticate"})
OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
SHORT = 0x7F  # a length or an index below it is the seven bits of one byte


@dataclass(frozen=True, slots=True, eq=False)
class TableState:
    """What a peer's dynamic table holds. name: eight bytes that no other content ever has; entries: the newest first;
    limit: what the peer has set the table's size to.
    """

    name: bytes
    entries: tuple[Field, ...]
    size: int
    limit: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """fields: None where they are more than was allowed for (the table has followed all the same)."""

    fields: tuple[Field, ...] | None
    after: TableState


class BlockDecoder:
    """Decodes for many connections, and remembers blocks in `budget_bytes`.

    list_bytes: of a list of fields at most, counted as in SETTINGS_MAX_HEADER_LIST_SIZE; count: of fields at most.
    """

    def __init__(self, budget_bytes: int, list_bytes: int, count: int) -> None:
        self.list_bytes = list_bytes
        self.count = count
        self.huffman = HuffmanDecoder()
        self.last_name = 0
        self.states: dict[tuple[tuple[Field, ...], int], TableState] = {}
        self.empty = self.state_of((), 0, TABLE_BYTES)
        self.blocks: Memo[bytes, Decoded] = Memo(budget_bytes, size_of_block)

    def decode(self, state: TableState, block: bytes) -> Decoded:
        """Raises ConnectionFault (COMPRESSION_ERROR) for what is no field block: the tables have parted for good."""
        place = state.name + block
        known = self.blocks.entries.get(place)
        if known is None:
            try:
                known = BlockReader(self, state, block).read()
            except (IndexError, HuffmanError) as fault:
                what = str(fault) if isinstance(fault, HuffmanError) else "a field block that breaks off"
                raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, what) from fault
            self.blocks.put(place, known)
        return known

    def state_of(self, entries: tuple[Field, ...], size: int, limit: int) -> TableState:
        """The state of that content, the same object while it is remembered."""
        known = self.states.get((entries, limit))
        if known is None:
            self.last_name += 1
            known = TableState(self.last_name.to_bytes(8, "big"), entries, size, limit)
            if len(self.states) >= STATES:
                del self.states[next(iter(self.states))]
            self.states[entries, limit] = known
        return known


class BlockReader:
    """One pass over one block. IndexError means that the block is at its end too early."""

    def __init__(self, decoder: BlockDecoder, state: TableState, block: bytes) -> None:
        self.decoder = decoder
        self.block = block
        self.at = 0
        self.entries = state.entries
        self.size = state.size
        self.limit = state.limit
        self.before = state

    def read(self) -> Decoded:
        block, fields = self.block, list[Field]()
        room, count = self.decoder.list_bytes, self.decoder.count
        while self.at < len(block):
            first = block[self.at]
            if first & 0x80:
                field = self.entry(self.integer(SHORT))
            elif first & 0x40:
                field = self.literal(0x3F)
                self.insert(field)
            elif first & 0x20:
                if fields or room != self.decoder.list_bytes:
                    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a table size update behind a field")
                self.resize(self.integer(0x1F))
                continue
            else:
                field = self.literal(0x0F)
            room -= len(field[0]) + len(field[1]) + ENTRY_BYTES
            if room >= 0 and len(fields) <= count:
                fields.append(field)
        after = self.before
        if self.entries is not after.entries or self.limit != after.limit:
            after = self.decoder.state_of(self.entries, self.size, self.limit)
        return Decoded(None if room < 0 or len(fields) > count else tuple(fields), after)

    def integer(self, mask: int) -> int:
        """RFC 7541 section 5.1; mask: of the prefix in the byte at hand."""
        value = self.block[self.at] & mask
        self.at += 1
        if value < mask:
            return value
        for shift in range(0, 7 * LONGEST_INTEGER, 7):
            octet = self.block[self.at]
            self.at += 1
            value += (octet & 0x7F) << shift
            if octet < 0x80:
                return value
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "an integer of a field block that is too long")

    def text(self) -> bytes:
        """RFC 7541 section 5.2."""
        coded = self.block[self.at] & 0x80
        length = self.integer(SHORT)
        end = self.at + length
        if end > len(self.block):
            raise IndexError(end)
        raw = self.block[self.at : end]
        self.at = end
        return self.decoder.huffman.decode(raw) if coded else raw

    def literal(self, mask: int) -> Field:
        number = self.integer(mask)
        name = self.entry(number)[0] if number else self.text()
        return name, self.text()

    def entry(self, number: int) -> Field:
        """A field of the two tables (RFC 7541 section 2.3.3)."""
        if 0 < number <= len(STATIC):
            return STATIC[number - 1]
        if not number or number > len(STATIC) + len(self.entries):
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"an index of a field block: nothing stands at {number}")
        return self.entries[number - len(STATIC) - 1]

    def insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + ENTRY_BYTES
        if size > self.limit:
            self.entries, self.size = (), 0
            return
        self.evict(self.limit - size)
        self.entries = (field, *self.entries)
        self.size += size

    def resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise ConnectionFault(
                ErrorCode.COMPRESSION_ERROR, f"a table size update: expected at most {TABLE_BYTES}, got {limit}"
            )
        self.limit = limit
        self.evict(limit)

    def evict(self, room: int) -> None:
        """Drop the oldest entries until the table takes no more than `room`."""
        keep = len(self.entries)
        while self.size > room:
            keep -= 1
            name, value = self.entries[keep]
            self.size -= len(name) + len(value) + ENTRY_BYTES
        if keep < len(self.entries):
            self.entries = self.entries[:keep]


def size_of_block(place: bytes, decoded: Decoded) -> int:
    """What a remembered block takes: its bytes, and its fields as objects of their own."""
    fields = decoded.fields or ()
    return len(place) + 3 * OBJECT_BYTES + sum(len(n) + len(v) + 2 * OBJECT_BYTES + 56 for n, v in fields)


# --- our own blocks -------------------------------------------------------------------------------------------------


def encode_integer(value: int, mask: int, pattern: int) -> bytes:
    """RFC 7541 section 5.1; pattern: the bits before the prefix."""
    if value < mask:
        return bytes((pattern | value,))
    value -= mask
    octets = bytearray((pattern | mask,))
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def encode_name(name: bytes) -> bytes:
    """What comes before the value of a literal that enters no table."""
    pattern = 0x10 if name in NEVER_INDEXED else 0
    number = STATIC_NAMES.get(name)
    if number is not None:
        return encode_integer(number, 0x0F, pattern)
    return b"%c%b%b" % (pattern, encode_integer(len(name), SHORT, 0), name)


def encode_field(name: bytes, value: bytes) -> bytes:
    """A field by the static table, or as a literal that enters no table. name: lower-case."""
    number = STATIC_FIELDS.get((name, value))
    if number is not None:
        return encode_integer(number, 0x7F, 0x80)
    before = NAMES.get(name) or encode_name(name)
    if len(value) < SHORT:
        return b"%b%c%b" % (before, len(value), value)
    return before + encode_integer(len(value), SHORT, 0) + value


NAMES = {name: encode_name(name) for name in STATIC_NAMES}


def encode_fields(fields: Iterable[Field]) -> bytes:
    """Fields of an answer, with names in lower-case, and without those that speak of a connection of HTTP/1.1
    (RFC 9113 sections 8.2 and 8.2.2).
    """
    lower = [(name.lower(), value) for name, value in fields]
    return b"".join([encode_field(name, value) for name, value in lower if name not in OF_CONNECTIONS])


def encode_status(status: int) -> bytes:
    return encode_field(b":status", b"%d" % status)
