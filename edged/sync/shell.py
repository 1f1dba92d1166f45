"""Carries out what the machine asks for: requests, work on the replica, rests; and tells whoever watches."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, assert_never

import trio

from edged.errors import (
    DamageError,
    EdgedError,
    NewerRootError,
    StoreError,
    TransportError,
    TrustError,
    UnknownKeyError,
    WireError,
)
from edged.feed.blob import BlobRef
from edged.sync.core import events
from edged.sync.core.events import Effect, Event, Instant, MachineSettings
from edged.sync.core.judge import check_content, reason_of
from edged.sync.core.machine import Machine
from edged.sync.replication import Replication, one_line
from edged.sync.status import LastUpdate
from edged.sync.store import Staging, held_state
from edged.sync.transports.origins import Origins
from edged.sync.transports.transport import Transport

T = TypeVar("T")
log = logging.getLogger("edged.sync")

DiskEffect = events.Stage | events.Measure | events.Commit
IN_A_ROW_S = 0.5  # for which the disk is worked on without looking up: a nudge or a stop is seen after that
COMPACT_BYTES = 8 << 20  # written by compaction after one update at most, so that wear and load are spread
ONCE_REST_S = 5.0
ASK_ROOTS_S = 60.0  # between questions for newer roots because of what a broker brought


class Shell:
    """Carries out effects. A context manager: what is staged at its end is let go."""

    def __init__(
        self,
        settings: MachineSettings,
        origins: Origins,
        replication: Replication,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.machine = Machine(settings, chance)
        self.origins, self.replication, self.chance = origins, replication, chance
        self.writer, self.status, self.clock = replication.writer, replication.status, replication.clock
        self.control, self.wear, self.write = replication.control, replication.wear, replication.write
        self.broken: frozenset[str] = frozenset()  # slices that were damaged when last looked at
        self.aheads: frozenset[bytes] = frozenset()  # blobs of versions ahead on disk
        self.staging: Staging | None = None
        self.before: int | None = None  # the version that was held at first
        self.false: dict[str, str] = {}  # slices whose content is not what a laid hop said, and why
        self.update_began = (0.0, 0, 0)
        self.trouble: EdgedError | None = None
        self.ask_roots_at = 0.0

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    # ---- driving the machine

    async def run(self) -> None:
        """For ever: hand what happened to the machine, do what it asks. Raises WireError or TrustError for the trust
        file."""
        effects = self.decide(events.Started())
        while True:
            effect = self.for_the_disk(effects)
            if effect is not None:
                effects = await self.write(partial(self.work_on, effect, trio.current_time()))
                self.tell_of_false()
            else:
                effects = self.decide(await self.perform_all(effects))

    def for_the_disk(self, effects: list[Effect]) -> DiskEffect | None:
        """What is to be done, where that is for the writer's thread alone and nobody wants it otherwise."""
        effect = effects[0] if len(effects) == 1 and not self.control.repinned.is_set() else None
        return effect if isinstance(effect, DiskEffect) else None

    def work_on(self, effect: DiskEffect, elapsed_s: float) -> list[Effect]:
        """Within a thread: stage, measure and commit, one after the other as the machine asks for it. Each time the
        work went from thread to thread it waited for a processor that others want. elapsed_s: Instant's, at first.

        Returns what is to be done then.
        """
        began = time.monotonic()
        while True:
            try:
                event = self.on_disk(effect)
            except EdgedError as fault:
                event = events.Failed(fault)
            worked_s = time.monotonic() - began
            effects = self.decide(event, elapsed_s + worked_s)
            following = self.for_the_disk(effects)
            if following is None or worked_s > IN_A_ROW_S:
                return effects
            effect = following

    def decide(self, event: Event, elapsed_s: float | None = None) -> list[Effect]:
        self.machine.rotation.pushed = self.control.pushed
        now_s = trio.current_time() if elapsed_s is None else elapsed_s
        effects = self.machine.handle(event, Instant(self.clock.source(), now_s))
        newest = self.machine.newest if self.machine.known is not None else None
        self.status.newest = self.status.version if newest is None else newest.head.newest_version
        self.status.note_steps(len(self.machine.update.steps) if self.machine.update is not None else 0)
        return effects

    async def perform_all(self, effects: list[Effect]) -> Event:
        answer: Event | None = None
        try:
            for effect in effects:
                answer = await self.perform(effect)
        except EdgedError as fault:
            return events.Failed(fault)
        assert answer is not None, f"{effects[-1]} was not answered"
        return answer

    async def until_settled(self, rests: int) -> EdgedError | None:
        """For one synchronisation: until nothing is left to do or nothing can be done. Returns what was the matter."""
        event: Event = events.Started()
        while True:
            *unanswered, last = self.decide(event)
            try:
                for effect in unanswered:
                    await self.perform(effect)
            except EdgedError as fault:
                event = events.Failed(fault)
                continue
            for effect in unanswered:
                match effect:
                    case events.Tell(events.Settled(origin, fault=found)) if origin != events.SEED:
                        return found
            if isinstance(last, events.Rest):
                if not rests or (self.trouble is not None and self.trouble.recovery != "retry"):
                    return self.trouble
                rests -= 1
                last = events.Rest(min(last.seconds, ONCE_REST_S))
            event = await self.perform_all([last])

    # ---- effects

    async def perform(self, effect: Effect) -> Event | None:  # noqa: C901 - one flat list of cases
        match effect:
            case events.Load():
                return await self.load()
            case events.Poll():
                return await self.unless(self.control.nudged, lambda: self.poll(effect), announced=True)
            case events.Rest(seconds):
                return await self.unless(self.control.nudged, lambda: rest(seconds), announced=True)
            case events.FetchTrust(origin, number):
                data = await self.asked(origin).trust(number)
                return events.TrustMissing(number) if data is None else events.TrustArrived(number, data)
            case events.FetchBlob(origin, ref, what):
                return await self.unless(self.control.repinned, lambda: self.fetch(origin, ref, what))
            case events.Prefetch():
                return await self.unless(self.control.repinned, lambda: self.fetch_ahead(effect))
            case events.KeepAhead(names):
                await self.write(partial(self.writer.drop_aheads, names))
                self.aheads &= names
            case events.SaveRoots(data):
                await self.write(lambda: self.writer.set_roots(data))
            case events.CheckStaged(name):
                return events.PartsStaged(await self.write(lambda: self.open_staging().parts_on_disk(name)))
            case events.TakeStaged(name, ref):
                found = await self.write(lambda: self.open_staging().has_part(name, ref))
                return events.PartsStaged(frozenset([ref.sha256] if found else []))
            case events.Commit() | events.Touch() if self.control.repinned.is_set():
                return self.nudged()
            case events.Stage() | events.Measure() | events.Commit():
                answer = await self.write(partial(self.on_disk, effect))
                self.tell_of_false()
                return answer
            case events.Touch(head, as_of, fresh_s, expires_s):
                touch = self.writer.touch_head
                await self.write(lambda: touch(head, as_of=as_of, fresh_s=fresh_s, expires_s=expires_s))
                return events.Committed()
            case events.Abandon():
                try:
                    await self.write(self.abandon)
                except StoreError as fault:  # what could not be removed is removed when the writer next opens
                    self.note(fault)
            case events.Tell(news):
                self.tell(news)
            case _:
                assert_never(effect)
        return None

    async def unless(
        self, signal: trio.Event, work: Callable[[], Awaitable[Event]], *, announced: bool = False
    ) -> Event:
        """`work()`, cut short by `signal`. announced: or by a head that a broker brings."""
        self.brought: Event | None = None
        answer: Event | None = None
        error: EdgedError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signal, nursery.cancel_scope)
            if announced:
                nursery.start_soon(self.await_announcement, nursery.cancel_scope)
            try:
                answer = await work()
            except EdgedError as fault:
                error = fault
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        return answer or self.brought or self.nudged()

    async def await_announcement(self, scope: trio.CancelScope) -> None:
        """Until a broker has brought a head that may follow the newest. Anything else costs its look: an old one, one
        that is forged; one that a newer root may vouch for has the origin asked for that root, once in a while. From a
        broker that brings what is forged the next head may not come: polls are as without it until a rightful one has.
        """
        ask_at = math.inf
        while True:
            with trio.move_on_at(ask_at) as waiting:
                await self.control.announced.wait()
            if waiting.cancelled_caught:
                self.control.nudge()
                return
            data = self.control.take_announcement()
            try:
                now = Instant(self.clock.source(), trio.current_time())
                if data is not None and self.machine.may_follow(data, now):
                    self.control.believe()
                    self.brought = events.HeadAnnounced(data)
                    scope.cancel()
                    return
                if self.machine.newest is not None and data == self.machine.newest.data:
                    self.control.believe()  # it has come in another way before, or is there again
            except (UnknownKeyError, NewerRootError):
                if now.elapsed_s >= self.ask_roots_at:
                    self.ask_roots_at = now.elapsed_s + ASK_ROOTS_S
                    self.control.nudge()
            except (WireError, TrustError) as fault:
                log.debug("%s: a broker brought %s", self.status.dataset, one_line(fault))
                if self.control.pushed:  # a fleet to which it was brought does not ask the origin all at once
                    self.control.doubt()
                    ask_at = now.elapsed_s + self.chance() * self.replication.subscription.poll_s
            await trio.lowlevel.checkpoint()

    def nudged(self) -> Event:
        self.control.taken()
        return events.Nudged()

    async def fetch(self, origin: int, ref: BlobRef, what: str) -> Event:
        """A blob, from the disk where it was fetched ahead of its release."""
        if ref.sha256 in self.aheads:
            data = await self.write(partial(self.writer.ahead, ref))
            if data is not None:
                return events.BlobArrived(ref, data)
            self.aheads -= {ref.sha256}
        return events.BlobArrived(ref, await self.asked(origin).blob(ref, what))

    async def fetch_ahead(self, effect: events.Prefetch) -> Event:
        """Have a blob of a version ahead on disk. Raises HashError for another one, which is not kept."""
        ref = effect.ref
        if ref.sha256 not in self.aheads or await self.write(partial(self.writer.ahead, ref)) is None:
            data = ref.check(await self.asked(effect.origin).blob(ref, effect.what), effect.what)
            await self.write(partial(self.writer.keep_ahead, ref, data))
            self.aheads |= {ref.sha256}
        return events.Prefetched(ref)

    def asked(self, origin: int) -> Transport:
        """The transport of an origin that is asked now; the seed is none of those that the status speaks of."""
        transport = self.origins.at(origin)
        if origin != events.SEED:
            self.status.origin = transport.name
        return transport

    async def poll(self, effect: events.Poll) -> Event:
        transport = self.asked(effect.origin)
        before = self.status.bytes_received, self.status.bytes_sent
        reply = await transport.head(effect.after, effect.wait_s, effect.etag)
        if effect.origin != events.SEED:
            if self.status.lost:
                log.info("%s: origin %s answers again", self.status.dataset, transport.name)
            self.status.connected, self.status.lost = True, False
        try:
            await self.mend()  # nobody else looks at the live manifest until a program opens the replica
            await self.write(self.writer.purge)  # done after each commit; made up for here where the disk was full
        except StoreError as fault:  # it says nothing about the origin
            self.note(fault)
        if reply is None:
            return events.HeadUnchanged()
        self.update_began = (trio.current_time(), *before)
        return events.HeadArrived(reply.data, reply.etag, reply.carries)

    async def load(self) -> Event:
        """What is held; before that, damage that was found is acted upon, as no other write is open here."""
        await self.mend()
        held = await self.write(self.writer.status)
        self.replication.note_held(held)
        broken = frozenset(name for name, item in held.slices.items() if item.damaged is not None)
        self.status.repairs += len((self.broken - broken) & held.slices.keys())
        self.broken = broken
        self.replication.on_version()
        if "core" in held.slices and not held.slices["core"].cut:
            self.origins.say_held(held.version, held.slices["core"].digest)
        if self.before is None:
            self.before = held.version
            self.aheads = await self.write(self.writer.aheads)
        return events.HeldLoaded(held_state(held))

    async def mend(self) -> None:
        """Act on damage that was found, and on damage to the manifest in any case. Raises StoreError."""
        faults, self.control.faults = self.control.faults, []
        for fault in faults:
            self.note(DamageError(f"{fault}"))
        try:
            mended = await self.write(partial(self.writer.mend, faults))
        except StoreError:
            self.control.faults = [*faults, *self.control.faults]
            raise
        if mended:
            log.warning("%s: %d damaged files were made anew from what is held", self.status.dataset, mended)
        self.status.repairs += mended

    # ---- the replica, within a thread

    def open_staging(self) -> Staging:
        if self.staging is None:
            self.staging = self.writer.stage()
        return self.staging

    def on_disk(self, effect: DiskEffect) -> Event:
        match effect:
            case events.Stage(action):
                stage(self.open_staging(), action)
                return events.StageDone()
            case events.Measure(name):
                return events.Measured(*self.open_staging().digest(name))
            case events.Commit():
                self.commit(effect)
                return events.Committed()
            case _:
                assert_never(effect)

    def commit(self, effect: events.Commit) -> None:
        written = self.open_staging().commit(
            effect.version, effect.head, as_of=effect.as_of, fresh_s=effect.fresh_s, expires_s=effect.expires_s
        )
        self.false.update(self.open_staging().prove())
        self.staging = None
        self.wear.spend(written)
        allowed = self.wear.allowed(time.monotonic())
        if allowed is None or allowed > 0:  # else merging waits; updates never do
            self.wear.spend(self.writer.compact(COMPACT_BYTES if allowed is None else min(allowed, COMPACT_BYTES)))

    def tell_of_false(self) -> None:
        """Have slices fetched anew whose content, live already, is not what was signed for."""
        false, self.false = self.false, {}
        for name, reason in false.items():
            self.control.damaged(name, f"the hop of a version ahead does not hold: {reason}")

    def abandon(self) -> None:
        """Let go of what is staged, except for snapshot parts on disk, with which the next attempt goes on."""
        staging, self.staging = self.staging, None
        if staging is not None:
            staging.drop()

    # ---- for whoever watches

    def tell(self, news: events.News) -> None:
        status, name = self.status, self.status.dataset
        match news:
            case events.Updated(version, before, kinds, hops, snapshots, full_bytes):
                began, received, sent = self.update_began
                status.hops_applied += hops
                status.snapshots_applied += snapshots
                status.full_bytes = full_bytes or status.full_bytes
                update = LastUpdate(
                    version,
                    before,
                    kinds,
                    status.bytes_received - received,
                    status.bytes_sent - sent,
                    trio.current_time() - began,
                    status.full_bytes,
                )
                status.note_update(update, self.clock())
                log.info("%s: version %d to %d, %d bytes", name, before, version, update.bytes_received)
            case events.Settled(_, _, signed_at, fault):
                if fault is None:
                    status.last_success_s = self.clock()
                if self.clock.heard(signed_at):
                    log.warning("%s: the clock was days ahead once; records come and go by what it says now", name)
                self.note(fault)
                self.origins.say_reason(reason_of(fault) or "pinned" * (status.pinned is not None))
            case events.Trouble(error, final):
                if final and (reason := reason_of(error)):
                    self.origins.say_reason(reason)
                if isinstance(error, TransportError) and status.connected:
                    status.connected, status.lost = False, True
                    log.warning("%s: origin %s is lost: %s", name, status.origin, one_line(error))
                    status.last_error = one_line(error)
                    status.note_error(status.last_error, self.clock(), type(error).__name__)
                self.trouble = error
                self.note(error)
            case events.Repairing(slice_name, error):
                status.repairs += 1
                log.warning("%s: slice %s is fetched anew from its snapshot: %s", name, slice_name, error)
            case _:
                assert_never(news)

    def note(self, error: EdgedError | None) -> None:
        """Keep `error` as the last one, and log it unless it was just logged."""
        text = None if error is None else one_line(error)
        if text is not None and text != self.status.last_error:
            log.warning("%s: %s", self.status.dataset, text)
        if text is not None:
            self.status.note_error(text, self.clock(), type(error).__name__)
        self.status.last_error = text


async def cancel_at(signal: trio.Event, scope: trio.CancelScope) -> None:
    await signal.wait()
    scope.cancel()


async def rest(seconds: float) -> Event:
    await trio.sleep(seconds)
    return events.Woken()


def stage(staging: Staging, action: events.Action) -> None:
    match action:
        case events.BeginSnapshot(name, version, dictionary):
            staging.begin_snapshot(name, version, dictionary)
        case events.AddPart(name, ref, data):
            staging.add_part(name, ref, data)
        case events.AddDictionary(name, data):
            staging.add_dictionary(name, data)
        case events.ApplyHop(name, to_version, data):
            staging.apply_hop(name, to_version, data)
        case events.DropSlice(name):
            staging.drop_slice(name)
        case events.SetSchema(schema, schema_version):
            staging.set_schema(schema, schema_version)
        case events.SetTakedowns(data, entries):
            staging.set_takedowns(data, entries)
        case events.CheckContent(dataset, version, require, whole):
            schema, counts = staging.content(version)
            check_content(dataset, version, counts, schema, require, whole=whole)
        case _:
            assert_never(action)
