"""AWS Signature Version 4 in the form that S3 takes: one chunk, the payload's hash in a header.

Source: Authenticating Requests: Using the Authorization Header (Amazon S3 API Reference).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Credentials:
    """token: of a session, empty for keys that last."""

    key_id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class S3Request:
    """path: of the URL, not yet encoded, from '/' on."""

    method: str
    host: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def target(self) -> str:
        """Path and query as they are sent and signed."""
        query = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in sorted(self.query.items()))
        return quote(self.path, safe="/-_.~") + (f"?{query}" if query else "")


def encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def sign(request: S3Request, credentials: Credentials, region: str, now: float) -> dict[str, str]:
    """All fields to send with the request: its own, and those that vouch for it. now: seconds since 1970."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = sha256(request.body).hexdigest()
    fields = {name.lower(): value for name, value in request.fields.items()}
    fields |= {"host": request.host, "x-amz-date": moment, "x-amz-content-sha256": digest}
    if credentials.token:
        fields["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(fields))
    lines = "".join(f"{name}:{fields[name].strip()}\n" for name in sorted(fields))
    path, _, query = request.target.partition("?")
    canonical = f"{request.method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + credentials.secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    vouching = f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**fields, "authorization": vouching}
