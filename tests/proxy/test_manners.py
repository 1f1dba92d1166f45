"""No client and no answer of an upstream costs the others: slow ones, cut ones, stalled uploads, a device run short."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from edged.errors import TransportError
from edged.proxy.exchange import methods
from edged.proxy.exchange.flight import BRAKE_S, WINDOW_BYTES
from edged.proxy.store.store import Store
from edged.proxy.upstream.upstream import ExhaustedError, UnreachableError, UntrustedError, translate
from tests.proxy.driving import Asked, Origin, ReplyClient, Says, call, make_request, running
from tests.proxy.test_upstreams import make_authority
from tests.serve.lanes import eventually

pytestmark = pytest.mark.trio
FRESH = (("Cache-Control", "max-age=60"),)


# --- whether an upstream is there ------------------------------------------------------------------------------------


async def test_slow_answers_do_not_make_the_others_fail() -> None:
    def says(asked: Asked) -> Says:
        return Says(before=trio.sleep_forever if "slow" in asked.target else None, fields=FRESH)

    async with running(says, timeout_s=0.2) as (app, _):
        for number in range(4):
            assert (await call(app, f"/slow/{number}")).status == 504
        assert not app.gateway.upstreams[0].circuit.is_open
        assert (await call(app, "/quick")).status == 200


async def test_one_that_is_silent_and_takes_no_connection_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    taken = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        taken.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        origin = Origin(lambda asked: Says(), port=listener.socket.getsockname()[1])
        listening = trio.CancelScope()

        async def listen() -> None:
            with listening:
                await trio.serve_listeners(hang, [listener], handler_nursery=nursery)

        nursery.start_soon(listen)
        async with running(Says(), origin=origin, serve=False, timeout_s=0.3) as (app, _):
            upstream = app.gateway.upstreams[0]
            upstream.circuit.first_s = 0.05
            nursery.start_soon(call, app, "/a")
            await taken.wait()
            listening.cancel()  # nobody listens any more; the connection stands
            await eventually(lambda: upstream.circuit.is_open)
            assert "takes no connection" in caplog.text
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (errno.EMFILE, ExhaustedError, 503),
        (errno.ENFILE, ExhaustedError, 503),
        (errno.ECONNREFUSED, UnreachableError, 504),
        (errno.ENETUNREACH, UnreachableError, 504),
    ],
)
async def test_a_device_run_short_says_nothing_of_the_upstream(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[TransportError], status: int
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(code, "made up")

    async with running(Says(fields=FRESH)) as (app, _):
        with monkeypatch.context() as patch:
            patch.setattr(trio, "open_tcp_stream", fail)
            for _ in range(3):
                reply = await call(app, "/a")
                assert reply.status == status
                assert "Errno" not in reply.body.decode()
            assert app.gateway.upstreams[0].circuit.is_open == (kind is UnreachableError)
        if kind is ExhaustedError:
            assert (await call(app, "/a")).status == 200


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), UnreachableError, "cannot be looked up"),
        (UnicodeError("label too long"), UnreachableError, "label too long"),
        (ssl.SSLCertVerificationError(1, "x"), UntrustedError, "is not trusted"),
        (KeyError("stream"), UnreachableError, ""),
        (TimeoutError(errno.ETIMEDOUT, "x"), UnreachableError, "Connection timed out"),
    ],
)
async def test_whatever_a_host_causes_is_a_fault_of_that_host(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, kind: type[TransportError], words: str
) -> None:
    assert type(translate(fault, "ask it")) is kind
    assert words in str(translate(fault, "ask it"))

    async def fail(*_: object, **__: object) -> None:
        raise fault

    async with running(Says()) as (app, _):
        monkeypatch.setattr(app.gateway.upstreams[0].pool, "handle_async_request", fail)
        assert (await call(app, "/a")).status in (502, 504)
        assert (await call(app, "/a", method="PUT", body=b"x")).status in (502, 504)


# --- bodies of requests ----------------------------------------------------------------------------------------------


class StallingClient(ReplyClient):
    """Sends the beginning of a body, and no more."""

    async def body(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        for piece in self.pieces:
            yield piece
        await trio.sleep_forever()


@pytest.mark.parametrize("size", [1, methods.GATHER_BYTES, methods.GATHER_BYTES + 1, 1 << 20])
async def test_a_stalled_upload_holds_no_connection_of_others_and_ends_in_408(
    autojump_clock: trio.testing.MockClock, size: int
) -> None:
    async with running(Says(fields=FRESH), connections=2, timeout_s=5.0) as (app, _), trio.open_nursery() as nursery:
        clients = [StallingClient([b"x" * size]) for _ in range(4)]
        for client in clients:
            request = make_request(app, "/up", [("Content-Length", str(size + 1))], "POST")
            request.body = True
            nursery.start_soon(app.answer(request).run, client)  # type: ignore[union-attr, arg-type]
        await trio.sleep(1)
        with trio.fail_after(1):
            assert (await call(app, "/a")).status == 200
            assert (await call(app, "/b", method="PUT", body=b"short")).status == 200
        await trio.sleep(30)
        statuses = sorted(client.reply.status for client in clients)
        # Those that had to wait for one of the connections of uploads may run into that first.
        assert set(statuses) <= {408, 504}
        assert 408 in statuses


async def test_a_body_that_nothing_announces_goes_up_whole(autojump_clock: trio.testing.MockClock) -> None:
    for size in (1, methods.GATHER_BYTES, methods.GATHER_BYTES + 1, 300_000):
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        async with running(Says()) as (app, origin):
            request = make_request(app, "/up", [], "POST")  # as HTTP/2 brings it
            request.body = True
            client = ReplyClient([body[:100], body[100:]])
            await app.answer(request).run(client)  # type: ignore[union-attr]
        assert (client.reply.status, origin.asked[0].body) == (200, body)
        assert origin.asked[0].fields["transfer-encoding"] == "chunked"


# --- bodies of answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stalled", [0, 1])
async def test_a_client_that_does_not_read_holds_up_nobody_else(
    autojump_clock: trio.testing.MockClock, stalled: int
) -> None:
    """Kept in memory alone, larger than is stored, without a length: the window is all there is."""
    pieces = tuple(bytes([number]) * 65536 for number in range(64))
    assert sum(map(len, pieces)) > 2 * WINDOW_BYTES
    both = trio.Event()

    async def begin() -> None:
        await both.wait()

    async def stall(_: bytes) -> None:
        both.set()
        await trio.sleep(1000)

    says = Says(fields=FRESH, pieces=pieces, length=False, before=begin)
    async with running(says) as (app, origin), trio.open_nursery() as nursery:
        replies = {}

        async def ask(number: int) -> None:
            on_piece = stall if number == stalled else None
            replies[number] = await call(app, "/a", on_piece=on_piece)

        for number in (0, 1, 2):
            nursery.start_soon(ask, number)
        await trio.sleep(0.5)
        both.set()
        await trio.sleep(20 * BRAKE_S)
        quick = [reply for number, reply in replies.items() if number != stalled]
        assert [reply.whole and reply.body == b"".join(pieces) for reply in quick] == [True, True]
        nursery.cancel_scope.cancel()
    assert len(origin.asked) == 1


@asynccontextmanager
async def tls_origin(tmp_path: Path, *, proper: bool) -> AsyncIterator[Origin]:
    """An HTTPS upstream whose bodies end with their connection: properly, or cut."""
    _, cert, key = make_authority(tmp_path, "ours")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    origin = Origin(lambda asked: Says())

    async def answer(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            asked = await tls.receive_some(65536)
            origin.asked.append(Asked("GET", asked.split()[1].decode(), {}))
            await tls.send_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nhalf")
            if proper:
                await tls.unwrap()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        origin.port = listeners[0].socket.getsockname()[1]
        yield origin
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("proper", [True, False])
async def test_tls_that_ends_without_saying_so_has_not_ended(tmp_path: Path, proper: bool) -> None:
    async with tls_origin(tmp_path, proper=proper) as origin:
        https: dict[str, Any] = {"upstream": f"https://127.0.0.1:{origin.port}", "ca": str(tmp_path / "ours.ca")}
        async with running(Says(), origin=origin, serve=False, **https) as (app, _):
            with trio.fail_after(10):
                replies = [await call(app, "/a") for _ in range(2)]
    assert [(reply.body, reply.whole) for reply in replies] == [(b"half", proper)] * 2
    assert ("hit" in replies[1]["Cache-Status"]) == proper
    assert len(origin.asked) == (1 if proper else 2)


# --- purging ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def held_put(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Callable[[], None]], list[int]]:
    """What to do while a response is being written, and how often one was."""
    acts: list[Callable[[], None]] = []
    count = [0]
    put = Store.put

    def slow(store: Store, key: bytes, *arguments: object) -> bool:
        done = put(store, key, *arguments)  # type: ignore[arg-type]
        if key[:1] == b"R":
            count[0] += 1
            for act in acts:
                act()
        return done

    monkeypatch.setattr(Store, "put", slow)
    return acts, count


async def test_an_answer_written_while_everything_is_purged_is_not_kept(
    tmp_path: Path, held_put: tuple[list[Callable[[], None]], list[int]]
) -> None:
    acts, count = held_put
    async with running(Says(fields=FRESH), directory=tmp_path / "store") as (app, origin):
        cache = app.gateway.cache

        def purge() -> None:  # noticed while the row is written: its key is in no list of what to delete
            cache.purge_order = cache.next_order()
            cache.memory.clear()

        acts.append(purge)
        await call(app, "/a")
        await eventually(lambda: count[0] > 0)
        await trio.sleep(0.1)
        acts.clear()
        assert "hit" not in (await call(app, "/a"))["Cache-Status"]
    assert len(origin.asked) == 2


async def test_an_answer_that_was_asked_for_before_a_purge_is_not_kept(tmp_path: Path) -> None:
    release = trio.Event()
    directory = tmp_path / "store"
    async with running(Says(fields=FRESH, before=release.wait), directory=directory) as (app, origin):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, app, "/a")
            await eventually(lambda: bool(origin.asked))
            (directory / "purged").touch()
            await app.gateway.cache.tend()
            release.set()
        await trio.sleep(0.1)
        assert "hit" not in (await call(app, "/a"))["Cache-Status"]
        await trio.sleep(0.1)
        assert "hit" in (await call(app, "/a"))["Cache-Status"]
