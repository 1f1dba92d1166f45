"""Compression Dictionary Transport (RFC 9842): answers compressed with samples of their collection, coding `dcz`.

Each collection has a dictionary of its own, which shows nothing of the others: the samples of it in the dictionary that
was trained on its slice. The frames in the packs are compressed with all of that, entropy tables included, and do not
decode with less. So answers are compressed anew, once, and remembered like any other coding.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from threading import Lock

from edged.feed import zstd
from edged.feed.coding.knowledge import samples
from edged.http.request import encode
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


def samples_of(dictionary: bytes, collection: str) -> bytes:
    """The samples of one collection in a slice's dictionary."""
    return b"".join(value for name, value in samples(dictionary) if name == collection)


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


class Dictionaries:
    """The dictionaries of the collections of each dataset's present version.

    found: by dataset its view and what was found for it; made: by dataset and collection the SHA-256 of the slice's
    dictionary that one was made of.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[View, dict[str, Trained | None]]] = {}
        self.made: dict[tuple[str, str], tuple[bytes, Trained | None]] = {}

    def of(self, view: View, collection: str) -> Trained | None:
        """None where a collection of the view has none. Raises DamageError."""
        held, found = self.found.get(view.dataset, (None, {}))
        if held is not view:
            found = {}
            self.found[view.dataset] = (view, found)
            for name in [*self.made]:
                if name[0] == view.dataset and name[1] not in view.collections:
                    self.made.pop(name, None)
        if collection not in found:
            found[collection] = self.make(view, collection)
        return found[collection]

    def make(self, view: View, collection: str) -> Trained | None:
        source, data = view.dictionary(collection)
        name = (view.dataset, collection)
        made = self.made.get(name)
        if made is None or made[0] != source:
            own = samples_of(data, collection)
            made = (source, Trained(*name, own) if len(own) >= LEAST_BYTES else None)
            self.made[name] = made
        return made[1]


def offers_dcz(accept_encoding: str | None) -> bool:
    """Whether a client may be one for dictionaries."""
    return accept_encoding is not None and "dcz" in accept_encoding.lower()
