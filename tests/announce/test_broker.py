"""Heads by a broker: at once where it is there, by the poll where it is not, and never because it says so."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from edged.announce.broker import PACKET_BYTES, BrokerAccess, secret
from edged.announce.putting import Announcer
from edged.errors import ConfigError, TransportError
from edged.origin.declared.feed import load_feed_rules
from edged.origin.publisher import Publisher
from edged.origin.serving import keeping as station
from edged.replica.writer import Writer
from edged.sync.control import Control
from edged.sync.replication import Replication
from edged.sync.status import DatasetStatus
from edged.sync.subscription import Subscription
from edged.sync.task import run
from tests.announce.brokers import mosquitto, needs_mosquitto, packet
from tests.relay.stations import edit, origin_of, titles, until
from tests.sync.simulator import Device

RETAINED = 0x31  # PUBLISH, QoS 0, retained


@pytest.fixture
def feed(tmp_path: Path) -> Publisher:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", titles(20))
    return publisher


def announcing(feed: Publisher, url: str, more: str = "") -> None:
    (feed.path / "feed.toml").write_text(f'[announce]\nmqtt = "{url}"\n{more}\n')


@asynccontextmanager
async def device_of(
    feed: Publisher, place: Path, origin: str, access: BrokerAccess, *, poll_s: int = 1
) -> AsyncIterator[Replication]:
    """A device that follows an origin and a broker."""
    device = Device(place, str(feed.trust_path), origin=(f"{origin}/catalog",), clock_s=time.time())
    subscription = Subscription("catalog", (f"{origin}/catalog",), str(feed.trust_path), poll_s=poll_s, broker=access)
    with Writer.open(device.directory, "catalog") as writer:
        replication = Replication(subscription, writer, DatasetStatus("catalog"), device.clock(), Control())
        async with trio.open_nursery() as nursery:
            await nursery.start(run, replication)
            yield replication
            nursery.cancel_scope.cancel()


def pushed(replication: Replication) -> bool:
    """Whether polls are few."""
    return replication.control.pushed


def connected(replication: Replication) -> bool:
    return replication.status.broker is not None and replication.status.broker.connected


async def publish(feed: Publisher, number: int, edition: int) -> None:
    await trio.to_thread.run_sync(feed.publish_changes, "catalog", edit(number, edition))


# --- a broker that lies ----------------------------------------------------------------------------------------------


def message(topic: str, payload: bytes) -> bytes:
    """A retained PUBLISH of MQTT 5, without properties."""
    name = topic.encode()
    return packet(RETAINED, len(name).to_bytes(2, "big") + name + b"\0" + payload)


@contextmanager
def liar(script: Callable[[socket.socket], None]) -> Iterator[str]:
    """A broker that takes everybody and then does what `script` says. Yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    try:
                        peer.settimeout(5)
                        peer.recv(4096)
                        peer.sendall(packet(0x20, b"\0\0\0"))
                        asked = peer.recv(4096)
                        at = 2  # SUBSCRIBE: fixed header of two bytes, then its number
                        peer.sendall(packet(0x90, asked[at : at + 2] + b"\0\1"))
                        script(peer)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}/feed"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


async def test_garbage_old_heads_and_a_flood_cost_nothing(feed: Publisher, tmp_path: Path) -> None:
    first = (feed.public / "catalog" / "head").read_bytes()
    stranger = Publisher.init(tmp_path / "stranger")
    for count in range(1, 5):
        stranger.publish("catalog", titles(count))
    forged = (stranger.public / "catalog" / "head").read_bytes()
    await publish(feed, 1, 2)
    sent = threading.Event()

    def script(peer: socket.socket) -> None:
        for payload in (b"", b"garbage", first, first[:-1] + b"x", forged, bytes(5000)):
            peer.sendall(message("feed/catalog/head", payload))
        peer.sendall(message("feed/other/head", first))
        for _ in range(300):
            peer.sendall(message("feed/catalog/head", forged))
        sent.set()
        peer.settimeout(30)
        while peer.recv(4096):
            pass

    with liar(script) as url:
        access = BrokerAccess(url)
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.version == 2)
            await until(sent.is_set)
            await until(lambda: device.status.broker is not None and device.status.broker.heads >= 5)
            assert (device.status.version, device.status.newest) == (2, 2)
            assert device.status.last_error is None
            assert connected(device)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x31\xff\xff\xff\x7f",  # 268,435,455 bytes are announced
        packet(RETAINED, bytes(PACKET_BYTES + 1))[:70_000],
        b"\x31\xff\xff\xff\xff\xff",
        packet(RETAINED, b"\xff\xff"),
        bytes(200),
    ],
    ids=["256 MB", "one byte more than may be", "endless length", "cut off", "no MQTT"],
)
async def test_what_is_no_packet_ends_the_connection_and_polls_go_on(
    feed: Publisher, tmp_path: Path, sent: bytes
) -> None:
    def script(peer: socket.socket) -> None:
        peer.sendall(sent)
        peer.settimeout(30)
        while peer.recv(4096):
            pass

    with liar(script) as url:
        access = BrokerAccess(url)
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.broker is not None and device.status.broker.last_error is not None)
            await publish(feed, 1, 2)
            await until(lambda: device.status.version == 2)


