"""Input of all kinds, and every bad line named."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from edged.errors import OriginError, WireError
from edged.origin.input import lines
from edged.origin.input.lines import InputError
from edged.origin.input.reading import Inputs, excerpt


def line(key: str, value: Any = None, **more: Any) -> str:
    return json.dumps({"collection": "titles", "key": key, "value": value} | more) + "\n"


def keys(source: Inputs) -> list[str]:
    found = [entry.key for entry in source.entries()]
    source.faults.raise_any()
    return found


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


TEXT = "".join(line(f"k{number}", {"n": number}) for number in range(5000)).encode()


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        TEXT.rstrip(b"\n"),
        gzip.compress(TEXT),
        gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]),
        zstandard.ZstdCompressor().compress(TEXT),
        zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(TEXT),
        zstandard.ZstdCompressor().compress(TEXT[:70_001]) + zstandard.ZstdCompressor().compress(TEXT[70_001:]),
        TEXT.replace(b"\n", b"\n\n \t\n"),
    ],
    ids=["plain", "no-last-newline", "gzip", "two-gzip", "zstd", "zstd-unsized", "two-zstd", "blank-lines"],
)
def test_every_coding_is_told_by_its_first_bytes(data: bytes, tmp_path: Path) -> None:
    assert keys(Inputs([written(tmp_path / "input", data)])) == [f"k{number}" for number in range(5000)]


def test_several_inputs_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Standard:
        buffer = io.BytesIO(line("from stdin", 1).encode())

    monkeypatch.setattr(sys, "stdin", Standard)
    names = [written(tmp_path / "a", line("a", 1).encode()), "-", written(tmp_path / "b", line("b", 1).encode())]
    assert keys(Inputs(names)) == ["a", "from stdin", "b"]


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ('{"collection": "titles", "key": "x"}', "expected `value`"),
        ('{"collection": "titles", "key": 7, "value": 1}', "`key`: expected text, got a number"),
        (
            '{"collection": "titles", "key": "x", "valeu": 1}',
            "unknown name 'valeu'; expected collection",
        ),
        ('{"collection": "titles", "key": "x", "deleted": true}', "give --changes"),
        ('{"collection": "changes", "key": "x", "value": 1}', "reserved"),
        ('{"collection": "../x", "key": "x", "value": 1}', "collection name"),
        ('{"collection": "titles", "key": "", "value": 1}', "1 to 512 bytes"),
        (line("x" * 513, 1), "1 to 512 bytes"),
        ('{"collection": "titles", "key": "a\\u0000b", "value": 1}', "without NUL"),
        ('{"collection": "titles", "key": "x", "value": 12345678901234567890123}', "does not fit in 64 bits"),
        ('{"collection": "titles", "key": "x", "value": 1e999}', "not a JSON number"),
        ('{"collection": "titles", "key": "x", "value": NaN}', "NaN is not a JSON number"),
        ('{"collection": "titles", "key": "x", "value": ' + "[" * 80 + "]" * 80 + "}", "nested deeper than 64"),
        (
            '{"collection": "titles", "key": "x", "value": ' + "[" * 9000 + "]" * 9000 + "}",
            "nested deeper than 64 levels",
        ),
        ('"titles"', "expected an object, got text"),
        ('{"collection": null, "key": "x", "value": 1}', "`collection`: expected text, got null"),
        ('{"collection": "titles", "key": ["x"], "value": 1}', "`key`: expected text, got an array"),
        ('{"collection": "titles", "key": {}, "value": 1}', "`key`: expected text, got an object"),
        ('{"collection": "titles", "key": true, "value": 1}', "`key`: expected text, got true or false"),
        ('{"collection": "titles"', "not JSON at character 24: expecting ',' delimiter"),
        (b'{"collection": "titles", "key": "x", "value": "\xff"}', "not UTF-8 at byte 48 of the line"),
        (
            '{"collection": "titles", "key": "x", "value": {"a": 1, "a": 1}}',
            "the name 'a' is there twice in one object",
        ),
        ('{"collection": "titles", "key": "x", "key": "y", "value": 1}', "the name 'key' is there twice"),
        ('{"collection": "titles", "key": "x", "value": [{"b": {"c": 1, "c": 2}}]}', "the name 'c' is there twice"),
        ('{"collection": "titles", "key": "x", "value": "\\ud800"}', "an unpaired surrogate, U+D800 at character 1 of"),
        ('{"collection": "titles", "key": "\\udc00", "value": 1}', "surrogate"),
        (
            '{"collection": "titles", "key": "x", "value": {"\\ud800": 1}}',
            "an unpaired surrogate, U+D800 at character 1 of",
        ),
        ('{"collection": "titles", "key": "x", "value": ' + "7" * 5000 + "}", "does not fit in 64 bits"),
        ('{"collection": "titles", "key": "x", "value": ' + "[" * 1000 + "]" * 1000 + "}", "nested deeper than 64"),
        ('{"collection": "titles", "key": "x", "value": ' + '{"a":' * 1000 + "1" + "}" * 1000 + "}", "nested deeper"),
        ('{"collection": "titles", "key": "x", "value": -Infinity}', "-Infinity is not a JSON number"),
        ('{"collection": "titles", "value": 1}', "the name 'key' is missing"),
        ('{"key": "x", "value": 1}', "the name 'collection' is missing"),
        ('{"collection": "titles", "key": "x", "deleted": "yes"}', "`deleted`: expected true or false, got text"),
        ('{"collection": "titles", "key": "x", "value": 1} {}', "not JSON at character 50: extra data"),
        ("\ufeff" + '{"collection": "titles", "key": "x", "value": 1}', "not JSON at character 1"),
        ("null", "expected an object, got null"),
        (
            '{"commit": 3, "date": "2023-09-16"}',
            "(plain objects need --collection and --key)",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_place_and_what_was_got(bad: str | bytes, complaint: str, tmp_path: Path) -> None:
    middle = bad.strip().encode() if isinstance(bad, str) else bad
    name = written(tmp_path / "input.ndjson", line("a", 1).encode() + middle + b"\n" + line("b", 1).encode())
    with pytest.raises(InputError) as caught:
        keys(Inputs([name]))
    assert str(caught.value).startswith(f"{name}:2: ")
    assert complaint in str(caught.value)
    assert "; got " in str(caught.value)


def test_all_bad_lines_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    name = written(tmp_path / "input", (line("a", 1) + "?\n" * 300).encode())
    with pytest.raises(InputError, match=r":2: .* and 290 more; nothing was published") as caught:
        keys(Inputs([name]))
    assert len(caught.value.faults) == lines.FAULTS_KEPT


@pytest.mark.parametrize("cut", [1, 9, 4000])
def test_a_cut_off_file_is_refused_even_at_the_end_of_a_line(cut: int, tmp_path: Path) -> None:
    for data in (zstandard.ZstdCompressor(level=1).compress(TEXT), gzip.compress(TEXT)):
        with pytest.raises(InputError, match=r"cut short|damaged gzip"):
            keys(Inputs([written(tmp_path / "input", data[:-cut])]))


def test_damage_and_what_follows_a_frame_are_refused(tmp_path: Path) -> None:
    data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(InputError):
        keys(Inputs([written(tmp_path / "one", bytes(data))]))
    with pytest.raises(InputError, match="damaged zstd"):
        keys(Inputs([written(tmp_path / "two", zstandard.ZstdCompressor().compress(TEXT) + b"rubbish")]))


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES", 1 << 16)
    bomb = zstandard.ZstdCompressor().compress(2 * WHOLE + b'{"a":"' + b"[" * (50 << 20))
    with pytest.raises(InputError, match=r"bomb.zst:3: a line of more than 65536 bytes"):
        keys(Inputs([written(tmp_path / "bomb.zst", bomb)]))


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(OriginError, match=r"read /nowhere/x.ndjson: No such file"):
        keys(Inputs(["/nowhere/x.ndjson"]))


def test_plain_objects_take_their_key_from_a_field(tmp_path: Path) -> None:
    rows = [{"id": "a", "n": 1}, {"id": 7, "n": 2}, {"id": "b", "deleted": True, "n": 1}]
    name = written(tmp_path / "in", "".join(json.dumps(row) + "\n" for row in rows).encode())
    source = Inputs([name], collection="titles", key_field="id")
    entries = list(source.entries())
    assert [(entry.collection, entry.key) for entry in entries] == [("titles", "a"), ("titles", "7"), ("titles", "b")]
    assert all(entry.value is not None for entry in entries)
    with pytest.raises(WireError, match="collection name"):
        Inputs([name], collection="../titles", key_field="id")


@pytest.mark.parametrize("row", ['{"n": 1}', '{"id": null}', '{"id": true}', '{"id": 1.5}', '{"id": ["a"]}', "[1]"])
def test_plain_objects_without_a_usable_key_are_refused(row: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r":1: "):
        keys(Inputs([written(tmp_path / "in", row.encode())], collection="titles", key_field="id"))


def test_edits_remove_records_in_both_forms(tmp_path: Path) -> None:
    name = written(tmp_path / "in", b'{"collection":"titles","key":"a","deleted":true}\n')
    assert [entry.value for entry in Inputs([name], edits=True).entries()] == [None]
    name = written(tmp_path / "in", b'{"id":"a","deleted":true}\n{"id":"b","deleted":true,"n":1}\n')
    plain = Inputs([name], collection="titles", key_field="id", edits=True)
    assert [entry.value is None for entry in plain.entries()] == [True, False]
    both = written(tmp_path / "both", b'{"collection":"titles","key":"a","deleted":true,"value":1}\n')
    with pytest.raises(InputError, match="got both"):
        keys(Inputs([both], edits=True))


WHOLE = line("a", 1).encode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (lzma.compress(WHOLE), "is xz-compressed; expected NDJSON, plain or compressed with zstd or gzip"),
        (bz2.compress(WHOLE), "is bzip2-compressed"),
        (b"\x04\x22\x4d\x18rest", "is lz4-compressed"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"7z\xbc\xaf\x27\x1crest", "is a 7z archive"),
        (b"x" * 257 + b"ustar\x0000" + bytes(200), "is a tar archive"),
        (b"PAR1rest", "is a Parquet file"),
        (b"SQLite format 3\0rest", "is an SQLite database"),
        (b"edged bundle\n\0\0", "is a bundle of edged"),
        (WHOLE.decode().encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (WHOLE.decode().encode("utf-16-le"), "is UTF-16 or no text at all"),
        (WHOLE.decode().encode("utf-16-be"), "is UTF-16 or no text at all"),
        (WHOLE.decode().encode("utf-32"), "is UTF-32"),
        (b"\xef\xbb\xbf" + WHOLE, "is UTF-8 with a byte order mark"),
        (b"[\n" + WHOLE + b"]", "is a JSON array; expected one object a line"),
        (json.dumps([{"id": 1}]).encode(), "is a JSON array"),
        (json.dumps({"id": 1}, indent=2).encode(), "is one JSON document over several lines"),
        (b"<!doctype html><title>x</title>", "is HTML or XML"),
        (b"id,title\n1,One\n", "is CSV or the like"),
        (b"id;title\n1;One\n", "is CSV or the like"),
        (gzip.compress(lzma.compress(WHOLE)), "is xz-compressed"),
        (zstandard.ZstdCompressor().compress(b"\xef\xbb\xbf" + WHOLE), "is UTF-8 with a byte order mark"),
    ],
)
def test_what_is_no_ndjson_is_called_what_it_is(data: bytes, complaint: str, tmp_path: Path) -> None:
    name = written(tmp_path / "input", data)
    with pytest.raises(InputError) as caught:
        keys(Inputs([name]))
    assert str(caught.value).startswith(f"{name}:1: {complaint}")
    assert caught.value.exit_code == 3


def test_a_zstd_file_may_begin_with_a_skippable_frame(tmp_path: Path) -> None:
    frame = zstandard.ZstdCompressor().compress(TEXT)
    for number in (0, 15):
        skippable = bytes([0x50 + number, 0x2A, 0x4D, 0x18]) + (4).to_bytes(4, "little") + b"skip"
        assert len(keys(Inputs([written(tmp_path / "input", skippable + frame)]))) == 5000
        assert len(keys(Inputs([written(tmp_path / "input", frame + skippable)]))) == 5000


def test_a_name_that_no_file_can_have_and_one_that_is_not_utf8_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(OriginError, match="nothing was published"):
        keys(Inputs(["a\0b"]))
    with pytest.raises(OriginError, match="Is a directory"):
        keys(Inputs([str(tmp_path)]))
    name = os.fsdecode(bytes(tmp_path / "input") + b"\xff")
    with pytest.raises(OriginError) as caught:
        keys(Inputs([name]))
    assert "input\\xff: No such file" in str(caught.value)
    Path(name).write_text("?")
    with pytest.raises(InputError) as refused:
        keys(Inputs([name]))
    str(refused.value).encode()


@pytest.mark.parametrize(
    ("line", "shown"),
    [(b"x" * 60, repr("x" * 60)), (b"x" * 61, repr("x" * 60 + "\u2026")), (b" x \n", "'x'"), (b"\xff", "'\ufffd'")],
)
def test_of_a_bad_line_sixty_bytes_are_shown(line: bytes, shown: str) -> None:
    assert excerpt(line) == shown
