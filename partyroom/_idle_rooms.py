"""The rooms that have nothing to do, in the order in which they are to go to sleep.

Owns since when each of them is idle, and the one timer that puts the longest
idle ones to sleep.

Promises that a room which has something to do again is forgotten here at once,
and that what is left behind is as small as what is still idle.

Must never decide whether a room may sleep: it says who is next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import takewhile
from typing import final

from partyroom._core.instants import length, length_micros
from partyroom._services import AwakeRoom
from partyroom._timers import Entry, Timers, ticks

__all__ = ["IdleRooms"]


@final
class IdleRooms:
    """Rooms that merely await their eviction, the longest idle first.

    ``put_to_sleep`` is called with those that were idle for ``timeout``; ``monotonic`` is the clock's own.
    """

    def __init__(
        self,
        timers: Timers,
        monotonic: Callable[[], float],
        timeout: timedelta,
        put_to_sleep: Callable[[Sequence[AwakeRoom]], None],
    ) -> None:
        self._timers = timers
        self._monotonic = monotonic
        self.timeout = length_micros(timeout)
        """How long a room stays awake with nothing to do, in microseconds."""
        self._put_to_sleep = put_to_sleep
        self._since: dict[AwakeRoom, float] = {}
        """In monotonic seconds, as they come: this is noted after each event of a room."""
        self._sweeper: Entry | None = None

    def __contains__(self, room: AwakeRoom) -> bool:
        return room in self._since

    def add(self, room: AwakeRoom) -> None:
        """Hear that a room is idle from now on."""
        self._since[room] = self._monotonic()
        if self._sweeper is None:
            self._plan_sweep()

    def discard(self, room: AwakeRoom) -> None:
        """Hear that a room is idle no more; harmless if it was not."""
        self._since.pop(room, None)

    def longest(self) -> AwakeRoom | None:
        """Give the room that has been idle for longest."""
        return next(iter(self._since), None)

    def rest(self, room: AwakeRoom) -> timedelta:
        """Say how much longer an idle room stays awake with nothing to do."""
        return length(ticks(self._since[room]) + self.timeout - ticks(self._monotonic()))

    def _plan_sweep(self) -> None:
        for room, since in self._since.items():
            self._sweeper = self._timers.call_at(ticks(since) + self.timeout, self._sweep, "idle", room.key)
            return

    def _sweep(self) -> None:
        self._sweeper = None
        before = ticks(self._monotonic()) - self.timeout
        due = takewhile(lambda idle: ticks(idle[1]) <= before, self._since.items())
        self._put_to_sleep([room for room, _ in due])
        # A dict that was large stays large, however little is left in it.
        self._since = dict(self._since)
        self._plan_sweep()
