"""Who asks: what a connection tells of its peer, and the identity that every handler is given."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from edged.access.rights import App


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection. address: text for logs; uid, gid and pid: known on Unix sockets only."""

    unix: bool
    address: str
    uid: int | None = None
    pid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. Equal identities may be given the same remembered answer; unequal ones never are.

    uid, gid, exe: what the kernel says of the peer, on Unix sockets; app: which of the configured apps it is, where any
    are, once that has been judged.
    """

    name: str
    audience: str
    uid: int | None = None
    gid: int | None = None
    exe: str = ""
    app: App | None = None

    @property
    def waits(self) -> bool:
        """Whether others come first while both have something to be answered."""
        return self.audience != "internal"


LOCAL = Identity("local", "internal")  # any program on the device, when no apps are configured
UNJUDGED = Identity("unknown", "")  # where they are, before a request of its connection was judged


def read_peer(sock: socket.socket) -> Peer:
    """The peer of an accepted socket. Raises OSError where it has gone already."""
    if sock.family == socket.AF_UNIX:
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer(True, f"unix:pid={pid},uid={uid}", uid, pid, gid)
    name = sock.getpeername()
    return Peer(False, str(name[0]))


def identify(peer: Peer) -> Identity:
    """The identity of a peer. Without configured apps every local program is the same one, told apart by its uid."""
    return LOCAL if peer.uid is None else Identity(LOCAL.name, LOCAL.audience, peer.uid)


def attested(peer: Peer, *, with_exe: bool) -> Identity:
    """What the kernel says of a peer, by which the configured apps are told apart.

    with_exe: the path of its executable too, "" where it cannot be read: it has gone, or runs as a user whose processes
    edged may not look at. The kernel keeps no executable for a socket, so this is who holds the process id now.
    """
    if peer.uid is None:
        return UNJUDGED
    exe = ""
    if with_exe and peer.pid:
        try:
            exe = os.readlink(f"/proc/{peer.pid}/exe")
        except OSError:
            exe = ""
    return Identity(UNJUDGED.name, UNJUDGED.audience, peer.uid, peer.gid, exe)
