"""A hop as it travels: format, dictionary tag, and refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edged.errors import ChainError, WireError
from edged.feed.cbor import encode
from edged.feed.coding.changes import Change
from edged.feed.coding.hop import HEADER_BYTES, NO_DICTIONARY_TAG, dictionary_tag, pack_hop, tag_of, unpack_hop

OLD = {("titles", "a"): encode({"title": "A", "rating": 5}), ("titles", "b"): encode({"title": "B"})}
DICTIONARY = b"title rating cast genres " * 40


class Held:
    """Version A."""

    def get(self, collection: str, key: str) -> bytes | None:
        return OLD.get((collection, key))

    def keys(self, collection: str) -> Iterator[str]:
        return iter(sorted(key for name, key in OLD if name == collection))

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        below = [item for item in OLD if item[0] == collection and item[1] < key]
        return (max(below)[1], OLD[max(below)]) if below else None


CHANGES = [Change("titles", "a", encode({"title": "A", "rating": 6})), Change("titles", "b", None)]


@pytest.mark.parametrize("dictionary", [b"", DICTIONARY])
def test_it_carries_the_changes(dictionary: bytes) -> None:
    blob = pack_hop(CHANGES, Held(), dictionary)
    assert dictionary_tag(blob) == tag_of(dictionary)
    assert unpack_hop(blob, Held(), dictionary) == CHANGES


@pytest.mark.parametrize("key", ["a", "new"])
def test_a_value_that_is_not_deterministic_is_no_change(key: str) -> None:
    with pytest.raises(WireError, match="deterministic"):
        pack_hop([Change("titles", key, bytes.fromhex("a2657469746c65614166726174696e671807"))], Held(), b"")


def test_another_dictionary_is_refused_before_anything_is_decoded() -> None:
    blob = pack_hop(CHANGES, Held(), DICTIONARY)
    with pytest.raises(ChainError, match="dictionary"):
        unpack_hop(blob, Held(), b"")
    assert tag_of(b"") == NO_DICTIONARY_TAG


def test_another_format_or_a_stump_is_refused() -> None:
    blob = pack_hop(CHANGES, Held(), b"")
    with pytest.raises(WireError, match="format 9"):
        unpack_hop(b"\x09" + blob[1:], Held(), b"")
    for size in range(HEADER_BYTES):
        with pytest.raises(WireError):
            unpack_hop(blob[:size], Held(), b"")


def test_more_than_allowed_is_refused() -> None:
    blob = pack_hop([Change("titles", "new", encode("x" * 5000))], Held(), b"")
    with pytest.raises(WireError):
        unpack_hop(blob, Held(), b"", max_bytes=1000)


@pytest.mark.parametrize(
    ("collection", "key"), [("titles", ""), ("titles", "k\0"), ("titles", "k" * 513), ("changes", "k")]
)
def test_names_that_no_device_takes_are_not_sent(collection: str, key: str) -> None:
    with pytest.raises(WireError, match=r"key|collection"):
        pack_hop([Change(collection, key, encode({}))], Held(), b"")
    with pytest.raises(WireError, match=r"key|collection"):
        pack_hop([Change(collection, key, None)], Held(), b"")  # nor where there is nothing to remove
