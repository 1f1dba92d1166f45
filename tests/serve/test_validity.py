"""Records that come and go by time, as apps see it: on every way of asking, at its second, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import cbor2
import msgspec
import pytest
import trio

from edged.clock import Clock
from edged.config import ServeConfig
from edged.feed import cbor
from edged.feed.schema import CollectionSchema, Schema
from edged.http.application import ByTask, Held, InThread, Response, Stream
from edged.http.fields import Fields
from edged.replica.reader import Replica
from edged.replica.writer import Writer
from edged.serve.answers import large
from edged.serve.answers.respond import Service
from edged.serve.app_server import AppServer
from tests.replica.feeds import Publisher
from tests.serve.asking import ask, ask_any, ask_json, field_of, make_service
from tests.serve.lanes import Client, ask_once, client, head
from tests.serve.memory import NOW
from tests.serve.test_changes import Events

T = int(NOW)
WINDOWS: dict[str, dict[str, Any]] = {
    "always": {},
    "begins": {"from": T + 100},
    "ends": {"until": T + 200},
    "both": {"from": T + 100, "until": T + 300},
    "gone": {"until": T - 5},
    "never": {"from": "soon"},
}
SCHEMA = Schema(
    {
        "titles": CollectionSchema(("genre",), ("title",), valid=("from", "until")),
        "people": CollectionSchema(),
    }
)
EVENTS = {"Accept": "text/event-stream"}
CHANGES = "/v1/catalog/changes"


def there(time: int) -> list[str]:
    windows = {
        key: (sides.get("from", 0), sides.get("until", T * 2)) for key, sides in WINDOWS.items() if key != "never"
    }
    return sorted(key for key, (begin, end) in windows.items() if begin <= time < end)


@dataclass
class Device:
    """A replica with titles of every kind of window, and what serves it. now: what its clock says."""

    root: Path
    writer: Writer
    publisher: Publisher
    now: float = NOW
    clock: Clock = field(init=False)
    replica: Replica = field(init=False)
    service: Service = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.now)
        self.replica = Replica(self.root, self.clock)
        self.service = make_service({"catalog": self.replica.follow("catalog")}, clock=self.clock)

    def ask(self, target: str, fields: dict[str, str] | None = None) -> Response:
        return ask(self.service, target, fields, now=self.clock())

    def any(self, target: str, fields: dict[str, str] | None = None) -> Any:
        return ask_any(self.service, target, fields, now=self.clock())

    def publish(self, edits: dict[str, Any]) -> None:
        self.publisher.version += 1
        changes = {("titles", key): None if value is None else cbor.encode(value) for key, value in edits.items()}
        with self.writer.stage() as staging:
            staging.apply_changes("core", self.publisher.version, self.publisher.apply("core", changes))
            as_of = int(self.now)
            staging.commit(self.publisher.version, b"head", as_of=as_of, fresh_s=600, expires_s=900)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    records = {
        ("titles", key): cbor.encode({"title": f"Film {key}", "genre": "Drama", **sides})
        for key, sides in WINDOWS.items()
    }
    publisher = Publisher({"core": {**records, ("people", "ann"): cbor.encode({})}})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
        yield Device(tmp_path, writer, publisher)


def keys_of(document: Any) -> list[str]:
    return [item["key"] for item in document["items"]]


@pytest.mark.parametrize("time", [0, 99, 100, 199, 200, 299, 300])
def test_every_way_of_asking_knows_what_is_there(device: Device, time: int) -> None:
    device.now = NOW + time + 0.99
    expected = there(T + time)
    for key in WINDOWS:
        assert device.ask(f"/v1/catalog/titles/{key}").status == (200 if key in expected else 404)
    for question in ("limit=9", "where.genre=Drama", "q=film", "prefix="):
        assert sorted(keys_of(ask_json(device.service, f"/v1/catalog/titles?{question}"))) == expected
    batch = ask_json(device.service, f"/v1/catalog/titles?keys={','.join(WINDOWS)}")
    assert [item["key"] for item in batch["items"] if item["value"] is not None] == [
        key for key in WINDOWS if key in expected
    ]
    described = ask_json(device.service, "/v1/catalog")
    assert described["collections"] == {"titles": len(expected), "people": 1}
    following = next((edge for edge in (100, 200, 300) if edge > time), None)
    assert described["next_change"] == (None if following is None else T + following)
    for target in ("/v1/catalog", "/v1/catalog/titles/always", "/v1/catalog/titles", "/v1/catalog/titles/none"):
        found = device.ask(target)
        assert field_of(found, "Edged-Next-Change") == (None if following is None else str(T + following))
        assert int(field_of(found, "Edged-Time") or 0) <= T + time
    same = device.ask(
        "/v1/catalog/titles/always", {"If-None-Match": field_of(device.ask("/v1/catalog/titles/always"), "ETag") or ""}
    )
    assert (same.status, field_of(same, "Edged-Next-Change")) == (
        304,
        None if following is None else str(T + following),
    )


def test_a_dataset_without_windows_says_nothing_of_time(tmp_path: Path) -> None:
    publisher = Publisher({"core": {("titles", "a"): cbor.encode({"from": T + 1})}})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer, schema=Schema())
        service = make_service({"catalog": Replica(tmp_path).follow("catalog")})
        found = ask(service, "/v1/catalog/titles/a")
        assert (found.status, field_of(found, "Edged-Time"), field_of(found, "Edged-Next-Change")) == (200, None, None)
        assert "time" not in ask_json(service, "/v1/catalog")
        assert ask_json(service, CHANGES + "?since=1", {"Accept": "application/json"}) == {"items": [], "version": 1}


@pytest.mark.parametrize("media", ["json", "x-ndjson", "cbor", "cbor-seq"])
def test_changes_tell_of_what_came_and_went(device: Device, media: str) -> None:
    device.now = NOW + 150
    found = device.ask(f"{CHANGES}?since=1-{T}", {"Accept": f"application/{media}"})
    if media == "json":
        document = msgspec.json.decode(found.body)
        assert (document["version"], document["time"]) == (1, T + 150)
        items = document["items"]
    elif media == "cbor":
        document = cbor2.loads(found.body)
        assert (document["version"], document["time"]) == (1, T + 150)
        items = document["items"]
    elif media == "x-ndjson":
        items = [msgspec.json.decode(line) for line in found.body.splitlines()]
    else:
        items = cbor2.loads(b"\x82" + found.body)
    assert [(item["key"], "value" in item, item["version"]) for item in items] == [
        ("begins", True, 1),
        ("both", True, 1),
    ]
    assert field_of(found, "Edged-Time") == str(T + 150)
    again = device.ask(f"{CHANGES}?since=1-{T + 150}")
    assert again.body == b""
    device.now = NOW + 300
    lines = device.ask(f"{CHANGES}?since=1-{T + 150}&collection=titles").body.splitlines()
    assert [msgspec.json.decode(line) for line in lines] == [
        {"collection": "titles", "key": key, "version": 1, "deleted": True} for key in ("ends", "both")
    ]
    assert device.ask(f"{CHANGES}?since=1-{T + 150}&collection=people").body == b""


def test_without_a_time_changes_count_from_the_signing_of_the_version(device: Device) -> None:
    device.publish({"new": {"title": "New"}})
    device.now = NOW + 150
    told = [msgspec.json.decode(line)["key"] for line in device.ask(f"{CHANGES}?since=2").body.splitlines()]
    assert told == ["begins", "both"]
    assert device.ask(f"{CHANGES}?since=3-{T}").body.startswith(b'{"reset":true,"version":2,"time":')


@pytest.mark.parametrize("since", ["-1", "1-", "1-x", "1-2-3", "1 -2", "99999999999999999999", "1-9999999999999999"])
def test_a_since_that_is_no_version_and_time_is_refused(device: Device, since: str) -> None:
    found = device.any(f"{CHANGES}?since={since.replace(' ', '%20')}")
    assert found.status == 400
    assert b"VERSION-TIME" in found.body


def test_what_was_never_there_is_not_told_of(device: Device) -> None:
    device.publish({"secret": {"title": "Premiere", "from": T + 1000}, "always": {"title": "Changed"}})
    lines = device.ask(f"{CHANGES}?since=1-{T}").body.splitlines()
    assert [msgspec.json.decode(line)["key"] for line in lines] == ["always"]
    device.publish({"always": {"title": "Changed", "from": T + 1000}})
    (line,) = device.ask(f"{CHANGES}?since=2-{T}").body.splitlines()
    assert msgspec.json.decode(line) == {"collection": "titles", "key": "always", "version": 3, "deleted": True}


def test_a_held_poll_answers_at_the_second(device: Device) -> None:
    target = f"{CHANGES}?since=1-{T}&wait=30"
    held = device.any(target)
    assert isinstance(held, Held)
    again = held.resume(False)
    assert isinstance(again, Held)
    generation = device.service.news.signal("catalog").generation
    device.now = NOW + 99.9
    assert not device.service.news.look()
    device.now = NOW + 100
    assert device.service.news.look()
    assert device.service.news.signal("catalog").generation == generation + 1
    found = held.resume(False)
    assert isinstance(found, Response)
    assert [msgspec.json.decode(line)["key"] for line in found.body.splitlines()] == ["begins", "both"]


def test_a_held_poll_without_a_time_counts_from_its_begin(device: Device) -> None:
    device.now = NOW + 150
    held = device.any(f"{CHANGES}?since=1&wait=30")
    assert isinstance(held, Held), "it would be answered at once for ever"
    device.now = NOW + 200
    found = held.resume(False)
    assert isinstance(found, Response)
    assert [msgspec.json.decode(line)["key"] for line in found.body.splitlines()] == ["ends"]
    assert isinstance(device.any(f"{CHANGES}?since=1-{T + 150}&wait=30"), Response)


def text_of(stream: Any) -> str:
    assert isinstance(stream, Stream)
    return b"".join(stream.pieces).decode()


def test_a_reconnecting_stream_misses_nothing(device: Device) -> None:
    device.now = NOW + 250
    text = text_of(device.any(CHANGES, {**EVENTS, "Last-Event-ID": f"1-{T + 50}"}))
    keys = [msgspec.json.decode(line[6:])["key"] for line in text.splitlines() if line.startswith('data: {"collection')]
    assert keys == ["begins", "both", "ends"]
    assert f'event: version\nid: 1-{T + 250}\ndata: {{"version":1,"time":{T + 250}}}\n\n' in text


@pytest.fixture
async def served(device: Device) -> Any:
    stop = trio.Event()
    apps = AppServer({"catalog": device.replica.follow("catalog")}, ServeConfig(bind=["127.0.0.1:0"]), device.clock)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield (await nursery.start(apps.run, stop))[0]
            stop.set()


@pytest.mark.trio
async def test_remembered_answers_end_at_their_second(device: Device, served: str) -> None:
    asked = {
        target: head("GET", f"/v1/catalog/titles{target}") for target in ("/ends", "/begins", "?keys=ends,begins", "")
    }
    for time, expected in ((100, 200), (200, 404), (201, 404)):
        device.now = NOW + time
        for _ in range(3):  # the second and third from memory, where they may be
            assert (await ask_once(served, asked["/ends"])).status == expected
            assert (await ask_once(served, asked["/begins"])).status == 200
            batch = msgspec.json.decode((await ask_once(served, asked["?keys=ends,begins"])).body)
            assert [item["value"] is not None for item in batch["items"]] == [expected == 200, True]
            reply = await ask_once(served, asked[""])
            assert keys_of(msgspec.json.decode(reply.body)) == there(T + time)
    reply = await ask_once(served, asked[""])
    known = head("GET", "/v1/catalog/titles", {"If-None-Match": reply.fields["etag"]})
    assert [(await ask_once(served, known)).status for _ in range(2)] == [304, 304]
    device.now = NOW + 300
    assert [(await ask_once(served, known)).status for _ in range(2)] == [200, 200]
    device.now = NOW
    assert [(await ask_once(served, known)).status for _ in range(2)] == [200, 200], "the clock went back"
    assert (await ask_once(served, asked["/ends"])).status == 404


@pytest.mark.trio
async def test_an_event_stream_tells_at_the_second(device: Device, served: str) -> None:
    async with client(served) as asker:
        assert isinstance(asker, Client)
        events = Events(asker)
        await asker.send(head("GET", CHANGES, EVENTS))
        await events.open()
        device.now = NOW + 100
        told = [await events.next() for _ in range(3)]
        assert [kind for kind, _ in told] == ["message", "message", "version"]
        assert told[2][1] == {"version": 1, "time": T + 100}
        assert events.last_id == f"1-{T + 100}"
        device.now = NOW + 210
        kind, data = await events.next()
        assert (kind, data) == ("message", {"collection": "titles", "key": "ends", "version": 1, "deleted": True})
        assert await events.next() == ("version", {"version": 1, "time": T + 210})
        await trio.to_thread.run_sync(device.publish, {"always": {"title": "Edited"}})
        assert (await events.next())[0] == "message"
        assert (await events.next())[0] == "version"
        assert events.last_id.startswith("2-")


class Told:
    """The client of a large answer."""

    def __init__(self) -> None:
        self.tag, self.body = b"", b""

    async def start(self, status: int, fields: Fields) -> None:
        self.tag = dict(fields)[b"ETag"]

    async def write(self, data: bytes) -> None:
        self.body += data

    async def end(self, data: bytes = b"") -> None:
        self.body += data


@pytest.mark.trio
async def test_the_tag_of_a_large_answer_tells_when_what_a_row_leads_to_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "WHOLE_BYTES", 10)
    schema = Schema(
        {"titles": CollectionSchema(valid=("from", "until")), "rows": CollectionSchema(refs={"items": "titles"})}
    )
    publisher = Publisher({"core": {("titles", "ends"): cbor.encode({"until": T + 100})}})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer, schema=schema)
        device = Device(tmp_path, writer, publisher)
        publisher.version += 1
        with writer.stage() as staging:
            row: dict[tuple[str, str], bytes | None] = {("rows", "row"): cbor.encode({"items": ["ends"]})}
            staging.apply_changes("core", publisher.version, publisher.apply("core", row))
            staging.commit(publisher.version, b"head", as_of=T, fresh_s=600, expires_s=900)
        answers = []
        for device.now in (NOW, NOW + 99, NOW + 100):
            found = device.any(f"{CHANGES}?since=1&collection=rows&expand=items")
            while isinstance(found, InThread):
                found = found.work()
            assert isinstance(found, ByTask)
            told = Told()
            await found.run(cast(Any, told))
            answers.append((told.tag, told.body))
    before, same, after = answers
    assert before == same
    assert b'"value":{"until":' in before[1]
    assert b'"value":null' in after[1]
    assert before[0] != after[0]
