"""Puts a prepared version in front of devices: the chain, the signed head, and the swap that makes it live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from edged.errors import OriginError, StoreError, TrustError
from edged.feed import cbor, limits
from edged.feed.ahead.sealed import Released
from edged.feed.blob import BlobRef
from edged.feed.chain import Chain, SliceChain, SnapshotRef, decode_chain, decode_page, encode_chain, fits
from edged.feed.digest import EMPTY_DIGEST
from edged.feed.head import Head, HopRef, Offer, SliceHead
from edged.feed.schema import Schema
from edged.feed.takedowns import encode_takedowns
from edged.feed.trust import root as trust
from edged.origin import retention
from edged.origin.ahead import plans
from edged.origin.ahead.plans import Plan
from edged.origin.blobs.dictionaries import dictionary_ref
from edged.origin.blobs.pages import paged
from edged.origin.blobs.snapshots import snapshot_ref
from edged.origin.declared.rules import Rules, duration_s
from edged.origin.declared.slicing import CORE
from edged.origin.retention import Keep, chain_blobs
from edged.origin.shelves.blobstore import BlobStore
from edged.origin.shelves.shelf import Shelf
from edged.origin.signing.roots import Roots
from edged.origin.state import State, VersionRow
from edged.units import span_text

CORE_HOPS = 4  # that a head names: from 1, 2, 4 and 8 changes back
KEPT_VERSIONS = 8  # for which the newest hop of a slice that changes no more stays in the head
OTHERS_BYTES = 300  # of hops that ride inside the head and few need: of other slices than core, and of versions before


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout under way: the newest version is offered to a share, `stable` is what all others have."""

    stable: int
    salt: bytes
    permille: int


@dataclass(slots=True)
class Workplace:
    """All that an operation on one dataset needs. now: seconds since 1970, UTC.

    root: the newest that is public, under which heads are signed; public: the head that devices see, None: none yet.

    rollout: as the public head has it, or as the operation under way will have it. since: the version that most
    devices hold when a rollout ends, whose hop to the new one is worth inlining. on_head: told of each head that goes
    live. releases: the version ahead that the operation under way makes live; spoilt: SHA-256 of
    blobs that no head may name any more, as they are lost.
    """

    dataset: str
    shelf: Shelf
    state: State
    blobs: BlobStore
    rules: Rules
    roots: Roots
    root: trust.Root
    now: int
    public: trust.VerifiedHead | None = None
    rollout: Rollout | None = None
    since: int | None = None
    on_head: Callable[[str, bytes], None] = lambda dataset, head: None
    releases: Plan | None = None
    spoilt: frozenset[bytes] = frozenset()

    @property
    def keep(self) -> Keep:
        return Keep.of(self.rules.retention)


def standing(place: Workplace, what: str) -> Rollout:
    """The rollout under way. Raises OriginError if there is none."""
    if place.rollout is None:
        raise OriginError(f"{what} the rollout of dataset {place.dataset}: none is under way; publish with --rollout")
    return place.rollout


def public_head(place: Workplace) -> trust.VerifiedHead | None:
    """The head that devices see now, None if there is none yet. Raises StoreError, TrustError, WireError."""
    data = place.shelf.head()
    return None if data is None else verify_under_any(place.roots, data, place.dataset)


def verify_under_any(roots: Roots, data: bytes, dataset: str) -> trust.VerifiedHead:
    """A head signed by us, maybe under an earlier root if a rotation was cut short. Raises TrustError, WireError."""
    faults: list[Exception] = []
    for number in range(roots.newest.number, 0, -1):
        try:
            return trust.verify_head(data, roots.root(number), dataset)
        except TrustError as fault:
            faults.append(fault)
    raise faults[0]


