"""Certificates of the real daemon: in use, by name, renewed under it, and told to operators."""

from __future__ import annotations

import http.client
import signal
import ssl
import time
from pathlib import Path

from edged.http.tls.certificates import CertificateFiles
from tests.http.tls.pem import make
from tests.system.programs import DEADLINE_S, edged, get, running


def shown(port: int, name: str) -> bytes:
    """The certificate that is shown for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    plain.connect()
    with context.wrap_socket(plain.sock, server_hostname=name) as secure:
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


def der(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(files.cert).read_text())


def test_a_daemon_shows_certificates_by_name_and_reads_renewed_ones(tmp_path: Path) -> None:
    first = make(tmp_path, "localhost", stem="first", days=10)
    other = make(tmp_path, "tv.example", "*.cdn.example", stem="other")
    relayed = make(tmp_path, "relay.example", stem="relayed", days=11)
    config = tmp_path / "edged.toml"
    more = f'[{{ cert = "{other.cert}", key = "{other.key}" }}]'
    config.write_text(
        f'[serve]\nbind = ["127.0.0.1:0"]\ntls_cert = "{first.cert}"\ntls_key = "{first.key}"\ncertificates = {more}\n'
        f'[admin]\nbind = ["127.0.0.1:0"]\n[daemon]\ndata_dir = "{tmp_path}/data"\n'
        f'[relay]\nbind = ["127.0.0.1:0"]\ntls_cert = "{relayed.cert}"\ntls_key = "{relayed.key}"\n'
    )
    edged("check", "--config", config)
    with running("run", "--config", config) as daemon:
        port = int(daemon.wait_for(r"https://127\.0\.0\.1:(\d+)")[1])
        admin = daemon.wait_for(r"(http://127\.0\.0\.1:\d+)")[1]
        daemon.wait_for(f"TLS certificate {first.cert}: expires in")
        names = {"localhost": first, "x.cdn.example": other, "tv.example": other, "elsewhere": first}
        assert {name: shown(port, name) for name in names} == {name: der(files) for name, files in names.items()}
        metrics = get(f"{admin}/metrics").body.decode()
        assert f'edged_tls_certificate_expiry_timestamp_seconds{{cert="{first.cert}"}}' in metrics
        assert f'edged_tls_certificate_expiry_timestamp_seconds{{cert="{relayed.cert}"}}' in metrics
        assert "edged_tls_certificates_expiring 2" in metrics
        make(tmp_path, "localhost", stem="first", days=90)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(f"TLS certificates read anew.*{relayed.cert}")
        assert shown(port, "localhost") == der(first)
        assert "edged_tls_certificates_expiring 1" in get(f"{admin}/metrics").body.decode()
        make(tmp_path, "tv.example", stem="other")  # and nobody says so
        deadline = time.monotonic() + DEADLINE_S
        while shown(port, "tv.example") != der(other):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        Path(first.key).write_text("nonsense")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("stay in use")
        assert shown(port, "localhost") == der(first)
        assert daemon.stop() == 0
    edged("run", "--config", config, code=2)
