"""A made-up, lifelike catalogue for the demonstration, tests and benchmarks, and an endless stream of edits to it.

The same arguments give the same records and the same edits on any machine; edits are small and of the kinds that a
streaming service makes all day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

from edged.demo import madeup, words
from edged.demo.madeup import FIRST_DAY, CatalogueSpec, Record

DATASET_TOML = """\
# What devices may ask of the made-up catalogue, and the shapes and slices that it comes in.
[collections.titles]
index = ["kind", "year", "genres"]
text = ["title", "original_title", "cast"]
[collections.people]
text = ["name"]
[collections.channels]
index = ["theme"]
[collections.schedule]
index = ["channel", "date"]
[slices.region-br]
where = { region = ["BR"] }
[slices.region-de]
where = { region = ["DE"] }
[views.stb-basic.titles]
fields = ["title", "kind", "year", "genres", "runtime", "rating", "synopsis", "poster.w342"]
truncate = { synopsis = 200 }
[views.stb-basic.channels]
fields = ["number", "name", "logo.w92"]
[validate.titles]
required = ["title", "kind", "year"]
"""

BUSY_TITLES = 4_000  # edits touch only so many titles, as in life, which also bounds what is remembered
ADDED_KEPT = 100  # titles that were added and are still there
NEWEST_ROW = words.ROWS.index("New this week")
REMOVED_KEPT = 25  # titles that were removed and did not return


@dataclass(frozen=True, slots=True)
class Edit:
    """One change, as `origin publish --changes` takes it. value: None removes the record; why: for people."""

    collection: str
    key: str
    value: Record | None
    why: str


def catalogue(titles: int = 5_000, seed: int = 1, *, first_day: date = FIRST_DAY) -> Iterator[tuple[str, str, Record]]:
    """Every record as (collection, key, value), collection by collection. Raises ValueError for no titles at all."""
    spec = CatalogueSpec(titles, seed, first_day)
    for number in range(spec.channels):
        yield "channels", madeup.channel_key(number), madeup.channel(spec, number)
    for number in range(spec.people):
        yield "people", madeup.person_key(number), madeup.person(spec, number)
    for number in range(len(words.ROWS) + len(madeup.REGIONS)):
        yield "rows", madeup.row_key(number), madeup.row(spec, number)
    for number in range(spec.channels):
        for day in range(madeup.SCHEDULE_DAYS):
            yield "schedule", madeup.schedule_key(spec, number, day), madeup.schedule(spec, number, day)
    for number in range(spec.titles):
        yield "titles", madeup.title_key(spec, number), madeup.title(spec, number)


def edits(titles: int = 5_000, seed: int = 1, *, first_day: date = FIRST_DAY) -> Iterator[list[Edit]]:
    """An endless stream of publishes to `catalogue(titles, seed)`: each a list of edits, no record twice in a list."""
    newsroom = Newsroom(CatalogueSpec(titles, seed, first_day))
    while True:
        yield newsroom.publish()


class Newsroom:
    """What the edits so far have made of the records that they touched."""

    def __init__(self, spec: CatalogueSpec) -> None:
        self.spec = spec
        self.random = madeup.chance(spec, "newsroom")
        self.busy = min(spec.titles, BUSY_TITLES)
        self.titles: dict[int, Record] = {}
        self.rows: dict[int, Record] = {}
        self.days: dict[tuple[int, int], Record] = {}
        self.added: deque[int] = deque()
        self.removed: deque[int] = deque()
        self.next_number = spec.titles

    def publish(self) -> list[Edit]:
        """The next list of edits; never empty."""
        kinds: tuple[Callable[[], list[Edit]], ...] = (
            self.recount_ratings,
            self.reorder_row,
            self.replace_slot,
            self.correct_synopsis,
            self.extend_window,
            self.add_title,
            self.remove_title,
        )
        chosen = self.random.choices(kinds, (40, 15, 20, 10, 5, 6, 4))[0]
        return chosen()

    # --- the state of records ---

    def title(self, number: int) -> Record:
        return self.titles.get(number) or madeup.title(self.spec, number)

    def row(self, number: int) -> Record:
        if number not in self.rows:
            self.rows[number] = madeup.row(self.spec, number)
        return self.rows[number]

    def draw(self) -> int:
        """The number of a title that is there, the popular ones more often."""
        while True:
            number = int(self.busy * self.random.random() ** 2)
            if number not in self.removed:
                return number

    def keep_title(self, number: int, value: Record, why: str) -> Edit:
        self.titles[number] = value
        return Edit("titles", madeup.title_key(self.spec, number), value, why)

    def keep_row(self, number: int, value: Record, why: str) -> Edit:
        self.rows[number] = value
        return Edit("rows", madeup.row_key(number), value, why)

    # --- kinds of edits ---

    def recount_ratings(self) -> list[Edit]:
        """The nightly count of votes, in small portions."""
        changed = []
        for number in sorted({self.draw() for _ in range(self.random.randrange(3, 26))}):
            old = self.title(number)
            rating = {
                "average": round(min(9.9, max(1.0, old["rating"]["average"] + self.random.choice((-0.1, 0, 0.1)))), 1),
                "votes": old["rating"]["votes"] + self.random.randrange(1, 400),
            }
            changed.append(self.keep_title(number, {**old, "rating": rating}, "votes counted"))
        return changed

    def reorder_row(self) -> list[Edit]:
        """A title moves to the front of a row; half of the time one that was not in it."""
        number = self.random.randrange(len(words.ROWS))
        old = self.row(number)
        chosen = self.draw()
        front = madeup.title_key(self.spec, chosen)
        if old["titles"] and (madeup.region_of(chosen) is not None or self.random.random() < 0.5):
            front = self.random.choice(old["titles"])
        items = [front, *(item for item in old["titles"] if item != front)][:40]
        if items == old["titles"]:
            return self.recount_ratings()
        return [self.keep_row(number, {**old, "titles": items}, "row reordered")]

    def replace_slot(self) -> list[Edit]:
        """A programme gives way to another; what surrounds it stays."""
        where = self.random.randrange(self.spec.channels), self.random.randrange(madeup.SCHEDULE_DAYS)
        old = self.days.get(where) or madeup.schedule(self.spec, *where)
        programmes = list(old["programmes"])
        at = self.random.randrange(len(programmes))
        start, end = (datetime.fromisoformat(programmes[at][edge]) for edge in ("start", "end"))
        while programmes[at] == old["programmes"][at]:
            programmes[at] = madeup.programme(self.spec, self.random, start, end)
        self.days[where] = {**old, "programmes": programmes}
        return [Edit("schedule", madeup.schedule_key(self.spec, *where), self.days[where], "programme replaced")]

    def correct_synopsis(self) -> list[Edit]:
        number = self.draw()
        old = self.title(number)
        sentences = old["synopsis"].split(". ")
        while ". ".join(sentences) == old["synopsis"]:
            sentences[0] = madeup.synopsis(self.random).split(". ")[0]
        return [self.keep_title(number, {**old, "synopsis": ". ".join(sentences)}, "synopsis corrected")]

    def extend_window(self) -> list[Edit]:
        number = self.draw()
        old = self.title(number)
        until = datetime.fromisoformat(old["availability"]["until"])
        later = {**old["availability"], "until": f"{until.replace(year=until.year + 1, day=1):%Y-%m-%dT%H:%M:%SZ}"}
        return [self.keep_title(number, {**old, "availability": later}, "licence extended")]

    def add_title(self) -> list[Edit]:
        """A title that is new, or returns, and heads the row of new ones; of many additions the oldest leaves."""
        if len(self.removed) > REMOVED_KEPT or (self.removed and self.random.random() < 0.2):
            number, why = self.removed.popleft(), "title returned"
        else:
            number, why = self.next_number, "title added"
            self.next_number += 1
            self.added.append(number)
        edits_made = [self.keep_title(number, self.title(number), why)]
        if madeup.region_of(number) is None:
            newest = self.row(NEWEST_ROW)
            items = [madeup.title_key(self.spec, number), *newest["titles"]][:40]
            edits_made.append(self.keep_row(NEWEST_ROW, {**newest, "titles": items}, why))
        if len(self.added) > ADDED_KEPT:
            edits_made = self.drop(self.added.popleft(), edits_made)
        return edits_made

    def remove_title(self) -> list[Edit]:
        if self.busy - len(self.removed) < 4:
            return self.add_title()
        number = self.draw()
        if number == madeup.lasting_number(self.busy):
            return self.add_title()
        self.removed.append(number)
        return self.drop(number, [])

    def drop(self, number: int, before: list[Edit]) -> list[Edit]:
        """Remove a title, and its key from every row that shows it. Row edits in `before` are brought up to date."""
        key = madeup.title_key(self.spec, number)
        self.titles.pop(number, None)
        changed = {(edit.collection, edit.key): edit for edit in before}
        changed["titles", key] = Edit("titles", key, None, "title removed")
        for at in range(len(words.ROWS) + len(madeup.REGIONS)):
            old = self.row(at)
            if key in old["titles"]:
                rest = [item for item in old["titles"] if item != key]
                changed["rows", madeup.row_key(at)] = self.keep_row(at, {**old, "titles": rest}, "title removed")
        return list(changed.values())
