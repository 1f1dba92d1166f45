"""A head as what differs from the one that its reader has: heads of one dataset have most of their bytes in common.

It says nothing of what the bytes mean. What comes out is a signed head like any other, of which nothing is looked at
before its signature holds. The form: docs/feed.md.
"""

from __future__ import annotations

import hashlib

from edged.errors import WireError
from edged.feed import limits
from edged.feed.coding.octets import Octets, write_counted, write_varint

MARK = b"\x00"  # no signed document begins so
CHECK_BYTES = 4  # of the SHA-256 of the head that it is to be put upon
GRAM = 4  # bytes by which a run is looked up
LEAST_ON, LEAST_APART = 4, 8  # bytes of a run worth naming: where the last one would go on, and elsewhere


def is_patch(data: bytes) -> bool:
    return data.startswith(MARK)


def encode_patch(base: bytes, data: bytes) -> bytes | None:
    """`data` as what differs from `base`; None where that is no shorter, or would take long to find."""
    if max(len(base), len(data)) > limits.PATCHED_BYTES:
        return None
    places = {base[place : place + GRAM]: place for place in range(len(base) - GRAM, -1, -1)}
    out = bytearray(MARK + check_of(base))
    at = begun = ahead = 0  # begun: of the bytes that no run has; ahead: how far a place in the base is before its like
    while at < len(data):
        if data[at : at + GRAM] not in places:  # as of most bytes that are new
            at += 1
            continue
        low, size = run_from(base, data, at, at + ahead, places)
        if size:
            write_counted(out, data[begun:at])
            moved = low - at - ahead
            write_varint(out, size << 1 | bool(moved))
            if moved:
                write_varint(out, zigzag(moved))
            ahead = low - at
            begun = at = at + size
        else:
            at += 1
    if begun < len(data):
        write_counted(out, data[begun:])
    return bytes(out) if len(out) < len(data) else None


def run_from(base: bytes, data: bytes, at: int, on: int, places: dict[bytes, int]) -> tuple[int, int]:
    """Where in the base the bytes from `data[at]` on are, and how many; (0, 0) where it is not worth naming them.

    on: where they would be if they went on as the run before did.
    """
    size = common(base, on, data, at)
    place = places.get(data[at : at + GRAM], on)
    apart = 0 if place == on else common(base, place, data, at)
    if apart >= LEAST_APART and apart > size + GRAM:
        return place, apart
    return (on, size) if size >= LEAST_ON else (0, 0)


def common(base: bytes, low: int, data: bytes, at: int) -> int:
    """How many bytes are the same from these places on."""
    most = min(len(base) - low, len(data) - at) if low >= 0 else 0
    size, step = 0, 8
    while step and size < most:
        if base[low + size : low + size + step] == data[at + size : at + size + step] and size + step <= most:
            size, step = size + step, step * 2
        else:
            step //= 2
    return size


def decode_patch(base: bytes, patch: bytes) -> bytes:
    """The head that a patch makes of `base`. Raises WireError where it is none, or is to be put upon another head."""
    source = Octets(patch, "patch of a head")
    if len(patch) > limits.PATCHED_BYTES or source.take(1 + CHECK_BYTES) != MARK + check_of(base):
        raise WireError("decode patch of a head: it is to be put upon another head than the one held")
    out = bytearray()
    ahead = 0
    while source.at < len(patch):
        out += source.counted(limits.PATCHED_BYTES, "bytes")
        if source.at == len(patch):
            break
        size, moved = divmod(source.varint(2 * limits.PATCHED_BYTES + 1, "a run"), 2)
        place = source.varint(4 * limits.PATCHED_BYTES, "a place") if moved else 0
        ahead += (place >> 1) ^ -(place & 1)
        low = len(out) + ahead
        if low < 0 or low + size > len(base) or len(out) + size > limits.PATCHED_BYTES:
            raise WireError("decode patch of a head: a run lies outside of the head that is held")
        out += base[low : low + size]
    return bytes(out)


def check_of(base: bytes) -> bytes:
    return hashlib.sha256(base).digest()[:CHECK_BYTES]


def zigzag(number: int) -> int:
    return number * 2 if number >= 0 else -number * 2 - 1
