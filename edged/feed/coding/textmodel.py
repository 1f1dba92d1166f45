"""Predicts text and decisions from what both sides already hold, for coding hops of a few hundred bytes.

A field's texts, those of the dictionary and those of the records at hand, are the model: the bytes that followed the
last one to six bytes there vote on the next. Nothing is trained ahead: what followed a context is looked up when it
is first met, so a hop costs time in proportion to its own length and not to the dictionary's.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, final

from edged.errors import WireError
from edged.feed.coding.arithmetic import LOGIT_MOST, ONE, SCALE, SQUASH, STRETCH, Coder

if TYPE_CHECKING:  # machine words where this is compiled, plain integers where it is not
    from mypy_extensions import i64

    from edged.feed.coding.octets import Bits

END: Final = 0xFF  # closes a text; no byte of UTF-8
ORDERS: Final = [0, 1, 2, 3, 4, 6]  # lengths of the contexts that vote
HISTORY: Final = ORDERS[-1]
NEAREST_BYTES: Final = (
    12_000  # how far back a context of one byte is counted; longer ones further, by their length squared
)
FOLLOWERS: Final = 255  # counted for one context at most
KNOWN_CONTEXTS: Final = 1 << 14  # whose counts are kept to be asked for again: of one dictionary, and of one hop
CONTEXTS_MOST: Final = 1 << 14  # noted in one hop, and as many decisions: what a hostile one can make us remember
HOLDING: Final = 8  # bytes of a token that tell it from others
RECENT_WEIGHT: Final = 3  # what was seen in this hop's own records counts for so many of the dictionary's

PLACES_MOST: Final = 64  # at which a context stands that are kept, so that longer ones need be looked for only there

# How often each symbol came after a context, `symbol << COUNT_BITS | times` in the order of symbols. A symbol may stand
# there more than once. Such a number fits one digit of a Python integer.
Counts = list[int]
COUNT_BITS: Final = 22
COUNT: Final = (1 << COUNT_BITS) - 1


@final
class Followers:
    """What followed a context in a corpus. places: where it stands, all of them; None where they are too many."""

    __slots__ = ("counts", "places", "total")
    total: i64

    def __init__(self, counts: Counts, total: i64, places: array[int] | None) -> None:
        self.counts, self.total, self.places = counts, total, places


NOWHERE: Final = Followers([], 0, array("I"))


@final
class Recent:
    """What followed a context in this hop's own records."""

    __slots__ = ("counts", "total")
    total: i64

    def __init__(self, symbol: i64) -> None:
        self.counts: Counts = [symbol << COUNT_BITS | RECENT_WEIGHT]
        self.total = RECENT_WEIGHT

    def add(self, symbol: i64) -> None:
        counts = self.counts
        self.total += RECENT_WEIGHT
        place: i64 = 0
        for place in range(len(counts)):
            count: i64 = counts[place]
            if count >> COUNT_BITS == symbol:
                counts[place] = count + RECENT_WEIGHT
                return
            if count >> COUNT_BITS > symbol:
                counts.insert(place, symbol << COUNT_BITS | RECENT_WEIGHT)
                return
        counts.append(symbol << COUNT_BITS | RECENT_WEIGHT)


@final
class Known:
    """What was found in many corpora and can be found anew: all is forgotten at once when there are KNOWN_CONTEXTS."""

    def __init__(self) -> None:
        self.corpora: list[dict[bytes, Followers]] = []
        self.left = KNOWN_CONTEXTS

    def add(self) -> dict[bytes, Followers]:
        """The place for one more corpus."""
        corpus: dict[bytes, Followers] = {}
        self.corpora.append(corpus)
        return corpus

    def spend(self) -> None:
        """To be called before one more context is kept."""
        if self.left == 0:
            self.left = KNOWN_CONTEXTS
            for corpus in self.corpora:
                corpus.clear()
        self.left -= 1


