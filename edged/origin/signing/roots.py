"""The feed's roots of trust and keys: private/trust/<n> for all that there were, private/keys for what signs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.errors import ConfigError, OriginError, TrustError
from edged.feed import limits
from edged.feed.trust import cose
from edged.feed.trust import root as trust
from edged.files import explained, make_directory, read_bounded, sync_directory, write_durable
from edged.origin.shelves.shelf import Shelf
from edged.origin.signing import keys
from edged.units import span_text

HEAD_PATTERN, ROOT_PATTERN = "head-*.key", "root-*.key"
DAY_S = 86_400
ROOT_LIFE_S = 2 * 365 * DAY_S  # how long a root of trust vouches for heads
RENEW_S = ROOT_LIFE_S // 2  # before its end it is renewed by whoever publishes, if the root keys are there
WARN_S = 180 * DAY_S  # and from here on it is said that it has not been


@dataclass(frozen=True, slots=True)
class Roots:
    """All roots of trust of a feed, checked one by one. documents: the signed bytes of root 1, 2, …"""

    directory: Path
    documents: tuple[bytes, ...]
    newest: trust.Root

    def root(self, number: int) -> trust.Root:
        """Root `number`, already checked. Raises TrustError if there is none such."""
        if not 1 <= number <= len(self.documents):
            raise TrustError(f"root of trust {number}: the feed has 1 to {len(self.documents)}")
        return trust.read_root(self.documents[number - 1], f"root of trust {number}")

    def head_key(self) -> Ed25519PrivateKey:
        """The key that signs heads now. Raises ConfigError if it is not here or not a safe file."""
        found = keys.load_matching(self.directory / "keys", HEAD_PATTERN, self.newest.heads)
        if not found:
            raise ConfigError(
                f"sign head: no key in {self.directory / 'keys'} is a head key of root of trust {self.newest.number}; "
                "put the head key back, or make a new one with: edged origin rotate-key"
            )
        return found[-1]


def load_roots(private: Path) -> Roots:
    """Read private/trust. Raises OriginError if this is no feed, StoreError if it cannot be read, TrustError if
    the chain of roots does not hold."""
    documents: list[bytes] = []
    newest: trust.Root | None = None
    with explained("read", private / "trust"):
        while (path := private / "trust" / str(len(documents) + 1)).exists():
            data = read_bounded(path, limits.TRUST_BYTES)
            newest = trust.read_root(data, str(path)) if newest is None else trust.verify_root(data, newest)
            documents.append(data)
    if newest is None:
        raise OriginError(f"open {private.parent}: not a feed; make one with: edged origin init {private.parent}")
    return Roots(private, tuple(documents), newest)


def create_roots(private: Path, root_keys: int, threshold: int, now: int) -> Roots:
    """Make keys and root of trust 1. Raises StoreError, ConfigError."""
    if not 1 <= threshold <= root_keys <= limits.ROOT_KEYS:
        raise ConfigError(f"--threshold {threshold} of --root-keys {root_keys}: expected 1 <= threshold <= keys <= 64")
    for name in ("", "keys", "trust", "state"):
        make_directory(private / name, 0o700)
    signers = [keys.create_key(private / "keys" / f"root-1-{number}.key") for number in range(1, root_keys + 1)]
    head = keys.create_key(private / "keys" / "head-1.key")
    root = trust.Root(
        1,
        now,
        now + ROOT_LIFE_S,
        trust.role_of(threshold, [cose.public_bytes(key) for key in signers]),
        trust.role_of(1, [cose.public_bytes(head)]),
    )
    write_durable(private / "trust" / "1", trust.sign_root(root, signers), mode=0o600)
    return load_roots(private)


def next_roots(roots: Roots, now: int, root_keys_directory: Path, *, new_root_keys: bool) -> Roots:
    """Two roots that sign in a new head key, and new root keys if asked: one that trusts the old head key as well, so
    that every head there is stays good while the new ones go out, and one that trusts the new key alone.

    Each is signed by a threshold of the root keys before it and of its own. The renaming of private/trust/<n+1> commits
    both. Raises ConfigError if too few root keys are at hand, StoreError.
    """
    old, number = roots.newest, roots.newest.number + 2
    signers = keys.load_matching(root_keys_directory, ROOT_PATTERN, old.roots)
    if len(signers) < old.roots.threshold:
        raise ConfigError(
            f"rotate key: {len(signers)} root keys of root of trust {old.number} are in {root_keys_directory}, "
            f"{old.roots.threshold} must sign; name their directory with --root-keys-dir"
        )
    directory = roots.directory / "keys"
    head = cose.public_bytes(keys.create_key(directory / f"head-{number}.key"))
    both = trust.role_of(1, [*old.heads.keys.values(), head])
    role, later_signers = old.roots, signers
    if new_root_keys:
        fresh = [
            keys.create_key(root_keys_directory / f"root-{number}-{place}.key")
            for place in range(1, len(old.roots.keys) + 1)
        ]
        role = trust.role_of(old.roots.threshold, [cose.public_bytes(key) for key in fresh])
        later_signers = [*signers, *fresh]
    times = now, now + ROOT_LIFE_S  # not those of the root before: a wrong time is let go of
    between = trust.sign_root(trust.Root(number - 1, *times, old.roots, both), signers)
    after = trust.sign_root(trust.Root(number, *times, role, trust.role_of(1, [head])), later_signers)
    trust.verify_root(after, trust.verify_root(between, old))
    write_durable(roots.directory / "trust" / str(number), after, mode=0o600)
    write_durable(roots.directory / "trust" / str(number - 1), between, mode=0o600)
    return load_roots(roots.directory)


def renewed(roots: Roots, now: int) -> Roots:
    """The same keys for longer, where the newest root has less than RENEW_S left and the root keys are at hand.

    Devices judge no head under a root that has expired (TUF specification 5.3.10). Root keys that are kept offline are
    not here; then `renewal_warning` asks for them in time. Raises StoreError, and then nothing has changed.
    """
    old = roots.newest
    if now < old.expires_at - RENEW_S:
        return roots
    signers = keys.load_matching(roots.directory / "keys", ROOT_PATTERN, old.roots)
    if len(signers) < old.roots.threshold:
        return roots
    signed_at = max(now, old.signed_at)
    root = trust.Root(old.number + 1, signed_at, signed_at + ROOT_LIFE_S, old.roots, old.heads)
    data = trust.sign_root(root, signers)
    trust.verify_root(data, old)
    write_durable(roots.directory / "trust" / str(root.number), data, mode=0o600)
    return load_roots(roots.directory)


def renewal_warning(roots: Roots, now: int) -> str | None:
    """What to tell the publisher where the newest root is about to expire and could not be renewed."""
    left_s = roots.newest.expires_at - now
    if left_s >= WARN_S:
        return None
    when = f"expires in {span_text(left_s)}" if left_s > 0 else f"expired {span_text(-left_s)} ago"
    return (
        f"root of trust {roots.newest.number} {when}, and devices take nothing under it after that; its root keys are "
        "not here: renew it with edged origin rotate-key --root-keys-dir DIRECTORY"
    )


def put_aside(roots: Roots) -> list[Path]:
    """Move keys that the newest root no longer names into keys/revoked; returns where they are now."""
    directory = roots.directory / "keys"
    make_directory(directory / "revoked", 0o700)
    moved = []
    for pattern, role in ((HEAD_PATTERN, roots.newest.heads), (ROOT_PATTERN, roots.newest.roots)):
        for path in sorted(directory.glob(pattern)):
            if cose.key_id(cose.public_bytes(keys.load_key(path))) not in role.keys:
                target = directory / "revoked" / path.name
                path.replace(target)
                moved.append(target)
    sync_directory(directory)
    return moved


def publish_roots(roots: Roots, shelf: Shelf, number: int) -> None:
    """Have the roots of trust up to `number` on the shelf."""
    for place, data in enumerate(roots.documents[:number], 1):
        if shelf.root(place) != data:
            shelf.put_root(place, data)
