"""How near the file backend comes to SQLite by hand, and what a busy loop costs it.

What is measured by hand is done on a file of the library's own tables, with the same sync of the disk; both take turns
where they write, for a disk is not as fast in one second as in the next.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter, process_time
from typing import Literal

import anyio
import attrs

from benchmarks.engine import MICRO, calls
from benchmarks.measure import Sample, apart, in_fresh_process, question, run_on
from partyroom import Alarm, AlarmRow, Commit, JsonCodec, Room, RoomHandle, RoomKey, Runtime, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend

if sys.platform == "linux":

    def peak_megabytes() -> dict[str, float]:
        """Give the most memory that this process has had in use, Python itself included.

        As the system counts it for the program: what ``getrusage`` counts begins with that of the one who started it.
        """
        status = Path("/proc/self/status").read_text(encoding="ascii")
        (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return {"peak in MB": int(peak) * 1024 / 1_000_000}

else:

    def peak_megabytes() -> dict[str, float]:
        """Say nothing: other systems count it in other ways."""
        return {}


VALUE = "a small value that is not the same twice: "
TURNS = 10
"""How often what is measured and what is measured beside it take turns."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Writer(Room):
    """A room that stores one small value for each event."""

    serial = 0

    async def write(self) -> None:
        """Store something new: SQLite skips a page whose bytes do not change."""
        Writer.serial += 1
        await self.ctx.storage.put("key", f"{VALUE}{Writer.serial}")

    async def write_each(self, keys: Sequence[str]) -> None:
        """Store a value under each of some keys."""
        await self.ctx.storage.put_many(dict.fromkeys(keys, VALUE))

    async def read(self) -> str:
        """Read one value."""
        value: str = await self.ctx.storage.get("key")
        return value

    async def read_each(self, keys: Sequence[str]) -> float:
        """Read each of some values once; give the seconds."""
        storage = self.ctx.storage
        begin = perf_counter()
        for key in keys:
            await storage.get(key)
        return perf_counter() - begin

    async def read_often(self, count: int) -> float:
        """Read a value again and again, from the second time on out of memory; give the processor's seconds."""
        storage = self.ctx.storage
        await storage.get("key")
        begin = process_time()
        for _ in range(count):
            await storage.get("key")
        return process_time() - begin

    async def on_alarm(self, alarm: Alarm) -> None:
        """Be there, so that alarms may be."""


# --- by hand -----------------------------------------------------------------


class ByHand:
    """A file that a runtime has made, written and read with nothing but the standard library's module."""

    PUT = """
        INSERT INTO entries (room, key, value) VALUES ((SELECT number FROM rooms WHERE party = ? AND id = ?), ?, ?)
            ON CONFLICT (room, key) DO UPDATE SET value = excluded.value
    """
    GET = "SELECT value FROM entries WHERE room = (SELECT number FROM rooms WHERE party = ? AND id = ?) AND key = ?"
    NEXT_ALARM = "SELECT party, id, name, due FROM alarms WHERE due IS NOT NULL ORDER BY due, party, id, name LIMIT 1"

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA fullfsync = ON")
        self._database.execute("PRAGMA wal_autocheckpoint = 16000")
        self.close = self._database.close
        self._serial = 0

    def write(self, rooms: int, count: int, group: int) -> float:
        """Write a new value into one room after another, so many in a transaction; give the seconds."""
        first, self._serial = self._serial, self._serial + count
        rows = [("writer", str(n % rooms), "key", f"{VALUE}by hand {n}".encode()) for n in range(first, self._serial)]
        begin = perf_counter()
        for start in range(0, count, group):
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(self.PUT, rows[start : start + group])
            self._database.execute("COMMIT")
        return perf_counter() - begin

    def read(self, rooms: Sequence[int], keys: Sequence[str]) -> float:
        """Read some values of each of some rooms, one by one, and decode them; give the seconds."""
        wanted = [("writer", str(number), key) for number in rooms for key in keys]
        decode = JsonCodec().decode
        begin = perf_counter()
        for row in wanted:
            decode(self._database.execute(self.GET, row).fetchone()[0])
        return perf_counter() - begin

    def next_alarm(self) -> object:
        """Look for the next alarm."""
        return self._database.execute(self.NEXT_ALARM).fetchone()


Turn = Callable[[int], float]
"""Does so many writes by hand, and gives the seconds."""


@contextmanager
def in_groups(path: Path, rooms: int) -> Generator[Turn]:
    """Write in this thread, a thousand rows in a transaction."""
    with closing(ByHand(path)) as by_hand:
        yield lambda count: by_hand.write(rooms, count, 1000)


