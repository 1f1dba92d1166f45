"""Heads and chains: what is encoded comes back, and what is malformed is refused with what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.chain import decode_chain, encode_chain
from edged.feed.head import decode_head, encode_head
from edged.feed.takedowns import decode_takedowns, encode_takedowns
from tests.feed.making import DIGEST, blob, chain, head

SHA256 = bytes(range(32))


def test_head_comes_back() -> None:
    assert decode_head(encode_head(head())) == head()
    bare = replace(head(), slices={}, takedowns=None)
    assert decode_head(encode_head(bare)) == bare


def test_the_usual_freshness_takes_no_byte() -> None:
    usual = replace(head(), fresh_s=86_400, expires_s=2_592_000)
    assert decode_head(encode_head(usual)) == usual
    assert 5 not in cbor.decode(encode_head(usual), "test")
    other = replace(usual, expires_s=2_592_001)
    assert decode_head(encode_head(other)) == other


def test_chain_comes_back() -> None:
    assert decode_chain(encode_chain(chain())) == chain()


def test_takedowns_come_back() -> None:
    entries = {("titles", "b/1"), ("titles", "a"), ("people", "é")}
    assert decode_takedowns(encode_takedowns(entries)) == entries
    assert encode_takedowns(sorted(entries)) == encode_takedowns(sorted(entries, reverse=True))
    assert decode_takedowns(encode_takedowns([])) == frozenset()


def test_dictionaries_of_a_chain_begin_with_the_newest_snapshots() -> None:
    entry = chain().slices["core"]
    older = replace(entry.snapshots[0], version=3, dictionary=blob(63))
    assert replace(entry, snapshots=(older, *entry.snapshots)).dictionary_refs() == [blob(64), blob(63), blob(65)]


def changed(field: int, value: Any) -> bytes:
    document = cbor.decode(encode_head(head()), "test")
    document[field] = value
    return cbor.encode(document)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (1, 3, "format 3, this edged reads 2; update edged"),
        (2, "../etc", "dataset name"),
        (2, 5, "dataset name"),
        (3, 0, "a field is missing"),
        (3, -1, "a field is missing"),
        (3, "7", "a field is missing"),
        (4, 0, "a field is missing"),
        (5, [600, 60], "a field is missing"),
        (5, [-1, 60], "a field is missing"),
        (6, 0, "a field is missing"),
        (7, [], "a field is missing"),
        (7, {"core/x": [7, DIGEST, 1, []]}, "slice name"),
        (7, {"core": [8, DIGEST, 1, []]}, "slice 'core' is not"),
        (7, {"core": [7, DIGEST[:15], 1, []]}, "slice 'core' is not"),
        (7, {"core": [7, DIGEST, -1, []]}, "slice 'core' is not"),
        (7, {"core": [7, DIGEST, 1, [[5, 6, b"x"]]]}, "slice 'core' is not"),
        (7, {"core": [7, DIGEST, 1, [[7, 7, b"x"]]]}, "not a hop reference"),
        (7, {"core": [7, DIGEST, 1, [[-1, 7, b"x"]]]}, "not a hop reference"),
        (7, {"core": [7, DIGEST, 1, [[6, 7, 10]]]}, "not a hop reference"),
        (8, [limits.BLOB_BYTES + 1, SHA256], "expected .size up to"),
        (8, [1, DIGEST[:5]], "expected .size up to"),
        (9, 8, "a field is missing"),
        (9, -1, "a field is missing"),
        (10, "x", "expected .size up to"),
        (11, [b"saltsalt", 0, 8, {}, [1, SHA256], 1], "its offer is not"),
        (11, [b"saltsalt", 1001, 8, {}, [1, SHA256], 1], "its offer is not"),
        (11, [b"salt", 5, 8, {}, [1, SHA256], 1], "its offer is not"),
        (11, [b"saltsalt", 5, 7, {}, [1, SHA256], 1], "its offer is not"),
        (11, [b"saltsalt", 5, 8, {}, [1, SHA256], 9], "its offer is not"),
        (11, [b"saltsalt", 5, 8, {"../x": [8, DIGEST, 1, []]}, [1, SHA256], 1], "slice name"),
        (11, 5, "its offer is not"),
    ],
)
def test_malformed_head(field: int, value: Any, words: str) -> None:
    with pytest.raises(WireError, match=words):
        decode_head(changed(field, value))


@pytest.mark.parametrize("item", [None, [], 5, "x", {}, {1: 2}])
def test_what_is_no_head_at_all(item: Any) -> None:
    with pytest.raises(WireError):
        decode_head(cbor.encode(item))
    with pytest.raises(WireError):
        decode_chain(zstd.compress(cbor.encode(item)))
    with pytest.raises(WireError):
        decode_takedowns(zstd.compress(cbor.encode(item)))


SNAPSHOT: list[Any] = [6, DIGEST, 12, None, []]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([[], []], "is not .snapshots, hops, dictionaries"),
        ([[[6, DIGEST, 12, None]], [], []], "not a snapshot reference"),
        ([[[-1, *SNAPSHOT[1:]]], [], []], "not a snapshot reference"),
        ([[[6, b"short", 12, None, []]], [], []], "not a snapshot reference"),
        ([[[6, DIGEST, 12, [limits.DICTIONARY_BYTES + 1, SHA256], []]], [], []], "a dictionary of"),
        ([[], [], [[limits.DICTIONARY_BYTES + 1, SHA256]]], "a dictionary of"),
        ([[], [[2, 1, 5, SHA256]], []], "not a hop reference"),
        ([[[6, DIGEST, 12, None, [["x", SHA256]]]], [], []], "expected .size up to"),
    ],
)
def test_malformed_chain(entry: Any, words: str) -> None:
    document = {1: 2, 2: "catalog", 3: 7, 4: {"collections": {}, "views": {}}, 5: {"core": entry}}
    with pytest.raises(WireError, match=words):
        decode_chain(zstd.compress(cbor.encode(document)))


@given(st.data())
def test_damaged_documents_raise_wire_errors_and_nothing_else(data: st.DataObject) -> None:
    # The payload of a head and the content of a chain, as a publisher with a fault might sign them.
    whole, decode = data.draw(
        st.sampled_from(
            [
                (encode_head(head()), decode_head),
                (zstd.decompress(encode_chain(chain()), "test", 1 << 20), lambda raw: decode_chain(zstd.compress(raw))),
            ]
        )
    )
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    try:
        decode(bytes(raw[: len(raw) - cut]))
    except WireError:
        return
    assert cut == 0