def recover(place: Workplace) -> None:
    """Finish or undo what an operation left that was cut short. Raises StoreError if state and head do not belong
    together."""
    state = place.state
    live, newest = state.live, state.newest()
    head = place.public = public_head(place)
    shown = 0 if head is None else head.head.newest_version
    if head is not None and head.head.offer is not None:
        offer = head.head.offer
        place.rollout = Rollout(head.head.version, offer.salt, offer.permille)
    if shown > newest:
        raise StoreError(
            f"open dataset {place.dataset}: its public head is version {shown}, the publisher's state ends at "
            f"{newest}; "
            "restore FEED_DIR/private from the same time as public"
        )
    if newest > live:
        with state.transaction(f"recover dataset {place.dataset}"):
            if shown >= newest:
                state.set_meta("live", newest)
            else:
                state.undo_after(live)
    drop_unannounced(place)


def drop_unannounced(place: Workplace) -> None:
    """Forget a version ahead that is live or superseded, and one that no head has shown: what prepared it was cut
    short."""
    plan = plans.held(place.state)
    if plan is None:
        return
    shown = None if place.public is None else place.public.head.ahead
    over = plans.superseded_by(place.state, plan, place.state.live) is not None
    if over or (plan.base == place.state.live and shown != plan.ahead):
        with place.state.transaction(f"recover dataset {place.dataset}"):
            plans.forget(place.state)


def fit_chain(place: Workplace, row: VersionRow) -> tuple[Chain, bytes]:
    """The chain of version `row` with all its hops and its pages, and its blob, in which those in pages are not.

    It reaches fewer versions back where all would be too much for a device.
    """
    versions = place.keep.versions
    while True:
        whole = build_chain(place, row, max(1, row.version - versions))
        store = place.blobs.store
        slices = {name: paged(place.state, name, entry, store) for name, entry in whole.slices.items()}
        data = encode_chain(replace(whole, slices=slices))
        if fits(data):
            named = {name: replace(entry, pages=slices[name].pages) for name, entry in whole.slices.items()}
            return replace(whole, slices=named), data
        if versions == 1:
            raise OriginError(
                f"publish dataset {place.dataset}: its chain takes more than {limits.CHAIN_BYTES} bytes or "
                f"{limits.ITEMS} items; declare fewer slices"
            )
        versions //= 2


def build_chain(place: Workplace, row: VersionRow, oldest: int) -> Chain:
    """How devices reach version `row` from `oldest` or a later version, from what the state retains."""
    state = place.state
    slices: dict[str, SliceChain] = {}
    for name in row.declared:
        snapshots = listed_snapshots(place, name, row.version)
        first = min((snapshot.version for snapshot in snapshots), default=0)
        bottom = retention.bottom_of(state, name, oldest, first)
        rows = list(
            state.rows(
                "SELECT from_version, to_version, size, sha256, dictionary FROM hops"
                " WHERE slice = ? AND from_version >= ? AND to_version <= ? ORDER BY from_version, to_version",
                (name, bottom, row.version),
            )
        )
        hops = tuple(HopRef(low, high, BlobRef(sha256, size)) for low, high, size, sha256, _ in rows)
        held = {snapshot.dictionary.sha256 for snapshot in snapshots if snapshot.dictionary is not None}
        others = sorted({row[4] for row in rows if row[4] is not None} - held)
        slices[name] = SliceChain(snapshots, hops, tuple(dictionary_ref(state, sha256) for sha256 in others))
    return Chain(place.dataset, row.version, Schema.from_cbor(cbor.decode(row.schema, "schema")), slices)


def listed_snapshots(place: Workplace, name: str, version: int) -> tuple[SnapshotRef, ...]:
    """The newest snapshot up to `version`, and for a grace period the one before it, which devices may be fetching."""
    rows = list(
        place.state.rows(
            "SELECT version, made_at, dictionary FROM snapshots WHERE slice = ? AND version <= ?"
            " ORDER BY version DESC LIMIT 2",
            (name, version),
        )
    )
    if len(rows) == 2 and rows[0][1] < place.now - place.keep.grace_s:
        rows.pop()
    return tuple(snapshot_ref(place.state, name, version, dictionary) for version, _, dictionary in rows)


