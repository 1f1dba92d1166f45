"""A dataset's live version in one file, for firmware images and devices without a network: `edged bundle export`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain as joined
from pathlib import Path

from edged.errors import ChainError, OriginError
from edged.feed.blob import BlobRef
from edged.feed.bundle import Bundle
from edged.feed.chain import SliceChain, decode_chain, decode_page
from edged.feed.coding.hop import NO_DICTIONARY_TAG, dictionary_tag, tag_of
from edged.feed.coding.snapshot import unpack_dictionary
from edged.feed.head import Head
from edged.feed.names import check_name
from edged.feed.plan import plan
from edged.feed.trust import succession
from edged.feed.trust.root import verify_head
from edged.files import prepare, swap, sync_directory
from edged.origin.shelves.opening import open_shelves

ReadBlob = Callable[[BlobRef], bytes]


@dataclass(frozen=True, slots=True)
class Exported:
    """What a bundle holds. size: of the file in bytes."""

    dataset: str
    version: int
    slices: tuple[str, ...]
    blobs: int
    size: int


def export_bundle(feed_dir: Path, out: Path, dataset: str, slices: Iterable[str] = ()) -> Exported:
    """Write the live head of `dataset` and what leads to it from nothing into the file `out`.

    slices: beside core; none: core alone. Raises OriginError if FEED_DIR has no such feed or slice, WireError or
    TrustError if what it has is damaged, StoreError if it cannot be read or `out` not written, which is then as it was.
    """
    shelf = open_shelves(feed_dir).of(check_name(dataset, "dataset"))
    head = shelf.head()
    if head is None:
        raise OriginError(f"export {dataset} from {feed_dir}: there is no {shelf.where}/head; is it published there?")
    numbered: dict[int, bytes] = {}
    while (document := shelf.root(len(numbered) + 1)) is not None:
        numbered[len(numbered) + 1] = document
    if not numbered:
        raise OriginError(f"export {dataset} from {feed_dir}: there is no {shelf.where}/trust/1; copy the feed again")
    return write_bundle(out, dataset, head, numbered, frozenset(slices), shelf.read)


def write_bundle(
    out: Path, dataset: str, data: bytes, numbered: dict[int, bytes], slices: frozenset[str], read_blob: ReadBlob
) -> Exported:
    """As `export_bundle`, from a head, its roots by number from 1 on, and a way to read verified blobs."""
    known = succession.restore(numbered[1], None, "root of trust 1")
    for number in range(2, len(numbered) + 1):
        known = known.followed_by(numbered[number])
    head = verify_head(data, known.newest, dataset).head
    carried = slices | {"core"}
    missing = sorted(carried - head.slices.keys())
    if missing:
        raise OriginError(f"export {dataset}: no slice {', '.join(missing)}; it has {', '.join(sorted(head.slices))}")
    refs = needed_blobs(head, carried, read_blob)
    bundle = Bundle(dataset, carried, data, numbered, refs)
    index = bundle.encode()
    swap(prepare(out, joined([index], map(read_blob, refs)), None), out)
    sync_directory(out.parent)
    size = len(index) + sum(ref.size for ref in refs)
    return Exported(dataset, head.version, tuple(sorted(carried)), len(refs), size)


def needed_blobs(head: Head, carried: frozenset[str], read_blob: ReadBlob) -> tuple[BlobRef, ...]:
    """Everything that a device asks for on its way from nothing to `head`, each blob once, in that order."""
    chain = decode_chain(read_blob(head.chain))
    refs = [head.chain]
    if head.takedowns is not None:
        refs.append(head.takedowns)
    for name in sorted(carried):
        entry, live = chain.slices.get(name), head.slices[name]
        if entry is None:
            raise ChainError(f"export {head.dataset}: the chain lacks slice {name}; publish again")
        while (path := plan(entry, None, live.version, inlined=live.hops)).pages:
            for page in path.pages:
                refs.append(page.blob)
                entry = entry.with_page(page, decode_page(read_blob(page.blob), page))
        refs.extend(path.blobs)
        snapshot = None if path.snapshot is None else path.snapshot.dictionary
        for hop in path.hops:
            content = hop.inline if hop.inline is not None else read_blob(hop.blob)
            refs.extend(dictionaries_for(dictionary_tag(content), snapshot, entry, read_blob))
    return tuple(dict.fromkeys(refs))


def dictionaries_for(tag: bytes, held: BlobRef | None, entry: SliceChain, read_blob: ReadBlob) -> list[BlobRef]:
    """The dictionaries that a device tries, in its order, until it has the one of a hop with this `tag`."""
    if tag == NO_DICTIONARY_TAG or (held is not None and tag_of(unpack_dictionary(read_blob(held))) == tag):
        return []
    tried: list[BlobRef] = []
    for ref in entry.dictionary_refs():
        tried.append(ref)
        if tag_of(unpack_dictionary(read_blob(ref))) == tag:
            break
    return tried
