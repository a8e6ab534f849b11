"""What a user would write instead: plain asyncio, and sqlite3 in a thread.

A lock for each room, a commit for each event, a loop that looks for due alarms: about forty lines, that promise of all that
the library does no more than "one at a time" and "durable before it is answered". Both stores write with a write-ahead log
and a sync of the disk for each commit; by hand nothing groups them.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter, time
from typing import Any

from benchmarks.alarms import ring_all
from benchmarks.engine import calls
from benchmarks.measure import Sample, installed, question, run_on
from benchmarks.rivals import overdue
from benchmarks.storage import VALUE, Writer, handles
from partyroom import Runtime
from partyroom.backends.file import FileBackend

SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE entries (room TEXT, key TEXT, value TEXT, PRIMARY KEY (room, key)) WITHOUT ROWID;
    CREATE TABLE alarms (due REAL, room TEXT, PRIMARY KEY (due, room)) WITHOUT ROWID;
"""
PUT = "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
DUE = "SELECT due, room FROM alarms WHERE due <= ? ORDER BY due LIMIT 100"
DELETE = "DELETE FROM alarms WHERE due = ? AND room = ?"

Write = Callable[[str, str], Awaitable[object]]
"""Stores a value for a room, and returns when it is durable."""


class Rooms:
    """Rooms by hand: their locks, and one thread that writes."""

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread
        self._locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self.rung = 0

    async def write(self, room: str, value: str) -> None:
        """Store a value, one event of the room at a time."""
        async with self._locks[room]:
            await self._run(PUT, room, "key", value)

    async def ring(self) -> None:
        """Ring all alarms that are due: each goes away in a commit of its own, once its handler has run."""
        while due := await self._run(DUE, time()):
            for when, room in due:
                async with self._locks[room]:
                    self.rung += 1
                    await self._run(DELETE, when, room)

    async def _run(self, statement: str, *values: object) -> list[Any]:
        """Run a statement in the thread; each is a transaction of its own."""
        run = partial(self._database.execute, statement, values)
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: run().fetchall())


async def write_often(write: Write, rooms: int, callers: int, count: int) -> float:
    """Give the seconds for so many writes, by so many callers at once."""

    async def call(first: int) -> None:
        for number in range(first, count, callers):
            await write(str(number % rooms), f"{VALUE}{number}")

    begin = perf_counter()
    await asyncio.gather(*(call(first) for first in range(callers)))
    return perf_counter() - begin


def with_rooms(path: Path, body: Callable[[Rooms], Awaitable[float]], alarms: int = 0) -> float:
    """Do something with rooms by hand, so many alarms of which are overdue."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as database:
        database.executescript(SCHEMA)
        database.execute("BEGIN")
        database.executemany("INSERT INTO alarms VALUES (1, ?)", [(str(number),) for number in range(alarms)])
        database.execute("COMMIT")
        with ThreadPoolExecutor(1) as thread:

            async def main() -> float:
                return await body(Rooms(database, thread))

            return run_on("asyncio", main)


async def with_aiosqlite(path: Path, rooms: int, callers: int, count: int) -> float:
    """Do the same writes through aiosqlite, whose one connection knows one transaction at a time."""
    async with AsyncExitStack() as stack:
        database: Any = await stack.enter_async_context(import_module("aiosqlite").connect(path))
        await database.executescript(SCHEMA)
        lock = asyncio.Lock()

        async def write(room: str, value: str) -> None:
            async with lock:
                await database.execute(PUT, (room, "key", value))
                await database.commit()

        return await write_often(write, rooms, callers, count)


def compare(rooms: int, callers: int, count: int, by_hand: int) -> Sample:
    """Measure durable events beside the same by hand, and through aiosqlite."""

    async def ours(path: Path) -> float:
        async with Runtime({"writer": Writer}, backend=FileBackend(path)) as runtime:
            return await calls(handles(runtime, rooms), Writer.write, count, callers)

    async def theirs(found: Rooms) -> float:
        return await write_often(found.write, rooms, callers, by_hand)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rate = count / run_on("asyncio", partial(ours, folder / "ours.db"))
        beside = by_hand / with_rooms(folder / "theirs.db", theirs)
        rivals: dict[str, float] = {}
        if installed("aiosqlite"):
            taken = run_on("asyncio", partial(with_aiosqlite, folder / "aiosqlite.db", rooms, callers, by_hand))
            rivals["aiosqlite"] = by_hand / taken
    return Sample(rate, beside, rivals)


BY_HAND = "asyncio and sqlite3 by hand: a commit for each event, in a thread"


@question(
    "by-hand-one-caller",
    "durable events/s, one room, one caller, against what one would write by hand",
    BY_HAND,
    unit="/s",
    loops=("asyncio",),
)
def _one_caller(loop: str, quick: bool) -> Sample:
    del loop
    count = 10 if quick else 1_000
    return compare(1, 1, count, count)


@question(
    "by-hand-1000-rooms",
    "durable events/s, 1,000 rooms at once, against what one would write by hand",
    BY_HAND,
    unit="/s",
    loops=("asyncio",),
)
def _many_rooms(loop: str, quick: bool) -> Sample:
    del loop
    return compare(10, 10, 50, 20) if quick else compare(1_000, 1_000, 20_000, 2_000)


@question(
    "by-hand-alarms",
    "due at one instant, durable, against what one would write by hand: alarms/s",
    "asyncio and sqlite3 by hand: a loop that looks for due rows, a commit for each",
    unit="/s",
    loops=("asyncio",),
)
def _alarms(loop: str, quick: bool) -> Sample:
    count = 10 if quick else 1_000

    async def ring(rooms: Rooms) -> float:
        begin = perf_counter()
        await rooms.ring()
        assert rooms.rung == count
        return perf_counter() - begin

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = run_on(loop, partial(ring_all, FileBackend(folder / "ours.db"), overdue(count)))
        theirs = with_rooms(folder / "theirs.db", ring, count)
    return Sample(count / ours, count / theirs)