@final
class Corpus:
    """Texts of one field. Searched for a context when that is first asked for, and the result remembered.

    weight: what each time counts for.
    """

    def __init__(self, known: Known, weight: int = 1) -> None:
        self.text = bytearray([END])
        self.weight = weight
        self.budget, self.known = known, known.add()

    def add(self, text: bytes) -> None:
        self.text += text
        self.text.append(END)
        self.known.clear()

    def followers(self, context: bytes, shorter: Followers | None) -> Followers:
        """What followed `context`, not to be changed by the caller. shorter: what was found for its end, of ORDERS."""
        found = self.known.get(context)
        if found is None:
            places = None if shorter is None else shorter.places
            if places is None:
                found = self.search(context)
            elif places:
                found = self.narrow(context, places)
            else:  # what is nowhere goes on nowhere
                return NOWHERE
            self.budget.spend()
            self.known[context] = found
        return found

    def search(self, context: bytes) -> Followers:
        text, size = self.text, len(context)
        begin = max(0, len(text) - size - NEAREST_BYTES * max(1, size * size))
        at = begin
        places = []
        for _ in range(FOLLOWERS):
            at = text.find(context, at, -1)
            if at < 0:
                break
            places.append(at)
            at += 1
        few = len(places) <= PLACES_MOST and begin == 0
        return self.found(places, size, array("I", places) if few else None)

    def narrow(self, context: bytes, shorter: array[int]) -> Followers:
        """The same by the places of the end of `context`."""
        text, size = self.text, len(context)
        more = 1 if size <= ORDERS[-2] else size - ORDERS[-2]
        places = [at - more for at in shorter if at >= more and text.startswith(context, at - more)]
        return self.found(places, size, array("I", places))

    def found(self, places: list[int], size: int, kept: array[int] | None) -> Followers:
        """What stands after a context of `size` bytes at these places."""
        text, weight = self.text, self.weight
        if not places:
            return NOWHERE
        if len(places) == 1:
            return Followers([text[places[0] + size] << COUNT_BITS | weight], weight, kept)
        times: dict[int, int] = {}
        for at in places:
            follower = text[at + size]
            times[follower] = times.get(follower, 0) + weight
        counts = sorted([follower << COUNT_BITS | count for follower, count in times.items()])
        return Followers(counts, weight * len(places), kept)


@final
class HopMemory:
    """What the fields of one hop may remember together."""

    def __init__(self) -> None:
        self.known = Known()
        self.left = CONTEXTS_MOST  # that may still be noted


@final
class Field:
    """A field's texts while one hop is coded: the dictionary's, those of the records at hand, and what was coded.

    corpus: the dictionary's, None where it has none; it is shared with other hops, and only asked.
    """

    def __init__(self, corpus: Corpus | None, memory: HopMemory) -> None:
        self.corpus, self.memory = corpus or Corpus(memory.known), memory
        self.at_hand: Corpus | None = None
        self.recent: dict[bytes, Recent] = {}

    def note(self, history: bytes, symbol: i64) -> None:
        """Remember that `symbol` came after `history`."""
        size = len(history)
        for order in ORDERS:
            if order > size:
                break
            context = history[size - order :]
            recent = self.recent.get(context)
            if recent is not None:
                recent.add(symbol)
            elif self.memory.left:
                self.memory.left -= 1
                self.recent[context] = Recent(symbol)

    def learn(self, text: bytes) -> None:
        """Take in a whole text that both sides hold; costs next to nothing until the field's texts are coded."""
        if self.at_hand is None:
            self.at_hand = Corpus(self.memory.known, RECENT_WEIGHT)
        self.at_hand.add(text)

    def holds(self, text: bytes) -> bool:
        """Whether both sides hold a text that begins so, as far as it tells."""
        start = text[:HOLDING]
        return start in self.corpus.text or (self.at_hand is not None and start in self.at_hand.text)

    def vote(self, history: bytes, ballots: list[Ballot]) -> int:
        """Hand each of ORDERS, up to the longest that was met, what came after `history`'s end. Returns how many."""
        shorter: Followers | None = None
        nearer: Followers | None = None
        size = len(history)
        voting = 0
        for order in ORDERS:
            if order > size:
                break
            context = history[size - order :]
            shorter = self.corpus.followers(context, shorter)
            counts, total, sources = shorter.counts, shorter.total, 1
            if self.at_hand is not None:
                nearer = self.at_hand.followers(context, nearer)
                if nearer.total:
                    counts, total, sources = counts + nearer.counts, total + nearer.total, 2
            recent = self.recent.get(context)
            if recent is not None:
                counts, total, sources = counts + recent.counts, total + recent.total, 2
            if order and not total:  # then no longer context was met either
                break
            if sources > 1:
                counts.sort()
            ballots[voting].open(counts, total)
            voting += 1
        return voting