def build_head(place: Workplace, row: VersionRow, chain: Chain, chain_ref: BlobRef, offer: Offer | None) -> Head:
    """The head for version `row`; writes the blob of the takedowns."""
    state = place.state
    hidden = state.hidden()
    takedowns = place.blobs.store("takedowns", encode_takedowns(hidden)) if hidden else None
    slices = slice_heads(state, row, chain)
    released = released_with(place, row, slices)
    if place.releases is not None and released is not None:
        slices = {name: replace(item, hops=()) for name, item in slices.items()}  # the smaller, the sooner with all
    else:
        shown = {} if place.public is None else place.public.head.slices
        inline(place, slices, row.version)
        slices = with_few_hops(slices, row.version, shown)
    plan = plans.active(state, row.version) if offer is None else None
    freshness = place.rules.freshness
    return Head(
        dataset=place.dataset,
        version=row.version,
        signed_at=signing_time(place),
        fresh_s=duration_s(freshness.fresh),
        expires_s=duration_s(freshness.expires),
        root=place.root.number,
        schema_version=row.schema_version,
        chain=chain_ref,
        slices=slices,
        takedowns=takedowns,
        offer=offer,
        ahead=None if plan is None else plan.ahead,
        released=released,
        spread=spread_of(place, row) if offer is None and released is None else None,
    )


def spread_of(place: Workplace, row: VersionRow) -> tuple[int, int] | None:
    """When devices are to take a version; None: at once, as all that corrects, and what is older than its spread."""
    spread_s = duration_s(place.rules.delivery.spread)
    return (row.time, spread_s) if row.kind == "publish" and place.now < row.time + spread_s else None


def released_with(place: Workplace, row: VersionRow, slices: dict[str, SliceHead]) -> Released | None:
    """The key of what devices fetched ahead of this version, as long as that has exactly the content that is live."""
    plan, public = place.releases, None if place.public is None else place.public.head
    if plan is not None:
        same = all(name in slices and slices[name].digest == digest for name, digest in plan.digests.items())
        return Released(plan.key, plan.ahead.hops) if same and plan.ahead.version == row.version else None
    if public is None or public.released is None or public.version != row.version:
        return None
    lost = any(hop.blob.sha256 in place.spoilt for hop in public.released.hops.values())
    return None if lost else public.released


def signing_time(place: Workplace) -> int:
    """Now, or the time of the head before where that is later: devices take no head that is older than the last.

    A key that is no longer trusted takes its heads' times with it. Raises OriginError for a time that devices refuse.
    """
    public = place.public
    floor = int(place.state.meta("signed_at") or 0) if public is None else public.head.signed_at
    if public is not None and public.root < place.roots.newest.number:
        floor = 0
    if floor > place.now + limits.FUTURE_S:
        raise OriginError(
            f"sign the head of dataset {place.dataset}: the last one was signed {span_text(floor - place.now)} after "
            f"what this machine's clock says, and devices refuse heads from more than {span_text(limits.FUTURE_S)} "
            "ahead; if the clock is wrong now, set it; if it was wrong then, let go of that time with: "
            "edged origin rotate-key"
        )
    return max(place.now, floor)


def slice_heads(state: State, row: VersionRow, chain: Chain) -> dict[str, SliceHead]:
    """The slices as they were at version `row`, with the hops that lead there."""
    slices: dict[str, SliceHead] = {}
    for name in row.declared:
        item = state.slice_at(name, at=row.version)
        # A slice that was never published to has version 0 and nothing to fetch.
        leading = tuple(hop for hop in chain.slices[name].hops if hop.to_version == item.version)
        slices[name] = SliceHead(item.version, item.digest if item.version else EMPTY_DIGEST, item.records, leading)
    return slices


