"""Tasks beside one that waits: a task group that costs next to nothing while it is empty.

Owns how many of them run for one connection, and the first error of theirs.

Promises that they run in the context of the connection that they serve, whoever
causes them to begin; that none begins inside the code that starts it; that one
which has not begun counts as work in flight, as a message does that is handed to
a waiting client; and that :meth:`Beside.end` returns when all have ended, and
raises that error.

Must never be used without its ``end``: a server's ``send`` is not to be called
once the application has returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import final

from anyio import CancelScope, get_cancelled_exc_class

from partyroom._native import Loop, OneShot
from partyroom._work import Work

__all__ = ["Aside", "Beside"]


@final
class Beside:
    """The tasks beside one. A group of the loop's own costs more than an idle client may."""

    __slots__ = ("_context", "_ended", "_error", "_running", "loop", "work")

    def __init__(self, loop: Loop, work: Work) -> None:
        self.loop = loop
        self.work = work
        self._context: Context = copy_context()
        self._running = 0
        self._ended: OneShot[None] | None = None
        self._error: Exception | None = None

    def start(self, step: Callable[[], Awaitable[None]], when_ended: Callable[[], None]) -> Aside:
        """Start a task; ``when_ended`` is called at its end, whatever that is."""
        aside = Aside(self, step, when_ended)
        self._running += 1
        self.work.take()
        aside.stop = self.loop.spawn(aside.run, self._context)
        return aside

    def one_has_ended(self, error: Exception | None) -> None:
        """Hear of the end of one of them."""
        self._running -= 1
        self._error = self._error or error
        if self._ended is not None:
            self._ended.set(None)

    @property
    def has_failed(self) -> bool:
        """Whether one of them has raised."""
        return self._error is not None

    async def end(self) -> None:
        """Wait until none runs, whoever cancels this: so cancel them first."""
        with CancelScope(shield=True):
            while self._running:
                self._ended = self.loop.one_shot()
                await self._ended.wait()
        if self._error is not None:
            raise self._error


@final
class Aside:
    """One such task. It has no cancel scope of its own, which would cost as much as the task."""

    __slots__ = ("_beside", "_has_begun", "_is_cancelled", "_step", "_when_ended", "stop")

    def __init__(self, beside: Beside, step: Callable[[], Awaitable[None]], when_ended: Callable[[], None]) -> None:
        self._beside = beside
        self._step = step
        self._when_ended = when_ended
        self._has_begun = False
        self._is_cancelled = False
        self.stop: Callable[[], object] = bool
        """Cancels the loop's own task; does nothing until there is one."""

    def cancel(self) -> None:
        """Have it end soon. Once is enough: it swallows no cancellation."""
        if not self._is_cancelled:
            self._is_cancelled = True
            # One that was cancelled before it began would never run, and nobody would hear of its end.
            if self._has_begun:
                self.stop()

    async def run(self) -> None:
        """Run the step, and tell of the end."""
        self._beside.work.give()
        self._has_begun = True
        failure: Exception | None = None
        try:
            if not self._is_cancelled:
                await self._step()
        except Exception as error:  # noqa: BLE001 - raised by ``end``
            failure = error
        except get_cancelled_exc_class():
            if not self._is_cancelled:
                raise
        finally:
            self._beside.one_has_ended(failure)
            self._when_ended()
