"""The pages for people: hand-written HTML, CSS and JavaScript, served from here, that ask the listener they came from.

No page loads anything from elsewhere, runs anything that is not a file of ours, or puts text from data into markup: the
policy that goes out with each of them forbids the first two, the scripts make text nodes alone.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files

from edged.http.application import Response
from edged.http.request import Request
from edged.http.validators import names_tag

PREFIX = "/pages/"
KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".js": b"text/javascript; charset=utf-8",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCRIPTS = ("box.js", "explorer.js", "origin.js", "shared.js")
NAMES = ("box.html", "explorer.html", "icon.svg", "origin.html", "runbook.html", "style.css", *SCRIPTS)


@cache
def content(name: str) -> tuple[bytes, bytes]:
    """A file's bytes and its entity tag."""
    data = (files("edged.pages") / "files" / name).read_bytes()
    return data, b'"%b"' % sha256(data).hexdigest()[:32].encode()


def page(path: str, home: str, request: Request) -> Response | None:
    """What lies at a path below PREFIX, or at `/`, where `home` does; None where nothing does."""
    name = home if path == "/" else path.removeprefix(PREFIX) if path.startswith(PREFIX) else ""
    if name not in NAMES:
        return None
    data, tag = content(name)
    own = (
        (b"ETag", tag),
        (b"Cache-Control", b"no-cache"),
        (b"Content-Security-Policy", POLICY),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"no-referrer"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
    )
    known = request.values.get(b"if-none-match")
    if known is not None and names_tag(known, tag):
        return Response(304, own)
    kind = KINDS["." + name.rpartition(".")[2]]
    return Response(200, ((b"Content-Type", kind), (b"Content-Length", b"%d" % len(data)), *own), data)
