"""The one place that knows the time.

Owns the system's two clocks: wall time, which may be corrected under our feet,
and monotonic time, which only goes on.

Promises that a sleep ends never early on the line of time it was asked for, and
that it looks at that line again at least once a minute: a wall clock that jumps,
or a laptop that wakes up, is noticed within a stretch, and no sleep is too long
for a loop's timers.

Must never be asked for the time by anything that was not given it as a
:class:`~partyroom.protocols.Clock`: nothing else in the library reads a clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final, final

from anyio import sleep
from typing_extensions import override

from partyroom.protocols import Clock
from partyroom.types import Timer

__all__ = ["SystemClock"]

STRETCH: Final = 60.0
"""The longest sleep without a look at the clock, in seconds: the latest that a jump of the wall clock can make an alarm."""

SOMEBODY: Final = Timer()


@final
class SystemClock(Clock):
    """The real time. Sleeps return at once, without yielding to the loop, if there is nothing to wait for."""

    __slots__ = ()

    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    def monotonic(self) -> float:
        return monotonic()

    @override
    async def sleep_until(self, when: datetime, /, *, timer: Timer = SOMEBODY) -> None:
        # Asked first, so that a burst of alarms that are due costs no more than a look.
        if datetime.now(UTC) < when:

            def rest() -> float:
                return (when - datetime.now(UTC)).total_seconds()

            await sleep_out(rest)

    @override
    async def sleep(self, duration: timedelta, /, *, timer: Timer = SOMEBODY) -> None:
        end = monotonic() + duration.total_seconds()
        await sleep_out(lambda: end - monotonic())


async def sleep_out(rest: Callable[[], float], sleep: Callable[[float], Awaitable[object]] = sleep) -> None:
    """Sleep in stretches until ``rest()``, in seconds, is used up.

    Asked again after every stretch: the loop's timers run on a clock of their own and may end a hair early on the one
    that ``rest`` reads, or that one may have jumped.
    """
    while True:
        seconds = rest()
        if seconds <= 0:
            return
        await sleep(min(seconds, STRETCH))
