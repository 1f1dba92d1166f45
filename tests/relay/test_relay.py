"""A relay hands on what it has verified, to whoever asks, whether anything above it is there or not."""

from __future__ import annotations

import json
import shutil
import ssl
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import trio

from edged.errors import StoreError
from edged.feed.blob import BlobRef
from edged.feed.trust.root import VerifiedHead
from edged.files import write_durable
from edged.origin.ahead import preparing
from edged.origin.ahead.preparing import AheadOptions
from edged.origin.input.reading import Values
from edged.origin.publisher import Publisher, PublishOptions
from edged.relay import relay as relaying
from edged.relay.cache import BlobCache
from edged.relay.relay import Relay, RelaySettings
from edged.sync.subscription import Subscription
from tests.relay.stations import (
    DEADLINE_S,
    QUOTA,
    as_content,
    complete,
    content,
    edit,
    following,
    origin_of,
    relay_of,
    synced,
    titles,
    until,
)

CONTEXT = ssl.create_default_context()  # for all: making one takes as long as a test


@pytest.fixture
def feed(tmp_path: Path) -> Publisher:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", titles())
    return publisher


async def publish(feed: Publisher, number: int, edition: int) -> None:
    await trio.to_thread.run_sync(feed.publish_changes, "catalog", edit(number, edition))


async def publish_share(feed: Publisher, permille: int) -> None:
    await trio.to_thread.run_sync(feed.rollout, "catalog", permille)


async def get(url: str, **headers: str) -> httpx2.Response:
    with trio.fail_after(DEADLINE_S):
        async with httpx2.AsyncClient(verify=CONTEXT) as client:
            return await client.get(url, headers={key.replace("_", "-"): value for key, value in headers.items()})


def blobs_of(feed: Publisher) -> list[str]:
    return sorted(path.name for path in (feed.public / "catalog" / "blobs").iterdir())


async def test_three_tiers_bring_edits_and_serve_newcomers_when_all_above_is_gone(
    feed: Publisher, tmp_path: Path
) -> None:
    changed = titles()
    async with relay_of(following(feed, "http://127.0.0.1:1"), tmp_path / "none"):
        pass  # one that never reaches anything ends as well
    async with trio.open_nursery() as nursery:
        above = trio.CancelScope()
        ready: trio.MemorySendChannel[tuple[Relay, str]]
        ready, arrived = trio.open_memory_channel[tuple[Relay, str]](1)

        async def all_above() -> None:
            with above:
                async with origin_of(feed) as url, relay_of(following(feed, url), tmp_path / "a") as first:
                    await ready.send(first)
                    await trio.sleep_forever()

        nursery.start_soon(all_above)
        middle, middle_url = await arrived.receive()
        async with relay_of(following(feed, middle_url), tmp_path / "b") as (lowest, url):
            outcome = await synced(tmp_path / "old", feed, url)
            assert (outcome.version, outcome.error) == (1, None)
            for edition in range(2, 6):
                await publish(feed, edition, edition)
                changed[edition] = edit(edition, edition)[0]
                began = trio.current_time()
                await until(lambda version=edition: lowest.feeds["catalog"].document()["version"] == version)  # type: ignore[misc]
                assert trio.current_time() - began < 5
            await complete(lowest, 5)
            assert (await synced(tmp_path / "old", feed, url)).version == 5
            above.cancel()
            await until(lambda: not lowest.feeds["catalog"].document()["connected"])
            newcomer = await synced(tmp_path / "new", feed, url)
            assert (newcomer.version, newcomer.error) == (5, None)
            behind = await get(f"{url}/catalog/head")
            assert behind.content == (feed.public / "catalog" / "head").read_bytes()
    assert content(tmp_path / "new", feed) == content(tmp_path / "old", feed) == as_content(changed)
    assert middle.feeds == {}


async def test_polls_are_held_on_while_a_version_is_offered(feed: Publisher, tmp_path: Path) -> None:
    """A head that came with a number and no tag is known to the origin all the same, with its offer."""
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
        await publish(feed, 3, 2)
        await complete(relay, 2)
        offered = PublishOptions(permille=50)
        await trio.to_thread.run_sync(feed.publish_changes, "catalog", edit(4, 2), offered)
        await complete(relay, 3)
        await publish_share(feed, 250)
        follower = relay.feeds["catalog"].follower
        await until(lambda: follower.trusted.newest_head.head.offer.permille == 250)  # type: ignore[union-attr]
        await trio.sleep(0.1)  # another look, were there one
        assert follower.rotation.held_wait_s(trio.current_time()) > 0


