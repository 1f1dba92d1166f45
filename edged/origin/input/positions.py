"""How far an input without end is published: kept in the state with the version that holds it, and in FILE after it.

A file cannot change together with a version. So the state has the position in the same transaction as the version, and
loses it with a version that is undone; FILE is written from there once the version is live. FILE may thus be behind by
what a crash kept from being written, never ahead, and the input that is given again from FILE repeats what is known.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.errors import ConfigError, OriginError, StoreError, ValidationError
from edged.files import read_bounded, write_durable
from edged.origin.state import State

FILE_BYTES = 8 << 10
NAME_BYTES = 8  # of an input's name, drawn when FILE is made
POSITION_MOST, TEXT_MOST = (1 << 63) - 1, 1024
KEPT = 64  # inputs of a dataset that are remembered


@dataclass(frozen=True, slots=True)
class InputMark:
    """The end of what is published. position: bytes of the input if `counted`, or what the input said itself."""

    position: int | str = 0
    counted: bool = True


START = InputMark()


def check_position(value: Any) -> int | str:
    """What a line may say as its position. Raises ValidationError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= POSITION_MOST:
        return value
    if isinstance(value, str) and 0 < len(value) <= TEXT_MOST:
        return value
    raise ValidationError(
        f"`position`: expected a whole number from 0 to {POSITION_MOST}, or text of 1 to {TEXT_MOST} characters; "
        f"got {json.dumps(value)[:60]}"
    )


def reached(state: State, name: str) -> tuple[int, InputMark] | None:
    """The newest version that holds something of the input called `name`, and up to where. None: it is not known."""
    row = next(
        state.rows("SELECT version, position FROM inputs WHERE name = ? ORDER BY version DESC LIMIT 1", (name,)), None
    )
    if row is None:
        return None
    position, counted = json.loads(row[1])
    return row[0], InputMark(position, counted)


def keep(state: State, name: str, mark: InputMark, expected: Collection[InputMark]) -> None:
    """Within the transaction of a version, once that is in the state: it holds the input up to `mark`.

    expected: what may be kept now; anything else says that another process publishes the same input, which is an
    OriginError. What the version before had stays, in case this one is undone.
    """
    found, version = reached(state, name), state.newest()
    if (START if found is None else found[1]) not in expected:
        raise OriginError(
            "publish: another process publishes this input, and has got further; end one of them, or give each input "
            "a FILE of its own"
        )
    state.run("INSERT OR REPLACE INTO inputs VALUES(?,?,?)", (name, version, json.dumps([mark.position, mark.counted])))
    state.run(
        "DELETE FROM inputs WHERE name = ? AND version <"
        " (SELECT max(version) FROM inputs WHERE name = ? AND version < ?)",
        (name, name, version),
    )
    state.run(
        "DELETE FROM inputs WHERE name IN"
        " (SELECT name FROM inputs GROUP BY name ORDER BY max(version) DESC LIMIT -1 OFFSET ?)",
        (KEPT,),
    )


