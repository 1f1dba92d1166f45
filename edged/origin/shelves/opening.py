"""Where the public files of a feed lie, as feed.toml says."""

from __future__ import annotations

from pathlib import Path

from edged.origin.declared.feed import load_feed_rules
from edged.origin.shelves.directory import DirectoryShelves
from edged.origin.shelves.shelf import Shelves


def open_shelves(feed_dir: Path) -> Shelves:
    """Raises ConfigError for a feed.toml that is faulty, or credentials that are missing."""
    rules = load_feed_rules(feed_dir).public
    if not rules.store:
        return DirectoryShelves(feed_dir / "public")
    from edged.origin.shelves.s3 import S3Shelves  # brings an HTTP client, which a directory does without

    return S3Shelves(rules, feed_dir / "private" / "store.proved")
