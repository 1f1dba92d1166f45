"""Writes what follows from the commands and the configuration, so that no page of it can grow old.

python packaging/reference.py             docs/cli.md, config/edged.toml, edged/cli/completions/, the runbook as a page
python packaging/reference.py --check     exit code 1 if one of them is not as it would be written
python packaging/reference.py --man DIR   the man pages edged(1) and edged.toml(5), for a package
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from runbook import runbook_page

from edged.cli.main import DESCRIPTION, EPILOG, build_parser, walk
from edged.config import Config
from edged.configfile import EXAMPLES, REPEATED, describe, render_default, toml_value
from edged.version import VERSION

ROOT = Path(__file__).parent.parent
SHELLS = ("bash", "zsh", "fish")

Rows = list[tuple[str, str]]


def pages() -> Mapping[Path, str]:
    """What is kept in the repository, by its file."""
    import shtab  # here, so that a package is built without it

    whole = build_parser([])
    for command in walk(whole):
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # what shtab looks for
    completions = {shell: shtab.complete(whole, shell).rstrip() + "\n" for shell in SHELLS}
    return {
        ROOT / "docs/cli.md": command_page(),
        ROOT / "config/edged.toml": render_default(),
        ROOT / "edged/pages/files/runbook.html": runbook_page((ROOT / "docs/runbook.md").read_text()),
        **{ROOT / f"edged/cli/completions/edged.{shell}": text for shell, text in completions.items()},
    }


# --- the commands ----------------------------------------------------------------------------------------------------


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if "--help" not in action.option_strings]


def value_of(action: argparse.Action) -> str:
    """What follows an option, or stands for an argument."""
    if action.nargs == 0:
        return ""
    names = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if isinstance(names, tuple):
        return " ".join(names)
    return f"{names}..." if action.nargs in ("+", "*") else names


def term_of(action: argparse.Action) -> str:
    if not action.option_strings:
        return value_of(action)
    return ", ".join(f"{name} {value_of(action)}".rstrip() for name in action.option_strings)


def about(action: argparse.Action) -> str:
    words = (action.help or "").replace("%%", "%")
    if action.option_strings and action.required:
        words = f"required; {words}" if words else "required"
    return words


def usage_of(parser: argparse.ArgumentParser) -> str:
    parts = [parser.prog]
    for action in actions_of(parser):
        if not action.option_strings:
            parts.append(f"[{value_of(action)}]" if action.nargs in ("?", "*") else value_of(action))
        elif action.required:
            parts.append(f"{action.option_strings[0]} {value_of(action)}")
    optional = any(action.option_strings and not action.required for action in actions_of(parser))
    return " ".join([*parts, *(["[OPTIONS]"] if optional else [])])


def sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def rows_of(parser: argparse.ArgumentParser) -> Rows:
    return [(term_of(action), about(action)) for action in actions_of(parser)]


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_page() -> str:
    """docs/cli.md."""
    lines = [
        "# The commands",
        "",
        "Written by `make reference` from the commands themselves; a test keeps it true.",
        "",
        DESCRIPTION,
        "",
        "Every command takes `--help`. It prints what a person reads, and one JSON document with `--json`. An error is",
        "one line on standard error: what, where, what to do.",
        "",
        "| exit code | means |",
        "|---|---|",
        *(f"| {code} | {what} |" for code, what in re.findall(r"(\d) ([^·]+?)(?= ·|$)", EPILOG)),
        "| 130 | ended by Ctrl-C |",
        "",
        "What to do about 1, 2 and 3 is in [operating.md](operating.md#exit-codes-and-what-to-do), about each `kind`",
        "of error that `--json` names in [runbook.md](runbook.md#errors).",
    ]
    for parser in walk(build_parser([])):
        lines += ["", f"## {parser.prog}", "", "```", usage_of(parser), "```", "", sentence(parser.description)]
        if rows := rows_of(parser):
            lines += ["", "| | |", "|---|---|", *(f"| `{cell(term)}` | {cell(words)} |" for term, words in rows)]
    return "\n".join(lines) + "\n"


# --- man pages -------------------------------------------------------------------------------------------------------


def roff(text: str) -> str:
    """Text as troff takes it literally."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped)


