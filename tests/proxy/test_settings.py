"""Settings and directories that cannot be used are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.cli.main import build_parser
from edged.configfile import load
from edged.errors import ConfigError
from edged.proxy.upstream.upstream import Upstream


def test_a_directory_without_a_store_is_named(tmp_path: Path) -> None:
    words = ["cache", "ls", "--dir", str(tmp_path)]
    args = build_parser(words).parse_args(words)
    with pytest.raises(ConfigError, match="keeps nothing there"):
        args.run(args)


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([("/a", "ftp://x")], "line 3: proxy.routes.upstream: .*http"),
        ([("/a", "http://user@x")], "line 3: proxy.routes.upstream"),
        ([("/a", "http://x?y")], "line 3: proxy.routes.upstream"),
        ([("/a", "http://x:0")], "line 3: proxy.routes.upstream: .*the port is 0"),
        ([("/a", "http://x:65536")], "line 3: proxy.routes.upstream: .*a number up to 65535"),
        ([("/a", "http://[bad/")], "line 3: proxy.routes.upstream: .*no name or address"),
        ([("/a", "http://a\u200db.example")], "line 3: proxy.routes.upstream: .*no international host name"),
        ([("a", "http://x")], "line 2: proxy.routes.prefix: .*absolute path"),
        ([("/v1/x", "http://x")], "line 2: proxy.routes.prefix: .*not below /v1"),
        ([("/a", "http://x"), ("/a/", "http://y")], "line 5: proxy.routes.prefix: .*twice"),
        ([("/a", 'https://x"\ncert = "/dev/null')], "proxy.routes.cert: .*go together"),
    ],
)
def test_a_route_that_cannot_be_served_is_named_with_its_line(
    tmp_path: Path, routes: list[tuple[str, str]], message: str
) -> None:
    path = tmp_path / "edged.toml"
    text = "".join(f'[[proxy.routes]]\nprefix = "{prefix}"\nupstream = "{upstream}"\n' for prefix, upstream in routes)
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("upstream", "host", "hostname"),
    [
        ("http://x:1", b"x:1", "x"),
        ("http://x:65535", b"x:65535", "x"),
        ("https://[::1]:8080/base", b"[::1]:8080", "::1"),
        ("http://xn--bcher-kva", b"xn--bcher-kva", "xn--bcher-kva"),
        ("http://Bücher.example", b"xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_urls_at_the_edges_of_what_is_sound_are_taken(
    tmp_path: Path, upstream: str, host: bytes, hostname: str
) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(f'[[proxy.routes]]\nprefix = "/a"\nupstream = "{upstream}"\n')
    made = Upstream(load(path).proxy.routes[0], lambda upstream: None)
    assert (made.host, made.hostname) == (host, hostname)
