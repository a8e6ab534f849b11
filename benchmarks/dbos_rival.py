"""DBOS on SQLite, beside durable events and alarms: its durable steps, and its durable sleeps.

A step's result is committed, with a sync of the disk, before the workflow goes on, as an event's writes are here before its
caller hears of it; DBOS commits to SQLite's rollback journal, this library to a write-ahead log, each as it comes. A
sleeping workflow of DBOS is a task in memory whose time to wake is stored; a room that sleeps is not in memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter, time
from typing import Any

from benchmarks.alarms import ring_all
from benchmarks.engine import calls
from benchmarks.measure import Sample, in_fresh_process, installed, question, run_on
from benchmarks.rivals import overdue
from benchmarks.storage import Writer, handles
from partyroom import Runtime
from partyroom.backends.file import FileBackend

MISSING = "dbos is not installed"
FIRST_WITH_SUBSEC = (3, 42, 0)
"""The first SQLite that knows ``unixepoch('subsec')``, with which DBOS stamps its rows."""
LEAD = 1.0
"""The seconds by which sleeps begin earlier than the instant until which they last, and so much more for each of them."""
LEAD_EACH = 0.05


def launched(path: Path) -> Any:
    """Give DBOS with two workflows, its file in a folder of its own."""
    dbos: Any = import_module("dbos").DBOS
    alchemy: Any = import_module("sqlalchemy")
    engine: Any = alchemy.create_engine(f"sqlite:///{path}")

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # As DBOS sets its own connections up; and what an older SQLite lacks, since Debian and Ubuntu ship one.
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout = 30000")
        if sqlite3.sqlite_version_info < FIRST_WITH_SUBSEC:
            connection.create_function("unixepoch", -1, lambda *_: time())

    alchemy.event.listen(engine, "connect", prepare)
    dbos(
        config={
            "name": "benchmarks",
            "system_database_engine": engine,
            "log_level": "CRITICAL",
            "run_admin_server": False,
        }
    )
    return dbos


def steps_seconds(count: int) -> float:
    """Give the seconds for so many durable steps, one after another; in a process of its own: DBOS is one for each."""
    with tempfile.TemporaryDirectory() as name:
        dbos = launched(Path(name) / "dbos.db")

        async def step(number: int) -> str:
            return f"a small value that is not the same twice: {number}"

        stored = dbos.step()(step)

        async def steps(number: int) -> float:
            begin = perf_counter()
            for each in range(number):
                await stored(each)
            return perf_counter() - begin

        workflow = dbos.workflow()(steps)

        async def main() -> float:
            dbos.launch()
            await workflow(3)
            taken: float = await workflow(count)
            return taken

        try:
            return asyncio.run(main())
        finally:
            dbos.destroy()


def sleeps_seconds(count: int) -> float:
    """Give the seconds from an instant until which so many workflows sleep to the end of the last of them."""
    with tempfile.TemporaryDirectory() as name:
        dbos = launched(Path(name) / "dbos.db")

        async def sleep(due: float) -> None:
            await dbos.sleep_async(max(0.0, due - time()))

        workflow = dbos.workflow()(sleep)

        async def main() -> float:
            dbos.launch()
            due = time() + LEAD + LEAD_EACH * count
            begun = [await dbos.start_workflow_async(workflow, due) for _ in range(count)]
            for each in begun:
                await each.get_result()
            return time() - due

        try:
            return asyncio.run(main())
        finally:
            dbos.destroy()


@question(
    "steps-dbos",
    "durable events/s, one room, one after another, against DBOS",
    "DBOS on SQLite: durable steps, one after another",
    unit="/s",
    loops=("asyncio",),
)
def _steps(loop: str, quick: bool) -> Sample:
    count = 10 if quick else 100

    async def ours(path: Path) -> float:
        async with Runtime({"writer": Writer}, backend=FileBackend(path)) as runtime:
            await calls(handles(runtime, 1), Writer.write, 3, 1)
            return await calls(handles(runtime, 1), Writer.write, count, 1)

    with tempfile.TemporaryDirectory() as name:
        rate = count / run_on(loop, partial(ours, Path(name) / "ours.db"))
    if not installed("dbos"):
        return Sample(rate, missing=MISSING)
    return Sample(rate, count / in_fresh_process(steps_seconds, count))


@question(
    "sleeps-dbos",
    "100 due at one instant, durable, against DBOS: alarms/s",
    "DBOS on SQLite: workflows that sleep until then",
    unit="/s",
    loops=("asyncio",),
)
def _sleeps(loop: str, quick: bool) -> Sample:
    count = 5 if quick else 100
    with tempfile.TemporaryDirectory() as name:
        ours = run_on(loop, partial(ring_all, FileBackend(Path(name) / "ours.db"), overdue(count)))
    if not installed("dbos"):
        return Sample(count / ours, missing=MISSING)
    return Sample(count / ours, count / in_fresh_process(sleeps_seconds, count))
