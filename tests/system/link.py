"""A bad line between two network namespaces: every packet goes through here, late, slowly, or not at all.

Both ends are TUN devices, so that nothing but the kernel's namespaces and /dev/net/tun is needed. Needs root.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
QUEUE_BYTES = 64 << 10  # that wait for a slow line, in each direction; then packets are lost
MTU = 1400
HERE, THERE = "10.83.0.1", "10.83.0.2"
HERE6, THERE6 = "fd83::1", "fd83::2"


def may_make_links() -> bool:
    """Whether namespaces and TUN devices can be made."""
    if os.geteuid() or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return False
    name = f"edged-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if made:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made


@dataclass
class Side:
    """One end. waiting: packets that the line has not taken; held: those under way, by when they arrive."""

    space: str
    device: int
    waiting: deque[bytes] = field(default_factory=deque)
    waiting_bytes: int = 0
    free_at: float = 0.0
    held: list[tuple[float, int, bytes]] = field(default_factory=list)


@dataclass
class Link:
    """delay_s: one way; loss: of packets, each for itself; rate: bytes a second each way, 0 for any. up: whether
    anything passes. passed: bytes that have arrived, by the end at which they did.
    """

    delay_s: float = 0.0
    loss: float = 0.0
    rate: int = 0
    up: bool = True
    spaces: tuple[str, str] = ("", "")
    passed: list[int] = field(default_factory=lambda: [0, 0])
    chance: random.Random = field(default_factory=lambda: random.Random(83))
    sides: list[Side] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def command(self, end: int, *words: str) -> list[str]:
        """words, run at one end: 0 is where origins are, 1 where the device is."""
        return ["ip", "netns", "exec", self.spaces[end], *words]

    def forward(self) -> None:
        """Until it is to stop."""
        poll = select.poll()
        for side in self.sides:
            poll.register(side.device, select.POLLIN)
        ends = {side.device: number for number, side in enumerate(self.sides)}
        count = 0
        while not self.stopping.is_set():
            now = time.monotonic()
            wait_s = min([0.05, *(side.held[0][0] - now for side in self.sides if side.held)])
            for device, _ in poll.poll(max(0, int(wait_s * 1000))):
                packet = os.read(device, 65536)
                side = self.sides[1 - ends[device]]
                lost = not self.up or self.chance.random() < self.loss
                if not lost and side.waiting_bytes + len(packet) <= QUEUE_BYTES:
                    side.waiting.append(packet)
                    side.waiting_bytes += len(packet)
            now = time.monotonic()
            for number, side in enumerate(self.sides):
                while side.waiting and side.free_at <= now:
                    packet = side.waiting.popleft()
                    side.waiting_bytes -= len(packet)
                    if self.rate:
                        side.free_at = max(side.free_at, now - 0.01) + len(packet) / self.rate
                    count += 1
                    heapq.heappush(side.held, (now + self.delay_s, count, packet))
                while side.held and side.held[0][0] <= now:
                    _, _, packet = heapq.heappop(side.held)
                    if self.up:
                        self.passed[number] += len(packet)
                        os.write(side.device, packet)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def open_end(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def set_up(space: str, name: str, addresses: Sequence[str]) -> None:
    ip("link", "set", name, "netns", space)
    for address in addresses:
        more = ["nodad"] if ":" in address else []
        ip("-n", space, "addr", "add", address, "dev", name, *more)
    ip("-n", space, "link", "set", name, "mtu", str(MTU), "up")
    ip("-n", space, "link", "set", "lo", "up")


@contextmanager
def linked(*, v4: bool = True) -> Iterator[Link]:
    """Two namespaces with a line between them, and nothing else. v4: whether they have addresses of IPv4 too."""
    names = [f"edged-{os.getpid()}-{end}" for end in "ab"]
    devices: list[int] = []
    link = Link(spaces=(names[0], names[1]))
    thread = threading.Thread(target=link.forward, daemon=True)
    try:
        for number, (space, four, six) in enumerate(zip(names, (HERE, THERE), (HERE6, THERE6), strict=True)):
            ip("netns", "add", space)
            name = f"ed{os.getpid() % 100_000}{number}"
            devices.append(open_end(name))
            set_up(space, name, [f"{six}/64", *([f"{four}/24"] if v4 else [])])
            link.sides.append(Side(space, devices[-1]))
        thread.start()
        yield link
    finally:
        link.stopping.set()
        if thread.is_alive():
            thread.join(5)
        for device in devices:
            os.close(device)
        for space in names:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
