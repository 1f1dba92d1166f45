"""Input of all kinds, and every bad line named."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from edged.errors import OriginError, WireError
from edged.origin.input import reading
from edged.origin.input.reading import InputError, Inputs


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
        ('{"collection": "titles", "key": 7, "value": 1}', "Expected `str`, got `int` - at `$.key`"),
        ('{"collection": "titles", "key": "x", "valeu": 1}', "unknown field `valeu`"),
        ('{"collection": "titles", "key": "x", "deleted": true}', "give --changes"),
        ('{"collection": "changes", "key": "x", "value": 1}', "reserved"),
        ('{"collection": "../x", "key": "x", "value": 1}', "collection name"),
        ('{"collection": "titles", "key": "", "value": 1}', "1 to 512 bytes"),
        (line("x" * 513, 1), "1 to 512 bytes"),
        ('{"collection": "titles", "key": "a\\u0000b", "value": 1}', "without NUL"),
        ('{"collection": "titles", "key": "x", "value": 12345678901234567890123}', "does not fit in 64 bits"),
        ('{"collection": "titles", "key": "x", "value": 1e999}', "out of range"),
        ('{"collection": "titles", "key": "x", "value": NaN}', "malformed"),
        ('{"collection": "titles", "key": "x", "value": ' + "[" * 80 + "]" * 80 + "}", "nested deeper than 64"),
        ('{"collection": "titles", "key": "x", "value": ' + "[" * 9000 + "]" * 9000 + "}", "recursion"),
        ('["titles", "x", 1]', "Expected `object`, got `array`"),
        ('{"collection": "titles"', "truncated"),
        ('{"commit": 3, "date": "2023-09-16"}', "unknown field `commit`"),
    ],
)
def test_a_bad_line_is_named_with_its_place_and_what_was_got(bad: str, complaint: str, tmp_path: Path) -> None:
    name = written(tmp_path / "input.ndjson", (line("a", 1) + bad.strip() + "\n" + line("b", 1)).encode())
    with pytest.raises(InputError) as caught:
        keys(Inputs([name]))
    assert str(caught.value).startswith(f"{name}:2: ")
    assert complaint in str(caught.value)
    assert "; got " in str(caught.value)


def test_all_bad_lines_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    name = written(tmp_path / "input", (line("a", 1) + "?\n" * 300).encode())
    with pytest.raises(InputError, match=r":2: .* and 290 more; nothing was published") as caught:
        keys(Inputs([name]))
    assert len(caught.value.faults) == reading.FAULTS_KEPT


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
    monkeypatch.setattr(reading, "LINE_BYTES", 1 << 16)
    bomb = zstandard.ZstdCompressor().compress(b"[" * (50 << 20))
    with pytest.raises(InputError, match="a line of more than 65536 bytes"):
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
