"""A runtime in a task of its own, so that it can be begun, ended and killed from anywhere in a test.

Owns that task, and what went wrong in it.

Promises that the runtime may be begun in one task and ended in another, as the
fixtures of some test frameworks are, and whatever blocks a test has open; that
what ended it is raised to whoever asks for it next, once; and that time passes
while it closes only if something that it waits for sleeps.

Must never know what a harness adds: rooms, errors, alarms.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import final

from anyio import Event

from partyroom._engine import Engine
from partyroom._native import current_loop
from partyroom.errors import RuntimeStateError
from partyroom.runtime import Runtime
from partyroom.testing.fake_clock import FakeClock

__all__ = ["HeldRuntime"]


@final
class HeldRuntime:
    """One runtime, entered again and again."""

    def __init__(self, runtime: Runtime, clock: FakeClock) -> None:
        self._runtime = runtime
        self._clock = clock
        self._engine: Engine | None = None
        self._stop = Event()
        self._ended = Event()
        self._failure: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether the runtime runs."""
        return self._engine is not None

    def engine(self) -> Engine:
        """Give the engine that runs, or raise what ended it."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._engine is None:
            message = "this harness is not open: use it inside `async with`"
            raise RuntimeStateError(message)
        return self._engine

    def engine_here(self) -> Engine:
        """Give the engine that runs; refuse code of another loop, for which nothing would ever settle."""
        engine = self.engine()
        if not engine.loop.is_running_here():
            message = (
                "this harness was opened in another event loop or thread: "
                "one that is kept over several tests wants them all on the loop of its fixture"
            )
            raise RuntimeStateError(message)
        return engine

    async def begin(self) -> Engine:
        """Enter the runtime; give its engine, or raise what kept it from starting."""
        self._stop, self._ended, ready = Event(), Event(), Event()

        async def live() -> None:
            try:
                await self._live(ready)
            except BaseException as error:  # noqa: BLE001 - told to the test, whichever task it runs in
                self._failure = error
            finally:
                self._engine = None
                self._ended.set()
                ready.set()

        current_loop().spawn(live, copy_context())
        await ready.wait()
        return self.engine()

    async def _live(self, ready: Event) -> None:
        async with self._runtime as runtime:
            self._engine = engine = runtime.engine()
            ready.set()
            await self._stop.wait()
            if not engine.closing:
                # This token was taken with the stop; from here on the runtime counts its closing itself.
                engine.work.give()

    async def end(self) -> None:
        """Leave the runtime, or see the end of one that was killed."""
        engine = self.engine()
        if not engine.closing:
            engine.work.take()
        self._stop.set()
        while not self._ended.is_set():
            await self._clock.settle()
            if not self._ended.is_set():
                await self._clock.advance_to_next()
        if self._failure is not None:
            self.engine()
