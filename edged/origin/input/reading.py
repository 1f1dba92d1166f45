"""Input lines into records, every bad line named with its file and number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edged.errors import ValidationError, WireError
from edged.feed import cbor, limits
from edged.feed.names import check_collection, check_key
from edged.origin.input.lines import Faults, read_lines, shown

PLACE_LINES = 1 << 40  # a place is input number * PLACE_LINES + line number
MEMBERS = ("collection", "key", "value", "deleted")  # of a line
KINDS = {dict: "an object", list: "an array", str: "text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class InputEntry:
    """One record or edit. value: canonical bytes, None deletes; place: where it was read."""

    collection: str
    key: str
    value: bytes | None
    place: int


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's members. Raises ValidationError where a name is there twice: readers would differ on it."""
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValidationError(f"the name {twice!r:.80} is there twice in one object; expected each once")
    return members


def no_number(text: str) -> None:
    raise ValidationError(f"{text} is not a JSON number; publish null or text instead")


DECODER = json.JSONDecoder(object_pairs_hook=once_each, parse_constant=no_number)


def decode_object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line is. Raises ValidationError saying what it is instead."""
    try:
        found = DECODER.decode(line.decode())
    except UnicodeDecodeError as fault:
        raise ValidationError(f"not UTF-8 at byte {fault.start + 1} of the line; save the input as UTF-8") from fault
    except json.JSONDecodeError as fault:
        raise ValidationError(
            f"not JSON at character {fault.pos + 1}: {fault.msg[0].lower()}{fault.msg[1:]}"
        ) from fault
    except RecursionError as fault:
        raise ValidationError(f"nested deeper than {limits.DEPTH} levels") from fault
    except ValueError as fault:  # Python reads no whole number of thousands of digits
        raise ValidationError("a number does not fit in 64 bits; publish it as text") from fault
    if not isinstance(found, dict):
        raise ValidationError(f"expected an object, got {kind_of(found)}")
    return found


def kind_of(value: Any) -> str:
    """What a value is called in JSON."""
    return "null" if value is None else KINDS[type(value)]


class Inputs:
    """The input files of one publish. `entries()` yields what they hold; `place` numbers are named by `name_of`."""

    def __init__(
        self, names: Sequence[str], *, collection: str | None = None, key_field: str | None = None, edits: bool = False
    ) -> None:
        self.names = list(names)
        self.edits = edits
        self.faults = Faults()
        self.parse: Callable[[dict[str, Any], int], InputEntry] = self.parse_line
        if collection is not None and key_field is not None:
            self.collection, self.key_field = check_collection(collection), key_field
            self.parse = self.parse_plain

    def name_of(self, place: int) -> str:
        number, line = divmod(place, PLACE_LINES)
        return f"{shown(self.names[number])}:{line}"

    def entries(self) -> Iterator[InputEntry]:
        """Every record or edit in the order of the input. Bad lines go to `faults`. Raises OriginError, InputError."""
        for number, name in enumerate(self.names):
            for line_number, line in enumerate(read_lines(name), 1):
                if not line or line.isspace():
                    continue
                place = number * PLACE_LINES + line_number
                try:
                    yield self.parse(decode_object(line), place)
                except (WireError, ValidationError) as fault:
                    self.faults.add(f"{self.name_of(place)}: {fault}; got {excerpt(line)}")

    def parse_line(self, item: dict[str, Any], place: int) -> InputEntry:
        """`{"collection": C, "key": K, "value": {...}}` or `{"collection": C, "key": K, "deleted": true}`."""
        for name in item:
            if name not in MEMBERS:
                plain = " (plain objects need --collection and --key)" if "collection" not in item else ""
                raise ValidationError(f"unknown name {name!r:.80}; expected collection, key and value{plain}")
        for name in ("collection", "key"):
            if name not in item:
                raise ValidationError(f"the name {name!r} is missing")
            if not isinstance(item[name], str):
                raise ValidationError(f"`{name}`: expected text, got {kind_of(item[name])}")
        collection, key = check_collection(item["collection"]), check_key(item["key"])
        deleted = item.get("deleted", False)
        if not isinstance(deleted, bool):
            raise ValidationError(f"`deleted`: expected true or false, got {kind_of(deleted)}")
        if deleted:
            if not self.edits:
                raise ValidationError("`deleted` is an edit; expected a record, or give --changes")
            if "value" in item:
                raise ValidationError("expected either `value` or `deleted`, got both")
            return InputEntry(collection, key, None, place)
        if "value" not in item:
            raise ValidationError("expected `value`" + (" or `deleted`" if self.edits else ""))
        return InputEntry(collection, key, cbor.encode_record(item["value"], f"{collection}/{key}"), place)

    def parse_plain(self, item: dict[str, Any], place: int) -> InputEntry:
        found = item.get(self.key_field)
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        if not isinstance(found, str):
            got = kind_of(found) if self.key_field in item else "none"
            raise ValidationError(f"key field {self.key_field!r}: expected text or a whole number, got {got}")
        key = check_key(found, f"key field {self.key_field!r}")
        if self.edits and item.get("deleted") is True and set(item) == {self.key_field, "deleted"}:
            return InputEntry(self.collection, key, None, place)
        return InputEntry(self.collection, key, cbor.encode_record(item, f"{self.collection}/{key}"), place)


class Values:
    """Records that a program hands over: (collection, key, value); with `edits` a value of None removes the record."""

    def __init__(self, records: Iterable[tuple[str, str, Any]], *, edits: bool = False) -> None:
        self.records = records
        self.edits = edits
        self.faults = Faults()

    def name_of(self, place: int) -> str:
        return f"record {place}"

    def entries(self) -> Iterator[InputEntry]:
        for place, (collection, key, value) in enumerate(self.records, 1):
            try:
                check_collection(collection)
                check_key(key)
                removed = self.edits and value is None
                data = None if removed else cbor.encode_record(value, f"{collection}/{key}")
                yield InputEntry(collection, key, data, place)
            except WireError as fault:
                self.faults.add(f"record {place}: {fault}")


def excerpt(line: bytes) -> str:
    text = line[:60].decode(errors="replace").strip()
    return repr(text + ("…" if len(line) > 60 else ""))
