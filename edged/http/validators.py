"""Entity tags, Last-Modified, and what a request's conditions say of them (RFC 9110 sections 8.8 and 13).

`request` and `stored` are fields with lower-case names; `stored` are those of the representation that is there.
"""

from __future__ import annotations

from edged.http.fields import Fields, date_of, read_date, split_list, value_of

CONDITIONS = frozenset((b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"))


def weak_equal(one: bytes, other: bytes) -> bool:
    """Weak comparison of entity tags (section 8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")


def strong_equal(one: bytes, other: bytes) -> bool:
    """Strong comparison: a weak tag equals nothing, not even itself."""
    return one == other and not one.startswith(b"W/")


def names_tag(listed: bytes, tag: bytes | None) -> bool:
    """Whether If-None-Match names a representation's entity tag, None where it has none (section 13.1.2)."""
    if tag is not None and listed == tag:
        return True
    return any(member == b"*" or (tag is not None and weak_equal(member, tag)) for member in split_list(listed))


def is_conditional(request: Fields) -> bool:
    return any(name in CONDITIONS for name, _ in request)


def not_modified(request: Fields, stored: Fields, received_s: float | None = None) -> bool:
    """Whether a GET or HEAD is answered 304 (section 13.2.2, for caches RFC 9111 section 4.3.2).

    If-None-Match goes before If-Modified-Since. Without Last-Modified the stored Date counts, without that the time
    of receipt.
    """
    listed = value_of(request, b"if-none-match")
    if listed is not None:
        return names_tag(listed, value_of(stored, b"etag"))
    since = date_of(request, b"if-modified-since")
    if since is None:
        return False
    for name in (b"last-modified", b"date"):
        moment = date_of(stored, name)
        if moment is not None:
            return moment <= since
    return received_s is not None and received_s <= since


def precondition_failed(request: Fields, stored: Fields) -> bool:
    """Whether If-Match, or without it If-Unmodified-Since, asks for 412 (sections 13.1.1, 13.1.4 and 13.2.2)."""
    listed = value_of(request, b"if-match")
    if listed is not None:
        tag = value_of(stored, b"etag")
        return not any(
            member == b"*" or (tag is not None and strong_equal(member, tag)) for member in split_list(listed)
        )
    since, modified = date_of(request, b"if-unmodified-since"), date_of(stored, b"last-modified")
    return since is not None and modified is not None and modified > since


def if_range_holds(request: Fields, stored: Fields) -> bool:
    """Whether a Range counts: If-Range is absent, or names the stored entity tag strongly or its very Last-Modified
    (section 13.1.5).
    """
    asked = value_of(request, b"if-range")
    if asked is None:
        return True
    if asked[:1] == b'"' or asked[:2] == b"W/":
        return strong_equal(asked, value_of(stored, b"etag") or b"")
    since = read_date(asked)
    return since is not None and since == date_of(stored, b"last-modified")
