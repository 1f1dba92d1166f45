"""Heads never name blobs that are not there; what was lost on the host, or of the publisher's state, is made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edged.errors import OriginError, StoreError
from edged.feed.chain import decode_chain
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.devices import Device
from tests.origin.test_publish import edit, films, words


@pytest.fixture
def feed(publisher: Publisher) -> Publisher:
    """Some versions, of a slice beside core, with a takedown."""
    (publisher.path / "catalog.toml").write_text('[slices.br]\nwhere = { region = ["BR", "*"] }\n')
    brazil = [("titles", f"b{number}", {"region": "BR", "text": words(number)}) for number in range(50)]
    publisher.publish("catalog", [*films(200), *brazil])
    for number in range(6):
        publisher.publish_changes("catalog", [edit(number), ("titles", f"b{number}", {"region": "*", "n": number})])
    publisher.takedown("catalog", "titles", ["t00100"])
    return publisher


def blobs(publisher: Publisher) -> Path:
    return publisher.public / "catalog" / "blobs"


def named_kinds(publisher: Publisher) -> dict[str, list[str]]:
    """Names of the blobs that the live head leads to, by kind."""
    with publisher.reading("catalog") as state:
        rows = list(state.rows("SELECT kind, sha256 FROM blobs WHERE unnamed_since IS NULL"))
    found: dict[str, list[str]] = {}
    for kind, sha256 in rows:
        found.setdefault(kind, []).append(sha256.hex())
    return found


def content(publisher: Publisher) -> dict[str, object]:
    device = Device(publisher.path, "catalog", ("core", "br"))
    device.sync()
    return {name: device.held[name][1] for name in device.slices} | {"down": device.taken_down}


def test_a_whole_feed_has_no_faults(feed: Publisher) -> None:
    report = feed.verify("catalog")
    assert (report.faults, report.version, report.mended) == ([], 8, False)
    kinds = named_kinds(feed)
    assert report.blobs == sum(len(names) for names in kinds.values())
    assert report.bytes == sum((blobs(feed) / name).stat().st_size for names in kinds.values() for name in names)


@pytest.mark.parametrize("how", ["missing", "damaged", "short"])
@pytest.mark.parametrize("kind", ["part", "hop", "dictionary", "chain", "takedowns"])
def test_a_blob_that_is_lost_is_named_and_made_anew(feed: Publisher, kind: str, how: str) -> None:
    before = content(feed)
    old = Device(feed.path, "catalog", ("core", "br"))
    old.sync()
    for name in named_kinds(feed)[kind][:2]:
        path = blobs(feed) / name
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + (b"" if how == "short" else b"?"))
    report = feed.verify("catalog")
    assert report.faults
    assert all(word in report.faults[0] for word in (kind, "catalog" if how == "missing" else "blob"))
    assert not report.mended
    assert feed.verify("catalog", mend=True).mended
    assert feed.verify("catalog").faults == []
    assert content(feed) == before
    feed.publish_changes("catalog", [edit(150)])
    old.sync()
    assert old.value("titles", "t00150") == edit(150)[2]


def test_a_head_that_would_name_what_is_gone_is_not_signed(feed: Publisher) -> None:
    before = (feed.public / "catalog" / "head").read_bytes()
    (blobs(feed) / named_kinds(feed)["part"][0]).unlink()
    for operation in (lambda: feed.publish_changes("catalog", [edit(20)]), lambda: feed.resign("catalog")):
        with pytest.raises(OriginError, match=r"1 of the \d+ blobs .* edged origin verify --mend"):
            operation()
    assert (feed.public / "catalog" / "head").read_bytes() == before


@pytest.mark.parametrize("lost", ["public/catalog", "public"])
def test_a_lost_public_directory_is_made_anew(feed: Publisher, lost: str) -> None:
    before = content(feed)
    shutil.rmtree(feed.path / lost)
    with pytest.raises(OriginError, match="verify --mend"):
        feed.publish_changes("catalog", [edit(20)])
    report = feed.verify("catalog", mend=True)
    assert "no head" in report.faults[0]
    assert content(feed) == before
    assert feed.publish_changes("catalog", [edit(20)]).version == 9
    assert feed.verify("catalog").faults == []


@pytest.mark.parametrize("lost", ["private/state/catalog.db", "private/state"])
def test_a_lost_state_is_made_anew_from_what_is_public(feed: Publisher, lost: str) -> None:
    before = content(feed)
    devices = [Device(feed.path, "catalog", ("core", "br")) for _ in range(2)]
    devices[0].sync()
    feed.publish_changes("catalog", [edit(21)])
    devices[1].sync()
    live = content(feed)
    feed.forget_state("catalog")
    if lost == "private/state":
        shutil.rmtree(feed.path / lost)
    with pytest.raises(StoreError, match=r"state .* is gone; restore it .* edged origin verify .* --mend"):
        feed.publish_changes("catalog", [edit(20)])
    assert not feed.state_path("catalog").exists()
    report = feed.verify("catalog", mend=True)
    assert (report.version, report.mended) == (9, True)
    assert content(feed) == live
    assert feed.verify("catalog").faults == []
    result = feed.publish("catalog", [*films(200), ("titles", "b1", {"region": "BR"})])
    assert (result.version, result.removed) == (10, 49)  # of what is taken down nothing is counted
    for device in devices:
        device.sync()
        assert device.value("titles", "t00021") == films(22)[21][2]
        assert device.taken_down == before["down"]
    fresh = Device(feed.path, "catalog", ("core", "br"))
    fresh.sync()
    assert fresh.held == devices[0].held
    with pytest.raises(OriginError, match="versions 9 to 10 are retained"):
        feed.rollback("catalog", 8)
    assert feed.rollback("catalog", 9).version == 11
    assert content(feed) == live
    feed.restore("catalog", "titles", ["t00100"])


def test_a_state_cannot_be_made_from_a_feed_that_is_damaged_too(feed: Publisher) -> None:
    (blobs(feed) / named_kinds(feed)["part"][0]).unlink()
    feed.forget_state("catalog")
    with pytest.raises(StoreError):
        feed.verify("catalog", mend=True)
    assert not feed.state_path("catalog").exists()


def test_a_state_lost_during_a_rollout_is_not_guessed(feed: Publisher) -> None:
    feed.publish_changes("catalog", [edit(20)], PublishOptions(permille=10))
    feed.forget_state("catalog")
    with pytest.raises(OriginError, match="was being offered"):
        feed.verify("catalog", mend=True)
    assert not feed.state_path("catalog").exists()


def test_a_chain_is_not_needed_to_make_it_anew(feed: Publisher) -> None:
    device = Device(feed.path, "catalog")
    chain = decode_chain((blobs(feed) / device.head().chain.name).read_bytes())
    for name in named_kinds(feed)["chain"]:
        (blobs(feed) / name).unlink()
    feed.resign("catalog")  # it is written with each head
    assert device.chain(device.head()) == chain
