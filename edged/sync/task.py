"""The trio task of one dataset: for the daemon (`run`), once (`sync_once`), or from a bundle (`import_bundle`)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import trio

from edged.clock import BUILD_TIME_S, Clock
from edged.errors import ConfigError, EdgedError, TransportError, TrustError, WireError
from edged.feed import limits
from edged.replica.writer import Writer
from edged.sync.announced import listen
from edged.sync.audits import audit
from edged.sync.core.events import MachineSettings
from edged.sync.replication import Replication, one_line
from edged.sync.shell import Shell
from edged.sync.status import DatasetStatus
from edged.sync.subscription import Subscription
from edged.sync.transports.bundle import BundleTransport
from edged.sync.transports.origins import Origins
from edged.units import span_text

log = logging.getLogger("edged.sync")

TRUST_FILE_S = 300.0  # between attempts to use a trust file, or certificates, that cannot be used
ONCE_RESTS = 2  # how often `sync_once` waits and tries again when nothing can be reached
STATE_S = 600.0  # the state is looked at so often at least: the clock may be set meanwhile


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
    replication: Replication,
    origins: Origins | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep the replica at the live version for ever. Started when what is held is known.

    origins: instead of those of the subscription. Where the trust file, an origin's URL or its certificates cannot be
    used, nothing is fetched and the status says why, until they can: what is held is still served. Raises only what
    is unexpected.
    """
    subscription, status, control = replication.subscription, replication.status, replication.control
    async with trio.open_nursery() as nursery:
        replication.note_held(await replication.write(replication.writer.status))
        control.keep_pin = replication.pin
        task_status.started()
        nursery.start_soon(log_states, replication)
        if subscription.broker is not None:
            nursery.start_soon(listen, replication, subscription.broker)
        while True:
            try:
                async with origins or Origins.of(subscription, status.traffic) as found:
                    settings = settings_of(subscription, found, start_within_s=replication.start_within_s)
                    with Shell(settings, found, replication) as shell:
                        await shell.run()
            except (ConfigError, TransportError, WireError, TrustError) as fault:
                if status.last_error != one_line(fault):
                    log.error("%s: %s", subscription.dataset, one_line(fault))
                status.last_error = one_line(fault)
            with trio.move_on_after(TRUST_FILE_S):
                await control.nudged.wait()
            control.taken()


async def log_states(replication: Replication) -> None:
    """Say it once when what is held turns stale, expires, or is fresh again."""
    status, before = replication.status, ""
    while True:
        now_s = replication.clock()
        state, age = status.state(now_s), span_text(max(now_s - status.as_of, 0))
        if state in ("stale", "expired") and state != before:
            log.warning("%s: %s: the newest head was signed %s ago; it is served on", status.dataset, state, age)
        elif state == "fresh" and before in ("stale", "expired"):
            log.info("%s: fresh again, signed %s ago", status.dataset, age)
        before = state
        left_s = min((end_s for end_s in status.ends_s(now_s) if end_s > 0), default=math.inf)
        with trio.move_on_after(min(left_s + 1, STATE_S)):
            await status.wait_changed()


async def sync_once(
    replication: Replication, origins: Origins | None = None, *, rests: int = ONCE_RESTS
) -> SyncOutcome:
    """Bring the replica to the live version once, after an audit of what it holds: damage is fetched again too.

    All origins are asked. origins: instead of those of the subscription, for a bundle; rests: how often to wait and
    try again where nothing can be had. Raises as `run` does; what the origin or its data are to blame for is in the
    outcome, and so is that nothing was had at all.
    """
    subscription, status = replication.subscription, replication.status
    replication.control.faults = (await audit(replication.writer)).faults
    async with origins or Origins.of(subscription, status.traffic) as found:
        with Shell(settings_of(subscription, found, thorough=True), found, replication) as shell:
            error = await shell.until_settled(rests)
    if error is None and not status.version:
        error = TransportError(
            f"sync {subscription.dataset}: no origin gave a version of it; is the URL the feed's base, and was "
            "anything published there?"
        )
    return SyncOutcome(
        subscription.dataset, status.version, shell.before or 0, status.bytes_received, status.bytes_sent, error
    )


async def import_bundle(data_dir: Path, bundle: Path, trust_file: Path) -> SyncOutcome:
    """Bring the replica below `data_dir` to the bundle's version, or make it, judging it like any origin.

    A replica keeps the slices that it has and gets those of the bundle. What is refused is in the outcome; raises
    ConfigError, WireError or TrustError for the trust file, MissingError, TransportError or WireError for a file that
    is no bundle, BusyError while a daemon is running on the same directory.
    """
    status = DatasetStatus("")
    transport = BundleTransport(bundle, status.traffic)
    described = transport.open().bundle
    status.dataset = described.dataset
    with Writer.open(data_dir, described.dataset) as writer:
        carried = described.slices | writer.status().slices.keys()
        subscription = Subscription(described.dataset, (), str(trust_file), tuple(sorted(carried)))
        return await sync_once(Replication(subscription, writer, status, Clock()), Origins([transport]), rests=0)


def settings_of(
    subscription: Subscription, origins: Origins, *, start_within_s: float = 0.0, thorough: bool = False
) -> MachineSettings:
    """Raises ConfigError if the trust file cannot be read."""
    try:
        with open(subscription.trust, "rb") as file:
            trust_file = file.read(limits.TRUST_BYTES + 1)
    except OSError as fault:
        raise ConfigError(
            f"read the trust file {subscription.trust} of {subscription.dataset}: {fault.strerror}; what is held is "
            "served on and nothing is synced; copy there the file that `edged origin init` printed"
        ) from fault
    return MachineSettings(
        dataset=subscription.dataset,
        trust_file=trust_file,
        slices=frozenset(subscription.slices),
        built_at=BUILD_TIME_S,
        origins=len(origins.transports),
        seed=origins.seed is not None,
        poll_s=float(subscription.poll_s),
        device_id=subscription.device_id,
        require=subscription.require,
        start_within_s=start_within_s if subscription.device_id else 0.0,
        thorough=thorough,
    )
