"""A feed by the real Publisher, and what each of its versions truly holds, as a witness of the public files reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edged.errors import OriginError
from edged.feed.chain import decode_chain
from edged.feed.head import Head, Offer
from edged.feed.takedowns import decode_takedowns
from edged.origin.ahead import preparing
from edged.origin.ahead.preparing import AheadOptions
from edged.origin.input.reading import Values
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.results import PublishResult
from tests.origin.devices import Content, Device
from tests.origin.test_faults import Killed, Steps, stepping

DATASET = "catalog"
REGIONS = ("a", "b")
KEYS = 60
RULES = """\
[slices.a]
where = {{ region = [{a}] }}
[slices.b]
where = {{ region = ["b", "*"] }}
[validate.titles]
required = ["title"]
[retention]
versions = 64
"""

Slices = dict[str, Content]


@dataclass
class Publishing:
    """truth: by version the content of each slice, from public files alone, each digest checked against the signed one.
    hidden: keys that are taken down, by what the publisher was told; withdrawn: those that ever were."""

    directory: Path
    clock: Callable[[], float]
    chance: random.Random
    truth: dict[int, Slices] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    heads: list[bytes] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Publisher.init(self.directory, clock=self.clock)
        self.trust = self.publisher.trust_path.read_bytes()
        self.declare('"a", "*"')
        self.publisher.publish(DATASET, [("titles", key_of(number), self.value()) for number in range(KEYS)])
        self.witness()

    @property
    def public(self) -> Path:
        return self.directory / "public" / DATASET

    def declare(self, a: str) -> None:
        (self.directory / f"{DATASET}.toml").write_text(RULES.format(a=a))

    def value(self) -> dict[str, Any]:
        return {
            "title": f"Film {self.chance.randrange(10_000)}",
            "region": self.chance.choice(["a", "b", "*", "nowhere"]),
            "text": " ".join(str(self.chance.randrange(1000)) for _ in range(12)),
        }

    def keys(self, most: int) -> list[str]:
        return sorted({key_of(self.chance.randrange(KEYS)) for _ in range(self.chance.randrange(1, most + 1))})

    def witness(self) -> Head:
        """Read the public files as a newcomer does, and remember what the versions named there hold."""
        device = Device(self.directory, DATASET)
        head = device.head()
        chain = device.chain(head)
        if head.version not in self.truth:
            self.truth[head.version] = contents(device, head, chain)
        if head.offer is not None and head.offer.version not in self.truth:
            offered = decode_chain(device.blob(head.offer.chain))
            self.truth[head.offer.version] = contents(Device(self.directory, DATASET), head.offer, offered)
        data = (self.public / "head").read_bytes()
        if not self.heads or self.heads[-1] != data:
            self.heads.append(data)
        down = frozenset() if head.takedowns is None else device_takedowns(device, head)
        assert down == self.hidden, f"the head takes down {sorted(down)}, told were {sorted(self.hidden)}"
        return head

    # ---- acts: each leaves the feed whole, whatever becomes of it

    def act(self) -> str:
        name = self.chance.choice(ACTS)
        self.acts.append(name)
        try:
            getattr(self, name)()
        except OriginError as fault:  # who publishes has to end a rollout first, or prepare what is to be released
            if not any(words in str(fault) for words in REFUSALS):
                raise
            self.acts[-1] += " refused"
        self.witness()
        return self.acts[-1]

    def edits(self) -> list[tuple[str, str, dict[str, Any] | None]]:
        return [("titles", key, None if self.chance.random() < 0.15 else self.value()) for key in self.keys(8)]

    def edit(self) -> None:
        edits = self.edits()
        result = self.publisher.publish_changes(DATASET, edits)
        self.witness()
        self.check_edits(result, edits)

    def check_edits(self, result: PublishResult, edits: list[tuple[str, str, Any]]) -> None:
        held = {place for content in self.truth[result.version].values() for place in content}
        for collection, key, value in edits:
            assert ((collection, key) in held) == (value is not None and key not in self.hidden), (key, value)

    def edit_killed(self) -> None:
        """Killed at a random step; the next operation finishes it or undoes it, and `witness` sees a whole version."""
        steps = Steps(self.chance.randrange(1, 60), Killed)
        try:
            with stepping(steps):
                self.publisher.publish_changes(DATASET, self.edits())
        except Killed:
            self.acts[-1] += f" at {steps.names[-1]}"
        self.publisher = Publisher.open(self.directory, clock=self.clock)
        self.publisher.resign(DATASET)

    def mistake(self) -> None:
        """What the validators refuse changes nothing that devices see."""
        before = (self.public / "head").read_bytes()
        shown = next(number for number in range(KEYS) if key_of(number) not in self.hidden)
        wrong = self.chance.choice([self.no_record, self.no_title])
        with pytest.raises(OriginError, match=r"rolled out|title|no record"):
            wrong(key_of(shown))
        assert (self.public / "head").read_bytes() == before

    def no_record(self, _: str) -> None:
        self.publisher.publish(DATASET, [])

    def no_title(self, key: str) -> None:
        self.publisher.publish_changes(DATASET, [("titles", key, {"region": "a"})])

    def rollback(self) -> None:
        known = sorted(self.truth)
        self.publisher.rollback(DATASET, self.chance.choice(known[-6:]))

    def takedown(self) -> None:
        keys = self.keys(3)
        self.publisher.takedown(DATASET, "titles", keys)
        self.hidden.update(keys)
        self.withdrawn.update(keys)

    def takedown_if_possible(self) -> None:
        if self.publisher.rollout(DATASET) is None:
            self.takedown()
            self.witness()

    def restore(self) -> None:
        keys = [key for key in sorted(self.hidden) if self.chance.random() < 0.6]
        if keys:
            self.publisher.restore(DATASET, "titles", keys)
            self.hidden.difference_update(keys)

    def rotate(self) -> None:
        self.publisher.rotate_key()

    def resign(self) -> None:
        self.publisher.resign(DATASET)

    def reslice(self) -> None:
        """Records come and go in a slice by its condition."""
        self.declare(self.chance.choice(['"a", "*"', '"a"', '"a", "b", "*"']))
        self.publisher.publish_changes(DATASET, self.edits(), PublishOptions(allow_removals=True))

    def offer(self) -> None:
        if self.publisher.rollout(DATASET) is None:
            permille = self.chance.choice([100, 500, 900])
            self.publisher.publish_changes(DATASET, self.edits(), PublishOptions(permille=permille))

    def settle(self) -> None:
        """End a rollout: for all, or for none."""
        if self.publisher.rollout(DATASET) is not None:
            if self.chance.random() < 0.5:
                self.publisher.rollout(DATASET, 1000)
            else:
                self.publisher.withdraw(DATASET)

    def prepare(self) -> None:
        """A version ahead, in the place of one that was prepared before."""
        with self.publisher.at_work(DATASET) as place:
            preparing.prepare(
                place, Values(self.edits(), edits=True), AheadOptions(spread_s=self.chance.choice([0, 60]))
            )

    def release(self) -> None:
        with self.publisher.at_work(DATASET) as place:
            preparing.release(place)

    def withdraw_ahead(self) -> None:
        with self.publisher.at_work(DATASET) as place:
            preparing.withdraw(place)

    def renew_ahead(self) -> None:
        """As `origin serve` does after a takedown."""
        with self.publisher.at_work(DATASET) as place:
            preparing.renew(place)

    def calm(self) -> Head:
        """No rollout under way, and everything that is due made."""
        if self.publisher.rollout(DATASET) is not None:
            self.publisher.rollout(DATASET, 1000)
        self.publisher.resign(DATASET)
        self.publisher.keep_up(DATASET)
        return self.witness()


ACTS = [
    *["edit"] * 12,
    *["edit_killed"] * 3,
    *["takedown", "restore", "offer", "settle", "mistake", "rollback", "resign", "reslice"] * 2,
    *["prepare", "release"] * 3,
    *["withdraw_ahead", "renew_ahead"],
    "rotate",
]
REFUSALS = ("rolled out", "rollout is under way", "none is prepared", "nothing would change")


def key_of(number: int) -> str:
    return f"k{number:03}"


def contents(device: Device, head: Head | Offer, chain: Any) -> Slices:
    """Every slice of the version, from its snapshot on, its digest the signed one."""
    for name in head.slices:
        device.bring(name, head, chain)  # type: ignore[arg-type]  # of both it takes the slices alone
    return {name: dict(device.held[name][1]) for name in head.slices}


def device_takedowns(device: Device, head: Head) -> frozenset[str]:
    assert head.takedowns is not None
    return frozenset(key for _, key in decode_takedowns(device.blob(head.takedowns)))
