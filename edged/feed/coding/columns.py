"""Records by columns: what a snapshot part holds before it is compressed.

Values alike in their field compress better side by side. Each value (deterministic CBOR) is taken apart into its
shape, everything but the texts and numbers, and those go to the stream of their field. It is done on the encoded bytes,
so every value comes back as it was, whatever it holds. Shapes are few; records name theirs by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.coding.octets import Octets, decode_text, shared_bytes, write_counted, write_varint
from edged.feed.names import check_collection, check_key

END, LIST_END = b"\xff", b"\xfe"  # neither is a byte of UTF-8
TEXT, TEXTS, SIMPLE = range(3)  # kinds of slots: a text, a list of nothing but texts, a number or other simple value
KEYS = ""  # the column of the keys; fields' columns are named by their path

Record = tuple[bytes, bytes, bytes]  # collection, key, value
Slot = tuple[bytes, int, str]  # the bytes before it, its kind, its column
Shape = tuple[tuple[Slot, ...], bytes]  # and the bytes after the last slot
Grouping = Callable[[str, int], str]  # which stream a column goes to


def apart(column: str, kind: int) -> str:
    """Each column in a stream of its own: best for short values that repeat."""
    return f"{column}\0{kind}" if kind == SIMPLE else column


def together(column: str, kind: int) -> str:
    """A record's single texts and its key in one stream: best where they say the same in other words."""
    return apart(column, kind) if kind in (SIMPLE, TEXTS) or "[]" in column else KEYS


