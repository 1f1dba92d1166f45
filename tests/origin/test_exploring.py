"""What the explorer asks of an origin: answered as a device would, of what is published and not taken down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.errors import RequestError
from edged.http.application import InThread, Response
from edged.http.request import Request
from edged.ops.origin import OriginAdmin
from edged.origin.publisher import Publisher
from edged.origin.serving import exploring
from edged.origin.serving.exploring import explored
from edged.origin.serving.server import Observed
from tests.origin.conftest import Clock
from tests.origin.test_publish import films
from tests.system.programs import Device, Origin, get

DECLARED = """
[collections.titles]
index = ["year"]
order = ["year"]
text = ["title"]
refs = { "next" = "titles" }
[views.small.titles]
fields = ["title"]
"""


def test_a_device_and_an_origin_say_the_same(tmp_path: Path) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    (tmp_path / "feed/catalog.toml").write_text(DECLARED)
    records = [("titles", f"a/{number}", {"title": f"Film {number}", "year": 1990 + number}) for number in range(30)]
    publisher.publish("catalog", records)
    publisher.publish_changes("catalog", [("titles", "a/3", None), ("titles", "a/4", {"title": "ß", "year": 1})])
    publisher.takedown("catalog", "titles", ["a/5"])
    origin = Origin(tmp_path / "feed")
    device = Device(tmp_path, origin)
    with device.running(device.configure(origin.public.as_uri())) as daemon:
        daemon.wait_version(3)
        theirs, ours = get(f"{daemon.apps}/v1/catalog").json, explored(tmp_path / "feed", ["catalog"], {})
        assert {name: ours[name] for name in ours if name != "state"} == {
            name: theirs[name] for name in ours if name != "state"
        } | {"as_of": ours["as_of"]}
        query = "?limit=20"
        for _ in range(2):
            page = get(f"{daemon.apps}/v1/catalog/titles{query}").json
            asked = dict(part.split("=") for part in query[1:].split("&"))
            assert explored(tmp_path / "feed", ["catalog", "titles"], asked) == page
            query = f"?limit=20&after={page['next']}"
        keys = get(f"{daemon.apps}/v1/catalog/titles?keys=a%2F4,a%2F5,a%2F6").json
        assert explored(tmp_path / "feed", ["catalog", "titles"], {"keys": "a/4,a/5,a/6"}) == keys
        assert explored(tmp_path / "feed", ["catalog", "titles", "a", "4"], {}) == {"title": "ß", "year": 1}


@pytest.fixture
def feed(publisher: Publisher) -> Path:
    publisher.publish("catalog", films(5))
    publisher.takedown("catalog", "titles", ["t00001"])
    return publisher.path


@pytest.mark.parametrize(
    ("segments", "asked", "status"),
    [
        (["nope"], {}, 404),
        (["../private"], {}, 404),
        (["catalog", "titles", "none"], {}, 404),
        (["catalog", "titles", "t00001"], {}, 404),  # taken down
        (["catalog", "titles"], {"where.year": "1990"}, 400),
        (["catalog", "changes"], {"since": "1"}, 400),
        (["catalog", "titles"], {"limit": "0"}, 400),
        (["catalog", "titles"], {"limit": "9" * 30}, 400),
        (["catalog", "titles"], {"limit": "x"}, 400),
    ],
)
def test_what_an_origin_cannot_answer_says_why(
    feed: Path, segments: list[str], asked: dict[str, str], status: int
) -> None:
    with pytest.raises(RequestError) as caught:
        explored(feed, segments, asked)
    assert caught.value.status == status


def test_a_page_is_bounded_by_bytes_too(feed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploring, "PAGE_BYTES", 1)
    seen: list[str] = []
    after: Any = ""
    while after is not None:
        found = explored(feed, ["catalog", "titles"], {"after": after})
        seen += [one["key"] for one in found["items"]]
        assert len(found["items"]) <= 1
        after = found["next"]
    assert seen == ["t00000", "t00002", "t00003", "t00004"]


async def test_it_is_on_the_listener_for_operators_with_its_page(feed: Path, clock: Clock) -> None:
    admin = OriginAdmin(feed, Observed.of(feed, clock), clock)
    for target, status, told in (
        ("/v1", 200, '"origin": true'),
        ("/v1/catalog/titles/t00002", 200, "{"),
        ("/v1/catalog/titles/%ff", 400, "detail"),
        ("/v1/catalog/titles?q=x", 400, "ask a device"),
        ("/pages/explorer.html", 200, "What apps can ask"),
    ):
        answer = admin.answer(Request("GET", target.encode(), ((b"host", b"localhost"),)))
        if isinstance(answer, InThread):
            answer = answer.work()
        assert isinstance(answer, Response)
        assert answer.status == status, target
        assert told in answer.body.decode()
