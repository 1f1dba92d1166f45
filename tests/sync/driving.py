"""Brings a device's replica up to date against simulated origins, and looks at what lies on its disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from edged.replica.writer import Writer
from edged.sync.control import Control
from edged.sync.status import DatasetStatus
from edged.sync.task import SyncOutcome, run, sync_once
from edged.sync.transports.origins import Origins
from edged.sync.transports.transport import Transport
from tests.sync.simulator import Device, Feed, Origin, Records

NOT_CONTENT = {"lock", "counter"}  # the counter moves whenever a writer opens


async def sync(device: Device, *origins: Transport, seed: Transport | None = None, device_id: str = "") -> SyncOutcome:
    status = DatasetStatus(device.name)
    with Writer.open(device.directory, device.name) as writer:
        return await sync_once(device.replication(writer, status, device_id=device_id), Origins(origins, seed))


async def first_sync(device: Device, feed: Feed) -> Origin:
    """A device that is up to date, and its origin."""
    origin = Origin(feed)
    outcome = await sync(device, origin)
    assert outcome.error is None
    assert outcome.version == feed.version
    origin.requests.clear()
    return origin


def held(device: Device, slice_name: str = "core") -> Records:
    """Everything that the slice holds on disk."""
    with Writer.open(device.directory, device.name) as writer:
        if slice_name not in writer.status().slices:
            return {}
        layers = writer.live.layers(slice_name)
        found: Records = {}
        for collection in layers.state.counts:
            for key in [entry[0] for entry in layers.scan(collection)]:
                value = layers.get(collection, key)
                assert value is not None
                found[collection, key] = value
        return found


def on_disk(device: Device) -> dict[str, bytes]:
    """Every file of the replica with its bytes. Parts of a snapshot under way are no state: nobody reads them."""
    root = device.directory / device.name
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in NOT_CONTENT and path.parent.name != "staging"
    }


@dataclass
class Running:
    """A synchronisation that goes on in the background."""

    status: DatasetStatus
    control: Control
    scope: trio.CancelScope

    async def until(self, version: int, within_s: float = 3600.0) -> None:
        """Wait (in the clock of the test) until `version` is held."""
        with trio.fail_after(within_s):
            while self.status.version != version:  # noqa: ASYNC110 - the status has no event, and needs none but here
                await trio.sleep(0.05)

    async def until_error(self, words: str, within_s: float = 3600.0) -> None:
        with trio.fail_after(within_s):
            while words not in (self.status.last_error or ""):  # noqa: ASYNC110
                await trio.sleep(0.05)


@asynccontextmanager
async def running(
    device: Device,
    *origins: Transport,
    seed: Transport | None = None,
    device_id: str = "",
    start_within_s: float = 0.0,
) -> AsyncIterator[Running]:
    """The device's sync task, ended at the end of the block."""
    status, control = DatasetStatus(device.name), Control()
    with Writer.open(device.directory, device.name) as writer:
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[None]) -> None:
                replication = device.replication(writer, status, control, device_id)
                replication.start_within_s = start_within_s
                await run(replication, Origins(origins, seed), task_status=task_status)

            await nursery.start(start)
            yield Running(status, control, nursery.cancel_scope)
            nursery.cancel_scope.cancel()
