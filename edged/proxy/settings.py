"""The proxy's settings: what `[proxy]` and `[[proxy.routes]]` become. Sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edged.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Route:
    """One service. The longest prefix that a path lies under, by whole segments, wins; "/" takes everything.

    upstream: http:// or https://, with an optional path that goes before the request's. strip_prefix: take the prefix
    off before that. keep_host: send the Host that the app sent instead of the upstream's own.
    connect_timeout_s: until a connection stands. timeout_s: between two pieces of an answer, the first one included.
    offline_s: how long past its freshness a stored answer serves while the upstream cannot be reached.
    stale_if_error_s: likewise while it answers 500, 502, 503 or 504; 0: only as far as the answer itself allows.
    ca: PEM of the only authorities that are trusted; "": the system's. cert and key: PEM of a client certificate.
    connections: at most at once. retry: once more, for GET and HEAD whose connection broke before any answer.
    """

    prefix: str
    upstream: str
    strip_prefix: bool = False
    keep_host: bool = False
    connect_timeout_s: float = 5.0
    timeout_s: float = 30.0
    offline_s: int = 86_400
    stale_if_error_s: int = 0
    ca: str = ""
    cert: str = ""
    key: str = ""
    connections: int = 64
    retry: bool = True

    def check(self) -> None:
        """Raise ConfigError naming the route for what cannot be served."""
        parts = urlsplit(self.upstream)
        try:
            sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            sound = False
        if not sound or parts.query or parts.fragment or "@" in parts.netloc or not self.upstream.isascii():
            raise ConfigError(
                f"proxy route {self.prefix!r}: upstream is {self.upstream!r}; expected http(s)://host[:port][/path]"
            )
        if not self.prefix.startswith("/") or not self.prefix.isascii() or "//" in self.prefix:
            raise ConfigError(f'proxy route {self.prefix!r}: a prefix is an absolute path, such as "/api"')
        if self.prefix == "/v1" or self.prefix.startswith("/v1/"):
            raise ConfigError(f"proxy route {self.prefix!r}: /v1 is edged's own; choose another prefix")
        if bool(self.cert) != bool(self.key):
            raise ConfigError(f"proxy route {self.prefix!r}: cert and key go together; set both or neither")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """directory: where answers are kept; None: in memory alone. quota_bytes: for all files below it at any time.

    memory_bytes: bodies and remembered answers in memory. object_bytes: the largest answer that is kept; 0: an eighth
    of the quota. circuit_failures: failures to reach an upstream, one after another, after which requests that must
    go out fail at once; circuit_first_s, circuit_most_s: between looks whether it is back, doubling.
    """

    routes: tuple[Route, ...] = ()
    directory: Path | None = None
    quota_bytes: int = 256 << 20
    memory_bytes: int = 32 << 20
    object_bytes: int = 0
    circuit_failures: int = 2
    circuit_first_s: float = 1.0
    circuit_most_s: float = 30.0

    def check(self) -> None:
        """Raise ConfigError for settings that do not go together."""
        prefixes = [route.prefix.rstrip("/") for route in self.routes]
        for index, route in enumerate(self.routes):
            route.check()
            if prefixes[index] in prefixes[:index]:
                raise ConfigError(f"proxy route {route.prefix!r} is there twice; remove one")
        if self.directory is not None and self.quota_bytes < SMALLEST_QUOTA_BYTES:
            raise ConfigError(
                f"proxy quota: {self.quota_bytes} bytes; at least {SMALLEST_QUOTA_BYTES} are needed for the database"
            )

    @property
    def largest_bytes(self) -> int:
        """The largest body that is kept."""
        return self.object_bytes or (self.quota_bytes // 8 if self.directory is not None else SMALLEST_OBJECT_BYTES)


SMALLEST_QUOTA_BYTES = 4 << 20
SMALLEST_OBJECT_BYTES = 1 << 20
