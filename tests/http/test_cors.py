"""Several Origin fields are none: whoever adds one of its own to that of a page is not let in by it."""

from __future__ import annotations

import pytest

from edged.errors import RequestError
from edged.http.cors import CorsRule
from edged.http.request import Request

TV, EVIL = b"https://tv.example", b"https://evil.example"
RULE = CorsRule.of([TV.decode(), "https://second.example"], b"ETag", b"Accept")
SEVERAL = [(TV, EVIL), (EVIL, TV), (TV, TV), (TV, b"https://second.example"), (TV, b"")]


def asked(*origins: bytes, method: str = "GET", **more: bytes) -> Request:
    fields = [(b"host", b"localhost"), *((b"origin", origin) for origin in origins)]
    fields += [(name.replace("_", "-").encode(), value) for name, value in more.items()]
    return Request(method, b"/v1", tuple(fields))


def test_one_origin_of_ours_may_read() -> None:
    assert RULE.fields(asked(TV))[0] == (b"Access-Control-Allow-Origin", TV)
    assert RULE.admits_page(asked(TV))
    assert RULE.options(asked(TV, method="OPTIONS", access_control_request_method=b"GET")).status == 204


@pytest.mark.parametrize("origins", SEVERAL)
def test_of_several_origins_none_counts(origins: tuple[bytes, ...]) -> None:
    assert RULE.fields(asked(*origins)) == ()
    assert not RULE.admits_page(asked(*origins))
    with pytest.raises(RequestError) as caught:
        RULE.options(asked(*origins, method="OPTIONS", access_control_request_method=b"GET"))
    assert caught.value.status == 403


@pytest.mark.parametrize("listed", [TV + b", " + EVIL, TV + b"," + TV, TV + b" " + EVIL])
def test_a_list_of_origins_is_none_of_ours(listed: bytes) -> None:
    assert RULE.fields(asked(listed)) == ()
    assert not RULE.admits_page(asked(listed))
