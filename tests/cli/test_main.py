"""What stands before every command: names that were meant, arguments, output that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from edged.cli.main import GROUPS, build_parser, commands_of, main, refuse_unknown, walk
from edged.cli.output import table
from tests.system.programs import edged


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("statsu", "did you mean `edged status`?"),
        ("publish", "did you mean `edged origin publish`?"),
        ("orgin publish", "did you mean `edged origin publish`?"),
        ("orgin", "did you mean `edged origin`?"),
        ("origin publsh feed", "did you mean `edged origin publish`?"),
        ("bundle exprt", "did you mean `edged bundle export`?"),
        ("zzz", "`edged --help` lists what there is"),
        ("origin zzz", "`edged origin --help` lists what there is"),
    ],
)
def test_a_command_that_is_not_there_says_what_may_have_been_meant(words: str, said: str) -> None:
    done = edged(*words.split(), code=2)
    assert done.stderr.splitlines()[-1].endswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("status --wacth", "`edged status` has no option '--wacth'; did you mean `--watch`?"),
        (
            "origin publish feed --datset=catalog -",
            "`edged origin publish` has no option '--datset'; did you mean `--dataset`?",
        ),
        ("get replica catalog titles x -json", "`edged get` has no option '-json'; did you mean `--json`?"),
        (
            "--config edged.toml run",
            "has no option '--config'; it stands behind the command, as in `edged run --config`",
        ),
        ("origin --dry-run publish", "it stands behind the command, as in `edged origin publish --dry-run`"),
        ("check --zzz", "`edged check` has no option '--zzz'; `edged check --help` lists what there is"),
    ],
)
def test_an_option_that_is_not_there_says_what_may_have_been_meant(words: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended, redirect_stderr(StringIO()) as told:
        main(words.split())
    assert (ended.value.code, told.getvalue().splitlines()[-1].endswith(said)) == (2, True), told.getvalue()


def test_every_option_of_every_command_is_found_from_one_that_is_mistyped() -> None:
    tried = 0
    for command in walk(build_parser([])):
        words = command.prog.split()[1:]
        for name in command._option_string_actions:
            mistyped = (
                name[:3] + name[4] + name[3] + name[5:] if len(name) > 5 else name
            )  # of shorter ones little is left
            if mistyped != name:
                with pytest.raises(SystemExit), redirect_stderr(StringIO()) as told:
                    refuse_unknown(build_parser(words), [*words, mistyped])
                assert f"did you mean `{name}`?" in told.getvalue()
                tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    "words", ["ls r catalog titles --lim 3", "ls r catalog titles --limit -1", "get r c t -- --key", "status -h"]
)
def test_what_argparse_takes_or_judges_itself_is_left_to_it(words: str) -> None:
    refuse_unknown(build_parser(words.split()), words.split())


def test_every_group_says_truly_which_commands_it_has() -> None:
    for names in GROUPS.values():
        assert set(commands_of(build_parser([names[0]]))) == set(names)


def run(*words: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edged", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **more)  # type: ignore[call-overload, no-any-return]


def test_an_argument_that_is_not_utf_8_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edged", "ls", b"/srv/\xff"], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"edged: argument 2, b'/srv/\\xff': not UTF-8; give it as UTF-8\n"


def test_an_output_that_cannot_be_written_ends_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = run("check", "--config", Path("config/edged.toml").absolute(), stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"edged: edged check: standard input or output: No space left on device\n"


def test_a_terminal_that_is_not_utf_8_shows_what_it_can(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = run("check", "--config", tmp_path / "日本.toml", stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 2
    assert b"\\u65e5" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("number", ["x", "0", "-1", "9223372036854775808", "9" * 5000, "1.5"])
@pytest.mark.parametrize(
    "words",
    [
        "ls replicas catalog titles --limit",
        "search replicas catalog titles text --limit",
        "cache ls --limit",
        "pin catalog",
        "origin rollback feed --dataset catalog --to",
        "origin log feed --dataset catalog --diff 1",
        "origin init feed --root-keys",
        "origin init feed --threshold",
    ],
)
def test_a_number_that_cannot_be_is_refused_with_what_may_be(
    words: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words.split()
    with pytest.raises(SystemExit) as caught:
        build_parser(given).parse_args([*given, number])
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"expected a whole number from 1 on, of 63 bits at most, got {number!r:.40}")


@pytest.mark.parametrize("seconds", ["x", "nan", "inf", "-0.1"])
def test_a_wait_that_cannot_be_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["origin", "rollback", "feed", "--dataset", "catalog", "--to", "1", f"--wait={seconds}"]
    with pytest.raises(SystemExit):
        build_parser(words).parse_args(words)
    assert f"expected seconds from 0 on, got {seconds!r}" in capsys.readouterr().err


def test_a_table_escapes_what_does_not_print() -> None:
    text = table([("1", "two\nlines \x1b[31m"), ("22", "ü")], ("version", "message"))
    assert text.splitlines() == ["version  message", "      1  two\\nlines \\x1b[31m", "     22  ü"]