@dataclass(slots=True)
class ProgressFile:
    """FILE of `--progress`. name: of the input, drawn when FILE is made; version, mark: as FILE says."""

    path: Path
    dataset: str
    name: str = ""
    version: int = 0
    mark: InputMark = START

    @classmethod
    def open(cls, path: Path, dataset: str) -> ProgressFile:
        """Read FILE, or make one for an input of which nothing is published. Raises ConfigError, StoreError."""
        found = cls(path, dataset)
        if path.is_symlink() or path.exists():
            found.read()
        else:
            found.name = secrets.token_hex(NAME_BYTES)
            found.write(0, START)
        return found

    def read(self) -> None:
        try:
            item = json.loads(read_bounded(self.path, FILE_BYTES))
            self.name, dataset, self.version = item["input"], item["dataset"], item["version"]
            self.mark = InputMark(check_position(item["position"]), item["counted"])
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
            dataset = None
        if dataset is None or [type(part) for part in (self.name, self.version, self.mark.counted)] != [str, int, bool]:
            raise ConfigError(
                f"publish: --progress {self.path} is no file of edged's that says how far an input is published; name "
                "another, or one that is not there yet to begin a new input"
            )
        if dataset != self.dataset:
            raise ConfigError(
                f"publish: --progress {self.path} is of dataset {dataset!r:.80}, not of {self.dataset}; give each "
                "input a FILE of its own"
            )

    def write(self, version: int, mark: InputMark) -> None:
        """Replace FILE durably. Raises StoreError, and then it says what it said."""
        item = {
            "dataset": self.dataset,
            "version": version,
            "position": mark.position,
            "counted": mark.counted,
            "input": self.name,
        }
        write_durable(self.path, json.dumps(item).encode() + b"\n")
        self.version, self.mark = version, mark

    def compare(self, found: tuple[int, InputMark] | None) -> tuple[int, InputMark]:
        """What is published, by what the state knows of the input. Raises OriginError where it knows less than FILE.

        Where the state is older than FILE, since it was restored from a backup, FILE is made to say so.
        """
        if found is None and self.version:
            raise OriginError(
                f"publish: the state of dataset {self.dataset} does not know the input of {self.path}, of which "
                f"version {self.version} had everything up to {self.mark.position}: it was restored or made anew. To "
                f"lose nothing, move {self.path} away and give the input from its start, or from where that state was"
            )
        version, mark = (0, START) if found is None else found
        if version < self.version:
            before = self.mark.position
            self.write(version, mark)
            raise OriginError(
                f"publish: {self.path} said {before}, which version {self.version} of dataset {self.dataset} had, but "
                f"its newest with this input is {version}: it was restored from a backup. {self.path} now says "
                f"{mark.position}: start again, with the input from there"
            )
        return version, mark


@dataclass(slots=True)
class InputCursor:
    """Where in the input it is read, and what of it is published already. begin: what FILE said to whoever gives it.

    offset: bytes of the input to the end of the last line; mark: the newest position up to which all has come.
    """

    begin: InputMark
    published: InputMark
    offset: int = 0
    mark: InputMark = START
    repeating: bool = True  # up to what is published, once, at the beginning
    repeated: int = 0  # edits that were published before

    def __post_init__(self) -> None:
        self.mark = self.published
        if self.begin.counted and isinstance(self.begin.position, int):
            self.offset = self.begin.position

    @property
    def is_given(self) -> bool:
        """Whether the input says its positions itself."""
        return not self.mark.counted

    def count(self, size: int) -> bool:
        """A line of `size` bytes has come, its end included. Whether it is new."""
        self.offset += size
        if self.is_given:
            return True
        if isinstance(self.published.position, int) and self.offset <= self.published.position:
            return False
        self.mark = InputMark(self.offset)
        return True

    def give(self, position: int | str) -> bool:
        """The input says that all before `position` has come. Whether it is new. Raises ValidationError, OriginError.

        Whole numbers grow; at the beginning those of what is published already may come again.
        """
        last = self.mark.position
        if self.mark.counted or isinstance(last, str) != isinstance(position, str):
            self.repeating = False
        elif isinstance(position, str):
            if self.repeating and self.begin != self.published:
                raise OriginError(
                    f"publish: FILE was behind what is published, which goes to position {last!r:.80}; it has been "
                    "written anew: start again, with the input from there"
                )
            self.repeating = False
        elif isinstance(last, int) and position <= last:
            if self.repeating:
                return False
            raise ValidationError(
                f"`position`: expected a number above the one before, {last}, got {position}; give the position on "
                "the last line of what belongs together, and text where positions have no order"
            )
        self.repeating = False
        self.mark = InputMark(position, counted=False)
        return True


def write_behind(file: ProgressFile, version: int, mark: InputMark) -> str | None:
    """Write FILE. What went wrong, None if nothing: the state has it, and the next writing brings FILE up to it."""
    if (file.version, file.mark) == (version, mark):
        return None
    try:
        file.write(version, mark)
    except StoreError as fault:
        return f"{fault}; the version is live, and FILE is written after the next"
    return None
