"""One update: what has to be fetched and applied so that a replica becomes what one verified head says. No I/O.

The work is a queue of steps. A step asks for what it lacks (the chain, a dictionary, its own blob) and is started
again when that has come; when what it asked to be staged is done it leaves the queue.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import assert_never

from edged.errors import ChainError, EdgedError, WireError
from edged.feed.blob import BlobRef
from edged.feed.chain import Chain, PageRef, SliceChain, decode_chain, decode_page
from edged.feed.coding.hop import NO_DICTIONARY_TAG, dictionary_tag, tag_of
from edged.feed.coding.snapshot import unpack_dictionary
from edged.feed.head import HopRef
from edged.feed.plan import REQUEST_BYTES, Path, page_at, plan, version_at
from edged.feed.takedowns import decode_takedowns
from edged.feed.trust.root import VerifiedHead
from edged.feed.trust.sealing import bound_to, unseal
from edged.sync.core import events
from edged.sync.core.events import HeldState
from edged.sync.core.steps import (
    BeginIt,
    CheckAll,
    CheckIt,
    DropIt,
    FindPinned,
    Finish,
    PlanIt,
    Step,
    TakeDictionary,
    TakeHop,
    TakePage,
    TakePart,
    TakeSchema,
    TakeTakedowns,
    Target,
    same,
)

CHAIN_WORTH = 8  # a hop of so many times the chain's bytes is not taken before looking for a cheaper way
REPAIRS = 2  # of one slice in one update: first from its snapshot, then also around the hops that were used


class Update:
    """`go()` gives the next effect, None when nothing is left to do; the other methods take its answer.

    wanted: the slices to carry; require: the collections that must hold a record; stay: take from this head only what
    it takes down, for a pin that cannot be reached.
    Fetches are given with origin 0; the machine says from where.
    Raises WireError or ChainError where this head cannot be reached; nothing live has changed then.
    """

    def __init__(
        self,
        verified: VerifiedHead,
        held: HeldState,
        wanted: frozenset[str],
        *,
        require: tuple[str, ...] = (),
        stay: bool = False,
    ) -> None:
        self.verified, self.head, self.held = verified, verified.head, held
        self.pinned = stay or (held.pinned is not None and held.pinned < self.head.version)
        self.release = self.head.version
        if self.pinned:
            self.release = held.version if stay or held.pinned is None else held.pinned
        self.stay, self.require = stay, require
        self.wanted, self.whole = wanted, wanted >= self.head.slices.keys()
        self.chain: Chain | None = None
        self.paged: dict[str, SliceChain] = {}  # the chain's slices with the pages that were fetched
        self.fetched: dict[bytes, bytes] = {}
        self.fetching: BlobRef | None = None
        self.known: dict[str, set[bytes]] = {name: set(item.dictionaries) for name, item in held.slices.items()}
        self.paths: dict[str, Path] = {}
        self.tried: dict[str, set[bytes]] = {}  # dictionaries that were fetched in search of one
        self.repairs: dict[str, int] = {}
        self.causes: dict[str, EdgedError] = {}  # why a slice is being repaired
        self.without: dict[str, frozenset[bytes]] = {}
        self.kinds: dict[str, str] = {}
        self.hops = self.snapshots = 0
        self.steps: deque[Step] = deque(self.first_steps(wanted & self.head.slices.keys()))

    def told(self, before: int) -> events.Updated:
        """What it has made of version `before`."""
        listed = {} if self.chain is None else self.chain.slices
        full_bytes = sum(newest_bytes(item) for name, item in listed.items() if name in self.wanted)
        return events.Updated(self.release, before, self.kinds, self.hops, self.snapshots, full_bytes)

    # ---- what there is to do

    def first_steps(self, wanted: frozenset[str]) -> list[Step]:
        if self.stay:
            if not self.held.version or not self.takedowns_differ():
                return []
            return [*[TakeSchema()] * self.lost_settings, TakeTakedowns(), Finish(touch=False)]
        steps: list[Step] = [DropIt(name) for name in sorted(self.held.slices.keys() - wanted)]
        for name in sorted(wanted):
            steps.extend(self.pinned_steps(name) if self.pinned else self.slice_steps(name, self.target(name)))
        # A pinned replica keeps the schema with which it was pinned: indexes and views fit the records that it has.
        other_schema = self.head.schema_version != self.held.schema_version
        if (other_schema and (not self.pinned or self.moves)) or self.lost_settings:
            steps.append(TakeSchema())
        if self.takedowns_differ():
            steps.append(TakeTakedowns())
        if self.moves and not self.pinned:
            steps.append(CheckAll())
        if steps or self.moves:
            steps.append(Finish(touch=False))
        elif not self.pinned and self.verified.data != self.held.head:
            steps.append(Finish(touch=True))
        return steps

    @property
    def lost_settings(self) -> bool:
        """Whether the file with schema and takedowns is damaged: the replica then names no version of a schema."""
        return bool(self.held.version) and not self.held.schema_version and bool(self.head.schema_version)

    @property
    def moves(self) -> bool:
        return self.held.version != self.release

    def target(self, name: str) -> Target:
        item = self.head.slices[name]
        return Target(item.version, item.digest, item.records)

    def takedowns_differ(self) -> bool:
        held = None if self.held.takedowns is None else BlobRef.of(self.held.takedowns)
        return held != self.head.takedowns

    def pinned_steps(self, name: str) -> list[Step]:
        mine = self.held.slices.get(name)
        return [FindPinned(name)] if self.moves or mine is None or mine.damaged is not None else []

    def slice_steps(self, name: str, target: Target) -> list[Step]:
        mine = self.held.slices.get(name)
        if mine is not None and mine.damaged is not None:
            return [PlanIt(name, target, afresh=True)]
        if mine is not None and mine.cut:  # a hop is coded against what it lacks
            stays = self.pinned and mine.version == target.version
            return [] if stays else [PlanIt(name, target, afresh=True)]
        if mine is not None and mine.version == target.version and same(mine, target):
            return []
        direct = None if mine is None or self.pinned else self.direct_hop(name, mine.version)
        if direct is None:
            return [PlanIt(name, target)]
        self.paths[name] = Path(None, (direct,), 0 if direct.inline is not None else direct.blob.size)
        return [TakeHop(name, direct), CheckIt(name, target)]

    def direct_hop(self, name: str, version: int) -> HopRef | None:
        """A hop of the head from exactly `version` that makes fetching the chain needless: inlined, with a dictionary
        that is held, or so small that no better way could be worth the chain's bytes; or one that was to be fetched
        ahead of its release."""
        released, live = self.head.released, self.head.slices[name].version
        sealed = None if released is None else released.hops.get(name)
        if sealed is not None and sealed.from_version == version and version < live:
            return HopRef(version, live, sealed.blob, sealed=True)
        for hop in self.head.slices[name].hops:
            if hop.from_version != version:
                continue
            if hop.inline is None:
                return hop if hop.blob.size <= CHAIN_WORTH * (self.head.chain.size + REQUEST_BYTES) else None
            try:
                return hop if self.has_dictionary(name, hop.inline) else None
            except WireError:  # of a later format, perhaps; the chain has other ways
                return None
        return None

    def has_dictionary(self, name: str, hop: bytes) -> bool:
        tag = dictionary_tag(hop)
        return tag == NO_DICTIONARY_TAG or any(sha.startswith(tag) for sha in self.known.get(name, ()))

    # ---- the next effect

    def go(self) -> events.Effect | None:
        while self.steps:
            effect = self.start(self.steps[0])
            if effect is not None:
                return effect
        return None

    def start(self, step: Step) -> events.Effect | None:  # noqa: C901 - one flat list of cases
        """What `step` needs next; None if it has left the queue for others or is done."""
        match step:
            case DropIt(name):
                return events.Stage(events.DropSlice(name))
            case FindPinned() | PlanIt() | TakeSchema() if self.chain is None:
                return self.fetch(self.head.chain, "chain")
            case FindPinned(name) if (page := page_at(self.slice_chain(name), self.release)) is not None:
                self.steps.appendleft(TakePage(name, page))
                return None
            case TakePage(name, page):
                return self.start_page(name, page)
            case FindPinned(name):
                self.replace(self.slice_steps(name, self.pinned_target(name)))
                return None
            case PlanIt(name):
                return events.CheckStaged(name)
            case BeginIt():
                return self.start_snapshot(step)
            case TakePart():
                return self.start_part(step)
            case TakeDictionary():
                return self.start_dictionary(step)
            case TakeHop():
                return self.start_hop(step)
            case CheckIt(name):
                return events.Measure(name)
            case TakeSchema():
                assert self.chain is not None
                return events.Stage(events.SetSchema(self.chain.schema, self.head.schema_version))
            case TakeTakedowns():
                return self.start_takedowns()
            case CheckAll():
                return events.Stage(events.CheckContent(self.head.dataset, self.release, self.require, self.whole))
            case Finish(touch):
                return self.finish(touch)
            case _:
                assert_never(step)

    def start_page(self, name: str, page: PageRef) -> events.Effect | None:
        data = self.fetched.get(page.blob.sha256)
        if data is None:
            return self.fetch(page.blob, f"hops {page.low} to {page.high} of slice {name}")
        self.paged[name] = self.slice_chain(name).with_page(page, decode_page(data, page))
        self.forget(page.blob)
        self.steps.popleft()
        return None

    def fetch(self, ref: BlobRef, what: str) -> events.Effect:
        self.fetching = ref
        return events.FetchBlob(0, ref, f"{self.head.dataset}: {what}")

    def replace(self, steps: Sequence[Step]) -> None:
        self.steps.popleft()
        self.steps.extendleft(reversed(steps))

    def start_snapshot(self, step: BeginIt) -> events.Effect:
        dictionary = step.snapshot.dictionary
        if dictionary is None:
            self.known[step.slice_name] = set()
            return events.Stage(events.BeginSnapshot(step.slice_name, step.snapshot.version, None))
        data = self.fetched.get(dictionary.sha256)
        if data is None:
            return self.fetch(dictionary, f"dictionary of slice {step.slice_name}")
        content = unpack_dictionary(data)
        self.known[step.slice_name] = {hashlib.sha256(content).digest()}
        return events.Stage(events.BeginSnapshot(step.slice_name, step.snapshot.version, content))

    def start_part(self, step: TakePart) -> events.Effect:
        name, ref = step.slice_name, step.ref
        if step.on_disk:
            return events.TakeStaged(name, ref)
        data = self.fetched.get(ref.sha256)
        if data is None:
            return self.fetch(ref, f"part of slice {name}")
        return events.Stage(events.AddPart(name, ref, data))

    def start_dictionary(self, step: TakeDictionary) -> events.Effect | None:
        data = self.fetched.get(step.ref.sha256)
        if data is None:
            return self.fetch(step.ref, f"dictionary of slice {step.slice_name}")
        content = unpack_dictionary(data)
        if tag_of(content) != step.tag:
            self.forget(step.ref)
            self.steps.popleft()
            return None
        self.known.setdefault(step.slice_name, set()).add(hashlib.sha256(content).digest())
        return events.Stage(events.AddDictionary(step.slice_name, content))

    def start_hop(self, step: TakeHop) -> events.Effect | None:
        name, hop = step.slice_name, step.hop
        data = hop.inline if hop.inline is not None else self.fetched.get(hop.blob.sha256)
        if data is None:
            return self.fetch(hop.blob, f"hop {hop.from_version} to {hop.to_version} of slice {name}")
        if hop.sealed and self.head.released is not None:
            bound = bound_to(self.head.dataset, name, hop.from_version, hop.to_version)
            data = unseal(self.head.released.key, bound, data)
        if not self.has_dictionary(name, data):
            if self.chain is None:
                return self.fetch(self.head.chain, "chain")
            self.steps.appendleft(self.dictionary_step(name, hop, dictionary_tag(data)))
            return None
        return events.Stage(events.ApplyHop(name, hop.to_version, data))

    def dictionary_step(self, name: str, hop: HopRef, tag: bytes) -> TakeDictionary:
        """The next of the chain's dictionaries that may be what the hop needs. Raises ChainError when none is left."""
        tried = self.tried.setdefault(name, set())
        for ref in self.slice_chain(name).dictionary_refs():
            if ref.sha256 not in tried:
                tried.add(ref.sha256)
                return TakeDictionary(name, ref, tag)
        raise ChainError(
            f"apply hop {hop.from_version} to {hop.to_version} of slice {name}: the chain does not name its "
            f"dictionary {tag.hex()}; the origin has to publish a snapshot"
        )

    def start_takedowns(self) -> events.Effect:
        ref = self.head.takedowns
        if ref is None:
            return events.Stage(events.SetTakedowns(None, frozenset()))
        data = self.fetched.get(ref.sha256)
        if data is None:
            return self.fetch(ref, "takedowns")
        return events.Stage(events.SetTakedowns(data, decode_takedowns(data)))

    def finish(self, touch: bool) -> events.Effect:
        head, data = self.head, self.verified.data
        if touch:
            return events.Touch(data, head.signed_at, head.fresh_s, head.expires_s)
        return events.Commit(self.release, data, head.signed_at, head.fresh_s, head.expires_s)

    # ---- answers

    def blob(self, ref: BlobRef, data: bytes) -> None:
        """Raises HashError if it is not the blob that was asked for, WireError for a malformed chain."""
        asked, self.fetching = self.fetching, None
        if asked is None or ref != asked:
            raise WireError(f"blob {ref.name[:16]}: was not asked for")
        ref.check(data, self.head.dataset)
        if self.chain is None and ref == self.head.chain:
            chain = decode_chain(data)
            if (chain.dataset, chain.version) != (self.head.dataset, self.head.version):
                raise ChainError(
                    f"chain of {self.head.dataset}, version {self.head.version}: is for {chain.dataset}, version "
                    f"{chain.version}; the origin has to publish again"
                )
            self.chain = chain
            return
        self.fetched[ref.sha256] = data

    def staged(self) -> None:
        """What was asked to be staged is: the step is done."""
        step = self.steps.popleft()
        match step:
            case BeginIt(_, snapshot):
                self.snapshots += 1
                self.forget(snapshot.dictionary)
            case TakePart(_, ref, _):
                self.forget(ref)
            case TakeDictionary(_, ref, _):
                self.forget(ref)
            case TakeHop(_, hop):
                self.hops += 1
                self.forget(hop.blob)
            case DropIt(name):
                self.kinds[name] = "dropped"
            case TakeTakedowns():
                self.forget(self.head.takedowns)
            case TakeSchema() | FindPinned() | PlanIt() | TakePage() | CheckIt() | CheckAll() | Finish():
                pass
            case _:
                assert_never(step)

    def forget(self, ref: BlobRef | None) -> None:
        if ref is not None:
            self.fetched.pop(ref.sha256, None)

    def parts_staged(self, parts: frozenset[bytes]) -> None:
        """Raises ChainError if no path leads to the target."""
        step = self.steps[0]
        if isinstance(step, TakePart):
            if step.ref.sha256 in parts:
                self.steps.popleft()
            else:  # it is damaged
                self.steps[0] = TakePart(step.slice_name, step.ref)
            return
        assert isinstance(step, PlanIt)
        name, target = step.slice_name, step.target
        mine = self.held.slices.get(name)
        have = mine.version if mine is not None and mine.version < target.version and not step.afresh else None
        inlined = self.head.slices[name].hops
        # A hop of the head that is not inlined is in the chain as well, so both can be looked at alike.
        try:
            path = plan(
                self.slice_chain(name), have, target.version, inlined=inlined, staged=parts, without=self.avoid(name)
            )
        except ChainError as fault:
            cause = f" ({self.causes[name]})" if name in self.causes else ""
            raise ChainError(f"slice {name} of {self.head.dataset}: {fault}{cause}") from fault
        if path.pages:
            self.replace([*(TakePage(name, page) for page in path.pages), step])
            return
        self.paths[name] = path
        self.replace([*self.path_steps(name, path, parts), CheckIt(name, target)])

    def avoid(self, name: str) -> frozenset[bytes]:
        return self.without.get(name, frozenset())

    def path_steps(self, name: str, path: Path, staged: frozenset[bytes]) -> list[Step]:
        steps: list[Step] = []
        if path.snapshot is not None:
            steps.append(BeginIt(name, path.snapshot))
            steps.extend(TakePart(name, part, part.sha256 in staged) for part in path.snapshot.parts)
        steps.extend(TakeHop(name, hop) for hop in path.hops)
        return steps

    def measured(self, digest: bytes, records: int) -> None:
        """Raises ChainError if the staged slice is not what was signed."""
        step = self.steps[0]
        assert isinstance(step, CheckIt)
        name, target = step.slice_name, step.target
        if target.digest not in (None, digest) or target.records not in (None, records):
            raise ChainError(
                f"slice {name}, version {target.version}: after {self.describe(name)} its digest is "
                f"{digest.hex()[:16]}… over {records} records, signed is {(target.digest or b'').hex()[:16]}… over "
                f"{target.records}"
            )
        path = self.paths[name]
        self.kinds[name] = "hops" if path.snapshot is None else "snapshot+hops" if path.hops else "snapshot"
        self.steps.popleft()

    def describe(self, name: str) -> str:
        path = self.paths[name]
        names = [f"snapshot {path.snapshot.version}"] if path.snapshot else []
        names += [f"hop {hop.from_version} to {hop.to_version} ({hop.blob.name[:16]})" for hop in path.hops]
        return ", ".join(names) or "nothing"

    def may_repair(self) -> bool:
        """Whether the step that failed was taking a hop, to which there are other ways."""
        return isinstance(self.steps[0], TakeHop)

    def repair(self, error: EdgedError) -> str:
        """Start the slice whose step failed over, from its snapshot. Returns the slice's name.

        Raises ChainError from `error` if that has been tried, or if the step was not of a slice.
        """
        name = self.steps[0].slice_name
        if name is None or name not in self.head.slices:
            raise ChainError(f"update {self.head.dataset} to version {self.head.version}: {error}") from error
        done = self.repairs.get(name, 0)
        if done >= REPAIRS:
            raise ChainError(
                f"slice {name} of {self.head.dataset}, version {self.head.version}: neither hops nor snapshot give "
                f"what was signed ({error}); what is held goes on being served; the origin has to publish again"
            ) from error
        if done and name in self.paths:
            # The state that the hops were applied to was the snapshot's own, so now they are what is suspected.
            self.without[name] = self.avoid(name) | {hop.blob.sha256 for hop in self.paths[name].hops}
        self.repairs[name] = done + 1
        self.causes[name] = error
        self.tried.pop(name, None)
        self.steps = deque(step for step in self.steps if step.slice_name != name)
        target = self.pinned_target(name) if self.pinned and self.chain else self.target(name)
        self.steps.appendleft(PlanIt(name, target, afresh=True))
        return name

    # ---- the chain

    def slice_chain(self, name: str) -> SliceChain:
        assert self.chain is not None
        found = self.paged.get(name) or self.chain.slices.get(name)
        if found is None:
            raise ChainError(
                f"chain of {self.head.dataset}, version {self.head.version}: lacks slice {name}, which the head has"
            )
        return found

    def pinned_target(self, name: str) -> Target:
        """The slice as it was at the pinned version. Raises ChainError if the chain does not reach back so far."""
        chain, live = self.slice_chain(name), self.target(name)
        version = version_at(chain, live.version, self.release)
        if version == live.version:
            return live
        signed = next((snapshot for snapshot in chain.snapshots if snapshot.version == version), None)
        return Target(version, signed.digest if signed else None, signed.records if signed else None)


def newest_bytes(item: SliceChain) -> int:
    """What a slice's newest snapshot takes; 0 where it has none."""
    newest = max(item.snapshots, key=lambda snapshot: snapshot.version, default=None)
    return 0 if newest is None else newest.total_bytes
