"""A clock that stands still until it is moved, for judging what sleeps on it and counts no work.

Owns its two lines of time, and who sleeps on them.

Promises that a sleeper is woken at its own time, one at a time in the order of
those times, and that the others have had their turns before time goes on.

Must never be used where work is counted: there, :class:`~partyroom.testing.FakeClock`
knows when time may move, and this one only gives turns.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, final

import attrs
from anyio import Event
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom.protocols import Clock
from partyroom.types import Timer

__all__ = ["HandClock", "settle"]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
TURNS: Final = 30
"""How many turns of the loop are enough for what was woken to come to rest: some task groups and queues are in between."""
ROUNDS: Final = 100
"""How often it is given so many turns again, for what does not come to rest at all."""
NOTHING: Final = timedelta()


async def settle(steps: Callable[[], int]) -> None:
    """Let all others have their turns, until some have passed without another step of what is counted."""
    seen = -1
    for _ in range(ROUNDS):
        if seen == steps():
            return
        seen = steps()
        for _ in range(TURNS):
            await checkpoint()


@attrs.frozen(eq=False)
class _Sleeper:
    wall: datetime | None
    """When it is to be woken, for one that sleeps in wall time …"""
    length: timedelta
    """… and in monotonic time, for the others."""
    woken: Event = attrs.field(factory=Event)


@final
class HandClock(Clock):
    """Time that is moved by hand. ``steps`` counts what is seen of those who live on it: it stands still while that moves."""

    def __init__(self, steps: Callable[[], int]) -> None:
        self._steps = steps
        self._now = START
        self._length = NOTHING
        self._sleepers: list[_Sleeper] = []

    @override
    def now(self) -> datetime:
        return self._now

    @override
    def monotonic(self) -> float:
        return self._length.total_seconds()

    @override
    async def sleep_until(self, when: datetime, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - a constant value
        await self._sleep(_Sleeper(when, NOTHING))

    @override
    async def sleep(self, duration: timedelta, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - a constant value
        await self._sleep(_Sleeper(None, self._length + duration))

    async def _sleep(self, sleeper: _Sleeper) -> None:
        if self._left(sleeper) <= NOTHING:
            return
        self._sleepers.append(sleeper)
        try:
            await sleeper.woken.wait()
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def _left(self, sleeper: _Sleeper) -> timedelta:
        return sleeper.length - self._length if sleeper.wall is None else sleeper.wall - self._now

    async def move(self, duration: timedelta) -> None:
        """Let time pass, waking who is due on the way, each at its time."""
        end = self._length + duration
        await settle(self._steps)
        while self._sleepers:
            sleeper = min(self._sleepers, key=self._left)
            if self._left(sleeper) > end - self._length:
                break
            self._pass(max(NOTHING, self._left(sleeper)))
            self._sleepers.remove(sleeper)
            sleeper.woken.set()
            await settle(self._steps)
        self._pass(end - self._length)

    def _pass(self, duration: timedelta) -> None:
        self._now += duration
        self._length += duration

    def set_wall(self, when: datetime) -> None:
        """Correct the wall clock, either way; who is overdue then is woken when time moves next."""
        self._now = when

    def sleepers(self) -> list[datetime]:
        """Give when those are to be woken who sleep, in wall time, the next one first."""
        return sorted(self._now + self._left(each) for each in self._sleepers)

    def let_go(self) -> None:
        """Wake all who sleep, whenever they wanted to be woken: nothing more is asked of them."""
        for sleeper in self._sleepers:
            sleeper.woken.set()
