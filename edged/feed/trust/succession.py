"""The roots of trust that a device has come to know, kept so that they prove themselves each time they are read.

Kept is the whole succession from the trust file on (deterministic CBOR: a list of the signed documents), not the
newest alone: so a replaced trust file takes effect at once, where a lone newest root would overrule it for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.trust.root import Root, read_root, verify_root

SUCCESSION = 1024  # roots kept; a change of keys every week for twenty years


@dataclass(frozen=True, slots=True)
class RootSuccession:
    """documents: the signed roots as received, oldest first; newest: the last of them, verified."""

    documents: tuple[bytes, ...]
    newest: Root

    def followed_by(self, document: bytes) -> RootSuccession:
        """With the next root. Raises WireError or TrustError if it is not the rightful one."""
        newest = verify_root(document, self.newest)
        if len(self.documents) >= SUCCESSION:
            raise WireError(f"root of trust {newest.number}: the {SUCCESSION}th; install a newer trust file")
        return RootSuccession((*self.documents, document), newest)

    def encode(self) -> bytes:
        return cbor.encode(list(self.documents))


def decode_roots(kept: bytes, what: str) -> list[bytes]:
    """The documents of `RootSuccession.encode()`, unverified. Raises WireError."""
    if len(kept) > SUCCESSION * limits.TRUST_BYTES:
        raise WireError(f"decode {what}: {len(kept)} bytes are too many")
    documents = cbor.decode_document(kept, what, depth=3)
    if isinstance(documents, list) and documents and all(isinstance(document, bytes) for document in documents):
        return documents
    raise WireError(f"decode {what}: not a list of signed documents")


def restore(trust_file: bytes, kept: bytes | None, what: str) -> RootSuccession:
    """The newest root to which the trust file leads by what was kept.

    Where `kept` does not contain the trust file (another one was installed), it counts for nothing.
    Raises WireError or TrustError, naming `what`, if the trust file is not one or what was kept does not hold.
    """
    return continued(RootSuccession((trust_file,), read_root(trust_file, what)), kept, what)[0]


def continued(start: RootSuccession, kept: bytes | None, what: str) -> tuple[RootSuccession, bool]:
    """`start`, the trust file's root alone, with the roots kept that follow it; and whether what was kept is whole and
    of another succession, which tells that the trust file was replaced by another publisher's.

    An older trust file of the same succession (a factory reset) is no replacement: what was kept then begins later.
    Raises as `restore`.
    """
    if kept is None:
        return start, False
    documents, trust_file, roots = decode_roots(kept, f"{what}, roots kept"), start.documents[0], start
    if trust_file not in documents:
        first = read_root(documents[0], f"{what}, roots kept")
        return start, first.number <= start.newest.number
    for document in documents[documents.index(trust_file) + 1 :]:
        roots = roots.followed_by(document)
    return roots, False
