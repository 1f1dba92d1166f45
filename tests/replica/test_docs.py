"""The examples of docs/replica.md run as they stand, on a replica in place of /var/lib/edged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edged.feed import cbor
from edged.replica.writer import Writer
from tests.replica.feeds import Publisher, made_up

DOCUMENT = Path(__file__).parents[2] / "docs/replica.md"


def test_the_embedded_api_as_documented(tmp_path: Path) -> None:
    records = made_up(100)
    records["titles", "1994/Pulp_Fiction"] = cbor.encode(
        {"title": "Pulp Fiction", "year": 1994, "genres": ["Crime"], "cast": ["John Travolta"]}
    )
    with Writer.open(tmp_path, "catalog") as writer:
        Publisher({"core": records}).snapshot_into(writer)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    lines = example.replace("/var/lib/edged", str(tmp_path)).splitlines()
    results: list[Any] = []
    for number, line in enumerate(lines):
        code, _, comment = line.partition("#")
        if line.startswith("    titles") and not code.strip().startswith("titles =") and comment:
            lines[number] = f"    results.append({code.strip()})"
    scope: dict[str, Any] = {"results": results}
    exec(compile("\n".join(lines), str(DOCUMENT), "exec"), scope)
    pulp = {"title": "Pulp Fiction", "year": 1994, "genres": ["Crime"], "cast": ["John Travolta"]}
    one, none, raw, many, items, where, search = results[:7]
    assert (one, none, raw, many) == (pulp, None, records["titles", "1994/Pulp_Fiction"], [pulp, None])
    assert scope["titles"].name == "titles"
    assert items is not None
    assert where is not None
    assert search[0] == ("1994/Pulp_Fiction", pulp)
