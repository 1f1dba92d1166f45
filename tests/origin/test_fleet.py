"""From access logs to what the fleet holds: the forms that hosts write, and the sums."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from edged.errors import OriginError
from edged.origin.fleet import STUCK_S, Fleet, PublishedVersion, Sighting, count_polls, read_line, read_logs
from edged.origin.publisher import Publisher
from edged.polls import ToldState, read_told
from tests.origin.test_publish import edit, films
from tests.system.programs import edged

AT = datetime(2026, 11, 26, 2, 0, 0, tzinfo=UTC).timestamp()
AGENT = "edged/0.1.0 (12 1a2b3c4d)"
REQUEST = "GET /feeds/catalog/head?after=12&wait=240&poll=7 HTTP/1.1"


@pytest.mark.parametrize(
    ("line", "client"),
    [
        (f'192.0.2.7 - - [26/Nov/2026:02:00:00 +0000] "{REQUEST}" 304 0 "-" "{AGENT}"', "192.0.2.7"),
        (f'2001:db8::7 - - [26/Nov/2026:03:00:00 +0100] "{REQUEST}" 200 612 "-" "{AGENT}"', "2001:db8::7"),
        (f'- - - [26/Nov/2026:02:00:00 +0000] "GET http://o/catalog/head HTTP/1.1" 200 9 "-" "{AGENT}"', ""),
        (
            f"79a5 bucket [26/Nov/2026:02:00:00 +0000] 192.0.2.3 - 3E57 REST.GET.OBJECT feed/catalog/head "
            f'"GET /feed/catalog/head HTTP/1.1" 200 - 113 - 7 - "-" "{AGENT}" -',
            "192.0.2.3",
        ),
        (
            "2026-11-26\t02:00:00\tFRA2\t612\t192.0.2.9\tGET\td1.cloudfront.net\t/catalog/head\t200\t-\t"
            "edged/0.1.0%20(12%201a2b3c4d)\tafter=12",
            "192.0.2.9",
        ),
        (
            json.dumps({"time": "2026-11-26T02:00:00Z", "ip": "192.0.2.1", "url": "/catalog/head", "agent": AGENT}),
            "192.0.2.1",
        ),
        (f'2026-11-26T03:30:00.25+01:30 192.0.2.1 "GET /catalog/head" "{AGENT}"', "192.0.2.1"),
    ],
)
def test_the_forms_of_many_hosts_are_read(line: str, client: str) -> None:
    assert read_line(line) == Sighting("catalog", AT, client, 12, "1a2b3c4d")


@pytest.mark.parametrize(
    "line",
    [
        "",
        f'192.0.2.7 - - [26/Nov/2026:02:00:00 +0000] "GET /catalog/blobs/00 HTTP/1.1" 200 0 "-" "{AGENT}"',
        f'192.0.2.7 - - [26/Nov/2026:02:00:00 +0000] "GET /catalog/header HTTP/1.1" 200 0 "-" "{AGENT}"',
        '192.0.2.7 - - [26/Nov/2026:02:00:00 +0000] "GET /catalog/head HTTP/1.1" 200 0 "-" "edged"',
        f'192.0.2.7 - - [99/Nov/2026:02:00:00 +0000] "GET /catalog/head HTTP/1.1" 200 0 "-" "{AGENT}"',
        f'"GET /catalog/head HTTP/1.1" "{AGENT}"',
        f'192.0.2.7 - - [26/Nov/2026:02:00:00 +0000] "GET /catalog/head HTTP/1.1" 200 0 "-" "{AGENT[:-2]})"',
    ],
)
def test_other_lines_are_passed_over(line: str) -> None:
    assert read_line(line) is None


def seen(client: str, at: float, version: int, digest: str = "aa") -> Sighting:
    return Sighting("catalog", at, client, version, digest * 4)


def fleet_of(*sightings: Sighting) -> Fleet:
    fleet = Fleet("catalog")
    for sighting in sightings:
        fleet.add(sighting)
    return fleet


def test_versions_are_counted_by_what_each_client_held_last() -> None:
    fleet = fleet_of(
        seen("a", 10, 1), seen("a", 30, 3), seen("a", 20, 2), seen("b", 11, 2), seen("", 12, 3), seen("", 13, 3)
    )
    report = fleet.report({})
    assert (report.polls, report.clients, report.newest) == (6, 4, 3)
    assert [(item.version, item.lag, item.clients, item.share) for item in report.versions] == [
        (3, 0, 3, 0.75),
        (2, 1, 1, 0.25),
    ]


@pytest.mark.parametrize(
    ("count", "late", "expected"),
    [
        (100, 1, {50: 50.0, 90: 90.0, 99: 99.0}),
        (100, 2, {50: 50.0, 90: 90.0, 99: None}),
        (100, 10, {50: 50.0, 90: 90.0, 99: None}),
        (100, 11, {50: 50.0, 90: None, 99: None}),
        (1, 0, {50: 1.0, 90: 1.0, 99: 1.0}),
    ],
)
def test_how_soon_a_version_reached_a_share(count: int, late: int, expected: dict[int, float | None]) -> None:
    fleet = fleet_of(
        *(seen(f"c{number}", 0.0, 1) for number in range(count)),
        *(seen(f"c{number}", 1000.0 + number + 1, 2) for number in range(count - late)),
    )
    spread = fleet.report({1: PublishedVersion(0.0, "aa" * 4), 2: PublishedVersion(1000.0, "aa" * 4)}).spreads[0]
    assert (spread.version, spread.is_published, spread.seconds) == (2, True, expected)
    alone = fleet.report({}).spreads[0]
    assert (alone.since, alone.is_published, alone.seconds[50]) == (1001.0, False, (expected[50] or 0) - 1)


def test_a_later_version_counts_as_the_one_before() -> None:
    fleet = fleet_of(seen("a", 5, 1), seen("a", 9, 3))
    spread = next(item for item in fleet.report({2: PublishedVersion(4.0, "aa" * 4)}).spreads if item.version == 2)
    assert spread.seconds[50] == 5.0


def test_states_that_no_publisher_made_are_named() -> None:
    fleet = fleet_of(
        *(seen(f"c{number}", 1, 4) for number in range(5)), seen("odd", 1, 4, "bb"), seen("new", 1, 0, "00")
    )
    assert fleet.report({}).strange == [(4, "bb" * 4, 1)]
    assert fleet.report({4: PublishedVersion(0, "bb" * 4)}).strange == [(4, "aa" * 4, 5)]
    assert fleet.report({3: PublishedVersion(0, "aa" * 4)}).strange == [
        (4, "aa" * 4, 5),
        (4, "bb" * 4, 1),
    ]  # of the future
    assert fleet.report({5: PublishedVersion(0, "aa" * 4)}).strange == []  # 4 is no longer remembered


def test_clients_that_lack_what_is_out_for_an_hour_are_stuck() -> None:
    known = {version: PublishedVersion(1000.0 * version, "aa" * 4) for version in (1, 2, 3)}
    now = 2000.0 + STUCK_S
    fleet = fleet_of(
        *(seen(f"10.0.0.{number}", now, 1) for number in range(7)),
        Sighting("catalog", now, "refuses", 1, "aa" * 4, "content"),
        seen("in time", now, 2),  # 3 is out for less than an hour
        seen("newest", now, 3),
        seen("gone", now - 1.0, 1),  # polled last before the hour was over
    )
    report = fleet.report(known)
    told = [(group.version, group.reason, group.clients, group.since) for group in report.stuck]
    assert told == [(1, "", 7, 2000.0), (1, "content", 1, 2000.0)]
    assert len(report.stuck[0].names) == 5
    assert [(item.version, item.reason, item.clients) for item in report.refusals] == [(1, "content", 1)]
    assert fleet_of(seen("a", now, 1)).report({}).stuck == []  # nobody knows since when what is out
    later = fleet_of(seen("empty", now + 1000.0, 0), seen("b", now + 1000.0, 2)).report(known)
    assert [(group.version, group.since) for group in later.stuck] == [(0, 1000.0), (2, 3000.0)]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ("edged/0.1.0 (12 1a2b3c4d)", ToldState(12, "1a2b3c4d")),
        ("edged/0.1.0 (12 1a2b3c4d content)", ToldState(12, "1a2b3c4d", "content")),
        ("edged/0.1.0 (12 1a2b3c4d nonsense)", ToldState(12, "1a2b3c4d")),
        ("edged/0.1.0 (12 1a2b3c4d <script>)", None),
        ("edged/0.1.0 (12 1a2b3c4d  content)", None),
    ],
)
def test_a_poll_may_say_why_its_device_stays(agent: str, told: ToldState | None) -> None:
    assert read_told(agent) == told
    if told is not None and "nonsense" not in agent:
        assert agent == f"edged/0.1.0 ({told})"


def test_logs_may_be_packed_and_must_be_there(tmp_path: Path) -> None:
    line = f'192.0.2.7 - - [26/Nov/2026:02:00:00 +0000] "{REQUEST}" 304 0 "-" "{AGENT}"\n'
    (tmp_path / "a.log").write_text(line)
    (tmp_path / "b.log.gz").write_bytes(gzip.compress(line.encode() + b"\xff\xfe\n"))
    (tmp_path / "c.log.zst").write_bytes(zstandard.compress(line.encode()))
    names = [str(tmp_path / name) for name in ("a.log", "b.log.gz", "c.log.zst")]
    fleets, lines = count_polls(read_logs(names))
    assert (fleets["catalog"].polls, lines) == (3, 4)
    for name, data in (("no.log", None), ("cut.gz", gzip.compress(line.encode())[:-9]), ("no.zst", b"no frame")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(OriginError, match=name):
            list(read_logs([str(tmp_path / name)]))


def test_the_command_judges_by_the_feed(tmp_path: Path) -> None:
    feed = Publisher.init(tmp_path / "feed")
    feed.publish("catalog", films(3))
    feed.publish_changes("catalog", [edit(1)])
    with feed.reading("catalog") as state:
        right = {version: state.slice_at("core", at=version).digest[:4].hex() for version in (1, 2)}
    stamp = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")

    def line(client: int, version: int, digest: str) -> str:
        agent = f"edged/0.1.0 ({version} {digest})"
        return f'192.0.2.{client} - - [{stamp}] "GET /catalog/head HTTP/1.1" 200 9 "-" "{agent}"\n'

    log = tmp_path / "access.log"
    log.write_text(line(1, 2, right[2]) + line(2, 1, right[1]) + line(3, 2, right[1]))
    told = json.loads(edged("origin", "fleet", log, "--feed", feed.path, "--json").stdout)["datasets"]["catalog"]
    assert [(item["version"], item["clients"]) for item in told["versions"]] == [(2, 2), (1, 1)]
    assert told["strange"] == [{"version": 2, "digest": right[1], "clients": 1}]
    text = edged("origin", "fleet", log).stdout
    assert "3 polls of 3 clients, newest version 2" in text
    failed = edged("origin", "fleet", log, "--dataset", "other", code=1)
    assert "no poll of other in the 3 lines read" in failed.stderr
