"""The trio task of one dataset: does what the machine asks and tells it what came of it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, assert_never

import trio

from edged.clock import BUILD_TIME_S, Clock
from edged.errors import (
    ConfigError,
    DamageError,
    EdgedError,
    RequestError,
    StoreError,
    TransportError,
    TrustError,
    WireError,
)
from edged.feed import limits
from edged.feed.head import decode_head
from edged.feed.trust import cose
from edged.sync.audits import audit
from edged.sync.control import Control
from edged.sync.core import events
from edged.sync.core.content import check_content
from edged.sync.core.events import Effect, Event, Instant
from edged.sync.core.machine import Machine
from edged.sync.core.phase import Settings
from edged.sync.core.wear import WearBudget
from edged.sync.status import DatasetStatus, LastUpdate
from edged.sync.store import HeldLike, Staging, Writer, held_state
from edged.sync.transports.origins import Origins

T = TypeVar("T")
log = logging.getLogger("edged.sync")

COMPACT_BYTES = 8 << 20  # written by compaction after one update at most, so that wear and load are spread
TRUST_FILE_S = 300.0  # between attempts to use a trust file that cannot be used
ONCE_RESTS = 2  # how often `sync_once` waits and tries again when nothing can be reached
ONCE_REST_S = 5.0


class Source(Protocol):
    """What is needed of a dataset's configuration (config.DatasetConfig has it)."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> Sequence[str]: ...
    @property
    def trust(self) -> str: ...
    @property
    def slices(self) -> Sequence[str]: ...
    @property
    def seed(self) -> str: ...
    @property
    def poll_s(self) -> int: ...
    @property
    def require(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """What one synchronisation came to. error: why it is not where the origin's head wants it; None: it is."""

    dataset: str
    version: int
    before: int
    bytes_received: int
    bytes_sent: int
    error: EdgedError | None


async def run(
    source: Source,
    writer: Writer,
    status: DatasetStatus,
    *,
    clock: Clock,
    control: Control,
    device_id: str = "",
    wear: WearBudget | None = None,
    origins: Origins | None = None,
    moved: Callable[[], object] = lambda: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep the replica at the live version for ever. Started when what is held is known.

    wear: what merging may write a day; None: as much as it needs. origins: instead of those of the configuration.
    moved: called when there may be a new version to read. Where the trust file cannot be used, nothing is fetched and
    the status says why, until it can: what is held is still served. Raises ConfigError for an origin's URL, and
    whatever is unexpected.
    """
    async with origins or Origins.of(source.origin, source.seed, status.traffic) as found:
        note_held(await trio.to_thread.run_sync(writer.status), status, clock)
        task_status.started()
        while True:
            try:
                settings = settings_of(source, control.slices, found, device_id)
                with Shell(settings, found, writer, status, clock, control, wear=wear, moved=moved) as shell:
                    await shell.run()
            except (ConfigError, WireError, TrustError) as fault:
                status.last_error = " ".join(str(fault).split())
                log.error("%s: %s", source.name, status.last_error)
            with trio.move_on_after(TRUST_FILE_S):
                await control.event.wait()
            control.event = trio.Event()


async def sync_once(
    source: Source,
    writer: Writer,
    status: DatasetStatus,
    *,
    clock: Clock,
    device_id: str = "",
    origins: Origins | None = None,
    rests: int = ONCE_RESTS,
) -> SyncOutcome:
    """Bring the replica to the live version once, after an audit of what it holds: damage is fetched again too.

    origins: instead of those of the configuration, for a bundle; rests: how often to wait and try again where nothing
    can be had. Raises as `run` does; what the origin or its data are to blame for is in the outcome.
    """
    control = Control(source.slices)
    control.faults = (await audit(writer)).faults
    async with origins or Origins.of(source.origin, source.seed, status.traffic) as found:
        settings = settings_of(source, control.slices, found, device_id)
        with Shell(settings, found, writer, status, clock, control) as shell:
            error = await shell.until_settled(rests)
    return SyncOutcome(source.name, status.version, shell.before or 0, status.bytes_received, status.bytes_sent, error)


def settings_of(source: Source, slices: frozenset[str], origins: Origins, device_id: str) -> Settings:
    """Raises ConfigError if the trust file cannot be read."""
    try:
        with open(source.trust, "rb") as file:
            trust_file = file.read(limits.TRUST_BYTES + 1)
    except OSError as fault:
        raise ConfigError(
            f"read the trust file {source.trust} of {source.name}: {fault.strerror}; copy there the one that "
            "`edged origin init` printed"
        ) from fault
    return Settings(
        dataset=source.name,
        trust_file=trust_file,
        slices=slices,
        built_at=BUILD_TIME_S,
        origins=len(origins.transports),
        seed=origins.seed is not None,
        poll_s=float(source.poll_s),
        device_id=device_id,
        require=tuple(source.require),
    )


class Shell:
    """Carries out effects. A context manager: what is staged at its end is let go."""

    def __init__(
        self,
        settings: Settings,
        origins: Origins,
        writer: Writer,
        status: DatasetStatus,
        clock: Clock,
        control: Control,
        chance: Callable[[], float] = random.random,
        wear: WearBudget | None = None,
        moved: Callable[[], object] = lambda: None,
    ) -> None:
        self.machine = Machine(settings, chance)
        self.origins, self.writer, self.status, self.clock, self.control = origins, writer, status, clock, control
        self.wear = wear or WearBudget(0, 0.0)
        self.moved = moved
        self.broken: frozenset[str] = frozenset()  # slices that were damaged when last looked at
        self.staging: Staging | None = None
        self.lane = trio.CapacityLimiter(1)  # the writer is not made for two threads
        self.before: int | None = None  # the version that was held at first
        self.update_began = (0.0, 0, 0)
        self.trouble: EdgedError | None = None

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    # ---- driving the machine

    async def run(self) -> None:
        """For ever: hand what happened to the machine, do what it asks. Raises WireError or TrustError for the trust
        file."""
        event: Event = events.Started()
        while True:
            event = await self.perform_all(self.decide(event))

    def decide(self, event: Event) -> list[Effect]:
        effects = self.machine.handle(event, Instant(self.clock.source(), trio.current_time()))
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
            effects = self.decide(event)
            for effect in effects:
                if isinstance(effect, events.Tell):
                    self.tell(effect.news)
                    if isinstance(effect.news, events.Settled) and effect.news.origin != events.SEED:
                        return effect.news.fault
            effects = [effect for effect in effects if not isinstance(effect, events.Tell)]
            if isinstance(effects[-1], events.Rest):
                if not rests or (self.trouble is not None and self.trouble.recovery != "retry"):
                    return self.trouble
                rests -= 1
                effects[-1] = events.Rest(min(effects[-1].seconds, ONCE_REST_S))
            event = await self.perform_all(effects)

    # ---- effects

    async def perform(self, effect: Effect) -> Event | None:  # noqa: C901 - one flat list of cases
        match effect:
            case events.Load():
                return await self.load()
            case events.Poll():
                return await self.unless_nudged(lambda: self.poll(effect))
            case events.Rest(seconds):
                return await self.unless_nudged(lambda: rest(seconds))
            case events.FetchTrust(origin, number):
                data = await self.origins.at(origin).trust(number)
                return events.TrustMissing(number) if data is None else events.TrustArrived(number, data)
            case events.FetchBlob(origin, ref, what):
                return events.BlobArrived(ref, await self.origins.at(origin).blob(ref, what))
            case events.SaveRoots(data):
                await self.write(lambda: self.writer.set_roots(data))
            case events.CheckStaged(name):
                return events.PartsStaged(await self.write(lambda: self.open_staging().parts_on_disk(name)))
            case events.TakeStaged(name, ref):
                found = await self.write(lambda: self.open_staging().has_part(name, ref))
                return events.PartsStaged(frozenset([ref.sha256] if found else []))
            case events.Stage(action):
                await self.write(lambda: stage(self.open_staging(), action))
                return events.Staged()
            case events.Measure(name):
                return events.Measured(*await self.write(lambda: self.open_staging().digest(name)))
            case events.Commit():
                await self.write(lambda: self.commit(effect))
                return events.Committed()
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

    async def write(self, function: Callable[[], T]) -> T:
        """Blocking work on the replica, in a thread; never left half done by a cancellation."""
        return await trio.to_thread.run_sync(function, limiter=self.lane)

    async def unless_nudged(self, work: Callable[[], Awaitable[Event]]) -> Event:
        """`work()`, cut short by a nudge."""
        answer: Event | None = None
        error: EdgedError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch, nursery.cancel_scope)
            try:
                answer = await work()
            except EdgedError as fault:
                error = fault
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        if answer is None:
            self.control.event = trio.Event()
            return events.Nudged(self.control.slices)
        return answer

    async def watch(self, scope: trio.CancelScope) -> None:
        await self.control.event.wait()
        scope.cancel()

    async def poll(self, effect: events.Poll) -> Event:
        transport = self.origins.at(effect.origin)
        self.status.origin = transport.name
        before = self.status.bytes_received, self.status.bytes_sent
        reply = await transport.head(effect.after, effect.wait_s, effect.etag)
        self.status.connected = True
        try:
            await self.mend()  # nobody else looks at the live manifest until a program opens the replica
        except StoreError as fault:  # it says nothing about the origin
            self.note(fault)
        if reply is None:
            return events.HeadUnchanged()
        self.update_began = (trio.current_time(), *before)
        return events.HeadArrived(reply.data, reply.etag, reply.carries)

    async def load(self) -> Event:
        """What is held; before that, pins asked for and damage found, as no other write is open here."""
        await self.mend()
        requests, self.control.pins = self.control.pins, []
        for request in requests:
            try:
                self.refuse_unknown(request.version)
                await self.write(partial(self.writer.pin, request.version))
                self.status.pinned = request.version
            except (StoreError, RequestError) as fault:
                request.error = fault
            request.done.set()
        held = await self.write(self.writer.status)
        note_held(held, self.status, self.clock)
        broken = frozenset(name for name, item in held.slices.items() if item.damaged is not None)
        self.status.repairs += len((self.broken - broken) & held.slices.keys())
        self.broken = broken
        self.moved()
        if self.before is None:
            self.before = held.version
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

    def refuse_unknown(self, version: int | None) -> None:
        """Raises RequestError for a pin at a version that is not known of: most likely it is mistyped."""
        known = self.machine.floor
        if version is not None and known is not None and version > known.head.newest_version:
            raise RequestError(
                409,
                f"pin {self.status.dataset} at {version}: no such version yet, the newest one known is "
                f"{known.head.newest_version}; pin at one up to that",
            )

    # ---- the replica, within a thread

    def open_staging(self) -> Staging:
        if self.staging is None:
            self.staging = self.writer.stage()
        return self.staging

    def commit(self, effect: events.Commit) -> None:
        written = self.open_staging().commit(
            effect.version, effect.head, as_of=effect.as_of, fresh_s=effect.fresh_s, expires_s=effect.expires_s
        )
        self.staging = None
        self.wear.spend(written)
        allowed = self.wear.allowed(time.monotonic())
        if allowed is None or allowed > 0:  # else merging waits; updates never do
            self.wear.spend(self.writer.compact(COMPACT_BYTES if allowed is None else min(allowed, COMPACT_BYTES)))

    def abandon(self) -> None:
        """Let go of what is staged, except for snapshot parts on disk, with which the next attempt goes on."""
        staging, self.staging = self.staging, None
        if staging is not None:
            staging.drop()

    # ---- for whoever watches

    def tell(self, news: events.News) -> None:
        status, name = self.status, self.status.dataset
        match news:
            case events.Updated(version, before, kinds, hops, snapshots):
                began, received, sent = self.update_began
                status.hops_applied += hops
                status.snapshots_applied += snapshots
                status.last_update = LastUpdate(
                    version,
                    before,
                    kinds,
                    status.bytes_received - received,
                    status.bytes_sent - sent,
                    trio.current_time() - began,
                )
                log.info("%s: version %d to %d, %d bytes", name, before, version, status.last_update.bytes_received)
            case events.Settled(_, _, signed_at, fault):
                self.clock.seen(signed_at)
                self.note(fault)
            case events.Trouble(error):
                status.connected = status.connected and not isinstance(error, TransportError)
                self.trouble = error
                self.note(error)
            case events.Repairing(slice_name, error):
                status.repairs += 1
                log.warning("%s: slice %s is fetched anew from its snapshot: %s", name, slice_name, error)
            case _:
                assert_never(news)

    def note(self, error: EdgedError | None) -> None:
        """Keep `error` as the last one, and log it unless it was just logged."""
        text = None if error is None else " ".join(str(error).split())
        if text is not None and text != self.status.last_error:
            log.warning("%s: %s", self.status.dataset, text)
        self.status.last_error = text


async def rest(seconds: float) -> Event:
    await trio.sleep(seconds)
    return events.Woken()


def note_held(held: HeldLike, status: DatasetStatus, clock: Clock) -> None:
    """What the replica holds, for the status and for the clock that may be 1970."""
    status.version, status.pinned = held.version, held.pinned
    status.flash_bytes_written = held.flash_bytes_written
    status.slices = {name: item.version for name, item in held.slices.items()}
    status.as_of = held.last_signed_at
    if held.head is not None:
        document = decode_head(cose.open_sign1(held.head, "head as kept")[1])  # verified before it was kept
        status.fresh_s, status.expires_s = document.fresh_s, document.expires_s
        status.offered = None if document.offer is None else document.offer.version
    clock.seen(held.last_signed_at)


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
