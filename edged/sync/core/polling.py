"""Which origin is asked, how long it may hold a poll, when the others are asked too, and the rest after a failure."""

from __future__ import annotations

from collections.abc import Callable

from edged.feed.head import Head
from edged.sync.core.events import Poll

BASE_S, CAP_S = 1.0, 300.0
LEAST_WAIT_S = 20  # shorter waits are not asked for because something on the way cuts them
LEAST_REST_S = 1.0
CUT_S = 10  # a poll that breaks after so long was cut by something that dislikes idle connections, not refused
CUTS = 2  # in a row; more, and the origin counts as unreachable
AT_ONCE_S = 2.0  # who answers a held poll with "unchanged" sooner than this does not hold polls
PROBE_S = 3600.0  # a host that does not hold polls is asked to again after so long
HOME_S = 600.0  # after so long with another origin the first of the list is tried again
PUSHED_S = 900.0  # between polls while a broker brings new heads
BUSY_DISK_S = 10.0  # at least so long between attempts to write on a disk that is full
REFUSED_S, REFUSED_CAP_S = 60.0, 3600.0  # content that the origin has to mend is tried again so far apart
SURVEY_S = 86_400.0  # so often all origins are asked, since one that is frozen in time looks like one without news
STALE_SURVEY_S = 600.0  # likewise while what is held is no longer fresh
UNASKED_FOR = (
    "the origin answered that nothing has changed, and had not been told what there is; a cache on the way, or the "
    "host itself, is set up wrongly"
)


class Backoff:
    """How long to wait before trying again: exponential, capped, with full jitter, so that a fleet spreads itself out.
    At the cap at least half of it, so that the fleet's return after a long outage is no burst.

    chance: a number in [0, 1) at each call; base_s, cap_s: seconds.
    """

    def __init__(self, chance: Callable[[], float], *, base_s: float = BASE_S, cap_s: float = CAP_S) -> None:
        self.chance, self.base_s, self.cap_s = chance, base_s, cap_s
        self.failures = 0

    def succeed(self) -> None:
        self.failures = 0

    def fail(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait now. at_least_s: what the origin asked for (Retry-After)."""
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        least = ceiling / 2 if ceiling == self.cap_s else 0.0
        return at_least_s + least + self.chance() * (ceiling - least)


class Rotation:
    """The origin in use, numbered as configured, and what is known of it. Times in seconds that never run backwards.

    origins: how many; wait_s: how long a poll may be held at the most; surveyed_at: when all were last asked.
    """

    def __init__(self, origins: int, wait_s: int, surveyed_at: float) -> None:
        self.origins, self.longest_wait_s, self.surveyed_at = origins, wait_s, surveyed_at
        self.current, self.away_since = 0, 0.0
        self.failed = 0  # origins in a row
        self.etags: dict[int, str | None] = {}  # of the newest head, by the origins that have shown it
        self.wait_s, self.asked_wait_s, self.asked_at, self.conditional = wait_s, 0, 0.0, False
        self.static_until, self.cuts = 0.0, 0
        self.pushed = False  # whether a broker brings new heads, so that polls may be few
        self.unasked: list[int] | None = None  # those that a survey has yet to ask; None: no survey is under way
        self.best = 0  # where a survey has found the newest head

    def go_to(self, origin: int, now: float) -> None:
        if origin != self.current:
            self.current, self.away_since, self.static_until = origin, now, 0.0

    def go_on(self, now: float) -> bool:
        """To the next origin, after a fault of this one. Whether that was the last one to be tried."""
        self.failed += 1
        last = self.failed >= self.origins
        if last:
            # Once they are back each is asked first for what is answered at once. A cache on the way would answer all
            # who come back with a poll of before at the same moment.
            self.failed = 0
            self.etags.clear()
        self.go_to((self.current + 1) % self.origins, now)
        return last

    def reached(self) -> None:
        """The origin in use gave something of worth: the round of origins begins anew."""
        self.failed = self.cuts = 0

    def showed(self, etag: str | None, *, new: bool) -> None:
        """The origin in use has the newest head; new: no origin had shown it before."""
        if new:
            self.etags.clear()
            self.best = self.current
        self.etags[self.current] = etag

    # ---- held polls

    def ask(self, wait_s: int, now: float, *, conditional: bool) -> None:
        """A poll is made. conditional: whether it says what is known already."""
        self.asked_wait_s, self.asked_at, self.conditional = wait_s, now, conditional

    def ask_anew(self, now: float) -> Poll:
        """A poll that says nothing of what is known."""
        self.ask(0, now, conditional=False)
        return Poll(self.current, None, 0, None)

    def ask_for_newer(self, seen: Head, wait_s: int, now: float) -> Poll:
        """A poll for what is newer than `seen`, which the origin in use has shown."""
        self.ask(wait_s, now, conditional=True)
        etag = self.etags[self.current]
        # Of an offer that was seen we want to hear only if it changes, which an origin without ETags cannot tell.
        return Poll(self.current, seen.newest_version if etag else seen.version, wait_s, etag)

    def held_wait_s(self, now: float) -> int:
        """How long the next poll may be held; 0 in a survey, at a host that does not hold them, and beside a broker."""
        return 0 if self.pushed or now < self.static_until or self.unasked is not None else self.wait_s

    def rest_s(self, poll_s: float) -> float:
        """Between two polls that are not held. poll_s: where nothing else brings news."""
        return max(poll_s, PUSHED_S) if self.pushed else poll_s

    def unchanged(self, now: float) -> None:
        """The poll was answered by "nothing new": soon, or held to its end."""
        if self.asked_wait_s and now - self.asked_at < AT_ONCE_S:
            self.static_until = now + PROBE_S
        elif self.asked_wait_s:
            # What was cut by a restart of the origin, rather than by something on the way, may be long again.
            self.wait_s = min(self.longest_wait_s, self.wait_s + 1)

    def cut(self, now: float) -> bool:
        """Whether a poll that broke was only idle for too long, and may be made again; shorter from now on where that
        has happened twice in a row."""
        waited = now - self.asked_at
        if not self.asked_wait_s or waited < CUT_S or self.cuts >= CUTS:
            return False
        self.cuts += 1
        if self.cuts > 1:  # once, it was a restart of the origin, which cuts the polls of a whole fleet
            self.wait_s = max(LEAST_WAIT_S, min(self.wait_s, int(waited * 0.8)))
        return True

    # ---- surveys

    def survey_due(self, now: float, *, stale: bool, urgent: bool) -> bool:
        """Whether the other origins have to be asked as well. stale: what is held is not fresh; urgent: in any case."""
        since_s = now - self.surveyed_at
        return self.origins > 1 and (urgent or since_s >= SURVEY_S or (stale and since_s >= STALE_SURVEY_S))

    def begin_survey(self, now: float) -> None:
        self.surveyed_at, self.best = now, self.current
        self.unasked = [(self.current + step) % self.origins for step in range(1, self.origins)]

    def next_of_survey(self, now: float) -> bool:
        """Turn to the next origin of the survey under way, at its end to the one with the newest head.

        False if none is left to be asked.
        """
        if self.unasked is None:
            return False
        if self.unasked:
            self.go_to(self.unasked.pop(0), now)
            return True
        self.unasked = None
        self.go_to(self.best, now)
        return False
