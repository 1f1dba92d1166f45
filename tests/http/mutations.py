"""Hostile bytes for a server: lifelike conversations in HTTP/1.1 and HTTP/2, and what a mutator makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import h2.config
import h2.connection
import h2.settings

TARGETS = [
    "/v1/catalog/titles/1980/Title_00000",
    "/v1/catalog/titles?limit=400",
    "/v1/catalog/titles?keys=1980/Title_00000,1981/Title_00001",
    "/v1/catalog/titles?q=title",
    "/v1/catalog/changes?since=0",
    "/v1/catalog/changes?since=1&wait=60",
    "/v1",
    "/nowhere",
]
FIELDS = [
    ("accept", "application/cbor"),
    ("accept", "text/event-stream"),
    ("accept-encoding", "zstd, gzip"),
    ("if-none-match", "*"),
    ("expect", "100-continue"),
    ("content-length", "5"),
    ("transfer-encoding", "chunked"),
    ("connection", "close, upgrade, HTTP2-Settings"),
    ("upgrade", "h2c"),
    ("upgrade", "websocket"),
    ("host", "evil.example"),
    ("te", "trailers"),
    ("x" * 300, "y" * 3000),
]
METHODS = ["GET", "GET", "HEAD", "OPTIONS", "POST", "CONNECT", "PRI", "TRACE"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def http1(chance: random.Random) -> list[bytes]:
    """A pipeline of requests, cut at places where a parser changes its state."""
    parts: list[bytes] = []
    for _ in range(chance.randint(1, 4)):
        method, target = chance.choice(METHODS), chance.choice(TARGETS)
        parts += [f"{method} {target} HTTP/{chance.choice(['1.1', '1.1', '1.0'])}".encode(), b"\r\n"]
        for name, value in [("host", "localhost"), *chance.sample(FIELDS, chance.choice([0, 0, 1, 2, 4]))]:
            parts += [f"{name}: {value}".encode(), b"\r\n"]
        parts += [
            b"\r\n",
            chance.choice([b"", b"", b"hello", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"]),
        ]
    return parts


def http2(chance: random.Random) -> list[bytes]:
    """A client's frames, one a part, of a connection that h2 thinks is fine."""
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"
    )
    connection = h2.connection.H2Connection(config)
    parts: list[bytes] = []
    connection.initiate_connection()
    parts.append(connection.data_to_send())
    stream = 1
    for _ in range(chance.randint(1, 12)):
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                pseudo = [(":method", chance.choice(METHODS)), (":scheme", "http"), (":authority", "localhost")]
                path = [(":path", chance.choice(TARGETS))] if chance.random() < 0.95 else []
                more = chance.sample(FIELDS, chance.choice([0, 0, 0, 1, 3]))
                body = chance.random() < 0.2
                connection.send_headers(stream, [*pseudo, *path, *more], end_stream=not body)
                parts.append(connection.data_to_send())
                if body:
                    connection.send_data(stream, b"x" * chance.choice([0, 1, 5000]), end_stream=chance.random() < 0.7)
                stream += 2
            case 4:
                connection.ping(bytes(8))
            case 5:
                connection.increment_flow_control_window(chance.choice([1, 1 << 20]))
            case 6:
                connection.update_settings(
                    {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: chance.choice([0, 1, 65_535, (1 << 31) - 1])}
                )
            case 7 if stream > 1:
                parts.append(frame(3, 0, chance.randrange(1, stream, 2), b"\0\0\0\x08"))  # RST_STREAM, CANCEL
        parts.append(connection.data_to_send())
    return [part for part in parts if part]


def raw_frames(chance: random.Random) -> list[bytes]:
    """The preface, and frames of any type, flags, stream and length, which may not be the true one."""
    parts = [PREFACE, frame(4, 0, 0, b"")]
    for _ in range(chance.randint(1, 30)):
        payload = chance.randbytes(chance.choice([0, 1, 4, 5, 6, 8, 8, 100, 3000]))
        stream = chance.choice([0, 1, 1, 2, 3, 5, chance.getrandbits(32)])
        parts.append(frame(chance.choice([*range(11), 0xFF]), chance.getrandbits(8), stream, payload))
        if chance.random() < 0.05:
            parts[-1] = chance.getrandbits(24).to_bytes(3, "big") + parts[-1][3:]
    return parts


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def mutated(parts: list[bytes], chance: random.Random) -> bytes:
    """The parts with some swapped, repeated, dropped or cut, and some of their bytes changed."""
    parts = list(parts)
    for _ in range(chance.choice([0, 1, 1, 2, 4])):
        place = chance.randrange(len(parts))
        other = chance.randrange(len(parts))
        match chance.randrange(7):
            case 0:
                parts[place], parts[other] = parts[other], parts[place]
            case 1:
                parts.insert(place, parts[other])
            case 2:
                parts[place] = b""
            case 3:
                parts[place] = parts[place][: chance.randrange(len(parts[place]) + 1)]
            case 4:
                parts[place] += chance.choice([b"\0", b"\n", b"\r", b" ", b"\xff" * 9, chance.randbytes(20)])
            case 5:
                parts[place] = parts[place] * chance.choice([2, 3, 100])
            case 6 if parts[place]:
                data = bytearray(parts[place])
                for _ in range(chance.choice([1, 1, 3, 10])):
                    data[chance.randrange(len(data))] = chance.choice([0, 0xFF, chance.getrandbits(8)])
                parts[place] = bytes(data)
    return b"".join(parts)


KINDS: tuple[Callable[[random.Random], list[bytes]], ...] = (http1, http2, http2, raw_frames)
