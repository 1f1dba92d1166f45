"""Deterministic CBOR (RFC 8949 section 4.2.1) and its strict decoder.

For text keys the bytewise order of section 4.2.1 and the length-first order of 4.2.3, which cbor2 sorts by, are the
same order: the initial bytes of a text string carry its length.
"""

from __future__ import annotations

import math
from typing import Any

import cbor2

from edged.errors import WireError
from edged.feed import limits

TEXT, LIST, MAP, SIMPLE = 3, 4, 5, 7  # major types: RFC 8949 section 3.1
ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}  # after the initial byte, by its low five bits: section 3
ORDERED_MOST, NAMED_MOST = 1024, 1024  # maps whose order is remembered, and characters of the names in one
SOUGHT_MOST, SEARCHED_MOST = 128, 1 << 16  # bytes of a field, and of the map in which it is sought
LEAST = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}  # the least argument that so many bytes are right for


def head(major: int, argument: int) -> bytes:
    """The head of an item in its shortest form; an argument is less than 2^64."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size in ARGUMENT_BYTES.items():
        if argument < 1 << 8 * size:
            return bytes((major << 5 | info,)) + argument.to_bytes(size, "big")
    raise ValueError(f"argument {argument} does not fit in 64 bits")


def read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """(major type, argument, where the head ends) of the item at `at`; of major type 7 the argument's bits.

    Raises ValueError for an indefinite length and where it is not in its shortest form, IndexError past the end.
    """
    initial = data[at]
    major, argument = initial >> 5, initial & 31
    if argument < 24:
        return major, argument, at + 1
    size = ARGUMENT_BYTES.get(argument, 0)
    end = at + 1 + size
    if not size or end > len(data):
        raise ValueError("indefinite, reserved or cut short")
    argument = int.from_bytes(data[at + 1 : end], "big")
    if major != SIMPLE and argument < LEAST[size]:
        raise ValueError("not in its shortest form")
    return major, argument, end


def encode(value: Any) -> bytes:
    """The one deterministic encoding of `value` (None, bool, int, float, str, bytes, list, dict)."""
    kind = type(value)
    return cbor2.dumps(value, canonical=kind is not str and kind is not int)  # of these there is one alone


class Unusual(Exception):
    """Not of the JSON data model."""


class Encoded:
    """What is put into CBOR as it is."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def write_encoded(encoder: Any, item: Any) -> None:
    """Raises ValueError for what is not an Encoded."""
    if not isinstance(item, Encoded):
        raise ValueError(f"a {type(item).__name__} has no encoding")
    encoder.write(item.data)


ORDERS: dict[tuple[Any, ...], tuple[Any, ...] | None] = {}


