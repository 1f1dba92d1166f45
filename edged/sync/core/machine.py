"""The state machine of one dataset's synchronisation. No I/O, no clock, no chance: those come in as arguments.

`handle(event, now)` takes what happened and returns what to do. One thing is under way at a time. TRANSITIONS says
which event is taken in which phase and by what; anything that is not there is a bug of ours and raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edged.errors import (
    ChainError,
    DamageError,
    EdgedError,
    HashError,
    MissingError,
    StoreError,
    TransportError,
    TrustError,
    UnknownKeyError,
    WireError,
)
from edged.feed.head import Head
from edged.feed.rollout import head_for
from edged.feed.trust import succession
from edged.feed.trust.root import VerifiedHead, verify_head
from edged.sync.core import events, judge
from edged.sync.core.content import ContentError
from edged.sync.core.events import SEED, Effect, Event, HeldState, Instant
from edged.sync.core.phase import PHASE_OF, Phase, Settings
from edged.sync.core.retry import Backoff
from edged.sync.core.update import Update

LEAST_WAIT_S = 20
CUT_S = 10  # a poll that breaks after so long was cut by something that dislikes idle connections, not refused
CUTS = 2  # in a row; more, and the origin counts as unreachable
AT_ONCE_S = 2.0  # who answers a held poll with "unchanged" sooner than this does not hold polls
PROBE_S = 3600.0  # a host that does not hold polls is asked to again after so long
HOME_S = 600.0  # after so long with another origin the first of the list is tried again
ROOT_CHECK_S = 86_400.0  # a new root of trust is looked for at the start and this often; and whenever a key is unknown
ROOT_RETRY_S = 600.0  # if the origin could not be asked for it
BUSY_DISK_S = 10.0  # at least so long between attempts to write on a disk that is full
REFUSED_CAP_S = 3600.0  # content that the origin has to mend is tried again at most this far apart


class Machine:
    """Raises WireError or TrustError at the first HeldLoaded if the trust file itself is unusable."""

    def __init__(self, settings: Settings, chance: Callable[[], float]) -> None:
        self.settings, self.chance = settings, chance
        self.slices = settings.slices | {"core"}
        self.phase = Phase.NEW
        self.held = HeldState()
        self.roots: succession.RootSuccession | None = None
        self.floor: VerifiedHead | None = None
        self.update: Update | None = None
        self.pending: events.HeadArrived | None = None  # a head that waits for a newer root of trust
        self.backoff = Backoff(chance)
        self.losses = Backoff(chance)  # blobs that no origin has
        self.refusals = Backoff(chance, base_s=60.0, cap_s=REFUSED_CAP_S)
        self.refused: EdgedError | None = None  # why the newest head was not brought about
        self.resume = Phase.POLLING  # what goes on after a rest
        self.origin, self.away_since, self.tried = 0, 0.0, 0
        self.etag: str | None = None
        self.settled = False  # whether the newest head seen has been dealt with, so that a poll may wait for another
        self.retry_at: float | None = None  # when to try again what was refused
        self.wait_s, self.asked_wait_s, self.asked_at = settings.wait_s, 0, 0.0
        self.static_until, self.cuts = 0.0, 0
        self.roots_checked_at: float | None = None
        self.next_root = 0
        self.seeded = not settings.seed
        self.now = Instant(0.0, 0.0)
        self.news: list[Effect] = []

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """What to do now. The last of the effects is answered by the next event."""
        self.now = now
        handler = TRANSITIONS.get((self.phase, type(event)))
        if handler is None:
            raise AssertionError(f"{type(event).__name__} while {self.phase.name}: no such transition")
        effect = handler(self, event)
        self.phase = PHASE_OF[type(effect)]
        effects, self.news = [*self.news, effect], []
        return effects

    def tell(self, news: events.News) -> None:
        self.news.append(events.Tell(news))

    # ---- what is held

    def load(self, event: Event) -> Effect:
        return events.Load()

    def loaded(self, event: events.HeldLoaded) -> Effect:
        self.held, first = event.held, self.roots is None
        if first:
            self.restore_roots()
            self.floor = self.known_head()
            if not self.seeded:
                self.seeded = True
                self.origin = SEED if self.held.version == 0 else 0
        if self.root_now.encode() != self.held.roots:
            self.news.append(events.SaveRoots(self.root_now.encode()))
        return self.poll()

    def load_failed(self, event: events.Failed) -> Effect:
        if isinstance(event.error, StoreError):
            return self.storage_failed(event)
        raise event.error

    def restore_roots(self) -> None:
        what = f"trust file of {self.settings.dataset}"
        try:
            self.roots = succession.restore(self.settings.trust_file, self.held.roots, what)
        except (WireError, TrustError) as fault:
            # Either the trust file is bad, and then this raises, or what was kept beside the replica is: fetch it anew.
            self.roots = succession.restore(self.settings.trust_file, None, what)
            self.tell(events.Trouble(fault))

    def known_head(self) -> VerifiedHead | None:
        """The held head, unless its key is no longer trusted (judge.still_valid says why)."""
        if self.held.head is None:
            return None
        try:
            return verify_head(self.held.head, self.root_now.newest, self.settings.dataset)
        except UnknownKeyError:
            return None
        except (WireError, TrustError) as fault:
            self.tell(events.Trouble(fault))
            return None

    @property
    def root_now(self) -> succession.RootSuccession:
        assert self.roots is not None
        return self.roots

    @property
    def clock(self) -> judge.Clock:
        return judge.clock_of(self.now.clock_s, self.settings.built_at, self.root_now.newest, self.floor)

    # ---- polling

    def poll(self, event: Event | None = None) -> Effect:
        """Ask for the head; before that, now and then, for a newer root of trust."""
        elapsed = self.now.elapsed_s
        if self.origin > 0 and elapsed - self.away_since >= HOME_S:
            self.go_to(0)
        if self.roots_checked_at is None or elapsed - self.roots_checked_at >= ROOT_CHECK_S:
            return self.fetch_root()
        again = self.retry_at is not None and elapsed >= self.retry_at
        if again or not self.settled or self.floor is None:
            self.etag, self.asked_wait_s = None, 0
            return self.asked(events.Poll(self.origin, None, 0, None))
        wait_s = 0 if elapsed < self.static_until else self.wait_s
        if self.retry_at is not None:
            wait_s = min(wait_s, max(LEAST_WAIT_S, int(self.retry_at - elapsed)))
        self.asked_wait_s = wait_s
        # Of an offer that was seen we want to hear only if it changes, which an origin without ETags cannot tell.
        seen = self.floor.head.newest_version if self.etag else self.floor.head.version
        return self.asked(events.Poll(self.origin, seen, wait_s, self.etag))

    def asked(self, effect: Effect) -> Effect:
        self.asked_at = self.now.elapsed_s
        return effect

    def unchanged(self, event: Event | None = None) -> Effect:
        self.reached()
        elapsed = self.now.elapsed_s
        if self.asked_wait_s and elapsed - self.asked_at < AT_ONCE_S:
            self.static_until = elapsed + PROBE_S
        elif self.asked_wait_s:
            # What was cut by a restart of the origin, rather than by something on the way, may be long again.
            self.wait_s = min(self.settings.wait_s, self.wait_s + 1)
        return self.next_poll()

    def next_poll(self) -> Effect:
        """After a head that has been dealt with: at once where the origin holds polls, else after a rest."""
        self.report()
        if self.now.elapsed_s < self.static_until or not self.settled:
            self.resume = Phase.POLLING
            return events.Rest(self.settings.poll_s * (0.9 + 0.2 * self.chance()))
        return self.poll()

    def report(self) -> None:
        """Say where we are, and what is wrong with that; if the head has run out, the next poll goes elsewhere."""
        if self.floor is None:
            return
        expired = judge.expired_fault(self.floor.head, self.clock)
        fault = self.refused or expired or self.missing_slices(self.floor.head)
        self.tell(events.Settled(self.origin, self.held.version, self.floor.head.signed_at, fault))
        if expired is not None and self.origin != SEED:
            self.go_to((self.origin + 1) % self.settings.origins)

    def missing_slices(self, head: Head) -> ChainError | None:
        missing = sorted(self.slices - head.slices.keys())
        if not missing:
            return None
        return ChainError(
            f"{head.dataset}: the feed has no slice {', '.join(missing)}; it has {', '.join(sorted(head.slices))}; "
            "correct `slices` in the configuration, or publish it"
        )

    def poll_failed(self, event: events.Failed) -> Effect:
        waited = self.now.elapsed_s - self.asked_at
        idle = isinstance(event.error, TransportError) and self.asked_wait_s > 0 and waited >= CUT_S
        if idle and self.cuts < CUTS:
            # Something on the way ends idle connections. Nothing is wrong; ask for shorter waits from now on.
            self.cuts += 1
            self.wait_s = max(LEAST_WAIT_S, min(self.wait_s, int(waited * 0.8)))
            return self.poll()
        return self.elsewhere(event.error, Phase.POLLING)

    def head_arrived(self, event: events.HeadArrived) -> Effect:
        self.pending = event
        try:
            verified = verify_head(event.data, self.root_now.newest, self.settings.dataset)
        except UnknownKeyError:
            return self.fetch_root()
        except (WireError, TrustError) as fault:
            self.pending = None
            return self.elsewhere(fault, Phase.POLLING)
        if verified.head.root > self.root_now.newest.number:
            return self.fetch_root()
        return self.consider(verified)

    def consider(self, verified: VerifiedHead) -> Effect:
        """Judge a head whose signature holds and begin what it asks for."""
        arrived, self.pending = self.pending, None
        assert arrived is not None
        try:
            judge.judge(verified, self.floor, self.clock)
        except TrustError as fault:
            return self.elsewhere(fault, Phase.POLLING)
        self.reached()
        same = self.floor is not None and self.floor.data == verified.data
        self.floor, self.etag = verified, arrived.etag
        if same and self.settled and (self.retry_at is None or self.now.elapsed_s < self.retry_at):
            return self.unchanged()
        self.settled, self.retry_at, self.refused = False, None, None
        wanted = self.slices
        if arrived.carries is not None:
            wanted &= arrived.carries | self.held.slices.keys()
        self.update = Update(
            self.chosen(verified, arrived.carries is None), self.held, wanted, require=self.settings.require
        )
        return self.advance()

    def chosen(self, verified: VerifiedHead, takes_offers: bool) -> VerifiedHead:
        """The head as this device follows it: with the version that it offers, or without.

        A pin behind the live version is not moved by an offer; a bundle carries only the live version.
        """
        pinned = self.held.pinned is not None and self.held.pinned <= verified.head.version
        device = self.settings.device_id if takes_offers else ""
        mine = replace(verified.head, offer=None) if pinned else head_for(verified.head, device, self.held.version)
        return replace(verified, head=mine)

    # ---- roots of trust, one by one

    def fetch_root(self) -> Effect:
        """TUF specification 5.3: after each root comes the question for the one that follows it."""
        self.next_root = self.root_now.newest.number + 1
        return events.FetchTrust(self.origin, self.next_root)

    def root_arrived(self, event: events.TrustArrived) -> Effect:
        try:
            if event.number != self.next_root:
                raise WireError(f"root of trust {event.number}: was not asked for")
            self.roots = self.root_now.followed_by(event.data)
        except (WireError, TrustError) as fault:
            return self.roots_ended(fault)
        self.news.append(events.SaveRoots(self.root_now.encode()))
        self.floor = judge.still_valid(self.floor, self.root_now.newest)
        return self.fetch_root()

    def root_missing(self, event: events.TrustMissing) -> Effect:
        return self.roots_ended(None)

    def root_failed(self, event: events.Failed) -> Effect:
        if isinstance(event.error, StoreError):
            return self.storage_failed(event)
        return self.roots_ended(event.error)

    def roots_ended(self, fault: EdgedError | None) -> Effect:
        """The newest root is known, or the next could not be had (`fault`): go on with what waited for it.

        A bad root stops nothing that the roots at hand vouch for: else whoever can put a file in its place, or a host
        that answers everything with its home page, could stop all updates.
        """
        unknown = isinstance(fault, TransportError)
        self.roots_checked_at = self.now.elapsed_s - (ROOT_CHECK_S - ROOT_RETRY_S if unknown else 0.0)
        if fault is not None:
            self.tell(events.Trouble(fault))
        if self.pending is None:
            return self.poll()
        try:
            verified = verify_head(self.pending.data, self.root_now.newest, self.settings.dataset)
        except (WireError, TrustError) as refused:
            self.pending = None
            return self.elsewhere(fault or refused, Phase.POLLING)
        return self.consider(verified)

    # ---- carrying out an update

    def advance(self) -> Effect:
        """The update's next effect; when nothing is left, the next poll."""
        assert self.update is not None
        try:
            effect = self.update.go()
        except (WireError, ChainError) as fault:
            return self.repair(fault) if self.update.may_repair() else self.refuse(fault)
        if effect is None:
            return self.finished()
        if isinstance(effect, events.FetchBlob):
            return events.FetchBlob(self.origin, effect.ref, effect.what)
        return effect

    def finished(self) -> Effect:
        self.update, self.settled = None, True
        self.losses.succeed()
        if self.retry_at is None:
            self.refusals.succeed()
        if self.origin == SEED:
            self.report()
            self.go_to(0)
            return self.poll()
        return self.next_poll()

    def blob_arrived(self, event: events.BlobArrived) -> Effect:
        assert self.update is not None
        try:
            self.update.blob(event.ref, event.data)
        except HashError as fault:
            return self.elsewhere(fault, Phase.FETCHING)
        except (WireError, ChainError) as fault:
            return self.refuse(fault)
        self.reached()
        return self.advance()

    def blob_failed(self, event: events.Failed) -> Effect:
        return self.elsewhere(event.error, Phase.FETCHING)

    def parts_staged(self, event: events.PartsStaged) -> Effect:
        assert self.update is not None
        try:
            self.update.parts_staged(event.parts)
        except ChainError as fault:
            return self.refuse(fault)
        return self.advance()

    def staged(self, event: events.Staged) -> Effect:
        assert self.update is not None
        self.update.staged()
        return self.advance()

    def measured(self, event: events.Measured) -> Effect:
        assert self.update is not None
        try:
            self.update.measured(event.digest, event.records)
        except ChainError as fault:
            return self.repair(fault)
        return self.advance()

    def applying_failed(self, event: events.Failed) -> Effect:
        if isinstance(event.error, ContentError):
            return self.refuse(event.error)
        if isinstance(event.error, WireError | ChainError | DamageError):
            return self.repair(event.error)
        return self.storage_failed(event)

    def repair(self, error: EdgedError) -> Effect:
        assert self.update is not None
        try:
            name = self.update.repair(error)
        except ChainError as fault:
            return self.refuse(fault)
        self.tell(events.Repairing(name, error))
        return self.advance()

    def committed(self, event: events.Committed) -> Effect:
        update = self.update
        assert update is not None
        update.staged()
        if update.kinds or update.moves:
            self.tell(events.Updated(update.release, self.held.version, update.kinds, update.hops, update.snapshots))
        return events.Load()

    def loaded_again(self, event: events.HeldLoaded) -> Effect:
        """After a commit, at the start, and after a nudge."""
        if self.update is None or self.update.steps:
            return self.loaded(event)
        self.held = event.held
        return self.finished()

    # ---- when something goes wrong

    def reached(self) -> None:
        """The origin in use gave something of worth: the round of origins begins anew."""
        self.tried = self.cuts = 0
        self.backoff.succeed()

    def go_to(self, origin: int) -> None:
        if origin != self.origin:
            if self.origin == SEED:
                self.roots_checked_at, self.settled = None, False
            # An ETag means nothing at another origin.
            self.origin, self.etag, self.away_since = origin, None, self.now.elapsed_s
            self.static_until = 0.0

    def elsewhere(self, error: EdgedError, again: Phase) -> Effect:
        """Try the same (`again`) at the next origin; when all have been tried, rest."""
        if self.origin == SEED:
            self.tell(events.Trouble(error))
            self.go_to(0)
            self.let_go()
            return self.poll()
        self.tried += 1
        last = self.tried >= self.settings.origins
        self.tell(events.Trouble(error, final=last))
        self.go_to((self.origin + 1) % self.settings.origins)
        if not last:
            return self.again(again)
        self.tried = 0
        # What is missing or damaged everywhere may be so because a newer head has replaced it: ask for that.
        gone = again is Phase.FETCHING and isinstance(error, MissingError | HashError)
        self.resume = Phase.POLLING if gone else again
        if not gone:
            return events.Rest(self.backoff.fail(getattr(error, "retry_after_s", 0.0)))
        self.let_go()
        return events.Rest(self.losses.fail())

    def again(self, phase: Phase) -> Effect:
        if phase is Phase.LOADING:
            return events.Load()
        return self.advance() if phase is Phase.FETCHING else self.poll()

    def let_go(self) -> None:
        """Give up the update under way; what is live stays."""
        if self.update is not None:
            self.update, self.settled = None, False
            self.news.append(events.Abandon())

    def refuse(self, error: EdgedError) -> Effect:
        """This head cannot be brought about from any origin: keep what is held, wait for a newer head."""
        update = self.update
        assert update is not None
        self.tell(events.Trouble(error, final=True))
        self.let_go()
        if self.origin == SEED:
            self.go_to(0)
            return self.poll()
        self.refused = error
        self.retry_at = self.now.elapsed_s + self.refusals.fail(60.0)
        if (update.pinned or isinstance(error, ContentError)) and not update.stay:  # takedowns apply all the same
            self.update = Update(update.verified, self.held, self.slices, stay=True)
            return self.advance()
        self.settled = True
        return self.next_poll()

    def storage_failed(self, event: events.Failed) -> Effect:
        """The disk is full or broken: what is held is served on; try again later."""
        self.tell(events.Trouble(event.error, final=True))
        # What is held is looked at again then: a commit may have come to pass before the fault.
        self.resume = Phase.LOADING
        self.let_go()
        return events.Rest(self.losses.fail(BUSY_DISK_S))

    def rested(self, event: events.Woken) -> Effect:
        return self.again(self.resume)

    def nudged(self, event: events.Nudged) -> Effect:
        self.slices = event.slices | {"core"}
        self.settled, self.retry_at, self.tried = False, None, 0
        self.let_go()
        return events.Load()


