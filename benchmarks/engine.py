"""What the engine itself costs: calls, events, messages, wakes, memory, import.

Nothing here waits for a disk or a clock. So seconds are the processor's, and a busy machine has little part in them.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from itertools import islice
from statistics import median
from time import perf_counter, process_time
from typing import Any

import anyio
import attrs

from benchmarks.limits import Pipe, fan_out, round_trips, served, start_tasks
from benchmarks.measure import Sample, in_turns, question, run_on
from partyroom import Client, Connection, Room, RoomHandle, Runtime
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FakeClock

MICRO = 1_000_000
TURNS = 10
"""How often what is measured and what is measured beside it take turns."""


class Plain(Room):
    """A room that does as little as a room can."""

    hibernate = True

    async def nothing(self) -> None:
        """Do nothing."""

    async def count(self) -> int:
        """Read and write one value."""
        total: int = await self.ctx.storage.get("total", 0) + 1
        await self.ctx.storage.put("total", total)
        return total

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        """Tell everybody."""
        self.ctx.broadcast(message)


async def calls(
    handles: Sequence[RoomHandle],
    method: Callable[[Any], Awaitable[object]],
    count: int,
    callers: int,
    *,
    now: Callable[[], float] = perf_counter,
) -> float:
    """Give the seconds for so many calls, by so many callers at once; ``now`` tells the time, or the processor's."""

    async def call(first: int) -> None:
        for number in range(first, count, callers):
            await handles[number % len(handles)].call(method)

    begin = now()
    async with anyio.create_task_group() as group:
        for first in range(callers):
            group.start_soon(call, first)
    return now() - begin


