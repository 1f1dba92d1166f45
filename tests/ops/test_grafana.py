"""config/grafana.json is as it is made, and asks for metrics that there are, in queries that Prometheus can read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "config/grafana.json"
NAME = re.compile(r"\bedged_[a-z_]+")


def queries() -> list[str]:
    document = json.loads(FILE.read_text())
    return [target["expr"] for panel in document["panels"] for target in panel["targets"]]


def test_it_is_as_it_is_made() -> None:
    code = "import sys; sys.path.insert(0, 'packaging'); import grafana; sys.stdout.write(grafana.dashboard())"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout == FILE.read_text(), "run: python packaging/grafana.py"


def test_every_metric_in_it_is_one_of_the_daemons() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "edged/ops").glob("*.py"))
    found = {name for query in queries() for name in NAME.findall(query)}
    assert len(found) > 15
    missing = {name for name in found if f'"{name.removesuffix("_bucket")}"' not in sources}
    assert missing == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"edged:panel_{number}", "expr": query.replace("$job", "edged").replace("$instance", ".*")}
        for number, query in enumerate(queries())
    ]
    path = tmp_path / "rules.json"  # YAML takes JSON
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
