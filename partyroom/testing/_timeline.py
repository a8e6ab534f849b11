"""The time of a test: two lines of it, who sleeps on them, and in which order they are woken.

Owns wall time and monotonic time, in whole microseconds, and the sleepers.

Promises that both lines pass at one speed, and that of those who are due
together the next one is the first by (room, kind, name), or any one that a seed
decides.

Must never wake anybody, and never ask whether time may pass.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random  # noqa: TID251 - chance by a seed, which a test gives
from typing import Final, final

from partyroom._core.instants import from_micros, length_micros, to_micros
from partyroom._native import OneShot
from partyroom.testing.timers import NOBODY
from partyroom.types import Timer

__all__ = ["Sleeper", "Timeline", "aware", "micros_ahead"]

TURNS_TAKEN: Final = 0.5
"""How often what is due together with another is called only when that has come to its end."""


@final
class Sleeper:
    """One task that sleeps on the clock, or something to be called."""

    __slots__ = ("call", "due", "rank", "shot", "timer", "wall")

    def __init__(self, due: int, timer: Timer, number: int, *, wall: bool) -> None:
        self.due = due
        self.timer = timer
        self.rank = (timer.room or NOBODY, timer.kind, timer.name, number)
        self.wall = wall
        """Whether it is due by the wall clock, and not by monotonic time."""
        self.shot: OneShot[None] | None = None
        """What the task waits for; ``None`` if nothing waits, and ``call`` is to be called."""
        self.call: Callable[[], None] | None = None


@final
class Timeline:
    """Where time stands, and who waits for it to pass. ``random`` shuffles those who are due together."""

    def __init__(self, start: datetime, random: Random | None) -> None:
        self._random = random
        self._numbers = 0
        self.sleepers: list[Sleeper] = []
        self.monotonic = 0
        self.wall = 0
        self.now = start
        """The wall time, in UTC."""
        self.set_wall(start)

    def set_wall(self, when: datetime) -> None:
        """Correct the wall clock, either way; monotonic time stays."""
        self.wall = to_micros(when)
        self.now = from_micros(self.wall)

    def add(self, due: int, timer: Timer, *, wall: bool) -> Sleeper:
        """Have somebody sleep until ``due``, in microseconds of one of the lines."""
        self._numbers += 1
        sleeper = Sleeper(due, timer, self._numbers, wall=wall)
        self.sleepers.append(sleeper)
        return sleeper

    def left(self, sleeper: Sleeper) -> int:
        """Give how many microseconds are left to a sleeper; none, if it is overdue."""
        return max(0, sleeper.due - (self.wall if sleeper.wall else self.monotonic))

    def next(self, within: int | None) -> Sleeper | None:
        """Give who is to be woken next, if that is within so many microseconds."""
        best: list[Sleeper] = []
        shortest = within
        for sleeper in self.sleepers:
            left = self.left(sleeper)
            if shortest is None or left < shortest:
                best, shortest = [sleeper], left
            elif left == shortest:
                best.append(sleeper)
        if not best:
            return None
        if self._random is None:
            return best[0] if len(best) == 1 else min(best, key=_rank)
        return self._random.choice(sorted(best, key=_rank))

    def next_together(self) -> Sleeper | None:
        """Give what is to be called with the one before, which is due now too; ``None`` for nothing, as a seed decides.

        Tasks take turns: if several were woken at once, their loop, and not the seed, would say who goes on first.
        """
        if self._random is None or self._random.random() < TURNS_TAKEN:
            return None
        found = self.next(0)
        return None if found is None or found.call is None else found

    def pass_by(self, micros: int) -> None:
        """Let time pass."""
        if micros:
            self.wall += micros
            self.monotonic += micros
            self.now = from_micros(self.wall)


def _rank(sleeper: Sleeper) -> tuple[object, ...]:
    return sleeper.rank


def micros_ahead(duration: object) -> int:
    """Give a length of time that may pass, in microseconds."""
    if not isinstance(duration, timedelta):
        message = f"a length of time is a timedelta, not {type(duration).__name__}"
        raise TypeError(message)
    if duration < timedelta():
        message = f"time does not go back, not even by {-duration}: FakeClock.set_wall corrects the wall clock"
        raise ValueError(message)
    return length_micros(duration)


def aware(when: datetime) -> datetime:
    """Refuse what names no instant."""
    if when.utcoffset() is None:
        message = f"{when!r} is naive, so it names no instant: give it a zone, such as tzinfo=UTC"
        raise ValueError(message)
    return when
