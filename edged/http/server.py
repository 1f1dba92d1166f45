"""Hypercorn on trio behind an accept path of our own: caps, peers, Unix sockets, deadlines and a stop that ends.

`serve` knows nothing of any application: apps, the admin listener and `edged origin serve` run under it alike.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from edged.access.identity import Peer, read_peer
from edged.errors import ConfigError
from edged.http.addresses import Listener, open_listeners
from edged.http.framing import CLOSE, join_fields, status_line
from edged.http.hypercorn.connection import Busy, Connection, checked_config
from edged.http.limits import Limits
from edged.http.problem import make_problem

logger = logging.getLogger("edged.serve")

ASGIApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

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
WARN_S = 10.0


class Front(Protocol):
    """What may answer on a connection before Hypercorn does (the fast lane)."""

    def adopt(self, sock: socket.socket, peer: Peer) -> None:
        """Take over an accepted, non-blocking socket."""

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; on the way out close every connection that is left."""

    def drain(self) -> None:
        """The server stops: close idle connections now and the others after their answer."""


class Host(Protocol):
    """What the server offers to a Front."""

    def hand_over(self, sock: socket.socket, peer: Peer, initial: bytes) -> None:
        """Give a connection to Hypercorn with the bytes read from it so far."""

    def release(self, peer: Peer) -> None:
        """A connection that the Front held is closed."""

    def is_busy(self) -> bool:
        """Whether Hypercorn has a request under way that gets on, so that the Front must not block the thread."""


class Server:
    """One set of listeners and its connections."""

    def __init__(self, app: ASGIApp, config: Config, limits: Limits, front: Front | None) -> None:
        self.app = ASGIWrapper(app)
        self.config = config
        self.context = WorkerContext(None)
        self.limits = limits
        self.front = front
        self.tls = config.create_ssl_context()
        self.nursery: trio.Nursery
        self.open: set[Connection] = set()
        self.busy = Busy()
        self.total = 0
        self.warned_at = -WARN_S
        self.peers: Counter[str] = Counter()
        self.empty = trio.Event()

    async def accept_from(self, listener: Listener) -> None:
        """Accept for ever. Running out of descriptors pauses; a connection that died in the queue is passed over."""
        while True:
            await trio.lowlevel.wait_readable(listener.sock)
            try:
                for _ in range(ACCEPT_BATCH):
                    self.admit(listener.sock.accept()[0])
            except BlockingIOError:
                continue
            except OSError as fault:
                if fault.errno in EXHAUSTED:
                    logger.warning("accept on %s: %s; waiting for descriptors", listener.url, fault.strerror)
                    await trio.sleep(ACCEPT_PAUSE_S)
                elif fault.errno not in TRANSIENT:
                    raise

    def admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            peer = read_peer(sock)
        except OSError:
            sock.close()  # gone before we looked
            return
        key = cap_key(peer)
        if self.total >= self.limits.connections or (key and self.peers[key] >= self.limits.per_peer):
            if time.monotonic() - self.warned_at > WARN_S:  # a flood of them is no reason to flood the log
                self.warned_at = time.monotonic()
                logger.warning("connection from %s refused: %d are open", peer.address, self.total)
            refuse(sock, plain=self.tls is None)
            return
        self.total += 1
        self.peers[key] += 1
        if self.front is not None and self.tls is None:
            self.front.adopt(sock, peer)
        else:
            self.hand_over(sock, peer, b"")

    def release(self, peer: Peer) -> None:
        self.total -= 1
        key = cap_key(peer)
        self.peers[key] -= 1
        if not self.peers[key]:
            del self.peers[key]
        if self.total == 0:
            self.empty.set()

    def hand_over(self, sock: socket.socket, peer: Peer, initial: bytes) -> None:
        self.nursery.start_soon(self.converse, trio.socket.from_stdlib_socket(sock), peer, initial)

    def is_busy(self) -> bool:
        return self.busy.is_stirring()

    async def converse(self, sock: trio.socket.SocketType, peer: Peer, initial: bytes) -> None:
        stream: Any = trio.SocketStream(sock)
        if self.tls is not None:
            stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        connection = Connection(self.app, self.config, self.context, stream, peer, self.limits, self.busy, initial)
        self.open.add(connection)
        try:
            await connection.run()
        finally:
            self.open.discard(connection)
            self.release(peer)

    async def run(
        self, listeners: Sequence[Listener], stop: trio.Event, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                if self.front is not None:
                    await self.nursery.start(self.front.run, self)
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
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
        await self.context.terminated.set()
        if self.front is not None:
            self.front.drain()
        self.empty = trio.Event()
        with trio.move_on_after(self.limits.graceful_s):
            while self.total:
                await self.empty.wait()
                self.empty = trio.Event()
        self.abort()

    def abort(self) -> None:
        for connection in list(self.open):
            connection.abort()


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


def make_config(limits: Limits, tls_cert: str, tls_key: str, *, date: bool) -> Config:
    return checked_config(
        certfile=tls_cert or None,
        keyfile=tls_key or None,
        include_server_header=False,
        include_date_header=date,
        keep_alive_timeout=limits.idle_s,
        keep_alive_max_requests=1 << 62,
        h11_max_incomplete_size=limits.head_bytes,
        h2_max_concurrent_streams=limits.streams,
        h2_max_header_list_size=limits.head_bytes,
        graceful_timeout=limits.graceful_s,
        ssl_handshake_timeout=limits.handshake_s,
        accesslog=None,
        errorlog=logging.getLogger("edged.serve.hypercorn"),
    )


async def serve(
    app: ASGIApp,
    bind: Sequence[str],
    *,
    tls_cert: str = "",
    tls_key: str = "",
    limits: Limits = Limits(),  # noqa: B008  frozen
    stop: trio.Event | None = None,
    front: Front | None = None,
    socket_mode: int = 0o600,
    reuse_port: bool = False,
    date: bool = True,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application over HTTP/1.1 and HTTP/2 until `stop` is set (gracefully) or it is cancelled (at once).

    bind: "HOST:PORT" (port 0: the kernel picks), "[::1]:8484", "unix:/path" with permissions `socket_mode`, "fd://N".
    Reports the bound URLs by task_status. `scope["state"]["peer"]` is the Peer. date: whether Date is added.
    Raises ConfigError where an address or the certificate cannot be used.
    """
    try:
        config = make_config(limits, tls_cert, tls_key, date=date)
        server = Server(app, config, limits, front)
    except (OSError, ValueError) as fault:
        raise ConfigError(
            f"load TLS certificate {tls_cert!r} and key {tls_key!r}: {fault}; both must be PEM"
        ) from fault
    listeners = open_listeners(
        bind, tls=bool(tls_cert), socket_mode=socket_mode, reuse_port=reuse_port, backlog=limits.backlog
    )
    try:
        await server.run(listeners, trio.Event() if stop is None else stop, task_status)
    finally:
        for listener in listeners:
            listener.close()
