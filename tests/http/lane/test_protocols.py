"""Every kind of answer by every protocol, with the same status, fields and bytes; and faults that cost one request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from edged.http.h2.frames import ErrorCode
from tests.http.lane.answers import LARGE, Answers
from tests.http.protocols import PRIOR, PROTOCOLS, Ask, Everywhere, everywhere
from tests.http.tls.pem import make
from tests.serve.lanes import eventually

pytestmark = pytest.mark.trio
PLAIN = "text/plain"
FRAMING = ("connection", "transfer-encoding", "date")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Everywhere, Answers]]:
    (tmp_path / "file").write_bytes(b"abc" + LARGE)
    answers = Answers(tmp_path / "file")
    async with everywhere(answers, make(tmp_path, "localhost")) as found:
        yield found, answers


EXPECTED: dict[str, tuple[int, bytes]] = {
    "/whole": (200, b"whole /whole"),
    "/large": (200, LARGE),
    "/none": (304, b""),
    "/file": (200, LARGE),
    "/stream": (200, b"one two " + LARGE),
    "/held-briefly": (200, b"held until 0, the last"),
    "/thread": (200, b"by a thread"),
    "/thread-file": (200, LARGE),
    "/refuse": (413, b"too much"),
    "/interim": (200, b"hinted"),
    "/echo": (200, b""),
}


@pytest.mark.parametrize("target", EXPECTED)
async def test_every_kind_of_answer_is_the_same_by_every_protocol(
    target: str, served: tuple[Everywhere, Answers]
) -> None:
    status, body = EXPECTED[target]
    fields = []
    for protocol in PROTOCOLS:
        for method in ("GET", "HEAD"):
            (got,) = await served[0].ask(protocol, Ask(target, method))
            assert (got.status, got.reset) == (status, None), protocol
            assert got.body == (body if method == "GET" else b""), protocol
            fields.append(sorted((name, value) for name, value in got.fields if name not in FRAMING))
            assert (got.get("date") is not None) == (target not in ("/refuse", "/interim", "/echo"))
            if target == "/interim":
                assert got.interim == [103]
    assert all(found == fields[0] for found in fields)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_many_on_one_connection_come_back_each_with_its_own(
    protocol: str, served: tuple[Everywhere, Answers]
) -> None:
    targets = [*EXPECTED] * 3
    got = await served[0].ask(protocol, *[Ask(target) for target in targets])
    assert [(one.status, one.body) for one in got] == [EXPECTED[target] for target in targets]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_thread_that_the_system_does_not_give_costs_one_request(
    protocol: str, served: tuple[Everywhere, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(*arguments: object, **more: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", start)
        (failed,) = await served[0].ask(protocol, Ask("/thread"))
    (after,) = await served[0].ask(protocol, Ask("/thread"))
    assert (failed.status, after.status) == (500, 200)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_remembered_is_the_same_and_is_forgotten(
    protocol: str, served: tuple[Everywhere, Answers]
) -> None:
    found, answers = served
    first = await found.ask(protocol, *[Ask("/kept")] * 4)
    assert 1 <= answers.asked.count(b"/kept") <= 4
    asked = len(answers.asked)
    second = await found.ask(protocol, Ask("/other"), Ask("/kept"), Ask("/kept"))
    assert {one.body for one in [*first, *second[1:]]} == {b"kept 0"}
    kept = [sorted(pair for pair in one.fields if pair[0] != "date") for one in [*first, *second[1:]]]
    assert all(fields == kept[0] for fields in kept)
    assert answers.asked[asked:].count(b"/kept") <= 1  # of HTTP/2, the next block for it is another one
    answers.number = 1
    (third,) = await found.ask(protocol, Ask("/kept"))
    assert third.body == b"kept 1"
    meter = found.secure if protocol in ("h1-tls", "h2") else found.meter
    assert meter.fast_answers.total() == 8
    assert meter.remembered >= 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("target", "status"), [("/fail", 500), ("/nothing", 500)])
async def test_a_fault_of_the_application_costs_one_request(
    target: str, status: int, protocol: str, served: tuple[Everywhere, Answers]
) -> None:
    (got,) = await served[0].ask(protocol, Ask(target))
    assert got.status == status
    assert got.get("content-type") == "application/problem+json"
    ok = await served[0].ask(protocol, Ask("/whole"))
    assert ok[0].status == 200


@pytest.mark.parametrize("target", ["/half", "/broken-stream", "/short-file"])
@pytest.mark.parametrize("protocol", ["h2c", "h2"])
async def test_an_answer_that_breaks_off_is_a_reset_at_once_and_others_go_on(
    target: str, protocol: str, served: tuple[Everywhere, Answers]
) -> None:
    broken, whole = await served[0].ask(protocol, Ask(target), Ask("/stream"))
    assert broken.status == 200
    assert broken.reset == ErrorCode.INTERNAL_ERROR
    assert (whole.body, whole.reset) == (b"one two " + LARGE, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_bodies_reach_the_application_whole_and_those_for_nobody_are_passed_over(
    protocol: str, served: tuple[Everywhere, Answers]
) -> None:
    pieces = [bytes([n]) * 9000 for n in range(6)]
    sized = (("Content-Length" if PRIOR[protocol] != "h2" else "content-length", "54000"),)
    got = await served[0].ask(
        protocol,
        Ask("/echo", "POST", (), pieces),
        Ask("/echo-unsized", "PUT", sized, pieces)
        if PRIOR[protocol] != "h2"
        else Ask("/echo-unsized", "PUT", (), [b"x"]),
        Ask("/whole", "POST", (), [b"nobody asked"]),
        Ask("/whole"),
    )
    assert [one.status for one in got] == [200] * 4
    assert got[0].body == b"".join(pieces)
    assert got[0].get("content-length") == "54000"
    assert got[1].body in (b"".join(pieces), b"x")
    assert got[1].get("content-length") is None
    assert got[2].body == got[3].body == b"whole /whole"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_held_answers_and_streams_follow_what_moves(protocol: str, served: tuple[Everywhere, Answers]) -> None:
    found, answers = served

    async def move() -> None:
        for _ in range(2):
            await eventually(lambda: len(answers.signal.followers) == 1)
            answers.signal.move()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        (got,) = await found.ask(protocol, Ask("/held"))
    assert got.body == b"held until 2"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_server_that_stops_ends_what_waits(protocol: str, served: tuple[Everywhere, Answers]) -> None:
    found, answers = served

    async def stop() -> None:
        await eventually(lambda: len(answers.signal.followers) == 1)
        answers.signal.move()
        await eventually(lambda: len(answers.signal.followers) == 1)
        found.stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        (got,) = await found.ask(protocol, Ask("/following"))
    assert got.body.startswith(b"first move ")
    assert got.reset is None
    assert answers.signal.followers == set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_client_that_goes_is_heard_and_leaves_nothing_behind(
    protocol: str, served: tuple[Everywhere, Answers]
) -> None:
    found, answers = served
    meter = found.secure if protocol in ("h1-tls", "h2") else found.meter
    for target in ("/for-ever", "/held", "/following"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.ask, protocol, Ask(target))
            await eventually(lambda: target.encode() in answers.asked)  # noqa: B023  awaited within the loop
            nursery.cancel_scope.cancel()
    await eventually(lambda: answers.gone == [b"/for-ever"])
    await eventually(lambda: not answers.signal.followers)
    await eventually(lambda: meter.fast_connections == 0)
    assert meter.streams == 0