def order_of(names: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The deterministic order of a map's names, None where they are in it. Raises Unusual for what is not text."""
    for name in names:
        if type(name) is not str:
            raise Unusual
    ordered: tuple[Any, ...] | None = tuple(sorted(names, key=lambda name: (len(data := name.encode()), data)))
    if ordered == names:
        ordered = None
    if sum(map(len, names)) <= NAMED_MOST:
        if len(ORDERS) >= ORDERED_MOST:
            ORDERS.clear()
        ORDERS[names] = ordered
    return ordered


def arranged(value: Any, depth: int) -> Any:
    """A value as cbor2 writes it deterministically without looking for an order: itself, unless it has to differ.

    Raises Unusual for what is not of the JSON data model or nested past limits.DEPTH.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise Unusual
        return value
    if kind is float:
        data = cbor2.dumps(value, canonical=True)
        if not math.isfinite(value):
            raise Unusual
        return value if len(data) == 9 else Encoded(data)
    if kind is list:
        return arranged_list(value, depth)
    if kind is dict:
        return arranged_map(value, depth)
    raise Unusual


def arranged_list(items: list[Any], depth: int) -> list[Any]:
    if depth >= limits.DEPTH and items:
        raise Unusual
    made = items
    for place, item in enumerate(items):
        if type(item) is str:
            continue
        other = arranged(item, depth + 1)
        if other is not item:
            if made is items:
                made = list(items)
            made[place] = other
    return made


def arranged_map(fields: dict[Any, Any], depth: int) -> dict[Any, Any]:
    if depth >= limits.DEPTH and fields:
        raise Unusual
    names = tuple(fields)
    ordered = ORDERS.get(names, ())
    if ordered == ():
        ordered = order_of(names)
    made = fields if ordered is None else {name: fields[name] for name in ordered}
    for name, item in fields.items():
        if type(item) is str:
            continue
        other = arranged(item, depth + 1)
        if other is not item:
            if made is fields:
                made = dict(fields)
            made[name] = other
    return made


def encoded_plainly(value: Any) -> bytes | None:
    """The deterministic encoding of a value of the JSON data model, in a third of the time that cbor2 takes to find the
    order of its fields. None for any other value, and where it cannot be encoded.
    """
    try:
        return cbor2.dumps(arranged(value, 1), default=write_encoded)
    except (Unusual, UnicodeEncodeError, cbor2.CBOREncodeError):
        return None


def decode(data: bytes, what: str, *, depth: int = limits.DEPTH) -> Any:
    """Decode exactly one deterministically encoded item.

    Refuses indefinite lengths, duplicate keys, tags, trailing data, nesting past `depth`, more than limits.ITEMS items
    and every encoding that is not the deterministic one. Raises WireError naming `what`.
    """
    check_items(data, f"decode {what}")
    value = loads(data, what, depth)
    if encoded_plainly(value) != data:
        check_determinism(value, data, what)
        refuse_foreign(value, what, (str, bytes, bool, float))
    return value


def decode_document(data: bytes, what: str, *, depth: int) -> Any:
    """`decode` for what edged itself lays out: numbers, texts, bytes and nulls, but no true or false, which Python
    would take for 1 and 0. Raises WireError naming `what`."""
    check_items(data, f"decode {what}")
    document = loads(data, what, depth)
    check_determinism(document, data, what)
    refuse_foreign(document, what, (str, bytes))
    return document


def loads(data: bytes, what: str, depth: int) -> Any:
    try:
        return cbor2.loads(data, max_depth=depth, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as fault:
        raise WireError(f"decode {what}: not acceptable CBOR: {fault}; the sender must encode it anew") from fault


def check_determinism(value: Any, data: bytes, what: str) -> None:
    """Raise WireError unless `data` is the one encoding of `value`."""
    try:
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as fault:
        raise WireError(f"decode {what}: not acceptable CBOR: {fault}; the sender must encode it anew") from fault
    if again != data:
        raise WireError(f"decode {what}: not deterministic CBOR (RFC 8949 section 4.2), or data follows it")


def decode_held(data: bytes, what: str) -> Any:
    """Decode a record that was checked when it was taken in, in half the time. Raises WireError naming `what`."""
    check_items(data, f"decode {what}")
    try:
        return cbor2.loads(data, max_depth=limits.DEPTH, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as fault:
        raise WireError(f"decode {what}: not acceptable CBOR: {fault}; audit the replica") from fault


def encoded_size(value: Any) -> int:
    """How many bytes `encode` makes of a value of the JSON data model: sorting its fields takes most of the time."""
    kind = type(value)
    if kind is str:
        return counted_size(len(value) if value.isascii() else len(value.encode()))
    if kind is int:
        return head_size(value if value >= 0 else -1 - value)
    if kind is list:
        size = head_size(len(value))
        for item in value:
            size += encoded_size(item)
        return size
    if kind is dict:
        size = head_size(len(value))
        for name, item in value.items():
            size += encoded_size(name) + encoded_size(item)
        return size
    return len(encode(value)) if kind is float else 1


def counted_size(size: int) -> int:
    return size + head_size(size)


def head_size(argument: int) -> int:
    """The bytes of the shortest head with this argument."""
    if argument < 24:
        return 1
    return 2 if argument < 1 << 8 else 3 if argument < 1 << 16 else 5 if argument < 1 << 32 else 9


def check_items(data: bytes, what: str) -> None:
    """Raise WireError if CBOR of definite lengths holds more than limits.ITEMS items; says nothing else of it.

    A byte can be a whole list, which decoded takes eighty.
    """
    if len(data) <= limits.ITEMS:
        return
    at = 0
    for _ in range(limits.ITEMS):
        if at >= len(data):
            return
        major, argument = data[at] >> 5, data[at] & 31
        at += 1
        if 24 <= argument <= 27:
            width = ARGUMENT_BYTES[argument]
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        if major in (2, 3):
            at += argument
    if at < len(data):
        raise WireError(f"{what}: holds more than {limits.ITEMS} items; send less in one piece")


def refuse_foreign(value: Any, what: str, plain: tuple[type, ...]) -> None:
    """Raise WireError if `value` holds anything but null, lists, maps, integers and what is `plain`: what a tag or a
    simple value made (dates, bignums, sets, undefined)."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif type(item) is list:
            waiting.extend(item)
        elif type(item) is int:
            if not -(1 << 64) <= item < 1 << 64:
                raise WireError(f"decode {what}: an integer of more than 64 bits")
        elif item is not None and type(item) not in plain:
            raise WireError(f"decode {what}: holds a {type(item).__name__}, which does not belong there")


def encode_record(value: Any, where: str) -> bytes:
    """A record's value in the JSON data model as its canonical bytes.

    Raises WireError naming `where` for NaN and infinities, integers of more than 64 bits, keys that are not text,
    unpaired surrogates, nesting past limits.DEPTH and values over limits.VALUE_BYTES or limits.ITEMS.
    """
    data = encoded_plainly(value)
    if data is None:
        check_json_model(value, where)
        try:
            data = cbor2.dumps(value, canonical=True)
        except UnicodeEncodeError as fault:
            text = f"U+{ord(fault.object[fault.start]):04X} at character {fault.start + 1} of {fault.object!a:.80}"
            raise WireError(f"encode {where}: holds an unpaired surrogate, {text}; publish valid Unicode") from fault
        except (cbor2.CBOREncodeError, ValueError) as fault:
            raise WireError(f"encode {where}: {fault}; publish values of the JSON data model") from fault
    if len(data) > limits.VALUE_BYTES:
        raise WireError(
            f"encode {where}: {len(data)} bytes, at most {limits.VALUE_BYTES} are allowed; split the record"
        )
    check_items(data, f"encode {where}")
    return data


def with_field(data: bytes, name: str, old: Any, new: Any, where: str) -> bytes | None:
    """The encoding `data` of a map that holds `old` under `name`, with `new` there: much sooner than the whole encoded.

    None where that is not found at once. Raises WireError for a value that `encode_record` refuses.
    """
    was, now = encoded_plainly({name: old}), encode_record({name: new}, where)
    if was is None or len(was) > SOUGHT_MOST or len(data) > SEARCHED_MOST:
        return None
    piece = was[1:]  # without the head of the map
    at = data.find(piece)
    if at < 0 or data.find(piece, at + 1) >= 0 or len(data) - len(was) + len(now) > SEARCHED_MOST:
        return None
    return data[:at] + now[1:] + data[at + len(piece) :]


def check_json_model(value: Any, where: str) -> None:
    """Raise WireError unless `value` is of the JSON data model and within the limits."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limits.DEPTH:
            raise WireError(f"encode {where}: nested deeper than {limits.DEPTH} levels")
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                if not all(type(key) is str for key in item):
                    raise WireError(f"encode {where}: a field name is not text")
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            elif kind is float:
                if not math.isfinite(item):
                    raise WireError(f"encode {where}: {item} is not a JSON number")
            elif kind is int:
                if not -(1 << 63) <= item < 1 << 64:
                    raise WireError(f"encode {where}: {item} does not fit in 64 bits; publish it as text")
            elif item is not None and kind is not str and kind is not bool:
                raise WireError(f"encode {where}: a {kind.__name__} is not of the JSON data model")
        level = below
