"""All timers of one runtime on one line of time: one heap, one sleeper.

Owns what is to be called at which instant. Two of these run in a runtime, one
on monotonic time (idle rooms, time-outs, a room's sleeps) and one on wall time.

Promises that nothing is called early, that what is due at one instant is called
in the order (due, room, name), one at a time with the clock asked in between,
so that a fake clock decides what comes next, and that a timer that was cancelled is never called.

Must never await anything but the clock: what a timer calls returns at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, final

from anyio import CancelScope

from partyroom._native import Loop, OneShot
from partyroom._work import Work
from partyroom.types import Timer

__all__ = ["Entry", "Timers"]

COMPACT_ABOVE = 64
"""A heap of fewer entries than this is never worth cleaning."""


@final
class Entry:
    """One timer; ``cancel`` it if it is no longer wanted."""

    __slots__ = ("_owner", "_rank", "call", "due", "timer")

    def __init__(self, owner: Timers, due: int, timer: Timer, rank: int, call: Callable[[], None]) -> None:
        self._owner = owner
        self._rank = (due, timer.room or ("", ""), timer.kind, timer.name, rank)
        self.due = due
        """When, in microseconds of its line."""
        self.timer = timer
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never call it; harmless if it was called or cancelled before."""
        if self.call is not None:
            self.call = None
            self._owner.forget()

    def __lt__(self, other: Entry) -> bool:
        return self._rank < other._rank


@final
class Timers:
    """A heap of timers and the one task that sleeps for the first of them."""

    def __init__(
        self, loop: Loop, work: Work, now: Callable[[], int], sleep: Callable[[int, Timer], Awaitable[None]]
    ) -> None:
        self._loop = loop
        self._work = work
        self._now = now
        self._sleep = sleep
        self._heap: list[Entry] = []
        self._dead = 0
        self._rank = count()
        self._sleeping: CancelScope | None = None
        self._sleeping_for: Entry | None = None
        self._parked: OneShot[None] | None = None
        self._poked = False

    def call_at(self, due: int, timer: Timer, call: Callable[[], None]) -> Entry:
        """Have ``call()`` called at ``due``, in microseconds of this line, or after."""
        entry = Entry(self, due, timer, next(self._rank), call)
        heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._poke()
        return entry

    def pending(self) -> list[Entry]:
        """Give the timers that wait, in the order in which they will be called."""
        return sorted(entry for entry in self._heap if entry.call is not None)

    def forget(self) -> None:
        """Count a cancelled timer, and drop such ones once they are most of the heap."""
        self._dead += 1
        if self._dead * 2 > len(self._heap) > COMPACT_ABOVE:
            self._heap = [entry for entry in self._heap if entry.call is not None]
            heapify(self._heap)
            self._dead = 0

    def _poke(self) -> None:
        """Have the sleeper look again. It holds a token until it sleeps on the clock again."""
        if self._poked:
            return
        if self._parked is not None:
            self._poked = True
            self._work.take()
            self._parked.set(None)
        elif self._sleeping is not None:
            self._poked = True
            self._work.take()
            self._sleeping.cancel()

    def _first(self) -> Entry | None:
        while self._heap and self._heap[0].call is None:
            heappop(self._heap)
            self._dead = max(0, self._dead - 1)
        return self._heap[0] if self._heap else None

    async def run(self) -> None:
        """Call what is due, until cancelled."""
        while True:
            entry = self._first()
            if entry is None:
                await self._park()
                continue
            with CancelScope() as self._sleeping:
                self._asleep()
                await self._sleep(entry.due, entry.timer)
            self._sleeping = None
            if entry.call is not None and self._first() is entry and entry.due <= self._now():
                heappop(self._heap)
                call: Any = entry.call
                entry.call = None
                call()

    async def _park(self) -> None:
        self._parked = self._loop.one_shot()
        self._asleep()
        await self._parked.wait()
        self._parked = None

    def _asleep(self) -> None:
        """Give back the token of a poke: from here to the clock nothing else can run."""
        if self._poked:
            self._poked = False
            self._work.give()
