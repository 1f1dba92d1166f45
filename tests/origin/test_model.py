"""Any sequence of operations leaves devices with what a simple model says, whenever they look."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.conftest import Clock
from tests.origin.devices import Device

Value = dict[str, Any]
RULES = """\
[slices.a]
where = { part = "a" }
[slices.b]
where = { part = ["b", "*"] }
[slices.c]
where = { part = "*" }
"""


@dataclass
class Model:
    """What is visible, what is hidden (None: of no value known), and what was visible at each version."""

    seen: dict[str, Value] = field(default_factory=dict)
    hidden: dict[str, Value | None] = field(default_factory=dict)
    history: list[dict[str, Value]] = field(default_factory=lambda: [{}])

    def put(self, key: str, value: Value | None) -> None:
        if key in self.hidden:
            self.hidden[key] = value
        elif value is None:
            self.seen.pop(key, None)
        else:
            self.seen[key] = value

    def state(self) -> dict[str, Value]:
        return dict(self.seen)


class Play:
    """Does the same to a feed and to the model."""

    def __init__(self, publisher: Publisher, chance: random.Random) -> None:
        self.publisher, self.chance, self.model = publisher, chance, Model()

    def value(self) -> Value:
        return {"part": self.chance.choice(["a", "b", "*", "z"]), "n": self.chance.randrange(1000)}

    def keys(self, most: int) -> list[str]:
        return sorted({f"k{self.chance.randrange(25)}" for _ in range(self.chance.randrange(1, most))})

    def step(self) -> None:
        name = self.chance.choice(
            ["edits", "edits", "whole", "takedown", "restore", "restore", "rollback", "rollback", "resign"]
        )
        version = getattr(self, name)()
        if version == len(self.model.history):
            self.model.history.append(self.model.state())
        assert version == len(self.model.history) - 1

    def edits(self) -> int:
        edits = [("t", key, None if self.chance.random() < 0.2 else self.value()) for key in self.keys(6)]
        for _, key, value in edits:
            self.model.put(key, value)
        return self.publisher.publish_changes("d", edits).version

    def whole(self) -> int:
        kept = {key: value for key, value in self.model.seen.items() if self.chance.random() < 0.9}
        for key in self.keys(4):
            kept[key] = self.value()
        for key in {*self.model.seen, *self.model.hidden} | kept.keys():
            self.model.put(key, kept.get(key))
        return self.publisher.publish(
            "d", [("t", key, value) for key, value in kept.items()], PublishOptions(allow_empty=True)
        ).version

    def takedown(self) -> int:
        keys = self.keys(3)
        for key in keys:
            if key not in self.model.hidden:
                self.model.hidden[key] = self.model.seen.pop(key, None)
        return self.publisher.takedown("d", "t", keys).version

    def restore(self) -> int:
        keys = [key for key in sorted(self.model.hidden) if self.chance.random() < 0.5]
        for key in keys:
            value = self.model.hidden.pop(key)
            if value is not None:
                self.model.seen[key] = value
        return self.publisher.restore("d", "t", keys).version if keys else self.resign()

    def rollback(self) -> int:
        to = self.chance.randrange(max(1, len(self.model.history) - 8), len(self.model.history))
        old = {key: value for key, value in self.model.history[to].items() if key not in self.model.hidden}
        self.model.seen = old
        return self.publisher.rollback("d", to).version

    def resign(self) -> int:
        return self.publisher.resign("d")

    def expected(self, name: str) -> set[str]:
        parts = {"a": {"a"}, "b": {"b", "*"}, "c": {"*"}, "core": {"z"}}[name]
        return {key for key, value in self.model.seen.items() if value["part"] in parts}


@pytest.mark.parametrize("seed", range(3))
def test_devices_have_what_the_model_says_after_any_operations(publisher: Publisher, clock: Clock, seed: int) -> None:
    (publisher.path / "d.toml").write_text(RULES)
    chance = random.Random(seed)
    play = Play(publisher, chance)
    for number in range(25):
        play.model.put(f"k{number}", play.value())
    publisher.publish("d", [("t", key, value) for key, value in play.model.seen.items()])
    play.model.history.append(play.model.state())
    devices = [Device(publisher.path, "d", slices) for slices in (("core",), ("a", "b", "c", "core"), ("c",))]
    for _ in range(24):
        clock.now += chance.randrange(100_000)
        play.step()
        for device in devices:
            if chance.random() < 0.4:
                device.sync()
                check(device, play)
        if chance.random() < 0.2:
            play.publisher = Publisher.open(publisher.path, clock=clock)
    for device in devices:
        device.sync()
        check(device, play)


def check(device: Device, play: Play) -> None:
    assert {key for _, key in device.taken_down} == set(play.model.hidden)
    for name in device.slices:
        assert device.keys(name) == play.expected(name)
        for key in device.keys(name):
            assert device.value("t", key, name) == play.model.seen[key]
