"""Working for a client that may go at any time, and passing on to it what is not kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import trio

from edged.errors import TransportError
from edged.proxy.context import Context, Receive, send_head, send_last, send_piece
from edged.proxy.flight import Flight
from edged.proxy.rules_fields import Fields
from edged.proxy.rules_forward import Refused
from edged.proxy.rules_status import CacheStatus, with_status
from edged.proxy.upstream import Answer

T = TypeVar("T")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def pass_on(context: Context, answer: Answer, fields: Fields, status: CacheStatus) -> None:
    """Send an answer on as it comes: nothing of it is kept. It ends when the client goes."""

    async def pass_body() -> bool:
        await send_head(context.send, answer.status, with_status(fields, status))
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                await send_piece(context.send, chunk)
        return True

    try:
        await watched(context.receive, None, pass_body)
    except (TransportError, ClientGoneError):
        return  # without its end the client knows that the answer is not whole
    finally:
        await answer.aclose()
    await send_last(context.send)


async def watched(
    receive: Receive,
    flight: Flight | None,
    work: Callable[[], Awaitable[T]],
    discard: Callable[[T], object] = lambda result: None,
) -> T:
    """Do something for a client until it goes; while others wait for the same, go on without it.

    discard: what is done with a result that comes when the caller is cancelled. Raises what the work raises, and
    ClientGoneError.
    """
    result: list[T] = []
    failure: list[TransportError | Refused] = []

    async def do() -> None:
        try:
            result.append(await work())
        except (TransportError, Refused) as fault:
            failure.append(fault)
        finally:
            nursery.cancel_scope.cancel()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        while flight is not None and flight.waiting:
            await flight.left.park()
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await do()
    except BaseException:
        for item in result:
            discard(item)
        raise
    if failure:
        raise failure[0]
    if not result:
        raise ClientGoneError
    return result[0]
