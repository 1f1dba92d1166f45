"""Any method but GET and HEAD, and requests with a body: streamed through. What they change is made invalid first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import trio

from edged.errors import TransportError
from edged.http.application import Client, Disconnected
from edged.http.fields import Fields, value_of
from edged.proxy.exchange.context import Context
from edged.proxy.exchange.exchange import Exchange
from edged.proxy.exchange.fetch import Storing, length_of
from edged.proxy.exchange.flight import Body
from edged.proxy.exchange.sending import ClientGoneError, pass_on, watched
from edged.proxy.rules.decisions import Receipt, Received, make_entry, receive, storing_scope
from edged.proxy.rules.forward import answer_fields, upstream_fields
from edged.proxy.rules.invalidation import invalid_urls, invalidates, origin_of, read_groups, resolve
from edged.proxy.rules.status import CacheStatus
from edged.proxy.upstream.upstream import UnreachableError, UpstreamAnswer

# A body up to this is read whole before the upstream is asked, so that a client that stalls holds no connection.
GATHER_BYTES = 64 << 10


class StalledError(TransportError):
    """The client has stopped in the midst of its request's body."""

    http_status = 408


async def forward(exchange: Exchange, context: Context, client: Client) -> None:
    """Answer a request of any other method, or with a body."""
    cache, timeline = exchange.cache, exchange.cache.timeline
    exchange.counters.passed += 1
    begun, sent_s = cache.next_order(), timeline.now_s()
    try:
        answer = await ask(exchange, context, client)
    except ClientGoneError:
        return
    except TransportError as fault:
        exchange.counters.failed += 1
        detail = fault.detail if isinstance(fault, UnreachableError) else "upstream-error"
        if isinstance(fault, StalledError):
            detail = "client-stalled"
        await exchange.refuse(client, fault.http_status, str(fault), CacheStatus(forward="method", detail=detail))
        return
    receipt = Receipt(timeline.now_s(), timeline.wall_s(), timeline.now_s() - sent_s)
    received = receive(answer.status, answer_fields(answer.status, answer.fields), receipt)
    if invalidates(context.request.method, answer.status):
        await invalidate(exchange, context, received.fields)
        begun = cache.next_order()
    mapped = replace(received, fields=context.upstream.map_back(received.fields, context.host))
    if is_for_get(context, received) and await store_post(exchange, context, client, answer, mapped, begun):
        return
    status = CacheStatus(forward="method", status=answer.status, upstream_s=exchange.fetcher.told_s(answer))
    count = await pass_on(exchange.nursery, client, answer, mapped.fields, status)
    exchange.counters.served_bytes += count
    exchange.counters.fetched_bytes += count


async def ask(exchange: Exchange, context: Context, client: Client) -> UpstreamAnswer:
    """Send the request on, with its body as it comes. Raises TransportError, ClientGoneError."""
    upstream, method = context.upstream, context.request.method
    if upstream.circuit.is_open:
        raise UnreachableError(f"ask {upstream.route.upstream}: it could not be reached a moment ago")
    fields = upstream_fields(context.fields, method=method, host=context.host, via=exchange.via, body=context.body)
    if not context.body:
        return await watched(exchange.nursery, client, None, lambda: upstream.send(method, context.target, fields))
    # Closed here whatever ends it: a body that is left half read would wait for the collector.
    async with aclosing(read_body(client, upstream.route.timeout_s)) as pieces:
        begin, ended = await gather(pieces)
        async with aclosing(chain(begin, pieces)) as whole:
            return await upstream.send_body(method, context.target, fields, whole, short=ended)


async def read_body(client: Client, patience_s: float) -> AsyncGenerator[bytes, None]:
    """A request's body as it comes. Raises ClientGoneError where the client goes before its end, StalledError where it
    stops for longer than that."""
    async with aclosing(client.body()) as pieces:
        while True:
            try:
                with trio.fail_after(patience_s):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except Disconnected as gone:
                raise ClientGoneError from gone
            except trio.TooSlowError as fault:
                raise StalledError(
                    f"read the request: nothing of its body came for {patience_s:g} s; send it again"
                ) from fault
            yield piece


async def gather(pieces: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """The first GATHER_BYTES of a body, and whether that is all of it."""
    begin: list[bytes] = []
    size = 0
    async for piece in pieces:
        begin.append(piece)
        size += len(piece)
        if size > GATHER_BYTES:
            return begin, False
    return begin, True


async def chain(begin: list[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in begin:
        yield piece
    async for piece in rest:
        yield piece


async def invalidate(exchange: Exchange, context: Context, fields: Fields) -> None:
    """What is stored for the URL, for those that the answer names, and for its groups."""
    url, cache = context.request.url, exchange.cache
    await cache.invalidate(invalid_urls(url, fields), context.scopes)
    await cache.invalidate_groups(origin_of(url), read_groups(fields, b"cache-group-invalidation"))


def is_for_get(context: Context, received: Received) -> bool:
    """Whether a POST's answer says of itself that it is what a GET would get (RFC 9110 section 9.3.3)."""
    request, place = context.request, value_of(received.fields, b"content-location")
    if request.method != b"POST" or received.status != 200 or place is None:
        return False
    return resolve(request.url, place) == request.url


async def store_post(
    exchange: Exchange, context: Context, client: Client, answer: UpstreamAnswer, received: Received, begun: int
) -> bool:
    """Store a POST's answer while it is sent on. Returns False, with nothing sent, where it may not be stored."""
    request = context.request
    scope = storing_scope(request, received, private_allowed=context.private_allowed)
    size = length_of(received.fields)
    body = Body(exchange.cache, size)
    if scope == "no" or not body.storable:
        return False
    entry = make_entry(request, received, size=size or 0, order=begun, private=scope == "private")
    reader = body.open_reader()
    storing = Storing(entry, context.storing_key(scope))
    exchange.nursery.start_soon(exchange.fetcher.pump, context, answer, body, storing)
    told_s = exchange.fetcher.told_s(answer)
    status = CacheStatus(forward="method", status=answer.status, stored=True, upstream_s=told_s)
    await exchange.send_body(client, entry, reader, status, received.fields)
    return True
