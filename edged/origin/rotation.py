"""The order in which roots of trust and heads go public, so that devices can verify the feed at every step between.

A head stays good under each root that is published before it is signed anew, and is signed anew before a root is
published that no longer trusts its key. What a rotation left that was cut short, the next operation finishes.
"""

from __future__ import annotations

from edged.feed.trust import cose
from edged.origin.release import Workplace, releasing
from edged.origin.signing.roots import publish_roots


def bring_up_to_date(place: Workplace) -> None:
    """Publish the newest root of trust, the head being signed with its key before. Raises EdgedError."""
    roots = place.roots
    newest = roots.newest.number
    good_until = newest if place.public is None else place.public.root
    if good_until < newest:
        key = cose.key_id(cose.public_bytes(roots.head_key()))
        # Where no root trusts both keys there is a moment without a good head; rotations make one that does.
        between = next(number for number in range(good_until, newest + 1) if key in roots.root(number).heads.keys)
        sign_under(place, between)
        with releasing(place, f"sign the head of dataset {place.dataset} anew"):
            pass
    sign_under(place, newest)


def sign_under(place: Workplace, number: int) -> None:
    """Publish the roots up to `number`; heads are signed under that one from now on."""
    publish_roots(place.roots, place.shelf, number)
    place.root = place.roots.root(number)
