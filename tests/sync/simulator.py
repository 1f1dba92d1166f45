"""An origin in memory: changes data, signs on demand, counts requests, and misbehaves when told to."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.clock import BUILD_TIME_S, Clock
from edged.errors import EdgedError, MissingError
from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.feed.chain import Chain, SliceChain, SnapshotRef, encode_chain
from edged.feed.coding.changes import Change
from edged.feed.coding.hop import pack_hop
from edged.feed.coding.snapshot import encode_snapshot, pack_dictionary
from edged.feed.digest import SetHash
from edged.feed.head import Head, HopRef, SliceHead
from edged.feed.schema import Schema
from edged.feed.takedowns import encode_takedowns
from edged.feed.trust import cose
from edged.feed.trust import root as trust
from edged.replica.writer import Writer
from edged.sync.control import Control
from edged.sync.replication import Replication
from edged.sync.status import DatasetStatus
from edged.sync.subscription import Subscription
from edged.sync.transports.transport import HeadReply

Records = dict[tuple[str, str], bytes]
NOW = BUILD_TIME_S + 1_000_000
ROOT_LIFE_S = 730 * 86_400
DICTIONARY = b"".join(cbor.encode({"title": f"A film of {year}", "year": year}) for year in range(1950, 2000))


def key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


class RecordLookup:
    """coding.changes.Lookup over a dictionary."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def get(self, collection: str, key: str) -> bytes | None:
        return self.records.get((collection, key))

    def keys(self, collection: str) -> Iterator[str]:
        return iter(sorted((name for place, name in self.records if place == collection), key=str.encode))

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        lower = [name for place, name in self.records if place == collection and name.encode() < key.encode()]
        found = max(lower, key=str.encode, default=None)
        return None if found is None else (found, self.records[collection, found])


def digest_of(records: Records) -> bytes:
    total = SetHash()
    for (collection, name), value in records.items():
        total.add(collection, name, value)
    return total.digest()


@dataclass
class Slice:
    """history: content by slice version; chain: what is offered."""

    history: dict[int, Records] = field(default_factory=lambda: {0: {}})
    version: int = 0
    counter: int = 0
    snapshots: tuple[SnapshotRef, ...] = ()
    hops: list[HopRef] = field(default_factory=list)

    @property
    def records(self) -> Records:
        return self.history[self.version]


