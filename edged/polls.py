"""What a device's polls say of it, in their User-Agent, which every access log keeps: `edged/0.1.0 (12 1a2b3c4d)`.

The version and the first bytes of the digest that it holds; behind them, where it stays at that, one word that says
why. It is the same of every device in the same state, and says nothing of who the device is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DIGEST_BYTES = 4  # of the digest of the slice core
REASONS = {
    "content": "lacks collections that it requires, or has too few records",
    "trust": "not signed as it has to be",
    "expired": "no head that has not run out",
    "chain": "did not come to what was signed, or no path leads there",
    "form": "not of the form that it should have",
    "disk": "its disk cannot be read or written",
    "pinned": "held at a version by somebody",
}
HELD = re.compile(
    r"edged/[^\s\"(]{1,40} \((?P<version>[0-9]{1,18}) (?P<digest>[0-9a-f]{8})(?: (?P<reason>[a-z]{1,12}))?\)"
)


class ToldState(NamedTuple):
    """digest: its first bytes, in hexadecimal digits; reason: one of REASONS, "" where there is none to be told."""

    version: int
    digest: str
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(str(part) for part in self if part != "")


def read_told(text: str) -> ToldState | None:
    """What a User-Agent, or a line that has one, says; None where it says nothing. An unknown reason is none."""
    found = HELD.search(text)
    if found is None:
        return None
    reason = found["reason"] or ""
    return ToldState(int(found["version"]), found["digest"], reason if reason in REASONS else "")
