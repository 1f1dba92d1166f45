"""What of a configuration that was read anew can be put to use at once, and what takes a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from edged.config import Config, DatasetConfig

# What Daemon.reload puts to use; certificates are read anew by themselves when their files change.
AT_ONCE = frozenset({"daemon.log_level", "daemon.audit_s", "daemon.flash_budget", "apps"})


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """Between two configurations. changed, added: datasets as they are to be; removed: their names; keys: that are put
    to use at once; restart: that take a restart."""

    changed: tuple[DatasetConfig, ...]
    added: tuple[DatasetConfig, ...]
    removed: tuple[str, ...]
    keys: tuple[str, ...]
    restart: tuple[str, ...]

    @property
    def applied(self) -> tuple[str, ...]:
        """In words, for the log."""
        return (
            *self.keys,
            *(f"dataset {item.name}" for item in self.changed),
            *(f"new dataset {item.name}" for item in self.added),
            *(f"dataset {name} removed" for name in self.removed),
        )


def changes_between(old: Config, new: Config) -> ConfigChanges:
    """Further serving processes have read the old datasets, so where there are any, another set takes a restart."""
    before, after = ({item.name: item for item in config.datasets} for config in (old, new))
    differing = list(differing_keys(old, new))
    added = [item for name, item in after.items() if name not in before]
    removed = [name for name in before if name not in after]
    restart = [key for key in differing if key not in AT_ONCE]
    if old.serve.workers > 1 and (added or removed):
        restart += [f"datasets {name}" for name in (*(item.name for item in added), *removed)]
        added, removed = [], []
    restart += [f"datasets {name}.memory" for name, item in after.items() if moves(before.get(name), item)]
    staying = [
        structs.replace(item, memory=before[name].memory) for name, item in after.items() if name in before
    ]  # where a replica lies is settled at the start
    return ConfigChanges(
        tuple(item for item in staying if before[item.name] != item),
        tuple(added),
        tuple(removed),
        tuple(key for key in differing if key in AT_ONCE),
        tuple(restart),
    )


def moves(before: DatasetConfig | None, after: DatasetConfig) -> bool:
    """Whether a replica is to lie elsewhere: in memory or not."""
    return before is not None and before.memory != after.memory


def differing_keys(old: Config, new: Config) -> Iterator[str]:
    """section.key of all that differs, but for the datasets."""
    for section in Config.__struct_fields__:
        mine, theirs = getattr(old, section), getattr(new, section)
        if section != "datasets" and mine != theirs:
            if isinstance(mine, msgspec.Struct):
                yield from (f"{section}.{name}" for name in fields_that_differ(mine, theirs))
            else:
                yield section


def fields_that_differ(mine: Any, theirs: Any) -> list[str]:
    return [name for name in mine.__struct_fields__ if getattr(mine, name) != getattr(theirs, name)]


def applied_to(old: Config, new: Config, changes: ConfigChanges) -> Config:
    """The configuration that is in force after `changes`: what takes a restart stays as it was."""
    names = {item.name for item in (*changes.changed, *changes.added)}
    kept = [item for item in old.datasets if item.name not in names and item.name not in changes.removed]
    names_at_once = [key.removeprefix("daemon.") for key in changes.keys if key.startswith("daemon.")]
    at_once = {name: getattr(new.daemon, name) for name in names_at_once}
    return msgspec.structs.replace(
        old,
        datasets=[*kept, *changes.changed, *changes.added],
        apps=new.apps,
        daemon=msgspec.structs.replace(old.daemon, **at_once),
    )
