"""The small changes of `make mutation` are what they say, and leave a program that can be run."""

from __future__ import annotations

import pytest

from tests.mutation.changes import find_changes

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
