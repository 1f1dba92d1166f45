"""One request on its way through the proxy: what it asks for, where it goes, and whose answers may answer it."""

from __future__ import annotations

from dataclasses import dataclass

from edged.access.identity import LOCAL, Identity
from edged.http.fields import Fields, value_of
from edged.http.request import Request
from edged.proxy.rules.decisions import CacheRequest, read_request
from edged.proxy.rules.forward import check_fields, check_host, check_target
from edged.proxy.rules.keys import partition_of, private_scope
from edged.proxy.rules.validation import without_hop_by_hop
from edged.proxy.store.record import primary_key
from edged.proxy.upstream.upstream import Upstream


@dataclass(slots=True)
class Context:
    """A request, where it goes, and for whom.

    target, host: as they go upstream. fields: as they came, with those of the connection. scopes: where its answer may
    lie, the most private first. body: whether one follows.
    """

    request: CacheRequest
    upstream: Upstream
    target: bytes
    host: bytes
    fields: Fields
    scopes: tuple[bytes, ...]
    body: bool

    @property
    def private_allowed(self) -> bool:
        return len(self.scopes) > 1

    @property
    def is_head(self) -> bool:
        return self.request.method == b"HEAD"

    @property
    def is_retrieval(self) -> bool:
        """Whether the store may answer it: a GET or HEAD without a body."""
        return self.request.method in (b"GET", b"HEAD") and not self.body

    @property
    def shared(self) -> bytes:
        """The primary key of what everyone may have who asks so."""
        return self.primary(self.scopes[-1])

    def primary(self, scope: bytes) -> bytes:
        return primary_key(scope, self.request.url)

    def storing_key(self, scope: str) -> bytes:
        """The primary key to store under: that of who asks for a private answer, else everyone's."""
        return self.primary(self.scopes[0]) if scope == "private" else self.shared


def is_known(who: Identity) -> bool:
    """Whether answers may be kept for this identity alone. Any program on the device that nobody told apart is not
    one app: what is private to one of them is not kept."""
    return who.name != LOCAL.name or who.uid is not None


def make_context(upstream: Upstream, asked: Request) -> Context:
    """Raises Refused for a request that is not forwarded.

    What decides the answer is in the key: the Host that is sent, the fields that steer an upstream, the route's
    certificate. What Connection takes away on the way up selects nothing (RFC 9110 section 7.6.1).
    """
    check_target(asked.target)
    fields = asked.fields
    check_fields(fields)
    named = value_of(fields, b"host") if upstream.route.keep_host else None
    host = upstream.host if named is None else check_host(named)
    path, _, query = asked.target.partition(b"?")
    target = upstream.target(path, query)
    passed = without_hop_by_hop(fields)
    shared = partition_of(passed, upstream.identity)
    scopes: tuple[bytes, ...] = (shared,)
    who = asked.who
    if is_known(who):
        name = who.name if who.uid is None else f"{who.name}:{who.uid}"
        scopes = private_scope(name, passed, shared), shared
    url = upstream.scheme + b"://" + host.lower() + target
    return Context(
        request=read_request(asked.method.encode(), url, passed),
        upstream=upstream,
        target=target,
        host=host,
        fields=fields,
        scopes=scopes,
        body=asked.body,
    )
