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

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random  # noqa: TID251 - chance by a seed, which a test gives
from typing import Final, Literal, final

import attrs
from anyio import CancelScope, Lock, create_task_group
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.instants import from_micros, length_micros, to_micros
from partyroom._native import Loop, OneShot, current_loop
from partyroom.errors import ClockStalledError, EndlessTimersError, ExpectationError
from partyroom.protocols import Clock
from partyroom.runtime import Runtime
from partyroom.testing._counted_work import CountedWork, RuntimeWork
from partyroom.types import RoomKey, Timer

__all__ = ["FakeClock", "Fired", "Pending"]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
BACKGROUND: Final = frozenset({"idle", "timeout"})
"""Timers whose ring is no purpose of anybody's: rooms that will leave memory, deadlines that will not be needed."""
NOBODY: Final = RoomKey("", "")


@attrs.frozen
class Fired:
    """One sleeper that was woken."""

    at: datetime
    """The wall time at which it was woken, in UTC."""
    room: RoomKey | None
    kind: str
    """What it slept for: ``alarm``, ``sleep`` (on ``ctx.clock``), ``timeout``, ``idle`` (a room that may leave memory) ..."""
    name: str

    @override
    def __str__(self) -> str:
        return " ".join(filter(None, (self.at.isoformat(), str(self.room or ""), self.kind, self.name)))


@attrs.frozen
class Pending:
    """Something that will happen when time passes."""

    due: datetime
    """When, in UTC; for what waits on monotonic time, if nobody corrects the wall clock."""
    room: RoomKey | None
    kind: str
    """As in :class:`Fired`."""
    name: str

    @property
    def is_background(self) -> bool:
        """Whether it is nobody's purpose: such as an idle room that will leave memory."""
        return self.kind in BACKGROUND

    @override
    def __str__(self) -> str:
        return " ".join(filter(None, (self.due.isoformat(), str(self.room or ""), self.kind, self.name)))


@final
class _Sleeper:
    """One task that sleeps on the clock, or something to be called."""

    __slots__ = ("call", "due", "rank", "shot", "timer", "wall")

    def __init__(self, due: int, timer: Timer, number: int, *, wall: bool) -> None:
        self.due = due
        self.timer = timer
        self.rank = (timer.room or NOBODY, timer.kind, timer.name, number)
        self.wall = wall
        self.shot: OneShot[None] | None = None
        """What the task waits for; ``None`` if nothing waits, and ``call`` is to be called."""
        self.call: Callable[[], None] | None = None


