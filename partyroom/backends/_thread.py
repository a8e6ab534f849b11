"""One worker thread, and the way from a loop into it and back.

Owns the thread and the queue of what waits for it. What the thread does is told
by a :class:`Duty`, an object that is used from that thread only.

Promises that everything handed in is done, in order, before the thread ends;
that all that waits when the thread comes round is handed to the duty as one
batch, at once, with no lingering for more; and that a loop which has died
meanwhile is no error.

Must never know what a job is, nor touch the loop but by its own way in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, Protocol, TypeVar, final

from anyio import CancelScope, get_cancelled_exc_class

from partyroom._native import Loop, OneShot

__all__ = ["Duty", "WorkerThread"]

J = TypeVar("J")


class Duty(Protocol[J]):
    """What a worker thread does: plain functions, all called from the thread, one at a time."""

    def open(self) -> None:
        """Begin; an exception ends the thread, and is raised to the one who started it."""
        ...

    def run(self, jobs: list[J], /) -> None:
        """Do all that waited. Must not raise: what a job's owner should know is handed back to that owner."""
        ...

    def rest(self) -> bool:
        """Do one small piece of background work, after a batch or an earlier piece; say whether there is more. Must not raise."""
        ...

    def close(self) -> None:
        """End; an exception is raised to the one who stopped the thread."""
        ...


@final
class WorkerThread(Generic[J]):
    """A thread that does its duty until it is stopped."""

    def __init__(self, name: str, duty: Duty[J], loop: Loop) -> None:
        self._duty = duty
        self._loop = loop
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._started: OneShot[None] = loop.one_shot()
        self._stopped: OneShot[None] = loop.one_shot()
        self._fault: BaseException | None = None
        """What closing has raised."""
        # A daemon, for a program that ends without leaving its runtime must not hang on an idle thread. Nothing is lost
        # by it: what is durable is durable, and nobody was told of anything else.
        self._thread = Thread(target=self._main, name=name, daemon=True)
        self.submit: Callable[[J], None] = self._jobs.put
        """Hand in a job, from any thread; never waits."""

    async def start(self) -> None:
        """Start the thread; return when its duty has opened, or raise what that raised."""
        self._thread.start()
        try:
            await self._until(self._started)
        except BaseException:
            # Whatever it was, nobody else will stop the thread any more.
            await self.stop()
            raise

    async def stop(self) -> None:
        """Have everything done that was handed in, then the duty closed; return when the thread has ended."""
        self._jobs.put(None)
        if self._loop.is_running_here():
            await self._until(self._stopped)
        else:
            # Its own loop has died, most likely: nothing is heard through it any more.
            self._thread.join()
            if self._fault is not None:
                raise self._fault

    async def _until(self, shot: OneShot[None]) -> None:
        """Wait for a step that is short and must not be left halfway, whoever cancels this and by what means."""
        cancelled: BaseException | None = None
        try:
            with CancelScope(shield=True):
                while True:
                    try:
                        await shot.wait()
                        break
                    except get_cancelled_exc_class() as error:
                        # asyncio's own cancellation, which no scope keeps out: who opens the store next would find it held.
                        cancelled = error
        finally:
            if self._stopped.done:
                self._thread.join()
        if cancelled is not None:
            raise cancelled

    def hand_back(self, call: Callable[[], object]) -> None:
        """Have the loop call something soon; from the thread."""
        # A loop that ended without stopping its thread waits for nothing any more.
        with suppress(RuntimeError):
            self._loop.call_soon_from_thread(call)

    def _main(self) -> None:
        try:
            self._duty.open()
        except BaseException as error:  # noqa: BLE001 - raised where the thread was started
            self._end(self._started, error)
            return
        self.hand_back(lambda: self._started.set(None))
        self._serve()
        try:
            self._duty.close()
        except BaseException as error:  # noqa: BLE001 - raised where the thread was stopped
            self._fault = error
            self._end(self._stopped, error)
        else:
            self._end(self._stopped, None)

    def _end(self, told: OneShot[None], error: BaseException | None) -> None:
        def end() -> None:
            if error is not None:
                told.fail(error)
            self._stopped.set(None)

        self.hand_back(end)

    def _serve(self) -> None:
        more = True
        while True:
            batch, last = self._take(wait=not more)
            if batch:
                self._duty.run(batch)
            if last:
                return
            more = self._duty.rest()

    def _take(self, *, wait: bool) -> tuple[list[J], bool]:
        """Take all that waits, and say whether it is the last; wait for the first of it, if told so."""
        batch: list[J] = []
        with suppress(Empty):
            job = self._jobs.get(block=wait)
            while job is not None:
                batch.append(job)
                job = self._jobs.get_nowait()
            return batch, True
        return batch, False
