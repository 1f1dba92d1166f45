"""One dataset's head and roots of trust, kept as new as its origins have them: what a device does, without a replica.

A head is shown once its signature holds and it neither goes back nor lies in the future (edged/sync/core judges both
alike for devices). Origins are tried in their order, with the health memory that devices have.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from edged.clock import BUILD_TIME_S, Clock
from edged.errors import (
    ConfigError,
    EdgedError,
    MissingError,
    NewerRootError,
    TransportError,
    TrustError,
    UnknownKeyError,
    WireError,
)
from edged.feed import cbor, limits
from edged.feed.trust.root import Root, VerifiedHead, read_root, verify_root
from edged.feed.trust.succession import SUCCESSION, decode_roots
from edged.files import discard, make_directory, read_bounded, read_regular, write_durable
from edged.sync.core import judge
from edged.sync.core.events import WAIT_S, HeldState
from edged.sync.core.polling import HOME_S, SURVEY_S, Backoff, Rotation
from edged.sync.core.trusted import Trusted
from edged.sync.core.turns import PollTurns
from edged.sync.replication import one_line
from edged.sync.subscription import Subscription
from edged.sync.transports.origins import Origins
from edged.sync.transports.transport import Traffic, Transport
from edged.threads import in_thread

log = logging.getLogger("edged.relay")

ROOT_CHECK_S, ROOT_RETRY_S = 86_400.0, 600.0  # as often as devices look for a newer root
UNUSABLE_S = 300.0  # between attempts to use a trust file, or certificates, that cannot be used
# After a takedown's head comes one of the same version whose chain leads to nothing of it any more, which ends no poll.
HURRY_S, HURRY_WAIT_S = 600.0, 10
HEAD, ROOTS, OLDER = "head", "roots", "older"  # files; roots: from the trust file on; older: those before it
ROOTS_BYTES = SUCCESSION * limits.TRUST_BYTES


@dataclass(slots=True)
class FollowStatus:
    """connected: whether the origin answered when last asked; origin: the one in use; tried: whether all origins have
    been asked since the start; last_error: None when all is well."""

    traffic: Traffic = field(default_factory=Traffic)
    connected: bool = False
    origin: str = ""
    tried: bool = False
    last_error: str | None = None
    missing: bool = False  # whether the last error says that there is no such dataset

    def note(self, dataset: str, fault: EdgedError | None) -> None:
        """Keep a fault as the last one, and log it unless it was just logged."""
        text = None if fault is None else one_line(fault)
        if text is not None and text != self.last_error:
            log.warning("%s: %s", dataset, text)
        self.last_error = text


class HeadFollower:
    """directory: where head and roots are kept; on_head: told of each head that may be shown, the one kept first;
    on_tried: told when all origins were asked in vain."""

    def __init__(
        self,
        subscription: Subscription,
        directory: Path,
        clock: Clock,
        on_head: Callable[[VerifiedHead], None],
        on_tried: Callable[[], None],
    ) -> None:
        self.subscription, self.directory, self.clock = subscription, directory, clock
        self.on_head, self.on_tried = on_head, on_tried
        self.status = FollowStatus()
        self.rotation = Rotation(len(subscription.origins), WAIT_S, -random.random() * SURVEY_S)  # noqa: S311
        self.backoff = Backoff(random.random)
        self.turns = PollTurns(str(random.random()))  # noqa: S311 - relays below one origin come in turn too
        self.roots_due = self.hurry_until = 0.0
        self.older: list[bytes] = []  # the roots before the trust file's, oldest first
        self.roots_kept: bytes | None = None
        self.known: Trusted | None = None

    @property
    def dataset(self) -> str:
        return self.subscription.dataset

    @property
    def trusted(self) -> Trusted:
        assert self.known is not None
        return self.known

    def root(self, number: int) -> bytes | None:
        """The signed root of this number, None where it is not known."""
        if self.known is None:
            return None
        documents = [*self.older, *self.known.roots.documents]
        place = number - (self.known.root.number - len(documents) + 1)
        return documents[place] if 0 <= place < len(documents) else None

    # --- what is kept ------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Read the trust file and what was kept. Blocks. Raises ConfigError, WireError, TrustError or StoreError."""
        trust = self.subscription.trust
        try:
            trust_file = read_regular(trust, limits.TRUST_BYTES, follow=True)
        except OSError as fault:
            raise ConfigError(f"read the trust file {trust} of {self.dataset}: {fault.strerror}") from fault
        roots, head = self.kept(ROOTS, ROOTS_BYTES), self.kept(HEAD, limits.HEAD_BYTES)
        known = Trusted(self.dataset, trust_file, HeldState(head=head, roots=roots))
        if known.replaced:  # what was kept is another publisher's
            discard(self.directory / name for name in (HEAD, ROOTS, OLDER))
            known = Trusted(self.dataset, trust_file, HeldState())
        for found in known.faults:
            log.warning("%s: %s", self.dataset, found)
        self.older = self.restore_older(known.roots.documents[0], roots)
        self.roots_kept = roots
        self.known = known

    def kept(self, name: str, most: int) -> bytes | None:
        path = self.directory / name
        return read_bounded(path, most) if path.exists() else None

    def restore_older(self, first: bytes, roots: bytes | None) -> list[bytes]:
        """The roots kept before `first`, proved anew; none where they do not hold.

        roots: those kept from an earlier trust file on, of which `first` may be a later one.
        """
        data = self.kept(OLDER, ROOTS_BYTES)
        try:
            documents = [] if data is None else decode_roots(data, "older roots kept")
            since = [] if roots is None else decode_roots(roots, "roots kept")
            documents += since[: since.index(first)] if first in since else []
            next_document = first
            for document in reversed(documents):
                read_before(document, next_document)
                next_document = document
        except (WireError, TrustError) as fault:
            log.warning("%s: %s; they are fetched again", self.dataset, fault)
            return []
        return documents

    async def save(self, name: str, data: bytes) -> None:
        """Keep it over a restart. What cannot be written is served all the same."""
        try:
            await in_thread(self.write, name, data)
        except EdgedError as fault:
            self.status.note(self.dataset, fault)

    async def save_roots(self) -> None:
        roots = self.trusted.roots.encode()
        if roots != self.roots_kept:
            await self.save(ROOTS, roots)
            await self.save(OLDER, cbor.encode(self.older))
            self.roots_kept = roots

    def write(self, name: str, data: bytes) -> None:
        make_directory(self.directory, 0o700)
        write_durable(self.directory / name, data, 0o600)

    # --- following ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever. What cannot be used now, a trust file or a certificate, may be later."""
        while True:
            try:
                async with Origins.of(self.subscription, self.status.traffic) as origins:
                    await in_thread(self.restore)
                    self.show_kept()
                    await self.look_for_ever(origins)
            except EdgedError as fault:
                self.status.note(self.dataset, fault)
                self.end_round()
            await trio.sleep(UNUSABLE_S)

    def show_kept(self) -> None:
        """The head that was kept, if it holds: what lay on a disk may have decayed."""
        newest = self.trusted.newest_head
        if newest is None:
            return
        try:
            self.on_head(self.trusted.verify(newest.data, 0.0))
        except (WireError, TrustError) as fault:
            self.status.note(self.dataset, fault)

    async def look_for_ever(self, origins: Origins) -> None:
        while True:
            rest_s = await self.look(origins)
            await trio.sleep(rest_s)

    async def look(self, origins: Origins) -> float:
        """Ask one origin once. Returns how many seconds to rest before the next look."""
        rotation, now = self.rotation, trio.current_time()
        if rotation.current > 0 and rotation.unasked is None and now - rotation.away_since >= HOME_S:
            rotation.go_to(0, now)
        transport = origins.at(rotation.current)
        self.status.origin = transport.name
        try:
            if now >= self.roots_due:
                await self.follow_roots(transport)
            await self.poll(transport)
        except EdgedError as fault:
            return self.failed(fault)
        if not self.status.connected:
            log.info("%s: origin %s answers", self.dataset, transport.name)
        self.status.connected = self.status.tried = True
        self.report()
        return self.rest()

    async def poll(self, transport: Transport) -> None:
        """Raises EdgedError."""
        rotation, newest, now = self.rotation, self.trusted.newest_head, trio.current_time()
        if newest is None or rotation.current not in rotation.etags:
            rotation.ask(0, now, conditional=False)
            self.turns.whole = False
            reply = await transport.head(None, 0, None)
        else:
            etag, wait_s = rotation.etags[rotation.current], rotation.held_wait_s(now)
            if now < self.hurry_until:
                wait_s = min(wait_s, HURRY_WAIT_S)
            wait_s = self.turns.ask(wait_s, newest.head.newest_version, now, ())
            rotation.ask(wait_s, now, conditional=True)
            # As in sync/core/machine.py: an origin without ETags cannot tell whether an offer has changed.
            after = newest.head.newest_version if etag else newest.head.version
            reply = await transport.head(after, wait_s, etag)
        if reply is not None:
            await self.consider(transport, reply.data, reply.etag)
        elif rotation.conditional:
            self.reached()
            rotation.unchanged(trio.current_time())
            self.turns.ended(trio.current_time())
        else:
            raise TransportError(f"{transport.name}: answered that nothing has changed, and was not told what there is")

    async def consider(self, transport: Transport, data: bytes, etag: str | None) -> None:
        """A head has come. Raises WireError, TrustError, or what asking for a newer root raises."""
        trusted, newest = self.trusted, self.trusted.newest_head
        try:
            verified = trusted.verify(data, self.time.time_s)
        except (UnknownKeyError, NewerRootError):
            await self.follow_roots(transport)
            verified = trusted.verify(data, self.time.time_s)
        judge.judge(verified, trusted.newest_head, self.time)
        self.reached()
        same = newest is not None and newest.data == data
        if newest is not None and newest.head.news == verified.head.news:
            self.turns.ended(trio.current_time())
        self.rotation.showed(etag, new=not same)
        if same:
            self.rotation.unchanged(trio.current_time())
            return
        if newest is None or newest.head.takedowns != verified.head.takedowns:
            self.hurry_until = trio.current_time() + HURRY_S
        trusted.accept(verified)
        self.clock.seen(verified.head.signed_at)
        self.on_head(verified)
        with trio.CancelScope(shield=True):  # a stop leaves the two as they belong together
            await self.save_roots()
            await self.save(HEAD, data)

    @property
    def time(self) -> judge.TrustedTime:
        return judge.trusted_time(self.clock.source(), BUILD_TIME_S, self.trusted.root, self.trusted.newest_head)

    def reached(self) -> None:
        self.rotation.reached()
        self.backoff.succeed()

    def report(self) -> None:
        """What is wrong although the origin answers."""
        newest = self.trusted.newest_head
        outdated = None if newest is None else judge.expired_fault(newest.head, self.time)
        self.status.note(self.dataset, outdated)

    def rest(self) -> float:
        """Before the next look: none where polls are held. Before that the others' turn, now and then: an origin that
        is frozen in time looks like one without news."""
        rotation, now = self.rotation, trio.current_time()
        stale = judge.is_stale(self.trusted.newest_head, self.time)
        if rotation.unasked is None and rotation.survey_due(now, stale=stale, urgent=False):
            rotation.begin_survey(now)
        if rotation.next_of_survey(now) or rotation.held_wait_s(now):
            return 0.0
        return self.subscription.poll_s * (0.9 + 0.2 * random.random())  # noqa: S311

    def failed(self, fault: EdgedError) -> float:
        """Go on to the next origin; when all have been tried, rest. Returns for how many seconds."""
        rotation, now = self.rotation, trio.current_time()
        if isinstance(fault, TransportError) and rotation.cut(now):
            return 0.0
        if isinstance(fault, TransportError):
            self.status.connected = False
        self.status.missing = isinstance(fault, MissingError)
        self.status.note(self.dataset, fault)
        if rotation.unasked is not None:
            return self.rest()
        if not rotation.go_on(now):
            return 0.0
        self.end_round()
        return self.backoff.fail(getattr(fault, "retry_after_s", 0.0))

    def end_round(self) -> None:
        self.status.tried = True
        self.on_tried()

    # --- roots of trust ----------------------------------------------------------------------------------------------

    async def follow_roots(self, transport: Transport) -> None:
        """Take the roots that follow, one by one, and those before the trust file's, which a new device may need.

        One that is not rightful stops nothing that the roots at hand vouch for.
        """
        self.roots_due = trio.current_time() + ROOT_CHECK_S
        try:
            while (document := await transport.trust(self.trusted.root.number + 1)) is not None:
                self.trusted.follow(document)
            await self.fetch_older(transport)
        except (WireError, TrustError) as fault:
            self.status.note(self.dataset, fault)
        except TransportError:
            self.roots_due = trio.current_time() + ROOT_RETRY_S
            raise

    async def fetch_older(self, transport: Transport) -> None:
        """Raises TransportError, WireError, TrustError."""
        while (number := self.trusted.root.number - len(self.trusted.roots.documents) - len(self.older)) >= 1:
            document = await transport.trust(number)
            if document is None:
                break
            read_before(document, self.older[0] if self.older else self.trusted.roots.documents[0])
            self.older.insert(0, document)
            self.roots_kept = None


def read_before(document: bytes, following: bytes) -> Root:
    """The root before a trusted one: signed by a threshold of its own keys, which have signed the trusted one as well.

    Whoever has none of those keys can make neither. Raises WireError, TrustError.
    """
    root = read_root(document, "older root of trust")
    verify_root(following, root)
    return root
