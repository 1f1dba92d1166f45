"""What a device makes of offers: it takes those for its share, keeps what it took, and never goes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edged.errors import TrustError
from edged.feed.rollout import is_chosen
from edged.feed.trust import root as trust
from edged.origin.publisher import Publisher, PublishOptions
from edged.replica.audit import verify
from edged.replica.writer import Writer
from edged.sync.subscription import device_id
from edged.sync.task import SyncOutcome
from edged.sync.transports.file import FileTransport
from edged.sync.transports.transport import Traffic
from tests.sync.driving import held, sync
from tests.sync.simulator import NOW, Device

Run = Callable[[str], SyncOutcome]


class Bench:
    """A publisher, and a device that follows its files."""

    def __init__(self, tmp_path: Path) -> None:
        self.publisher = Publisher.init(tmp_path / "feed", clock=lambda: float(NOW))
        self.publisher.publish("catalog", [("titles", f"t{n}", {"n": n}) for n in range(5)])
        self.device = Device(tmp_path / "data", str(self.publisher.trust_path))

    def edit(self, value: int, permille: int | None = None) -> None:
        self.publisher.publish_changes("catalog", [("titles", "t0", {"n": value})], PublishOptions(permille=permille))

    async def sync(self, device_id: str) -> SyncOutcome:
        transport = FileTransport((self.publisher.public / "catalog").as_uri(), Traffic())
        return await sync(self.device, transport, device_id=device_id)

    def ids(self) -> tuple[str, str]:
        """A device id that the offer is for, and one that it is not for."""
        root = trust.read_root(self.publisher.trust_path.read_bytes(), "trust file")
        offer = trust.verify_head((self.publisher.public / "catalog" / "head").read_bytes(), root, "catalog").head.offer
        assert offer is not None
        names = list(map(str, range(200)))
        return next(name for name in names if is_chosen(offer, name)), next(
            name for name in names if not is_chosen(offer, name)
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_the_share_decides(bench: Bench) -> None:
    bench.edit(7, permille=500)
    chosen, other = bench.ids()
    assert (await bench.sync("")).version == 1
    assert (await bench.sync(other)).version == 1
    outcome = await bench.sync(chosen)
    assert (outcome.version, outcome.error) == (2, None)
    assert (await bench.sync(other)).version == 2  # with another id all of a sudden: it does not go back
    assert verify(bench.device.directory).faults == []


async def test_a_withdrawal_moves_both_on(bench: Bench) -> None:
    before = await bench.sync("")
    content = held(bench.device)
    bench.edit(7, permille=500)
    chosen, _ = bench.ids()
    assert (await bench.sync(chosen)).version == 2
    bench.publisher.withdraw("catalog")
    outcome = await bench.sync(chosen)
    assert (before.version, outcome.version, outcome.error) == (1, 3, None)
    assert held(bench.device) == content


async def test_a_takedown_reaches_who_has_not_taken_the_offer(bench: Bench) -> None:
    bench.edit(7, permille=500)
    _, other = bench.ids()
    assert (await bench.sync(other)).version == 1
    bench.publisher.takedown("catalog", "titles", ["t1"])
    assert (await bench.sync(other)).version == 3  # a stable version without it, below the offer
    with Writer.open(bench.device.directory, "catalog") as writer:
        settings = writer.live.settings()
        assert settings is not None
        assert ("titles", "t1") in settings.hidden


async def test_a_pinned_device_takes_no_offer(bench: Bench) -> None:
    await bench.sync("")
    with Writer.open(bench.device.directory, "catalog") as writer:
        writer.pin(1)
    bench.edit(7, permille=900)
    assert (await bench.sync(bench.ids()[0])).version == 1


async def test_rollback_by_a_head_that_forgets_what_it_offered(bench: Bench) -> None:
    path = bench.publisher.public / "catalog" / "head"
    stable = path.read_bytes()
    bench.edit(7, permille=500)
    chosen, other = bench.ids()
    offering = path.read_bytes()
    for name in (other, chosen):
        path.write_bytes(offering)
        await bench.sync(name)
        path.write_bytes(stable)
        outcome = await bench.sync(name)
        assert isinstance(outcome.error, TrustError)
        assert "rollback, version 2 has been seen" in str(outcome.error)


async def test_another_content_under_the_number_that_was_offered(bench: Bench, tmp_path: Path) -> None:
    bench.edit(7, permille=500)
    await bench.sync("")
    other = Publisher.init(tmp_path / "other", clock=lambda: float(NOW))
    for path in (other.private / "keys").iterdir():
        path.unlink()
    for folder in ("keys", "trust"):
        for path in (bench.publisher.private / folder).iterdir():
            copy = other.private / folder / path.name
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o600)
    other = Publisher.open(other.path, clock=lambda: float(NOW))
    other.publish("catalog", [("titles", f"t{n}", {"n": n}) for n in range(5)])
    other.publish_changes("catalog", [("titles", "t0", {"n": 8})])
    bench.publisher = other
    outcome = await bench.sync("")
    assert isinstance(outcome.error, TrustError)
    assert "not the content that was signed under this number" in str(outcome.error)


def test_a_device_is_known_by_its_configuration_or_its_machine_id_hashed(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    assert device_id("box 7", path) == "box 7"
    assert device_id("", path) == ""
    path.write_text("uninitialized\n")
    assert device_id("", path) == ""
    path.write_text("0123456789abcdef0123456789abcdef\n")
    found = device_id("", path)
    assert len(found) == 32
    assert "0123456789abcdef" not in found
    assert found == device_id("", path)
