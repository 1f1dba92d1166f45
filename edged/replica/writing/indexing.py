"""Index files for the packs of a slice: made where one is missing, of other rules than the schema's, or damaged."""

from __future__ import annotations

from collections.abc import Callable

from edged.errors import DamageError
from edged.feed.schema import Schema
from edged.replica.files.manifest import FileRef, PackRef, SliceState, file_name
from edged.replica.indexes.index import Index, build_index, rules_of
from edged.replica.layers.pool import Pool
from edged.replica.packs.pack import Pack

WriteFile = Callable[[bytes], FileRef]


def with_indexes(state: SliceState, pool: Pool, schema: Schema, write: WriteFile) -> SliceState:
    """`state` with an index for every base and middle pack. write: stores a file and names it."""

    def indexed(ref: PackRef) -> PackRef:
        pack = pool.pack(ref)
        if is_indexed(ref, pack, pool, schema):
            return ref
        data = build_index(pack, schema)
        pool.relax()
        return ref._replace(index=None if data is None else write(data))

    base, middle = tuple(map(indexed, state.base)), tuple(map(indexed, state.middle))
    return state if (base, middle) == (state.base, state.middle) else state._replace(base=base, middle=middle)


def is_indexed(ref: PackRef, pack: Pack, pool: Pool, schema: Schema) -> bool:
    """Whether a pack has the index that the schema asks for, whole."""
    rules = rules_of(schema, pack.meta.spans)
    if ref.index is None or not rules:
        return ref.index is None and not rules
    try:
        return Index(pool.checked_file(ref.index), file_name(ref.index.number)).rules == rules
    except DamageError:
        return False
