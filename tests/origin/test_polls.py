"""Held polls: their numbers grow, are the same for all, and nothing wakes or answers a poll wrongly."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from edged.feed import limits
from edged.feed.patch import decode_patch
from edged.feedserving.app import FeedApp, PublicHead
from edged.feedserving.polls import AHEAD_S, EPOCH_S, HEADS, REMEMBERED, PollNumbers
from edged.http.application import Answer, FileResponse, Held, Response
from edged.http.request import Request
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.serving.heads import Heads
from tests.origin.conftest import Clock
from tests.origin.test_publish import edit, films

NOW = 1_800_000_000


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([b'"a"', b'"b"']), st.integers(0, 5)), max_size=30))
def test_whoever_asks_gets_a_greater_number_and_numbers_never_fall(
    asked: list[tuple[int, bytes, int]],
) -> None:
    numbers, now, highest = PollNumbers(NOW), float(NOW), 0
    for offset, tag, later_s in asked:
        now += later_s
        number = max(0, numbers.number + offset)
        given = numbers.after(number, tag, now)
        assert given > number
        assert given >= highest
        highest = given


def test_all_who_ask_at_the_same_time_get_the_same_number_and_so_ask_for_the_same_again() -> None:
    numbers = PollNumbers(NOW)
    first = numbers.after(None, b'"a"', NOW)
    assert {numbers.after(asked, b'"a"', NOW) for asked in (None, 0, first - 1)} == {first}
    second = numbers.after(first, b'"a"', NOW + 240)
    assert {numbers.after(asked, b'"a"', NOW + 240.9) for asked in (None, 0, first)} == {second}


def test_who_is_answered_at_another_second_waits_at_no_cache_with_those_of_before() -> None:
    """Else the polls of a fleet, which a cache makes one of, would end together after some rounds."""
    numbers = PollNumbers(NOW)
    first = numbers.after(None, b'"a"', NOW)
    assert [numbers.after(first, b'"a"', NOW + later) - first for later in (1, 5, 240)] == [1, 5, 240]


def test_another_head_is_another_number() -> None:
    numbers = PollNumbers(NOW)
    first = numbers.after(None, b'"a"', NOW)
    second = numbers.after(None, b'"b"', NOW)
    assert second > first
    assert numbers.is_known(first, b'"a"')
    assert not numbers.is_known(first, b'"b"')
    assert numbers.is_known(second, b'"b"')
    assert not numbers.is_known(None, b'"b"')


def test_a_number_far_ahead_of_the_clock_leads_nobody_else_astray() -> None:
    numbers = PollNumbers(NOW)
    first = numbers.after(None, b'"a"', NOW)
    far = NOW - EPOCH_S + AHEAD_S
    assert numbers.after(far + 1, b'"a"', NOW) == far + 2
    assert numbers.after(None, b'"a"', NOW) == first
    assert numbers.after(far, b'"a"', NOW) == far + 1  # as another origin may have given it
    assert numbers.after(None, b'"a"', NOW) == far + 1


def test_after_a_new_start_numbers_grow_on() -> None:
    before = PollNumbers(NOW)
    last = 0
    for _ in range(200):
        last = before.after(last, b'"a"', NOW)
    again = PollNumbers(NOW + 240)
    assert again.after(last, b'"a"', NOW + 240) > last


def test_what_is_known_of_numbers_is_bounded() -> None:
    numbers, last = PollNumbers(NOW), 0
    for _ in range(REMEMBERED * 3):
        last = numbers.after(last, b'"a"', NOW)
        assert len(numbers.tags) <= REMEMBERED
    assert numbers.is_known(last, b'"a"')
    assert numbers.is_known(last - REMEMBERED + 1, b'"a"')
    assert not numbers.is_known(last - REMEMBERED, b'"a"')


@dataclass
class Woken:
    count: int = field(default=0)

    def wake(self) -> None:
        self.count += 1

    __hash__ = object.__hash__


@pytest.fixture
def feed(publisher: Publisher) -> Publisher:
    publisher.publish("catalog", films(5))
    return publisher


def app_of(feed: Publisher) -> FeedApp:
    return FeedApp(Heads(feed.public), feed.clock)


def ask(app: FeedApp, target: str, **fields: str) -> Answer:
    lines = tuple((name.replace("_", "-").lower().encode(), value.encode()) for name, value in fields.items())
    return app.answer(Request("GET", target.encode(), lines))


def field_of(answer: Answer, name: str) -> str:
    assert isinstance(answer, Response)
    return {key.decode().lower(): value.decode() for key, value in answer.fields}[name]


def held(answer: Answer) -> Held:
    assert isinstance(answer, Held)
    return answer


def test_whoever_sees_a_new_head_first_everybody_who_waits_hears_of_it(feed: Publisher) -> None:
    app = app_of(feed)
    poll, woken = held(ask(app, "/catalog/head?after=1&wait=60")), Woken()
    assert poll.signal.follow(woken, poll.generation)
    feed.publish_changes("catalog", [edit(3)])
    assert field_of(ask(app, "/catalog/head"), "etag")  # another device asks, before the origin has looked by itself
    assert woken.count == 1
    answer = poll.resume(False)
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (200, (feed.public / "catalog" / "head").read_bytes())


async def test_a_new_head_is_seen_at_once_and_costs_nothing_until_then(
    feed: Publisher, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, looks = Heads(feed.public), list[float]()

    def counted(dataset: str) -> PublicHead | None:
        looks.append(trio.current_time())
        return Heads.current(heads, dataset)

    heads.current("catalog")
    monkeypatch.setattr(heads, "current", counted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heads.watch)
        signal = heads.signal("catalog")
        nursery.start_soon(signal.wait, signal.generation)
        await trio.sleep(10)
        assert len(looks) <= 12  # for a network's file system, of which the kernel does not tell
        feed.publish_changes("catalog", [edit(3)])
        began = trio.current_time()
        await signal.wait(signal.generation)
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


def test_one_look_at_the_file_is_enough_for_all_who_wait(feed: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = Heads(feed.public)
    app, looks = FeedApp(heads, feed.clock), list[str]()
    polls = [held(ask(app, "/catalog/head?after=1&wait=60")) for _ in range(50)]

    def counted(dataset: str) -> PublicHead | None:
        looks.append(dataset)
        return Heads.current(heads, dataset)

    monkeypatch.setattr(heads, "current", counted)
    feed.publish_changes("catalog", [edit(3)])
    heads.current("catalog")
    answers = [poll.resume(False) for poll in polls]
    assert looks == ["catalog"]
    head = (feed.public / "catalog" / "head").read_bytes()
    assert [answer.body for answer in answers if isinstance(answer, Response)] == [head] * 50


def test_a_head_that_came_between_the_look_and_the_wait_is_not_missed(feed: Publisher) -> None:
    app = app_of(feed)
    poll = held(ask(app, "/catalog/head?after=1&wait=60"))
    feed.publish_changes("catalog", [edit(3)])
    ask(app, "/catalog/head")
    assert not poll.signal.follow(Woken(), poll.generation)


def test_a_head_that_was_only_signed_anew_waits_for_the_end_of_the_poll(feed: Publisher) -> None:
    assert isinstance(feed.clock, Clock)
    app = app_of(feed)
    poll = held(ask(app, "/catalog/head?after=1&wait=60", If_None_Match=field_of(ask(app, "/catalog/head"), "etag")))
    feed.clock.now += 60
    feed.resign("catalog")
    again = held(poll.resume(False))
    assert (again.wait_s, again.signal) == (60, poll.signal)
    answer = again.resume(True)
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (200, (feed.public / "catalog" / "head").read_bytes())


def test_every_answer_of_a_held_poll_has_a_number_that_is_part_of_its_tag(feed: Publisher) -> None:
    app = app_of(feed)
    tag = field_of(ask(app, "/catalog/head"), "etag")
    last = "0"
    for _ in range(3):
        quiet = held(ask(app, f"/catalog/head?after=1&wait=60&poll={last}", If_None_Match=tag)).resume(True)
        assert isinstance(quiet, Response)
        number = field_of(quiet, "edged-poll")
        assert (quiet.status, int(number) > int(last)) == (304, True)
        assert field_of(quiet, "etag").endswith(f'-{number}"')
        assert field_of(quiet, "cache-control") == "max-age=1"  # never stale-if-error: that would be no news for ever
        last, tag = number, field_of(quiet, "etag")
    at_once = ask(app, f"/catalog/head?after=0&wait=60&poll={last}")
    assert (field_of(at_once, "edged-poll") > last, isinstance(at_once, Response)) == (True, True)
    plain = ask(app, "/catalog/head")
    assert "stale-if-error" in field_of(plain, "cache-control")
    assert int(field_of(plain, "edged-poll")) >= int(last)  # for the first held poll of whoever has just come


def test_behind_a_cache_that_takes_conditions_off_the_number_says_what_the_device_has(feed: Publisher) -> None:
    assert isinstance(feed.clock, Clock)
    app = app_of(feed)
    first = held(ask(app, "/catalog/head?after=1&wait=60&poll=0")).resume(True)
    assert isinstance(first, Response)
    assert first.status == 200  # a number of nobody's: the head that it goes with is sent
    number = field_of(first, "edged-poll")
    quiet = held(ask(app, f"/catalog/head?after=1&wait=60&poll={number}")).resume(True)
    assert isinstance(quiet, Response)
    assert (quiet.status, quiet.body) == (204, b"")
    feed.clock.now += 60
    feed.resign("catalog")
    newer = held(ask(app, f"/catalog/head?after=1&wait=60&poll={field_of(quiet, 'edged-poll')}")).resume(True)
    assert isinstance(newer, Response)
    assert newer.status == 200  # a newer signature is worth having


@pytest.mark.parametrize("number", ["x", "-1", "", "1" * 19])
def test_a_malformed_number_is_400(feed: Publisher, number: str) -> None:
    answer = ask(app_of(feed), f"/catalog/head?after=1&wait=1&poll={number}")
    assert isinstance(answer, Response)
    assert answer.status == 400


def test_a_file_that_cannot_be_opened_now_is_503_and_not_missing(
    feed: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that hears 404 believes that the blob is gone for good."""
    app = app_of(feed)
    blob = next((feed.public / "catalog" / "blobs").iterdir())

    def fail(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("edged.feedserving.files.os.open", fail)
        answer = ask(app, f"/catalog/blobs/{blob.name}")
    assert isinstance(answer, Response)
    assert (answer.status, field_of(answer, "retry-after")) == (503, "1")
    again = ask(app, f"/catalog/blobs/{blob.name}")
    assert isinstance(again, FileResponse)
    os.close(again.handle)  # whoever sends it would


def test_names_of_no_dataset_leave_nothing_behind(feed: Publisher) -> None:
    heads = Heads(feed.public)
    app = FeedApp(heads, feed.clock)
    for number in range(9):
        answer = ask(app, f"/guess{number}/head?after=1&wait=9")
        assert isinstance(answer, Response)
        assert answer.status == 404
    assert heads.signals == {}
    assert app.numbers == {}


def test_a_device_that_names_its_number_is_sent_what_it_needs_and_no_more(feed: Publisher) -> None:
    app = app_of(feed)
    first = held(ask(app, "/catalog/head?after=1&wait=60")).resume(True)
    number = field_of(first, "edged-poll")
    poll = held(ask(app, f"/catalog/head?after=1&wait=60&poll={number}"))
    feed.publish_changes("catalog", [edit(3)])
    ask(app, "/catalog/head")  # whoever sees it first
    answer = poll.resume(False)
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (200, (feed.public / "catalog" / "head").read_bytes())
    assert {name.decode() for name, _ in answer.fields} == {"Cache-Control", "Edged-Poll", "Content-Length"}
    assert len(number) <= 9


def test_a_device_that_has_the_head_before_is_sent_what_differs(feed: Publisher) -> None:
    app = app_of(feed)
    number = field_of(held(ask(app, "/catalog/head?after=1&wait=60")).resume(True), "edged-poll")
    before = (feed.public / "catalog" / "head").read_bytes()
    polls = [held(ask(app, f"/catalog/head?after=1&wait=60&poll={asked}")) for asked in (f"0{number}", f"0{number}77")]
    feed.publish_changes("catalog", [edit(3)])
    now = (feed.public / "catalog" / "head").read_bytes()
    ask(app, "/catalog/head")  # whoever sees it first
    answer, stranger = (poll.resume(False) for poll in polls)
    assert isinstance(answer, Response)
    assert isinstance(stranger, Response)
    assert isinstance(answer.body, bytes)
    assert len(answer.body) < len(now) - 30
    assert field_of(answer, "content-length") == str(len(answer.body))
    assert decode_patch(before, answer.body) == now
    assert stranger.body == now  # what that number stood for is not known here
    last = field_of(answer, "edged-poll")
    quiet = held(ask(app, f"/catalog/head?after=2&wait=60&poll=0{last}")).resume(True)
    assert isinstance(quiet, Response)
    assert (quiet.status, quiet.body) == (204, b"")


def test_an_origin_remembers_the_heads_of_late_and_no_more() -> None:
    numbers, heads = PollNumbers(NOW), [b"%064d%d" % (0, number) for number in range(HEADS + 1)]
    asked = []
    for second, data in enumerate(heads):
        numbers.keep(data[-4:], data)
        asked.append(numbers.after(None, data[-4:], NOW + second))
    patches = [numbers.patch(number, b"new", heads[-1] + b"new") for number in asked]
    assert patches[0] is None
    assert all(patch is not None for patch in patches[1:])
    assert len(numbers.heads) == HEADS
    numbers.keep(b"long", bytes(limits.PATCHED_BYTES + 1))
    assert b"long" not in numbers.heads


def test_a_number_tells_of_news_that_came_between_two_polls(feed: Publisher) -> None:
    app = app_of(feed)
    feed.publish_changes("catalog", [edit(3)], PublishOptions(permille=50))
    number = field_of(held(ask(app, "/catalog/head?after=2&wait=60")).resume(True), "edged-poll")
    held(ask(app, f"/catalog/head?after=2&wait=60&poll={number}"))
    feed.resign("catalog")  # no news
    held(ask(app, f"/catalog/head?after=2&wait=60&poll={number}"))
    feed.rollout("catalog", 250)  # no version later than the one that is held, but another share
    answer = ask(app, f"/catalog/head?after=2&wait=60&poll={number}")
    assert isinstance(answer, Response)
    assert answer.status == 200
    held(ask(app, f"/catalog/head?after=2&wait=60&poll={int(number) + 77}"))  # of another origin: says nothing
