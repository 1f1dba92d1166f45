"""What is remembered of a record outlives the versions that did not change it, and those alone."""

from __future__ import annotations

import pytest

from edged.errors import DamageError
from edged.http.application import Answer, Response, Shared, TimedFields
from edged.http.h2.remembered import AnswerPlace, RememberedFrames
from edged.http.lane import remembered
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.precedence import Precedence
from edged.http.limits import Limits
from edged.http.memory import Memo, size_of_bytes
from edged.http.meter import Meter
from edged.http.request import Request
from edged.serve.apps import Api
from tests.http.h2.peer import Peer
from tests.http.h2.test_remembered import FOUND, Second, ask, like
from tests.http.test_memo import connected
from tests.serve.asking import make_service
from tests.serve.memory import NOW, MemoryDataset, MemoryView, make_dataset

KEY = "1997/Film_0007"
RAW = b"GET /v1/catalog/titles/1997/Film_0007 HTTP/1.1\r\nHost: localhost\r\n\r\n"
OTHER = {"1993/Film_0003": {"title": "another"}}


class Asked:
    """A lane's answers over a dataset. asked: how often the application was."""

    def __init__(self, dataset: MemoryDataset) -> None:
        self.dataset = dataset
        self.api = Api(make_service({"catalog": dataset}))
        self.answers = LaneAnswers(self.api, lambda: NOW, Meter(), Limits(), Precedence())
        self.connection = connected(self.answers.memory)
        self.answers.ask = self.ask
        self.asked = 0

    def ask(self, request: Request) -> Answer:
        self.asked += 1
        return self.api.answer(request)

    def get(self, raw: bytes = RAW) -> bytes:
        self.answers.renew(self.api.generation())
        self.connection.inbox = raw
        return self.answers.next_answer(self.connection, 0.0) or b""


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Accept: application/cbor\r\n",
        b"Accept-Encoding: gzip\r\n",
        b"Connection: close\r\n",
        b"If-None-Match: *\r\n",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_answer_to_a_record_that_did_not_change_outlives_versions(method: bytes, fields: bytes) -> None:
    asked, raw = Asked(make_dataset()), RAW.replace(b"GET", method).replace(b"Host", fields + b"Host")
    sent = asked.get(raw)
    for _ in range(3):
        asked.dataset.as_of += 5
        old = asked.dataset.version
        asked.dataset.publish("titles", OTHER)
        before, sent = sent, asked.get(raw)
        assert sent != before
        assert b"Edged-Version: %d\r\n" % (old + 1) in sent
        assert sent == Asked(asked.dataset).get(raw)  # as of a lane that remembers nothing
        assert asked.get(raw) == sent
    assert asked.asked == 1
    asked.answers.memory.count()
    assert asked.answers.meter.remembered == 6


def test_an_answer_to_a_record_that_changed_went_or_was_taken_down_does_not() -> None:
    asked = Asked(make_dataset())
    asked.get()
    asked.dataset.publish("titles", {KEY: {"title": "newer"}})
    assert b'{"title":"newer"}' in asked.get()
    asked.dataset.publish("titles", {KEY: None})
    assert asked.get().startswith(b"HTTP/1.1 404 ")
    asked.dataset.publish("titles", {KEY: {"title": "newer"}})
    assert b'{"title":"newer"}' in asked.get()
    asked.dataset.take_down("titles", KEY)
    assert asked.get().startswith(b"HTTP/1.1 410 ")
    assert asked.asked == 5


