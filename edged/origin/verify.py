"""`origin verify`: whether every blob that the head and its chain name is there and whole, and what to make anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from edged.errors import EdgedError
from edged.feed.blob import BlobRef
from edged.feed.coding.snapshot import pack_dictionary
from edged.origin.ahead import plans
from edged.origin.blobs.renewal import Spoilt, gaps_in
from edged.origin.release import Workplace, public_chains
from edged.origin.retention import named_blobs
from edged.origin.state import State
from edged.progress import Steps, Watch, unwatched


@dataclass(slots=True)
class FeedReport:
    """What was looked at. faults: what is missing or damaged, a line each; mended: whether it was made anew."""

    dataset: str
    version: int
    blobs: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    mended: bool = False


def inspect(place: Workplace, watch: Watch = unwatched) -> tuple[FeedReport, frozenset[bytes]]:
    """The report, and the SHA-256 of the blobs that are missing or damaged. Reads every blob that devices may want."""
    report = FeedReport(place.dataset, place.state.live)
    bad: set[bytes] = set()
    known = dict(place.state.rows("SELECT sha256, size FROM blobs"))
    kinds = dict(place.state.rows("SELECT sha256, kind FROM blobs"))
    wanted = wanted_blobs(place, report)
    steps = Steps(watch, "verifying", len(wanted))
    for sha256 in wanted:
        report.blobs += 1
        steps.advance()
        if sha256 not in known:
            report.faults.append(f"blob {sha256.hex()} is named, and the publisher's state does not know it")
            continue
        try:
            report.bytes += len(place.blobs.read(BlobRef(sha256, known[sha256])))
        except EdgedError as fault:
            bad.add(sha256)
            report.faults.append(f"{kinds[sha256]} {sha256.hex()}: {fault}")
    return report, frozenset(bad)


def wanted_blobs(place: Workplace, report: FeedReport) -> list[bytes]:
    """SHA-256 of what the public head leads to; of what the state holds where that cannot be read."""
    if place.public is not None:
        head = place.public.head
        try:
            return sorted(set(named_blobs(head, public_chains(place, head))))
        except EdgedError as fault:
            report.faults.append(f"the chain of version {head.version} cannot be read: {fault}")
    else:
        report.faults.append(f"there is no head at {place.shelf.where}")
    rows = place.state.rows(
        "SELECT sha256 FROM hops UNION SELECT sha256 FROM parts"
        " UNION SELECT dictionary FROM snapshots WHERE dictionary NOT NULL ORDER BY 1"
    )
    return [row[0] for row in rows]


def spoilt_by(state: State, bad: frozenset[bytes]) -> dict[str, Spoilt]:
    """What of each slice cannot be used without the blobs `bad`."""
    found = {}
    for name in state.slice_names():
        parts = list(state.rows("SELECT version, sha256 FROM parts WHERE slice = ?", (name,)))
        hops = list(state.rows("SELECT to_version, from_version, sha256 FROM hops WHERE slice = ?", (name,)))
        lost = [(high, low) for high, low, sha256 in hops if sha256 in bad]
        snapshots = sorted({version for version, sha256 in parts if sha256 in bad})
        found[name] = Spoilt(snapshots, bad, lost, gaps=gaps_in(state, name, lost))
    return found


def rewrite_dictionaries(place: Workplace, bad: frozenset[bytes]) -> frozenset[bytes]:
    """Write dictionaries again whose content the state has; returns what is still missing. Raises StoreError."""
    drop_sealed(place, bad)
    written = set()
    for sha256 in bad:
        row = next(place.state.rows("SELECT content FROM dictionaries WHERE sha256 = ?", (sha256,)), None)
        if row is not None:
            written.add(place.blobs.store("dictionary", pack_dictionary(row[0])).sha256)
    return bad - written


def drop_sealed(place: Workplace, bad: frozenset[bytes]) -> None:
    """Name no sealed hop of `bad` any more: devices have other ways to what is live, and a version ahead has to be
    prepared anew, as nothing is ever sealed twice with one key."""
    place.spoilt = bad
    plan = plans.held(place.state)
    if plan is not None and any(hop.blob.sha256 in bad for hop in plan.ahead.hops.values()):
        plans.forget(place.state)
