"""The configuration: one frozen structure a section, each field with its default, unit, range and one sentence.

configfile.py reads it; `config/edged.toml` is rendered from these structures, and a test keeps the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from edged.feed.names import NAME
from edged.units import SIZE

Port = r"(?:[0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
BIND = rf"^(?:(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):{Port}|unix:/[^\0]{{1,100}})$"
ORIGIN = r"^(?:https?://[^\s/?#@]+(?:/[^\s?#]*)?|file:///[^\s?#]*)$"
BROKER = r"mqtts?://[^\s/?#@]+(?:/[^\s?#+]*)?"
PATTERN = r"^[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}$"
WEB_ORIGIN = r"^(?:https?://[^\s/?#@]+|[a-z][a-z0-9+.-]*://[^\s/?#@]*)$"

Name = Annotated[
    str,
    Meta(
        pattern=f"^(?!.*\\.\\.)(?:{NAME.pattern})$",
        extra={"form": "1 to 64 of A-Z a-z 0-9 . _ - beginning and ending with a letter or digit, without '..'"},
    ),
]
Bind = Annotated[str, Meta(pattern=BIND, extra={"form": '"HOST:PORT", "[IPV6]:PORT" or "unix:/PATH"'})]
Origin = Annotated[str, Meta(pattern=ORIGIN, extra={"form": "https://, http:// or file:/// and a path"})]
Broker = Annotated[
    str, Meta(pattern=f"^(?:{BROKER})?$", extra={"form": "mqtts://broker:8883/prefix, or mqtt:// in clear"})
]
File = Annotated[str, Meta(pattern=r"^[^\0]*$", extra={"form": "a path, in which there can be no NUL"})]
Size = Annotated[str, Meta(pattern=SIZE, extra={"form": "a whole number and B, KiB, MiB, GiB, kB, MB or GB"})]


class DaemonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The daemon itself."""

    data_dir: Annotated[File, Meta(min_length=1, description="Where the replicas lie; only edged writes there.")] = (
        "/var/lib/edged"
    )
    device_id: Annotated[
        str, Meta(max_length=200, description="Who this device is; empty: from /etc/machine-id, hashed.")
    ] = ""
    flash_budget: Annotated[
        Size, Meta(description="Bytes a day that merging may write to flash, updates apart; 0B: as it needs.")
    ] = "0B"
    audit_s: Annotated[
        int,
        Meta(
            ge=0,
            le=31_536_000,
            description="Seconds between audits of what is on disk, the first at the start; 0: only on SIGHUP.",
        ),
    ] = 86_400
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description='The least level that is logged. At "debug" from the start each request is.'),
    ] = "info"


class BrokerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the broker of `announce` is spoken to."""

    ca: Annotated[File, Meta(description="PEM of the only authorities trusted for it; empty: the system's.")] = ""
    cert: Annotated[File, Meta(description="PEM of a client certificate, with key.")] = ""
    key: Annotated[File, Meta(description="PEM key of cert.")] = ""
    user: Annotated[str, Meta(description='"env:NAME" and "file:PATH" are taken from there.')] = ""
    password: Annotated[str, Meta(description="Likewise.")] = ""


class DatasetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One dataset that this device carries. Repeat the section for more; none is allowed (nothing is synced then)."""

    name: Annotated[Name, Meta(description="The dataset's name, as published.")]
    origin: Annotated[
        list[Origin],
        Meta(min_length=1, max_length=16, description="Base URLs of the feed, tried in order; file:///path works too."),
    ]
    trust: Annotated[File, Meta(min_length=1, description="The root of trust, as `edged origin init` printed it.")]
    slices: Annotated[
        list[Name], Meta(min_length=1, max_length=256, description="The slices that this device carries.")
    ] = field(default_factory=lambda: ["core"])
    seed: Annotated[
        File, Meta(description="A bundle in the firmware image, used when there is no replica yet; empty: none.")
    ] = ""
    poll_s: Annotated[
        int,
        Meta(ge=1, le=86_400, description="Seconds between looks at a host that cannot hold a request until news."),
    ] = 30
    require: Annotated[
        list[Name],
        Meta(max_length=64, description="Collections without which a version is refused and the last one served on."),
    ] = field(default_factory=list)
    ca: Annotated[
        File, Meta(description="PEM of the only authorities trusted for the origins; empty: the system's.")
    ] = ""
    cert: Annotated[File, Meta(description="PEM of a client certificate, shown to the origins, with key.")] = ""
    key: Annotated[File, Meta(description="PEM key of cert.")] = ""
    headers: Annotated[
        dict[str, str],
        Meta(description='Sent to the origins and nobody else; "env:NAME" is taken from the environment.'),
    ] = field(default_factory=dict)
    proxy: Annotated[
        str, Meta(description="URL of an HTTP proxy on the way to the origins; empty: the environment's, if any.")
    ] = ""
    memory: Annotated[
        bool, Meta(description="Kept in memory alone, nothing on flash: for data that changes all the time.")
    ] = False
    announce: Annotated[
        Broker,
        Meta(description="A broker that brings new heads at once, beside the poll: mqtts://host/prefix; empty: none."),
    ] = ""
    broker: Annotated[
        BrokerConfig, Meta(description='For `announce`: { ca, cert, key, user, password }; "env:NAME", "file:PATH".')
    ] = field(default_factory=BrokerConfig)


class CertificateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate for the names in it, and its key."""

    cert: Annotated[File, Meta(min_length=1, description="PEM chain.")]
    key: Annotated[File, Meta(min_length=1, description="PEM key, not readable by others.")]


class ServeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What apps on the device connect to."""

    bind: Annotated[
        list[Bind], Meta(min_length=1, max_length=16, description="Addresses; TCP and Unix sockets alike.")
    ] = field(default_factory=lambda: ["127.0.0.1:8484", "unix:/run/edged/edged.sock"])
    workers: Annotated[int, Meta(ge=1, le=64, description="Serving processes; 1 is right for a box.")] = 1
    tls_cert: Annotated[File, Meta(description="PEM chain; with tls_key: HTTPS with HTTP/2 and HTTP/1.1.")] = ""
    tls_key: Annotated[File, Meta(description="PEM key of tls_cert, not readable by others.")] = ""
    certificates: Annotated[
        list[CertificateConfig],
        Meta(
            max_length=256,
            description='More, for other names (SNI): [{ cert = "a.pem", key = "a.key" }]; tls_cert is for the rest.',
        ),
    ] = field(default_factory=list)
    hosts: Annotated[
        list[str], Meta(min_length=1, max_length=64, description="Host values answered; any other is 421.")
    ] = field(default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"])
    origins: Annotated[
        list[Annotated[str, Meta(pattern=WEB_ORIGIN, extra={"form": "scheme://host[:port]"})]],
        Meta(max_length=64, description="Web origins allowed by CORS, exact."),
    ] = field(default_factory=list)
    access_log: Annotated[
        bool,
        Meta(description="A line in the log for each request, 100 a second at most; nothing is remembered then."),
    ] = False
    server_timing: Annotated[
        bool,
        Meta(description="Server-Timing on each answer: its time, what the cache did; nothing is remembered then."),
    ] = False
    explorer: Annotated[
        bool, Meta(description="A page at / for those who write apps: what is here, and requests to try.")
    ] = False
    max_connections: Annotated[int, Meta(ge=8, le=65_536, description="Connections at once, over all addresses.")] = (
        1024
    )
    unread: Annotated[
        Size,
        Meta(description="For answers that clients have not read yet, all together; beyond, the slowest is cut off."),
    ] = "64MiB"
    memory: Annotated[
        Size, Meta(description="For remembered answers; where it holds all hot ones, they cost least.")
    ] = "32MiB"
    socket_mode: Annotated[
        str,
        Meta(
            pattern="^0[0-7]{3}$",
            extra={"form": '"0660"'},
            description="Permissions of Unix sockets: who on the device may connect.",
        ),
    ] = "0666"


class RouteConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One service that is fetched, not synced; the longest prefix wins. Repeat the section for more."""

    prefix: Annotated[
        str,
        Meta(
            pattern=r"^/(?!v1(?:/|$))(?!.*//)[!-~]*$",
            extra={"form": 'an absolute path such as "/api", not below /v1'},
            description="Paths of apps that go there, by whole segments.",
        ),
    ]
    upstream: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/?#@]+(?:/[^\s?#]*)?$",
            extra={"form": "http(s)://host[:port][/path]"},
            description="The service's base URL.",
        ),
    ]
    strip_prefix: Annotated[bool, Meta(description="Take the prefix off the path.")] = False
    keep_host: Annotated[bool, Meta(description="Send the Host that the app sent, not the upstream's own.")] = False
    connect_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="Seconds until a connection stands, at most.")
    ] = 5.0
    timeout_s: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds between two pieces of an answer, at most.")
    ] = 30.0
    offline_s: Annotated[
        int, Meta(ge=0, le=31_536_000, description="How long past its freshness a stored answer serves offline.")
    ] = 86_400
    stale_if_error_s: Annotated[
        int, Meta(ge=0, le=31_536_000, description="Likewise while the upstream answers 500, 502, 503 or 504.")
    ] = 0
    ca: Annotated[File, Meta(description="PEM of the only authorities that are trusted; empty: the system's.")] = ""
    cert: Annotated[File, Meta(description="PEM of a client certificate, with key.")] = ""
    key: Annotated[File, Meta(description="PEM key of cert.")] = ""
    connections: Annotated[int, Meta(ge=1, le=4096, description="Connections to the upstream at once.")] = 64
    retry: Annotated[bool, Meta(description="Once more, for GET and HEAD whose connection broke early.")] = True


class ProxyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The caching proxy for services that cannot be replicated. Without routes there is none."""

    quota: Annotated[Size, Meta(description="Bytes on disk at most, all files of the cache together.")] = "256MiB"
    memory: Annotated[Size, Meta(description="For answers in memory, where hits come from.")] = "32MiB"
    largest: Annotated[Size, Meta(description="The largest body that is kept; 0B: an eighth of quota.")] = "0B"
    routes: Annotated[list[RouteConfig], Meta(max_length=256, description="The services.")] = field(
        default_factory=list
    )


class AdminConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What operators connect to. It has no credentials of its own: keep it on an address that only they reach."""

    bind: Annotated[list[Bind], Meta(min_length=1, max_length=16, description="Addresses.")] = field(
        default_factory=lambda: ["127.0.0.1:8485"]
    )


class RelayConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """An edge node: heads and blobs handed on to other edgeds. Without an address it is off; it has no keys."""

    bind: Annotated[
        list[Bind],
        Meta(
            max_length=16,
            description="Where other edgeds ask, as an origin: http://HOST:PORT/DATASET; none: it is off.",
        ),
    ] = field(default_factory=list)
    quota: Annotated[Size, Meta(description="Bytes of blobs on disk at most; what was not asked for longest goes.")] = (
        "1GiB"
    )
    prefetch: Annotated[
        Literal["none", "head", "all"],
        Meta(description="Fetched ahead: nothing, what a new head names itself, or snapshots for new devices too."),
    ] = "all"
    datasets: Annotated[
        list[Annotated[str, Meta(pattern=PATTERN, extra={"form": 'a name; * in it stands for anything: "tv-*"'})]],
        Meta(max_length=256, description="Handed on beside those of [[datasets]]; a pattern's are, once asked for."),
    ] = field(default_factory=list)
    origin: Annotated[
        list[Origin],
        Meta(max_length=16, description="Base URLs of these datasets without their names, tried in order."),
    ] = field(default_factory=list)
    trust: Annotated[File, Meta(description="The root of trust of these datasets.")] = ""
    poll_s: Annotated[
        int,
        Meta(ge=1, le=86_400, description="Seconds between looks at a host that cannot hold a request until news."),
    ] = 30
    ca: Annotated[File, Meta(description="As in [[datasets]], and so are the next four, for `origin`.")] = ""
    cert: Annotated[File, Meta(description="PEM of a client certificate, shown to the origins, with key.")] = ""
    key: Annotated[File, Meta(description="PEM key of cert.")] = ""
    headers: Annotated[
        dict[str, str],
        Meta(description='Sent to the origins and nobody else; "env:NAME" is taken from the environment.'),
    ] = field(default_factory=dict)
    proxy: Annotated[str, Meta(description="URL of an HTTP proxy; empty: the environment's, if any.")] = ""
    tls_cert: Annotated[File, Meta(description="PEM chain; with tls_key: HTTPS. Devices need no secrecy.")] = ""
    tls_key: Annotated[File, Meta(description="PEM key of tls_cert, not readable by others.")] = ""


class AppConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One app that may ask. As soon as there is one, what is not allowed is denied; the one named "anonymous" is
    everybody else. Repeat the section for more."""

    name: Annotated[Name, Meta(description="Its name, in logs, metrics and reports of use.")]
    audience: Annotated[Literal["internal", "partner", "public"], Meta(description="internal, partner or public.")] = (
        "internal"
    )
    uid: Annotated[int, Meta(ge=-1, le=4_294_967_294, description="Its user on Unix sockets; -1: any.")] = -1
    gid: Annotated[int, Meta(ge=-1, le=4_294_967_294, description="Its group there, too; -1: any.")] = -1
    exe: Annotated[
        str,
        Meta(
            pattern=r"^(?:/[^\0]*)?$",
            extra={"form": "an absolute path"},
            description='Its executable there, too, as /proc has it; "": any.',
        ),
    ] = ""
    token_sha256: Annotated[
        str,
        Meta(
            pattern=r"^(?:[0-9a-f]{64})?$",
            extra={"form": "64 hexadecimal digits, as `printf %s TOKEN | sha256sum` prints them"},
            description='SHA-256 of its bearer token, for TCP; "": none.',
        ),
    ] = ""
    token_file: Annotated[
        File, Meta(description='Or the token in a file; "credential:NAME": one of systemd\'s LoadCredential.')
    ] = ""
    allow: Annotated[
        list[
            Annotated[
                str,
                Meta(
                    pattern=rf"^(?:\*|proxy:/[!-~]*|{NAME.pattern}(?:/(?:\*|[^/\s]+))?)$",
                    extra={
                        "form": '"catalog/titles", "catalog/*", "catalog" (its description), "proxy:/prefix" or "*"'
                    },
                ),
            ]
        ],
        Meta(max_length=1024, description="What it may ask for."),
    ] = field(default_factory=list)
    slices: Annotated[
        list[Name], Meta(max_length=64, description="Slices whose records it may have, in all datasets; none: all.")
    ] = field(default_factory=list)
    view: Annotated[str, Meta(description='The only shape that it gets; "": any.')] = ""
    rate: Annotated[
        str,
        Meta(
            pattern=r"^(?:[1-9][0-9]{0,6}/(?:s|min))?$",
            extra={"form": '"200/s" or "1000/min"'},
            description='Requests in a time, and as many at once; "": any number.',
        ),
    ] = ""
    connections: Annotated[
        str,
        Meta(
            pattern=r"^(?:(?:[1-9][0-9]?|100)%)?$",
            extra={"form": '"25%"'},
            description='Its share of serve.max_connections; "": all for internal, 50% for partner, 25% for public.',
        ),
    ] = ""


class UsageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who uses what: counted by app, audience and collection, without keys, queries or people. See docs/privacy.md."""

    keep_days: Annotated[int, Meta(ge=1, le=3650, description="How long it is kept, in at most 2 MB.")] = 400
    report: Annotated[
        bool,
        Meta(description="Tell origins once a day what was used of their datasets; docs/privacy.md has every field."),
    ] = False


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    datasets: list[DatasetConfig] = field(default_factory=list)
    serve: ServeConfig = field(default_factory=ServeConfig)
    relay: RelayConfig = field(default_factory=RelayConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    apps: list[AppConfig] = field(default_factory=list)
    usage: UsageConfig = field(default_factory=UsageConfig)

    @property
    def proxy_directory(self) -> Path:
        """Where the proxy keeps answers. No dataset's name begins with a dot."""
        return Path(self.daemon.data_dir) / ".proxy"

    @property
    def relay_directory(self) -> Path:
        """Where the relay keeps heads, roots and blobs."""
        return Path(self.daemon.data_dir) / ".relay"
