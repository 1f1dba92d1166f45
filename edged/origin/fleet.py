"""`edged origin fleet`: from the access logs of any host to which versions devices hold, and how soon they came to it.

Each poll says in its User-Agent what is held: `edged/0.1.0 (12 1a2b3c4d)`. A device is told from another by the address
that its line begins with; behind one address many look like one.
"""

from __future__ import annotations

import gzip
import re
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from math import inf
from pathlib import Path
from urllib.parse import unquote

import zstandard

from edged.errors import OriginError
from edged.feed.names import NAME
from edged.polls import read_told

# Of nginx, Varnish, Apache and S3 in their usual forms, of CloudFront (spaces as %20), and in whatever has an ISO time.
POLL = re.compile(rf"/(?P<dataset>{NAME.pattern})/head(?=[?\s\"\t]|$)", re.ASCII)
COMMON_TIME = re.compile(r"\[([0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9:]{8} [+-][0-9]{4})\]")
ISO_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T \t]([0-9:]{8})(?:\.[0-9]+)?(Z|[+-][0-9]{2}:?[0-9]{2})?")
ADDRESS = re.compile(r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7})(?![\w.:])")
LINE_CHARACTERS = 64 << 10
SHARES = (50, 90, 99)
STUCK_S = 3600.0  # a version has been out for so long, and a client that polls still lacks it
GROUPS, NAMES, NAME_CHARACTERS = 20, 5, 45  # of stuck clients that are told; an address has 45 at most
NEWEST = 10  # versions of which it is told how soon devices came to them


@dataclass(frozen=True, slots=True)
class Sighting:
    """A poll in a log. at: seconds since 1970; client: an address, empty where the line has none; version, digest,
    reason: what it tells, see polls.py."""

    dataset: str
    at: float
    client: str
    version: int
    digest: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """What the publisher knows of a version. at: when it was published; digest: the first bytes of that of the slice
    core, as polls say it."""

    at: float
    digest: str


@dataclass(slots=True)
class VersionCount:
    version: int
    lag: int
    clients: int
    share: float


@dataclass(slots=True)
class Spread:
    """How many seconds after its publication 50, 90 and 99 of a hundred clients held a version or a later one; None
    where they do not yet. since: seconds since 1970; is_published: the publisher's, else the first poll's.
    """

    version: int
    since: float
    is_published: bool
    seconds: dict[int, float | None]


@dataclass(slots=True)
class StuckGroup:
    """Clients in one state that lack a version which has been out for STUCK_S. since: when the first such version came
    out; seen: the newest poll of one of them, both seconds since 1970; reason: of REASONS in polls.py, or ""; names: a
    few of the clients."""

    version: int
    digest: str
    reason: str
    clients: int
    since: float
    seen: float
    names: list[str]


@dataclass(slots=True)
class RefusalCount:
    """Clients that say why they stay at a version."""

    version: int
    reason: str
    clients: int


@dataclass(slots=True)
class FleetReport:
    """Of one dataset. strange: (version, digest, clients) of states that no publisher made; refusals, stuck: the most
    clients first; stuck is known only where the publisher's versions are."""

    dataset: str
    polls: int
    clients: int
    newest: int
    versions: list[VersionCount]
    strange: list[tuple[int, str, int]]
    spreads: list[Spread]
    refusals: list[RefusalCount]
    stuck: list[StuckGroup]