@contextmanager
def with_a_hop(path: Path, rooms: int) -> Generator[Turn]:
    """Write in another thread, one row in a transaction, and hear of each before the next."""
    inbox, outbox = SimpleQueue[None](), SimpleQueue[None]()

    def write(by_hand: ByHand, count: int) -> None:
        for _ in range(count):
            inbox.get()
            by_hand.write(rooms, 1, 1)
            outbox.put(None)

    def turn(count: int) -> float:
        thread = Thread(target=write, args=(by_hand, count))
        thread.start()
        begin = perf_counter()
        for _ in range(count):
            inbox.put(None)
            outbox.get()
        taken = perf_counter() - begin
        thread.join()
        return taken

    with closing(ByHand(path)) as by_hand:
        yield turn


async def fill(backend: StorageBackend, rooms: int) -> None:
    """Have so many rooms store a value."""
    async with Runtime({"writer": Writer}, backend=backend) as runtime:
        await calls(handles(runtime, rooms), Writer.write, rooms, min(rooms, 1000))


def handles(runtime: Runtime, rooms: int) -> list[RoomHandle]:
    """Give the handles of so many rooms."""
    return [runtime.parties["writer"].get(str(number)) for number in range(rooms)]


# --- durable events ----------------------------------------------------------

LIMITS = {"in groups": in_groups, "with a hop": with_a_hop}


