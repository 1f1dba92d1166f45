"""The validators of `<dataset>.toml`: what has to hold before a head is signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cbor2

from edged.feed import cbor
from edged.feed.fieldpath import ABSENT, reach
from edged.origin.applying import Applied
from edged.origin.declared.rules import Rules, ValidateRules, fingerprint
from edged.origin.input.lines import Faults
from edged.origin.state import HIDDEN, State
from edged.replica.indexes.terms import field_values, time_of


@dataclass(frozen=True, slots=True)
class Permitted:
    """What is let pass this once. change: more than max_change; removals: most of a collection; slices: a whole one."""

    change: bool = False
    removals: bool = False
    slices: bool = False


TESTS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
NOTHING = ValidateRules()
KINDS = ("null", "boolean", "integer", "number", "string", "list", "object")  # an integer is a number too


def kind_of(value: Any) -> str:
    return next(
        kind for kind in ("null", "boolean", "integer", "number", "string", "list", "object") if TESTS[kind](value)
    )


class Validator:
    """Looks at each change (`watch`), then at the whole (`finish`), and raises InputError with all that is wrong."""

    def __init__(self, state: State, rules: Rules) -> None:
        self.state, self.rules = state, rules
        self.faults = Faults()
        self.unique = {name: item.unique for name, item in rules.validate.items() if item.unique}
        self.windows = {name: item.valid for name, item in rules.collections.items() if item.valid}
        self.claims: list[tuple[str, str, bytes, str]] = []

    def mark(self) -> bytes:
        """Bytes that change whenever what this holds records against does."""
        return fingerprint([self.rules.validate, self.windows])

    def prepare(self) -> None:
        """Gather the values of unique fields anew if the rules about them changed, or an undo lost them."""
        mark = fingerprint(self.unique)
        if self.state.meta("unique_rules") == mark:
            return
        self.state.run("DELETE FROM uniques")
        for collection, fields in self.unique.items():
            rows = self.state.rows(
                "SELECT key, value FROM records WHERE collection = ? AND membership <> ?", (collection, HIDDEN)
            )
            for key, value in rows:
                self.claims += [(collection, path, hashed, key) for path, hashed in unique_values(value, fields)]
                if len(self.claims) >= 1000:
                    self.claim()
        self.claim()
        self.state.set_meta("unique_rules", mark)

    def watch(self, collection: str, key: str, before: bytes | None, after: bytes | None) -> None:
        """One visible change."""
        rules = self.rules.validate.get(collection, NOTHING)
        if after is not None and (rules is not NOTHING or collection in self.windows):
            self.check_record(collection, key, cbor2.loads(after), rules)
        if rules.unique:
            for path, hashed in unique_values(before, rules.unique):
                self.state.run(
                    "DELETE FROM uniques WHERE collection = ? AND field = ? AND value = ?", (collection, path, hashed)
                )
            # Claimed only when all changes are in, so that two records may exchange their values.
            self.claims += [(collection, path, hashed, key) for path, hashed in unique_values(after, rules.unique)]

    def check_record(self, collection: str, key: str, value: Any, rules: ValidateRules) -> None:
        where = f"{collection}/{key}"
        for path in rules.required:
            found = list(reach(value, path))
            if not found or any(item is ABSENT or item is None for item in found):
                self.faults.add(f"{where}: the required field {path!r} is missing; add it")
        for path, kinds in rules.types.items():
            for found in reach(value, path):  # one that is absent is for `required` to miss
                if found is not ABSENT and not any(TESTS[kind](found) for kind in kinds.split("|")):
                    self.faults.add(f"{where}: field {path!r}: expected {kinds}, got {kind_of(found)} {found!r:.40}")
        for path in self.windows.get(collection, ()):
            time = next(field_values(value, path), None)
            if time is not None and time_of(time) is None:  # devices would show it at no time
                what = "whole seconds since 1970, or RFC 3339 as in 2026-12-31T23:00:00Z"
                self.faults.add(f"{where}: field {path!r}: expected a time ({what}), got {time!r:.40}")

    def check_all(self) -> None:
        """Look at every record: the rules changed since the last publish."""
        for collection in sorted({*self.rules.validate, *self.windows}):
            rules = self.rules.validate.get(collection, NOTHING)
            rows = self.state.rows(
                "SELECT key, value FROM records WHERE collection = ? AND membership <> ?", (collection, HIDDEN)
            )
            for key, value in rows:
                self.check_record(collection, key, cbor2.loads(value), rules)

    def finish(self, applied: Applied, permitted: Permitted) -> None:
        """Judge the collections as a whole. Raises InputError."""
        self.claim()
        if not permitted.removals:
            self.check_removals(applied)
        for collection, rules in self.rules.validate.items():
            count = applied.counts.get(collection, 0)
            if count < rules.min_count:
                self.faults.add(f"{collection}: expected at least {rules.min_count} records, got {count}")
            if rules.max_count is not None and count > rules.max_count:
                self.faults.add(f"{collection}: expected at most {rules.max_count} records, got {count}")
            if not permitted.change:
                self.check_change(collection, rules, applied)
        self.faults.raise_any()

    def check_removals(self, applied: Applied) -> None:
        """More than half of a collection goes when edits are taken for a whole state, or an export was cut short."""
        for collection, removed in sorted(applied.removed_by.items()):
            before = applied.before.get(collection, 0)
            if removed * 2 > before:
                self.faults.add(
                    f"{collection}: {removed} of {before} records would be removed, as the input is the whole new "
                    "state; give --changes if it holds edits only, or --allow-removals if this is meant"
                )

    def check_change(self, collection: str, rules: ValidateRules, applied: Applied) -> None:
        before, touched = applied.before.get(collection, 0), applied.by_collection.get(collection, 0)
        if rules.max_change is None or not before:
            return  # the first publish of a collection changes all of it
        if isinstance(rules.max_change, int):
            most = float(rules.max_change)
        else:
            most = before * float(rules.max_change.rstrip("%")) / 100
        if touched > most:
            self.faults.add(
                f"{collection}: {touched} of {before} records would change, at most {rules.max_change} may at once; "
                "if that is meant, raise validate.max_change or publish with --force-change"
            )

    def claim(self) -> None:
        for collection, path, hashed, key in self.claims:
            if not self.state.run("INSERT OR IGNORE INTO uniques VALUES(?,?,?,?)", (collection, path, hashed, key)):
                query = "SELECT key FROM uniques WHERE collection = ? AND field = ? AND value = ?"
                holder = next(self.state.rows(query, (collection, path, hashed)))[0]
                self.faults.add(f"{collection}/{key}: field {path!r} has the same value as {holder}; expected another")
        self.claims.clear()


def unique_values(data: bytes | None, fields: list[str]) -> list[tuple[str, bytes]]:
    """(field, hash of its value) of a record's unique fields that are there."""
    if data is None:
        return []
    value = cbor2.loads(data)
    found = [(path, item) for path in fields for item in reach(value, path) if item is not ABSENT and item is not None]
    # The same value twice in one record is one claim.
    return list(dict.fromkeys((path, hashlib.sha256(cbor.encode(item)).digest()[:16]) for path, item in found))
