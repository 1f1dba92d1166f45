"""From the `[[apps]]` of the configuration to the apps in force. Reads the files that hold tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from edged.access.rights import App, Rate, Rights
from edged.errors import ConfigError

CREDENTIAL = "credential:"
TOKEN_BYTES = 4096
LEAST_TOKEN = 16  # characters: what is shorter can be guessed
SECONDS = {"s": 1.0, "min": 60.0}
SHARES = {"internal": 1.0, "partner": 0.5, "public": 0.25}  # of connections, where none is configured


class Configured(Protocol):
    """One of `[[apps]]` as configured; numbers that are not set are -1, texts ""."""

    @property
    def name(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def exe(self) -> str: ...
    @property
    def token_sha256(self) -> str: ...
    @property
    def token_file(self) -> str: ...
    @property
    def allow(self) -> Sequence[str]: ...
    @property
    def slices(self) -> Sequence[str]: ...
    @property
    def view(self) -> str: ...
    @property
    def rate(self) -> str: ...
    @property
    def connections(self) -> str: ...


def apps_of(configured: Iterable[Configured]) -> tuple[App, ...]:
    """Raises ConfigError for a token's file that cannot be used."""
    return tuple(app_of(item) for item in configured)


def app_of(item: Configured) -> App:
    return App(
        name=item.name,
        audience=item.audience,
        rights=Rights.of(item.allow, item.slices),
        uid=None if item.uid < 0 else item.uid,
        gid=None if item.gid < 0 else item.gid,
        exe=item.exe,
        token_sha256=token_hash(item),
        view=item.view,
        rate=rate_of(item.rate),
        connections=share_of(item.connections, item.audience),
    )


def rate_of(text: str) -> Rate | None:
    """ "200/s" or "1000/min"; None of ""."""
    if not text:
        return None
    requests, _, unit = text.partition("/")
    return Rate(int(requests), SECONDS[unit])


def share_of(text: str, audience: str) -> float:
    """Of "25%"; that of the audience of ""."""
    return int(text.removesuffix("%")) / 100 if text else SHARES[audience]


def token_hash(item: Configured) -> bytes:
    """The SHA-256 of an app's token, b"" where it has none. Raises ConfigError."""
    if item.token_sha256:
        return bytes.fromhex(item.token_sha256)
    if not item.token_file:
        return b""
    path = token_path(item.token_file)
    try:
        with open(path, "rb") as file:
            data = file.read(TOKEN_BYTES + 1)
    except OSError as fault:
        raise ConfigError(f"read the token {path}: {fault.strerror}; let edged read it, or set token_sha256") from fault
    token = data.strip()
    if not LEAST_TOKEN <= len(token) <= TOKEN_BYTES:
        raise ConfigError(f"the token in {path} has {len(token)} bytes; expected {LEAST_TOKEN} to {TOKEN_BYTES}")
    return sha256(token).digest()


def is_for_service_alone(name: str) -> bool:
    """Whether systemd hands a token to the service, and this is a command beside it, which gets none: it can say
    nothing of the token, and need not read it."""
    return name.startswith(CREDENTIAL) and not os.environ.get("CREDENTIALS_DIRECTORY")


def token_path(name: str) -> Path:
    """Raises ConfigError for a credential where systemd gave none."""
    if not name.startswith(CREDENTIAL):
        return Path(name)
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        what = "systemd has handed none to edged (CREDENTIALS_DIRECTORY is not set)"
        raise ConfigError(f"{name!r}: {what}; set LoadCredential= in the unit, or name a file")
    return Path(directory) / name.removeprefix(CREDENTIAL)
