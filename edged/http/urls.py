"""URLs that come from outside, in the configuration or in an answer: sound, or refused with the reason. No I/O."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, urlsplit

import idna

HOST_CHARACTERS, LABEL_CHARACTERS = 253, 63  # RFC 1035 section 2.3.4
LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")  # not all that DNS could hold: what hosts are named
PATH_SAFE = "/:%[]~@!$&'()*+,;="
ALL_DIGITS = re.compile(r"[0-9.]+|0[xX].*")


def sound_url(text: str, *, query: bool = False) -> str:
    """An absolute http or https URL in the form in which it is sent: ASCII, the host as its A-labels (RFC 5890).

    query: whether it may have one; a fragment is dropped, as it is never sent (RFC 9110 section 7.1). Raises ValueError
    with the reason, in words for a person.
    """
    if any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("it holds a blank or a control character")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        reason = "the port is not a number up to 65535" if "ort" in str(fault) else "the host is no name or address"
        raise ValueError(reason) from fault
    if parts.scheme not in ("http", "https"):
        raise ValueError("it does not begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("it holds a user name or a password, which do not belong into a URL")
    if not host:
        raise ValueError("it names no host")
    if port == 0:
        raise ValueError("the port is 0")
    if parts.query and not query:
        raise ValueError("it has a query (?…), which a base URL cannot have")
    place = sound_host(host) + ("" if port is None else f":{port}")
    search = f"?{quote(parts.query, safe=PATH_SAFE + '?')}" if parts.query else ""
    return f"{parts.scheme}://{place}{quote(parts.path, safe=PATH_SAFE)}{search}"


def sound_host(host: str) -> str:
    """A host as it is looked up and named in Host: lower-case A-labels, or an address. Raises ValueError."""
    address = address_of(host)
    if address is not None:
        return f"[{host}]" if isinstance(address, IPv6Address) else str(address)
    if ":" in host or ALL_DIGITS.fullmatch(host):
        raise ValueError(f"{host:.80} is no address")  # the system's resolver would read 127.1 or 0x7f000001 as one
    name = host.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as fault:
            raise ValueError(f"{host:.80} is no international host name ({fault})") from fault
    if len(name) > HOST_CHARACTERS:
        raise ValueError(f"the host has {len(name)} characters, {HOST_CHARACTERS} are allowed")
    for label in name.split("."):
        if len(label) > LABEL_CHARACTERS or not LABEL.fullmatch(label):
            raise ValueError(f"{label!r:.80} is no part of a host name")
    return name


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` spells, None for a name. A zone (%eth0) is part of an IPv6 address."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_public(host: str) -> bool:
    """Whether an address, or a name that needs no looking up, leads into the network at large."""
    address = address_of(host.strip("[]"))
    if address is None:
        return host != "localhost" and not host.endswith((".localhost", ".local"))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_global
