"""Signed documents: envelopes that are not as they should be, roles, and purposes that must not be mixed up."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import TrustError, UnknownKeyError, WireError
from edged.feed import cbor, limits
from edged.feed import head as heads
from edged.feed.trust import cose, succession
from edged.feed.trust import root as trust
from tests.feed.making import HEAD_KEY, OTHER_KEY, ROOT_KEY, head, public, root

SIGNED = trust.sign_head(head(), HEAD_KEY)


def check(data: bytes) -> trust.VerifiedHead:
    return trust.verify_head(data, root(), "catalog")


def test_a_signed_head_is_verified() -> None:
    verified = check(SIGNED)
    assert verified.head == head()
    assert verified.signer == cose.key_id(public(HEAD_KEY))
    assert (verified.root, verified.data) == (1, SIGNED)


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_byte_of_a_signed_head_can_be_changed(place: int, mask: int) -> None:
    damaged = SIGNED[:place] + bytes([SIGNED[place] ^ mask]) + SIGNED[place + 1 :]
    with pytest.raises((TrustError, WireError)):
        check(damaged)


@given(st.binary(max_size=200))
def test_noise_raises_wire_errors(noise: bytes) -> None:
    for data in (noise, cose.SIGN1_TAG + noise, cose.SIGN1_TAG + b"\x84" + noise):
        with pytest.raises((WireError, TrustError)):
            check(data)
        with pytest.raises((WireError, TrustError)):
            trust.read_root(cose.SIGN_TAG + data, "root")


def test_signature_of_another_purpose() -> None:
    """The same payload signed by the same key as something else than a head."""
    payload = heads.encode_head(head())
    with pytest.raises(TrustError, match="does not hold"):
        check(cose.sign1(payload, HEAD_KEY, b"edged/1 trust"))
    with pytest.raises(TrustError, match="does not hold"):
        check(cose.sign1(payload, HEAD_KEY, b""))


def test_key_that_is_not_named() -> None:
    with pytest.raises(UnknownKeyError, match="which the root of trust does not name"):
        check(trust.sign_head(head(), ROOT_KEY))


def test_key_id_of_a_trusted_key_over_a_strangers_signature() -> None:
    protected = cbor.encode({1: -8, 4: cose.key_id(public(HEAD_KEY))})
    payload = heads.encode_head(head())
    signature = OTHER_KEY.sign(cbor.encode(["Signature1", protected, heads.AAD, payload]))
    with pytest.raises(TrustError, match="does not hold"):
        check(cose.SIGN1_TAG + cbor.encode([protected, {}, payload, signature]))


def envelope(*fields: Any) -> bytes:
    return cose.SIGN1_TAG + cbor.encode(list(fields))


PROTECTED = cbor.encode({1: -8, 4: cose.key_id(public(HEAD_KEY))})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin with CBOR tag"),
        (SIGNED[1:], "does not begin with CBOR tag"),
        (cose.SIGN1_TAG, "four fields"),
        (envelope(PROTECTED, {}, b""), "four fields"),
        (envelope(PROTECTED, {}, b"", b"", b""), "four fields"),
        (envelope(PROTECTED, {4: b"x"}, b"", bytes(64)), "empty unprotected header"),
        (envelope(PROTECTED, {}, None, bytes(64)), "expected a byte string"),
        (envelope("x", {}, b"", bytes(64)), "expected a byte string"),
        (envelope(PROTECTED, {}, b"", bytes(64)) + b"\0", "1 bytes follow it"),
        (cose.SIGN1_TAG + b"\x84\x58\x05abcde\xa0\x40\x40", "shortest form"),
        (cose.SIGN1_TAG + b"\x84\x5f\x41a\xff\xa0\x40\x40", "shortest form"),
        (cose.SIGN1_TAG + b"\x84\x5b" + b"\xff" * 8, "shortest form"),
        (cose.SIGN1_TAG + b"\x84\x5a\xff\xff\xff\xff", "cut short"),
        (envelope(b"", {}, b"", bytes(64)), "not acceptable CBOR"),
        (envelope(cbor.encode({1: -7, 4: b"x"}), {}, b"", bytes(64)), "protected header"),
        (envelope(cbor.encode({1: -8}), {}, b"", bytes(64)), "protected header"),
        (envelope(cbor.encode({1: -8, 4: b"x", 5: 1}), {}, b"", bytes(64)), "protected header"),
    ],
)
def test_malformed_envelope(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        check(data)


@pytest.mark.parametrize("size", [0, 1, 63, 65])
def test_signature_of_another_size(size: int) -> None:
    with pytest.raises(TrustError, match="does not hold"):
        check(envelope(PROTECTED, {}, heads.encode_head(head()), bytes(size)))


@pytest.mark.parametrize("filler", [b"\x80", b"\x01", b"\xa0", b"\x40"])
def test_a_stranger_cannot_make_a_device_build_a_million_objects(filler: bytes) -> None:
    size = limits.HEAD_BYTES - 20
    data = cose.SIGN1_TAG + b"\x84\x40\xa0\x40\x9a" + size.to_bytes(4, "big") + filler * size
    tracemalloc.start()
    with pytest.raises(WireError):
        check(data[: limits.HEAD_BYTES])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_too_large() -> None:
    with pytest.raises(WireError, match="at most"):
        check(SIGNED + bytes(limits.HEAD_BYTES))
    with pytest.raises(WireError, match="at most"):
        trust.read_root(bytes(limits.TRUST_BYTES + 1), "root")
    hop = replace(head().slices["core"].hops[1], inline=bytes(limits.HEAD_BYTES))
    large = replace(head(), slices={"core": replace(head().slices["core"], hops=(hop,))})
    with pytest.raises(WireError, match="use fewer slices"):
        trust.sign_head(large, HEAD_KEY)


# ---- roots of trust


def signed_root(document: trust.Root, *keys: Any) -> bytes:
    return trust.sign_root(document, list(keys or (ROOT_KEY,)))


def test_root_comes_back() -> None:
    assert trust.read_root(signed_root(root()), "root") == root()
    assert trust.verify_root(signed_root(root(2)), root()) == root(2)


def test_root_is_not_followed_by_itself() -> None:
    with pytest.raises(TrustError, match="one by one"):
        trust.verify_root(signed_root(root()), root())


def test_more_signatures_than_allowed() -> None:
    data = cose.sign_many(trust.encode_root(root()), [ROOT_KEY] * (limits.ROOT_KEYS + 1), trust.AAD)
    with pytest.raises(WireError, match="at most 64"):
        trust.read_root(data, "root")


def test_bad_signature_by_a_named_key_counts_as_forgery_even_if_others_suffice() -> None:
    item = cbor.decode(signed_root(root(), ROOT_KEY, OTHER_KEY)[2:], "test")
    item[3][1][2] = bytes(64)
    with pytest.raises(TrustError, match="does not hold"):
        trust.read_root(cose.SIGN_TAG + cbor.encode(item), "root")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (1, 1),
        (1, 3),
        (2, 0),
        (3, -1),
        (6, 1_790_000_000),  # as it is signed
        (6, None),
        (4, [0, [public(ROOT_KEY)]]),
        (4, [2, [public(ROOT_KEY)]]),
        (4, [1, [public(ROOT_KEY), public(ROOT_KEY)]]),
        (4, [1, [public(ROOT_KEY)[:31]]]),
        (4, [1, []]),
        (5, [2, [public(HEAD_KEY), public(OTHER_KEY)]]),  # a head has one signature
    ],
)
def test_malformed_root(field: int, value: Any) -> None:
    document = cbor.decode(trust.encode_root(root()), "test")
    document[field] = value
    with pytest.raises(WireError, match="decode root of trust"):
        trust.read_root(cose.sign_many(cbor.encode(document), [ROOT_KEY], trust.AAD), "root")


def test_succession_proves_itself() -> None:
    first, second = signed_root(root()), signed_root(root(2))
    kept = succession.restore(first, None, "trust file").followed_by(second)
    assert succession.restore(first, kept.encode(), "trust file").newest.number == 2
    assert succession.restore(second, kept.encode(), "trust file").documents == (second,)
    forged = cbor.encode([first, signed_root(root(2), HEAD_KEY)])
    with pytest.raises(TrustError):
        succession.restore(first, forged, "trust file")
    with pytest.raises(WireError, match="list of signed documents"):
        succession.restore(first, cbor.encode([1, 2]), "trust file")


def test_what_was_kept_tells_whether_the_trust_file_was_replaced() -> None:
    first, second = signed_root(root()), signed_root(root(2))
    start = succession.restore(first, None, "trust file")
    both = start.followed_by(second)
    assert succession.continued(start, None, "trust file") == (start, False)  # nothing was kept
    assert succession.continued(start, both.encode(), "trust file") == (both, False)
    later = succession.restore(second, None, "trust file")
    assert succession.continued(start, later.encode(), "trust file") == (start, False)  # an older one of the same
    another = succession.restore(signed_root(root(), OTHER_KEY), None, "trust file")
    assert succession.continued(another, both.encode(), "trust file") == (another, True)


@pytest.mark.parametrize(
    ("form", "size", "taken"),
    [
        (">B", 23, False),  # that fits into the first byte
        (">B", 24, True),
        (">H", 255, False),
        (">H", 256, True),
        (">I", 65_535, False),
        (">I", 65_536, True),
    ],
)
def test_byte_strings_of_an_envelope_have_their_shortest_form(form: str, size: int, taken: bool) -> None:
    first = {">B": 0x58, ">H": 0x59, ">I": 0x5A}[form]
    data = bytes([first]) + struct.pack(form, size) + bytes(size)
    if taken:
        assert cose.read_bytes(data, 0, "test") == (bytes(size), len(data))
    else:
        with pytest.raises(WireError, match="not in its shortest form"):
            cose.read_bytes(data, 0, "test")


def test_no_more_roots_than_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "SUCCESSION", 2)
    known = succession.restore(signed_root(root()), None, "trust file").followed_by(signed_root(root(2)))
    with pytest.raises(WireError, match="install a newer trust file"):
        known.followed_by(signed_root(root(3)))
