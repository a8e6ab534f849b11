"""How near the file backend comes to SQLite by hand, and what a busy loop costs it."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

import anyio

from benchmarks.engine import MICRO, calls
from benchmarks.limits import open_raw, raw_groups
from benchmarks.measure import Sample, question, run_on
from partyroom import JsonCodec, Room, Runtime, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend

VALUE = "a small value that is not the same twice: "


class Writer(Room):
    """A room that stores one small value for each event."""

    serial = 0

    async def write(self) -> None:
        """Store something new: SQLite skips a page whose bytes do not change."""
        Writer.serial += 1
        await self.ctx.storage.put("key", f"{VALUE}{Writer.serial}")

    async def compute_and_write(self) -> None:
        """Keep the loop busy for a millisecond, then store something."""
        until = perf_counter() + 0.001
        while perf_counter() < until:
            pass
        await self.write()

    async def read(self) -> str:
        """Read one value."""
        value: str = await self.ctx.storage.get("key")
        return value

    async def read_often(self, count: int) -> float:
        """Read a value again and again; give the seconds."""
        storage = self.ctx.storage
        await storage.get("key")
        begin = perf_counter()
        for _ in range(count):
            await storage.get("key")
        return perf_counter() - begin


async def events(
    backend: StorageBackend,
    rooms: int,
    callers: int,
    count: int,
    method: Callable[..., Awaitable[object]] = Writer.write,
) -> float:
    """Give the seconds for so many durable events."""
    async with Runtime({"writer": Writer}, backend=backend) as runtime:
        handles = [runtime.parties["writer"].get(str(number)) for number in range(rooms)]
        await calls(handles, Writer.write, rooms, min(callers, rooms))
        return await calls(handles, method, count, callers)


def raw_rate(folder: Path, count: int, group: int) -> float:
    """Give the rows a second that SQLite by hand writes, in groups."""
    database = open_raw(folder / "raw.db")
    raw_groups(database, [(number % 1000, "key", f"{VALUE}before".encode()) for number in range(1000)], 1000)
    rows = [(number % 1000, "key", f"{VALUE}{number}".encode()) for number in range(count)]
    taken = raw_groups(database, rows, group)
    database.close()
    return count / taken


def raw_hop_rate(folder: Path, count: int) -> float:
    """Give the rows a second that SQLite by hand writes one by one, each from another thread and back."""
    database = open_raw(folder / "raw.db")
    inbox, outbox = SimpleQueue[int | None](), SimpleQueue[None]()

    def write() -> None:
        while (number := inbox.get()) is not None:
            raw_groups(database, [(1, "key", f"{VALUE}{number}".encode())], 1)
            outbox.put(None)

    thread = Thread(target=write)
    thread.start()
    begin = perf_counter()
    for number in range(count):
        inbox.put(number)
        outbox.get()
    taken = perf_counter() - begin
    inbox.put(None)
    thread.join()
    database.close()
    return count / taken


def compare(loop: str, rooms: int, callers: int, count: int, limit: Callable[[Path], float]) -> Sample:
    """Measure durable events a second beside a limit; without the sync, and in memory, as well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rate = count / run_on(loop, partial(events, FileBackend(folder / "ours.db"), rooms, callers, count))
        beside = limit(folder)
        lazy = FileBackend(folder / "lazy.db", durability="normal")
        rivals = {
            'durability="normal"': count / run_on(loop, partial(events, lazy, rooms, callers, count)),
            "in memory": count / run_on(loop, partial(events, MemoryBackend(), rooms, callers, count)),
        }
    return Sample(rate, beside, rivals)


@question(
    "durable-1000-rooms",
    "durable events/s, 1,000 rooms at once, one small put each",
    "raw sqlite3 in one thread, groups of 1,000",
    unit="/s",
    at_least=0.6,
    aim=0.85,
)
def _many_rooms(loop: str, quick: bool) -> Sample:
    count = 2_000 if quick else 50_000
    return compare(loop, 1000, 1000, count, lambda folder: raw_rate(folder, count, 1000))


@question(
    "durable-one-caller",
    "durable events/s, one room, one caller after another",
    "raw sqlite3, one row a transaction, one thread hop",
    unit="/s",
    at_least=0.6,
    aim=0.85,
)
def _one_caller(loop: str, quick: bool) -> Sample:
    count = 100 if quick else 3_000
    return compare(loop, 1, 1, count, lambda folder: raw_hop_rate(folder, count))


