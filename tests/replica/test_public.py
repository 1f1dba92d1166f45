"""What a program that embeds edged may rely on: dir() shows it, docs/python.md describes it."""

from __future__ import annotations

import re
from pathlib import Path

import edged
from tests.system.programs import Device, Origin, titles
from tests.system.programs import edged as command

PAGE = Path(__file__).parent.parent.parent / "docs/python.md"


def described(heading: str) -> set[str]:
    """The names in the first column of a section's table."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)(?:\([^`]*\))?`", cell)}


def test_dir_shows_what_the_page_describes_and_all_of_it_works(tmp_path: Path) -> None:
    origin = Origin.make(tmp_path)
    (origin.feed / "catalog.toml").write_text('[collections.titles]\nindex = ["year"]\ntext = ["title"]\n')
    origin.publish(titles(5))
    device = Device(tmp_path, origin)
    command("sync", "--config", device.configure(origin.public.as_uri()))
    assert dir(edged) == ["open"]
    with edged.open(device.data_dir) as replica:
        dataset = replica["catalog"]
        collection = dataset["titles"]
        for heading, made in (("Replica", replica), ("Dataset", dataset), ("Collection", collection)):
            assert described(heading) == set(dir(made)), heading
            assert all(hasattr(made, name) for name in dir(made))
        key = titles()[1]["key"]
        assert [found for found, _ in collection.where(year=1981)] == [key]
        assert key in [found for found, _ in collection.search("title 1")]
        assert collection.get_many([key, "none"])[1] is None
        origin.publish(titles(6))
        command("sync", "--config", device.place / "edged.toml")
        (change,) = dataset.changes(1)
        assert (change.collection, change.key, change.value) == (
            "titles",
            titles()[5]["key"],
            collection.get_raw(titles()[5]["key"]),
        )
        assert (dataset.version, dataset.fault, dataset.view().version) == (2, None, 2)


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    origin = Origin.make(tmp_path)
    sample = PAGE.parent / "examples/titles.ndjson"
    command("origin", "publish", origin.feed, "--dataset", "catalog", sample)
    device = Device(tmp_path, origin)
    command("sync", "--config", device.configure(origin.public.as_uri()))
    program = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    printed: list[object] = []
    exec(program.replace("/var/lib/edged", str(device.data_dir)), {"print": printed.append})
    assert printed == ["Pulp Fiction"]