async def test_a_broker_that_is_not_there_costs_an_announcement_and_no_publish(
    feed: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    announcing(feed, "mqtt://127.0.0.1:1/feed")
    access = BrokerAccess("mqtt://127.0.0.1:1/feed")
    async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
        await publish(feed, 1, 2)
        await until(lambda: device.status.version == 2)
        assert not device.control.pushed
    assert "the head is live" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('mqtt = "http://broker/x"', "mqtts://broker"),
        ('mqtt = "mqtt://broker"\ncert = "a.pem"', "cert and key go together"),
        ('mqtt = "mqtt://broker"\nca = "/no/such.pem"', "is not a file"),
        ('mqtt = "mqtt://broker"\nuser = "env:EDGED_NO_SUCH"', "line 3: announce.user: .*no such variable"),
        ('mqtt = "mqtt://broker:0"', "expected mqtts"),
        ('user = "me"', "line 1: announce: set mqtt too"),
        ('mqqt = "mqtt://broker"', "did you mean"),
    ],
)
def test_faults_of_feed_toml_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "feed.toml").write_text(f"[announce]\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        load_feed_rules(tmp_path)


def test_credentials_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_BROKER", "s3cret")
    (tmp_path / "password").write_text("from a file\n")
    assert secret("env:EDGED_BROKER", "password") == "s3cret"
    assert secret(f"file:{tmp_path}/password", "password") == "from a file"
    assert secret("plain", "password") == "plain"
    with pytest.raises(ConfigError, match="No such file"):
        secret("file:/no/such", "password")
    assert "s3cret" not in repr(BrokerAccess("mqtt://x", password="s3cret"))


@pytest.mark.parametrize(
    ("url", "topic"),
    [("mqtt://b", "catalog/head"), ("mqtt://b/", "catalog/head"), ("mqtts://b:1/a/b/", "a/b/catalog/head")],
)
def test_a_datasets_topic_is_below_the_prefix(url: str, topic: str) -> None:
    assert BrokerAccess(url).topic("catalog") == topic


# --- Mosquitto -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_mosquitto
@pytest.mark.parametrize("protocol", [4, 5])
async def test_heads_come_by_mosquitto_and_by_the_poll_while_it_is_away(
    feed: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.setattr("edged.announce.broker.VERSIONS", (protocol,))
    monkeypatch.setattr(station, "BROKER_LOOK_S", 0.5)
    with mosquitto(tmp_path / "broker") as broker:
        url = f"mqtt://127.0.0.1:{broker.port}/feed"
        announcing(feed, url)
        access = BrokerAccess(url)
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.version == 1 and connected(device))
            assert pushed(device)
            await trio.sleep(1.5)  # the poll that was held when the broker came has been given up
            for version in range(2, 5):
                await publish(feed, version, version)
                await until(lambda version=version: device.status.version == version)  # type: ignore[misc]
            found = device.status.broker
            assert found is not None
            assert found.heads >= 3
            broker.kill()
            await until(lambda: not connected(device))
            await publish(feed, 5, 5)
            await until(lambda: device.status.version == 5)  # within poll_s, which is 1 s
            assert not pushed(device)
            broker.start()  # and knows nothing any more: the origin tells it again
            before = found.heads
            await until(lambda: connected(device) and found.heads > before)
            head = (feed.public / "catalog" / "head").read_bytes()
            assert await trio.to_thread.run_sync(retained, url) == head
            await publish(feed, 6, 6)
            await until(lambda: device.status.version == 6)


def retained(url: str) -> bytes | None:
    """The head that a new subscriber gets."""
    from paho.mqtt import subscribe

    parts = url.partition("://")[2].partition("/")[0].rpartition(":")
    told: Any = subscribe.simple(  # type: ignore[no-untyped-call]
        "feed/catalog/head", hostname=parts[0], port=int(parts[2]), qos=1, keepalive=5
    )
    assert told.retain
    return bytes(told.payload)


@pytest.mark.slow
@needs_mosquitto
@pytest.mark.parametrize("version", ["4", "5"])
def test_what_is_announced_is_retained_with_qos_1_in_both_versions(
    feed: Publisher, tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.announce.broker.VERSIONS", (int(version),))
    head = (feed.public / "catalog" / "head").read_bytes()
    with mosquitto(tmp_path / "broker") as broker:
        url = f"mqtt://127.0.0.1:{broker.port}/feed"
        with Announcer(BrokerAccess(url)) as announcer:
            announcer.announce("catalog", head)
        assert retained(url) == head


def certificates(place: Path) -> None:
    """An authority, a broker's certificate and a client's, in `place`."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "9", "-subj", "/CN=ca")
    for name in ("broker", "client"):
        (place / "san").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "9", "-extfile", "san")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
        (place / f"{name}.key").chmod(0o644)  # Mosquitto may be another user


@pytest.mark.slow
@needs_mosquitto
async def test_tls_with_a_client_certificate_and_a_password(feed: Publisher, tmp_path: Path) -> None:
    place = tmp_path / "pki"
    place.mkdir()
    certificates(place)
    place.chmod(0o755)
    tls = (
        f"cafile {place}/ca.pem\ncertfile {place}/broker.pem\nkeyfile {place}/broker.key\nrequire_certificate true\n"
        "use_identity_as_username true\nallow_anonymous false"
    )
    with mosquitto(tmp_path / "broker", tls) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}/feed"
        files = f'ca = "{place}/ca.pem"\ncert = "{place}/client.pem"\nkey = "{place}/client.key"'
        announcing(feed, url, files)
        access = BrokerAccess(url, f"{place}/ca.pem", f"{place}/client.pem", f"{place}/client.key")
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.version == 1 and connected(device))
            await publish(feed, 1, 2)
            await until(lambda: device.status.version == 2)
        with pytest.raises(TransportError), Announcer(BrokerAccess(url, f"{place}/ca.pem")) as announcer:
            announcer.announce("catalog", b"head")  # shows no certificate


@pytest.mark.slow
@needs_mosquitto
# paho leaves the socket of a handshake that failed to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")
def test_a_broker_of_another_authority_is_told_nothing(tmp_path: Path) -> None:
    place = tmp_path / "pki"
    place.mkdir()
    certificates(place)
    tls = f"certfile {place}/broker.pem\nkeyfile {place}/broker.key\nallow_anonymous true"
    with mosquitto(tmp_path / "broker", tls) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}/feed"
        with Announcer(BrokerAccess(url, f"{place}/ca.pem")) as announcer:
            announcer.announce("catalog", b"head")
        with pytest.raises(TransportError, match="certificate"), Announcer(BrokerAccess(url)) as announcer:
            announcer.announce("catalog", b"head")


@pytest.mark.slow
@needs_mosquitto
def test_a_user_and_a_password_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passwords").write_text("box:s3cret\n")
    subprocess.run(["mosquitto_passwd", "-U", str(tmp_path / "passwords")], check=True, capture_output=True)
    with mosquitto(tmp_path / "broker", f"allow_anonymous false\npassword_file {tmp_path}/passwords") as broker:
        url = f"mqtt://127.0.0.1:{broker.port}/feed"
        for password, welcome in (("s3cret", True), ("wrong", False)):
            monkeypatch.setenv("EDGED_BROKER_PASSWORD", password)
            access = BrokerAccess(url, user="box", password="env:EDGED_BROKER_PASSWORD")
            with Announcer(access) as announcer:
                if welcome:
                    announcer.announce("catalog", b"head")
                else:
                    with pytest.raises(TransportError, match="refused the connection"):
                        announcer.announce("catalog", b"head")
