"""How often an idle daemon is woken, and what it writes: voluntary context switches of its threads, writes to its disk.

python -m benchmarks.idle [--seconds 60]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EDGED = [sys.executable, "-m", "edged"]
SETTLE_S = 8.0


def switches(pid: int) -> dict[str, int]:
    """By thread."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as status:
            found[thread] = next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return found


def written(place: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in place.rglob("*") if path.is_file()}


def measure(place: Path, origin: str, seconds: float) -> tuple[float, int]:
    """(wake-ups in ten seconds, files that were written)."""
    config = place / "edged.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{place}/data"\n[[datasets]]\nname = "catalog"\norigin = ["{origin}"]\n'
        f'trust = "{place}/feed/root.trust"\n[serve]\nbind = ["127.0.0.1:0"]\n[admin]\nbind = ["127.0.0.1:0"]\n'
    )
    daemon = subprocess.Popen([*EDGED, "run", "--config", config], stderr=subprocess.DEVNULL)
    try:
        time.sleep(SETTLE_S)
        before, files = switches(daemon.pid), written(place / "data")
        time.sleep(seconds)
        woken = sum(count - before.get(thread, 0) for thread, count in switches(daemon.pid).items())
        return 10 * woken / seconds, len(set(written(place / "data").items()) - set(files.items()))
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run([*EDGED, "origin", "init", place / "feed"], check=True, stdout=subprocess.DEVNULL)
        lines = [json.dumps({"collection": "titles", "key": f"k{n}", "value": {"n": n}}) for n in range(1000)]
        (place / "titles.ndjson").write_text("\n".join(lines))
        publish = [
            *EDGED,
            "origin",
            "publish",
            str(place / "feed"),
            "--dataset",
            "catalog",
            str(place / "titles.ndjson"),
        ]
        subprocess.run(publish, check=True, stdout=subprocess.DEVNULL)
        serve = [*EDGED, "origin", "serve", str(place / "feed"), "--bind", "127.0.0.1:0", "--json"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as origin:
            assert origin.stdout is not None
            text = ""
            while not text.rstrip().endswith("}"):
                text += origin.stdout.readline()
            url = json.loads(text)["urls"][0].rstrip("/") + "/catalog"
            rows = [
                ("http, a poll held", *measure(place, url, args.seconds)),
                ("file, by inotify", *measure(place, (place / "feed/public/catalog").as_uri(), args.seconds)),
            ]
            origin.terminate()
    print(f"{'origin':20} {'wake-ups in 10 s':>18} {'files written':>14}")
    for name, woken, files in rows:
        print(f"{name:20} {woken:18.1f} {files:14d}")


if __name__ == "__main__":
    main()
