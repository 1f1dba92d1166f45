"""Hops come out byte for byte as they went in, and nothing that a stranger sends does more than raise WireError."""

from __future__ import annotations

import contextlib
import tracemalloc
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import WireError
from edged.feed import cbor
from edged.feed.coding import arithmetic, hop, modelledhop
from edged.feed.coding.changes import Change, sort_key
from edged.feed.coding.hop import MASS, MODELLED, WHOLE, decode_hop, encode_hop
from edged.feed.coding.modelledhop import encode_modelled
from edged.feed.coding.snapshot import train_dictionary
from edged.feed.coding.wholehop import encode_whole

State = dict[tuple[str, str], bytes]


class View:
    """Version A of a slice, in memory."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.order = sorted((collection, key.encode()) for collection, key in state)

    def get(self, collection: str, key: str) -> bytes | None:
        return self.state.get((collection, key))

    def keys(self, collection: str) -> Iterator[str]:
        return (key.decode() for name, key in self.order if name == collection)

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        place = bisect_left(self.order, (collection, key.encode())) - 1
        if place < 0 or self.order[place][0] != collection:
            return None
        found = self.order[place][1].decode()
        return found, self.state[collection, found]


def film(number: int, title: str = "") -> bytes:
    return cbor.encode_record(
        {
            "title": title or f"Film {number}",
            "year": 1900 + number % 120,
            "cast": [f"Actor {n}" for n in range(number % 5)],
            "score": number / 8,
            "poster": None if number % 3 else f"https://images.example/{number}.jpg",
            "ids": {"imdb": f"tt{number:07}", "adult": number % 2 == 0},
        },
        f"film {number}",
    )


def catalogue(count: int) -> State:
    return {("titles", str(number)): film(number) for number in range(count)}


def dictionary_of(state: State, size: int = 8192) -> bytes:
    ordered = sorted(state.items(), key=lambda item: (item[0][0], item[0][1].encode()))
    return train_dictionary(((collection, key, value) for (collection, key), value in ordered), size)


BASE = catalogue(400)
DICTIONARY = dictionary_of(BASE)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abcé", max_size=3), inner, max_size=5),
    max_leaves=12,
)
VALUES = JSON.map(lambda value: cbor.encode_record(value, "test"))
KEYS = st.integers(0, 500).map(str) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda key: "\0" not in key
)
STATES = st.dictionaries(st.tuples(st.sampled_from(["a", "titles"]), KEYS), VALUES, max_size=8)


def difference(old: State, new: State) -> list[Change]:
    gone = [Change(*name, None) for name in old if name not in new]
    return gone + [Change(*name, value) for name, value in new.items() if old.get(name) != value]


@settings(max_examples=50, deadline=None)
@given(STATES, STATES)
def test_any_change_of_any_state_comes_back_byte_for_byte(old: State, new: State) -> None:
    view, changes = View(old), difference(old, new)
    for dictionary in (b"", DICTIONARY):
        data = encode_hop(changes, view, dictionary)
        assert decode_hop(data, view, dictionary, max_bytes=1 << 20) == sorted(changes, key=sort_key)


def test_an_edit_of_one_field_costs_few_bytes() -> None:
    view = View(BASE)
    data = encode_hop([Change("titles", "17", film(17, "Film 17 again"))], view, DICTIONARY)
    assert len(data) < 16


def test_changes_that_change_nothing_are_left_out() -> None:
    view = View(BASE)
    data = encode_hop([Change("titles", "3", film(3)), Change("titles", "none", None)], view, DICTIONARY)
    assert decode_hop(data, view, DICTIONARY, max_bytes=100) == []


def test_a_record_changed_twice_is_refused_at_publishing() -> None:
    with pytest.raises(WireError, match="twice"):
        encode_hop([Change("titles", "3", None), Change("titles", "3", film(4))], View(BASE), DICTIONARY)


@cache
def sample_hop(form: int = MODELLED, *, by_key: bool = False) -> tuple[View, bytes]:
    """by_key: in the whole form, old records named by their keys."""
    view = View(BASE)
    changes = [Change("titles", str(n), film(n, f"Changed {n}")) for n in range(10, 20)]
    changes += [Change("titles", str(n), film(n)) for n in range(400, 406)]
    changes += [Change("titles", "77", None)]
    with pytest.MonkeyPatch.context() as patch:
        if form == WHOLE:
            patch.setattr(hop, "NEW_BYTES", -1)
        patch.setattr(hop, "MASS_CHANGES", 1 if form == MASS else 64)
        data = encode_hop(changes, view, DICTIONARY)
    if by_key:
        entries = [(change.collection, change.key, change.value) for change in sorted(changes, key=sort_key)]
        data = bytes([WHOLE]) + encode_whole(entries, view, DICTIONARY, places_each=0)
    assert data[0] == form
    assert form != WHOLE or data[1] >> 1 == (not by_key)
    return view, data


FORMS = pytest.mark.parametrize("form", [WHOLE, MODELLED, MASS])


@pytest.mark.parametrize(("form", "by_key"), [(WHOLE, True), (WHOLE, False), (MODELLED, False), (MASS, False)])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_bytes_raise_wire_error_or_decode_within_the_limit(
    form: int, by_key: bool, data: st.DataObject
) -> None:
    view, hop = sample_hop(form, by_key=by_key)
    mutated = bytearray(hop)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(["set", "insert", "cut"])):
            case "set":
                mutated[place] = data.draw(st.integers(0, 255))
            case "insert":
                mutated.insert(place, data.draw(st.integers(0, 255)))
            case _ if len(mutated) > 1:
                del mutated[place]
    try:
        changes = decode_hop(bytes(mutated), view, DICTIONARY, max_bytes=4096)
    except WireError:
        return
    assert sum(len(change.value or b"") for change in changes) <= 4096


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_wire_error_or_decode_within_the_limit(noise: bytes) -> None:
    view = View(BASE)
    for form in range(4):
        try:
            changes = decode_hop(bytes([form]) + noise, view, DICTIONARY, max_bytes=4096)
        except WireError:
            continue
        assert sum(len(change.value or b"") for change in changes) <= 4096


@pytest.mark.parametrize("by_key", [True, False])
def test_every_cut_of_a_whole_hop_is_refused(by_key: bool) -> None:
    view, hop = sample_hop(WHOLE, by_key=by_key)
    for length in range(len(hop)):
        with pytest.raises(WireError):
            decode_hop(hop[:length], view, DICTIONARY, max_bytes=1 << 20)


def test_a_cut_modelled_hop_never_passes_for_the_whole_one() -> None:
    """The end is checked, but it is the hash and the digest that are proof: one cut in some hundreds may decode."""
    view, hop = sample_hop()
    refused = 0
    for length in range(len(hop)):
        try:
            changes = decode_hop(hop[:length], view, DICTIONARY, max_bytes=1 << 20)
        except WireError:
            refused += 1
        else:
            assert encode_hop(changes, view, DICTIONARY) != hop
    assert refused > len(hop) * 0.9


@FORMS
def test_data_after_a_hop_is_refused(form: int) -> None:
    view, hop = sample_hop(form)
    with pytest.raises(WireError):
        decode_hop(hop + b"\0", view, DICTIONARY, max_bytes=1 << 20)


@FORMS
def test_a_hop_over_the_limit_is_refused(form: int) -> None:
    view, hop = sample_hop(form)
    with pytest.raises(WireError):
        decode_hop(hop, view, DICTIONARY, max_bytes=500)


@FORMS
def test_a_hop_for_another_version_is_refused_or_comes_out_within_the_limit(form: int) -> None:
    _, hop = sample_hop(form)
    others = [catalogue(5), catalogue(420), {}, {("titles", name): film(1) for name in "abc"}]
    for other in others:
        try:
            changes = decode_hop(hop, View(other), DICTIONARY, max_bytes=1 << 16)
        except WireError:
            continue
        assert sum(len(change.value or b"") for change in changes) <= 1 << 16


def test_a_hop_too_long_for_bits_travels_in_the_whole_form() -> None:
    view = View(BASE)
    noise = ["".join(chr(97 + (n * n * 31 + k * k * 17 + n * k) % 26) for k in range(300)) for n in range(20)]
    changes = [Change("titles", f"n{n}", cbor.encode_record({"title": text}, "test")) for n, text in enumerate(noise)]
    with pytest.raises(arithmetic.TooLong):
        encode_modelled([(c.collection, c.key, c.value) for c in changes], view, DICTIONARY, 5000)
    data = encode_hop(changes, view, DICTIONARY, 5000)
    assert data[0] == WHOLE
    assert decode_hop(data, view, DICTIONARY, max_bytes=1 << 20) == sorted(changes, key=sort_key)


def test_endless_bits_of_a_hostile_hop_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "BITS_MOST", 5000)
    for fill in (0, 0xFF, 0x55):
        with pytest.raises(WireError):
            decode_hop(bytes([MODELLED]) + bytes([fill]) * 100_000, View(BASE), DICTIONARY, max_bytes=1 << 28)


def test_no_more_is_coded_against_than_a_small_device_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    view, hop = sample_hop()
    changes = decode_hop(hop, view, DICTIONARY, max_bytes=1 << 20)
    monkeypatch.setattr(modelledhop, "OLD_BYTES", 1000)
    less = encode_hop(changes, view, DICTIONARY)
    assert len(less) > len(hop)  # for what is not held cannot be learnt from
    assert decode_hop(less, view, DICTIONARY, max_bytes=1 << 20) == changes


def test_nor_is_more_made_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    view, hop = sample_hop()
    monkeypatch.setattr(modelledhop, "NEW_BYTES", 1000)
    with pytest.raises(WireError, match="more than the allowed bytes"):
        decode_hop(hop, view, DICTIONARY, max_bytes=1 << 20)


def test_lists_are_edited_item_by_item() -> None:
    cast = [f"Somebody With A Name {n}" for n in range(100)]
    old, new = {"cast": cast}, {"cast": [*cast[:40], "New One", *cast[41:60], *cast[62:], "Last One"]}
    view = View({("titles", "1"): cbor.encode_record(old, "old")})
    changes = [Change("titles", "1", cbor.encode_record(new, "new"))]
    data = encode_hop(changes, view, b"")
    assert len(data) < 60
    assert decode_hop(data, view, b"", max_bytes=1 << 16) == changes


def test_values_that_python_takes_for_equal_stay_apart() -> None:
    old, new = [1, 0, True, 1.0, -0.0, 0.0], [True, False, 1, 1, 0.0, -0.0]
    view = View({("a", "1"): cbor.encode_record(old, "old"), ("a", "2"): cbor.encode_record({"x": 1}, "old")})
    changes = [
        Change("a", "1", cbor.encode_record(new, "new")),
        Change("a", "2", cbor.encode_record({"x": True}, "new")),
    ]
    assert decode_hop(encode_hop(changes, view, b""), view, b"", max_bytes=1000) == changes


def test_long_keys_of_old_records_are_named_by_what_tells_them_apart() -> None:
    state = {("titles", f"2003/A_Film_With_The_Name_{name}_(film)"): film(1) for name in ("Ada", "Bob", "Cyd", "Dan")}
    view = View(state)
    changes = [Change("titles", "2003/A_Film_With_The_Name_Bob_(film)", None)]
    data = encode_hop(changes, view, b"")
    assert len(data) < 40
    assert decode_hop(data, view, b"", max_bytes=1000) == changes


def test_keys_that_hold_the_last_character_of_all_are_still_found() -> None:
    last = "\U0010ffff"
    state = {("a", key): film(n) for n, key in enumerate(["b", f"b{last}", f"b{last}{last}", last])}
    view = View(state)
    changes = [Change("a", key, None) for _, key in sorted(state)]
    data = encode_hop(changes, view, b"")
    assert decode_hop(data, view, b"", max_bytes=1000) == sorted(changes, key=sort_key)


@pytest.mark.slow
def test_hostile_bits_cannot_make_the_decoder_remember_much() -> None:
    view = View({("titles", "k" * 512): film(3), **BASE})
    deep: dict[str, object] = {"a": "", "b": [{}, {"c": {"d": [1.5, None]}}]}
    for depth in range(20):
        deep = {("x" * 100 + str(depth)): deep, **{f"{depth}{n}": n for n in range(20)}}
    fair = encode_hop([Change("titles", "k" * 512, cbor.encode_record(deep, "deep"))], view, DICTIONARY)
    noise = b"".join(sha256(bytes([n])).digest() for n in range(60))
    for coded in [bytes([MODELLED]) + noise, *(fair[:cut] + noise for cut in range(20, len(fair), 150))]:
        tracemalloc.start()
        with contextlib.suppress(WireError):
            decode_hop(coded, view, DICTIONARY, max_bytes=1 << 30)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20
