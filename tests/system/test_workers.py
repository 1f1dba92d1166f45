"""Several serving processes on one port."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
from pathlib import Path

from tests.system.programs import Device, Origin, Running, edged, get, running, titles


def free_port() -> int:
    """A port that nobody has now; SO_REUSEPORT needs it by number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def metric(admin: str, name: str) -> float:
    """Summed over its labels."""
    lines = get(f"{admin}/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[{{ ]", line))


def children_of(pid: int) -> list[int]:
    """Of all its threads."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(lists).split()]


def test_workers_share_the_port_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(50))
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    edged("sync", "--config", config)
    port = free_port()
    config.write_text(
        config.read_text().replace(
            '[serve]\nbind = ["127.0.0.1:0"]', f'[serve]\nworkers = 3\nbind = ["127.0.0.1:{port}"]'
        )
    )
    with running("run", "--config", config) as program:
        apps = program.wait_for(r"serving apps.*?(http://127\.0\.0\.1:\d+)")[1]
        admin = program.wait_for(r"serving operators.*?(http://127\.0\.0\.1:\d+)")[1]
        daemon = Running(program, apps, admin, "catalog")
        daemon.wait_status(lambda status: status["connected"])
        workers = children_of(program.process.pid)
        assert len(workers) == 2
        for _ in range(60):
            assert daemon.record(titles()[1]["key"]).json == titles()[1]["value"]
        served = daemon.wait_document(lambda document: document["requests_served"] >= 60)
        one = int(Path(f"/proc/{program.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()
        assert served["memory_bytes"] > 1.5 * one  # of all three
        assert metric(admin, "edged_requests_total") >= 60
        assert metric(admin, "edged_memory_bytes") > 1.5 * metric(admin, "process_resident_memory_bytes") > 0
        os.kill(workers[0], signal.SIGKILL)
        program.wait_for("serving process ended")
        while len(children_of(program.process.pid)) < 2:
            assert daemon.record(titles()[1]["key"]).status == 200
        assert program.stop() == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_workers_belong_to_one_daemon_and_do_not_outlive_it(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "edged.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{tmp_path}/device"\n[serve]\nworkers = 2\nbind = ["127.0.0.1:{port}"]\n'
        '[admin]\nbind = ["127.0.0.1:0"]\n'
    )
    with running("run", "--config", config) as program:
        program.wait_for("serving operators")
        second = tmp_path / "second.toml"
        second.write_text(config.read_text().replace(f"{tmp_path}/device", f"{tmp_path}/other"))
        refused = edged("run", "--config", second, code=2)  # shared ports are for one daemon's processes
        assert f"listen on 127.0.0.1:{port}: " in refused.stderr
        while not (workers := children_of(program.process.pid)):
            pass
        program.kill()
        left = Path(f"/proc/{workers[0]}/stat")
        while left.exists() and left.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            pass