class Feed:
    """A publisher's state, and the files that it has made so far."""

    def __init__(self, dataset: str = "catalog", slices: Iterable[str] = ("core",), *, now: int = NOW) -> None:
        self.dataset, self.now = dataset, now
        self.root_keys, self.head_key = [key("root 1")], key("head 1")
        self.slices = {name: Slice() for name in slices}
        self.version = 0
        self.blobs: dict[bytes, bytes] = {}
        self.schema, self.schema_version = Schema(), 0
        self.hidden: set[tuple[str, str]] = set()
        self.dictionary = DICTIONARY
        self.inline_bytes = 1 << 14
        self.fresh_s, self.expires_s = 3600, 86_400
        self.part_records = 1 << 30
        root = trust.Root(1, now - 1000, now + ROOT_LIFE_S, self.role(self.root_keys), self.role([self.head_key]))
        self.roots = [trust.sign_root(root, self.root_keys)]
        self.head = b""

    def copy(self) -> Feed:
        """This publisher as it is now; what either publishes from here on the other does not know."""
        twin = copy.copy(self)
        twin.slices = copy.deepcopy(self.slices)
        twin.blobs, twin.hidden, twin.roots = dict(self.blobs), set(self.hidden), list(self.roots)
        return twin

    @staticmethod
    def role(keys: list[Ed25519PrivateKey], threshold: int = 1) -> trust.Role:
        return trust.role_of(threshold, [cose.public_bytes(item) for item in keys])

    def store(self, data: bytes) -> BlobRef:
        ref = BlobRef.of(data)
        self.blobs[ref.sha256] = data
        return ref

    def publish(self, changes: Mapping[str, object | None], slice_name: str = "core", **options: bool) -> None:
        """A new version in which the titles of `slice_name` named in `changes` have these values; None removes."""
        self.version += 1
        self.now += 1
        self.change(slice_name, changes)
        if options.get("sign", True):
            self.sign()

    def change(self, slice_name: str, changes: Mapping[str, object | None]) -> None:
        item = self.slices[slice_name]
        new, edits = dict(item.records), []
        for name, value in changes.items():
            data = None if value is None else cbor.encode(value)
            edits.append(Change("titles", name, data))
            if data is None:
                new.pop(("titles", name), None)
            else:
                new["titles", name] = data
        old_version, item.version = item.version, self.version
        item.history[self.version] = new
        versions = sorted(item.history)
        item.counter += 1
        step = 1
        while item.counter % step == 0 and step <= item.counter:
            self.add_hop(item, versions[item.counter - step], self.version)
            step *= 2
        if not item.snapshots and old_version == 0:
            self.snapshot(slice_name)

    def add_hop(self, item: Slice, low: int, high: int) -> HopRef:
        old, new = item.history[low], item.history[high]
        changes = [Change(*name, new.get(name)) for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
        hop = HopRef(low, high, self.store(pack_hop(changes, RecordLookup(old), self.dictionary)))
        item.hops.append(hop)
        return hop

    def snapshot(self, slice_name: str) -> SnapshotRef:
        """A snapshot of the live version, in place of those before."""
        item = self.slices[slice_name]
        ordered = sorted(item.records.items(), key=lambda entry: (entry[0][0], entry[0][1].encode()))
        records = [(collection, name, value) for (collection, name), value in ordered]
        parts: list[BlobRef] = []
        for at in range(0, len(records), self.part_records):
            batch = records[at : at + self.part_records]
            parts.extend(self.store(part) for part in encode_snapshot(batch, self.dictionary, level=3))
        dictionary = self.store(pack_dictionary(self.dictionary)) if self.dictionary else None
        ref = SnapshotRef(item.version, digest_of(item.records), len(item.records), dictionary, tuple(parts))
        item.snapshots = (ref,)
        return ref

    def chain(self) -> Chain:
        slices = {name: SliceChain(item.snapshots, tuple(item.hops)) for name, item in self.slices.items()}
        return Chain(self.dataset, self.version, self.schema, slices)

    def document(self) -> Head:
        """What the next head says."""
        heads = {}
        for name, item in self.slices.items():
            leading = [hop for hop in item.hops if hop.to_version == item.version]
            newest = max((hop.from_version for hop in leading), default=-1)
            hops = [
                replace(hop, inline=self.blobs[hop.blob.sha256])
                if hop.from_version == newest and item.version == self.version and hop.blob.size <= self.inline_bytes
                else hop
                for hop in leading
            ]
            heads[name] = SliceHead(item.version, digest_of(item.records), len(item.records), tuple(hops))
        return Head(
            dataset=self.dataset,
            version=self.version,
            signed_at=self.now,
            fresh_s=self.fresh_s,
            expires_s=self.expires_s,
            root=len(self.roots),
            schema_version=self.schema_version,
            chain=self.store(encode_chain(self.chain())),
            slices=heads,
            takedowns=self.store(encode_takedowns(self.hidden)) if self.hidden else None,
        )

    def sign(self, **fields: object) -> bytes:
        """Sign the state as it is; `fields` replace what the head would rightly say."""
        self.head = trust.sign_head(replace(self.document(), **fields), self.head_key)  # type: ignore[arg-type]
        return self.head

    def resign(self, later_s: int = 60) -> bytes:
        self.now += later_s
        return self.sign()

    def rotate(self, *, heads: str, roots: list[str] | None = None, threshold: int = 1) -> None:
        """The next root of trust, with these keys (by name); signed by the keys before and after."""
        old = self.root_keys
        new = [key(name) for name in roots] if roots is not None else old
        self.head_key = key(heads)
        number, ends = len(self.roots) + 1, self.now + ROOT_LIFE_S
        root = trust.Root(number, self.now, ends, self.role(new, threshold), self.role([self.head_key]))
        signers = {cose.public_bytes(item): item for item in (*old, *new)}
        self.roots.append(trust.sign_root(root, list(signers.values())))
        self.root_keys = new


class Origin:
    """A Transport that serves a feed from memory. `fault` hooks see (kind, name, data) and may change or raise."""

    def __init__(self, feed: Feed, name: str = "memory:origin") -> None:
        self.feed, self.label = feed, name
        self.requests: Counter[str] = Counter()
        self.fault: Callable[[str, str, bytes | None], bytes | None] | None = None
        self.holds = True
        self.delay_s = 0.0
        self.changed = trio.Event()
        self.polls: list[tuple[float, int | None, int, str | None]] = []

    @property
    def name(self) -> str:
        return self.label

    def announce(self) -> None:
        """Answer those who wait for a newer head."""
        self.changed.set()
        self.changed = trio.Event()

    async def serve(self, kind: str, name: str, data: bytes | None) -> bytes | None:
        self.requests[kind] += 1
        await trio.sleep(self.delay_s)
        return self.fault(kind, name, data) if self.fault is not None else data

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        self.polls.append((trio.current_time(), after, wait_s, etag))
        if wait_s and self.holds:
            with trio.move_on_after(wait_s):
                while after is not None and self.feed.version <= after:
                    await self.changed.wait()
        data = await self.serve("head", "", self.feed.head)
        if data is None:
            raise MissingError("head: no such thing")
        tag = hashlib.sha256(data).hexdigest()[:16]
        return None if tag == etag else HeadReply(data, tag)

    async def trust(self, number: int) -> bytes | None:
        found = self.feed.roots[number - 1] if number <= len(self.feed.roots) else None
        return await self.serve("trust", str(number), found)

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        data = await self.serve("blob", ref.name, self.feed.blobs.get(ref.sha256))
        if data is None:
            raise MissingError(f"{what}: no such blob")
        return data

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@dataclass
class Device:
    """A dataset's configuration on a device with its own directory. clock_s: what its system clock says."""

    directory: Path
    trust: str
    name: str = "catalog"
    origin: tuple[str, ...] = ("memory:origin",)
    slices: tuple[str, ...] = ("core",)
    seed: str = ""
    poll_s: int = 30
    require: tuple[str, ...] = ()
    clock_s: float = NOW + 10

    @classmethod
    def of(cls, tmp_path: Path, feed: Feed, **fields: object) -> Device:
        path = tmp_path / "root.trust"
        path.write_bytes(feed.roots[0])
        return cls(tmp_path / "data", str(path), feed.dataset, **fields)  # type: ignore[arg-type]

    def clock(self) -> Clock:
        return Clock(lambda: self.clock_s)

    def replication(
        self, writer: Writer, status: DatasetStatus, control: Control | None = None, device_id: str = ""
    ) -> Replication:
        subscription = Subscription(
            self.name, self.origin, self.trust, self.slices, self.seed, self.poll_s, self.require, device_id
        )
        return Replication(subscription, writer, status, self.clock(), control or Control())


def failing(kind: str, error: Callable[[], EdgedError], times: int = 1 << 30) -> Callable[..., bytes | None]:
    """A fault hook that raises for the first `times` requests of `kind`."""
    left = times

    def fault(asked: str, name: str, data: bytes | None) -> bytes | None:
        nonlocal left
        if asked == kind and left:
            left -= 1
            raise error()
        return data

    return fault


def swapping(kind: str, change: Callable[[bytes], bytes]) -> Callable[..., bytes | None]:
    """A fault hook that changes the bytes of every answer of `kind`."""

    def fault(asked: str, name: str, data: bytes | None) -> bytes | None:
        return change(data) if asked == kind and data is not None else data

    return fault


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
