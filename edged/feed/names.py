"""Names and keys: what may name a dataset, a collection or a slice, and what may be a record's key."""

from __future__ import annotations

import re

from edged.errors import WireError
from edged.feed import limits

# Names become directory and URL segments, so nothing in them can leave a directory, hide a file or need escaping.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
RESERVED = frozenset({"changes"})  # /v1/{dataset}/changes is taken


def check_name(name: object, what: str) -> str:
    """`name` if it can name a dataset, collection or slice. Raises WireError naming `what`."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise WireError(
            f"{what} name {name!r:.80}: expected 1 to {limits.NAME_CHARACTERS} of A-Z a-z 0-9 . _ - "
            "beginning and ending with a letter or digit, without '..'"
        )
    return name


def check_collection(name: object) -> str:
    """A collection's name; `changes` is refused because of its place in the URL."""
    checked = check_name(name, "collection")
    if checked in RESERVED:
        raise WireError(f"collection name {checked!r} is reserved; choose another")
    return checked


def check_key(key: object, what: str = "key") -> str:
    """`key` if it is 1 to 512 bytes of UTF-8 without NUL. Raises WireError naming `what`."""
    if not isinstance(key, str):
        raise WireError(f"{what}: expected text, got {type(key).__name__}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as fault:
        raise WireError(f"{what} {key!r:.80}: holds an unpaired surrogate") from fault
    if not 1 <= size <= limits.KEY_BYTES or "\0" in key:
        raise WireError(f"{what} {key!r:.80}: expected 1 to {limits.KEY_BYTES} bytes of UTF-8 without NUL, got {size}")
    return key
