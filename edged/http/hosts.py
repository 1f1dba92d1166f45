"""Which Host values are answered: what keeps web pages of foreign names out, however their names resolve (DNS
rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from edged.errors import RequestError
from edged.http.request import Request


@dataclass(frozen=True, slots=True)
class HostRule:
    """names: answered, lower-case, with a port only where just that one is meant; addresses: whether every IP address
    is answered too, which no name leads a browser to.
    """

    names: frozenset[str]
    addresses: bool = False

    @classmethod
    def of(cls, names: Iterable[str], *, addresses: bool = False) -> HostRule:
        return cls(frozenset(name.lower() for name in names), addresses)

    def check(self, request: Request, authority: str | None = None) -> None:
        """Raises RequestError 421. authority: of an absolute-form target, which goes before Host (RFC 9112 3.2.2).

        A Unix socket is exempt: no name leads a browser there. So is HTTP/1.0 without Host, which no browser speaks.
        """
        if request.peer.unix:
            return
        host = request.get(b"host") if authority is None else authority
        if host is None and request.version == "1.0":
            return
        if host is None or not self.knows(host.lower()):
            more = "ask it by its address" if self.addresses else "add it to `hosts` if it should be"
            raise RequestError(421, f"Host {host!r:.200} is not answered here; {more}")

    def admits(self, request: Request) -> bool:
        """Whether a request in origin form passes `check`."""
        try:
            self.check(request)
        except RequestError:
            return False
        return True

    def knows(self, host: str) -> bool:
        if host in self.names:
            return True
        name, colon, port = host.rpartition(":")
        if colon and (not port or (port.isascii() and port.isdigit())):
            host = name  # a port may be empty (RFC 3986 section 3.2.3)
        host = host.removesuffix(".")
        return host in self.names or (self.addresses and is_address(host))


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
