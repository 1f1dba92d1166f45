"""Working for a client that may go at any time, and passing on to it what is not kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import trio

from edged.errors import TransportError
from edged.proxy.exchange.context import Context, Receive, send_head, send_last, send_piece
from edged.proxy.exchange.flight import Flight
from edged.proxy.rules.fields import Fields
from edged.proxy.rules.status import CacheStatus, with_status
from edged.proxy.upstream.upstream import Answer

T = TypeVar("T")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def pass_on(nursery: trio.Nursery, context: Context, answer: Answer, fields: Fields, status: CacheStatus) -> None:
    """Send an answer on as it comes: nothing of it is kept. It ends when the client goes."""

    async def pass_body() -> None:
        await send_head(context.send, answer.status, with_status(fields, status))
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                await send_piece(context.send, chunk)

    try:
        await watched(nursery, context, None, pass_body)
    except (TransportError, ClientGoneError):
        return  # without its end the client knows that the answer is not whole
    finally:
        await answer.aclose()
    await send_last(context.send)


async def watched(
    nursery: trio.Nursery, context: Context, flight: Flight | None, work: Callable[[], Awaitable[T]]
) -> T:
    """Do something for a client until it goes; while others wait for the same, go on without it.

    Whoever watches runs beside, in `nursery`: a nursery of its own would cost a miss a tenth of a millisecond. Raises
    what the work raises, and ClientGoneError.
    """
    working, watching = trio.CancelScope(), trio.CancelScope()

    async def outlast() -> None:
        while flight is not None and flight.waiting:
            await flight.left.park()
        working.cancel()

    async def watch() -> None:
        with watching:
            await disconnected(context.receive)
            await outlast()

    if context.client is None:
        nursery.start_soon(watch)
    else:
        context.client.when_gone(lambda: nursery.start_soon(outlast))
    try:
        with working:
            return await work()
    finally:
        watching.cancel()
        if context.client is not None:
            context.client.when_gone(None)
    raise ClientGoneError


async def disconnected(receive: Receive) -> None:
    """Until the client has gone."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
        return  # a server that closes its channel instead of saying so
