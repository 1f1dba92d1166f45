"""`origin serve --admin-bind`: what operators are shown of an origin, and what strangers cannot do to it."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edged.access.identity import Peer
from edged.http.application import InThread, Response, Stream
from edged.http.request import Request
from edged.http.validators import names_tag
from edged.ops.origin import OriginAdmin
from edged.origin import history
from edged.origin.publisher import Publisher
from edged.origin.serving import browsing, livefleet
from edged.origin.serving.livefleet import LiveFleet
from edged.origin.serving.server import Observed
from tests.origin.conftest import Clock
from tests.origin.test_publish import edit, films
from tests.system.programs import Device, Origin, edged, get, running

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def admin(publisher: Publisher, clock: Clock) -> OriginAdmin:
    publisher.publish("catalog", films(5))
    clock.now += 60
    publisher.publish_changes("catalog", [edit(1), ("titles", "new", {"title": HOSTILE}), ("titles", "t00002", None)])
    return OriginAdmin(publisher.path, Observed.of(publisher.path, clock), clock)


def ask(admin: OriginAdmin, target: str, method: str = "GET", host: str = "127.0.0.1:9") -> Response:
    answer = admin.answer(Request(method, target.encode(), ((b"host", host.encode()),)))
    if isinstance(answer, InThread):
        answer = answer.work()
    assert isinstance(answer, Response), answer
    return answer


def told(admin: OriginAdmin, target: str) -> Any:
    found = ask(admin, target)
    assert found.status == 200, found.body
    return json.loads(found.body)


def poll(address: str, version: int, digest: str = "00000000") -> Request:
    agent = f"edged/0.1.0 ({version} {digest})".encode()
    return Request("GET", b"/catalog/head", ((b"user-agent", agent),), peer=Peer(False, address))


async def test_history_differences_and_records_of_any_version(admin: OriginAdmin) -> None:
    versions = told(admin, "/log?dataset=catalog")["versions"]
    assert [one["version"] for one in versions] == [1, 2]
    diff = told(admin, "/diff?dataset=catalog&from=1&to=2")
    assert {one["key"]: one["change"] for one in diff["items"]} == {
        "t00001": "changed",
        "new": "added",
        "t00002": "removed",
    }
    changed = next(one for one in diff["items"] if one["key"] == "t00001")
    assert changed["before"] != changed["after"]
    assert set(changed["fields"]) <= {*json.loads(changed["before"]), *json.loads(changed["after"])}
    assert next(one for one in diff["items"] if one["key"] == "new")["before"] is None
    assert diff["next"] is None
    assert sum(one["bytes"] for one in told(admin, "/costs?dataset=catalog&from=1&to=2")["costs"]) > 0
    before = told(admin, "/records?dataset=catalog&version=1&collection=titles")["items"]
    after = told(admin, "/records?dataset=catalog&version=2&collection=titles")["items"]
    assert "t00002" in {one["key"] for one in before}
    assert "new" not in {one["key"] for one in before}
    assert {one["key"] for one in after} == {one["key"] for one in before} - {"t00002"} | {"new"}


async def test_what_is_taken_down_is_shown_of_no_version(admin: OriginAdmin, publisher: Publisher) -> None:
    publisher.takedown("catalog", "titles", ["new"])
    for version in (2, 3):
        found = ask(admin, f"/records?dataset=catalog&version={version}&collection=titles")
        assert b"alert" not in found.body


async def test_many_records_come_in_pages(admin: OriginAdmin, publisher: Publisher) -> None:
    publisher.publish_changes("catalog", [("titles", f"x{number:04}", {"n": number}) for number in range(120)])
    seen: list[str] = []
    after: Any = ""
    while after is not None:
        page = told(admin, f"/records?dataset=catalog&version=3&collection=titles&after={after}")
        seen += [one["key"] for one in page["items"]]
        after = page["next"]
    assert len(seen) == len(set(seen)) == 125
    assert seen == sorted(seen)
    first = told(admin, "/diff?dataset=catalog&from=2&to=3")
    rest = told(admin, f"/diff?dataset=catalog&from=2&to=3&after={first['next']}")
    keys = [one["key"] for one in first["items"] + rest["items"]]
    assert len(set(keys)) == 100
    assert keys == sorted(keys)
    assert (first["next"], rest["next"]) == ("titles/x0049", "titles/x0099")


async def test_a_page_is_told_as_every_difference_together_is(admin: OriginAdmin, publisher: Publisher) -> None:
    chance = random.Random(7)
    for _ in range(12):
        edits: dict[str, tuple[str, str, Any]] = {}
        for number in chance.sample(range(200), 40):
            value = None if chance.random() < 0.3 else {"n": chance.randrange(3)}
            edits[f"r{number}"] = ("rows", f"r{number:03}", value)
        publisher.publish_changes("catalog", list(edits.values()))
    for low, high in ((2, 14), (3, 9), (13, 14)):
        with publisher.reading("catalog") as state:
            whole = {(one.collection, one.key): (one.change, one.fields) for one in history.changes(state, low, high)}
            before = {key for name, key in whole if name == "rows" and whole[name, key][0] != "added"}
        paged: dict[tuple[str, str], Any] = {}
        after: Any = ""
        while after is not None:
            page = told(admin, f"/diff?dataset=catalog&from={low}&to={high}&after={after}")
            paged |= {(one["collection"], one["key"]): (one["change"], one["fields"]) for one in page["items"]}
            after = page["next"]
        assert paged == whole
        assert before <= keys_of(admin, low)


def keys_of(admin: OriginAdmin, version: int) -> set[str]:
    found: set[str] = set()
    after: Any = ""
    while after is not None:
        page = told(admin, f"/records?dataset=catalog&version={version}&collection=rows&after={after}")
        found |= {one["key"] for one in page["items"]}
        after = page["next"]
    return found


async def test_a_page_looks_at_so_many_records_and_no_more(
    admin: OriginAdmin, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish_changes("catalog", [("titles", f"x{number:04}", {"n": 1}) for number in range(90)])
    publisher.publish_changes("catalog", [("titles", f"x{number:04}", None) for number in range(80)])
    monkeypatch.setattr(browsing, "LOOKED_AT", 30)
    for target, keys, expected in (
        ("/diff?dataset=catalog&from=2&to=4", 10, 3),
        ("/records?dataset=catalog&version=2&collection=titles", 5, 4),
    ):
        pages, found = 0, 0
        after: Any = ""
        while after is not None:
            page = told(admin, f"{target}&after={after}")
            pages, found, after = pages + 1, found + len(page["items"]), page["next"]
        assert (found, pages) == (keys, expected)


async def test_no_page_goes_through_the_whole_journal(publisher: Publisher) -> None:
    publisher.publish("catalog", films(5))
    with publisher.reading("catalog") as state:
        for query in (
            "SELECT collection, key FROM journal WHERE version = 1 AND (collection, key) > ('a', 'b')"
            " ORDER BY collection, key",
            "SELECT j.value FROM versions AS v CROSS JOIN journal AS j ON j.version = v.version AND j.collection = 'a'"
            " AND j.key = 'b' WHERE v.version > 1 ORDER BY v.version LIMIT 1",
        ):
            plan = " ".join(row[3] for row in state.rows(f"EXPLAIN QUERY PLAN {query}"))
            assert "SCAN" not in plan, plan
            assert "TEMP B-TREE" not in plan, plan


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/diff?dataset=catalog&from=2&to=1", 409),
        ("/diff?dataset=catalog&from=0&to=99", 409),
        ("/diff?dataset=catalog&from=1", 400),
        ("/diff?dataset=catalog&from=-1&to=2", 400),
        ("/records?dataset=catalog&version=9&collection=titles", 404),
        ("/records?dataset=../private&version=1&collection=titles", 409),
        ("/log", 400),
        ("/log?dataset=nope", 409),
        ("/log?dataset", 400),
        ("/log?%ff", 400),
        ("/private/keys/root-1.key", 404),
        ("/nope", 404),
    ],
)
async def test_what_cannot_be_told_says_why(admin: OriginAdmin, target: str, status: int) -> None:
    found = ask(admin, target)
    assert found.status == status, found.body
    assert json.loads(found.body)["detail"]


async def test_strangers_are_kept_out_and_nothing_can_be_changed(admin: OriginAdmin) -> None:
    assert ask(admin, "/status", host="evil.example").status == 421
    assert ask(admin, "/status", method="POST").status == 405
    assert ask(admin, "/healthz").status == 200
    assert ask(admin, "/readyz").status == 200
    home = ask(admin, "/")
    assert b"edged origin" in home.body
    assert names_tag(b"*", dict(home.fields)[b"ETag"])


async def test_the_status_is_an_event_stream_too(admin: OriginAdmin) -> None:
    answer = admin.answer(Request("GET", b"/events", ((b"host", b"localhost"),)))
    assert isinstance(answer, Stream)
    status = json.loads(next(answer.pieces).removeprefix(b"data: "))
    assert status["datasets"]["catalog"]["version"] == 2
    assert status["datasets"]["catalog"]["state"] == "fresh"


# --- the fleet -------------------------------------------------------------------------------------------------------


async def test_the_fleet_is_counted_as_it_polls(admin: OriginAdmin, clock: Clock) -> None:
    fleet = admin.observed.fleet
    right = told(admin, "/fleet")["datasets"]["catalog"]
    assert (right["clients"], right["versions"]) == (0, [])
    with Publisher.open(admin.feed).reading("catalog") as state:
        digests = {version: state.slice_at("core", at=version).digest[:4].hex() for version in (1, 2)}
    for number in range(100):
        fleet.see("catalog", poll(f"10.0.0.{number}", 1, digests[1]))
    clock.now += 30
    for number in range(60):
        fleet.see("catalog", poll(f"10.0.0.{number}", 2, digests[2]))
    fleet.see("catalog", poll("10.0.0.99", 2, "deadbeef"))
    found = told(admin, "/fleet?dataset=catalog")["datasets"]["catalog"]
    assert [(one["version"], one["lag"], one["clients"]) for one in found["versions"]] == [(2, 0, 61), (1, 1, 39)]
    assert found["strange"] == [{"version": 2, "digest": "deadbeef", "clients": 1}]
    assert found["spreads"][0]["seconds"]["50"] == 30
    assert found["spreads"][0]["seconds"]["90"] is None
    clock.now += 7200
    fleet.see("catalog", poll("10.0.0.1", 2, digests[2]))
    assert told(admin, "/fleet")["datasets"]["catalog"]["clients"] == 1  # who has gone is not counted


async def test_who_refuses_is_counted_by_reason_for_alerts(admin: OriginAdmin, clock: Clock) -> None:
    for number, reason in enumerate(["disk", "disk", "content", ""]):
        agent = f"edged/0.1.0 (1 00000000{' ' * bool(reason)}{reason})".encode()
        peer = Peer(False, f"10.0.0.{number}")
        admin.observed.fleet.see("catalog", Request("GET", b"/catalog/head", ((b"user-agent", agent),), peer=peer))
    metrics = ask(admin, "/metrics").body.decode()
    for reason, count in (("disk", 2), ("content", 1), ("trust", 0)):
        assert f'edged_origin_refusing_clients{{dataset="catalog",reason="{reason}"}} {count}\n' in metrics
    clock.now += 7200
    assert 'reason="disk"} 0' in ask(admin, "/metrics").body.decode()


def test_of_a_dataset_that_nobody_polls_there_is_nothing_to_tell() -> None:
    found = LiveFleet(lambda: 1000.0).report("catalog", {})
    assert (found["polls"], found["clients"], found["newest"], found["sample"], found["stuck"]) == (0, 0, 0, 1.0, [])


def test_a_fleet_of_any_size_takes_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livefleet, "MOST_CLIENTS", 500)
    fleet = LiveFleet(lambda: 1000.0)
    for number in range(20_000):
        fleet.see("catalog", poll(f"10.{number >> 8}.{number & 255}.1", 1 + number % 4))
        assert len(fleet.fleets["catalog"].last) <= 500
    found = fleet.report("catalog", {})
    assert 0.01 < found["sample"] < 0.06
    assert 14_000 < found["clients"] < 26_000
    assert found["polls"] == 20_000


@pytest.mark.parametrize(
    "agent", ["", "curl/8", "edged/0.1.0 (x y)", "edged/0.1.0 (" + "9" * 19 + " 00000000)", "e" * 9000]
)
def test_a_poll_that_says_nothing_or_nonsense_counts_nothing(agent: str) -> None:
    fleet = LiveFleet(lambda: 0.0)
    fleet.see("catalog", Request("GET", b"/catalog/head", ((b"user-agent", agent.encode()),)))
    assert fleet.fleets == {}


def test_a_report_is_made_while_polls_come() -> None:
    fleet, stop = LiveFleet(lambda: 1000.0), threading.Event()
    faults: list[Exception] = []

    def report() -> None:
        while not stop.is_set():
            try:
                fleet.report("catalog", {})
            except RuntimeError as fault:
                faults.append(fault)

    thread = threading.Thread(target=report)
    thread.start()
    for number in range(8000):
        fleet.see("catalog", poll(f"10.{number >> 8}.{number & 255}.1", 1 + number % 4))
    stop.set()
    thread.join()
    assert faults == []
    assert fleet.clients("catalog") == 8000


def test_versions_that_come_one_after_the_other_take_bounded_room() -> None:
    fleet = LiveFleet(lambda: 0.0)
    for version in range(1, 500):
        fleet.see("catalog", poll("10.0.0.1", version))
    assert len(next(iter(fleet.fleets["catalog"].arrivals.values()))) <= livefleet.MOST_ARRIVALS


# --- in the program --------------------------------------------------------------------------------------------------


def test_an_origin_with_an_address_for_operators(tmp_path: Path) -> None:
    Publisher.init(tmp_path / "feed").publish("catalog", films(3))
    words = ("origin", "serve", tmp_path / "feed", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    with running(*words) as program:
        feed = program.wait_for(r"serving .* at (http://127\.0\.0\.1:\d+)")[1]
        admin = program.wait_for(r"for operators at (http://127\.0\.0\.1:\d+)")[1]
        get(f"{feed}/catalog/head")
        status = get(f"{admin}/status").json
        assert status["datasets"]["catalog"]["version"] == 1
        assert status["requests_served"] == 1
        assert get(f"{feed}/status").status == 404  # devices are shown none of it
        metrics = get(f"{admin}/metrics").body.decode()
        assert 'edged_origin_version{dataset="catalog"} 1' in metrics
        assert not re.search(r"BEGIN|private", metrics)
        if shutil.which("promtool"):
            done = subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True, capture_output=True)
            assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert program.stop() == 0


def test_a_device_that_refuses_a_version_is_told_of_with_its_reason(tmp_path: Path) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", [*films(3), ("rows", "r", {"n": 1})])
    words = ("origin", "serve", tmp_path / "feed", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    with running(*words) as program:
        feed = program.wait_for(r"serving .* at (http://127\.0\.0\.1:\d+)")[1]
        admin = program.wait_for(r"for operators at (http://127\.0\.0\.1:\d+)")[1]
        device = Device(tmp_path, Origin(tmp_path / "feed"))
        config = device.configure(f"{feed}/catalog", more='require = ["rows"]')
        with device.running(config) as daemon:
            daemon.wait_version(1)
            publisher.publish_changes("catalog", [("rows", "r", None)])
            found: Any = None
            for _ in range(400):
                found = get(f"{admin}/fleet").json["datasets"]["catalog"]
                if found["refusals"]:
                    break
                time.sleep(0.025)
            assert found["refusals"] == [{"version": 1, "reason": "content", "clients": 1}]
            publisher.publish_changes("catalog", [("rows", "r", {"n": 2})])
            daemon.wait_version(3)
            for _ in range(400):
                found = get(f"{admin}/fleet").json["datasets"]["catalog"]
                if not found["refusals"]:
                    break
                time.sleep(0.025)
            assert (found["refusals"], found["versions"][0]["version"]) == ([], 3)


def test_an_address_for_both_is_refused(tmp_path: Path) -> None:
    Publisher.init(tmp_path / "feed")
    words = ("origin", "serve", tmp_path / "feed", "--bind", "127.0.0.1:8499", "--admin-bind", "127.0.0.1:8499")
    assert "an address for devices" in edged(*words, code=2).stderr
