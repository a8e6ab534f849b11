"""What tests of the engine share: rooms on either kind of backend, callers in tasks of their own, and a room that runs anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, ParamSpec, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom import Room, RoomKey, Runtime, StorageBackend
from partyroom._room_runner import RoomRunner
from partyroom._services import RoomFactory
from partyroom.protocols import RoomHandle
from partyroom.testing.backend_wrapper import BackendWrapper, Call

__all__ = [
    "Box",
    "Caller",
    "SuspendingBackend",
    "arrive",
    "awake",
    "get",
    "nothing",
    "outcomes",
    "put",
    "running",
    "until",
]

P = ParamSpec("P")
T = TypeVar("T")


class SuspendingBackend(BackendWrapper):
    """A backend whose every call lets others go first."""

    @override
    async def around(self, _call: Call, proceed: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await checkpoint()
        return await proceed(*args, **kwargs)


class Box(Room):
    """A room without any behaviour of its own: tests have it run functions."""


async def nothing(room: Room) -> None:
    """Do nothing, as an event."""


async def put(room: Room, key: str, value: object) -> None:
    """Store a value, as an event."""
    await room.ctx.storage.put(key, value)


async def get(room: Room, key: str) -> Any:
    """Read a value, as an event."""
    return await room.ctx.storage.get(key)


@asynccontextmanager
async def running(
    parties: Mapping[str, RoomFactory], backend: StorageBackend, **options: Any
) -> AsyncGenerator[Runtime]:
    """Open a runtime, and see that nothing is left in flight when the body has ended."""
    async with Runtime(parties, backend=backend, **options) as runtime:
        yield runtime
        await runtime.wait_idle()
        assert 0 == runtime.engine().work.count
        assert [] == runtime.describe_work()
        assert 0 == runtime.statistics().busy


def awake(runtime: Runtime, room: RoomHandle) -> RoomRunner:
    """Give a room that is awake, to look into."""
    found = runtime.engine().awake(RoomKey(room.party, room.id))
    assert found is not None
    return found


async def until(condition: Callable[[], object]) -> None:
    """Let others run until a condition holds; fail when they have had turns enough."""
    turns = 0
    while not condition():
        assert turns < 1000, f"this did not come true in 1,000 turns: {condition}"
        turns += 1
        await checkpoint()


class Caller(Generic[T]):
    """Somebody who calls in a task of his own, and may be cancelled."""

    def __init__(self, group: TaskGroup, fn: Callable[..., Awaitable[T]], *args: Any) -> None:
        self.scope = anyio.CancelScope()
        self.error: BaseException | None = None
        self._result: Any = None
        self._ended = anyio.Event()
        group.start_soon(self._run, fn, args)

    async def _run(self, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        try:
            with self.scope:
                self._result = await fn(*args)
        except Exception as error:
            self.error = error
        finally:
            self._ended.set()

    @property
    def has_ended(self) -> bool:
        """Whether the call has returned, raised, or was cancelled."""
        return self._ended.is_set()

    async def outcome(self) -> T | BaseException:
        """Wait for the end, and give the result or the error."""
        await self._ended.wait()
        return self._result if self.error is None else self.error

    async def leave(self) -> None:
        """Be cancelled, and wait for the end."""
        self.scope.cancel()
        await self._ended.wait()


async def arrive(
    group: TaskGroup, runtime: Runtime, room: RoomHandle, fn: Callable[..., Any], *args: Any
) -> Caller[Any]:
    """Have somebody call, and wait until the event is in the room: so that calls come in the order that a test wants."""

    def load() -> int:
        found = runtime.engine().awake(RoomKey(room.party, room.id))
        return 0 if found is None else len(found.unfinished()) + len(found.gate)

    before = load()
    caller: Caller[Any] = Caller(group, room.call, fn, *args)
    await until(lambda: load() > before or caller.has_ended)
    return caller


async def outcomes(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Have all calls made at once, and give their results and errors, in order."""
    async with anyio.create_task_group() as group:
        callers: list[Caller[Any]] = [Caller(group, call) for call in calls]
    return [await caller.outcome() for caller in callers]
