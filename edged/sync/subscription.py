"""What a device is to have of a dataset and where from, and who the device is, for rollouts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from edged.announce.broker import BrokerAccess, access_to
from edged.config import Config, DatasetConfig, RelayConfig
from edged.configfile import header_value

MACHINE_ID = Path("/etc/machine-id")
PURPOSE = b"edged/1 device "
MACHINE_ID_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class OriginAccess:
    """How the origins are spoken to, as in `[[datasets]]`.

    ca: PEM file of the only authorities trusted; cert, key: PEM files of a client certificate; headers: sent to the
    origins and to nobody else; proxy: URL of an HTTP proxy. Empty: the system's, none, none, the environment's.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # they may be credentials
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One dataset as this device is to have it; the fields are those of `[[datasets]]` in the configuration.

    origins: base URLs, tried in order; trust: the file with the root of trust; device_id: decides which rollouts are
    for this device, empty: none are; broker: where heads are announced as well.
    """

    dataset: str
    origins: tuple[str, ...]
    trust: str
    slices: tuple[str, ...] = ("core",)
    seed: str = ""
    poll_s: int = 30
    require: tuple[str, ...] = ()
    device_id: str = ""
    access: OriginAccess = field(default_factory=OriginAccess)
    broker: BrokerAccess | None = None


def device_id(configured: str, machine_id: Path = MACHINE_ID) -> str:
    """`daemon.device_id`, or a hash of /etc/machine-id; empty where there is neither.

    A machine id must not be shown to anybody and is used only hashed together with a purpose (machine-id(5)); neither
    it nor the hash leaves the device. A host whose id is not made yet ("uninitialized") has none.
    """
    if configured:
        return configured
    try:
        with machine_id.open("rb") as file:
            found = file.read(MACHINE_ID_CHARACTERS + 1).strip()
    except OSError:  # no systemd here: this device takes no part in rollouts
        return ""
    if len(found) != MACHINE_ID_CHARACTERS or set(found) - set(b"0123456789abcdef"):
        return ""
    return hashlib.sha256(PURPOSE + found).hexdigest()[:MACHINE_ID_CHARACTERS]


def subscription_of(dataset: DatasetConfig, config: Config) -> Subscription:
    """What the configuration says of a dataset, in the words of edged/sync."""
    return Subscription(
        dataset.name,
        tuple(dataset.origin),
        dataset.trust,
        tuple(dataset.slices),
        dataset.seed,
        dataset.poll_s,
        tuple(dataset.require),
        device_id(config.daemon.device_id),
        access_of(dataset),
        access_to(dataset.announce, dataset.broker),
    )


def access_of(configured: DatasetConfig | RelayConfig) -> OriginAccess:
    """How the origins of a section are spoken to."""
    headers = tuple((name, header_value(value)) for name, value in configured.headers.items())
    return OriginAccess(configured.ca, configured.cert, configured.key, headers, configured.proxy)
