"""Who has used what, and how much: counted as answers go out, kept by hour and day within bounds. No I/O.

A place is what an app has asked for: "catalog/titles", "catalog" (its description), "catalog/changes", "proxy:/api", or
"other". What is counted says nothing of keys, queries, devices or people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

HOUR_S, DAY_S = 3600, 86_400
HOURS_KEPT = 14 * 24  # those with any use, which are summed up by days besides
UNDATED = 0  # the hour and the day of what was counted while the clock was not set
MOST_PLACES = 1000  # told apart at once; what comes beyond is counted as OTHER
MOST_ROWS = 20_000  # of hours and of days, each some 40 bytes where they lie; the oldest go first
OTHER = "other"
SECONDS_AT_MOST = (0.001, 0.01, 0.1, 1.0)  # bounds of the classes by which the time to make an answer is counted


class Used(NamedTuple):
    """Who, and what of. app, audience: as configured; "local" and "internal" where no apps are."""

    app: str
    audience: str
    place: str


@dataclass(slots=True)
class Count:
    """answers: all; remembered: of these, given from memory byte for byte, or by the proxy from its store; refused:
    401, 403 and 429; sent_bytes: heads and bodies, framing apart; seconds: of making those that were not remembered."""

    answers: int = 0
    remembered: int = 0
    refused: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0

    def put(self, other: Count) -> None:
        self.answers += other.answers
        self.remembered += other.remembered
        self.refused += other.refused
        self.sent_bytes += other.sent_bytes
        self.seconds += other.seconds

    def plus(self, other: Count) -> Count:
        total = replace(self)
        total.put(other)
        return total

    def row(self) -> list[float]:
        return [self.answers, self.remembered, self.refused, self.sent_bytes, round(self.seconds, 6)]

    @classmethod
    def of_row(cls, row: Iterable[Any]) -> Count:
        """Raises ValueError or TypeError for what is none."""
        answers, remembered, refused, sent_bytes, seconds = row
        found = cls(int(answers), int(remembered), int(refused), int(sent_bytes), float(seconds))
        if min(found.answers, found.remembered, found.refused, found.sent_bytes) < 0 or not 0 <= found.seconds < 1e12:
            raise ValueError("a negative count")
        return found


@dataclass(slots=True, eq=False)
class UseTally:
    """Counts the answers of one Used. For the server's thread alone."""

    used: Used
    count: Count = field(default_factory=Count)

    def add(self, answers: int, sent_bytes: int, *, remembered: bool) -> None:
        self.count.answers += answers
        self.count.sent_bytes += sent_bytes
        if remembered:
            self.count.remembered += answers


Rows = dict[int, dict[Used, Count]]


