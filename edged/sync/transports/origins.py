"""From what the configuration names to transports."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from edged.errors import ConfigError
from edged.polls import DIGEST_BYTES, ToldState
from edged.sync.core.events import SEED
from edged.sync.subscription import OriginAccess, Subscription
from edged.sync.transports.bundle import BundleTransport
from edged.sync.transports.file import FileTransport
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import Traffic, Transport


def transport_of(url: str, traffic: Traffic, access: OriginAccess | None = None) -> Transport:
    """Raises ConfigError for a scheme that is not https, http or file, TransportError for an unusable URL."""
    match urlsplit(url).scheme:
        case "http" | "https":
            return HttpTransport(url, traffic, access)
        case "file":
            return FileTransport(url, traffic)
    raise ConfigError(f"origin {url!r}: expected https://, http:// or file:///")


@dataclass(slots=True)
class Origins:
    """The transports of one dataset, closed at the end of the block. seed: the bundle to begin with, or None; told:
    what each poll over HTTP says of this replica, so that a publisher can count how many devices hold which version,
    and see a state that should not be (polls.py)."""

    transports: Sequence[Transport]
    seed: Transport | None = None
    told: ToldState | None = None

    @classmethod
    def of(cls, subscription: Subscription, traffic: Traffic) -> Self:
        seed = subscription.seed
        transports = [transport_of(url, traffic, subscription.access) for url in subscription.origins]
        return cls(transports, BundleTransport(Path(seed), traffic) if seed else None)

    def say_held(self, version: int, digest: bytes) -> None:
        reason = "" if self.told is None or self.told.version != version else self.told.reason
        self.tell(ToldState(version, digest[:DIGEST_BYTES].hex(), reason))

    def say_reason(self, reason: str) -> None:
        """Why it stays at what it holds; "" where nothing keeps it there."""
        if self.told is not None:
            self.tell(self.told._replace(reason=reason))

    def tell(self, told: ToldState) -> None:
        self.told = told
        for transport in self.transports:
            if isinstance(transport, HttpTransport):
                transport.held = str(told)

    def at(self, origin: int) -> Transport:
        if origin != SEED:
            return self.transports[origin]
        assert self.seed is not None
        return self.seed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            for transport in (*self.transports, *([self.seed] if self.seed is not None else [])):
                stack.push_async_callback(transport.aclose)
