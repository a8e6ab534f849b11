"""APScheduler 4, beside alarms: one-shot schedules that are all due when the scheduler starts.

Its memory store is as lasting as the memory backend. Its SQLAlchemy store on SQLite commits with a sync of the disk, as the
file backend does. Each schedule's job does nothing but count.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from benchmarks.alarms import ring_all
from benchmarks.measure import Sample, installed, question, run_on
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend

MISSING = "apscheduler 4, or aiosqlite, is not installed"


class _Count:
    """How many jobs are to come."""

    left = 0
    done = anyio.Event()


async def job() -> None:
    """Do next to nothing, as ``Sleeper`` does."""
    _Count.left -= 1
    if not _Count.left:
        _Count.done.set()


async def scheduled(store: Any, count: int) -> float:
    """Give the seconds from starting APScheduler until so many schedules that are due have run."""
    scheduler = import_module("apscheduler").AsyncScheduler
    trigger = import_module("apscheduler.triggers.date").DateTrigger
    _Count.left, _Count.done = count, anyio.Event()
    async with scheduler(store) as opened:
        await opened.configure_task("job", func=job)
        due = datetime.now(UTC) - timedelta(seconds=1)
        for number in range(count):
            await opened.add_schedule("job", trigger(due), id=str(number), misfire_grace_time=None)
        begin = perf_counter()
        await opened.start_in_background()
        await _Count.done.wait()
        return perf_counter() - begin


def overdue(count: int) -> list[datetime]:
    """Give as many times that have just passed."""
    return [datetime.now(UTC) - timedelta(seconds=1)] * count


@question(
    "alarms-apscheduler-memory",
    "10,000 due at one instant, in memory, against APScheduler: alarms/s",
    "APScheduler 4, memory store",
    unit="/s",
    at_least=10,
    aim=50,
    loops=("asyncio",),
)
def _memory(loop: str, quick: bool) -> Sample:
    count = 10 if quick else 10_000
    ours = run_on(loop, partial(ring_all, MemoryBackend(), overdue(count)))
    if not installed("apscheduler"):
        return Sample(count / ours, missing=MISSING)
    store = import_module("apscheduler.datastores.memory").MemoryDataStore()
    return Sample(count / ours, count / run_on(loop, partial(scheduled, store, count)))


@question(
    "alarms-apscheduler-file",
    "1,000 due at one instant, durable, against APScheduler: alarms/s",
    "APScheduler 4, SQLAlchemy on SQLite",
    unit="/s",
    at_least=100,
    aim=400,
    loops=("asyncio",),
)
def _file(loop: str, quick: bool) -> Sample:
    count = 3 if quick else 1_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = run_on(loop, partial(ring_all, FileBackend(folder / "ours.db"), overdue(count)))
        if not installed("apscheduler") or not installed("aiosqlite"):
            return Sample(count / ours, missing=MISSING)
        theirs = run_on(loop, partial(scheduled_on_sqlite, folder / "theirs.db", count))
    return Sample(count / ours, count / theirs)


async def scheduled_on_sqlite(path: Path, count: int) -> float:
    """Do it on a file; SQLite's own defaults hold there: a rollback journal, and a sync for each commit."""
    engine = import_module("sqlalchemy.ext.asyncio").create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        return await scheduled(import_module("apscheduler.datastores.sqlalchemy").SQLAlchemyDataStore(engine), count)
    finally:
        await engine.dispose()
