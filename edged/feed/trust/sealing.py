"""AES-256-GCM of hops that go out before their version is live (NIST SP 800-38D).

One key seals the hops of one version ahead. The nonce is made from what the hop is of, which is authenticated as well:
a key never meets one nonce twice, as it seals one hop a slice and is drawn anew for whatever is prepared anew.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.errors import WireError
from edged.feed import cbor
from edged.feed.ahead.sealed import TAG_BYTES

PURPOSE = "edged/1 ahead"
NONCE_BYTES = 12


def bound_to(dataset: str, slice_name: str, from_version: int, to_version: int) -> bytes:
    """What a sealed hop is bound to: taken for another one it does not open."""
    return cbor.encode([PURPOSE, dataset, slice_name, from_version, to_version])


def nonce_of(bound: bytes) -> bytes:
    return hashlib.sha256(bound).digest()[:NONCE_BYTES]


def seal(key: bytes, bound: bytes, hop: bytes) -> bytes:
    """`hop` encrypted, the tag at its end. bound: bound_to()."""
    return AESGCM(key).encrypt(nonce_of(bound), hop, bound)


def unseal(key: bytes, bound: bytes, data: bytes) -> bytes:
    """The hop in a blob whose hash has been checked. Raises WireError."""
    if len(data) < TAG_BYTES:
        raise WireError(f"open sealed hop: {len(data)} bytes, expected at least {TAG_BYTES}; it is fetched otherwise")
    try:
        return AESGCM(key).decrypt(nonce_of(bound), data, bound)
    except InvalidTag as fault:
        raise WireError(
            "open sealed hop: the key in the head does not open it; the version is fetched otherwise"
        ) from fault
