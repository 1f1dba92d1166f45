"""The configuration's files: read, checked, and written with every key at its default.

What is wrong is named with its file, its line and the fix, all of it at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from edged.access.configured import is_for_service_alone, token_hash
from edged.access.rights import ANONYMOUS, EVERYTHING, PROXY
from edged.announce.broker import BrokerAccess, secret
from edged.config import (
    AppConfig,
    BrokerConfig,
    CertificateConfig,
    Config,
    DatasetConfig,
    ProxyConfig,
    RelayConfig,
    RouteConfig,
    ServeConfig,
)
from edged.errors import ConfigError
from edged.http.fields import BAD_VALUE, TOKEN
from edged.http.urls import sound_url
from edged.toml import Check, Fault, Key, Table, read_toml
from edged.units import size_bytes

DEFAULT_PATH = Path("/etc/edged/edged.toml")
DROP_INS = "edged.d"  # beside the configuration; its files are read after it
SMALLEST_QUOTA = 4 << 20  # bytes: the proxy's database with its log
FROM_ENVIRONMENT = "env:"
OWN_FIELDS = {"host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "range", "if-none-match"}
WILDCARDS = {"0.0.0.0", "[::]"}  # noqa: S104 - compared with, not bound to
LOOPBACK = {"localhost": "127.0.0.1"}


def load(path: Path) -> Config:
    """Read and check a configuration. Raises ConfigError that holds every fault with its file, its line and the fix."""
    return load_with_warnings(path)[0]


def load_with_warnings(path: Path) -> tuple[Config, tuple[str, ...]]:
    """The configuration, and what is wrong with it although the daemon can do something useful: a file that is missing
    now may be there later, and what is held is served meanwhile. Raises as `load` does."""
    table, faults = read_files(path)
    config = None
    if table is not None:
        config = table.convert(Config, faults, CHECKS)
    if faults or config is None or table is None:
        lines = in_order(faults)
        more = f" (and {len(lines) - 1} more; `edged check` shows all)" if len(lines) > 1 else ""
        raise ConfigError(lines[0] + more, lines)
    warnings: list[Fault] = []
    table.convert(Config, warnings, WARNINGS)
    return config, in_order(warnings)


def all_faults(path: Path) -> tuple[str, ...]:
    """Everything that is wrong, of either kind. Raises ConfigError where a file cannot be read."""

    def check(kind: type, made: Any, table: Table, key: Key) -> list[Fault]:
        return [fault for checks in (CHECKS, WARNINGS) if kind in checks for fault in checks[kind](made, table, key)]

    table, faults = read_files(path)
    if table is not None:
        table.convert(Config, faults, {kind: partial(check, kind) for kind in {*CHECKS, *WARNINGS}})
    return in_order(faults)


def in_order(faults: Iterable[Fault]) -> tuple[str, ...]:
    return tuple(str(fault) for fault in sorted(faults, key=lambda fault: fault.place))


def read_files(path: Path) -> tuple[Table | None, list[Fault]]:
    """The file and those of `edged.d` beside it, in the order of their names, as one table; None where one is no TOML.

    Raises ConfigError for one that cannot be read.
    """
    whole, faults = read_toml(path)
    for number, later in enumerate(drop_ins(path), 1):
        table, more = read_toml(later, number)
        faults += more
        if table is None or whole is None:
            whole = None
        else:
            whole.add(table)
    return whole, faults


def drop_ins(path: Path) -> list[Path]:
    """Raises ConfigError where the directory is there and cannot be listed."""
    directory = path.parent / DROP_INS
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise ConfigError(f"list {directory}: {fault.strerror}; let edged read it, or remove it") from fault
    return [directory / name for name in names if name.endswith(".toml") and not name.startswith(".")]


# --- what keeps the daemon from running ------------------------------------------------------------------------------


def check_serve(serve: ServeConfig, table: Table, key: Key) -> list[Fault]:
    """Keys that go together."""
    faults: list[Fault] = []
    if bool(serve.tls_cert) != bool(serve.tls_key):
        faults.append(table.fault((*key, "tls_cert"), "tls_cert and tls_key go together; set both or neither"))
    if serve.certificates and not serve.tls_cert:
        faults.append(table.fault((*key, "certificates"), "set tls_cert and tls_key too; they are for all other names"))
    faults += check_files(serve, ("tls_cert", "tls_key"), table, key)
    if serve.workers > 1 and any(bind.endswith(":0") for bind in serve.bind):
        faults.append(table.fault((*key, "bind"), "port 0 and several workers do not go together; name a port"))
    return faults


def check_files(section: Struct, names: Iterable[str], table: Table, key: Key) -> list[Fault]:
    """Files that must be there."""
    return [
        table.fault((*key, name), f"{file!r} is not a file")
        for name in names
        if (file := getattr(section, name)) and not Path(file).is_file()
    ]


def check_whole(config: Config, table: Table, key: Key) -> list[Fault]:
    """Each dataset once, each address once; what cannot go together."""
    names = [dataset.name for dataset in config.datasets]
    faults = [
        table.fault((*key, "datasets", index, "name"), f"dataset {name!r} is there twice; remove one")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if config.serve.workers > 1 and config.proxy.routes:
        what = "the proxy's cache has one owner: with [[proxy.routes]], serve.workers is 1"
        faults.append(table.fault((*key, "serve", "workers"), what))
    taken = [item.prefix for item in config.proxy.routes if item.prefix.strip("/").split("/")[0] in ("", "pages")]
    if config.serve.explorer and taken:
        what = f"the explorer is at / and below /pages, as is route {taken[0]!r}; give that another prefix"
        faults.append(table.fault((*key, "serve", "explorer"), what))
    binds = [(section, bind) for section in ("serve", "relay", "admin") for bind in getattr(config, section).bind]
    for index, (section, bind) in enumerate(binds):
        for earlier_section, earlier in binds[:index]:
            if same_address(bind, earlier):
                what = f"{bind!r} and {earlier!r} of [{earlier_section}] are one address; give each listener its own"
                faults.append(table.fault((*key, section, "bind"), what))
    return faults


def same_address(one: str, other: str) -> bool:
    """Whether two listeners cannot have these addresses at once. Port 0 is another one each time."""
    if one.startswith("unix:") or other.startswith("unix:"):
        return os.path.normpath(one) == os.path.normpath(other)
    (host, _, port), (other_host, _, other_port) = (address.rpartition(":") for address in (one, other))
    if int(port) != int(other_port) or not int(port):
        return False
    hosts = {LOOPBACK.get(name.lower(), name.lower()) for name in (host, other_host)}
    same_family = len({":" in name for name in hosts}) == 1
    return len(hosts) == 1 or (same_family and bool(hosts & WILDCARDS))


def check_origins(dataset: DatasetConfig | RelayConfig, table: Table, key: Key) -> list[Fault]:
    """URLs that can be used, keys that go together, header fields that are some and no secrets that are not there."""
    faults: list[Fault] = []
    for index, url in enumerate(dataset.origin):
        if not url.startswith("file:"):
            faults += check_url(url, table, (*key, "origin", index))
    if dataset.proxy:
        scheme, _, rest = dataset.proxy.partition("://")
        faults += check_url(f"{scheme}://{rest.rpartition('@')[2]}", table, (*key, "proxy"))
    if bool(dataset.cert) != bool(dataset.key):
        faults.append(table.fault((*key, "cert"), "cert and key go together; set both or neither"))
    for name, value in dataset.headers.items():
        place = (*key, "headers", name)
        if not TOKEN.fullmatch(name.encode()) or name.lower() in OWN_FIELDS:
            faults.append(table.fault(place, f"{name!r} is no header field that can be set; name another"))
        elif value.startswith(FROM_ENVIRONMENT) and value.removeprefix(FROM_ENVIRONMENT) not in os.environ:
            what = f"{value!r}: there is no such variable in the environment; set it where edged is started"
            faults.append(table.fault(place, what))
        elif BAD_VALUE.search(header_value(value).encode()) or not header_value(value).isascii():
            faults.append(table.fault(place, "its value holds a control character or one beyond ASCII; correct it"))
    return faults + check_files(dataset, ("ca", "cert", "key"), table, key)


def check_dataset(dataset: DatasetConfig, table: Table, key: Key) -> list[Fault]:
    """Origins, and the broker."""
    place, at = (*key, "broker"), (*key, "announce")
    return check_origins(dataset, table, key) + check_broker(dataset.broker, dataset.announce, table, place, at)


def check_broker(broker: BrokerConfig, url: str, table: Table, place: Key, at: Key) -> list[Fault]:
    """A place, keys that go together, credentials and files that are there. at: of the URL; place: of the rest."""
    faults: list[Fault] = []
    if bool(broker.cert) != bool(broker.key):
        faults.append(table.fault((*place, "cert"), "cert and key go together; set both or neither"))
    if not url and broker != type(broker)():
        faults.append(table.fault(place, f"set {at[-1]} too: it says where the broker is"))
    access = BrokerAccess(url)
    for check, where in (
        (lambda: access.place if url else None, at),
        (lambda: secret(broker.user, "user"), (*place, "user")),
        (lambda: secret(broker.password, "password"), (*place, "password")),
    ):
        try:
            check()
        except ConfigError as fault:
            faults.append(table.fault(where, str(fault)))
    return faults + check_files(broker, ("ca", "cert", "key"), table, place)


def check_relay(relay: RelayConfig, table: Table, key: Key) -> list[Fault]:
    """What a pattern needs, and keys that go together."""
    faults = check_origins(relay, table, key)
    if relay.datasets and not (relay.origin and relay.trust):
        faults.append(table.fault((*key, "datasets"), "set origin and trust too: where these lie, and who signs them"))
    if bool(relay.tls_cert) != bool(relay.tls_key):
        faults.append(table.fault((*key, "tls_cert"), "tls_cert and tls_key go together; set both or neither"))
    return faults + check_files(relay, ("tls_cert", "tls_key"), table, key)


def check_url(url: str, table: Table, key: Key) -> list[Fault]:
    try:
        sound_url(url)
    except ValueError as fault:
        return [table.fault(key, f"{url!r}: {fault}; expected https://host[:port]/path")]
    return []


def header_value(value: str) -> str:
    """A configured value, or that of the environment which it names."""
    name = value.removeprefix(FROM_ENVIRONMENT)
    return value if name == value else os.environ[name].strip()


def check_route(route: RouteConfig, table: Table, key: Key) -> list[Fault]:
    """Keys that go together, and files that must be there."""
    faults = check_url(route.upstream, table, (*key, "upstream"))
    if bool(route.cert) != bool(route.key):
        faults.append(table.fault((*key, "cert"), "cert and key go together; set both or neither"))
    return faults + check_files(route, ("ca", "cert", "key"), table, key)


def check_proxy(proxy: ProxyConfig, table: Table, key: Key) -> list[Fault]:
    """Each prefix once, and room for the database."""
    prefixes = [route.prefix.rstrip("/") for route in proxy.routes]
    faults = [
        table.fault((*key, "routes", index, "prefix"), f"prefix {prefix or '/'!r} is there twice; remove one")
        for index, prefix in enumerate(prefixes)
        if prefix in prefixes[:index]
    ]
    if size_bytes(proxy.quota) < SMALLEST_QUOTA:
        faults.append(table.fault((*key, "quota"), f"its database takes {SMALLEST_QUOTA} B; got {proxy.quota!r}"))
    return faults


def check_app(app: AppConfig, table: Table, key: Key) -> list[Fault]:
    """By which it is known, one way at least; "anonymous" by none."""
    ways = [name for name in ("uid", "gid", "exe", "token_sha256", "token_file") if getattr(app, name) not in (-1, "")]
    if app.name == ANONYMOUS and ways:
        return [table.fault((*key, ways[0]), f'"{ANONYMOUS}" is everybody else; remove {ways[0]}, or name the app')]
    if app.name != ANONYMOUS and not ways:
        what = f'nothing tells who it is; set uid or token_sha256, or name it "{ANONYMOUS}" for everybody else'
        return [table.fault((*key, "name"), what)]
    if app.token_sha256 and app.token_file:
        return [table.fault((*key, "token_file"), "token_sha256 and token_file are two ways for one token; set one")]
    if is_for_service_alone(app.token_file):
        return []
    try:
        token_hash(app)
    except ConfigError as fault:
        return [table.fault((*key, "token_file"), str(fault))]
    return []


def check_apps(config: Config, table: Table, key: Key) -> list[Fault]:
    """Each name, and each way to be known, once; what is allowed is there."""
    faults: list[Fault] = []
    datasets, prefixes = {item.name for item in config.datasets}, {item.prefix for item in config.proxy.routes}
    seen: dict[object, int] = {}
    for index, app in enumerate(config.apps):
        place = (*key, "apps", index)
        peer = (app.uid, app.gid, app.exe) if (app.uid, app.gid, app.exe) != (-1, -1, "") else None
        for name, what in (("name", app.name), ("uid", peer), ("token_sha256", app.token_sha256)):
            first = seen.setdefault((name, what), index)
            if what and first != index:
                told = f"app {config.apps[first].name!r} has the same {name}; tell them apart"
                faults.append(table.fault((*place, name), told))
        for number, entry in enumerate(app.allow):
            where, prefix = (*place, "allow", number), entry.removeprefix(PROXY)
            if entry.startswith(PROXY):
                if prefix not in prefixes:
                    faults.append(table.fault(where, f"{entry!r}: no [[proxy.routes]] has prefix {prefix!r}"))
            elif entry != EVERYTHING and (dataset := entry.partition("/")[0]) not in datasets:
                faults.append(table.fault(where, f"{entry!r}: no [[datasets]] has name {dataset!r}"))
        for number, name in enumerate(app.slices):
            if not any(name in item.slices for item in config.datasets):
                faults.append(table.fault((*place, "slices", number), f"{name!r}: no [[datasets]] carries that slice"))
    return faults


CHECKS: Mapping[type, Check] = {
    CertificateConfig: lambda found, table, key: check_files(found, ("cert", "key"), table, key),
    DatasetConfig: check_dataset,
    RelayConfig: check_relay,
    ServeConfig: check_serve,
    RouteConfig: check_route,
    ProxyConfig: check_proxy,
    AppConfig: check_app,
    Config: lambda config, table, key: check_whole(config, table, key) + check_apps(config, table, key),
}

# --- what is wrong and does not keep it from running -----------------------------------------------------------------


def warn_dataset(dataset: DatasetConfig, table: Table, key: Key) -> list[Fault]:
    """Without its trust file a dataset is served and not synced, without its seed the network must do."""
    faults: list[Fault] = []
    if not Path(dataset.trust).is_file():
        what = f"{dataset.trust!r} is not a file; copy there the trust file that `edged origin init` printed"
        faults.append(table.fault((*key, "trust"), what))
    if dataset.seed and not Path(dataset.seed).is_file():
        what = f'{dataset.seed!r} is not a file; make one with `edged bundle export`, or set ""'
        faults.append(table.fault((*key, "seed"), what))
    return faults + warn_key(dataset, "key", table, key)


def warn_relay(relay: RelayConfig, table: Table, key: Key) -> list[Fault]:
    """Without its trust file nothing of a pattern is handed on."""
    faults = warn_key(relay, "key", table, key) + warn_key(relay, "tls_key", table, key)
    if relay.trust and not Path(relay.trust).is_file():
        what = f"{relay.trust!r} is not a file; copy there the trust file that `edged origin init` printed"
        faults.append(table.fault((*key, "trust"), what))
    return faults


def warn_key(section: Struct, name: str, table: Table, key: Key) -> list[Fault]:
    """A private key that every user of the machine can read is no secret."""
    file = getattr(section, name)
    try:
        mode = os.stat(file).st_mode if file else 0
    except FileNotFoundError:
        return []  # which keeps the daemon from running, and is said so
    except OSError as fault:
        return [table.fault((*key, name), f"{file!r}: {fault.strerror}")]
    if not mode & stat.S_IROTH:
        return []
    what = f"{file!r} can be read by every user (mode {stat.S_IMODE(mode):04o}); chmod 600, and change the key"
    return [table.fault((*key, name), what)]


WARNINGS: Mapping[type, Check] = {
    DatasetConfig: warn_dataset,
    RelayConfig: warn_relay,
    ServeConfig: lambda serve, table, key: warn_key(serve, "tls_key", table, key),
    CertificateConfig: lambda found, table, key: warn_key(found, "key", table, key),
    RouteConfig: lambda route, table, key: warn_key(route, "key", table, key),
}

EXAMPLES: Mapping[str, Mapping[str, object]] = {
    "datasets": {
        "name": "catalog",
        "origin": ["https://origin.example/catalog"],
        "trust": "/etc/edged/catalog.trust",
    },
    "apps": {"name": "launcher", "uid": 1001, "allow": ["catalog/titles", "proxy:/api"], "rate": "200/s"},
    "proxy.routes": {"prefix": "/api", "upstream": "https://services.example"},
}


REPEATED: Mapping[str, type[Struct]] = {"datasets": DatasetConfig, "apps": AppConfig}


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
            lines += render_example(name, REPEATED[name])
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
    if isinstance(value, Struct):
        return toml_value(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
