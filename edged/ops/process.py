"""What the kernel says of this process, by the names that Prometheus' client libraries use."""

from __future__ import annotations

import os
import resource
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
STARTED = 21  # field 22 of /proc/self/stat (proc(5)), counted from 0


def resident_bytes() -> int:
    """Resident memory; 0 where the kernel does not say, or no descriptor is left to ask it with."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def cpu_seconds() -> float:
    """User and system time of all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def open_descriptors() -> int:
    """0 where no descriptor is left to count them with."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them
    except OSError:
        return 0


def most_descriptors() -> float:
    """The limit that a file, socket or pipe is refused at."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)


def start_time_s() -> float:
    """When the process began, seconds since 1970, 0 where the kernel does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, StopIteration):
        return 0.0
    return int(boot.split()[1]) + int(fields[STARTED - 2]) / TICKS_A_SECOND
