"""Certificates for tests, made in memory: quick keys, any names, any life."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edged.http.tls.certificates import CertificateFiles


def make(directory: Path, *names: str, stem: str = "server", days: float = 90, common: str = "") -> CertificateFiles:
    """A certificate of its own for `names`, and its key, as PEM files in `directory`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common or stem)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=200)).not_valid_after(now + timedelta(days=days))
    if names:
        general = [x509.IPAddress(ip_address(n)) if n[:1].isdigit() else x509.DNSName(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    files = CertificateFiles(str(directory / f"{stem}.pem"), str(directory / f"{stem}.key"))
    Path(files.cert).write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(files.key).write_bytes(key.private_bytes(kind, form, serialization.NoEncryption()))
    Path(files.key).chmod(0o600)
    return files


def trusting(*files: CertificateFiles, protocols: tuple[str, ...] = ("h2", "http/1.1")) -> ssl.SSLContext:
    """A client's context that trusts just these."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for pair in files:
        context.load_verify_locations(pair.cert)
    context.set_alpn_protocols(list(protocols))
    return context
