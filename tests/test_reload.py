"""SIGHUP: what of a changed configuration is put to use at once, what takes a restart, and that nobody notices."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from msgspec import structs

from edged.config import AdminConfig, Config, DaemonConfig, DatasetConfig, ServeConfig
from edged.ops.reload import applied_to, changes_between
from tests.system.programs import Device, Origin, edged, titles, write_ndjson

A = DatasetConfig("a", ["file:///a"], "/a.trust")
B = DatasetConfig("b", ["file:///b"], "/b.trust")


def test_nothing_has_changed() -> None:
    changes = changes_between(Config(datasets=[A]), Config(datasets=[A]))
    assert (changes.applied, changes.restart) == ((), ())


def test_what_can_be_put_to_use_is_and_the_rest_stays_as_it_was() -> None:
    other = DatasetConfig("a", ["file:///a"], "/a.trust", slices=["core", "de"])
    old = Config(datasets=[A, B], daemon=DaemonConfig(log_level="info", data_dir="/x"))
    new = Config(
        datasets=[other],
        daemon=DaemonConfig(log_level="debug", data_dir="/y"),
        serve=ServeConfig(bind=["127.0.0.1:1"]),
        admin=AdminConfig(bind=["127.0.0.1:2"]),
    )
    changes = changes_between(old, new)
    assert changes.applied == ("daemon.log_level", "dataset a", "dataset b removed")
    assert changes.restart == ("daemon.data_dir", "serve.bind", "admin.bind")
    now = applied_to(old, new, changes)
    assert (now.daemon.log_level, now.daemon.data_dir) == ("debug", "/x")
    assert now.serve == old.serve
    assert now.datasets == [other]
    assert changes_between(now, new).applied == ()
    assert changes_between(now, new).restart == changes.restart  # it is said again until it is done


def test_with_further_processes_another_set_of_datasets_takes_a_restart() -> None:
    serve = ServeConfig(workers=2)
    changes = changes_between(Config(datasets=[A], serve=serve), Config(datasets=[B], serve=serve))
    assert (changes.applied, changes.restart) == ((), ("datasets b", "datasets a"))
    assert applied_to(Config(datasets=[A], serve=serve), Config(datasets=[B], serve=serve), changes).datasets == [A]


def test_where_a_replica_lies_takes_a_restart() -> None:
    old = Config(datasets=[A, B])
    new = Config(datasets=[structs.replace(A, memory=True, poll_s=7), B])
    changes = changes_between(old, new)
    assert (changes.applied, changes.restart) == (("dataset a",), ("datasets a.memory",))
    assert applied_to(old, new, changes).datasets[1] == structs.replace(A, poll_s=7)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    origin = Origin.make(tmp_path)
    (origin.feed / "catalog.toml").write_text('[slices.old]\nwhere = { old = ["yes"] }\n')
    records = titles(5)
    records[0]["value"]["old"] = "yes"
    origin.publish(records)
    rows = [{"collection": "rows", "key": "1", "value": {"title": "New"}}]
    edged("origin", "publish", origin.feed, "--dataset", "rows", write_ndjson(tmp_path / "rows", rows))
    return Device(tmp_path, origin)


def test_a_running_daemon_takes_datasets_and_slices_without_dropping_a_connection(device: Device) -> None:
    public = device.origin.public
    config = device.configure(public.as_uri())
    with device.running(config) as daemon:
        daemon.wait_version(1)
        connection = http.client.HTTPConnection(urlsplit(daemon.apps).netloc, timeout=30)

        def ask(path: str) -> int:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        first = "/v1/catalog/titles/" + titles()[0]["key"].replace("/", "%2F")
        assert (ask("/v1/catalog"), ask(first), ask("/v1/rows")) == (200, 404, 404)
        sock = connection.sock
        trust = f'trust = "{device.origin.feed}/root.trust"'
        rows = f'[[datasets]]\nname = "rows"\norigin = ["{public.parent.as_uri()}/rows"]\n{trust}\n'
        text = config.read_text().replace("poll_s = 1\n", "poll_s = 2\n").replace('["core"]', '["core", "old"]')
        config.write_text(text.replace("[serve]", f"{rows}[serve]\nmax_connections = 99"))
        daemon.program.process.send_signal(signal.SIGHUP)
        daemon.program.wait_for("configuration read anew: dataset catalog, new dataset rows")
        daemon.program.wait_for("serve.max_connections: takes a restart")
        daemon.wait_status(lambda status: "old" in status["slices"])
        daemon.wait_document(lambda document: document["datasets"]["rows"]["version"] == 1)
        assert (ask(first), ask("/v1/rows/rows/1")) == (200, 200)
        config.write_text(config.read_text().replace(rows, "") + "\n[nonsense]\n")
        daemon.program.process.send_signal(signal.SIGHUP)
        daemon.program.wait_for("configuration not taken: .*nonsense")
        assert ask("/v1/rows/rows/1") == 200
        config.write_text(config.read_text().replace("[nonsense]", ""))
        daemon.program.process.send_signal(signal.SIGHUP)
        daemon.program.wait_for("dataset rows removed")
        assert ask("/v1/rows/rows/1") == 404
        assert ask(first) == 200
        assert connection.sock is sock  # the same connection all along
        connection.close()
        assert daemon.program.stop() == 0
    assert json.loads(edged("ls", device.data_dir, "--json").stdout)["rows"]["version"] == 1  # its files stay
