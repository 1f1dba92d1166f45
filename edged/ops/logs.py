"""Logs: one line an event on standard error, `message key=value …`, with the syslog level that journald understands.

Serving never waits for whoever reads the log, and never ends for it: a line that cannot be written is let go.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import time
from types import TracebackType

WARNED = {"levelno": logging.WARNING, "levelname": "WARNING"}
LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
STANDARD_ERROR = 2
PIECE_BYTES = select.PIPE_BUF  # a pipe that can be written to takes so many at once
PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]+")


def setup(level: str, *, as_json: bool = False) -> None:
    """Log at `level` (debug, info, warning, error) and above, for the whole process."""
    handler = LineHandler(STANDARD_ERROR)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("edged").setLevel(level.upper())
    if as_json:  # what Python itself would say, too
        logging.captureWarnings(True)
        sys.excepthook = log_uncaught


def is_json() -> bool:
    """Whether this process logs JSON objects."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def log_uncaught(kind: type[BaseException], fault: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("edged").critical("ended by a fault of edged", exc_info=(kind, fault, traceback))


class LineHandler(logging.Handler):
    """Writes lines to a descriptor without waiting. lost: lines let go, whose number is told once there is room."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.room = select.poll()
        self.room.register(descriptor, select.POLLOUT)
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            missing = logging.makeLogRecord({"msg": f"{self.lost} lines could not be written", **WARNED})
            if self.lost and self.write(self.format(missing)):
                self.lost = 0
            self.lost += self.lost > 0 or not self.write(line)
        except Exception:  # our own mistake in a line: said where it can be, as the library has it
            self.handleError(record)

    def write(self, line: str) -> bool:
        """Whether all of a line could be written at once."""
        data = line.encode(errors="backslashreplace") + b"\n"
        try:
            while data and any(event & select.POLLOUT for _, event in self.room.poll(0)):
                data = data[os.write(self.descriptor, data[:PIECE_BYTES]) :]
        except OSError:  # nobody reads any more, or the disk is full
            return False
        return not data


class LineFormatter(logging.Formatter):
    """`extra={"fields": {...}}` of a record becomes key=value pairs; control characters never reach the log raw."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        level = LEVELS.get(record.levelno, 5)
        # journald stamps the time itself; elsewhere the line carries it.
        stamp = "" if self.journal else time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(record.created))
        head = f"<{level}>" if self.journal else stamp + record.levelname.lower() + " "
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {key}={quote(value)}" for key, value in fields.items())
        text = f"{head}{one_line(record.getMessage())}{pairs}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def one_line(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def quote(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)
