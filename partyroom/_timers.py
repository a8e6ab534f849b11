"""All timers of one runtime on one line of time: one heap, one sleeper.

Owns what is to be called at which instant. Two of these run in a runtime, one
on monotonic time (idle rooms, time-outs, a room's sleeps) and one on wall time.

Promises that nothing is called early, that what is due at one instant is called
in the order (due, room, kind, name), one at a time with the clock asked in
between, so that a fake clock decides what comes next, and that a timer that was
cancelled is never called.

Must never await anything but the clock: what a timer calls returns at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, TypeAlias, final

from anyio import CancelScope

from partyroom._native import Loop, OneShot
from partyroom._work import Work
from partyroom.types import RoomKey, Timer, TimerKind

__all__ = ["Entry", "Timers", "ticks"]

FEW: Final = 64
"""A heap of no more entries than this is never worth cleaning."""
NOWHERE: Final = RoomKey("", "")

Rank: TypeAlias = tuple[int, float, RoomKey, TimerKind, str, int]


def ticks(seconds: float) -> int:
    """Give a clock's monotonic seconds in whole microseconds, as timers are due."""
    return round(seconds * 1_000_000)


@final
class Entry:
    """One timer; ``cancel`` it if it is no longer wanted."""

    __slots__ = ("_owner", "_timer", "call", "rank")

    def __init__(self, owner: Timers, rank: Rank, call: Callable[[], object]) -> None:
        self._owner = owner
        self._timer: Timer | None = None
        self.rank = rank
        """What puts it in order: no two are equal."""
        self.call: Callable[[], object] | None = call
        """What is to be called; ``None`` once that is done or no longer wanted."""

    @property
    def due(self) -> int:
        """When, in microseconds of its line."""
        return self.rank[0]

    @property
    def timer(self) -> Timer:
        """What a clock is told of it: the same object each time. Most are cancelled before anybody asks."""
        if self._timer is None:
            _, _, room, kind, name, _ = self.rank
            self._timer = Timer(None if room is NOWHERE else room, kind, name)
        return self._timer

    def cancel(self) -> None:
        """Never call it; harmless if it was called or cancelled before."""
        if self.call is not None:
            self.call = None
            self._owner.forget(self)


@final
class Timers:
    """A heap of timers and the one task that sleeps for the first of them.

    From its construction on, it holds a token of ``work`` whenever it is not asleep.
    """

    def __init__(
        self, loop: Loop, work: Work, now: Callable[[], int], sleep: Callable[[int, Timer], Awaitable[None]]
    ) -> None:
        self._loop = loop
        self._work = work
        self._now = now
        self._sleep = sleep
        self._heap: list[tuple[Rank, Entry]] = []
        """In the order of the ranks, so that no entry is ever asked which comes first."""
        self._dead = 0
        self._ranks = count()
        self._is_up = True
        self._target: Entry | None = None
        """What the sleeper sleeps for, while it does."""
        self._cancelled: Entry | None = None
        """What was cancelled last."""
        self._sleeping = CancelScope()
        self._parked: OneShot[None] | None = None
        self.has_ended = False
        """Whether nothing is called any more."""
        work.take()

    def call_at(
        self, due: int, call: Callable[[], object], kind: TimerKind, room: RoomKey | None, name: str = ""
    ) -> Entry:
        """Have ``call()`` called at ``due``, in microseconds of this line, or after; the others say what for."""
        tie = 0.0 if self._loop.tie is None else self._loop.tie()
        rank = (due, tie, room or NOWHERE, kind, name, next(self._ranks))
        entry = Entry(self, rank, call)
        heappush(self._heap, (rank, entry))
        # Looked at is what the sleeper sleeps for, also if that was cancelled since.
        if self._parked is not None:
            self._get_up()
            self._parked.set(None)
            self._parked = None
        elif self._target is not None and rank < self._target.rank:
            self._get_up()
            self._sleeping.cancel()
            self._target = None
        return entry

    def pending(self) -> list[Entry]:
        """Give the timers that wait, in the order in which they will be called."""
        return [entry for _, entry in sorted(self._heap) if entry.call is not None]

    def is_cancelled(self, timer: Timer) -> bool:
        """Say whether ``timer`` is what the sleeper sleeps for, and is no longer wanted."""
        return self._target is not None and self._target.timer is timer and self._target.call is None

    def is_called(self, timer: Timer) -> bool:
        """Hear that the clock is about to end the sleep for ``timer``; say whether it is this sleeper's, who is up from here on."""
        if self._target is None or self._target.timer is not timer:
            return False
        self._get_up()
        return True

    def forget(self, entry: Entry) -> None:
        """Count a cancelled timer, and drop such ones once they are most of the heap."""
        self._cancelled = entry
        self._dead += 1
        if self._dead * 2 > len(self._heap) > FEW:
            self._heap = [place for place in self._heap if place[1].call is not None]
            heapify(self._heap)
            self._dead = 0

    async def run(self) -> None:
        """Call what is due, until cancelled."""
        try:
            while True:
                entry = self._first() or self._still_to_come()
                if entry is None:
                    await self._park()
                else:
                    await self._sleep_for(entry)
                    self._call_if_due(entry)
        finally:
            self._target = self._parked = None
            self._lie_down()
            self._end()

    def _end(self) -> None:
        """Wake who sleeps in a room: in a runtime that was killed, code that is shielded would sleep on for ever."""
        self.has_ended = True
        for entry in self.pending():
            if entry.timer.kind == "sleep" and entry.call is not None:
                entry.call()

    async def _park(self) -> None:
        shot: OneShot[None] = self._loop.one_shot()
        self._parked = shot
        self._lie_down()
        await shot

    async def _sleep_for(self, entry: Entry) -> None:
        self._target = entry
        with CancelScope() as self._sleeping:
            self._lie_down()
            await self._sleep(entry.due, entry.timer)
        self._target = None

    def _call_if_due(self, entry: Entry) -> None:
        if self._first() is entry and entry.due <= self._now():
            heappop(self._heap)
            call, entry.call = entry.call, None
            assert call is not None
            call()

    def _first(self) -> Entry | None:
        while self._heap and self._heap[0][1].call is None:
            heappop(self._heap)
            self._dead -= 1
        return self._heap[0][1] if self._heap else None

    def _still_to_come(self) -> Entry | None:
        """Give what was cancelled last, if its time is still to come: the sleeper may as well sleep for that.

        So events that all have a time limit come and go without waking it.
        """
        entry = self._cancelled
        return None if entry is None or entry.due <= self._now() else entry

    def _get_up(self) -> None:
        if not self._is_up:
            self._is_up = True
            self._work.take()

    def _lie_down(self) -> None:
        """Give the token back: from here to the clock, or to the next timer, nothing else can run."""
        if self._is_up:
            self._is_up = False
            self._work.give()
