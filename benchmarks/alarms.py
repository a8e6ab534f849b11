"""How fast alarms ring, how late, and what a million of them cost."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import anyio
import sniffio
import trio

from benchmarks.engine import MICRO, calls
from benchmarks.limits import open_raw
from benchmarks.measure import Sample, apart, in_turns, question, run_on
from partyroom import Alarm, AlarmRow, Commit, Every, Limits, Room, RoomKey, Runtime, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import Harness

GROUP = 5_000
"""So many rooms are stored in one commit."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


class Sleeper(Room):
    """A room that does next to nothing when its alarm rings."""

    expected = 0
    done = anyio.Event()
    # Shared on purpose. A number of the class's own, counted down, would have Python forget what it knows of the class
    # with each ring.
    late: list[float] = []  # noqa: RUF012

    async def on_alarm(self, alarm: Alarm) -> None:
        """Count."""
        Sleeper.late.append((self.ctx.clock.now() - alarm.scheduled_time).total_seconds())
        if len(Sleeper.late) == Sleeper.expected:
            Sleeper.done.set()

    async def move(self) -> None:
        """Move the alarm: to thirty days from now."""
        await self.ctx.storage.set_alarm(MONTH)

    async def put(self) -> None:
        """Write a small value."""
        await self.ctx.storage.put("key", Sleeper.expected)

    async def move_often(self, count: int) -> float:
        """Move it again and again within one event; give the seconds."""
        begin = process_time()
        for _ in range(count):
            await self.move()
        return process_time() - begin

    async def put_often(self, count: int) -> float:
        """Write as often; give the seconds."""
        begin = process_time()
        for _ in range(count):
            await self.put()
        return process_time() - begin


async def arm(backend: StorageBackend, dues: list[datetime]) -> None:
    """Store alarms of as many rooms as there are times, without waking any."""
    async with backend:
        for first in range(0, len(dues), GROUP):
            commits: list[Commit] = []
            for number, due in enumerate(dues[first : first + GROUP], first):
                room = RoomKey("sleeper", str(number))
                micros = (due - EPOCH) // timedelta(microseconds=1)
                row = AlarmRow(room, "", micros, b'{"id":"%016x"}' % number)
                commits.append(Commit(room, await backend.claim(room), {}, {"": row}, release=False))
            assert not any(await backend.commit(commits))


async def ring_all(backend: StorageBackend, dues: list[datetime], *, now: Callable[[], float] = perf_counter) -> float:
    """Give the seconds from entering a runtime until all of its overdue alarms have rung and are stored.

    ``now`` tells the time, or the processor's.
    """
    await arm(backend, dues)
    Sleeper.expected, Sleeper.done, Sleeper.late = len(dues), anyio.Event(), []
    begin = now()
    async with Runtime({"sleeper": Sleeper}, backend=backend) as runtime:
        await Sleeper.done.wait()
        await runtime.wait_idle()
        return now() - begin


def raw_alarms(folder: Path, count: int) -> float:
    """Give the seconds for reading one row and deleting one row for each alarm, by hand, in groups of 1,000."""
    database = open_raw(folder / "raw.db")
    database.execute("CREATE TABLE alarms (due INTEGER, room INTEGER, PRIMARY KEY (due, room)) WITHOUT ROWID")
    database.execute("BEGIN")
    database.executemany("INSERT INTO alarms VALUES (1, ?)", [(number,) for number in range(count)])
    database.execute("COMMIT")
    begin = perf_counter()
    for first in range(0, count, 1000):
        database.execute("BEGIN IMMEDIATE")
        for room in range(first, min(first + 1000, count)):
            database.execute("SELECT due FROM alarms WHERE due = 1 AND room = ?", (room,)).fetchone()
            database.execute("DELETE FROM alarms WHERE due = 1 AND room = ?", (room,))
        database.execute("COMMIT")
    taken = perf_counter() - begin
    database.close()
    return taken


