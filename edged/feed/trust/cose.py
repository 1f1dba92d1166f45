"""COSE_Sign1 and COSE_Sign (RFC 9052 sections 4.1 and 4.2) with Ed25519 (RFC 9053 section 2.2), no more of COSE.

Signatures are checked over the bytes as received; nothing inside the payload is looked at before that. What is signed
is bound to its purpose by `external_aad`, so that a head can never pass for a root of trust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NewType

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edged.errors import TrustError, UnknownKeyError, WireError
from edged.feed import cbor, limits

KeyId = NewType("KeyId", bytes)

SIGN1_TAG, SIGN_TAG = b"\xd2", b"\xd8\x62"  # tags 18 and 98
ALGORITHM, KEY_ID, EDDSA = 1, 4, -8
PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 32, 64


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(public: bytes) -> KeyId:
    """The first 8 bytes of SHA-256 over the raw public key. A hint for finding the key, never proof of anything."""
    return KeyId(hashlib.sha256(public).digest()[:8])


def sign1(payload: bytes, key: Ed25519PrivateKey, aad: bytes) -> bytes:
    """A tagged COSE_Sign1."""
    protected = cbor.encode({ALGORITHM: EDDSA, KEY_ID: key_id(public_bytes(key))})
    signature = key.sign(cbor.encode(["Signature1", protected, aad, payload]))
    return SIGN1_TAG + cbor.encode([protected, {}, payload, signature])


def verify1(data: bytes, keys: Mapping[KeyId, bytes], aad: bytes, what: str) -> bytes:
    """The payload of a COSE_Sign1 that one of `keys` (id to raw public key) signed.

    Raises WireError for a malformed envelope, UnknownKeyError for a key that is not in `keys`, TrustError for a
    signature that does not hold.
    """
    protected, payload, signature = open_sign1(data, what)
    signer = signer_of(protected, what)
    if signer not in keys:
        raise UnknownKeyError(
            f"{what}: signed by key {signer.hex()}, which the root of trust does not name: the trust file "
            "is another publisher's, or an old key was used"
        )
    check_signature(keys[signer], signature, ["Signature1", protected, aad, payload], what)
    return payload


def open_sign1(data: bytes, what: str) -> tuple[bytes, bytes, bytes]:
    """(protected header, payload, signature) of a COSE_Sign1, nothing of it checked. Raises WireError.

    Read byte by byte rather than by the CBOR decoder: of the 1 MiB that a head may have, a stranger could make a
    decoder build a million objects before the signature is looked at.
    """
    refuse_tag(data, SIGN1_TAG, what)
    if data[1:2] != b"\x84":
        raise WireError(f"{what}: not a COSE_Sign1 of four fields")
    protected, at = read_bytes(data, 2, what)
    if data[at : at + 1] != b"\xa0":
        raise WireError(f"{what}: expected an empty unprotected header")
    payload, at = read_bytes(data, at + 1, what)
    signature, at = read_bytes(data, at, what)
    if at != len(data):
        raise WireError(f"{what}: {len(data) - at} bytes follow it")
    return protected, payload, signature


def read_bytes(data: bytes, at: int, what: str) -> tuple[bytes, int]:
    """The byte string (major type 2, RFC 8949 section 3.1) at `at`, and where it ends. Raises WireError."""
    first = data[at] if at < len(data) else 0
    if first >> 5 != 2:
        raise WireError(f"{what}: expected a byte string at {at}")
    extra = {24: 1, 25: 2, 26: 4}.get(first & 31, 0)
    size = int.from_bytes(data[at + 1 : at + 1 + extra], "big") if extra else first & 31
    least = {0: 0, 1: 24, 2: 1 << 8, 4: 1 << 16}[extra]
    start = at + 1 + extra
    if (not extra and first & 31 > 23) or size < least or start + size > len(data):
        raise WireError(f"{what}: a byte string that is cut short, or not in its shortest form")
    return data[start : start + size], start + size


def refuse_tag(data: bytes, tag: bytes, what: str) -> None:
    if not data.startswith(tag):
        raise WireError(f"{what}: does not begin with CBOR tag {tag.hex()}; not a signed edged document")


def sign_many(payload: bytes, keys: list[Ed25519PrivateKey], aad: bytes) -> bytes:
    """A tagged COSE_Sign with one signature a key."""
    signatures = []
    for key in keys:
        protected = cbor.encode({ALGORITHM: EDDSA, KEY_ID: key_id(public_bytes(key))})
        signature = key.sign(cbor.encode(["Signature", b"", protected, aad, payload]))
        signatures.append([protected, {}, signature])
    return SIGN_TAG + cbor.encode([b"", {}, payload, signatures])


def verify_many(data: bytes, keys: Mapping[KeyId, bytes], aad: bytes, what: str) -> tuple[bytes, frozenset[KeyId]]:
    """The payload of a COSE_Sign and the ids of those of `keys` whose signature on it holds.

    A signature by a key outside `keys` is passed over; a bad one by a key of `keys` raises TrustError. The payload is
    worth nothing until the caller has found enough signers.
    """
    match envelope(data, SIGN_TAG, what):
        case [b"", dict() as unprotected, bytes() as payload, list() as signatures] if not unprotected:
            pass
        case _:
            raise WireError(f"{what}: not a COSE_Sign of four fields")
    if len(signatures) > limits.ROOT_KEYS:
        raise WireError(f"{what}: {len(signatures)} signatures, at most {limits.ROOT_KEYS} are allowed")
    signers = set()
    for item in signatures:
        match item:
            case [bytes() as protected, dict() as unprotected, bytes() as signature] if not unprotected:
                signer = signer_of(protected, what)
            case _:
                raise WireError(f"{what}: not a COSE_Signature of three fields")
        if signer in keys:
            check_signature(keys[signer], signature, ["Signature", b"", protected, aad, payload], what)
            signers.add(signer)
    return payload, frozenset(signers)


def envelope(data: bytes, tag: bytes, what: str) -> Any:
    refuse_tag(data, tag, what)
    return cbor.decode_document(data[len(tag) :], what, depth=8)


def signer_of(protected: bytes, what: str) -> KeyId:
    match cbor.decode_document(protected, what, depth=2):
        case {1: -8, 4: bytes() as signer} as header if len(header) == 2:
            return KeyId(signer)
    raise WireError(f"{what}: expected the protected header {{1: -8, 4: key id}} (EdDSA), got {protected.hex():.80}")


def check_signature(public: bytes, signature: bytes, structure: list[Any], what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, cbor2.dumps(structure, canonical=True))
    except (InvalidSignature, ValueError) as fault:
        raise TrustError(
            f"{what}: the signature does not hold; it was altered on the way or not signed by that key"
        ) from fault
