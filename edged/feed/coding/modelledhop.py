"""The modelled form of a hop: keys and patches, arithmetic-coded with what both sides hold as the model.

For the hops that make up nearly all traffic, of a few hundred records at most: it costs some 5 microseconds a bit,
and 1.5 where this is compiled.
Changes go by collection and then by key, numbers in the order of numbers; first which records change and how, so that
all old ones are at hand, then the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from edged.errors import WireError
from edged.feed import cbor
from edged.feed.coding.arithmetic import BITS_MOST, ArithmeticDecoder, ArithmeticEncoder, Coder
from edged.feed.coding.aside import Aside, read_aside
from edged.feed.coding.changes import Entry, Lookup
from edged.feed.coding.octets import Octets
from edged.feed.coding.treecoding import TreeCoder, knowledge_of
from edged.feed.fieldpath import ABSENT
from edged.feed.names import check_collection, check_key

CHANGED, NEW, DELETED = range(3)
DIGITS = 15  # of a key that is coded as a number
LAST = "\U0010ffff"  # after any key that goes on otherwise
CHANGES_MOST = 1 << 16
CHANGE_BITS = 32  # coded for each change on top of the hop's bits: it costs the receiver more than that in any case
OLD_BYTES = 4 << 20  # of old values that are held and learnt from
MASS_OLD_BYTES = 256 << 10  # likewise, where changes are many
DECODED_BYTES = 256 << 10  # of these are held decoded as well
NEW_BYTES = 24 << 20  # of the values that it makes
MASS_LEADING_BITS = 4  # of numbers that are predicted
MASS_EXACT_BITS = 12  # of places in texts, which come again

Head = tuple[int, str, str]  # CHANGED, NEW or DELETED; collection, key
Base = tuple[bytes | None, Any]  # what a value is coded against, and the same decoded, ABSENT where it is not yet


def is_number(key: str) -> bool:
    """Whether `key` is a whole number as str() writes it."""
    return key.isascii() and key.isdigit() and len(key) <= DIGITS and (key[0] != "0" or key == "0")


def entry_order(entry: Entry) -> tuple[bytes, bytes]:
    return entry[0].encode(), entry[1].encode()


def encode_modelled(changes: Sequence[Entry], old: Lookup, dictionary: bytes, bits: int = BITS_MOST) -> bytes:
    """The few changes of an ordinary hop. bits: how many to code at most, besides CHANGE_BITS a change.

    Raises TooLong where that is more work than a receiver should be given, WireError for values not decodable.
    """
    encoder = ArithmeticEncoder(bits)
    HopCoder(encoder, old, dictionary, 1 << 62).write(in_coding_order(changes, old, by_place=False), encoder)
    return encoder.finish()


def decode_modelled(data: bytes, old: Lookup, dictionary: bytes, max_bytes: int) -> list[Entry]:
    """The changes in the order of collection and key. Raises WireError."""
    decoder = ArithmeticDecoder(data, "hop")
    changes = list(HopCoder(decoder, old, dictionary, min(max_bytes, NEW_BYTES)).run(()))
    decoder.finish()
    return sorted(changes, key=entry_order)


def encode_mass(changes: Sequence[Entry], old: Lookup, dictionary: bytes, bits: int = BITS_MOST) -> bytes:
    """The same for many changes: records are named by their places, and what looks like chance stands aside."""
    encoder = ArithmeticEncoder(bits)
    coder = HopCoder(encoder, old, dictionary, 1 << 62)
    aside = Aside()
    coder.be_mass(aside)
    coder.write(in_coding_order(changes, old, by_place=True), encoder)
    out = bytearray()
    aside.write(out, dictionary)
    return bytes(out) + encoder.finish()


def decode_mass(data: bytes, old: Lookup, dictionary: bytes, max_bytes: int) -> list[Entry]:
    """The changes in the order of collection and key. Raises WireError."""
    most = min(max_bytes, NEW_BYTES)
    octets = Octets(data, "hop")
    aside = read_aside(octets, dictionary, most)
    decoder = ArithmeticDecoder(octets.rest(), "hop")
    coder = HopCoder(decoder, old, dictionary, most)
    coder.be_mass(aside)
    changes = list(coder.run(()))
    decoder.finish()
    aside.finish()
    return sorted(changes, key=entry_order)


def in_coding_order(changes: Sequence[Entry], old: Lookup, *, by_place: bool) -> list[Entry]:
    """By collection, then by key: numbers in the order of numbers, unless records are named by their places."""
    ordered: list[Entry] = []
    for collection in sorted({change[0] for change in changes}, key=str.encode):
        mine = [change for change in changes if change[0] == collection]
        numeric = not by_place and all(is_number(change[1]) for change in mine)
        ordered += sorted(mine, key=lambda change: int(change[1])) if numeric else sorted(mine, key=entry_order)
    return ordered


class HopCoder:
    """Codes one hop, both directions; a reader is given no changes and returns those that were coded."""

    def __init__(self, coder: Coder, old: Lookup, dictionary: bytes, max_bytes: int) -> None:
        self.tree = TreeCoder(coder, knowledge_of(dictionary), max_bytes)
        self.decisions = self.tree.decisions
        self.coder, self.old = coder, old
        self.room, self.decoded_room = OLD_BYTES, DECODED_BYTES
        self.places = False

    def be_mass(self, aside: Aside) -> None:
        """Name records by their places, and learn from fewer of them: there are many."""
        self.tree.aside = aside
        self.places = True
        self.decisions.leading, self.decisions.exact = MASS_LEADING_BITS, MASS_EXACT_BITS
        self.decisions.spare = aside.bits
        self.room = MASS_OLD_BYTES

    def write(self, changes: Sequence[Entry], encoder: ArithmeticEncoder) -> None:
        """Raises TooLong, as soon as it can be told."""
        for done, _ in enumerate(self.run(changes), 1):
            encoder.foresee(done, len(changes))

    def run(self, changes: Sequence[Entry]) -> Iterator[Entry]:
        heads = list(self.heads(changes))
        bases = self.bases(heads)
        latest: dict[str, Any] = {}
        for place, (kind, collection, key) in enumerate(heads):
            if kind == DELETED:
                yield collection, key, None
                continue
            data = changes[place][2] if changes else None
            new = ABSENT if data is None else cbor.decode_held(data, f"{collection}/{key!r}")
            self.tree.key, self.tree.fresh, self.tree.edits = key, kind == NEW, []
            held: bytes | None = None
            base = latest.get(collection, ABSENT) if kind == NEW else ABSENT
            if base is ABSENT:
                held, base = bases[place]
                if held == b"":
                    held = self.old.get(collection, key)
                if base is ABSENT:
                    base = old_value(collection, held)
                bases[place] = None, ABSENT
                self.tree.record_bytes = len(held or b"")
            self.tree.record = ABSENT if kind == NEW else base
            value = self.tree.value(new, base, collection)
            if kind == NEW:
                latest[collection] = value
            made = self.encoded(value, held, f"{collection}/{key!r}")
            if data is not None and made != data:
                raise WireError(f"encode hop: {collection}/{key!r} is not deterministic CBOR (RFC 8949 section 4.2)")
            yield collection, key, made

    def encoded(self, value: Any, held: bytes | None, where: str) -> bytes:
        """A coded value's bytes: those of the old one, but for what the coding knows to differ. Raises WireError."""
        made = held
        for name, old, new in self.tree.edits:
            if made:
                made = cbor.with_field(made, name, old, new, where)
        return made if made and self.tree.edits else cbor.encode_record(value, where)

    def heads(self, changes: Sequence[Entry]) -> Iterator[Head]:
        """What becomes of which record."""
        decisions = self.decisions
        collection = previous = ""
        numeric, kind = False, CHANGED
        walk: Iterator[str] = iter(())
        for place in range(self.count(len(changes))):
            name, key, value = changes[place] if changes else ("", "", None)
            contexts = ("c", ("c", collection)) if self.places else ("c",)
            if not place or decisions.decide(name != collection, contexts):
                following = self.collection(name)
                if place and following.encode() <= collection.encode():
                    raise WireError("decode hop: collections are not in order")
                collection, previous = following, ""
                numeric = not self.places and self.is_numeric(changes, collection)
                walk = self.old.keys(collection) if self.places else iter(())
            was, kind = kind, DELETED if value is None else CHANGED
            if kind == CHANGED and changes and self.old.get(name, key) is None:
                kind = NEW
            if decisions.flag(kind == NEW, "kn", ("kn", was)):
                kind = NEW
            else:
                kind = DELETED if decisions.flag(kind == DELETED, "kd", ("kd", was)) else CHANGED
            if self.places and kind != NEW:
                found = self.place_key(key, collection, walk)
                if found.encode() <= previous.encode():
                    raise WireError(f"decode hop: keys are not in order at {collection}/{found!r:.80}")
                previous = found
            elif numeric:
                previous = self.number_key(key, previous, collection, (was, kind))
            else:
                previous = self.text_key(key, previous, collection, kind)
            self.tree.charge(len(previous))
            yield kind, collection, check_key(previous)

    def count(self, count: int) -> int:
        found = self.decisions.number(count, "n")
        self.coder.allow(min(found, CHANGES_MOST) * CHANGE_BITS)
        if found > CHANGES_MOST:
            raise WireError(f"decode hop: {found} changes, at most {CHANGES_MOST} are allowed in this form")
        return found

    def collection(self, name: str) -> str:
        for known in self.tree.knowledge.values:
            if self.decisions.flag(known == name, "cn"):
                return known
        return check_collection(self.tree.text(name or ABSENT, None, "#"))

    def is_numeric(self, changes: Sequence[Entry], collection: str) -> bool:
        """Whether all keys of a collection's changes are numbers, which the last of the old ones is a hint of."""
        last = self.old.before(collection, LAST)
        hint = last is not None and is_number(last[0])
        return bool(self.decisions.flag(all(is_number(c[1]) for c in changes if c[0] == collection), ("#", hint)))

    def number_key(self, key: str, previous: str, collection: str, context: tuple[int, int]) -> str:
        """The first key of a collection in as many bits as an old one has; then what is added to the one before."""
        if previous:
            start = int(previous) + 1
            found = start + self.decisions.number(int(key) - start if key else 0, "ks", ("ks", context))
        else:
            last = self.old.before(collection, LAST)
            bits = int(last[0]).bit_length() + 1 if last is not None and is_number(last[0]) else 16
            number = int(key or "0")
            if self.decisions.flag(number >> bits != 0, "kf"):
                found = self.decisions.number(number, "kl")
            else:
                found = self.decisions.even(number, bits)
        return str(found)

    def place_key(self, key: str, collection: str, walk: Iterator[str]) -> str:
        """An old record by how many stand between it and the one before. walk: goes on from that one."""
        gap = 0
        if key:
            for found in walk:
                if found == key:
                    break
                gap += 1
        coded = self.decisions.number(gap, "pl", ("pl", collection))
        if not key:
            found = next(islice(walk, coded, None), "")
            if not found:
                raise WireError("decode hop: names a record that is not here; it was made for another version")
            return found
        return key

    def text_key(self, key: str, previous: str, collection: str, kind: int) -> str:
        """A new key in full; of an old one so much as tells it from those that follow it."""
        path = f"{collection}#"
        self.tree.key, self.tree.fresh = "", False
        if kind == NEW:
            found = self.tree.text(key or ABSENT, previous, path)
        else:
            probe = self.probe(collection, key) if key else None
            if self.decisions.flag(probe is None and bool(key), "kp"):
                found = self.tree.text(key or ABSENT, previous, path)
            else:
                near = self.old.before(collection, self.tree.text(probe or ABSENT, previous, path) + LAST)
                if near is None:
                    raise WireError("decode hop: names a record that is not here; it was made for another version")
                found = near[0]
        if found.encode() <= previous.encode():
            raise WireError(f"decode hop: keys are not in order at {collection}/{found!r:.80}")
        self.tree.field(path).learn(found.encode())
        return found

    def probe(self, collection: str, key: str) -> str | None:
        """The shortest beginning of `key` that is of no key after it; None if there is none."""
        low, high = 1, len(key) + 1
        while low < high:  # the longer the beginning, the fewer other keys share it
            size = (low + high) // 2
            near = self.old.before(collection, key[:size] + LAST)
            if near is not None and near[0] == key:
                high = size
            else:
                low = size + 1
        return key[:low] if low <= len(key) else None

    def bases(self, heads: Sequence[Head]) -> list[Base]:
        """What each value is coded against: its old value, or a new record's neighbour. Learns from all of them."""
        found: list[Base] = []
        near = ("", "")
        like: Base = (None, ABSENT)
        for kind, collection, key in heads:
            data = self.old.get(collection, key)
            if (data is None) != (kind == NEW):
                raise WireError(f"decode hop: made for another version, {collection}/{key!r:.80} tells")
            if data is not None:
                found.append((None, ABSENT) if kind == DELETED else self.at_hand(collection, data))
                continue
            neighbour = self.old.before(collection, key)
            if neighbour is None:
                like = None, ABSENT
            elif near != (collection, neighbour[0]):
                near = (collection, neighbour[0])
                like = self.at_hand(collection, neighbour[1])
            found.append(like)
        return found

    def at_hand(self, collection: str, data: bytes) -> Base:
        """Old bytes to hold and learn from; b"" where there are too many, to be asked for again in their turn.

        Of so many more only the bytes are held: decoded they take many times the room.
        """
        self.room -= len(data)
        if self.room < 0:
            return b"", ABSENT
        value = self.tree.learn(data, collection)
        self.decoded_room -= len(data)
        return data, value if self.decoded_room >= 0 else ABSENT


def old_value(collection: str, data: bytes | None) -> Any:
    return ABSENT if data is None else cbor.decode_held(data, f"old record of {collection}")
