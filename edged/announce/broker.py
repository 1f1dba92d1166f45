"""Where an MQTT broker is, how it is spoken to, and what is taken from it at most.

paho-mqtt (extra `mqtt`) speaks 3.1.1 and 5; it is imported where it is used. Its packets are bounded here before they
are allocated, which it does not do itself: MQTT allows 256 MB in one.
"""

from __future__ import annotations

import os
import re
import select
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edged.config import BROKER, BrokerConfig
from edged.errors import ConfigError, TransportError
from edged.feed import limits

if TYPE_CHECKING:
    from paho.mqtt.client import Client

URL = re.compile(BROKER)
FROM_ENVIRONMENT, FROM_FILE = "env:", "file:"
PORTS = {"mqtt": 1883, "mqtts": 8883}
VERSIONS = (5, 4)  # tried in turn: MQTT 5, and 3.1.1, whose number on the wire is 4
KEEPALIVE_S = 60
CONNECT_S = 10.0
PACKET_BYTES = limits.HEAD_BYTES + 4096  # a head with its topic and properties
SECRET_BYTES = 4096
# What paho raises for bytes that are no MQTT, and for a connection that ends.
BROKEN = (OSError, ValueError, RuntimeError, struct.error, IndexError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """url: `mqtts://host[:port]/prefix`, or mqtt:// in clear. ca: PEM of the only authorities trusted; cert, key: PEM
    of a client certificate; user, password: `env:NAME`, `file:PATH` or the value itself. Empty: the system's, none.
    """

    url: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_secure(self) -> bool:
        return self.url.startswith("mqtts:")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port. Raises ConfigError for a URL that is none."""
        try:
            parts = urlsplit(self.url)
            if not URL.fullmatch(self.url) or not parts.hostname or parts.port == 0:
                raise ValueError("no such URL")
            return parts.hostname, parts.port or PORTS[parts.scheme]
        except ValueError as fault:
            raise ConfigError(f"broker {self.url!r}: expected mqtts://host[:port]/prefix, or mqtt://") from fault

    def topic(self, dataset: str) -> str:
        """Where a dataset's head is."""
        prefix = urlsplit(self.url).path.strip("/")
        return f"{prefix}/{dataset}/head" if prefix else f"{dataset}/head"


def access_to(url: str, more: BrokerConfig) -> BrokerAccess | None:
    """What is configured of a broker; None where its URL is empty."""
    return BrokerAccess(url, more.ca, more.cert, more.key, more.user, more.password) if url else None


def secret(text: str, what: str) -> str:
    """A configured credential, from the environment or a file where it says so. Raises ConfigError."""
    if text.startswith(FROM_ENVIRONMENT):
        name = text.removeprefix(FROM_ENVIRONMENT)
        if name not in os.environ:
            raise ConfigError(f"{what} {text!r}: there is no such variable in the environment; set it")
        return os.environ[name].strip()
    if text.startswith(FROM_FILE):
        path = text.removeprefix(FROM_FILE)
        try:
            with open(path, encoding="utf-8") as file:
                return file.read(SECRET_BYTES).strip()
        except (OSError, ValueError) as fault:
            raise ConfigError(f"{what} {text!r}: {getattr(fault, 'strerror', None) or 'no text'}") from fault
    return text


def make_client(access: BrokerAccess, *, version: int) -> Client:
    """A client that is not connected yet. version: 5, or 4 for MQTT 3.1.1. Raises ConfigError for files, credentials or
    a library that are not there."""
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    except ImportError as fault:
        raise ConfigError("announcements by MQTT take paho-mqtt: pip install 'edged[mqtt]'") from fault

    class BoundedClient(Client):
        """Ends a connection whose packet would be over PACKET_BYTES, before it is read."""

        def _sock_recv(self, bufsize: int) -> bytes:
            if bufsize > PACKET_BYTES:
                raise ConnectionError(f"a packet of {bufsize} bytes, at most {PACKET_BYTES} are taken")
            return super()._sock_recv(bufsize)

    protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
    client = BoundedClient(CallbackAPIVersion.VERSION2, protocol=protocol, reconnect_on_failure=False)
    client.connect_timeout = CONNECT_S
    if access.user:
        user, password = secret(access.user, "user of the broker"), secret(access.password, "password of the broker")
        client.username_pw_set(user, password or None)
    if access.is_secure:
        client.tls_set_context(tls_context(access))
    return client


def tls_context(access: BrokerAccess) -> ssl.SSLContext:
    """TLS 1.2 or later. Raises ConfigError for a file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=access.ca or None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as sync/transports/tls.py
        if access.cert:
            context.load_cert_chain(access.cert, access.key or None, password=refuse_password)
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise ConfigError(f"certificates for the broker {access.url}: {reason}; expected PEM files") from fault
    return context


def refuse_password() -> str:
    raise ValueError("the key is encrypted")


def connect(access: BrokerAccess, client: Client, version: int) -> None:
    """Open the connection and say who we are; the broker's answer comes later. Blocks. Raises TransportError."""
    host, port = access.place
    try:
        if version == 5:
            client.connect(host, port, KEEPALIVE_S, clean_start=True)
        else:
            client.connect(host, port, KEEPALIVE_S)
    except (OSError, ValueError) as fault:
        raise TransportError(f"broker {access.url}: {getattr(fault, 'strerror', None) or fault}") from fault


def drop(client: Client) -> None:
    """Let go of a connection at once."""
    sock: Callable[[], None] | None = getattr(client.socket(), "close", None)
    if sock is not None:
        sock()


def is_ready(client: Client, event: int, within_s: float) -> bool:
    """Whether the socket is ready for it. Not by select(2), which an origin with thousands of descriptors is beyond."""
    sock = client.socket()
    if sock is None:
        return False
    if event == select.POLLIN and getattr(sock, "pending", lambda: 0)():  # TLS has read it already
        return True
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(within_s * 1000))
