"""Conditional requests in both directions (RFC 9110 section 13, RFC 9111 section 4.3), freshening by 304 and HEAD."""

from __future__ import annotations

from edged.proxy.rules.fields import Fields, date_of, names_of, read_date, split_list, value_of, values_of

CONDITIONS = frozenset((b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"))
# Fields of a connection and not of a response (RFC 9110 section 7.6.1, RFC 9111 section 3.1).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# What a 304 carries (RFC 9110 section 15.4.5).
NOT_MODIFIED_FIELDS = frozenset(
    (
        b"cache-control",
        b"cdn-cache-control",
        b"content-location",
        b"date",
        b"edged-cache-control",
        b"etag",
        b"expires",
        b"last-modified",
        b"set-cookie",
        b"vary",
    )
)


def without_hop_by_hop(fields: Fields) -> Fields:
    """Fields that may be stored and passed on: without those of the connection and those that Connection lists."""
    dropped = HOP_BY_HOP.union(names_of(fields, b"connection"))
    return tuple(pair for pair in fields if pair[0] not in dropped)


def weak_equal(one: bytes, other: bytes) -> bool:
    """Weak comparison of entity tags (RFC 9110 section 8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")


def strong_equal(one: bytes, other: bytes) -> bool:
    return one == other and not one.startswith(b"W/")


def validators(stored: Fields) -> Fields:
    """The conditional fields that ask whether a stored response still holds; none if it has no validator."""
    asked: list[tuple[bytes, bytes]] = []
    tag = value_of(stored, b"etag")
    if tag:
        asked.append((b"if-none-match", tag))
    modified = values_of(stored, b"last-modified")
    if len(modified) == 1 and read_date(modified[0]) is not None:
        asked.append((b"if-modified-since", modified[0]))
    return tuple(asked)


def is_conditional(request: Fields) -> bool:
    return any(name in CONDITIONS for name, _ in request)


def not_modified(request: Fields, stored: Fields, received_s: float | None) -> bool:
    """Whether a stored 200 answers a client's condition with 304 (RFC 9111 section 4.3.2).

    If-None-Match goes before If-Modified-Since. Without Last-Modified the stored Date counts, without that the time
    of receipt.
    """
    asked = value_of(request, b"if-none-match")
    if asked is not None:
        tag = value_of(stored, b"etag")
        tags = split_list(asked)
        return b"*" in tags or (tag is not None and any(weak_equal(tag, other) for other in tags))
    since = date_of(request, b"if-modified-since")
    if since is None:
        return False
    for name in (b"last-modified", b"date"):
        moment = date_of(stored, name)
        if moment is not None:
            return moment <= since
    return received_s is not None and received_s <= since


def not_modified_fields(fields: Fields) -> Fields:
    """The fields of a 304 made from a stored response."""
    return tuple(pair for pair in fields if pair[0] in NOT_MODIFIED_FIELDS)


def same_representation(stored: Fields, update: Fields) -> bool:
    """Whether a 304 or a HEAD's 200 speaks of the stored response (RFC 9111 sections 4.3.4 and 4.3.5)."""
    old_tag, new_tag = value_of(stored, b"etag"), value_of(update, b"etag")
    if new_tag is not None and old_tag is not None:
        return weak_equal(old_tag, new_tag)
    old_date, new_date = date_of(stored, b"last-modified"), date_of(update, b"last-modified")
    return old_date is None or new_date is None or old_date == new_date


def same_length(stored: Fields, update: Fields) -> bool:
    """Whether a HEAD's Content-Length, where it has one, is the stored one."""
    length = value_of(update, b"content-length")
    return length is None or length == value_of(stored, b"content-length")


def freshened(stored: Fields, update: Fields) -> Fields:
    """Stored fields with those of a 304 or a HEAD in their place (RFC 9111 section 3.2).

    Content-Length stays as stored: it describes the stored body. So does everything of the connection.
    """
    update = tuple(pair for pair in without_hop_by_hop(update) if pair[0] not in (b"content-length", b"age"))
    names = {name for name, _ in update}
    return tuple(pair for pair in stored if pair[0] not in names) + update
