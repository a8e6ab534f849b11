"""Between the rooms and the scheduler: when each room's next alarm is, and what came of waking one.

Owns the scheduler of one run, if alarms ring by themselves, and what it is told
of rooms that cannot be woken, or do not listen.

Promises that a room whose waking failed is woken again later, longer each time
and without using up retries (G12), and that a class without an ``on_alarm`` is
told of once, while its alarms wait (G14).

Must never wake a room itself: it is given who does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from logging import Logger
from typing import Final, final

from partyroom._log import about
from partyroom.protocols import AlarmScheduler, Clock
from partyroom.types import RoomKey

__all__ = ["Scheduling"]

LONGEST_BACK_OFF: Final = 10
"""A room that cannot be woken for its alarm is tried again after 2, 4, 8 ... and at most 1,024 seconds."""


@final
class Scheduling:
    """What a run's rooms tell its scheduler; ``scheduler`` is ``None`` where the host rings by hand.

    ``look_again`` is how the scheduler is told when to wake a room whatever is stored.
    """

    def __init__(
        self,
        scheduler: AlarmScheduler | None,
        look_again: Callable[[RoomKey, datetime], None] | None,
        clock: Clock,
        log: Logger,
    ) -> None:
        self.scheduler = scheduler
        self._look_again = look_again
        self._clock = clock
        self._log = log
        self._failed_starts: dict[RoomKey, int] = {}
        self._told: set[type[object]] = set()
        self.listener: Callable[[RoomKey, datetime | None], None] | None = None
        """Hears of every alarm that was stored, moved or deleted; for tests."""

    def changed(self, room: RoomKey, due: datetime | None) -> None:
        """Hear when a room's next alarm is, after the commit that changed it and after each ring."""
        if self._failed_starts:
            self._failed_starts.pop(room, None)
        if self.scheduler is not None:
            self.scheduler.changed(room, due)
        if self.listener is not None:
            self.listener(room, due)

    def failed_to_start(self, room: RoomKey) -> None:
        """Hear that a room could not be woken for its alarm, or broke: it is to look for due alarms again later (G12)."""
        failures = self._failed_starts.get(room, 0) + 1
        self._failed_starts[room] = failures
        if self._look_again is not None:
            delay = timedelta(seconds=2 ** min(failures, LONGEST_BACK_OFF))
            self._look_again(room, self._clock.now() + delay)

    def no_handler(self, room: RoomKey, room_type: type[object]) -> None:
        """Hear that an alarm is due in a class that has no ``on_alarm``: it waits (G14), and the log says so once for each class."""
        if room_type not in self._told:
            self._told.add(room_type)
            text = "%s: an alarm is due, but %s has no on_alarm; it waits"
            self._log.warning(text, room, room_type.__name__, extra=about(room, "on_alarm"))
        if self.scheduler is not None:
            self.scheduler.changed(room, None)
