"""Brings a device's replica up to date against simulated origins, and looks at what lies on its disk."""

from __future__ import annotations

from edged.replica.writer import Writer
from edged.sync.origins import Origins
from edged.sync.status import DatasetStatus
from edged.sync.task import SyncOutcome, sync_once
from edged.sync.transport import Transport
from tests.sync.simulator import Device, Feed, Origin, Records

NOT_CONTENT = {"lock", "counter"}  # the counter moves whenever a writer opens


async def sync(device: Device, *origins: Transport, seed: Transport | None = None) -> SyncOutcome:
    status = DatasetStatus(device.name)
    with Writer.open(device.directory, device.name) as writer:
        return await sync_once(device, writer, status, clock=device.clock(), origins=Origins(origins, seed))


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
        layers = writer.layers(slice_name)
        found: Records = {}
        for collection in layers.state.counts:
            for key in [entry[0] for entry in layers.scan(collection)]:
                value = layers.get(collection, key)
                assert value is not None
                found[collection, key] = value
        return found


def on_disk(device: Device) -> dict[str, bytes]:
    """Every file of the replica with its bytes. Verified parts of a snapshot under way are no state: nothing reads them."""
    root = device.directory / device.name
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in NOT_CONTENT and path.parent.name != "staging"
    }
