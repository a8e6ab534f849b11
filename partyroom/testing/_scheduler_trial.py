"""One case of the scheduler's contract, on one scheduler: the rooms that it wakes, and the words for what goes wrong.

Owns a world in small: stored alarms, the rooms that ring them and answer, the
time, and the list of who was woken when.

Promises that a wake is answered as a runtime answers it, that time moves only
when a case moves it (or goes on by itself, for a scheduler of real time), and
that a wake from another thread, or from one that has ended, is noticed.

Must never know the clauses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from itertools import groupby
from threading import get_ident
from typing import Final, Protocol, final

import attrs
from anyio import (
    CancelScope,
    Event,
    TaskInfo,
    create_task_group,
    get_cancelled_exc_class,
    get_running_tasks,
    move_on_after,  # noqa: TID251 - what lives on real time is judged in real time
    sleep,  # noqa: TID251
)
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from partyroom.clock import SystemClock
from partyroom.errors import BackendError, BrokenContractError
from partyroom.protocols import AlarmScheduler, Clock, Upcoming
from partyroom.testing._contract_suite import found_by, shown_apart, shown_error
from partyroom.testing._hand_clock import HandClock, settle
from partyroom.types import RoomKey

__all__ = ["SchedulerHooks", "SchedulerTrial", "judged_scheduler"]

LOOK: Final = 0.001
"""How often it is looked for a wake that may come from anywhere, in seconds."""
QUIET: Final = 0.01
"""For how long nothing more must come after the last wake, in seconds of real time."""
REAL: Final = SystemClock()
GOES_ON: Final = "it goes on"


class SchedulerHooks(Protocol):
    """Where the scheduler of a case comes from: see :class:`~partyroom.testing.scheduler_contract.AlarmSchedulerContract`."""

    patience: float
    on_real_time: bool
    tick: timedelta
    latest: timedelta

    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        """Make a scheduler that lives on a clock."""
        ...

    def opened(self, scheduler: AlarmScheduler, /) -> AbstractAsyncContextManager[object]:
        """Have open whatever a scheduler needs to run."""
        ...


@attrs.frozen
class _Woken:
    at: datetime
    room: RoomKey
    told: datetime
    """When the scheduler was last told of the room before."""


@final
class SchedulerTrial:
    """The scheduler that a case judges, and the world around it. Times are in ticks from the beginning of the case."""

    def __init__(self, hooks: SchedulerHooks, clause: str, stretch: int) -> None:
        self._hooks = hooks
        self._clause = clause
        # One that may be late needs ticks that are longer than that, also where a case lets no time pass more than once.
        self._tick = hooks.tick * stretch + 3 * hooks.latest
        self._steps = 0
        self._hand = None if hooks.on_real_time else HandClock(self._count)
        self.clock: Clock = self._hand or REAL
        self._begin = self.clock.now()
        self.scheduler = hooks.make_scheduler(self.clock)
        self._rows: dict[tuple[RoomKey, str], datetime] = {}
        self._woken: list[_Woken] = []
        self._seen = 0
        self._told: dict[RoomKey, datetime] = {}
        self._started = self._begin
        self._thread = get_ident()
        self._strays = 0
        self._tasks: TaskGroup | None = None
        self._end = GOES_ON
        self.silent: set[RoomKey] = set()
        """Rooms that do not answer by themselves."""
        self.answers_at_once = False
        """Whether a room answers before ``wake`` has returned."""
        self.failures = 0
        """How many reads fail from now on."""
        self.asked = 0
        """How many alarms were asked for at once, at most."""
        self.left: list[str] = []
        """The tasks that were left when it had ended."""
        self.gate: Event | None = None
        """What the answers of reads wait for, once they are put together."""

    # --- time ----------------------------------------------------------------

    @property
    def can_jump(self) -> bool:
        """Whether the wall clock can be set."""
        return self._hand is not None

    def at(self, ticks: float) -> datetime:
        """Give a time."""
        return self._begin + self._tick * ticks

    async def until(self, ticks: float) -> None:
        """Let time pass, as far as the latest wake of what is due then."""
        left = max(timedelta(), self.at(ticks) - self.clock.now()) + self._hooks.latest
        if self._hand is None:
            await sleep(left.total_seconds())
        else:
            await self._hand.move(left)

    async def pass_by(self, ticks: float) -> None:
        """Let a length of time pass, whatever the wall clock shows."""
        assert self._hand is not None
        await self._hand.move(self._tick * ticks)

    def set_wall(self, ticks: float) -> None:
        """Correct the wall clock."""
        assert self._hand is not None
        self._hand.set_wall(self.at(ticks))

    async def settle(self) -> None:
        """Let the scheduler come to rest; time stands still."""
        await settle(self._count)
        if self._hand is None:
            await sleep(QUIET)

    def _count(self) -> int:
        return self._steps

    # --- the rooms -----------------------------------------------------------

    def store(self, room: RoomKey, ticks: float, name: str = "") -> None:
        """Store an alarm that nobody is told of."""
        self._rows[room, name] = self.at(ticks)

    def set(self, room: RoomKey, ticks: float, name: str = "") -> None:
        """Set an alarm, as a commit of the room does."""
        self.store(room, ticks, name)
        self._tell(room)

    def set_for(self, room: RoomKey, when: datetime) -> None:
        """Set an alarm for a time that need not be near."""
        self._rows[room, ""] = when
        self._tell(room)

    def forget(self, room: RoomKey) -> None:
        """Drop the stored alarms of a room, which nobody is told of."""
        self._rows = {key: due for key, due in self._rows.items() if key[0] != room}

    def delete(self, room: RoomKey) -> None:
        """Delete the alarms of a room."""
        self.forget(room)
        self._tell(room)

    def answer(self, room: RoomKey) -> None:
        """Ring what is due first in a room, and say what comes next."""
        first = min(((due, key) for key, due in self._rows.items() if key[0] == room), default=None)
        if first is not None and first[0] <= self.clock.now():
            del self._rows[first[1]]
        self._tell(room)

    def _tell(self, room: RoomKey) -> None:
        self._steps += 1
        self._told[room] = self.clock.now()
        self.scheduler.changed(room, min((due for key, due in self._rows.items() if key[0] == room), default=None))

    # --- what the scheduler is given -----------------------------------------

    def _wake(self, room: RoomKey) -> None:
        if get_ident() != self._thread:
            self._strays += 1
            return
        self._steps += 1
        self._woken.append(_Woken(self.clock.now(), room, self._told.get(room, self._begin)))
        if room in self.silent or self._tasks is None:
            return
        if self.answers_at_once:
            self.answer(room)
        else:
            self._tasks.start_soon(self._answer_soon, room)

    async def _answer_soon(self, room: RoomKey) -> None:
        await checkpoint()
        self.answer(room)

    async def _upcoming(self, after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        self._steps += 1
        self.asked = max(self.asked, limit)
        await checkpoint()
        if self.failures:
            self.failures -= 1
            message = "the disk is away"
            raise BackendError(message)
        rows = sorted(Upcoming(due, *key) for key, due in self._rows.items())
        found = [row for row in rows if after is None or row > after][:limit]
        if self.gate is not None:
            await self.gate.wait()
        return found

    # --- its life ------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the scheduler inside the block; expect that it runs until the block's end, and not longer."""
        error: Exception | None = None
        before = {task.id for task in get_running_tasks()}
        async with self._hooks.opened(self.scheduler), create_task_group() as self._tasks:
            scope, over = CancelScope(), Event()
            self._tasks.start_soon(self._run, scope, over)
            try:
                await self.settle()
                yield
                self.expect("running it: how `run` has ended", GOES_ON, self._end)
                await self._stop(scope, over)
            except Exception as found:  # noqa: BLE001 - raised below, out of the task group's wrapping
                error = found
            self._tasks.cancel_scope.cancel()
        self._tasks = None
        if error is not None:
            raise error
        await self.settle()
        self.left = [_name(task) for task in get_running_tasks() if task.id not in before]

    async def _run(self, scope: CancelScope, over: Event) -> None:
        self._end = GOES_ON
        self._started = self.clock.now()
        try:
            with scope:
                await self.scheduler.run(self._wake, self._upcoming)
        except get_cancelled_exc_class():
            raise
        except Exception as error:  # noqa: BLE001 - told when the case looks
            self._end = shown_error(error)
        else:
            self._end = "it has returned"
        finally:
            over.set()

    async def _stop(self, scope: CancelScope, over: Event) -> None:
        scope.cancel()
        with move_on_after(self._hooks.patience):
            await over.wait()
        has_ended = over.is_set()
        if self._hand is not None:
            # What would not let go of the clock can leave now, so that this finding is told.
            self._hand.let_go()
        self.expect("cancelling it: has `run` ended", expected=True, seen=has_ended)
        self.expect("cancelling it: how `run` has ended", "it has returned", self._end)

    # --- judging -------------------------------------------------------------

    def seconds_of(self, call: Callable[[], object]) -> float:
        """Give how long a call takes, in seconds of real time."""
        begin = REAL.monotonic()
        call()
        return REAL.monotonic() - begin

    def expect(self, when: str, expected: object, seen: object) -> None:
        """Compare; raise :class:`BrokenContractError` if they differ."""
        if expected != seen:
            raise self._finding(when, *shown_apart(expected, seen))

    def _finding(self, when: str, expected: str, seen: str) -> BrokenContractError:
        """Tell a finding, with the time that it was found at and what the scheduler waited for."""
        at = f"{self.clock.now().isoformat()} ({'real' if self._hand is None else 'virtual'})"
        pending = [
            f"{due.isoformat()} {room} alarm {name}".rstrip() for (room, name), due in sorted(self._rows.items())
        ]
        if self._hand is not None:
            pending += [f"{due.isoformat()} somebody sleeps on the clock" for due in self._hand.sleepers()]
        return BrokenContractError(self._clause, f"{when}, at {at}", expected, seen, tuple(pending))

    async def expect_woken(self, when: str, *expected: tuple[float, RoomKey], late: float = 0) -> None:
        """Expect that exactly these rooms, due then, were woken since this was last asked: the earliest first, none early.

        None may be later, on a clock that stands still, than ``late`` ticks after it was due and the scheduler could know.
        """
        due = sorted(expected)
        with move_on_after(self._hooks.patience):
            # A wake may come from anywhere, and be no event that could be waited for.
            while len(self._woken) - self._seen < len(due) and not self._strays and self._end == GOES_ON:  # noqa: ASYNC110
                await sleep(LOOK)
        await self.settle()
        if self._tasks is not None:
            self.expect(f"{when}: how `run` has ended", GOES_ON, self._end)
        self.expect(f"{when}: wakes from another thread than the loop's", 0, self._strays)
        seen = self._in_order(self._woken[self._seen :], due)
        self._seen = len(self._woken)
        self.expect(
            f"{when}: rooms woken, with latest={self._hooks.latest}",
            [str(room) for _, room in due],
            [str(each.room) for each in seen],
        )
        for (ticks, room), woken in zip(due, seen, strict=True):
            self._expect_in_time(f"{when}: the time of {room}", self.at(ticks), woken, self._tick * late)

    def _expect_in_time(self, when: str, due: datetime, woken: _Woken, late: timedelta) -> None:
        if woken.at < due:
            raise self._finding(when, "its due time or after", f"{due - woken.at} early")
        latest = max(due, self._started, woken.told) + self._hooks.latest + late
        if self._hand is not None and woken.at > latest:
            raise self._finding(when, f"at most {latest - due} late", f"{woken.at - due} late")

    def _in_order(self, woken: Sequence[_Woken], due: Sequence[tuple[float, RoomKey]]) -> list[_Woken]:
        """Give them as they came, but those that are due at one instant by their names: these may come in any order."""
        left = list(woken)
        seen: list[_Woken] = []
        for _, alike in groupby(due, lambda each: each[0]):
            number = len(list(alike))
            seen += sorted(left[:number], key=lambda each: each.room)
            del left[:number]
        return seen + left


def _name(task: TaskInfo) -> str:
    """Say which function a task runs."""
    return getattr(task.coro, "__qualname__", task.name or "")


async def judged_scheduler(
    hooks: SchedulerHooks, clause: str, case: Callable[[SchedulerTrial], Awaitable[None]], stretch: int
) -> BrokenContractError | None:
    """Run a case on a new scheduler; give what it found wrong."""

    async def live() -> None:
        await case(SchedulerTrial(hooks, clause, stretch))

    # The case's own waits end earlier, each with better words.
    return await found_by(3 * stretch * hooks.patience, clause, live)
