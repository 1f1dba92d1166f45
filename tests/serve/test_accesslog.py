"""The access log: a line a request with its app, rate limited, from what would be remembered too."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edged.http.request import Request
from edged.serve.accesslog import LINES_A_SECOND, AccessLog
from tests.system.programs import Device, Origin, get, titles


def asked(target: str = "/v1/catalog/titles?q=secret", **fields: str) -> Request:
    return Request("GET", target.encode(), tuple((name.encode(), value.encode()) for name, value in fields.items()))


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [record.fields | {"event": record.message} for record in caplog.records]  # type: ignore[attr-defined]


def test_a_line_says_what_was_asked_and_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    AccessLog(lambda: 5.0).tell(asked(traceparent=trace, authorization="Bearer s"), 200, 0.0012345)
    [line] = lines(caplog)
    assert line == {
        "event": "request",
        "method": "GET",
        "path": "/v1/catalog/titles",
        "status": 200,
        "ms": 1.234,
        "app": "local",
        "peer": "",
        "traceparent": trace,
    }


def test_a_flood_costs_so_many_lines_a_second_and_says_how_many_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = [10.0]
    log = AccessLog(lambda: now[0])
    for _ in range(LINES_A_SECOND + 50):
        log.tell(asked(), 200, 0.0)
    assert len(caplog.records) == LINES_A_SECOND
    now[0] += 1
    log.tell(asked(), 200, 0.0)
    assert [line["event"] for line in lines(caplog)[-2:]] == ["requests left out", "request"]
    assert lines(caplog)[-2]["count"] == 50


@pytest.mark.parametrize("workers", [1, 2])
def test_a_daemon_logs_every_request(tmp_path: Path, workers: int) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(3))
    device = Device(tmp_path, origin)
    port = '"127.0.0.1:0"' if workers == 1 else f'"127.0.0.1:{free_port()}"'
    config = device.configure(origin.public.as_uri())
    serving = f"[serve]\naccess_log = true\nworkers = {workers}\nbind = [{port}]"
    config.write_text(config.read_text().replace('[serve]\nbind = ["127.0.0.1:0"]', serving))
    with device.running(config) as daemon:
        daemon.wait_version(1)
        for _ in range(8):
            get(f"{daemon.apps}/v1/catalog/titles?limit=1&q=Title")
        get(f"{daemon.apps}/v1/catalog/none/x")
        daemon.program.wait_for("request .*none/x.*404")
        assert daemon.program.stop() == 0
        told = [line for line in daemon.program.lines if "request" in line and "/v1/catalog/titles" in line]
        assert len(told) == 8
        assert not any("q=Title" in line for line in told)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
