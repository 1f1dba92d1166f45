"""Codes a record's value against another that both sides hold: the old one, or that of a record like it.

Only what differs is coded, field by field; where that is, and how it tends to differ, is learnt from the records at
hand. One walk serves both directions (see arithmetic): when reading, the new value it is given is ABSENT and what it
returns is the value that was coded.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import Any

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.coding.arithmetic import ONE, Coder, NullCoder
from edged.feed.coding.knowledge import NAMES, Knowledge, inside, name_order
from edged.feed.coding.octets import shared_bytes
from edged.feed.coding.textmodel import END, HISTORY, Decisions, Field, HopMemory, TextCoder

NONE, FALSE, TRUE, INTEGER, FLOAT, TEXT, LIST, MAP = range(8)
KINDS = {bool: TRUE, int: INTEGER, float: FLOAT, str: TEXT, list: LIST, dict: MAP}
KEEP, EDIT, INSERT, DROP, CUT = range(5)  # steps that make one list of another
ABSENT = object()
LEARN_BYTES = 512  # of one text; more would cost more time than it saves bytes
SCALAR_BYTES = 9  # the longest null, boolean, integer or float


def kind_of(value: Any) -> int:
    return FALSE if value is False else KINDS.get(type(value), NONE)


@lru_cache(maxsize=4)
def knowledge_of(dictionary: bytes) -> Knowledge:
    """What `dictionary` tells, with counters that have seen how its records differ from one another."""
    knowledge = Knowledge(dictionary)
    primer = TreeCoder(NullCoder(), knowledge, 1 << 62)
    primer.priming = primer.fresh = True
    primer.decisions.counters["=", False] = [ONE // 16, 6]  # a text is seldom the key, unless its field is the key
    primer.decisions.counters["=", True] = [ONE // 16, 6]
    for collection, values in knowledge.values.items():
        for base, new in pairwise(values):
            primer.value(new, base, collection)
    knowledge.primed = primer.decisions.counters
    return knowledge


class TreeCoder:
    """Codes the values of one hop. `key` and `fresh` are set for each record: its key, and whether it is new."""

    def __init__(self, coder: Coder, knowledge: Knowledge, max_bytes: int) -> None:
        self.knowledge = knowledge
        self.decisions = Decisions(coder, knowledge.primed)
        self.texts = TextCoder(coder)
        self.fields: dict[str, Field] = {}
        self.memory = HopMemory()
        self.names: dict[str, list[str]] = {}
        self.room = max_bytes
        self.priming = False
        self.key = ""
        self.fresh = False

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

    def known(self, path: str) -> list[str]:
        known = self.names.get(path)
        if known is None:
            known = self.names[path] = list(self.knowledge.names.get(path, ()))
        return known

    def learn(self, value: Any, path: str) -> None:
        """Take in the texts and field names of a value that both sides hold."""
        if type(value) is str:
            self.field(path).learn(value.encode()[:LEARN_BYTES])
        elif type(value) is list:
            for item in value:
                self.learn(item, path + "[]")
        elif type(value) is dict:
            known = self.known(path)
            for name, item in value.items():
                if len(known) < NAMES and name not in known:
                    known.append(name)
                self.learn(item, inside(path, name))

    def value(self, new: Any, base: Any, path: str, depth: int = 1) -> Any:
        """Code a value against `base`, which may be ABSENT too."""
        if depth > limits.DEPTH:
            raise WireError(f"decode hop: nested deeper than {limits.DEPTH} levels at {path:.200}")
        kind = self.kind(new, base, path)
        self.charge(SCALAR_BYTES if kind < TEXT else 1)
        if kind == INTEGER:
            return self.integer(new, base, path)
        if kind == FLOAT:
            return self.real(new, base, path)
        if kind == TEXT:
            return self.text(new, base if type(base) is str else None, path)
        if kind == LIST:
            return self.array(new, base if type(base) is list else [], path, depth)
        if kind == MAP:
            return self.map(new, base if type(base) is dict else {}, path, depth)
        return (None, False, True)[kind]

    def kind(self, new: Any, base: Any, path: str) -> int:
        kind = kind_of(new)
        was = -1 if base is ABSENT else kind_of(base)
        coded = 1
        for shift in (2, 1, 0):
            coded = coded << 1 | self.decisions.flag(kind >> shift & 1, ("k", was, coded), ("k", path, was, coded))
        return coded & 7

    def integer(self, new: Any, base: Any, path: str) -> int:
        start = base if type(base) is int else 0
        step = new - start if type(new) is int else 0
        below = self.decisions.flag(step < 0, "-", ("-", path))
        size = self.decisions.number(abs(step), "i", ("i", path))
        return start - size if below else start + size

    def real(self, new: Any, base: Any, path: str) -> float:
        text = self.text(repr(new), repr(base) if type(base) is float else None, path)
        try:
            return float(text)
        except ValueError as fault:
            raise WireError(f"decode hop: {text!r:.40} is not a number at {path:.200}") from fault

    def text(self, new: Any, base: str | None, path: str) -> str:
        """Text: the key; or what it begins and ends with in common with `base`, and the rest as characters."""
        flag, number, fresh = self.decisions.flag, self.decisions.number, self.fresh
        if not self.priming and flag(new == self.key, ("=", base is None), ("=", path)):
            self.charge(len(self.key))
            return self.key
        data = new.encode() if type(new) is str else b""
        head = tail = b""
        if base is not None:
            old = base.encode()
            front, back = common_ends(old, data)
            if flag(front + back > 2, ("e", fresh), ("e", path, fresh)):
                front, back = number(front, "f", ("f", path)), number(back, "b", ("b", path))
                if front + back > len(old):
                    raise WireError(f"decode hop: {front} and {back} bytes shared of {len(old)} at {path:.200}")
                head, tail = old[:front], old[len(old) - back :]
                self.charge(front + back)
        middle = self.characters(data[len(head) : len(data) - len(tail)], head, path)
        try:
            return (head + middle + tail).decode()
        except UnicodeDecodeError as fault:
            raise WireError(f"decode hop: not UTF-8 at {path:.200}") from fault

    def characters(self, new: bytes, head: bytes, path: str) -> bytes:
        """Text that comes after `head`, byte by byte."""
        if self.priming:
            return new
        field = self.field(path)
        history = (bytes([END]) + head)[-HISTORY:]
        found = bytearray()
        while True:
            place = len(found)
            coded = self.texts.symbol(new[place] if place < len(new) else END, field, history)
            field.note(history, coded)
            if coded == END:
                return bytes(found)
            self.charge(1)
            found.append(coded)
            history = (history + bytes([coded]))[-HISTORY:]

    def array(self, new: Any, base: list[Any], path: str, depth: int) -> list[Any]:
        script = iter(edit_script(base, new) if type(new) is list else ())
        out: list[Any] = []
        at, before = 0, CUT
        while True:
            step, item = next(script, (CUT, ABSENT))
            step = self.step(step, at < len(base), before, path, len(out))
            before = step
            if step == CUT:
                return out
            if step == KEEP:
                self.charge(len(cbor.encode(base[at])))
                out.append(base[at])
            elif step == EDIT:
                out.append(self.value(item, base[at], path + "[]", depth + 1))
            elif step == INSERT:
                like = out[-1] if out else base[0] if base else ABSENT
                out.append(self.value(item, like, path + "[]", depth + 1))
            if step != INSERT:
                at += 1

    def step(self, step: int, more: bool, before: int, path: str, count: int) -> int:
        """One step of a list's edit; where nothing is left of the base only INSERT or CUT can follow."""
        flag = self.decisions.flag
        if not more:
            return INSERT if flag(step == INSERT, ("m", before), ("m", before, path, min(count, 3))) else CUT
        for choice in (KEEP, EDIT, INSERT, DROP):
            if flag(step == choice, ("l", choice, before), ("l", choice, before, path, self.fresh)):
                return choice
        return CUT

    def map(self, new: Any, base: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """A map: for each field of the base whether it differs, for each known one whether it is new; then others."""
        flag, fresh = self.decisions.flag, self.fresh
        given = new if type(new) is dict else {}
        out: dict[str, Any] = {}
        edits = last = 0
        for name in sorted(base, key=name_order):
            item, inner = given.get(name, ABSENT), inside(path, name)
            differs = item is ABSENT or (given is new and cbor.encode(item) != cbor.encode(base[name]))
            few = min(edits, 2)
            if not flag(differs, ("s", fresh, few), ("s", fresh, inner), ("s", fresh, inner, few)):
                self.charge(len(name) + len(cbor.encode(base[name])))
                out[name] = base[name]
                continue
            edits += 1
            if not flag(item is ABSENT, ("x", fresh), ("x", inner)):
                self.charge(len(name))
                out[name] = self.value(item, base[name], inner, depth + 1)
        known = self.known(path)
        for name in known:
            if name in base:
                continue
            item, inner = given.get(name, ABSENT), inside(path, name)
            few = min(edits, 2)
            last = flag(item is not ABSENT, ("+", fresh, few), ("+", fresh, inner), ("+", fresh, inner, last))
            if last:
                edits += 1
                self.charge(len(name))
                out[name] = self.value(item, ABSENT, inner, depth + 1)
        others = [name for name in given if name not in out and name not in base and name not in known]
        self.others(others, given, out, path, depth)
        return out

    def others(self, names: list[str], given: dict[str, Any], out: dict[str, Any], path: str, depth: int) -> None:
        """The fields of a map that nothing announced, each with its name."""
        known = self.known(path)
        at = 0
        while self.decisions.flag(at < len(names), "o", ("o", path)):
            name = self.text(names[at] if at < len(names) else ABSENT, None, path + "{}")
            if name in out:
                raise WireError(f"decode hop: field {name!r:.80} comes twice at {path:.200}")
            out[name] = self.value(given.get(name, ABSENT), ABSENT, inside(path, name), depth + 1)
            if len(known) < NAMES and name not in known:
                known.append(name)
            at += 1


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
