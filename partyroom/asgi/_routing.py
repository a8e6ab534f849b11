"""Which room an address means, and whether a page of that origin may ask.

Owns the reading of paths, headers and query strings, and what is wrong with them.

Promises that the parts of a path are told apart before they are decoded, so
that an id may hold slashes, percent signs and any Unicode, and that what is not
well formed is a :class:`Refused` with its status.

Must never wait, wake a room, or trust a length.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from partyroom.asgi._asgi import Scope
from partyroom.asgi.messages import ConnectRequest, Headers, Request, Response, read_query
from partyroom.types import Limits

__all__ = ["Refused", "Route", "check_origin", "find_route", "make_connect_request", "make_request"]

ESCAPED_BYTE: Final = 3
"""How many characters one byte takes at most in an address: ``%2F``."""
ESCAPED_CHARACTER: Final = 12
"""How many characters one character takes at most in an address: four bytes."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
UTF8: Final = "utf-8"


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered without asking the room."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


class Route(NamedTuple):
    """What a path names."""

    party: str
    room_id: str
    path: str


def find_route(scope: Scope, prefix: str, limits: Limits) -> Route | None:
    """Give what the path names; ``None`` if it is not below ``prefix``. Raises :class:`Refused`.

    ``/<prefix>/<party>/<room id>/<rest>``: a slash that is written ``%2F`` is part of a name, any other parts names.
    """
    try:
        raw = _below_root(scope).removeprefix("/")
    except UnicodeError:
        raise Refused(Response("the address is not UTF-8", 400)) from None
    wanted = prefix.removeprefix("/")
    if wanted:
        if raw != wanted and not raw.startswith(wanted + "/"):
            return None
        raw = raw[len(wanted) :].removeprefix("/")
    party, _, rest = raw.partition("/")
    room_id, slash, path = rest.partition("/")
    if not party or not room_id:
        raise Refused(Response("an address here is a party and the id of a room", 404))
    if max(len(party), len(room_id)) > limits.room_id_bytes * ESCAPED_BYTE:
        raise Refused(Response("the room's id is too long", 414))
    try:
        return Route(_decode(party), _decode(room_id), slash + _decode(path) if slash else "/")
    except UnicodeError:
        raise Refused(Response("the address is not UTF-8", 400)) from None


def _decode(part: str) -> str:
    return unquote(part, UTF8, "strict")


def _below_root(scope: Scope) -> str:
    """Give the path as it was written, below where the application is mounted."""
    raw: bytes | None = scope.get("raw_path")
    # Without the path as it was written, a slash within a name cannot be told from one between names.
    written = quote(scope["path"]) if raw is None else raw.decode("ascii")
    root = scope.get("root_path", "").rstrip("/")
    if not root or not _decode(written).startswith(root):
        return written
    end = 0
    # No further than the root can reach, however many slashes follow.
    while 0 <= end < len(root) * ESCAPED_CHARACTER:
        end = written.find("/", end + 1)
        if _decode(written if end < 0 else written[:end]) == root:
            return "" if end < 0 else written[end:]
    return written


# --- requests ----------------------------------------------------------------


def make_request(scope: Scope, route: Route) -> Request:
    """Make what a room sees of an HTTP request, its body apart. Raises :class:`Refused`."""
    return Request(method=scope["method"].upper(), **_common(scope, route))


def make_connect_request(scope: Scope, route: Route) -> ConnectRequest:
    """Make what a room sees of a client that wants to connect. Raises :class:`Refused`."""
    common = _common(scope, route)
    offered = tuple(scope.get("subprotocols", ()))
    return ConnectRequest(
        # An empty id is none, as for a client that was given none.
        connection_id=common["query"].get("_pk") or None,
        subprotocols=offered,
        subprotocol=offered[0] if offered else None,
        **common,
    )


def _common(scope: Scope, route: Route) -> dict[str, Any]:
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope.get("headers", ()))
    query: bytes = scope.get("query_string", b"")
    try:
        parameters = read_query(query)
    except UnicodeError:
        raise Refused(Response("the query is not UTF-8", 400)) from None
    client = scope.get("client")
    return {
        "party": route.party,
        "room_id": route.room_id,
        "path": route.path,
        "url": _url(scope, headers, query),
        "query": parameters,
        "headers": headers,
        "client": client[0] if client else "",
        "scope": scope,
    }


def _url(scope: Scope, headers: Headers, query: bytes) -> str:
    scheme = scope.get("scheme") or ("ws" if scope["type"] == "websocket" else "http")
    raw: bytes | None = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("ascii")
    return f"{scheme}://{headers.get('host', '')}{path}{'?' if query else ''}{query.decode('ascii')}"


def check_origin(request: Request, allowed: Collection[str] | None) -> None:
    """Refuse what a browser sends for a page of another origin; ``allowed`` are the others, ``None`` for all.

    A program that is no browser sends no origin, and passes: this protects people with cookies, not the server.
    """
    origin = request.headers.get("origin")
    if allowed is None or origin is None or origin in allowed:
        return
    scheme = origin.partition(":")[0]
    theirs = _authority(origin)
    if theirs is None or theirs != _authority(f"{scheme}://{request.headers.get('host', '')}"):
        raise Refused(Response("pages of this origin may not ask here", 403))


def _authority(url: str) -> tuple[str, int | None] | None:
    """Give host and port; ``None`` for what has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.hostname, port or DEFAULT_PORTS.get(parts.scheme)
