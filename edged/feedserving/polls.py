"""The numbers of held polls (`poll=` and Edged-Poll): what keeps a shared cache from answering a poll with the answer
to one gone by, while all devices still ask it for the same URL.

Whoever asks with a number gets a greater one, and whoever is answered in the same second gets the same. They go by the
clock, so that they grow on where the server starts anew or another one answers, and so that of those who wait at a
cache only those are answered together that were so before: else what comes there at different times would in the end
all wait for the same answer.
"""

from __future__ import annotations

EPOCH_S = 1_790_000_000  # where numbers begin, in September 2026: each digit is sent twice with every edit
AHEAD_S = 86_400  # a number further ahead of the clock is nobody's, and only whoever asks with it gets on from there
REMEMBERED = 512  # more than the seconds for which a poll is held


class PollNumbers:
    """Of one dataset. now: seconds since 1970. tags: of the head that each of the newest numbers went out with."""

    def __init__(self, now: float) -> None:
        self.number = max(1, int(now) - EPOCH_S)
        self.tags: dict[int, bytes] = {}

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
