"""What is remembered stays within its budget, counted truly, and the oldest goes first."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.access.identity import LOCAL, Peer
from edged.http.application import DATE, UNTIMED, Response, Shared, TimedFields
from edged.http.head import HeadError, RequestHead, head_end, read_head
from edged.http.lane import remembered
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.connection import FieldSection, LaneConnection
from edged.http.lane.precedence import Precedence
from edged.http.lane.remembered import AnswerMemory, LeasedAnswer, Opening, size_of_answer, size_of_section
from edged.http.limits import Limits
from edged.http.memory import SLOT_BYTES, Memo, size_of_bytes
from edged.http.meter import Meter
from edged.serve.apps import Api
from tests.http.h2.peer import Peer as Peer2
from tests.http.h2.test_remembered import FOUND
from tests.http.h2.test_remembered import ask as ask_h2
from tests.serve.asking import ask, ask_json, make_service
from tests.serve.memory import NOW, film, make_dataset


class NoSocket:
    def fileno(self) -> int:
        return 0


def make_answers() -> LaneAnswers:
    service = make_service({"catalog": make_dataset()})
    return LaneAnswers(Api(service), lambda: NOW, Meter(), Limits(), Precedence())


def make_connection(answers: LaneAnswers) -> LaneConnection:
    return connected(answers.memory)


def connected(memory: AnswerMemory, unix: bool = False) -> LaneConnection:
    peer = Peer(unix, "127.0.0.1:1")
    return LaneConnection(NoSocket(), peer, LOCAL, memory.partition_of(LOCAL, unix), 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("value_bytes", [0, 100, 800, 20_000])
def test_the_budget_holds_what_the_allocator_gives_out(value_bytes: int) -> None:
    budget = 4 << 20
    tracemalloc.start()
    try:
        memo: Memo[bytes, bytes] = Memo(budget, size_of_bytes)
        for number in range(60_000 if value_bytes < 1000 else 1000):
            memo.put(b"GET /v1/catalog/titles/%d HTTP/1.1" % number, bytes(value_bytes))
            assert memo.used_bytes <= budget
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert budget * 0.6 < taken < budget * 1.02


def test_the_oldest_goes_first_and_what_is_put_again_counts_as_new() -> None:
    memo: Memo[bytes, bytes] = Memo(16 * (SLOT_BYTES + 200), lambda key, value: 200)
    for number in range(16):
        memo.put(b"%d" % number, b"old")
    memo.put(b"0", b"new")
    memo.put(b"16", b"one too many")
    assert memo.get(b"0") == b"new"
    assert memo.get(b"1") is None
    assert memo.get(b"16") == b"one too many"
    assert memo.used_bytes == len(memo.entries) * (SLOT_BYTES + 200)


def test_nothing_huge_pushes_out_everything_else() -> None:
    memo: Memo[bytes, bytes] = Memo(80_000, size_of_bytes)
    memo.put(b"small", b"x")
    memo.put(b"huge", bytes(10_000))
    assert list(memo.entries) == [b"small"]


def test_the_fields_of_requests_are_counted_with_all_their_objects() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fields = [(b"x-field-%d" % number, b"value of some length %d" % number) for number in range(20)]
        place = b"\r\n".join(b"%b: %b" % field for field in fields)
        section = FieldSection(bytes(6), bytes(6), place, fields, False)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < size_of_section(place, section)


def test_a_record_taken_down_is_gone_although_it_was_remembered() -> None:
    dataset = make_dataset()
    service = make_service({"catalog": dataset})
    target = "/v1/catalog/titles/1997/Film_0007"
    assert ask(service, target).status == 200
    assert ask_json(service, "/v1/catalog/titles?keys=1997/Film_0007")["items"][0]["value"] == film(7)
    dataset.take_down("titles", "1997/Film_0007")
    assert ask(service, target).status == 410
    assert ask_json(service, "/v1/catalog/titles?keys=1997/Film_0007")["items"][0]["value"] is None


def test_a_long_stream_of_an_older_version_does_not_cost_others_what_is_remembered() -> None:
    dataset = make_dataset()
    service = make_service({"catalog": dataset})
    renderer, old = service.renderer, dataset.view()
    dataset.publish("titles", {"1997/Film_0007": {"title": "newer"}})
    assert renderer.value(dataset.view(), "titles", "1997/Film_0007", False, None) == b'{"title":"newer"}'
    assert b"Film" in (renderer.value(old, "titles", "1997/Film_0007", False, None) or b"")
    assert len(renderer.items.entries) == 1
    assert renderer.value(dataset.view(), "titles", "1997/Film_0007", False, None) == b'{"title":"newer"}'


TOKENS = [b"Host: localhost", b"Host: b", b"Accept: */*", b"Connection: close", b"Content-Length: 5", b"Expect: x"]
TOKENS += [
    b"Content-Length: 0",
    b"Transfer-Encoding: chunked",
    b" folded",
    b"X:",
    b"X: \x00",
    b"X: \n",
    b"Upgrade: h2c",
]
TAILS = st.lists(st.sampled_from(TOKENS), max_size=5).map(lambda lines: b"".join(b"\r\n" + line for line in lines))
BYTES = st.sampled_from([bytes((code,)) for code in range(256)])
TARGETS = st.lists(st.one_of(BYTES, st.sampled_from([b"/v1/catalog", b"?keys=", b"%2F", b"#x"])), max_size=6)
LINES = st.builds(
    lambda method, target, end: method + b"/" + b"".join(target) + end,
    st.sampled_from([b"GET ", b"HEAD ", b"GET  ", b"POST ", b"get ", b"\r\nGET ", b"GET http:/"]),
    TARGETS,
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b" HTTP/1.1 ", b" HTTP/2.0", b"\tHTTP/1.1", b""]),
)


def strictly(raw: bytes) -> RequestHead | None:
    """What the strict reader makes of one whole request that announces nothing behind its head."""
    try:
        head = read_head(raw) if head_end(raw, 32 << 10) == len(raw) else None
    except HeadError:
        return None
    return None if head is None or head.body or head.expects else head


@settings(max_examples=400)
@given(LINES, TAILS)
def test_fields_that_were_accepted_beside_one_line_are_read_alike_beside_another(line: bytes, tail: bytes) -> None:
    """A familiar request is not parsed again; it must say what the strict reader would have found in it."""
    answers = make_answers()
    connection = make_connection(answers)
    first = b"GET /v1/catalog/titles/1997/Film_0007 HTTP/1.1" + tail + b"\r\n\r\n"
    answers.renew(1)
    connection.inbox = first
    answers.next_answer(connection, 0.0)
    raw = line + tail + b"\r\n\r\n"
    familiar = answers.memory.familiar(connection, raw, 32 << 10)
    if familiar is not None:
        assert familiar == strictly(raw)


def test_familiar_fields_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = make_answers()
    connection = make_connection(answers)
    answers.renew(1)
    tail = b" HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
    connection.inbox = b"GET /v1/catalog/titles/1997/Film_0007" + tail
    assert answers.next_answer(connection, 0.0)
    monkeypatch.setattr("edged.http.lane.answers.read_head", None)
    connection.inbox = b"GET /v1/catalog/titles/1993/Film_0003" + tail
    assert b"Film n\xc3\xbamero 3" in (answers.next_answer(connection, 0.0) or b"")
    assert connection.inbox == b""
    connection = connected(answers.memory, unix=True)
    connection.inbox = b"GET /v1/catalog/titles/1993/Film_0003" + tail
    with pytest.raises(TypeError):  # the same fields at another listener are judged anew
        answers.next_answer(connection, 0.0)


def test_pipelined_requests_with_familiar_fields_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = make_answers()
    connection = make_connection(answers)
    answers.renew(1)
    tail = b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    asked = [b"GET /v1/catalog/titles/199%d/Film_000%d%b" % (n, n, tail) for n in (3, 7, 3)]
    connection.inbox = asked[0]
    sent = answers.next_answer(connection, 0.0)
    monkeypatch.setattr("edged.http.lane.answers.read_head", None)
    connection.inbox = b"".join(asked)
    assert answers.next_answer(connection, 0.0) == sent
    assert b"Film n\xc3\xbamero 7" in (answers.next_answer(connection, 0.0) or b"")
    assert answers.next_answer(connection, 0.0) == sent
    assert (connection.inbox, answers.next_answer(connection, 0.0)) == (b"", None)
    answers.memory.count()
    assert answers.meter.remembered == 2


def test_more_openings_than_there_may_be_are_forgotten_with_what_was_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembered, "LAST_OPENING", 255)
    memory = AnswerMemory(1 << 20, Meter())
    memory.renew(1, NOW)
    for number in range(1000):
        shared = Shared((), b"X-Kind: %d\r\n" % number)
        opening = memory.number_of(Opening(200, DATE, shared, False))
        memory.answers.put(b"%d" % number, opening.to_bytes(2, "big"))
        assert memory.opening_bytes[opening].endswith(shared.lines)
        assert len(memory.openings) == len(memory.opening_bytes) <= 256
        assert memory.number_of(Opening(200, DATE, shared, False)) == opening
    assert all(value[1] == int(key) % 256 for key, value in memory.answers.entries.items() if isinstance(value, bytes))
    assert len(memory.answers.entries) == 1000 % 256


class Lent:
    def __init__(self) -> None:
        self.good = True

    def holds(self) -> bool:
        return self.good


HEAD = RequestHead(b"GET", b"/x", "1.1", [(b"host", b"a")], False, False, True)
RAW = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("timed", [DATE, UNTIMED])
def test_a_leased_answer_is_given_while_its_lease_holds_and_then_forgotten(timed: TimedFields) -> None:
    memory, lease = AnswerMemory(1 << 20, Meter()), Lent()
    memory.renew(1, NOW)
    connection = connected(memory)
    sent = memory.whole(connection, HEAD, RAW, Response(200, (), b"body", timed, True, lease=lease))
    for _ in range(2):
        assert memory.recall(connection, RAW) == sent
    memory.renew(1, NOW + 1)
    assert (memory.recall(connection, RAW) == sent) is (timed is UNTIMED)
    lease.good = False
    assert memory.recall(connection, RAW) is None
    assert len(memory.answers.entries) == memory.answers.used_bytes == 0
    lease.good = True
    assert memory.recall(connection, RAW) is None


def test_what_is_not_to_be_kept_and_what_a_generation_gone_by_said_is_not_recalled() -> None:
    memory = AnswerMemory(1 << 20, Meter())
    memory.renew(1, NOW)
    connection = connected(memory)
    memory.whole(connection, HEAD, RAW, Response(200, (), b"not kept"))
    memory.whole(connection, HEAD, b"", Response(200, (), b"of a version gone by", keep=True))
    assert memory.recall(connection, RAW) is None
    memory.whole(connection, HEAD, RAW, Response(200, (), b"kept", keep=True))
    assert memory.recall(connected(memory, True), RAW) is None
    memory.renew(1, NOW + 1)
    assert memory.recall(connection, RAW) is not None
    memory.renew(2, NOW + 1)
    assert memory.recall(connection, RAW) is None


def test_a_lease_counts_as_more_than_its_bytes() -> None:
    assert size_of_answer(b"key", LeasedAnswer(Lent(), 0, b"data", False)) > size_of_answer(b"key", b"data") > 7


def test_what_is_asked_for_outlives_a_scan_and_what_is_not_does_not() -> None:
    memo: Memo[bytes, bytes] = Memo(1 << 20, size_of_bytes)
    hot = [b"hot %d" % number for number in range(50)]
    for key in (*hot, b"once"):
        memo.put(key, bytes(500))
    for number in range(20_000):
        memo.put(b"scan %d" % number, bytes(500))
        key = hot[number % len(hot)]
        assert key in memo.entries
        memo.visit(key)
        assert memo.used_bytes <= memo.budget_bytes
        assert len(memo.visited) <= memo.most_visited
    assert b"once" not in memo.entries
    assert b"scan 19999" in memo.entries
    assert memo.used_bytes == sum(size_of_bytes(key, value) + SLOT_BYTES for key, value in memo.entries.items())
    for number in range(20_000):
        memo.put(b"later %d" % number, bytes(500))
    assert not any(key in memo.entries for key in hot)  # nobody asks for them any more


def test_room_is_made_where_everything_was_asked_for() -> None:
    memo: Memo[bytes, bytes] = Memo(64 * 4096, lambda key, value: 4096 - SLOT_BYTES)
    for number in range(64):
        memo.put(b"%d" % number, b"")
    for number in range(64):
        memo.visit(b"%d" % number)
    assert len(memo.visited) == memo.most_visited == 64
    memo.put(b"64", b"")
    assert memo.used_bytes == len(memo.entries) * 4096 == 63 * 4096
    assert b"64" not in memo.entries  # the only one that nobody has asked for
    assert b"0" not in memo.entries  # and the oldest
    memo.visit(b"1")
    assert len(memo.visited) == 1


def test_answers_that_are_asked_for_again_outlive_a_scan_in_both_protocols() -> None:
    memory = AnswerMemory(1 << 18, Meter())
    memory.renew(1, NOW)
    connection, found = connected(memory), Response(200, (), bytes(300), keep=True)
    memory.whole(connection, HEAD, RAW, found)
    for number in range(3000):
        raw = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number
        memory.whole(connection, HEAD, raw, found)
        assert memory.recall(connection, RAW) is not None
    assert len(memory.answers.entries) < 1000
    peer = Peer2()
    peer.memory.memo.budget_bytes, peer.memory.memo.most_visited = 1 << 17, 8
    ask_h2(peer, 1, FOUND, b"\x82\x86\x41\x01h\x04\x02/a")
    ask_h2(peer, 3, FOUND)
    for number in range(2000):
        peer.memory.memo.put(b"scan %d" % number, bytes(300))
        if not number % 10:
            ask_h2(peer, 5 + 2 * (number // 10), None)
    assert b"scan 1" not in peer.memory.entries
