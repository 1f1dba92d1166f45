"""Answers that are never held whole: the same by every protocol, coded, conditional, and in little memory."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import h2.connection
import h2.events
import msgspec
import pytest
import trio
import zstandard

from edged.errors import DamageError
from edged.feed.cbor import encode_record
from edged.http.application import InThread, Response
from edged.replica.finds import Match
from edged.replica.layers.question import Question
from edged.serve.answers import large, lists
from edged.serve.answers.large import PIECE_BYTES, WHOLE_BYTES, Listing, Wrapping
from edged.serve.answers.respond import Service
from edged.serve.apps import Api
from tests.http.protocols import PROTOCOLS, Ask, Everywhere, Got, everywhere
from tests.http.tls.pem import make
from tests.serve.asking import ask_any, make_service
from tests.serve.lanes import eventually, head
from tests.serve.memory import MemoryChange, MemoryDataset, MemoryView

COUNT = 300
CHANGES = "/v1/catalog/changes?since=0"
MEDIA = ["application/json", "application/cbor", "application/x-ndjson", "application/cbor-seq"]


def record(number: int) -> dict[str, Any]:
    return {"title": f"Film {number}", "text": f"{number} is a number. " * 50}


@dataclass
class Served:
    everywhere: Everywhere
    service: Service
    dataset: MemoryDataset


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    whole_up_to(100_000, monkeypatch)
    dataset = MemoryDataset("catalog")
    dataset.publish("titles", {f"k{n:05}": record(n) for n in range(COUNT)})
    service = make_service({"catalog": dataset})
    async with everywhere(Api(service), make(tmp_path, "localhost")) as found:
        yield Served(found, service, dataset)


def items_of(body: bytes, media: str) -> list[Any]:
    match media:
        case "application/x-ndjson":
            return [msgspec.json.decode(line) for line in body.splitlines()]
        case "application/json":
            return msgspec.json.decode(body)["items"]  # type: ignore[no-any-return]
        case "application/cbor":
            found = cbor2.loads(body)
            assert body.startswith(b"\xa2\x65items\x99" + COUNT.to_bytes(2, "big"))  # of known length, as a short one
            return found["items"]  # type: ignore[no-any-return]
    return cbor2.loads(b"\x99" + COUNT.to_bytes(2, "big") + body)  # type: ignore[no-any-return]


def essence(got: Got) -> tuple[object, ...]:
    framing = ("connection", "transfer-encoding", "date")
    return got.status, sorted(pair for pair in got.fields if pair[0].lower() not in framing), got.body, got.reset


@pytest.mark.parametrize("media", MEDIA)
async def test_changes_of_any_length_are_the_same_by_every_protocol(served: Served, media: str) -> None:
    asked = Ask(CHANGES, fields=[("accept", media)])
    found = [(await served.everywhere.ask(protocol, asked))[0] for protocol in PROTOCOLS]
    assert all(essence(got) == essence(found[0]) for got in found)
    items = items_of(found[0].body, media)
    assert [(item["key"], item["value"]) for item in items] == [(f"k{n:05}", record(n)) for n in range(COUNT)]
    assert found[0].get("edged-state") == "fresh"
    assert found[0].get("content-length") is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("coding", ["zstd", "gzip", "identity"])
async def test_they_are_coded_and_conditional_like_others(served: Served, protocol: str, coding: str) -> None:
    fields = [("accept-encoding", coding)]
    plain, coded, again = await served.everywhere.ask(
        protocol, Ask(CHANGES), Ask(CHANGES, fields=fields), Ask(CHANGES, fields=fields)
    )
    assert coded.get("content-encoding") == (None if coding == "identity" else coding)
    match coding:
        case "zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(coded.body)
        case "gzip":
            body = gzip.decompress(coded.body)
        case _:
            body = coded.body
    assert body == plain.body
    assert (coded.body, coded.get("etag")) == (again.body, again.get("etag"))
    assert (coded.get("etag") == plain.get("etag")) == (coding == "identity")
    known = [*fields, ("if-none-match", str(coded.get("etag")))]
    unchanged, other = await served.everywhere.ask(
        protocol, Ask(CHANGES, fields=known), Ask(CHANGES, fields=[*fields, ("if-none-match", '"other"')])
    )
    assert (unchanged.status, unchanged.body, unchanged.get("etag")) == (304, b"", coded.get("etag"))
    assert (other.status, other.body) == (200, coded.body)
    await eventually(lambda: served.service.coding == 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_head_has_its_fields_and_a_coding_that_is_not_there_is_406(served: Served, protocol: str) -> None:
    get, empty, refused = await served.everywhere.ask(
        protocol, Ask(CHANGES), Ask(CHANGES, "HEAD"), Ask(CHANGES, fields=[("accept-encoding", "br, *;q=0")])
    )
    assert (empty.status, empty.fields, empty.body) == (200, get.fields, b"")
    assert refused.status == 406


async def test_another_content_has_another_tag_at_the_same_version(served: Served) -> None:
    """As where an origin began anew."""
    (before,) = await served.everywhere.ask("h1", Ask(CHANGES))
    version, served.dataset.journal[:] = served.dataset.version, []
    served.dataset.version = version - 1
    served.dataset.publish("titles", {f"k{n:05}": record(n + 1) for n in range(COUNT)})
    (after,) = await served.everywhere.ask("h1", Ask(CHANGES, fields=[("if-none-match", str(before.get("etag")))]))
    assert (after.status, after.get("edged-version")) == (200, before.get("edged-version"))
    assert after.get("etag") != before.get("etag")


async def test_so_many_are_coded_at_once_and_others_are_not(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "CODED_AT_ONCE", 0)
    zstd, only = await served.everywhere.ask(
        "h2",
        Ask(CHANGES, fields=[("accept-encoding", "zstd")]),
        Ask(CHANGES, fields=[("accept-encoding", "zstd, identity;q=0")]),
    )
    assert (zstd.get("content-encoding"), only.get("content-encoding")) == (None, "zstd")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_damage_on_the_way_ends_the_answer_short_and_is_told(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    served.service.damage.tell = lambda dataset, fault: told.append(f"{dataset}: {fault}")
    made, taken = MemoryView.changes, [0]

    def changes(view: MemoryView, since: int, at: int | None = None) -> Iterator[MemoryChange]:
        taken[0] += 1
        for number, change in enumerate(made(view, since)):
            if taken[0] == 3 and number == COUNT - 10:  # after a look at the first, and the pass for the entity tag
                raise DamageError("a pack is damaged")
            yield change

    monkeypatch.setattr(MemoryView, "changes", changes)
    if protocol in ("h1", "h1-tls"):
        stream = await served.everywhere.open(protocol)
        await stream.send_all(head("GET", CHANGES))
        data = b""
        while piece := await receive(stream):
            data += piece
        assert data.startswith(b"HTTP/1.1 200")
        assert not data.endswith(b"0\r\n\r\n")
        await trio.aclose_forcefully(stream)
    else:
        (got,) = await served.everywhere.ask(protocol, Ask(CHANGES))
        assert (got.status, got.reset) == (200, 2)
    assert told == ["catalog: a pack is damaged"]


async def receive(stream: trio.abc.ReceiveStream) -> bytes:
    try:
        return bytes(await stream.receive_some(65536))
    except trio.BrokenResourceError:
        return b""


async def test_damage_before_anything_was_sent_is_a_503(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made, taken = MemoryView.changes, [0]

    def changes(view: MemoryView, since: int, at: int | None = None) -> Iterator[MemoryChange]:
        taken[0] += 1
        if taken[0] == 2:
            raise DamageError("a pack is damaged")
        return made(view, since)

    monkeypatch.setattr(MemoryView, "changes", changes)
    (got,) = await served.everywhere.ask("h1", Ask(CHANGES))
    assert (got.status, got.get("retry-after")) == (503, "2")


def test_up_to_the_bound_an_answer_is_whole() -> None:
    dataset = MemoryDataset("catalog")
    dataset.publish("titles", {"k": {"x": ""}})
    overhead = len(whole(dataset).body) - 1  # the end of the line counts for no item
    dataset.publish("titles", {"k": {"x": "y" * (WHOLE_BYTES - overhead)}})
    assert len(whole(dataset).body) == WHOLE_BYTES + 1
    dataset.publish("titles", {"k": {"x": "y" * (WHOLE_BYTES - overhead + 1)}})
    assert isinstance(ask_any(make_service({"catalog": dataset}), CHANGES), InThread)


def whole(dataset: MemoryDataset) -> Response:
    found = ask_any(make_service({"catalog": dataset}), CHANGES)
    assert isinstance(found, Response)
    return found


@pytest.mark.parametrize("size", [10, PIECE_BYTES - 20, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES])
def test_no_piece_is_large_however_large_its_items_are(size: int) -> None:
    """What waits for a slow reader is one piece."""
    items = [bytes([number]) * size for number in range(1, 8)]
    listing = Listing(lambda count: Wrapping(b"[%d:" % count, b",", b"]"), lambda: iter(items), lambda: iter(items))
    pieces = list(listing.pieces(7))
    assert b"".join(pieces) == listing.whole(items)
    assert max(len(piece) for piece in pieces) <= PIECE_BYTES + 3


# --- lists and batches ----------------------------------------------------------------------------------------------

KEYS = ",".join(f"k{n:05}" for n in [*range(200), 9999, 7])
LISTS = [
    "/v1/catalog/titles?limit=400",
    "/v1/catalog/titles?limit=400&after=k00100&fields=title",
    "/v1/catalog/titles?limit=30&q=film&count=1",
    f"/v1/catalog/titles?keys={KEYS}",
    f"/v1/catalog/titles?keys={KEYS}&fields=title",
]


def whole_up_to(size: int, patch: pytest.MonkeyPatch) -> None:
    for module in (large, lists):
        patch.setattr(module, "WHOLE_BYTES", size)


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("target", LISTS)
async def test_lists_in_pieces_are_those_made_whole(
    served: Served, target: str, media: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Ask(target, fields=[("accept", media)])
    whole_up_to(WHOLE_BYTES, monkeypatch)
    (whole,) = await served.everywhere.ask("h1", asked)
    assert whole.get("content-length") == str(len(whole.body))
    whole_up_to(1000, monkeypatch)
    served.dataset.publish("people", {"a": {"name": "A"}})  # a new version, so that nothing is remembered
    served.dataset.version -= 1
    served.dataset.made = None
    for protocol in PROTOCOLS:
        (got,) = await served.everywhere.ask(protocol, asked)
        assert got.body == whole.body, protocol
        assert got.get("content-length") is None
        (again,) = await served.everywhere.ask(
            protocol, Ask(target, fields=[("accept", media), ("if-none-match", str(got.get("etag")))])
        )
        assert (again.status, again.body) == (304, b"")
        names = ("etag", "content-length", "date", "age", "transfer-encoding", "connection")  # clocks of tests differ
        rest = [[pair for pair in one.fields if pair[0].lower() not in names] for one in (got, whole)]
        assert sorted(rest[0]) == sorted(rest[1])


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
async def test_a_batch_has_its_bound_in_pieces_too(
    served: Served, more: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_up_to(WHOLE_BYTES, monkeypatch)
    (whole,) = await served.everywhere.ask("h1", Ask(f"/v1/catalog/titles?keys={KEYS}"))
    items = len(whole.body) - len(b'{"items":[],"version":1,"next":null}') - KEYS.count(",")
    whole_up_to(1000, monkeypatch)
    monkeypatch.setattr(lists, "MAX_ANSWER_BYTES", items - more)
    served.dataset.publish("people", {"a": {"name": "A"}})
    (got,) = await served.everywhere.ask("h2", Ask(f"/v1/catalog/titles?keys={KEYS}"))
    assert got.status == status


def test_a_page_holds_no_values_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_up_to(250, monkeypatch)
    found = [Match(f"k{n}", bytes(100)) for n in range(5)]
    assert [one.raw for one in lists.bounded(iter(found[:2]), 9, Question()).items] == [bytes(100)] * 2
    page = lists.bounded(iter(found), 9, Question())
    assert ([one.raw for one in page.items], page.size, page.following) == ([None] * 5, 500, None)


# --- memory ---------------------------------------------------------------------------------------------------------

RAW = encode_record({"title": "Film", "text": "A text. " * 12}, "k")


@dataclass(frozen=True)
class ManyView(MemoryView):
    """So many changes, none of which is held."""

    many: int = 0

    def changes(self, since: int, at: int | None = None) -> Iterator[MemoryChange]:
        return (MemoryChange("titles", f"k{number:07}", RAW, 1) for number in range(self.many))


@dataclass
class ManyDataset(MemoryDataset):
    many: int = 0

    def view(self) -> MemoryView:
        if self.made is None:
            self.made = ManyView("catalog", 1, {"titles": {}}, (), frozenset(), many=self.many)
        return self.made


@pytest.mark.parametrize(("protocol", "coding", "many"), [("h1", "identity", 10_000), ("h2", "zstd", 8000)])
async def test_many_changes_read_slowly_take_little_memory(
    tmp_path: Path, protocol: str, coding: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "WHOLE_BYTES", 50_000)
    dataset = ManyDataset("catalog", 1, many=many)
    async with everywhere(Api(make_service({"catalog": dataset})), make(tmp_path, "localhost")) as found:
        stream = await found.open(protocol)
        client = h2.connection.H2Connection()
        if protocol == "h2":
            client.initiate_connection()
            fields = [(":method", "GET"), (":scheme", "https"), (":path", CHANGES), (":authority", "localhost")]
            client.send_headers(1, [*fields, ("accept-encoding", coding)], end_stream=True)
            asked = client.data_to_send()
        else:
            asked = head("GET", CHANGES, {"Accept-Encoding": coding, "Connection": "close"})
        got, ended = 0, False
        tracemalloc.start()
        try:
            await stream.send_all(asked)
            while not ended:
                piece = bytes(await stream.receive_some(20_000))
                got, ended = got + len(piece), not piece
                for event in client.receive_data(piece) if protocol == "h2" else ():
                    if isinstance(event, h2.events.DataReceived):
                        client.acknowledge_received_data(event.flow_controlled_length, 1)
                        await stream.send_all(client.data_to_send())
                    ended = ended or isinstance(event, h2.events.StreamEnded)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await trio.aclose_forcefully(stream)
    assert got > (many * len(RAW) if coding == "identity" else many)
    assert peak < 700_000, f"{peak} bytes at most, of {many * len(RAW)}"
