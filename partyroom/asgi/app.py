"""The ASGI application that a host mounts, or that is mounted around a host's own.

Owns the way of a request: its address, the host's hooks, the limits, and the room.

Promises that a host's hook is asked before any room is woken, that what it does
not let in costs no room anything, and that the number of clients, of requests
and of bytes is bounded before they reach one.

Must never know who a user is: that is the hooks' business. Without a hook anybody may enter.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar, final
from urllib.parse import quote

import attrs
from typing_extensions import override

from partyroom._core.keys import check_name
from partyroom._log import about
from partyroom.asgi._asgi import ASGIApp, Receive, Scope, Send
from partyroom.asgi._beside import Beside
from partyroom.asgi._http import ClientLeft, ask_room, limited, read_body, respond, unavailable
from partyroom.asgi._lifespan import serve_lifespan
from partyroom.asgi._routing import Refused, Route, check_origin, find_route, make_connect_request, make_request
from partyroom.asgi._websocket import Manners, WebSocket, deny
from partyroom.asgi.messages import ConnectRequest, Request, Response
from partyroom.errors import InvalidKeyError, InvalidRoomIdError, LimitExceededError, RuntimeClosedError
from partyroom.protocols import RoomHandle
from partyroom.runtime import Runtime
from partyroom.types import RoomKey

__all__ = ["PartyApp"]

LOG: Final = logging.getLogger("partyroom")

MIB: Final = 1024 * 1024
RETRY: Final = {"retry-after": "1"}
"""What a client is told that may come back soon, in seconds."""

Q = TypeVar("Q", bound=Request)


@attrs.frozen(kw_only=True)
class _Bounds:
    """What one client, and all of them, may make the process hold."""

    body_bytes: int
    connections: int
    room_connections: int
    requests: int


def _check_runtime(runtime: object) -> None:
    if not isinstance(runtime, Runtime):
        message = f"PartyApp serves a Runtime, not a {type(runtime).__name__}"
        raise TypeError(message)


def _about(request: Request) -> dict[str, str]:
    return about(RoomKey(request.party, request.room_id))


@final
class PartyApp:
    """Rooms over HTTP and WebSocket, at ``<prefix>/<party>/<room id>``.

    A WebSocket connects a client: its id is the query parameter ``_pk``, as PartyKit's own clients send it, else a fresh
    one. HTTP asks ``on_request``, with a :class:`Request` for a :class:`Response`. What follows the room's id is
    ``request.path``; a slash *in* an id is written ``%2F``.

    ``on_before_connect`` and ``on_before_request`` are where log-in belongs: async functions that are given the request
    and return ``None`` to let it pass, a changed one (``attrs.evolve(request, user=...)``), or a :class:`Response` that
    answers instead. One that raises lets nobody in. **Without a hook anybody may enter any room.**

    ``allowed_origins`` says of which other origins pages may ask, beside pages of the host's own: a collection such as
    ``{"https://example.org"}``, or ``"*"`` for all. Programs that are no browsers send no origin, and pass.

    Around another application (``app=inner``) it forwards everything that is not below ``prefix``, and opens and closes
    the runtime as the server starts and stops. Mounted inside another one, the host enters the runtime.

    ``request_factory`` replaces :class:`Request` for rooms, and is called with (scope, receive): Starlette's own
    ``Request``, for one. Its body is read by the room; ours is at ``scope["partyroom"]``. ``on_request`` may return any
    response that is an ASGI application, as Starlette's are.

    Limits: ``max_message_bytes`` for one WebSocket message (else 1009), ``max_body_bytes`` for one HTTP body (else 413),
    ``max_connections`` in all, ``max_room_connections`` for each room and ``max_requests`` at once (else 503).
    A client that does not read is closed with 1013 when ``Limits.outgoing_messages`` or ``outgoing_bytes`` wait for it,
    and let go of ``close_timeout`` later if it does not even take that.
    """

    def __init__(
        self,
        runtime: Runtime,
        prefix: str = "/parties",
        app: ASGIApp | None = None,
        *,
        on_before_connect: Callable[[ConnectRequest], Awaitable[ConnectRequest | Response | None]] | None = None,
        on_before_request: Callable[[Request], Awaitable[Request | Response | None]] | None = None,
        allowed_origins: Collection[str] | Literal["*"] = (),
        request_factory: Callable[[Scope, Receive], object] | None = None,
        max_message_bytes: int = MIB,
        max_body_bytes: int = MIB,
        max_connections: int = 10_000,
        max_room_connections: int = 1_000,
        max_requests: int = 1_000,
        close_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        _check_runtime(runtime)
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            message = f"a prefix begins with a slash and does not end with one, or is empty: not {prefix!r}"
            raise ValueError(message)
        if isinstance(allowed_origins, str) and allowed_origins != "*":
            message = f"allowed_origins is a collection of origins or '*', not {allowed_origins!r}"
            raise ValueError(message)
        self._runtime = runtime
        self._prefix = prefix
        self._app = app
        self._on_before_connect = on_before_connect
        self._on_before_request = on_before_request
        self._origins = None if allowed_origins == "*" else frozenset(allowed_origins)
        self._request_factory = request_factory
        self._bounds = _Bounds(
            body_bytes=max_body_bytes,
            connections=max_connections,
            room_connections=max_room_connections,
            requests=max_requests,
        )
        self._manners = Manners(runtime.clock, max_message_bytes, close_timeout)
        self._connections: Counter[RoomKey] = Counter()
        self._connected = 0
        self._requests = 0

    @override
    def __repr__(self) -> str:
        return f"<PartyApp at {self._prefix or '/'} of {self._runtime!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the host's server, as ASGI has it."""
        kind = scope["type"]
        if kind == "lifespan":
            await serve_lifespan(self._runtime, self._app, scope, receive, send)
            return
        if kind in {"http", "websocket"}:
            try:
                route = find_route(scope, self._prefix, self._runtime.limits)
            except Refused as refused:
                await self._answer_all(refused.response, scope, receive, send)
                return
            if route is not None and kind == "http":
                await self._serve_http(route, scope, receive, send)
                return
            if route is not None:
                await self._serve_websocket(route, scope, receive, send)
                return
        await self._forward(scope, receive, send)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what is none of ours."""
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] in {"http", "websocket"}:
            # The whole address, for whoever has mounted it at the name that is its prefix as well.
            where = quote(scope.get("root_path", "").rstrip("/") + self._prefix, errors="replace")
            text = f"there is nothing here: a room is at {where}/PARTY/ID"
            await self._answer_all(Response(text, 404), scope, receive, send)
        else:
            message = f"this application serves http, websocket and lifespan, not {scope['type']!r}"
            raise ValueError(message)

    @staticmethod
    async def _answer_all(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(response, scope, receive, send)
            return
        # The handshake stands before its answer, as ASGI has it.
        await receive()
        await deny(response, scope, send)

    def _find_room(self, request: Request) -> RoomHandle:
        party = self._runtime.parties.get(request.party)
        if party is None:
            raise Refused(Response("there is no such party", 404))
        try:
            return party.get(request.room_id)
        except LimitExceededError:
            raise Refused(Response("the room's id is too long", 414)) from None
        except InvalidRoomIdError:
            raise Refused(Response("that cannot be the id of a room", 400)) from None

    def _check_id(self, connection_id: str | None, handle: RoomHandle) -> None:
        """Refuse an id that no connection can have: the client has made it up."""
        if connection_id is not None:
            try:
                check_name(connection_id, self._runtime.limits.key_bytes, handle.party, "connection id")
            except (InvalidKeyError, LimitExceededError) as error:
                raise Refused(Response(str(error), 400)) from None

    # --- HTTP ----------------------------------------------------------------

    async def _serve_http(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        if self._requests >= self._bounds.requests:
            await respond(Response("too many requests at once", 503, RETRY), scope, receive, send)
            return
        self._requests += 1
        try:
            answer = await self._answer(make_request(scope, route), scope, receive)
            await respond(answer, scope, receive, send)
        except Refused as refused:
            await respond(refused.response, scope, receive, send)
        except ClientLeft:
            return
        finally:
            self._requests -= 1

    async def _answer(self, request: Request, scope: Scope, receive: Receive) -> object:
        """Give what answers a request, be it the host's hook or the room."""
        check_origin(request, self._origins)
        hooked = await self._ask_hook(self._on_before_request, request, Request)
        if not isinstance(hooked, Request):
            return hooked
        handle = self._find_room(hooked)
        body = limited(receive, hooked, self._bounds.body_bytes)
        if self._request_factory is not None:
            return await ask_room(handle, self._request_factory({**scope, "partyroom": hooked}, body), None)
        return await ask_room(handle, attrs.evolve(hooked, body=await read_body(body)), receive)

    async def _ask_hook(
        self, hook: Callable[[Q], Awaitable[Q | Response | None]] | None, request: Q, wanted: type[Q]
    ) -> Q | Response:
        """Give the request as the hook lets it pass, or what it answers instead."""
        if hook is None:
            return request
        try:
            answer: Any = await hook(request)
        except Exception:
            LOG.exception("a hook failed, so nobody was let in: %s", request.url, extra=_about(request))
            return Response("the host failed", 500)
        if answer is None:
            return request
        if isinstance(answer, (wanted, Response)):
            return answer
        text = "a hook gave %s; None, a %s or a Response is wanted"
        LOG.error(text, type(answer).__name__, wanted.__name__, extra=_about(request))
        return Response("the host failed", 500)

    # --- WebSocket -----------------------------------------------------------

    async def _serve_websocket(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if self._connected >= self._bounds.connections:
            await deny(Response("too many clients are connected", 503, RETRY), scope, send)
            return
        self._connected += 1
        try:
            # Nothing here holds the request for as long as the client stays: with many of them, that is what counts.
            room, socket = await self._let_in(route, scope, receive, send)
            self._connections[room] += 1
            try:
                await socket.serve(scope)
            finally:
                self._connections[room] -= 1
                if not self._connections[room]:
                    del self._connections[room]
        except Refused as refused:
            await deny(refused.response, scope, send)
        finally:
            self._connected -= 1

    async def _let_in(self, route: Route, scope: Scope, receive: Receive, send: Send) -> tuple[RoomKey, WebSocket]:
        """Give the way into the room, if origin, hook, address and limits allow; else raise :class:`Refused`."""
        request = make_connect_request(scope, route)
        check_origin(request, self._origins)
        hooked = await self._ask_hook(self._on_before_connect, request, ConnectRequest)
        if isinstance(hooked, Response):
            raise Refused(hooked)
        handle = self._find_room(hooked)
        self._check_id(hooked.connection_id, handle)
        room = RoomKey(handle.party, handle.id)
        if self._connections[room] >= self._bounds.room_connections:
            raise Refused(Response("too many clients are connected to this room", 503))
        try:
            engine = self._runtime.engine()
        except RuntimeClosedError as error:
            raise Refused(unavailable(error, room)) from None
        connecting = handle.connect(
            id=hooked.connection_id, uri=hooked.url, tags=hooked.tags, state=hooked.state, request=hooked
        )
        beside = Beside(engine.loop, engine.work)
        return room, WebSocket(connecting, receive, send, hooked.subprotocol, self._manners, beside, room)
