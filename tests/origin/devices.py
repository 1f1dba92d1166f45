"""A device for tests: it knows nothing but the public files and follows them by the rules of the feed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import cbor2

from edged.feed.blob import BlobRef
from edged.feed.chain import Chain, decode_chain, decode_page
from edged.feed.coding.hop import dictionary_tag, tag_of, unpack_hop
from edged.feed.coding.snapshot import decode_part, unpack_dictionary
from edged.feed.digest import SetHash
from edged.feed.head import Head
from edged.feed.plan import plan
from edged.feed.takedowns import decode_takedowns
from edged.feed.trust import root as trust

Content = dict[tuple[str, str], bytes]


class Memory:
    """A slice's records as the `Lookup` of hops."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def get(self, collection: str, key: str) -> bytes | None:
        return self.content.get((collection, key))

    def keys(self, collection: str) -> Iterator[str]:
        return iter(sorted((place[1] for place in self.content if place[0] == collection), key=str.encode))

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        keys = sorted(place[1].encode() for place in self.content if place[0] == collection)
        at = bisect_left(keys, key.encode())
        if not at:
            return None
        found = keys[at - 1].decode()
        return found, self.content[collection, found]


class Device:
    """Follows some slices of one dataset. fetched: names of the blobs that it read, in order."""

    def __init__(self, feed: Path, dataset: str, slices: tuple[str, ...] = ("core",)) -> None:
        self.base, self.dataset, self.slices = feed / "public" / dataset, dataset, slices
        self.root = trust.read_root((feed / "root.trust").read_bytes(), "the trust file")
        self.version = 0
        self.held: dict[str, tuple[int, Content]] = {}
        self.taken_down: frozenset[tuple[str, str]] = frozenset()
        self.dictionaries: list[bytes] = [b""]  # as a replica keeps those that it came across
        self.fetched: list[BlobRef] = []
        self.snapshots = 0

    def head(self) -> Head:
        """The live head, believed only with its signature."""
        while (path := self.base / "trust" / str(self.root.number + 1)).exists():
            self.root = trust.verify_root(path.read_bytes(), self.root)
        return trust.verify_head((self.base / "head").read_bytes(), self.root, self.dataset).head

    def blob(self, ref: BlobRef) -> bytes:
        self.fetched.append(ref)
        return ref.check((self.base / "blobs" / ref.name).read_bytes(), "blob")

    def chain(self, head: Head) -> Chain:
        return decode_chain(head.chain.check((self.base / "blobs" / head.chain.name).read_bytes(), "chain"))

    def sync(self) -> Head:
        """Come to the live version, and prove every digest on the way."""
        head = self.head()
        assert head.version >= self.version
        chain = self.chain(head)
        assert chain.version == head.version
        for name in self.slices:
            self.bring(name, head, chain)
        self.version = head.version
        self.taken_down = frozenset() if head.takedowns is None else decode_takedowns(self.blob(head.takedowns))
        return head

    def bring(self, name: str, head: Head, chain: Chain, without: frozenset[bytes] = frozenset()) -> None:
        """without: hops whose dictionary a takedown took, which this device does not hold."""
        entry, wanted = chain.slices[name], head.slices[name]
        have, content = self.held.get(name, (None, {}))
        while (path := plan(entry, have, wanted.version, inlined=wanted.hops, without=without)).pages:
            for page in path.pages:
                entry = entry.with_page(page, decode_page(self.blob(page.blob), page))
        if path.snapshot is not None:
            content = {}
            self.snapshots += 1
            dictionary = unpack_dictionary(self.blob(path.snapshot.dictionary)) if path.snapshot.dictionary else b""
            for part in path.snapshot.parts:
                for collection, key, value in decode_part(self.blob(part), dictionary, max_bytes=1 << 26):
                    content[collection, key] = value
            assert digest_of(content) == path.snapshot.digest
        named = [unpack_dictionary(self.blob_of(ref)) for ref in entry.dictionary_refs()]
        self.dictionaries += [item for item in named if item not in self.dictionaries]
        for hop in path.hops:
            data = hop.inline if hop.inline is not None else self.blob(hop.blob)
            if dictionary_tag(data) not in map(tag_of, self.dictionaries):
                assert head.takedowns is not None, "no dictionary of the chain fits the hop"
                return self.bring(name, head, chain, without | {hop.blob.sha256})
            content = apply(data, content, self.dictionaries)
        assert digest_of(content) == wanted.digest
        assert len(content) == wanted.records
        self.held[name] = wanted.version, content
        return None

    def blob_of(self, ref: BlobRef) -> bytes:
        return ref.check((self.base / "blobs" / ref.name).read_bytes(), "dictionary")

    def value(self, collection: str, key: str, name: str = "core") -> object:
        data = self.held[name][1].get((collection, key))
        return None if data is None else cbor2.loads(data)

    def keys(self, name: str = "core") -> set[str]:
        return {key for _, key in self.held[name][1]}


def apply(data: bytes, content: Content, dictionaries: list[bytes]) -> Content:
    for dictionary in dictionaries:
        if dictionary_tag(data) == tag_of(dictionary):
            changes = unpack_hop(data, Memory(content), dictionary)
            after = dict(content)
            for change in changes:
                if change.value is None:
                    del after[change.collection, change.key]
                else:
                    after[change.collection, change.key] = change.value
            return after
    raise AssertionError("no dictionary of the chain fits the hop")


def digest_of(content: Content) -> bytes:
    total = SetHash()
    for (collection, key), value in content.items():
        total.add(collection, key, value)
    return total.digest()
