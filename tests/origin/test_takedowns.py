"""What is taken down is gone from the host: no snapshot, hop, dictionary or stray file holds it, in any slice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edged.errors import EdgedError, OriginError
from edged.feed import zstd
from edged.feed.bundle import read_layout
from edged.feed.chain import decode_page
from edged.feed.coding.hop import dictionary_tag, tag_of, unpack_hop
from edged.feed.coding.snapshot import decode_part, unpack_dictionary
from edged.origin import takedowns
from edged.origin.blobs.renewal import Renewal
from edged.origin.bundling import export_bundle
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.conftest import Clock
from tests.origin.devices import Content, Device, Memory
from tests.origin.test_publish import Films, edit, films, words

SECRET = "quicksilver"
NAME = ("titles", "t00007")
RULES = '[slices.br]\nwhere = { region = "BR" }\n'


def secret(number: int = 7, **more: object) -> tuple[str, str, dict[str, object]]:
    return "titles", f"t{number:05d}", {"title": f"{SECRET} {number}", "text": f"{words(number)} {SECRET}", **more}


def blobs_of(publisher: Publisher) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (publisher.public / "catalog" / "blobs").iterdir()}


def dictionaries_of(blobs: dict[str, bytes]) -> dict[bytes, bytes]:
    found = {tag_of(b""): b""}
    for data in blobs.values():
        try:
            content = unpack_dictionary(data)
        except EdgedError:
            continue
        found[tag_of(content)] = content
    return found


def readings(data: bytes, dictionaries: dict[bytes, bytes]) -> Iterator[bytes]:
    """A blob as it lies there, unpacked, and as a snapshot part."""
    yield data
    with suppress(EdgedError):
        yield zstd.decompress(data, "blob", 1 << 26)
    for dictionary in dictionaries.values():
        try:
            yield b"".join(value for _, _, value in decode_part(data, dictionary, max_bytes=1 << 26))
        except EdgedError:
            continue


def hop_texts(publisher: Publisher, contents: dict[int, Content], known: dict[bytes, bytes], name: str) -> list[bytes]:
    """The values that the chain's hops bring, each decoded against what the slice was at its beginning."""
    device = Device(publisher.path, "catalog")
    entry = device.chain(device.head()).slices[name]
    for page in entry.pages:
        entry = entry.with_page(page, decode_page(device.blob(page.blob), page))
    found = []
    for hop in entry.hops:
        data = device.blob(hop.blob)
        changes = unpack_hop(data, Memory(contents[hop.from_version]), known[dictionary_tag(data)])
        found += [change.value for change in changes if change.value is not None]
    return found


def assert_gone(publisher: Publisher, contents: dict[int, Content], known: dict[bytes, bytes]) -> None:
    blobs = blobs_of(publisher)
    known |= dictionaries_of(blobs)
    for name, data in blobs.items():
        for text in readings(data, dictionaries_of(blobs)):
            assert SECRET.encode() not in text, name
    assert not any(SECRET.encode() in text for text in hop_texts(publisher, contents, known, "core"))


class History:
    """A feed of several versions in some of which the secret stands, and a device left at each."""

    def __init__(self, publisher: Publisher, first: Films, following: list[Films]) -> None:
        self.publisher = publisher
        self.contents: dict[int, Content] = {0: {}}
        self.devices: dict[int, Device] = {}
        publisher.publish("catalog", first)
        self.leave()
        for edits in following:
            publisher.publish_changes("catalog", edits)
            self.leave()
        self.known = dictionaries_of(blobs_of(publisher))

    def leave(self) -> None:
        device = Device(self.publisher.path, "catalog")
        device.sync()
        self.devices[device.version] = device
        self.contents[device.held["core"][0]] = device.held["core"][1]

    def check(self) -> None:
        self.leave()
        assert_gone(self.publisher, self.contents, self.known)
        live = self.devices[max(self.devices)].held["core"][1]
        for device in self.devices.values():
            device.sync()
            assert device.held["core"][1] == live
            assert NAME not in live


