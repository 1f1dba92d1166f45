"""What systemd wants to hear (sd_notify(3)): ready, stopping, status, and the watchdog's ping."""

from __future__ import annotations

import os
import socket


class Notifier:
    """The service manager's socket. With an empty address nothing is sent: edged was not started by systemd.

    One socket is kept from the start, so that a ping takes no descriptor: a process that has run out of them is busy,
    and need not be killed for it. watchdog_s: within which a ping is expected, None: none is.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.target = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self.channel: socket.socket | None = None
        self.open()

    @classmethod
    def from_environment(cls) -> Notifier:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        wanted = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog = int(wanted) / 1e6 if wanted.isdigit() and int(wanted) > 0 and ours else None
        return cls(os.environ.get("NOTIFY_SOCKET", ""), watchdog)

    def open(self) -> None:
        """Without a descriptor for it now, it is tried again at the next message."""
        if self.target and self.channel is None:
            try:
                self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self.channel.setblocking(False)
            except OSError:
                self.channel = None

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def send(self, *lines: str) -> None:
        """Send assignments such as "READY=1". A manager that went away is not our failure: OSError is passed over."""
        self.open()
        if self.channel is not None:
            try:
                self.channel.sendto("\n".join(lines).encode(), self.target)
            except OSError:
                return

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        self.send("STOPPING=1")

    def alive(self) -> None:
        self.send("WATCHDOG=1")
