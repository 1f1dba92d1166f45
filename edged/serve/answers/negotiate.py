"""Which format and which coding an answer takes (RFC 9110 section 12.5), and whether the asker has it already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from edged.errors import RequestError


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """A representation, compared by identity. name: used in ETags and tests; media: its Content-Type."""

    name: str
    media: str


JSON = Format("json", "application/json")
CBOR = Format("cbor", "application/cbor")
NDJSON = Format("ndjson", "application/x-ndjson")
CBOR_SEQ = Format("cbor-seq", "application/cbor-seq")
EVENTS = Format("events", "text/event-stream")

RECORD_FORMATS = (JSON, CBOR)
LIST_FORMATS = (JSON, CBOR, NDJSON, CBOR_SEQ)
CHANGE_FORMATS = (NDJSON, EVENTS, CBOR_SEQ, JSON, CBOR)

CODINGS = ("dcz", "zstd", "gzip", "identity")  # in order of preference where the asker has none
LONG = 500  # characters; longer values of Accept are not worth remembering
QUALITY = re.compile(r"(?:0?\.[0-9]{1,3}|0\.?|1(?:\.0{0,3})?)")  # ".2" is what old Java sends


def weigh(value: str) -> list[tuple[str, float]]:
    """The members of a weighted list, lower-case, without parameters other than q. Malformed members are passed over,
    for refusing a whole request over one of them helps nobody.
    """
    members = []
    for member in value.split(","):
        name, *parameters = (part.strip() for part in member.lower().split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, text = parameter.partition("=")
            if key.strip() == "q":
                text = text.strip()
                quality = float(text) if QUALITY.fullmatch(text) else -1.0
        if name and quality >= 0:
            members.append((name, quality))
    return members


def choose_format(accept: str | None, offered: tuple[Format, ...]) -> Format:
    """The offered format that Accept likes best, ties in the order offered. Raises RequestError 406."""
    return (remembered_format if accept is None or len(accept) < LONG else find_format)(accept, offered)


def choose_coding(accept_encoding: str | None, with_dictionary: bool = False) -> str:
    """dcz (only with_dictionary, where the asker has ours), zstd, gzip or identity.

    Raises RequestError 406 where even identity is refused (RFC 9110 section 12.5.3).
    """
    short = accept_encoding is None or len(accept_encoding) < LONG
    return (remembered_coding if short else find_coding)(accept_encoding, with_dictionary)


def find_format(accept: str | None, offered: tuple[Format, ...]) -> Format:
    if accept is None or not accept.strip():
        return offered[0]
    members = [("*/*" if name == "*" else name, quality) for name, quality in weigh(accept)]  # "*": old Java
    best, best_quality = None, 0.0
    for choice in offered:
        quality = quality_of(choice.media, members)
        if quality > best_quality:
            best, best_quality = choice, quality
    if best is None:
        media = ", ".join(choice.media for choice in offered)
        raise RequestError(406, f"Accept {accept[:200]!r} takes none of what there is: {media}")
    return best


def quality_of(media: str, members: list[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers `media`; 0 where none does."""
    weights = dict(reversed(members))
    for span in (media, media.partition("/")[0] + "/*", "*/*"):
        if span in weights:
            return weights[span]
    return 0.0


def find_coding(accept_encoding: str | None, with_dictionary: bool) -> str:
    if accept_encoding is None:
        return "identity"
    weights = dict(reversed(weigh(accept_encoding)))
    if "x-gzip" in weights:
        weights.setdefault("gzip", weights["x-gzip"])
    best, best_quality = None, 0.0
    for coding in CODINGS:
        if coding == "identity":
            quality = weights.get(coding, weights.get("*", 0.001) or 0.0)
        elif coding == "dcz":
            quality = weights.get(coding, 0.0) if with_dictionary else 0.0
        else:
            quality = weights.get(coding, weights.get("*", 0.0))
        if quality > best_quality:
            best, best_quality = coding, quality
    if best is None:
        raise RequestError(
            406, f"Accept-Encoding {accept_encoding[:200]!r} takes none of what there is: {', '.join(CODINGS[1:])}"
        )
    return best


remembered_format = lru_cache(maxsize=256)(find_format)
remembered_coding = lru_cache(maxsize=256)(find_coding)


def refuses_identity(accept_encoding: str | None) -> bool:
    """Whether an answer must be coded however small it is."""
    weights = dict(reversed(weigh(accept_encoding or "")))
    return weights.get("identity", weights.get("*", 1.0)) == 0
