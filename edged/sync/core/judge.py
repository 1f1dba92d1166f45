"""Whether a head whose signature holds may be acted upon: rollback, equivocation, time. (TUF specification 5.4, 5.5.)

And whether a version, once staged, has what apps cannot do without.

A clock may say 1970. What is known for certain is that it is not before this release was built and not before any
time that the trusted keys signed; a clock that lags behind that by more than the tolerance is not set, and then
nothing can be called future.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from edged.errors import (
    ChainError,
    DamageError,
    EdgedError,
    HashError,
    MissingError,
    StoreError,
    TrustError,
    WireError,
)
from edged.feed import limits
from edged.feed.head import Head
from edged.feed.rollout import accepted
from edged.feed.schema import Schema
from edged.feed.trust import cose
from edged.feed.trust.cose import KeyId
from edged.feed.trust.root import Root, VerifiedHead, expired
from edged.units import moment_text, span_text

REPAIRABLE = (WireError, ChainError, DamageError)  # what is on disk, or led there, is wrong: a snapshot mends it
GONE = (MissingError, HashError)  # a blob that may have gone because a newer head has come


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A head that was verified once, as it was received; it may come from this device's disk since."""

    head: Head
    data: bytes

    @classmethod
    def of(cls, verified: VerifiedHead) -> Self:
        return cls(verified.head, verified.data)

    @property
    def signer(self) -> KeyId:
        return cose.signer_of(cose.open_sign1(self.data, "head as kept")[0], "head as kept")


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """clock_s: what the system says; floor_s: the latest time known to have passed."""

    clock_s: float
    floor_s: int

    @property
    def time_s(self) -> float:
        return max(self.clock_s, self.floor_s)

    @property
    def is_set(self) -> bool:
        return self.clock_s >= self.floor_s - limits.FUTURE_S


def trusted_time(clock_s: float, built_at: int, root: Root, newest: SeenHead | None) -> TrustedTime:
    return TrustedTime(clock_s, max(built_at, root.signed_at, newest.head.signed_at if newest else 0))


def judge(new: VerifiedHead, newest: SeenHead | None, clock: TrustedTime) -> None:
    """Raises TrustError unless `new` may follow `newest`, the newest head accepted so far (None: none)."""
    head, what = new.head, f"head of {new.head.dataset}, version {new.head.version}"
    if clock.is_set and head.signed_at > clock.clock_s + limits.FUTURE_S:
        # Against the clock alone: with the floor, which such heads raise, they could creep ahead without end.
        signed, ahead = moment_text(head.signed_at), span_text(head.signed_at - clock.clock_s)
        raise TrustError(
            f"{what}: signed at {signed}, {ahead} in the future by the clock of this device, at most "
            f"{span_text(limits.FUTURE_S)} are tolerated; most likely the clock here is wrong, else that of the "
            "publisher: set it"
        )
    if newest is None:
        return
    seen = newest.head
    if head.version < seen.version or head.newest_version < seen.newest_version:
        raise TrustError(
            f"{what}: rollback, version {seen.newest_version} has been seen; the origin, or a cache on the way, is "
            "outdated (to go back, publish old content as a new version: edged origin rollback; after a backup of the "
            "publisher was restored: edged origin rotate-key)"
        )
    if head.signed_at < seen.signed_at:
        raise TrustError(
            f"{what}: signed at {moment_text(head.signed_at)}, before the head seen last (version {seen.version}, "
            f"{moment_text(seen.signed_at)}); an outdated copy, or the publisher's clock went back"
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


class ExpiredError(TrustError):
    """The newest head to be had has run out. What it says is still served."""


def expired_fault(head: Head, clock: TrustedTime) -> ExpiredError | None:
    """What to report if `head` has run out, in which case it is still served: it is the best there is."""
    age_s = clock.time_s - head.signed_at
    if age_s <= head.expires_s:
        return None
    return ExpiredError(
        f"head of {head.dataset}, version {head.version}: expired {span_text(age_s - head.expires_s)} ago, and no "
        "origin offers anything newer; it stopped publishing, or someone withholds newer heads (freeze)"
    )


def is_stale(newest: SeenHead | None, clock: TrustedTime) -> bool:
    """Whether the newest head is no longer fresh by its own account."""
    return newest is not None and clock.time_s > newest.head.signed_at + newest.head.fresh_s


def standing_fault(head: Head, clock: TrustedTime, root: Root, wanted: frozenset[str]) -> EdgedError | None:
    """What is wrong with the newest head as it stands."""
    return expired(root, clock.time_s) or expired_fault(head, clock) or missing_slices(head, wanted)


def missing_slices(head: Head, wanted: frozenset[str]) -> ChainError | None:
    """What to report if the feed lacks slices that this device is to carry; the others are kept up to date."""
    missing = sorted(wanted - head.slices.keys())
    if not missing:
        return None
    return ChainError(
        f"{head.dataset}: the feed has no slice {', '.join(missing)}; it has {', '.join(sorted(head.slices))}; "
        "correct `slices` in the configuration, or publish it"
    )


class ContentError(TrustError):
    """A signed version would break apps. The one before it is served on, and the next one is tried."""


def reason_of(fault: EdgedError | None) -> str:
    """The word that polls say of why a device stays at what it holds (polls.py); "" where its origin alone is lost."""
    words = (
        (ContentError, "content"),
        (ExpiredError, "expired"),
        (TrustError, "trust"),
        (ChainError, "chain"),
        (WireError, "form"),
        (StoreError, "disk"),
    )
    return next((word for kind, word in words if isinstance(fault, kind)), "")


def check_content(
    dataset: str, version: int, counts: Mapping[str, int], schema: Schema, require: Iterable[str], *, whole: bool
) -> None:
    """Raises ContentError unless each collection of `require` has a record and, where the device carries the `whole`
    dataset, each has as many as the schema says. counts: records by collection."""
    faults = [f"{name} has no record (`require` in the configuration)" for name in require if not counts.get(name)]
    if whole:
        faults += [
            f"{name} has {counts.get(name, 0)} records, the schema says at least {item.min_count}"
            for name, item in schema.collections.items()
            if counts.get(name, 0) < item.min_count
        ]
    if faults:
        raise ContentError(
            f"version {version} of {dataset}: collection {'; '.join(faults)}; the version before it is served on; "
            "publish a version that has them, or a rollback"
        )
