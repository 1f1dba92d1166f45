"""A dataset's version as an app sees it that may have some of the collections: the others are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edged.errors import QueryError, RequestError
from edged.feed.references import references
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.http.request import Request
from edged.serve.catalog import ChangedRecord, SliceInfo, View

if TYPE_CHECKING:
    from edged.access.rights import Rights
    from edged.replica.finds import Group, Match
    from edged.replica.layers.query import Tally
    from edged.replica.layers.question import Question


@dataclass(frozen=True, slots=True)
class CountedSlice:
    """A slice, of whose records nothing is told: they are not all of allowed collections."""

    version: int
    records: int


class AllowedView:
    """A View (see catalog.py) of `whole` with the collections in `names` alone; version, times and head are its."""

    def __init__(self, whole: View, names: frozenset[str]) -> None:
        self.whole, self.names = whole, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    @cached_property
    def collections(self) -> Mapping[str, int]:
        return {name: count for name, count in self.whole.collections.items() if name in self.names}

    @cached_property
    def schema(self) -> Schema:
        """Without references into collections that are not there, and without what would expand them."""
        whole = self.whole.schema
        rules = {name: self.known_refs(item) for name, item in whole.collections.items() if name in self.names}
        allowed = Schema(rules, whole.views)
        views = {
            view: {name: self.known_paths(allowed, name, rule) for name, rule in found.items() if name in self.names}
            for view, found in whole.views.items()
        }
        return Schema(rules, views)

    def known_refs(self, rules: CollectionSchema) -> CollectionSchema:
        return rules._replace(refs={path: target for path, target in rules.refs.items() if target in self.names})

    def known_paths(self, schema: Schema, collection: str, rule: ViewRule) -> ViewRule:
        return rule._replace(expand=tuple(path for path in rule.expand if leads_somewhere(schema, collection, path)))

    @cached_property
    def slices(self) -> Mapping[str, SliceInfo]:
        """Their versions; 0 records, as a number of all would tell of collections that are not there."""
        return {name: CountedSlice(part.version, 0) for name, part in self.whole.slices.items()}

    def require(self, collection: str) -> None:
        """Whoever comes here with another collection has not judged the request. Raises RequestError 403."""
        if collection not in self.names:
            raise RequestError(403, "this app may not ask for that")

    def dictionary(self, collection: str) -> tuple[bytes, bytes]:
        self.require(collection)
        return self.whole.dictionary(collection)

    def get_raw(self, collection: str, key: str) -> bytes | None:
        self.require(collection)
        return self.whole.get_raw(collection, key)

    def is_taken_down(self, collection: str, key: str) -> bool:
        self.require(collection)
        return self.whole.is_taken_down(collection, key)

    def get_many_raw(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        self.require(collection)
        return self.whole.get_many_raw(collection, keys)

    def scan(
        self, collection: str, *, after: str | None = None, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        self.require(collection)
        return self.whole.scan(collection, after=after, prefix=prefix, limit=limit)

    def ask(self, collection: str, question: Question, *, limit: int | None = None) -> Iterator[Match]:
        self.require(collection)
        return self.whole.ask(collection, question, limit=limit)

    def ask_by_group(self, collection: str, question: Question, field: str, *, limit: int) -> Iterator[Group]:
        self.require(collection)
        return self.whole.ask_by_group(collection, question, field, limit=limit)

    def tally(self, collection: str, question: Question, facets: Sequence[str] = ()) -> Tally:
        self.require(collection)
        return self.whole.tally(collection, question, facets)

    def lacking(self, collection: str, paths: Sequence[str], *, look: bool) -> list[str] | None:
        self.require(collection)
        return self.whole.lacking(collection, paths, look=look)

    def referring(self, collection: str, path: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        self.require(collection)
        return self.whole.referring(collection, path, keys)

    def changes(self, since: int, at: int | None = None) -> Iterator[ChangedRecord]:
        return (change for change in self.whole.changes(since, at) if change.collection in self.names)


def leads_somewhere(schema: Schema, collection: str, path: str) -> bool:
    """Whether every step of a path of references is declared."""
    try:
        return bool(references(schema, collection, (path,)))
    except QueryError:
        return False


def allowed_view(view: View, rights: Rights) -> View:
    """What of a view an app sees: itself, where that is all."""
    part = view.of_slices(rights.slices) if rights.slices else view
    if rights.whole(view.dataset):
        return part
    found: View = AllowedView(part, rights.names(view.dataset))
    return found


def rights_of(request: Request) -> Rights | None:
    """What the app that asks may ask for; None where no apps are configured."""
    return None if request.who.app is None else request.who.app.rights


def seen_by(request: Request, view: View) -> View:
    """What of a version the asking app sees."""
    rights = rights_of(request)
    return view if rights is None else allowed_view(view, rights)


def whole_of(view: View) -> View:
    """The view with all collections of the same slices: by which what was made of it is remembered."""
    return view.whole if isinstance(view, AllowedView) else view


Scope = tuple[str, frozenset[str]]


def scope_of(view: View) -> Scope:
    """Dataset and slices: what was made of one view is never for the reader of another scope."""
    return view.dataset, view.part