@pytest.mark.parametrize(
    "following",
    [
        [[edit(1)], [edit(2)]],
        [[secret()], [edit(2)]],
        [[edit(1)], [secret()]],
        [[edit(1)], [edit(2)], [secret(n=1)], [edit(3)], [secret(n=2)], [edit(4)], [edit(5)], [edit(6)]],
        [[secret()], [("titles", "t00007", None)], [edit(3)]],
    ],
    ids=["in-the-snapshot", "before-the-last", "in-the-last-hop", "in-several", "removed-since"],
)
def test_no_blob_of_the_feed_holds_what_was_taken_down(publisher: Publisher, following: list[Films]) -> None:
    first = films(60)
    first[7] = (*NAME, {"title": SECRET, "text": f"{words(7)} {SECRET}"})
    history = History(publisher, first, following)
    assert any(
        SECRET.encode() in text for data in blobs_of(publisher).values() for text in readings(data, history.known)
    )
    publisher.takedown("catalog", *NAME[:1], NAME[1:])
    history.check()


def test_a_dictionary_with_a_sample_of_it_is_trained_anew_and_others_are_kept(publisher: Publisher) -> None:
    texts = [("titles", f"t{number:05d}", {"text": words(number)}) for number in range(400)]
    history = History(publisher, texts, [])
    before = history.devices[1].chain(history.devices[1].head()).slices["core"].snapshots[0].dictionary
    assert before is not None
    with publisher.reading("catalog") as state:
        sampled = {row[0] for row in state.rows("SELECT key FROM samples")}
    held, not_held = next(iter(sorted(sampled))), next(key for _, key, _ in texts if key not in sampled)
    for key, stays in ((not_held, True), (held, False)):
        publisher.takedown("catalog", "titles", [key])
        device = Device(publisher.path, "catalog")
        snapshot = device.chain(device.head()).slices["core"].snapshots[0]
        assert snapshot.dictionary is not None
        assert (snapshot.dictionary == before) is stays
        assert (publisher.public / "catalog" / "blobs" / before.name).exists() is stays
        content = unpack_dictionary(device.blob(snapshot.dictionary))
        assert words(int(key[1:])).encode() not in content
    for device in history.devices.values():
        device.sync()
        assert len(device.keys()) == 398


def test_devices_just_before_the_mistake_come_by_a_hop_and_not_by_a_snapshot(publisher: Publisher) -> None:
    history = History(publisher, films(300), [[edit(n)] for n in range(20, 25)] + [[secret()], [edit(30)]])
    publisher.takedown("catalog", "titles", ["t00007"])
    history.check()
    assert [device.snapshots for version, device in history.devices.items() if version >= 6] == [1, 1, 1, 1]


def test_other_slices_keep_their_snapshots(publisher: Publisher) -> None:
    (publisher.path / "catalog.toml").write_text(RULES)
    publisher.publish(
        "catalog", [*films(40), *(("titles", f"b{n}", {"region": "BR", "text": words(n)}) for n in range(40))]
    )

    def snapshots() -> dict[str, int]:
        device = Device(publisher.path, "catalog")
        chain = device.chain(device.head())
        return {name: entry.snapshots[0].version for name, entry in chain.slices.items()}

    publisher.publish_changes("catalog", [secret(99)])
    publisher.takedown("catalog", "titles", ["t00099"])
    assert snapshots() == {"core": 1, "br": 1}  # neither snapshot held the value that came after them
    publisher.takedown("catalog", "titles", ["b3"])
    assert snapshots() == {"core": 1, "br": 4}


def test_a_takedown_during_a_rollout_holds_for_both_versions(publisher: Publisher) -> None:
    first = films(60)
    first[7] = (*NAME, {"title": SECRET, "text": words(7)})
    publisher.publish("catalog", first)
    stable = Device(publisher.path, "catalog")
    stable.sync()
    publisher.publish_changes("catalog", [edit(3), secret(n=5)], PublishOptions(permille=100))
    before = stable.head().offer
    publisher.takedown("catalog", "titles", ["t00007"])
    head = stable.sync()
    after = head.offer
    assert before is not None
    assert after is not None
    assert (before.version, head.version, after.version) == (2, 3, 4)
    assert (after.salt, after.permille) == (before.salt, before.permille)
    assert stable.value("titles", "t00003") == first[3][2]
    assert NAME not in stable.held["core"][1]
    for data in blobs_of(publisher).values():
        assert not any(SECRET.encode() in text for text in readings(data, dictionaries_of(blobs_of(publisher))))
    publisher.rollout("catalog", 1000)
    stable.sync()
    assert stable.value("titles", "t00003") == edit(3)[2]
    assert NAME not in stable.held["core"][1]
    publisher.restore("catalog", "titles", ["t00007"])
    stable.sync()
    assert stable.value(*NAME) == secret(n=5)[2]