class Scanner:
    """Takes one value apart. Raises ValueError for what is not one well-formed item of definite length."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.slots: list[Slot] = []
        self.contents: list[bytes] = []
        self.start = 0  # of the bytes that no slot has taken yet

    def shape(self) -> Shape:
        if self.item(0, KEYS, 0) != len(self.data):
            raise ValueError("data after the value")
        return tuple(self.slots), self.data[self.start :]

    def take(self, at: int, end: int, kind: int, column: str, content: bytes) -> int:
        self.slots.append((self.data[self.start : at], kind, column))
        self.contents.append(content)
        self.start = end
        return end

    def item(self, at: int, column: str, depth: int) -> int:
        if depth > limits.DEPTH or at >= len(self.data):
            raise ValueError("too deep or cut short")
        major, argument, end = cbor.read_head(self.data, at)
        if major in (0, 1, cbor.SIMPLE):
            return self.take(at, end, SIMPLE, column, self.data[at:end])
        if major == cbor.TEXT:
            content, end = self.text(end, argument)
            return self.take(at, end, TEXT, column, content + END)
        if major == cbor.LIST:
            texts = self.texts(end, argument)
            if texts is not None:
                return self.take(at, texts[1], TEXTS, column, texts[0] + LIST_END)
            for _ in range(argument):
                end = self.item(end, column + "[]", depth + 1)
            return end
        if major == cbor.MAP:
            for _ in range(argument):
                name_major, size, name_end = cbor.read_head(self.data, end)
                if name_major != cbor.TEXT:
                    raise ValueError("a field's name is not text")
                name, end = self.text(name_end, size)
                end = self.item(end, f"{column}/{name.decode()}", depth + 1)
            return end
        raise ValueError("not of the JSON data model")

    def text(self, at: int, size: int) -> tuple[bytes, int]:
        content = self.data[at : at + size]
        if len(content) != size or END in content or LIST_END in content:
            raise ValueError("cut short or not UTF-8")
        return content, at + size

    def texts(self, at: int, count: int) -> tuple[bytes, int] | None:
        """The texts of a list that holds nothing else, and where it ends."""
        found = bytearray()
        for _ in range(count):
            if at >= len(self.data) or self.data[at] >> 5 != cbor.TEXT:
                return None
            _, size, start = cbor.read_head(self.data, at)
            content, at = self.text(start, size)
            found += content + END
        return bytes(found), at


def take_apart(value: bytes) -> tuple[Shape, list[bytes]]:
    """The shape of a value and the contents of its slots; what cannot be taken apart is all shape."""
    scanner = Scanner(value)
    try:
        return scanner.shape(), scanner.contents
    except (ValueError, IndexError):
        return ((), value), []


@dataclass(slots=True)
class Columns:
    """Streams as they are written."""

    grouping: Grouping
    streams: dict[str, bytearray] = field(default_factory=dict)
    shapes: dict[Shape, int] = field(default_factory=dict)
    numbers: bytearray = field(default_factory=bytearray)
    shares: bytearray = field(default_factory=bytearray)

    def stream(self, column: str, kind: int) -> bytearray:
        return self.streams.setdefault(self.grouping(column, kind), bytearray())

    def add_key(self, key: bytes, previous: bytes) -> None:
        shared = shared_bytes(previous, key)
        write_varint(self.shares, shared)
        self.stream(KEYS, TEXT).extend(key[shared:] + END)

    def add_value(self, value: bytes) -> None:
        shape, contents = take_apart(value)
        for (_, kind, column), content in zip(shape[0], contents, strict=True):
            self.stream(column, kind).extend(content)
        write_varint(self.numbers, self.shapes.setdefault(shape, len(self.shapes)))

    def write(self, out: bytearray, *, keyed: bool) -> None:
        """Append all that was added."""
        order = {name: number for number, name in enumerate(sorted(self.streams))}
        write_varint(out, len(self.shapes))
        for slots, after in self.shapes:
            write_varint(out, len(slots))
            for before, kind, column in slots:
                write_counted(out, before)
                write_varint(out, order[self.grouping(column, kind)] * 3 + kind)
            write_counted(out, after)
        write_counted(out, bytes(self.numbers))
        if keyed:
            write_counted(out, bytes(self.shares))
            write_varint(out, order[self.grouping(KEYS, TEXT)])
        write_varint(out, len(order))
        for name in order:
            write_counted(out, bytes(self.streams[name]))


def write_columns(records: Sequence[Record], grouping: Grouping) -> bytes:
    """Records in the order of collection and key, by columns."""
    columns = Columns(grouping)
    counts: dict[bytes, int] = {}
    previous = b""
    for collection, key, value in records:
        if collection not in counts:
            counts[collection], previous = 0, b""
        counts[collection] += 1
        columns.add_key(key, previous)
        columns.add_value(value)
        previous = key
    out = bytearray()
    write_varint(out, len(counts))
    for collection, count in counts.items():
        write_counted(out, collection)
        write_varint(out, count)
    columns.write(out, keyed=True)
    return bytes(out)


def write_values(values: Iterable[bytes], grouping: Grouping) -> bytes:
    """Values whose keys are known already, by columns."""
    columns = Columns(grouping)
    for value in values:
        columns.add_value(value)
    out = bytearray()
    columns.write(out, keyed=False)
    return bytes(out)


class ColumnReader:
    """A cursor over one stream. Raises WireError past its end."""

    __slots__ = ("at", "data", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what = data, what
        self.at = 0

    def text(self) -> bytes:
        end = self.data.find(END, self.at)
        if end < 0:
            raise WireError(f"decode {self.what}: a stream ends within a text; fetch it again")
        start, self.at = self.at, end + 1
        return self.data[start:end]

    def item(self, kind: int) -> bytes:
        """The CBOR of a slot's content."""
        if kind == TEXT:
            text = self.text()
            return cbor.head(cbor.TEXT, len(text)) + text
        if kind == SIMPLE:
            start = self.at
            self.at += 1 + cbor.ARGUMENT_BYTES.get(self.data[start] & 31, 0) if start < len(self.data) else 1
            if self.at > len(self.data):
                raise WireError(f"decode {self.what}: a stream ends within a number; fetch it again")
            return self.data[start : self.at]
        found = []
        while self.data[self.at : self.at + 1] != LIST_END:
            text = self.text()
            found.append(cbor.head(cbor.TEXT, len(text)) + text)
        self.at += 1
        return cbor.head(cbor.LIST, len(found)) + b"".join(found)


Form = tuple[list[tuple[bytes, int, int]], bytes]  # (the bytes before, stream, kind) of each slot; the bytes after