async def test_a_relay_that_starts_with_nothing_above_serves_what_it_held(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as url, relay_of(following(feed, url), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
    stray = tmp_path / "relay" / "catalog" / "blobs" / ".tmp-half"
    stray.write_bytes(b"half of a blob")
    async with relay_of(following(feed, "http://127.0.0.1:1"), tmp_path / "relay") as (relay, url):
        await until(lambda: relay.current("catalog") is not None)
        assert (await synced(tmp_path / "device", feed, url)).error is None
        assert relay.status()["fetches"] == 0
    assert content(tmp_path / "device", feed) == as_content(titles())
    assert not stray.exists()


async def test_a_relay_with_room_for_no_blob_hands_them_on_all_the_same(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above:
        settings = replace(following(feed, above), quota=0)
        async with relay_of(settings, tmp_path / "relay") as (relay, url):
            await complete(relay, 1)
            assert (await synced(tmp_path / "device", feed, url)).error is None
            assert (relay.cache.used, relay.status()["store_failures"]) == (0, 0)
    assert content(tmp_path / "device", feed) == as_content(titles())


async def test_many_who_ask_for_one_blob_cost_one_request_above(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above:
        settings = following(feed, above, prefetch="none")
        async with relay_of(settings, tmp_path / "relay") as (relay, url):
            await complete(relay, 1)
            before = relay.status()["fetches"]
            name = next(
                name for name in blobs_of(feed) if not relay.cache.path(("catalog", bytes.fromhex(name))).exists()
            )
            answers: list[httpx2.Response] = []

            async def ask() -> None:
                answers.append(await get(f"{url}/catalog/blobs/{name}"))

            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(ask)
            whole = (feed.public / "catalog" / "blobs" / name).read_bytes()
            assert {(answer.status_code, answer.content) for answer in answers} == {(200, whole)}
            assert relay.status()["fetches"] == before + 1
            part = await get(f"{url}/catalog/blobs/{name}", Range="bytes=3-9")
            assert (part.status_code, part.content) == (206, whole[3:10])
            assert part.headers["cache-control"] == "public, max-age=31536000, immutable"
            same = await get(f"{url}/catalog/blobs/{name}", If_None_Match=part.headers["etag"])
            assert same.status_code == 304


async def test_a_relay_hands_on_a_version_ahead_and_its_release(feed: Publisher, tmp_path: Path) -> None:
    edits = edit(3, 1)
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        assert (await synced(tmp_path / "device", feed, url)).version == 1
        with feed.at_work("catalog") as place:
            preparing.prepare(place, Values(edits, edits=True), AheadOptions(spread_s=0))
        ahead = feed.believed_head("catalog").ahead
        assert ahead is not None
        sealed = ahead.hops["core"].blob
        await until(lambda: ("catalog", sealed.sha256) in relay.cache.blobs)  # before anybody asks
        (feed.public / "catalog" / "blobs" / sealed.name).rename(tmp_path / "gone")
        assert (await synced(tmp_path / "device", feed, url)).error is None
        assert (tmp_path / "device" / "catalog" / "ahead" / sealed.name).exists()
        (tmp_path / "gone").rename(feed.public / "catalog" / "blobs" / sealed.name)
        with feed.at_work("catalog") as place:
            preparing.release(place)
        await complete(relay, 2)
        outcome = await synced(tmp_path / "device", feed, url)
        assert (outcome.version, outcome.error) == (2, None)
    assert content(tmp_path / "device", feed) == as_content(titles()) | as_content(edits)


async def test_a_device_that_has_the_next_head_already_is_not_sent_away(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        held = set(blobs_of(feed))
        answers: list[httpx2.Response] = []

        async def ask(name: str) -> None:
            answers.append(await get(f"{url}/catalog/blobs/{name}"))

        show, relay.feeds["catalog"].follower.on_head = relay.feeds["catalog"].show, lambda head: kept.append(head)
        kept: list[VerifiedHead] = []
        await publish(feed, 1, 2)
        await until(lambda: bool(kept))
        new = sorted(set(blobs_of(feed)) - held)
        async with trio.open_nursery() as nursery:
            for name in new:
                nursery.start_soon(ask, name)
            await trio.sleep(0.3)
            assert answers == []
            show(kept[-1])
        assert {answer.status_code for answer in answers} == {200}


async def test_names_that_no_head_leads_to_are_refused_without_asking_above(
    feed: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.relay.blobs.UNKNOWN_WAIT_S", 0.05)
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        before = dict(relay.status()) | {"waiting": 0}
        foreign = feed.public / "catalog" / "blobs" / BlobRef.of(b"not of the feed").name
        foreign.write_bytes(b"not of the feed")
        for target in (f"blobs/{foreign.name}", f"blobs/{'0' * 64}", "blobs/..%2Fhead", "trust/2", "trust/99", "other"):
            assert (await get(f"{url}/catalog/{target}")).status_code == 404
        after = relay.status()
        assert (after["fetches"], after["failures"]) == (before["fetches"], before["failures"])


@pytest.mark.parametrize("above_is_there", [True, False])
async def test_a_file_that_has_decayed_is_never_handed_on(
    feed: Publisher, tmp_path: Path, above_is_there: bool
) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
    name = max(blobs_of(feed), key=lambda name: (feed.public / "catalog" / "blobs" / name).stat().st_size)
    held = tmp_path / "relay" / "catalog" / "blobs" / name
    whole = held.read_bytes()
    held.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    async with origin_of(feed) as above:
        origin = above if above_is_there else "http://127.0.0.1:1"
        async with relay_of(following(feed, origin, prefetch="none"), tmp_path / "relay") as (relay, url):
            await until(lambda: relay.current("catalog") is not None)
            answer = await get(f"{url}/catalog/blobs/{name}")
            if above_is_there:
                assert (answer.status_code, answer.content) == (200, whole)
            else:
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
            assert relay.status()["damaged"] == 1
            assert (await get(f"{url}/catalog/head")).status_code == 200


async def test_a_file_that_was_removed_is_fetched_again(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        shutil.rmtree(tmp_path / "relay" / "catalog")
        assert (await synced(tmp_path / "device", feed, url)).error is None
        await publish(feed, 1, 2)
        await complete(relay, 2)
        assert (tmp_path / "relay" / "catalog" / "head").exists()


async def test_neither_a_forged_head_nor_an_outdated_one_nor_a_wrong_blob_goes_out(
    feed: Publisher, tmp_path: Path
) -> None:
    stranger = Publisher.init(tmp_path / "stranger")
    for count in range(3, 9):
        stranger.publish("catalog", titles(count))
    head = feed.public / "catalog" / "head"
    first = head.read_bytes()
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
        await publish(feed, 1, 2)
        await complete(relay, 2)
    second = head.read_bytes()
    files = (feed.public / "catalog").as_uri()
    settings = RelaySettings((Subscription("catalog", (files,), str(feed.trust_path), poll_s=1),), QUOTA)
    for data, words in (
        ((stranger.public / "catalog" / "head").read_bytes(), "key"),
        (first, "rollback"),
        (second[:-1] + bytes([second[-1] ^ 1]), "signature"),
        (b"<html>log in</html>", ""),
    ):
        head.write_bytes(data)
        async with relay_of(settings, tmp_path / "relay") as (relay, url):
            await until(lambda: relay.feeds["catalog"].follower.status.last_error is not None)
            assert words in str(relay.feeds["catalog"].document()["last_error"])
            assert (await get(f"{url}/catalog/head")).content == second
    head.write_bytes(second)
    shutil.rmtree(tmp_path / "relay")
    for path in (feed.public / "catalog" / "blobs").iterdir():
        path.write_bytes(bytes(len(path.read_bytes())))
    async with relay_of(settings, tmp_path / "relay") as (relay, url):
        await until(lambda: relay.feeds["catalog"].blobs.last_error is not None)
        for name in blobs_of(feed):
            answer = await get(f"{url}/catalog/blobs/{name}")  # what the head brought itself is held
            assert answer.status_code in (404, 503) or BlobRef.of(answer.content).name == name
        for path in (tmp_path / "relay").rglob("blobs/*"):
            assert BlobRef.of(path.read_bytes()).name == path.name


async def test_another_publishers_trust_file_lets_go_of_what_was_held(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
    other = Publisher.init(tmp_path / "other")
    other.publish("catalog", titles(5))
    async with origin_of(other) as above, relay_of(following(other, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        assert (await synced(tmp_path / "device", other, url)).error is None
    assert content(tmp_path / "device", other) == as_content(titles(5))


async def test_roots_of_trust_are_handed_on_from_the_first_to_the_newest(feed: Publisher, tmp_path: Path) -> None:
    factory = tmp_path / "factory.trust"
    factory.write_bytes(feed.trust_path.read_bytes())
    for _ in range(2):
        await trio.to_thread.run_sync(feed.rotate_key)
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
        await trio.to_thread.run_sync(lambda: feed.rotate_key(new_root_keys=True))
        relay.feeds["catalog"].follower.roots_due = 0.0  # a day later
        await publish(feed, 1, 2)
        await complete(relay, 2)
    async with relay_of(following(feed, "http://127.0.0.1:1"), tmp_path / "relay") as (relay, url):
        await until(lambda: relay.current("catalog") is not None)
        count = len(list((feed.public / "catalog" / "trust").iterdir()))
        assert count >= 4
        for number in range(1, count + 1):
            served = await get(f"{url}/catalog/trust/{number}")
            assert served.content == (feed.public / "catalog" / "trust" / str(number)).read_bytes()
        assert (await get(f"{url}/catalog/trust/{count + 1}")).status_code == 404
        feed.trust_path.write_bytes(factory.read_bytes())  # a box that lay in a shop for years
        assert (await synced(tmp_path / "device", feed, url)).error is None


async def test_datasets_of_a_pattern_are_followed_once_somebody_asks(feed: Publisher, tmp_path: Path) -> None:
    feed.publish("tv-br", titles(4))
    feed.publish("radio", titles(4))
    async with origin_of(feed) as above:
        settings = RelaySettings(
            (), QUOTA, origins=("http://127.0.0.1:1", above), patterns=("tv-*", "cat*"), trust=str(feed.trust_path)
        )
        async with relay_of(settings, tmp_path / "relay") as (relay, url):
            assert relay.feeds == {}
            assert (await synced(tmp_path / "one", feed, url, dataset="tv-br")).error is None
            assert (await synced(tmp_path / "two", feed, url)).error is None
            assert sorted(relay.feeds) == ["catalog", "tv-br"]
            assert (await get(f"{url}/radio/head")).status_code == 404
            assert (await get(f"{url}/tv-xx/head")).status_code == 404
            listing = json.loads((await get(f"{url}/")).content)
            assert {name: item["version"] for name, item in listing["datasets"].items()} == {"catalog": 1, "tv-br": 1}
    settings = RelaySettings((), QUOTA, origins=("http://127.0.0.1:1",), patterns=("*",), trust=str(feed.trust_path))
    async with relay_of(settings, tmp_path / "relay") as (relay, url):
        await until(lambda: relay.datasets() == ["catalog", "tv-br"])
        unreachable = await get(f"{url}/radio/head")
        assert (unreachable.status_code, unreachable.headers["retry-after"]) == (503, "5")
        assert (await get(f"{url}/tv-br/head")).status_code == 200


async def test_names_that_are_guessed_are_let_go_and_few_at_once(
    feed: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "MOST_EXPECTED", 2)
    monkeypatch.setattr(relaying, "FORGET_S", 3.0)
    async with origin_of(feed) as above:
        settings = RelaySettings((), QUOTA, origins=(above,), patterns=("*",), trust=str(feed.trust_path))
        async with relay_of(settings, tmp_path / "relay") as (relay, url):
            assert [(await get(f"{url}/guess{number}/head")).status_code for number in range(3)] == [404, 404, 503]
            await until(lambda: not relay.feeds)
            assert (await get(f"{url}/catalog/head")).status_code == 200
    assert [path.name for path in (tmp_path / "relay").iterdir()] == ["catalog"]


async def test_the_first_origin_that_answers_is_used(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "a") as (_, near):
        settings = following(feed, "http://127.0.0.1:1", near, above)
        async with relay_of(settings, tmp_path / "b") as (relay, url):
            await complete(relay, 1)
            assert relay.feeds["catalog"].document()["origin"] == f"{near}/catalog"
            assert (await synced(tmp_path / "device", feed, "http://127.0.0.1:1", url)).error is None


async def test_what_is_taken_down_leaves_the_relay(
    feed: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.relay.following.HURRY_WAIT_S", 1)
    monkeypatch.setattr("edged.relay.blobs.UNKNOWN_WAIT_S", 0.05)
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await publish(feed, 7, 2)
        await complete(relay, 2)
        assert (await synced(tmp_path / "device", feed, url)).error is None
        before = {path.name for path in (tmp_path / "relay").rglob("blobs/*")}
        await trio.to_thread.run_sync(feed.takedown, "catalog", "titles", ["t0007"])
        await complete(relay, 3)
        gone = before - set(blobs_of(feed))
        assert gone
        await until(lambda: not gone & {path.name for path in (tmp_path / "relay").rglob("blobs/*")})
        for name in gone:
            assert (await get(f"{url}/catalog/blobs/{name}")).status_code == 404
        assert (await synced(tmp_path / "device", feed, url)).version == 3


async def test_a_publish_while_snapshots_are_fetched_goes_first(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        for edition in range(2, 12):
            await publish(feed, edition, edition)
        await complete(relay, 11)
        assert (await synced(tmp_path / "device", feed, url)).version == 11


@pytest.mark.parametrize("step", ["write", "read", "write_durable"])
async def test_every_step_on_the_disk_may_fail_and_devices_are_served(
    feed: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*words: object, **more: object) -> None:
        raise StoreError(f"{step}: No space left on device")

    if step == "write_durable":
        monkeypatch.setattr("edged.relay.following.write_durable", fail)
    else:
        monkeypatch.setattr(BlobCache, step, fail)
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        assert (await synced(tmp_path / "device", feed, url)).error is None
        await publish(feed, 1, 2)
        await until(lambda: relay.feeds["catalog"].document()["version"] == 2)
        assert (await synced(tmp_path / "device", feed, url)).version == 2
        if step == "write":
            assert relay.status()["store_failures"] > 0
            assert relay.status()["disk_bytes"] == 0
    if step == "write_durable":
        assert write_durable is not fail
        assert not (tmp_path / "relay" / "catalog" / "head").exists()


async def test_a_relay_without_its_trust_file_says_so_and_waits(feed: Publisher, tmp_path: Path) -> None:
    settings = RelaySettings((Subscription("catalog", ("http://127.0.0.1:1/catalog",), str(tmp_path / "no")),), QUOTA)
    async with relay_of(settings, tmp_path / "relay") as (relay, url):
        await until(lambda: relay.feeds["catalog"].document()["last_error"] is not None)
        assert "read the trust file" in relay.feeds["catalog"].document()["last_error"]
        assert (await get(f"{url}/catalog/head")).status_code == 503


async def test_what_is_configured_anew_is_followed_without_a_restart(feed: Publisher, tmp_path: Path) -> None:
    feed.publish("other", titles(3))
    async with origin_of(feed) as above, relay_of(following(feed, "http://127.0.0.1:1"), tmp_path / "relay") as found:
        relay, url = found
        trust = str(feed.trust_path)
        named = [Subscription(name, (f"{above}/{name}",), trust) for name in ("catalog", "other")]
        await relay.take(tuple(named))
        await complete(relay, 1)
        await complete(relay, 1, "other")
        assert (await synced(tmp_path / "device", feed, url)).error is None
        kept = relay.feeds["other"]
        await relay.take((named[1],))
        assert relay.feeds == {"other": kept}
        assert (await get(f"{url}/catalog/head")).status_code == 404


async def test_what_a_pattern_has_begun_is_followed_once_when_it_is_named(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above:
        settings = RelaySettings((), QUOTA, origins=(above,), patterns=("*",), trust=str(feed.trust_path))
        async with relay_of(settings, tmp_path / "relay") as (relay, url):
            assert (await get(f"{url}/catalog/head")).status_code == 200
            before = relay.feeds["catalog"]
            await relay.take((Subscription("catalog", (f"{above}/catalog",), str(feed.trust_path), poll_s=7),))
            assert before.ended.is_set()
            assert relay.feeds["catalog"].subscription.poll_s == 7
            await complete(relay, 1)
            assert (await get(f"{url}/catalog/head")).status_code == 200


async def test_held_polls_are_woken_by_a_head_and_have_numbers(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        answers: list[httpx2.Response] = []

        async def ask() -> None:
            answers.append(await get(f"{url}/catalog/head?after=1&wait=60"))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask)
            await until(lambda: relay.status()["waiting"] == 30)
            await publish(feed, 1, 2)
        head = (feed.public / "catalog" / "head").read_bytes()
        assert {(answer.status_code, answer.content) for answer in answers} == {(200, head)}
        assert len({answer.headers["edged-poll"] for answer in answers}) == 1
        assert urlsplit(url).scheme == "http"


async def test_a_head_that_has_decayed_on_the_disk_is_not_handed_on(feed: Publisher, tmp_path: Path) -> None:
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, _):
        await complete(relay, 1)
    kept = tmp_path / "relay" / "catalog" / "head"
    data = kept.read_bytes()
    kept.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    async with relay_of(following(feed, "http://127.0.0.1:1"), tmp_path / "relay") as (relay, url):
        await until(lambda: relay.feeds["catalog"].follower.status.tried)
        assert (await get(f"{url}/catalog/head")).status_code == 503
    async with origin_of(feed) as above, relay_of(following(feed, above), tmp_path / "relay") as (relay, url):
        await complete(relay, 1)
        assert (await get(f"{url}/catalog/head")).content == data