def man(name: str, section: int, what: str, body: Iterable[str]) -> str:
    return "\n".join(
        [
            f'.TH {name.upper()} {section} "" "edged {VERSION}"',
            ".SH NAME",
            f"{name} \\- {roff(what)}",
            *body,
            "",
        ]
    )


def terms(rows: Rows) -> list[str]:
    return [line for term, words in rows for line in (".TP", f".B {roff(term)}", roff(words) or "\\&")]


def man_commands() -> str:
    """edged(1)."""
    body = [".SH SYNOPSIS", ".B edged", ".I COMMAND", ".RI [ OPTIONS ]", ".SH DESCRIPTION", roff(DESCRIPTION)]
    body += [".SH COMMANDS"]
    for parser in walk(build_parser([])):
        body += [f".SS {roff(usage_of(parser))}", roff(sentence(parser.description)), *terms(rows_of(parser))]
    body += [".SH EXIT STATUS", *terms(re.findall(r"(\d) ([^·]+?)(?= ·|$)", EPILOG))]
    body += [".SH FILES", *terms([("/etc/edged/edged.toml", "the configuration, see edged.toml(5)")])]
    body += [".SH SEE ALSO", ".BR edged.toml (5)"]
    return man("edged", 1, "local replica of streaming metadata, served to apps on the device", body)


def man_configuration() -> str:
    """edged.toml(5)."""
    body = [
        ".SH DESCRIPTION",
        roff(
            "TOML. Files edged.d/*.toml beside it are read after it, in the order of their names: a key in a later one"
        ),
        roff("replaces, repeated sections are added. `edged check` names every fault, its line and the mend."),
    ]
    default = Config()
    for name in Config.__struct_fields__:
        section = getattr(default, name)
        if isinstance(section, list):
            body += section_of(f"[[{name}]]", REPEATED[name], None, EXAMPLES[name])
        else:
            body += section_of(f"[{name}]", type(section), section, {})
    return man("edged.toml", 5, "configuration of edged", [*body, ".SH SEE ALSO", ".BR edged (1)"])


def section_of(title: str, kind: type[msgspec.Struct], made: object, example: Mapping[str, object]) -> list[str]:
    lines, nested = [f".SH {roff(title)}", roff(sentence(kind.__doc__))], []
    for item in msgspec.structs.fields(kind):
        info = msgspec.inspect.type_info(item.type)
        info = info.type if isinstance(info, msgspec.inspect.Metadata) else info
        inner = info.item_type if isinstance(info, msgspec.inspect.ListType) else None
        if isinstance(inner, msgspec.inspect.StructType):
            path = f"{title.strip('[]')}.{item.encode_name}"
            nested += section_of(f"[[{path}]]", inner.cls, None, EXAMPLES.get(path, {}))
            continue
        value = getattr(made, item.name) if made is not None else example.get(item.encode_name, default_of(item))
        shown = f"{item.encode_name} = {toml_value(value)}" if value is not None else item.encode_name
        lines += [".TP", f".B {roff(shown)}", roff(describe(item))]
    return lines + nested


def default_of(item: msgspec.structs.FieldInfo) -> object:
    if item.default_factory is not msgspec.NODEFAULT:
        return item.default_factory()
    return None if item.default is msgspec.NODEFAULT else item.default


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--man", type=Path, metavar="DIR")
    args = parser.parse_args()
    if args.man is not None:
        for name, text in (("edged.1", man_commands()), ("edged.toml.5", man_configuration())):
            (args.man / name).write_text(text)
        return 0
    old = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if args.check:
        for path in old:
            print(f"{path.relative_to(ROOT)} has grown old: make reference", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
