"""Skip hops and snapshots while versions come in a row: made beside them, by a process of its own and within a share.

python -m edged.cli.publishing.caretaking FEED_DIR DATASET    makes what is due; run by `publish --follow`
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from edged.errors import EdgedError
from edged.ops.logs import one_line
from edged.origin.publisher import Publisher

ROW_S = 5.0  # versions that come sooner after another are in a row
CARE_SHARE = 0.05  # of one core, for what versions in a row do not wait for


class Caretaker:
    """Where versions come in a row a process beside them makes what they do not wait for, and takes a small share of
    one core for it. In quieter times the publisher does it itself once a version is live, as it always does.
    """

    def __init__(self, publisher: Publisher, dataset: str) -> None:
        self.publisher, self.dataset = publisher, dataset
        self.child: subprocess.Popen[bytes] | None = None
        self.due = time.monotonic() + ROW_S
        self.last = 0.0
        self.owing = False

    def after_version(self, *, is_busy: bool) -> None:
        """is_busy: more edits are there already. Raises EdgedError."""
        now = time.monotonic()
        in_a_row, self.last, self.owing = is_busy or now < self.last + ROW_S, now, True
        if self.child is not None or in_a_row:
            self.look(now)
        else:
            self.work()

    def look(self, now: float) -> None:
        if self.child is not None:
            ended, status, used = os.wait4(self.child.pid, os.WNOHANG)
            if ended:
                self.child.returncode = os.waitstatus_to_exitcode(status)
                self.child, self.due = None, now + (used.ru_utime + used.ru_stime) / CARE_SHARE
        elif now > self.due:
            words = [sys.executable, "-m", __name__, str(self.publisher.path), self.dataset]
            self.child, self.owing = subprocess.Popen(words, stdin=subprocess.DEVNULL), False

    def work(self) -> None:
        self.publisher.keep_up(self.dataset)
        self.owing, self.last = False, time.monotonic()

    def end(self, *, cut_short: bool) -> None:
        """cut_short: what is due is left to the next operation, or to `origin serve`. Raises EdgedError."""
        if self.child is not None:
            if cut_short:
                self.child.terminate()  # what it has not put in place is undone
            self.child.wait()
            self.child = None
        if self.owing and not cut_short:
            self.work()


def main() -> None:
    feed, dataset = sys.argv[1:]
    try:
        Publisher.open(Path(feed)).keep_up(dataset)
    except EdgedError as fault:
        sys.exit(f"edged: {one_line(str(fault))}")


if __name__ == "__main__":
    main()
