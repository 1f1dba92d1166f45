"""Sockets that systemd has opened for us (sd_listen_fds(3)): used where they have an address of the configuration."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from edged.http.addresses import split_address, url_of

logger = logging.getLogger("edged.ops")

FIRST = 3  # SD_LISTEN_FDS_START


def inherited_sockets(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Address, as `bind` has it, to "fd://N", of the stream sockets that were handed to this process.

    The variables are taken out, so that no further process takes the sockets for its own.
    """
    meant = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "0")
    environment.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, str] = {}
    for number in range(FIRST, FIRST + int(count)):
        try:
            os.set_inheritable(number, False)
            sock = socket.socket(fileno=os.dup(number))
        except OSError as fault:
            logger.warning("descriptor %d, handed over as a socket: %s; it is left alone", number, fault.strerror)
            continue
        with sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) and sock.type == socket.SOCK_STREAM:
                found[url_of(sock, "http").removeprefix("http://")] = f"fd://{number}"
    return found


def bind_with(inherited: Mapping[str, str], bind: Sequence[str]) -> list[str]:
    """`bind`, with the socket that is there already in place of each address that has one."""
    return [inherited.get(canonical(address), address) for address in bind]


def canonical(address: str) -> str:
    """As the kernel tells it of a socket: localhost is 127.0.0.1, IPv6 in its short form."""
    if address.startswith("unix:"):
        return f"unix:{os.path.normpath(address[5:])}"
    host, port = split_address(address)
    host = "127.0.0.1" if host == "localhost" else host
    if ":" in host:
        host = f"[{socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))}]"
    return f"{host}:{port}"


def warn_of_others(inherited: Mapping[str, str], used: Sequence[str]) -> None:
    """A socket with an address that no listener has is not answered: whoever connects would wait for ever."""
    for address in inherited.keys() - {canonical(item) for item in used}:
        logger.warning(
            "the socket unit listens on %s, which no bind of the configuration has; add it to [serve] bind, or take "
            "it out of the unit",
            address,
        )
