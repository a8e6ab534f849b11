"""A clock that moves only when it is told to, and only when nothing is in flight.

Owns the moves of a test's time: who is woken, and what has to end before the
next one is.

Promises that time never moves while the runtimes it is attached to have work in
flight, that sleepers wake one at a time in the order (due, room, name), each
seeing its own due time as now, and that a wait for something real is an error
which names it instead of a wrong jump or a hang, and so is a test that awaits what
no room will give: a call that does not end, a message that does not come, time
which nobody lets pass.

Must never guess from the event loop whether anything is going on: it asks the
runtimes, which count.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random  # noqa: TID251 - chance by a seed, which a test gives
from typing import Final, Literal, final

from anyio import Lock, create_task_group
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.instants import from_micros, length_micros, to_micros
from partyroom._native import Loop, OneShot, current_loop
from partyroom.errors import ClockStalledError, EndlessTimersError, ExpectationError
from partyroom.protocols import Clock
from partyroom.runtime import Runtime
from partyroom.testing._counted_work import AllWork, CountedWork, RuntimeWork
from partyroom.testing._stall_watch import StallWatch, StandstillWatch
from partyroom.testing._timeline import Sleeper, Timeline, aware, micros_ahead
from partyroom.testing.timers import BACKGROUND, Fired, Pending
from partyroom.types import RoomKey, Timer

__all__ = ["FakeClock"]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)


@final
class FakeClock(Clock):
    """A clock for tests: thirty days pass in a millisecond.

    Hand it to a runtime, and :meth:`attach` that runtime; a :class:`~partyroom.testing.Harness` does both. ``start`` is
    the first wall time. Work in flight that does not go on for ``stall_timeout`` real seconds is a
    :class:`ClockStalledError`, and so is, unless ties are shuffled, a call or a client's ``receive`` that is awaited as
    long while nothing goes on and nobody moves this clock. A room for which more than ``max_timers`` timers ring without
    time going on is an :class:`EndlessTimersError`. Of what is due at one instant, the order is (room, kind, name), or
    with ``ties="shuffle"`` any order that ``seed`` decides.
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
        self._line = Timeline(aware(start), Random(seed) if ties == "shuffle" else None)  # noqa: S311 - an order, no secret
        self._loop: Loop | None = None
        self._max_timers = max_timers
        self._woken: set[Sleeper] = set()
        """Whose task was woken, and has not gone on yet; but for those that a runtime counts."""
        self._settling: list[OneShot[None]] = []
        """Where those wait who wait for that; a test may settle in one task while time moves in another."""
        self._work = AllWork()
        self._watch = StallWatch(stall_timeout, self._describe, self._stalled)
        # It may wake a task of its own, which an order that a seed decides must not depend on.
        self._standstill = (
            StandstillWatch(stall_timeout, lambda: self._watch.steps + self._events, self._give_up_waits)
            if ties == "key"
            else None
        )
        self._moving: Lock | None = None
        self._changed: OneShot[None] | None = None
        self._events = 0
        """How often an event of a room has begun or ended, or code of the test has begun to wait for one.

        Counted apart: rooms that call each other for ever do go on, and a test that settles is to hear of it.
        """
        self.fired: list[Fired] = []
        """Who was woken, in order, since the beginning."""

    @override
    def __repr__(self) -> str:
        return f"<FakeClock at {self.now().isoformat()}>"

    # --- what a runtime sees -------------------------------------------------

    @override
    def now(self) -> datetime:
        return self._line.now

    @override
    def monotonic(self) -> float:
        return self._line.monotonic / 1_000_000

    @override
    async def sleep_until(self, when: datetime, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - a constant value
        await self._sleep(to_micros(when), timer, wall=True)

    @override
    async def sleep(self, duration: timedelta, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - a constant value
        await self._sleep(self._line.monotonic + length_micros(duration), timer, wall=False)

    async def _sleep(self, due: int, timer: Timer, *, wall: bool) -> None:
        # Also for a time that has come: whose turn it is, is this clock's to say.
        sleeper = self._add(due, timer, wall=wall)
        here = self._here()
        if self._standstill is not None:
            self._standstill.begin(here)
        shot: OneShot[None] = here.one_shot()
        sleeper.shot = shot
        try:
            await shot
        finally:
            if shot.done:
                self._go_on(sleeper)
            else:
                self._line.sleepers.remove(sleeper)

    def _go_on(self, sleeper: Sleeper) -> None:
        if sleeper not in self._woken:
            # Counted by its runtime since it was called.
            return
        self._woken.remove(sleeper)
        settling, self._settling = self._settling, []
        for shot in settling:
            shot.set(None)

    def call_at(self, when: datetime, timer: Timer, call: Callable[[], None]) -> Callable[[], None]:
        """Have ``call()`` called at a wall time, by this clock itself; what is given back cancels it."""
        sleeper = self._add(to_micros(when), timer, wall=True)
        sleeper.call = call
        return partial(self._forget, sleeper)

    def _add(self, due: int, timer: Timer, *, wall: bool) -> Sleeper:
        sleeper = self._line.add(due, timer, wall=wall)
        self._watch.steps += 1
        self._change()
        return sleeper

    def _here(self) -> Loop:
        """Give the loop that runs here; a clock may outlive one."""
        if self._loop is None or not self._loop.is_running_here():
            self._loop = current_loop()
        return self._loop

    def _forget(self, sleeper: Sleeper) -> None:
        if sleeper in self._line.sleepers:
            self._line.sleepers.remove(sleeper)

    # --- whose work it waits for ---------------------------------------------

    def attach(self, runtime: Runtime) -> None:
        """Let a runtime hold time back while it has work in flight. A harness does this by itself."""
        self.attach_work(runtime, RuntimeWork(runtime))

    def attach_work(self, key: object, work: CountedWork) -> None:
        """Let anything that counts its work hold time back."""
        self._work.attach(key, work)

    def detach(self, key: object) -> None:
        """Let a runtime no longer hold time back; harmless if it never did."""
        self._work.detach(key)

    def event_went_on(self) -> None:
        """Hear that an event of a room has begun or ended: whoever waits in the test may still be answered."""
        self._events += 1

    def watch_waits(self) -> None:
        """Watch whoever waits for a room from now on, until the runtimes that are attached now end."""
        self._work.when_awaited(self._test_waits)

    def _test_waits(self) -> None:
        self._events += 1
        if self._standstill is not None:
            self._standstill.begin(self._here())
        self._change()

    def _describe(self) -> list[str]:
        return self._work.describe() or ["a task that slept on the clock was woken, and has not gone on"]

    # --- what a test does ----------------------------------------------------

    def pending(self) -> list[Pending]:
        """Give what waits in memory for its time, in order: who sleeps on the clock, and what waits behind that.

        Of alarms it is the next one only, since the others wait in the backend: see :meth:`Harness.pending`.
        """
        found = [
            Pending(from_micros(self._line.wall + self._line.left(each)), *each.timer)
            for each in self._line.sleepers
            if self._work.is_meant(each.timer, each.due)
        ]
        # What a runtime's sleeper sleeps for is also what waits first behind it.
        return sorted({*found, *self._work.pending()}, key=lambda each: each.rank)

    async def settle(self) -> None:
        """Wait until nothing is in flight. Time stands still, and nothing is woken.

        Tasks of the test that were started or woken just before have their turn first; what they wait for besides this
        library is not counted. Raises :class:`ClockStalledError` if nothing goes on for ``stall_timeout`` real seconds.
        """
        # Two turns: on trio, a task that was started before this one waits may run after it in the first.
        await checkpoint()
        await checkpoint()
        await self._watch.see_through(self._settle)

    async def _settle(self) -> None:
        while True:
            if self._woken:
                gone_on: OneShot[None] = self._here().one_shot()
                self._settling.append(gone_on)
                await gone_on
            # Also if it looks idle: what was cancelled just now is seen by waiting only.
            await self._work.wait_idle()
            if not self._woken and self._work.is_idle():
                return
            self._watch.steps += 1

    async def ends(self, wait: Callable[[], Awaitable[None]]) -> bool:
        """Await what a room is to bring, such as a message; ``False`` if nothing goes on for ``stall_timeout`` real seconds.

        ``wait()`` is cancelled, and begun again, now and then: it must lose nothing by that.
        """
        return await self._watch.ends(wait)

    @property
    def patience(self) -> float:
        """``stall_timeout``, in real seconds."""
        return self._watch.patience

    def _stalled(self) -> ClockStalledError:
        what = "\n  ".join(self._describe())
        waits = "\n  ".join(map(str, self.pending())) or "nothing"
        message = (
            f"time cannot move: expected everything to end, or to wait on this clock, within {self.patience:g} real "
            f"seconds\n still in flight at {self.now().isoformat()} (virtual):\n  {what}\n pending:\n  {waits}"
        )
        return ClockStalledError(message)

    def _give_up_waits(self) -> None:
        """Tell a test that awaits what no room will give it: it would hang."""
        if self._woken or (self._moving is not None and self._moving.locked()):
            # Who moves time looks for himself whether anything goes on.
            return
        if not self._work.is_idle():
            for event in self._work.awaited_calls():
                event.reply.fail(self._stalled())
            for connection in self._work.awaited_inboxes():
                connection.inbox.fail(self._stalled())
            return
        for event in self._work.calls_that_sleep():
            event.reply.fail(self._stands_still(f"{event} to end", "make the call"))
        for connection in self._work.awaited_inboxes():
            connection.inbox.fail(self._stands_still(f"a message for {connection}", "receive it"))

    def _stands_still(self, expected: str, how: str) -> ClockStalledError:
        waits = "\n  ".join(map(str, self.pending())) or "nothing"
        message = (
            f"time stands still: expected {expected}, and nobody has let time pass for {self.patience:g} real "
            f"seconds at {self.now().isoformat()} (virtual): do so in another task, or {how} inside "
            f"`async with harness.auto()`\n pending:\n  {waits}"
        )
        return ClockStalledError(message)

    async def advance(self, duration: timedelta) -> None:
        """Let time pass: settle, then wake whatever is due on the way, up to and including the end, settling after each.

        What is armed on the way, and due by the end, is woken as well. Each sleeper sees its own due time as now.
        """
        micros = micros_ahead(duration)
        async with self._lock():
            target = self._line.monotonic + micros
            await self.settle()
            await self._move(target)

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until a wall time; as :meth:`advance`."""
        await self.advance(aware(when) - self.now())

    async def run_due(self) -> None:
        """Wake whatever is due now, one at a time, and settle."""
        await self.advance(timedelta())

    async def advance_to_next(self) -> Fired | None:
        """Let time pass to the next sleeper, wake it alone, and settle; ``None`` if nobody sleeps."""
        async with self._lock():
            await self.settle()
            first = len(self.fired)

            async def ring_one() -> None:
                await self._settle()
                # Nobody is woken, and time stands still, if all that is slept for was deleted or cancelled since.
                while len(self.fired) == first and self.pending() and (sleeper := self._line.next(None)) is not None:
                    self._ring(sleeper)
                    await self._settle()

            await self._watch.see_through(ring_one)
            return self.fired[first] if len(self.fired) > first else None

    async def run_until_idle(self, *, limit: timedelta = timedelta(days=366)) -> list[Fired]:
        """Let time pass until nobody waits for it any more; give who was woken.

        Idle rooms that would leave memory, and deadlines, do not keep it going. Raises :class:`EndlessTimersError` if
        that takes longer than ``limit`` of virtual time, or more than ``max_timers`` of one room.
        """
        async with self._lock():
            await self.settle()
            first, target = len(self.fired), self._line.monotonic + length_micros(limit)
            rings: dict[RoomKey | None, int] = {}

            async def ring_all() -> None:
                await self._settle()
                while self._has_purpose():
                    sleeper = self._line.next(target - self._line.monotonic)
                    if sleeper is None and not self._line.sleepers:
                        break
                    if sleeper is None:
                        raise self._endless(f"still pending after {limit}", self.pending()[0].room)
                    self._ring_together(sleeper, rings)
                    await self._settle()

            await self._watch.see_through(ring_all)
            return self.fired[first:]

    def _has_purpose(self) -> bool:
        """Say whether anybody waits for time to pass who is not just idle."""
        for each in self._line.sleepers:
            if each.timer.kind not in BACKGROUND and self._work.is_meant(each.timer, each.due):
                return True
        # An alarm that is overdue, and has nobody who sleeps for it, waits for something else than time: a missing handler.
        return any(
            not each.is_background and (each.due > self._line.now or each.kind != "alarm") for each in self.pending()
        )

    async def expect_quiet(self, duration: timedelta) -> None:
        """Let time pass, and raise an ``AssertionError`` if anybody was woken but rooms that left memory, and deadlines."""
        first = len(self.fired)
        await self.advance(duration)
        woken = [each for each in self.fired[first:] if not each.is_background]
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
        micros = micros_ahead(duration)
        async with self._lock():
            await self.settle()
            self._line.pass_by(micros)
            await self._move(self._line.monotonic)

    def set_wall(self, when: datetime) -> None:
        """Correct the wall clock, either way; monotonic time stays. What is overdue then rings at the next move, or ``run_due``."""
        self._line.set_wall(aware(when))
        self._change()

    # --- how it moves --------------------------------------------------------

    def _lock(self) -> Lock:
        # One move at a time: two tasks of a test that move one clock take turns.
        if self._moving is None:
            self._moving = Lock()
        return self._moving

    async def _move(self, target: int) -> None:
        rings: dict[RoomKey | None, int] = {}

        async def ring_all() -> None:
            await self._settle()
            while (sleeper := self._line.next(target - self._line.monotonic)) is not None:
                if self._line.left(sleeper):
                    rings.clear()
                self._ring_together(sleeper, rings)
                await self._settle()

        await self._watch.see_through(ring_all)
        self._watch.steps += 1
        self._line.pass_by(target - self._line.monotonic)

    def _ring_together(self, sleeper: Sleeper, rings: dict[RoomKey | None, int]) -> None:
        """Ring one, and as a seed decides alarms of that instant: in earnest no room waits for what another one begins."""
        ringing: Sleeper | None = sleeper
        while ringing is not None:
            self._count(rings, ringing)
            self._ring(ringing)
            ringing = self._line.next_together()

    def _count(self, rings: dict[RoomKey | None, int], sleeper: Sleeper) -> None:
        room = sleeper.timer.room
        number = rings[room] = rings.get(room, 0) + 1
        if number > self._max_timers:
            raise self._endless(f"more than max_timers={self._max_timers} of {sleeper.timer.kind!r}", room)

    def _endless(self, seen: str, room: RoomKey | None) -> EndlessTimersError:
        message = (
            f"{room or 'this test'}: expected an end of its timers, and saw none: {seen}, at {self.now().isoformat()} "
            f"(virtual): does it arm itself again and again?\n pending:\n  {self._pending_lines()}"
        )
        return EndlessTimersError(message)

    def _pending_lines(self) -> str:
        return "\n  ".join(map(str, self.pending()[:20])) or "nothing"

    def _ring(self, sleeper: Sleeper) -> None:
        self._watch.steps += 1
        self._line.pass_by(self._line.left(sleeper))
        self._line.sleepers.remove(sleeper)
        if self._work.is_meant(sleeper.timer, sleeper.due):
            self.fired.append(Fired(self.now(), *sleeper.timer))
        if sleeper.call is not None:
            sleeper.call()
        if sleeper.shot is not None:
            if not self._work.is_called(sleeper.timer):
                self._woken.add(sleeper)
            sleeper.shot.set(None)

    # --- how it moves by itself ----------------------------------------------

    @asynccontextmanager
    async def auto(self, *, limit: timedelta = timedelta(days=366)) -> AsyncGenerator[None]:
        """Let time pass by itself inside the block, whenever nothing is in flight and code of the test waits for a room.

        That is: for a reply, a message, or on this clock. While it waits for anything else, time stands still. Raises
        :class:`EndlessTimersError` out of the block if more than ``limit`` of virtual time passes, or none while a room rings
        again and again.
        """
        self.watch_waits()
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._move_on_demand, self._line.monotonic + length_micros(limit), limit)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The body's own error leaves as it is, and so does the mover's.
            raise (group.exceptions[0] if len(group.exceptions) == 1 else group) from None

    async def _move_on_demand(self, target: int, limit: timedelta) -> None:
        rings: dict[RoomKey | None, int] = {}
        while True:
            async with self._lock():
                await self.settle()
                moves = bool(self._line.sleepers) and self._is_awaited()
                if moves:
                    sleeper = self._line.next(target - self._line.monotonic)
                    if sleeper is None:
                        raise self._endless(f"somebody still waits after {limit}", self.pending()[0].room)
                    if self._line.left(sleeper):
                        rings.clear()
                    self._ring_together(sleeper, rings)
            if not moves:
                self._changed = self._here().one_shot()
                await self._changed.wait()

    def _is_awaited(self) -> bool:
        """Say whether code of the test waits for a room, or on this clock."""
        sleepers = self._line.sleepers
        return self._work.is_awaited() or any(each.timer.room is None and not each.timer.kind for each in sleepers)

    def _change(self) -> None:
        if self._changed is not None:
            self._changed.set(None)
