"""edged keeps a local replica of streaming metadata on the device and serves it to apps, online or not.

The way of a record, each package a station that it passes once:

    origin   publishes: difference, validation, slices, blobs, the signed head
    feed     what travels, without I/O: head, trust, hop, snapshot, digest, plan, limits
    sync     fetches, verifies, hands over: a machine without I/O and the trio task that feeds it
    replica  what lies on disk: immutable packs, a manifest swapped by rename, readers, one writer
    serve    answers apps: routes, queries, views, changes, and further processes that do the same

Beside it stand http (a server that knows no dataset, under whatever answers), proxy (services that are fetched, not
synced), access (who asks) and ops (systemd, metrics, logs, the admin listener). cli holds one file a command group,
demo the made-up catalogue; daemon.py the nurseries and nothing else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.replica.reader import Replica

__all__ = ["open"]


def open(data_dir: str | os.PathLike[str]) -> Replica:
    """The replicas below `data_dir`, read in place: a context manager and a mapping of datasets by name.

    Needs neither a daemon nor a network, and writes nothing. Raises StoreError if the directory cannot be read.
    """
    from edged.replica.reader import Replica  # here, so that the commands that read nothing do not load the reader

    return Replica(data_dir)


def __dir__() -> list[str]:
    """What is public: docs/python.md describes it."""
    return __all__
