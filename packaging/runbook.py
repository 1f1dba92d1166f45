"""docs/runbook.md as a page of the daemon's own, so that the dashboard can say what to do where no other is in reach.

Of Markdown it knows what the runbook uses: headings, paragraphs, lists, tables, code, bold, links; what those lead to
is not in the package, so their words alone are kept. Each small heading has an id, its own words, and each row of a
table has one, to be led to.
"""

from __future__ import annotations

import re
from html import escape
from itertools import groupby

ROW = re.compile(r"^\|(.*)\|$")
RULE = re.compile(r"^\|(?:-+\|)+$")
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runbook of edged</title>
<link rel="icon" href="/pages/icon.svg">
<link rel="stylesheet" href="/pages/style.css">
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header><h1>Runbook</h1><a href="/">Back to the dashboard</a></header>
<main id="main" class="text">
"""
END = "</main>\n</body>\n</html>\n"


def inline(text: str) -> str:
    """A line's Markdown as HTML."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"<code>{escape(part[1:-1])}</code>" if part.startswith("`") else words(part) for part in parts)


def words(text: str) -> str:
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def kind_of(line: str) -> str:
    if not line.strip():
        return "blank"
    for mark, kind in (("### ", "entry"), ("## ", "heading"), ("# ", "title"), ("|", "table"), ("- ", "list")):
        if line.startswith(mark):
            return kind
    return "text"


def table(lines: list[str], section: str) -> str:
    """The first cell heads its row, whose id is the section and a number."""
    rows = [re.split(r"(?<!\\)\|", found[1]) for line in lines if not RULE.match(line) and (found := ROW.match(line))]
    head = "".join(f'<th scope="col">{inline(cell.strip())}</th>' for cell in rows[0])
    body = ""
    for number, row in enumerate(rows[1:], 1):
        first, *others = (inline(cell.strip()) for cell in row)
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        body += f'<tr id="{section}-{number}" tabindex="-1"><th scope="row">{first}</th>{cells}</tr>\n'
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def runbook_page(text: str) -> str:
    """The page. text: the runbook's Markdown."""
    found, section, opened, within = HEAD, "", False, False
    for kind, group in groupby(text.splitlines(), kind_of):
        lines = list(group)
        if kind in ("entry", "heading"):
            found += "</article>\n" if within else ""
            within = kind == "entry"
        if kind == "entry":
            name = lines[0][4:]
            found += f'<article id="{name}" tabindex="-1"><h3>{inline(name)}</h3>\n'
        elif kind == "heading":
            section = lines[0][3:].lower().split()[0]
            found += "</section>\n" if opened else ""
            found += (
                f'<section class="wide" aria-labelledby="{section}"><h2 id="{section}">{inline(lines[0][3:])}</h2>\n'
            )
            opened = True
        elif kind == "table":
            found += table(lines, section)
        elif kind == "list":
            found += "<ul>\n" + "".join(f"<li>{inline(line[2:])}</li>\n" for line in lines) + "</ul>\n"
        elif kind == "text":
            found += f"<p>{inline(' '.join(lines))}</p>\n"
    return found + ("</section>\n" if opened else "") + END
