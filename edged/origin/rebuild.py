"""The publisher's state made anew from what is public: for when `private/state` was lost and no backup is at hand.

What the live head leads to comes back: the records, their slices, the hops that devices still take. What each earlier
version changed does not: versions before the live one cannot be rolled back to, and the values of what is taken down
are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edged.errors import ChainError, OriginError
from edged.feed import cbor, limits
from edged.feed.blob import BlobRef
from edged.feed.chain import SliceChain, decode_chain, decode_page
from edged.feed.coding.changes import Change
from edged.feed.coding.hop import dictionary_tag, tag_of, unpack_hop
from edged.feed.coding.snapshot import decode_part, unpack_dictionary
from edged.feed.digest import SetHash
from edged.feed.head import Head, SliceHead
from edged.feed.plan import Path as Way
from edged.feed.plan import plan
from edged.feed.takedowns import decode_takedowns
from edged.origin import takedowns
from edged.origin.blobs.hops import OldSlice
from edged.origin.blobs.snapshots import slice_records
from edged.origin.shelves.shelf import Shelf
from edged.origin.state import HIDDEN, SliceVersion, State, VersionRow
from edged.progress import Steps, Watch


class Rebuild:
    """One dataset's state, from the blobs of a shelf that a verified head leads to. Raises EdgedError."""

    def __init__(self, state: State, shelf: Shelf, head: Head, watch: Watch) -> None:
        self.state, self.shelf, self.head, self.watch = state, shelf, head, watch
        self.chain = decode_chain(self.read(head.chain))

    def read(self, ref: BlobRef) -> bytes:
        return self.shelf.read(ref)

    def run(self, now: int) -> None:
        """Fill the empty state."""
        state, head = self.state, self.head
        for name, live in head.slices.items():
            self.fill_slice(name, live)
        hidden = [] if head.takedowns is None else sorted(decode_takedowns(self.read(head.takedowns)))
        takedowns.note(state, hidden, head.version, now)
        state.run_many("INSERT INTO records VALUES(?,?,?,NULL)", [(*name, HIDDEN) for name in hidden])
        counts = state.rows("SELECT collection, count(*) FROM records WHERE membership <> ? GROUP BY 1", (HIDDEN,))
        schema = cbor.encode(self.chain.schema.to_cbor())
        state.add_version(
            VersionRow(
                head.version, head.signed_at, "rebuilt", 0, 0, 0, dict(counts), tuple(sorted(head.slices)), schema,
                head.schema_version, "the publisher's state was made anew from what is public",
            )
        )  # fmt: skip
        state.set_meta("live", head.version)
        state.set_meta("journal_from", head.version)

    def fill_slice(self, name: str, live: SliceHead) -> None:
        """The records of one slice, its hops, and its present version. Raises ChainError where its digest differs."""
        entry = self.entry_of(name)
        contents = [b"", *(unpack_dictionary(self.read(ref)) for ref in entry.dictionary_refs())]
        dictionaries = {tag_of(content): content for content in contents}
        way, hops = self.way_to(entry, live, dictionaries)
        steps = Steps(self.watch, f"reading slice {name}", live.records)
        for record in self.snapshot_records(way):
            self.put(name, Change(*record))
            steps.advance()
        for data in hops:
            for change in unpack_hop(data, OldSlice(self.state, name, {}), dictionaries[dictionary_tag(data)]):
                self.put(name, change)
        total, size = SetHash(), 0
        for collection, key, value in slice_records(self.state, name) if live.records else ():
            total.add(collection, key, value)
            size += len(collection.encode()) + len(key.encode()) + len(value)
        if total.digest() != live.digest:
            raise ChainError(f"rebuild slice {name}: what its blobs hold has another digest than the head says")
        self.number_versions(
            name, entry, live, SliceVersion(live.version, 1, live.records, size, live.digest, total.state())
        )

    def way_to(self, entry: SliceChain, live: SliceHead, dictionaries: dict[bytes, bytes]) -> tuple[Way, list[bytes]]:
        """The cheapest way from nothing whose hops can be decoded, and those hops. Raises ChainError."""
        without: set[bytes] = set()
        while True:
            way = plan(entry, None, live.version, inlined=live.hops, without=frozenset(without))
            hops = [hop.inline if hop.inline is not None else self.read(hop.blob) for hop in way.hops]
            strange = {
                hop.blob.sha256
                for hop, data in zip(way.hops, hops, strict=True)
                if dictionary_tag(data) not in dictionaries
            }
            if not strange:
                return way, hops
            without |= strange

    def entry_of(self, name: str) -> SliceChain:
        entry = self.chain.slices[name]
        hops = [hop for page in entry.pages for hop in decode_page(self.read(page.blob), page)]
        return replace(entry, hops=(*entry.hops, *hops), pages=())

    def snapshot_records(self, way: Way) -> Iterator[tuple[str, str, bytes]]:
        if way.snapshot is None:
            return
        ref = way.snapshot.dictionary
        dictionary = b"" if ref is None else unpack_dictionary(self.read(ref))
        for part in way.snapshot.parts:
            yield from decode_part(self.read(part), dictionary, max_bytes=limits.PART_BYTES)

    def put(self, name: str, change: Change) -> None:
        """Carry one record into or out of a slice; it may be in others already."""
        found = self.state.record(change.collection, change.key)
        others = set(() if found is None else self.state.slices_in(found[0])) - {name}
        value = change.value if change.value is not None or found is None else found[1]
        slices = others if change.value is None else others | {name}
        if slices:
            row = (change.collection, change.key, self.state.membership_of(tuple(sorted(slices))), value)
            self.state.run("INSERT OR REPLACE INTO records VALUES(?,?,?,?)", row)
        else:
            self.state.run("DELETE FROM records WHERE collection = ? AND key = ?", (change.collection, change.key))

    def number_versions(self, name: str, entry: SliceChain, live: SliceHead, newest: SliceVersion) -> None:
        """Keep the hops, and number the slice's versions that they link, in order; only the newest is known whole."""
        if not live.version:
            return
        known = sorted({live.version, *(end for hop in entry.hops for end in (hop.from_version, hop.to_version))} - {0})
        for counter, version in enumerate(known, 1):
            item = SliceVersion(version, counter) if version < live.version else replace(newest, counter=counter)
            self.state.add_slice_version(name, item)
        self.state.run_many(
            "INSERT OR IGNORE INTO hops VALUES(?,?,?,?,?,NULL)",
            [(name, hop.to_version, hop.from_version, hop.blob.size, hop.blob.sha256) for hop in entry.hops],
        )
        self.state.run_many(
            "INSERT OR IGNORE INTO blobs VALUES(?,'hop',?,NULL)",
            [(hop.blob.sha256, hop.blob.size) for hop in entry.hops],
        )


def rebuild_state(state: State, shelf: Shelf, head: Head, now: int, watch: Watch) -> None:
    """Fill the empty `state` in one transaction. Raises OriginError during a rollout, EdgedError."""
    if head.offer is not None:
        raise OriginError(
            f"rebuild dataset {head.dataset}: version {head.offer.version} was being offered to a share of the "
            "devices, and what is public does not tell how to go on; restore private/state from a backup"
        )
    with state.transaction(f"rebuild dataset {head.dataset}"):
        Rebuild(state, shelf, head, watch).run(now)
