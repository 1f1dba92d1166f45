"""The file `head`: a newer signed head of the version that is held. It spares a manifest when only time moved."""

from __future__ import annotations

import zlib

from edged.errors import DamageError, WireError
from edged.feed import cbor, limits
from edged.files import StrPath
from edged.replica.files.disk import explained
from edged.replica.files.manifest import Manifest

SLACK_BYTES = 256


def encode_touched(version: int, head: bytes, as_of: int, fresh_s: int, expires_s: int) -> bytes:
    body = cbor.encode([version, head, as_of, fresh_s, expires_s])
    return zlib.crc32(body).to_bytes(4, "little") + body


def read_file(path: StrPath) -> bytes:
    """The file's bytes, none where it is missing. Raises DamageError where the disk does not deliver it."""
    with explained("read", path):
        try:
            with open(path, "rb") as file:
                return file.read(limits.HEAD_BYTES + SLACK_BYTES)
        except FileNotFoundError:
            return b""


def is_whole(data: bytes) -> bool:
    """Whether a file's checksum holds; so it does for one that is missing."""
    return not data or (len(data) >= 4 and zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little"))


def read_touched(path: StrPath, manifest: Manifest) -> Manifest:
    """`manifest` with the head in `path`, if that is of the same version and newer; a damaged file changes nothing."""
    try:
        data = read_file(path)
    except DamageError:
        return manifest
    if not data or not is_whole(data):
        return manifest
    try:
        item = cbor.decode_document(data[4:], str(path), depth=2)
    except WireError:  # written by another release; the manifest's own head is older and as good
        return manifest
    match item:
        case [int() as version, bytes() as head, int() as as_of, int() as fresh_s, int() as expires_s] if (
            version == manifest.version and as_of > manifest.as_of
        ):
            return manifest._replace(head=head, as_of=as_of, fresh_s=fresh_s, expires_s=expires_s)
    return manifest
