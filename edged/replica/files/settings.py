"""ReplicaSettings: the schema and the takedowns of a version, in a file of their own because they seldom change."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from edged.errors import DamageError, WireError
from edged.feed import cbor
from edged.feed.schema import Schema

NOTHING: Mapping[Any, int] = MappingProxyType({})


class ReplicaSettings(NamedTuple):
    """hidden: taken-down (collection, key) with the version at which that was learned; restored: those shown again.

    takedowns: the blob as it was published, None where nothing was ever taken down.
    """

    schema: Schema = Schema()
    schema_version: int = 0
    takedowns: bytes | None = None
    hidden: Mapping[tuple[str, str], int] = NOTHING
    restored: Mapping[tuple[str, str], int] = NOTHING


def takedown_mark(settings: ReplicaSettings) -> int:
    """By which a slice is known to hold nothing of what is taken down: the CRC-32 of the names, 0 for none."""
    names = (f"{collection}\0{key}\0".encode() for collection, key in sorted(settings.hidden))
    return zlib.crc32(b"".join(names)) if settings.hidden else 0


def encode_settings(settings: ReplicaSettings) -> bytes:
    return cbor.encode(
        {
            1: settings.schema.to_cbor(),
            2: settings.schema_version,
            3: settings.takedowns,
            4: [[*name, version] for name, version in sorted(settings.hidden.items())],
            5: [[*name, version] for name, version in sorted(settings.restored.items())],
        }
    )


def decode_settings(data: bytes, file: str) -> ReplicaSettings:
    """Raises DamageError. The caller has checked the bytes against the manifest's CRC-32."""
    try:
        match cbor.decode(data, f"settings {file}"):
            case {
                1: schema,
                2: int() as schema_version,
                3: (bytes() | None) as takedowns,
                4: list() as hidden,
                5: list() as restored,
            }:
                return ReplicaSettings(
                    Schema.from_cbor(schema),
                    schema_version,
                    takedowns,
                    {(collection, key): version for collection, key, version in hidden},
                    {(collection, key): version for collection, key, version in restored},
                )
    except (WireError, ValueError, TypeError) as fault:
        raise DamageError(f"read {file}: the settings cannot be decoded: {fault}; they are fetched again") from fault
    raise DamageError(f"read {file}: the settings are of another form than this edged knows; update edged")