@question(
    "durable-100-callers",
    "durable events/s, one room, 100 callers at once",
    "raw sqlite3, one row a transaction, one thread hop",
    unit="/s",
    at_least=5,
    aim=10,
)
def _many_callers(loop: str, quick: bool) -> Sample:
    count = 500 if quick else 20_000
    return compare(loop, 1, 100, count, lambda folder: raw_hop_rate(folder, 100 if quick else 3_000))


async def latencies(backend: StorageBackend, rooms: int, count: int) -> tuple[float, float]:
    """Give the rate, and the 99th percentile of the seconds from the end of a handler's computing to its reply."""
    found: list[float] = []
    async with Runtime({"writer": Writer}, backend=backend) as runtime:
        handles = [runtime.parties["writer"].get(str(number)) for number in range(rooms)]
        await calls(handles, Writer.write, rooms, rooms)

        async def call(number: int) -> None:
            for _ in range(count // rooms):
                begin = perf_counter()
                await handles[number].call(Writer.write)
                found.append(perf_counter() - begin)

        async def compute(done: anyio.Event) -> None:
            while not done.is_set():
                until = perf_counter() + 0.001
                while perf_counter() < until:
                    pass
                await anyio.sleep(0.0001)

        done = anyio.Event()
        taken = 0.0
        async with anyio.create_task_group() as busy:
            busy.start_soon(compute, done)
            begin = perf_counter()
            async with anyio.create_task_group() as group:
                for number in range(rooms):
                    group.start_soon(call, number)
            taken = perf_counter() - begin
            done.set()
    return len(found) / taken, sorted(found)[len(found) * 99 // 100]


@question(
    "durable-busy-loop",
    "durable events/s, 100 callers in 100 rooms, while the loop computes 1 ms at a time",
    "the same on an idle loop",
    unit="/s",
    at_least=0.1,
    aim=0.2,
)
def _busy(loop: str, quick: bool) -> Sample:
    count = 500 if quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        idle = count / run_on(loop, partial(events, FileBackend(Path(name) / "idle.db"), 100, 100, count))
        rate, p99 = run_on(loop, partial(latencies, FileBackend(Path(name) / "busy.db"), 100, count))
    return Sample(rate, idle, {"p99 in ms": p99 * 1000})


@question("cached-get", "a cached get inside an event", "a dict look-up and the codec's decode", at_least=3, aim=2)
def _cached(loop: str, quick: bool) -> Sample:
    count = 1_000 if quick else 100_000

    async def main() -> Sample:
        async with Runtime({"writer": Writer}, backend=MemoryBackend()) as runtime:
            room = runtime.parties["writer"].get("1")
            await room.call(Writer.write)
            ours = await room.call(Writer.read_often, count)
        codec = JsonCodec()
        known = {"key": codec.encode(VALUE)}
        begin = perf_counter()
        for _ in range(count):
            codec.decode(known["key"])
        return Sample(ours / count * MICRO, (perf_counter() - begin) / count * MICRO)

    return run_on(loop, main)


def raw_reads(folder: Path, count: int) -> float:
    """Give the seconds for so many point reads of SQLite by hand, decoded."""
    database = open_raw(folder / "raw.db")
    codec = JsonCodec()
    raw_groups(database, [(number, "key", codec.encode(VALUE)) for number in range(count)], 1000)
    begin = perf_counter()
    for number in range(count):
        found = database.execute("SELECT value FROM entries WHERE room = ? AND key = ?", (number, "key")).fetchone()
        codec.decode(found[0])
    taken = perf_counter() - begin
    database.close()
    return taken


@question(
    "cold-wake",
    "waking 10,000 sleeping rooms on disk, each reading one key",
    "10,000 raw point reads",
    at_least=10,
    aim=4,
)
def _cold(loop: str, quick: bool) -> Sample:
    count = 200 if quick else 10_000

    async def read_all(backend: StorageBackend) -> float:
        async with Runtime({"writer": Writer}, backend=backend) as runtime:
            handles = [runtime.parties["writer"].get(str(number)) for number in range(count)]
            return await calls(handles, Writer.read, count, 100)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_on(loop, partial(events, FileBackend(folder / "ours.db"), count, 1000, 1))
        ours = run_on(loop, partial(read_all, FileBackend(folder / "ours.db")))
        return Sample(ours / count * MICRO, raw_reads(folder, count) / count * MICRO)
