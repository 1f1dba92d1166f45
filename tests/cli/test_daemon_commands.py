"""`edged check` and `edged run` as a person and a program read them."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edged.ops.logs import JsonFormatter
from tests.docs.walkthrough import free_port
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
    path = configure(tmp_path, dataset)
    path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{free_port()}", 1))
    path.write_text(path.read_text().replace("[serve]\n", "[serve]\nworkers = 2\n"))
    with running("run", "--config", path, "--json") as program:
        program.wait_for('^{"apps": ')
        path.write_text("nonsense")
        program.process.send_signal(signal.SIGHUP)
        program.wait_for("configuration not taken")
        assert program.stop() == 0
        while program.read(1.0):
            pass
    documents = [json.loads(line) for line in program.lines]
    told = [document for document in documents if "apps" in document]
    assert len(told) == 1
    assert told[0]["apps"][0].startswith("http://127.0.0.1:")
    logged = [document for document in documents if "message" in document]
    assert len(logged) == len(documents) - 1
    assert "warning" in [line["level"] for line in logged if "/nonexistent" in line["message"]]
    assert {"serving apps", "serving operators"} <= {line["message"] for line in logged}


def test_run_with_json_says_as_objects_why_it_failed(tmp_path: Path) -> None:
    faulty = tmp_path / "edged.toml"
    faulty.write_text("[serve]\nbnd = []\n[proxy]\nquta = 1\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "busy").mkdir()
        busy = configure(tmp_path / "busy", "")
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        busy.write_text(busy.read_text().replace("127.0.0.1:0", address, 1))
        for path, said in ((faulty, "bnd"), (busy, "Address already in use")):
            done = edged("run", "--config", path, "--json", code=2)
            document = json.loads(done.stdout)
            assert document["kind"] == "ConfigError"
            assert said in document["error"]
            logged = [json.loads(line) for line in done.stderr.splitlines()]
            assert logged[-1]["level"] == "error"
            assert all(line["time"] and line["message"] for line in logged)


def test_what_nobody_has_caught_is_an_object_of_the_log_too() -> None:
    program = "from edged.ops import logs; import warnings; logs.setup('info', as_json=True); warnings.warn('w'); 1 / 0"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    warned, ended = (json.loads(line) for line in done.stderr.splitlines())
    assert (warned["level"], ended["level"]) == ("warning", "critical")
    assert ended["traceback"].endswith("ZeroDivisionError: division by zero")


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
