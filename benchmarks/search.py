"""Search as on a remote control: what it takes unseen, and what its index takes.

    python -m benchmarks.search [--data DIR]

Each question is asked once of a replica that was just opened (its indexes are mapped by a first one). Prints the median
and the slowest of the questions as typed, of those with a typing error, and of the beginnings of some titles; and what
the indexes take beside the packs. Times are those of the processor, as other work disturbs the others.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import edged
from benchmarks.shared.stores import SEARCHED, Edged, films
from edged.feed.coding.snapshot import train_dictionary
from edged.replica.view import View

TYPED = [
    "spiderman", "spider-man", "wall-e", "walle", "wall e", "godfather", "the god", "matrix", "fast and furious",
    "fast & furious", "obrien", "o'brien", "brien", "up", "alien", "star wars", "the lord of the rings", "x men",
    "xmen", "superman", "schindlers list", "leon", "tom hanks", "tom hank", "mery streep", "les miserables",
    "auberge", "l'auberge", "love", "man", "new york", "casablanca", "2001", "night of the", "john wayne",
    "kill bill", "e t",
]  # fmt: skip
MISSPELT = [
    "terminatr", "teminator", "godfahter", "jurasic park", "shawshenk redemption", "titanik", "casablnaca",
    "pulp ficton", "forest gump", "matrx", "schindlrs list", "indiana jnoes",
]  # fmt: skip
AS_ONE_TYPES = ["godfather", "spider-man", "lord of the rings"]


def timed(view: View, texts: list[str]) -> list[float]:
    """Milliseconds of each."""
    found = []
    for text in texts:
        began = time.thread_time()
        view.search("titles", text, limit=20)
        found.append(1000 * (time.thread_time() - began))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst; without it the records are made up")
    records = films(parser.parse_args().data)
    with tempfile.TemporaryDirectory() as place:
        store = Edged(Path(place), SEARCHED)
        store.fill(records, train_dictionary(records[::20]))
        slices = store.writer.live.manifest.slices.values()
        packs = [ref for state in slices for ref in state.packs()]
        with edged.open(store.root) as replica:
            view = replica["catalog"].view()
            view.search("titles", "zzzz")
            beginnings = [title[:size] for title in AS_ONE_TYPES for size in range(3, len(title) + 1)]
            for name, texts in (("as typed", TYPED), ("misspelt", MISSPELT), ("beginnings", beginnings)):
                took = timed(view, texts)
                print(
                    f"{name}: {len(took)} questions, median {statistics.median(took):.2f} ms, most {max(took):.1f} ms"
                )
        indexes = sum(ref.index.size for ref in packs if ref.index is not None)
        print(f"{len(records)} records: packs {sum(ref.size for ref in packs)} bytes, indexes {indexes} bytes")
        store.close()


if __name__ == "__main__":
    main()
