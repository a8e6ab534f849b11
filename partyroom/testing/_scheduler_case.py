"""What every case of a scheduler's contract stands on: what an author gives, and the scheduler that a case gets.

Owns :class:`SchedulerSuite`, the base of all groups of cases, and the rooms
that they use.

Promises that each case runs on a new scheduler.

Must never know a clause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import Final

import anyio
from typing_extensions import override

from partyroom.errors import BrokenContractError
from partyroom.protocols import AlarmScheduler, Clock
from partyroom.testing._contract_suite import Suite, case
from partyroom.testing._scheduler_trial import SchedulerTrial, judged_scheduler
from partyroom.types import RoomKey

__all__ = ["A", "B", "C", "D", "SchedulerSuite", "case", "rooms"]

A: Final = RoomKey("party", "a")
B: Final = RoomKey("party", "b")
C: Final = RoomKey("party", "c")
D: Final = RoomKey("party", "d")

STRETCHES: Final = (1, 4, 16)
"""By how much ticks are longer, each time that a case on real time finds something: a busy machine is late by itself."""


def rooms(count: int) -> list[RoomKey]:
    """Give so many rooms."""
    return [RoomKey("party", f"{number:04}") for number in range(count)]


class SchedulerSuite(Suite):
    """What an author of a scheduler gives, and the way of running cases."""

    on_real_time: bool = False
    """Whether the scheduler lives on the system's time, because it cannot be given a clock. Then the cases take real time,
    and those are left out that need a clock which jumps."""
    tick: timedelta = timedelta(seconds=1)
    """The step that cases count time in; most take about ten. On real time, make it as short as the scheduler is punctual."""
    latest: timedelta = timedelta()
    """How late the scheduler may be by its design, one that looks now and then for instance. Users must be told."""
    sequences: int = 5
    """How many sequences are generated."""
    steps: int = 40
    """How many operations each of them has."""
    seed: int = 0
    """The seed of the first generated sequence; the next ones count on from it."""

    # Not abstract: pytest passes over abstract classes in silence, and a suite without it would judge nothing.
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        """Make a new scheduler that lives on ``clock``. Called in the event loop; nothing runs yet."""
        raise NotImplementedError(f"{type(self).__name__} has no make_scheduler, which makes the one to be judged")

    def opened(self, _scheduler: AlarmScheduler, /) -> AbstractAsyncContextManager[object]:
        """Have open what the scheduler needs while it runs, as the host would: by default nothing."""
        return nullcontext()

    @override
    def found_on(
        self, loop: str, clause: str, case: Callable[[SchedulerTrial], Awaitable[None]], /
    ) -> BrokenContractError | None:
        found = None
        for stretch in STRETCHES if self.on_real_time else STRETCHES[:1]:
            found = anyio.run(judged_scheduler, self, clause, case, stretch, backend=loop)
            if found is None:
                break
        return found
