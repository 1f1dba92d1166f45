"""Whichever lane answers, the answer is the same; and nobody gets what was remembered for another."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.access.identity import Identity, Peer
from edged.errors import DamageError
from edged.http.application import Response
from edged.http.lane import lane as fastlane
from edged.http.request import Request
from edged.serve.answers.dictionary import split
from tests.serve.lanes import Client, Lanes, Reply, ask_once, client, head, running_lanes
from tests.serve.memory import NOW, MemoryView, make_dataset

KEYS = ["1997/Film_0007", "1997%2FFilm_0007", "1993/Film_0003", "none", "%C3%BC/1%25", "%", "%ff", "", "a" * 513]
COLLECTIONS = ["titles", "people", "none", "%74itles"]
TRAINED = sha256(split(make_dataset().trained)["titles"])
DICTIONARY = f"/v1/catalog/titles?dictionary={TRAINED.hexdigest()}"
PLACES = ["catalog/titles", "catalog/people", "catalog/none", "empty/titles", "catalog", "none", "catalog/changes"]
PARAMETERS = ["keys=1997/Film_0007,none", "limit=3", "limit=0", "after=1993/Film_0003", "prefix=199"]
PARAMETERS += ["where.year=1994", "where.genres=Noir", "where.rating=1", "q=film", "q=", "fields=title,poster.w342"]
PARAMETERS += ["count=1", "facets=genres", "group=genres", "distinct=genres", "order=year", "at=now", "expand=cast"]
PARAMETERS += [
    "view=stb-basic",
    "view=none",
    "since=1",
    "since=99",
    "since=x",
    "collection=titles",
    "dictionary=0",
    "%zz",
]
OTHERS = [
    DICTIONARY,
    "/v1/catalog/titles?dictionary=0",
    "/",
    "/v1",
    "/v1/",
    "/v1/catalog",
    "/openapi.json",
    "/v1x",
    "http://localhost/v1",
    "http://evil/v1",
    "*",
    "x",
]
ACCEPTS = ["*/*", "text/html", "application/json;q=0"]
ACCEPTS += [f"application/{name}" for name in ("cbor", "x-ndjson", "cbor-seq")]
TARGETS = st.one_of(
    st.builds("/v1/catalog/{}/{}".format, st.sampled_from(COLLECTIONS), st.sampled_from(KEYS)),
    st.builds(
        "/v1/{}?{}".format,
        st.sampled_from(PLACES),
        st.lists(st.sampled_from(PARAMETERS), max_size=3).map("&".join),
    ),
    st.sampled_from(OTHERS),
)
AVAILABLE = b64encode(TRAINED.digest()).decode()
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "Accept": st.sampled_from(ACCEPTS),
        "Accept-Encoding": st.sampled_from(["gzip", "zstd, gzip;q=0.5", "identity;q=0", "br", "*", "dcz, zstd", "dcz"]),
        "Available-Dictionary": st.sampled_from([f":{AVAILABLE}:", f":{'A' * 43}=:", "x"]),
        "If-None-Match": st.sampled_from(["*", '"x"', 'W/"x", "y"']),
        "Host": st.sampled_from(["localhost", "127.0.0.1:80", "evil.example"]),
        "Origin": st.sampled_from(["https://tv.example", "https://evil.example", "null"]),
        "Connection": st.sampled_from(["close", "keep-alive", "Keep-Alive, x"]),
        "Upgrade": st.sampled_from(["h2c", "websocket"]),
        "Content-Length": st.just("0"),
        "Last-Event-ID": st.sampled_from(["1", "2", "x"]),
        "X-Anything": st.text("abc é~!", max_size=20).map(str.strip),
    },
)
METHODS = st.sampled_from(["GET", "GET", "GET", "HEAD", "OPTIONS", "POST"])
REQUEST = st.tuples(METHODS, TARGETS, FIELDS)


async def both(lanes: Lanes, method: str, target: str, fields: dict[str, str]) -> tuple[Reply, Reply]:
    data = head(method, target, fields)
    return await ask_once(lanes.fast, data, method), await ask_once(lanes.slow, data, method)


@settings(max_examples=20)
@given(st.lists(REQUEST, min_size=6, max_size=36))  # many to one start of the servers, which is what takes long
def test_every_request_gets_the_same_answer_from_both_lanes(requests: list[tuple[str, str, dict[str, str]]]) -> None:
    async def main() -> None:
        async with running_lanes(origins=("https://tv.example",)) as lanes:
            for method, target, fields in requests:
                first, slow = await both(lanes, method, target, fields)
                again = await ask_once(lanes.fast, head(method, target, fields), method)  # perhaps remembered now
                for reply in (first, slow, again):
                    assert reply.fields.pop("date").endswith(" GMT")  # of a refused head: the second it was sent
                for fast in (first, again):
                    assert fast.status == slow.status, (method, target, fields)
                    assert fast.fields == slow.fields, (method, target, fields)
                    assert fast.body == slow.body, (method, target, fields)

    trio.run(main)


@pytest.mark.trio
async def test_a_remembered_answer_is_the_same_bytes_and_is_counted() -> None:
    data = head("GET", "/v1/catalog/titles/1997/Film_0007")
    async with running_lanes() as lanes, client(lanes.fast) as asker:
        replies = []
        for _ in range(3):
            await asker.send(data)
            replies.append((await asker.reply()).raw)
        assert replies[0] == replies[1] == replies[2]
        assert lanes.meter.remembered == 2
        assert lanes.meter.by_status() == {("fast", 200): 3}


@pytest.mark.trio
async def test_a_new_version_is_answered_at_once_although_the_old_answer_is_remembered() -> None:
    data = head("GET", "/v1/catalog/titles/1997/Film_0007")
    async with running_lanes() as lanes, client(lanes.fast) as asker:
        for version in range(2, 6):
            for _ in range(2):
                await asker.send(data)
                reply = await asker.reply()
                assert reply.fields["edged-version"] == str(version)
            lanes.dataset.publish("titles", {"1997/Film_0007": {"title": f"of {version + 1}"}})
        await asker.send(data)
        assert (await asker.reply()).body == b'{"title":"of 6"}'


@pytest.mark.trio
async def test_one_app_never_sees_what_was_remembered_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are made to answer with the asker's name; the same bytes come from two apps in turn."""
    names = iter(["tv", "radio", "tv", "radio"])

    def who(peer: Peer) -> Identity:
        return Identity(next(names), "internal")

    def answer_by_name(service: object, request: Request, now: float) -> Response:
        body = request.who.name.encode()
        return Response(200, ((b"Content-Length", b"%d" % len(body)),), body, keep=True)

    monkeypatch.setattr("edged.serve.apps.answer", answer_by_name)
    data = head("GET", "/v1/catalog/titles/x")
    async with running_lanes(who=who) as lanes:
        seen = [(await ask_once(lanes.fast, data)).body for _ in range(4)]
        assert seen == [b"tv", b"radio", b"tv", b"radio"]
        assert lanes.meter.remembered == 2


