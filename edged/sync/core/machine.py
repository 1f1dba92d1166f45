"""The state machine of one dataset's synchronisation. No I/O, no clock, no chance: those come in as arguments.

`handle(event, now)` takes what happened and returns what to do. One thing is under way at a time. TRANSITIONS says
which event is taken in which phase and by what; anything that is not there is a bug of ours and raises.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.errors import ChainError, EdgedError, HashError, StoreError, TransportError, TrustError, WireError
from edged.feed.trust.root import VerifiedHead
from edged.sync.core import events, judge, polling
from edged.sync.core.events import PHASE_OF, SEED, Effect, Event, HeldState, Instant, MachineSettings, Phase
from edged.sync.core.judge import ContentError
from edged.sync.core.prefetch import Prefetcher, delay_s
from edged.sync.core.trusted import NEEDS_ROOT, ROOT_CHECK_S, ROOT_RETRY_S, Trusted
from edged.sync.core.turns import PollTurns, place_at_start
from edged.sync.core.update import Update


class Machine:
    """Raises WireError or TrustError at the first HeldLoaded if the trust file itself is unusable."""

    def __init__(self, settings: MachineSettings, chance: Callable[[], float]) -> None:
        self.settings, self.chance = settings, chance
        self.slices = settings.slices | {"core"}
        self.phase = Phase.NEW
        self.held = HeldState()
        self.known: Trusted | None = None
        self.update: Update | None = None
        self.pending: events.HeadArrived | None = None  # a head that waits for a newer root of trust
        self.backoff = polling.Backoff(chance)
        self.losses = polling.Backoff(chance)  # blobs that no origin has
        self.refusals = polling.Backoff(chance, base_s=polling.REFUSED_S, cap_s=polling.REFUSED_CAP_S)
        self.refused: EdgedError | None = None  # why the newest head was not brought about
        self.resume = Phase.POLLING  # what goes on after a rest
        # A fleet that was switched on together looks at the other origins at different times of the day.
        self.rotation = polling.Rotation(settings.origins, settings.wait_s, -chance() * polling.SURVEY_S)
        self.turns = PollTurns(settings.device_id)
        self.prefetch = Prefetcher(settings.device_id, chance, at_once=settings.thorough)
        self.surveyed = False  # since the start
        self.settled = False  # whether the newest head seen has been dealt with, so that a poll may wait for another
        self.retry_at: float | None = None  # when to try again what was refused
        self.roots_checked_at: float | None = None
        self.next_root, self.seeded = 0, not settings.seed
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

    def load(self, event: Event) -> Effect:
        return events.Load()

    def loaded(self, event: events.HeldLoaded) -> Effect:
        """The first time, what is held says whom to trust, whether to begin with the seed bundle, and when."""
        self.held, rest_s = event.held, 0.0
        if self.known is None:
            rest_s = self.settings.start_within_s * place_at_start(self.settings.device_id, self.held.version)
            self.known = Trusted(self.settings.dataset, self.settings.trust_file, self.held)
            for fault in self.known.faults:
                self.tell(events.Trouble(fault))
            if not self.seeded:
                self.seeded = True
                self.rotation.current = SEED if self.held.version == 0 else 0
        self.keep_roots()
        return self.rest(rest_s) if rest_s and self.held.version else self.poll()

    def keep_roots(self) -> None:
        if (data := self.trusted.to_keep(self.held)) is not None:
            self.news.append(events.SaveRoots(data))

    def load_failed(self, event: events.Failed) -> Effect:
        """A disk that cannot be read now may be later; anything else is a bug, or a trust file that is none."""
        if isinstance(event.error, StoreError):
            return self.storage_failed(event)
        raise event.error

    @property
    def trusted(self) -> Trusted:
        assert self.known is not None
        return self.known

    @property
    def newest(self) -> judge.SeenHead | None:
        """The newest head accepted so far, and since the roots say nothing against it."""
        return self.trusted.newest_head

    @property
    def clock(self) -> judge.TrustedTime:
        return judge.trusted_time(self.now.clock_s, self.settings.built_at, self.trusted.root, self.newest)

    @property
    def vouching_time_s(self) -> float:
        """When roots have to vouch for a head; 0: ever, for the seed, which is as old as the trust file may be."""
        return 0.0 if self.rotation.current == SEED else self.clock.time_s

    # ---- polling

    def poll(self, event: Event | None = None) -> Effect:
        """Ask for the head; before that, now and then, for a newer root of trust.

        An origin that has not shown us its head yet is asked to, without conditions: it may lag behind what is held.
        """
        elapsed, rotation = self.now.elapsed_s, self.rotation
        if rotation.current > 0 and rotation.unasked is None and elapsed - rotation.away_since >= polling.HOME_S:
            rotation.go_to(0, elapsed)
        if self.roots_checked_at is None or elapsed - self.roots_checked_at >= ROOT_CHECK_S:
            return self.fetch_root()
        again = self.retry_at is not None and elapsed >= self.retry_at
        if again or not self.settled or self.newest is None or rotation.current not in rotation.etags:
            self.turns.whole = self.turns.in_step = False
            return rotation.ask_anew(elapsed)
        seen, limit_s = self.newest.head, rotation.held_wait_s(elapsed)
        if limit_s and (rest_s := self.turns.rest_s(elapsed, self.due)):
            return self.rest(rest_s)
        return rotation.ask_for_newer(seen, self.turns.ask(limit_s, seen.newest_version, elapsed, self.due), elapsed)

    @property
    def due(self) -> list[float]:
        """When something other than a poll is to be done."""
        return [at for at in (self.retry_at, self.prefetch.next_at) if at is not None]

    def unchanged(self, event: Event | None = None) -> Effect:
        """Nothing newer here: settle, and go on to the next origin of a survey or the next poll."""
        if event is not None and not self.rotation.conditional:
            return self.elsewhere(TransportError(polling.UNASKED_FOR), Phase.POLLING)
        self.reached()
        self.rotation.unchanged(self.now.elapsed_s)
        self.turns.ended(self.now.elapsed_s)
        return self.next_poll()

    def next_poll(self) -> Effect:
        """After a head that has been dealt with: at once where the origin holds polls, else after a rest.

        Before that the other origins, when their turn has come: a frozen one has no news (TUF specification 1.5.2).
        """
        now, rotation = self.now.elapsed_s, self.rotation
        if rotation.current != SEED and rotation.unasked is None:
            urgent = self.settings.thorough and not self.surveyed
            if rotation.survey_due(now, stale=judge.is_stale(self.newest, self.clock), urgent=urgent):
                self.surveyed = True
                rotation.begin_survey(now)
        if rotation.next_of_survey(now):
            return self.poll()
        if self.newest is not None and rotation.current != SEED:
            self.news += self.prefetch.follow(self.newest.head, self.held, now)
            if (ref := self.prefetch.due(now)) is not None:
                return events.Prefetch(rotation.current, ref, f"{self.settings.dataset}: hop of a version ahead")
        self.report()
        if rotation.held_wait_s(now) == 0 or not self.settled:
            rest_s = rotation.rest_s(self.settings.poll_s) * (0.9 + 0.2 * self.chance())
            return self.rest(min([rest_s, *(max(polling.LEAST_REST_S, at - now) for at in self.due)]))
        return self.poll()

    def rest(self, seconds: float) -> Effect:
        self.resume = Phase.POLLING
        return events.Rest(seconds)

    def prefetched(self, event: events.Prefetched) -> Effect:
        self.prefetch.took(event.ref)
        return self.next_poll()

    def prefetch_failed(self, event: events.Failed) -> Effect:
        self.tell(events.Trouble(event.error))
        self.prefetch.fail(self.now.elapsed_s)
        return self.next_poll()

    def report(self) -> None:
        """Say where we are, and what is wrong with that."""
        if self.newest is None:
            return
        head = self.newest.head
        fault = self.refused or judge.standing_fault(head, self.clock, self.trusted.root, self.slices)
        self.tell(events.Settled(self.rotation.current, self.held.version, head.signed_at, fault))

    def poll_failed(self, event: events.Failed) -> Effect:
        if isinstance(event.error, TransportError) and self.rotation.cut(self.now.elapsed_s):
            # Something on the way ends idle connections. Nothing is wrong; shorter waits are asked for from now on.
            return self.poll()
        return self.elsewhere(event.error, Phase.POLLING)

    def head_arrived(self, event: events.HeadArrived) -> Effect:
        """Nothing of it is looked at before its signature holds under a root as new as any that is spoken of."""
        self.pending = event
        try:
            verified = self.trusted.verify(event.data, self.vouching_time_s)
        except NEEDS_ROOT:
            return self.fetch_root()
        except (WireError, TrustError) as fault:
            self.pending = None
            return self.elsewhere(fault, Phase.POLLING)
        return self.consider(verified)

    def consider(self, verified: VerifiedHead) -> Effect:
        """Judge a head whose signature holds and begin what it asks for."""
        arrived, self.pending = self.pending, None
        assert arrived is not None
        try:
            judge.judge(verified, self.newest, self.clock)
        except TrustError as fault:
            return self.elsewhere(fault, Phase.POLLING)
        self.reached()
        same = self.newest is not None and self.newest.data == verified.data
        if self.newest is not None and self.newest.head.news == verified.head.news:
            self.turns.ended(self.now.elapsed_s)
        self.trusted.accept(verified)
        self.rotation.showed(arrived.etag, new=not same)
        if same and self.settled and (self.retry_at is None or self.now.elapsed_s < self.retry_at):
            return self.unchanged()
        self.settled, self.retry_at, self.refused = False, None, None
        device = self.settings.device_id if arrived.carries is None else ""
        delayed_s = delay_s(verified.head, self.held, device, self.clock.time_s)
        if delayed_s and not (same or self.settings.thorough):
            self.settled, self.retry_at = True, self.now.elapsed_s + delayed_s
            return self.next_poll()
        wanted = self.slices if arrived.carries is None else self.slices & (arrived.carries | self.held.slices.keys())
        chosen = self.trusted.chosen(verified, self.held, device)
        self.update = Update(chosen, self.held, wanted, require=self.settings.require)
        return self.advance()

    def announced(self, event: events.HeadAnnounced) -> Effect:
        """A broker's head, which has been judged as it came: may_follow(). No origin has shown it yet."""
        self.let_go()
        self.pending = events.HeadArrived(event.data)
        effect = self.consider(self.trusted.verify(event.data, self.vouching_time_s))
        self.rotation.etags.clear()
        return effect

    def may_follow(self, data: bytes, now: Instant) -> bool:
        """Whether a head is rightful and newer than the newest. Raises WireError, TrustError where it is neither."""
        self.now = now
        if self.known is None or (self.newest is not None and self.newest.data == data):
            return False
        judge.judge(self.trusted.verify(data, self.vouching_time_s), self.newest, self.clock)
        return self.rotation.current != SEED

    # ---- roots of trust, one by one

    def fetch_root(self) -> Effect:
        """TUF specification 5.3: after each root comes the question for the one that follows it."""
        self.next_root = self.trusted.root.number + 1
        return events.FetchTrust(self.rotation.current, self.next_root)

    def root_arrived(self, event: events.TrustArrived) -> Effect:
        """It is kept at once, so that a restart knows it, and may revoke the key of the newest head seen."""
        try:
            if event.number != self.next_root:
                raise WireError(f"root of trust {event.number}: was not asked for")
            self.trusted.follow(event.data)
        except (WireError, TrustError) as fault:
            return self.roots_ended(fault)
        self.keep_roots()
        return self.fetch_root()

    def no_root(self, event: events.TrustMissing | events.Failed) -> Effect:
        if isinstance(event, events.TrustMissing):
            return self.roots_ended(None)
        return self.storage_failed(event) if isinstance(event.error, StoreError) else self.roots_ended(event.error)

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
            verified = self.trusted.verify(self.pending.data, self.vouching_time_s)
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
            return events.FetchBlob(self.rotation.current, effect.ref, effect.what)
        return effect

    def finished(self) -> Effect:
        self.update, self.settled = None, True
        self.losses.succeed()
        if self.retry_at is None:
            self.refusals.succeed()
        if self.rotation.current == SEED:
            self.report()
            return self.leave_seed()
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

    def staged(self, event: events.StageDone) -> Effect:
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
        if isinstance(event.error, judge.REPAIRABLE):
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
            self.tell(update.told(self.held.version))
        return events.Load()

    def loaded_again(self, event: events.HeldLoaded) -> Effect:
        """After a commit, at the start, and after a nudge."""
        if self.update is None or self.update.steps:
            return self.loaded(event)
        self.held = event.held
        self.keep_roots()
        return self.finished()

    # ---- when something goes wrong

    def reached(self) -> None:
        """The origin in use gave something of worth: the round of origins begins anew."""
        self.rotation.reached()
        self.backoff.succeed()

    def leave_seed(self) -> Effect:
        """From the seed bundle to the origins, which may know newer roots of trust."""
        self.roots_checked_at, self.settled = None, False
        self.rotation.etags.clear()
        self.rotation.go_to(0, self.now.elapsed_s)
        return self.poll()

    def elsewhere(self, error: EdgedError, again: Phase) -> Effect:
        """Try the same (`again`) at the next origin; when all have been tried, rest.

        In a survey the others are asked only whether they have something newer; one that cannot say is passed over.
        """
        rotation = self.rotation
        if isinstance(error, StoreError):
            return self.storage_failed(events.Failed(error))
        if rotation.current == SEED:
            self.tell(events.Trouble(error))
            self.let_go()
            return self.leave_seed()
        if rotation.unasked is not None and again is Phase.POLLING and self.settled:
            self.tell(events.Trouble(error))
            return self.next_poll()
        last = rotation.go_on(self.now.elapsed_s)
        self.tell(events.Trouble(error, final=last))
        if not last:
            return self.again(again)
        # What is missing or damaged everywhere may be so because a newer head has replaced it: ask for that.
        gone = again is Phase.FETCHING and isinstance(error, judge.GONE)
        self.resume = Phase.POLLING if gone else again
        if gone:
            self.let_go()
            return events.Rest(self.losses.fail())
        return events.Rest(self.backoff.fail(getattr(error, "retry_after_s", 0.0)))

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
        if self.rotation.current == SEED:
            return self.leave_seed()
        self.refused = error
        self.retry_at = self.now.elapsed_s + self.refusals.fail(polling.REFUSED_S)
        if (update.pinned or isinstance(error, ContentError)) and not update.stay:  # takedowns apply all the same
            self.update = Update(update.verified, self.held, self.slices, stay=True)
            return self.advance()
        self.settled = True
        return self.next_poll()

    def storage_failed(self, event: events.Failed) -> Effect:
        """The disk is full or broken: what is held is served on; try again later."""
        self.tell(events.Trouble(event.error, final=True))
        # What is held is looked at again then: a commit may have come to pass before the fault.
        self.resume, self.settled = Phase.LOADING, False
        self.let_go()
        return events.Rest(self.losses.fail(polling.BUSY_DISK_S))

    def rested(self, event: events.Woken) -> Effect:
        fetches = self.resume is Phase.POLLING and self.prefetch.due(self.now.elapsed_s) is not None
        return self.next_poll() if fetches else self.again(self.resume)

    def nudged(self, event: events.Nudged) -> Effect:
        """Someone wants it otherwise, or now: what is under way is let go, and what is held looked at again."""
        self.settled, self.retry_at, self.rotation.failed = False, None, 0
        self.let_go()
        return events.Load()


