"""Sizes and spans of time as people write and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SIZE = r"^[0-9]+(?:B|KiB|MiB|GiB|kB|MB|GB)$"
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
SPANS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MOMENT_S = 253_402_300_799  # the end of the year 9999


def size_bytes(text: str) -> int:
    """ "256MiB" as a number of bytes. Raises ValueError for what is no size."""
    match = re.fullmatch(r"([0-9]+)([A-Za-z]+)", text)
    if match is None or match[2] not in UNITS:
        raise ValueError(f"not a size: {text!r}")
    return int(match[1]) * UNITS[match[2]]


def size_text(count: float) -> str:
    """Bytes as a person reads them: 512 B, 3.4 kB, 12.0 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def span_text(seconds: float) -> str:
    """Seconds as a person reads them, in the two largest units: 3 days 4 hours, 1 minute, 0 seconds."""
    left, parts = round(abs(seconds)), []
    for name, length in SPANS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
        elif parts:
            break  # "2 days" rather than "2 days 1 second"
    return " ".join(parts[:2]) or "0 seconds"


def moment_text(seconds: float) -> str:
    """Seconds since 1970 as a person reads them: 2026-11-25 22:30:00 UTC."""
    if not 0 <= seconds <= LAST_MOMENT_S:
        return f"{seconds:.0f} seconds after 1970"
    return f"{EPOCH + timedelta(seconds=int(seconds)):%Y-%m-%d %H:%M:%S} UTC"
