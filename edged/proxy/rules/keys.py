"""What of a request decides its answer beside URL and Vary, and so belongs into the key of what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from edged.http.fields import Fields

# Fields by which services build links, choose a site or a method, without naming them in Vary.
STEERING = frozenset(
    (
        b"forwarded",
        b"front-end-https",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-forwarded",
        b"x-host",
        b"x-http-host-override",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-host",
        b"x-original-uri",
        b"x-original-url",
        b"x-proxyuser-ip",
        b"x-real-ip",
        b"x-rewrite-url",
        b"x-scheme",
        b"x-url-scheme",
        b"true-client-ip",
    )
)
STEERING_PREFIX = b"x-forwarded-"
# Fields by which a service knows who asks. RFC 9111 section 3.5 speaks of the first alone.
CREDENTIALS = frozenset(
    (
        b"authorization",
        b"api-key",
        b"apikey",
        b"ocp-apim-subscription-key",
        b"private-token",
        b"x-access-token",
        b"x-amz-security-token",
        b"x-api-key",
        b"x-apikey",
        b"x-auth-key",
        b"x-auth-token",
        b"x-goog-api-key",
        b"x-session-token",
        b"x-user-token",
    )
)
COOKIE = b"cookie"


def digest(parts: Sequence[bytes]) -> bytes:
    """One short name for parts, none of which can pass for two."""
    running = hashlib.blake2b(digest_size=16)
    for part in parts:
        running.update(b"%d:" % len(part) + part)
    return running.hexdigest().encode()


def partition_of(fields: Fields, upstream: Sequence[bytes]) -> bytes:
    """The scope of answers for everyone: b"" but for requests that steer, and routes that ask in a way of their own.

    upstream: what makes the way of asking, such as a client certificate; empty where nothing does.
    """
    steering = [pair for pair in fields if pair[0] in STEERING or pair[0].startswith(STEERING_PREFIX)]
    if not steering and not upstream:
        return b""
    return digest([*upstream, b"", *(part for pair in sorted(steering) for part in pair)])


def private_scope(name: str, fields: Fields, shared: bytes) -> bytes:
    """The scope of one app, and of who it is to the service: an app may ask for several people."""
    shown = [pair for pair in fields if pair[0] in CREDENTIALS or pair[0] == COOKIE]
    return digest([name.encode(), shared, *(part for pair in sorted(shown) for part in pair)])


def has_credentials(fields: Fields) -> bool:
    return any(name in CREDENTIALS for name, _ in fields)


def has_cookie(fields: Fields) -> bool:
    return any(name == COOKIE for name, _ in fields)
