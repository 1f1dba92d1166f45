"""`edged origin …` as it is typed: what it prints, and with which code it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edged.cli.main import main
from tests.origin.devices import Device

LINES: list[dict[str, Any]] = [
    {"collection": "titles", "key": f"k{n}", "value": {"title": f"T{n}", "seen": "2026-01-01"}} for n in range(50)
]


@pytest.fixture
def feed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["origin", "init", str(tmp_path / "feed")]) == 0
    assert str(tmp_path / "feed" / "root.trust") in capsys.readouterr().out
    return tmp_path / "feed"


def ndjson(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON that a command prints."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a command and the one line that it prints on standard error."""
    code = main(list(words))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return code, captured.err


def test_a_rollout_through_its_commands(feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = [str(feed), "--dataset", "catalog"]
    run(capsys, "origin", "publish", *on, ndjson(tmp_path / "whole", LINES))
    edited = ndjson(tmp_path / "edits", [LINES[2] | {"value": {"title": "new"}}])
    offered = run(capsys, "origin", "publish", *on, edited, "--changes", "--rollout", "2.5%")
    assert (offered["version"], offered["permille"]) == (2, 25)
    assert run(capsys, "origin", "rollout", *on) == {"dataset": "catalog", "version": 2, "permille": 25, "stable": 1}
    assert run(capsys, "origin", "rollout", *on, "--share", "25%")["permille"] == 250
    code, words = failed(capsys, "origin", "rollback", *on, "--to", "1")
    assert (code, "being rolled out to 25%" in words) == (1, True)
    assert run(capsys, "origin", "rollout", *on, "--withdraw")["version"] == 3
    assert run(capsys, "origin", "rollout", *on)["stable"] == 3
    for words in ("0%", "101%", "5", "x%"):
        with pytest.raises(SystemExit):
            main(["origin", "rollout", *on, "--share", words])
    capsys.readouterr()


def test_a_feed_through_all_its_commands(feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = [str(feed), "--dataset", "catalog"]
    whole = ndjson(tmp_path / "whole.ndjson", LINES)
    assert run(capsys, "origin", "publish", *on, whole)["added"] == 50
    edits: list[dict[str, Any]] = [
        {"collection": "titles", "key": "k1", "deleted": True},
        LINES[2] | {"value": {"title": "new"}},
    ]
    edited = run(capsys, "origin", "publish", *on, ndjson(tmp_path / "edits", edits), "--changes")
    assert (edited["version"], edited["changed"], edited["removed"]) == (2, 1, 1)
    assert run(capsys, "origin", "takedown", *on, "titles", "k3", "k4")["removed"] == 2
    assert run(capsys, "origin", "restore", *on, "titles", "k4")["added"] == 1
    assert run(capsys, "origin", "rollback", *on, "--to", "1")["version"] == 5
    assert run(capsys, "origin", "rotate-key", str(feed))["root"] == 3
    log = run(capsys, "origin", "log", *on)
    assert [item["version"] for item in log["versions"]] == [1, 2, 3, 4, 5]
    assert {"version", "time", "added", "changed", "removed", "slices"} <= log["versions"][1].keys()
    core = log["versions"][1]["slices"]["core"]
    assert core["hop_bytes"] == edited["hop_bytes"]
    assert core["snapshot_bytes"] > core["hop_bytes"] > 0
    diff = run(capsys, "origin", "log", *on, "--diff", "1", "2")
    assert [(item["key"], item["change"]) for item in diff["changes"]] == [("k1", "removed"), ("k2", "changed")]
    assert diff["bytes"]["collections"]["titles"] == pytest.approx(core["hop_bytes"], abs=1)
    device = Device(feed, "catalog")
    device.sync()
    assert device.keys() == {f"k{number}" for number in range(50)} - {"k3"}


def test_what_a_person_reads(feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = [str(feed), "--dataset", "catalog"]
    whole = ndjson(tmp_path / "whole.ndjson", LINES)
    main(["origin", "publish", *on, whole])
    assert "catalog version 1: 50 added, 0 changed, 0 removed" in capsys.readouterr().out
    main(["origin", "publish", *on, whole])
    assert "nothing changed; version 1 was signed anew" in capsys.readouterr().out
    stamped = [line | {"value": {"title": f"T{n}", "seen": f"2026-01-02/{n}"}} for n, line in enumerate(LINES)]
    main(["origin", "publish", *on, ndjson(tmp_path / "next", stamped)])
    capsys.readouterr()
    main(["origin", "log", *on])
    assert len(capsys.readouterr().out.splitlines()) == 3
    main(["origin", "log", *on, "--diff", "1", "2"])
    text = capsys.readouterr().out
    assert "changed  titles/k0  seen" in text
    assert "titles.seen" in text
    main(["origin", "rotate-key", str(feed)])
    assert "root of trust 3 is in force" in capsys.readouterr().out


def test_plain_objects_from_standard_input(feed: Path) -> None:
    words = ["origin", "publish", str(feed), "--dataset", "d", "-", "--collection", "titles", "--key", "id", "--json"]
    rows = "".join(json.dumps({"id": f"k{n}", "n": n}) + "\n" for n in range(3))
    done = subprocess.run(
        [sys.executable, "-m", "edged", *words], input=rows, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["added"] == 3


def test_exit_codes_tell_who_has_to_act(feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = [str(feed), "--dataset", "catalog"]
    good = ndjson(tmp_path / "good", LINES)
    bad = ndjson(tmp_path / "bad", [LINES[0], {"collection": "titles"}])
    assert failed(capsys, "origin", "publish", *on, bad)[0] == 3
    assert f"{bad}:2: " in failed(capsys, "origin", "publish", *on, bad)[1]
    worse = ndjson(tmp_path / "worse", [{"collection": "titles"}, LINES[0], {"key": "k"}])
    assert main(["origin", "publish", *on, worse]) == 3
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said[:2]] == [f"{worse}:1", f"{worse}:3"]
    assert said[2:] == ["edged: 2 faults; nothing was published: correct the input"]
    assert failed(capsys, "origin", "publish", *on, "/nowhere.ndjson")[0] == 1
    assert failed(capsys, "origin", "publish", *on, good, "--key", "id")[0] == 2
    assert failed(capsys, "origin", "publish", str(tmp_path), "--dataset", "catalog", good)[0] == 1
    for wrong in (["--dataset", "../x"], ["--dataset", "catalog", "--collection", "a/b", "--key", "id"]):
        with pytest.raises(SystemExit) as caught:
            main(["origin", "publish", str(feed), *wrong, good])
        assert caught.value.code == 2
        assert "name" in capsys.readouterr().err
    assert failed(capsys, "origin", "log", *on)[0] == 1
    assert failed(capsys, "origin", "init", str(feed))[0] == 1
    (feed / "catalog.toml").write_text("[slices.core]\nwhere = { a = 1 }\n")
    code, text = failed(capsys, "origin", "publish", *on, good)
    assert (code, "line 1" in text) == (2, True)
    (feed / "catalog.toml").write_text("[slice]\n[inline]\nmax = -1\n")
    assert main(["origin", "publish", *on, good]) == 2
    assert [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()[:2]] == ["line 1", "line 3"]
    (feed / "catalog.toml").unlink()
    assert main(["origin", "publish", *on, good]) == 0
    capsys.readouterr()
    assert failed(capsys, "origin", "rollback", *on, "--to", "7")[0] == 1
    assert failed(capsys, "origin", "log", *on, "--diff", "2", "1")[0] == 1
    (feed / "private" / "keys" / "head-1.key").chmod(0o644)
    assert failed(capsys, "origin", "publish", *on, good)[0] == 2
    with pytest.raises(SystemExit) as caught:
        main(["origin", "rollback", *on])
    assert caught.value.code == 2


def test_a_takedown_of_what_is_not_there_is_done_and_warned_of(
    feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = [str(feed), "--dataset", "catalog"]
    assert main(["origin", "publish", *on, ndjson(tmp_path / "good", LINES)]) == 0
    capsys.readouterr()
    for warned in (True, False):  # the second time it is known as taken down
        assert main(["origin", "takedown", *on, "titles", "k1", "k1x"]) == 0
        said = capsys.readouterr().err
        assert ("no record titles/k1x" in said, "titles/k1;" in said) == (warned, False)


def test_edits_taken_for_a_whole_state_are_refused_and_a_dry_run_tells(
    feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = [str(feed), "--dataset", "catalog"]
    whole = ndjson(tmp_path / "whole", LINES)
    assert main(["origin", "publish", *on, whole, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "would become version 1: 50 added" in said.out
    assert "note: catalog is a new dataset, of titles" in said.err
    assert not (feed / "public" / "catalog").exists()
    run(capsys, "origin", "publish", *on, whole, "--message", "to begin with")
    edits = ndjson(tmp_path / "edits", [LINES[3] | {"value": {"title": "new"}}])
    code, text = failed(capsys, "origin", "publish", *on, edits)
    assert (code, "49 of 50 records would be removed" in text, "--changes" in text) == (3, True, True)
    tried = run(capsys, "origin", "publish", *on, edits, "--changes", "--dry-run")
    assert (tried["version"], tried["changed"], tried["rehearsed"]) == (2, 1, True)
    assert run(capsys, "origin", "publish", *on, edits, "--allow-removals", "--dry-run")["removed"] == 49
    log = run(capsys, "origin", "log", *on)["versions"]
    assert [item["message"] for item in log] == ["to begin with"]
    main(["origin", "log", *on])
    assert "to begin with" in capsys.readouterr().out


def test_what_is_taken_down_is_listed(feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = [str(feed), "--dataset", "catalog"]
    run(capsys, "origin", "publish", *on, ndjson(tmp_path / "good", LINES))
    main(["origin", "takedowns", *on])
    assert "nothing is taken down" in capsys.readouterr().out
    main(["origin", "takedown", *on, "titles", "k1"])
    capsys.readouterr()
    found = run(capsys, "origin", "takedowns", *on)["takedowns"]
    assert [(item["collection"], item["key"], item["version"]) for item in found] == [("titles", "k1", 2)]
    assert found[0]["since"].endswith("Z")
    main(["origin", "takedowns", *on])
    assert "titles/k1" in capsys.readouterr().out


def test_datasets_are_listed_verified_and_dropped(
    feed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "origin", "datasets", str(feed)) == {"datasets": []}
    assert run(capsys, "origin", "verify", str(feed)) == {"datasets": []}
    whole = ndjson(tmp_path / "whole", LINES)
    for name in ("catalog", "other"):
        run(capsys, "origin", "publish", str(feed), "--dataset", name, whole)
    listed = run(capsys, "origin", "datasets", str(feed))["datasets"]
    assert [(item["dataset"], item["version"]) for item in listed] == [("catalog", 1), ("other", 1)]
    assert listed[0]["records"] == 50
    assert failed(capsys, "origin", "drop", str(feed), "--dataset", "catalog")[0] == 2
    assert failed(capsys, "origin", "drop", str(feed), "--dataset", "nothing", "--yes")[0] == 1
    assert run(capsys, "origin", "drop", str(feed), "--dataset", "catalog", "--yes") == {"dropped": "catalog"}
    assert [item["dataset"] for item in run(capsys, "origin", "datasets", str(feed))["datasets"]] == ["other"]
    assert not (feed / "public" / "catalog").exists()
    assert run(capsys, "origin", "publish", str(feed), "--dataset", "catalog", whole)["version"] == 1
    for blob in (feed / "public" / "other" / "blobs").iterdir():
        blob.unlink()
    assert main(["origin", "verify", str(feed)]) == 3
    text = capsys.readouterr().out
    assert "catalog version 1: " in text
    assert "other: part " in text
    assert "run it with --mend" in text
    assert main(["origin", "verify", str(feed), "--dataset", "catalog"]) == 0
    assert main(["origin", "verify", str(feed), "--mend"]) == 0
    assert main(["origin", "verify", str(feed)]) == 0
    capsys.readouterr()
    shutil.rmtree(feed / "private" / "state")
    (feed / "private" / "state").mkdir(mode=0o700)
    code, text = failed(capsys, "origin", "publish", str(feed), "--dataset", "other", whole)
    assert (code, "--mend" in text) == (1, True)
    assert failed(capsys, "origin", "datasets", str(feed))[0] == 1
    assert list((feed / "private" / "state").glob("*.db")) == []
    assert main(["origin", "verify", str(feed), "--mend"]) == 0
    capsys.readouterr()
    assert run(capsys, "origin", "publish", str(feed), "--dataset", "other", whole)["unchanged"]


def test_serve_announces_itself_and_ends_cleanly(feed: Path, tmp_path: Path) -> None:
    main(["origin", "publish", str(feed), "--dataset", "catalog", ndjson(tmp_path / "good", LINES)])
    words = [sys.executable, "-m", "edged", "origin", "serve", str(feed), "--bind", "127.0.0.1:0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().rsplit(" ", 1)[1].strip()
        with urllib.request.urlopen(f"{url}/catalog/head", timeout=10) as reply:
            assert reply.read() == (feed / "public" / "catalog" / "head").read_bytes()
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(20) == 0
