"""`edged check` and `edged run` as a person and a program read them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from edged.ops.logs import JsonFormatter
from tests.system.programs import edged, running


def configure(place: Path, more: str = "") -> Path:
    path = place / "edged.toml"
    path.write_text(
        f'[daemon]\ndata_dir = "{place}/data"\n[serve]\nbind = ["127.0.0.1:0"]\n[admin]\nbind = ["127.0.0.1:0"]\n{more}'
    )
    return path


def test_check_says_what_would_run(tmp_path: Path) -> None:
    path = configure(tmp_path)
    assert edged("check", "--config", path).stdout.startswith(f"{path}: no fault.")


def test_check_prints_each_fault_once_and_one_line_that_sums_up(tmp_path: Path) -> None:
    path = configure(
        tmp_path, '[proxy]\nquota = "7"\n[[datasets]]\nname = "a"\norigin = ["file:///x"]\ntrust = "/no"\n'
    )
    done = edged("check", "--config", path, code=2)
    assert [line.split(": ")[1:3] for line in done.stdout.splitlines()] == [
        ["line 8", "proxy.quota"],
        ["line 12", "datasets.trust"],
    ]
    assert done.stderr == f"edged: check {path}: 2 faults; each is named above with its line and the mend\n"
    document = json.loads(edged("check", "--config", path, "--json", code=2).stdout)
    assert document["faults"] == done.stdout.splitlines()


def test_run_with_json_says_where_it_answers_and_logs_objects(tmp_path: Path) -> None:
    dataset = '[[datasets]]\nname = "a"\norigin = ["file:///nonexistent"]\ntrust = "/nonexistent"\n'
    with running("run", "--config", configure(tmp_path, dataset), "--json") as program:
        program.wait_for(r'"datasets"')
        program.wait_for("^}")
        assert program.stop() == 0
    text = "\n".join([*program.lines, ""])
    start = text.index("\n{\n") + 1
    told = json.loads(text[start : text.index("\n}\n") + 2])
    assert told["apps"][0].startswith("http://127.0.0.1:")
    logged = [json.loads(line) for line in program.lines if line.startswith('{"time"')]
    assert "warning" in [line["level"] for line in logged if "/nonexistent" in line["message"]]
    assert {"serving apps", "serving operators"} <= {line["message"] for line in logged}


def test_a_dataset_without_its_trust_file_does_not_keep_the_others_from_being_served(tmp_path: Path) -> None:
    dataset = '[[datasets]]\nname = "a"\norigin = ["file:///nonexistent"]\ntrust = "/nonexistent"\n'
    path = configure(tmp_path, dataset)
    with running("run", "--config", path) as program:
        program.wait_for("serving operators")
        program.wait_for("/nonexistent.*is not a file; copy there the trust file")
        assert program.process.poll() is None
        assert program.stop() == 0
    assert "trust file" in edged("sync", "--config", path, code=2).stderr


def test_a_log_line_as_json_holds_its_fields_and_the_traceback() -> None:
    record = logging.LogRecord("edged", logging.ERROR, "", 0, "read %s", ("a\nb",), None)
    record.fields = {"path": Path("/x"), "n": 3}
    record.created = 0.0
    try:
        raise OSError(5, "Input/output error")
    except OSError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    document = json.loads(line)
    assert "\n" not in line
    assert document.pop("traceback").endswith("Input/output error")
    assert document == {"time": "1970-01-01T00:00:00Z", "level": "error", "message": "read a\nb", "path": "/x", "n": 3}


@pytest.mark.parametrize("command", ["run", "check", "sync", "status"])
def test_a_configuration_that_is_not_there_says_what_to_do(tmp_path: Path, command: str) -> None:
    done = edged(command, "--config", tmp_path / "none.toml", code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "No such file or directory; name the file with --config, or create it" in done.stderr
