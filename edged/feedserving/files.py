"""Files of a feed as answers: immutable, whole or in ranges."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from edged.http.application import FileResponse, Response, problem
from edged.http.fields import Fields
from edged.http.ranges import RangeNotSatisfiable, content_range, wanted_range
from edged.http.request import Request
from edged.http.validators import not_modified

logger = logging.getLogger("edged.feedserving")

IMMUTABLE = b"public, max-age=31536000, immutable"
BRIEF = b"max-age=1"
BLOB, COSE = b"application/octet-stream", b"application/cose"


def open_file(path: Path, kind: bytes, tag: bytes, request: Request) -> Response | FileResponse:
    """The file, or the range of it that is asked for. tag: its entity tag without quotes; empty: it has none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return problem(404, "no such file in the feed", cache=BRIEF)
    except OSError as fault:
        if fault.errno == errno.ELOOP:
            return problem(404, "no such file in the feed", cache=BRIEF)
        logger.error("read %s: %s", path, fault.strerror)
        return problem(503, "the file cannot be read just now; ask again", ((b"Retry-After", b"1"),))
    try:
        found = choose_part(handle, kind, tag, request)
    except BaseException:
        os.close(handle)
        raise
    if not isinstance(found, FileResponse):
        os.close(handle)
    return found


def choose_part(handle: int, kind: bytes, tag: bytes, request: Request) -> Response | FileResponse:
    size = os.fstat(handle).st_size
    fields: Fields = ((b"Cache-Control", IMMUTABLE),)
    wanted = None
    if tag:
        fields = (*fields, (b"ETag", b'"%b"' % tag), (b"Accept-Ranges", b"bytes"))
        stored = ((b"etag", b'"%b"' % tag),)
        if not_modified(request.fields, stored):
            return Response(304, fields)
        try:
            wanted = wanted_range(request.fields, stored, size) if request.method == "GET" else None
        except RangeNotSatisfiable:
            return problem(416, f"the file has {size} bytes", (content_range(None, size),), BRIEF)
    first, length = (0, size) if wanted is None else (wanted.first, wanted.size)
    fields = ((b"Content-Type", kind), *fields, (b"Content-Length", b"%d" % length))
    if wanted is not None:
        fields = (*fields, content_range(wanted, size))
    return FileResponse(200 if wanted is None else 206, fields, handle, first, length)
