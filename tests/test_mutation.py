"""The small changes of `make mutation` are what they say, and leave a program that can be run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutation.changes import Place, find_changes
from tests.mutation.knowledge import ROOT, Knowledge
from tests.mutation.run import known_survivors, read_journal, sample
from tests.mutation.trials import DECISIVE, Bench, Candidate, Outcome, Verdict, stages

SOURCE = '''"""Nothing here is changed."""
LIMIT = 3

def take(items, found):
    """Nor here."""
    logger.info("%d items", len(items) + 1)
    if len(items) > LIMIT or not found:
        raise ValueError(f"{len(items) + 1} are too many")
    found.append(max(items[1:]))
    return len(items) - 2 == 0 and "naïve" + "text"
'''

BOUND = """def is_usual(count):
    if count < 3:
        return False
    return not count > 9
"""
BOUND_TESTS = """from room.one import is_usual

def test_few():
    assert not is_usual(2)

def test_many():
    assert is_usual(3)
    assert not is_usual(10)
"""


def test_bounds_conditions_and_steps_are_changed_and_words_are_not() -> None:
    assert {(change.place.line, str(change)) for change in find_changes(SOURCE)} == {
        (7, "len(items) > LIMIT  →  (len(items) >= LIMIT)"),
        (7, "len(items) > LIMIT or not found  →  (len(items) > LIMIT and (not found))"),
        (7, "not found  →  (found)"),
        (9, "found.append(max(items[1:]))  →  pass"),
        (9, "max(items[1:])  →  min(items[1:])"),
        (9, "1  →  2"),
        (10, "len(items) - 2  →  (len(items) + 2)"),
        (10, "len(items) - 2 == 0  →  (len(items) - 2 != 0)"),
        (10, "len(items) - 2 == 0 and \"naïve\" + \"text\"  →  (len(items) - 2 == 0 or 'naïve' + 'text')"),
        (10, "2  →  3"),
        (10, "0  →  1"),
    }


@pytest.mark.parametrize("number", range(11))
def test_each_changes_one_place_and_still_compiles(number: int) -> None:
    change = find_changes(SOURCE)[number]
    changed = change.applied(SOURCE)
    compile(changed, "changed", "exec")
    lines = [(old, new) for old, new in zip(SOURCE.splitlines(), changed.splitlines(), strict=True) if old != new]
    assert len(lines) == 1
    assert change.after in lines[0][1]


def test_the_sample_stays_when_lines_move_and_other_code_changes(tmp_path: Path) -> None:
    room = tmp_path / "edged" / "room"
    room.mkdir(parents=True)
    (room / "one.py").write_text(SOURCE)
    before = sample(1, 6, ("room",), tmp_path)
    assert before != sample(2, 6, ("room",), tmp_path)
    (room / "one.py").write_text('"""More words.\n\nAnd more."""\n' + SOURCE.partition("\n")[2])
    (room / "two.py").write_text("def pick(items):\n    return items[0]\n")
    after = sample(1, 7, ("room",), tmp_path)
    moved = [(one.change.place.line + 2, one.change.after) for one in before]
    assert [(one.change.place.line, one.change.after) for one in after if one.path == "edged/room/one.py"][:6] == moved


def test_a_journal_gives_back_what_became_of_each_and_the_last_word_counts(tmp_path: Path) -> None:
    candidate = Candidate("edged/room/one.py", find_changes(SOURCE)[0], "00ff")
    first = Outcome(candidate, Verdict.UNNOTICED, "", 12, 3.5)
    last = Outcome(candidate, Verdict.NOTICED, "tests/room/test_one.py::test_it", 13, 1.0)
    journal = tmp_path / "journal.jsonl"
    assert read_journal(journal) == {}
    journal.write_text(first.to_line() + last.to_line())
    assert read_journal(journal) == {candidate: last}


def test_few_quick_tests_are_asked_first_and_slow_ones_only_as_far_as_time_allows() -> None:
    seconds = {"quick": 1.0, "fair": 8.0, "slow": 45.0, "slower": 200.0, "last": 1.0}
    assert stages(list(seconds), seconds) == [["quick", "fair"], ["slow", "last"]]
    assert stages(["slower"], seconds) == [["slower"]]
    assert stages([], seconds) == []
    (decides,) = DECISIVE
    seconds |= {decides: 99.0}
    assert stages(["quick", "fair", decides], seconds) == [["quick", "fair"], [decides]]
    assert stages([decides], seconds) == [[decides]]


def test_the_tests_that_run_a_line_come_in_the_order_of_what_they_cost_and_tell() -> None:
    path = "edged/room/one.py"
    knowledge = Knowledge(
        {
            "far": {"seconds": 0.1, "lines": {path: [9], "edged/room/two.py": list(range(99))}},
            "near": {"seconds": 0.1, "lines": {path: [9, 10]}},
            "slow": {"seconds": 9.0, "lines": {path: [9]}},
            "elsewhere": {"seconds": 0.1, "lines": {path: [7]}},
        }
    )
    change = next(change for change in find_changes(SOURCE) if change.place.line == 9)
    assert knowledge.tests_of(path, change) == ["near", "slow", "far"]
    assert knowledge.tests_of("edged/room/two.py", change) == ["far"]
    unrun = next(change for change in find_changes(SOURCE) if change.place.line == 10)
    assert knowledge.tests_of("edged/room/two.py", replace(unrun, place=Place(200, 0, 200, 1))) == ["far"]


@pytest.mark.slow
def test_a_change_in_a_copy_is_judged_by_the_tests_that_run_it(tmp_path: Path) -> None:
    project = tmp_path / "bench"
    for folder in ("room", "trials"):
        (project / folder).mkdir(parents=True)
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "room" / "one.py").write_text(BOUND)
    (project / "trials" / "test_one.py").write_text(BOUND_TESTS)
    shutil.copytree(ROOT / "tests" / "mutation", project / "tests" / "mutation")
    lines = {"room/one.py": [2, 3, 4]}
    few, many = ({"seconds": 0.1, "lines": lines}, {"seconds": 0.2, "lines": lines})
    bench = Bench(tmp_path, Knowledge({"trials/test_one.py::test_few": few, "trials/test_one.py::test_many": many}))
    verdicts = {}
    for change in find_changes(BOUND):
        if len(change.before) > 1:
            candidate = Candidate("room/one.py", change, "")
            assert bench.is_quiet(candidate)
            outcome = bench.judge(candidate)
            verdicts[str(change)] = (outcome.verdict, outcome.by.rpartition("::")[2])
    assert verdicts == {
        "count < 3  →  (count <= 3)": (Verdict.NOTICED, "test_many"),
        "False  →  True": (Verdict.NOTICED, "test_few"),
        "not count > 9  →  (count > 9)": (Verdict.NOTICED, "test_many"),
        "count > 9  →  (count >= 9)": (Verdict.UNNOTICED, ""),
    }
    assert (project / "room" / "one.py").read_text() == BOUND


def test_each_survivor_that_is_left_can_still_be_made_and_has_its_reason() -> None:
    for entry in known_survivors():
        source = (ROOT / entry["path"]).read_text()
        lines = source.splitlines()
        changes = {
            (lines[change.place.line - 1].strip(), change.before, change.after) for change in find_changes(source)
        }
        assert (entry["line"], entry["before"], entry["after"]) in changes, f"{entry['path']} is otherwise: {entry}"
        assert len(entry["why"]) > 20