def read_form(octets: Octets) -> Form:
    slots = []
    for _ in range(octets.varint(len(octets.data), "number of slots")):
        before = octets.counted(limits.VALUE_BYTES, "bytes before a slot")
        stream, kind = divmod(octets.varint(len(octets.data) * 3, "stream of a slot"), 3)
        slots.append((before, stream, kind))
    return slots, octets.counted(limits.VALUE_BYTES, "bytes after the slots")


class ColumnSource:
    """What `Columns.write` wrote, taken in order. Raises WireError naming `what`."""

    def __init__(self, octets: Octets, what: str, *, keyed: bool) -> None:
        most = len(octets.data)
        self.what = what
        self.forms = [read_form(octets) for _ in range(octets.varint(most, "number of shapes"))]
        self.numbers = Octets(octets.counted(most, "size of the shape numbers"), f"{what}, shape numbers")
        self.shares = Octets(octets.counted(most, "size of the shared counts") if keyed else b"", f"{what}, shares")
        of_keys = octets.varint(most, "stream of the keys") if keyed else 0
        self.streams = [
            ColumnReader(octets.counted(most, "size of a stream"), what)
            for _ in range(octets.varint(most, "number of streams"))
        ]
        octets.end()
        last = max((stream for slots, _ in self.forms for _, stream, _ in slots), default=-1)
        last = max(last, of_keys) if keyed and len(self.shares.data) else last
        if last >= len(self.streams):
            raise WireError(f"decode {what}: stream {last} of {len(self.streams)} is named")
        self.of_keys = self.streams[of_keys] if keyed and self.streams else None

    def key(self, previous: bytes) -> bytes:
        shared = self.shares.varint(len(previous), "shared bytes of a key")
        if self.of_keys is None:
            raise WireError(f"decode {self.what}: there is no stream of keys")
        key = previous[:shared] + self.of_keys.text()
        if key <= previous:
            raise WireError(f"decode {self.what}: keys are not in order")
        return key

    def value(self, room: int) -> bytes:
        """The next value, of at most `room` bytes."""
        slots, after = self.forms[self.numbers.varint(len(self.forms) - 1, "number of a shape")]
        pieces = []
        for before, stream, kind in slots:
            pieces.append(before)
            pieces.append(self.streams[stream].item(kind))
        pieces.append(after)
        value = b"".join(pieces)
        if len(value) > min(room, limits.VALUE_BYTES):
            raise WireError(f"decode {self.what}: a value of {len(value)} bytes, or more than the allowed in all")
        cbor.check_items(value, f"decode {self.what}: a value")
        return value

    def end(self) -> None:
        self.numbers.end()
        self.shares.end()
        if any(stream.at != len(stream.data) for stream in self.streams):
            raise WireError(f"decode {self.what}: a stream goes on after its last record; fetch it again")


def read_columns(data: bytes, max_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """The (collection, key, value) of each record, in order, together at most `max_bytes`. Raises WireError."""
    octets = Octets(data, "snapshot part")
    counts = [
        (octets.counted(limits.NAME_CHARACTERS, "size of a collection's name"), octets.varint(len(data), "records"))
        for _ in range(octets.varint(len(data), "number of collections"))
    ]
    source = ColumnSource(octets, "snapshot part", keyed=True)
    collection, room = b"", max_bytes
    for name, count in counts:
        if name <= collection:
            raise WireError("decode snapshot part: collections are not in order")
        collection, previous = name, b""
        text = check_collection(decode_text(name, "snapshot part"))
        for _ in range(count):
            key = source.key(previous)
            value = source.value(room - len(key))
            room -= len(key) + len(value)
            yield text, check_key(decode_text(key, "snapshot part")), value
            previous = key
    source.end()


def read_values(data: bytes, count: int, max_bytes: int, what: str) -> Iterator[bytes]:
    """The `count` values of `write_values`, in order, together at most `max_bytes`. Raises WireError naming `what`."""
    source = ColumnSource(Octets(data, what), what, keyed=False)
    room = max_bytes
    for _ in range(count):
        value = source.value(room)
        room -= len(value)
        yield value
    source.end()