@final
class FakeClock(Clock):
    """A clock for tests: thirty days pass in a millisecond.

    Hand it to a runtime, and :meth:`attach` that runtime; a :class:`~partyroom.testing.Harness` does both. ``start`` is
    the first wall time. Work in flight that does not go on for ``stall_timeout`` real seconds is a
    :class:`ClockStalledError`; a room for which more than ``max_timers`` timers ring without time going on, an
    :class:`EndlessTimersError`. Of what is due at one instant, the order is (room, kind, name), or with
    ``ties="shuffle"`` any order that ``seed`` decides.
    """

    def __init__(
        self,
        start: datetime = START,
        *,
        stall_timeout: float = 5.0,
        max_timers: int = 10_000,
        ties: Literal["key", "shuffle"] = "key",
        seed: int = 0,
    ) -> None:
        if ties not in {"key", "shuffle"}:
            message = f"ties must be 'key' or 'shuffle', not {ties!r}"
            raise ValueError(message)
        if max_timers < 1:
            message = f"max_timers must be at least 1, not {max_timers}"
            raise ValueError(message)
        self._wall = to_micros(start)
        self._now = from_micros(self._wall)
        self._monotonic = 0
        self._loop: Loop | None = None
        self._max_timers = max_timers
        self._random = Random(seed) if ties == "shuffle" else None  # noqa: S311 - an order, no secret
        self._sleepers: list[_Sleeper] = []
        self._numbers = 0
        self._woken: dict[_Sleeper, OneShot[None]] = {}
        self._work: dict[object, CountedWork] = {}
        self._watch = _Watch(stall_timeout, self._describe)
        self._moving: Lock | None = None
        self._changed: OneShot[None] | None = None
        self.fired: list[Fired] = []
        """Who was woken, in order, since the beginning."""

    @override
    def __repr__(self) -> str:
        return f"<FakeClock at {self.now().isoformat()}>"

    # --- what a runtime sees -------------------------------------------------

    @override
    def now(self) -> datetime:
        return self._now

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
        sleeper = self._add(due, timer, wall=wall)
        shot: OneShot[None] = self._here().one_shot()
        sleeper.shot = shot
        try:
            await shot.wait()
        finally:
            if shot.done:
                self._woken.pop(sleeper).set(None)
            else:
                self._sleepers.remove(sleeper)

    def call_at(self, when: datetime, timer: Timer, call: Callable[[], None]) -> Callable[[], None]:
        """Have ``call()`` called at a wall time, by this clock itself; what is given back cancels it."""
        sleeper = self._add(to_micros(when), timer, wall=True)
        sleeper.call = call
        return partial(self._forget, sleeper)

    def _add(self, due: int, timer: Timer, *, wall: bool) -> _Sleeper:
        self._numbers += 1
        sleeper = _Sleeper(due, timer, self._numbers, wall=wall)
        self._sleepers.append(sleeper)
        self._change()
        return sleeper

    def _here(self) -> Loop:
        """Give the loop that runs here; a clock may outlive one."""
        if self._loop is None or not self._loop.is_running_here():
            self._loop = current_loop()
        return self._loop

    def _forget(self, sleeper: _Sleeper) -> None:
        if sleeper in self._sleepers:
            self._sleepers.remove(sleeper)

    # --- whose work it waits for ---------------------------------------------

    def attach(self, runtime: Runtime) -> None:
        """Let a runtime hold time back while it has work in flight. A harness does this by itself."""
        self.attach_work(runtime, RuntimeWork(runtime))

    def attach_work(self, key: object, work: CountedWork) -> None:
        """Let anything that counts its work hold time back."""
        self._work[key] = work

    def detach(self, key: object) -> None:
        """Let a runtime no longer hold time back; harmless if it never did."""
        self._work.pop(key, None)

    def _is_settled(self) -> bool:
        return not self._woken and all(work.is_idle() for work in self._work.values())

    def _describe(self) -> list[str]:
        lines = [line for work in self._work.values() for line in work.describe()]
        return lines or ["a task that slept on the clock was woken, and has not gone on"]

    # --- what a test does ----------------------------------------------------

    def pending(self) -> list[Pending]:
        """Give what waits in memory for its time, in order: who sleeps on the clock, and what waits behind that.

        Of alarms it is the next one only, since the others wait in the backend: see :meth:`Harness.pending`.
        """
        found = [
            Pending(from_micros(self._wall + self._left(each)), each.timer.room, each.timer.kind, each.timer.name)
            for each in self._sleepers
            if self._is_meant(each)
        ]
        for work in self._work.values():
            found += [Pending(due, timer.room, timer.kind, timer.name) for due, timer in work.pending_timers()]
            alarm = work.next_alarm()
            if alarm is not None:
                found.append(Pending(*alarm, "alarm", ""))
        # What a runtime's sleeper sleeps for is also what waits first behind it.
        return sorted(set(found), key=lambda each: (each.due, each.room or NOBODY, each.kind, each.name))

    async def settle(self) -> None:
        """Wait until nothing is in flight. Time stands still, and nothing is woken.

        Tasks of the test that were started or woken just before have their turn first; what they wait for besides this
        library is not counted. Raises :class:`ClockStalledError` if nothing goes on for ``stall_timeout`` real seconds.
        """
        # Two turns: on trio, a task that was started before this one waits may run after it in the first.
        with self._watched():
            await checkpoint()
            await checkpoint()
            await self._settle()

    @contextmanager
    def _watched(self) -> Generator[None]:
        """Have a wait in the block in which nothing goes on end as an error."""
        with self._watch.scope(self._here()) as scope:
            yield
        if scope.cancelled_caught:
            raise self._stalled()

    async def _settle(self) -> None:
        while not self._is_settled():
            self._watch.waits += 1
            for gone_on in tuple(self._woken.values()):
                await gone_on.wait()
            for work in tuple(self._work.values()):
                if not work.is_idle():
                    await work.wait_idle()

    def _stalled(self) -> ClockStalledError:
        what = "\n  ".join(self._describe())
        waits = "\n  ".join(map(str, self.pending())) or "nothing"
        message = (
            f"time cannot move: expected everything to end, or to wait on this clock, within {self._watch.patience} real "
            f"seconds\n still in flight at {self.now().isoformat()} (virtual):\n  {what}\n pending:\n  {waits}"
        )
        return ClockStalledError(message)

    async def advance(self, duration: timedelta) -> None:
        """Let time pass: settle, then wake whatever is due on the way, up to and including the end, settling after each.

        What is armed on the way, and due by the end, is woken as well. Each sleeper sees its own due time as now.
        """
        if duration < timedelta():
            message = f"time does not go back: {duration}"
            raise ValueError(message)
        async with self._lock():
            target = self._monotonic + length_micros(duration)
            await self.settle()
            await self._move(target)

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until a wall time; as :meth:`advance`."""
        await self.advance(when - self.now())

    async def run_due(self) -> None:
        """Wake whatever is due now, one at a time, and settle."""
        await self.advance(timedelta())

    async def advance_to_next(self) -> Fired | None:
        """Let time pass to the next sleeper, wake it alone, and settle; ``None`` if nobody sleeps."""
        async with self._lock():
            await self.settle()
            first = len(self.fired)
            with self._watched():
                while (sleeper := self._next(None)) is not None:
                    await self._wake(sleeper)
                    if len(self.fired) > first:
                        return self.fired[first]
            return None

    async def run_until_idle(self, *, limit: timedelta = timedelta(days=366)) -> list[Fired]:
        """Let time pass until nobody waits for it any more; give who was woken.

        Idle rooms that would leave memory, and deadlines, do not keep it going. Raises :class:`EndlessTimersError` if
        that takes longer than ``limit`` of virtual time, or more than ``max_timers`` of one room.
        """
        async with self._lock():
            await self.settle()
            first, target = len(self.fired), self._monotonic + length_micros(limit)
            rings: Counter[RoomKey | None] = Counter()
            with self._watched():
                while self._has_purpose():
                    sleeper = self._next(target - self._monotonic)
                    if sleeper is None and not self._sleepers:
                        break
                    if sleeper is None:
                        raise self._endless(f"still pending after {limit}", self.pending()[0].room)
                    self._count(rings, sleeper)
                    await self._wake(sleeper)
            return self.fired[first:]

    def _has_purpose(self) -> bool:
        """Say whether anybody waits for time to pass who is not just idle."""
        if any(each.timer.kind not in BACKGROUND and self._is_meant(each) for each in self._sleepers):
            return True
        # What is overdue, and has nobody who sleeps for it, waits for something else than time: a missing handler.
        return any(not each.is_background and each.due > self._now for each in self.pending())

    async def expect_quiet(self, duration: timedelta) -> None:
        """Let time pass, and raise an ``AssertionError`` if anybody was woken but rooms that left memory, and deadlines."""
        first = len(self.fired)
        await self.advance(duration)
        woken = [each for each in self.fired[first:] if each.kind not in BACKGROUND]
        if woken:
            raise ExpectationError(
                expected=f"nothing rings for {duration}",
                seen="\n".join(map(str, woken)),
                room=str(woken[0].room or ""),
                at=self.now().isoformat(),
                pending=tuple(map(str, self.pending())),
            )

    async def jump(self, duration: timedelta) -> None:
        """Let time leap, as when a laptop's lid was closed: nobody is woken on the way, what became overdue then rings, late."""
        if duration < timedelta():
            message = f"time does not go back: {duration}; see set_wall"
            raise ValueError(message)
        async with self._lock():
            await self.settle()
            self._pass(length_micros(duration))
            await self._move(self._monotonic)

    def set_wall(self, when: datetime) -> None:
        """Correct the wall clock, either way; monotonic time stays. What is overdue then rings at the next move, or ``run_due``."""
        self._wall = to_micros(when)
        self._now = from_micros(self._wall)
        self._change()

    # --- how it moves --------------------------------------------------------

    def _lock(self) -> Lock:
        # One move at a time: two tasks of a test that move one clock take turns.
        if self._moving is None:
            self._moving = Lock()
        return self._moving

    def _left(self, sleeper: _Sleeper) -> int:
        """Give how many microseconds are left; both lines pass at one speed."""
        return max(0, sleeper.due - (self._wall if sleeper.wall else self._monotonic))

    def _is_meant(self, sleeper: _Sleeper) -> bool:
        """Say whether a sleeper's ring is still meant to be: a scheduler looks up from a deleted alarm only when it wakes."""
        timer = sleeper.timer
        if timer.kind != "alarm" or timer.room is None or not self._work:
            return True
        return any(work.rings(timer.room, from_micros(sleeper.due)) for work in self._work.values())

    def _next(self, within: int | None) -> _Sleeper | None:
        """Give who is to be woken next, if that is within so many microseconds."""
        best: list[_Sleeper] = []
        shortest = within
        for sleeper in self._sleepers:
            left = self._left(sleeper)
            if shortest is None or left < shortest:
                best, shortest = [sleeper], left
            elif left == shortest:
                best.append(sleeper)
        if not best:
            return None
        in_order = sorted(best, key=lambda each: each.rank)
        return in_order[0] if self._random is None else self._random.choice(in_order)

    async def _move(self, target: int) -> None:
        rings: Counter[RoomKey | None] = Counter()
        with self._watched():
            while (sleeper := self._next(target - self._monotonic)) is not None:
                if self._left(sleeper):
                    rings.clear()
                self._count(rings, sleeper)
                await self._wake(sleeper)
        self._pass(target - self._monotonic)

    def _count(self, rings: Counter[RoomKey | None], sleeper: _Sleeper) -> None:
        room = sleeper.timer.room
        rings[room] += 1
        if rings[room] > self._max_timers:
            raise self._endless(f"more than max_timers={self._max_timers} of {sleeper.timer.kind!r}", room)

    def _endless(self, seen: str, room: RoomKey | None) -> EndlessTimersError:
        message = (
            f"{room or 'this test'}: expected an end of its timers, and saw none: {seen}, at {self.now().isoformat()} "
            f"(virtual): does it arm itself again and again?\n pending:\n  {self._pending_lines()}"
        )
        return EndlessTimersError(message)

    def _pending_lines(self) -> str:
        return "\n  ".join(map(str, self.pending()[:20])) or "nothing"

    async def _wake(self, sleeper: _Sleeper) -> None:
        self._pass(self._left(sleeper))
        self._sleepers.remove(sleeper)
        if self._is_meant(sleeper):
            self.fired.append(Fired(self.now(), *sleeper.timer))
        if sleeper.call is not None:
            sleeper.call()
        if sleeper.shot is not None:
            self._woken[sleeper] = self._here().one_shot()
            sleeper.shot.set(None)
        await self._settle()

    def _pass(self, micros: int) -> None:
        if micros:
            self._wall += micros
            self._monotonic += micros
            self._now = from_micros(self._wall)

    # --- how it moves by itself ----------------------------------------------

    @asynccontextmanager
    async def auto(self, *, limit: timedelta = timedelta(days=366)) -> AsyncGenerator[None]:
        """Let time pass by itself inside the block, whenever nothing is in flight and code of the test waits for a room.

        That is: for a reply, a message, or on this clock. While it waits for anything else, time stands still. Raises
        :class:`EndlessTimersError` out of the block if more than ``limit`` of virtual time passes.
        """
        for work in self._work.values():
            work.when_awaited(self._change)
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._move_on_demand, self._monotonic + length_micros(limit), limit)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The body's own error leaves as it is, and so does the mover's.
            raise (group.exceptions[0] if len(group.exceptions) == 1 else group) from None
        finally:
            for work in self._work.values():
                work.when_awaited(None)

    async def _move_on_demand(self, target: int, limit: timedelta) -> None:
        while True:
            await self.settle()
            sleeper = self._next(target - self._monotonic)
            if not self._is_awaited() or not self._sleepers:
                self._changed = self._here().one_shot()
                await self._changed.wait()
            elif sleeper is None:
                raise self._endless(f"somebody still waits after {limit}", self.pending()[0].room)
            else:
                async with self._lock():
                    with self._watched():
                        await self._wake(sleeper)

    def _is_awaited(self) -> bool:
        return any(each.timer.room is None and not each.timer.kind for each in self._sleepers) or any(
            work.is_awaited() for work in self._work.values()
        )

    def _change(self) -> None:
        if self._changed is not None:
            self._changed.set(None)


