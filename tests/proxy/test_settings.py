"""Settings and directories that cannot be used are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.cli.main import build_parser
from edged.errors import ConfigError
from edged.proxy.settings import ProxySettings, Route


def test_a_directory_without_a_store_is_named(tmp_path: Path) -> None:
    words = ["cache", "ls", "--dir", str(tmp_path)]
    args = build_parser(words).parse_args(words)
    with pytest.raises(ConfigError, match="keeps nothing there"):
        args.run(args)


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([Route("/a", "ftp://x")], "upstream is"),
        ([Route("/a", "http://user@x")], "upstream is"),
        ([Route("/a", "http://x?y")], "upstream is"),
        ([Route("a", "http://x")], "absolute path"),
        ([Route("/v1/x", "http://x")], "edged's own"),
        ([Route("/a", "http://x"), Route("/a/", "http://y")], "twice"),
        ([Route("/a", "https://x", cert="a")], "go together"),
    ],
)
def test_a_route_that_cannot_be_served_is_named(routes: list[Route], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProxySettings(routes=tuple(routes)).check()
