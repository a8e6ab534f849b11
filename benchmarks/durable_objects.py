"""The same rooms here and as Durable Objects, in workerd.

A handler's end is durable on both sides where it says so: workerd's ``storage.sync()`` and this library's both wait for
the disk. workerd runs JavaScript in a process of its own, and is asked from inside it, with no network in between.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from os import getpid
from pathlib import Path
from time import perf_counter, time

from attrs import evolve

from benchmarks.alarms import ring_all
from benchmarks.engine import MICRO, calls
from benchmarks.measure import Sample, in_fresh_process, question, run_on
from benchmarks.workerd import Workerd, measured, resident_bytes
from partyroom import Room, RoomHandle, Runtime
from partyroom.backends.file import FileBackend

POSIX_ASYNCIO = () if sys.platform == "win32" else ("asyncio",)


class Box(Room):
    """A room that does what ``worker.js`` does."""

    async def nothing(self) -> None:
        """Do nothing."""

    async def write(self) -> None:
        """Store a small value."""
        await self.ctx.storage.put("key", f"value {self.ctx.id}")

    async def read(self) -> str:
        """Read it."""
        value: str = await self.ctx.storage.get("key")
        return value

    async def write_durably(self, count: int) -> None:
        """Store a value and wait until it is safe, again and again."""
        for number in range(count):
            await self.ctx.storage.put("key", f"a small value that is not the same twice: {number}")
            await self.ctx.storage.sync()

    async def call_often(self, other: str, count: int) -> None:
        """Call another room, again and again."""
        box = self.ctx.parties["box"].get(other)
        for _ in range(count):
            await box.call(Box.nothing)


async def in_one_room(path: Path, count: int, body: Callable[[RoomHandle, int], Awaitable[object]]) -> float:
    """Give the seconds for so many steps in one warm room."""
    async with Runtime({"box": Box}, backend=FileBackend(path)) as runtime:
        room = runtime.parties["box"].get("a")
        await body(room, 1)
        begin = perf_counter()
        await body(room, count)
        return perf_counter() - begin


async def in_each_room(path: Path, count: int, method: Callable[[Box], Awaitable[object]]) -> float:
    """Give the seconds for a call to each of so many sleeping rooms, one after another."""
    async with Runtime({"box": Box}, backend=FileBackend(path)) as runtime:
        handles = [runtime.parties["box"].get(str(number)) for number in range(count)]
        return await calls(handles, method, count, 1)


def steps(verb: str, count: int) -> Callable[[str, Path], float]:
    """Measure the time of one of so many steps in one object, after a warm-up."""

    def measure(program: str, folder: Path) -> float:
        with Workerd(program, folder) as workerd:
            workerd.seconds(verb, min(count, 100))
            return workerd.seconds(verb, count) / count * MICRO

    return measure


def compare_steps(loop: str, count: int, verb: str, body: Callable[[RoomHandle, int], Awaitable[object]]) -> Sample:
    """Measure steps in one room beside the same in one object."""
    with tempfile.TemporaryDirectory() as name:
        ours = run_on(loop, partial(in_one_room, Path(name) / "ours.db", count, body))
    return measured(ours / count * MICRO, steps(verb, count))


@question(
    "room-to-room",
    "a call from one warm room to another, against workerd",
    "workerd: from one object to another",
    at_least=1,
    aim=0.3,
)
def _room_to_room(loop: str, quick: bool) -> Sample:
    async def body(room: RoomHandle, count: int) -> None:
        await room.call(Box.call_often, "b", count)

    return compare_steps(loop, 20 if quick else 5_000, "call", body)


@question(
    "put-durable",
    "one room: put, then wait until it is durable, against workerd",
    "workerd: the same",
    at_least=1,
    aim=0.8,
)
def _put_durable(loop: str, quick: bool) -> Sample:
    async def body(room: RoomHandle, count: int) -> None:
        await room.call(Box.write_durably, count)

    return compare_steps(loop, 5 if quick else 1_000, "sync", body)


@question(
    "wake-disk",
    "waking a room on disk and reading one key, against workerd",
    "workerd: the same",
    at_least=0.3,
    aim=0.1,
)
def _wake_disk(loop: str, quick: bool) -> Sample:
    count = 5 if quick else 500

    def measure(program: str, folder: Path) -> float:
        with Workerd(program, folder) as workerd:
            workerd.each("write", count)
        with Workerd(program, folder) as workerd:
            return workerd.each("read", count) / count * MICRO

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ours.db"
        run_on(loop, partial(in_each_room, path, count, Box.write))
        ours = run_on(loop, partial(in_each_room, path, count, Box.read))
    return measured(ours / count * MICRO, measure)


@question(
    "alarms-workerd",
    "1,000 asleep on disk, due at one instant, against workerd: alarms/s",
    "workerd: as many objects, asleep",
    unit="/s",
    at_least=3,
    aim=10,
)
def _alarms(loop: str, quick: bool) -> Sample:
    count = 10 if quick else 1_000
    awake: dict[str, float] = {}

    def arm(workerd: Workerd, lead: float) -> float:
        due = time() + workerd.each("write", count) * 3 + lead
        workerd.each("arm", count, int(due * 1000))
        return due

    def measure(program: str, folder: Path) -> float:
        with Workerd(program, folder) as workerd:
            awake["workerd, awake"] = count / workerd.ring_all(count, arm(workerd, 0.5))
            # The objects must be stored, and workerd started anew, before their time comes.
            due = arm(workerd, 1 if quick else 4)
        with Workerd(program, folder) as workerd:
            return count / workerd.ring_all(count, due)

    with tempfile.TemporaryDirectory() as name:
        dues = [datetime.now(UTC) - timedelta(seconds=1)] * count
        ours = run_on(loop, partial(ring_all, FileBackend(Path(name) / "ours.db"), dues))
    return evolve(measured(count / ours, measure), rivals=awake)


def awake_bytes(path: Path, count: int) -> float:
    """Give the memory of an awake room with one key, as the system counts it."""

    async def main() -> float:
        async with Runtime({"box": Box}, backend=FileBackend(path), idle_timeout=timedelta(hours=1)) as runtime:
            handles = [runtime.parties["box"].get(str(number)) for number in range(count)]
            await calls(handles[:100], Box.write, 100, 100)
            before = resident_bytes(getpid())
            await calls(handles[100:], Box.write, count - 100, 100)
            return (resident_bytes(getpid()) - before) / (count - 100)

    return run_on("asyncio", main)


@question(
    "awake-room-key",
    "memory of an awake room with one key, against workerd",
    "workerd: of an object; both as the system counts it",
    unit="bytes",
    at_least=1 / 50,
    aim=1 / 100,
    loops=POSIX_ASYNCIO,
)
def _awake(loop: str, quick: bool) -> Sample:
    del loop
    count = 200 if quick else 10_000
    objects = 5 if quick else 500

    def measure(program: str, folder: Path) -> float:
        with Workerd(program, folder) as workerd:
            workerd.each("write", 10)
            before = workerd.resident()
            workerd.each("write", 10 + objects)
            return (workerd.resident() - before) / objects

    with tempfile.TemporaryDirectory() as name:
        ours = in_fresh_process(awake_bytes, Path(name) / "ours.db", count)
    return measured(ours, measure)
