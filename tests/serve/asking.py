"""Short ways to ask the handlers in tests."""

from __future__ import annotations

from typing import Any

import msgspec

from edged.http.application import Answer, Response
from edged.http.cors import CorsRule
from edged.http.hosts import HostRule
from edged.http.request import Request
from edged.serve.answers.render import Renderer
from edged.serve.answers.respond import ACCEPTED, EXPOSED, Service
from edged.serve.answers.routes import answer
from edged.serve.catalog import Catalog, Clock
from edged.serve.news import News
from tests.serve.memory import NOW

HOSTS = ("localhost", "127.0.0.1", "[::1]")


def make_service(catalog: Catalog, origins: tuple[str, ...] = (), clock: Clock = lambda: NOW) -> Service:
    cors = CorsRule.of(origins, EXPOSED, ACCEPTED)
    return Service(catalog, News(catalog), clock, Renderer(1 << 20), HostRule.of(HOSTS), cors)


def ask_any(
    service: Service, target: str, fields: dict[str, str] | None = None, *, method: str = "GET", now: float = NOW
) -> Answer:
    pairs = {"host": "localhost", **{name.lower(): value for name, value in (fields or {}).items()}}
    lines = tuple((name.encode(), value.encode("latin-1")) for name, value in pairs.items())
    return answer(service, Request(method, target.encode(), lines), now)


def ask(
    service: Service, target: str, fields: dict[str, str] | None = None, *, method: str = "GET", now: float = NOW
) -> Response:
    found = ask_any(service, target, fields, method=method, now=now)
    assert isinstance(found, Response)
    return found


def ask_json(service: Service, target: str, fields: dict[str, str] | None = None) -> Any:
    found = ask(service, target, fields)
    assert found.status == 200, found.body
    return msgspec.json.decode(found.body)


def field_of(found: Response, name: str) -> str | None:
    values = [value.decode() for field, value in found.fields if field.decode().lower() == name.lower()]
    assert len(values) <= 1, f"{name} is there {len(values)} times"
    return values[0] if values else None
