"""The configured apps: who is one, and what it may ask for. No I/O: times and credentials come as arguments.

As soon as one app is configured, what is not allowed is denied. A verdict depends on what the kernel says of the peer,
the credential and the target alone: never on whether there is such a collection, so that a denial tells nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from edged.access.identity import Identity, Peer
from edged.access.rights import ANONYMOUS, App, Rate
from edged.errors import RequestError

CHALLENGE = (("WWW-Authenticate", 'Bearer realm="edged"'),)  # RFC 6750 section 3
MOST_WAIT_S = 60.0


class CrowdedError(RequestError):
    """An app has as many connections as it may have; the one that asks is to end."""


@dataclass(slots=True)
class AppCount:
    """What an app has asked. refused: 403; limited: 429; connections: that it has now."""

    requests: int = 0
    refused: int = 0
    limited: int = 0
    connections: int = 0


@dataclass(slots=True)
class Bucket:
    """What of a rate is left (a token bucket). Times are seconds that never run backwards."""

    rate: Rate
    left: float
    at: float

    def take(self, now: float) -> float:
        """0 if one may be taken now, else the seconds until then."""
        self.left = min(float(self.rate.requests), self.left + (now - self.at) * self.rate.per_s)
        self.at = now
        if self.left >= 1:
            self.left -= 1
            return 0.0
        return (1 - self.left) / self.rate.per_s


@dataclass(slots=True)
class Access:
    """The apps in force, of one serving process. number: how often they were replaced; share: the part of each rate
    that is this process's; connections: that it takes, of all apps; bearers: by whom each is borne, by its peer's id,
    with the peer, so that no other gets that id. For the server's thread alone.
    """

    apps: tuple[App, ...] = ()
    share: float = 1.0
    number: int = 0
    counts: dict[str, AppCount] = field(default_factory=dict)
    refused: int = 0  # 401
    buckets: dict[str, Bucket] = field(default_factory=dict)
    on_replaced: Callable[[], None] | None = None
    connections: int = 1024
    bearers: dict[int, tuple[Peer, str]] = field(default_factory=dict)

    @property
    def with_exe(self) -> bool:
        return any(app.exe for app in self.apps)

    def replace(self, apps: Sequence[App]) -> None:
        """Others from now on; what is under way for an app that is not the same any more ends."""
        if tuple(apps) == self.apps:
            return
        self.apps, self.number = tuple(apps), self.number + 1
        names = {app.name for app in self.apps}
        for known in (self.counts, self.buckets):
            for name in known.keys() - names:
                del known[name]
        for number, (_, name) in list(self.bearers.items()):
            if name not in names:
                del self.bearers[number]
        if self.on_replaced is not None:
            self.on_replaced()

    def still(self, app: App) -> bool:
        """Whether an app is configured as it was."""
        return app in self.apps

    def app_of(self, who: Identity, authorization: str | None, *, proxied: bool) -> tuple[App, bool]:
        """The app that asks, and whether its credential is edged's, as that of whichever app is: a bearer token that is
        no app's may be one for the service behind the proxy. Raises RequestError 401."""
        scheme, _, token = (authorization or "").partition(" ")
        bearer = scheme.lower() == "bearer"
        found = self.by_token(token.strip()) if bearer else None
        for app in self.apps:
            if app.is_peer(who.uid, who.gid, who.exe):
                return app, found is not None
        if found is not None:
            return found, True
        everybody = next((app for app in self.apps if app.name == ANONYMOUS), None)
        if everybody is None or (bearer and not proxied):
            self.refused += 1
            what = "the bearer token is not one of an app's" if bearer else "no credential of an app"
            raise RequestError(401, f"{what}; send Authorization: Bearer TOKEN", headers=CHALLENGE)
        return everybody, False

    def by_token(self, token: str) -> App | None:
        """Every hash is compared, each in constant time."""
        given, found = sha256(token.encode("latin-1", "replace")).digest(), None
        for app in self.apps:
            if app.token_sha256 and hmac.compare_digest(app.token_sha256, given):
                found = app
        return found

    def take(self, app: App, now: float) -> None:
        """Count a request of an app. Raises RequestError 429 where its rate is used up."""
        count = self.counts.setdefault(app.name, AppCount())
        count.requests += 1
        if app.rate is None:
            return
        bucket = self.buckets.get(app.name)
        if bucket is None or bucket.rate != app.rate:
            bucket = self.buckets[app.name] = Bucket(app.rate, float(app.rate.requests), now)
        wait_s = bucket.take(now) / self.share
        if wait_s:
            count.limited += 1
            after = str(max(1, int(min(wait_s, MOST_WAIT_S) + 0.999)))
            what = f"more than {app.rate.requests} requests in {app.rate.seconds:g} s; ask again later"
            raise RequestError(429, what, headers=(("Retry-After", after),))

    def bear(self, app: App, peer: Peer) -> None:
        """The connection of `peer` is the app's, whose else it was before. Raises CrowdedError 429 where the app has
        its share already.
        """
        held = self.bearers.get(id(peer))
        if held is not None and held[1] == app.name:
            return
        most = max(1, int(app.connections * self.connections))
        count = self.counts.setdefault(app.name, AppCount())
        if count.connections >= most:
            count.requests += 1
            count.limited += 1
            what = f"this app has {most} connections open, its share of them; close some, or ask again in a second"
            raise CrowdedError(429, what, headers=(("Retry-After", "1"),))
        self.leave(peer)
        count.connections += 1
        self.bearers[id(peer)] = peer, app.name

    def leave(self, peer: Peer) -> None:
        """The connection has ended, or is another app's."""
        held = self.bearers.pop(id(peer), None)
        if held is not None and held[1] in self.counts:
            self.counts[held[1]].connections -= 1

    def status(self) -> Mapping[str, dict[str, object]]:
        """For /status, by app."""
        found: dict[str, dict[str, object]] = {}
        for app in self.apps:
            count = self.counts.get(app.name, AppCount())
            found[app.name] = {
                "audience": app.audience,
                "requests": count.requests,
                "refused": count.refused,
                "limited": count.limited,
                "connections": count.connections,
            }
        return found