async def call_at_tasks(count: int) -> float:
    """Give the processor's seconds for as many callbacks of the loop, due at one instant, that each start and finish a task.

    trio has no callbacks: there it is the tasks alone.
    """

    async def finish() -> None:
        pass

    if sniffio.current_async_library() == "trio":
        begin = process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(finish)
        return process_time() - begin
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    started = anyio.Event()

    def start() -> None:
        tasks.append(loop.create_task(finish()))
        if len(tasks) == count:
            started.set()

    due = loop.time() + 0.05 + count / 100_000
    for _ in range(count):
        loop.call_at(due, start)
    begin = process_time()
    await started.wait()
    await asyncio.gather(*tasks)
    return process_time() - begin


@question(
    "alarms-at-once-file",
    "10,000 sleeping rooms due at one instant, durable: alarms/s",
    "raw sqlite3: one row read and one deleted each, groups of 1,000",
    unit="/s",
    at_least=0.15,
    aim=0.4,
)
def _at_once_file(loop: str, quick: bool) -> Sample:
    count = 50 if quick else 10_000
    dues = [datetime.now(UTC) - timedelta(seconds=1)] * count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = run_on(loop, partial(ring_all, FileBackend(folder / "ours.db"), dues))
        return Sample(count / ours, count / raw_alarms(folder, count))


@question(
    "alarms-at-once-memory",
    "10,000 sleeping rooms due at one instant, in memory: alarms/s",
    "loop.call_at, as often, each starting and finishing a task",
    unit="/s",
    at_least=0.15,
    aim=0.4,
)
def _at_once_memory(loop: str, quick: bool) -> Sample:
    return apart(at_once_in_memory, loop, quick)


def at_once_in_memory(loop: str, quick: bool) -> Sample:
    """Ring them, beside as many callbacks."""
    count = 50 if quick else 10_000
    dues = [datetime.now(UTC) - timedelta(seconds=1)] * count
    ours = run_on(loop, partial(ring_all, MemoryBackend(), dues, now=process_time))
    return Sample(count / ours, count / run_on(loop, partial(call_at_tasks, count)))


async def lateness(count: int, gap: timedelta) -> list[float]:
    """Give how late alarms ring, in seconds, one each ``gap``."""
    begin = datetime.now(UTC) + timedelta(milliseconds=200)
    await ring_all(backend := MemoryBackend(), [begin + gap * number for number in range(count)])
    del backend
    return sorted(Sleeper.late)


async def sleep_lateness(count: int, gap: float) -> list[float]:
    """Give how late ``anyio.sleep_until`` returns, in seconds, in tasks that sleep until one instant each ``gap``."""
    found: list[float] = []

    async def sleep(due: float) -> None:
        await anyio.sleep_until(due)
        found.append(anyio.current_time() - due)

    begin = anyio.current_time() + 0.2
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(sleep, begin + gap * number)
    return sorted(found)


