"""A clock that moves only when it is told to, and only when nothing is in flight.

Owns the time of a test: two lines of it (wall and monotonic), who sleeps on
them, and the order in which they are woken.

Promises that time never moves while the runtimes it is attached to have work in
flight, that sleepers wake one at a time in the order (due, room, name), each
seeing its own due time as now, and that a wait for something real is an error
which names it instead of a wrong jump or a hang.

Must never guess from the event loop whether anything is going on: it asks the
runtimes, which count.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from types import TracebackType
from typing import Final, Literal, Protocol, final

import attrs
from anyio import fail_after
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.instants import from_micros, length_micros, to_micros
from partyroom._native import OneShot, current_loop
from partyroom.errors import ClockStalledError, EndlessTimersError
from partyroom.protocols import Clock
from partyroom.types import RoomKey, Timer

__all__ = ["FakeClock", "Fired", "Settling"]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
STALL_TIMEOUT: Final = 5.0
MAX_TIMERS: Final = 100_000


class Settling(Protocol):
    """Something that counts its work in flight, as a runtime does."""

    def is_idle(self) -> bool:
        """Say whether nothing is in flight."""
        ...

    async def wait_idle(self) -> None:
        """Return when nothing is in flight."""
        ...

    def describe_work(self) -> list[str]:
        """Say what is in flight, a line each."""
        ...


@attrs.frozen
class Fired:
    """One sleeper that was woken."""

    at: datetime
    """The wall time at which it was woken, in UTC."""
    room: RoomKey | None
    kind: str
    """What it slept for: ``alarm``, ``idle``, ``sleep``, ``timeout`` ..."""
    name: str


@final
class _Sleeper:
    """One task that sleeps on the clock."""

    __slots__ = ("due", "rank", "shot", "timer", "wall")

    def __init__(self, due: int, timer: Timer, rank: int, shot: OneShot[None], *, wall: bool) -> None:
        self.due = due
        self.timer = timer
        self.rank = rank
        self.shot = shot
        self.wall = wall


@final
class FakeClock(Clock):
    """A clock for tests: thirty days pass in a millisecond.

    ``start`` is the first wall time. A test that waits longer than ``stall_timeout`` real seconds for work in flight
    to end gets a :class:`ClockStalledError`; one in which more than ``max_timers`` are woken in one call, an
    :class:`EndlessTimersError`. Of what is due at one instant, the order is (room, kind, name), or shuffled from
    ``seed`` with ``ties="shuffle"``.
    """

    def __init__(
        self,
        start: datetime = START,
        *,
        stall_timeout: float = STALL_TIMEOUT,
        max_timers: int = MAX_TIMERS,
        ties: Literal["key", "shuffle"] = "key",
        seed: int = 0,
    ) -> None:
        self._wall = to_micros(start)
        self._monotonic = 0
        self._stall_timeout = stall_timeout
        self._max_timers = max_timers
        self._random = Random(seed) if ties == "shuffle" else None  # noqa: S311 - an order, no secret
        self._sleepers: list[_Sleeper] = []
        self._rank = 0
        self._woken = 0
        self._woken_done: OneShot[None] | None = None
        self._attached: list[Settling] = []
        self.fired: list[Fired] = []
        """Who was woken, in order, since the beginning."""

    @override
    def __repr__(self) -> str:
        return f"<FakeClock at {self.now().isoformat()}>"

    # --- what a runtime sees -------------------------------------------------

    @override
    def now(self) -> datetime:
        return from_micros(self._wall)

    @override
    def monotonic(self) -> float:
        return self._monotonic / 1_000_000

    @override
    async def sleep_until(self, when: datetime, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - a constant value
        await self._sleep(to_micros(when), timer, wall=True)

    @override
    async def sleep(self, duration: timedelta, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - a constant value
        await self._sleep(self._monotonic + length_micros(duration), timer, wall=False)

    async def _sleep(self, due: int, timer: Timer, *, wall: bool) -> None:
        # Also for a time that has come: whose turn it is, is this clock's to say.
        self._rank += 1
        sleeper = _Sleeper(due, timer, self._rank, current_loop().one_shot(), wall=wall)
        self._sleepers.append(sleeper)
        try:
            await sleeper.shot.wait()
        finally:
            if sleeper.shot.done:
                self._woken -= 1
                if not self._woken and self._woken_done is not None:
                    self._woken_done.set(None)
            else:
                self._sleepers.remove(sleeper)

    # --- what a test does ----------------------------------------------------

    def attach(self, runtime: Settling) -> None:
        """Let a runtime be one whose work holds time back. A harness does this by itself."""
        self._attached.append(runtime)

    def detach(self, runtime: Settling) -> None:
        """Let a runtime no longer hold time back; harmless if it never did."""
        if runtime in self._attached:
            self._attached.remove(runtime)

    async def settle(self) -> None:
        """Wait until nothing is in flight. Time stands still, and nothing is woken.

        Raises :class:`ClockStalledError` if that takes longer than ``stall_timeout`` real seconds.
        """
        await checkpoint()
        try:
            while self._woken or not all(runtime.is_idle() for runtime in self._attached):
                with fail_after(self._stall_timeout):
                    await self._wait_idle()
        except TimeoutError:
            raise self._stalled() from None

    async def _wait_idle(self) -> None:
        if self._woken:
            self._woken_done = current_loop().one_shot()
            await self._woken_done.wait()
        for runtime in self._attached:
            await runtime.wait_idle()

    def _stalled(self) -> ClockStalledError:
        lines = [line for runtime in self._attached for line in runtime.describe_work()]
        what = "\n  ".join(lines) or "a sleeper that was woken has not gone on"
        message = (
            f"time cannot move at {self.now().isoformat()}: for {self._stall_timeout} real seconds this was in flight, "
            f"waiting for something that is not on this clock:\n  {what}"
        )
        return ClockStalledError(message)

    async def advance(self, duration: timedelta) -> None:
        """Let time pass: settle, then wake whatever is due on the way, up to and including the end, settling after each.

        What is armed on the way, and due by the end, is woken as well. Each sleeper sees its own due time as now.
        """
        if duration < timedelta():
            message = f"time does not go back: {duration}"
            raise ValueError(message)
        await self._advance(self._monotonic + length_micros(duration))

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until a wall time; as ``advance``."""
        await self.advance(when - self.now())

    async def run_due(self) -> None:
        """Wake whatever is due now, and settle."""
        await self._advance(self._monotonic)

    async def advance_to_next(self) -> Fired | None:
        """Let time pass to the next sleeper, wake it alone, and settle; ``None`` if nobody sleeps."""
        await self.settle()
        sleeper = self._next(None)
        if sleeper is None:
            return None
        await self._wake(sleeper)
        return self.fired[-1]

    def _left(self, sleeper: _Sleeper) -> int:
        """Give how many microseconds are left; the two lines pass at one speed."""
        return max(0, sleeper.due - (self._wall if sleeper.wall else self._monotonic))

    def _next(self, within: int | None) -> _Sleeper | None:
        """Give who is to be woken next, if that is within so many microseconds."""
        best: _Sleeper | None = None
        best_rank: tuple[object, ...] = ()
        for sleeper in self._sleepers:
            left = self._left(sleeper)
            if within is not None and left > within:
                continue
            tie = self._random.random() if self._random is not None else 0.0
            timer = sleeper.timer
            rank = (left, tie, timer.room or ("", ""), timer.kind, timer.name, sleeper.rank)
            if best is None or rank < best_rank:
                best, best_rank = sleeper, rank
        return best

    async def _advance(self, target: int) -> None:
        await self.settle()
        for _ in range(self._max_timers):
            sleeper = self._next(target - self._monotonic)
            if sleeper is None:
                self._pass(target - self._monotonic)
                return
            await self._wake(sleeper)
        raise self._endless()

    def _endless(self) -> EndlessTimersError:
        last = self.fired[-1]
        message = (
            f"{self._max_timers} timers were woken in one go, the last one of {last.room} ({last.kind} {last.name!r}) "
            f"at {last.at.isoformat()}: does it arm itself again and again? See FakeClock(max_timers=...)"
        )
        return EndlessTimersError(message)

    async def _wake(self, sleeper: _Sleeper) -> None:
        self._pass(self._left(sleeper))
        self._sleepers.remove(sleeper)
        self.fired.append(Fired(self.now(), *sleeper.timer))
        self._woken += 1
        sleeper.shot.set(None)
        await self.settle()

    def _pass(self, micros: int) -> None:
        self._wall += micros
        self._monotonic += micros

    def jump(self, duration: timedelta) -> None:
        """Let time leap, as when a laptop's lid was closed: nobody is woken on the way.

        What became overdue is woken by the next ``run_due`` or ``advance``, late.
        """
        self._pass(length_micros(duration))

    def set_wall(self, when: datetime) -> None:
        """Correct the wall clock, either way: monotonic time stays. Alarms are looked at again by the next ``run_due``."""
        self._wall = to_micros(when)
