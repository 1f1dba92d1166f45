"""Requests to one bucket of an S3-compatible store: signed, bounded, tried again where the store is busy."""

from __future__ import annotations

import base64
import html
import os
import re
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from random import random
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import httpcore2

from edged.errors import ConfigError, StoreError
from edged.origin.declared.feed import PublicRules
from edged.origin.shelves.sigv4 import Credentials, S3Request, sign

TRIES = 6
PAUSE_S, PAUSE_MOST_S = 0.25, 8.0  # before the second try, and doubled from then on
BUSY = frozenset({409, 429, 500, 502, 503, 504})  # 409: two conditional writes met; SlowDown comes as 503
TIMEOUTS = {"connect": 10.0, "read": 60.0, "write": 60.0, "pool": 60.0}
ANSWER_BYTES = 4 << 20  # of a list of 1000 keys or of a fault
ANSWER_S = 600.0
PAGE = 1000  # keys in a list, and in one order to delete: what S3 allows
PAGES = 100_000
USER_AGENT = "edged"
ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
CHECK = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), region in feed.toml, this machine's "
    "clock, and that the key may get, put, delete and list there"
)
HELP = {
    403: CHECK,
    401: CHECK,
    301: "the bucket is in another region; set region in feed.toml",
    307: "the bucket is in another region; set region in feed.toml",
    404: "make the bucket, or name one that is there",
    400: "check region and endpoint in feed.toml",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What a store answered. fields: names in small letters."""

    status: int
    fields: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object. modified: seconds since 1970."""

    key: str
    modified: float


@dataclass(frozen=True, slots=True)
class Means:
    """The world around: a test brings its own. pause: sleeps so many seconds."""

    clock: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    dice: Callable[[], float] = random


def credentials_of(environment: Mapping[str, str]) -> Credentials:
    """Raises ConfigError where there are none."""
    missing = [name for name in ENVIRONMENT if not environment.get(name)]
    if missing:
        raise ConfigError(f"object store: {' and '.join(missing)} not in the environment; set them for this command")
    key_id, secret = (environment[name].strip() for name in ENVIRONMENT)
    return Credentials(key_id, secret, environment.get("AWS_SESSION_TOKEN", "").strip())


class ObjectStore:
    """The bucket that `rules` name. Keys are below its prefix. Raises ConfigError for a CA file that is none."""

    def __init__(self, rules: PublicRules, credentials: Credentials | None = None, means: Means | None = None) -> None:
        self.region, self.means = rules.region, means or Means()
        self.credentials = credentials or credentials_of(os.environ)
        self.bucket, prefix = rules.place
        self.prefix = f"{prefix}/" if prefix else ""
        endpoint = urlsplit(rules.endpoint or f"https://s3.{rules.region}.amazonaws.com")
        self.scheme, self.host, self.root = endpoint.scheme, endpoint.netloc, f"/{self.bucket}/"
        if not rules.endpoint and "." not in self.bucket:  # a certificate of Amazon's covers one label
            self.host, self.root = f"{self.bucket}.{self.host}", "/"
        try:
            trusted = ssl.create_default_context(cafile=rules.ca or None) if self.scheme == "https" else None
        except (ssl.SSLError, OSError) as fault:
            raise ConfigError(f"ca {rules.ca}: {fault}; name a PEM file of certificates") from fault
        self.pool = httpcore2.ConnectionPool(ssl_context=trusted, max_connections=2, keepalive_expiry=20.0)
        weakref.finalize(self, self.pool.close)

    @property
    def url(self) -> str:
        """Where devices read what lies below the prefix, without '/' at its end."""
        return f"{self.scheme}://{self.host}{self.root}{self.prefix}".rstrip("/")

    def get(self, key: str, most: int) -> Answered | None:
        """An object of at most `most` bytes, None where there is none. Raises StoreError."""
        answer = self.ask(self.request("GET", key), also=(404,), most=most)
        return None if answer.status == 404 else answer

    def put(self, key: str, data: bytes, fields: dict[str, str], also: tuple[int, ...] = ()) -> Answered:
        """Raises StoreError for every status but 2xx and `also`."""
        return self.ask(self.request("PUT", key, body=data, fields=fields), also=also)

    def delete(self, keys: Iterable[str]) -> None:
        """Raises StoreError if any of them stays."""
        every = list(keys)
        for begin in range(0, len(every), PAGE):
            page = every[begin : begin + PAGE]
            listed = "".join(f"<Object><Key>{escape(self.prefix + key)}</Key></Object>" for key in page)
            body = f"<Delete><Quiet>true</Quiet>{listed}</Delete>".encode()
            checksum = base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()  # what S3 asks for
            fields = {"content-md5": checksum, "content-type": "application/xml"}
            answer = self.ask(self.request("POST", None, query={"delete": ""}, fields=fields, body=body))
            if b"<Error>" in answer.body:
                raise StoreError(f"{self.url}: not all was deleted: {said(answer)}; {CHECK}")

    def listed(self, below: str) -> Iterator[StoredObject]:
        """The objects whose keys begin with `below`. Raises StoreError."""
        for text in self.pages({"prefix": self.prefix + below}):
            for entry in re.findall(r"<Contents>(.*?)</Contents>", text, re.DOTALL):
                key, modified = element(entry, "Key"), element(entry, "LastModified")
                if key.startswith(self.prefix):
                    yield StoredObject(key.removeprefix(self.prefix), seconds(modified))

    def folders(self) -> Iterator[str]:
        """The first parts of all keys that have several. Raises StoreError."""
        for text in self.pages({"prefix": self.prefix, "delimiter": "/"}):
            for entry in re.findall(r"<CommonPrefixes>(.*?)</CommonPrefixes>", text, re.DOTALL):
                yield element(entry, "Prefix").removeprefix(self.prefix).rstrip("/")

    def pages(self, query: dict[str, str]) -> Iterator[str]:
        query = {**query, "list-type": "2", "max-keys": str(PAGE)}
        for _ in range(PAGES):
            text = self.ask(self.request("GET", None, query=query)).body.decode(errors="replace")
            yield text
            token = element(text, "NextContinuationToken")
            if element(text, "IsTruncated") != "true":
                return
            if not token or token == query.get("continuation-token"):
                break
            query["continuation-token"] = token
        raise StoreError(f"list {self.url}: the store's list does not end; is this an S3-compatible store?")

    def ask(self, request: S3Request, *, also: tuple[int, ...] = (), most: int = ANSWER_BYTES) -> Answered:
        """The store's answer. Raises StoreError for every status but 2xx and `also`, and for a body over `most`."""
        last = ""
        for number in range(TRIES):
            if number:
                self.means.pause(min(PAUSE_S * 2**number, PAUSE_MOST_S) * (0.5 + self.means.dice() / 2))
            try:
                answer = self.send(request, most)
            except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as fault:
                last = f"{type(fault).__name__} {fault}".strip()
                continue
            if 200 <= answer.status < 300 or answer.status in also:
                return answer
            last = said(answer)
            if answer.status not in BUSY:
                raise StoreError(f"{self.named(request)}: {last}{helped(answer)}")
        raise StoreError(f"{self.named(request)}: {last}, {TRIES} times in a row; try again later")

    def send(self, request: S3Request, most: int) -> Answered:
        """Raises the faults of httpcore2, StoreError for a body that is too long or does not end."""
        fields = sign(request, self.credentials, self.region, self.means.clock())
        url = f"{self.scheme}://{request.host}{request.target}"
        headers = [(name.encode(), value.encode()) for name, value in {**fields, "user-agent": USER_AGENT}.items()]
        deadline = time.monotonic() + ANSWER_S
        body = bytearray()
        with self.pool.stream(
            request.method, url, headers=headers, content=request.body, extensions={"timeout": TIMEOUTS}
        ) as response:
            bound = most if 200 <= response.status < 300 else ANSWER_BYTES
            for piece in response.iter_stream():
                body += piece
                if len(body) > bound:
                    raise StoreError(f"{self.named(request)}: over {bound} bytes came, more than edged put there")
                if time.monotonic() > deadline:
                    raise StoreError(f"{self.named(request)}: no end of the answer in {ANSWER_S:g} s; try again later")
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answered(response.status, found, bytes(body))

    def request(
        self,
        method: str,
        key: str | None,
        *,
        query: dict[str, str] | None = None,
        fields: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> S3Request:
        """key: None for what concerns the bucket."""
        path = self.root if key is None else f"{self.root}{self.prefix}{key}"
        return S3Request(method, self.host, path, query or {}, fields or {}, body)

    def named(self, request: S3Request) -> str:
        return f"{request.method} {self.scheme}://{request.host}{request.path}"


def said(answer: Answered) -> str:
    """What the store said of a fault, as far as it can be told."""
    code = re.search(rb"<Code>([A-Za-z0-9]{1,64})</Code>", answer.body)
    return f"the store answered {answer.status}" + (f" {code[1].decode()}" if code else "")


def helped(answer: Answered) -> str:
    advice = HELP.get(answer.status)
    return f"; {advice}" if advice else ""


def element(text: str, name: str) -> str:
    """The content of the first such element, empty if there is none."""
    match = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return html.unescape(match[1]) if match else ""


def seconds(text: str) -> float:
    """A time in a list. Raises StoreError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise StoreError(f"list: a time {text[:40]!r} in the store's list; is this an S3-compatible store?") from fault
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
