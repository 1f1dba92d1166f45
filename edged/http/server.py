"""The accept path for both lanes: caps, peers, Unix sockets, and a stop that ends.

`serve` knows nothing of what is served: apps, the admin listener and `edged origin serve` run under it alike.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import trio

from edged.access.identity import Peer, read_peer
from edged.http.addresses import Listener, open_listeners
from edged.http.application import Application, TellingApplication, tell_in_debug
from edged.http.framing import CLOSE, join_fields, status_line
from edged.http.hypercorn.stream import PlainStream
from edged.http.lane.connection import LaneConnection
from edged.http.lane.lane import Lane
from edged.http.lane.secure import SecureConnection
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.problem import make_problem
from edged.http.tls.certificates import DAY_S, Certificates
from edged.http.tls.stream import TlsStream
from edged.threads import in_thread

if TYPE_CHECKING:
    from edged.http.hypercorn.gateway import HypercornLane

logger = logging.getLogger("edged.http")

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# what accept(2) passes on from a connection that died in the queue
TRANSIENT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EINTR,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
    }
)
FULL_FIELDS, FULL_BODY = make_problem(503, "too many connections are open; close some, or ask again in a second")
FULL = b"%b%b\r\n%b" % (
    status_line(503),
    join_fields(((b"Retry-After", b"1"), *CLOSE, *FULL_FIELDS)),
    FULL_BODY,
)
ACCEPT_PAUSE_S = 0.1
ACCEPT_BATCH = 64
PRESSED_BATCH = 2  # while somebody asks who comes first
WARN_S = 10.0
CERTIFICATES_S = 5.0  # between looks at their files


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens, and what it bears there.

    bind: "HOST:PORT" (port 0: the kernel picks), "[::1]:8484", "unix:/path" with permissions `socket_mode`, "fd://N".
    certificates: of TLS; none: clear text. reuse_port: other processes share the ports. lane: whether
    the lane answers clear text; with certificates it always does. Hypercorn answers what the lane does not take.
    """

    bind: tuple[str, ...]
    certificates: Certificates | None = None
    limits: Limits = field(default_factory=Limits)
    socket_mode: int = 0o600
    reuse_port: bool = False
    lane: bool = True


