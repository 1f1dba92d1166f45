"""`feed.toml`: what concerns every dataset of a feed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from edged.announce.broker import BrokerAccess, access_to
from edged.config import Broker, BrokerConfig
from edged.configfile import check_broker
from edged.errors import ConfigError
from edged.toml import Fault, Key, Table, read_toml

Check = Callable[[Any, Table, Key], list[Fault]]

FEED_FILE = "feed.toml"
STORE = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[A-Za-z0-9._/-]*))?")


class PublicRules(Struct, frozen=True, forbid_unknown_fields=True):
    """`[public]`: where the public files lie. store: empty for FEED_DIR/public.

    endpoint: of a store that is not Amazon's; unsafe_single_publisher: no other machine ever publishes to it, so that a
    store will do that does not keep two publishers apart.
    """

    store: str = ""
    endpoint: str = ""
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}$")] = "us-east-1"
    ca: str = ""
    unsafe_single_publisher: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """Bucket and prefix, the latter without '/' around it. Raises ConfigError for what names none."""
        match = STORE.fullmatch(self.store)
        prefix = "" if match is None else (match["prefix"] or "").strip("/")
        if match is None or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
            raise ConfigError(
                f"store {self.store!r}: expected s3://bucket/prefix; bucket of a-z, 0-9, '.' and '-', prefix of "
                "A-Z, a-z, 0-9, '.', '_', '-' and '/'"
            )
        return match["bucket"], prefix


class AnnounceRules(BrokerConfig, frozen=True, forbid_unknown_fields=True):
    """`[announce]`. mqtt: the broker's URL, empty for none."""

    mqtt: Broker = ""

    @property
    def access(self) -> BrokerAccess | None:
        return access_to(self.mqtt, self)


class FeedRules(Struct, frozen=True, forbid_unknown_fields=True):
    """Both sections."""

    public: PublicRules = field(default_factory=PublicRules)
    announce: AnnounceRules = field(default_factory=AnnounceRules)


def check_announce(rules: AnnounceRules, table: Table, key: Key) -> list[Fault]:
    return check_broker(rules, rules.mqtt, table, key, (*key, "mqtt"))


def check_public(rules: PublicRules, table: Table, key: Key) -> list[Fault]:
    faults = []
    try:
        if rules.store:
            _ = rules.place
    except ConfigError as fault:
        faults.append(table.fault((*key, "store"), str(fault)))
    if not rules.store and rules != PublicRules():
        faults.append(table.fault(key, "set store too: the other keys say how it is spoken to"))
    if rules.endpoint and not is_endpoint(rules.endpoint):
        faults.append(
            table.fault((*key, "endpoint"), f"{rules.endpoint!r}: expected https://host[:port], without a path")
        )
    if rules.ca and not Path(rules.ca).is_file():
        faults.append(table.fault((*key, "ca"), f"{rules.ca}: there is no such file; name a PEM file"))
    return faults


def is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc) is not None
            and parts.port != 0
            and parts.path in ("", "/")
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        return False


def load_feed_rules(feed_dir: Path) -> FeedRules:
    """Read feed.toml; the defaults if there is none. Raises ConfigError with every fault, its line, the fix."""
    path = feed_dir / FEED_FILE
    if not path.exists() and not path.is_symlink():
        return FeedRules()
    table, faults = read_toml(path)
    checks: dict[type, Check] = {AnnounceRules: check_announce, PublicRules: check_public}
    rules = table.convert(FeedRules, faults, checks) if table is not None else None
    if faults or rules is None:
        lines = tuple(str(fault) for fault in sorted(faults, key=lambda fault: fault.place))
        raise ConfigError(lines[0], lines)
    return rules
