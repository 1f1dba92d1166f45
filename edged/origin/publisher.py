"""The publisher: every operation on a feed, each under its lock, each all or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.errors import BusyError, EdgedError, OriginError, StoreError, ValidationError
from edged.feed import limits
from edged.feed.head import Head
from edged.feed.names import check_collection, check_key, check_name
from edged.files import is_locked, locked, make_directory, read_bounded, write_durable
from edged.origin import takedowns, upkeep
from edged.origin.announcing import Announcements
from edged.origin.applying import Row
from edged.origin.declared.rules import load_rules
from edged.origin.declared.validate import Permitted
from edged.origin.edition import Edition, older_rows, visible_rows
from edged.origin.history import instant
from edged.origin.input import comparing
from edged.origin.input.comparing import RecordSource
from edged.origin.input.reading import Values
from edged.origin.rebuild import rebuild_state
from edged.origin.release import Rollout, Workplace, recover, releasing, standing, verify_under_any
from edged.origin.results import PublishResult
from edged.origin.retention import Keep
from edged.origin.rotation import bring_up_to_date
from edged.origin.shelves.blobstore import BlobStore
from edged.origin.shelves.opening import open_shelves
from edged.origin.signing.roots import (
    RENEW_S,
    Roots,
    create_roots,
    load_roots,
    next_roots,
    put_aside,
    renewal_warning,
    renewed,
)
from edged.origin.state import HIDDEN, OpenStates, State, guarded
from edged.origin.verify import FeedReport, inspect, rewrite_dictionaries, spoilt_by
from edged.progress import Steps, Watch, unwatched

Clock = Callable[[], float]

UPKEEP_WAIT_S = 10.0  # for upkeep to give the lock back, which it holds for a moment
UPKEEP_ROUNDS, UPKEEP_S = 64, 20.0  # at most, of one process; another operation goes on
EARLIEST_S = 1_577_836_800  # 2020-01-01: a clock that says less was never set


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """permille: offer the version to such a share of the devices, 1 to 999, instead of making it live for all.

    force_change: validate.max_change does not hold this time; allow_empty: a state without records is meant, and
    allow_removals one that lacks most of a collection, or a slice; message: kept in the log; dry_run: nothing is
    written, the result says what would come of it; note: told of the state in the transaction of the version;
    kept_up: what the version does not wait for is made after it.
    """

    permille: int | None = None
    force_change: bool = False
    allow_empty: bool = False
    allow_removals: bool = False
    message: str = ""
    dry_run: bool = False
    note: Callable[[State], None] | None = None
    kept_up: bool = True


DEFAULTS = PublishOptions()


def busy(what: str) -> str:
    """What is said where another process works on the same."""
    return f"lock {what}: another publisher is at work on it; try again later, or wait with --wait SECONDS"


class Publisher:
    """A feed in FEED_DIR. Operations raise EdgedError, and have then changed nothing that devices see.

    clock: seconds since 1970 UTC; wait_s: how long to wait for another publisher to finish.
    """

    def __init__(self, path: Path, roots: Roots, *, clock: Clock = time.time, wait_s: float = 0.0) -> None:
        self.path, self.roots, self.clock, self.wait_s = path, roots, clock, wait_s
        self.private, self.public = path / "private", path / "public"
        self.shelves, self.states, self.announcements = open_shelves(path), OpenStates(), Announcements(path)

    @classmethod
    def init(cls, path: Path, *, root_keys: int = 1, threshold: int = 1, clock: Clock = time.time) -> Publisher:
        """Make keys and an empty feed. Raises OriginError if there is a feed already, StoreError, ConfigError."""
        now = time_of(clock, f"init {path}")
        if (path / "private" / "trust" / "1").exists():
            raise OriginError(f"init {path}: there is a feed already; nothing was changed")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise OriginError(f"init {path}: {fault.strerror}; name another directory") from fault
        roots = create_roots(path / "private", root_keys, threshold, now)
        publisher = cls(path, roots, clock=clock)
        publisher.shelves.make()
        write_durable(publisher.trust_path, roots.documents[-1])
        return publisher

    @classmethod
    def open(cls, path: Path, *, clock: Clock = time.time, wait_s: float = 0.0) -> Publisher:
        """A feed that `init` made. Raises OriginError if there is none, TrustError if its roots do not hold."""
        return cls(path, load_roots(path / "private"), clock=clock, wait_s=wait_s)

    @property
    def trust_path(self) -> Path:
        """The file that devices are given."""
        return self.path / "root.trust"

    def datasets(self) -> list[str]:
        """The datasets that were published to."""
        kept = {path.stem for path in (self.private / "state").glob("*.db")}
        return sorted(kept.union(self.shelves.datasets()))

    # -- operations ---------------------------------------------------------------------------------------------------

    def publish(
        self,
        dataset: str,
        records: Iterable[tuple[str, str, Any]],
        options: PublishOptions = DEFAULTS,
        *,
        watch: Watch = unwatched,
    ) -> PublishResult:
        """Publish the whole new state: (collection, key, value in the JSON data model)."""
        return self.publish_source(dataset, Values(records), options, watch=watch)

    def publish_changes(
        self,
        dataset: str,
        edits: Iterable[tuple[str, str, Any | None]],
        options: PublishOptions = DEFAULTS,
        *,
        watch: Watch = unwatched,
    ) -> PublishResult:
        """Publish edits: (collection, key, new value), None removes the record."""
        return self.publish_source(dataset, Values(edits, edits=True), options, watch=watch)

    def publish_source(
        self, dataset: str, source: RecordSource, options: PublishOptions = DEFAULTS, *, watch: Watch = unwatched
    ) -> PublishResult:
        """Publish what `source` holds: the whole new state, or only the changes to it where it is of edits.

        Raises InputError naming bad lines and broken rules, ConfigError for `<dataset>.toml`, BusyError, StoreError.
        """
        with self.at_work(dataset, create=True, kept_up=options.kept_up and not options.dry_run, watch=watch) as place:
            edition = Edition(place, "publish", watch, permille=options.permille)
            edition.message, edition.note = options.message, options.note
            incoming = comparing.Incoming(place.state, source)

            def rows() -> Iterable[Row]:
                count = incoming.gather(Steps(watch, "reading").advance)
                if not source.edits:
                    if not count and not options.allow_empty:
                        raise ValidationError(
                            f"publish dataset {dataset}: the input holds no record; an empty state would remove all; "
                            "if that is meant, give --allow-empty"
                        )
                    comparing.mark_missing(place.state)
                takedowns.hold_back(place.state)
                return visible_rows(place.state, incoming.differing(), edition.slicer)

            lenient = options.allow_removals or options.allow_empty
            permitted = Permitted(options.force_change, removals=lenient or source.edits, slices=lenient)
            return edition.release(rows, permitted, rehearsed=options.dry_run)

    def rollback(self, dataset: str, to: int, *, watch: Watch = unwatched) -> PublishResult:
        """Publish the content of version `to` again as a new version. What is taken down stays out."""
        with self.at_work(dataset) as place:
            state = place.state
            known = [row.version for row in state.version_rows()]
            oldest = max(known[0], int(state.meta("journal_from") or 1))
            if not oldest <= to <= state.live:
                raise OriginError(
                    f"roll back dataset {dataset} to version {to}: versions {oldest} to {state.live} are retained"
                )
            edition = Edition(place, "rollback", watch)
            return edition.release(lambda: older_rows(state, to, edition.slicer))

    def rollout(self, dataset: str, permille: int | None = None) -> Rollout | None:
        """The rollout under way, None if there is none. permille: raise its share; 1000 makes its version live."""
        if permille is None:
            with self.at_work(dataset, kept_up=False) as place:
                return place.rollout
        with self.at_work(dataset) as place:
            found = standing(place, "raise")
            if not found.permille <= permille <= 1000:
                raise OriginError(
                    f"raise the rollout of dataset {dataset} to {permille / 10:g}%: it is at "
                    f"{found.permille / 10:g}%; name a larger share up to 100%, or withdraw it"
                )
            if permille == 1000:
                place.rollout, place.since = None, found.stable
            else:
                place.rollout = replace(found, permille=permille)
            with releasing(place, f"roll out version {place.state.live} of dataset {dataset}"):
                pass
            Edition(place, "roll out").finish_takedowns()
            return place.rollout

    def withdraw(self, dataset: str, *, watch: Watch = unwatched) -> PublishResult:
        """End a rollout: the stable version's content again, as a version above the one that was offered."""
        with self.at_work(dataset) as place:
            stable = standing(place, "withdraw").stable
            edition = Edition(place, "withdraw", watch)
            return edition.release(lambda: older_rows(place.state, stable, edition.slicer))

    def takedown(
        self, dataset: str, collection: str, keys: Sequence[str], *, watch: Watch = unwatched
    ) -> PublishResult:
        """Remove records from every slice and version at once, until `restore`, and from everything on the host."""
        names = [(check_collection(collection), check_key(key)) for key in dict.fromkeys(keys)]
        with self.at_work(dataset) as place:

            def rows() -> Iterator[Row]:
                takedowns.note(place.state, names, place.state.newest() + 1, place.now)
                for name in names:
                    found = place.state.record(*name)
                    yield *name, HIDDEN, None if found is None else found[1]

            edition = Edition(place, "takedown", watch)
            if place.rollout is not None and not set(names) <= set(place.state.hidden()):
                return edition.release_to_both(rows, names)
            return edition.release(rows)

    def verify(self, dataset: str, *, mend: bool = False, watch: Watch = unwatched) -> FeedReport:
        """Look at every blob that the head and its chain name; with `mend` make anew what is missing or damaged.

        Where the publisher's state is gone, `mend` first makes it from what is public. Raises EdgedError.
        """
        check_name(dataset, "dataset")
        lost = self.is_lost(dataset)
        if lost and mend:
            self.rebuild(dataset, watch)
        with self.at_work(dataset, kept_up=mend, watch=watch) as place:
            report, bad = inspect(place, watch)
            if mend and (report.faults or lost):
                edition = Edition(place, "mend", watch)
                with releasing(place, f"mend dataset {dataset}"):
                    edition.renew(spoilt_by(place.state, rewrite_dictionaries(place, bad)))
                edition.finish_takedowns()
                report.mended = True
            return report

    def drop(self, dataset: str) -> None:
        """Remove a dataset: what is public of it, and its state. Devices go on with what they hold."""
        with self.at_work(dataset, kept_up=False) as place, guarded(f"drop dataset {dataset}"):
            place.shelf.remove_head()  # first, so that nobody is led to blobs that are going
            place.state.set_meta("live", 0)  # so that closing it removes the rest

    def rebuild(self, dataset: str, watch: Watch) -> None:
        """Make the dataset's state anew from its public head. Raises EdgedError, and then there is none as before."""
        head, what = self.believed_head(dataset), f"rebuild dataset {dataset}"
        with locked(self.lock_path(dataset, "lock"), busy(f"dataset {dataset}"), wait_s=self.wait_s), guarded(what):
            try:
                state = State(self.state_path(dataset), dataset)
                try:
                    rebuild_state(state, self.shelves.of(dataset), head, time_of(self.clock, what), watch)
                finally:
                    state.close()
            except BaseException:
                self.forget_state(dataset)
                raise

    def believed_head(self, dataset: str) -> Head:
        """The public head, under the newest root that vouches for it. Raises EdgedError."""
        data = self.shelves.of(dataset).head()
        if data is None:
            raise StoreError(f"read the head of dataset {dataset}: there is none any more")
        return verify_under_any(self.roots, data, dataset).head

    def restore(self, dataset: str, collection: str, keys: Sequence[str]) -> PublishResult:
        """End takedowns: each record comes back with the newest value that was published while it was down."""
        names = [(check_collection(collection), check_key(key)) for key in keys]
        with self.at_work(dataset) as place:
            hidden = set(place.state.hidden())
            for name in names:
                if name not in hidden:
                    raise OriginError(f"restore {name[0]}/{name[1]} in dataset {dataset}: it is not taken down")
            edition = Edition(place, "restore")

            def rows() -> Iterator[Row]:
                for name in dict.fromkeys(names):
                    value = (place.state.record(*name) or (HIDDEN, None))[1]
                    yield from visible_rows(place.state, [(*name, value)], edition.slicer)

            return edition.release(rows)

    def resign(self, dataset: str) -> int:
        """Sign the live head anew, so that it stays fresh. Returns its version."""
        with self.at_work(dataset) as place:
            with releasing(place, f"sign the head of dataset {dataset} anew"):
                pass
            Edition(place, "sign").finish_takedowns()
            return place.state.live

    def rotate_key(
        self, *, root_keys_directory: Path | None = None, new_root_keys: bool = False
    ) -> tuple[Roots, list[Path]]:
        """A new head key, signed in by the root keys; all heads are signed anew. Returns the roots and the old keys.

        Raises OriginError naming datasets whose heads could not be signed; the next operation on each does it.
        """
        lock = locked(self.private / "lock", busy(f"feed {self.path}"), wait_s=self.wait_s)
        with self.announcements as announcements, lock:
            now = time_of(self.clock, "rotate key")
            where = root_keys_directory or self.private / "keys"
            self.roots = next_roots(load_roots(self.private), now, where, new_root_keys=new_root_keys)
            faults = []
            for dataset in self.datasets():
                try:
                    with self.workplace(dataset, announcements):
                        pass
                except EdgedError as fault:
                    faults.append(f"dataset {dataset}: {fault}")
            self.keep_trust_file()
            if faults:
                raise OriginError(
                    f"rotate key: root of trust {self.roots.newest.number} is made, but not every head is signed with "
                    f"its key: {'; '.join(faults)}; the next operation on the dataset does it"
                )
            return self.roots, put_aside(self.roots)

    @contextmanager
    def reading(self, dataset: str) -> Iterator[State]:
        """The dataset's state, to look at. Raises OriginError if there is no such dataset."""
        check_name(dataset, "dataset")
        self.require(dataset)
        self.refuse_lost(dataset)
        state = State(self.state_path(dataset), dataset, read_only=True)
        try:
            with guarded(f"read dataset {dataset}"):
                yield state
        finally:
            state.close()

    # -- work ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(
        self, dataset: str, *, create: bool = False, kept_up: bool = True, watch: Watch = unwatched
    ) -> Iterator[Workplace]:
        """The dataset opened under its lock. kept_up: then, without the lock, what the version did not wait for."""
        with self.opened(dataset, create=create) as place:
            yield place
        if kept_up:
            self.keep_up(dataset, watch=watch)

    @contextmanager
    def opened(self, dataset: str, *, create: bool = False) -> Iterator[Workplace]:
        """The dataset opened under its lock, what was cut short before finished or undone."""
        check_name(dataset, "dataset")
        self.renew_root()
        with self.announcements as announcements, ExitStack() as stack:
            whole, lock = self.private / "lock", self.lock_path(dataset, "lock")
            # Upkeep holds the lock for a moment only, and is never in the way of an edit.
            wait_s = max(self.wait_s, UPKEEP_WAIT_S) if is_locked(self.lock_path(dataset, "upkeep")) else self.wait_s
            stack.enter_context(locked(whole, busy(f"feed {self.path}"), shared=True, wait_s=self.wait_s))
            stack.enter_context(locked(lock, busy(f"dataset {dataset}"), wait_s=wait_s))
            self.roots = load_roots(self.private)
            if not create:
                self.require(dataset)
            place = stack.enter_context(self.workplace(dataset, announcements))
            self.keep_trust_file()
            if not create and not place.state.live:  # its first publish was killed
                raise OriginError(f"open dataset {dataset}: it has no version yet; publish to it first")
            yield place

    def keep_up(self, dataset: str, *, watch: Watch = unwatched) -> None:
        """Make the skip hops and snapshots that are due; leave that to who is at it already.

        Raises OriginError saying that the version is live nevertheless.
        """
        if not self.state_path(dataset).exists():
            return
        lock = locked(self.lock_path(dataset, "upkeep"), busy(f"the upkeep of dataset {dataset}"))
        with suppress(BusyError), lock, upkeep.explained(dataset):
            until = time.monotonic() + UPKEEP_S
            for _ in range(UPKEEP_ROUNDS):
                if not self.keep_up_once(dataset, watch) or time.monotonic() > until:
                    return

    def keep_up_once(self, dataset: str, watch: Watch) -> bool:
        """One round of it. Whether there may be more to do."""
        keep = Keep.of(load_rules(self.path / f"{dataset}.toml").retention)
        blobs = BlobStore(self.shelves.of(dataset), None)
        try:
            with self.reading(dataset) as state:
                work = upkeep.make_due(state, blobs, keep, watch)
            if work is None:
                return False
            with self.opened(dataset) as place:
                return upkeep.put_in_place(place, work, blobs)
        finally:
            blobs.take_back()

    def lock_path(self, dataset: str, kind: str) -> Path:
        make_directory(self.private / "state", 0o700)  # where it was lost
        return self.private / "state" / f"{dataset}.{kind}"

    def require(self, dataset: str) -> None:
        """Raises OriginError if nothing was ever published to `dataset`."""
        if not self.state_path(dataset).exists() and dataset not in self.datasets():
            known = ", ".join(self.datasets()) or "none yet"
            raise OriginError(f"open dataset {dataset}: the feed {self.path} has {known}; name one of them")

    def renew_root(self) -> None:
        """Sign the root of trust that follows, well before the newest expires, where the root keys are at hand."""
        now = time_of(self.clock, "renew the root of trust")
        if now < self.roots.newest.expires_at - RENEW_S:
            return
        with locked(self.private / "lock", busy(f"feed {self.path}"), wait_s=self.wait_s):
            self.roots = renewed(load_roots(self.private), now)

    def warning(self) -> str | None:
        """What a person has to do before the root of trust expires, None if nothing."""
        return renewal_warning(self.roots, int(self.clock()))

    def keep_trust_file(self) -> None:
        """Have the newest root in the file that devices are given, once every head can be verified under it."""
        number, newest = self.roots.newest.number, self.roots.documents[-1]
        if self.trust_path.exists() and read_bounded(self.trust_path, limits.TRUST_BYTES) == newest:
            return
        if all(self.shelves.of(dataset).root(number) is not None for dataset in self.shelves.datasets()):
            write_durable(self.trust_path, newest)

    @contextmanager
    def workplace(self, dataset: str, announcements: Announcements) -> Iterator[Workplace]:
        rules = load_rules(self.path / f"{dataset}.toml")
        now = time_of(self.clock, f"work on dataset {dataset}")
        shelf = self.shelves.of(dataset)
        self.refuse_lost(dataset)
        with guarded(f"work on dataset {dataset}"):
            shelf.make()
            state = self.open_state(dataset)
            try:
                blobs = BlobStore(shelf, state)
                place = Workplace(dataset, shelf, state, blobs, rules, self.roots, self.roots.newest, now)
                place.on_head = announcements.tell
                recover(place)
                bring_up_to_date(place)
                yield place
            finally:
                live = state.live
                self.states.give_back(state, is_live=bool(live))
                if not live and shelf.head() is None:  # the first publish failed: no trace of the dataset stays
                    shelf.remove()
                    self.forget_state(dataset)

    def open_state(self, dataset: str) -> State:
        """The dataset's database, made where there is none; one that could not be made leaves nothing behind."""
        made = not self.state_path(dataset).exists()
        try:
            return self.states.take(self.state_path(dataset), dataset)
        except StoreError:
            if made:
                self.forget_state(dataset)
            raise

    def refuse_lost(self, dataset: str) -> None:
        """Raise StoreError where the dataset is published and the publisher's state of it is not there."""
        if self.is_lost(dataset):
            raise StoreError(
                f"open dataset {dataset}: it is published, but its state {self.state_path(dataset)} is gone; restore "
                "it from a backup of the same time, or make it from what is public with: edged origin verify "
                f"{self.path} --dataset {dataset} --mend"
            )

    def is_lost(self, dataset: str) -> bool:
        return not self.state_path(dataset).exists() and self.shelves.of(dataset).head() is not None

    def state_path(self, dataset: str) -> Path:
        return self.private / "state" / f"{dataset}.db"

    def forget_state(self, dataset: str) -> None:
        """Delete the dataset's database."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.state_path(dataset)}{suffix}").unlink(missing_ok=True)


def time_of(clock: Clock, what: str) -> int:
    """The clock's time. Raises OriginError for one that cannot be right: what is signed would be dated by it."""
    now = int(clock())
    if now < EARLIEST_S:
        raise OriginError(f"{what}: this machine's clock says {instant(now)}, when there was no edged; set it")
    return now
