"""The publisher's side: each new head to the broker, retained, with QoS 1.

The head is live before it is announced, so a broker that is away costs its announcement alone: devices poll. No thread
reads the connection: who announces drives it, so that a head is on its way before anything else is done.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edged.announce import broker
from edged.announce.broker import BROKEN, CONNECT_S, KEEPALIVE_S, BrokerAccess, connect, drop, is_ready, make_client
from edged.errors import TransportError
from edged.feed import limits

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

ACKNOWLEDGED_S = 10.0
QUIET_S = 0.2  # after which a broker has told all that it retains
TOPICS = 4096  # whose retained heads are remembered
HEARD = 2 * TOPICS  # messages that are taken before anything else is done


class Connection:
    """One connection to a broker, used by one thread at a time. listens: whether it is to tell what it retains below
    the feed's prefix; retained: what it has told, by topic. Raises ConfigError, TransportError."""

    def __init__(self, access: BrokerAccess, version: int, *, listens: bool) -> None:
        self.access, self.listens = access, listens
        self.welcome: bool | None = None
        self.subscribed, self.refused = not listens, "no answer"
        self.retained: dict[str, bytes] = {}
        self.used_at = time.monotonic()
        self.client: Client = make_client(access, version=version)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = self.on_message
        connect(access, self.client, version)

    def on_connect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        self.welcome = reason.value == 0
        if not self.welcome:
            self.refused = str(reason)
        elif self.listens:
            client.subscribe(self.access.topic("+"))

    def on_subscribe(self, *_: Any) -> None:
        self.subscribed = True  # or it may not: then nothing is heard, and each head is announced once

    def on_message(self, _: Client, __: Any, message: Any) -> None:
        if len(self.retained) < TOPICS or message.topic in self.retained:
            self.retained[message.topic] = bytes(message.payload[: limits.HEAD_BYTES + 1])

    def pump(self, within_s: float) -> bool:
        """Send what is queued, and take what the broker sends, for which it is waited so long at most. Whether the
        connection stands."""
        try:
            return self.exchange(within_s)
        except BROKEN:
            drop(self.client)
            return False

    def exchange(self, within_s: float) -> bool:
        client = self.client
        self.used_at = time.monotonic()
        while client.want_write() and is_ready(client, select.POLLOUT, CONNECT_S):
            client.loop_write()
        if is_ready(client, select.POLLIN, within_s):
            client.loop_read()
        client.loop_misc()
        return client.socket() is not None

    def pump_until(self, done: Callable[[], bool], within_s: float) -> bool:
        """Whether it came to be."""
        deadline = time.monotonic() + within_s
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self.pump(left_s):
                return done()
        return True

    def hear(self, within_s: float = 0.0) -> None:
        """Take what it tells of what it retains, until nothing has come for so long."""
        for _ in range(HEARD):
            if not is_ready(self.client, select.POLLIN, within_s) or not self.pump(0.0):
                return

    @property
    def is_fresh(self) -> bool:
        """Whether the broker still has us, as far as can be told: it hangs up on who is silent for longer."""
        return self.client.is_connected() and time.monotonic() - self.used_at < KEEPALIVE_S

    def close(self) -> None:
        if self.client.socket() is not None:
            self.client.disconnect()
        drop(self.client)


class Announcer:
    """One broker, and a connection to it once there is something to say. A context manager. listens: see `retained`."""

    def __init__(self, access: BrokerAccess, *, listens: bool = False) -> None:
        self.access, self.listens = access, listens
        self.connection: Connection | None = None

    def __enter__(self) -> Announcer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def announce(self, dataset: str, head: bytes) -> None:
        """Returns when the broker has it. Raises ConfigError, TransportError."""
        self.connected()
        self.confirm(dataset, self.send(dataset, head))

    @property
    def is_ready(self) -> bool:
        """Whether `send` has a connection."""
        return self.connection is not None and self.connection.is_fresh

    def send(self, dataset: str, head: bytes) -> MQTTMessageInfo:
        """Put it on its way, without waiting for the broker, by the connection there is. Raises TransportError."""
        assert self.connection is not None
        try:
            return self.connection.client.publish(self.access.topic(dataset), head, qos=1, retain=True)
        except BROKEN as fault:
            self.close()
            raise TransportError(f"announce {dataset} at {self.access.url}: {fault}") from fault

    def confirm(self, dataset: str, told: MQTTMessageInfo) -> None:
        """Wait until the broker says that it has it. Raises TransportError."""
        what = f"announce {dataset} at {self.access.url}"
        try:
            done = self.connection is not None and self.connection.pump_until(told.is_published, ACKNOWLEDGED_S)
        except BROKEN as fault:
            self.close()
            raise TransportError(f"{what}: {fault}") from fault
        if not done:
            self.close()
            raise TransportError(f"{what}: the broker did not acknowledge it within {ACKNOWLEDGED_S:.0f} s")

    def retained(self, dataset: str) -> bytes | None:
        """What the broker tells that it retains, None where it tells nothing. Raises ConfigError, TransportError."""
        connection = self.connected()
        connection.hear()
        return connection.retained.get(self.access.topic(dataset))

    def connected(self) -> Connection:
        """The connection, made where there is none. Raises ConfigError, TransportError."""
        if self.connection is not None and self.is_ready:
            return self.connection
        self.close()
        refused = ""
        for version in broker.VERSIONS:
            made = Connection(self.access, version, listens=self.listens)
            if made.pump_until(lambda made=made: made.welcome is not None, CONNECT_S) and made.welcome:  # type: ignore[misc]
                self.connection = made
                if self.listens and made.pump_until(lambda made=made: made.subscribed, CONNECT_S):  # type: ignore[misc]
                    made.hear(QUIET_S)
                return made
            refused = made.refused
            made.close()
        raise TransportError(f"broker {self.access.url}: refused the connection: {refused}")

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
