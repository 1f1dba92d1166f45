"""The public tool schemathesis against the description that edged gives of itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.programs import Device, Origin, Running, edged, titles

RULES = """
[collections.titles]
index = ["year", "genres"]
text = ["title"]
order = ["year"]
interval = ["from", "to"]
[views.stb-basic.titles]
fields = ["title", "year", "poster"]
truncate = { title = 8 }
"""
FILM = {"title": "Pulp Fiction", "year": 1994, "poster": {"w342": "/x.jpg"}}  # the description's own example
EXAMPLES = 30  # an operation
LIMIT_S = 240
READS_CBOR = """
import cbor2
import schemathesis

@schemathesis.deserializer("application/cbor")
def from_cbor(context, response):
    return cbor2.loads(response.content)
"""
# A question may be longer than a head: 431 is a refusal too.
REFUSALS = "[checks]\nnegative_data_rejection.expected-statuses = [400, 404, 405, 406, 421, 431]\n"
THERE = '[parameters]\n"path.dataset" = "catalog"\n"path.collection" = "titles"\n'


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["", THERE], ids=["any names", "names that are there"])
def test_every_answer_is_as_described_whatever_is_asked(tmp_path: Path, settings: str) -> None:
    origin = Origin.make(tmp_path)
    (origin.feed / "catalog.toml").write_text(RULES)
    origin.publish([*titles(60), {"collection": "titles", "key": "1994/Pulp_Fiction", "value": FILM}])
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    edged("sync", "--config", config)
    (tmp_path / "schemathesis.toml").write_text(REFUSALS + settings)
    (tmp_path / "reads_cbor.py").write_text(READS_CBOR)
    with device.running(config) as daemon:
        said = ask_everything(tmp_path, daemon)
        assert daemon.record("1994/Pulp_Fiction").json == FILM
        assert not [line for line in daemon.program.lines if "Traceback" in line]
        assert daemon.program.stop() == 0
    cases = re.search(r"(\d+) generated", said)
    assert cases is not None, said
    assert int(cases[1]) > 10 * EXAMPLES, said


def ask_everything(place: Path, daemon: Running) -> str:
    """What schemathesis said. `positive_data_acceptance` is left out: that `keys`, `q` and `where` exclude one another
    and that views and indexes have to be declared is nothing that OpenAPI can say.
    """
    program = Path(sys.executable).parent / "schemathesis"
    command = [program, "run", f"{daemon.apps}/openapi.json", "--max-examples", EXAMPLES, "--seed", 1, "--no-color"]
    command += ["--continue-on-failure", "--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=place,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "reads_cbor", "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return done.stdout
