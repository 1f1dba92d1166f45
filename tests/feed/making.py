"""Heads, chains and roots for tests, the same in every run."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.feed.blob import BlobRef
from edged.feed.chain import Chain, SliceChain, SnapshotRef
from edged.feed.head import Head, HopRef, SliceHead
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.feed.trust import cose
from edged.feed.trust import root as trust

ROOT_KEY, HEAD_KEY, OTHER_KEY = (
    Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name).digest()) for name in (b"root", b"head", b"other")
)
DIGEST = bytes(range(16))


def public(key: Ed25519PrivateKey) -> bytes:
    return cose.public_bytes(key)


def blob(size: int = 100) -> BlobRef:
    return BlobRef(hashlib.sha256(str(size).encode()).digest(), size)


def head() -> Head:
    hops = (HopRef(1, 7, blob(400)), HopRef(6, 7, BlobRef.of(b"a hop"), b"a hop"))
    return Head(
        dataset="catalog",
        version=7,
        signed_at=1_800_000_000,
        fresh_s=60,
        expires_s=600,
        root=1,
        schema_version=2,
        chain=blob(),
        slices={"core": SliceHead(7, DIGEST, 12, hops), "kids": SliceHead(0, DIGEST, 0)},
        takedowns=blob(5),
    )


def chain() -> Chain:
    snapshot = SnapshotRef(6, DIGEST, 12, blob(64), (blob(10), blob(11)))
    schema = Schema(
        {"titles": CollectionSchema(index=("year",), text=("title", "cast"))},
        {"tv": {"titles": ViewRule(("title",), {"plot": 100}, {"poster.w342": "poster"}, {"name": ("pt", "en")})}},
    )
    entry = SliceChain((snapshot,), (HopRef(6, 7, blob(3)),), (blob(65),))
    return Chain("catalog", 7, schema, {"core": entry, "kids": SliceChain(())})


def root(number: int = 1, *, threshold: int = 1) -> trust.Root:
    roots = trust.role_of(threshold, [public(ROOT_KEY), public(OTHER_KEY)])
    return trust.Root(number, 1_790_000_000, 1_850_000_000, roots, trust.role_of(1, [public(HEAD_KEY)]))
