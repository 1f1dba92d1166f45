"""Compression Dictionary Transport (RFC 9842): answers compressed with the slice's trained dictionary, coding `dcz`.

A client of dcz takes the dictionary as raw content, by the RFC's only type. The frames in the packs are compressed with
the same bytes as a formatted dictionary, whose entropy tables they refer to; as raw content they do not decode. So
answers are compressed anew, once, and remembered like any other coding.
"""

from __future__ import annotations

from base64 import b64encode
from threading import Lock

from edged.feed import zstd
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


class Trained:
    """The dictionary of one dataset for as long as its slice has it."""

    def __init__(self, dataset: str, sha256: bytes, data: bytes) -> None:
        self.sha256 = sha256
        self.data = data
        self.available = ":" + b64encode(sha256).decode() + ":"  # how a client names it (RFC 9842 section 2.2)
        self.match = f'match="/v1/{encode(dataset)}/*"'.encode()
        self.link = f'</v1/{encode(dataset)}?dictionary={sha256.hex()}>; rel="compression-dictionary"'.encode()
        self.lock = Lock()  # a compressor serves one thread at a time
        self.engine: zstd.Compressor | None = None

    def compress(self, body: bytes) -> bytes:
        """A dcz stream (RFC 9842 section 5)."""
        with self.lock:
            if self.engine is None:
                self.engine = zstd.compressor(BODY, zstd.prepare(self.data, raw=True))
            return HEADER + self.sha256 + self.engine.compress(body)


class Dictionaries:
    """The dictionary of each dataset's present version."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[View, Trained | None]] = {}

    def of(self, view: View) -> Trained | None:
        """None where the dataset has none. Raises DamageError."""
        known = self.known.get(view.dataset)
        if known is not None and known[0] is view:
            return known[1]
        sha256, data = view.dictionary()
        trained = known[1] if known is not None else None
        if trained is None or trained.sha256 != sha256:
            trained = Trained(view.dataset, sha256, data) if sha256 else None
        self.known[view.dataset] = (view, trained)
        return trained


def offers_dcz(accept_encoding: str | None) -> bool:
    """Whether a client may be one for dictionaries."""
    return accept_encoding is not None and "dcz" in accept_encoding.lower()
