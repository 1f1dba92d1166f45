"""Whether a head whose signature holds may be acted upon: rollback, equivocation, time. (TUF specification 5.4, 5.5.)

A clock may say 1970. What is known for certain is that it is not before this release was built and not before any
time that the trusted keys signed; a clock that lags behind that by more than the tolerance is not set, and then
nothing can be called future.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.errors import TrustError, UnknownKeyError
from edged.feed import limits
from edged.feed.head import Head
from edged.feed.rollout import accepted
from edged.feed.trust.root import Root, VerifiedHead, verify_head


@dataclass(frozen=True, slots=True)
class Clock:
    """clock_s: what the system says; floor_s: the latest time known to have passed."""

    clock_s: float
    floor_s: int

    @property
    def time_s(self) -> float:
        return max(self.clock_s, self.floor_s)

    @property
    def is_set(self) -> bool:
        return self.clock_s >= self.floor_s - limits.FUTURE_S


def clock_of(clock_s: float, built_at: int, root: Root, floor: VerifiedHead | None) -> Clock:
    return Clock(clock_s, max(built_at, root.signed_at, floor.head.signed_at if floor else 0))


def judge(new: VerifiedHead, floor: VerifiedHead | None, clock: Clock) -> None:
    """Raises TrustError unless `new` may follow `floor`, the newest head accepted so far (None: none)."""
    head, what = new.head, f"head of {new.head.dataset}, version {new.head.version}"
    if clock.is_set and head.signed_at > clock.clock_s + limits.FUTURE_S:
        # Against the clock alone: with the floor, which such heads raise, they could creep ahead without end.
        raise TrustError(
            f"{what}: signed {head.signed_at - clock.clock_s:.0f} s in the future, at most {limits.FUTURE_S} s are "
            "tolerated; set the clocks of the publisher and of this device"
        )
    if floor is None:
        return
    seen = floor.head
    if head.version < seen.version or head.newest_version < seen.newest_version:
        raise TrustError(
            f"{what}: rollback, version {seen.newest_version} has been seen; the origin, or a cache on the way, is "
            "outdated (to go back, publish old content as a new version: edged origin rollback)"
        )
    if head.signed_at < seen.signed_at:
        raise TrustError(
            f"{what}: signed at {head.signed_at}, before the head seen last (version {seen.version}, "
            f"{seen.signed_at}); an outdated copy, or the publisher's clock went back"
        )
    before = contents_of(seen)
    if any(before.get(version, content) != content for version, content in contents_of(head).items()):
        raise TrustError(
            f"{what}: is not the content that was signed under this number before; two publishers share a key, or "
            "the key has been stolen: publish as a new version, rotate the key if in doubt"
        )


def contents_of(head: Head) -> dict[int, object]:
    """What the head's version numbers stand for, the offered one included. Where blobs lie may change."""
    return {one.version: content_of(one) for one in (head, accepted(head))}


def content_of(head: Head) -> object:
    """What a version number stands for. Where its blobs lie, and when it was signed, may change."""
    return {name: (item.version, item.digest, item.records) for name, item in head.slices.items()}, head.schema_version


def still_valid(known: VerifiedHead | None, root: Root) -> VerifiedHead | None:
    """`known` if `root` still trusts the key that signed it.

    If it does not, the version number it carries binds no longer: whoever stole the key may have signed the greatest
    number there is, and no device would ever take a rightful head again (TUF 5.3.11, fast-forward attack).
    """
    if known is None:
        return None
    try:
        return verify_head(known.data, root, known.head.dataset)
    except UnknownKeyError:
        return None


class ExpiredError(TrustError):
    """The newest head to be had has run out. What it says is still served."""


def expired_fault(head: Head, clock: Clock) -> ExpiredError | None:
    """What to report if `head` has run out, in which case it is still served: it is the best there is."""
    age_s = clock.time_s - head.signed_at
    if age_s <= head.expires_s:
        return None
    return ExpiredError(
        f"head of {head.dataset}, version {head.version}: expired {age_s - head.expires_s:.0f} s ago, and the origin "
        "offers nothing newer; it stopped publishing, or someone withholds newer heads (freeze)"
    )
