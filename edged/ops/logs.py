"""Logs: one line an event on standard error, `message key=value …`, with the syslog level that journald understands."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time

LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]+")


def setup(level: str, *, as_json: bool = False) -> None:
    """Log at `level` (debug, info, warning, error) and above, for the whole process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("edged").setLevel(level.upper())


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
