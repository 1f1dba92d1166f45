"""Which heads a broker is told again: by what it tells of, on which connection, and for how long."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from edged.announce.putting import Announcer
from edged.feedserving.app import PublicHead
from edged.origin.serving.keeping import REPEAT_S, Told, announce_missing
from tests.feed.making import head

NEWEST = PublicHead(b"newest", b'"new"', head())


@dataclass
class Broker:
    """Says what it retains."""

    kept: bytes | None
    connection: object
    sent: list[bytes] = field(default_factory=list)

    def retained(self, dataset: str) -> bytes | None:
        assert dataset == "catalog"
        return self.kept

    def announce(self, dataset: str, data: bytes) -> None:
        self.sent.append(data)


@pytest.mark.parametrize(
    ("kept", "told", "ago_s", "sent"),
    [
        (b"newest", None, 0.0, False),  # its publisher has announced it
        (None, None, 0.0, True),
        (b"older", None, 0.0, True),
        (None, "here", REPEAT_S + 9, False),  # once a connection is enough where nothing comes back
        (b"older", "here", REPEAT_S - 9, False),
        (b"older", "here", REPEAT_S + 9, True),
        (None, "before", 1.0, True),
        (b"newest", "before", 1.0, False),
    ],
)
def test_a_head_is_announced_where_the_broker_lacks_it(
    kept: bytes | None, told: str | None, ago_s: float, sent: bool
) -> None:
    broker = Broker(kept, "here")
    before = None if told is None else Told(told, NEWEST.etag, time.monotonic() - ago_s)
    now = announce_missing(cast("Announcer", broker), "catalog", NEWEST, before)
    assert broker.sent == [b"newest"] * sent
    assert (now.connection, now.etag) == ("here", NEWEST.etag)
    if told == "here" and not sent:
        assert now is before


def test_another_head_than_was_told_is_announced() -> None:
    broker = Broker(None, "here")
    announce_missing(cast("Announcer", broker), "catalog", NEWEST, Told("here", b'"old"', time.monotonic()))
    assert broker.sent == [b"newest"]
