"""Codes a record's value against another that both sides hold: the old one, or that of a record like it.

Only what differs is coded, field by field; where that is, and how it tends to differ, is learnt from the records at
hand. One walk serves both directions (see arithmetic): when reading, the new value it is given is ABSENT and what it
returns is the value that was coded.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.coding.arithmetic import ONE, Coder, NullCoder
from edged.feed.coding.differences import (
    CUT,
    DROP,
    EDIT,
    INSERT,
    KEEP,
    MOVED_MOST,
    Pattern,
    common_ends,
    edit_script,
    is_moved,
    pattern_of,
)
from edged.feed.coding.guessing import Guess, Guesser
from edged.feed.coding.knowledge import NAMES, Knowledge, inside, name_order
from edged.feed.coding.textmodel import Counter, Field
from edged.feed.coding.texts import CHANCE_BYTES, TextValues
from edged.feed.coding.transforms import same
from edged.feed.fieldpath import ABSENT

NONE, FALSE, TRUE, INTEGER, FLOAT, TEXT, LIST, MAP = range(8)
KINDS = {bool: TRUE, int: INTEGER, float: FLOAT, str: TEXT, list: LIST, dict: MAP}
# How often, in percent, what is seldom asked about turns out so: measured over real edits.
FIRST_GUESSES: dict[object, int] = {
    **{("p", place): 50 >> place for place in range(4)},
    **{("g", place): 12 for place in range(4)},
    "w": 6,
    "v": 3,
    "2": 6,
    "we": 3,
    "u": 20,
    "tp": 5,
    ("h", 0): 12,
}
PATTERNS = 4  # of one map that are remembered
TAKEN_MOST = 256  # maps' names that are known to be learnt
GUIDED_MOST = 256  # maps and fields of which changes are remembered
LESSON_BITS = 32  # that learning from a pair counts for: it takes as long
LEANING = 16  # bits by which whole numbers told from nothing have to be shorter
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
    # A text is seldom the key, unless its field is the key.
    primer.decisions.counters["=", False] = Counter(ONE // 16, 6)
    primer.decisions.counters["=", True] = Counter(ONE // 16, 6)
    for collection, values in knowledge.values.items():
        for base, new in pairwise(values):
            primer.value(new, base, collection)
    for context, share in FIRST_GUESSES.items():
        primer.decisions.counters[context] = Counter(ONE * share // 100, 6)
    knowledge.primed = primer.decisions.counters
    return knowledge


class TreeCoder(TextValues):
    """Codes the values of one hop.

    key, fresh and record are set for each record: its key, whether it is new, and if not its old value, encoded in
    record_bytes. edits: (name, old value, new value) of all that differs from that, where nothing but such fields does.
    """

    def __init__(self, coder: Coder, knowledge: Knowledge, max_bytes: int) -> None:
        super().__init__(coder, knowledge, max_bytes)
        self.names: dict[str, list[str]] = {}
        self.taken: set[tuple[str, tuple[str, ...]]] = set()  # names of maps that were learnt, with their paths
        self.leans: dict[str, int] = {}
        self.record: Any = ABSENT
        self.record_bytes = 0
        self.edits: list[tuple[str, Any, Any]] = []
        self.unread: list[tuple[bytes, str]] = []  # what both sides hold and no text has needed yet, with its path
        self.patterns: dict[str, list[Pattern]] = {}
        self.guessers: dict[str, Guesser] = {}

    def field(self, path: str) -> Field:
        if self.unread:
            self.read_all()
        return super().field(path)

    def known(self, path: str) -> list[str]:
        known = self.names.get(path)
        if known is None:
            known = self.names[path] = list(self.knowledge.names.get(path, ()))
        return known

    def learn(self, data: bytes, path: str) -> Any:
        """Take in the texts and field names of a value that both sides hold, encoded; returns it decoded."""
        self.unread.append((data, path))
        value = cbor.decode_held(data, f"old record of {path}")
        self.learn_names(value, path)
        return value

    def learn_names(self, value: Any, path: str) -> None:
        if type(value) is list:
            for item in value:
                if type(item) is dict or type(item) is list:
                    self.learn_names(item, path + "[]")
        elif type(value) is dict:
            self.take_names(tuple(value), path)
            for name, item in value.items():
                if type(item) is dict or type(item) is list:
                    self.learn_names(item, inside(path, name))

    def take_names(self, names: tuple[str, ...], path: str) -> None:
        if (path, names) in self.taken:
            return
        if len(self.taken) < TAKEN_MOST:
            self.taken.add((path, names))
        known = self.known(path)
        for name in names:
            if len(known) < NAMES and name not in known:
                known.append(name)

    def read_all(self) -> None:
        """Learn the texts of what is at hand, once any text is to be coded: most changes of numbers need none."""
        unread, self.unread = self.unread, []
        for data, path in unread:
            self.learn_texts(cbor.decode_held(data, f"old record of {path}"), path)

    def learn_texts(self, value: Any, path: str) -> None:
        if type(value) is str:
            self.field(path).learn(value.encode()[:LEARN_BYTES])
        elif type(value) is list:
            for item in value:
                self.learn_texts(item, path + "[]")
        elif type(value) is dict:
            for name, item in value.items():
                self.learn_texts(item, inside(path, name))

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
        start = self.start(base, path)
        step = new - start if type(new) is int else 0
        below = self.decisions.flag(step < 0, "-", ("-", path))
        size = self.decisions.number(abs(step), "i", ("i", path))
        found = start - size if below else start + size
        if type(base) is int:
            lean = self.leans.get(path, 0) + abs(found - base).bit_length() - found.bit_length()
            self.leans[path] = lean - (lean >> 3)
        return found

    def start(self, base: Any, path: str) -> int:
        """What a whole number is told from: the old one, unless numbers there have less in common with theirs."""
        return base if type(base) is int and self.leans.get(path, 0) <= LEANING else 0

    def real(self, new: Any, base: Any, path: str) -> float:
        text = self.text(repr(new) if type(new) is float else ABSENT, repr(base) if type(base) is float else None, path)
        try:
            return float(text)
        except ValueError as fault:
            raise WireError(f"decode hop: {text!r:.40} is not a number at {path:.200}") from fault

    def array(self, new: Any, base: list[Any], path: str, depth: int) -> list[Any]:
        few = 2 <= len(base) <= MOVED_MOST and not self.priming and self.record is not ABSENT
        if few and self.decisions.flag(type(new) is list and is_moved(base, new), "v", ("v", path)):
            return self.moved(new, base, path, depth)
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
                self.charge(cbor.encoded_size(base[at]))
                out.append(base[at])
            elif step == EDIT:
                out.append(self.value(item, base[at], path + "[]", depth + 1))
            elif step == INSERT:
                like = out[-1] if out else base[0] if base else ABSENT
                out.append(self.value(item, like, path + "[]", depth + 1))
            if step != INSERT:
                at += 1

    def moved(self, new: Any, base: list[Any], path: str, depth: int) -> list[Any]:
        """A list with items of the old one in another order: for each its rank among those that are left, or itself."""
        decisions = self.decisions
        left, out = list(base), []
        wanted = list(new) if type(new) is list else []
        count = len(base)
        if decisions.flag(len(wanted) != count, "vn", ("vn", path)):
            count = decisions.number(len(wanted), "vc", ("vc", path))
        for place in range(count):
            item = wanted[place] if wanted else ABSENT
            rank = next((number for number, one in enumerate(left) if same(one, item)), len(left))
            many = min(len(left), 8)
            rank = decisions.number(rank, ("vr", many), ("vr", path, many))
            if rank > len(left):
                raise WireError(f"decode hop: item {rank} of {len(left)} is taken over at {path:.200}")
            if rank == len(left):
                out.append(self.value(item, ABSENT, path + "[]", depth + 1))
                continue
            self.charge(cbor.encoded_size(left[rank]))
            out.append(left.pop(rank))
        return out

    def step(self, step: int, more: bool, before: int, path: str, count: int) -> int:
        """One step of a list's edit; where nothing is left of the base only INSERT or CUT can follow."""
        decisions = self.decisions
        if not more:
            return INSERT if decisions.flag(step == INSERT, ("m", before), ("m", before, path, min(count, 3))) else CUT
        for choice in (KEEP, EDIT, INSERT, DROP):
            if decisions.flag(step == choice, ("l", choice, before), ("l", choice, before, path, self.fresh)):
                return choice
        return CUT

    def map(self, new: Any, base: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """A map: as in a record before, the same fields changed; or field by field."""
        given = new if type(new) is dict else {}
        if not self.is_guided(path):
            return self.by_field(new, given, base, path, depth)
        patterns = self.patterns.setdefault(path, [])
        mine = pattern_of(base, given) if given is new else None
        for place, pattern in enumerate(patterns):
            if pattern.fits(base) and self.decisions.flag(pattern == mine, ("p", place), ("p", path, place)):
                patterns.insert(0, patterns.pop(place))
                return self.by_pattern(pattern, given, base, path, depth)
        out = self.by_field(new, given, base, path, depth)
        patterns.insert(0, pattern_of(base, out) if mine is None else mine)
        del patterns[PATTERNS:]
        return out

    def is_guided(self, path: str) -> bool:
        """Whether what happened to a field may be a hint of what happens to it in the next record."""
        return (
            self.record is not ABSENT
            and "[]" not in path
            and (path in self.guessers or len(self.guessers) + len(self.patterns) < GUIDED_MOST)
        )

    def by_pattern(
        self, pattern: Pattern, given: dict[str, Any], base: dict[str, Any], path: str, depth: int
    ) -> dict[str, Any]:
        self.charge(self.record_bytes if base is self.record else cbor.encoded_size(base))
        out = {name: value for name, value in base.items() if name not in pattern.touched}
        for name in pattern.set:
            self.charge(len(name))
            out[name] = self.changed(given.get(name, ABSENT), base.get(name, ABSENT), inside(path, name), depth + 1)
        if base is self.record and len(pattern.changed) == len(pattern.set) == len(pattern.touched):
            self.edits = [(name, base[name], out[name]) for name in pattern.changed]
        return out

    def changed(self, new: Any, base: Any, path: str, depth: int) -> Any:
        """A field that differs from the old one: guessed right, or coded."""
        if not self.is_guided(path):
            return self.value(new, base, path, depth)
        guesser = self.guessers.get(path)
        if guesser is None:
            guesser = self.guessers[path] = Guesser(trusting=self.aside is not None)
        decisions = self.decisions
        wrong: list[Guess] = []
        texts: list[Guess] = []
        bases, others = [base], [base]
        for guess, made in guesser.offers(self.record, self.key, base):
            if decisions.flag(new is not ABSENT and same(made, new), ("g", len(wrong)), ("g", path, guess.number)):
                self.charge(cbor.encoded_size(made))
                guesser.judge(wrong, guess)
                return made
            wrong.append(guess)
            others.append(made)
            if type(made) is str:
                bases.append(made)
                texts.append(guess)
        value = ABSENT if self.aside is None else self.known_value(new, guesser, path, others)
        if value is ABSENT:
            near = self.nearest(new, bases, path)
            value = self.value(new, bases[near], path, depth)
            if near and self.aside is not None:  # it came near: worth as much as one that is right
                guesser.favour(texts[near - 1])
                wrong = [guess for guess in wrong if guess is not texts[near - 1]]
        guesser.judge(wrong, None)
        if guesser.learn(self.record, self.key, base, value):
            self.decisions.coder.allow(-LESSON_BITS)
        return value

    def known_value(self, new: Any, guesser: Guesser, path: str, others: list[Any]) -> Any:
        """A value that other records were given, by its number; ABSENT if it is none of them. others: it is not."""
        palette = guesser.palette
        if len(palette.values) < 2:
            return ABSENT
        barred = palette.barred(others)
        if len(barred) == len(palette.values):
            return ABSENT
        number = -1 if new is ABSENT else palette.numbers.get(cbor.encode(new), -1)
        if not self.decisions.flag(number >= 0, "w", ("w", path)):
            return ABSENT
        value = palette.values[palette.code(self.decisions.coder, number, barred)]
        self.charge(cbor.encoded_size(value))
        return value

    def nearest(self, new: Any, bases: list[Any], path: str) -> int:
        """Which base a text is coded against: the old one, or a wrong guess that comes nearer."""
        best = 0
        if len(bases) > 1 and type(new) is str:
            shared = [sum(common_ends(one.encode(), new.encode())) if type(one) is str else 0 for one in bases]
            if max(shared) > shared[0] + CHANCE_BYTES:
                enough = max(shared) - (CHANCE_BYTES if self.aside is not None else 0)
                best = next(number for number, one in enumerate(shared) if one >= enough)
        for number in range(len(bases) - 1):
            if not self.decisions.flag(best > number, ("h", number), ("h", path, number)):
                return number
        return len(bases) - 1

    def by_field(self, new: Any, given: dict[str, Any], base: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """For each field of the base whether it differs, for each known one whether it is new; then others."""
        decisions, fresh = self.decisions, self.fresh
        out: dict[str, Any] = {}
        edits = last = 0
        for name in sorted(base, key=name_order):
            item, inner = given.get(name, ABSENT), inside(path, name)
            differs = item is ABSENT or (given is new and cbor.encode(item) != cbor.encode(base[name]))
            few = min(edits, 2)
            if not decisions.flag(differs, ("s", fresh, few), ("s", fresh, inner), ("s", fresh, inner, few)):
                self.charge(len(name) + cbor.encoded_size(base[name]))
                out[name] = base[name]
                continue
            edits += 1
            if not decisions.flag(item is ABSENT, ("x", fresh), ("x", inner)):
                self.charge(len(name))
                out[name] = self.changed(item, base[name], inner, depth + 1)
        known = self.known(path)
        for name in known:
            if name in base:
                continue
            item, inner = given.get(name, ABSENT), inside(path, name)
            few = min(edits, 2)
            last = decisions.flag(item is not ABSENT, ("+", fresh, few), ("+", fresh, inner), ("+", fresh, inner, last))
            if last:
                edits += 1
                self.charge(len(name))
                out[name] = self.changed(item, ABSENT, inner, depth + 1)
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
            out[name] = self.changed(given.get(name, ABSENT), ABSENT, inside(path, name), depth + 1)
            if len(known) < NAMES and name not in known:
                known.append(name)
            at += 1
