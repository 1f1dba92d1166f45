"""Compression Dictionary Transport (RFC 9842): answers compressed with samples of their collection, coding `dcz`.

Each collection has a dictionary of its own, which shows nothing of the others: the samples of it in the dictionary that
was trained on its slice. The frames in the packs are compressed with all of that, entropy tables included, and do not
decode with less. So answers are compressed anew, once, and remembered like any other coding.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from threading import Lock

from edged.feed import zstd
from edged.feed.coding.knowledge import samples
from edged.http.request import encode
from edged.serve.allowed import Scope, scope_of, whole_of
from edged.serve.answers.negotiate import Format
from edged.serve.catalog import View

DICTIONARY = Format("dictionary", "application/octet-stream")
# A skippable frame of 32 bytes, which are the dictionary's SHA-256.
HEADER = zstd.SKIPPABLE_MAGIC + (32).to_bytes(4, "little")
BODY = zstd.FrameForm(level=6, typical_bytes=1000)
LIFE = (
    b"public, max-age=31536000, immutable"  # a browser uses a dictionary as long as it is fresh; its name is its hash
)


LEAST_BYTES = 512  # of samples; with fewer, what an answer gains is less than the head of dcz


def split(dictionary: bytes) -> dict[str, bytes]:
    """The samples of each collection in a slice's dictionary, where they are enough."""
    found: dict[str, bytearray] = {}
    for collection, value in samples(dictionary):
        found.setdefault(collection, bytearray()).extend(value)
    return {collection: bytes(data) for collection, data in found.items() if len(data) >= LEAST_BYTES}


class Trained:
    """The dictionary of one collection for as long as its slice has it."""

    def __init__(self, dataset: str, collection: str, data: bytes) -> None:
        self.sha256 = sha256(data).digest()
        self.data = data
        self.available = ":" + b64encode(self.sha256).decode() + ":"  # how a client names it (RFC 9842 section 2.2)
        path = f"/v1/{encode(dataset)}/{encode(collection)}"
        self.match = f'match="{path}*"'.encode()
        self.link = f'<{path}?dictionary={self.sha256.hex()}>; rel="compression-dictionary"'.encode()
        self.lock = Lock()  # a compressor serves one thread at a time
        self.engine: zstd.Compressor | None = None

    def compress(self, body: bytes) -> bytes:
        """A dcz stream (RFC 9842 section 5)."""
        with self.lock:
            if self.engine is None:
                self.engine = zstd.compressor(BODY, zstd.prepare(self.data, raw=True))
            return HEADER + self.sha256 + self.engine.compress(body)


class OfVersion:
    """The dictionaries of one view. sources: by the SHA-256 of a slice's dictionary those made of it; former: so too of
    the view before.
    """

    def __init__(self, view: View, former: Mapping[bytes, Mapping[str, Trained]]) -> None:
        self.view = view
        self.former = former
        self.sources: dict[bytes, Mapping[str, Trained]] = {}
        self.found: dict[str, Trained | None] = {}

    def of(self, collection: str) -> Trained | None:
        if collection not in self.found:
            self.found[collection] = self.made_of(*self.view.dictionary(collection)).get(collection)
        return self.found[collection]

    def made_of(self, source: bytes, data: bytes) -> Mapping[str, Trained]:
        made = self.sources.get(source, self.former.get(source))
        if made is None:
            made = {name: Trained(self.view.dataset, name, own) for name, own in split(data).items()}
        self.sources[source] = made
        return made


class Dictionaries:
    """The dictionaries of the collections of each dataset's present version."""

    def __init__(self) -> None:
        self.known: dict[Scope, OfVersion] = {}

    def of(self, view: View, collection: str) -> Trained | None:
        """None where a collection of the view has none. Raises DamageError."""
        whole = whole_of(view)
        known = self.known.get(scope_of(view))
        if known is None or known.view is not whole:
            former = known.sources if known is not None else {}
            known = self.known[scope_of(view)] = OfVersion(whole, former)
        return known.of(collection)

    def named(self, view: View) -> dict[str, str]:
        """The SHA-256 of each collection's dictionary, in hexadecimal digits. Raises DamageError."""
        found = ((collection, self.of(view, collection)) for collection in sorted(view.collections))
        return {collection: trained.sha256.hex() for collection, trained in found if trained is not None}


def offers_dcz(accept_encoding: str | None) -> bool:
    """Whether a client may be one for dictionaries."""
    return accept_encoding is not None and "dcz" in accept_encoding.lower()
