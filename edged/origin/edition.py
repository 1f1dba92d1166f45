"""Makes the next version of a dataset: changes applied, validated, sliced, coded, and released in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from edged.errors import EdgedError, OriginError, ValidationError
from edged.feed import cbor
from edged.origin import takedowns
from edged.origin.ahead import plans
from edged.origin.applying import Applied, Applier, Row
from edged.origin.blobs.dictionaries import TrainedDictionary, dictionary_in_use
from edged.origin.blobs.hops import HopMaker
from edged.origin.blobs.renewal import Renewal, Spoilt
from edged.origin.blobs.snapshots import SnapshotMaker, is_cut_off, newest_snapshot, snapshot_bytes
from edged.origin.declared.hints import fields_of_nothing, new_names, references_to_nothing
from edged.origin.declared.rules import fingerprint, schema_of
from edged.origin.declared.slicing import CORE, Slicer
from edged.origin.declared.validate import Permitted, Validator
from edged.origin.release import Rollout, Workplace, releasing, signed_head
from edged.origin.results import PublishResult, slice_result
from edged.origin.state import HIDDEN, SliceVersion, State, VersionRow
from edged.origin.takedowns import RecordName
from edged.progress import Steps, Watch, unwatched

SALT_BYTES = 8  # of a rollout


class Rehearsed(Exception):
    """Ends a transaction of which nothing is to stay."""


class Edition:
    """One run of one operation. permille: offer the version to such a share instead of making it live.

    During a rollout only takedowns, which apply to both versions, and its withdrawal make a version.
    """

    def __init__(self, place: Workplace, kind: str, watch: Watch = unwatched, *, permille: int | None = None) -> None:
        self.place, self.kind, self.watch, self.permille = place, kind, watch, permille
        self.state: State = place.state
        self.slicer = Slicer(place.rules.slices)
        self.before = self.state.version_row(self.state.live)
        self.message = ""
        self.note: Callable[[State], None] | None = None  # what else belongs to the version, in its transaction
        self.hints: list[str] = []
        self.numbered_anyway = kind == "withdraw"

    def release(
        self, rows: Callable[[], Iterable[Row]], permitted: Permitted | None = None, *, rehearsed: bool = False
    ) -> PublishResult:
        """Publish the changes; without any, sign the head anew. Raises EdgedError, and then nothing has changed.

        rows: the changes to make, asked for inside the transaction; permitted: what validators let pass, None: they are
        not asked; rehearsed: only find out what would come of it.
        """
        what = f"{self.kind} dataset {self.place.dataset}"
        if rehearsed:
            return self.rehearse(what, rows, permitted)
        coming = plans.held(self.state)
        with releasing(self.place, what):
            applied, made = self.prepare(rows, permitted)
            if made:
                self.place_rollout(what)
            if self.note is not None:
                self.note(self.state)
        if coming is not None and plans.held(self.state) is None and self.kind != "release":
            self.hints.append("the version ahead that was prepared is superseded; prepare it again if it is meant")
        self.finish_takedowns()
        return self.result(applied, made)

    def rehearse(self, what: str, rows: Callable[[], Iterable[Row]], permitted: Permitted | None) -> PublishResult:
        """As `release` up to the signed head, of which nothing stays."""
        self.place.blobs.rehearse()
        try:
            with self.state.transaction(what):
                applied, made = self.prepare(rows, permitted)
                if made:
                    self.place_rollout(what)
                _, head, _ = signed_head(self.place, what)
                result = self.result(applied, made, head_bytes=len(head.data))
                raise Rehearsed
        except Rehearsed:
            return result

    def release_to_both(self, hide: Callable[[], Iterable[Row]], names: Collection[RecordName]) -> PublishResult:
        """A takedown during a rollout: the stable content without `names` as a new stable version, and the offered
        content without them as a new offer to the same devices. hide: the rows that take them down."""
        place, what = self.place, f"{self.kind} dataset {self.place.dataset}"
        rollout, offered = place.rollout, self.state.live
        if rollout is None:
            raise OriginError(f"{what}: no rollout is under way")
        stable, self.numbered_anyway = rollout.stable, True
        with releasing(place, what):
            applied, _ = self.prepare(lambda: chain(hide(), older_rows(self.state, stable, self.slicer, without=names)))
            place.rollout = replace(rollout, stable=self.state.newest())
            self.retire_taken_down()
            self.prepare(lambda: older_rows(self.state, offered, self.slicer, without=names))
        self.finish_takedowns()
        return self.result(applied, True)

    def place_rollout(self, what: str) -> None:
        """Who gets the new version. Raises OriginError where a rollout under way is in its way."""
        place = self.place
        if place.rollout is not None and self.kind == "withdraw":
            place.since, place.rollout = place.rollout.stable, None
        elif place.rollout is not None:
            raise OriginError(
                f"{what}: version {self.state.live} is being rolled out to {place.rollout.permille / 10:g}% of the "
                "devices; complete that (rollout --share 100%) or withdraw it (rollout --withdraw) first"
            )
        elif self.permille is not None:
            if self.before is None:
                raise OriginError(f"{what}: the first version cannot be offered to a share; publish it to all")
            place.rollout = Rollout(self.before.version, secrets.token_bytes(SALT_BYTES), self.permille)

    def prepare(self, rows: Callable[[], Iterable[Row]], permitted: Permitted | None = None) -> tuple[Applied, bool]:
        """Everything of the next version but its head. Whether there is a next version is the second value."""
        self.before = self.state.version_row(self.state.newest())
        version = self.state.newest() + 1
        counts = {} if self.before is None else self.before.counts
        validator = Validator(self.state, self.place.rules)
        validator.prepare()
        applier = Applier(self.state, version, counts, validator.watch)
        applier.apply(rows(), Steps(self.watch, "comparing").advance)
        rules = self.place.rules
        marks = {"slices": fingerprint(rules.slices), "validate": validator.mark()}
        if self.before is not None and self.state.meta("rules_slices") != marks["slices"]:
            applier.apply(self.resliced(), Steps(self.watch, "slicing anew", sum(counts.values())).advance)
        applied = applier.finish()
        if self.kind in ("publish", "rollback") and not (permitted is not None and permitted.slices):
            self.keep_slices()
        if permitted is not None:
            if self.before is not None and self.state.meta("rules_validate") != marks["validate"]:
                validator.check_all()
            validator.finish(applied, permitted)
            self.state.set_meta("rules_validate", marks["validate"])
        else:
            validator.claim()
        self.state.set_meta("rules_slices", marks["slices"])
        row = self.version_row(version, applied)
        nothing = not applied.rows and self.before is not None and self.same(row, self.before)
        # Who took an offer must see its end, or another stable version below it, as a later version.
        if nothing and not self.numbered_anyway:
            return applied, False
        self.state.add_version(row)
        self.find_slips(row)
        self.code(applied, row)
        return applied, True

    def keep_slices(self) -> None:
        """Raise ValidationError where a slice is declared no more: every device that carries it would be emptied."""
        before = () if self.before is None else self.before.declared
        gone = sorted(set(before) - {CORE, *self.place.rules.slices})
        if gone:
            raise ValidationError(
                f"{self.kind} dataset {self.place.dataset}: {self.place.dataset}.toml declares no slice "
                f"{', '.join(gone)} any more, and devices that carry it would lose its records; put it back, or "
                "publish with --allow-removals if this is meant"
            )

    def find_slips(self, row: VersionRow) -> None:
        """Note what is new and what is declared of nothing, in case it is misspelt."""
        before = self.before
        if self.kind == "publish":
            self.hints = new_names(self.place.dataset, None if before is None else before.counts, row.counts)
            if before is None or before.schema != row.schema or before.declared != row.declared or self.hints:
                self.hints += fields_of_nothing(self.state, self.place.rules)
                self.hints += references_to_nothing(self.place.rules, row.counts)

    def version_row(self, version: int, applied: Applied) -> VersionRow:
        schema = cbor.encode(schema_of(self.place.rules, applied.counts).to_cbor())
        kept = self.before is not None and self.before.schema == schema
        return VersionRow(
            version=version,
            time=self.place.now,
            kind=self.kind,
            added=applied.added,
            changed=applied.changed,
            removed=applied.removed,
            counts=applied.counts,
            declared=tuple(sorted({CORE, *self.place.rules.slices})),
            schema=schema,
            schema_version=self.before.schema_version if kept and self.before is not None else version,
            message=self.message,
        )

    def same(self, row: VersionRow, before: VersionRow) -> bool:
        return (row.declared, row.schema) == (before.declared, before.schema)

    def resliced(self) -> Iterator[Row]:
        """Every visible record with the slices that the rules now put it in."""
        at = ("", "")
        while True:
            batch = list(
                self.state.rows(
                    "SELECT collection, key, value FROM records WHERE (collection, key) > (?, ?) AND membership <> ?"
                    " ORDER BY collection, key LIMIT 512",
                    (*at, HIDDEN),
                )
            )
            if not batch:
                return
            for collection, key, value in batch:
                yield collection, key, self.state.membership_of(self.slicer.slices_of(value)), value
            at = batch[-1][0], batch[-1][1]

    def code(self, applied: Applied, row: VersionRow) -> None:
        """Hops for every touched slice, and snapshots where no hop leads to the new version. The rest can wait until
        the version is live: see upkeep."""
        state, hops = self.state, self.hop_maker(row.version)
        steps = Steps(self.watch, "making hops", len(applied.touched))
        for name, before in sorted(applied.touched.items()):
            last = newest_snapshot(state, name)
            size = snapshot_bytes(state, name, last) if last is not None else 0
            made = last is not None and hops.make_plain(name, before, size)
            self.code_from_stable(hops, name, before, size)
            if made:
                hops.owe_skips(name)
            steps.advance()
        self.snapshots([name for name in row.declared if is_cut_off(state, name)])

    def code_from_stable(self, hops: HopMaker, name: str, before: SliceVersion, snapshot_bytes: int) -> None:
        """During a rollout most devices come from the stable version, past the one that was offered."""
        if self.place.rollout is not None:
            stable = self.state.slice_at(name, at=self.place.rollout.stable)
            if stable.version != before.version:
                hops.make_plain(name, stable, snapshot_bytes)

    def hop_maker(self, version: int) -> HopMaker:
        oldest = max(self.place.keep.oldest(version), int(self.state.meta("journal_from") or 1))
        return HopMaker(self.state, oldest, self.dictionary_for_hops, self.place.blobs.store)

    def dictionary_for_hops(self, name: str) -> TrainedDictionary:
        """A takedown's own hop does without: the dictionary in use may be one that has to go."""
        return TrainedDictionary() if takedowns.unfinished(self.state) else dictionary_in_use(self.state, name)

    def snapshots(self, names: list[str]) -> None:
        for name in names:
            steps = Steps(self.watch, f"snapshot of {name}", self.state.slice_at(name).records)
            made = SnapshotMaker(self.state, self.place.blobs.store, steps.advance).make(name)
            made.note(self.state, self.place.now)
        if names:
            self.place.blobs.sweep()

    def retire_taken_down(self) -> None:
        """Put a snapshot, hops and a dictionary without it in the place of all that holds a hidden record's value."""
        names = takedowns.unfinished(self.state)
        if not names:
            return
        search = takedowns.Search(self.state, self.place.blobs, names)
        spoilt = {name: search.spoilt(name) for name in self.state.slice_names()}
        takedowns.finish(self.state, names)
        self.renew(spoilt)

    def renew(self, spoilt: Mapping[str, Spoilt]) -> None:
        """Put other blobs in the place of what of each slice must not be named any more."""
        newest = self.state.version_row(self.state.newest())
        declared = () if newest is None else newest.declared
        renewal = Renewal(self.state, self.place.blobs.store, self.place.now, self.watch)
        for name, found in spoilt.items():
            made = renewal.snapshot(name, found) if name in declared else None
            renewal.strike(name, found, kept_snapshot=made)
            if name in declared:
                renewal.bypass(name, found, self.hop_maker(self.state.newest()))
        self.snapshots([name for name in declared if name in spoilt and newest_snapshot(self.state, name) is None])

    def finish_takedowns(self) -> None:
        """Once their version is live: same version, new chain."""
        if not takedowns.unfinished(self.state):
            return
        what = f"{self.kind} dataset {self.place.dataset}"
        try:
            with releasing(self.place, what):
                self.retire_taken_down()
        except EdgedError as fault:
            raise OriginError(
                f"{what}: version {self.state.live} is live, but what held the records before could not be made anew "
                f"without them: {fault}; the next operation on the dataset does it"
            ) from fault

    def result(self, applied: Applied, made: bool, *, head_bytes: int | None = None) -> PublishResult:
        """head_bytes: of a head that was only rehearsed."""
        state = self.state
        live = state.live if head_bytes is None else state.newest()
        row = state.version_row(live)
        names = () if row is None else row.declared
        slices = {name: slice_result(state, name, live) for name in names}
        counts = (applied.added, applied.changed, applied.removed)
        if head_bytes is None:
            size = 0 if self.place.public is None else len(self.place.public.data)
        else:
            size = head_bytes
        permille = None if self.place.rollout is None else self.place.rollout.permille
        return PublishResult(
            self.place.dataset,
            live,
            not made,
            *counts,
            head_bytes=size,
            permille=permille,
            slices=slices,
            hints=tuple(self.hints),
            rehearsed=head_bytes is not None,
        )


def older_rows(state: State, to: int, slicer: Slicer, *, without: Collection[RecordName] = ()) -> Iterator[Row]:
    """The rows that bring back the content of version `to`. What is taken down stays out, so does `without`."""
    rows = state.rows(
        "SELECT collection, key, membership, value, min(version) FROM journal WHERE version > ?"
        " GROUP BY collection, key",
        (to,),
    )
    hidden = {*state.hidden(), *without}
    # The journal is written while these are applied, so they are read to their end first, a version's worth of keys.
    for collection, key, membership, value, _ in list(rows):
        if (collection, key) not in hidden:
            old = None if membership in (None, HIDDEN) else value
            yield from visible_rows(state, [(collection, key, old)], slicer)


def visible_rows(state: State, changes: Iterable[tuple[str, str, bytes | None]], slicer: Slicer) -> Iterator[Row]:
    """The rows for changes of records that are not hidden."""
    for collection, key, value in changes:
        yield collection, key, None if value is None else state.membership_of(slicer.slices_of(value)), value
