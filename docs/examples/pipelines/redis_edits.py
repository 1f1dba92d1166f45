"""A Redis stream as edits for `edged origin publish --follow --progress FILE`.

    redis_edits.py --progress FILE [--stream edits] [-- REDIS_CLI_OPTION...]

Whoever changes a record adds it: `XADD edits * edit '{"collection": "titles", "key": "a", "value": {"n": 1}}'`. The
options after `--` go to redis-cli (7 or later), which has to be in PATH: `-h`, `-p`, `-s`, `--tls` and the like.

What is published is deleted from the stream, and nothing else (--keep leaves it there).
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COUNT = 1000  # entries asked for at a time
WAIT_MS = 1000
TRIM_S = 5.0


def redis(options: list[str], *words: str) -> Any:
    """The answer to one command. Exits where there is none."""
    done = subprocess.run(
        ["redis-cli", "--json", "-e", *options, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"redis_edits: redis-cli {words[0]} failed: {done.stdout.strip()}")
    return json.loads(done.stdout)


def published(file: Path) -> str:
    """The entry that FILE says all is published up to."""
    said = json.loads(file.read_bytes()) if file.exists() else {"counted": True}
    return "0-0" if said["counted"] else str(said["position"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--progress", type=Path, required=True, metavar="FILE")
    parser.add_argument("--stream", default="edits")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("options", nargs="*", metavar="REDIS_CLI_OPTION")
    args = parser.parse_args()
    at, trimmed = published(args.progress), time.monotonic()
    gone = select.poll()
    gone.register(sys.stdout.fileno(), 0)
    try:
        while not gone.poll(0):  # until the publisher has ended
            found = redis(args.options, "XREAD", "COUNT", str(COUNT), "BLOCK", str(WAIT_MS), "STREAMS", args.stream, at)
            for at, (_, edit) in (found or {}).get(args.stream, ()):
                sys.stdout.write(json.dumps(json.loads(edit) | {"position": at}, ensure_ascii=False) + "\n")
            sys.stdout.flush()
            if not args.keep and time.monotonic() > trimmed + TRIM_S:
                trimmed = time.monotonic()
                redis(args.options, "XTRIM", args.stream, "MINID", published(args.progress))
    except BrokenPipeError:
        pass  # told below
    sys.exit("redis_edits: the publisher has ended")


if __name__ == "__main__":
    main()
