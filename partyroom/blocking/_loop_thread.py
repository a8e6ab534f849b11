"""A runtime in a thread of its own, which any thread may ask.

Owns that thread and its event loop.

Promises that any number of threads may ask at once, and that who waits for a
message when the runtime closes is told so.

Must never run a room's code in a caller's thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Event as ThreadEvent
from threading import Thread, current_thread
from typing import TypeVar, final

from anyio import Event, run
from anyio.from_thread import BlockingPortal
from typing_extensions import override

from partyroom.blocking._home import ROOMS_OWN_CODE, Home
from partyroom.errors import RuntimeClosedError, RuntimeStateError
from partyroom.runtime import Runtime

__all__ = ["LoopThread"]

T = TypeVar("T")


@final
class LoopThread(Home):
    """The thread in which a runtime lives."""

    def __init__(self, runtime: Runtime, loop: str) -> None:
        super().__init__(runtime)
        self._loop = loop
        self._portal: BlockingPortal | None = None
        self._stopped: Event | None = None
        self._error: BaseException | None = None
        self._ready = ThreadEvent()
        # A daemon, so that a program may end without leaving the runtime: it is closed at exit.
        self._thread = Thread(target=self._main, name="partyroom", daemon=True)

    @override
    def check(self) -> None:
        super().check()
        if current_thread() is self._thread:
            raise RuntimeStateError(ROOMS_OWN_CODE)

    @override
    def start(self) -> None:
        try:
            self._thread.start()
            self._ready.wait()
        except KeyboardInterrupt:
            # What opens all the same could be closed by nobody.
            self._ready.wait()
            with suppress(Exception):
                self.stop()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def _main(self) -> None:
        try:
            run(self._live, backend=self._loop)
        except BaseException as error:  # noqa: BLE001 - raised where the runtime is opened or closed
            self._error = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        # The way in closes last: who waits for a message is told by the runtime's closing that there will be none.
        async with BlockingPortal() as self._portal:
            try:
                async with self.runtime:
                    self._stopped = Event()
                    self._ready.set()
                    await self._stopped.wait()
            except BaseException as error:  # noqa: BLE001 - told as it is, and not in the portal's group
                self._error = error

    @override
    def stop(self) -> None:
        self.check()
        assert self._portal is not None
        # One that an error has ended has nothing left to stop: the error says why.
        with suppress(RuntimeError):
            self._portal.start_task_soon(self._set_stopped)
        self._thread.join()
        if self._error is not None:
            raise self._error

    async def _set_stopped(self) -> None:
        assert self._stopped is not None
        self._stopped.set()

    @override
    def ask(self, fn: Callable[[], Awaitable[T]], /) -> T:
        self.check()
        assert self._portal is not None
        try:
            future = self._portal.start_task_soon(fn)
        except RuntimeError as error:
            message = "the runtime is closed"
            raise RuntimeClosedError(message) from error
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