def with_few_hops(slices: dict[str, SliceHead], version: int, shown: Mapping[str, SliceHead]) -> dict[str, SliceHead]:
    """The slices with those hops alone that are worth their bytes in every head: the chain names them all.

    Of core the shortest, for whoever was away for a few changes; of what only some carry the hop from the version
    before. Where a slice is the same as in the head before, `shown`, only its last hop stays for a while, and only in
    the form that it had there: most devices receive what differs from that head.
    """
    found = {}
    for name, item in slices.items():
        newest_first = sorted(item.hops, key=lambda hop: hop.from_version, reverse=True)
        before, recent = shown.get(name), version - item.version < KEPT_VERSIONS
        if item.version == version or before is None or before.version != item.version:
            named = newest_first[: CORE_HOPS if name == CORE else int(recent)]
        else:
            told = {hop.from_version for hop in before.hops if hop.inline is None}
            named = [hop for hop in newest_first[:1] if recent and hop.from_version in told]
        kept = tuple(hop for hop in item.hops if hop.inline is not None or hop in named)
        found[name] = SliceHead(item.version, item.digest, item.records, kept)
    return found


def inline(place: Workplace, slices: dict[str, SliceHead], version: int) -> None:
    """Put the hop from the version before into the head where it is small; the smallest first, bounded together.

    Every device receives what is inlined, so the slices that only some carry have OTHERS_BYTES among them: about what
    the request costs that those save who do. What is left of that is for what stays of the heads before.
    """
    listed = [(hop, name) for name, item in slices.items() for hop in item.hops]
    newest = {name: max((hop.from_version for hop in item.hops), default=0) for name, item in slices.items()}
    needed = [pair for pair in listed if pair[0].to_version == version and pair[0].from_version == newest[pair[1]]]
    if place.since is not None:
        # A rollout has ended: most devices come from the version that was stable until then.
        held = {name: place.state.slice_at(name, at=place.since).version for name in slices}
        needed += [pair for pair in listed if pair[0].from_version == held[pair[1]]]
    carried = inlined_before(place, listed)
    if place.public is not None and place.public.head.version == version:  # signed anew: devices are where they were
        needed += carried
    kept = [pair for pair in carried if pair not in needed and version - pair[0].to_version < KEPT_VERSIONS]
    room = {True: place.rules.inline.max, False: min(OTHERS_BYTES, place.rules.inline.max)}
    ordered = sorted(dict.fromkeys(needed), key=lambda pair: (pair[0].blob.size, pair[1]))
    for hop, name in [*ordered, *sorted(kept, key=lambda pair: (-pair[0].to_version, pair[0].blob.size, pair[1]))]:
        urgent = name == CORE and (hop, name) not in kept
        if hop.blob.size > room[urgent]:
            continue
        room[urgent] -= hop.blob.size
        whole = HopRef(hop.from_version, hop.to_version, hop.blob, place.blobs.read(hop.blob))
        item = slices[name]
        hops = tuple(whole if entry == hop else entry for entry in item.hops)
        slices[name] = SliceHead(item.version, item.digest, item.records, hops)


def inlined_before(place: Workplace, listed: list[tuple[HopRef, str]]) -> list[tuple[HopRef, str]]:
    """Those of these hops, each with its slice, that the head before carries."""
    shown = {} if place.public is None else place.public.head.slices
    carried = {(name, hop.blob) for name, item in shown.items() for hop in item.hops if hop.inline is not None}
    return [(hop, name) for hop, name in listed if (name, hop.blob) in carried]


@contextmanager
def releasing(place: Workplace, what: str) -> Iterator[None]:
    """A transaction at whose end the newest version of the state becomes live, or nothing has changed.

    Raises StoreError, OriginError, and whatever the block raises.
    """
    try:
        with place.state.transaction(what):
            yield
            head, signed, chains = signed_head(place, what)
            place.state.set_meta("signed_at", head.signed_at)
            place.blobs.settle()
            place.shelf.stage_head(signed.data)
    except BaseException:
        place.shelf.unstage_head()
        place.blobs.take_back()
        raise
    try:
        place.shelf.swap_head()
    except BaseException:
        place.shelf.unstage_head()
        prepared = place.state.newest()
        recover(place)
        # Where no version was undone, the state goes on naming what was made for the one that is live. And where the
        # head may yet come to be seen, it does; a sweep finds what nothing names.
        if place.shelf.is_final and place.state.newest() < prepared:
            place.blobs.take_back()
        raise
    place.public = signed
    place.blobs.fresh.clear()
    place.on_head(place.dataset, signed.data)
    settle(place, head, chains, what)


