"""`<dataset>.toml`: what a publisher declares of a dataset. Every key is optional; unknown keys are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from edged.errors import ConfigError, QueryError, WireError
from edged.feed import limits
from edged.feed.names import NAME, RESERVED
from edged.feed.references import references
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.toml import Fault, Key, Table, read_toml

DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
KINDS = ("string", "number", "integer", "boolean", "list", "object", "null")

Path_ = Annotated[str, Meta(min_length=1, max_length=200)]
Scalar = str | int | float | bool
Duration = Annotated[
    str, Meta(pattern=f"^{DURATION.pattern}$", extra={"form": "a whole number and s, m, h or d, as in 30m"})
]
Share = Annotated[
    str, Meta(pattern=r"^[0-9]{1,3}(?:\.[0-9]{1,3})?%$", extra={"form": 'a percentage, as in "50%", or a whole number'})
]
Count = Annotated[int, Meta(ge=0, le=1 << 40)]


class CollectionRules(Struct, frozen=True, forbid_unknown_fields=True):
    """index: fields for `where.FIELD=`; text: fields for `?q=`, most important first.

    order: fields for ranges and `order=`; interval: the two fields with begin and end, for `at=`, `from=` and `to=`;
    valid: the two with begin and end of the time in which a record is there; rank: the field of what is popular;
    refs: fields that hold keys (a text, or a list of texts), to the collection whose keys they are.
    """

    index: list[Path_] = field(default_factory=list)
    text: list[Path_] = field(default_factory=list)
    order: list[Path_] = field(default_factory=list)
    interval: Annotated[list[Path_], Meta(max_length=2)] = field(default_factory=list)
    valid: Annotated[list[Path_], Meta(max_length=2)] = field(default_factory=list)
    rank: Annotated[str, Meta(max_length=200)] = ""
    refs: dict[Path_, str] = field(default_factory=dict)


class SliceRules(Struct, frozen=True, forbid_unknown_fields=True):
    """where: field to the values that put a record of any collection into the slice; several fields must all hold."""

    where: dict[Path_, Scalar | list[Scalar]]


class ViewRules(Struct, frozen=True, forbid_unknown_fields=True):
    """See feed/schema.py ViewRule."""

    fields: list[Path_] = field(default_factory=list)
    truncate: dict[Path_, Count] = field(default_factory=dict)
    rename: dict[Path_, Path_] = field(default_factory=dict)
    choose: dict[Path_, list[str]] = field(default_factory=dict)
    expand: list[Path_] = field(default_factory=list)
    limit: dict[Path_, Count] = field(default_factory=dict)


class ValidateRules(Struct, frozen=True, forbid_unknown_fields=True):
    """What has to hold of a collection before the head is signed.

    required: fields that every record has, and not null; types: field to its kind, several separated by `|`;
    min_count, max_count: records in the collection; max_change: how many records one publish may add, change and
    remove, as a number or as a share of the records there were; unique: fields of which no value may occur twice.
    """

    required: list[Path_] = field(default_factory=list)
    types: dict[Path_, str] = field(default_factory=dict)
    min_count: Count = 0
    max_count: Count | None = None
    max_change: Share | Count | None = None
    unique: list[Path_] = field(default_factory=list)


class Freshness(Struct, frozen=True, forbid_unknown_fields=True):
    """How long after its signing a head counts as fresh, and when it expires."""

    fresh: Duration = "1d"
    expires: Duration = "30d"


class Delivery(Struct, frozen=True, forbid_unknown_fields=True):
    """spread: within how long devices take a publish that they have to fetch, each at its own place; "0s": at once."""

    spread: Duration = "0s"


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """versions: how many back have hops and can be rolled back to; grace: how long a blob outlives its last mention;
    chains: the same for superseded chain blobs, of which each version makes one."""

    versions: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    grace: Duration = "7d"
    chains: Duration = "6h"


class Inline(Struct, frozen=True, forbid_unknown_fields=True):
    """max: the most bytes of hops that ride inside the head."""

    max: Annotated[int, Meta(ge=0, le=limits.INLINE_HOP_BYTES)] = limits.INLINE_HOP_BYTES


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    collections: dict[str, CollectionRules] = field(default_factory=dict)
    slices: dict[str, SliceRules] = field(default_factory=dict)
    views: dict[str, dict[str, ViewRules]] = field(default_factory=dict)
    validate: dict[str, ValidateRules] = field(default_factory=dict)
    freshness: Freshness = field(default_factory=Freshness)
    delivery: Delivery = field(default_factory=Delivery)
    retention: Retention = field(default_factory=Retention)
    inline: Inline = field(default_factory=Inline)


class DatasetFileError(ConfigError):
    """`<dataset>.toml` is wrong; `faults` names each line."""

    @property
    def summary(self) -> str:
        return f"{len(self.faults)} faults; correct the file and publish again"


def duration_s(text: str) -> int:
    """ "7d" in seconds."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(f"duration {text!r}: expected a whole number and s, m, h or d, as in 30m")
    return int(match[1]) * SECONDS[match[2]]


