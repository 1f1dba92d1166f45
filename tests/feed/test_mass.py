"""Edits of one pattern to many records: each costs a fraction of a byte a record, and comes back byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import WireError
from edged.feed import cbor
from edged.feed.coding import arithmetic, hop, modelledhop, transforms
from edged.feed.coding.arithmetic import ArithmeticDecoder, ArithmeticEncoder, TooLong
from edged.feed.coding.changes import Change, Entry, sort_key
from edged.feed.coding.differences import WORD_PIECES, WORDS_MOST, common_run, is_moved, replaced_words
from edged.feed.coding.guessing import COUNT_MOST, KEPT, LESSONS, PALETTE, Guesser, Palette
from edged.feed.coding.hop import MASS, MASS_CHANGES, MODELLED, decode_hop, encode_hop, forms_worth_trying
from edged.feed.coding.modelledhop import CHANGE_BITS, HopCoder, decode_mass, encode_mass, encode_modelled
from edged.feed.fieldpath import ABSENT
from tests.feed.test_hop_forms import DICTIONARY, STATES, State, View, difference

Fields = dict[str, Any]
COUNT = 400
TIERS = ("svod", "tvod", "avod", "est")


def programme(number: int) -> Fields:
    chance = random.Random(number)
    return {
        "title": f"{chance.choice(('The', 'A'))} {chance.choice(('Long', 'Dark', 'Quiet'))} Night {number}",
        "year": 1950 + number % 70,
        "start": 1_700_000_000 + chance.randrange(10_000) * 900,
        "until": f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:30:00Z",
        "tier": chance.choice(TIERS),
        "price": chance.choice((99, 199, 499)),
        "score": round(chance.uniform(1, 10), 1),
        "image": f"https://img.example.net/w342/{chance.getrandbits(64):016x}.jpg?v=12",
        "langs": chance.sample(["pt", "en", "es", "fr", "de"], 3),
        "rights": {"from": number, "hd": number % 3 == 0},
    }


def view_of(records: list[Fields]) -> View:
    return View({("titles", f"k{number:04}"): cbor.encode(record) for number, record in enumerate(records)})


OLD = [programme(number) for number in range(COUNT)]
VIEW = view_of(OLD)


def edited(edit: Callable[[Fields, int], None], step: int = 1) -> list[Change]:
    changes = []
    for number in range(0, COUNT, step):
        fields = cbor.decode(cbor.encode(OLD[number]), "copy")
        edit(fields, number)
        if fields != OLD[number]:
            changes.append(Change("titles", f"k{number:04}", cbor.encode_record(fields, "edited")))
    return changes


def sizes(changes: list[Change]) -> int:
    data = encode_hop(changes, VIEW, b"")
    assert decode_hop(data, VIEW, b"", max_bytes=1 << 22) == sorted(changes, key=sort_key)
    return len(data)


def shift_text(fields: Fields, number: int) -> None:
    day, hour = fields["until"][8:10], int(fields["until"][11:13])
    fields["until"] = f"{fields['until'][:8]}{day}T{hour:02}:45:00Z"


PATTERNS: dict[str, Callable[[Fields, int], Any]] = {
    "a constant": lambda fields, number: fields.update(source="feed-b"),
    "a field dropped": lambda fields, number: fields.pop("tier"),
    "a field renamed": lambda fields, number: fields.update(name=fields.pop("title")),
    "a number rescaled": lambda fields, number: fields.update(score=round(fields["score"] * 10)),
    "a number made a fraction": lambda fields, number: fields.update(price=fields["price"] / 100),
    "times shifted": lambda fields, number: fields.update(start=fields["start"] + 3600),
    "times in text shifted": shift_text,
    "another host": lambda fields, number: fields.update(image=fields["image"].replace("img.", "cdn7.", 1)),
    "a flag inside": lambda fields, number: fields["rights"].update(hd=not fields["rights"]["hd"]),
    "made of the title": lambda fields, number: fields.update(path="/w/" + fields["title"].lower().replace(" ", "-")),
    "made of the key": lambda fields, number: fields.update(ref=f"urn:x:k{number:04}"),
    "a decade": lambda fields, number: fields.update(decade=fields["year"] // 10 * 10),
    "a count": lambda fields, number: fields.update(many=len(fields["langs"])),
    "a list turned": lambda fields, number: fields.update(langs=[fields["langs"][-1], *fields["langs"][:-1]]),
    "a list sorted": lambda fields, number: fields.update(langs=sorted(fields["langs"])),
    "an item added": lambda fields, number: fields["langs"].append("nl"),
    "a text changed in two places": lambda fields, number: fields.update(
        image=fields["image"].replace("w342", "w500").replace("v=12", "v=13")
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_that_all_records_follow_costs_next_to_nothing(name: str) -> None:
    changes = edited(PATTERNS[name])
    assert sizes(changes) < 130  # of some 100,000 bytes of records


@pytest.mark.parametrize("name", PATTERNS)
def test_in_some_of_the_records_what_it_costs_is_to_say_which(name: str) -> None:
    assert sizes(edited(PATTERNS[name], 3)) < 330


def test_values_of_a_small_set_cost_about_their_entropy() -> None:
    chance = random.Random(1)
    changes = edited(lambda fields, number: fields.update(grade=chance.choice("ABCDEFGH")))
    assert sizes(changes) < COUNT * 3 / 8 * 1.25 + 60


@pytest.mark.parametrize("bits", [10, 32, 60])
def test_random_numbers_cost_little_more_than_their_entropy(bits: int) -> None:
    chance = random.Random(bits)
    changes = edited(lambda fields, number: fields.update(start=chance.getrandbits(bits)))
    assert sizes(changes) < COUNT * bits / 8 * 1.1 + 60


def test_random_texts_cost_little_more_than_their_entropy() -> None:
    chance = random.Random(3)
    changes = edited(lambda fields, number: fields.update(token=f"{chance.getrandbits(96):024x}"))
    assert sizes(changes) < COUNT * 96 / 8 * 1.1 + 60


@pytest.mark.parametrize(
    "signs", ["0123456789ABCDEF", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"]
)
def test_random_texts_in_an_address_cost_little_more_than_their_entropy(signs: str) -> None:
    chance = random.Random(signs)
    bits = 20 * (len(signs).bit_length() - 1)
    changes = edited(
        lambda fields, number: fields.update(
            image=f"{fields['image'].partition('?')[0]}?e=17&s={''.join(chance.choices(signs, k=20))}"
        )
    )
    assert sizes(changes) < COUNT * bits / 8 * 1.02 + 90


def test_uuids_cost_little_more_than_their_entropy() -> None:
    chance = random.Random(5)
    changes = edited(lambda fields, number: fields.update(id=str(UUID(int=chance.getrandbits(128)))))
    assert sizes(changes) < COUNT * 16 * 1.01 + 60


SYNOPSES = [
    " ".join(random.Random(number).choices(["amber", "night", "river,", "stone", "the", "a"], k=9 + number % 40))
    for number in range(COUNT)
]
TOLD = View({("titles", f"k{n:04}"): cbor.encode_record({"text": text}, "synopsis") for n, text in enumerate(SYNOPSES)})


def told(edit: Callable[[list[str], random.Random], Any]) -> int:
    """What it takes to edit the words of all synopses; they come back as they were."""
    chance = random.Random(7)
    changes = []
    for number, text in enumerate(SYNOPSES):
        words = text.split(" ")
        edit(words, chance)
        value = cbor.encode_record({"text": " ".join(words)}, "edited")
        if " ".join(words) != text:
            changes.append(Change("titles", f"k{number:04}", value))
    data = encode_hop(changes, TOLD, b"")
    assert decode_hop(data, TOLD, b"", max_bytes=1 << 22) == changes
    return len(data)


def replace_two(words: list[str], chance: random.Random) -> None:
    words[2], words[-3] = chance.choice(TIERS), chance.choice(TIERS)


def insert_and_drop(words: list[str], chance: random.Random) -> None:
    words.insert(1, chance.choice(TIERS))
    del words[-4:-2]


@pytest.mark.parametrize(("edit", "most"), [(replace_two, 340), (insert_and_drop, 640)])
def test_words_replaced_at_the_same_places_cost_about_which_they_are(edit: Callable[..., Any], most: int) -> None:
    assert told(edit) < most  # four bits a record are what says which words they are


WORDY = st.lists(st.sampled_from(["a", "bb", "ccc", "", "d\u00e9"]), max_size=14).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDY, WORDY), min_size=1, max_size=9))
def test_texts_of_words_come_back(pairs: list[tuple[str, str]]) -> None:
    view = view_of([{"text": before} for before, _ in pairs])
    entries: list[Entry] = [
        ("titles", f"k{number:04}", cbor.encode({"text": after}))
        for number, (before, after) in enumerate(pairs)
        if before != after
    ]
    assert decode_mass(encode_mass(entries, view, DICTIONARY), view, DICTIONARY, 1 << 20) == entries


@given(st.lists(st.sampled_from(b"abc"), max_size=12), st.lists(st.sampled_from(b"abc"), max_size=12))
def test_replaced_words_make_the_new_of_the_old(old: list[int], new: list[int]) -> None:
    before, after = [bytes([one]) for one in old], [bytes([one]) for one in new]
    found = replaced_words(before, after)
    if found is None:
        return
    made, at = [], 0
    for low, high, below, above in found:
        assert low >= at
        made += [*before[at:low], *after[below:above]]
        at = high
    assert made + before[at:] == after
    assert all(before[low:high] != after[below:above] for low, high, below, above in found)


def test_no_more_words_are_looked_at_than_allowed() -> None:
    old = [b"x", b"y"] * (WORD_PIECES + 1)
    new = [b"z" if word == b"y" else word for word in old]
    assert replaced_words(old, new) is None
    assert replaced_words(old[2:], new[2:]) is not None
    assert replaced_words([b"x", *old], new) is None  # too many pieces, of texts of another size too
    assert replaced_words([b"x"] * WORDS_MOST, [b"y"] * (WORDS_MOST - 1)) is not None
    assert replaced_words([b"x"] * (WORDS_MOST + 1), [b"y"] * WORDS_MOST) is None


def test_numbers_are_scaled_rounded_and_cut_off() -> None:
    def scaled(value: Any, digits: int | None, up: bool = False) -> Any:
        return transforms.Scaled(1000, up, digits).apply(value)

    assert scaled(2999, -2) == 2000  # cut off to a multiple
    assert scaled(2999, -3) == 2  # divided and cut off
    assert (scaled(2999.0, -2), scaled(2999.0, -3)) == (ABSENT, ABSENT)
    assert (scaled(2999, -1), scaled(2999, None), scaled(2999, 1)) == (3, 2.999, 3.0)
    assert (scaled(3, None, True), scaled(0.25, -1, True)) == (3000, 250)
    assert (scaled((1 << 53) - 1, -1), scaled(1 << 53, -1)) == (9007199254741, ABSENT)


@pytest.mark.parametrize(
    ("digits", "new"), [(None, 123.4567), (-1, 123), (0, 123.0), (1, 123.5), (2, 123.46), (3, 123.457)]
)
def test_a_number_is_explained_by_how_it_was_rounded(digits: int | None, new: float) -> None:
    assert transforms.Scaled(1000, True, digits) in list(transforms.scalings(0.1234567, new))


def test_fields_of_a_record_are_looked_at_three_objects_deep() -> None:
    record = {"a": {"b": {"c": {"d": 1}}, "e": 2}, "f": [{"g": 3}]}
    assert [path for path, _ in transforms.sources(record)] == [("a",), ("a", "b"), ("a", "b", "c"), ("a", "e"), ("f",)]


def test_each_record_is_foreseen_by_how_many_are_done() -> None:
    """The room ends with the eighth of twelve: the other four are foreseen by the later half of those done."""
    entries: list[Entry] = []
    for number in range(12):
        text = random.Random(number).randbytes(40 + number * number).hex()
        entries.append(("titles", f"k{number:04}", cbor.encode({**OLD[number], "synopsis": text})))
    whole = ArithmeticEncoder(1 << 30)
    HopCoder(whole, VIEW, b"", 1 << 62).write(entries, whole)
    assert len(whole.taken) == 12
    rest = (whole.taken[7] - whole.taken[4]) * 4 // 3
    room = whole.taken[7] - (whole.most - (1 << 30))
    with pytest.raises(TooLong, match=f"some {rest} bits"):
        encode_modelled(entries, VIEW, b"", room)


def test_a_value_is_known_by_what_is_not_barred() -> None:
    palette = Palette(3)
    for value in (b"a", b"b", b"b", b"c", b"d"):
        palette.note(value, value)
    assert palette.values == [b"a", b"b", b"c"]
    for barred in (set[int](), {1}, {0, 1}, {0, 2}):
        for number in {0, 1, 2} - barred:
            encoder = ArithmeticEncoder(9)
            assert palette.code(encoder, number, barred) == number
            decoder = ArithmeticDecoder(encoder.finish(), "test")
            assert palette.code(decoder, -1, barred) == number
            assert len(barred) < 2 or encoder.left == 9  # the only one left needs no telling
    for _ in range(99_999):
        palette.note(b"b", b"b")
    assert max(palette.counts) < COUNT_MOST
    assert min(palette.counts) == 1


def test_one_long_text_among_many_edits_costs_itself_alone() -> None:
    shifted = edited(PATTERNS["times shifted"])
    alone = sizes(shifted)
    text = " ".join(random.Random(4).choices(["amber", "night", "river", "stone", "glass"], k=1600))
    fields = cbor.decode(shifted[7].value or b"", "one")
    shifted[7] = Change("titles", "k0007", cbor.encode({**fields, "synopsis": text}))
    assert sizes(shifted) < alone + len(text) / 4


@settings(max_examples=40, deadline=None)
@given(STATES, STATES)
def test_any_change_of_any_state_comes_back_from_the_form_for_many(old: State, new: State) -> None:
    view = View(old)
    entries = [(change.collection, change.key, change.value) for change in difference(old, new)]
    for dictionary in (b"", DICTIONARY):
        data = encode_mass(entries, view, dictionary)
        found = decode_mass(data, view, dictionary, 1 << 20)
        assert [Change(*entry) for entry in found] == sorted(difference(old, new), key=sort_key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats(-2, 2) | st.text("ab -2026:T", max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(JSON, JSON), min_size=1, max_size=12), st.booleans())
def test_guesses_are_the_same_on_both_sides(pairs: list[tuple[Any, Any]], many: bool) -> None:
    old = [{"f": before, "g": after, "h": [before]} for before, after in pairs]
    view = view_of(old)
    changes = [
        Change("titles", f"k{number:04}", cbor.encode_record({"f": after, "n": before}, "new"))
        for number, (before, after) in enumerate(pairs)
    ]
    entries = [(change.collection, change.key, change.value) for change in changes]
    encode, form = (encode_mass, MASS) if many else (encode_modelled, MODELLED)
    data = bytes([form]) + encode(entries, view, b"")
    assert decode_hop(data, view, b"", max_bytes=1 << 20) == changes


@pytest.mark.parametrize("count", [MASS_CHANGES - 1, MASS_CHANGES])
def test_the_form_for_many_is_taken_from_so_many_on(count: int) -> None:
    changes = edited(PATTERNS["times shifted"])[:count]
    assert encode_hop(changes, VIEW, b"")[0] == (MASS if count >= MASS_CHANGES else MODELLED)


@pytest.mark.parametrize("over", [0, 1])
def test_more_changes_than_allowed_are_refused_and_not_encoded_so(over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = edited(PATTERNS["times shifted"])
    data = encode_hop(changes, VIEW, b"")
    monkeypatch.setattr(modelledhop, "CHANGES_MOST", COUNT - over)
    monkeypatch.setattr(hop, "CHANGES_MOST", COUNT - over)
    if over:
        with pytest.raises(WireError, match=f"{COUNT} changes, at most {COUNT - 1}"):
            decode_hop(data, VIEW, b"", max_bytes=1 << 22)
        assert encode_hop(changes, VIEW, b"")[0] == hop.WHOLE
    else:
        assert decode_hop(data, VIEW, b"", max_bytes=1 << 22) == changes
        assert encode_hop(changes, VIEW, b"") == data


@pytest.mark.parametrize(
    ("count", "bits", "forms"),
    [
        (1, 0, []),  # where none may be coded one by one, none is
        (1, 1, [MASS]),
        (1, -30, []),
        (63, 1, [MODELLED, MASS]),
        (64, 1, [MASS]),
    ],
)
def test_new_records_that_cannot_fit_are_not_tried(count: int, bits: int, forms: list[int]) -> None:
    # a record of 20 bytes takes at least 40 bits in the one form and 20 in the other; each change allows 32
    entries: list[Entry] = [("titles", f"new{number}", bytes(20 if number == 0 else 1)) for number in range(count)]
    assert forms_worth_trying(entries, VIEW, bits) == forms


def test_what_is_not_tried_would_not_have_fitted() -> None:
    text = "".join(random.Random(6).choices("abcdefgh ", k=60_000))
    entries: list[Entry] = [
        ("titles", f"new{n:02}", cbor.encode({"synopsis": text[n * 3000 : n * 3000 + 3000]})) for n in range(20)
    ]
    bits = sum(len(value or b"") for _, _, value in entries) * 2 - 20 * CHANGE_BITS - 1
    assert MODELLED not in forms_worth_trying(entries, VIEW, bits)
    with pytest.raises(TooLong):
        encode_modelled(entries, VIEW, b"", bits)


def test_bits_are_bounded_by_hop_and_by_change() -> None:
    entries = [(c.collection, c.key, c.value) for c in edited(PATTERNS["times shifted"])]
    encode_mass(entries, VIEW, b"", 1000)  # 32 a change are far more than a right guess takes
    with pytest.raises(TooLong):
        encode_mass(entries, VIEW, b"", -COUNT * CHANGE_BITS + 500)


def test_what_is_allowed_is_counted_alike_by_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "BITS_MOST", 10)
    encoder = ArithmeticEncoder(10)
    encoder.allow(5)
    for _ in range(15):
        encoder.code(1, 1000)
    with pytest.raises(TooLong, match="15"):
        encoder.code(1, 1000)
    decoder = ArithmeticDecoder(encoder.finish(), "test")
    decoder.allow(5)
    assert [decoder.code(0, 1000) for _ in range(15)] == [1] * 15
    with pytest.raises(TooLong, match="15"):
        decoder.code(0, 1000)


def test_a_place_beyond_the_last_record_is_refused() -> None:
    data = encode_hop(edited(PATTERNS["times shifted"]), VIEW, b"")
    for short in (view_of(OLD[:-1]), View({})):
        with pytest.raises(WireError, match="not here"):
            decode_hop(data, short, b"", max_bytes=1 << 22)


def test_texts_aside_that_are_missing_or_left_over_are_refused() -> None:
    chance = random.Random(5)
    changes = edited(lambda fields, number: fields.update(token=f"{chance.getrandbits(96):024x}"))
    entries = [(change.collection, change.key, change.value) for change in changes]
    data = encode_mass(entries, VIEW, b"")
    assert encode_mass([], VIEW, b"")[:1] == b"\0"  # an empty section of texts
    with pytest.raises(WireError):
        decode_mass(b"\0" + data[3:], VIEW, b"", 1 << 22)


# --- transforms -------------------------------------------------------------------------------------------------------

PAIRS: list[tuple[Any, Any, Any, Any]] = [
    # a pair, and what the same transform makes of another value
    (10, 13, 7, 10),
    ("2026-02-28T23:30:00Z", "2026-03-01T00:30:00Z", "1999-12-31T23:00:00+01:00", "2000-01-01T00:00:00+01:00"),
    ("2024-02-28", "2024-02-29", "2023-02-28", "2023-03-01"),
    ("https://a.b/c?v=1", "https://x.b/c?v=2", "https://a.b/d/a?v=1", "https://x.b/d/a?v=2"),
    ("one", "one two", "one three", "one two three"),
    (["a", "b", "c"], ["c", "a", "b"], ["x", "y"], ["y", "x"]),
    (["b", "a"], ["a", "b"], ["z", "x", "y"], ["x", "y", "z"]),
    (["a", "b"], ["a", "b", "new"], ["c"], ["c", "new"]),
    (["a", "old", "b"], ["a", "b"], ["old"], []),
    (3.5, 35, 1.2, 12),
    (250, 2.5, 30, 0.3),
]


@pytest.mark.parametrize(("old", "new", "other", "wanted"), PAIRS)
def test_what_explains_one_pair_makes_the_next(old: Any, new: Any, other: Any, wanted: Any) -> None:
    made = [one.apply(other) for one in transforms.explanations(old, new) if transforms.same(one.apply(old), new)]
    assert any(transforms.same(value, wanted) for value in made), made


@pytest.mark.parametrize(
    "value", [None, True, 0, -5, 1 << 63, 1e308, -0.0, "", "2026-99-99", "9999-12-31", "a" * 5000, [], [1] * 99, {}]
)
def test_transforms_of_what_they_are_not_for_say_nothing_or_something_valid(value: Any) -> None:
    pairs = [*[(old, new) for old, new, _, _ in PAIRS], (1, 1 << 62), (1.5, 1500.0), (7, 0)]
    for old, new in pairs:
        for one in transforms.explanations(old, new):
            made = one.apply(value)
            if made is not ABSENT and type(made) is not int:
                cbor.encode_record(made, "made")


def test_values_that_python_takes_for_equal_are_not_the_same() -> None:
    assert transforms.same(1, 1)
    assert not transforms.same(1, True)
    assert not transforms.same(1, 1.0)
    assert not transforms.same(0.0, -0.0)
    assert not transforms.same([1], [True])


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_replaced_runs_make_the_new_of_the_old(old: list[str], new: list[str]) -> None:
    made, at = [], 0
    for low, high, below, above in transforms.replaced(old, new):
        made += [*old[at:low], *new[below:above]]
        at = high
    assert made + old[at:] == new


def test_a_guesser_keeps_and_learns_no_more_than_its_bounds() -> None:
    guesser = Guesser(trusting=True)
    learnt = [
        guesser.learn({"a": number, "b": str(number)}, f"k{number}", number, number * 7 + 1) for number in range(99)
    ]
    assert learnt.count(True) == LESSONS
    assert len(guesser.guesses) <= KEPT
    assert len(guesser.palette.values) == PALETTE


@pytest.mark.parametrize(("old", "new", "run"), [(b"xabcdey", b"zabcdew", (1, 5, 1)), (b"xabcdy", b"zabcdw", None)])
def test_a_run_of_five_bytes_is_worth_saying_and_one_of_four_is_not(old: bytes, new: bytes, run: Any) -> None:
    assert common_run(old, new) == run


def test_items_are_moved_where_their_order_is_another() -> None:
    assert is_moved(["a", "b"], ["b", "a"])
    assert is_moved(["a", "b"], ["b", "x", "a"])
    assert not is_moved(["a", "b"], ["a", "x", "b"])
    assert not is_moved(["a", "b"], ["b"])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(0.0, 0.0, True), (0.0, -0.0, False), (-0.0, -0.0, True), (1.5, 1.5, True), (1.0, 1, False), (0.1, 0.2, False)],
)
def test_numbers_are_the_same_where_their_bytes_are(one: Any, other: Any, expected: bool) -> None:
    assert transforms.same(one, other) is expected
    assert (cbor.encode(one) == cbor.encode(other)) is expected


def test_numbers_with_more_digits_than_a_text_has_signs_come_back() -> None:
    chance = random.Random(5)
    known = [{"x": [0, chance.random()]} for _ in range(COUNT)]
    view = view_of(known)
    changes = [
        Change("titles", f"k{number:04}", cbor.encode({"x": [1, chance.random()]})) for number in range(0, COUNT, 2)
    ]
    data = bytes([MASS]) + encode_mass([(one.collection, one.key, one.value) for one in changes], view, b"")
    assert decode_hop(data, view, b"", max_bytes=1 << 20) == changes
