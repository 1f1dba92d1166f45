"""A programme guide whose window rolls: what ticks and rolls cost the publisher, and rolls a device.

    python benchmarks/guide.py [--data DIR] [--programmes N] [--days N] [--ticks N]

Fourteen days of 300 channels, N programmes in all; each day one goes out and one comes in. Ticks are edits of 6 to 46
programmes: shifted times, other titles, new synopses, other images. DIR holds movies.ndjson.zst, from which texts are
taken; without it they are made up. Times are processor time of this process. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.mass import zstd_bytes
from benchmarks.shared.publishes import made_up, read
from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.feed.coding.snapshot import unpack_dictionary
from edged.feed.schema import Schema
from edged.origin.blobs.dictionaries import dictionary_in_use
from edged.origin.blobs.snapshots import newest_snapshot, parts_of, snapshot_bytes
from edged.origin.publisher import Publisher
from edged.progress import Watch, unwatched
from edged.replica.writer import Writer

SEED, DAYS, CHANNELS, DAY_S, BEGIN = 2026, 14, 300, 86_400, 1_764_000_000
COLLECTION = "programmes"
RULES = """[collections.programmes]
index = ["channel", "genres"]
text = ["title"]
order = ["start"]
interval = ["start", "end"]
"""

Fields = dict[str, Any]


class TimedPublisher(Publisher):
    """live_at: when the newest version was in place, by process_time()."""

    live_at = 0.0

    def keep_up(self, dataset: str, *, watch: Watch = unwatched) -> None:
        self.live_at = time.process_time()
        super().keep_up(dataset, watch=watch)


@dataclass(slots=True)
class Guide:
    """films: what is shown; a_day: programmes that begin on one day."""

    films: list[Fields]
    a_day: int

    def day(self, number: int) -> dict[str, Fields]:
        """The programmes of a day, by key."""
        chance = random.Random(f"{SEED}/{number}")
        found = {}
        for channel in range(CHANNELS):
            count = self.a_day * (channel + 1) // CHANNELS - self.a_day * channel // CHANNELS
            length = DAY_S // max(count, 1) // 300 * 300
            for place in range(count):
                start = BEGIN + number * DAY_S + place * length
                found[f"ch{channel:03}/{start}"] = self.programme(channel, (start, start + length), chance)
        return found

    def programme(self, channel: int, times: tuple[int, int], chance: random.Random) -> Fields:
        film = chance.choice(self.films)
        return {
            "channel": f"ch{channel:03}",
            "start": times[0],
            "end": times[1],
            "episode": chance.randrange(1, 24),
            "hd": chance.random() < 0.8,
            **film,
        }

    def tick(self, held: dict[str, Fields], chance: random.Random) -> dict[str, Fields]:
        """An edit of 6 to 46 programmes."""
        changed = {}
        for key in chance.sample(sorted(held), chance.randrange(6, 47)):
            fields = dict(held[key])
            what = chance.randrange(5)
            if what < 2:
                fields |= {"start": fields["start"] + 300, "end": fields["end"] + 300}
            elif what == 2:
                fields["title"] = f"{fields['title']} (live)"
            elif what == 3:
                fields["synopsis"] = chance.choice(self.films)["synopsis"]
            else:
                fields["image"] = f"https://img.example.net/{chance.getrandbits(64):016x}.jpg"
            changed[key] = fields
        return changed


def films_of(data: Path | None) -> list[Fields]:
    """Title, synopsis, genres, cast and image of what is shown."""
    if data is None:
        records, _ = made_up(20_000)
        rows = [value for collection, _, value in records if collection == "titles"]
        return [
            {"title": row["title"], "synopsis": str(row.get("synopsis", row)), "genres": row["genres"]} for row in rows
        ]
    rows = [row["value"] for row in read(data / "movies.ndjson.zst")]
    return [
        {
            "title": row["title"],
            "synopsis": row["extract"],
            "genres": row["genres"],
            "cast": row["cast"][:4],
            "image": row.get("thumbnail", ""),
        }
        for row in rows
        if row.get("extract")
    ]


def records_of(held: dict[str, Fields]) -> Iterator[tuple[str, str, Fields]]:
    return ((COLLECTION, key, held[key]) for key in sorted(held, key=str.encode))


def begin(publisher: TimedPublisher, held: dict[str, Fields]) -> None:
    began = time.process_time()
    publisher.publish("guide", records_of(held))
    taken = time.process_time() - began
    whole = b"".join(cbor.encode(key) + cbor.encode(held[key]) for key in sorted(held, key=str.encode))
    parameters = zstandard.ZstdCompressionParameters.from_level(19, enable_ldm=True, window_log=27)
    plain = len(zstandard.ZstdCompressor(compression_params=parameters).compress(whole))
    with publisher.reading("guide") as state:
        size = snapshot_bytes(state, "core", newest_snapshot(state, "core") or 0)
    print(f"first publish {taken:.1f} s, snapshot {size:,} bytes, {size / plain:.2f} of one zstd frame", flush=True)


def tick(publisher: TimedPublisher, guide: Guide, held: dict[str, Fields], ticks: int) -> None:
    chance, taken = random.Random(SEED), []
    for _ in range(ticks):
        changed = guide.tick(held, chance)
        held.update(changed)
        began = time.process_time()
        publisher.publish_changes("guide", [(COLLECTION, key, value) for key, value in changed.items()])
        taken.append(publisher.live_at - began)
    if taken:
        taken.sort()
        middle, worst = taken[len(taken) // 2], taken[-1]
        print(f"{ticks} ticks: until the head is in place {middle:.2f} s in the median, {worst:.2f} s at most")


def fill(writer: Writer, publisher: Publisher) -> None:
    """The device takes the snapshot."""
    with publisher.reading("guide") as state:
        version = newest_snapshot(state, "core") or 0
        row = state.version_row(version)
        parts, held = parts_of(state, "core", version), dictionary_in_use(state, "core")
    blobs = publisher.public / "guide/blobs"
    assert row is not None
    assert held.sha256 is not None
    dictionary = unpack_dictionary((blobs / held.sha256.hex()).read_bytes())
    with writer.stage() as staging:
        staging.begin_snapshot("core", version, dictionary)
        for part in parts:
            data = (blobs / part.blob.name).read_bytes()
            staging.add_part("core", BlobRef.of(data), data)
        staging.set_schema(Schema.from_cbor(cbor.decode(row.schema, "schema")), 1)
        staging.commit(version, b"head", as_of=1, fresh_s=1, expires_s=1)
    with publisher.reading("guide") as state:
        query = "SELECT to_version, sha256, max(from_version) FROM hops WHERE to_version > ? GROUP BY 1 ORDER BY 1"
        hops = list(state.rows(query, (version,)))
    for number, sha256, _ in hops:
        with writer.stage() as staging:
            staging.apply_hop("core", number, (blobs / sha256.hex()).read_bytes())
            staging.commit(number, b"head", as_of=1, fresh_s=1, expires_s=1)
    writer.compact(1 << 40)


def apply(writer: Writer, publisher: Publisher) -> int:
    """The device takes the newest hop. Returns its bytes."""
    with publisher.reading("guide") as state:
        version = state.live
        query = "SELECT sha256 FROM hops WHERE to_version = ? ORDER BY from_version DESC LIMIT 1"
        sha256 = next(state.rows(query, (version,)))[0]
    data = (publisher.public / "guide/blobs" / sha256.hex()).read_bytes()
    with writer.stage() as staging:
        staging.apply_hop("core", version, data)
        staging.commit(version, b"head", as_of=1, fresh_s=1, expires_s=1)
    return len(data)


def roll(publisher: TimedPublisher, guide: Guide, held: dict[str, Fields], days: int, device: Path) -> None:
    """Each day one out and one in, at the publisher and on a device."""
    with Writer.open(device, "guide") as writer:
        began = time.process_time()
        fill(writer, publisher)
        fresh = disk_bytes(device)
        print(f"first sync: {time.process_time() - began:.1f} s, {fresh / 1e6:.1f} MB on disk", flush=True)
        for number in range(days):
            gone, come = guide.day(number), guide.day(DAYS + number)
            edits: list[tuple[str, str, Fields | None]] = [(COLLECTION, key, None) for key in gone if key in held]
            edits += [(COLLECTION, key, fields) for key, fields in come.items()]
            plain = zstd_bytes(
                b"".join(cbor.encode(key) + cbor.encode(held[key]) for key in sorted(gone) if key in held),
                b"".join(map(cbor.encode, [*gone, *(item for pair in come.items() for item in pair)])),
            )
            began = time.process_time()
            publisher.publish_changes("guide", edits)
            published = publisher.live_at - began
            for key in gone:
                held.pop(key, None)
            held.update(come)
            flash, began = writer.flash_bytes_written, time.process_time()
            size = apply(writer, publisher)
            applied = time.process_time() - began
            writer.compact(1 << 40)
            merged = time.process_time() - began - applied
            written = (writer.flash_bytes_written - flash) / sum(len(cbor.encode(fields)) for fields in come.values())
            print(
                f"roll {number + 1}: head after {published:.1f} s, hop {size:,} bytes, {size / plain:.2f} of zstd; "
                f"applied in {applied:.2f} s and merged in {merged:.2f}, flash {written:.2f} of the new bytes, "
                f"disk {disk_bytes(device) / fresh:.2f} of the fresh one",
                flush=True,
            )


def disk_bytes(device: Path) -> int:
    return sum(path.stat().st_size for path in (device / "guide/packs").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst; without it texts are made up")
    parser.add_argument("--programmes", type=int, default=116_777)
    parser.add_argument("--days", type=int, default=7, help="rolls")
    parser.add_argument("--ticks", type=int, default=16)
    args = parser.parse_args()
    guide = Guide(films_of(args.data), args.programmes // DAYS)
    held = {key: fields for number in range(DAYS) for key, fields in guide.day(number).items()}
    if not held:
        sys.exit("too few programmes for 14 days")
    with tempfile.TemporaryDirectory() as place:
        publisher = TimedPublisher.init(Path(place) / "feed")
        assert isinstance(publisher, TimedPublisher)
        (publisher.path / "guide.toml").write_text(RULES)
        begin(publisher, held)
        tick(publisher, guide, held, args.ticks)
        roll(publisher, guide, held, args.days, Path(place) / "device")


if __name__ == "__main__":
    main()
