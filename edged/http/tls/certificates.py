"""Certificates and their keys: PEM files to contexts, chosen by the name that a client asks for (SNI, RFC 6066).

They are read anew when a file changes, all of them or none: what cannot be used is logged and what was in use stays.
Sessions are resumed by tickets (RFC 5077, RFC 8446 section 4.6.1), whose keys live as long as their context: after a
renewal, and in another serving process, a client makes a whole handshake again.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from edged.errors import ConfigError
from edged.files import FileStamp, stamp_of, told

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509Certificate

logger = logging.getLogger("edged.http")

PROTOCOLS = ["h2", "http/1.1"]
# Of TLS 1.2, what HTTP/2 allows (RFC 9113 section 9.2.2): forward secrecy, and encryption that is authenticated.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
TICKETS = 1  # of TLS 1.3, a handshake: each costs as much as an answer, and clients take a new one with each connection
WARN_DAYS = 14
DAY_S = 86_400.0
MOST_BYTES = 1 << 20  # of a PEM file


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A PEM chain, the server's own certificate first, and its PEM key, not encrypted."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """names: that it is for, lower-case, addresses as text; expires_at: seconds since 1970."""

    files: CertificateFiles
    names: frozenset[str]
    expires_at: float
    context: ssl.SSLContext


class Certificates:
    """The first of them is shown to whoever asks for no name, or for one that none is for.

    Raises ConfigError where a file cannot be used: which, why, what to do.
    """

    def __init__(self, files: Sequence[CertificateFiles]) -> None:
        self.files = tuple(files)
        self.stamps = self.look()
        self.all = load(self.files)
        self.by_name: dict[str, Certificate] = {}
        self.use(self.all)

    @property
    def context(self) -> ssl.SSLContext:
        """For new sessions. The rest of the certificates are found from it."""
        return self.all[0].context

    def use(self, found: tuple[Certificate, ...]) -> None:
        self.by_name = {name: certificate for certificate in reversed(found) for name in certificate.names}
        for certificate in found:
            certificate.context.sni_callback = self.choose
        self.all = found

    def choose(self, session: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        """Called within a handshake with the name that the client asks for."""
        found = self.find(name) if name else None
        if found is not None and session.context is not found.context:
            session.context = found.context

    def find(self, name: str) -> Certificate | None:
        """The certificate for a host name: by itself, or by a wildcard for its first label (RFC 6125 section 6.4.3)."""
        name = name.lower().removesuffix(".")
        return self.by_name.get(name) or self.by_name.get("*." + name.partition(".")[2])

    def look(self) -> tuple[FileStamp | None, ...]:
        """What differs once a file was replaced. A file that cannot be looked at counts as absent."""
        stamps = []
        for pair in self.files:
            for path in (pair.cert, pair.key):
                try:
                    stamps.append(stamp_of(path))
                except OSError:
                    stamps.append(None)
        return tuple(stamps)

    def refresh(self, *, always: bool = False) -> bool:
        """Read the files anew where one has changed (always: in any case); whether new ones are in use."""
        stamps = self.look()
        if stamps == self.stamps and not always:
            return False
        self.stamps = stamps
        try:
            found = load(self.files)
        except ConfigError as fault:
            logger.error("%s; the certificates that were read before stay in use", fault)
            return False
        self.use(found)
        logger.info("TLS certificates read anew: %s", ", ".join(pair.cert for pair in self.files))
        return True

    def expiring(self, now: float) -> list[tuple[str, float]]:
        """Files of certificates that run out within WARN_DAYS, and seconds left, below 0 for those that have."""
        left = [(certificate.files.cert, certificate.expires_at - now) for certificate in self.all]
        return [(path, seconds) for path, seconds in left if seconds < WARN_DAYS * DAY_S]

    def warn(self, now: float) -> None:
        """A line in the log for each that runs out soon."""
        for path, left_s in self.expiring(now):
            if left_s < 0:
                logger.warning("TLS certificate %s: expired %.0f days ago; clients refuse it", path, -left_s / DAY_S)
            else:
                logger.warning("TLS certificate %s: expires in %.1f days; renew it", path, left_s / DAY_S)


def load(files: Sequence[CertificateFiles]) -> tuple[Certificate, ...]:
    """All of them. Raises ConfigError."""
    return tuple(load_one(pair) for pair in files)


def load_one(pair: CertificateFiles) -> Certificate:
    from cryptography import x509  # here, so that a device without TLS does not load it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(PROTOCOLS)
    context.num_tickets = TICKETS
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_SINGLE_ECDH_USE
    what = f"load TLS certificate {pair.cert} with key {pair.key}"
    try:
        found = x509.load_pem_x509_certificates(read(pair.cert))[0]
        read(pair.key)
        context.load_cert_chain(pair.cert, pair.key, password=refuse_encrypted)
    except ssl.SSLError as fault:
        reason = (fault.reason or str(fault)).lower().replace("_", " ")
        advice = "the key is another certificate's" if "mismatch" in reason else "both must be PEM"
        raise ConfigError(f"{what}: {reason}; {advice}") from fault
    except OSError as fault:
        raise ConfigError(f"{what}: {told('read', fault.filename or pair.cert, fault)}") from fault
    except ValueError as fault:
        raise ConfigError(f"{what}: {fault}; both must be PEM, the server's own certificate first") from fault
    return Certificate(pair, names_of(found), found.not_valid_after_utc.timestamp(), context)


def read(path: str) -> bytes:
    """Raises OSError, naming the file, and ValueError for one that is too large."""
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path}: over {MOST_BYTES} bytes")
    return data


def refuse_encrypted() -> str:
    """A daemon has nobody to ask."""
    raise ValueError("the key is encrypted: give it without a password, readable by this user alone")


def names_of(certificate: X509Certificate) -> frozenset[str]:
    """The names that a certificate is for (RFC 6125): its alternative names, else the common name."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return frozenset(str(attribute.value).lower() for attribute in common)
    addresses = {str(ip_address(str(found))) for found in extension.get_values_for_type(x509.IPAddress)}
    return frozenset({name.lower() for name in extension.get_values_for_type(x509.DNSName)} | addresses)
