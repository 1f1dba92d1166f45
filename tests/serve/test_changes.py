"""What changed: whole, waited for, and as event streams, in both lanes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import cbor2
import msgspec
import pytest
import trio
import trio.testing

from edged.http.application import Held, Stream
from edged.serve.answers.changes import Wanted
from edged.serve.answers.negotiate import NDJSON
from edged.serve.answers.render import Renderer
from tests.serve.asking import ask, ask_any, ask_json, field_of, make_service
from tests.serve.lanes import Client, Lanes, client, eventually, head, running_lanes
from tests.serve.memory import MemoryDataset, film, make_dataset

CHANGES = "/v1/catalog/changes"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def dataset() -> MemoryDataset:
    dataset = make_dataset(3)
    dataset.publish("titles", {"1991/Film_0001": None, "new": {"title": "New", "year": 2000}})
    return dataset


def lines_of(body: bytes) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in body.splitlines()]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 20, "²", "abc123"])
def test_an_id_that_is_none_of_ours_locks_nobody_out(dataset: MemoryDataset, last: str) -> None:
    service = make_service({"catalog": dataset})
    whole = ask(service, f"{CHANGES}?since=0")
    assert ask(service, f"{CHANGES}?since=0", {"Last-Event-ID": last}).body == whole.body
    assert lines_of(ask(service, CHANGES, {"Last-Event-ID": last}).body) == [{"reset": True, "version": 3}]
    stream = ask_any(service, CHANGES, {**EVENTS, "Last-Event-ID": last})
    assert isinstance(stream, Stream)
    assert b"event: reset" in b"".join(stream.pieces)


def test_changes_since_a_version_are_lines_of_set_and_deleted_records(dataset: MemoryDataset) -> None:
    found = ask(make_service({"catalog": dataset}), f"{CHANGES}?since=2")
    assert field_of(found, "content-type") == "application/x-ndjson"
    assert field_of(found, "edged-version") == "3"
    assert lines_of(found.body) == [
        {"collection": "titles", "key": "1991/Film_0001", "deleted": True, "version": 3},
        {"collection": "titles", "key": "new", "value": {"title": "New", "year": 2000}, "version": 3},
    ]
    assert ask(make_service({"catalog": dataset}), f"{CHANGES}?since=3").body == b""


def test_changes_in_other_formats_are_the_same(dataset: MemoryDataset) -> None:
    service = make_service({"catalog": dataset})
    wanted = lines_of(ask(service, f"{CHANGES}?since=1").body)
    binary = ask(service, f"{CHANGES}?since=1", {"Accept": "application/cbor"})
    assert cbor2.loads(binary.body) == {"items": wanted, "version": 3}
    sequence = ask(service, f"{CHANGES}?since=1", {"Accept": "application/cbor-seq"})
    assert cbor2.loads(b"\x84" + sequence.body) == wanted
    assert ask_json(service, f"{CHANGES}?since=1", {"Accept": "application/json"}) == {"items": wanted, "version": 3}


def test_the_same_collections_are_named_alike_by_every_process() -> None:
    """Serving processes share a port: an entity tag of one must be that of the others."""
    names = "abcdefgh"
    assert Wanted(Renderer(0), NDJSON, frozenset(names), {}).key == (tuple(names), ())


def test_changes_are_filtered_by_collection_and_shaped(dataset: MemoryDataset) -> None:
    service = make_service({"catalog": dataset})
    assert {line["collection"] for line in lines_of(ask(service, f"{CHANGES}?since=0&collection=people").body)} == {
        "people"
    }
    shaped = lines_of(ask(service, f"{CHANGES}?since=2&view=stb-basic").body)
    assert shaped[1]["value"] == {"title": "New", "released": 2000}


@pytest.mark.parametrize("since", ["0", "4"])
def test_an_asker_whose_version_is_not_kept_is_told_to_begin_again(dataset: MemoryDataset, since: str) -> None:
    dataset.changes_from, dataset.made = 1, None
    service = make_service({"catalog": dataset})
    assert lines_of(ask(service, f"{CHANGES}?since={since}").body) == [{"reset": True, "version": 3}]
    stream = ask_any(service, f"{CHANGES}?since={since}", EVENTS)
    assert isinstance(stream, Stream)
    assert b'event: reset\nid: 3\ndata: {"reset":true,"version":3}\n\n' in b"".join(stream.pieces)


def test_last_event_id_goes_before_its_stand_in_and_before_since(dataset: MemoryDataset) -> None:
    service = make_service({"catalog": dataset})
    assert len(lines_of(ask(service, f"{CHANGES}?since=0", {"Last-Event-ID": "2"}).body)) == 2
    assert len(lines_of(ask(service, f"{CHANGES}?since=0&lastEventId=2").body)) == 2
    assert len(lines_of(ask(service, f"{CHANGES}?lastEventId=1", {"Last-Event-ID": "2"}).body)) == 2


def test_waiting_is_only_for_who_has_the_newest_version(dataset: MemoryDataset) -> None:
    service = make_service({"catalog": dataset})
    held = ask_any(service, f"{CHANGES}?since=3&wait=20")
    assert isinstance(held, Held)
    assert (held.signal, held.wait_s) == (service.news.signal("catalog"), 20)
    assert len(lines_of(ask(service, f"{CHANGES}?since=2&wait=20").body)) == 2


class Events:
    """Reads server-sent events as a browser does (HTML, section 9.2.6), over chunked framing."""

    def __init__(self, asker: Client) -> None:
        self.asker = asker
        self.text = b""
        self.last_id = ""

    async def open(self) -> None:
        while b"\r\n\r\n" not in self.asker.buffer:
            self.asker.buffer += bytes(await self.asker.stream.receive_some(65536))
        top, _, self.asker.buffer = self.asker.buffer.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 200")
        assert b"text/event-stream" in top

    async def next(self) -> tuple[str, object]:
        """(type, data) of the next event."""
        with trio.fail_after(10):
            while True:
                self.unframe()
                while b"\n\n" in self.text:
                    block, _, self.text = self.text.partition(b"\n\n")
                    kind, data = "message", b""
                    for line in block.split(b"\n"):
                        name, _, value = line.partition(b": ")
                        if name == b"event":
                            kind = value.decode()
                        elif name == b"data":
                            data += value
                        elif name == b"id":
                            self.last_id = value.decode()
                    if data:
                        return kind, msgspec.json.decode(data)
                piece = bytes(await self.asker.stream.receive_some(65536))
                assert piece, "the stream has ended"
                self.asker.buffer += piece

    def unframe(self) -> None:
        while b"\r\n" in self.asker.buffer:
            size_text, _, rest = self.asker.buffer.partition(b"\r\n")
            size = int(size_text, 16)
            if len(rest) < size + 2:
                return
            self.text += rest[:size]
            self.asker.buffer = rest[size + 2 :]


@pytest.fixture(params=["fast", "slow"])
async def lanes_and_url(request: pytest.FixtureRequest, dataset: MemoryDataset) -> AsyncIterator[tuple[Lanes, str]]:
    async with running_lanes(dataset) as lanes:
        yield lanes, lanes.fast if request.param == "fast" else lanes.slow


@pytest.mark.trio
async def test_an_event_stream_catches_up_follows_and_resumes(lanes_and_url: tuple[Lanes, str]) -> None:
    lanes, url = lanes_and_url
    async with client(url) as asker:
        events = Events(asker)
        await asker.send(head("GET", f"{CHANGES}?since=2", EVENTS))
        await events.open()
        seen = [await events.next() for _ in range(3)]
        assert [kind for kind, _ in seen] == ["message", "message", "version"]
        assert events.last_id == "3"
        for number in range(3):
            lanes.dataset.publish("titles", {"new": {"title": f"New {number}"}})
            kind, data = await events.next()
            assert (kind, data) == (
                "message",
                {"collection": "titles", "key": "new", "value": {"title": f"New {number}"}, "version": 4 + number},
            )
            assert await events.next() == ("version", {"version": 4 + number})
            assert events.last_id == str(4 + number)
    lanes.dataset.publish("titles", {"new": None})
    async with client(url) as asker:
        events = Events(asker)
        await asker.send(head("GET", CHANGES, {**EVENTS, "Last-Event-ID": "6"}))
        await events.open()
        assert await events.next() == (
            "message",
            {"collection": "titles", "key": "new", "deleted": True, "version": 7},
        )


@pytest.mark.trio
async def test_an_event_stream_without_since_begins_now(lanes_and_url: tuple[Lanes, str]) -> None:
    lanes, url = lanes_and_url
    async with client(url) as asker:
        events = Events(asker)
        await asker.send(head("GET", f"{CHANGES}?collection=people", EVENTS))
        await events.open()
        await trio.testing.wait_all_tasks_blocked()
        lanes.dataset.publish("titles", {"x": {"title": "not asked for"}})
        assert await events.next() == ("version", {"version": 4})
        lanes.dataset.publish("people", {"x": {"name": "Bob"}})
        kind, data = await events.next()
        assert isinstance(data, dict)
        assert (kind, data["value"]) == ("message", {"name": "Bob"})


@pytest.mark.trio
async def test_a_long_poll_is_held_until_the_next_version(lanes_and_url: tuple[Lanes, str]) -> None:
    lanes, url = lanes_and_url
    async with client(url) as asker:
        await asker.send(head("GET", f"{CHANGES}?since=3&wait=30"))
        with trio.move_on_after(0.1):
            await asker.reply()
            raise AssertionError("answered without news")
        lanes.dataset.publish("titles", {"x": {"title": "X"}})
        reply = await asker.reply()
        assert reply.fields["edged-version"] == "4"
        assert lines_of(reply.body) == [
            {"collection": "titles", "key": "x", "value": {"title": "X"}, "version": 4},
        ]
        await asker.send(head("GET", "/v1"))  # the connection goes on
        assert (await asker.reply()).status == 200


@pytest.mark.trio
async def test_a_long_poll_ends_empty_when_its_time_is_up(lanes_and_url: tuple[Lanes, str]) -> None:
    _, url = lanes_and_url
    async with client(url) as asker:
        await asker.send(head("GET", f"{CHANGES}?since=3&wait=1"))
        reply = await asker.reply()
        assert (reply.status, reply.body, reply.fields["edged-version"]) == (200, b"", "3")


@pytest.mark.trio
async def test_a_long_answer_in_pieces_leaves_the_connection_usable(lanes_and_url: tuple[Lanes, str]) -> None:
    lanes, url = lanes_and_url
    lanes.dataset.publish("titles", {f"k{n:05}": film(n) for n in range(5000)})
    async with client(url) as asker:
        await asker.send(head("GET", f"{CHANGES}?since=3") + head("GET", "/v1/catalog"))
        assert len(lines_of((await asker.reply()).body)) == 5000
        assert (await asker.reply()).status == 200


@pytest.mark.trio
async def test_many_listeners_all_hear_of_a_change_and_leave_nothing_behind() -> None:
    async with running_lanes(make_dataset(3)) as lanes:
        streams = [await trio.open_tcp_stream("127.0.0.1", int(lanes.fast.rpartition(":")[2])) for _ in range(100)]
        listeners = [Events(Client(stream)) for stream in streams]
        for listener in listeners:
            await listener.asker.send(head("GET", CHANGES, EVENTS))
            await listener.open()
        assert lanes.meter.streams == 100
        lanes.dataset.publish("titles", {"x": {"title": "X"}})
        for listener in listeners:
            assert (await listener.next())[0] == "message"
        for stream in streams:
            await stream.aclose()
        await eventually(lambda: not lanes.meter.streams and not lanes.meter.fast_connections)
