"""The form of a hop that is applied as it lies: what it says, and what of it is refused undecompressed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.ahead import laidhop
from edged.feed.ahead.laidhop import (
    ADDED,
    CHANGED,
    FRAME,
    REMOVED,
    Laid,
    changes_with_values,
    decode_laid,
    laid_of,
    pack_laid,
)
from edged.feed.coding.changes import Change
from edged.feed.coding.hop import dictionary_tag, pack_hop, tag_of
from edged.feed.digest import SetHash
from tests.sync.simulator import RecordLookup

OLD = {("titles", f"t{number:03}"): cbor.encode({"title": f"Film {number}"}) for number in range(60)}
DICTIONARY = b"".join(OLD.values())


def changes(count: int) -> list[Change]:
    """Some changed, one new, one removed, in two collections."""
    made = [
        Change("titles", f"t{number:03}", cbor.encode({"title": f"Film {number}, again"})) for number in range(count)
    ]
    return [Change("people", "a", cbor.encode({"name": "new"})), *made, Change("titles", "t059", None)]


@pytest.mark.parametrize("count", [1, laidhop.SUMMED])
@pytest.mark.parametrize("dictionary", [b"", DICTIONARY])
def test_it_says_what_the_other_forms_say(count: int, dictionary: bytes) -> None:
    lookup = RecordLookup(OLD)
    data = pack_laid(changes(count), lookup, dictionary)
    assert dictionary_tag(data) == tag_of(dictionary)
    laid = laid_of(data)
    assert laid is not None
    assert changes_with_values(laid, dictionary) == changes(count)
    assert [change.kind for change in laid.changes] == [ADDED, *[CHANGED] * count, REMOVED]
    assert laid_of(pack_hop(changes(count), lookup, dictionary)) is None
    running, whole = SetHash(), SetHash()
    after = dict(OLD)
    for name, value in OLD.items():
        running.add(*name, value)
    for change in changes(count):
        if change.value is None:
            del after[change.collection, change.key]
        else:
            after[change.collection, change.key] = change.value
    for name, value in after.items():
        whole.add(*name, value)
    if count < laidhop.SUMMED:
        assert laid.sum == b""
    else:
        running.merge(SetHash(laid.sum))
        assert running.digest() == whole.digest()


def frame(value: bytes = b"x") -> bytes:
    return zstd.compress(value, FRAME)[len(zstd.MAGIC) :]


def hop(*groups: Any, total: Any = b"") -> bytes:
    return cbor.encode([total, list(groups)])


def one(key: Any = "k", data: Any = None, kind: int = CHANGED, name: Any = "titles") -> list[Any]:
    return [name, [key], [frame() if data is None else data], bytes([kind])]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "decode laid hop"),
        (cbor.encode([b"", []]) + b"\0", "data follows"),
        (cbor.encode({}), "not .sum, collections"),
        (hop(one(), total=bytes(7)), "not .sum, collections"),
        (hop(["titles", ["k"], [], b"\0"]), "not .collection, keys"),
        (hop(one(name="no such name!")), "collection"),
        (hop(one(key="")), "key"),
        (hop(one(key=1)), "not .key, frame"),
        (hop(one(kind=3)), "not .key, frame"),
        (hop(one(data=b"")), "has no frame"),
        (hop(one(kind=REMOVED)), "has no frame"),
        (hop(one(data=bytes([frame()[0] | laidhop.RESERVED_BIT]) + frame()[1:])), "not exactly one frame"),
        (hop(one(data=frame() + b"x")), "not exactly one frame"),
        (hop(one(data=frame()[:-1])), "not exactly one frame"),
        (hop(one(data=frame(bytes(limits.VALUE_BYTES + 1)))), "at most"),
        (hop(*[one(key=f"k{number}", data=frame(bytes(4 << 20))) for number in range(5)]), "at most"),
        (hop(one("b"), one("a")), "not in order"),
        (hop(one("a"), one("a")), "changed twice"),
        (hop(["titles", [f"k{n:05}" for n in range(8193)], [b""] * 8193, bytes([REMOVED]) * 8193]), "at most 8192"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        decode_laid(data)


def test_mutated_bytes_raise_wire_errors_alone() -> None:
    data, chance = pack_laid(changes(40), RecordLookup(OLD), b""), random.Random(3)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(6, len(broken))] ^= 1 << chance.randrange(8)
        try:
            changes_with_values(laid_of(bytes(broken)) or Laid(b"", []), b"")
        except WireError:
            continue
