"""What tests of storage and alarms share: a room that does as it is told, and the stores that it is tested on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom import Alarm, Room, RoomHandle, Storage, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import Harness
from partyroom.testing.backend_wrapper import BackendWrapper, Call

P = ParamSpec("P")
T = TypeVar("T")

Step: TypeAlias = Callable[[Storage], Awaitable[Any]]
"""Something that is done to a room's storage."""

STORES = ("memory", "file", "patient")


class PatientBackend(BackendWrapper):
    """Suspends in every call, before and after it has done something: what could go on meanwhile, does."""

    @override
    async def around(self, _call: Call, proceed: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await checkpoint()
        try:
            return await proceed(*args, **kwargs)
        finally:
            await checkpoint()


def make_store(name: str, folder: Path) -> StorageBackend:
    if name == "file":
        return FileBackend(folder / "rooms.db")
    return MemoryBackend() if name == "memory" else PatientBackend(MemoryBackend())


class Box(Room):
    """Does what a test hands it."""

    async def on_alarm(self, alarm: Alarm) -> None:
        """Take any alarm."""


def by(*steps: Step) -> Callable[[Room], Awaitable[list[Any]]]:
    """Make of some steps one event that gives their results."""

    async def run(room: Room) -> list[Any]:
        return [await step(room.ctx.storage) for step in steps]

    return run


async def do(box: RoomHandle, *steps: Step) -> list[Any]:
    """Take some steps in one event, and give their results."""
    return await box.call(by(*steps))


def put(**values: object) -> Step:
    return lambda storage: storage.put_many(values)


async def nothing(_room: Room) -> None:
    """Be an event in which nothing happens."""


@asynccontextmanager
async def undone(storage: Storage) -> AsyncGenerator[None]:
    """Undo what is done in the block, as a transaction that raises."""
    with pytest.raises(LookupError):
        async with storage.transaction():
            yield
            raise LookupError


async def undo(storage: Storage, *steps: Step) -> None:
    """Take some steps that are undone."""
    async with undone(storage):
        for step in steps:
            await step(storage)


async def everywhere(
    harness: Harness, box: RoomHandle, write: Callable[[Any], Awaitable[object]], read: Callable[[Any], Awaitable[T]]
) -> list[T]:
    """Write, and give what is read in the same event, in the next one, after a sleep, and after a restart."""

    async def both(room: Box) -> T:
        await write(room)
        return await read(room)

    found = [await box.call(both), await box.call(read)]
    await harness.put_to_sleep(box)
    found.append(await box.call(read))
    await harness.restart()
    found.append(await box.call(read))
    return found
