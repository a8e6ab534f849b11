"""The count of what can still move by itself.

Owns one number, the tokens that are held, and who holds one. A token is held
by whatever can go on without anybody's help: a room with a waiting event, a
sealed event whose outputs have not left, a background task, a fired timer.

Promises that "is anything still going on?" has an exact answer on every loop
and across worker threads: a token is handed over or taken *before* a waiting
task is woken, so the count never shows zero between two steps of one piece of
work.

Must never poll, guess from the loop, or look at a clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final, TypeVar, final

from anyio.lowlevel import checkpoint

from partyroom._native import Loop, OneShot

__all__ = ["HOLDER", "Holder", "Work"]

T = TypeVar("T")


@final
class Holder:
    """A task that holds a token of its own while it runs, and gives it back while it waits."""

    __slots__ = ("task", "work")

    def __init__(self, task: object, work: Work) -> None:
        self.task = task
        self.work = work
        """Whose token it is: to any other runtime, this task is code of a host."""


HOLDER: Final[ContextVar[Holder | None]] = ContextVar("partyroom_holder", default=None)
"""The counted task that the running code was started by; its branches inherit it, and hold no token of their own."""


@final
class Work:
    """Counts the work in flight of one runtime."""

    __slots__ = ("_lent", "_loop", "_waiters", "count", "hosts", "on_host_waits")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiters: list[OneShot[None]] = []
        self._lent = 0
        """How many counted tasks wait, with their token given back."""
        self.count = 0
        self.hosts = 0
        """How many tasks of the host wait for something of this runtime."""
        self.on_host_waits: Callable[[], None] | None = None
        """Called when one more does; for a clock that moves by itself."""

    def take(self) -> None:
        """Count one more piece of work."""
        self.count += 1

    def give(self) -> None:
        """Count one piece of work as done, and wake who waits for none to be left."""
        self.count -= 1
        if not self.count and self._waiters:
            self._tell()

    def end(self) -> None:
        """Count nothing any more: what was in flight ended with the runtime."""
        self.count = 0
        self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set(None)

    def is_counted_here(self) -> bool:
        """Say whether the running code is a room's, of this runtime, and not a host's."""
        holder = HOLDER.get()
        return holder is not None and holder.work is self

    async def wait_idle(self) -> None:
        """Return when nothing is in flight; at once if nothing is, and nobody waits who may have been cancelled."""
        while True:
            # A caller that was on its way in when the runtime ended gives its token back late: then it is less than none.
            while self.count > 0:
                waiter: OneShot[None] = self._loop.one_shot()
                self._waiters.append(waiter)
                await waiter
            if not self._lent:
                return
            # One that was cancelled, rather than answered, takes its token back in its own next step: let it. Of two that
            # are to make a step, trio takes either one first.
            await checkpoint()
            await checkpoint()
            if self.count <= 0:
                return

    def wait(self, shot: OneShot[T]) -> Awaitable[T]:
        """Wait for a result, with this task's token given back meanwhile; to be awaited at once.

        A counted task has its token again before it is woken, also when it is cancelled instead. Code of the host, which
        is not counted, is handed a token with the result, and gives it back when it goes on. A branch of a handler's
        own task group holds none, and changes nothing.
        """
        if shot.done:
            return shot
        holder = HOLDER.get()
        if holder is None or holder.work is not self:
            return self._receive(shot)
        if holder.task is not self._loop.current_task():
            return shot
        return self._lend(shot)

    async def _lend(self, shot: OneShot[T]) -> T:
        shot.on_done = self.take
        self._lent += 1
        self.give()
        try:
            return await shot
        finally:
            self._lent -= 1
            if not shot.done:
                # Cancelled with nothing answered: the token is taken back here, not by a late answer.
                shot.on_done = None
                self.take()

    async def _receive(self, shot: OneShot[T]) -> T:
        shot.on_done = self.take
        self.hosts += 1
        if self.on_host_waits is not None:
            self.on_host_waits()
        try:
            return await shot
        finally:
            self.hosts -= 1
            if shot.done:
                self.give()
            else:
                shot.on_done = None
