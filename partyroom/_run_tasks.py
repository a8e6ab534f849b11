"""The tasks of one run of a runtime, and what becomes of an error that none of them may let out.

Owns the runtime's task group from the inside: the context in which its tasks
begin, and the scopes of those that run as long as the run does.

Promises that a task starts in the runtime's own context, not in that of whoever
happened to need it, and that no error in one ends its siblings before the
runtime has closed: the first is kept, and raised when the runtime is left.

Must never know what a task is for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import final

from anyio import CancelScope, get_cancelled_exc_class
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from partyroom._core.units import CURRENT
from partyroom._native import Loop
from partyroom._work import HOLDER

__all__ = ["RunTasks"]


@final
class RunTasks:
    """Starts tasks in a runtime's task group."""

    def __init__(self, group: TaskGroup, loop: Loop) -> None:
        self._group = group
        self._loop = loop
        self._context: Context = copy_context()
        # The runtime may be entered by code of another one's room. Set once: a worker's context stays the same over events.
        self._context.run(CURRENT.set, None)
        self._context.run(HOLDER.set, None)
        self._kept: list[CancelScope] = []
        self.error: BaseException | None = None
        """What ended the runtime, if it was no host's doing."""

    def keep_running(self, run: Callable[[], Awaitable[None]], scope: CancelScope) -> None:
        """Start a task that runs in ``scope`` until the run ends."""

        async def run_in_scope() -> None:
            with scope:
                await run()

        # Noted down before the task begins: the runtime may be left before that.
        self._kept.append(scope)
        self.start(run_in_scope)

    def start(self, fn: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task in the runtime's own context: it outlives whoever happened to need it."""
        self._context.copy().run(self.spawn, fn, args)

    def spawn(self, fn: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        """Start a task in the current context."""
        self._group.start_soon(self._guard, fn, args)

    async def _guard(self, fn: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        try:
            await fn(*args)
            if self._loop.cancels_of(self._loop.current_task())():
                # A cancellation that the task's own code has sent, and not waited for, is taken here: the group would
                # hold a task that ends with one for cancelled from outside, and cancel all others.
                await checkpoint()
        except get_cancelled_exc_class():
            pass
        except BaseException as error:  # noqa: BLE001 - raised again when the runtime is left
            self.fail(error)

    def fail(self, error: BaseException, /) -> None:
        """End the run by an error that is none of a room: the body of its ``async with`` is cancelled, and it is raised there."""
        if self.error is None:
            self.error = error
            self._group.cancel_scope.cancel()

    def stop(self) -> None:
        """End the tasks that only the run's own end ends."""
        for scope in self._kept:
            scope.cancel()
