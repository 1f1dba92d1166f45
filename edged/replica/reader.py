"""The embedded API: replicas read in place by any number of processes and threads, without a lock or a write.

    with edged.open("/var/lib/edged") as replica:
        titles = replica["catalog"]["titles"]
        titles["1994/Pulp_Fiction"]                 # a dict; KeyError where missing

A get looks at one number in shared memory and follows to a new version when that has moved. `Dataset.view()` and
`Replica.at_version()` hold a version still.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cbor2

from edged.clock import Clock
from edged.errors import DamageError, QueryError, StoreError
from edged.files import stamp_of
from edged.replica.files.disk import COUNTER, PREVIOUS, datasets
from edged.replica.files.usedtime import NAME as USED_TIME
from edged.replica.files.usedtime import read_used_time
from edged.replica.finds import ChangedRecord, Match
from edged.replica.layers.lookup import STILL, Following, Getter
from edged.replica.layers.pool import Pool
from edged.replica.loading import LoadedVersion, load, nothing
from edged.replica.view import View
from edged.replica.watches import RETRY_S, RetryWatch, TimeWatch, may_pass, watch

if TYPE_CHECKING:
    from edged.replica.layers.asked import Time
    from edged.replica.layers.question import Question

MORE = ("at", "between", "expand")  # of the keyword arguments of questions
NO_COUNTER_CHECK = -1
RETRY_MOST_S = 60.0  # between attempts, of which each waits twice as long as the one before

# What dir() shows, and docs/python.md describes: the promise to programs that embed edged.
OF_A_MAPPING = ["get", "items", "keys", "values"]
PUBLIC_OF_REPLICA = ["at_version", "close", "data_dir", "follow", *OF_A_MAPPING]
PUBLIC_OF_DATASET = ["changes", "fault", "name", "version", "view", *OF_A_MAPPING]
PUBLIC_OF_COLLECTION = ["count", "get_many", "get_raw", "groups", "name", "search", "where", *OF_A_MAPPING]


class Dataset(Mapping[str, "Collection"]):
    """A dataset: its collections by name. Follows new versions at each call; `view()` is one version."""

    def __init__(self, root: str, clock: Clock, *, may_be_empty: bool = False) -> None:
        """clock: by whose trusted time records come and go. may_be_empty: begin with nothing where there is nothing to
        read, or where neither manifest can be read.

        Otherwise raises StoreError or DamageError there.
        """
        self.clock = clock
        self.name = os.path.basename(root)
        self.may_be_empty = may_be_empty
        self.root = root
        self.pool = Pool(root)
        self.lock = threading.Lock()
        self.live, self.inode = watch(root)
        self.cell: Any = self.live
        self.held = 0
        self.seen: int = self.cell[0]
        self.fault: StoreError | None = None
        """Why the newest version on disk is not the one that is read here, or not wholly; None where it is."""
        self.pause_s = RETRY_S
        self.loaded: LoadedVersion = self.first_load()
        self.current: View = self.timed(self.loaded.view, None)
        if may_pass(self.fault):
            self.cell = RetryWatch(self.live, self.seen, self.pause_s)
        self.watch_time()
        self.pool.relax()  # the kernel maps much around the few pages that opening reads
        self.named: dict[str, Collection] = {}

    def __dir__(self) -> list[str]:
        return PUBLIC_OF_DATASET

    def first_load(self) -> LoadedVersion:
        try:
            loaded = load(self.root, self.pool, None, may_be_empty=self.may_be_empty)
        except StoreError as fault:  # DamageError too
            if not self.may_be_empty or not (isinstance(fault, DamageError) or may_pass(fault)):
                raise
            loaded = nothing(self.root, fault)
        self.fault = loaded.view.fault or passing_damage(loaded.view)
        return loaded

    def take_up(self) -> bool:
        """Load what is on disk, or keep what is loaded where nothing as new can be read: its files are mapped.

        Returns whether to wait for the counter before trying again: the writer mends damage and moves it, while a
        fault of the moment passes without a word.
        """
        try:
            loaded = load(self.root, self.pool, self.loaded, may_be_empty=self.may_be_empty)
        except StoreError as fault:  # DamageError too
            self.fault = fault
            return isinstance(fault, DamageError) and not may_pass(fault)
        self.fault = loaded.view.fault or passing_damage(loaded.view)
        lost = loaded.view.fault is not None or not loaded.manifest.generation
        older = lost and loaded.manifest.generation < self.loaded.manifest.generation
        if not older and (self.fault is None or not covers(self.current, loaded.view)):
            self.loaded, self.current = loaded, self.timed(loaded.view, self.current)
        return not may_pass(self.fault)

    def timed(self, view: View, former: View | None) -> View:
        """A version as it is now. former: the view before."""
        return view.at(int(max(self.clock.trusted(), view.as_of)), former)

    def watch_time(self) -> None:
        """Have time move the cell where records come and go by it."""
        if not self.current.limited:
            return
        try:
            due = self.current.next_change
        except StoreError:  # of which every read tells: it is tried again
            due = self.current.time + int(RETRY_S)
        self.cell = TimeWatch(self.cell, self.seen, inf if due is None else due, self.clock)

    def refresh(self) -> None:
        """Take up the version on disk. Called when the counter has moved."""
        with self.lock:
            if self.cell[0] == self.seen:  # another thread was here first, or the replica is held still
                return
            if isinstance(self.cell, TimeWatch):
                self.cell = self.cell.watched
                if self.cell[0] == self.seen:  # time alone
                    self.current = self.timed(self.current, self.current)
                    self.watch_time()
                    return
            seen, before = self.live[0], self.current
            if self.take_up():
                self.cell, self.seen, self.pause_s = self.live, seen, RETRY_S
                self.follow_counter()
            else:
                self.cell, self.seen = RetryWatch(self.live, seen, self.pause_s), seen
                self.pause_s = min(2 * self.pause_s, RETRY_MOST_S)
            if self.current is before:
                self.current = self.timed(before, before)
            self.watch_time()

    def follow_counter(self) -> None:
        """Watch the counter that is there now: made after this was opened, or anew where the directory was removed."""
        stamp = stamp_of(os.path.join(self.root, COUNTER))
        if stamp is not None and stamp.inode != self.inode:
            self.live, self.inode = watch(self.root)
            self.cell, self.seen = self.live, NO_COUNTER_CHECK

    def view(self) -> View:
        """The newest version, as one that never changes. Costs one memory read where nothing is new."""
        if self.cell[0] != self.seen:
            before = self.current
            self.refresh()
            if self.current is not before:
                self.rebind()  # so that no getter keeps files mapped, and the disk full, that are merged away
        return self.current

    def moment(self) -> tuple[View, Any, int]:
        """The current view, the counter that tells of the next, and what it says now."""
        self.view()
        with self.lock:
            return self.current, self.cell, self.seen

    def hold(self) -> None:
        """Stay at the present version until `release`, in all threads."""
        with self.lock:
            self.held += 1
            if self.held == 1:
                self.cell, self.seen = STILL.counter, STILL.seen
        self.rebind()

    def release(self) -> None:
        with self.lock:
            self.held -= 1
            if not self.held:
                self.cell, self.seen = self.live, NO_COUNTER_CHECK
        self.rebind()

    def rebind(self) -> None:
        for collection in list(self.named.values()):
            collection.bind()

    def relax(self) -> None:
        """Give back the memory of file pages that were read: they come from the disk's cache again if needed."""
        self.pool.relax()

    @property
    def version(self) -> int:
        return self.view().version

    def changes(self, since: int, at: int | None = None) -> Iterator[ChangedRecord]:
        """See View.changes."""
        return self.view().changes(since, at)

    def __getitem__(self, name: str) -> Collection:
        found = self.named.get(name)
        if found is None:
            if name not in self.view().collections:
                raise KeyError(name)
            found = self.named[name] = Collection(self, name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.view().collections))

    def __len__(self) -> int:
        return len(self.view().collections)

    def __repr__(self) -> str:
        return f"<edged dataset {self.name!r} version {self.version}>"


