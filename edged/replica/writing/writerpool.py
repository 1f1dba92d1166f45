"""The pool of a writer, which looks at a dictionary more closely than a reader: it is about to compress with it."""

from __future__ import annotations

import hashlib

from edged.errors import DamageError
from edged.replica.files.disk import PACKS
from edged.replica.files.manifest import dictionary_name
from edged.replica.layers.pool import Pool


class WriterPool(Pool):
    """Checks the SHA-256 of dictionaries. Readers do without, as it would load libcrypto into each of them."""

    def dictionary(self, sha256: bytes) -> bytes:
        data = super().dictionary(sha256)
        if hashlib.sha256(data).digest() != sha256:
            name = dictionary_name(sha256)
            raise DamageError(f"read {self.name}/{PACKS}/{name}: its SHA-256 is not its name; fetch its slice again")
        return data
