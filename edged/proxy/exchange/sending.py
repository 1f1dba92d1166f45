"""How answers are written to whoever asks, who may go at any time."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import trio

from edged.errors import DamageError, TransportError
from edged.http.application import Client
from edged.http.fields import Fields, write_date
from edged.http.problem import make_problem
from edged.http.ranges import ByteRange
from edged.proxy.exchange.flight import Flight
from edged.proxy.rules.answer import StoredAnswer
from edged.proxy.rules.status import CacheStatus, with_status
from edged.proxy.store.cache import Cache
from edged.proxy.store.disk import read_block
from edged.proxy.store.memory import StoredResponse
from edged.proxy.store.record import BLOCK_BYTES
from edged.proxy.upstream.upstream import UpstreamAnswer
from edged.threads import in_thread

T = TypeVar("T")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class UnreadableError(Exception):
    """The body of a stored response cannot be read now, and nothing of it was sent."""


async def pass_on(
    nursery: trio.Nursery, client: Client, answer: UpstreamAnswer, fields: Fields, status: CacheStatus
) -> int:
    """Send an answer on as it comes: nothing of it is kept. It ends when the client goes. Returns the body's bytes."""
    count = 0

    async def pass_body() -> None:
        nonlocal count
        await client.start(answer.status, with_status(fields, status))
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                await client.write(chunk)
                count += len(chunk)

    try:
        await watched(nursery, client, None, pass_body)
    except (TransportError, ClientGoneError):
        return count  # without its end the client knows that the answer is not whole
    finally:
        await answer.aclose()
    await client.end()
    return count


async def watched(nursery: trio.Nursery, client: Client, flight: Flight | None, work: Callable[[], Awaitable[T]]) -> T:
    """Do something for a client until it goes; while others wait for the same, go on without it.

    Whoever outlasts the client runs beside, in `nursery`: a nursery of its own would cost a miss a tenth of a
    millisecond. Raises what the work raises, and ClientGoneError.
    """
    working = trio.CancelScope()

    async def outlast() -> None:
        while flight is not None and flight.waiting:
            await flight.left.park()
        working.cancel()

    client.when_gone(lambda: nursery.start_soon(outlast))
    try:
        with working:
            return await work()
    finally:
        client.when_gone(None)
    raise ClientGoneError


# --- writing ---------------------------------------------------------------------------------------------------------


def make_refusal(status: int, detail: str, cache_status: CacheStatus, wall_s: float | None) -> tuple[Fields, bytes]:
    """Fields and body of an answer of the proxy's own (RFC 9457). wall_s: the time for its Date, None while the clock
    is not set."""
    told, body = make_problem(status, detail)
    fields = [(name.lower(), value) for name, value in told]
    if wall_s is not None:
        fields.insert(0, (b"date", write_date(wall_s)))
    fields.append((b"cache-status", cache_status.encode()))
    if status in (503, 504):
        fields.append((b"retry-after", b"1"))
    return tuple(fields), body


async def send_refusal(
    client: Client, status: int, detail: str, cache_status: CacheStatus, wall_s: float | None
) -> None:
    fields, body = make_refusal(status, detail, cache_status, wall_s)
    await client.start(status, fields)
    await client.end(body)


async def send_stored(client: Client, answer: StoredAnswer, held: StoredResponse, cache: Cache) -> int:
    """An answer from the store. Returns the bytes of its body. Raises UnreadableError where nothing of it was sent.

    A body that turns out damaged or unreadable on the way ends the connection, so that the client knows.
    """
    if answer.span is None:
        await client.start(answer.status, answer.fields)
        await client.end()
        return 0
    if held.body is not None:
        await client.start(answer.status, answer.fields)
        whole = answer.span.size == len(held.body)
        await client.end(held.body if whole else held.body[answer.span.first : answer.span.last + 1])
        return answer.span.size
    count = 0
    async with open_body(held, cache) as fd:
        await client.start(answer.status, answer.fields)
        try:
            async with aclosing(read_span(fd, held, answer.span)) as pieces:
                async for piece in pieces:
                    await client.write(piece)
                    count += len(piece)
        except DamageError:
            await cache.drop(held)
            return count
        except BlockError as fault:
            cache.note_fault(str(fault))
            cache.forget(held)
            return count
    await client.end()
    return count


class BlockError(Exception):
    """The disk does not give a block of a body now. It may again: what is stored stays."""


@asynccontextmanager
async def open_body(held: StoredResponse, cache: Cache) -> AsyncIterator[int]:
    """The file of a body that is not in memory. Raises UnreadableError."""
    try:
        fd = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as fault:  # replaced a moment ago, or gone: the next look at the disk tells
        cache.forget(held)
        raise UnreadableError from fault
    except OSError as fault:  # no descriptor left, a failing disk: no reason to throw a good answer away
        cache.note_fault(f"open {held.path}: {fault.strerror}")
        raise UnreadableError from fault
    try:
        yield fd
    finally:
        try:
            os.close(fd)
        except OSError as fault:  # it was only read
            cache.note_fault(f"close {held.path}: {fault.strerror}")


async def read_span(fd: int, held: StoredResponse, span: ByteRange) -> AsyncGenerator[bytes, None]:
    """The bytes of a span, every block checked before any of it goes out. Raises DamageError, BlockError."""
    for number in range(span.first // BLOCK_BYTES, span.last // BLOCK_BYTES + 1):
        try:
            block = await in_thread(read_block, fd, number, held.entry.size, held.sums)
        except OSError as fault:
            raise BlockError(f"read block {number} of {held.path}: {fault.strerror}") from fault
        start = number * BLOCK_BYTES
        yield block[max(0, span.first - start) : span.last + 1 - start]
