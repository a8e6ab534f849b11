"""A pool of tasks that pick up rooms with waiting events.

Owns the tasks in which handlers run. A room has no task of its own: one that
has something to do is given to an idle worker, so that an idle room costs no
task, and a busy one keeps its worker until it has nothing left to do.

Promises that a job is done by one worker at a time, and never begins before
``submit`` has returned, whatever the loop; that each worker's scope is shielded
and can be cancelled without harm to any other (it is opened once, not for each
event); and that neither a context variable which a handler set nor a cancellation that
it sent to its own task reaches the next: a worker that was left so ends.

Must never know what a job is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from operator import is_
from typing import Final, Protocol, final

from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from partyroom._native import Loop, OneShot
from partyroom._work import HOLDER, Holder, Work

__all__ = ["Job", "Worker", "Workers"]

MAX_IDLE: Final = 64
"""How many workers are kept for the next burst; each costs a task, some 4 KB."""
TURN: Final = 64
"""After how many jobs a worker lets the loop run: they may all have been done without a wait."""


class Job(Protocol):
    """What a worker picks up."""

    async def work(self, worker: Worker, /) -> None:
        """Do what there is to do. If it ends by an error or a cancellation, it is called again, by a fresh scope or worker."""
        ...


@final
class Worker:
    """One task of the pool, as the job that it works on sees it."""

    __slots__ = ("_cancels", "_clean", "call", "is_dirty", "job", "scope", "task")

    def __init__(self, task: object, cancels: Callable[[], int]) -> None:
        self.job: Job | None = None
        """What it works on; kept over a cancellation, to be gone on with in a fresh scope."""
        self.task = task
        """The loop's own task, for those who want to say what it waits for."""
        self.scope = CancelScope(shield=True)
        """The scope that the job runs in now."""
        self.call: OneShot[None] | None = None
        """Where the worker waits to be called."""
        self.is_dirty = False
        """Whether the context was found changed, or the task cancelled by code that ran in it."""
        self._clean = tuple(copy_context().values())
        """What its context variables are in the beginning."""
        self._cancels = cancels

    def may_go_on(self) -> bool:
        """Look whether other code may run in this worker now: neither scope nor task cancelled, the context as in the beginning."""
        now, clean = copy_context(), self._clean
        # A variable can be changed or added, but not taken away: so equal numbers mean equal names, and the same order.
        self.is_dirty = len(now) != len(clean) or not all(map(is_, now.values(), clean))
        if self.is_dirty or self.scope.cancel_called:
            return False
        # Cancelled by the loop's own means: that would reach whatever waits next, and what remains of it leads later
        # users of the loop's own task groups astray.
        self.is_dirty = self._cancels() > 0
        return not self.is_dirty


@final
class Workers:
    """The pool: one worker for each job that waits for something, one that goes on with the others, and a few that idle.

    Jobs that are ready queue for whichever worker is free, which takes one after the other: most never wait, so that a
    burst of a thousand needs no thousand tasks. A worker that begins a job while others are ready calls a second one
    to stand by, which goes on with those if the job does wait.
    """

    def __init__(self, loop: Loop, work: Work, spawn: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._loop = loop
        self._work = work
        self._spawn = spawn
        self._ready: deque[Job] = deque()
        self._is_called = False
        """Whether a worker stands by: it was called, and has not looked for a job yet."""
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._has_stopped = False

    def submit(self, job: Job) -> None:
        """Have a worker pick up a job soon. Once the pool has stopped, nobody does."""
        self._ready.append(job)
        self._call()

    def _call(self) -> None:
        """Have a worker look for a job, unless one stands by already."""
        if self._is_called or self._has_stopped:
            return
        self._is_called = True
        if self._idle:
            call = self._idle.pop().call
            assert call is not None
            call.set(None)
        else:
            self._spawn(self._main)

    def stop(self) -> None:
        """End all workers, those that are in the middle of a job by cancellation."""
        self._has_stopped = True
        for worker in self._all:
            worker.scope.cancel()

    async def _main(self) -> None:
        task = self._loop.current_task()
        HOLDER.set(Holder(task, self._work))
        worker = Worker(task, self._loop.cancels_of(task))
        self._all.add(worker)
        try:
            await self._live(worker)
        except get_cancelled_exc_class():
            # Not by this pool: something in the job cancelled its own task.
            pass
        finally:
            self._all.discard(worker)
            if worker.job is not None:
                # It is another worker's now.
                self._ready.appendleft(worker.job)
            if self._ready:
                self._call()

    async def _live(self, worker: Worker) -> None:
        """Do one job after the other, in a fresh scope whenever the last one was cancelled, until the context is spent."""
        try:
            with worker.scope:
                # Where tasks are begun eagerly, this runs inside of ``submit``: let whoever submitted go on first.
                await checkpoint()
                if self._loop.stir is not None:
                    await self._loop.stir()
        finally:
            self._is_called = False
        while not worker.is_dirty and not self._has_stopped:
            with CancelScope(shield=True) as worker.scope:
                if not await self._serve(worker):
                    return
            # Code that was cut short has not been looked at. The old scope has taken its own cancellation back by now.
            worker.scope = CancelScope(shield=True)
            worker.may_go_on()

    async def _serve(self, worker: Worker) -> bool:
        """Do one job after the other until scope or context are spent; ``False`` if there are workers enough without this one."""
        done = 0
        while not worker.is_dirty and not worker.scope.cancel_called:
            if worker.job is None:
                if not self._ready:
                    if len(self._idle) >= MAX_IDLE:
                        return False
                    await self._rest(worker)
                    continue
                worker.job = self._ready.popleft()
                if self._ready:
                    self._call()
            await worker.job.work(worker)
            worker.job = None
            done += 1
            if not done % TURN:
                await checkpoint()
        return True

    async def _rest(self, worker: Worker) -> None:
        """Idle until called."""
        call: OneShot[None] = self._loop.one_shot()
        worker.call = call
        self._idle.append(worker)
        try:
            await call
        finally:
            if call.done:
                # Also if a cancellation came with the call: another worker is called then.
                self._is_called = False
            else:
                self._idle.remove(worker)
