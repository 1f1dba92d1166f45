"""Heads that a broker brings, beside the poll: what is taken of them, and how fast.

Nothing that comes is believed: `Control.announce` hands it to whoever follows the dataset, which judges it as it judges
an origin's, and leaves what is old, forged or of another dataset alone. While a broker is there, polls are few; when it
goes, they are as ever within `poll_s`.
"""

from __future__ import annotations

import logging
import random
import select
from typing import TYPE_CHECKING, Any

import trio

from edged.announce import broker
from edged.announce.broker import BROKEN, CONNECT_S, KEEPALIVE_S, BrokerAccess, connect, drop, is_ready, make_client
from edged.errors import EdgedError, TransportError
from edged.feed import limits
from edged.sync.control import Control
from edged.sync.core.polling import Backoff
from edged.sync.replication import Replication, one_line
from edged.sync.status import BrokerStatus
from edged.threads import in_thread

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger("edged.sync")

APART_S = 0.1  # between two looks at what has come: a flood waits in the broker, by TCP
AT_ONCE = 64  # messages that are read in one look, of which the newest counts: a flood does not put off what follows it


class BrokerListener:
    """One connection to a broker, for one dataset. Used by one task, on trio's thread; only connecting blocks."""

    def __init__(self, access: BrokerAccess, dataset: str, version: int) -> None:
        self.access, self.topic, self.version = access, access.topic(dataset), version
        self.client: Client = make_client(access, version=version)
        self.inbox: bytes | None = None  # the newest message: each head makes those before it pointless
        self.subscribed = False
        self.refused = ""
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = self.on_message

    def on_connect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.value == 0:
            client.subscribe(self.topic, qos=1)
        else:
            self.refused = str(reason)

    def on_subscribe(self, _: Client, __: Any, ___: Any, reasons: Any, ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self.refused = f"subscribing to {self.topic}: {reasons[0]}"
        else:
            self.subscribed = True

    def on_message(self, _: Client, __: Any, message: Any) -> None:
        if message.topic == self.topic and len(message.payload) <= limits.HEAD_BYTES:
            self.inbox = bytes(message.payload)

    async def step(self) -> bytes | None:
        """Wait for the broker for a while; a message, if one came. Raises TransportError when the connection ends."""
        client, sock = self.client, self.client.socket()
        if sock is None:
            raise TransportError(f"broker {self.access.url}: {self.refused or 'the connection was cut'}")
        await self.flush()
        if not getattr(sock, "pending", lambda: 0)():
            with trio.move_on_after(KEEPALIVE_S / 4):
                await trio.lowlevel.wait_readable(sock)
        try:
            for _ in range(AT_ONCE):
                client.loop_read()
                if not is_ready(client, select.POLLIN, 0.0):
                    break
            client.loop_misc()
        except BROKEN as fault:
            raise TransportError(f"broker {self.access.url}: what it sent is no MQTT: {fault}") from fault
        await self.flush()
        if self.refused:
            raise TransportError(f"broker {self.access.url}: {self.refused}")
        found, self.inbox = self.inbox, None
        return found

    async def flush(self) -> None:
        """Send what paho has queued, as fast as the broker takes it. Raises trio.TooSlowError, TransportError."""
        while self.client.want_write() and (sock := self.client.socket()) is not None:
            with trio.fail_after(CONNECT_S):
                await trio.lowlevel.wait_writable(sock)
            try:
                self.client.loop_write()
            except BROKEN as fault:
                raise TransportError(f"broker {self.access.url}: {fault}") from fault

    def close(self) -> None:
        sock = self.client.socket()
        if sock is not None:
            trio.lowlevel.notify_closing(sock)
            self.client.disconnect()
        drop(self.client)


async def listen(replication: Replication, access: BrokerAccess) -> None:
    """For ever: hand each head that comes to the dataset's control, and say whether polls may be few."""
    control, dataset = replication.control, replication.subscription.dataset
    status = replication.status.broker = BrokerStatus()
    backoff, failures = Backoff(random.random), 0  # in a row, of connecting
    while True:
        version = broker.VERSIONS[failures % len(broker.VERSIONS)]
        try:
            listener = BrokerListener(access, dataset, version)
            try:
                with trio.fail_after(2 * CONNECT_S):
                    await in_thread(connect, access, listener.client, version, abandon_on_cancel=True)
                    while not listener.subscribed:
                        take(await listener.step(), control, status)
                note(dataset, status, None)
                control.pushed, control.doubted, status.connected = True, False, True
                backoff.succeed()
                while True:
                    if take(await listener.step(), control, status):
                        await trio.sleep(APART_S)
            finally:
                listener.close()
        except (EdgedError, trio.TooSlowError) as fault:
            if not status.connected:
                failures += 1  # a broker of MQTT 3.1.1 refuses 5, or hangs up
            note(
                dataset,
                status,
                fault if isinstance(fault, EdgedError) else TransportError(f"broker {access.url}: slow"),
            )
        if status.connected:
            status.connected = control.pushed = control.doubted = False
            await trio.sleep(random.random() * replication.subscription.poll_s)  # noqa: S311 - a fleet does not ask the origin all at once
            control.nudge()
        await trio.sleep(backoff.fail())


def take(message: bytes | None, control: Control, status: BrokerStatus) -> bool:
    if message is None:
        return False
    status.heads += 1
    control.announce(message)
    return True


def note(dataset: str, status: BrokerStatus, fault: EdgedError | None) -> None:
    text = None if fault is None else one_line(fault)
    if text is not None and text != status.last_error:
        log.warning("%s: %s", dataset, text)
    elif text is None and not status.connected:
        log.info("%s: heads come by a broker", dataset)
    status.last_error = text
