"""Reading and writing what the wire formats are made of: varints, counted bytes and sections.

A section is a counted run of bytes, a magicless zstd frame or stored as it is. It begins with a varint,
`content bytes * 2 + compressed`, and a compressed one goes on with the frame's length unless it is the last.
"""

from __future__ import annotations

from typing import final

from edged.errors import WireError
from edged.feed import zstd

VARINT_BYTES = 10  # of a 64-bit number, 7 bits a byte


def write_varint(out: bytearray, number: int) -> None:
    """Append `number` (0 <= number < 2**64), 7 bits a byte, least significant first."""
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def write_counted(out: bytearray, data: bytes) -> None:
    """Append the length of `data` as a varint, then `data`."""
    write_varint(out, len(data))
    out += data


def shared_bytes(one: bytes, other: bytes) -> int:
    """How many bytes `one` and `other` begin with in common."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def decode_text(data: bytes, what: str) -> str:
    """`data` as text. Raises WireError naming `what` unless it is UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as fault:
        raise WireError(f"decode {what}: not UTF-8: {fault}") from fault


class Octets:
    """A cursor over received bytes. Every method raises WireError, naming `what`, rather than read past the end."""

    __slots__ = ("at", "data", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise WireError(f"decode {self.what}: cut short at byte {self.at}; fetch it again")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self, most: int, name: str) -> int:
        """A varint in its shortest form, of at most `most`."""
        number = 0
        for place in range(VARINT_BYTES):
            octet = self.byte()
            number |= (octet & 0x7F) << 7 * place
            if octet < 0x80:
                if not octet and place:
                    raise WireError(f"decode {self.what}: {name} before byte {self.at} is not in its shortest form")
                if number > most:
                    raise WireError(f"decode {self.what}: {name} is {number}, at most {most} are allowed")
                return number
        raise WireError(f"decode {self.what}: {name} before byte {self.at} is longer than {VARINT_BYTES} bytes")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise WireError(
                f"decode {self.what}: expected {size} bytes at byte {self.at}, {len(self.data) - self.at} are left"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def counted(self, most: int, name: str) -> bytes:
        return self.take(self.varint(most, name))

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def end(self) -> None:
        """Raise WireError if anything is left."""
        if self.at != len(self.data):
            raise WireError(f"decode {self.what}: {len(self.data) - self.at} bytes follow the end at byte {self.at}")


@final
class Bits:
    """Numbers of so many bits each, one after the other, highest bit first; filled up with zeros to whole bytes."""

    def __init__(self, data: bytes | None, what: str) -> None:
        """data: to be read, None to write."""
        self.data, self.what = data, what
        self.at = 0  # bits taken of data, or held
        self.held = 0
        self.out = bytearray()

    def number(self, number: int, bits: int) -> int:
        """Write `number`, or read one. Raises WireError past the end."""
        if self.data is None:
            self.held = self.held << bits | number
            whole, self.at = divmod(self.at + bits, 8)
            self.out += (self.held >> self.at).to_bytes(whole, "big")
            self.held &= (1 << self.at) - 1
            return number
        end = self.at + bits
        last = (end + 7) // 8
        if last > len(self.data):
            raise WireError(f"decode {self.what}: cut short at byte {len(self.data)}; fetch it again")
        found = int.from_bytes(self.data[self.at // 8 : last], "big") >> last * 8 - end
        self.at = end
        return found & (1 << bits) - 1

    def finish(self) -> bytes:
        """All that was written. Of what is read: raises WireError if any is left but the zeros that fill it up."""
        if self.data is None:
            return bytes(self.out) + (self.held << 8 - self.at).to_bytes(self.at > 0, "big")
        left = len(self.data) * 8 - self.at
        if left >= 8 or self.number(0, left):
            raise WireError(f"decode {self.what}: some are left over; fetch it again")
        return b""


def write_section(out: bytearray, data: bytes, dictionary: bytes, level: int, *, last: bool = False) -> None:
    """Append `data` as a section, compressed where that is smaller."""
    form = zstd.FrameForm(level, magicless=True, window_log=zstd.window_log(len(data) + len(dictionary)))
    frame = zstd.compress(data, form, dictionary)
    if len(frame) < len(data):
        write_varint(out, len(data) * 2 + 1)
        if last:
            out += frame
        else:
            write_counted(out, frame)
    else:
        write_varint(out, len(data) * 2)
        out += data


def read_section(octets: Octets, dictionary: bytes, name: str, most: int, *, last: bool = False) -> bytes:
    """The section at the cursor, of at most `most` bytes of content. Raises WireError."""
    size, compressed = divmod(octets.varint(most * 2 + 1, f"size of {name}"), 2)
    if not compressed:
        return octets.take(size)
    frame = octets.rest() if last else octets.counted(len(octets.data), f"length of {name}")
    return zstd.decompress_magicless(frame, dictionary, f"{octets.what}, {name}", size)
