"""What every handler is given beside the request (catalog, renderer, web rules), and how its answer is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import trio

from edged.errors import RequestError
from edged.http.fields import Fields
from edged.http.hosts import Web
from edged.http.problem import make_problem
from edged.http.request import Request, Response, Shared, Timed
from edged.http.validators import names_tag
from edged.serve.answers.dictionary import DICTIONARY, Dictionaries, offers_dcz
from edged.serve.answers.negotiate import Format, choose_coding, refuses_identity
from edged.serve.answers.render import LEAST_CODED_BYTES, Renderer, entity_tag
from edged.serve.catalog import Catalog, View
from edged.serve.damage import DamageReports

# A local replica answers in microseconds and may change any second: ask each time, and take 304 for an answer.
CACHE_CONTROL = b"no-cache"
RETRY_S = b"2"


@dataclass(frozen=True, slots=True)
class Service:
    """One serving process. slow: how many slow answers are made at once, in threads; damage: where it is told."""

    catalog: Catalog
    renderer: Renderer
    web: Web
    slow: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(2))
    damage: DamageReports = field(default_factory=DamageReports)
    dictionaries: Dictionaries = field(default_factory=Dictionaries)
    times: dict[str, tuple[View, Timed]] = field(default_factory=dict)

    def timed(self, view: View) -> Timed:
        """When a view's data was signed: the same object for the same view."""
        known = self.times.get(view.dataset)
        if known is None or known[0] is not view:
            known = self.times[view.dataset] = (view, Timed.of(view))
        return known[1]


def respond(
    service: Service,
    request: Request,
    body: bytes,
    form: Format,
    view: View | None,
    *,
    links: tuple[bytes, ...] = (),
    extra: Fields = (),
    cache: bytes = CACHE_CONTROL,
    keep: bool = True,
) -> Response:
    """200 with `body` in the coding that the asker likes, or 304. Raises RequestError 406, DamageError."""
    accepted = request.get(b"accept-encoding")
    vary, cors = service.web.vary, service.web.cors(request)
    timed, version, trained = None, None, None
    if view is not None:
        timed, version = service.timed(view), view.version
        if offers_dcz(accepted) and form is not DICTIONARY:
            trained = service.dictionaries.of(view)
            vary += b", Available-Dictionary"
    held = trained is not None and request.get(b"available-dictionary") == trained.available
    if trained is not None and not held and trained.link not in links:
        links += (trained.link,)
    coding = "identity" if accepted is None else choose_coding(accepted, held)
    if coding != "identity" and len(body) < LEAST_CODED_BYTES and not refuses_identity(accepted):
        coding = "identity"
    tag = entity_tag(body, form.name, coding, trained)
    own: Fields = ((b"ETag", tag.encode()), *extra)
    if links:
        own = (*own, (b"Link", b", ".join(links)))
    known = request.values.get(b"if-none-match")
    if known is not None and names_tag(known, tag.encode()):
        return Response(304, own, b"", timed, keep, shared_fields(None, coding, version, vary, cors, cache))
    if coding != "identity":
        body = service.renderer.coded(body, tag, coding, trained)
    own = (*own, (b"Content-Length", b"%d" % len(body)))
    return Response(200, own, body, timed, keep, shared_fields(form, coding, version, vary, cors, cache))


@lru_cache(maxsize=128)
def shared_fields(
    form: Format | None, coding: str, version: int | None, vary: bytes, cors: Fields, cache: bytes
) -> Shared:
    """Those of all answers in a form (None: of a 304) and coding, of a version, to an origin."""
    fields = [(b"Cache-Control", cache), (b"Vary", vary), *cors]
    if version is not None:
        fields.append((b"Edged-Version", b"%d" % version))
    if form is not None:
        fields += ((b"Content-Type", form.media.encode()), (b"X-Content-Type-Options", b"nosniff"))
        if coding != "identity":
            fields.append((b"Content-Encoding", coding.encode()))
    return Shared.of(tuple(fields))


def problem(
    service: Service,
    request: Request,
    fault: RequestError,
    view: View | None = None,
) -> Response:
    """RFC 9457. Its entity tag is there for uniformity; conditions apply to successes alone."""
    standard, body = make_problem(fault.status, str(fault))
    fields: list[tuple[bytes, bytes]] = [
        *standard,
        (b"X-Content-Type-Options", b"nosniff"),
        (b"ETag", entity_tag(body, "problem", "identity").encode()),
        (b"Vary", service.web.vary),
        *((name.encode(), value.encode()) for name, value in fault.headers),
        *service.web.cors(request),
    ]
    if view is None:
        return Response(fault.status, tuple(fields), body)
    fields.append((b"Edged-Version", b"%d" % view.version))
    return Response(fault.status, tuple(fields), body, Timed.of(view))
