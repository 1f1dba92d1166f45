"""What a slice's dictionary tells of its records: the texts of each field, the names of each map's fields."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Any

import cbor2

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.coding.textmodel import Corpus, Counter, Known

NAMES = 48  # field names known for one place in a record
PRIMERS = 48  # records of a collection kept, to learn how records differ from one another: 4 % of the bytes of hops
PATH_CHARACTERS = 500
TABLES_END = b"\x01\0\0\0\x04\0\0\0\x08\0\0\0"  # the repeat offsets close the entropy tables: RFC 8878 section 5
TABLES_BYTES = 1024  # and lie within so many bytes


def tables_size(dictionary: bytes) -> int:
    """Where the entropy tables of a zstd dictionary end and its content begins; 0 if it has none."""
    place = dictionary.find(TABLES_END, 0, TABLES_BYTES)
    return place + len(TABLES_END) if place >= 0 else 0


def name_order(name: str) -> tuple[int, bytes]:
    """The order of names in a deterministic map: RFC 8949 section 4.2.1, for text."""
    data = name.encode()
    return len(data), data


def inside(path: str, name: str) -> str:
    """The path of a map's field. Past some length it tells fields apart no more: paths are kept, names may be long."""
    return f"{path}/{name}" if len(path) + len(name) < PATH_CHARACTERS else path


def samples(dictionary: bytes) -> Iterator[tuple[str, bytes]]:
    """(collection, value) of the whole records that a slice's dictionary holds; none in one of another making."""
    start = tables_size(dictionary)
    content = dictionary[start:]
    collection, at = "", 0
    for item, end in items(content):
        if type(item) is str:
            collection = item
        else:
            yield collection, content[at:end]
        at = end


def without(dictionary: bytes, taken: Collection[bytes]) -> bytes:
    """The dictionary without those of its samples whose value is `taken`; b"" where too little is left of it."""
    content, named = bytearray(), ""
    for collection, value in samples(dictionary):
        if value not in taken:
            content += (cbor.encode(collection) if collection != named else b"") + value
            named = collection
    # zstd takes a dictionary's first repeat offsets, up to 8, as they are
    return dictionary[: tables_size(dictionary)] + bytes(content) if len(content) >= 8 else b""


def items(content: bytes) -> Iterator[tuple[Any, int]]:
    """The items of a dictionary's content, each with where it ends, as far as the content is as ours is."""
    stream = io.BytesIO(content)
    while True:
        try:
            item = cbor2.load(stream, max_depth=limits.DEPTH, allow_indefinite=False, allow_duplicate_keys=False)
            cbor.check_json_model(item, "dictionary")
        except (cbor2.CBORError, WireError, ValueError, TypeError, OverflowError, RecursionError):
            return  # the end; or a dictionary that another tool trained, of which only zstd makes something
        yield item, stream.tell()


class Knowledge:
    """By collection. A field's path begins with its collection and does not tell the items of a list apart.

    Shared by all hops that use the dictionary; none changes it. `primed` are the counters that coding begins with.
    """

    def __init__(self, dictionary: bytes) -> None:
        self.corpora: dict[str, Corpus] = {}
        self.known = Known()
        self.names: dict[str, list[str]] = {}
        self.values: dict[str, list[Any]] = {}
        self.primed: dict[object, Counter] = {}
        self.read(dictionary[tables_size(dictionary) :])
        for names in self.names.values():
            names.sort(key=name_order)

    def read(self, content: bytes) -> None:
        """Take in a collection's name before the values that are of it, as far as the content is so."""
        collection = ""
        for item, _ in items(content):
            if type(item) is str:
                collection = item
                self.values.setdefault(collection, [])
            else:
                values = self.values.setdefault(collection, [])
                values.append(item)
                del values[:-PRIMERS]
                self.note(item, collection)

    def note(self, value: Any, path: str) -> None:
        if type(value) is str:
            if path not in self.corpora:
                self.corpora[path] = Corpus(self.known)
            self.corpora[path].add(value.encode())
        elif type(value) is list:
            for item in value:
                self.note(item, path + "[]")
        elif type(value) is dict:
            known = self.names.setdefault(path, [])
            for name, item in value.items():
                if len(known) < NAMES and name not in known:
                    known.append(name)
                self.note(item, inside(path, name))