DOUBT: Final = [
    5,
    5,
    4,
    3,
    2,
    2,
]  # added to both counts, in sixteenths, by order: the longer a context, the surer it is
WEIGHT = ONE // 3  # of each order's vote at first; in sixteen bits
RATE: Final = 4  # how fast the weights follow


def probability_of(total: i64) -> i64:
    """What a sum of weighted logits comes to."""
    logit: i64 = (total >> SCALE) + LOGIT_MOST
    if logit < 0:
        return SQUASH[0]
    if logit > 2 * LOGIT_MOST:
        return SQUASH[2 * LOGIT_MOST]
    return SQUASH[logit]


@final
class Ballot:
    """The votes of one order on a symbol, bit by bit: those from `low` to `high` agree with the bits so far.

    both: how often they came; ones, middle: of those whose next bit is 1, how often, and where they begin.
    """

    __slots__ = ("both", "counts", "high", "logit", "low", "middle", "ones")
    low: i64
    high: i64
    middle: i64
    both: i64
    ones: i64
    logit: i64

    def __init__(self) -> None:
        self.open([], 0)

    def open(self, counts: Counts, total: i64) -> None:
        self.counts, self.both = counts, total
        self.low, self.high = 0, len(counts)
        self.middle = self.ones = self.logit = 0

    def vote(self, shift: i64, doubt: i64) -> i64:
        """The logit that the bit at `shift` is 1."""
        counts, at, ones = self.counts, self.low, self.both
        if counts[self.high - 1] >> shift & 1:
            count: i64 = counts[at]
            while not count >> shift & 1:
                ones -= count & COUNT
                at += 1
                count = counts[at]
        else:
            at, ones = self.high, 0
        self.middle, self.ones = at, ones
        self.logit = STRETCH[(ones * 16 + doubt) * 4095 // (self.both * 16 + 2 * doubt)]
        return self.logit

    def follow(self, bit: i64) -> None:
        """Keep those that agree with the bit as it was."""
        if bit:
            self.low, self.both = self.middle, self.ones
        else:
            self.high, self.both = self.middle, self.both - self.ones


@final
class TextCoder:
    """Codes bytes of text by mixing the votes of all orders; the mix adapts as it goes."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self.weights = [[WEIGHT] * len(ORDERS) for _ in ORDERS]  # by the longest order that votes
        self.ballots = [Ballot() for _ in ORDERS]

    def symbol(self, symbol: i64, field: Field, history: bytes) -> i64:
        """Code one byte, or END, that comes after `history`."""
        voting = field.vote(history, self.ballots)
        weights = self.weights[voting - 1]
        coded: i64 = 0
        for shift in range(7, -1, -1):
            total: i64 = 0
            for order in range(voting):
                ballot = self.ballots[order]
                if ballot.both:
                    total += ballot.vote(COUNT_BITS + shift, DOUBT[order]) * weights[order]
            probability: i64 = probability_of(total)
            bit: i64 = self.coder.code(symbol >> shift & 1, probability)
            error: i64 = ((bit << SCALE) - probability) * RATE
            for order in range(voting):
                ballot = self.ballots[order]
                if ballot.both:
                    weights[order] += ballot.logit * error >> SCALE
                    ballot.follow(bit)
            coded = coded << 1 | bit
        return coded


SEEN_MOST: Final = 23
STEP: Final = [ONE * 2 // (2 * n + 3) for n in range(SEEN_MOST + 1)]  # how far a counter moves, by times seen
TRUST: Final = [ONE * n // (2 * n + 2) for n in range(SEEN_MOST + 1)]  # the weight of its vote
LEADING_BITS = 3  # of a number that are predicted; more are worth it where there are many
SPARE_BITS: Final = 16  # of a number that follow those predicted: from so many on they stand aside
SHORT_BITS: Final = 14  # of a number whose length is told bit by bit
LONG_SHIFT: Final = 6  # bits of the length beyond
LENGTH_MOST: Final = 66  # bits of a number: the difference of two 64-bit ones


@final
class Counter:
    """How a decision fell in one context: the probability of 1 (of ONE), and how often it was seen."""

    __slots__ = ("probability", "seen")
    probability: i64
    seen: i64

    def __init__(self, probability: i64 = ONE // 2, seen: i64 = 0) -> None:
        self.probability, self.seen = probability, seen


@final
class Decisions:
    """Codes yes-or-no decisions, each predicted from how it fell before in the same and in like contexts."""

    def __init__(self, coder: Coder, counters: dict[object, Counter]) -> None:
        self.coder = coder
        self.leading = self.exact = LEADING_BITS
        self.spare: Bits | None = None
        self.primed, self.untouched = counters, len(counters)  # copied one by one: most hops need few of them
        self.counters: dict[object, Counter] = {}

    def flag(self, bit: int, *contexts: object) -> int:
        """Code a decision; each of its contexts has a counter that votes."""
        return self.decide(bit, contexts)

    def decide(self, bit: int, contexts: tuple[object, ...]) -> int:
        used: list[Counter] = []
        total: i64 = 0
        for context in contexts:
            counter = self.counters.get(context)
            if counter is None:
                first = self.primed.get(context)
                if first is None:
                    counter = Counter()
                    if len(self.counters) + self.untouched < CONTEXTS_MOST:
                        self.counters[context] = counter
                else:
                    self.untouched -= 1
                    counter = self.counters[context] = Counter(first.probability, first.seen)
                    total += STRETCH[counter.probability >> 4] * TRUST[counter.seen]
            else:
                total += STRETCH[counter.probability >> 4] * TRUST[counter.seen]
            used.append(counter)
        fell: i64 = self.coder.code(bit, probability_of(total))
        goal: i64 = ONE - 1 if fell else 0
        for counter in used:
            counter.probability += (goal - counter.probability) * STEP[counter.seen] >> SCALE
            if counter.seen < SEEN_MOST:
                counter.seen += 1
        return fell

    def number(self, number: int, *contexts: object) -> int:
        """Code a whole number from 0: its length in bits and its leading bits by decisions; the rest evenly."""
        return self.coded(number, contexts, self.leading)

    def position(self, number: int, *contexts: object) -> int:
        """Likewise one that is likely to come again, bit for bit where there are many."""
        return self.coded(number, contexts, self.exact)

    def coded(self, number: int, contexts: tuple[object, ...], most: int) -> int:
        length = self.length((number + 1).bit_length(), contexts)
        value, leading = 1, min(length - 1, most - 1)
        for place in range(length - 2, length - 2 - leading, -1):
            bit = self.decide((number + 1) >> place & 1, tuple([(context, length, value) for context in contexts]))
            value = value << 1 | bit
        rest = length - 1 - leading
        low = (number + 1) & (1 << rest) - 1
        if self.spare is not None and rest >= SPARE_BITS:
            return (value << rest | self.spare.number(low, rest)) - 1
        return (value << rest | self.even(low, rest)) - 1

    def length(self, size: int, contexts: tuple[object, ...]) -> int:
        """A number's length in bits, one by one; in the form for many from SHORT_BITS on as a number of its own."""
        length = 1
        while length < LENGTH_MOST:
            if not self.decide(length < size, tuple([(context, length) for context in contexts])):
                return length
            length += 1
            if length == SHORT_BITS and self.spare is not None:
                break
        else:
            return length
        node = 1
        for shift in range(LONG_SHIFT - 1, -1, -1):
            bit = max(size - SHORT_BITS, 0) >> shift & 1
            node = node << 1 | self.decide(bit, tuple([(context, "long", node) for context in contexts]))
        length = SHORT_BITS + node - (1 << LONG_SHIFT)
        if length > LENGTH_MOST:
            raise WireError(f"decode hop: a number of {length} bits, at most {LENGTH_MOST} are allowed; fetch it again")
        return length

    def even(self, number: int, bits: int) -> int:
        """Code a number of `bits` bits, all alike."""
        value = 0
        for place in range(bits - 1, -1, -1):
            value = value << 1 | self.coder.code(number >> place & 1, ONE // 2)
        return value
