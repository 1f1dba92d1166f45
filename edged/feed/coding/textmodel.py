"""Predicts text and decisions from what both sides already hold, for coding hops of a few hundred bytes.

A field's texts, those of the dictionary and those of the records at hand, are the model: the bytes that followed the
last one to six bytes there vote on the next. Nothing is trained ahead: what followed a context is looked up when it
is first met, so a hop costs time in proportion to its own length and not to the dictionary's.
"""

from __future__ import annotations

from edged.feed.coding.arithmetic import LOGIT_MOST, ONE, SQUASH, STRETCH, Coder

END = 0xFF  # closes a text; no byte of UTF-8
ORDERS = (0, 1, 2, 3, 4, 6)  # lengths of the contexts that vote
HISTORY = ORDERS[-1]
NEAREST_BYTES = 12_000  # how far back a context of one byte is counted; longer ones further, by their length squared
FOLLOWERS = 255  # counted for one context at most
KNOWN_CONTEXTS = 1 << 14  # whose counts are kept to be asked for again: of one dictionary, and of one hop
CONTEXTS_MOST = 1 << 14  # noted in one hop, and as many decisions: what a hostile one can make us remember
RECENT_WEIGHT = 3  # what was seen in this hop's own records counts for so many of the dictionary's

Counts = dict[int, int]


class Known:
    """Counts of many corpora that can be made anew: all are forgotten at once when there are KNOWN_CONTEXTS."""

    def __init__(self) -> None:
        self.corpora: list[dict[bytes, Counts]] = []
        self.left = KNOWN_CONTEXTS

    def add(self) -> dict[bytes, Counts]:
        """The place for one more corpus."""
        self.corpora.append({})
        return self.corpora[-1]

    def spend(self) -> None:
        """To be called before one more context is kept."""
        if self.left == 0:
            self.left = KNOWN_CONTEXTS
            for corpus in self.corpora:
                corpus.clear()
        self.left -= 1


class Corpus:
    """Texts of one field. Searched for a context when that is first asked for, and the result remembered."""

    def __init__(self, known: Known) -> None:
        self.text = bytearray([END])
        self.budget, self.known = known, known.add()

    def add(self, text: bytes) -> None:
        self.text += text
        self.text.append(END)
        self.known.clear()

    def followers(self, context: bytes) -> Counts:
        """How often which byte followed `context`. Not to be changed by the caller."""
        counts = self.known.get(context)
        if counts is None:
            counts = self.count(context)
            self.budget.spend()
            self.known[context] = counts
        return counts

    def count(self, context: bytes) -> Counts:
        text, size = self.text, len(context)
        counts: Counts = {}
        last = len(text) - size
        at = max(0, last - NEAREST_BYTES * max(1, size * size))
        for _ in range(FOLLOWERS):
            at = text.find(context, at, -1)
            if at < 0:
                break
            follower = text[at + size]
            counts[follower] = counts.get(follower, 0) + 1
            at += 1
        return counts


class HopMemory:
    """What the fields of one hop may remember together."""

    def __init__(self) -> None:
        self.known = Known()
        self.left = CONTEXTS_MOST  # that may still be noted


class Field:
    """A field's texts while one hop is coded: the dictionary's, those of the records at hand, and what was coded.

    corpus: the dictionary's, None where it has none; it is shared with other hops, and only asked.
    """

    def __init__(self, corpus: Corpus | None, memory: HopMemory) -> None:
        self.corpus, self.memory = corpus or Corpus(memory.known), memory
        self.at_hand: Corpus | None = None
        self.recent: dict[bytes, Counts] = {}

    def note(self, history: bytes, symbol: int) -> None:
        """Remember that `symbol` came after `history`."""
        recent, size = self.recent, len(history)
        for order in ORDERS:
            if order > size:
                break
            context = history[size - order :]
            counts = recent.get(context)
            if counts is not None:
                counts[symbol] = counts.get(symbol, 0) + RECENT_WEIGHT
            elif self.memory.left:
                self.memory.left -= 1
                recent[context] = {symbol: RECENT_WEIGHT}

    def learn(self, text: bytes) -> None:
        """Take in a whole text that both sides hold; costs next to nothing until the field's texts are coded."""
        if self.at_hand is None:
            self.at_hand = Corpus(self.memory.known)
        self.at_hand.add(text)

    def votes(self, history: bytes) -> list[list[tuple[int, int]]]:
        """For each of ORDERS, up to the longest that was met: (symbol, count) of what came after `history`'s end."""
        found: list[list[tuple[int, int]]] = []
        size = len(history)
        for order in ORDERS:
            if order > size:
                break
            context = history[size - order :]
            counts = self.corpus.followers(context)
            at_hand = self.at_hand.followers(context) if self.at_hand else None
            recent = self.recent.get(context)
            if at_hand or recent:
                counts = dict(counts)
                for symbol, count in at_hand.items() if at_hand else ():
                    counts[symbol] = counts.get(symbol, 0) + count * RECENT_WEIGHT
                for symbol, count in recent.items() if recent else ():
                    counts[symbol] = counts.get(symbol, 0) + count
            if order and not counts:  # then no longer context was met either
                break
            found.append(list(counts.items()))
        return found


