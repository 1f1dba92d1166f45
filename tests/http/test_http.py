"""RFC 9112 to the letter, in the fast lane and behind it: where a request ends, and what is no request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing

from edged.http.head import HeadError, head_end, read_head
from edged.http.limits import Limits
from tests.http.bodies import BROKEN, WHOLE
from tests.serve.lanes import Client, ask_once, client, head, running_lanes

HEAD_BYTES = Limits().head_bytes
GET = head("GET", "/v1/catalog/titles/1997/Film_0007")
SECOND = b"GET /v1/catalog/titles/1993/Film_0003 HTTP/1.1\r\nHost: localhost\r\n\r\n"
START = b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1 HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# The attack or the fault, what is sent, and the status with which it is refused.
REFUSED = {
    "bare LF ends the request line": (b"GET /v1 HTTP/1.1\nHost: localhost\r\n\r\n", 400),
    "bare LF ends a field": (b"GET /v1 HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400),
    "bare LF twice ends the head": (b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\n", 400),
    "bare CR in a value": (START + b"X: a\rContent-Length: 3\r\n\r\n", 400),
    "bare CR before the name": (START + b"\rX: a\r\n\r\n", 400),
    "NUL in a value": (START + b"X: a\0b\r\n\r\n", 400),
    "NUL in the target": (b"GET /v1\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "control character in a value": (START + b"X: a\x01b\r\n\r\n", 400),
    "space before the colon": (START + b"Content-Length : 3\r\n\r\n", 400),
    "tab before the colon": (START + b"Transfer-Encoding\t: chunked\r\n\r\n", 400),
    "folded line": (START + b"X: a\r\n Content-Length: 3\r\n\r\n", 400),
    "name with a space": (START + b"Content Length: 3\r\n\r\n", 400),
    "empty name": (START + b": x\r\n\r\n", 400),
    "no colon": (START + b"Content-Length\r\n\r\n", 400),
    "space at the start of the head": (b"GET /v1 HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    "two equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two different lengths": (POST + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", 400),
    "a list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "length with a sign": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "negative length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "hexadecimal length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "huge length": (POST + b"Content-Length: 18446744073709551617\r\n\r\nabc", 400),
    "empty length": (POST + b"Content-Length: \r\n\r\nabc", 400),
    "length of a GET beside chunked": (START + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "length and chunked": (POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "chunked and length": (POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked not last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked behind a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (b"POST /v1 HTTP/1.0\r\nHost: localhost\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "no Host": (b"GET /v1 HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (START + b"Host: evil.example\r\n\r\n", 400),
    "HTTP/9.9": (b"GET /v1 HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
    "HTTP/2.0 on a GET": (b"GET /v1 HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    "no version (HTTP/0.9)": (b"GET /v1\r\n\r\n", 400),
    "lower-case http": (b"GET /v1 http/1.1\r\nHost: localhost\r\n\r\n", 400),
    "two spaces": (b"GET  /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "tab as separator": (b"GET\t/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "space in the target": (b"GET /v1 x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a fragment": (b"GET /v1#there HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a method that is no token": (b"G@T /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "raw UTF-8 in the target": ("GET /v1/ü HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "a head that is too large": (START + b"X: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431),
    "too many fields": (START + b"X: a\r\n" * 200 + b"\r\n", 431),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "nonsense": (b"\xff\xfe\r\n\r\n", 400),
}


@pytest.fixture(params=["fast", "slow"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    async with running_lanes() as lanes:
        yield lanes.fast if request.param == "fast" else lanes.slow


@pytest.mark.trio
async def test_what_could_be_smuggled_is_refused_and_nothing_behind_it_is_a_request(url: str) -> None:
    for what, (data, status) in REFUSED.items():
        async with client(url) as asker:
            await asker.send(data + SECOND)
            reply = await asker.reply()
            assert (reply.status, reply.closed) == (status, True), what
            assert await asker.end() == b"", what


@pytest.mark.trio
async def test_a_refusal_says_what_was_wrong_and_the_same_in_both_lanes() -> None:
    async with running_lanes() as lanes:
        for what, (data, status) in REFUSED.items():
            bodies = []
            for url in (lanes.fast, lanes.slow):
                async with client(url) as asker:
                    await asker.send(data)
                    bodies.append((await asker.reply()).body)
            problem = json.loads(bodies[0])
            assert bodies[0] == bodies[1], what
            assert problem["status"] == status, what
            assert len(problem["detail"]) > 20, what


@pytest.mark.trio
@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_body_is_refused_and_nothing_behind_it_is_a_request(url: str, what: str) -> None:
    body, status = BROKEN[what]
    async with client(url) as asker:
        await asker.send(POST + CHUNKED + b"\r\n" + body + SECOND)
        reply = await asker.reply()
        assert (reply.status, reply.closed) == (status, True)
        assert len(json.loads(reply.body)["detail"]) > 20
        assert await asker.end() == b""


@pytest.mark.trio
@pytest.mark.parametrize("what", WHOLE)
async def test_a_body_ends_where_its_trailers_end(url: str, what: str) -> None:
    async with client(url) as asker:
        await asker.send(POST + CHUNKED + b"\r\n" + WHOLE[what] + SECOND)
        assert [(await asker.reply()).status for _ in range(2)] == [405, 200]


@pytest.mark.trio
@pytest.mark.parametrize("method", ["FOO", "PURGE", "QUERY", "PROPFIND", "TRACE", "get", "head", "a.b!"])
async def test_any_other_method_is_405_whoever_reads_it(url: str, method: str) -> None:
    async with client(url) as asker:
        await asker.send(head(method, "/v1") + GET)
        reply = await asker.reply()
        assert (await asker.reply()).status == 200
    assert (reply.status, reply.fields["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert reply.fields["content-type"] == "application/problem+json"


@pytest.mark.trio
async def test_connect_and_absolute_form_with_another_method_are_405(url: str) -> None:
    for data in (head("CONNECT", "localhost:80"), head("CONNECT", "/v1"), head("FOO", "http://localhost/v1")):
        async with client(url) as asker:
            await asker.send(data)
            assert (await asker.reply()).status == 405, data


@pytest.mark.trio
async def test_an_http_2_request_is_judged_as_strictly() -> None:
    async with running_lanes() as lanes:
        async with client(lanes.fast) as asker:
            assert await ask_http2(asker, "/v1", "G@T") == (0, {}, b"")  # the stream is reset
        async with client(lanes.fast) as asker:
            status, _, body = await ask_http2(asker, "/v1#there")
            assert (status, "fragment" in json.loads(body)["detail"]) == (400, True)
        async with client(lanes.fast) as asker:
            status, fields, _ = await ask_http2(asker, "/v1", "FOO")
            assert (status, fields["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.trio
async def test_http_2_begins_a_connection_or_is_not_spoken_on_it(url: str) -> None:
    async with client(url) as asker:
        await asker.send(POST + b"Content-Length: 3\r\n\r\nabc" + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert [(await asker.reply()).status for _ in range(2)] == [405, 505]
        assert await asker.end() == b""


@pytest.mark.trio
@pytest.mark.parametrize(("host", "status"), [("localhost:", 200), ("[::1]:", 200), (":", 421), ("localhost:x", 421)])
async def test_the_port_of_a_host_may_be_empty(url: str, host: str, status: int) -> None:
    async with client(url) as asker:
        await asker.send(head("GET", "/v1", {"Host": host}))
        assert (await asker.reply()).status == status


@pytest.mark.parametrize("what", REFUSED)
def test_the_judge_itself_refuses_or_says_that_more_is_needed_never_accepts(what: str) -> None:
    data, status = REFUSED[what]
    with pytest.raises(HeadError) as caught:
        read_head(data[: head_end(data, HEAD_BYTES)])
    assert caught.value.status == status


@pytest.mark.trio
async def test_a_request_may_arrive_broken_at_any_byte(url: str) -> None:
    async with client(url) as asker:
        await asker.send(GET)
        whole = await asker.reply()
        for place in range(1, len(GET)):
            await asker.send(GET[:place])
            await trio.testing.wait_all_tasks_blocked()
            await asker.send(GET[place:])
            reply = await asker.reply()
            assert (reply.status, reply.body) == (200, whole.body), GET[:place]


@pytest.mark.trio
async def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    targets = [f"/v1/catalog/titles/{1990 + n % 10}/Film_{n:04}" for n in range(100)]
    async with client(url) as asker:
        await asker.send(b"".join(head("HEAD" if n % 3 == 0 else "GET", t) for n, t in enumerate(targets)))
        for number, _ in enumerate(targets):
            reply = await asker.reply("HEAD" if number % 3 == 0 else "GET")
            assert reply.status == 200
            assert (f'Film n\u00famero {number}"'.encode() in reply.body) == (number % 3 != 0)


@pytest.mark.trio
async def test_requests_with_a_body_change_the_lane_in_the_middle_of_a_pipeline(url: str) -> None:
    body = POST + b"Content-Length: 80\r\n\r\n" + SECOND + b"x" * (80 - len(SECOND))
    coded = POST + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n"
    async with client(url) as asker:
        await asker.send(GET + body + GET + coded + GET + head("GET", "/v1", {"Connection": "close"}) + GET)
        statuses = [(await asker.reply()).status for _ in range(6)]
        assert statuses == [200, 405, 200, 405, 200, 200]
        assert await asker.end() == b""


@pytest.mark.trio
async def test_expect_continue_is_told_to_go_on(url: str) -> None:
    async with client(url) as asker:
        await asker.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert b" 100 " in bytes(await asker.stream.receive_some(100))
        await asker.send(b"abc" + GET)
        assert [(await asker.reply()).status for _ in range(2)] == [405, 200]


@pytest.mark.trio
async def test_http_1_0_is_answered_and_closed_and_needs_no_host(url: str) -> None:
    for data in (b"GET /v1 HTTP/1.0\r\n\r\n", b"GET /v1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"):
        async with client(url) as asker:
            await asker.send(data)
            reply = await asker.reply()
            assert (reply.status, reply.closed) == (200, True)
            assert await asker.end() == b""


@pytest.mark.trio
async def test_connection_close_is_obeyed_also_among_other_tokens_and_when_remembered(url: str) -> None:
    data = head("GET", "/v1/catalog/titles/1997/Film_0007", {"Connection": "Keep-Alive , ClosE"})
    for _ in range(3):
        async with client(url) as asker:
            await asker.send(data)
            reply = await asker.reply()
            assert (reply.status, reply.closed) == (200, True)
            assert await asker.end() == b""


@pytest.mark.trio
async def test_head_has_the_fields_of_get_and_no_body(url: str) -> None:
    async with client(url) as asker:
        for target in ("/v1/catalog/titles/1997/Film_0007", "/v1/catalog/none", "/v1/catalog/changes?since=0"):
            await asker.send(head("GET", target))
            full = await asker.reply()
            await asker.send(head("HEAD", target))
            empty = await asker.reply("HEAD")
            assert (empty.status, empty.fields, empty.body) == (full.status, full.fields, b"")


@pytest.mark.trio
async def test_an_empty_line_before_a_request_is_passed_over(url: str) -> None:
    async with client(url) as asker:
        await asker.send(b"\r\n" + GET + b"\r\n\r\n" + GET)
        assert [(await asker.reply()).status for _ in range(2)] == [200, 200]
        await asker.send(b"\r\n" + POST + b"Content-Length: 3\r\n\r\nabc\r\n" + GET)
        assert [(await asker.reply()).status for _ in range(2)] == [405, 200]


HALF_CLOSED = {
    "remembered or quick": GET,
    "a batch": head("GET", "/v1/catalog/titles?keys=1997/Film_0007,1993/Film_0003"),
    "a search, in a thread": head("GET", "/v1/catalog/titles?q=film&limit=100"),
    "a request held for news": head("GET", "/v1/catalog/changes?since=2&wait=60"),
    "with a body": POST + b"Content-Length: 5\r\n\r\nhello",
    "the last of its connection": head("GET", "/v1", {"Connection": "close"}),
}


@pytest.mark.trio
@pytest.mark.parametrize("what", HALF_CLOSED)
async def test_a_client_that_ends_its_side_still_gets_its_answers(url: str, what: str) -> None:
    async with client(url) as asker:
        await asker.send(GET * 20 + HALF_CLOSED[what])
        await asker.stream.send_eof()
        assert [(await asker.reply()).status for _ in range(20)] == [200] * 20
        assert (await asker.reply()).status == (405 if what == "with a body" else 200)
        assert await asker.end() == b""


@pytest.mark.trio
async def test_an_event_stream_ends_whole_when_its_client_ends(url: str) -> None:
    async with client(url) as asker:
        await asker.send(head("GET", "/v1/catalog/changes?since=1", {"Accept": "text/event-stream"}))
        await asker.stream.send_eof()
        reply = await asker.reply()
        assert reply.status == 200
        assert b"event: version\nid: 2\n" in reply.body
        assert await asker.end() == b""


@pytest.mark.trio
async def test_a_request_that_ends_half_way_gets_no_answer(url: str) -> None:
    for data in (GET[:-1], POST + b"Content-Length: 50\r\n\r\nhello"):
        async with client(url) as asker:
            await asker.send(data)
            await asker.stream.send_eof()
            assert b" 200 " not in await asker.end()


@pytest.mark.trio
async def test_a_reader_that_pauses_gets_every_byte_of_a_long_pipeline() -> None:
    async with running_lanes() as lanes, client(lanes.fast) as asker:
        await asker.send(head("GET", "/v1/catalog/titles?limit=120"))
        wanted = (await asker.reply()).body
        count = 60
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asker.send, head("GET", "/v1/catalog/titles?limit=120") * count)
            await trio.testing.wait_all_tasks_blocked(0.02)  # the lane has filled the socket and waits
            for _ in range(count):
                assert (await asker.reply()).body == wanted


@pytest.mark.trio
async def test_http_2_with_prior_knowledge_answers_the_same_on_the_fast_port() -> None:
    async with running_lanes() as lanes:
        async with client(lanes.fast) as asker:
            await asker.send(GET)
            plain = await asker.reply()
        async with client(lanes.fast) as asker:
            status, fields, body = await ask_http2(asker, "/v1/catalog/titles/1997/Film_0007")
    assert (status, body) == (200, plain.body)
    assert fields == {name: value for name, value in plain.fields.items() if name != "connection"}


async def ask_http2(asker: Client, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    pseudo = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "localhost")]
    connection.send_headers(1, pseudo, end_stream=True)
    await asker.send(connection.data_to_send())
    fields: dict[str, str] = {}
    body = b""
    with trio.fail_after(10):
        while True:
            for event in connection.receive_data(await asker.stream.receive_some(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    fields = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    return int(fields.pop(":status", "0")), fields, body


@pytest.mark.trio
async def test_a_later_minor_version_is_answered_as_ours_in_both_lanes() -> None:
    async with running_lanes() as lanes:
        for version in ("1.2", "1.9"):
            for url in (lanes.fast, lanes.slow):
                reply = await ask_once(url, head("GET", "/v1/catalog", version=version))
                assert (reply.status, reply.raw[:9]) == (200, b"HTTP/1.1 ")