def test_an_unchanged_publish_and_a_second_takedown_leave_a_rollout_as_it_is(publisher: Publisher) -> None:
    publisher.publish("catalog", films(20))
    publisher.takedown("catalog", "titles", ["t00007"])
    publisher.publish_changes("catalog", [edit(3)], PublishOptions(permille=100))
    assert publisher.publish_changes("catalog", []).unchanged
    assert publisher.takedown("catalog", "titles", ["t00007"]).unchanged
    assert Device(publisher.path, "catalog").head().newest_version == 3


def test_a_kill_after_the_head_went_out_is_made_good_by_the_next_operation(
    publisher: Publisher, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = films(60)
    first[7] = (*NAME, {"title": SECRET, "text": words(7)})
    history = History(publisher, first, [[edit(1)]])

    def fail(*_: object, **more: object) -> None:
        raise OriginError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Renewal, "strike", fail)
        with pytest.raises(OriginError, match=r"version 3 is live, but .* the disk is full"):
            publisher.takedown("catalog", "titles", ["t00007"])
    hidden = Device(publisher.path, "catalog")
    hidden.sync()
    assert hidden.taken_down == {NAME}
    Publisher.open(publisher.path, clock=clock).resign("catalog")
    history.check()


def test_what_was_taken_down_is_listed_with_its_time_until_it_is_restored(publisher: Publisher, clock: Clock) -> None:
    publisher.publish("catalog", films(10))
    began = clock.now
    publisher.takedown("catalog", "titles", ["t00003", "never-was"])
    clock.now += 500
    publisher.takedown("catalog", "titles", ["t00003", "t00004"])
    with publisher.reading("catalog") as state:
        found = {item.key: (item.since, item.version) for item in takedowns.listed(state)}
    assert found == {"never-was": (began, 2), "t00003": (began, 2), "t00004": (began + 500, 3)}
    publisher.restore("catalog", "titles", ["t00003"])
    clock.now += 500
    publisher.takedown("catalog", "titles", ["t00003"])
    with publisher.reading("catalog") as state:
        assert takedowns.listed(state)[1].since == began + 1000


def test_files_of_a_killed_publish_go_with_the_takedown(publisher: Publisher) -> None:
    publisher.publish("catalog", films(20))
    stray = publisher.public / "catalog" / "blobs" / ("e" * 64)
    stray.write_bytes(SECRET.encode())
    publisher.takedown("catalog", "titles", ["t00007"])
    assert not stray.exists()


def test_old_values_go_though_the_journal_no_longer_tells_of_them(
    publisher: Publisher, clock: Clock, tmp_path: Path
) -> None:
    (publisher.path / "catalog.toml").write_text('[retention]\nversions = 4\ngrace = "7d"\n')
    first = films(60)
    first[7] = (*NAME, {"title": SECRET, "text": words(7)})
    history = History(publisher, first, [[edit(7)], *([edit(n)] for n in range(20, 32))])
    assert any(
        SECRET.encode() in text for data in blobs_of(publisher).values() for text in readings(data, history.known)
    )
    shutil.copytree(publisher.public, tmp_path / "copy")
    publisher.takedown("catalog", "titles", ["t00007"])
    history.check()


def test_no_bundle_carries_what_was_taken_down(publisher: Publisher, tmp_path: Path) -> None:
    first = films(60)
    first[7] = (*NAME, {"title": SECRET, "text": words(7)})
    history = History(publisher, first, [[secret(n=1)], [edit(3)]])
    publisher.takedown("catalog", "titles", ["t00007"])
    done = export_bundle(publisher.path, tmp_path / "bundle", "catalog")
    with (tmp_path / "bundle").open("rb") as file:
        layout = read_layout(file)
        carried = {ref.name: layout.read_blob(file, ref, "blob") for ref in layout.bundle.blobs}
    assert len(carried) == done.blobs > 2
    assert carried.items() <= blobs_of(publisher).items()  # of which none holds it
    history.check()
