"""One WebSocket: what a client says goes to its room, what the room says goes to the client.

Owns one socket from its handshake to its end, in two tasks: one hears the
client, the other speaks to it.

Promises that a client is let in only when ``on_connect`` is done (G19), that one
which leaves at any moment is heard of, that one which does not read is closed
with 1013 and held no longer than ``close_timeout`` after that (G21), and that
every code and reason that is sent may be sent.

Must never hold a message back for a client whose room goes on: what waits is
bounded by the room's limits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from datetime import timedelta
from typing import Any, Final, final

import attrs
from anyio import CancelScope, create_task_group

from partyroom._log import about
from partyroom.asgi._asgi import Message, Receive, Scope, Send
from partyroom.asgi._http import unavailable
from partyroom.asgi.messages import Response
from partyroom.connections import RoomClient
from partyroom.errors import (
    ConnectionClosedError,
    ConnectRejectedError,
    PartyroomError,
    RuntimeClosedError,
)
from partyroom.protocols import Client, Clock
from partyroom.types import RoomKey

__all__ = ["Manners", "WebSocket", "deny"]

LOG: Final = logging.getLogger("partyroom")

NO_STATUS: Final = 1005
"""The close code for a client that closed without one (RFC 6455, 7.4.1)."""
ABNORMAL: Final = 1006
"""The close code for a client that left without saying so."""
TOO_BIG: Final = 1009
"""The close code for a message that is too big."""
INTERNAL_ERROR: Final = 1011
"""The close code that stands for one which cannot be sent."""
TRY_AGAIN_LATER: Final = 1013
"""The close code for a client that does not keep up."""
SENDABLE: Final = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
"""The close codes that may stand in a frame (RFC 6455, 7.4)."""
REASON_BYTES: Final = 123
"""The longest reason, in UTF-8 bytes (RFC 6455, 5.5)."""
DENIAL: Final = "websocket.http.response"
"""The extension by which a server lets an application answer a handshake like any request."""


async def deny(response: Response, scope: Scope, send: Send) -> None:
    """Answer a handshake with an HTTP response; a server that cannot sends its own 403."""
    try:
        if DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await send({"type": f"{DENIAL}.start", "status": response.status, "headers": response.wire_headers()})
        await send({"type": f"{DENIAL}.body", "body": response.content()})
    except OSError:
        # So servers say that the client has left.
        return


def sendable(code: int, reason: str) -> tuple[int, str]:
    """Give a code and a reason that a close frame may hold."""
    cut = reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")
    return (code if code in SENDABLE else INTERNAL_ERROR), cut


@attrs.frozen
class Manners:
    """How all clients of an application are treated."""

    clock: Clock
    max_bytes: int
    close_timeout: timedelta


@final
class WebSocket:
    """One socket of one client."""

    __slots__ = (
        "_client",
        "_context",
        "_ended",
        "_left",
        "_manners",
        "_receive",
        "_room",
        "_scope",
        "_send",
        "_subprotocol",
        "_tasks",
        "_writing",
    )

    def __init__(  # noqa: PLR0917 - the three of ASGI, and what is known of the client
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        subprotocol: str | None,
        manners: Manners,
        room: RoomKey,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._subprotocol = subprotocol
        self._manners = manners
        self._room = room
        # A room's code may be what closes the connection: what is started then must not be part of its event.
        self._context = copy_context()
        self._writing = CancelScope()
        self._tasks = create_task_group()
        self._client: RoomClient | None = None
        self._left: tuple[int, str] | None = None
        """How the client has left, once it has."""
        self._ended = ConnectionClosedError()
        """How the connection has ended, once it has."""

    async def serve(self, connecting: AbstractAsyncContextManager[Client]) -> None:
        """Serve the client until either end closes."""
        async with self._tasks as tasks:
            tasks.start_soon(self._listen)
            client = await self._enter(connecting)
            if client is not None:
                try:
                    await self._speak(client)
                finally:
                    await self._go(client)
                    await connecting.__aexit__(None, None, None)
            tasks.cancel_scope.cancel()

    async def _enter(self, connecting: AbstractAsyncContextManager[Client]) -> RoomClient | None:
        """Have the room let the client in; if it does not, tell the client why."""
        try:
            client = await connecting.__aenter__()
        except ConnectRejectedError as error:
            if error.__cause__ is not None:
                self._log_failure(error.__cause__)
            await self._refuse(error.code, error.reason)
            return None
        except RuntimeClosedError as error:
            await deny(unavailable(error, self._room), self._scope, self._send)
            return None
        except PartyroomError as error:
            # The room's own fault, or a hook's: what it was stands in the log only.
            self._log_failure(error)
            await self._refuse(INTERNAL_ERROR, "on_connect failed")
            return None
        assert isinstance(client, RoomClient)
        return client

    def _log_failure(self, error: BaseException) -> None:
        LOG.error("a client could not be let in", exc_info=error, extra=about(self._room, "on_connect"))

    async def _refuse(self, code: int, reason: str) -> None:
        # A browser shows its page the code of a close frame, and nothing of a refused handshake.
        await self._tell({"type": "websocket.accept"})
        await self._tell_end(code, reason)

    # --- to the client -------------------------------------------------------

    async def _speak(self, client: RoomClient) -> None:
        """Send what the room says until the connection has ended, then how it has."""
        self._client = client
        client.when_closed(self._hear_of_end)
        with self._writing:
            await self._tell({"type": "websocket.accept", "subprotocol": self._subprotocol})
            async for message in client:
                await self._tell(_to_frame(message))
        await self._tell_end(self._ended.code, self._ended.reason)

    async def _tell(self, message: Message) -> None:
        if self._left is not None:
            return
        try:
            await self._send(message)
        except OSError:
            # So servers say that the client has left.
            self._leave(ABNORMAL, "")

    async def _tell_end(self, code: int, reason: str) -> None:
        code, reason = sendable(code, reason)
        await self._tell({"type": "websocket.close", "code": code, "reason": reason})

    def _hear_of_end(self, ended: ConnectionClosedError) -> None:
        """Hear, from the room or from the listening side, that the connection has ended: the rest has to go soon."""
        self._ended = ended
        if ended.code == TRY_AGAIN_LATER:
            self._writing.cancel()
        start_soon: Callable[..., object] = self._tasks.start_soon
        self._context.run(start_soon, self._give_up)

    async def _give_up(self) -> None:
        """Let go of a client that does not even take its close frame."""
        await self._manners.clock.sleep(self._manners.close_timeout)
        self._tasks.cancel_scope.cancel()

    # --- from the client -----------------------------------------------------

    async def _listen(self) -> None:
        """Hand on what the client says, until it has left."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                # Some servers give a code of their own type.
                self._leave(int(message.get("code", NO_STATUS)), message.get("reason") or "")
                return
            if not await self._hand_on(message):
                return

    async def _hand_on(self, message: Message) -> bool:
        """Give the room one message; say whether it may have more."""
        # No server gives a message before it was told to accept.
        assert self._client is not None
        text: str | None = message.get("text")
        payload: str | bytes = message["bytes"] if text is None else text
        if _is_over(payload, self._manners.max_bytes):
            await self._client.close(TOO_BIG, f"a message may have {self._manners.max_bytes} bytes")
            return False
        try:
            await self._client.send(payload)
        except (ConnectionClosedError, RuntimeClosedError):
            # The speaking side tells the client.
            return False
        return True

    def _leave(self, code: int, reason: str) -> None:
        """Hear that the client has gone: nobody is to be spoken to any more."""
        self._left = self._left or (code, reason)
        self._tasks.cancel_scope.cancel()

    async def _go(self, client: RoomClient) -> None:
        """Tell the room how the client has left, if it has."""
        if self._left is not None:
            with CancelScope(shield=True):
                await client.close(*self._left)


def _to_frame(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, str):
        return {"type": "websocket.send", "text": message}
    return {"type": "websocket.send", "bytes": message}


def _is_over(payload: str | bytes, limit: int) -> bool:
    """Say whether a message has more bytes than the limit; a character has at most four."""
    if len(payload) * 4 <= limit:
        return False
    return len(payload) > limit or (isinstance(payload, str) and len(payload.encode("utf-8", "replace")) > limit)