@pytest.mark.trio
async def test_tcp_and_unix_socket_do_not_share_remembered_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "edged.sock")
    foreign = head("GET", "/v1/catalog/titles/1997/Film_0007", {"Host": "evil.example"})
    async with running_lanes(unix=path) as lanes:
        async with await trio.open_unix_socket(path) as stream:
            asker = Client(stream)
            for _ in range(2):
                await asker.send(foreign)
                assert (await asker.reply()).status == 200
        assert (await ask_once(lanes.fast, foreign)).status == 421


@pytest.mark.trio
async def test_what_is_remembered_is_bounded_in_bytes() -> None:
    async with running_lanes(make_dataset(1000)) as lanes, client(lanes.fast) as asker:
        for number in range(1000):
            await asker.send(head("GET", f"/v1/catalog/titles/{1990 + number % 10}/Film_{number:04}"))
            assert (await asker.reply()).status == 200
            assert lanes.meter.memo_bytes <= 1 << 20
        assert lanes.meter.memo_bytes > 1 << 19


@pytest.mark.trio
async def test_age_and_state_go_on_while_an_answer_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastlane, "CLOCK_S", 0)
    data = head("GET", "/v1/catalog/titles/1997/Film_0007")
    time = [NOW]
    async with running_lanes(clock=lambda: time[0]) as lanes, client(lanes.fast) as asker:
        seen = []
        for later_s in (0, 1, 3600):
            time[0] = NOW + later_s
            await asker.send(data)
            reply = await asker.reply()
            seen.append((reply.fields["age"], reply.fields["edged-state"], reply.fields["date"][-12:]))
        assert seen == [
            ("10", "fresh", "08:00:00 GMT"),
            ("11", "fresh", "08:00:01 GMT"),
            ("3610", "stale", "09:00:00 GMT"),
        ]
        assert lanes.meter.remembered == 2


@pytest.mark.trio
async def test_a_replica_that_breaks_while_serving_costs_503s_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> MemoryView:
        raise DamageError("read manifest: checksum differs")

    data = head("GET", "/v1/catalog/titles/1997/Film_0007")
    async with running_lanes() as lanes, client(lanes.fast) as asker:
        await asker.send(data)
        whole = await asker.reply()
        with monkeypatch.context() as patch:
            patch.setattr(lanes.dataset, "view", broken)
            await asker.send(data + head("GET", "/v1/catalog/titles/1993/Film_0003"))
            assert (await asker.reply()).body == whole.body  # remembered, of the last good version
            assert (await asker.reply()).status == 503
        await asker.send(head("GET", "/v1/catalog/titles/1993/Film_0003"))
        assert (await asker.reply()).status == 200
    assert caplog.text.count("checksum differs; what was read before is still answered from memory") == 1


async def test_who_closes_gets_an_answer_that_takes_its_time_after_one_that_was_remembered() -> None:
    asking = head("GET", "/v1/catalog/titles?limit=1", {"Connection": "close"})
    async with running_lanes() as lanes:
        for _ in range(6):
            for _ in range(2):  # the second from memory
                reply = await ask_once(lanes.fast, asking)
                assert (reply.status, reply.closed) == (200, True)
            lanes.dataset.publish("titles", {"1990/Film_0000": {"title": "Other"}})
            lanes.news.look()
        assert lanes.meter.remembered >= 6
