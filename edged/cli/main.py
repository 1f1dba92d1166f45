"""`edged`: finds the command, runs it, and turns errors into one line on standard error and an exit code."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

from edged.cli.output import discard_output
from edged.errors import ConfigError, EdgedError, StoreError, plain_errors
from edged.ops import logs
from edged.version import VERSION

# Each group is imported only when one of its commands is asked for: a box starts `edged get` in a tenth of a second.
GROUPS = {
    "edged.cli.demo": ("demo",),
    "edged.cli.daemon": ("run", "check", "sync"),
    "edged.cli.control": ("status", "pin", "unpin"),
    "edged.cli.usage": ("usage",),
    "edged.cli.replica": ("get", "ls", "search", "types", "verify"),
    "edged.cli.bundle": ("bundle",),
    "edged.cli.cache": ("cache",),
    "edged.cli.origin": ("origin",),
    "edged.cli.doctor": ("doctor",),
    "edged.cli.completion": ("completion",),
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


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands right below a parser, by name; empty for one that is a command itself."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command below a parser that does something, in the order of the help; `prog` is how it is called."""
    inner = commands_of(parser)
    if not inner:
        yield parser
    for command in inner.values():
        yield from walk(command)


def refuse_unknown(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """End with exit code 2 at the first word that is no command, at either level, or no option of the command before
    it, saying which may have been meant."""
    place = parser
    for number, word in enumerate(words):
        inner = commands_of(place)
        if word in ("--", "-h", "--help"):
            return
        if is_option(word):
            refuse_option(place, word.partition("=")[0])
        elif inner and word not in inner:
            called = f"{place.prog} {word}"
            names = [other for other in words[number:] if not other.startswith("-")]
            meant = meant_by(place.prog.split()[1:], names)
            hint = f"did you mean `{meant}`?" if meant else f"`{place.prog} --help` lists what there is"
            place.error(f"there is no command {called!r}; {hint}")
        elif inner:
            place = inner[word]


def is_option(word: str) -> bool:
    """As argparse has it: neither standard input, nor a number below zero, nor a text that begins with a dash."""
    return word.startswith("-") and word != "-" and " " not in word and not re.fullmatch(r"-\d*\.?\d+", word)


def refuse_option(command: argparse.ArgumentParser, name: str) -> None:
    """End with exit code 2 where a command has no such option, nor one that begins so."""
    known = list(command._option_string_actions)
    if any(option.startswith(name) for option in known):
        return
    if close := difflib.get_close_matches(name, known, 1):
        hint = f"did you mean `{close[0]}`?"
    elif found := [one.prog for one in walk(command) if name in one._option_string_actions]:
        hint = f"it stands behind the command, as in `{found[0]} {name}`"
    else:
        hint = f"`{command.prog} --help` lists what there is"
    command.error(f"`{command.prog}` has no option {name!r}; {hint}")


def meant_by(before: list[str], names: list[str]) -> str:
    """What looks most like `names`, after the words `before`; empty where nothing does."""
    whole = build_parser([])
    paths = {command.prog: command.prog for command in walk(whole)}
    single = {group.prog.split()[-1]: group.prog for group in commands_of(whole).values()}
    single = {path.split()[-1]: path for path in paths} | single
    typed = " ".join(["edged", *before, *names[: 2 - len(before)]])
    close = [
        *(paths[name] for name in difflib.get_close_matches(typed, paths, 1, 0.92)),
        *(single[name] for name in difflib.get_close_matches(names[0], single, 1, 0.7)),
    ]
    return close[0] if close else ""


def with_standard_input(words: list[str]) -> list[str]:
    """The words of a command; `publish --follow` reads standard input, named or not."""
    named = "-" in words or "--follow" not in words or words[:2] != ["origin", "publish"]
    return words if named else [*words, "-"]


def main(words: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    words = sys.argv[1:] if words is None else words
    logging.getLogger("edged").addHandler(logging.NullHandler())  # commands report by their one line; the daemon logs
    for number, word in enumerate(words, 1):
        if not word.isprintable() and any("\ud800" <= char <= "\udfff" for char in word):
            shown = os.fsencode(word)
            return report(ConfigError(f"argument {number}, {shown!r:.80}: not UTF-8; give it as UTF-8"), as_json=False)
    words = with_standard_input(words)
    parser = build_parser(words)
    refuse_unknown(parser, words)
    args = parser.parse_args(words)
    try:
        with plain_errors():
            code: int = args.run(args)
    except EdgedError as fault:
        as_json = getattr(args, "json", False)
        if as_json and args.command == "run":  # whose standard error is a log, to its last line
            logs.setup("info", as_json=True)
            return report(fault, as_json=True, say=logging.getLogger("edged").error)
        return report(fault, as_json=as_json)
    except BrokenPipeError:
        # The reader (head, less) has enough; point stdout elsewhere so that the interpreter's last flush is quiet.
        discard_output()
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as fault:  # of the command's own input and output; what lies below names its own
        if args.command == "run":
            raise  # of a daemon it is not expected, and whoever reads its log wants to know from where it came
        discard_output()
        where = fault.filename or "standard input or output"
        return report(StoreError(f"{parser.prog} {args.command}: {where}: {fault.strerror or fault}"), as_json=False)
    return code


def say_plainly(text: str) -> None:
    print(f"edged: {text}", file=sys.stderr)


def report(fault: EdgedError, *, as_json: bool, say: Callable[[str], None] = say_plainly) -> int:
    """The error's line on standard error, a line for each of several faults; its exit code.

    With --json also a document on standard output. say: takes each line.
    """
    faults: tuple[str, ...] = getattr(fault, "faults", ())
    line = " ".join(str(fault).split())
    if as_json:
        document: dict[str, object] = {"error": line, "kind": type(fault).__name__}
        if faults:
            document["faults"] = list(faults)
        print(json.dumps(document, ensure_ascii=False))
    summary = getattr(fault, "summary", "")
    lines = [*faults, summary] if summary and len(faults) > 1 else [line]
    for one in lines:
        say(" ".join(one.split()))
    return fault.exit_code


def open_standard_streams() -> None:
    """Have descriptors 0 to 2 open: else the next file or socket would be taken for one, and what is said written
    into it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def entry() -> None:
    """The console script."""
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that is not UTF-8 shows what it can
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
