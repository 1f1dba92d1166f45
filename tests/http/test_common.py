"""Clients that differ in fields which decide nothing share what is remembered; in any other they do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edged.http.application import Answer, Application, Response
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.connection import LaneState
from edged.http.lane.precedence import Precedence
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.request import Request
from edged.serve.answers.respond import DECIDING
from edged.serve.apps import Api, Apps
from tests.http.test_memo import connected
from tests.http.test_renewal import RAW, Asked
from tests.serve.asking import make_service
from tests.serve.memory import NOW, make_dataset

ROOT = Path(__file__).parents[2] / "edged"


def with_field(line: bytes, raw: bytes = RAW) -> bytes:
    return raw.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % line)


def test_a_field_of_its_own_in_each_request_costs_no_answer_and_pushes_nothing_out() -> None:
    asked = Asked(make_dataset())
    sent = asked.get()
    sections = dict(asked.answers.memory.sections.entries)
    for number in range(50):
        assert asked.get(with_field(b"Traceparent: 00-%d" % number)) == sent
    assert asked.asked == 1
    assert asked.answers.memory.sections.entries == sections
    asked.answers.memory.count()
    assert asked.answers.meter.remembered == 50


def test_fields_that_come_again_on_a_connection_are_not_read_a_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(make_dataset())
    sent, other = asked.get(), with_field(b"User-Agent: another")
    assert asked.get(other) == asked.get(other) == sent
    monkeypatch.setattr("edged.http.lane.answers.read_head", None)
    assert asked.get(other) == sent
    assert asked.asked == 1


@pytest.mark.parametrize(
    "line",
    [
        b"Accept: application/cbor",
        b"Accept-Encoding: gzip",
        b"If-None-Match: *",
        b"Origin: https://a.example",
        b"Available-Dictionary: :AAAA:",
        b"Last-Event-ID: 1",
    ],
)
def test_a_field_that_may_decide_is_never_passed_over(line: bytes) -> None:
    asked = Asked(make_dataset())
    asked.get()
    assert asked.get(with_field(line)) == Asked(asked.dataset).get(with_field(line))
    assert asked.asked == 2


def test_another_host_is_refused_as_ever() -> None:
    asked = Asked(make_dataset())
    asked.get()
    assert asked.get(RAW.replace(b"localhost", b"rebound.example")).startswith(b"HTTP/1.1 421 ")


def test_the_connection_ends_for_whom_it_is_to_end() -> None:
    asked = Asked(make_dataset())
    assert b"Connection: close" not in asked.get()
    closing = with_field(b"Connection: close")
    for line in (b"A: 1", b"A: 2"):
        assert b"Connection: close" in asked.get(with_field(line, closing))
        assert asked.connection.closing
        asked.connection.closing = False
    assert asked.asked == 2


@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue"])
def test_a_request_with_more_than_a_head_is_not_answered_by_this_lane(line: bytes) -> None:
    asked = Asked(make_dataset())
    asked.get()
    assert asked.get(with_field(line)) == b""
    assert asked.connection.state is LaneState.HANDING_OVER


class Others(Application):
    """Answers by a field of the request's own."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, request: Request) -> Answer:
        self.asked += 1
        return Response(200, (), request.values.get(b"x", b""), keep=True)


def test_answers_of_others_are_for_requests_with_the_very_same_fields() -> None:
    others = Others()
    apps = Apps(Api(make_service({"catalog": make_dataset()})), others)
    answers = LaneAnswers(apps, lambda: NOW, Meter(), Limits(), Precedence())
    connection = connected(answers.memory)
    answers.renew(apps.generation())
    for _ in range(3):
        for value in (b"1", b"2"):
            connection.inbox = b"GET /other HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % value
            assert (answers.next_answer(connection, 0.0) or b"").endswith(b"\r\n\r\n" + value)
    assert others.asked == 2


def test_nothing_that_answers_apps_looks_at_a_field_that_is_not_named() -> None:
    looked = set()
    sources = [path for path in (ROOT / "serve").rglob("*.py") if path.name != "accesslog.py"]  # it decides no answer
    for path in (*sources, ROOT / "http" / "hosts.py", ROOT / "http" / "cors.py"):
        text = path.read_text()
        looked |= set(re.findall(r'request\.(?:get|values\.get)\(b"([a-z-]+)"\)', text))
        looked |= set(re.findall(r'name == b"([a-z-]+)"', text))
        assert not re.search(r"request\.values(?!\.get\()|values?_of\(request", text), path
    preflight = {name for name in looked if name.startswith("access-control-request-")}  # OPTIONS alone
    assert {name.encode() for name in looked - preflight} == DECIDING
