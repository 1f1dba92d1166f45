"""The alerts: valid, fire when they should, name metrics that exist, and lead to the runbook; promtool judges."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from edged.configfile import load
from edged.daemon import Daemon

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "config/prometheus-alerts.yml"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def metrics(place: Path) -> str:
    config = place / "edged.toml"
    dataset = f'[[datasets]]\nname = "catalog"\norigin = ["file:///x"]\ntrust = "{place}"\n'
    config.write_text(f'[daemon]\ndata_dir = "{place}/data"\n{dataset}')
    daemon = Daemon(load(config))
    daemon.meter.fast_answers[200] = 1
    with ExitStack() as stack:
        daemon.catalog = daemon.open_replicas(stack)
        return daemon.metrics().decode()


@needs_promtool
def test_the_metrics_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=metrics(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_promtool
def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).parent / "prometheus-alerts-test.yml", tmp_path)
    for words in (["check", "rules", ALERTS.name], ["test", "rules", "prometheus-alerts-test.yml"]):
        done = subprocess.run(
            ["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_metrics_that_alerts_name_exist_and_each_alert_leads_to_the_runbook(tmp_path: Path) -> None:
    text = ALERTS.read_text()
    known = set(re.findall(r"^# TYPE (\S+)", metrics(tmp_path), re.MULTILINE))
    named = set(re.findall(r"\b(?:edged|process)_[a-z_]+\b", text))
    assert named <= known
    alerts = re.findall(r"alert: (\w+)", text)
    assert len(alerts) == len(set(alerts)) >= 10
    assert re.findall(r"runbook: (\S+)", text) == [f"docs/runbook.md#{name.lower()}" for name in alerts]