TRANSITIONS: dict[tuple[Phase, type[Event]], Callable[..., Effect]] = {
    (Phase.NEW, events.Started): Machine.load,
    (Phase.LOADING, events.HeldLoaded): Machine.loaded_again,
    (Phase.LOADING, events.Failed): Machine.load_failed,
    (Phase.TRUST, events.TrustArrived): Machine.root_arrived,
    (Phase.TRUST, events.TrustMissing): Machine.root_missing,
    (Phase.TRUST, events.Failed): Machine.root_failed,
    (Phase.POLLING, events.HeadArrived): Machine.head_arrived,
    (Phase.POLLING, events.HeadUnchanged): Machine.unchanged,
    (Phase.POLLING, events.Failed): Machine.poll_failed,
    (Phase.POLLING, events.Nudged): Machine.nudged,
    (Phase.FETCHING, events.BlobArrived): Machine.blob_arrived,
    (Phase.FETCHING, events.Failed): Machine.blob_failed,
    (Phase.APPLYING, events.PartsStaged): Machine.parts_staged,
    (Phase.APPLYING, events.Staged): Machine.staged,
    (Phase.APPLYING, events.Measured): Machine.measured,
    (Phase.APPLYING, events.Failed): Machine.applying_failed,
    (Phase.COMMITTING, events.Committed): Machine.committed,
    (Phase.COMMITTING, events.Failed): Machine.storage_failed,
    (Phase.RESTING, events.Woken): Machine.rested,
    (Phase.RESTING, events.Nudged): Machine.nudged,
}
