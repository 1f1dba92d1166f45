"""The numbers of held polls (`poll=` and Edged-Poll): what keeps a shared cache from answering a poll with the answer
to one gone by, while all devices still ask it for the same URL.

Whoever asks with a number gets a greater one, and whoever is answered in the same second gets the same. They go by the
clock, so that they grow on where the server starts anew or another one answers, and so that of those who wait at a
cache only those are answered together that were so before: else what comes there at different times would in the end
all wait for the same answer.
"""

from __future__ import annotations

from typing import Any

from edged.feed import limits
from edged.feed.patch import encode_patch

EPOCH_S = 1_790_000_000  # where numbers begin, in September 2026: each digit is sent twice with every edit
AHEAD_S = 86_400  # a number further ahead of the clock is nobody's, and only whoever asks with it gets on from there
REMEMBERED = 512  # more than the seconds for which a poll is held
HEADS = 32  # the newest that went out: whoever has one of them is told what differs


class PollNumbers:
    """Of one dataset. now: seconds since 1970. tags: of the head that each of the newest numbers went out with; heads:
    the newest of those, by their tags."""

    def __init__(self, now: float) -> None:
        self.number = max(1, int(now) - EPOCH_S)
        self.tags: dict[int, bytes] = {}
        self.heads: dict[bytes, bytes] = {}
        self.patches: dict[tuple[bytes, bytes], bytes | None] = {}

    def after(self, asked: int | None, tag: bytes, now: float) -> int:
        """The number of an answer, and note that it goes out with the head of this tag."""
        number = max(self.number, int(now) - EPOCH_S)
        if asked is not None and asked >= number:
            number = asked + 1
            if asked > now - EPOCH_S + AHEAD_S:
                return number
        elif tag != self.tags.get(number, tag):
            number += 1  # one number means one head
        self.number = number
        self.tags[number] = tag
        if len(self.tags) > REMEMBERED:
            del self.tags[next(iter(self.tags))]
        return number

    def is_known(self, asked: int | None, tag: bytes) -> bool:
        """Whether who asks with this number has the head of this tag: it came with the number."""
        return asked is not None and self.tags.get(asked) == tag

    def keep(self, tag: bytes, data: bytes) -> None:
        """Note the bytes of a head that goes out."""
        if tag not in self.heads and len(data) <= limits.PATCHED_BYTES:
            self.heads[tag] = data
            forget_oldest(self.heads)

    def patch(self, asked: int | None, tag: bytes, data: bytes) -> bytes | None:
        """The head of this tag as what differs from the one that came with the number; None where that is not known, or
        no shorter. Worked out once for all who ask alike."""
        known = None if asked is None else self.tags.get(asked)
        base = None if known is None else self.heads.get(known)
        if known is None or base is None:
            return None
        if (known, tag) not in self.patches:
            self.patches[known, tag] = encode_patch(base, data)
            forget_oldest(self.patches)
        return self.patches[known, tag]


def forget_oldest(kept: dict[Any, Any]) -> None:
    if len(kept) > HEADS:
        del kept[next(iter(kept))]
