"""One TLS connection over memory: ciphertext in, plaintext out, and back. No socket here."""

from __future__ import annotations

import ssl
from contextlib import suppress

READS_A_TURN = 64  # records; then others get their turn
PIECE_BYTES = 64 << 10
SMALL_BYTES = 8  # no frame of HTTP/2 is so short, and no request line
SMALL_RECORDS = 256  # in a connection's life beyond one in SMALL_SHARE of its bytes
SMALL_SHARE = 1024


class TlsFault(Exception):
    """What ends a connection: a handshake that fails, a record that cannot be read. An alert may be in `take`."""


class TlsSession:
    """established: the handshake is over; ended: the peer has said that it sends no more; more: `read` has left
    something behind.
    """

    __slots__ = ("ended", "established", "incoming", "more", "outgoing", "read_bytes", "small", "tls")

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.established = False
        self.ended = False
        self.more = False
        self.read_bytes = 0
        self.small = 0

    def feed(self, data: bytes) -> None:
        """What the socket gave; nothing: it has ended, without a farewell (close_notify)."""
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def decrypt(self, data: bytes) -> bytes:
        """`feed`, then `read`, in the few steps that a request in one record takes. Raises TlsFault."""
        incoming, tls = self.incoming, self.tls
        if not data:
            incoming.write_eof()
            return self.read()
        incoming.write(data)
        try:
            first = tls.read(PIECE_BYTES)
        except (ssl.SSLError, OSError):
            return self.read()  # meets it again, and says what it means
        if incoming.pending or tls.pending() or len(first) <= SMALL_BYTES:
            return self.read(first)
        self.read_bytes += len(first)
        return first

    def handshake(self) -> bool:
        """One step, some hundred microseconds of arithmetic; whether it is over. Raises TlsFault."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, OSError, ValueError) as fault:
            raise TlsFault(reason_of(fault)) from fault
        self.established = True
        return True

    def read(self, first: bytes = b"") -> bytes:
        """What was sent, of so many records at most: `more` says whether to ask again. Raises TlsFault.

        first: what was read before, of one record. A peer that cuts its bytes into records of one is ended before that
        costs more than the bytes are worth.
        """
        pieces = [first] if first else []
        if first:
            self.count(first)
        incoming, tls = self.incoming, self.tls
        self.more = False
        try:
            for _ in range(READS_A_TURN):
                data = tls.read(PIECE_BYTES)
                if not data:
                    self.ended = True
                    break
                pieces.append(data)
                self.count(data)
                if not incoming.pending and not tls.pending():
                    break
            else:
                self.more = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLEOFError as fault:
            if not pieces:  # what came before is given first, and this is met again
                raise TlsFault("the peer has gone without a farewell") from fault
        except (ssl.SSLError, OSError) as fault:
            raise TlsFault(reason_of(fault)) from fault
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def count(self, data: bytes) -> None:
        self.read_bytes += len(data)
        self.small += len(data) <= SMALL_BYTES
        if self.small > SMALL_RECORDS + self.read_bytes // SMALL_SHARE:
            raise TlsFault("too many records of a few bytes")

    def write(self, data: bytes | memoryview) -> bytes:
        """`data` as records for the socket. Raises TlsFault."""
        try:
            written = self.tls.write(data)
            while written < len(data):  # one record at a time where they are several
                written += self.tls.write(memoryview(data)[written:])
        except (ssl.SSLError, OSError) as fault:
            raise TlsFault(reason_of(fault)) from fault
        return self.outgoing.read()

    def close(self) -> bytes:
        """The farewell (close_notify), with what was to be sent before."""
        if self.established:
            with suppress(ssl.SSLError, OSError):  # the peer's own has not come, and need not: ours is to be sent
                self.tls.unwrap()
        return self.outgoing.read()

    def take(self) -> bytes:
        """What else is for the socket: of the handshake, tickets, alerts."""
        return self.outgoing.read() if self.outgoing.pending else b""

    def protocol(self) -> str:
        """By ALPN (RFC 7301): "h2" or "http/1.1"; that too where the peer has not said any."""
        return self.tls.selected_alpn_protocol() or "http/1.1"


def reason_of(fault: Exception) -> str:
    """OpenSSL's words for what is wrong, without where in its source."""
    reason = getattr(fault, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(fault)