class Collection(Mapping[str, Any]):
    """A collection: values by key, in key order. Values are decoded at each call, so they are the caller's own."""

    __slots__ = ("dataset", "get_raw", "name")

    get_raw: Getter
    """The value's CBOR bytes by key, None where there is no such record.

    A function made for the version at hand, so that a get costs one call; it replaces itself when the counter moves.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name
        self.bind()

    def __dir__(self) -> list[str]:
        return PUBLIC_OF_COLLECTION

    def bind(self) -> None:
        """Take up the dataset's current version."""
        view, counter, seen = self.dataset.moment()
        self.get_raw = view.following_getter(self.name, Following(counter, seen, self.moved))

    def moved(self, key: str) -> bytes | None:
        """A get when the counter has moved. Goes by the dataset, so that a kept old function is right too."""
        self.bind()
        return self.dataset.view().getter(self.name)(key)

    def __getitem__(self, key: str) -> Any:
        data = self.get_raw(key)
        if data is None:
            raise KeyError(key)
        return cbor2.loads(data)

    def get(self, key: str, default: Any = None, *, expand: str | Iterable[str] = ()) -> Any:
        """expand: references in whose place the records come, see `where`."""
        if not expand:
            data = self.get_raw(key)
            return default if data is None else cbor2.loads(data)
        view = self.dataset.view()
        data = view.get_raw(self.name, key)
        return default if data is None else view.expanded(cbor2.loads(data), view.references(self.name, expand))

    def get_many(self, keys: Iterable[str], *, expand: str | Iterable[str] = ()) -> list[Any]:
        """A value or None for each key, in the order of `keys`, all of one version. expand: see `where`.

        Raises QueryError for a text, each letter of which would be a key.
        """
        if isinstance(keys, str):
            raise QueryError(f"keys={keys!r:.80}: expected several keys; give a list of them")
        view = self.dataset.view()
        references = view.references(self.name, expand)
        found = view.get_many_raw(self.name, keys if isinstance(keys, Sequence) else list(keys))
        values = [None if data is None else cbor2.loads(data) for data in found]
        return [view.expanded(value, references) for value in values] if references else values

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get_raw(key) is not None

    def __iter__(self) -> Iterator[str]:
        return self.dataset.view().keys(self.name)

    def __len__(self) -> int:
        return self.dataset.view().collections.get(self.name, 0)

    def items(  # type: ignore[override]  # a prefix and a start are what a list in key order is for
        self,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        expand: str | Iterable[str] = (),
    ) -> Iterator[tuple[str, Any]]:
        """(key, value) in key order, of keys that begin with `prefix` and are greater than `after`.

        expand: see `where`.
        """
        view = self.dataset.view()
        references = view.references(self.name, expand)
        for key, data in view.scan(self.name, after=after, prefix=prefix, limit=limit):
            value = cbor2.loads(data)
            yield key, view.expanded(value, references) if references else value

    def where(
        self,
        *,
        order: str = "",
        at: Time | None = None,
        between: tuple[Time, Time] | None = None,
        distinct: str = "",
        limit: int | None = None,
        **conditions: Any,
    ) -> Iterator[tuple[str, Any]]:
        """(key, value) of the records whose indexed fields equal or hold what is asked for, in key order.

        A tuple, list or set asks for any of its values. A field with a declared order takes `year__gte=`, `__gt`,
        `__lte`, `__lt`, and `order="year"`, or `"-year"` for the greatest first, those without it last. at: a time that
        the declared interval holds, as seconds since 1970 or a datetime; between: two, with which it has a time
        in common; distinct: an indexed field of which each value comes but once. expand="items": records in the place
        of their keys, as {"key", "value"}. A dotted field is given as `**{"a.b": value}`.

        Raises QueryError for what is not declared so.
        """
        view, expand = self.dataset.view(), conditions.pop("expand", ())
        question = question_of(conditions, order, at, between, distinct)
        return self.values_of(view, view.ask(self.name, question, limit=limit), expand)

    def search(
        self, text: str, *, order: str = "", distinct: str = "", limit: int | None = 50, **conditions: Any
    ) -> list[tuple[str, Any]]:
        """(key, value), the best first, of records that hold every word of `text`, or words that begin so.

        Conditions, order and distinct are those of `where`, `at`, `between` and `expand` among them.
        """
        view, at, between, expand = self.dataset.view(), *(conditions.pop(name, None) for name in MORE)
        question = question_of(conditions, order, at, between, distinct)._replace(text=text or " ")
        return list(self.values_of(view, view.ask(self.name, question, limit=limit), expand))

    def groups(
        self, by: str, *, limit: int = 50, order: str = "", **conditions: Any
    ) -> dict[Any, list[tuple[str, Any]]]:
        """At most `limit` (key, value) for each value of the indexed field `by`: of those in `conditions`, or of all.

        Conditions are those of `where`, `at`, `between` and `expand` among them.
        """
        view, at, between, expand = self.dataset.view(), *(conditions.pop(name, None) for name in MORE)
        question = question_of(conditions, order, at, between, conditions.pop("distinct", ""))
        groups: dict[Any, list[tuple[str, Any]]] = {}
        for group in view.ask_by_group(self.name, question, by, limit=limit):
            held = groups.setdefault(group.value, [])  # which of True and of 1 is the same
            held += self.values_of(view, group.matches[: limit - len(held)], expand)
        return groups

    def values_of(
        self, view: View, found: Iterable[Match], expand: str | Iterable[str] | None
    ) -> Iterator[tuple[str, Any]]:
        """What is handed out of matches."""
        references = view.references(self.name, expand or ())
        if not references:
            return ((match.key, cbor2.loads(match.value)) for match in found)
        return ((match.key, view.expanded(cbor2.loads(match.value), references)) for match in found)

    def count(
        self,
        *,
        by: str = "",
        at: Time | None = None,
        between: tuple[Time, Time] | None = None,
        **conditions: Any,
    ) -> Any:
        """How many records meet conditions as in `where`; with `by`, an indexed field, a dict from value to number."""
        question = question_of(conditions, "", at, between)
        found = self.dataset.view().tally(self.name, question, (by,) if by else ())
        if not by:
            return found.total
        from edged.replica.indexes.terms import value_of  # here, as only queries need it

        numbers: dict[Any, int] = {}
        for term, number in found.facets[by].items():
            value = value_of(term)
            numbers[value] = numbers.get(value, 0) + number  # True and 1 are one
        return numbers

    def __repr__(self) -> str:
        return f"<edged collection {self.dataset.name}/{self.name}>"


