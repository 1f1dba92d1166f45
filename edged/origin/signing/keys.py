"""Private keys as files: PKCS #8 PEM (RFC 5958), Ed25519, mode 0600, root keys apart from head keys.

`root-*.key` sign roots of trust and may be kept offline; `head-*.key` signs heads and stays with the publisher.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edged.errors import ConfigError
from edged.feed.trust import cose
from edged.feed.trust import root as trust
from edged.files import NO_FOLLOW, write_durable

KEY_FILE_BYTES = 4096


def create_key(path: Path) -> Ed25519PrivateKey:
    """Make a new key and write it to `path`, mode 0600. Raises StoreError."""
    key = Ed25519PrivateKey.generate()
    write_durable(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """The key in `path`. Raises ConfigError for a symbolic link, a file that others can read, or another content."""
    try:
        handle = os.open(path, os.O_RDONLY | NO_FOLLOW)
    except OSError as fault:
        advice = "a key is a plain file, not a symbolic link: put the file itself there"
        if fault.errno != errno.ELOOP:
            advice = "it must be there, and belong to the user that publishes"
        raise ConfigError(f"read key {path}: {fault.strerror}; {advice}") from fault
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"read key {path}: not a plain file; put the key file itself there")
        if mode & 0o077:
            raise ConfigError(f"read key {path}: mode {mode:04o} lets others at it; run: chmod 600 {path}")
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"read key {path}: belongs to user {status.st_uid}; run: chown {os.geteuid()} {path}")
        data = file.read(KEY_FILE_BYTES)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as fault:
        raise ConfigError(f"read key {path}: not an unencrypted PKCS #8 PEM key; restore it from a copy") from fault
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"read key {path}: not an Ed25519 key; restore it from a copy")
    return key


def load_matching(directory: Path, pattern: str, role: trust.Role) -> list[Ed25519PrivateKey]:
    """The keys of `role` among the files `pattern` in `directory`, in the order of their numbers."""
    found = []
    for path in sorted(directory.glob(pattern), key=lambda path: (len(path.name), path.name)):
        key = load_key(path)
        if cose.key_id(cose.public_bytes(key)) in role.keys:
            found.append(key)
    return found
