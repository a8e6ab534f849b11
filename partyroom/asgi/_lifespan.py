"""The runtime's life, when the application around everything is ours.

Owns the answer to a server's ``lifespan``: the runtime is open from before the
inner application starts until after it has stopped.

Promises that the server is told that all is stopped only when the runtime has
closed, that a runtime which cannot be opened stops the server from starting,
and that an inner application which refuses ``lifespan``, or goes from it as soon
as it has started, loses nothing by it.

Must never be asked for an application that is mounted in another: there the
host enters the runtime.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from partyroom._log import about
from partyroom.asgi._asgi import ASGIApp, Message, Receive, Scope, Send
from partyroom.errors import RuntimeClosedError
from partyroom.runtime import Runtime

__all__ = ["serve_lifespan"]

LOG: Final = logging.getLogger("partyroom")

STARTED: Final = "lifespan.startup.complete"
STOPPED: Final = "lifespan.shutdown.complete"
ENDS: Final = {STOPPED, "lifespan.shutdown.failed"}


async def serve_lifespan(runtime: Runtime, app: ASGIApp | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Hold the runtime open for as long as the server runs, and let ``app`` have its own lifespan within."""
    inner = _Inner(await receive(), receive, send)
    try:
        life = _life_of(runtime)
        await life.__aenter__()
    except Exception as error:
        # Also a plugged-in backend's own: a server holds what is raised here for an application without a lifespan.
        LOG.exception("the runtime could not be opened", extra=about())
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        return
    try:
        await inner.run(app, scope)
    finally:
        await life.__aexit__(None, None, None)
    if inner.last is not None:
        await send(inner.last)


def _life_of(runtime: Runtime) -> AbstractAsyncContextManager[object]:
    """Give what opens and closes the runtime: nothing, if the host has entered it around its server."""
    try:
        runtime.engine()
    except RuntimeClosedError:
        return runtime
    return nullcontext()


class _Inner:
    """One inner application's lifespan, whose last word is kept back."""

    def __init__(self, first: Message, receive: Receive, send: Send) -> None:
        self._first: Message | None = first
        self._outer_receive = receive
        self._outer_send = send
        self._has_spoken = False
        self._runs_on = False
        """Whether the server has been told that all has started, and has not said that it stops."""
        self.last: Message | None = None
        """What the server is to be told at the end."""

    async def run(self, app: ASGIApp | None, scope: Scope) -> None:
        """Run the inner application to the end of its lifespan, or stand in for it."""
        if app is None or not await self._is_served_by(app, scope):
            await self._send({"type": STARTED})
        if self._runs_on:
            await self._outer_receive()
            self.last = {"type": STOPPED}

    async def _is_served_by(self, app: ASGIApp, scope: Scope) -> bool:
        """Say whether the application knows the lifespan: one that ends without a word does not."""
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            if self._has_spoken:
                raise
            LOG.info("the inner application has no lifespan: %s: %s", type(error).__name__, error, extra=about())
        return self._has_spoken

    async def _receive(self) -> Message:
        first, self._first = self._first, None
        if first is not None:
            return first
        message = await self._outer_receive()
        self._runs_on = False
        return message

    async def _send(self, message: Message) -> None:
        self._has_spoken = True
        self._runs_on = self._runs_on or message["type"] == STARTED
        if message["type"] in ENDS:
            self.last = message
        else:
            await self._outer_send(message)