@final
class _Watch:
    """Looks now and then whether what is waited for goes on; one look is armed at a time, however often is waited."""

    def __init__(self, patience: float, describe: Callable[[], list[str]]) -> None:
        if patience <= 0:
            message = f"stall_timeout must be positive, not {patience}"
            raise ValueError(message)
        self.patience = patience
        """In real seconds."""
        self._describe = describe
        self._scopes: list[CancelScope] = []
        self.waits = 0
        """How often was waited: what goes on, if nothing else does."""
        self._loop: Loop | None = None
        self._seen: tuple[int, list[str]] | None = None
        self._unchanged = 0

    @contextmanager
    def scope(self, loop: Loop) -> Generator[CancelScope]:
        """Open a scope for waits; it is cancelled when nothing goes on in it."""
        self.waits += 1
        with CancelScope() as scope:
            self._scopes.append(scope)
            self._arm(loop)
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    def _arm(self, loop: Loop) -> None:
        if self._loop is None or self._loop.token != loop.token:
            self._loop, self._unchanged = loop, 0
            loop.call_later(self.patience / 2, self._look)

    def _look(self) -> None:
        """Compare with the last look: two in a row that see the same see a stall."""
        loop, self._loop = self._loop, None
        if loop is None or not self._scopes:
            return
        seen = (self.waits, self._describe())
        self._unchanged = self._unchanged + 1 if seen == self._seen else 0
        self._seen = seen
        if self._unchanged < 2:  # noqa: PLR2004 - as the docstring says
            self._loop = loop
            loop.call_later(self.patience / 2, self._look)
            return
        for scope in self._scopes:
            scope.cancel()
