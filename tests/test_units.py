"""Sizes and spans of time as people write and read them."""

from __future__ import annotations

import pytest

from edged.units import size_bytes, size_text, span_text


@pytest.mark.parametrize(("text", "count"), [("1GiB", 1 << 30), ("256MiB", 256 << 20), ("5kB", 5000), ("7B", 7)])
def test_sizes_as_people_write_them(text: str, count: int) -> None:
    assert size_bytes(text) == count


@pytest.mark.parametrize("text", ["", "7", "B", "7 B", "1TB", "-1B", "1.5MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_sizes_as_people_read_them(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59.6, "1 minute"),
        (3600, "1 hour"),
        (3661, "1 hour 1 minute"),
        (86_401, "1 day"),
        (-200_000, "2 days 7 hours"),
        (1_790_000_000, "20717 days 14 hours"),
    ],
)
def test_spans_as_people_read_them(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
