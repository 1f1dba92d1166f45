"""The publisher: every operation on a feed, each under its lock, each all or nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.errors import OriginError, ValidationError
from edged.feed.names import check_collection, check_key, check_name
from edged.files import locked, make_directory, write_durable
from edged.origin import takedowns
from edged.origin.applying import Row
from edged.origin.declared.rules import load_rules
from edged.origin.edition import Edition, older_rows, visible_rows
from edged.origin.input import comparing
from edged.origin.input.comparing import RecordSource
from edged.origin.input.reading import Values
from edged.origin.release import Rollout, Workplace, recover, releasing
from edged.origin.results import PublishResult
from edged.origin.shelves.directory import BlobStore
from edged.origin.signing.roots import Roots, create_roots, load_roots, next_root, publish_roots, put_aside
from edged.origin.state import HIDDEN, State, guarded
from edged.progress import Steps, Watch, unwatched

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """permille: offer the version to such a share of the devices, 1 to 999, instead of making it live for all.

    force_change: validate.max_change does not hold this time; allow_empty: a state without records is meant.
    """

    permille: int | None = None
    force_change: bool = False
    allow_empty: bool = False


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

    @classmethod
    def init(cls, path: Path, *, root_keys: int = 1, threshold: int = 1, clock: Clock = time.time) -> Publisher:
        """Make keys and an empty feed. Raises OriginError if there is a feed already, StoreError, ConfigError."""
        if (path / "private" / "trust" / "1").exists():
            raise OriginError(f"init {path}: there is a feed already; nothing was changed")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise OriginError(f"init {path}: {fault.strerror}; name another directory") from fault
        roots = create_roots(path / "private", root_keys, threshold, int(clock()))
        make_directory(path / "public")
        publisher = cls(path, roots, clock=clock)
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
        return sorted(path.stem for path in (self.private / "state").glob("*.db"))

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
        with self.at_work(dataset, create=True) as place:
            edition = Edition(place, "publish", watch, permille=options.permille)
            comparing.attach_scratch(place.state)

            def rows() -> Iterable[Row]:
                count = comparing.gather(place.state, source, Steps(watch, "reading").advance)
                if not source.edits:
                    if not count and not options.allow_empty:
                        raise ValidationError(
                            f"publish dataset {dataset}: the input holds no record; an empty state would remove all; "
                            "if that is meant, give --allow-empty"
                        )
                    comparing.mark_missing(place.state)
                takedowns.hold_back(place.state)
                return visible_rows(place.state, comparing.differing(place.state), edition.slicer)

            return edition.release(rows, validated=True, force_change=options.force_change)

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
            return edition.release(lambda: older_rows(state, to, edition.slicer), validated=False)

    def rollout(self, dataset: str, permille: int | None = None) -> Rollout | None:
        """The rollout under way, None if there is none. permille: raise its share; 1000 makes its version live."""
        if permille is None:
            with self.at_work(dataset) as place:
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
            Edition(place, "roll out").catch_up()
            return place.rollout

    def withdraw(self, dataset: str, *, watch: Watch = unwatched) -> PublishResult:
        """End a rollout: the stable version's content again, as a version above the one that was offered."""
        with self.at_work(dataset) as place:
            stable = standing(place, "withdraw").stable
            edition = Edition(place, "withdraw", watch)
            return edition.release(lambda: older_rows(place.state, stable, edition.slicer), validated=False)

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
            return edition.release(rows, validated=False)

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

            return edition.release(rows, validated=False)

    def resign(self, dataset: str) -> int:
        """Sign the live head anew, so that it stays fresh. Returns its version."""
        with self.at_work(dataset) as place:
            with releasing(place, f"sign the head of dataset {dataset} anew"):
                pass
            Edition(place, "sign").catch_up()
            return place.state.live

    def rotate_key(
        self, *, root_keys_directory: Path | None = None, new_root_keys: bool = False
    ) -> tuple[Roots, list[Path]]:
        """A new head key, signed in by the root keys; all heads are signed anew. Returns the roots and the old keys."""
        with locked(self.private / "lock", busy(f"feed {self.path}"), wait_s=self.wait_s):
            self.roots = load_roots(self.private)
            where = root_keys_directory or self.private / "keys"
            self.roots = next_root(self.roots, int(self.clock()), where, new_root_keys=new_root_keys)
            write_durable(self.trust_path, self.roots.documents[-1])
            for dataset in self.datasets():
                with self.workplace(dataset) as place:
                    if place.state.live:
                        with releasing(place, f"sign the head of dataset {dataset} anew"):
                            pass
            return self.roots, put_aside(self.roots)

    @contextmanager
    def reading(self, dataset: str) -> Iterator[State]:
        """The dataset's state, to look at. Raises OriginError if there is no such dataset."""
        check_name(dataset, "dataset")
        self.require(dataset)
        state = State(self.private / "state" / f"{dataset}.db", dataset, read_only=True)
        try:
            with guarded(f"read dataset {dataset}"):
                yield state
        finally:
            state.close()

    # -- work ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(self, dataset: str, *, create: bool = False) -> Iterator[Workplace]:
        """The dataset opened under its lock, what was cut short before finished or undone."""
        check_name(dataset, "dataset")
        with ExitStack() as stack:
            whole, lock = self.private / "lock", self.private / "state" / f"{dataset}.lock"
            stack.enter_context(locked(whole, busy(f"feed {self.path}"), shared=True, wait_s=self.wait_s))
            stack.enter_context(locked(lock, busy(f"dataset {dataset}"), wait_s=self.wait_s))
            self.roots = load_roots(self.private)
            if not create:
                self.require(dataset)
            place = stack.enter_context(self.workplace(dataset))
            if not create and not place.state.live:  # its first publish was killed
                raise OriginError(f"open dataset {dataset}: it has no version yet; publish to it first")
            yield place

    def require(self, dataset: str) -> None:
        """Raises OriginError if nothing was ever published to `dataset`."""
        if dataset not in self.datasets():
            known = ", ".join(self.datasets()) or "none yet"
            raise OriginError(f"open dataset {dataset}: the feed {self.path} has {known}; name one of them")

    @contextmanager
    def workplace(self, dataset: str) -> Iterator[Workplace]:
        rules = load_rules(self.path / f"{dataset}.toml")
        base = self.public / dataset
        for directory in (base, base / "blobs"):
            make_directory(directory)
        publish_roots(self.roots, base)
        state = State(self.private / "state" / f"{dataset}.db", dataset)
        try:
            place = Workplace(
                dataset, base, state, BlobStore(base / "blobs", state), rules, self.roots, int(self.clock())
            )
            recover(place)
            yield place
        finally:
            empty = state.live == 0 and not (base / "head").exists()
            state.close()
            if empty:  # the first publish failed: no trace of the dataset stays
                shutil.rmtree(base)
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{state.path}{suffix}").unlink(missing_ok=True)


def standing(place: Workplace, what: str) -> Rollout:
    """The rollout under way. Raises OriginError if there is none."""
    if place.rollout is None:
        raise OriginError(f"{what} the rollout of dataset {place.dataset}: none is under way; publish with --rollout")
    return place.rollout
