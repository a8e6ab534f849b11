"""The one place that bends the rule "anyio only": a wake-up made of the loop's own parts.

Owns :class:`OneShot`, on which one task waits for one result, the identity of
the running task, tasks that belong to no group, and the way from a worker thread
back into the loop.

Promises that a task is woken at most once, by ``set``, ``fail`` or its own
cancellation, and that setting twice, or after the waiter has left, is harmless.

Must never know what it is used for. It exists because a warm call waits twice,
and through ``anyio.Event`` two waits cost twice what they do here (measured by
``python -m benchmarks engine``). The loops' modules are looked up while a loop
runs, so that importing the library imports neither.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import Context
from functools import cache
from importlib import import_module
from operator import attrgetter
from typing import Any, Generic, TypeVar

from anyio import sleep
from anyio.lowlevel import current_token
from typing_extensions import override

__all__ = ["Loop", "OneShot", "current_loop", "runs_a_loop_here", "seed_turns"]

T = TypeVar("T")


class OneShot(Generic[T]):
    """One result for one waiting task."""

    __slots__ = ("_error", "_value", "_waiter", "done", "on_done")

    def __init__(self) -> None:
        self._waiter: Any = None
        self._value: Any = None
        self._error: BaseException | None = None
        self.done = False
        self.on_done: Callable[[], None] | None = None
        """Called once, before the waiter is woken."""

    def set(self, value: T) -> None:
        """Give the result, and wake the waiter."""
        if not self.done:
            self._value = value
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Give an error to raise, and wake the waiter."""
        if not self.done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.done = True
        if self.on_done is not None:
            self.on_done()
        if self._waiter is not None:
            self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Make the waiting task run again."""

    @abstractmethod
    def _sleep(self) -> Iterator[Any]:
        """Sleep until woken or cancelled: what the loop is told, step by step."""

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result, or the error; nothing if it is there. Each frame less between a task and its loop counts."""
        if not self.done:
            yield from self._sleep()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]

    async def wait(self) -> T:
        """Wait as ``await`` does, where a function is asked for."""
        return await self


class Loop:
    """The native parts of one running event loop."""

    __slots__ = (
        "_native",
        "_running",
        "call_later",
        "call_soon_from_thread",
        "cancels_of",
        "current_task",
        "one_shot",
        "spawn",
        "stir",
        "tie",
        "token",
    )

    def __init__(  # noqa: PLR0917 - the parts of a loop, listed once
        self,
        token: object,
        one_shot: type[OneShot[Any]],
        current_task: Callable[[], object],
        cancels_of: Callable[[Any], Callable[[], int]],
        call_soon_from_thread: Callable[[Callable[[], object]], object],
        call_later: Callable[[float, Callable[[], object]], object],
        running: Callable[[], object],
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]], Context], Callable[[], object]],
    ) -> None:
        self._running = running
        self._native = running()
        self.token = token
        """Equal for the same loop only."""
        self.one_shot = one_shot
        """Makes a one-shot for tasks of this loop."""
        self.current_task = current_task
        """Gives the running task: an object to compare by identity."""
        self.cancels_of = cancels_of
        """Gives, for a task, what says how many cancellations of the loop's own kind it was sent and has not taken back."""
        self.call_soon_from_thread = call_soon_from_thread
        """Has the loop call something soon; to be called from any other thread, and never waits for it."""
        self.call_later = call_later
        """Has the loop call something after some seconds of its own time; forgotten if the loop ends before."""
        self.spawn = spawn
        """Starts a task that belongs to no task group, in a context, and gives what cancels it.

        It begins when the code that starts it has waited for something, and must not raise.
        """
        self.stir: Callable[[], Awaitable[None]] | None = None
        """Lets others go first, as often as it likes; for tests that try many orders."""
        self.tie: Callable[[], float] | None = None
        """Decides who comes first of timers that are due together; for the same tests."""

    def is_running_here(self) -> bool:
        """Say whether the code that asks runs in this loop."""
        return self._running() is self._native


