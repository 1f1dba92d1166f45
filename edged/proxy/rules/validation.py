"""Conditional requests in both directions (RFC 9110 section 13, RFC 9111 section 4.3), freshening by 304 and HEAD."""

from __future__ import annotations

from edged.http.fields import Fields, date_of, names_of, read_date, value_of, values_of
from edged.http.validators import weak_equal

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
# What Connection cannot take away: it is meant for every recipient (RFC 9110 section 7.6.1). Without these an answer
# would be kept for people, variants or times that it was not made for.
END_TO_END = frozenset(
    (
        b"age",
        b"cache-control",
        b"cache-groups",
        b"cdn-cache-control",
        b"content-digest",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-range",
        b"content-type",
        b"date",
        b"edged-cache-control",
        b"etag",
        b"expires",
        b"last-modified",
        b"location",
        b"pragma",
        b"repr-digest",
        b"set-cookie",
        b"vary",
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
    dropped = HOP_BY_HOP.union(names_of(fields, b"connection")) - END_TO_END
    return tuple(pair for pair in fields if pair[0] not in dropped)


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