@question("lateness", "how much later than anyio.sleep_until a single alarm is", unit="ms", at_least=2, aim=0.5)
def _lateness(loop: str, quick: bool) -> Sample:
    count = 2 if quick else 30

    async def main() -> Sample:
        late = await lateness(count, timedelta(milliseconds=20))
        limit = await sleep_lateness(count, 0.02)
        return Sample((late[count // 2] - limit[count // 2]) * 1000)

    return run_on(loop, main)


@question(
    "lateness-stream",
    "lateness of one alarm a millisecond in 10,000 rooms, 99th percentile",
    unit="ms",
    at_least=20,
    aim=5,
)
def _stream(loop: str, quick: bool) -> Sample:
    count = 10 if quick else 10_000

    async def main() -> Sample:
        late = await lateness(count, timedelta(milliseconds=1))
        limit = await sleep_lateness(count // 5, 0.001)
        return Sample(late[count * 99 // 100] * 1000, None, {"anyio.sleep_until": limit[len(limit) * 99 // 100] * 1000})

    return run_on(loop, main)


async def compare_moves(backend: StorageBackend, rooms: int, count: int, now: Callable[[], float]) -> Sample:
    """Measure events that move an alarm beside events that write a value, all rooms at once."""
    async with Runtime({"sleeper": Sleeper}, backend=backend) as runtime:
        handles = [runtime.parties["sleeper"].get(str(number)) for number in range(rooms)]
        for method in (Sleeper.put, Sleeper.move):
            await calls(handles, method, rooms, rooms)
        turns = 10
        each = count // turns
        ours, beside = await in_turns(
            turns,
            lambda: calls(handles, Sleeper.move, each, rooms, now=now),
            lambda: calls(handles, Sleeper.put, each, rooms, now=now),
        )
        move, put = await in_turns(
            turns,
            lambda: handles[0].call(Sleeper.move_often, each // turns),
            lambda: handles[0].call(Sleeper.put_often, each // turns),
        )
    alone = {
        "set_alarm alone in us": move / (each // turns * turns) * MICRO,
        "put alone in us": put / (each // turns * turns) * MICRO,
    }
    return Sample(ours / count * MICRO, beside / count * MICRO, alone)


@question(
    "alarm-moved",
    "set_alarm replaced 20,000 times in 1,000 rooms at once, each an event of its own, in memory",
    "put of a small value as often, each an event of its own",
    at_least=1,
    aim=1,
)
def _moved(loop: str, quick: bool) -> Sample:
    rooms, count = (10, 200) if quick else (1_000, 20_000)
    return run_on(loop, partial(compare_moves, MemoryBackend(), rooms, count, process_time))


@question(
    "alarm-moved-file",
    "set_alarm replaced 20,000 times in 1,000 rooms at once, each an event of its own, durable",
    "put of a small value as often, each durable",
    at_least=1,
    aim=1,
)
def _moved_file(loop: str, quick: bool) -> Sample:
    rooms, count = (10, 100) if quick else (1_000, 20_000)
    with tempfile.TemporaryDirectory() as name:
        return run_on(loop, partial(compare_moves, FileBackend(Path(name) / "rooms.db"), rooms, count, perf_counter))


class Teller(Room):
    """A room whose five alarms ring within an hour."""

    async def begin(self, number: int) -> None:
        """Set them."""
        for minutes in range(5, 60, 11):
            when = timedelta(minutes=minutes, milliseconds=number)
            await self.ctx.storage.set_alarm(when, name=f"in {minutes} minutes")

    async def on_alarm(self, alarm: Alarm) -> None:
        """Do nothing."""


@question("virtual-hour", "a virtual hour of 1,000 rooms and 5,000 alarms, in memory", unit="s", at_least=1, aim=0.3)
def _hour(loop: str, quick: bool) -> Sample:
    return apart(virtual_hour, loop, quick)


def virtual_hour(loop: str, quick: bool) -> Sample:
    """Let it pass once to warm up: a fresh process gets its memory from the system page by page. Then measure."""
    for_an_hour(loop, quick)
    return for_an_hour(loop, quick)


def for_an_hour(loop: str, quick: bool) -> Sample:
    """Let an hour pass."""
    rooms = 5 if quick else 1_000

    async def main() -> Sample:
        async with Harness({"teller": Teller}) as harness:
            for number in range(rooms):
                await harness.parties["teller"].get(str(number)).call(Teller.begin, number)
            begin = perf_counter()
            await harness.advance(timedelta(hours=1))
            return Sample(perf_counter() - begin)

    return run_on(loop, main)


class Hourly(Room):
    """A room with an hourly alarm."""

    async def begin(self) -> None:
        """Set it."""
        await self.ctx.storage.set_alarm(Every(timedelta(hours=1)))

    async def on_alarm(self, alarm: Alarm) -> None:
        """Do nothing."""


@question(
    "virtual-year",
    "a virtual year of an hourly alarm in 100 rooms, by the fake clock",
    unit="s",
    at_least=60,
    aim=20,
    once=True,
)
def _year(loop: str, quick: bool) -> Sample:
    rooms, days = (2, 1) if quick else (100, 365)

    async def main() -> Sample:
        async with Harness({"hourly": Hourly}, limits=Limits()) as harness:
            for number in range(rooms):
                await harness.parties["hourly"].get(str(number)).call(Hourly.begin)
            begin = perf_counter()
            for _ in range(days):
                await harness.advance(timedelta(days=1))
            return Sample(perf_counter() - begin)

    return run_on(loop, main)
