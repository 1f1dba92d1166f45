"""The records of the made-up catalogue, each following from the seed and its own number alone.

So a million titles stream in bounded memory, and an edit can look at any record without holding the others. Most
records name no region and therefore belong to the slice `core`; the others name where they are licensed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from edged.demo import words

FIRST_DAY = date(2026, 3, 2)
SCHEDULE_DAYS = 7
REGIONS = ("BR", "DE")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CatalogueSpec:
    """How many records of each collection a catalogue of `titles` titles has, and what they follow from."""

    titles: int
    seed: int
    first_day: date = FIRST_DAY

    def __post_init__(self) -> None:
        if self.titles < 1:
            raise ValueError(f"a catalogue needs at least 1 title, got {self.titles}")

    @property
    def people(self) -> int:
        return self.titles * 3 // 5 + 12

    @property
    def channels(self) -> int:
        return max(4, min(60, self.titles // 100))

    @property
    def records(self) -> int:
        """How many records the whole catalogue has."""
        return self.titles + self.people + len(words.ROWS) + len(REGIONS) + self.channels * (1 + SCHEDULE_DAYS)


def chance(spec: CatalogueSpec, *about: str | int) -> random.Random:
    """The randomness of one record."""
    return random.Random(f"{spec.seed}/{'/'.join(map(str, about))}")  # noqa: S311 repeatable, not secret


# --- names -----------------------------------------------------------------------------------------------------------


def spread(number: int, space: int, seed: int) -> tuple[int, int]:
    """`number` shuffled within [0, space), and how often the space has been used up before: a name and its sequel."""
    turn, rest = divmod(number, space)
    stride = max(1, int(space * 0.618))
    while math.gcd(stride, space) != 1:
        stride += 1
    return (rest * stride + seed * 7919) % space, turn


def pick(number: int, *lists: tuple[str, ...]) -> str:
    """The `number`-th of all combinations of one word from each list."""
    parts = []
    for choices in lists:
        number, index = divmod(number, len(choices))
        parts.append(choices[index])
    return "".join(parts)


def place_name(number: int) -> str:
    return pick(number, words.PLACE_STARTS, words.PLACE_MIDDLES, words.PLACE_ENDS)


PLACES = len(words.PLACE_STARTS) * len(words.PLACE_MIDDLES) * len(words.PLACE_ENDS)
FAMILIES = len(words.FAMILY_STARTS) * len(words.FAMILY_MIDDLES) * len(words.FAMILY_ENDS)


def title_names(spec: CatalogueSpec, number: int) -> tuple[str, dict[str, str]]:
    """The English title and those in other languages. No two numbers below some billions share the English one."""
    pattern, number = number % 3, number // 3
    nouns, adjectives = len(words.NOUNS), len(words.ADJECTIVES)
    if pattern == 0:
        chosen, turn = spread(number, nouns * adjectives, spec.seed)
        noun = words.NOUNS[chosen % nouns]
        name, where = f"The {words.ADJECTIVES[chosen // nouns]} {noun[0]}", ""
    elif pattern == 1:
        chosen, turn = spread(number, nouns * PLACES, spec.seed)
        noun, where = words.NOUNS[chosen % nouns], place_name(chosen // nouns)
        name = f"{noun[0]} of {where}"
    else:
        chosen, turn = spread(number, nouns * (nouns - 1), spec.seed)
        first, apart = chosen % nouns, chosen // nouns + 1
        noun, other = words.NOUNS[first], words.NOUNS[(first + apart) % nouns]
        name, where = f"{noun[0]} and {other[0]}", ""
    sequel = f" {turn + 1}" if turn else ""
    local = {code: f"{noun[1 + at]}{f' – {where}' if where else ''}{sequel}" for at, code in enumerate(words.LANGUAGES)}
    return name + sequel, local


def slug(text: str) -> str:
    return text.replace(" ", "_").replace("–", "-")


def person_name(spec: CatalogueSpec, number: int) -> str:
    chosen, turn = spread(number, FAMILIES * len(words.GIVEN_NAMES), spec.seed)
    family = pick(chosen // len(words.GIVEN_NAMES), words.FAMILY_STARTS, words.FAMILY_MIDDLES, words.FAMILY_ENDS)
    return f"{words.GIVEN_NAMES[chosen % len(words.GIVEN_NAMES)]} {family}{' jr.' if turn else ''}"


def images(random_: random.Random, kind: str, *widths: int) -> dict[str, str]:
    """The same image in several widths in pixels, by the width's name."""
    name = f"{random_.getrandbits(96):024x}"
    return {f"w{width}": f"https://images.example/{kind}/w{width}/{name}.jpg" for width in widths}


