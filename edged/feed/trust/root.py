"""Roots of trust and what they vouch for, by the rules of the TUF specification (sections 5.3 and 6.1) on our forms.

`verify_root` and `verify_head` are the only places where bytes from strangers become trusted values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.errors import NewerRootError, TrustError, WireError
from edged.feed import cbor, head, limits
from edged.feed.trust import cose
from edged.feed.trust.cose import KeyId
from edged.units import span_text

FORMAT = 2
AAD = b"edged/1 trust"


@dataclass(frozen=True, slots=True)
class Role:
    """threshold: how many of `keys` (id to raw Ed25519 public key) must sign."""

    threshold: int
    keys: Mapping[KeyId, bytes]


@dataclass(frozen=True, slots=True)
class Root:
    """Root of trust `number`: who may sign the next root (`roots`, kept offline) and who may sign heads (`heads`).

    signed_at, expires_at: seconds since 1970 UTC; from the latter on it vouches for no head, only for its successor.
    """

    number: int
    signed_at: int
    expires_at: int
    roots: Role
    heads: Role


@dataclass(frozen=True, slots=True)
class VerifiedHead:
    """A head whose signature holds under `root`. Made only by `verify_head`. `data` is what was received."""

    head: head.Head
    signer: KeyId
    root: int
    data: bytes


def role_of(threshold: int, publics: list[bytes]) -> Role:
    return Role(threshold, {cose.key_id(public): public for public in publics})


def encode_root(root: Root) -> bytes:
    document = {1: FORMAT, 2: root.number, 3: root.signed_at, 6: root.expires_at}
    for field, role in ((4, root.roots), (5, root.heads)):
        document[field] = [role.threshold, sorted(role.keys.values())]  # type: ignore[assignment]
    return cbor.encode(document)


def sign_root(root: Root, keys: list[Ed25519PrivateKey]) -> bytes:
    return cose.sign_many(encode_root(root), keys, AAD)


def decode_root(payload: bytes) -> Root:
    document = cbor.decode_document(payload, "root of trust", depth=4)
    match document:
        case {
            1: 2,
            2: int() as number,
            3: int() as signed_at,
            4: roots,
            5: heads,
            6: int() as expires_at,
        } if number >= 1 and 0 <= signed_at < expires_at:
            return Root(number, signed_at, expires_at, decode_role(roots, "root"), decode_role(heads, "head"))
    raise WireError(f"decode root of trust: unknown format or a missing field; this edged reads format {FORMAT}")


def decode_role(item: object, what: str) -> Role:
    match item:
        case [int() as threshold, list() as publics] if 1 <= threshold <= len(publics) <= limits.ROOT_KEYS:
            if all(isinstance(public, bytes) and len(public) == cose.PUBLIC_KEY_BYTES for public in publics):
                role = role_of(threshold, publics)
                if len(role.keys) == len(publics) and (what == "root" or threshold == 1):
                    return role
    # A head carries one signature, so a threshold above 1 would promise what nobody checks.
    raise WireError(
        f"decode root of trust: the {what} role is not [threshold, distinct 32-byte keys] (of heads the threshold is 1)"
    )


def read_root(data: bytes, what: str) -> Root:
    """A root from a place that is trusted by itself (the firmware's trust file), signed by its own threshold.

    Raises WireError or TrustError naming `what`.
    """
    return check_signers(data, what, None)


def verify_root(data: bytes, trusted: Root) -> Root:
    """The root that follows `trusted`: numbered one higher, signed by a threshold of the keys of both.

    Raises WireError or TrustError.
    """
    what = f"root of trust {trusted.number + 1}"
    root = check_signers(data, what, trusted)
    if root.number != trusted.number + 1:
        raise TrustError(f"{what}: is numbered {root.number}; roots are taken one by one")
    return root


def check_signers(data: bytes, what: str, trusted: Root | None) -> Root:
    if len(data) > limits.TRUST_BYTES:
        raise WireError(f"{what}: {len(data)} bytes, at most {limits.TRUST_BYTES} are allowed")
    if trusted is not None:
        # The old keys first: nothing of the payload is looked at before a threshold of them has signed it.
        require(trusted.roots, cose.verify_many(data, trusted.roots.keys, AAD, what)[1], what, "of the root before it")
        payload = cose.verify_many(data, trusted.roots.keys, AAD, what)[0]
    else:
        payload = cose.verify_many(data, {}, AAD, what)[0]
    root = decode_root(payload)
    require(root.roots, cose.verify_many(data, root.roots.keys, AAD, what)[1], what, "of its own")
    return root


def require(role: Role, signers: frozenset[KeyId], what: str, whose: str) -> None:
    if len(signers) < role.threshold:
        raise TrustError(f"{what}: signed by {len(signers)} of the {role.threshold} root keys {whose} that it needs")


def sign_head(document: head.Head, key: Ed25519PrivateKey) -> bytes:
    data = cose.sign1(head.encode_head(document), key, head.AAD)
    if len(data) > limits.HEAD_BYTES:
        raise WireError(
            f"head of {document.dataset}: {len(data)} bytes, at most {limits.HEAD_BYTES} are allowed; use fewer slices"
        )
    return data


def verify_head(data: bytes, root: Root, dataset: str) -> VerifiedHead:
    """The head of `dataset` from received bytes, if a head key of `root` signed it.

    Says nothing of rollback or of time; sync/core judges those against what the replica has seen.
    Raises WireError, UnknownKeyError (a newer root may know the key), NewerRootError for a head that names a later
    root than `root`, or TrustError.
    """
    what = f"head of {dataset}"
    if len(data) > limits.HEAD_BYTES:
        raise WireError(f"{what}: {len(data)} bytes, at most {limits.HEAD_BYTES} are allowed")
    payload = cose.verify1(data, root.heads.keys, head.AAD, what)
    document = head.decode_head(payload)
    if document.dataset != dataset:
        raise TrustError(
            f"{what}: is signed for dataset {document.dataset!r}; correct `[[datasets]] name` or `origin`, unless "
            "it was put in the wrong place, or replayed"
        )
    if document.root > root.number:
        # The later root may have taken away the key that signed it.
        raise NewerRootError(
            f"{what}, version {document.version}: stands under root of trust {document.root}, known here is root "
            f"{root.number}; the origin has to give those between"
        )
    return VerifiedHead(document, signer(data, what), root.number, data)


def expired(root: Root, time_s: float) -> NewerRootError | None:
    """What is to be said where `root` has run out at `time_s` (TUF specification 5.3.10)."""
    if time_s < root.expires_at:
        return None
    return NewerRootError(
        f"root of trust {root.number}: expired {span_text(time_s - root.expires_at)} ago, so it vouches for no head; "
        "set this device's clock if it is wrong, else the publisher has to renew the root: edged origin rotate-key"
    )


def signer(data: bytes, what: str) -> KeyId:
    return cose.signer_of(cose.open_sign1(data, what)[0], what)