DOUBT = (5, 5, 4, 3, 2, 2)  # added to both counts, in sixteenths, by order: the longer a context, the surer it is
WEIGHT = ONE // 3  # of each order's vote at first; in sixteen bits
RATE = 4  # how fast the weights follow


class TextCoder:
    """Codes bytes of text by mixing the votes of all orders; the mix adapts as it goes."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self.weights = [[WEIGHT] * len(ORDERS) for _ in ORDERS]  # by the longest order that votes

    def symbol(self, symbol: int, field: Field, history: bytes) -> int:
        """Code one byte, or END, that comes after `history`."""
        votes = field.votes(history)
        weights = self.weights[len(votes) - 1]
        code = self.coder.code
        coded = 0
        for shift in range(7, -1, -1):
            used: list[tuple[int, int]] = []
            total = 0
            for order, candidates in enumerate(votes):
                ones = both = 0
                for candidate, count in candidates:
                    both += count
                    if candidate >> shift & 1:
                        ones += count
                if both:
                    doubt = DOUBT[order]
                    logit = STRETCH[(ones * 16 + doubt) * 4095 // (both * 16 + 2 * doubt)]
                    total += logit * weights[order]
                    used.append((order, logit))
            probability = SQUASH[max(0, min(2 * LOGIT_MOST, (total >> 16) + LOGIT_MOST))]
            bit = code(symbol >> shift & 1, probability)
            error = ((bit << 16) - probability) * RATE
            for order, logit in used:
                weights[order] += logit * error >> 16
            coded = coded << 1 | bit
            votes = [[vote for vote in candidates if vote[0] >> shift & 1 == bit] for candidates in votes]
        return coded


Counter = list[int]  # [probability of 1, of ONE; times seen]
SEEN_MOST = 23
STEP = [ONE * 2 // (2 * n + 3) for n in range(SEEN_MOST + 1)]  # how far a counter moves, by times seen
TRUST = [ONE * n // (2 * n + 2) for n in range(SEEN_MOST + 1)]  # the weight of its vote
LEADING_BITS = 3  # of a number that are predicted; more are worth it where there are many
LENGTH_MOST = 66  # bits of a number: the difference of two 64-bit ones


class Decisions:
    """Codes yes-or-no decisions, each predicted from how it fell before in the same and in like contexts."""

    def __init__(self, coder: Coder, counters: dict[object, Counter]) -> None:
        self.coder, self.leading = coder, LEADING_BITS
        self.counters = {context: list(counter) for context, counter in counters.items()}

    def flag(self, bit: int, *contexts: object) -> int:
        """Code a decision; each of its contexts has a counter that votes."""
        counters = self.counters
        used: list[Counter] = []
        total = 0
        for context in contexts:
            counter = counters.get(context)
            if counter is None:
                counter = [ONE // 2, 0]
                if len(counters) < CONTEXTS_MOST:
                    counters[context] = counter
            else:
                total += STRETCH[counter[0] >> 4] * TRUST[counter[1]]
            used.append(counter)
        bit = self.coder.code(bit, SQUASH[max(0, min(2 * LOGIT_MOST, (total >> 16) + LOGIT_MOST))])
        goal = ONE - 1 if bit else 0
        for counter in used:
            seen = counter[1]
            counter[0] += (goal - counter[0]) * STEP[seen] >> 16
            if seen < SEEN_MOST:
                counter[1] = seen + 1
        return bit

    def number(self, number: int, *contexts: object) -> int:
        """Code a whole number from 0: its length in bits and its leading bits by decisions; the rest evenly."""
        size = (number + 1).bit_length()
        length = 1
        while length < LENGTH_MOST and self.flag(length < size, *((context, length) for context in contexts)):
            length += 1
        value = 1
        for place in range(length - 2, -1, -1):
            bit = (number + 1) >> place & 1
            if length - place <= self.leading:
                bit = self.flag(bit, *((context, length, value) for context in contexts))
            else:
                bit = self.coder.code(bit, ONE // 2)
            value = value << 1 | bit
        return value - 1

    def even(self, number: int, bits: int) -> int:
        """Code a number of `bits` bits, all alike."""
        value = 0
        for place in range(bits - 1, -1, -1):
            value = value << 1 | self.coder.code(number >> place & 1, ONE // 2)
        return value