@dataclass(slots=True)
class UsageBook:
    """tallies: of what is being asked now; hours, days: by their number since 1970 what was used; changed: since it was
    last written; reported: the day of which an origin was told last; flash: by day, the bytes written to it; by_app:
    app and audience to what was put down since this process began. A Count in hours or days is replaced and never
    changed, so that a copy is of one moment.

    The newest keep_days days that have any are kept: by the calendar a clock that is years ahead, once, would cost all.
    """

    keep_days: int
    tallies: dict[Used, UseTally] = field(default_factory=dict)
    hours: Rows = field(default_factory=dict)
    days: Rows = field(default_factory=dict)
    changed: bool = False
    reported: int = 0
    flash: dict[int, int] = field(default_factory=dict)
    by_app: dict[tuple[str, str], Count] = field(default_factory=dict)

    def tally_of(self, used: Used) -> UseTally:
        found = self.tallies.get(used)
        if found is None:
            if len(self.tallies) >= MOST_PLACES and used.place != OTHER:
                return self.tally_of(used._replace(place=OTHER))
            found = self.tallies[used] = UseTally(used)
        return found

    def take(self) -> list[tuple[Used, Count]]:
        """What was counted since this was last asked."""
        taken = []
        for used, tally in self.tallies.items():
            if tally.count.answers or tally.count.refused:
                taken.append((used, tally.count))
                tally.count = Count()
        return taken

    def enter(self, counted: Iterable[tuple[Used, Count]], now_s: float | None) -> None:
        """Put down what was counted; `now_s`: seconds since 1970, None while that is not known."""
        for used, count in counted:
            for rows, unit_s in ((self.hours, HOUR_S), (self.days, DAY_S)):
                found = rows.setdefault(UNDATED if now_s is None else int(now_s // unit_s), {})
                found[used] = found.get(used, Count()).plus(count)
            app = (used.app, used.audience)
            self.by_app[app] = self.by_app.get(app, Count()).plus(count)
            self.changed = True

    def note_flash(self, written_bytes: int, now_s: float) -> None:
        day = int(now_s // DAY_S)
        self.flash[day] = self.flash.get(day, 0) + written_bytes
        for number in sorted(self.flash)[: -self.keep_days]:
            del self.flash[number]

    def turn(self, now_s: float | None) -> None:
        """`take` and `enter`, and let go of what is too old or too much."""
        self.enter(self.take(), now_s)
        for rows, most in ((self.hours, HOURS_KEPT), (self.days, self.keep_days)):
            for number in sorted(rows.keys() - {UNDATED})[:-most]:
                del rows[number]
                self.changed = True
            while sum(map(len, rows.values())) > MOST_ROWS and len(rows) > 1:
                del rows[min(rows)]

    def copy(self) -> UsageBook:
        """What is put down, for a thread."""
        hours, days = ({number: dict(found) for number, found in rows.items()} for rows in (self.hours, self.days))
        return UsageBook(self.keep_days, hours=hours, days=days, reported=self.reported, flash=dict(self.flash))

    def document(self) -> dict[str, Any]:
        """As it is kept in a file, and told to others: names once, rows of whole numbers."""
        names = sorted({used for rows in (self.hours, self.days) for found in rows.values() for used in found})
        numbers = {used: number for number, used in enumerate(names)}

        def listed(rows: Rows) -> list[list[float]]:
            return [
                [number, numbers[used], *count.row()]
                for number in sorted(rows)
                for used, count in sorted(rows[number].items())
            ]

        rows = {"hours": listed(self.hours), "days": listed(self.days)}
        flash = [list(item) for item in sorted(self.flash.items())]
        return {"used": [list(used) for used in names], **rows, "reported": self.reported, "flash": flash}

    def load(self, document: Mapping[str, Any]) -> None:
        """What `document` gave. Raises ValueError, TypeError, KeyError or IndexError for what it never gives."""
        self.reported = int(document["reported"])
        self.flash = {int(day): count_of(written) for day, written in document.get("flash", ())}
        names = [Used(*map(str, entry)) for entry in document["used"]]
        for name, rows in (("hours", self.hours), ("days", self.days)):
            for number, used, *counts in document[name]:
                found = rows.setdefault(int(number), {})
                found[names[used]] = found.get(names[used], Count()).plus(Count.of_row(counts))


def count_of(number: Any) -> int:
    """Raises ValueError or TypeError for what is no count."""
    if int(number) < 0:
        raise ValueError("a negative count")
    return int(number)


def day_text(number: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(number * DAY_S, UTC).date().isoformat()


def hour_text(number: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(number * HOUR_S, UTC).strftime("%Y-%m-%dT%HZ")


def shown(book: UsageBook) -> dict[str, Any]:
    """The document of /usage: `days` and `hours`, oldest first, each with its totals, by audience, by app and by place;
    `undated`: the same of what was counted while the clock was not set; `rows`: (day, app, audience, place) with all
    that is counted, of which the undated ones have the day "undated"; `flash`: bytes written to it, by day."""
    hours, days = (sorted(rows.keys() - {UNDATED}) for rows in (book.hours, book.days))
    return {
        "days": [summary("day", day_text(number), book.days[number]) for number in days],
        "hours": [summary("hour", hour_text(number), book.hours[number]) for number in hours],
        "undated": summary("day", "undated", book.days.get(UNDATED, {})),
        "rows": [
            {"day": day_text(number) if number != UNDATED else "undated", **used._asdict(), **numbers_of(count)}
            for number in sorted(book.days)
            for used, count in sorted(book.days[number].items())
        ],
        "flash": [{"day": day_text(number), "bytes": written} for number, written in sorted(book.flash.items())],
    }


def numbers_of(count: Count) -> dict[str, float]:
    return {
        "requests": count.answers,
        "remembered": count.remembered,
        "refused": count.refused,
        "bytes": count.sent_bytes,
        "seconds": round(count.seconds, 3),
    }


def summary(period: str, name: str, found: Mapping[Used, Count]) -> dict[str, Any]:
    total = Count()
    by: dict[str, dict[str, int]] = {"audiences": {}, "apps": {}, "places": {}}
    for used, count in found.items():
        total.put(count)
        for member, key in (("audiences", used.audience), ("apps", used.app), ("places", used.place)):
            by[member][key] = by[member].get(key, 0) + count.answers
    return {period: name, **numbers_of(total), **by}
