"""What a reader looks at for something new: a counter in shared memory, or what stands in for it."""

from __future__ import annotations

import errno
import os
from time import monotonic
from typing import Any

from edged.clock import Clock
from edged.errors import StoreError
from edged.files import stamp_of
from edged.replica.files.disk import MANIFEST, VersionCounter

TRY_AGAIN = -2
RETRY_S = 1.0  # before the first attempt anew at a version that cannot be read
# Faults that pass: of a disk or a share, or for lack of memory or descriptors.
PASSING = frozenset({errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EAGAIN, errno.ENOTCONN})


class RetryWatch:
    """Stands in for the counter while the newest version cannot be read, which may pass: time moves it too."""

    def __init__(self, counter: Any, seen: int, pause_s: float) -> None:
        self.counter, self.seen = counter, seen
        self.due = monotonic() + pause_s

    def __getitem__(self, place: int) -> int:
        found: int = self.counter[place]
        return found if found != self.seen or monotonic() < self.due else TRY_AGAIN


class TimeWatch:
    """Stands in for the counter until a second at which records come or go: then it has moved too."""

    def __init__(self, watched: Any, seen: int, due: float, clock: Clock) -> None:
        """watched: the counter, or what stands in for it, which says `seen` as long as nothing is new."""
        self.watched, self.seen, self.due, self.trusted = watched, seen, due, clock.trusted
        self.began = clock.trusted()  # below which it is only once a wrong clock was set right

    def __getitem__(self, place: int) -> int:
        found: int = self.watched[place]
        return found if found != self.seen or self.began <= self.trusted() < self.due else TRY_AGAIN


class ManifestWatch:
    """Stands in for the counter where there is none (a copied or read-only replica): the manifest file's identity."""

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, MANIFEST)

    def __getitem__(self, place: int) -> int:
        try:
            stamp = stamp_of(self.path)
        except OSError:  # of which loading the manifest tells more
            stamp = None
        return 0 if stamp is None else hash(stamp)


def may_pass(fault: BaseException | None) -> bool:
    """Whether what cannot be read now may be readable in a moment, without anybody mending it."""
    return fault is not None and isinstance(fault.__cause__, OSError) and fault.__cause__.errno in PASSING


def watch(root: str) -> tuple[Any, int]:
    """What to look at for a new version, and its inode: shared memory, or the manifest's identity without a counter."""
    try:
        counter = VersionCounter(root)
    except FileNotFoundError:
        return ManifestWatch(root), 0
    except OSError as fault:
        if fault.errno in PASSING:
            return ManifestWatch(root), 0
        raise StoreError(f"open {root}: {fault.strerror}; give this user the right to read there") from fault
    return counter.cell, counter.inode
