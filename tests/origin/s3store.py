"""An S3 store in this process: it checks signatures by its own reading of the rules, keeps conditions, and fails on
order."""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

Fields = dict[str, str]
Answer = tuple[int, Fields, bytes]
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/([^/]+)/s3/aws4_request), ?"
    r"SignedHeaders=([^,]+), ?Signature=(\w{64})"
)
KEY_ID, SECRET, BUCKET = "AKEXAMPLE", "a secret/of+some=length", "feeds"


@dataclass
class Object:
    data: bytes
    fields: dict[str, str]
    modified: datetime

    @property
    def tag(self) -> str:
        return f'"{md5(self.data, usedforsecurity=False).hexdigest()}"'


@dataclass
class S3Store:
    """conditions: kept, ignored, or refused with 501. fault: from number and request to what goes wrong, None for
    nothing: a status, "unheard" (the connection ends before), "unanswered" (it ends after)."""

    conditions: str = "kept"
    page: int = 1000
    fault: Callable[[int, str], int | str | None] = lambda number, what: None
    objects: dict[str, Object] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, target: str, fields: Fields, body: bytes) -> Answer:
        path, query = unquote(urlsplit(target).path), dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        bucket, _, key = path.removeprefix("/").partition("/")
        if bucket != BUCKET:
            return fault(404, "NoSuchBucket")
        anonymous = "authorization" not in fields
        if not (anonymous and method == "GET" and key) and not is_signed(method, target, fields, body):
            return fault(403, "AccessDenied" if anonymous else "SignatureDoesNotMatch")
        if method == "POST" and "delete" in query:
            for name in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.objects.pop(unescape(name), None)
            return 200, {}, b"<DeleteResult/>"
        if method == "GET" and not key:
            return 200, {}, self.listing(query).encode()
        found = self.objects.get(key)
        if method == "GET":
            if found is None:
                return fault(404, "NoSuchKey")
            return 200, {**found.fields, "ETag": found.tag}, found.data
        if method != "PUT":
            return fault(405, "MethodNotAllowed")
        return self.put(key, found, fields, body)

    def put(self, key: str, found: Object | None, fields: Fields, body: bytes) -> Answer:
        if {"if-match", "if-none-match"} & fields.keys():
            if self.conditions == "refused":
                return fault(501, "NotImplemented")
            unmet = found is not None if "if-none-match" in fields else fields["if-match"] != (found and found.tag)
            if unmet and self.conditions == "kept":
                return fault(412, "PreconditionFailed")
        told = {name: value for name, value in fields.items() if name in ("content-type", "cache-control")}
        self.objects[key] = Object(body, told, datetime.now(UTC))
        return 200, {"ETag": self.objects[key].tag}, b""

    def listing(self, query: dict[str, str]) -> str:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        entries: dict[str, str] = {}
        for key, item in sorted(self.objects.items()):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if query.get("delimiter") and "/" in rest:
                name = prefix + rest.partition("/")[0] + "/"
                entries[name] = f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            else:
                when = item.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
                entries[key] = f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified></Contents>"
        left = [name for name in sorted(entries) if name > after]
        page = left[: min(self.page, int(query["max-keys"]))]
        more = "".join(entries[name] for name in page)
        end = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if len(left) > len(page) else ""
        return f"<ListBucketResult><IsTruncated>{str(bool(end)).lower()}</IsTruncated>{end}{more}</ListBucketResult>"

    def age(self, hours: int) -> None:
        for item in self.objects.values():
            item.modified -= timedelta(hours=hours)

    def save(self, prefix: str, directory: Path) -> None:
        """What devices can see, as files."""
        for key, item in self.objects.items():
            if key.startswith(prefix):
                path = directory / key.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(item.data)


def fault(status: int, code: str) -> Answer:
    return status, {}, f"<Error><Code>{code}</Code></Error>".encode()


def is_signed(method: str, target: str, fields: dict[str, str], body: bytes) -> bool:
    match = SIGNED.fullmatch(fields.get("authorization", ""))
    if match is None or match[1] != KEY_ID or sha256(body).hexdigest() != fields.get("x-amz-content-sha256"):
        return False
    signed = match[4].split(";")
    if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(signed):
        return False
    path, _, query = target.partition("?")
    lines = [f"{name}:{fields[name]}" for name in signed]
    block = "\n".join([method, path, query, *lines, "", match[4], sha256(body).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", fields["x-amz-date"], match[2], sha256(block.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in match[2].split("/"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return hmac.compare_digest(hmac.new(key, text.encode(), sha256).hexdigest(), match[5])


def handler(store: S3Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fields = {name.lower(): value for name, value in self.headers.items()}
            with store.lock:
                what = f"{self.command} {self.path}"
                store.seen.append(what)
                wrong = store.fault(len(store.seen), what)
                if wrong == "unheard":
                    self.close_connection = True
                    return
                if isinstance(wrong, int):
                    status, told, data = fault(wrong, "SlowDown")
                else:
                    status, told, data = store.answer(self.command, self.path, fields, body)
            if wrong == "unanswered":
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in told.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            """Tests read `seen`."""

    return Handler


@contextmanager
def serving(store: S3Store) -> Iterator[S3Store]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(store))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