async def compare_calls(count: int, callers: int, rooms: int) -> Sample:
    """Measure calls to warm rooms beside round trips through queues."""
    async with Runtime({"plain": Plain}, backend=MemoryBackend()) as runtime, served(rooms) as inboxes:
        handles = [runtime.parties["plain"].get(str(number)) for number in range(rooms)]
        await calls(handles, Plain.nothing, rooms, min(rooms, 100))
        # A turn reaches every room.
        turns = min(TURNS, count // rooms)
        each = count // turns
        ours, beside = await in_turns(
            turns,
            lambda: calls(handles, Plain.nothing, each, callers, now=process_time),
            lambda: round_trips(inboxes, each, callers),
        )
    return Sample(ours / count * MICRO, beside / count * MICRO)


QUEUES = "a round trip through two queues of the loop"


@question("call", "a call to a warm room, one caller", QUEUES, at_least=3, aim=1.5)
def _call(loop: str, quick: bool) -> Sample:
    return run_on(loop, partial(compare_calls, 100 if quick else 10_000, 1, 1))


@question("call-100-callers", "a call to a warm room, 100 callers", QUEUES, at_least=3, aim=1.5)
def _call_many(loop: str, quick: bool) -> Sample:
    return run_on(loop, partial(compare_calls, 200 if quick else 20_000, 100, 1))


@question("call-10000-rooms", "a call to one of 10,000 warm rooms, 100 callers", QUEUES, at_least=3, aim=1.5)
def _call_rooms(loop: str, quick: bool) -> Sample:
    return run_on(loop, partial(compare_calls, 200 if quick else 20_000, 100, 20 if quick else 10_000))


@question("get-put", "an event with one get and one put, in memory", "a call that does nothing", at_least=2, aim=1.4)
def _get_put(loop: str, quick: bool) -> Sample:
    count = 100 if quick else 10_000

    async def main() -> Sample:
        async with Runtime({"plain": Plain}, backend=MemoryBackend()) as runtime:
            handles = [runtime.parties["plain"].get("1")]
            await handles[0].call(Plain.count)
            each = count // TURNS
            ours, beside = await in_turns(
                TURNS,
                lambda: calls(handles, Plain.count, each, 1, now=process_time),
                lambda: calls(handles, Plain.nothing, each, 1, now=process_time),
            )
        return Sample(ours / count * MICRO, beside / count * MICRO)

    return run_on(loop, main)


async def compare_messages(count: int, clients: int) -> Sample:
    """Measure messages through a room to its clients beside queues by hand."""
    # Each turn connects all clients anew, which takes as long as many messages.
    each = count // min(4, count)
    async with Runtime({"plain": Plain}, backend=MemoryBackend()) as runtime:
        room = runtime.parties["plain"].get("1")
        ours, beside = await in_turns(
            count // each, lambda: messages(room, each, clients), lambda: fan_out(each, clients)
        )
    return Sample(ours / count * MICRO, beside / count * MICRO)


async def messages(room: RoomHandle, count: int, clients: int) -> float:
    """Give the seconds for so many messages of one client that all clients, waiting for them, have received."""
    done = Pipe(clients)

    async def receive(client: Client) -> None:
        async for _ in client:
            done.put_nowait(None)

    taken = 0.0
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        connected = [await stack.enter_async_context(room.connect()) for _ in range(clients)]
        for client in connected:
            tasks.start_soon(receive, client)
        await anyio.lowlevel.checkpoint()
        begin = process_time()
        for _ in range(count):
            await connected[0].send("message")
            for _ in range(clients):
                await done.get()
        taken = process_time() - begin
        tasks.cancel_scope.cancel()
    return taken


@question("fan-out", "a message through a room to 10 waiting clients", "10 queues by hand", at_least=3, aim=1.5)
def _fan_out(loop: str, quick: bool) -> Sample:
    return run_on(loop, partial(compare_messages, 20 if quick else 2_000, 10))


@question(
    "broadcast-1000",
    "a broadcast that 1,000 waiting clients have received",
    "1,000 queues by hand",
    at_least=3,
    aim=1.2,
)
def _broadcast(loop: str, quick: bool) -> Sample:
    count, clients = (2, 20) if quick else (20, 1_000)
    return run_on(loop, partial(compare_messages, count, clients))


@attrs.define(eq=False)
class Thing:
    """Something to construct."""

    name: str
    values: dict[str, bytes] = attrs.Factory(dict[str, bytes])


async def construct_things() -> None:
    """Construct what little a room cannot do without."""
    Thing("a")
    Thing("b")
    Thing("c")


@question("wake", "waking a sleeping room, in memory", "three attrs objects and one task", at_least=10, aim=4)
def _wake(loop: str, quick: bool) -> Sample:
    count = 50 if quick else 5_000

    async def main() -> Sample:
        async with Runtime({"plain": Plain}, backend=MemoryBackend()) as runtime:
            handles = (runtime.parties["plain"].get(str(number)) for number in range(count))
            each = count // TURNS
            ours, beside = await in_turns(
                TURNS,
                lambda: calls(list(islice(handles, each)), Plain.nothing, each, 100, now=process_time),
                lambda: start_tasks(each, construct_things),
            )
        return Sample(ours / count * MICRO, beside / count * MICRO)

    return run_on(loop, main)


def resident() -> int:
    """Give the bytes of memory that Python has given out to objects now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@question("idle-room", "memory of an awake, idle room", unit="bytes", at_least=4096, aim=2048, loops=("asyncio",))
def _idle_room(loop: str, quick: bool) -> Sample:
    count = 100 if quick else 10_000

    async def main() -> Sample:
        tracemalloc.start()
        async with Runtime({"plain": Plain}, backend=MemoryBackend(), idle_timeout=timedelta(hours=1)) as runtime:
            handles = [runtime.parties["plain"].get(str(number)) for number in range(count)]
            before = resident()
            await calls(handles, Plain.nothing, count, 1)
            after = resident()
        tracemalloc.stop()
        return Sample((after - before) / count)

    return run_on(loop, main)


@question(
    "asleep-again",
    "memory kept of 100,000 rooms that slept again",
    unit="%",
    at_least=5,
    aim=1,
    loops=("asyncio",),
    once=True,
)
def _asleep_again(loop: str, quick: bool) -> Sample:
    count = 200 if quick else 100_000

    async def main() -> Sample:
        tracemalloc.start()
        clock = FakeClock()
        async with Runtime({"plain": Plain}, backend=MemoryBackend(), clock=clock) as runtime:
            party = runtime.parties["plain"]
            await calls([party.get("first")], Plain.nothing, 100, 10)
            before = resident()
            for number in range(count):
                await party.get(str(number)).call(Plain.nothing)
            awake = resident()
            await clock.advance(timedelta(minutes=1))
            assert not runtime.statistics().awake
            await calls([party.get("first")], Plain.nothing, 100, 10)
            after = resident()
        tracemalloc.stop()
        return Sample((after - before) / (awake - before) * 100)

    return run_on(loop, main)


def import_seconds(what: str, cache: str) -> float:
    """Give the processor's seconds that a fresh interpreter takes to import something compiled, beyond starting."""
    code = f"import time; begin = time.process_time(); import {what}; print(time.process_time() - begin)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@question("import", "import partyroom", "import anyio, attrs", unit="ms", at_least=1.5, aim=1.2, loops=("asyncio",))
def _import(loop: str, quick: bool) -> Sample:
    del loop
    runs = 1 if quick else 7
    with tempfile.TemporaryDirectory() as cache:
        import_seconds("partyroom", cache)
        pairs = [(import_seconds("partyroom", cache), import_seconds("anyio, attrs", cache)) for _ in range(runs)]
    return Sample(median(ours for ours, _ in pairs) * 1000, median(beside for _, beside in pairs) * 1000)
