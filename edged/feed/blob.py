"""Blobs: immutable files named by their SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from edged.errors import HashError, WireError
from edged.feed import limits


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A blob's name and size. sha256: 32 bytes; size: in bytes, as the blob travels."""

    sha256: bytes
    size: int

    @property
    def name(self) -> str:
        """The file's name below `<base>/blobs/`."""
        return self.sha256.hex()

    @classmethod
    def of(cls, data: bytes) -> BlobRef:
        return cls(hashlib.sha256(data).digest(), len(data))

    def check(self, data: bytes, what: str) -> bytes:
        """`data` if it is this blob. Raises HashError naming `what`."""
        if len(data) != self.size:
            raise HashError(
                f"blob {self.name[:16]} ({what}): expected {self.size} bytes, got {len(data)}; fetch it again"
            )
        got = hashlib.sha256(data).hexdigest()
        if got != self.name:
            raise HashError(f"blob {self.name[:16]} ({what}): its SHA-256 is {got[:16]}…; fetch it again")
        return data

    def to_cbor(self) -> list[Any]:
        return [self.size, self.sha256]

    @classmethod
    def from_cbor(cls, item: object, what: str) -> BlobRef:
        match item:
            case [int() as size, bytes() as sha256] if len(sha256) == 32 and 0 <= size <= limits.BLOB_BYTES:
                return cls(sha256, size)
        raise WireError(f"decode {what}: expected [size up to {limits.BLOB_BYTES}, 32-byte SHA-256], got {item!r:.80}")
