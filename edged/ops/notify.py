"""What systemd wants to hear (sd_notify(3)): ready, stopping, status, and the watchdog's ping."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notifier:
    """The service manager's socket. With an empty address nothing is sent: edged was not started by systemd."""

    address: str = ""
    watchdog_s: float | None = None

    @classmethod
    def from_environment(cls) -> Notifier:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        wanted = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog = int(wanted) / 1e6 if wanted.isdigit() and int(wanted) > 0 and ours else None
        return cls(os.environ.get("NOTIFY_SOCKET", ""), watchdog)

    def send(self, *lines: str) -> None:
        """Send assignments such as "READY=1". A manager that went away is not our failure: OSError is passed over."""
        if not self.address:
            return
        target = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                channel.sendto("\n".join(lines).encode(), target)
            except OSError:
                return

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        self.send("STOPPING=1")

    def alive(self) -> None:
        self.send("WATCHDOG=1")