@attrs.frozen
class Load:
    """Who writes how much."""

    rooms: int
    callers: int
    count: int
    by_hand: int
    """How many of the writes are done by hand."""
    limit: Literal["in groups", "with a hop"]

    def run(self, loop: str, store: Literal["full", "normal", "memory"]) -> Sample:
        """Give the events a second on one kind of store; beside the file that is waited for, its limit."""
        with tempfile.TemporaryDirectory() as name:
            path, other = Path(name) / "ours.db", Path(name) / "theirs.db"
            backend = MemoryBackend() if store == "memory" else FileBackend(path, durability=store)
            if store != "full":
                ours, _ = run_on(loop, partial(self._take_turns, backend, None))
                return Sample(self.count / ours, None, peak_megabytes())
            run_on(loop, partial(fill, FileBackend(other), self.rooms))
            with LIMITS[self.limit](other, self.rooms) as turn:
                ours, theirs = run_on(loop, partial(self._take_turns, backend, turn))
            return Sample(self.count / ours, self.by_hand / theirs, peak_megabytes())

    async def _take_turns(self, backend: StorageBackend, by_hand: Turn | None) -> tuple[float, float]:
        """Give the seconds for all events, and those for what is done by hand in between."""
        ours = theirs = 0.0
        async with Runtime({"writer": Writer}, backend=backend) as runtime:
            rooms = handles(runtime, self.rooms)
            await calls(rooms, Writer.write, self.rooms, min(self.callers, self.rooms))
            for _ in range(TURNS):
                ours += await calls(rooms, Writer.write, self.count // TURNS, self.callers)
                theirs += by_hand(self.by_hand // TURNS) if by_hand else 0.0
        return ours, theirs

    def compare(self, loop: str, *, quick: bool) -> Sample:
        """Measure beside the limit; without waiting for the disk, and in memory, as well. Each in a process of its own."""
        # A process takes a second to begin.
        full, normal, memory = (
            self.run(loop, store) if quick else in_fresh_process(Load.run, self, loop, store)
            for store in ("full", "normal", "memory")
        )
        rivals = {'durability="normal"': normal.ours, "memory backend": memory.ours, **full.rivals}
        return Sample(full.ours, full.beside, rivals)


@question(
    "durable-1000-rooms",
    "durable events/s, 1,000 rooms at once, one small put each",
    "raw sqlite3 in one thread, same tables, groups of 1,000",
    unit="/s",
    at_least=0.6,
    aim=0.85,
)
def _many_rooms(loop: str, quick: bool) -> Sample:
    count, rooms = (200, 20) if quick else (20_000, 1_000)
    return Load(rooms, rooms, count, count, "in groups").compare(loop, quick=quick)


@question(
    "durable-one-caller",
    "durable events/s, one room, one caller after another",
    "raw sqlite3, same tables, one row a transaction, one thread hop",
    unit="/s",
    at_least=0.6,
    aim=0.85,
)
def _one_caller(loop: str, quick: bool) -> Sample:
    count = 20 if quick else 2_000
    return Load(1, 1, count, count, "with a hop").compare(loop, quick=quick)


@question(
    "durable-100-callers",
    "durable events/s, one room, 100 callers at once",
    "raw sqlite3, same tables, one row a transaction, one thread hop",
    unit="/s",
    at_least=5,
    aim=10,
)
def _many_callers(loop: str, quick: bool) -> Sample:
    return Load(1, 100, 200 if quick else 20_000, 20 if quick else 2_000, "with a hop").compare(loop, quick=quick)


# --- a busy loop -------------------------------------------------------------


async def compute(busy: float, idle: float, done: anyio.Event) -> None:
    """Keep the loop from everything else for so many seconds, let it go for so many, and again."""
    while not done.is_set():
        until = perf_counter() + busy
        while perf_counter() < until:
            pass
        await anyio.sleep(idle)


async def busy_and_idle(folder: Path, rooms: int, count: int) -> tuple[float, float, float]:
    """Give the events a second on an idle loop and on a busy one; and of the latter the 99th percentile of the seconds each took."""
    found: list[float] = []
    async with Runtime({"writer": Writer}, backend=FileBackend(folder / "rooms.db")) as runtime:
        writers = handles(runtime, rooms)

        async def call(room: RoomHandle) -> None:
            for _ in range(count // rooms):
                begin = perf_counter()
                await room.call(Writer.write)
                found.append(perf_counter() - begin)

        async def call_all() -> float:
            found.clear()
            begin = perf_counter()
            async with anyio.create_task_group() as group:
                for room in writers:
                    group.start_soon(call, room)
            return len(found) / (perf_counter() - begin)

        await call_all()
        idle = await call_all()
        busy, done = 0.0, anyio.Event()
        async with anyio.create_task_group() as beside:
            beside.start_soon(compute, 0.001, 0.0001, done)
            busy = await call_all()
            done.set()
    return idle, busy, sorted(found)[len(found) * 99 // 100]


def measure_busy(loop: str, quick: bool) -> tuple[float, Sample]:
    """Measure with a hundred callers in a hundred rooms; give the 99th percentile in milliseconds, and the rates."""
    with tempfile.TemporaryDirectory() as name:
        body = partial(busy_and_idle, Path(name), 10 if quick else 100, 50 if quick else 5_000)
        idle, busy, late = run_on(loop, body)
    return late * 1000, Sample(busy, idle, {"p99 in ms": late * 1000, **peak_megabytes()})


@question(
    "durable-busy-loop",
    "durable events/s, 100 callers in 100 rooms, the loop computing for 1 ms at a time, 90% busy",
    "the same on an idle loop",
    unit="/s",
    at_least=0.1,
    aim=0.2,
)
def _busy(loop: str, quick: bool) -> Sample:
    return apart(measure_busy, loop, quick)[1]


@question(
    "durable-busy-p99",
    "the same events: the 99th percentile of the time from the call to the reply",
    unit="ms",
    at_least=30,
    aim=10,
)
def _busy_p99(loop: str, quick: bool) -> Sample:
    return Sample(apart(measure_busy, loop, quick)[0])


# --- reads -------------------------------------------------------------------


@question("cached-get", "a cached get inside an event", "a dict look-up and the codec's decode", at_least=3, aim=2)
def _cached(loop: str, quick: bool) -> Sample:
    return apart(cached, loop, quick)


def cached(loop: str, quick: bool) -> Sample:
    """Read one value again and again."""
    count = 200 if quick else 100_000

    async def main() -> Sample:
        codec = JsonCodec()
        known = {"key": codec.encode(VALUE)}
        each = count // TURNS
        ours = theirs = 0.0
        async with Runtime({"writer": Writer}, backend=MemoryBackend()) as runtime:
            (room,) = handles(runtime, 1)
            await room.call(Writer.write)
            for _ in range(TURNS):
                ours += await room.call(Writer.read_often, each)
                begin = process_time()
                for _ in range(each):
                    codec.decode(known["key"])
                theirs += process_time() - begin
        return Sample(ours / count * MICRO, theirs / count * MICRO, peak_megabytes())

    return run_on(loop, main)


Read = Callable[[Sequence[RoomHandle]], Awaitable[float]]
"""Reads in some rooms, and gives the seconds."""


async def read_in_turns(path: Path, rooms: int, keys: Sequence[str], read: Read) -> tuple[float, float]:
    """Have some rooms read, then the same values be read by hand, and so on; give the seconds of both."""
    ours = theirs = 0.0
    async with Runtime({"writer": Writer}, backend=FileBackend(path)) as runtime:
        found = handles(runtime, rooms)
        with closing(ByHand(path)) as by_hand:
            each = rooms // TURNS
            for first in range(0, each * TURNS, each):
                ours += await read(found[first : first + each])
                theirs += by_hand.read(range(first, first + each), keys)
    return ours, theirs


@question(
    "uncached-get",
    "a get of what is on disk, in a room that was just woken",
    "raw sqlite3, same tables: a point read and the codec's decode",
    at_least=5,
    aim=2,
)
def _uncached(loop: str, quick: bool) -> Sample:
    return apart(uncached, loop, quick)


def uncached(loop: str, quick: bool) -> Sample:
    """Read twenty values in each of some rooms that were just woken, each once."""
    rooms = 10 if quick else 500
    keys = [f"key {number}" for number in range(20)]

    async def write(path: Path) -> None:
        async with Runtime({"writer": Writer}, backend=FileBackend(path)) as runtime:
            for room in handles(runtime, rooms):
                await room.call(Writer.write_each, keys)

    async def read(found: Sequence[RoomHandle]) -> float:
        return sum([await room.call(Writer.read_each, keys) for room in found])

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rooms.db"
        run_on(loop, partial(write, path))
        ours, theirs = run_on(loop, partial(read_in_turns, path, rooms, keys, read))
    count = rooms * len(keys)
    return Sample(ours / count * MICRO, theirs / count * MICRO, peak_megabytes())


def wake(loop: str, quick: bool) -> Sample:
    """Wake some rooms, each reading a value."""
    count = 50 if quick else 10_000

    async def read(found: Sequence[RoomHandle]) -> float:
        return await calls(found, Writer.read, len(found), 100)

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rooms.db"
        run_on(loop, partial(fill, FileBackend(path), count))
        ours, theirs = run_on(loop, partial(read_in_turns, path, count, ["key"], read))
    return Sample(ours / count * MICRO, theirs / count * MICRO, peak_megabytes())


@question(
    "cold-wake",
    "waking 10,000 sleeping rooms on disk, each reading one key",
    "raw sqlite3, same tables: 10,000 point reads and decodes",
    at_least=10,
    aim=4,
)
def _cold(loop: str, quick: bool) -> Sample:
    return apart(wake, loop, quick)


# --- a large file ------------------------------------------------------------


@cache
def large_file(count: int) -> Path:
    """Give a file of so many rooms, each with a value and an alarm, made once for all runs: it takes a minute."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "rooms.db"

    async def store() -> None:
        async with FileBackend(path, durability="normal") as backend:
            for group in commits(count):
                claimed = [commit._replace(fence=await backend.claim(commit.room)) for commit in group]
                assert not any(await backend.commit(claimed))

    run_on("asyncio", store)
    return path


def commits(count: int) -> Iterator[list[Commit]]:
    """Give what rooms store, in groups; no two alarms at one time, nor in the order of the rooms."""
    begin = (datetime.now(UTC) + timedelta(days=30) - EPOCH) // timedelta(microseconds=1)
    value = JsonCodec().encode(VALUE)
    for first in range(0, count, 5000):
        group: list[Commit] = []
        for number in range(first, min(first + 5000, count)):
            room = RoomKey("writer", str(number))
            row = AlarmRow(room, "", begin + number * 7919 % 1_000_003, b'{"id":"%016x"}' % number)
            group.append(Commit(room, 0, {"key": value}, {"": row}, release=True))
        yield group


def opening(loop: str, path: Path) -> Sample:
    """Give the seconds from entering a runtime until it knows its next alarm, more than by hand."""

    async def open_ours() -> float:
        begin = perf_counter()
        async with Runtime({"writer": Writer}, backend=FileBackend(path)) as runtime:
            assert await runtime.next_alarm()
            await runtime.wait_idle()
            return perf_counter() - begin

    begin = perf_counter()
    with closing(ByHand(path)) as by_hand:
        assert by_hand.next_alarm()
        theirs = perf_counter() - begin
    ours = run_on(loop, open_ours)
    return Sample(ours - theirs, None, {"raw sqlite3": theirs, **peak_megabytes()})


@question(
    "open-million",
    "opening a file of 1,000,000 rooms and alarms, more than raw open and one indexed query",
    unit="s",
    at_least=0.2,
    aim=0.05,
)
def _open(loop: str, quick: bool) -> Sample:
    path = large_file(100 if quick else 1_000_000)
    return opening(loop, path) if quick else in_fresh_process(opening, loop, path)
