"""What waits costs: pending alarms, and connections of rooms that sleep."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import cache
from os import getpid
from pathlib import Path

from benchmarks.alarms import Sleeper, arm
from benchmarks.engine import Plain, resident
from benchmarks.measure import Sample, in_fresh_process, question, run_on
from benchmarks.workerd import resident_bytes
from partyroom import Client, RoomHandle, Runtime
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FakeClock

MEGA = 1_000_000


@cache
def armed_file(count: int) -> Path:
    """Give a file with so many pending alarms, one a room, made once for all runs: it takes a minute."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    begin = datetime.now(UTC) + timedelta(days=30)
    # No two at the same time, nor in the order of the rooms.
    dues = [begin + timedelta(microseconds=number * 7919 % 1_000_003) for number in range(count)]
    path = folder / "alarms.db"
    run_on("asyncio", lambda: arm(FileBackend(path, durability="normal"), dues))
    return path


def opened_bytes(path: Path) -> float:
    """Give what the process uses once a runtime has opened a file and has looked for its next alarm."""

    async def main() -> float:
        async with Runtime({"sleeper": Sleeper}, backend=FileBackend(path)) as runtime:
            await runtime.parties["sleeper"].get("awake").call(Sleeper.put)
            await runtime.next_alarm()
            await runtime.wait_idle()
            return resident_bytes(getpid())

    return run_on("asyncio", main)


@question(
    "alarms-pending",
    "memory with 1,000,000 pending alarms, more than with none",
    unit="MB",
    at_least=30,
    aim=5,
    loops=() if sys.platform == "win32" else ("asyncio",),
)
def _pending(loop: str, quick: bool) -> Sample:
    del loop
    path = armed_file(100 if quick else 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        none = Path(name) / "none.db"
        # A process takes a second to begin.
        found = [opened_bytes(each) if quick else in_fresh_process(opened_bytes, each) for each in (none, path)]
    return Sample((found[1] - found[0]) / MEGA)


@question(
    "idle-connections",
    "memory of each of 10,000 idle connections, their 1,000 rooms asleep",
    unit="bytes",
    at_least=4096,
    aim=2048,
    loops=("asyncio", "trio"),
)
def _connections(loop: str, quick: bool) -> Sample:
    rooms, each = (5, 10) if quick else (1_000, 10)

    async def main() -> Sample:
        clock = FakeClock()
        async with Runtime({"plain": Plain}, backend=MemoryBackend(), clock=clock) as runtime:
            handles = [runtime.parties["plain"].get(str(number)) for number in range(rooms)]
            warm = handles[0].connect()
            await warm.__aenter__()
            tracemalloc.start()
            before = resident()
            # What enters a connection is part of its cost: a host has one for each as well.
            entered: list[AbstractAsyncContextManager[Client]] = []
            for connecting in connections(handles, each):
                await connecting.__aenter__()
                entered.append(connecting)
            await clock.advance(timedelta(hours=1))
            assert not runtime.statistics().awake
            after = resident()
            tracemalloc.stop()
            for connecting in [warm, *entered]:
                await connecting.__aexit__(None, None, None)
        return Sample((after - before) / (rooms * each))

    return run_on(loop, main)


def connections(handles: list[RoomHandle], each: int) -> Iterator[AbstractAsyncContextManager[Client]]:
    """Give so many connections for each room, not entered yet."""
    for room in handles:
        for _ in range(each):
            yield room.connect()
