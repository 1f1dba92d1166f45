"""Mutated HTTP/1.1 and HTTP/2 for EDGED_FUZZ_SECONDS (20 if it is not set): alive, right, and nothing leaks."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.http.mutations import KINDS, mutated
from tests.system.programs import DEADLINE_S, Device, Origin, Running, edged, titles

SECONDS = float(os.environ.get("EDGED_FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("EDGED_FUZZ_SEED", str(random.getrandbits(32))))
OPEN = 40  # hostile connections at a time
ROUND = 200  # connections between two looks at the daemon
MORE_MIB = 90  # beyond what it holds after the first rounds: its memories of answers and values may have 44 of it
HELD_S = 140  # two answers held for 60 s, one behind the other: that the peer has gone shows when the second is written
RESET = struct.pack("ii", 1, 0)


def descriptors(pid: int, kind: str) -> int:
    """Open files of a kind; a mapped pack may come and go with merging."""
    count = 0
    for file in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/{pid}/fd/{file}").startswith(kind)
    return count


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def strike(port: int, chance: random.Random) -> socket.socket:
    """One hostile connection, left open in one of several states."""
    data = mutated(chance.choice(KINDS)(chance), chance)
    hostile = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    hostile.setblocking(False)
    with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        cut = chance.choice([len(data), len(data), chance.randrange(len(data) + 1)])
        hostile.send(data[:cut])
        if chance.random() < 0.3:
            hostile.recv(chance.choice([1, 1 << 16]))
        hostile.send(data[cut:])
    return hostile


def leave(hostile: socket.socket, chance: random.Random) -> None:
    """Close in order, half-way or by a reset; some read first."""
    with suppress(OSError):
        match chance.randrange(4):
            case 0:
                hostile.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            case 1:
                hostile.shutdown(socket.SHUT_WR)
            case 2:
                hostile.recv(1 << 18)
    hostile.close()


def close_all(hostile: deque[socket.socket]) -> None:
    for one in hostile:
        one.close()


def look(daemon: Running, chance: random.Random) -> None:
    """A guest like any other still gets the right answer, once there is a place for it."""
    record = chance.choice(titles(60))
    deadline = time.monotonic() + DEADLINE_S
    while True:
        answer = daemon.record(record["key"], X_Number=str(chance.getrandbits(32)))
        if answer.status != 503:
            break
        assert time.monotonic() < deadline, daemon.program.lines[-5:]
        time.sleep(0.01)
    assert (answer.status, answer.json) == (200, record["value"])


@pytest.mark.slow
def test_mutated_requests_and_frames_neither_end_the_daemon_nor_stay_in_it(tmp_path: Path) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(60))
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    edged("sync", "--config", config)
    chance = random.Random(SEED)
    print(f"EDGED_FUZZ_SEED={SEED}")
    with ExitStack() as stack:
        daemon = stack.enter_context(device.running(config))
        daemon.wait_status(lambda status: status["connected"])
        pid, port = daemon.program.process.pid, urlsplit(daemon.apps).port or 0
        look(daemon, chance)
        before, held, struck = descriptors(pid, "socket:"), 0.0, 0
        until = time.monotonic() + SECONDS
        hostile: deque[socket.socket] = deque()
        stack.callback(close_all, hostile)
        while time.monotonic() < until:
            for _ in range(ROUND):
                hostile.append(strike(port, chance))
                if len(hostile) > OPEN:
                    leave(hostile.popleft(), chance)
            look(daemon, chance)
            daemon.program.read(0)
            struck += ROUND
            if struck == 5 * ROUND:  # caches are filled, modules loaded
                held = resident_mib(pid)
        while hostile:
            leave(hostile.popleft(), chance)
        deadline = time.monotonic() + HELD_S
        while (left := descriptors(pid, "socket:")) > before:
            assert time.monotonic() < deadline, f"{left} sockets, {before} before; seed {SEED}"
            time.sleep(0.05)
        look(daemon, chance)
        assert struck >= 10 * ROUND
        ended = resident_mib(pid)
        assert ended < held + MORE_MIB, f"{held:.0f} MiB grew to {ended:.0f}; seed {SEED}"
        assert daemon.program.stop() == 0
        said = daemon.program.lines
        faults = [place for place, line in enumerate(said) if "contained" in line or "failed" in line]
        assert not faults, f"seed {SEED}, {len(faults)} faults, the first:\n" + "\n".join(said[faults[0] :][:60])
        print(f"{struck} connections; {held:.0f} MiB, at the end {ended:.0f}")