# --- records ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def title_key(spec: CatalogueSpec, number: int) -> str:
    return f"{title_year(spec, number)}/{slug(title_names(spec, number)[0])}"


def lasting_title(spec: CatalogueSpec, busy: int) -> tuple[str, str]:
    """Key and title of one that every region has and no edit removes (catalogue.Newsroom spares the last one there):
    what examples may name. busy: how many titles edits touch at most."""
    number = lasting_number(min(spec.titles, busy))
    return title_key(spec, number), title_names(spec, number)[0]


def lasting_number(busy: int) -> int:
    """The last of the first `busy` titles that belongs to all regions."""
    return next(number for number in reversed(range(busy)) if region_of(number) is None)


def title_year(spec: CatalogueSpec, number: int) -> int:
    """Recent years are the commonest."""
    return spec.first_day.year - int(75 * chance(spec, "year", number).random() ** 2.2)


def title(spec: CatalogueSpec, number: int) -> Record:
    """A film or a series."""
    random_ = chance(spec, "title", number)
    name, local = title_names(spec, number)
    language = random_.choice(("en", "en", "en", "en", *words.LANGUAGES))
    series = random_.random() < 0.3
    credits_ = cast(spec, random_)
    record: Record = {
        "title": name,
        "original_title": local.get(language, name),
        "original_language": language,
        "kind": "series" if series else "film",
        "year": title_year(spec, number),
        "genres": sorted(random_.sample(words.GENRES, random_.choice((1, 2, 2, 3)))),
        "age_rating": random_.choice(("0", "6", "12", "12", "16", "18")),
        "rating": {"average": round(random_.gauss(6.4, 1.1), 1), "votes": int(10 ** random_.uniform(1, 5))},
        "runtime": random_.randrange(22, 60) if series else random_.randrange(78, 165),
        "synopsis": synopsis(random_),
        "cast": [entry["name"] for entry in credits_],
        "credits": [{"person": entry["person"], "as": entry["as"]} for entry in credits_],
        "poster": images(random_, "poster", 92, 342, 780),
        "backdrop": images(random_, "backdrop", 780, 1280),
        "languages": {code: {"title": local[code]} for code in words.LANGUAGES},
        "audio": sorted({language, "en", random_.choice(words.LANGUAGES)}),
        "subtitles": sorted(random_.sample(("de", "en", "es", "fr", "it", "ja", "pt"), random_.randrange(2, 7))),
        "availability": window(spec, random_),
    }
    if series:
        record["seasons"] = [
            {"number": season + 1, "episodes": random_.choice((6, 8, 8, 10, 12))}
            for season in range(random_.choice((1, 1, 2, 3, 5)))
        ]
    region = region_of(number)
    if region is not None:
        record["region"] = [region]
    return record