def current_loop() -> Loop:
    """Give the native parts of the loop that runs here; raise as anyio does if there is none."""
    token = current_token()
    native: Any = token.native_token
    if hasattr(native, "run_sync_soon"):
        lowlevel: Any = import_module("trio").lowlevel
        return Loop(
            token,
            _trio_one_shot(),
            lowlevel.current_task,
            lambda _task: int,  # There are none: its tasks are cancelled by scopes only.
            native.run_sync_soon,
            _trio_call_later,
            _running_trio,
            _trio_spawn(),
        )
    asyncio: Any = import_module("asyncio")
    return Loop(
        token,
        _asyncio_one_shot(),
        asyncio.current_task,
        attrgetter("cancelling"),
        native.call_soon_threadsafe,
        native.call_later,
        asyncio._get_running_loop,  # noqa: SLF001 - the one way to ask that does not raise
        _asyncio_spawn(),
    )


def runs_a_loop_here() -> bool:
    """Say whether an event loop, of whichever kind, runs in this thread."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    # The one way to ask asyncio that does not raise.
    is_asyncio = asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
    return is_asyncio or (trio is not None and trio.lowlevel.in_trio_run())


def _running_trio() -> object:
    lowlevel: Any = import_module("trio").lowlevel
    return lowlevel.current_trio_token() if lowlevel.in_trio_run() else None


def _trio_call_later(seconds: float, call: Callable[[], object]) -> None:
    async def wait_and_call() -> None:
        await sleep(seconds)
        call()

    import_module("trio").lowlevel.spawn_system_task(wait_and_call)


@cache
def _trio_spawn() -> Callable[[Callable[[], Coroutine[Any, Any, None]], Context], Callable[[], object]]:
    trio: Any = import_module("trio")
    spawn_system_task: Callable[..., object] = trio.lowlevel.spawn_system_task

    def spawn(main: Callable[[], Coroutine[Any, Any, None]], context: Context) -> Callable[[], object]:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await main()

        # A copy: trio enters the context to begin the task, which may be started by another one that runs in it.
        spawn_system_task(run, context=context.copy())
        return scope.cancel  # type: ignore[no-any-return]

    return spawn


@cache
def _asyncio_spawn() -> Callable[[Callable[[], Coroutine[Any, Any, None]], Context], Callable[[], object]]:
    asyncio: Any = import_module("asyncio")
    tasks: set[Any] = set()

    def spawn(main: Callable[[], Coroutine[Any, Any, None]], context: Context) -> Callable[[], object]:
        # Not ``create_task``: where tasks are begun eagerly, that would run the task at once.
        task = asyncio.Task(main(), loop=asyncio.get_running_loop(), context=context)
        # asyncio itself keeps no task alive.
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task.cancel  # type: ignore[no-any-return]

    return spawn


def seed_turns(seed: int) -> Callable[[], None]:
    """Make the order in which trio runs tasks depend on ``seed``, until what is given back is called.

    asyncio needs none of this: it runs tasks in the order in which they were woken. trio's order is random on purpose;
    hypothesis seeds it in the same way.
    """
    run: Any = sys.modules.get("trio._core._run")
    if run is None:
        return lambda: None
    turns, was_sorted = run._r.getstate(), run._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001 - as hypothesis does
    run._r.seed(seed)  # noqa: SLF001
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001

    def restore() -> None:
        run._r.setstate(turns)  # noqa: SLF001
        run._ALLOW_DETERMINISTIC_SCHEDULING = was_sorted  # noqa: SLF001

    return restore


@cache
def _asyncio_one_shot() -> type[OneShot[Any]]:
    get_running_loop: Callable[[], Any] = import_module("asyncio").get_running_loop

    class AsyncioOneShot(OneShot[T]):
        __slots__ = ()

        @override
        def _wake(self) -> None:
            # A cancelled waiter's future is done already.
            if not self._waiter.done():
                self._waiter.set_result(None)

        @override
        def _sleep(self) -> Iterator[Any]:
            self._waiter = get_running_loop().create_future()
            return iter(self._waiter)

    return AsyncioOneShot


@cache
def _trio_one_shot() -> type[OneShot[Any]]:
    lowlevel: Any = import_module("trio").lowlevel
    reschedule: Callable[[object], None] = lowlevel.reschedule

    class TrioOneShot(OneShot[T]):
        __slots__ = ()

        @override
        def _wake(self) -> None:
            task, self._waiter = self._waiter, None
            reschedule(task)

        def _leave(self, _raise_cancel: object) -> object:
            self._waiter = None
            return lowlevel.Abort.SUCCEEDED

        @override
        def _sleep(self) -> Iterator[Any]:
            self._waiter = lowlevel.current_task()
            steps: Iterator[Any] = lowlevel.wait_task_rescheduled(self._leave).__await__()
            return steps

    return TrioOneShot
