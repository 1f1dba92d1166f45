"""What a device trusts: the roots that it has come to know, and the newest head that it has accepted under them.

Everything here fails closed. A head is kept only after its signature held, so the root that it names was known once:
where the roots kept are lost or damaged, nothing is judged until they have come again up to that one. The newest
head seen binds (no rollback) until a newer root no longer names the key that signed it.
"""

from __future__ import annotations

from dataclasses import replace

from edged.errors import EdgedError, NewerRootError, TrustError, UnknownKeyError, WireError
from edged.feed.head import decode_head
from edged.feed.rollout import head_for
from edged.feed.trust import cose, succession
from edged.feed.trust.root import Root, VerifiedHead, expired, verify_head
from edged.sync.core.events import HeldState
from edged.sync.core.judge import SeenHead

NEEDS_ROOT = (UnknownKeyError, NewerRootError)  # a newer root of trust may vouch for it
ROOT_CHECK_S = 86_400.0  # a new root of trust is looked for at the start and this often; and whenever a key is unknown
ROOT_RETRY_S = 600.0  # if the origin could not be asked for it


class Trusted:
    """Raises WireError or TrustError if the trust file itself is unusable. faults: what else was amiss on disk."""

    def __init__(self, dataset: str, trust_file: bytes, held: HeldState) -> None:
        self.dataset = dataset
        self.faults: list[EdgedError] = []
        self.vouched: tuple[int, VerifiedHead] | None = None  # the last head whose signature held, and under which root
        what = f"trust file of {dataset}"
        self.roots = succession.restore(trust_file, None, what)
        self.replaced = False  # whether the trust file is of another succession than the roots kept
        try:
            self.roots, self.replaced = succession.continued(self.roots, held.roots, what)
        except (WireError, TrustError) as fault:  # what was kept beside the replica is damaged: it is fetched anew
            self.faults.append(fault)
        self.newest_head = None if held.head is None else self.head_kept(held.head)
        self.void = held.head if self.replaced and self.newest_head is None else None

    @property
    def root(self) -> Root:
        return self.roots.newest

    def to_keep(self, held: HeldState) -> bytes | None:
        """The roots to be kept on disk, None where those there are right.

        While the head held is of another publisher, that one's roots stay: without them the next start could not tell
        that the trust file was replaced, and would wait for roots that this publisher does not have.
        """
        data = self.roots.encode()
        return None if data == held.roots or (self.void is not None and held.head == self.void) else data

    def head_kept(self, data: bytes) -> SeenHead | None:
        """The held head, None if it binds no longer."""
        try:
            return SeenHead.of(verify_head(data, self.root, self.dataset))
        except (WireError, TrustError) as fault:
            if isinstance(fault, UnknownKeyError) and self.replaced:
                return None  # someone has installed the trust file of another publisher
            if not isinstance(fault, UnknownKeyError | NewerRootError):
                self.faults.append(fault)
        try:
            seen = SeenHead(decode_head(cose.open_sign1(data, "head as kept")[1]), data)
        except WireError as fault:
            self.faults.append(fault)
            return None
        return None if self.revokes(seen) else seen

    def revokes(self, seen: SeenHead) -> bool:
        """Whether a root newer than the one that `seen` stood under no longer names the key that signed it.

        Its version number binds no longer then: whoever stole the key may have signed the greatest number there is,
        and no device would ever take a rightful head again (TUF specification 5.3.11, fast-forward attack).
        """
        return self.root.number > seen.head.root and seen.signer not in self.root.heads.keys

    def follow(self, document: bytes) -> None:
        """Take the next root. Raises WireError or TrustError if it is not the rightful one."""
        self.roots = self.roots.followed_by(document)
        if self.newest_head is not None and self.revokes(self.newest_head):
            self.newest_head = None

    def accept(self, verified: VerifiedHead) -> None:
        """`verified` has been judged and is the newest head from now on."""
        self.newest_head = SeenHead.of(verified)

    def verify(self, data: bytes, time_s: float) -> VerifiedHead:
        """A head from received bytes, if the roots at hand vouch for it at `time_s` (seconds since 1970; 0: ever).

        Raises WireError, TrustError, or where a newer root may help UnknownKeyError or NewerRootError.
        """
        least = 1 if self.newest_head is None else self.newest_head.head.root
        if self.root.number < least:
            raise NewerRootError(
                f"head of {self.dataset}: cannot be judged, as the roots of trust on this device were lost: the head "
                f"that is held stood under root {least}, known is root {self.root.number}; an origin has to give those "
                "between (if another publisher's trust file was installed on purpose, remove the dataset's directory)"
            )
        if self.vouched is None or (self.vouched[0], self.vouched[1].data) != (self.root.number, data):
            self.vouched = self.root.number, verify_head(data, self.root, self.dataset)
        verified = self.vouched[1]
        fault = expired(self.root, max(time_s, verified.head.signed_at) if time_s else 0.0)
        if fault is not None:
            raise fault
        return verified

    @staticmethod
    def chosen(verified: VerifiedHead, held: HeldState, device_id: str) -> VerifiedHead:
        """The head as this device follows it: with the version that it offers, or without.

        A pin behind the live version is not moved by an offer; a bundle carries only the live version, so from one no
        device_id is given.
        """
        pinned = held.pinned is not None and held.pinned <= verified.head.version
        mine = replace(verified.head, offer=None) if pinned else head_for(verified.head, device_id, held.version)
        return replace(verified, head=mine)
