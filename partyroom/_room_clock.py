"""The runtime's clock as a room sees it: every wait on it is counted.

Owns the waits of one room on the clock: its sleeps, and the deadlines of its
blocks.

Promises that a task gives its token back while it sleeps here, and has it again
before it is woken, so that a fake clock moves exactly when it may; and that a
sleep which nothing can end any more, in a runtime that was killed, is an error.

Must never sleep on the loop's own clock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import final

from anyio import CancelScope
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.instants import alarm_time, length_micros, to_micros
from partyroom._native import Loop, OneShot
from partyroom._timers import Timers, ticks
from partyroom._work import Work
from partyroom.errors import RuntimeClosedError
from partyroom.protocols import Clock, RoomClock
from partyroom.types import RoomKey

__all__ = ["ClockParts", "CountedClock"]


@final
class ClockParts:
    """What all rooms of a runtime share of its clock."""

    __slots__ = ("clock", "loop", "monotonic_timers", "wall_timers", "work")

    def __init__(self, clock: Clock, loop: Loop, work: Work, monotonic_timers: Timers, wall_timers: Timers) -> None:
        self.clock = clock
        self.loop = loop
        self.work = work
        self.monotonic_timers = monotonic_timers
        self.wall_timers = wall_timers

    def ticks(self) -> int:
        """Give the monotonic time in whole microseconds."""
        return ticks(self.clock.monotonic())


@final
class CountedClock(RoomClock):
    """One room's view of the clock."""

    __slots__ = ("_parts", "_room")

    def __init__(self, parts: ClockParts, room: RoomKey) -> None:
        self._parts = parts
        self._room = room

    @override
    def now(self) -> datetime:
        return self._parts.clock.now()

    @override
    def monotonic(self) -> float:
        return self._parts.clock.monotonic()

    @override
    async def sleep(self, duration: timedelta, /) -> None:
        if duration <= timedelta():
            await checkpoint()
            return
        await self._wait(self._parts.monotonic_timers, self._parts.ticks() + length_micros(duration))

    @override
    async def sleep_until(self, when: datetime, /) -> None:
        now = self._parts.clock.now()
        due = alarm_time(when, to_micros(now))
        if when <= now:
            await checkpoint()
            return
        await self._wait(self._parts.wall_timers, due)

    async def _wait(self, timers: Timers, due: int) -> None:
        if not timers.has_ended:
            shot: OneShot[None] = self._parts.loop.one_shot()
            entry = timers.call_at(due, partial(shot.set, None), "sleep", self._room)
            try:
                await self._parts.work.wait(shot)
            finally:
                entry.cancel()
        if timers.has_ended:
            message = f"{self._room}: the runtime has ended, and wakes nobody any more"
            raise RuntimeClosedError(message)

    @override
    @asynccontextmanager
    async def move_on_after(self, duration: timedelta, /) -> AsyncGenerator[None]:
        with self._cancelled_after(duration):
            yield

    @override
    @asynccontextmanager
    async def fail_after(self, duration: timedelta, /) -> AsyncGenerator[None]:
        with self._cancelled_after(duration) as scope:
            yield
        if scope.cancelled_caught:
            message = f"{self._room}: not done within {duration}"
            raise TimeoutError(message)

    @contextmanager
    def _cancelled_after(self, duration: timedelta) -> Generator[CancelScope]:
        due = self._parts.ticks() + length_micros(duration)
        with CancelScope() as scope:
            entry = self._parts.monotonic_timers.call_at(due, scope.cancel, "timeout", self._room)
            try:
                yield scope
            finally:
                entry.cancel()
