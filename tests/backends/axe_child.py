"""One life of a process that the axe ends: rooms that write and set alarms as fast as they can.

Owns the rooms, what each of their events must leave behind, and the process around them. It reads its order from its
input, and says on its output, a line each, what it is about to do and every write that was acknowledged: ``write``, the
room, the write's number.

Promises that what an event writes hangs together by the event's number alone, times of alarms apart, so that a part of
an event cannot pass for a whole one; and that a line is written only when the reply has come back.

Must never end by itself, unless it was told to.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

import anyio
import attrs

from partyroom import Alarm, Every, RetryPolicy, Room, RoomHandle, Runtime
from partyroom.backends import _sqlite_care
from partyroom.backends.file import Durability, FileBackend

CLOSE: Final = "close"
"""What a process is told, on a line of its own, to have it leave its runtime."""

LEDGERS: Final = 16
CHURNS: Final = 8
CALLERS: Final = 2
"""How many callers write to each room at once."""

BEAT: Final = "beat"
BEAT_EVERY: Final = Every(timedelta(milliseconds=50))
MARK: Final = "mark"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Rings = dict[datetime, int]
"""How often an alarm has rung for each of the times it was set for."""


@attrs.frozen
class Order:
    """What a process is to do."""

    path: str
    durability: Durability = "full"
    rings: int | None = None
    """Write nothing, and end when that many alarms have rung; ``None`` to write until killed."""


# --- what events leave behind ------------------------------------------------


def text(number: int) -> str:
    """Give the text of a write: of all lengths, every seventeenth larger than a page of the file."""
    return f"{number}:" * (3000 if number % 17 == 0 else number * 7 % 40 + 1)


def write_key(number: int) -> str:
    """Give the key of a ledger's write."""
    return f"write/{number:08}"


def alarm_key(number: int) -> str:
    """Give the key under which a ledger keeps what became of a write's alarm."""
    return f"alarm/{number:08}"


def delay(number: int) -> timedelta:
    """Give how long after its write an alarm is set for; some for at once."""
    return timedelta(milliseconds=number * 37 % 120)


def rings_of(number: int) -> int:
    """Give how often a write's alarm rings: every third is set again by its handler."""
    return 2 if number % 3 == 0 else 1


def churned(number: int) -> dict[str, object]:
    """Give all that a churning room holds after so many writes: keys come and go."""
    return {"n": number, **{f"k{digit}": text(number) for digit in range(10) if number & digit == digit}}


def mark_of(number: int) -> datetime:
    """Give when a churning room's alarm is set for: it never rings, and tells the number of the write."""
    return datetime(2100, 1, 1, tzinfo=UTC) + timedelta(seconds=number)


# --- the rooms ---------------------------------------------------------------


class Startled(Exception):
    """What every fifth alarm's handler raises at first."""


class Ledger(Room):
    """Keeps each write under a key of its own, with an alarm of its own, and books how often that has rung."""

    alarm_retry = RetryPolicy(first_delay=timedelta(milliseconds=5), jitter=0)
    rings = 0
    """How many rings of writes' alarms have been handled, of all rooms."""
    awaited: int | None = None
    enough: anyio.Event
    """Set when ``rings`` has reached what is awaited."""

    async def on_start(self) -> None:
        """Declare what recurs, as rooms do."""
        await self.ctx.storage.set_alarm(BEAT_EVERY, name=BEAT)

    async def write(self) -> int:
        """Store the next write and set its alarm; give its number."""
        storage = self.ctx.storage
        number: int = await storage.get("n", 0) + 1
        await storage.put_many({"n": number, "last": text(number), write_key(number): text(number)})
        await self._arm(number, {})
        return number

    async def _arm(self, number: int, rung: Rings) -> None:
        due = self.ctx.clock.now() + delay(number)
        await self.ctx.storage.set_alarm(due, name=str(number), payload=number)
        await self.ctx.storage.put(alarm_key(number), {"due": due, "rung": rung})

    async def on_alarm(self, alarm: Alarm) -> None:
        """Book the ring under the time it was set for, and set the alarm again if it is to ring again."""
        if alarm.name == BEAT:
            await self._beat(alarm.scheduled_time)
            return
        number = int(str(alarm.payload))
        if number % 5 == 0 and not alarm.is_retry:
            raise Startled
        rung: Rings = (await self.ctx.storage.get(alarm_key(number)))["rung"]
        rung[alarm.scheduled_time] = rung.get(alarm.scheduled_time, 0) + 1
        if len(rung) < rings_of(number):
            await self._arm(number, rung)
        else:
            await self.ctx.storage.put(alarm_key(number), {"due": None, "rung": rung})
        Ledger.rings += 1
        if Ledger.rings == Ledger.awaited:
            Ledger.enough.set()

    async def _beat(self, scheduled: datetime) -> None:
        """Book that the recurrence goes forward, or that it did not, for good."""
        before: dict[str, Any] = await self.ctx.storage.get("beat", {"last": None, "again": False})
        again = before["again"] or (before["last"] or EPOCH) >= scheduled
        await self.ctx.storage.put("beat", {"last": scheduled, "again": again})


