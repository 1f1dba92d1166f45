"""Which stored response a request selects (RFC 9111 section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edged.http.fields import Fields, members_of, names_of, split_list, value_of

Selecting = tuple[tuple[bytes, bytes | None], ...]  # (field name, normalised value, None where it was absent)

# Preferences whose order means nothing (RFC 9110 section 12.5); weights stay with their member.
UNORDERED = frozenset((b"accept", b"accept-charset", b"accept-encoding", b"accept-language"))
MAX_VARIANTS = 32  # of one URL; the oldest go


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """The names that a response varies by, sorted; None if any member is "*" and nothing can be selected again.

    Two that services forget to name are added where the response shows that it was made for one: the coding of its
    content, and the one web origin that may read it.
    """
    names = set(names_of(fields, b"vary"))
    if b"*" in names:
        return None
    if (value_of(fields, b"access-control-allow-origin") or b"*").strip() != b"*":
        names.add(b"origin")
    if value_of(fields, b"content-encoding") is not None:
        names.add(b"accept-encoding")
    return tuple(sorted(names))


def normalise(name: bytes, fields: Fields) -> bytes | None:
    """A request field's value in the form that is compared: lines joined, no space around commas, order where it
    means nothing sorted away."""
    if value_of(fields, name) is None:
        return None
    members = members_of(fields, name)
    if name in UNORDERED:
        members = sorted(b"".join(member.lower().split()) for member in members)
    return b",".join(members)


def select(names: Sequence[bytes], request: Fields) -> Selecting:
    """The selecting fields of a request that got a response varying by `names`."""
    return tuple((name, normalise(name, request)) for name in names)


def preferred_language(value: bytes | None) -> bytes | None:
    """The one language that an Accept-Language likes best, in lower case; None if two are equally liked."""
    weights: list[tuple[float, bytes]] = []
    for member in split_list(value or b""):
        tag, *parameters = (part.strip() for part in member.lower().split(b";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    return None
        weights.append((weight, tag))
    weights.sort(reverse=True)
    if not weights or (len(weights) > 1 and weights[0][0] == weights[1][0]):
        return None
    return weights[0][1]


def matches(selecting: Selecting, request: Fields, language: bytes | None = None) -> bool:
    """Whether a request selects a stored response.

    language: the stored Content-Language. A request that likes exactly this language best gets it, whatever the
    others that it would also take: negotiation would have picked the same.
    """
    for name, value in selecting:
        asked = normalise(name, request)
        if asked == value:
            continue
        if name == b"accept-language" and language and preferred_language(asked) == language:
            continue
        return False
    return True


@dataclass(frozen=True, slots=True)
class Variant:
    """One stored response of a URL that varies. order: grows with each storing; the newest match is used."""

    selecting: Selecting
    language: bytes | None
    name: bytes
    order: int


def choose(variants: Sequence[Variant], request: Fields) -> Variant | None:
    """The newest variant that a request selects."""
    found = [variant for variant in variants if matches(variant.selecting, request, variant.language)]
    return max(found, key=lambda variant: variant.order, default=None)


def add_variant(variants: Sequence[Variant], new: Variant) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """The variants with the new one, which takes the place of an equal one; and those that had to go."""
    kept = [variant for variant in variants if variant.selecting != new.selecting]
    gone = [variant for variant in variants if variant.selecting == new.selecting and variant.name != new.name]
    kept.sort(key=lambda variant: variant.order)
    surplus = kept[: max(0, len(kept) + 1 - MAX_VARIANTS)]
    return (*kept[len(surplus) :], new), (*gone, *surplus)
