"""The configuration: one frozen structure a section, each field with its default, unit, range and one sentence.

`config/edged.toml` is rendered from these structures (`render_default`), and a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field

from edged.errors import ConfigError
from edged.feed.names import NAME
from edged.toml import Check, Fault, Key, Table, read_toml
from edged.units import SIZE, size_bytes

DEFAULT_PATH = Path("/etc/edged/edged.toml")

Port = r"(?:[0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
BIND = rf"^(?:(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):{Port}|unix:/[^\0]{{1,100}})$"
ORIGIN = r"^(?:https?://[^\s/?#@]+(?:/[^\s?#]*)?|file:///[^\s?#]*)$"
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
Size = Annotated[str, Meta(pattern=SIZE, extra={"form": "a whole number and B, KiB, MiB, GiB, kB, MB or GB"})]

SMALLEST_QUOTA = 4 << 20  # bytes: the proxy's database with its log


class DaemonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The daemon itself."""

    data_dir: Annotated[str, Meta(min_length=1, description="Where the replicas lie; only edged writes there.")] = (
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
        Literal["debug", "info", "warning", "error"], Meta(description="The least level that is logged.")
    ] = "info"


class DatasetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One dataset that this device carries. Repeat the section for more; none is allowed (nothing is synced then)."""

    name: Annotated[Name, Meta(description="The dataset's name, as published.")]
    origin: Annotated[
        list[Origin],
        Meta(min_length=1, max_length=16, description="Base URLs of the feed, tried in order; file:///path works too."),
    ]
    trust: Annotated[str, Meta(min_length=1, description="The root of trust, as `edged origin init` printed it.")]
    slices: Annotated[
        list[Name], Meta(min_length=1, max_length=256, description="The slices that this device carries.")
    ] = field(default_factory=lambda: ["core"])
    seed: Annotated[
        str, Meta(description="A bundle in the firmware image, used when there is no replica yet; empty: none.")
    ] = ""
    poll_s: Annotated[
        int,
        Meta(ge=1, le=86_400, description="Seconds between looks at a host that cannot hold a request until news."),
    ] = 30
    require: Annotated[
        list[Name],
        Meta(max_length=64, description="Collections without which a version is refused and the last one served on."),
    ] = field(default_factory=list)


class ServeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What apps on the device connect to."""

    bind: Annotated[
        list[Bind], Meta(min_length=1, max_length=16, description="Addresses; TCP and Unix sockets alike.")
    ] = field(default_factory=lambda: ["127.0.0.1:8484", "unix:/run/edged/edged.sock"])
    workers: Annotated[int, Meta(ge=1, le=64, description="Serving processes; 1 is right for a box.")] = 1
    tls_cert: Annotated[str, Meta(description="PEM chain; with tls_key: HTTPS with HTTP/2 and HTTP/1.1.")] = ""
    tls_key: Annotated[str, Meta(description="PEM key of tls_cert, not readable by others.")] = ""
    hosts: Annotated[
        list[str], Meta(min_length=1, max_length=64, description="Host values answered; any other is 421.")
    ] = field(default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"])
    origins: Annotated[
        list[Annotated[str, Meta(pattern=WEB_ORIGIN, extra={"form": "scheme://host[:port]"})]],
        Meta(max_length=64, description="Web origins allowed by CORS, exact."),
    ] = field(default_factory=list)
    max_connections: Annotated[int, Meta(ge=8, le=65_536, description="Connections at once, over all addresses.")] = (
        1024
    )
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
    ca: Annotated[str, Meta(description="PEM of the only authorities that are trusted; empty: the system's.")] = ""
    cert: Annotated[str, Meta(description="PEM of a client certificate, with key.")] = ""
    key: Annotated[str, Meta(description="PEM key of cert.")] = ""
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


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    datasets: list[DatasetConfig] = field(default_factory=list)
    serve: ServeConfig = field(default_factory=ServeConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)

    @property
    def proxy_directory(self) -> Path:
        """Where the proxy keeps answers. No dataset's name begins with a dot."""
        return Path(self.daemon.data_dir) / ".proxy"


def load(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError that holds every fault with its line and the fix."""
    table, faults = read_toml(path)
    config = None
    if table is not None:
        config = table.convert(Config, faults, CHECKS)
    if faults or config is None:
        lines = tuple(str(fault) for fault in sorted(faults, key=lambda fault: fault.line))
        more = f" (and {len(lines) - 1} more; `edged check` shows all)" if len(lines) > 1 else ""
        raise ConfigError(f"{path}: {lines[0]}{more}", tuple(f"{path}: {line}" for line in lines))
    return config


def check_dataset(dataset: DatasetConfig, table: Table, key: Key) -> list[Fault]:
    """Files that must be there."""
    faults: list[Fault] = []
    if not Path(dataset.trust).is_file():
        what = f"{dataset.trust!r} is not a file; copy there the trust file that `edged origin init` printed"
        faults.append(table.fault((*key, "trust"), what))
    if dataset.seed and not Path(dataset.seed).is_file():
        what = f'{dataset.seed!r} is not a file; make one with `edged bundle export`, or set ""'
        faults.append(table.fault((*key, "seed"), what))
    return faults


def check_serve(serve: ServeConfig, table: Table, key: Key) -> list[Fault]:
    """Keys that go together."""
    faults: list[Fault] = []
    if bool(serve.tls_cert) != bool(serve.tls_key):
        faults.append(table.fault((*key, "tls_cert"), "tls_cert and tls_key go together; set both or neither"))
    for name in ("tls_cert", "tls_key"):
        file = getattr(serve, name)
        if file and not Path(file).is_file():
            faults.append(table.fault((*key, name), f"{file!r} is not a file"))
    if serve.workers > 1 and any(bind.endswith(":0") for bind in serve.bind):
        faults.append(table.fault((*key, "bind"), "port 0 and several workers do not go together; name a port"))
    return faults


def check_whole(config: Config, table: Table, key: Key) -> list[Fault]:
    """Each dataset once; what cannot go together."""
    names = [dataset.name for dataset in config.datasets]
    alone: list[Fault] = []
    if config.serve.workers > 1 and config.proxy.routes:
        what = "the proxy's cache has one owner: with [[proxy.routes]], serve.workers is 1"
        alone.append(table.fault((*key, "serve", "workers"), what))
    return alone + [
        table.fault((*key, "datasets", index, "name"), f"dataset {name!r} is there twice; remove one")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def is_sound_url(url: str) -> bool:
    """Whether host and port of a URL can be used as they stand: international names are written in their A-form."""
    try:
        parts = urlsplit(url)
        return url.isascii() and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def check_route(route: RouteConfig, table: Table, key: Key) -> list[Fault]:
    """Keys that go together, and files that must be there."""
    faults: list[Fault] = []
    if not is_sound_url(route.upstream):
        what = f"{route.upstream!r} is not a URL; expected http(s)://host[:port][/path] of ASCII, the port below 65536"
        faults.append(table.fault((*key, "upstream"), what))
    if bool(route.cert) != bool(route.key):
        faults.append(table.fault((*key, "cert"), "cert and key go together; set both or neither"))
    for name in ("ca", "cert", "key"):
        file = getattr(route, name)
        if file and not Path(file).is_file():
            faults.append(table.fault((*key, name), f"{file!r} is not a file"))
    return faults


def check_proxy(proxy: ProxyConfig, table: Table, key: Key) -> list[Fault]:
    """Each prefix once, and room for the database."""
    prefixes = [route.prefix.rstrip("/") for route in proxy.routes]
    faults = [
        table.fault((*key, "routes", index, "prefix"), f"prefix {prefix or '/'!r} is there twice; remove one")
        for index, prefix in enumerate(prefixes)
        if prefix in prefixes[:index]
    ]
    if size_bytes(proxy.quota) < SMALLEST_QUOTA:
        faults.append(table.fault((*key, "quota"), f"at least {SMALLEST_QUOTA} B are needed; got {proxy.quota!r}"))
    return faults


CHECKS: Mapping[type, Check] = {
    DatasetConfig: check_dataset,
    ServeConfig: check_serve,
    RouteConfig: check_route,
    ProxyConfig: check_proxy,
    Config: check_whole,
}

EXAMPLES: Mapping[str, Mapping[str, object]] = {
    "datasets": {
        "name": "catalog",
        "origin": ["https://origin.example/catalog"],
        "trust": "/etc/edged/catalog.trust",
    },
    "proxy.routes": {"prefix": "/api", "upstream": "https://services.example"},
}


def render_default() -> str:
    """`config/edged.toml`: every key at its default, explained."""
    lines = [
        "# edged: the daemon's configuration. Every key is shown at its default; unknown keys are refused.",
        "# `edged check --config FILE` names every fault in a file, its line and the fix.",
    ]
    default = Config()
    for name in Config.__struct_fields__:
        section = getattr(default, name)
        if isinstance(section, list):
            lines += render_example(name, DatasetConfig)
            continue
        lines += ["", *comment(type(section).__doc__ or ""), f"[{name}]"]
        for item in msgspec.structs.fields(type(section)):
            if name == "proxy" and item.name == "routes":
                lines += render_example("proxy.routes", RouteConfig)
            else:
                lines += [f"# {describe(item)}", f"{item.encode_name} = {toml_value(getattr(section, item.name))}"]
    return "\n".join(lines) + "\n"


def render_example(name: str, kind: type[Struct]) -> list[str]:
    """A section that may be repeated, or left out: commented, with example values where there is no default."""
    lines = ["", *comment(kind.__doc__ or ""), f"# [[{name}]]"]
    for item in msgspec.structs.fields(kind):
        made = item.default if item.default is not msgspec.NODEFAULT else None
        made = item.default_factory() if item.default_factory is not msgspec.NODEFAULT else made
        value = EXAMPLES[name].get(item.encode_name, made)
        lines += [f"#   {describe(item)}", f"# {item.encode_name} = {toml_value(value)}"]
    return lines


def describe(item: msgspec.structs.FieldInfo) -> str:
    kind = msgspec.inspect.type_info(item.type)
    extra = getattr(kind, "extra_json_schema", None) or {}
    return str(extra.get("description", ""))


def comment(text: str) -> list[str]:
    return [f"# {line.strip()}" for line in text.strip().splitlines()]


def toml_value(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
