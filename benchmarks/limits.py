"""What nothing could be faster than: the loops' own parts, and SQLite by hand.

Seconds are the processor's, of this process: nothing here waits, and a busy machine has no part in them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import process_time
from typing import Any

import anyio
import sniffio
import trio

__all__ = ["Pipe", "fan_out", "open_raw", "round_trips", "served", "start_tasks"]


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


@asynccontextmanager
async def served(servers: int) -> AsyncGenerator[list[Pipe]]:
    """Give the inboxes of so many tasks that answer each pipe that they are sent."""

    async def serve(inbox: Pipe) -> None:
        while True:
            reply = await inbox.get()
            await reply.put(None)

    async with anyio.create_task_group() as tasks:
        inboxes = [Pipe() for _ in range(servers)]
        for inbox in inboxes:
            tasks.start_soon(serve, inbox)
        await anyio.lowlevel.checkpoint()
        yield inboxes
        tasks.cancel_scope.cancel()


async def round_trips(inboxes: list[Pipe], count: int, callers: int) -> float:
    """Give the seconds for ``count`` round trips through two queues each, by so many callers."""

    async def call(first: int) -> None:
        outbox = Pipe()
        for number in range(first, count, callers):
            await inboxes[number % len(inboxes)].put(outbox)
            await outbox.get()

    begin = process_time()
    async with anyio.create_task_group() as group:
        for first in range(callers):
            group.start_soon(call, first)
    return process_time() - begin


async def start_tasks(count: int, body: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Give the seconds for starting so many of the loop's own tasks, a hundred at a time, until all have ended."""
    left = count
    begin = process_time()
    while left > 0:
        some, left = min(left, 100), left - 100
        if sniffio.current_async_library() == "trio":
            async with trio.open_nursery() as nursery:
                for _ in range(some):
                    nursery.start_soon(body)
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(some):
                    group.create_task(body())
    return process_time() - begin


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
        begin = process_time()
        for _ in range(count):
            await inbox.put("message")
            for _ in range(clients):
                await done.get()
        taken = process_time() - begin
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
