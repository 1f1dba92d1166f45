"""`edged status`, `pin` and `unpin`: ask a running daemon by its admin listener."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from edged.cli.output import add_json_flag, emit, positive, table
from edged.config import AdminConfig
from edged.configfile import DEFAULT_PATH, load
from edged.errors import TransportError
from edged.ops.admin import CONTROL_HEADER
from edged.units import size_text, span_text

DEADLINE_S = 10.0
ANSWER_BYTES = 16 << 20


def add_commands(commands: Any) -> None:
    status = commands.add_parser(
        "status", help="what a running daemon says of itself", description=status_command.__doc__
    )
    add_config(status)
    status.add_argument("--watch", action="store_true", help="show it anew every second until interrupted")
    status.set_defaults(run=status_command)
    pin = commands.add_parser("pin", help="hold a running daemon at a version", description=pin_command.__doc__)
    pin.add_argument("dataset", metavar="DATASET")
    pin.add_argument("version", type=positive, metavar="VERSION")
    add_config(pin)
    pin.set_defaults(run=pin_command)
    unpin = commands.add_parser("unpin", help="let a pinned daemon follow the origin again")
    unpin.add_argument("dataset", metavar="DATASET")
    add_config(unpin)
    unpin.set_defaults(run=unpin_command)


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=None, metavar="FILE", help=f"default {DEFAULT_PATH}, if it is there"
    )
    add_json_flag(parser)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connect(bind: str) -> http.client.HTTPConnection:
    if bind.startswith("unix:"):
        return UnixConnection(bind.removeprefix("unix:"))
    host, _, port = bind.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - the way in to a wildcard bind
    return http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)


def admin_address(config: Path | None) -> str:
    """Of the configuration; without one, where a daemon listens by default. Raises ConfigError."""
    if config is None and not DEFAULT_PATH.exists():
        return AdminConfig().bind[0]
    return load(config or DEFAULT_PATH).admin.bind[0]


def ask(args: argparse.Namespace, method: str, path: str, body: object = None) -> Any:
    """The admin listener's JSON answer. Raises TransportError if it does not answer or refuses."""
    bind = admin_address(args.config)
    connection = connect(bind)
    headers = {CONTROL_HEADER: "1", "Content-Type": "application/json"} if method == "POST" else {}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES)
        document = json.loads(data)
    except TimeoutError as fault:
        what = f"no answer within {span_text(DEADLINE_S)}; is the machine overloaded? `journalctl -u edged` says more"
        raise TransportError(f"ask the daemon at {bind}: {what}") from fault
    except OSError as fault:
        what = f"{fault.strerror or fault}; is `edged run` running, with this configuration?"
        raise TransportError(f"ask the daemon at {bind}: {what}") from fault
    except (http.client.HTTPException, ValueError) as fault:
        what = "the answer is not edged's; is another program there?"
        raise TransportError(f"ask the daemon at {bind}: {what}") from fault
    finally:
        connection.close()
    if answer.status != 200:
        raise TransportError(f"{method} {path} at {bind}: {document.get('detail', answer.reason)}")
    return document


def status_command(args: argparse.Namespace) -> int:
    """Versions, freshness, what was transferred and written, and the last error, of each dataset; the proxy, and what
    all of it takes. Without a configuration the default address is asked."""
    while True:
        data = ask(args, "GET", "/status")
        if args.watch and sys.stdout.isatty() and not args.json:
            sys.stdout.write("\x1b[H\x1b[2J")
        emit(args, data, describe(data, time.time()))
        if not args.watch:
            return 0
        time.sleep(1.0)


def describe(data: dict[str, Any], now_s: float) -> str:
    rows, notes = [], []
    for name, item in data["datasets"].items():
        pinned = f" (pinned at {item['pinned']})" if item.get("pinned") is not None else ""
        rows.append(
            (
                name,
                str(item["version"]) + pinned,
                item["state"],
                f"{span_text(max(now_s - item['as_of'], 0))} ago" if item["as_of"] else "never",
                size_text(item["bytes_received"]),
                str(item["snapshots_applied"]),
                str(item["hops_applied"]),
                size_text(item["flash_bytes_written"]),
            )
        )
        if item.get("steps"):
            notes.append(f"{name}: updating, step {item['steps_done'] + 1} of {item['steps']}")
        if item["last_error"]:
            notes.append(f"{name}: {item['last_error']}")
    header = ("dataset", "version", "state", "signed", "received", "snapshots", "hops", "flash written")
    lines = [table(rows, header) if rows else "no dataset is configured", *notes]
    if data.get("proxy"):
        lines.append(describe_proxy(data["proxy"]))
    if data.get("relay"):
        lines.append(describe_relay(data["relay"]))
    if data.get("access"):
        lines.append(describe_access(data["access"]))
    lines.append(
        f"edged {data['version']} at {', '.join(data['apps'])}: {data['requests_served']} requests served, "
        f"{size_text(data['memory_bytes'])} of memory"
    )
    return "\n".join(lines)


def describe_access(apps: dict[str, Any]) -> str:
    rows = [
        (name, item["audience"], str(item["requests"]), str(item["refused"]), str(item["limited"]))
        for name, item in apps.items()
    ]
    return table(rows, ("app", "audience", "requests", "refused", "over its rate"))


def describe_proxy(proxy: dict[str, Any]) -> str:
    answered = proxy["hits"] + proxy["stale"] + proxy["misses"]
    stored = 100 * (proxy["hits"] + proxy["stale"]) / max(answered, 1)
    share = f"{stored:.0f}% of {answered} from the cache" if answered else "idle"
    away = [prefix for prefix, reached in proxy["upstreams"].items() if not reached]
    note = f"; not reached: {', '.join(away)}" if away else ""
    return f"proxy: {share}, {size_text(proxy['disk_bytes'])} of {size_text(proxy['quota_bytes'])} on disk{note}"


def describe_relay(relay: dict[str, Any]) -> str:
    failing = [f"{name}: {item['last_error']}" for name, item in relay["datasets"].items() if item["last_error"]]
    parts = (
        f"relay at {', '.join(relay['urls'])}: {len(relay['datasets'])} datasets for {relay['waiting']} that wait",
        f"{relay['blobs']} blobs, {size_text(relay['disk_bytes'])} of {size_text(relay['quota_bytes'])} on disk",
    )
    return "\n".join((", ".join(parts), *(f"relay: {line}" for line in failing)))


def pin_command(args: argparse.Namespace) -> int:
    """Hold a dataset at VERSION until `edged unpin`; takedowns still apply. It survives restarts."""
    data = ask(args, "POST", "/pin", {"dataset": args.dataset, "version": args.version})
    emit(args, data, f"{args.dataset} is held at version {data['pinned']}")
    return 0


def unpin_command(args: argparse.Namespace) -> int:
    """Follow the origin again."""
    data = ask(args, "POST", "/unpin", {"dataset": args.dataset})
    emit(args, data, f"{args.dataset} follows its origin")
    return 0
