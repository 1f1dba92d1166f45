"""The files that come with a version under way: numbered, written, indexed, and removed again if it does not come."""

from __future__ import annotations

from edged.errors import DamageError
from edged.feed import limits
from edged.feed.schema import Schema
from edged.replica.files import disk as files
from edged.replica.files.manifest import FileRef, PackRef, SliceState, dictionary_name, file_name
from edged.replica.indexes.index import Index, build_index, rules_of
from edged.replica.layers.pool import Pool
from edged.replica.packs.pack import Pack
from edged.replica.writing.live import Live


class NewFiles:
    """commit_file: the number of the version's own file; names: what was written below `packs/`."""

    def __init__(self, live: Live, pool: Pool) -> None:
        self.live = live
        self.pool = pool
        self.commit_file = live.manifest.next_file
        self.next_number = self.commit_file + 1
        self.names: list[str] = []

    def number(self) -> int:
        """The number of one file more."""
        self.next_number += 1
        return self.next_number - 1

    def write(self, data: bytes) -> FileRef:
        """Store a file durably. Raises StoreError."""
        number = self.number()
        self.live.disk.write(f"{files.PACKS}/{file_name(number)}", data)
        self.names.append(file_name(number))
        return FileRef(number, len(data), files.checksum(data))

    def write_pack(self, data: bytes) -> PackRef:
        """Store a pack as a file of its own, mapped from there rather than held."""
        number = self.write(data).number
        return self.register(Pack(self.pool.map(file_name(number)), 0, len(data), file_name(number), number))

    def write_dictionary(self, sha256: bytes, data: bytes) -> None:
        """Have a dictionary on disk under its name, whole."""
        name = dictionary_name(sha256)
        fresh = name not in self.live.disk.names(files.PACKS)
        if self.live.disk.intact(f"{files.PACKS}/{name}", limits.DICTIONARY_BYTES) != data:  # missing or damaged
            self.live.disk.write(f"{files.PACKS}/{name}", data)
        if fresh:
            self.names.append(name)
        self.pool.frames_of(sha256)

    def register(self, pack: Pack, offset: int = 0) -> PackRef:
        """Make a pack readable under the reference that it will have. offset: in its file to be."""
        self.pool.equip(pack)
        ref = PackRef(pack.number, offset, pack.size, pack.crc)
        self.pool.packs[ref] = pack
        return ref

    def with_indexes(self, state: SliceState, schema: Schema) -> SliceState:
        """`state` with an index file for every base and middle pack that `schema` asks one for."""

        def indexed(ref: PackRef) -> PackRef:
            pack = self.pool.pack(ref)
            if is_indexed(ref, pack, self.pool, schema):
                return ref
            data = build_index(pack, schema)
            self.pool.relax()
            return ref._replace(index=None if data is None else self.write(data))

        base, middle = tuple(map(indexed, state.base)), tuple(map(indexed, state.middle))
        return state if (base, middle) == (state.base, state.middle) else state._replace(base=base, middle=middle)

    def take_back(self) -> None:
        """Remove what the live version does not name."""
        for name in set(self.names) - self.live.manifest.files():
            self.live.disk.remove(f"{files.PACKS}/{name}")
        self.names.clear()


def is_indexed(ref: PackRef, pack: Pack, pool: Pool, schema: Schema) -> bool:
    """Whether a pack has the index that the schema asks for, whole."""
    rules = rules_of(schema, pack.meta.spans)
    if ref.index is None or not rules:
        return ref.index is None and not rules
    try:
        return Index(pool.checked_file(ref.index), file_name(ref.index.number)).rules == rules
    except DamageError:
        return False


def lacks_indexes(state: SliceState, pool: Pool, schema: Schema) -> bool:
    """Whether an index file of a slice is missing, damaged, or of other rules than the schema's."""
    return not all(is_indexed(ref, pool.pack(ref), pool, schema) for ref in (*state.base, *state.middle))
