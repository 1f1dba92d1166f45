"""Which URLs from outside are taken, and in which form they are sent."""

from __future__ import annotations

import pytest

from edged.http.urls import is_public, sound_url


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("https://origin.example/catalog", "https://origin.example/catalog"),
        ("HTTP://Origin.EXAMPLE:8080/A b".replace(" ", "%20"), "http://origin.example:8080/A%20b"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),  # IDNA 2008: not fass.example
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("http://例え.テスト/", "http://xn--r8jz45g.xn--zckzah/"),
        ("http://origin.example./x#fragment", "http://origin.example/x"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]:80/x"),
        ("http://10.0.0.1/x", "http://10.0.0.1/x"),
        ("http://my_host/x", "http://my_host/x"),
        ("http://a:65535/", "http://a:65535/"),
    ],
)
def test_sound(text: str, sent: str) -> None:
    assert sound_url(text) == sent


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with https://"),
        ("ftp://h/", "does not begin with https://"),
        ("//h/x", "does not begin with https://"),
        ("http://", "names no host"),
        ("http:///x", "names no host"),
        ("http://:80/", "names no host"),
        ("http://[bad/", "the host is no name or address"),
        ("http://[::1", "the host is no name or address"),
        ("http://[1.2.3.4]/", "the host is no name or address|no address"),
        ("http://h:0/", "the port is 0"),
        ("http://h:65536/", "not a number up to 65535"),
        ("http://h:x/", "not a number up to 65535"),
        ("http://h:-1/", "not a number up to 65535"),
        ("http://user@h/", "a user name or a password"),
        ("http://user:secret@h/", "a user name or a password"),
        ("http://h/?a=b", "has a query"),
        ("http://h/a b", "a blank or a control character"),
        ("http://h/\n", "a blank or a control character"),
        ("http://h\x7f/", "a blank or a control character"),
        ("http://a..b/", "no part of a host name"),
        ("http://-a.b/", "no part of a host name"),
        ("http://a-.b/", "no part of a host name"),
        ("http://a%2eb/", "no part of a host name"),
        (f"http://{'a' * 64}/", "no part of a host name"),
        (f"http://{'a.' * 126}ab/", "254 characters, 253 are allowed"),
        ("http://127.1/", "is no address"),
        ("http://2130706433/", "is no address"),
        ("http://0x7f000001/", "is no address"),
        ("http://1.2.3.256/", "is no address"),
        ("http://\u2024\u2024/", "no international host name"),
        ("http://a\u200db.example/", "no international host name"),
        (f"http://{'ü' * 60}.example/", "no international host name"),
        ("http://\ud800/", "host name"),
    ],
)
def test_unsound(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sound_url(text)


def test_the_longest_name_and_label_are_taken() -> None:
    assert sound_url(f"http://{'a' * 63}/")
    assert sound_url(f"http://{'a.' * 126}a/")


def test_a_query_is_kept_where_it_may_be() -> None:
    assert sound_url("http://h/x?a=b&c=%20ü#d", query=True) == "http://h/x?a=b&c=%20%C3%BC"


@pytest.mark.parametrize("host", ["example.com", "93.184.216.34", "2606:4700::1111", "[2606:4700::1111]"])
def test_the_network_at_large(host: str) -> None:
    assert is_public(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "localhost",
        "a.localhost",
        "box.local",
    ],
)
def test_this_device_and_its_own_network(host: str) -> None:
    assert not is_public(host)
