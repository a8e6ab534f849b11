"""An alarm scheduler for tests: every alarm is a timer on the fake clock, which decides who comes first.

Owns no task that sleeps: a room's next alarm is one entry of the clock. So all
that is due at one instant is in the clock's hands, which may shuffle it.

Promises what every scheduler does; that rooms whose alarms are due together ring
in any order that the clock's seed decides.

Must never be used where there are more alarms than memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import final

from anyio import Event
from typing_extensions import override

from partyroom.protocols import AlarmScheduler, Upcoming
from partyroom.testing.fake_clock import FakeClock
from partyroom.types import RoomKey, Timer

__all__ = ["ShuffledAlarms"]

PAGE = 1000


@final
class ShuffledAlarms(AlarmScheduler):
    """Rings rooms from the fake clock itself."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._cancel: dict[RoomKey, Callable[[], None]] = {}
        self._changed: set[RoomKey] = set()
        # Where nobody runs, a ring is forgotten with the change that asked for it: the next run reads of it.
        self._wake: Callable[[RoomKey], None] = self._changed.discard
        self.ready = Event()
        """Set when the stored alarms have been read, or could not be."""

    def expect_run(self) -> None:
        """Have ``ready`` wait for the run that comes next."""
        self.ready = Event()

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        self._changed.add(room)
        self._set(room, due)

    def _set(self, room: RoomKey, due: datetime | None) -> None:
        cancel = self._cancel.pop(room, None)
        if cancel is not None:
            cancel()
        if due is not None:
            self._cancel[room] = self._clock.call_at(due, Timer(room, "alarm"), partial(self._ring, room))

    def _ring(self, room: RoomKey) -> None:
        del self._cancel[room]
        self._wake(room)

    @override
    async def run(
        self,
        wake: Callable[[RoomKey], None],
        upcoming: Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]],
        /,
    ) -> None:
        self._wake = wake
        try:
            found = await upcoming(None, PAGE)
            while found:
                for each in found:
                    if each.room not in self._changed and each.room not in self._cancel:
                        self._set(each.room, each.due)
                found = await upcoming(found[-1], PAGE)
            self.ready.set()
            await Event().wait()
        finally:
            for cancel in self._cancel.values():
                cancel()
            self._cancel.clear()
            self._changed.clear()
            self._wake = self._changed.discard
            self.ready.set()
