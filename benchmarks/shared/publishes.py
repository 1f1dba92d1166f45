"""What scripts publish: real records with their real edits, or a made-up catalogue with made-up ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from edged.demo.catalogue import catalogue, edits

Record = tuple[str, str, Any]  # collection, key, value; None removes


def read(path: Path) -> Iterator[Any]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.BufferedReader(stream):
            yield json.loads(line)


def real(data: Path) -> tuple[Iterable[Record], list[list[Record]]]:
    """The records of anime-base.ndjson.zst, and the edits of anime-edits.ndjson.zst, each a list of changes."""
    publishes: list[list[Record]] = []
    for row in read(data / "anime-edits.ndjson.zst"):
        if "commit" in row:
            publishes.append([])
        else:
            publishes[-1].append((row["collection"], row["key"], None if row.get("deleted") else row["value"]))
    base = ((row["collection"], row["key"], row["value"]) for row in read(data / "anime-base.ndjson.zst"))
    return base, publishes


def made_up(titles: int) -> tuple[Iterable[Record], Iterator[list[Record]]]:
    """A catalogue of so many titles, and edits to it without end."""
    return catalogue(titles), ([(edit.collection, edit.key, edit.value) for edit in batch] for batch in edits(titles))


def publish_until_placed(feed: Path, line: str) -> tuple[float, subprocess.Popen[str]]:
    """Publish one change to `catalog`. Returns as soon as the new head is in place: when that was, by time.time(), and
    the command, which goes on to make what is not urgent.
    """
    head = feed / "public" / "catalog" / "head"
    before = head.stat().st_ino
    command = [sys.executable, "-m", "edged", "origin", "publish", str(feed), "--dataset", "catalog", "--changes", "-"]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.close()
    while (placed := head.stat()).st_ino == before:
        if child.poll() is not None and head.stat().st_ino == before:
            assert child.stderr is not None
            sys.exit(f"edged origin publish: {child.stderr.read()}")
        time.sleep(0.002)
    return placed.st_ctime, child


def end_publish(child: subprocess.Popen[str]) -> None:
    assert child.stderr is not None
    with child.stderr:
        said = child.stderr.read()
    if child.wait():
        sys.exit(f"edged origin publish: {said}")
