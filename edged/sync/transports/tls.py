"""Whom a device trusts at an origin, how it shows itself there, and by which HTTP proxy it goes."""

from __future__ import annotations

import ssl
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2

from edged.errors import ConfigError
from edged.http.urls import sound_url
from edged.sync.subscription import OriginAccess


def client_context(access: OriginAccess) -> ssl.SSLContext:
    """TLS 1.2 or later, certificates checked against the system's authorities or those of `access.ca` alone.

    Raises ConfigError for a file that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=access.ca or None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default from Python 3.13, which many private CAs fail
    except (OSError, ValueError) as fault:
        raise ConfigError(f"read ca {access.ca}: {reason_of(fault)}; expected certificates in PEM form") from fault
    if access.cert:
        try:
            context.load_cert_chain(access.cert, access.key or None, password=refuse_password)
        except (OSError, ValueError) as fault:
            raise ConfigError(
                f"read cert {access.cert} with key {access.key}: {reason_of(fault)}; expected a PEM chain and its "
                "unencrypted key"
            ) from fault
    return context


def refuse_password() -> str:
    raise ValueError("the key is encrypted")


def reason_of(fault: OSError | ValueError) -> str:
    if isinstance(fault, ssl.SSLError):
        return f"not usable ({(fault.reason or 'no PEM').replace('_', ' ').lower()})"
    return (fault.strerror or "not usable") if isinstance(fault, OSError) else str(fault)


def proxy_of(configured: str, base: str) -> httpcore2.Proxy | None:
    """The HTTP proxy for `base`: the configured one, else that of the environment (https_proxy, no_proxy …).

    Raises ConfigError for a URL that is none.
    """
    parts = urlsplit(base)
    text = configured or getproxies().get(parts.scheme, "")
    if not text or (not configured and proxy_bypass(parts.netloc)):
        return None
    place = text if "://" in text else f"http://{text}"
    login, _, host = place.partition("://")[2].rpartition("@")
    try:
        url = sound_url(f"{place.partition('://')[0]}://{host}")
    except ValueError as fault:
        raise ConfigError(f"proxy for {base}: {fault}; expected http://[user:password@]host:port") from fault
    name, _, secret = login.partition(":")
    return httpcore2.Proxy(url, auth=(unquote(name), unquote(secret)) if login else None)
