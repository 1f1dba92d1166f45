"""Rows of PostgreSQL as edits for `edged origin publish --follow --progress FILE`, by logical decoding.

    postgres_edits.py --progress FILE TABLE=KEY...

TABLE, also SCHEMA.TABLE, becomes the collection of the same name, its column KEY the key. Where the server is, is said
as to psql, by PGHOST, PGDATABASE, PGUSER and so on. Needs PostgreSQL 12 or later with wal2json, and psql and
pg_recvlogical in PATH.

The slot `edged` (--slot) stands at what FILE says is published: what comes after it the server keeps. pg_recvlogical
tells the server that all is done which it has written into a pipe, so it reads from a copy of the slot, made anew at
every start.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ACKNOWLEDGE_S = 5.0  # so often the server is told what it need not keep
QUIET_S = 1.0  # so often at most a position is given that has no edits
RECEIVER_OPTIONS = {"format-version": "2", "include-lsn": "true", "include-types": "true"}


def psql(command: str, **values: str) -> str:
    """Run one SQL command; `:'name'` in it stands for a value. Exits where it fails."""
    words = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    words += [f"--set={name}={value}" for name, value in values.items()]
    done = subprocess.run(words, input=command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"postgres_edits: psql failed at: {command}")
    return done.stdout.strip()


def published(file: Path) -> int:
    """The position that FILE says: an LSN as a number; 0 where nothing is published yet."""
    said = json.loads(file.read_bytes()) if file.exists() else {"counted": True}
    return 0 if said["counted"] else int(said["position"])


def lsn_of(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def position_of(lsn: str) -> int:
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


def acknowledge(slot: str, file: Path) -> None:
    """Let the server forget what is published."""
    psql(
        "SELECT pg_replication_slot_advance(slot_name, :'lsn'::pg_lsn) FROM pg_replication_slots"
        " WHERE slot_name = :'slot' AND confirmed_flush_lsn < :'lsn'::pg_lsn;",
        slot=slot,
        lsn=lsn_of(published(file)),
    )


def keep_acknowledging(slot: str, file: Path, receiver: subprocess.Popen[bytes]) -> None:
    """Also ends the receiver where the publisher has ended, so that all of it starts again."""
    gone = select.poll()
    gone.register(sys.stdout.fileno(), 0)
    while not gone.poll(ACKNOWLEDGE_S * 1000):
        acknowledge(slot, file)
    receiver.terminate()


def prepare(slot: str, file: Path) -> str:
    """The name of a copy of the slot, which stands at what is published. Ends an older receiver that still runs."""
    copy = f"{slot}_run"
    acknowledge(slot, file)
    psql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = :'copy';", copy=copy)
    for _ in range(100):
        psql(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE slot_name = :'copy' AND NOT active;",
            copy=copy,
        )
        if psql("SELECT 1 FROM pg_replication_slots WHERE slot_name = :'copy';", copy=copy) == "":
            break
        time.sleep(0.1)
    psql("SELECT pg_copy_logical_replication_slot(:'slot', :'copy');", slot=slot, copy=copy)
    return copy


def receive(slot: str, tables: list[str]) -> subprocess.Popen[bytes]:
    words = [
        "pg_recvlogical",
        f"--dbname={psql('SELECT current_database();')}",
        f"--slot={slot}",
        "--start",
        "--no-loop",
    ]
    options = RECEIVER_OPTIONS | {"add-tables": ",".join(tables)}
    words += [f"--option={name}={value}" for name, value in options.items()]
    return subprocess.Popen([*words, "--file=-"], stdout=subprocess.PIPE)


def lines_of(receiver: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What pg_recvlogical says, line by line, until it or the server ends."""
    assert receiver.stdout is not None
    for line in receiver.stdout:
        if line.endswith(b"\n"):
            yield json.loads(line)


def row_of(columns: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        item["name"]: json.loads(item["value"])
        if item["type"] in ("json", "jsonb") and item["value"] is not None
        else item["value"]
        for item in columns
    }


def edits_of(change: dict[str, Any], keys: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The edits that one change of a row is."""
    name = f"{change['schema']}.{change['table']}"
    column, collection = keys[name], change["table"]
    before = row_of(change.get("identity", []))
    # A long value that did not change is left out of the new row, but not of the old: REPLICA IDENTITY FULL.
    after = before | row_of(change.get("columns", []))
    if before and (change["action"] == "D" or before[column] != after[column]):
        yield {"collection": collection, "key": str(before[column]), "deleted": True}
    if change["action"] != "D":
        yield {"collection": collection, "key": str(after[column]), "value": after}


def edits(changes: Iterator[dict[str, Any]], keys: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Edits; at the end of each transaction its position, up to which all has come."""
    some, told = False, 0.0
    for change in changes:
        match change["action"]:
            case "I" | "U" | "D":
                some = True
                yield from edits_of(change, keys)
            case "T":
                sys.exit(f"postgres_edits: {change['table']} was truncated: publish its whole state, then start again")
            case "C" if some or time.monotonic() > told + QUIET_S:
                yield {"position": position_of(change["nextlsn"])}
                some, told = False, time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--progress", type=Path, required=True, metavar="FILE")
    parser.add_argument("--slot", default="edged")
    parser.add_argument("tables", nargs="+", metavar="TABLE=KEY")
    args = parser.parse_args()
    keys = {}
    for word in args.tables:
        table, _, column = word.partition("=")
        keys[table if "." in table else f"public.{table}"] = column
    receiver = receive(prepare(args.slot, args.progress), sorted(keys))
    threading.Thread(target=keep_acknowledging, args=(args.slot, args.progress, receiver), daemon=True).start()
    try:
        for edit in edits(lines_of(receiver), keys):
            sys.stdout.write(json.dumps(edit, ensure_ascii=False) + "\n")
            if "position" in edit:
                sys.stdout.flush()
    except BrokenPipeError:
        sys.exit("postgres_edits: the publisher has ended")
    finally:
        receiver.terminate()
        receiver.wait()
    sys.exit("postgres_edits: the stream has ended")


if __name__ == "__main__":
    main()
