"""Listening sockets for "HOST:PORT", "[IPV6]:PORT", "unix:/path" and "fd://N" (inherited)."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from edged.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, the URL under which it is reached, and the inode of its path where it is a Unix socket."""

    sock: socket.socket
    url: str
    path: str = ""
    inode: int = 0

    def close(self) -> None:
        """Close; remove the path of a Unix socket unless another process has taken it over."""
        self.sock.close()
        if self.path:
            try:
                if os.stat(self.path).st_ino == self.inode:
                    os.unlink(self.path)
            except FileNotFoundError:
                return  # whoever runs the directory was quicker


def open_listeners(
    bind: Sequence[str], *, tls: bool, socket_mode: int, reuse_port: bool, backlog: int
) -> list[Listener]:
    """Bind and listen on each address, all or none. Raises ConfigError naming the address and what to do."""
    listeners: list[Listener] = []
    try:
        for address in bind:
            try:
                listeners.append(open_listener(address, tls, socket_mode, reuse_port, backlog))
            except OSError as fault:
                raise ConfigError(f"listen on {address}: {fault.strerror or fault}; {advice(fault)}") from fault
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def refuse_taken(bind: Sequence[str]) -> None:
    """Raises ConfigError where another program listens on one of the TCP addresses.

    For the first process of those that share ports by SO_REUSEPORT: that option would also let a second daemon of the
    same user in, and the kernel would deal the requests out to both.
    """
    for address in bind:
        if not address.startswith(("unix:", "fd://")) and split_address(address)[1]:
            for listener in open_listeners([address], tls=False, socket_mode=0, reuse_port=False, backlog=1):
                listener.close()


def advice(fault: OSError) -> str:
    match fault.errno:
        case errno.EADDRINUSE:
            return "another program has the address; stop it or bind to another"
        case errno.EACCES | errno.EPERM:
            return "this user may not; choose a port above 1023 or a directory that it may write"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has the address"
        case errno.ENOENT:
            return "its directory does not exist; create it"
    return "choose another address"


def open_listener(address: str, tls: bool, socket_mode: int, reuse_port: bool, backlog: int) -> Listener:
    scheme = "https" if tls else "http"
    if address.startswith("unix:"):
        return open_unix(address[5:], socket_mode, backlog)
    if address.startswith("fd://"):
        sock = socket.socket(fileno=int(address[5:]))
        sock.setblocking(False)
        sock.listen(backlog)
        return Listener(sock, url_of(sock, scheme))
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it on Linux
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, url_of(sock, scheme))


def split_address(address: str) -> tuple[str, int]:
    """Host (brackets removed) and port. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"listen on {address!r}: expected HOST:PORT, [IPV6]:PORT or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


def url_of(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"


def open_unix(path: str, mode: int, backlog: int) -> Listener:
    """A Unix socket at `path` with permissions `mode` from its first instant; a dead one in its place is removed."""
    remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Nobody may connect until chmod has said who. Linux gives a socket's own mode to its name; the umask would be
        # that of the whole process, and of files that other threads make at this moment.
        os.fchmod(sock.fileno(), 0)
        sock.bind(path)
        inode = os.stat(path).st_ino
        os.chmod(path, mode)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, f"unix:{path}", path, inode)


def remove_dead(path: str) -> None:
    """Unlink a socket that nobody listens on. Raises OSError (EADDRINUSE) where somebody does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EADDRINUSE, "a file that is no socket is in its place")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: alive
    raise OSError(errno.EADDRINUSE, "another program listens there")
