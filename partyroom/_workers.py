"""A pool of tasks that pick up rooms with waiting events.

Owns the tasks in which handlers run. A room has no task of its own: one that
has something to do is given to an idle worker, so that an idle room costs no
task, and a busy one keeps its worker until it has nothing left to do.

Promises that a job is run by one worker at a time, each in a shielded scope of
its own that can be cancelled without harm to any other (the scope is opened
once, not for each event), and that no context variable that a handler set is
seen by the next: a worker whose context was changed ends.

Must never know what a job is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Final, Protocol, final

from anyio import CancelScope

from partyroom._native import Loop, OneShot
from partyroom._work import HOLDER, Holder

__all__ = ["Job", "Worker", "Workers"]

MAX_IDLE: Final = 64
"""How many workers are kept for the next burst; each costs a task, some 4 KB."""


class Job(Protocol):
    """What a worker picks up."""

    async def work(self, worker: Worker, /) -> None:
        """Do what there is to do. A cancellation may leave out of it: then it is called again, in a fresh scope."""
        ...


@final
class Worker:
    """One task of the pool, as the job that it works on sees it."""

    __slots__ = ("_clean", "call", "scope", "task")

    def __init__(self, scope: CancelScope, task: object) -> None:
        self.task = task
        """The loop's own task, for those who want to say what it waits for."""
        self.scope = scope
        """The scope that the job runs in now."""
        self.call: OneShot[Job] | None = None
        """Where the worker waits for its next job."""
        self._clean: Context = copy_context()

    def is_clean(self) -> bool:
        """Say whether the context is as it was before the first job."""
        now = copy_context()
        clean = self._clean
        return len(now) == len(clean) and all(now.get(variable) is value for variable, value in clean.items())


@final
class Workers:
    """The pool: as many workers as jobs wait or run, and a few that idle."""

    def __init__(self, loop: Loop, spawn: Callable[[Callable[[Job], Awaitable[None]], Job], None]) -> None:
        self._loop = loop
        self._spawn = spawn
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._stopping = False

    def submit(self, job: Job) -> None:
        """Have a worker pick up a job soon."""
        if self._idle:
            call = self._idle.pop().call
            assert call is not None
            call.set(job)
        else:
            self._spawn(self._main, job)

    def stop(self) -> None:
        """End all workers, those that are in the middle of a job by cancellation."""
        self._stopping = True
        for worker in self._all:
            worker.scope.cancel()

    async def _main(self, job: Job | None) -> None:
        task = self._loop.current_task()
        HOLDER.set(Holder(task))
        worker = Worker(CancelScope(), task)
        self._all.add(worker)
        try:
            if self._loop.stir is not None:
                await self._loop.stir()
            while not self._stopping and worker.is_clean():
                with CancelScope(shield=True) as worker.scope:
                    while not worker.scope.cancel_called:
                        if job is None:
                            job = await self._next(worker)
                            if job is None:
                                return
                        await job.work(worker)
                        job = None
                        if not worker.is_clean():
                            return
            if job is not None and not self._stopping:
                self.submit(job)
        finally:
            self._all.discard(worker)

    async def _next(self, worker: Worker) -> Job | None:
        """Wait for the next job; ``None`` if there are idle workers enough."""
        if len(self._idle) >= MAX_IDLE:
            return None
        worker.call = self._loop.one_shot()
        self._idle.append(worker)
        return await worker.call.wait()