def test_a_version_gone_back_to_is_told_by_what_it_holds() -> None:
    """Numbers may come again with other content, after a stolen key."""
    asked = Asked(make_dataset())
    asked.get()
    version = asked.dataset.version
    asked.dataset.publish("titles", {KEY: {"title": "forged"}})
    asked.get()
    asked.dataset.version = version - 1
    asked.dataset.publish("titles", {KEY: {"title": "true"}})
    assert b'{"title":"true"}' in asked.get()


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (b"/v1/catalog/titles?keys=1997/Film_0007", b""),
        (b"/v1/catalog/titles/1997/Film_0007?fields=year", b""),
        (b"/v1/catalog/titles/1997/Film_0007?", b""),
        (b"/v1/catalog/titles/1997/Film_0007", b"Accept-Encoding: dcz\r\n"),
    ],
)
def test_what_more_than_the_record_decides_is_answered_anew(target: bytes, fields: bytes) -> None:
    dataset = make_dataset()
    dataset.trained = b"a dictionary"
    asked = Asked(dataset)
    raw = b"GET %b HTTP/1.1\r\n%bHost: localhost\r\n\r\n" % (target, fields)
    asked.get(raw)
    asked.get(raw)
    assert asked.asked == 1
    dataset.publish("titles", OTHER)
    assert asked.get(raw) == Asked(dataset).get(raw)
    assert asked.asked == 2


def test_damage_met_on_the_way_is_the_applications_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(view: MemoryView, collection: str, key: str) -> bytes:
        raise DamageError("read x: the checksum does not hold")

    asked = Asked(make_dataset())
    asked.get()
    asked.dataset.publish("titles", OTHER)
    monkeypatch.setattr(MemoryView, "get_raw", damaged)
    assert asked.get().startswith(b"HTTP/1.1 503 ")
    assert asked.asked == 2


def test_more_versions_than_there_may_be_openings_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "LAST_OPENING", 255)
    asked = Asked(make_dataset())
    for _ in range(600):
        asked.dataset.publish("titles", OTHER)
        sent = asked.get()
        assert b"Edged-Version: %d\r\n" % asked.dataset.version in sent
        assert len(asked.answers.memory.openings) <= 256
    assert sent == Asked(asked.dataset).get()
    assert asked.asked <= 1 + 600 // 250
    assert asked.answers.memory.answers.used_bytes < 2000


class Known:
    """A Renewal of answers whose content is even."""

    def __init__(self, generation: int) -> None:
        self.shared = Shared.of(((b"Edged-Version", b"%d" % generation),), self)
        self.targets: list[bytes] = []
        self.next: Known = self

    def renew(self, target: bytes, content: int) -> tuple[TimedFields, Shared] | None:
        self.targets.append(target)
        return None if content % 2 else (Second(), self.next.shared)


def known_answer(known: Known, content: int) -> Response:
    return Response(200, FOUND.own, FOUND.body, Second(), True, known.shared, content=content)


@pytest.mark.parametrize("content", [2, -4, 3])
def test_http2_renews_what_it_remembers_too(content: int) -> None:
    one, other, peer = Known(1), Known(2), Peer()
    one.next = other
    peer.memory.renew(1, 0.0)
    first = ask(peer, 1, known_answer(one, content), b"\x82\x86\x41\x01h\x04\x02/a")
    ask(peer, 3, known_answer(one, content))
    assert like(ask(peer, 5, None)) == like(first)
    peer.memory.renew(2, 0.0)
    later = ask(peer, 7, known_answer(other, content) if content % 2 else None)
    assert one.targets == [b"/a"]
    fresh = Peer()
    fresh.memory.renew(2, 0.0)
    whole = ask(fresh, 1, known_answer(other, content), b"\x82\x86\x41\x01h\x04\x02/a")
    assert like(later) == like(whole) != like(first)
    assert like(ask(peer, 9, None)) == like(later)
    assert one.targets == [b"/a"]


def test_http2_renews_nothing_that_no_renewal_knows() -> None:
    memory: Memo[bytes, bytes] = Memo(1 << 20, size_of_bytes)
    frames = RememberedFrames(memory)
    frames.renew(1, 0.0)
    frames.block_of(FOUND, AnswerPlace(b"place", 1), head_only=False)
    known = memory.entries[b"place"]
    assert frames.renewed(b"place", known, b"/a") is None  # it is of this generation
    frames.renew(2, 0.0)
    assert frames.renewed(b"place", known, b"/a") is None