def region_of(number: int) -> str | None:
    """Where title `number` is licensed; None for everywhere. One in twenty belongs to one region."""
    return REGIONS[number // 20 % len(REGIONS)] if number % 20 == 7 else None


def cast(spec: CatalogueSpec, random_: random.Random) -> list[Record]:
    """Who plays whom; the people with low numbers play most."""
    chosen = {int(spec.people * random_.random() ** 2) for _ in range(random_.randrange(3, 9))}
    entries = []
    for number in sorted(chosen):
        given = random_.choice(words.GIVEN_NAMES)
        family = pick(random_.randrange(FAMILIES), words.FAMILY_STARTS, words.FAMILY_MIDDLES, words.FAMILY_ENDS)
        role = random_.choice(words.ROLES).format(given=given, family=family)
        entries.append({"person": person_key(number), "name": person_name(spec, number), "as": role})
    return entries


def synopsis(random_: random.Random) -> str:
    place = place_name(random_.randrange(PLACES))
    sentences = [f"In {place}, {random_.choice(words.TRADES)} {random_.choice(words.EVENTS)}."]
    sentences += random_.sample(words.TURNS, random_.randrange(1, 4))
    sentences.append(random_.choice(words.CLOSES).format(place=place))
    return " ".join(sentences)


def window(spec: CatalogueSpec, random_: random.Random) -> Record:
    start = spec.first_day - timedelta(days=random_.randrange(1, 700))
    end = spec.first_day + timedelta(days=random_.randrange(2, 900))
    return {"from": f"{start.isoformat()}T00:00:00Z", "until": f"{end.isoformat()}T00:00:00Z"}


def person_key(number: int) -> str:
    return f"nm{number:07d}"


def person(spec: CatalogueSpec, number: int) -> Record:
    random_ = chance(spec, "person", number)
    place = place_name(random_.randrange(PLACES))
    name = person_name(spec, number)
    return {
        "name": name,
        "born": {"year": random_.randrange(1932, 2005), "place": place},
        "biography": f"{name} grew up in {place} and was {random_.choice(words.TRADES)} before turning to acting.",
        "portrait": images(random_, "portrait", 92, 185),
    }


def row_key(number: int) -> str:
    """Rows of the home page come in the order of their keys; the last ones belong to one region each."""
    if number < len(words.ROWS):
        return f"home/{number:02d}"
    return f"home-{REGIONS[number - len(words.ROWS)].lower()}/00"


def row(spec: CatalogueSpec, number: int) -> Record:
    random_ = chance(spec, "row", number)
    if number < len(words.ROWS):
        size = min(spec.titles, random_.randrange(18, 41))
        chosen = [one for one in random_.sample(range(spec.titles), size) if region_of(one) is None]
        items = [title_key(spec, one) for one in chosen]
        return {"name": words.ROWS[number], "layout": random_.choice(("poster", "backdrop")), "titles": items}
    region = REGIONS[number - len(words.ROWS)]
    licensed = range(7 + 20 * REGIONS.index(region), spec.titles, 20 * len(REGIONS))
    items = [title_key(spec, one) for one in random_.sample(licensed, min(len(licensed), 30))]
    return {"name": f"Only in {region}", "layout": "poster", "titles": items, "region": [region]}


def channel_key(number: int) -> str:
    return f"ch{number + 1:03d}"


def channel(spec: CatalogueSpec, number: int) -> Record:
    random_ = chance(spec, "channel", number)
    house, theme = (
        place_name(spread(number // len(words.CHANNELS), PLACES, spec.seed)[0]),
        number % len(words.CHANNELS),
    )
    return {
        "number": number + 1,
        "name": f"{house} {words.CHANNELS[theme]}",
        "theme": words.CHANNELS[theme].lower(),
        "quality": random_.choice(("hd", "hd", "uhd", "sd")),
        "logo": images(random_, "logo", 92, 185),
        "catchup_days": random_.choice((0, 3, 7)),
    }


def schedule_key(spec: CatalogueSpec, number: int, day: int) -> str:
    return f"{spec.first_day + timedelta(days=day)}/{channel_key(number)}"


def schedule(spec: CatalogueSpec, number: int, day: int) -> Record:
    """One channel's day, from 06:00 UTC to 06:00 of the next, without gaps."""
    random_ = chance(spec, "schedule", number, day)
    today = spec.first_day + timedelta(days=day)
    at = datetime(today.year, today.month, today.day, 6, tzinfo=UTC)
    end = at + timedelta(days=1)
    programmes: list[Record] = []
    while at < end:
        until = min(end, at + timedelta(minutes=5 * random_.randrange(3, 30)))
        programmes.append(programme(spec, random_, at, until))
        at = until
    return {"channel": channel_key(number), "date": today.isoformat(), "programmes": programmes}


def programme(spec: CatalogueSpec, random_: random.Random, start: datetime, end: datetime) -> Record:
    slot: Record = {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "end": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    if random_.random() < 0.25:
        return {**slot, "name": random_.choice(words.FILLERS)}
    number = random_.randrange(spec.titles)
    number -= region_of(number) is not None
    return {**slot, "name": title_names(spec, number)[0], "title": title_key(spec, number)}
