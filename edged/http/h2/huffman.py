"""The string code of HPACK (RFC 7541 section 5.2 and appendix B), decoded a byte at a time.

The code itself is the `hpack` library's; what it decodes is a nibble at a time, which costs twice as much. A byte seen
at one place of the code tree is looked up from then on: text uses few of the places that there are.
"""

from __future__ import annotations

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

END_OF_STRING = 256
STEPS = 8192  # remembered at most, some 1 MB; there are 65,536
LONGEST_PADDING = 7

# What one byte at one place leads to: the octets that it completes, and the place after it.
Step = tuple[bytes, int]


class HuffmanError(Exception):
    """A string that the code does not make."""


class HuffmanDecoder:
    """places: of the code tree, each with what a 0 and a 1 lead to: another place, or ~symbol; ends: where a string may
    end, which is after less than a byte of the first bits of the end's code, all ones.
    """

    def __init__(self) -> None:
        self.places: list[list[int]] = [[0, 0]]
        for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
            place = 0
            for shift in range(length - 1, 0, -1):
                bit = code >> shift & 1
                if not self.places[place][bit]:
                    self.places.append([0, 0])
                    self.places[place][bit] = len(self.places) - 1
                place = self.places[place][bit]
            self.places[place][code & 1] = ~symbol
        self.ends = {0}
        place = 0
        for _ in range(LONGEST_PADDING):
            place = self.places[place][1]
            self.ends.add(place)
        self.steps: dict[int, Step] = {}

    def decode(self, data: bytes) -> bytes:
        """Raises HuffmanError for the end's own code and for padding that is too long or not of ones."""
        steps, place, parts = self.steps, 0, []
        for octet in data:
            found = steps.get(place << 8 | octet)
            if found is None:
                found = self.step(place, octet)
            parts.append(found[0])
            place = found[1]
        if place not in self.ends:
            raise HuffmanError("a Huffman-coded string: expected padding of at most 7 bits, all ones")
        return b"".join(parts)

    def step(self, place: int, octet: int) -> Step:
        """Walk the tree for one byte, and remember where it leads."""
        before, symbols = place, bytearray()
        for shift in range(7, -1, -1):
            place = self.places[place][octet >> shift & 1]
            if place < 0:
                if ~place == END_OF_STRING:
                    raise HuffmanError("a Huffman-coded string: expected text, got the code of its end")
                symbols.append(~place)
                place = 0
        found = (bytes(symbols), place)
        if len(self.steps) < STEPS:
            self.steps[before << 8 | octet] = found
        return found