TRANSITIONS: dict[tuple[Phase, type[Event]], Callable[..., Effect]] = {
    (Phase.NEW, events.Started): Machine.load,
    (Phase.LOADING, events.HeldLoaded): Machine.loaded_again,
    (Phase.LOADING, events.Failed): Machine.load_failed,
    (Phase.TRUST, events.TrustArrived): Machine.root_arrived,
    (Phase.TRUST, events.TrustMissing): Machine.no_root,
    (Phase.TRUST, events.Failed): Machine.no_root,
    (Phase.POLLING, events.HeadArrived): Machine.head_arrived,
    (Phase.POLLING, events.HeadAnnounced): Machine.announced,
    (Phase.POLLING, events.HeadUnchanged): Machine.unchanged,
    (Phase.POLLING, events.Failed): Machine.poll_failed,
    (Phase.POLLING, events.Nudged): Machine.nudged,
    (Phase.FETCHING, events.BlobArrived): Machine.blob_arrived,
    (Phase.FETCHING, events.Failed): Machine.blob_failed,
    (Phase.FETCHING, events.Nudged): Machine.nudged,
    (Phase.PREFETCHING, events.Prefetched): Machine.prefetched,
    (Phase.PREFETCHING, events.Failed): Machine.prefetch_failed,
    (Phase.PREFETCHING, events.Nudged): Machine.nudged,
    (Phase.APPLYING, events.PartsStaged): Machine.parts_staged,
    (Phase.APPLYING, events.StageDone): Machine.staged,
    (Phase.APPLYING, events.Measured): Machine.measured,
    (Phase.APPLYING, events.Failed): Machine.applying_failed,
    (Phase.COMMITTING, events.Committed): Machine.committed,
    (Phase.COMMITTING, events.Failed): Machine.storage_failed,
    (Phase.COMMITTING, events.Nudged): Machine.nudged,
    (Phase.RESTING, events.Woken): Machine.rested,
    (Phase.RESTING, events.HeadAnnounced): Machine.announced,
    (Phase.RESTING, events.Failed): Machine.storage_failed,
    (Phase.RESTING, events.Nudged): Machine.nudged,
}
