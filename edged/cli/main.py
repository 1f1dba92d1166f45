"""`edged`: finds the command, runs it, and turns errors into one line on standard error and an exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from importlib import import_module

from edged.errors import EdgedError, plain_errors
from edged.version import VERSION

# Each group is imported only when one of its commands is asked for: a box starts `edged get` in a tenth of a second.
GROUPS = {
    "edged.cli.demo": ("demo",),
    "edged.cli.daemon": ("run", "check", "sync"),
    "edged.cli.control": ("status", "pin", "unpin"),
    "edged.cli.replica": ("get", "ls", "search", "verify"),
    "edged.cli.bundle": ("bundle",),
    "edged.cli.cache": ("cache",),
    "edged.cli.origin": ("origin",),
}

DESCRIPTION = "Keeps a local replica of streaming metadata on this device and serves it to apps, online or not."
EPILOG = "exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 3 the data or its signature was refused"


def build_parser(words: list[str]) -> argparse.ArgumentParser:
    """The parser with the group that `words` asks for, or with all groups for help."""
    parser = argparse.ArgumentParser(prog="edged", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"edged {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), "")
    wanted = [module for module, names in GROUPS.items() if asked in names] or list(GROUPS)
    for module in wanted:
        import_module(module).add_commands(commands)
    return parser


def main(words: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    words = sys.argv[1:] if words is None else words
    logging.getLogger("edged").addHandler(logging.NullHandler())  # commands report by their one line; the daemon logs
    args = build_parser(words).parse_args(words)
    try:
        with plain_errors():
            code: int = args.run(args)
    except EdgedError as fault:
        return report(fault, as_json=getattr(args, "json", False))
    except BrokenPipeError:
        # The reader (head, less) has enough; point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def report(fault: EdgedError, *, as_json: bool) -> int:
    """The error's line on standard error (with --json also a document on standard output); its exit code."""
    line = " ".join(str(fault).split())
    if as_json:
        document: dict[str, object] = {"error": line, "kind": type(fault).__name__}
        if faults := getattr(fault, "faults", ()):
            document["faults"] = list(faults)
        print(json.dumps(document, ensure_ascii=False))
    print(f"edged: {line}", file=sys.stderr)
    return fault.exit_code


def entry() -> None:
    """The console script."""
    sys.exit(main())
