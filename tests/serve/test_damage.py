"""Flash that forgets while edged runs: 503 or the right bytes, never others, and the slice is fetched anew."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

import edged
from edged.errors import DamageError
from edged.http.application import Response, Stream
from edged.replica.files.disk import PACKS
from edged.replica.files.manifest import file_name
from edged.serve.answers.respond import Service
from edged.serve.damage import DamageReports
from tests.serve.asking import ask, ask_any, make_service
from tests.serve.memory import MemoryView, make_dataset
from tests.system.programs import DEADLINE_S, Device, Origin, titles
from tests.system.programs import edged as command


def service_that_tells() -> tuple[Service, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    plain = make_service({"catalog": make_dataset()})
    reports = DamageReports(lambda dataset, fault: told.append((dataset, fault.slice_name)))
    return replace(plain, damage=reports), told


def damaged(*args: object) -> bytes:
    fault = DamageError("read pack 7: the checksum does not hold; fetch its slice again")
    fault.slice_name = "region-br"
    raise fault


def test_damage_is_told_once_for_each_view_and_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    service, told = service_that_tells()
    monkeypatch.setattr(MemoryView, "get_raw", damaged)
    for _ in range(3):
        found = ask(service, "/v1/catalog/titles/1997/Film_0007")
        assert found.status == 503
        assert not found.keep
    assert told == [("catalog", "region-br")]
    service.catalog["catalog"].publish("titles", {"a": {}})  # type: ignore[attr-defined]
    assert ask(service, "/v1/catalog/titles/1997/Film_0007").status == 503
    assert told == [("catalog", "region-br")] * 2


def test_damage_in_the_middle_of_a_stream_is_told_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    service, told = service_that_tells()
    found = ask_any(service, "/v1/catalog/changes?since=1", {"Accept": "text/event-stream"})
    assert isinstance(found, Stream)
    monkeypatch.setattr(MemoryView, "changes", damaged)
    with pytest.raises(DamageError):
        list(found.pieces)
    assert told == [("catalog", "region-br")]


def test_an_unreadable_manifest_is_told_although_no_slice_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    service, told = service_that_tells()
    monkeypatch.setattr(service.catalog["catalog"], "view", lambda: (_ for _ in ()).throw(DamageError("manifest")))
    found = ask_any(service, "/v1/catalog/titles/1997/Film_0007")
    assert isinstance(found, Response)
    assert found.status == 503
    assert told == [("catalog", "")]


def flip(data_dir: Path, key: str) -> None:
    """One bit in the middle of a record's frame, in the file that a daemon has mapped."""
    with edged.open(data_dir) as replica:
        place = replica["catalog"].view().by_slice["core"].locate("titles", key)
        assert place is not None
        pack, number = place
        _, begin, end = pack.entry(number)
        path = data_dir / "catalog" / PACKS / file_name(pack.number)
    with open(path, "r+b") as file:
        file.seek((begin + end) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("warm", [False, True])
def test_a_bit_that_flips_under_a_running_daemon_is_never_served_and_mended_without_a_restart(
    tmp_path: Path, warm: bool
) -> None:
    origin = Origin.make(tmp_path)
    records = titles(60)
    origin.publish(records)
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    command("sync", "--config", config)
    with device.running(config) as daemon:
        daemon.wait_status(lambda status: status["connected"])
        if warm:  # pages are checked and neighbours remembered
            assert all(daemon.record(record["key"]).status == 200 for record in records[1::2])
        for record in records[:3:2]:  # damaged again after the first repair
            flip(device.data_dir, record["key"])
            seen: list[int] = []
            deadline = time.monotonic() + DEADLINE_S
            while not seen or seen[-1] != 200:
                assert time.monotonic() < deadline, daemon.program.lines
                answer = daemon.record(record["key"], X_Number=str(len(seen)))  # not one that is remembered
                assert answer.status == 503 or answer.json == record["value"]
                seen.append(answer.status)
            assert seen[0] == 503
        daemon.wait_status(lambda status: status["snapshots_applied"] == 2)  # counted after what it has mended is seen
        for record in records:
            assert daemon.record(record["key"]).json == record["value"]
        assert daemon.program.stop() == 0
    assert command("verify", device.data_dir).returncode == 0
