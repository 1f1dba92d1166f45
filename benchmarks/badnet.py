"""How far a device is behind on a bad line, with an edit a second: versions and seconds, and the bytes that each took.

    python -m benchmarks.badnet [--kbit 50] [--delay-ms 100] [--loss 0] [--seconds 60] [--records 5000]

A real origin and a real device, each in a network namespace, with a line between them that has this rate each way.
Needs root and /dev/net/tun. The first synchronisation is made on a good line, then the line turns bad. Peers are in
benchmarks/peers.py, on a good line; none is here.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from edged.origin.publisher import Publisher
from tests.system.link import Link, linked, may_make_links
from tests.system.test_bad_networks import box, origin


def record(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "title": f"Title {number}",
        "year": 1950 + number % 75,
        "rating": round(chance.uniform(1, 10), 1),
        "extract": " ".join(f"word{chance.randrange(3000)}" for _ in range(60)),
    }


def publish_for(feed: Path, records: int, seconds: int, made: dict[int, float]) -> None:
    """An edit of one record each second. made: by version when its head was in place."""
    publisher, chance = Publisher.open(feed), random.Random(2)
    begin = time.monotonic()
    for number in range(seconds):
        time.sleep(max(0.0, begin + number + 1 - time.monotonic()))
        chosen = chance.randrange(records)
        result = publisher.publish_changes("catalog", [("titles", f"t{chosen}", record(chosen, chance))])
        made[result.version] = time.monotonic()


def measure(link: Link, place: Path, options: argparse.Namespace) -> None:
    chance = random.Random(1)
    publisher = Publisher.init(place / "feed")
    publisher.publish(
        "catalog", [("titles", f"t{number}", record(number, chance)) for number in range(options.records)]
    )
    with origin(link, place / "feed") as url, box(link, place, place / "feed", url) as device:
        device.reaches(1)
        link.rate, link.delay_s, link.loss = options.kbit * 125, options.delay_ms / 1e3, options.loss
        before, made = list(link.passed), dict[int, float]()
        publishing = threading.Thread(target=publish_for, args=(place / "feed", options.records, options.seconds, made))
        publishing.start()
        versions, behind = [], []
        while publishing.is_alive():
            time.sleep(0.2)
            held, newest, now = device.status()["version"], max(made, default=1), time.monotonic()
            versions.append(max(0, newest - held))  # it may have one before the publisher has returned
            behind.append(now - made[held + 1] if held < newest else 0.0)
        publishing.join()
        newest = max(made)
        device.reaches(newest)
        last_s = time.monotonic() - made[newest]
        status = json.loads(json.dumps(device.status()))
    behind.sort()
    each = (link.passed[1] - before[1]) / options.seconds
    line = f"{options.kbit} kbit/s, {options.delay_ms} ms one way, {options.loss:.0%} loss"
    print(f"{line}, an edit a second of {options.records} records for {options.seconds} s")
    print(f"  versions behind: median {statistics.median(versions):g}, most {max(versions)} (asked: 1)")
    print(
        f"  seconds behind: median {statistics.median(behind):.2f}, p99 {behind[int(len(behind) * 0.99)]:.2f}", end=""
    )
    print(f", most {behind[-1]:.2f} (asked: 5); the last one came after {last_s:.2f} s")
    print(f"  {each:.0f} bytes a second to the device (of {options.kbit * 125}), {status['hops_applied']} hops applied")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kbit", type=int, default=50, help="of the line, each way")
    parser.add_argument("--delay-ms", type=int, default=100, help="one way")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--records", type=int, default=5000)
    options = parser.parse_args()
    if not may_make_links():
        sys.exit("badnet: needs root, ip (iproute2) and /dev/net/tun")
    with tempfile.TemporaryDirectory() as place, linked() as link:
        measure(link, Path(place), options)


if __name__ == "__main__":
    main()
