"""Digest fields of a response (RFC 9530): what must be true of its bytes before they are stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Protocol

from edged.http.fields import Fields, values_of
from edged.proxy.rules.structured import Malformed, read_dictionary

ALGORITHMS = {b"sha-256": "sha256", b"sha-512": "sha512"}
FIELDS = (b"content-digest", b"repr-digest")  # the same bytes, for a whole response


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class DigestCheck:
    """Hashes a body as it passes; `holds()` says whether every digest that the response names is right."""

    def __init__(self, fields: Fields) -> None:
        self.expected: list[tuple[bytes, bytes]] = []
        self.hashes: dict[bytes, Hash] = {}
        self.broken = False
        for name in FIELDS:
            self.read(values_of(fields, name))

    def read(self, lines: list[bytes]) -> None:
        if not lines:
            return
        try:
            members = read_dictionary(b", ".join(lines))
        except Malformed:
            return  # a digest that cannot be read says nothing; algorithms that we do not know likewise
        for algorithm, value in members.items():
            if algorithm not in ALGORITHMS:
                continue
            try:
                wanted = base64.b64decode(value if isinstance(value, bytes) else b"?", validate=True)
            except binascii.Error:
                self.broken = True
                continue
            self.expected.append((algorithm, wanted))
            self.hashes.setdefault(algorithm, hashlib.new(ALGORITHMS[algorithm]))

    def update(self, data: bytes) -> None:
        for running in self.hashes.values():
            running.update(data)

    def holds(self) -> bool:
        return not self.broken and all(self.hashes[name].digest() == wanted for name, wanted in self.expected)
