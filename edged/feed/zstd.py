"""zstd frames (RFC 8878): how ours are made, and those of strangers decompressed within limits.

python-zstandard ignores `max_output_size` where a frame declares its size, and ignores data after it, so the header is
read first and the end is checked. What a frame says of itself is not believed: its content's size is bounded before
anything is allocated, the window and the dictionary id are checked, and it has to end exactly where its bytes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import zstandard

from edged.errors import WireError
from edged.feed import limits

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE_MAGIC = bytes.fromhex("5e2a4d18")  # of a skippable frame, the one that RFC 9842 section 5 takes
DamagedFrame = zstandard.ZstdError
Dictionary = zstandard.ZstdCompressionDict
Compressor = zstandard.ZstdCompressor
Decompressor = zstandard.ZstdDecompressor
RLE_BLOCK = 1
LEVEL_WINDOW_BYTES = 8 << 20  # of level 19, the widest that is used
LEAST_WINDOW_BYTES = 1024  # RFC 8878 section 3.1.1.1.2


class FrameForm(NamedTuple):  # readers load this module, and dataclasses would cost them 2 ms
    """How frames of one use are made. They declare their content's size and never name a dictionary.

    magicless: without the magic number; checksum: with that of the content; typical_bytes: of content, what the match
    finder is tuned for (0: each frame for its own); window_log: of two, where it is to be larger than the level's.
    """

    level: int = 19
    magicless: bool = False
    checksum: bool = False
    typical_bytes: int = 0
    window_log: int = 0


DOCUMENT = FrameForm()  # a document that travels; what is named by its hash needs no checksum


def prepare(dictionary: bytes, *, raw: bool = False) -> Dictionary:
    """`dictionary` as zstd takes it: with entropy tables if it has its magic number (unless `raw`), else as content."""
    kind = zstandard.DICT_TYPE_RAWCONTENT if raw else zstandard.DICT_TYPE_AUTO
    return Dictionary(dictionary, dict_type=kind)


kept = lru_cache(maxsize=4)(prepare)


def prepared(dictionary: bytes) -> Dictionary | None:
    """As `prepare`; a slice's trained dictionary is asked for again and again, old records as context only once."""
    if not dictionary:
        return None
    return kept(dictionary) if len(dictionary) <= limits.DICTIONARY_BYTES else prepare(dictionary)


def compressor(form: FrameForm, dictionary: Dictionary | None = None, content_bytes: int = 0) -> Compressor:
    """An engine, for one thread at a time. content_bytes: of the one content it is for, 0 if it is for several."""
    settings: dict[str, Any] = {
        "format": formats(magicless=form.magicless),
        "write_content_size": True,
        "write_checksum": form.checksum,
        "write_dict_id": False,
    }
    if form.window_log:
        settings["window_log"] = form.window_log
    size = form.typical_bytes or content_bytes
    if size:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            form.level, source_size=size, dict_size=len(dictionary or b""), **settings
        )
    else:  # zstd then looks at each content's own size
        parameters = zstandard.ZstdCompressionParameters(compression_level=form.level, **settings)
    return Compressor(compression_params=parameters, dict_data=dictionary)


def window_log(size: int) -> int:
    """The logarithm of the window that takes in all of so many bytes, if that is more than any level's own; else 0."""
    return min(size.bit_length(), limits.WINDOW_BYTES.bit_length() - 1) if size > LEVEL_WINDOW_BYTES else 0


def decompressor(dictionary: Dictionary | None = None, *, magicless: bool = False, window: int = 0) -> Decompressor:
    """An engine, for one thread at a time. window: the most that a frame may ask for, limits.WINDOW_BYTES if 0."""
    return Decompressor(
        dict_data=dictionary, max_window_size=window or limits.WINDOW_BYTES, format=formats(magicless=magicless)
    )


def compress(data: bytes, form: FrameForm = DOCUMENT, dictionary: bytes = b"") -> bytes:
    """One frame of `data`."""
    return compressor(form, prepared(dictionary), len(data) if dictionary else 0).compress(data)


