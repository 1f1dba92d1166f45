"""The states of a lane connection are a table: what is absent is a bug of ours, and the docs draw it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.http.lane.connection import Doing, Event, LaneConnection, LaneState
from edged.http.lane.lane import HANDLERS, STEPS, TRANSITIONS, Lane
from tests.http.test_application import running
from tests.serve.lanes import ask_once, client, eventually, head

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"

# Which state may follow which; the run below sees no other. Any of them may be followed by CLOSED.
FOLLOWERS = {
    (LaneState.READING, LaneState.IN_THREAD),
    (LaneState.READING, LaneState.HELD),
    (LaneState.READING, LaneState.STREAMING),
    (LaneState.READING, LaneState.SENDING_FILE),
    (LaneState.READING, LaneState.BY_TASK),
    (LaneState.READING, LaneState.HANDING_OVER),
    (LaneState.READING, LaneState.MULTIPLEXED),
    (LaneState.READING, LaneState.LINGERING),
    (LaneState.IN_THREAD, LaneState.READING),
    (LaneState.IN_THREAD, LaneState.HELD),
    (LaneState.IN_THREAD, LaneState.STREAMING),
    (LaneState.IN_THREAD, LaneState.SENDING_FILE),
    (LaneState.IN_THREAD, LaneState.BY_TASK),
    (LaneState.HELD, LaneState.READING),
    (LaneState.HELD, LaneState.IN_THREAD),
    (LaneState.STREAMING, LaneState.READING),
    (LaneState.SENDING_FILE, LaneState.READING),
    (LaneState.BY_TASK, LaneState.READING),
    (LaneState.HANDSHAKE, LaneState.READING),
    (LaneState.HANDSHAKE, LaneState.MULTIPLEXED),
}


@pytest.mark.parametrize("pair", sorted(set(product(LaneState, Event)) - set(TRANSITIONS)))
def test_an_event_that_a_state_does_not_know_is_a_bug(pair: tuple[LaneState, Event]) -> None:
    state, event = pair
    with pytest.raises(AssertionError, match=f"an event that {state.name} does not know"):
        HANDLERS[state][event](cast(Lane, None), cast(Any, SimpleNamespace(state=state)))


def test_every_state_that_is_not_waited_in_elsewhere_has_a_next_step() -> None:
    assert set(LaneState) - set(STEPS) == {LaneState.HANDSHAKE}


def diagram() -> str:
    """The table of transitions as a Mermaid diagram."""
    lines = ["stateDiagram-v2", "    [*] --> READING", "    [*] --> HANDSHAKE"]
    for state in LaneState:
        names = [event.name.lower() for place, event in TRANSITIONS if place is state]
        lines.append(
            f"    {state.name}: {state.name.lower().replace('_', ' ')}<br/>{' · '.join(names)}".rstrip("<br/>")
        )
    lines += [f"    {one.name} --> {other.name}" for one, other in sorted(FOLLOWERS)]
    return "\n".join([*lines, "    LINGERING --> CLOSED", "    HANDING_OVER --> CLOSED", "    MULTIPLEXED --> CLOSED"])


def test_the_picture_in_the_docs_is_that_of_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in DOCS.read_text()


async def test_no_state_follows_another_than_the_picture_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: set[tuple[LaneState, LaneState]] = set()
    become = LaneConnection.become

    def noted(connection: LaneConnection, state: LaneState, doing: Doing | None = None) -> None:
        if state not in (connection.state, LaneState.CLOSED):
            seen.add((connection.state, state))
        become(connection, state, doing)

    monkeypatch.setattr(LaneConnection, "become", noted)
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    async with running() as server:
        server.app.file = str(tmp_path / "file")
        for target in ("/", "/thread", "/held-briefly", "/thread-then-held", "/file", "/echo", "/fail", "/silent"):
            if target == "/thread-then-held":
                server.app.resumed[:] = [False]
                server.app.signal.move()
            await ask_once(server.lane, head("GET", target))
        await ask_once(server.lane, head("POST", "/", {"Content-Length": "0"}), "POST")
        async with client(server.lane) as asker:
            await asker.send(head("GET", "/stream"))
            await eventually(lambda: bool(server.app.signal.followers))
            await asker.stream.send_eof()
            await asker.reply()
    assert seen - FOLLOWERS == set()
    assert len(seen) > 10
