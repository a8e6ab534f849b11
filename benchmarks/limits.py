"""What nothing could be faster than: the loops' own parts, and SQLite by hand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import sniffio
import trio

__all__ = ["Pipe", "fan_out", "open_raw", "raw_groups", "round_trips"]


class Pipe:
    """A bounded queue of the running loop's own: ``asyncio.Queue``, or a memory channel of trio's."""

    def __init__(self, size: int = 1000) -> None:
        self.put: Callable[[object], Awaitable[None]]
        self.get: Callable[[], Awaitable[Any]]
        self.put_nowait: Callable[[object], None]
        if sniffio.current_async_library() == "trio":
            send, receive = trio.open_memory_channel[object](size)
            self.put, self.get, self.put_nowait = send.send, receive.receive, send.send_nowait
        else:
            queue = asyncio.Queue[object](size)
            self.put, self.get, self.put_nowait = queue.put, queue.get, queue.put_nowait


async def round_trips(count: int, callers: int = 1, servers: int = 1) -> float:
    """Give the seconds for ``count`` round trips through two queues each, by so many callers to so many servers."""
    taken = 0.0
    async with anyio.create_task_group() as tasks:
        inboxes = [Pipe() for _ in range(servers)]

        async def serve(inbox: Pipe) -> None:
            while True:
                reply = await inbox.get()
                await reply.put(None)

        async def call(first: int) -> None:
            outbox = Pipe()
            for number in range(first, count, callers):
                await inboxes[number % servers].put(outbox)
                await outbox.get()

        for inbox in inboxes:
            tasks.start_soon(serve, inbox)
        await anyio.lowlevel.checkpoint()
        begin = perf_counter()
        async with anyio.create_task_group() as group:
            for first in range(callers):
                group.start_soon(call, first)
        taken = perf_counter() - begin
        tasks.cancel_scope.cancel()
    return taken


async def fan_out(count: int, clients: int) -> float:
    """Give the seconds for ``count`` messages into one queue and out of it into so many more, all received."""
    taken = 0.0
    async with anyio.create_task_group() as tasks:
        inbox, outboxes = Pipe(), [Pipe() for _ in range(clients)]

        async def serve() -> None:
            while True:
                message = await inbox.get()
                for outbox in outboxes:
                    outbox.put_nowait(message)

        async def receive(outbox: Pipe, done: Pipe) -> None:
            while True:
                await outbox.get()
                done.put_nowait(None)

        done = Pipe(clients)
        tasks.start_soon(serve)
        for outbox in outboxes:
            tasks.start_soon(receive, outbox, done)
        await anyio.lowlevel.checkpoint()
        begin = perf_counter()
        for _ in range(count):
            await inbox.put("message")
            for _ in range(clients):
                await done.get()
        taken = perf_counter() - begin
        tasks.cancel_scope.cancel()
    return taken


def open_raw(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a file with the one table that a key-value store needs, with a write-ahead log."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute("PRAGMA wal_autocheckpoint = 16000")
    database.execute("CREATE TABLE IF NOT EXISTS entries (room INTEGER, key TEXT, value BLOB, PRIMARY KEY (room, key))")
    return database


def raw_groups(database: sqlite3.Connection, rows: list[tuple[int, str, bytes]], group: int) -> float:
    """Give the seconds for writing rows, so many in a transaction."""
    begin = perf_counter()
    for first in range(0, len(rows), group):
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows[first : first + group])
        database.execute("COMMIT")
    return perf_counter() - begin
