"""Who asks: what a connection tells of its peer, and the identity that every handler is given."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection. address: text for logs; uid and pid: known on Unix sockets only."""

    unix: bool
    address: str
    uid: int | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """The app that asks. Equal identities may be given the same remembered answer; unequal ones never are."""

    name: str
    audience: str
    uid: int | None = None


LOCAL = Identity("local", "internal")  # any program on the device, when no apps are configured


def read_peer(sock: socket.socket) -> Peer:
    """The peer of an accepted socket. Raises OSError where it has gone already."""
    if sock.family == socket.AF_UNIX:
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer(True, f"unix:pid={pid},uid={uid}", uid, pid)
    name = sock.getpeername()
    return Peer(False, str(name[0]))


def identify(peer: Peer) -> Identity:
    """The identity of a peer. Without configured apps every local program is the same one, told apart by its uid."""
    return LOCAL if peer.uid is None else Identity(LOCAL.name, LOCAL.audience, peer.uid)