def load_rules(path: Path) -> Rules:
    """Read `<dataset>.toml`; the defaults if there is none. Raises ConfigError with every fault, its line, the fix."""
    if not path.exists() and not path.is_symlink():
        return Rules()
    table, faults = read_toml(path)
    rules = None
    if table is not None:
        rules = table.convert(
            Rules,
            faults,
            {
                Rules: check_rules,
                CollectionRules: check_collection_rules,
                SliceRules: check_slice,
                ValidateRules: check_validate,
            },
        )
    if faults or rules is None:
        lines = tuple(str(fault) for fault in sorted(faults, key=lambda fault: fault.place))
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise DatasetFileError(f"{lines[0]}{more}; correct it and publish again", lines)
    return rules


def check_rules(rules: Rules, table: Table, key: Key) -> list[Fault]:
    named: list[tuple[tuple[str, ...], str]] = [
        *((("collections", name), name) for name in rules.collections),
        *((("slices", name), name) for name in rules.slices),
        *((("views", name), name) for name in rules.views),
        *((("views", view, name), name) for view, entry in rules.views.items() for name in entry),
        *((("validate", name), name) for name in rules.validate),
        *(
            (("collections", name, "refs", path), target)
            for name, item in rules.collections.items()
            for path, target in item.refs.items()
        ),
    ]
    faults = [
        table.fault((*key, *place), "not a name: 1 to 64 of A-Z a-z 0-9 . _ - beginning and ending with one of A-Z 0-9")
        for place, name in named
        if not NAME.fullmatch(name) or ".." in name or (place[0] != "slices" and name in RESERVED)
    ]
    schema = schema_of(rules, {})
    for view, entry in rules.views.items():
        for name, rule in entry.items():
            try:
                references(schema, name, rule.expand)
            except QueryError as fault:
                faults.append(table.fault((*key, "views", view, name, "expand"), str(fault)))
    if "core" in rules.slices:
        faults.append(table.fault((*key, "slices", "core"), "core holds what no other slice does; remove its rule"))
    if len(rules.slices) >= limits.SLICES:
        faults.append(table.fault((*key, "slices"), f"at most {limits.SLICES - 1} slices are allowed"))
    if duration_s(rules.freshness.fresh) > duration_s(rules.freshness.expires):
        faults.append(table.fault((*key, "freshness"), "expires comes before fresh ends; make it longer"))
    if duration_s(rules.delivery.spread) > limits.SPREAD_S:
        faults.append(table.fault((*key, "delivery"), "spread is over a day; devices refuse that; make it shorter"))
    return faults


def check_collection_rules(rules: CollectionRules, table: Table, key: Key) -> list[Fault]:
    faults = [
        table.fault((*key, name), 'expected two fields, begin and end, as in ["start", "end"]')
        for name, fields in (("interval", rules.interval), ("valid", rules.valid))
        if len(fields) not in (0, 2) or len(set(fields)) != len(fields)
    ]
    faults += [
        table.fault((*key, "refs", path), f"lies in {whole!r}, which holds keys itself; declare one of them")
        for path in rules.refs
        for whole in rules.refs
        if path.startswith(whole + ".")
    ]
    if rules.rank and not rules.text:
        faults.append(table.fault((*key, "rank"), "orders what a search finds; declare `text` fields too"))
    return faults


def check_slice(rules: SliceRules, table: Table, key: Key) -> list[Fault]:
    if rules.where and all(value != [] for value in rules.where.values()):
        return []
    return [table.fault((*key, "where"), "no record can match; name a field and its values")]


def check_validate(rules: ValidateRules, table: Table, key: Key) -> list[Fault]:
    faults = [
        table.fault((*key, "types", path), f"{kind!r} is not of {' '.join(KINDS)}, several separated by |")
        for path, kind in rules.types.items()
        if not set(kind.split("|")) <= set(KINDS)
    ]
    if rules.max_count is not None and rules.max_count < rules.min_count:
        faults.append(table.fault((*key, "max_count"), "is less than min_count"))
    return faults


def schema_of(rules: Rules, counts: Mapping[str, int]) -> Schema:
    """The part that devices need. counts: records by collection; where a takedown or a rollback, which validators do
    not hold up, left fewer than a collection should have, devices are told of no more than there are."""
    least = {name: min(item.min_count, counts.get(name, 0)) for name, item in rules.validate.items()}
    declared = {*rules.collections, *(name for name, count in least.items() if count)}
    plain = CollectionRules()
    return Schema(
        {name: collection_schema(rules.collections.get(name, plain), least.get(name, 0)) for name in sorted(declared)},
        {
            view: {name: view_rule(item) for name, item in sorted(entry.items())}
            for view, entry in sorted(rules.views.items())
        },
    )


def collection_schema(rules: CollectionRules, least: int) -> CollectionSchema:
    """least: records that the collection has at least."""
    return CollectionSchema(
        tuple(rules.index),
        tuple(rules.text),
        least,
        tuple(rules.order),
        tuple(rules.interval),
        tuple(rules.valid),
        rules.rank,
        rules.refs,
    )


def view_rule(rules: ViewRules) -> ViewRule:
    return ViewRule(
        tuple(rules.fields),
        rules.truncate,
        rules.rename,
        {path: tuple(order) for path, order in rules.choose.items()},
        tuple(rules.expand),
        rules.limit,
    )


def fingerprint(part: object) -> bytes:
    """Bytes that change whenever a part of the rules does."""
    try:
        return msgspec.json.encode(part, order="deterministic")
    except (TypeError, ValueError) as fault:
        raise WireError(f"encode rules: {fault}") from fault
