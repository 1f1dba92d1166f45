"""Certificates: chosen by name, read anew when they change, refused with the reason."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from edged.errors import ConfigError
from edged.http.tls.certificates import DAY_S, MOST_BYTES, WARN_DAYS, CertificateFiles, Certificates
from tests.http.tls.pem import make


def test_names_are_found_by_themselves_by_wildcards_and_without_case(tmp_path: Path) -> None:
    first = make(tmp_path, "a.example", "*.cdn.example", "127.0.0.1", stem="a")
    second = make(tmp_path, "b.example", "a.example", stem="b")
    third = make(tmp_path, common="old.example", stem="c")
    found = Certificates([first, second, third])
    stems = {
        name: found.find(name) for name in ("A.Example", "x.cdn.example", "b.example.", "127.0.0.1", "OLD.example")
    }
    assert {name: certificate and certificate.files for name, certificate in stems.items()} == {
        "A.Example": first,  # the earlier one where several are for a name
        "x.cdn.example": first,
        "b.example.": second,
        "127.0.0.1": first,
        "OLD.example": third,
    }
    assert found.find("cdn.example") is None
    assert found.find("x.y.cdn.example") is None
    assert found.find("elsewhere") is None


def test_files_that_change_are_read_anew_and_others_are_not(tmp_path: Path) -> None:
    files = make(tmp_path, "localhost")
    found = Certificates([files])
    before = found.context
    assert not found.refresh()
    make(tmp_path, "localhost", "more.example")
    assert found.refresh()
    assert found.context is not before
    assert found.find("more.example") is not None
    assert not found.refresh()
    assert found.refresh(always=True)


@pytest.mark.parametrize("harm", ["half", "gone", "other"])
def test_what_cannot_be_used_leaves_what_was_in_use(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = make(tmp_path, "localhost")
    found = Certificates([files])
    before = found.context
    match harm:
        case "half":
            Path(files.cert).write_bytes(Path(files.cert).read_bytes()[:200])
        case "gone":
            os.unlink(files.key)
        case _:  # the new certificate is there and its key is not yet
            new = make(tmp_path, "localhost", stem="new")
            os.replace(new.cert, files.cert)
    with caplog.at_level(logging.ERROR):
        assert not found.refresh()
        assert not found.refresh()
    assert found.context is before
    (line,) = caplog.records
    assert files.cert in line.getMessage()
    assert "stay in use" in line.getMessage()
    make(tmp_path, "localhost")
    assert found.refresh()


def test_what_cannot_be_used_is_named_with_the_reason_and_what_to_do(tmp_path: Path) -> None:
    good, other = make(tmp_path, "localhost"), make(tmp_path, "localhost", stem="other")
    huge = tmp_path / "huge.pem"
    huge.write_bytes(Path(good.cert).read_bytes() + b"\n" * MOST_BYTES)
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(Path(good.key).read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, secret)
    )
    cases = {
        CertificateFiles(good.cert, other.key): "the key is another certificate's",
        CertificateFiles(str(tmp_path / "none"), good.key): "none",
        CertificateFiles(good.cert, str(tmp_path / "none")): "none",
        CertificateFiles(good.key, good.cert): "PEM",
        CertificateFiles(str(huge), good.key): "over 1048576 bytes",
        CertificateFiles(good.cert, str(locked)): "without a password",
        CertificateFiles(str(tmp_path), good.key): str(tmp_path),
    }
    for files, words in cases.items():
        with pytest.raises(ConfigError, match=words) as caught:
            Certificates([good, files])
        assert files.cert in str(caught.value)
        assert "Errno" not in str(caught.value)


@pytest.mark.parametrize(("days", "soon"), [(WARN_DAYS + 0.1, False), (WARN_DAYS - 0.1, True), (-3.5, True)])
def test_what_runs_out_soon_is_told(days: float, soon: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = make(tmp_path, "localhost", days=days)
    found = Certificates([files])
    now = time.time()
    expiring = found.expiring(now)
    found.warn(now)
    assert [path for path, _ in expiring] == ([files.cert] if soon else [])
    assert len(caplog.records) == soon
    if soon:
        assert expiring[0][1] == pytest.approx(days * DAY_S, abs=60)
        assert ("expired 4 days ago" if days < 0 else "expires in 13.9 days") in caplog.text
