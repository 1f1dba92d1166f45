"""Blocking work beside the event loop, in threads of trio's; also the lookup of names.

The system may give no further thread (TasksMax, memory). What runs in the background waits then until there is one: it
is no reason to end. Requests of apps do not wait, see `http.application.run_in_thread`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import trio

log = logging.getLogger("edged")
T = TypeVar("T")
FIRST_S, MOST_S = 0.05, 2.0  # from one try to the next; doubled each time


async def in_thread(
    function: Callable[..., T],
    *arguments: Any,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """What the function returns or raises. Until a thread is to be had it waits, and can be cancelled.

    limiter, abandon_on_cancel: as those of `trio.to_thread.run_sync`.
    """
    begun, pause_s = False, FIRST_S

    def work() -> T:
        nonlocal begun
        begun = True
        return function(*arguments)

    while True:
        try:
            return await trio.to_thread.run_sync(  # noqa: TID251 (this is the place)
                work, limiter=limiter, abandon_on_cancel=abandon_on_cancel
            )
        except RuntimeError as fault:  # what `threading` raises where it gets none
            if begun:
                raise
            if pause_s == FIRST_S:
                log.warning("the system gives no thread (%s); waiting for one: raise TasksMax or free memory", fault)
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, MOST_S)


class NameLookup(trio.abc.HostnameResolver):
    """As trio looks names up, but for the threads. Those who connect have deadlines."""

    async def getaddrinfo(self, host: Any, port: Any, *numbers: int, **named: int) -> Any:
        look_up = partial(socket.getaddrinfo, host, port, *numbers, **named)
        return await in_thread(look_up, abandon_on_cancel=True)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        return await in_thread(socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True)
