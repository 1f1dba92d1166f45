"""The configuration: one frozen structure a section, each field with its default, unit, range and one sentence.

`config/edged.toml` is rendered from these structures (`render_default`), and a test keeps the two equal.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from edged.errors import ConfigError
from edged.feed.names import NAME
from edged.toml import Fault, Key, Table, read_toml

DEFAULT_PATH = Path("/etc/edged/edged.toml")

Port = r"(?:[0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
BIND = rf"^(?:(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):{Port}|unix:/[^\0]{{1,100}})$"
ORIGIN = r"^(?:https?://[^\s/?#@]+(?:/[^\s?#]*)?|file:///[^\s?#]*)$"
SIZE = r"^[0-9]+(?:B|KiB|MiB|GiB|kB|MB|GB)$"
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

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def size_bytes(text: str) -> int:
    """ "256MiB" as a number of bytes."""
    match = re.fullmatch(r"([0-9]+)([A-Za-z]+)", text)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    return int(match[1]) * UNITS[match[2]]


class DaemonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The daemon itself."""

    data_dir: Annotated[str, Meta(min_length=1, description="Where the replicas lie; only edged writes there.")] = (
        "/var/lib/edged"
    )
    device_id: Annotated[
        str, Meta(max_length=200, description="Who this device is; empty: from /etc/machine-id, hashed.")
    ] = ""
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
    socket_mode: Annotated[
        str,
        Meta(
            pattern="^0[0-7]{3}$",
            extra={"form": '"0660"'},
            description="Permissions of Unix sockets: who on the device may connect.",
        ),
    ] = "0666"


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


def load(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError that holds every fault with its line and the fix."""
    table, faults = read_toml(path)
    config = None
    if table is not None:
        config = table.convert(
            Config, faults, {DatasetConfig: check_dataset, ServeConfig: check_serve, Config: check_whole}
        )
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
    """Each dataset once."""
    names = [dataset.name for dataset in config.datasets]
    return [
        table.fault((*key, "datasets", index, "name"), f"dataset {name!r} is there twice; remove one")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


EXAMPLE_DATASET = """\
# [[datasets]]
# name = "catalog"
# origin = ["https://origin.example/catalog"]
# trust = "/etc/edged/catalog.trust"
# slices = ["core"]
# seed = ""
# poll_s = 30
"""


def render_default() -> str:
    """`config/edged.toml`: every key at its default, explained."""
    lines = [
        "# edged: the daemon's configuration. Every key is shown at its default; unknown keys are refused.",
        "# `edged check --config FILE` names every fault in a file, its line and the fix.",
    ]
    for name in Config.__struct_fields__:
        if name == "datasets":
            lines += ["", *comment(DatasetConfig.__doc__ or "")]
            for item in msgspec.structs.fields(DatasetConfig):
                lines += [f"# {item.encode_name}: {describe(item)}"]
            lines += EXAMPLE_DATASET.splitlines()
            continue
        section = getattr(Config(), name)
        lines += ["", *comment(type(section).__doc__ or ""), f"[{name}]"]
        for item in msgspec.structs.fields(type(section)):
            lines += [f"# {describe(item)}", f"{item.encode_name} = {toml_value(getattr(section, item.name))}"]
    return "\n".join(lines) + "\n"


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
