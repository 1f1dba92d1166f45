"""Stored responses as bytes: keys, metadata, checks of bodies. Nothing is decoded before its checksum."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edged.errors import DamageError, WireError
from edged.feed.cbor import decode, encode
from edged.proxy.rules.decisions import CacheEntry
from edged.proxy.rules.freshness import read_policy
from edged.proxy.rules.vary import Selecting, Variant

FORMAT = 1
MAGIC = b"eC\x01"
SEAL_BYTES = 8
BLOCK_BYTES = 64 << 10  # of a body, each with its own checksum
PREFIX = struct.Struct(">3sI")

RESPONSE, INDEX, LEDGER, BOOTS, STARTS = b"R", b"V", b"G", b"B", b"N"  # first byte of a key


def primary_key(scope: bytes, url: bytes) -> bytes:
    """What a request asks for, before any Vary. scope: b"" for everyone who asks plainly, else a digest."""
    return scope + b"\0" + url


def response_key(primary: bytes, variant: bytes) -> bytes:
    return RESPONSE + primary + b"\0" + variant


def index_key(primary: bytes) -> bytes:
    return INDEX + primary


def is_scoped(key: bytes) -> bool:
    """Whether the key of a response lies in another scope than that of everyone who asks plainly."""
    return key[1:2] != b"\0"


def primary_of_key(key: bytes) -> bytes | None:
    """The primary key in the key of a response or of an index."""
    if key[:1] == INDEX:
        return key[1:]
    return key[1:].rpartition(b"\0")[0] if key[:1] == RESPONSE else None


def variant_name(selecting: Selecting) -> bytes:
    """The name of a variant among those of its URL; b"" for a response that does not vary."""
    if not selecting:
        return b""
    return hashlib.blake2b(encode([[name, value] for name, value in selecting]), digest_size=12).hexdigest().encode()


def seal(head: bytes, body: bytes = b"") -> bytes:
    """Head and small body framed with their lengths and a checksum over all."""
    framed = PREFIX.pack(MAGIC, len(head)) + head + body
    return framed + hashlib.blake2b(framed, digest_size=SEAL_BYTES).digest()


def unseal(data: bytes, what: str) -> tuple[bytes, bytes]:
    """Head and small body. Raises DamageError for anything truncated or changed."""
    framed, checksum = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    if len(framed) < PREFIX.size or hashlib.blake2b(framed, digest_size=SEAL_BYTES).digest() != checksum:
        raise DamageError(f"read {what} from the proxy's store: the checksum is wrong; it is dropped and fetched anew")
    magic, length = PREFIX.unpack_from(framed)
    if magic != MAGIC or PREFIX.size + length > len(framed):
        raise DamageError(f"read {what} from the proxy's store: of an unknown format; it is dropped and fetched anew")
    return framed[PREFIX.size : PREFIX.size + length], framed[PREFIX.size + length :]


def block_sums(body: bytes) -> bytes:
    """CRC-32 of each block."""
    return b"".join(
        zlib.crc32(body[start : start + BLOCK_BYTES]).to_bytes(4, "big") for start in range(0, len(body), BLOCK_BYTES)
    )


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a response was received: which boot, and its uptime then."""

    boot: bytes
    up_s: float


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry read back. sums: CRC-32 of each block of its body."""

    entry: CacheEntry
    stamp: Stamp
    sums: bytes


def encode_entry(entry: CacheEntry, stamp: Stamp, sums: bytes) -> bytes:
    return encode(
        [
            FORMAT,
            entry.url,
            entry.status,
            [[name, value] for name, value in entry.fields],
            entry.size,
            stamp.boot,
            float(stamp.up_s),
            float(entry.initial_age_s),
            entry.lifetime_s,
            entry.explicit,
            [[name, value] for name, value in entry.selecting],
            list(entry.groups),
            entry.order,
            entry.private,
            sums,
        ]
    )


def decode_entry(head: bytes, what: str) -> Stored:
    """An entry, without its place on the line of time. Raises DamageError."""
    data = decode_list(head, what)
    try:
        (
            form,
            url,
            status,
            fields,
            size,
            boot,
            up_s,
            age,
            lifetime,
            explicit,
            selecting,
            groups,
            order,
            private,
            sums,
        ) = data
        if form != FORMAT:
            raise ValueError("another format")
        pairs = tuple((bytes(name), bytes(value)) for name, value in fields)
        entry = CacheEntry(
            url=url,
            status=status,
            fields=pairs,
            size=size,
            received_s=None,
            initial_age_s=age,
            lifetime_s=lifetime,
            explicit=explicit,
            selecting=tuple((name, value) for name, value in selecting),
            groups=tuple(groups),
            order=order,
            private=private,
            policy=read_policy(status, pairs),
        )
    except (ValueError, TypeError) as fault:
        raise DamageError(f"read {what} from the proxy's store: {fault}; it is dropped and fetched anew") from fault
    return Stored(entry, Stamp(boot, up_s), sums)


def encode_index(variants: Sequence[Variant]) -> bytes:
    return encode(
        [
            [[[name, value] for name, value in variant.selecting], variant.language, variant.name, variant.order]
            for variant in variants
        ]
    )


def decode_index(head: bytes, what: str) -> tuple[Variant, ...]:
    """The variants of a URL. Raises DamageError."""
    try:
        return tuple(
            Variant(tuple((bytes(field), value) for field, value in selecting), language, bytes(name), int(order))
            for selecting, language, name, order in decode_list(head, what)
        )
    except (ValueError, TypeError) as fault:
        raise DamageError(f"read {what} from the proxy's store: {fault}; it is dropped and fetched anew") from fault


def decode_list(head: bytes, what: str) -> list[Any]:
    """A CBOR array whose checksum was checked. Raises DamageError."""
    try:
        data = decode(head, what)
    except WireError as fault:
        raise DamageError(f"read {what} from the proxy's store: {fault}") from fault
    if not isinstance(data, list):
        raise DamageError(f"read {what} from the proxy's store: not an array; it is dropped and fetched anew")
    return data
