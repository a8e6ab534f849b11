"""A runtime in the thread that opened it, which goes on while that thread waits for it.

Owns an event loop that stands still between two calls.

Promises that a room's code, alarms included, runs in the thread that opened the
runtime and in no other, while a call of that thread waits; and that an interrupt
ends that wait, and not the runtime.

Must never start a thread, nor take the place of a loop that runs here. It is
asyncio's only, which can be stopped between two calls and gone on with; trio
cannot.
"""

from __future__ import annotations

import selectors
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from socket import socketpair
from threading import current_thread, main_thread
from typing import Any, Final, TypeVar, final

from anyio import Event
from typing_extensions import override

from partyroom._native import runs_a_loop_here
from partyroom.blocking._home import ROOMS_OWN_CODE, Home
from partyroom.errors import RuntimeStateError
from partyroom.runtime import Runtime

__all__ = ["OwnThread"]

T = TypeVar("T")

PollSelector: Final[Any] = getattr(selectors, "PollSelector", None)


def _new_loop() -> Any:  # noqa: ANN401 - a loop of asyncio's
    """Make a loop that a forked child can drop: an epoll set is shared with it, and would lose what the child lets go of."""
    asyncio: Any = import_module("asyncio")
    return asyncio.new_event_loop() if PollSelector is None else asyncio.SelectorEventLoop(PollSelector())


class _Bell:
    """Wakes a loop for a signal that comes just before it falls asleep, where the signal alone would wake nobody.

    A loop that does so by itself (Windows') needs none, and no thread but the main one is told of signals.
    """

    def __init__(self, loop: Any) -> None:  # noqa: ANN401 - a loop of asyncio's
        self._loop = loop
        self._heard, self._rope = socketpair()
        self._heard.settimeout(0)
        self._rope.settimeout(0)
        loop.add_reader(self._heard, self._hear)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            self._heard.recv(4096)

    @contextmanager
    def armed(self) -> Generator[None]:
        """Be rung by signals while the loop runs."""
        before = signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Give the two ends back."""
        self._loop.remove_reader(self._heard)
        self._heard.close()
        self._rope.close()


@final
class OwnThread(Home):
    """The thread that opened a runtime, as the place where it lives."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._thread = current_thread()
        self._runner: Any = None
        self._waker: _Bell | None = None
        self._task: object = None
        self._stopped = self._ended = Event()
        self._error: BaseException | None = None
        self._is_driving = False
        self._was_interrupted = False

    @override
    def check(self) -> None:
        super().check()
        if self._is_driving and current_thread() is self._thread:
            raise RuntimeStateError(ROOMS_OWN_CODE)
        if current_thread() is not self._thread:
            message = (
                f'with alarms="manual" this runtime lives in {self._thread.name}, which opened it, and may be used there '
                f"only; this is {current_thread().name}"
            )
            raise RuntimeStateError(message)
        if runs_a_loop_here():
            message = "an event loop runs in this thread: await the verbs of a Runtime there"
            raise RuntimeStateError(message)

    @override
    def start(self) -> None:
        self.check()
        self._runner = import_module("asyncio").Runner(loop_factory=_new_loop)
        if PollSelector is not None and self._thread is main_thread():
            self._waker = _Bell(self._runner.get_loop())
        try:
            self._drive(self._begin)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.close()
        self._runner.close()

    async def _begin(self) -> None:
        ready = Event()
        self._stopped, self._ended = Event(), Event()
        # Held, for the loop itself holds tasks weakly.
        self._task = self._runner.get_loop().create_task(self._live(ready))
        await ready.wait()
        if self._error is not None:
            raise self._error

    async def _live(self, ready: Event) -> None:
        try:
            async with self.runtime:
                ready.set()
                await self._stopped.wait()
        except BaseException as error:  # noqa: BLE001 - raised where the runtime is opened or closed
            self._error = error
        finally:
            ready.set()
            self._ended.set()

    @override
    def ask(self, fn: Callable[[], Awaitable[T]], /) -> T:
        self.check()
        return self._drive(fn)

    @override
    def stop(self) -> None:
        self.check()
        try:
            self._drive(self._end)
        finally:
            # Also after an interrupt: it waits for the closing to end, which has a deadline.
            self._close()
        if self._error is not None:
            raise self._error

    async def _end(self) -> None:
        self._stopped.set()
        await self._ended.wait()

    def _drive(self, fn: Callable[[], Awaitable[T]]) -> T:
        self._is_driving = True
        try:
            if self._was_interrupted:
                self._sweep()
            # It turns an interrupt into a cancellation of this one task, where the program has no other way with it.
            with nullcontext() if self._waker is None else self._waker.armed():
                result: T = self._runner.run(_coroutine(fn))
        except KeyboardInterrupt:
            self._was_interrupted = True
            raise
        finally:
            self._is_driving = False
        return result

    def _sweep(self) -> None:
        """Let the loop stop: an interrupt may have come between the end of a call and the stop, which the next would take for its own."""
        loop = self._runner.get_loop()
        loop.call_soon(loop.stop)
        loop.run_forever()
        self._was_interrupted = False


def _coroutine(fn: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
    async def call() -> T:
        return await fn()

    return call()
