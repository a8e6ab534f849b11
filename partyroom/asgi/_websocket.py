"""One WebSocket: what a client says goes to its room, what the room says goes to the client.

Owns one socket from its handshake to its end. The server's own task hears the
client; another one speaks to it, and is there only while there is something to
say, so that an idle client costs no task but the one that it costs its server.

Promises that a client is let in only when ``on_connect`` is done (G19), that one
which leaves at any moment is heard of, that one which does not read is closed
with 1013 and held no longer than ``close_timeout`` after that (G21), nor is one
that is refused, and that every code and reason that is sent may be sent.

Must never hold a message back for a client whose room goes on: what waits is
bounded by the room's limits.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, final

import attrs
from anyio import CancelScope

from partyroom._log import about
from partyroom.asgi._asgi import Message, Receive, Scope, Send
from partyroom.asgi._beside import Aside, Beside
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
        "_beside",
        "_client",
        "_connecting",
        "_left",
        "_listening",
        "_manners",
        "_patience",
        "_receive",
        "_room",
        "_send",
        "_speaking",
        "_subprotocol",
    )

    def __init__(  # noqa: PLR0917 - the parts of a socket, listed once
        self,
        connecting: AbstractAsyncContextManager[Client],
        receive: Receive,
        send: Send,
        subprotocol: str | None,
        manners: Manners,
        beside: Beside,
        room: RoomKey,
    ) -> None:
        self._connecting = connecting
        self._receive = receive
        self._send = send
        self._subprotocol = subprotocol
        self._manners = manners
        self._room = room
        self._beside = beside
        self._listening = CancelScope()
        """Holds the hearing; cancelled once the connection is over."""
        self._speaking: Aside | None = None
        """What is said to the client now."""
        self._patience: Aside | None = None
        """The wait for a client that is to take its end."""
        self._client: RoomClient | None = None
        self._left: tuple[int, str] | None = None
        """How the client has left, once it has."""

    async def serve(self, scope: Scope) -> None:
        """Serve the client until either end closes."""
        self._speaking = self._beside.start(partial(self._begin, scope), self._have_spoken)
        try:
            with self._listening:
                while self._left is None:
                    await self._hear(await self._receive())
        finally:
            await self._end()

    async def _end(self) -> None:
        """End what is said, and tell the room how the client has left, if it has."""
        self._give_up()
        with CancelScope(shield=True):
            try:
                await self._beside.end()
            finally:
                if self._client is not None:
                    if self._left is not None:
                        await self._client.close(*self._left)
                    await self._connecting.__aexit__(None, None, None)

    def _give_up(self) -> None:
        """Say nothing more, and hear nothing."""
        self._listening.cancel()
        for aside in (self._speaking, self._patience):
            if aside is not None:
                aside.cancel()

    # --- from the client -----------------------------------------------------

    async def _hear(self, message: Message) -> None:
        """Give the room what the client says; after the end of the connection, nobody."""
        if message["type"] == "websocket.disconnect":
            # Some servers give a code of their own type, or none.
            self._leave(int(message.get("code") or NO_STATUS), message.get("reason") or "")
            return
        if self._client is None:
            # One that is refused is accepted first, and may speak before it hears of its end: nobody listens.
            return
        text: str | None = message.get("text")
        payload: str | bytes = message["bytes"] if text is None else text
        if _is_over(payload, self._manners.max_bytes):
            await self._client.close(TOO_BIG, f"a message may have {self._manners.max_bytes} bytes")
            return
        # The speaking side tells the client.
        with suppress(ConnectionClosedError, RuntimeClosedError):
            await self._client.send(payload)

    def _leave(self, code: int, reason: str) -> None:
        """Hear that the client has gone: nobody is to be spoken to any more."""
        self._left = self._left or (code, reason)
        self._give_up()

    # --- to the client -------------------------------------------------------

    async def _begin(self, scope: Scope) -> None:
        """Have the room let the client in, and say so; then say what the room has said meanwhile."""
        client = self._client = await self._enter(scope)
        if client is None:
            self._give_up()
            return
        client.inbox.when_told(self._hear_room)
        if client.inbox.closed is not None:
            # A later event of the room has closed it already, of which nobody is told here.
            self._await_end()
        await self._tell({"type": "websocket.accept", "subprotocol": self._subprotocol})
        await self._speak()

    async def _enter(self, scope: Scope) -> RoomClient | None:
        """Have the room let the client in; if it does not, tell the client why."""
        try:
            client = await self._connecting.__aenter__()
        except ConnectRejectedError as error:
            if error.__cause__ is not None:
                self._log_failure(error.__cause__)
            await self._refuse(error.code, error.reason)
            return None
        except RuntimeClosedError as error:
            await deny(unavailable(error, self._room), scope, self._send)
            return None
        except PartyroomError as error:
            # The room's own fault, or a hook's: what it was stands in the log only.
            self._log_failure(error)
            await self._refuse(INTERNAL_ERROR, "on_connect failed")
            return None
        assert isinstance(client, RoomClient)
        return client

    def _log_failure(self, error: BaseException) -> None:
        text = "%s: a client could not be let in"
        LOG.error(text, self._room, exc_info=error, extra=about(self._room, "on_connect"))

    async def _refuse(self, code: int, reason: str) -> None:
        self._await_end()
        # A browser shows its page the code of a close frame, and nothing of a refused handshake.
        await self._tell({"type": "websocket.accept"})
        await self._tell_end(code, reason)

    def _hear_room(self) -> None:
        """Hear that a message waits for the client, or that the connection has ended: then the rest has to go soon."""
        if self._listening.cancel_called:
            # It is over: who is spoken to from here on would be so after the application's end, or hold it up for ever.
            return
        assert self._client is not None
        inbox = self._client.inbox
        if inbox.closed is not None:
            self._await_end()
            if inbox.closed.code == TRY_AGAIN_LATER and self._speaking is not None:
                inbox.take_all()
                self._speaking.cancel()
        if self._speaking is None:
            self._speaking = self._beside.start(self._speak, self._have_spoken)

    async def _speak(self) -> None:
        """Say what waits for the client, then how the connection has ended, if it has."""
        assert self._client is not None
        inbox = self._client.inbox
        while (message := inbox.pop()) is not None:
            await self._tell(_to_frame(message))
        if inbox.closed is not None:
            await self._tell_end(inbox.closed.code, inbox.closed.reason)
            self._give_up()

    def _have_spoken(self) -> None:
        """Go on if there is more to say: one that was too slow is still to hear so."""
        self._speaking = None
        if self._beside.has_failed:
            self._give_up()
        elif self._client is not None and self._client.inbox.has_news and not self._listening.cancel_called:
            self._speaking = self._beside.start(self._speak, self._have_spoken)

    def _await_end(self) -> None:
        """See that the client takes its end in time."""
        self._patience = self._beside.start(self._be_patient, self._give_up)

    async def _be_patient(self) -> None:
        """Let go of a client that does not even take its close frame, in a while."""
        await self._manners.clock.sleep(self._manners.close_timeout)

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


def _to_frame(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, str):
        return {"type": "websocket.send", "text": _well_formed(message)}
    return {"type": "websocket.send", "bytes": message}


def _well_formed(text: str) -> str:
    """Give a text as a frame can hold it, half a surrogate pair replaced as a browser does.

    What one client has sent as JSON may have such a half, and a server that cannot send it ends the socket of everybody
    who was to hear it.
    """
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _is_over(payload: str | bytes, limit: int) -> bool:
    """Say whether a message has more bytes than the limit; a character has at most four."""
    if len(payload) * 4 <= limit:
        return False
    return len(payload) > limit or (isinstance(payload, str) and len(payload.encode("utf-8", "replace")) > limit)