class Server:
    """One set of listeners and its connections."""

    def __init__(
        self, application: Application, listening: Listening, clock: Callable[[], float], meter: Meter
    ) -> None:
        limits = listening.limits
        self.limits = limits
        self.application = application
        self.meter = meter
        self.hypercorn: HypercornLane | None = None
        self.certificates = listening.certificates
        self.clock = clock
        self.lane = (
            Lane(application, clock, meter, limits, self.certificates) if listening.lane or self.certificates else None
        )
        self.nursery: trio.Nursery
        self.total = 0
        self.warned_at = -WARN_S
        self.peers: Counter[str] = Counter()
        self.empty = trio.Event()
        self.stopping = False

    async def accept_from(self, listener: Listener) -> None:
        """Accept for ever. Running out of descriptors pauses; a connection that died in the queue is passed over."""
        while True:
            await trio.lowlevel.wait_readable(listener.sock)
            try:
                for _ in range(self.batch()):
                    self.admit(listener.sock.accept()[0])
            except BlockingIOError:
                continue
            except OSError as fault:
                if fault.errno in EXHAUSTED:
                    logger.warning("accept on %s: %s; waiting for descriptors", listener.url, fault.strerror)
                    await trio.sleep(ACCEPT_PAUSE_S)
                elif fault.errno not in TRANSIENT:
                    raise

    def batch(self) -> int:
        """How many connections are accepted before others get their turn."""
        return PRESSED_BATCH if self.lane is not None and self.lane.precedence.yields else ACCEPT_BATCH

    def admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            peer = read_peer(sock)
        except OSError:
            sock.close()  # gone before we looked
            return
        key = cap_key(peer)
        full = self.total >= self.limits.connections and not (self.lane is not None and self.lane.make_room())
        if full or (key and self.peers[key] >= self.limits.per_peer):
            if time.monotonic() - self.warned_at > WARN_S:  # a flood of them is no reason to flood the log
                self.warned_at = time.monotonic()
                logger.warning("connection from %s refused: %d are open", peer.address, self.total)
            refuse(sock, plain=self.certificates is None)
            return
        self.total += 1
        self.peers[key] += 1
        if self.lane is None:
            self.nursery.start_soon(self.converse, PlainStream(sock), peer, b"")
            return
        try:
            self.lane.adopt(sock, peer)
        except OSError as fault:
            logger.warning("connection from %s: the kernel has no room to watch it: %s", peer.address, fault.strerror)
            sock.close()
            self.release(peer)

    def release(self, peer: Peer) -> None:
        self.application.left(peer)
        self.total -= 1
        key = cap_key(peer)
        self.peers[key] -= 1
        if not self.peers[key]:
            del self.peers[key]
        if self.total == 0:
            self.empty.set()

    def hand_over(self, connection: LaneConnection) -> None:
        """From the lane, with the bytes read so far, and with its TLS session."""
        stream: Any = PlainStream(connection.sock)
        if isinstance(connection, SecureConnection):
            stream = TlsStream(stream, connection.session)
        self.nursery.start_soon(self.converse, stream, connection.peer, connection.inbox)

    def is_busy(self) -> bool:
        return self.hypercorn is not None and self.hypercorn.is_busy()

    async def converse(self, stream: Any, peer: Peer, initial: bytes) -> None:
        """A connection of Hypercorn's. That is loaded for the first of them, in a thread: most devices never need it,
        and it takes 3 MB.
        """
        try:
            if self.hypercorn is None:
                try:
                    make = await in_thread(load_hypercorn)
                except BaseException as fault:
                    await trio.aclose_forcefully(stream)
                    if not isinstance(fault, Exception):
                        raise
                    what = "connection from %s: closed, for Hypercorn could not be loaded: %s; the next one tries again"
                    logger.error(what, peer.address, fault)
                    return
                self.hypercorn = self.hypercorn or make(self.application, self.limits, self.clock, self.meter)
            if self.stopping:
                await trio.aclose_forcefully(stream)
            else:
                await self.hypercorn.converse(stream, peer, initial)
        finally:
            self.release(peer)

    async def run(
        self, listeners: Sequence[Listener], stop: trio.Event, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                if self.lane is not None:
                    await self.nursery.start(self.lane.run, self)
                if self.certificates is not None:
                    self.nursery.start_soon(keep_certificates, self.certificates, self.clock)
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        if self.lane is not None:
                            self.lane.sockets.watch_listener(listener.sock)
                        accepting.start_soon(self.accept_from, listener)
                    task_status.started([listener.url for listener in listeners])
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    listener.close()
                await self.finish()
                self.nursery.cancel_scope.cancel()
        finally:
            self.abort()

    async def finish(self) -> None:
        """Let the answers under way end within graceful_s, then close what is left."""
        self.stopping = True
        if self.hypercorn is not None:
            await self.hypercorn.stop()
        if self.lane is not None:
            self.lane.drain()
        self.empty = trio.Event()
        with trio.move_on_after(self.limits.graceful_s):
            while self.total:
                await self.empty.wait()
                self.empty = trio.Event()
        self.abort()

    def abort(self) -> None:
        if self.hypercorn is not None:
            self.hypercorn.abort()


def load_hypercorn() -> type[HypercornLane]:
    from edged.http.hypercorn.gateway import HypercornLane

    return HypercornLane


async def keep_certificates(certificates: Certificates, clock: Callable[[], float]) -> None:
    """Read certificates anew when their files change, and warn of those that run out, once a day."""
    warned_at = -DAY_S
    while True:
        if trio.current_time() - warned_at >= DAY_S:
            warned_at = trio.current_time()
            certificates.warn(clock())
        await trio.sleep(CERTIFICATES_S)
        if certificates.refresh():
            certificates.warn(clock())


def cap_key(peer: Peer) -> str:
    """Whose connections are counted together; empty for loopback, which is every app on the device."""
    if peer.uid is not None:
        return f"uid {peer.uid}"
    return "" if ip_address(peer.address).is_loopback else peer.address


def refuse(sock: socket.socket, *, plain: bool) -> None:
    """Say 503 without waiting for anything, and close."""
    try:
        if plain:
            sock.send(FULL)
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        logger.debug("the refused connection was gone already")
    finally:
        sock.close()


async def serve(
    application: Application,
    listening: Listening,
    *,
    clock: Callable[[], float] = time.time,
    meter: Meter | None = None,
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer over HTTP/1.1 and HTTP/2 until `stop` is set (gracefully) or it is cancelled (at once).

    clock: seconds since 1970, for Date and ages. meter: counts into it. Reports the bound URLs by task_status.
    Raises ConfigError where an address cannot be used.
    """
    if logger.isEnabledFor(logging.DEBUG):
        application = TellingApplication(application, tell_in_debug)
    server = Server(application, listening, clock, Meter() if meter is None else meter)
    listeners = open_listeners(
        listening.bind,
        tls=listening.certificates is not None,
        socket_mode=listening.socket_mode,
        reuse_port=listening.reuse_port,
        backlog=listening.limits.backlog,
    )
    try:
        await server.run(listeners, trio.Event() if stop is None else stop, task_status)
    finally:
        for listener in listeners:
            listener.close()
