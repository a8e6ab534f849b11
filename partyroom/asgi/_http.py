"""HTTP to a room: one request in, one answer out.

Owns the reading of a body up to a limit, the sending of whatever answers, and
which error gets which status.

Promises that a body over the limit is a 413, that an error of a room's is
logged and is a status without a traceback for the client, and that a client who
leaves withdraws a request that has not begun (G6).

Must never decide who may ask: that was done before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, cast

from anyio import create_task_group

from partyroom._log import about
from partyroom.asgi._asgi import ASGIApp, Message, Receive, Scope, Send
from partyroom.asgi._routing import Refused
from partyroom.asgi.messages import Request, Response
from partyroom.errors import EventTimeoutError, NoHandlerError, RuntimeClosedError
from partyroom.protocols import RoomHandle
from partyroom.types import RoomKey

__all__ = ["ClientLeft", "ask_room", "limited", "read_body", "respond"]

LOG: Final = logging.getLogger("partyroom")

TOO_LARGE: Final = "the body is too large"


class ClientLeft(Exception):  # noqa: N818 - no failure of ours
    """The client has gone before its request was complete: nobody waits for an answer."""


def limited(receive: Receive, request: Request, limit: int) -> Receive:
    """Wrap ``receive`` so that a body over the limit is a :class:`Refused`, and a leaving client a :class:`ClientLeft`."""
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise Refused(Response(TOO_LARGE, 413))
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise Refused(Response(TOO_LARGE, 413))
        return message

    return receive_limited


async def read_body(receive: Receive) -> bytes:
    """Read a whole body; raise :class:`ClientLeft` if it does not come to its end."""
    # Not a list of its parts: the limit is one of bytes, and of empty parts there is no end.
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def ask_room(handle: RoomHandle, request: object, receive: Receive | None) -> object:
    """Give what the room answers, or what stands for its error; raise :class:`ClientLeft` if nobody waits any more.

    ``receive`` says when the client leaves; ``None`` where the room reads the body itself, and hears of it there.
    """
    if receive is None:
        return await _answer(handle, request)
    answer: object = None
    async with create_task_group() as tasks:
        tasks.start_soon(_hear_of_leaving, receive, tasks.cancel_scope.cancel)
        answer = await _answer(handle, request)
        tasks.cancel_scope.cancel()
    if answer is None:
        raise ClientLeft
    return answer


async def _hear_of_leaving(receive: Receive, left: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    left()


async def _answer(handle: RoomHandle, request: object) -> object:
    try:
        answer: object = await handle.request(request)
    except Refused as refused:
        return refused.response
    except Exception as error:  # noqa: BLE001 - told to the log and, without a traceback, to the client
        return _failure(handle, error)
    if isinstance(answer, Response) or callable(answer):
        return answer
    room = RoomKey(handle.party, handle.id)
    text = "%s: on_request gave %s; a Response is wanted"
    LOG.error(text, room, type(answer).__name__, extra=about(room, "on_request"))
    return Response("the room failed", 500)


def _failure(handle: RoomHandle, error: Exception) -> Response:
    """Say in a status what went wrong, and no more."""
    if isinstance(error, NoHandlerError):
        return Response("this room answers no requests", 404)
    if isinstance(error, RuntimeClosedError):
        return unavailable(error, RoomKey(handle.party, handle.id))
    room = RoomKey(handle.party, handle.id)
    LOG.error("%s: on_request failed", room, exc_info=error, extra=about(room, "on_request"))
    if isinstance(error, EventTimeoutError):
        return Response("the room took too long", 504)
    return Response("the room failed", 500)


def unavailable(error: RuntimeClosedError, room: RoomKey) -> Response:
    """Say that there are no rooms now."""
    LOG.warning("a request cannot be served: %s", error, extra=about(room))
    return Response("there are no rooms at the moment", 503, {"retry-after": "1"})


async def respond(answer: object, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an answer: ours, or any other that is an ASGI application, as those of Starlette are."""
    if not isinstance(answer, Response):
        await cast("ASGIApp", answer)(scope, receive, send)
        return
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.wire_headers()})
        await send({"type": "http.response.body", "body": answer.content()})
    except OSError:
        # So servers say that the client has left.
        return