def decompress(data: bytes, what: str, max_bytes: int) -> bytes:
    """The content of exactly one frame of at most `max_bytes`. Raises WireError naming `what`."""
    size = declared_bytes(data, what, magicless=False)
    if size > max_bytes:  # covers "unknown", which is the largest 64-bit number
        raise WireError(f"decompress {what}: the frame declares {size} bytes, at most {max_bytes} are allowed")
    engine = decompressor().decompressobj()
    try:
        content = engine.decompress(data)
    except DamagedFrame as fault:
        raise WireError(f"decompress {what}: damaged zstd frame: {fault}") from fault
    if not engine.eof or engine.unused_data:
        raise WireError(f"decompress {what}: the zstd frame is cut short, or data follows it")
    if len(content) != size:
        raise WireError(f"decompress {what}: declared {size} bytes, held {len(content)}")
    return content


def decompress_magicless(frame: bytes, dictionary: bytes, what: str, size: int) -> bytes:
    """The content of exactly one magicless frame of exactly `size` bytes. Raises WireError naming `what`.

    The caller has bounded `size`; no more than that is ever produced.
    """
    if frame_end(frame) != len(frame):
        raise WireError(f"decompress {what}: the frame is cut short, or data follows it; fetch it again")
    declared = declared_bytes(frame, what, magicless=True)
    if declared != size:
        raise WireError(f"decompress {what}: expected {size} bytes, the frame declares {declared}")
    try:
        engine = decompressor(prepared(dictionary), magicless=True)
        with engine.stream_reader(frame) as reader:
            content = reader.read(size)
            excess = reader.read(1)
    except DamagedFrame as fault:
        raise WireError(f"decompress {what}: damaged zstd frame: {fault}; fetch it again") from fault
    if len(content) != size or excess:
        raise WireError(f"decompress {what}: expected {size} bytes, the frame holds another number")
    return content


def declared_bytes(frame: bytes, what: str, *, magicless: bool) -> int:
    """The size of its content that a frame declares. Raises WireError for a header that is not acceptable here."""
    try:
        header = zstandard.get_frame_parameters(frame, format=formats(magicless=magicless))
    except DamagedFrame as fault:
        raise WireError(f"decompress {what}: not a zstd frame: {fault}; fetch it again") from fault
    if header.window_size > max(limits.WINDOW_BYTES, LEAST_WINDOW_BYTES):
        raise WireError(f"decompress {what}: the frame wants a window of {header.window_size} bytes")
    if header.dict_id:
        raise WireError(f"decompress {what}: the frame wants dictionary {header.dict_id}, none is used here")
    return int(header.content_size)


def formats(*, magicless: bool) -> int:
    return zstandard.FORMAT_ZSTD1_MAGICLESS if magicless else zstandard.FORMAT_ZSTD1


def frame_end(frame: bytes) -> int:
    """Where the magicless frame that begins `frame` ends, found by walking its blocks (RFC 8878 section 3.1.1).

    Returns more than len(frame) if the frame is cut short.
    """
    if not frame:
        return 1
    flags = frame[0]
    single = flags >> 5 & 1
    at = 1 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    while at + 3 <= len(frame):
        block = int.from_bytes(frame[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == RLE_BLOCK else block >> 3)
        if block & 1:
            return at + (4 if flags & 4 else 0)
    return len(frame) + 1


def train(samples: Sequence[bytes], size: int, level: int, segment_bytes: int) -> bytes:
    """A dictionary of `size` bytes with entropy tables for values compressed at `level`; b"" where there is too little.

    segment_bytes: given rather than searched for, training takes a tenth of the time.
    """
    try:
        return zstandard.train_dictionary(size, list(samples), k=segment_bytes, d=8, level=level, dict_id=1).as_bytes()
    except DamagedFrame:  # too few or too small samples
        return b""