def signed_head(place: Workplace, what: str) -> tuple[Head, trust.VerifiedHead, list[Chain]]:
    """The head of the newest version in the state, as it is and signed, and its chains. Raises EdgedError."""
    row = place.state.version_row(place.state.newest())
    if row is None:
        raise OriginError(f"{what}: the dataset has no version yet; publish to it first")
    head, chains = compose_head(place, row)
    data = trust.sign_head(head, place.roots.head_key())
    return head, trust.verify_head(data, place.root, place.dataset), chains


def public_chains(place: Workplace, head: Head) -> list[Chain]:
    """The chains that a public head names, with all hops of their pages. Raises StoreError, HashError, WireError."""
    refs = [head.chain] if head.offer is None else [head.chain, head.offer.chain]
    return [with_all_hops(place, decode_chain(place.blobs.read(ref))) for ref in refs]


def with_all_hops(place: Workplace, chain: Chain) -> Chain:
    slices = {}
    for name, entry in chain.slices.items():
        paged_hops = [hop for page in entry.pages for hop in decode_page(place.blobs.read(page.blob), page)]
        slices[name] = replace(entry, hops=(*entry.hops, *paged_hops))
    return replace(chain, slices=slices)


def check_blobs_are_there(place: Workplace, chains: list[Chain]) -> None:
    """Raise OriginError where a head with these chains would name blobs that are gone."""
    wanted = set(chain_blobs(chains))
    missing = sorted(ref.hex() for ref in wanted if ref.hex() not in place.blobs.names())
    if missing:
        raise OriginError(
            f"sign the head of dataset {place.dataset}: {len(missing)} of the {len(wanted)} blobs that it would name "
            f"are not in {place.shelf.where}, the first is {missing[0]}; put them back from a copy, or make anew "
            "what can be made with: edged origin verify --mend"
        )


def compose_head(place: Workplace, newest: VersionRow) -> tuple[Head, list[Chain]]:
    """The head of the newest version, or with a rollout that of the stable one which offers it; and their chains."""
    row, offer, chains = newest, None, []
    rollout = place.rollout
    if rollout is not None:
        stable = place.state.version_row(rollout.stable)
        if stable is None:
            raise OriginError(
                f"offer version {newest.version} of dataset {place.dataset}: version {rollout.stable}, the stable one, "
                "is no longer remembered; complete or withdraw the rollout"
            )
        chain, data = fit_chain(place, newest)
        chains.append(chain)
        ref = place.blobs.store("chain", data)
        slices = with_few_hops(slice_heads(place.state, newest, chain), newest.version, {})
        offer = Offer(rollout.salt, rollout.permille, newest.version, slices, ref, newest.schema_version)
        row = stable
    chain, data = fit_chain(place, row)
    chains.append(chain)
    check_blobs_are_there(place, chains)
    return build_head(place, row, chain, place.blobs.store("chain", data), offer), chains


def settle(place: Workplace, head: Head, chains: list[Chain], what: str) -> None:
    """The head is in place: note that, and delete what nothing leads to any more."""
    try:
        place.shelf.settle_head()
        with place.state.transaction(what):
            place.state.set_meta("live", head.newest_version)
            retention.forget(place.state, chains, place.keep, head.version)
            plans.forget_superseded(place.state, head.newest_version)
            retention.mark_unnamed(place.state, head, chains, place.now)
        with place.state.transaction(what):
            retention.collect(place.state, place.shelf, place.keep, place.now)
            if place.state.meta("takedown_unfinished"):
                place.blobs.sweep(older_s=0.0)
                place.state.set_meta("takedown_unfinished", None)
    except (OSError, StoreError) as fault:
        raise StoreError(
            f"{what}: version {head.newest_version} is live, but tidying up after it failed: {fault}; "
            "the next operation on the dataset does it"
        ) from fault
