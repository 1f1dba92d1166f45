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

from edged.cli.output import add_json_flag, emit, table
from edged.configfile import DEFAULT_PATH, load
from edged.errors import TransportError
from edged.ops.admin import CONTROL_HEADER
from edged.units import size_text

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
    pin.add_argument("version", type=int, metavar="VERSION")
    add_config(pin)
    pin.set_defaults(run=pin_command)
    unpin = commands.add_parser("unpin", help="let a pinned daemon follow the origin again")
    unpin.add_argument("dataset", metavar="DATASET")
    add_config(unpin)
    unpin.set_defaults(run=unpin_command)


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}")
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


def ask(args: argparse.Namespace, method: str, path: str, body: object = None) -> Any:
    """The admin listener's JSON answer. Raises TransportError if it does not answer or refuses."""
    bind = load(args.config).admin.bind[0]
    connection = connect(bind)
    headers = {CONTROL_HEADER: "1", "Content-Type": "application/json"} if method == "POST" else {}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as fault:
        raise TransportError(
            f"ask the daemon at {bind}: {fault}; is `edged run` running with this configuration?"
        ) from fault
    finally:
        connection.close()
    try:
        document = json.loads(data)
    except ValueError as fault:
        raise TransportError(f"ask the daemon at {bind}: the answer is not JSON; is another program there?") from fault
    if answer.status != 200:
        raise TransportError(f"{method} {path} at {bind}: {document.get('detail', answer.reason)}")
    return document


def status_command(args: argparse.Namespace) -> int:
    """Versions, freshness, what was transferred and written, and the last error, of each dataset."""
    while True:
        data = ask(args, "GET", "/status")
        if args.watch and sys.stdout.isatty() and not args.json:
            sys.stdout.write("\x1b[H\x1b[2J")
        emit(args, data, describe(data))
        if not args.watch:
            return 0
        time.sleep(1.0)


def describe(data: dict[str, Any]) -> str:
    rows = []
    notes = []
    for name, item in data["datasets"].items():
        pinned = f" (pinned at {item['pinned']})" if item.get("pinned") is not None else ""
        rows.append(
            (
                name,
                str(item["version"]) + pinned,
                item["state"],
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
    header = ("dataset", "version", "state", "received", "snapshots", "hops", "flash written")
    return "\n".join([table(rows, header) if rows else "no dataset is configured", *notes])


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
