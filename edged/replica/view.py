"""A view: one version of a replica, whole and unchanging, whatever is committed, merged or deleted meanwhile."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import cbor2

from edged.errors import ChainError, DamageError, StoreError
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.files.manifest import Manifest
from edged.replica.files.settings import ReplicaSettings, takedown_mark
from edged.replica.finds import ChangedRecord, Group, Match, SliceInfo, begin_of, numbered
from edged.replica.layers.layers import Found, Layers, pack_names, unpack_names
from edged.replica.layers.lookup import STILL, Following, Getter, HiddenKeys, Hides, getter, shown_getter

MOVED = 100  # places by which a match is looked for that has moved since the page before

if TYPE_CHECKING:
    from edged.feed.references import Reference
    from edged.replica.layers.query import Records, Tally
    from edged.replica.layers.question import Cursor, Declared, Question
    from edged.replica.layers.validity import Validity


class View:
    """All reads of one version at one time. Thread-safe. Every method that reads records raises DamageError for damaged
    files.

    as_of: when the head in force was signed, in seconds since 1970; fresh_s, expires_s: how long from then on it is
    fresh, and good at all; changes_from: the oldest version that `changes` can start from; time: at which records are
    there or not by their windows, in whole seconds since 1970, 0 where the schema declares none; limited: collections
    for which it does; part: the slices of which it is, none where it is of all.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: ReplicaSettings,
        layers: Mapping[str, Layers],
        broken: Mapping[str, DamageError],
        *,
        fault: StoreError | None = None,
    ) -> None:
        """broken: slices that cannot be opened; fault: why the newest manifest was passed over, if it was."""
        self.manifest = manifest
        self.dataset = manifest.dataset
        self.version = manifest.version
        self.as_of = manifest.as_of
        self.fresh_s = manifest.fresh_s
        self.expires_s = manifest.expires_s
        self.schema: Schema = settings.schema
        self.settings = settings
        self.layers = list(layers.values())
        self.by_slice = layers
        self.broken = broken
        self.fault = fault
        self.collections: Mapping[str, int] = manifest.collections
        self.changes_from = max((state.floor for state in manifest.slices.values()), default=manifest.version)
        self.getters: dict[str, Getter] = {}
        self.hidden: dict[str, set[str]] = {}
        for collection, key in settings.hidden:
            self.hidden.setdefault(collection, set()).add(key)
        self.part: frozenset[str] = frozenset()
        self.parts: dict[frozenset[str], View] = {}
        self.time = 0
        self.limited = frozenset(name for name, rules in self.schema.collections.items() if rules.valid)
        self.validity: Validity | None = None

    def at(self, time: int, former: View | None = None) -> View:
        """The same version at a time, in whole seconds since 1970. former: the view before, of which is taken over what
        has not changed since."""
        if not self.limited:
            return self
        from edged.replica.layers.validity import Validity  # here, so that who declares no windows does not load it

        found = copy(self)
        found.time, found.getters, found.parts = time, {}, {}
        known = self.validity or Validity(self.layers, self.schema, self.hidden, self.limited)
        found.validity = known.at(time, known if former is None else former.validity)
        found.collections = found.validity.counts(self.manifest.collections)
        return found

    def of_slices(self, names: frozenset[str]) -> View:
        """What of it lies in some slices, as if there were no others; the same object for the same slices."""
        from edged.replica.part import part_of  # here, as most devices have no apps with some slices

        return self.parts.get(names) or self.parts.setdefault(names, part_of(self, names))

    def hiding(self, collection: str) -> Hides:
        """What of a collection is not there, by which every read goes."""
        if self.validity is not None and collection in self.limited:
            return self.validity.hiding(collection)
        return HiddenKeys(self.hidden.get(collection, ()))

    @property
    def next_change(self) -> int | None:
        """The second at which the next record comes or goes by time, None where none will."""
        return self.validity.next_change if self.validity is not None else None

    @property
    def head(self) -> bytes:
        """The signed head in force, as it was received."""
        return self.manifest.head

    @property
    def slices(self) -> dict[str, SliceInfo]:
        return {
            name: SliceInfo(
                state.version,
                state.records,
                sum(1 for _ in state.packs()),
                sum(ref.size + (ref.index.size if ref.index else 0) for ref in state.packs()),
                str(self.broken[name]) if name in self.broken else None,
            )
            for name, state in self.manifest.slices.items()
            if not self.part or name in self.part
        }

    def dictionary(self, collection: str) -> tuple[bytes, bytes]:
        """(SHA-256, bytes) of the newest trained dictionary of the slice that has most of a collection.

        Both are empty where there is none, and as long as it may hold samples of what is taken down. It has samples of
        the slice's other collections too. Raises DamageError.
        """
        largest = max(self.layers, key=lambda layers: layers.state.counts.get(collection, 0), default=None)
        if largest is None or not largest.state.dictionaries or largest.state.purged != takedown_mark(self.settings):
            return b"", b""
        import hashlib  # here, as it loads libcrypto: 3 MB that other readers do without

        name = largest.state.dictionaries[-1]
        data = largest.pool.frames_of(name).dictionary
        if hashlib.sha256(data).digest() != name:
            fault = DamageError(f"read the dictionary of slice {largest.name}: other bytes; fetch the slice again")
            fault.slice_name = largest.name
            raise fault
        return name, data

    def getter(self, collection: str) -> Getter:
        """`get_raw` of one collection, as one function without a lookup of the collection."""
        found = self.getters.get(collection)
        if found is None:
            found = self.getters[collection] = self.following_getter(collection, STILL)
        return found

    def following_getter(self, collection: str, following: Following) -> Getter:
        """`getter`, which goes by `following`."""
        fault = next(iter(self.broken.values()), None)
        if collection in self.limited:
            return shown_getter(self.layers, collection, self.hiding(collection), fault, following)
        return getter(self.layers, collection, self.hidden.get(collection, ()), fault, following)

    def get_raw(self, collection: str, key: str) -> bytes | None:
        """The record's value as CBOR, None where there is none, it is taken down, or outside of its window."""
        return self.getter(collection)(key)

    def get_many_raw(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        """One value a key, in the order of `keys`, None where `get_raw` would say None."""
        get = self.getter(collection)
        return [get(key) for key in keys]

    def is_taken_down(self, collection: str, key: str) -> bool:
        return not self.part and (collection, key) in self.settings.hidden

    def require_whole(self) -> None:
        for fault in self.broken.values():
            raise fault

    def found(self, collection: str, begin: str) -> Iterator[Found]:
        """Live records of all slices from `begin` on, one a key."""
        self.require_whole()
        hides = self.hiding(collection)
        last = None
        streams = [layers.scan(collection, begin, hides.shown) for layers in self.layers]
        merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=key_of)
        for found in merged:
            if found[0] != last and not hides(found[0], found[2], found[3]):
                last = found[0]
                yield found

    def keys(self, collection: str, *, after: str | None = None, prefix: str = "") -> Iterator[str]:
        """Keys in order, beginning with `prefix` and greater than `after`."""
        for found in self.found(collection, begin_of(after, prefix)):
            if not found[0].startswith(prefix):
                return
            if found[0] != after:
                yield found[0]

    def scan(
        self, collection: str, *, after: str | None = None, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """(key, value) in the order of the keys' UTF-8 bytes, beginning with `prefix`, greater than `after`."""
        return islice(self.scan_all(collection, after, prefix), limit)

    def scan_all(self, collection: str, after: str | None, prefix: str) -> Iterator[tuple[str, bytes]]:
        for key, _, pack, place in self.found(collection, begin_of(after, prefix)):
            if not key.startswith(prefix):
                return
            value = pack.value(place)
            if key != after and value is not None:
                yield key, value

    def rules(self, collection: str) -> CollectionSchema:
        return self.schema.collections.get(collection, CollectionSchema())

    def where(
        self, collection: str, conditions: Mapping[str, Any], *, after: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """(key, value) in key order of the records that meet all conditions, each on an indexed field.

        A field that holds a list meets a condition with any of its items; a tuple asks for any of its values. The text
        "1994" is not the number 1994. Raises QueryError for a field without an index.
        """
        from edged.replica.layers.question import Question  # here, so that gets and lists do not load it

        found = self.ask(collection, Question(where=conditions, after=after), limit=limit)
        return ((one.key, one.value) for one in found)

    def ask(self, collection: str, question: Question, *, limit: int | None = None) -> Iterator[Match]:
        """The records that answer a question, in its order; see Question. Raises QueryError, DamageError."""
        from edged.replica.layers.question import read_cursor  # as above

        slices, question = self.prepare(collection, question)
        cursor = read_cursor(question)
        if question.is_ranked:
            found = self.best(collection, question, cursor)
        elif question.distinct and cursor is not None:
            found = self.distinct_past(collection, question, cursor, slices)
        else:
            found = self.in_order(collection, question, cursor, slices)
            found = self.distinct(found, question.distinct) if question.distinct else found
        return islice(found, limit)

    def declared(self, collection: str) -> Declared:
        from edged.replica.layers.question import Declared

        return Declared(self.rules(collection), collection, self.dataset)

    def sources(self, collection: str) -> list[list[Records]]:
        """What answers questions about a collection, by slice."""
        from edged.replica.layers import query

        return [query.sources_of(layers, self.schema, collection) for layers in self.layers]

    def prepare(self, collection: str, question: Question) -> tuple[list[list[Records]], Question]:
        """(what answers, by slice; the question with bounds of one kind). Raises QueryError, DamageError."""
        from edged.replica.layers import question as asking  # as above

        self.require_whole()  # first, as damage may be to the schema
        question = asking.check(question, self.declared(collection))
        if question.is_plain:
            return [], question
        slices = self.sources(collection)
        every = [source for sources in slices for source in sources]
        if question.text:
            from edged.replica.layers import query, search

            words = query.wording_of(question).words
            question = question._replace(misspelt=search.misspelt_in([source.words for source in every], words))
        if question.ranges:
            from edged.replica.layers import query

            question = asking.settled(question, lambda field: query.kinds_in(every, field))
        return slices, question

    def in_order(
        self, collection: str, question: Question, cursor: Cursor | None, slices: Sequence[Sequence[Records]]
    ) -> Iterator[Match]:
        """By key or by a declared order, from `cursor` on."""
        if question.is_plain:
            for key, value in self.scan(collection, after=cursor.key if cursor is not None else None):
                yield Match(key, value)
            return
        from edged.replica.layers import query

        hides, seen = self.hiding(collection), set()
        ordered = bool(question.order)
        if ordered:
            merged = query.by_order([source for sources in slices for source in sources], question, cursor)
        else:
            begin = cursor.key if cursor is not None else ""
            streams = [query.by_key(sources, question, begin) for sources in slices]
            found = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=key_of)
            merged = ((None, one) for one in found)
        if cursor is not None and not ordered:
            seen.add(cursor.key)
        for term, (key, _, pack, place) in merged:
            if key in seen or hides(key, pack, place):
                continue
            if len(slices) > 1:  # which may share a record
                seen.add(key)
            data = pack.value_after(place, key)  # as its pages have just been checked
            if data is not None:
                yield Match(key, data, term)

    def distinct(self, found: Iterator[Match], field: str) -> Iterator[Match]:
        """The first match of each value of a field; those without it all."""
        from edged.replica.indexes import terms

        seen: set[bytes] = set()
        for match in found:
            held = terms.record_terms(cbor2.loads(match.value), field)
            if not held or not held <= seen:
                seen |= held
                yield match

    def distinct_past(
        self, collection: str, question: Question, cursor: Cursor, slices: Sequence[Sequence[Records]]
    ) -> Iterator[Match]:
        """`distinct` after `cursor`: which values have come before is known from the beginning on alone."""
        from edged.replica.layers.question import Cursor, is_past

        for match in self.distinct(self.in_order(collection, question, None, slices), question.distinct):
            if is_past(Cursor(match.term, match.key), cursor, question):
                yield match

    def best(self, collection: str, question: Question, cursor: Cursor | None) -> Iterator[Match]:
        """Those that hold the words asked for, the best first, after `cursor`."""
        from edged.replica.layers import query

        hides = self.hiding(collection)
        streams = [query.by_relevance(layers, self.schema, collection, question, hides) for layers in self.layers]
        found = numbered(heapq.merge(*streams))
        last = -1
        if cursor is not None:  # its match may have moved, or gone, since the page before
            first = list(islice(found, cursor.position + MOVED))
            last = next((one.position for one in first if one.key == cursor.key), cursor.position - 1)
            found = chain(first, found)
        if question.distinct:
            found = self.distinct(found, question.distinct)
        return (match for match in found if match.position > last)

    def ask_by_group(self, collection: str, question: Question, field: str, *, limit: int) -> Iterator[Group]:
        """At most `limit` records for each value of an indexed field: of those asked for, in that order, or of all.

        The question's `after` is the cursor of a Group. Raises QueryError for a field without an index.
        """
        from edged.replica.layers import query
        from edged.replica.layers import question as asking

        self.declared(collection).require(f"group={field}", field, "index")
        after, question = question.after, question._replace(after=None)
        slices, question = self.prepare(collection, question)
        wanted = question.where.get(field)
        if wanted is None:
            slices = slices or self.sources(collection)
            found = query.all_values(slices, field)
        else:
            found = query.values_in(wanted)
        groups = list(asking.from_group(found, after))
        parts = query.by_value(slices, field, [value for value, _ in groups])
        for (value, cursor), part in zip(groups, parts, strict=True):
            one = question._replace(where={**question.where, field: value})
            if one.is_ranked:
                matches = self.best(collection, one, None)
            else:
                matches = self.in_order(collection, one, None, part)
                matches = self.distinct(matches, question.distinct) if question.distinct else matches
            first = list(islice(matches, limit))
            if first:
                yield Group(value, first, cursor)

    def tally(self, collection: str, question: Question, facets: Sequence[str] = ()) -> Tally:
        """How many records answer a question, and for each of the indexed fields `facets` how many hold each value.

        Raises QueryError, DamageError.
        """
        from edged.replica.layers import query

        for field in facets:
            self.declared(collection).require(f"facets={field}", field, "index")
        slices, question = self.prepare(collection, question)
        if question.is_plain and not facets:
            return query.Tally(self.collections.get(collection, 0), {})
        slices = slices or self.sources(collection)
        hides, result = self.hiding(collection), query.Tally(0, {field: {} for field in facets})
        for number, sources in enumerate(slices):
            before = self.layers[:number]

            def counts(found: Found, before: list[Layers] = before) -> bool:
                key, _, pack, place = found
                return not hides(key, pack, place) and all(one.get(collection, key) is None for one in before)

            result = result.plus(query.tally(sources, question, facets, counts))
        return result

    def referring(self, collection: str, path: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(one of `keys`, a record that holds it in its reference at `path`); some of them more than once."""
        from edged.replica.indexes import terms
        from edged.replica.indexes.index import REFERENCE

        hides, slices = self.hiding(collection), self.sources(collection)
        for key in keys:
            wanted = (terms.term(key) or b"",)
            for source in (source for sources in slices for source in sources):
                for number in source.equal(REFERENCE + path, wanted).run():
                    found = source.entry(number)
                    if found is not None and not hides(found[0], found[2], found[3]):
                        yield key, found[0]

    def lacking(self, collection: str, paths: Sequence[str], *, look: bool) -> list[str] | None:
        """Those of some field paths that no record has, whatever is hidden of it; None where it takes a look to know.

        look: look at as many records as it takes, once for each pack.
        """
        left, looked = list(paths), []
        for layers in self.layers:
            for pack in (*layers.base, *layers.middle, *layers.fresh):
                if not left:
                    return left
                if collection in pack.meta.spans:
                    looked.append(layers.pool.field_paths(pack, collection))
                    left = [path for path in left if not looked[-1].has(path)]
        if left and not look and not all(one.is_whole for one in looked):
            return None
        for one in looked:
            left = one.look(left) if left else left
        return left

    def expanded(self, value: Any, found: Sequence[Reference]) -> Any:
        """`value` with {"key", "value"} in the place of each key of its references; value None where missing."""
        from edged.feed.references import expanded

        def get(collection: str, key: str) -> Any:
            raw = self.get_raw(collection, key)
            return None if raw is None else cbor2.loads(raw)

        return expanded(value, found, get)

    def references(self, collection: str, paths: str | Iterable[str]) -> tuple[Reference, ...]:
        """Those that `paths` name, as a list or with commas between. Raises QueryError."""
        if not paths:
            return ()
        from edged.feed.references import references

        return references(self.schema, collection, paths.split(",") if isinstance(paths, str) else paths)

    def search(self, collection: str, text: str, *, limit: int = 50) -> list[tuple[str, bytes]]:
        """At most `limit` (key, value) that hold every word of `text`, the best first; the words may be cut short.

        Raises QueryError where the collection has no text fields.
        """
        from edged.replica.layers.question import Question  # here, so that gets and lists do not load it

        found = self.ask(collection, Question(text=text or " "), limit=limit)
        return [(match.key, match.value) for match in found]

    def tells(self, since: int, at: int | None = None) -> bool:
        """Whether the changes since a version and a time are known: it is there, not too old, and so is its time."""
        known = at is not None or not self.limited or since in self.manifest.signed
        return self.changes_from <= since <= self.version and known

    def changes(self, since: int, at: int | None = None) -> Iterator[ChangedRecord]:
        """Every record that changed after version `since`, once, as it is now, by (version, collection, key); then what
        has come or gone by time since `at`, in the order of times.

        A takedown counts as a deletion, taking it back as a change. at: the `time` of the view that was read, without
        which more than has changed may be told. Raises ChainError where `since` is too old, or not there yet.
        """
        if not self.changes_from <= since <= self.version:
            there = f"known from {self.changes_from} to {self.version}"
            raise ChainError(f"changes of {self.dataset} since {since}: {there}; read everything anew")
        if not self.tells(since, at):
            raise ChainError(
                f"changes of {self.dataset} since {since}: it is not known since which time; give the `time` too"
            )
        self.require_whole()
        return iter(self.changes_list(since, self.manifest.signed.get(since, 0) if at is None else at))

    def changes_list(self, since: int, began: int) -> Iterator[ChangedRecord]:
        newest: dict[tuple[str, str], int] = {}
        for layers in self.layers:
            for collection, key, version, _, _ in layers.changed_since(since):
                newest[collection, key] = max(version, newest.get((collection, key), 0))
        for learned in (self.settings.hidden, self.settings.restored):
            for name, version in learned.items():
                if version > since:
                    newest[name] = max(version, newest.get(name, 0))
        names, validity = pack_names(newest), self.validity
        newest.clear()
        for version, collection, key in unpack_names(names):
            value = self.get_raw(collection, key)
            if value is not None or validity is None or validity.may_have_shown(collection, key, since, began):
                yield ChangedRecord(collection, key, value, version)
        for collection, key in validity.passed(began) if validity is not None else ():
            restored = self.settings.restored.get((collection, key), 0) > since  # then it has been told above
            if not restored and not any(layers.has_changed(collection, key, since) for layers in self.layers):
                yield ChangedRecord(collection, key, self.get_raw(collection, key), self.version)


def key_of(found: Found) -> str:
    return found[0]
