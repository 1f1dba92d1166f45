"""Public files in an S3-compatible object store: the head swapped by a conditional put, everything else before it.

A store has to keep the conditions `If-Match` and `If-None-Match: *`, or two publishers could undo each other's heads
unseen. Not all do (OpenStack Swift refuses them, `rclone serve s3` and s3rver ignore them), so that is tried out first.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from edged.errors import BusyError, OriginError, StoreError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.names import NAME
from edged.feedserving.app import HEAD_LIFE
from edged.feedserving.files import BLOB, COSE, IMMUTABLE
from edged.files import write_durable
from edged.origin.declared.feed import PublicRules
from edged.origin.shelves.objectstore import Answered, Means, ObjectStore

logger = logging.getLogger("edged.origin")

PROBE_BYTES = 64
UNMET = 412
NO_CONDITION: dict[str, str] = {}
UNHEARD = (400, 405, 501)  # from stores that know no conditions
HEARD = (UNMET, *UNHEARD)


def described(kind: bytes, life: bytes) -> dict[str, str]:
    return {"content-type": kind.decode(), "cache-control": life.decode()}


HEAD, ROOT, CONTENT = described(COSE, HEAD_LIFE), described(COSE, IMMUTABLE), described(BLOB, IMMUTABLE)


class S3Shelf:
    """One dataset below the bucket's prefix. conditional: whether the store keeps publishers apart."""

    is_final = False  # a put whose answer was lost may still come to pass

    def __init__(self, shelves: S3Shelves, dataset: str) -> None:
        self.shelves, self.bucket, self.dataset = shelves, shelves.bucket, dataset
        self.where = f"{shelves.bucket.url}/{dataset}"
        self.tag: str | None = None  # the entity tag of the head that was last seen, None: there was none
        self.staged: bytes | None = None

    def make(self) -> None:
        self.shelves.prove()

    def head(self) -> bytes | None:
        answer = self.bucket.get(f"{self.dataset}/head", limits.HEAD_BYTES)
        self.tag = None if answer is None else tag_of(answer, self.where)
        return None if answer is None else answer.body

    def stage_head(self, data: bytes) -> None:
        self.staged = data

    def swap_head(self) -> None:
        assert self.staged is not None, "a head is staged before it is swapped in"
        condition = NO_CONDITION
        if self.shelves.conditional:
            condition = {"if-none-match": "*"} if self.tag is None else {"if-match": self.tag}
        fault: StoreError | None = None
        try:
            answer = self.bucket.put(f"{self.dataset}/head", self.staged, HEAD | condition, (UNMET,))
            if answer.status != UNMET:
                self.tag = answer.fields.get("etag") or self.tag
                return
        except StoreError as raised:
            fault = raised
        # An earlier try of the same put may have come to pass, its answer being lost.
        if self.head() == self.staged:
            return
        raise fault or BusyError(
            f"swap the head of {self.where}: another publisher has put one there meanwhile; publish a dataset from one "
            "FEED_DIR alone"
        )

    def unstage_head(self) -> None:
        self.staged = None

    def settle_head(self) -> None:
        """What a store has answered for is durable."""

    def root(self, number: int) -> bytes | None:
        answer = self.bucket.get(f"{self.dataset}/trust/{number}", limits.TRUST_BYTES)
        return None if answer is None else answer.body

    def put_root(self, number: int, data: bytes) -> None:
        self.bucket.put(f"{self.dataset}/trust/{number}", data, ROOT)

    def holds(self, ref: BlobRef) -> bool:
        answer = self.bucket.get(self.key(ref.name), limits.BLOB_BYTES)
        return answer is not None and BlobRef.of(answer.body) == ref

    def read(self, ref: BlobRef) -> bytes:
        answer = self.bucket.get(self.key(ref.name), limits.BLOB_BYTES)
        if answer is None:
            raise StoreError(f"read {self.where}/blobs/{ref.name}: there is no such object")
        return ref.check(answer.body, "blob of the feed")

    def write(self, ref: BlobRef, data: bytes) -> None:
        self.bucket.put(self.key(ref.name), data, CONTENT)

    def settle_blobs(self) -> None:
        """As for the head."""

    def names(self) -> set[str]:
        below = self.key("")
        return {found.key.removeprefix(below) for found in self.bucket.listed(below)}

    def delete(self, names: Iterable[str]) -> None:
        try:
            self.bucket.delete(map(self.key, names))
        except StoreError as fault:
            logger.warning("%s; a later sweep deletes what nothing names", fault)

    def sweep(self, known: Collection[str], older_s: float) -> None:
        below, oldest = self.key(""), time.time() - older_s
        self.bucket.delete(
            found.key
            for found in self.bucket.listed(below)
            if found.key.removeprefix(below) not in known and (not older_s or found.modified < oldest)
        )

    def remove_head(self) -> None:
        self.bucket.delete([f"{self.dataset}/head"])

    def remove(self) -> None:
        self.bucket.delete([found.key for found in self.bucket.listed(f"{self.dataset}/")])

    def key(self, name: str) -> str:
        return f"{self.dataset}/blobs/{name}"


class S3Shelves:
    """The datasets below a bucket's prefix. proof: the file that says which store was found to keep conditions."""

    def __init__(self, rules: PublicRules, proof: Path, means: Means | None = None) -> None:
        self.bucket, self.proof = ObjectStore(rules, means=means), proof
        self.where = self.bucket.url
        self.conditional = not rules.unsafe_single_publisher

    def make(self) -> None:
        """There is nothing to make."""

    def datasets(self) -> list[str]:
        # SeaweedFS goes on naming a folder whose last object is gone.
        names = sorted(name for name in set(self.bucket.folders()) if NAME.fullmatch(name))
        return [name for name in names if self.of(name).head() is not None]

    def of(self, dataset: str) -> S3Shelf:
        return S3Shelf(self, dataset)

    def prove(self) -> None:
        """Try once whether this store keeps conditions. Raises OriginError if not."""
        if not self.conditional or (self.proof.is_file() and self.proof.read_text() == self.where):
            return
        key = f".edged-probe-{secrets.token_hex(8)}"
        data = secrets.token_bytes(PROBE_BYTES)
        try:
            new = {"if-none-match": "*"}
            found = [self.bucket.put(key, data, new, UNHEARD).status, self.bucket.put(key, data, new, HEARD).status]
            found.append(self.bucket.put(key, data, {"if-match": '"00000000000000000000000000000000"'}, HEARD).status)
        finally:
            self.bucket.delete([key])
        if not 200 <= found[0] < 300 or found[1:] != [UNMET, UNMET]:
            raise OriginError(
                f"publish to {self.where}: this store does not keep two publishers apart: a put if there is nothing, "
                f"the same again, and a put over something else were answered {', '.join(map(str, found))}, expected "
                f"200, {UNMET}, {UNMET} (If-None-Match, If-Match); use another store, or, if nobody else ever "
                "publishes there, set unsafe_single_publisher = true in [public] of feed.toml"
            )
        write_durable(self.proof, self.where.encode())


def tag_of(answer: Answered, where: str) -> str:
    """Raises StoreError where the store names no version of the head: then it cannot be swapped safely."""
    tag = answer.fields.get("etag", "")
    if not tag:
        raise StoreError(f"read the head of {where}: the store names no ETag; is this an S3-compatible store?")
    return tag
