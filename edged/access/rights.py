"""What an app may ask for, and by what it is known. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edged.errors import RequestError

ANONYMOUS = "anonymous"  # the name of the app that is everybody else
EVERYTHING = "*"
PROXY = "proxy:"
DENIED = "this app may not ask for that; what it may is said by `allow` of its [[apps]] in edged's configuration"


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests in `seconds`; as many may come at once, after a time without any."""

    requests: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Rights:
    """everything: of datasets and proxied services; descriptions: datasets whose description may be read; datasets:
    those of which every collection may be; collections: (dataset, collection); routes: prefixes of proxied services;
    slices: of all of those, the ones whose records may be, none for all.
    """

    everything: bool = False
    descriptions: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()
    collections: frozenset[tuple[str, str]] = frozenset()
    routes: frozenset[str] = frozenset()
    slices: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allow: Sequence[str], slices: Sequence[str] = ()) -> Rights:
        """allow: "catalog/titles", "catalog/*", "catalog", "proxy:/prefix", "*"."""
        routes = {entry.removeprefix(PROXY) for entry in allow if entry.startswith(PROXY)}
        entries = [entry for entry in allow if entry != EVERYTHING and not entry.startswith(PROXY)]
        parts = [entry.partition("/") for entry in entries]
        every = frozenset(dataset for dataset, _, name in parts if name == EVERYTHING)
        return cls(
            EVERYTHING in allow,
            frozenset(dataset for dataset, slash, _ in parts if not slash) | every,
            every,
            frozenset((dataset, name) for dataset, slash, name in parts if slash and name != EVERYTHING),
            frozenset(routes),
            frozenset(slices),
        )

    def knows(self, dataset: str) -> bool:
        """Whether anything of a dataset may be asked for."""
        return self.everything or dataset in self.descriptions or any(found == dataset for found, _ in self.collections)

    def whole(self, dataset: str) -> bool:
        """Whether all of a dataset's collections may be."""
        return self.everything or dataset in self.datasets

    def names(self, dataset: str) -> frozenset[str]:
        """The collections of a dataset that are allowed by name."""
        return frozenset(name for found, name in self.collections if found == dataset)

    def require_dataset(self, dataset: str) -> None:
        """Raises RequestError 403."""
        require(self.knows(dataset))

    def require_description(self, dataset: str) -> None:
        require(self.everything or dataset in self.descriptions)

    def require_collection(self, dataset: str, collection: str) -> None:
        require(self.whole(dataset) or (dataset, collection) in self.collections)

    def require_some(self, dataset: str) -> None:
        """Of the dataset's collections."""
        require(self.whole(dataset) or any(found == dataset for found, _ in self.collections))

    def require_route(self, prefix: str | None) -> None:
        require(self.everything or (prefix is not None and prefix in self.routes))


def require(allowed: bool) -> None:
    if not allowed:
        raise RequestError(403, DENIED)


@dataclass(frozen=True, slots=True)
class App:
    """One that is configured. uid, gid, exe, token_sha256: by which it is known, those given together; a token alone is
    for TCP, and for Unix sockets whose peer is no other app. view: the only shape that it gets, "" for any;
    connections: its share of those that a serving process takes.
    """

    name: str
    audience: str
    rights: Rights
    uid: int | None = None
    gid: int | None = None
    exe: str = ""
    token_sha256: bytes = b""
    view: str = ""
    rate: Rate | None = None
    connections: float = 1.0

    @property
    def is_attested(self) -> bool:
        """Whether the kernel says who it is."""
        return self.uid is not None or self.gid is not None or bool(self.exe)

    def is_peer(self, uid: int | None, gid: int | None, exe: str) -> bool:
        """Whether it is the peer of whom the kernel says this."""
        known = self.is_attested and uid is not None
        return known and self.uid in (None, uid) and self.gid in (None, gid) and self.exe in ("", exe)
