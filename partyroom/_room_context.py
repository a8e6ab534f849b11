"""What a room is given as ``self.ctx``.

Owns nothing: it is the room's face towards its author, and hands everything on.

Promises that identity and the way to other parties work in every callback (G7),
and that what needs an event says so when there is none (G6a).

Must never be seen with anything on it that an author could not use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import NoReturn, ParamSpec, Protocol, TypeVar, final

from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup as AnyioTaskGroup
from typing_extensions import override

from partyroom._calls import perform
from partyroom._core.functions import check_function
from partyroom._core.units import unit_of
from partyroom._inbox import message_size
from partyroom._native import OneShot
from partyroom._room_alarms import StorageOwner
from partyroom._room_clock import CountedClock
from partyroom._room_storage import RoomStorage
from partyroom._services import Services
from partyroom._work import HOLDER, Holder
from partyroom.connections import Connections, RoomConnection, check_message
from partyroom.protocols import Connection, Party, RoomClock, RoomContext, TaskGroup

__all__ = ["Context"]

P = ParamSpec("P")
T = TypeVar("T")


class ContextRoom(StorageOwner, Protocol):
    """A room as its context sees it."""

    connections: Connections

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...], /) -> None:
        """Start a background task."""
        ...

    def abort(self, reason: str, /) -> Exception:
        """Throw the instance away; give what is to be raised where that is asked for."""
        ...

    def check_is_awake(self) -> None:
        """Refuse what is asked by code of an instance that has left memory."""
        ...


@final
class Context(RoomContext):
    """One room's context."""

    __slots__ = ("_clock", "_room", "_storage")

    def __init__(self, room: ContextRoom) -> None:
        self._room = room
        self._storage = RoomStorage(room)
        self._clock: RoomClock | None = None

    @override
    def __repr__(self) -> str:
        return f"<context of {self._room.key}>"

    @property
    @override
    def id(self) -> str:
        return self._room.key.id

    @property
    @override
    def party(self) -> str:
        return self._room.key.party

    @property
    @override
    def storage(self) -> RoomStorage:
        return self._storage

    @property
    @override
    def parties(self) -> Mapping[str, Party]:
        return self._room.services.keeper.parties

    @property
    @override
    def clock(self) -> RoomClock:
        if self._clock is None:
            self._clock = CountedClock(self._room.services.clock, self._room.key)
        return self._clock

    @override
    def get_connections(self, tag: str | None = None, /) -> Sequence[Connection]:
        return self._room.connections.select(tag)

    @override
    def get_connection(self, id: str, /) -> Connection | None:
        return self._room.connections.find(id)

    @override
    def broadcast(self, message: str | bytes, /, without: Collection[str | Connection] = ()) -> None:
        check_message(message)
        unit = unit_of(self._room, "a message was broadcast")
        unit.send(partial(_deliver, self._room.connections.others(without), message, message_size(message)))

    @override
    def start_soon(self, fn: Callable[..., Awaitable[object]], /, *args: object) -> None:
        self._room.start_soon(fn, args)

    @override
    def task_group(self) -> AbstractAsyncContextManager[TaskGroup]:
        return _counted_task_group(self._room.services)

    @override
    async def run(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        room = self._room
        room.check_is_awake()
        check_function(fn, "run")
        name = getattr(fn, "__qualname__", None) or repr(fn)
        result: T = await perform(room.services, room.key, "run", name, lambda _: fn(*args, **kwargs))
        return result

    @override
    def abort(self, reason: str = "", /) -> NoReturn:
        raise self._room.abort(reason)


def _deliver(connections: Sequence[RoomConnection], message: str | bytes, size: int) -> None:
    for connection in connections:
        connection.deliver(message, size)


@final
class _Branches(TaskGroup):
    """Counts the branches of one ``ctx.task_group()``: each holds a token of its own."""

    __slots__ = ("_ended", "_group", "_running", "_services")

    def __init__(self, services: Services, group: AnyioTaskGroup) -> None:
        self._services = services
        self._group = group
        self._running = 0
        self._ended: OneShot[None] | None = None

    @override
    def start_soon(self, fn: Callable[..., Awaitable[object]], /, *args: object) -> None:
        check_function(fn, "start_soon")
        self._begin()
        try:
            self._group.start_soon(self._run, fn, args)
        except BaseException:
            self._end()
            raise

    async def _run(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        HOLDER.set(Holder(self._services.loop.current_task(), self._services.work))
        try:
            await fn(*args)
        finally:
            self._end()

    def _begin(self) -> None:
        self._running += 1
        self._services.work.take()

    def _end(self) -> None:
        self._running -= 1
        if not self._running and self._ended is not None:
            self._ended.set(None)
        self._services.work.give()

    async def ended(self) -> None:
        """Wait for all branches, with this task's own token given back meanwhile."""
        while self._running:
            self._ended = self._services.loop.one_shot()
            await self._services.work.wait(self._ended)


@asynccontextmanager
async def _counted_task_group(services: Services) -> AsyncGenerator[TaskGroup]:
    async with create_task_group() as group:
        branches = _Branches(services, group)
        try:
            yield branches
            await branches.ended()
        except BaseException:
            # The group would wait for its branches as well, but not counted: one that is shielded may sleep on the clock.
            group.cancel_scope.cancel()
            with CancelScope(shield=True):
                await branches.ended()
            raise