class Replica(Mapping[str, Dataset]):
    """All datasets below a data directory, opened when first asked for."""

    def __init__(self, data_dir: str | os.PathLike[str], clock: Clock | None = None) -> None:
        """Raises StoreError where the directory cannot be listed."""
        self.data_dir = os.fspath(data_dir)
        self.clock = clock or Clock()
        self.clock.was_at(read_used_time(os.path.join(self.data_dir, USED_TIME)))
        self.opened: dict[str, Dataset] = {}
        self.lock = threading.Lock()
        datasets(self.data_dir)

    def __dir__(self) -> list[str]:
        return PUBLIC_OF_REPLICA

    def __getitem__(self, name: str) -> Dataset:
        found = self.opened.get(name)
        if found is None:
            with self.lock:
                if name not in self.opened:
                    if name not in datasets(self.data_dir):
                        raise KeyError(name)
                    self.opened[name] = Dataset(os.path.join(self.data_dir, name), self.clock)
                found = self.opened[name]
        return found

    def follow(self, name: str) -> Dataset:
        """The dataset `name` even before its first version: until then its version is 0 and it holds nothing."""
        with self.lock:
            path = os.path.join(self.data_dir, name)
            return self.opened.setdefault(name, Dataset(path, self.clock, may_be_empty=True))

    def __iter__(self) -> Iterator[str]:
        return iter(datasets(self.data_dir))

    def __len__(self) -> int:
        return len(datasets(self.data_dir))

    @contextlib.contextmanager
    def at_version(self) -> Iterator[Replica]:
        """Hold every dataset at the version it has now, in all threads, so that reads inside agree with each other."""
        held = [self[name] for name in self]
        for dataset in held:
            dataset.view()
            dataset.hold()
        try:
            yield self
        finally:
            for dataset in held:
                dataset.release()

    def close(self) -> None:
        """Let go of all files; what still uses a view keeps that one's."""
        self.opened.clear()

    def __enter__(self) -> Replica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<edged replica {self.data_dir!r}>"


def question_of(
    conditions: Mapping[str, Any],
    order: str = "",
    at: Time | None = None,
    between: tuple[Time, Time] | None = None,
    distinct: str = "",
) -> Question:
    """What keyword arguments ask for."""
    from edged.replica.layers.asked import by_keywords, interval_of  # here, so that gets and lists do not load it

    return by_keywords(conditions)._replace(during=interval_of(at, between), order=order, distinct=distinct)


def passing_damage(view: View) -> DamageError | None:
    """Why a slice of a view cannot be read at the moment, if that may pass."""
    return next((fault for fault in view.broken.values() if may_pass(fault)), None)


def covers(held: View, newer: View) -> bool:
    """Whether a view that is whole is worth more than a newer one of which slices cannot be read at the moment."""
    return bool(held.version) and not held.broken and set(newer.slices) <= set(held.slices)


__all__ = ["PREVIOUS", "Collection", "DamageError", "Dataset", "Replica"]
