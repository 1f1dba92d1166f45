"""Hops of edits by pattern, of which the vectors have the SHA-256: whoever writes hops writes these, bit for bit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from edged.feed.coding.changes import Change, Entry, sort_key
from edged.feed.coding.modelledhop import encode_mass, encode_modelled
from edged.feed.coding.wholehop import encode_whole
from tests.feed.test_hop_forms import BASE, DICTIONARY, film
from tests.feed.test_hop_forms import View as Held
from tests.feed.test_mass import PATTERNS, TIERS, VIEW, edited

WORDS = "amber night river stone glass winter".split()  # noqa: SIM905  # a sentence reads better


def ordinary() -> list[Change]:
    """Films of other titles, new ones and removed ones, with what each kind of value can become."""
    changes = [Change("titles", str(number), film(number, f"Film {number}, restored")) for number in range(0, 90, 9)]
    changes += [Change("titles", str(number), film(number + 3)) for number in range(100, 112)]
    changes += [Change("titles", f"new {number}", film(number)) for number in range(5)]
    changes += [Change("titles", str(number), None) for number in (7, 300, 399)]
    return changes


def scattered(fields: dict[str, Any], number: int) -> None:
    """What no pattern tells: each record's own words, numbers, order and tokens."""
    chance = random.Random(f"vectors/{number}")
    words = fields["title"].split(" ")
    words[1], words[-1] = chance.choice(WORDS), chance.choice(WORDS)
    fields["title"] = " ".join(words)
    fields["start"] = chance.getrandbits(32)
    fields["tier"] = chance.choice(TIERS)
    fields["score"] = round(chance.uniform(1, 10), 2)
    fields["image"] = f"{fields['image'].partition('?')[0]}?e={1_700_000_000 + number}&s={chance.getrandbits(64):016x}"
    chance.shuffle(fields["langs"])
    if number % 5 == 0:
        fields["langs"].append("nl")
    if number % 7 == 0:
        fields["rights"] = {**fields["rights"], "to": {"day": number, "zone": [number, "x"]}}


def cases() -> Iterator[tuple[str, bytes]]:
    edits = {name: edited(edit) for name, edit in PATTERNS.items()} | {"each its own": edited(scattered)}
    for name, changes in edits.items():
        entries: list[Entry] = [(change.collection, change.key, change.value) for change in changes]
        yield f"{name}, all", encode_mass(entries, VIEW, b"")
        yield f"{name}, some", encode_mass(entries[::3], VIEW, DICTIONARY)
        yield f"{name}, a few", encode_modelled(entries[:12], VIEW, b"")
        yield f"{name}, whole", encode_whole(entries[::2], VIEW, b"")
    entries = [(change.collection, change.key, change.value) for change in sorted(ordinary(), key=sort_key)]
    held = Held(BASE)
    for dictionary, what in ((b"", "without"), (DICTIONARY, "with")):
        yield f"ordinary, {what} a dictionary", encode_modelled(entries, held, dictionary)
        yield f"ordinary as many, {what} a dictionary", encode_mass(entries, held, dictionary)
        yield f"ordinary, whole, {what} a dictionary", encode_whole(entries, held, dictionary)


def described(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
