"""`edged completion`: a shell's script, written when edged is built (packaging/reference.py)."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from typing import Any

from edged.cli.output import add_json_flag, emit

SHELLS = ("bash", "zsh", "fish")


def add_commands(commands: Any) -> None:
    completion = commands.add_parser(
        "completion", help="print a shell's completion script", description=completion_command.__doc__
    )
    completion.add_argument("shell", choices=SHELLS)
    add_json_flag(completion)
    completion.set_defaults(run=completion_command)


def completion_command(args: argparse.Namespace) -> int:
    """Print the completion script of a shell, as in: edged completion bash > /etc/bash_completion.d/edged"""
    text = (files("edged.cli") / "completions" / f"edged.{args.shell}").read_text(encoding="utf-8")
    if args.json:
        emit(args, {"shell": args.shell, "script": text}, "")
    else:
        sys.stdout.write(text)
    return 0