@dataclass(slots=True)
class Fleet:
    """What was seen of a dataset. last: the newest sighting of each client; arrivals: when each was first seen to hold
    a version that it had not held before."""

    dataset: str
    polls: int = 0
    last: dict[str, Sighting] = field(default_factory=dict)
    arrivals: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    def add(self, sighting: Sighting) -> None:
        self.polls += 1
        client = sighting.client or f"poll {self.polls}"
        before = self.last.get(client)
        if before is None or sighting.at >= before.at:
            self.last[client] = sighting
        if before is None or sighting.version != before.version:
            self.arrivals.setdefault(client, []).append((sighting.at, sighting.version))

    def report(self, known: Mapping[int, PublishedVersion]) -> FleetReport:
        """known: by version, empty where no feed was named; then what most clients hold counts as right."""
        counts = Counter(sighting.version for sighting in self.last.values())
        newest = max((*counts, *known))
        total = len(self.last)
        versions = [
            VersionCount(version, newest - version, count, count / total) for version, count in sorted(counts.items())
        ]
        spreads = [self.spread(version, known) for version in sorted(counts.keys() | known.keys())[-NEWEST:]]
        strange, refusals, stuck = self.strange(known), self.refusals(), self.stuck(known)
        return FleetReport(
            self.dataset, self.polls, total, newest, versions[::-1], strange, spreads[::-1], refusals, stuck
        )

    def refusals(self) -> list[RefusalCount]:
        counts = Counter((sighting.version, sighting.reason) for sighting in self.last.values() if sighting.reason)
        return [RefusalCount(version, reason, count) for (version, reason), count in counts.most_common(GROUPS)]

    def stuck(self, known: Mapping[int, PublishedVersion]) -> list[StuckGroup]:
        """By the newest poll of all as the time: a log may be of last week."""
        now = max((sighting.at for sighting in self.last.values()), default=0.0)
        out = sorted((version, item.at) for version, item in known.items() if item.at <= now - STUCK_S)
        groups: dict[tuple[int, str, str], StuckGroup] = {}
        for client, sighting in self.last.items():
            place = bisect_right(out, (sighting.version, inf))  # the first version that it lacks
            if place == len(out) or sighting.at < out[place][1] + STUCK_S:
                continue
            state = (sighting.version, sighting.digest, sighting.reason)
            group = groups.setdefault(state, StuckGroup(*state, 0, out[place][1], 0.0, []))
            group.clients += 1
            group.seen = max(group.seen, sighting.at)
            if len(group.names) < NAMES:
                group.names.append(client[:NAME_CHARACTERS])
        return sorted(groups.values(), key=lambda group: (-group.clients, group.version))[:GROUPS]

    def strange(self, known: Mapping[int, PublishedVersion]) -> list[tuple[int, str, int]]:
        """A version that is no longer remembered is not judged, nor version 0, which is a device that holds nothing."""
        states = Counter((sighting.version, sighting.digest) for sighting in self.last.values() if sighting.version)
        right: dict[int, str] = {version: item.digest for version, item in known.items()}
        if not known:
            for (version, digest), _ in reversed(states.most_common()):
                right[version] = digest
        return sorted(
            (version, digest, count)
            for (version, digest), count in states.items()
            if right.get(version, digest) != digest or (known and version > max(known))
        )

    def spread(self, version: int, known: Mapping[int, PublishedVersion]) -> Spread:
        came = sorted(
            min(at for at, held in found if held >= version)
            for found in self.arrivals.values()
            if any(held >= version for _, held in found)
        )
        published = known.get(version)
        since = published.at if published is not None else (came[0] if came else 0.0)
        seconds: dict[int, float | None] = {}
        for share in SHARES:
            place = -(-len(self.last) * share // 100)  # the client that makes the share full
            seconds[share] = max(came[place - 1] - since, 0.0) if 0 < place <= len(came) else None
        return Spread(version, since, published is not None, seconds)


def read_line(line: str) -> Sighting | None:
    """The poll that a line of a log tells of, None for any other line."""
    if "edged/" not in line or "/head" not in line:
        return None
    if "%20(" in line:
        line = unquote(line)
    poll, held, at = POLL.search(line), read_told(line), time_of_line(line)
    if poll is None or held is None or at is None:
        return None
    return Sighting(poll["dataset"], at, address_of(line), *held)


def address_of(line: str) -> str:
    """The first address in a line, empty where there is none."""
    for found in ADDRESS.finditer(line):
        try:
            return str(ip_address(found[0]))
        except ValueError:  # a time of day, the number of a release
            continue
    return ""


def time_of_line(line: str) -> float | None:
    """Seconds since 1970; a time without a zone is UTC."""
    try:
        if found := COMMON_TIME.search(line):
            return datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()
        if found := ISO_TIME.search(line):
            zone = (found[3] or "Z").replace("Z", "+00:00")
            return datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp()
    except ValueError:  # the 99th of a month
        return None
    return None


def read_logs(paths: Iterable[str]) -> Iterator[str]:
    """The lines of all logs: plain, `.gz`, `.zst`, `-` for standard input. Raises OriginError."""
    for path in paths:
        try:
            yield from read_log(path)
        except (OSError, EOFError, zstandard.ZstdError) as fault:
            raise OriginError(
                f"read {path}: {getattr(fault, 'strerror', None) or fault}; name an access log"
            ) from fault


def read_log(path: str) -> Iterator[str]:
    if path == "-":
        yield from sys.stdin
        return
    if path.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
            yield from lines
    elif path.endswith(".zst"):
        with zstandard.open(path, "rt", encoding="utf-8", errors="replace") as lines:
            yield from lines
    else:
        with Path(path).open(encoding="utf-8", errors="replace") as lines:
            yield from lines


def count_polls(lines: Iterable[str]) -> tuple[dict[str, Fleet], int]:
    """The fleets by dataset, and how many lines were read."""
    fleets: dict[str, Fleet] = {}
    count = 0
    for line in lines:
        count += 1
        sighting = read_line(line[:LINE_CHARACTERS])
        if sighting is not None:
            fleets.setdefault(sighting.dataset, Fleet(sighting.dataset)).add(sighting)
    return fleets, count