class Churn(Room):
    """Rewrites, deletes and clears, so that all it holds is told by the number of its writes."""

    async def write(self) -> int:
        """Go on to what the next write leaves; give its number."""
        storage = self.ctx.storage
        number: int = await storage.get("n", 0) + 1
        wanted = churned(number)
        if number % 7 == 0:
            await storage.delete_all()
        else:
            await storage.delete_many(churned(number - 1).keys() - wanted.keys())
        await storage.put_many(wanted)
        await storage.set_alarm(mark_of(number), name=MARK)
        return number

    async def on_alarm(self, alarm: Alarm) -> None:
        """Say that the next century has begun."""
        await self.ctx.storage.put("mark has rung", alarm.scheduled_time)


PARTIES: Final = {"ledger": Ledger, "churn": Churn}


# --- the process -------------------------------------------------------------

Say = Literal["ready", "opening", "moving", "closing", "closed"]


def say(line: Say | str) -> None:
    """Tell the one with the axe, at once and in one piece."""
    os.write(1, f"{line}\n".encode())


def runtime_of(order: Order) -> Runtime:
    """Make the runtime: its rooms fall asleep all the time."""
    backend = FileBackend(order.path, durability=order.durability)
    return Runtime(PARTIES, backend=backend, idle_timeout=timedelta(milliseconds=20), max_awake=LEDGERS)


async def live(order: Order) -> None:
    """Carry out an order."""
    Ledger.rings, Ledger.awaited, Ledger.enough = 0, order.rings, anyio.Event()
    say("opening")
    async with runtime_of(order) as runtime:
        if order.rings is None:
            await write_until_told(runtime)
        elif order.rings:
            await Ledger.enough.wait()
        await runtime.wait_idle()
    say("closed")


async def write_until_told(runtime: Runtime) -> None:
    """Have all rooms write, until a line comes in."""
    async with anyio.create_task_group() as callers:
        for _ in range(CALLERS):
            for number in range(LEDGERS):
                callers.start_soon(write_on, runtime.parties["ledger"].get(str(number)), Ledger.write)
            for number in range(CHURNS):
                callers.start_soon(write_on, runtime.parties["churn"].get(str(number)), Churn.write)
        assert f"{CLOSE}\n" == await anyio.to_thread.run_sync(sys.stdin.readline)
        say("closing")
        callers.cancel_scope.cancel()


async def write_on(room: RoomHandle, method: Callable[..., Awaitable[int]]) -> None:
    """Write to a room without end, and say what was acknowledged."""
    while True:
        number = await room.call(method)
        say(f"write {room.party}/{room.id} {number}")


def move_logs_often() -> None:
    """Have the log moved every few dozen events, where it would take thousands, and say so."""
    move = _sqlite_care._move_log

    def told(path: str, durability: Durability) -> None:
        say("moving")
        move(path, durability)

    _sqlite_care.__dict__.update(LOG_PAGES=128, LOG_BYTES=1024 * 1024, _move_log=told)


def is_news(record: logging.LogRecord) -> bool:
    """Say whether the log tells of something that was not meant to happen."""
    return not (record.exc_info and isinstance(record.exc_info[1], Startled))


def main(arguments: list[str]) -> None:
    """Be ready on the loop of that name, wait for an order, carry it out; then wait to be killed, or let go."""
    (loop,) = arguments
    move_logs_often()
    logging.getLogger("partyroom").addFilter(is_news)
    # What takes a process long is to begin; this is done before it is needed.
    anyio.run(anyio.lowlevel.checkpoint, backend=loop)
    say("ready")
    order = Order(**json.loads(sys.stdin.readline()))
    anyio.run(partial(live, order), backend=loop)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
