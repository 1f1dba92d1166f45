"""The publisher's side: each new head to the broker, retained, with QoS 1.

The head is live before it is announced, so a broker that is away costs its announcement alone: devices poll.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edged.announce import broker
from edged.announce.broker import CONNECT_S, BrokerAccess, connect, drop, make_client
from edged.errors import TransportError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

ACKNOWLEDGED_S = 10.0


@dataclass(slots=True)
class Handshake:
    """A broker's answer to who we are. refused: why it will not have us."""

    answered: threading.Event = field(default_factory=threading.Event)
    refused: str = ""

    def end(self, _: Client, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self.refused = "" if reason.value == 0 else str(reason)
        self.answered.set()


class Announcer:
    """One broker, and a connection for as long as the announcer is open. A context manager."""

    def __init__(self, access: BrokerAccess) -> None:
        self.access = access
        self.client: Client | None = None

    def __enter__(self) -> Announcer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def announce(self, dataset: str, head: bytes) -> None:
        """Returns when the broker has it. Raises ConfigError, TransportError."""
        what = f"announce {dataset} at {self.access.url}"
        client = self.connected()
        try:
            told = client.publish(self.access.topic(dataset), head, qos=1, retain=True)
            told.wait_for_publish(ACKNOWLEDGED_S)
            done = told.is_published()
        except (OSError, ValueError, RuntimeError) as fault:
            self.close()
            raise TransportError(f"{what}: {fault}") from fault
        if not done:
            self.close()
            raise TransportError(f"{what}: the broker did not acknowledge it within {ACKNOWLEDGED_S:.0f} s")

    def connected(self) -> Client:
        """The connection, made where there is none. Raises ConfigError, TransportError."""
        if self.client is not None and self.client.is_connected():
            return self.client
        self.close()
        refused = ""
        for version in broker.VERSIONS:
            client = make_client(self.access, version=version)
            handshake = Handshake()
            client.on_connect = handshake.end
            connect(self.access, client, version)
            client.loop_start()
            if handshake.answered.wait(CONNECT_S) and not handshake.refused:
                self.client = client
                return client
            refused = handshake.refused or "no answer"
            client.loop_stop()
            drop(client)
        raise TransportError(f"broker {self.access.url}: refused the connection: {refused}")

    def close(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()
            drop(client)
