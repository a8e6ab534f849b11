"""Deliberately wrong schedulers, at least one for each clause of the contract, and each caught by that clause's case."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._native import current_loop
from partyroom.errors import BackendError, BrokenContractError
from partyroom.protocols import AlarmScheduler, Clock, Upcoming
from partyroom.testing.scheduler_contract import AlarmSchedulerContract
from partyroom.types import RoomKey
from tests.sizes import in_turn
from tests.testing.test_scheduler_contract import CASES, alarm_loop

M = TypeVar("M", bound=Callable[[Clock], AlarmScheduler])

MUTANTS: list[tuple[str, Callable[[Clock], AlarmScheduler]]] = []

Wake = Callable[[RoomKey], None]
Read = Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]]

SECOND = timedelta(seconds=1)


def breaks(*cases: str) -> Callable[[M], M]:
    """Say which cases must catch a wrong scheduler."""

    def register(mutant: M) -> M:
        MUTANTS.extend((f"test_{case}", mutant) for case in cases)
        return mutant

    return register


class Wrong(AlarmScheduler):
    """A right scheduler, to be made wrong."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.loop = alarm_loop(clock)

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        self.loop.changed(room, due)

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        await self.loop.run(wake, upcoming)


# --- in time -----------------------------------------------------------------


@breaks("at_its_time", "the_first_after_none", "far_away")
class HasNoPatience(Wrong):
    """Wakes a second early."""

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(room, None if due is None else due - SECOND)


@breaks("stored_before_it_runs", "overdue_at_the_start", "more_than_a_page", "runs_again")
class NeverReads(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        async def nothing(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            await checkpoint()
            return ()

        await super().run(wake, nothing)


@breaks("overdue_at_the_start", "in_due_order")
class LastInFirstOut(Wrong):
    """Wakes what is due together the wrong way round, and gathers for that."""

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        gathered: list[RoomKey] = []

        async def hand_on() -> None:
            while True:
                for _ in range(20):
                    await checkpoint()
                if len(gathered) > 1:
                    while gathered:
                        wake(gathered.pop())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hand_on)
            await super().run(gathered.append, upcoming)


@breaks("set_for_the_past")
class ForgetsThePast(Wrong):
    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(room, None if due is not None and due < self.clock.now() else due)


class Sleepy(AlarmScheduler):
    """Sleeps for the first alarm, and in its own way for the others: simple, and made wrong below."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.due: dict[RoomKey, datetime] = {}
        self.news = anyio.Event()

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        self.due.pop(room, None)
        if due is not None:
            self.due[room] = due
        self.hear()

    def hear(self) -> None:
        self.news.set()

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        for row in await upcoming(None, 10_000):
            self.due.setdefault(row.room, row.due)
        async with anyio.create_task_group() as tasks:
            while True:
                self.news = news = anyio.Event()
                if self.due:
                    tasks.start_soon(self.rouse, min(self.due.values()), news)
                await news.wait()
                now = self.clock.now()
                for room in sorted((room for room, due in self.due.items() if due <= now), key=self.due.__getitem__):
                    del self.due[room]
                    wake(room)

    async def rouse(self, when: datetime, news: anyio.Event) -> None:
        await self.sleep(when)
        news.set()

    async def sleep(self, when: datetime) -> None:
        await self.clock.sleep_until(when)


@breaks("the_first_after_none", "sooner_than_all_others", "moved_sooner")
class HearsNothingWhileItSleeps(Sleepy):
    @override
    def hear(self) -> None:
        return


@breaks("the_wall_clock_set_forward", "the_wall_clock_set_back")
class SleepsOnTheWrongClock(Sleepy):
    """Works out how long to sleep, and does not look at the wall clock again."""

    @override
    async def sleep(self, when: datetime) -> None:
        end = self.clock.monotonic() + (when - self.clock.now()).total_seconds()
        while (left := end - self.clock.monotonic()) > 0:
            await self.clock.sleep(timedelta(seconds=left))

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        for row in await upcoming(None, 10_000):
            self.due.setdefault(row.room, row.due)
        for room, due in self.due.items():
            await self.sleep(due)
            wake(room)
        await anyio.sleep_forever()


@breaks("far_away")
class CannotCountThatFar(Wrong):
    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(room, None if due is None else due + SECOND - SECOND)


@breaks("many_at_one_instant")
class OneForEachInstant(Wrong):
    """Holds its rooms by due time, and one of them for each."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.rooms: dict[datetime, RoomKey] = {}

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if due is not None and self.rooms.setdefault(due, room) != room:
            due = None
        super().changed(room, due)


# --- as told last ------------------------------------------------------------


@breaks("moved_later", "moved_again_and_again", "deleted", "deleted_and_set_again", "told_nothing_new")
class OnlyAdds(AlarmScheduler):
    """Starts a task for each alarm that it is told of, and takes nothing back."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: list[tuple[RoomKey, datetime]] = []
        self.news = anyio.Event()

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if due is not None:
            self.told.append((room, due))
            self.news.set()

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        self.told += [(row.room, row.due) for row in await upcoming(None, 10_000)]

        async def ring(room: RoomKey, due: datetime) -> None:
            await self.clock.sleep_until(due)
            wake(room)

        async with anyio.create_task_group() as tasks:
            while True:
                while self.told:
                    tasks.start_soon(ring, *self.told.pop())
                self.news = anyio.Event()
                await self.news.wait()


@breaks("changed_before_it_runs")
class DeafBeforeItRuns(Sleepy):
    """Keeps the first that it is told before it runs, and nothing of what is told then."""

    runs = False

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if self.runs:
            super().changed(room, due)
        elif due is not None:
            self.due.setdefault(room, due)

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        self.runs = True
        await super().run(wake, upcoming)


@breaks("rooms_are_told_apart")
class PutsNamesTogether(Wrong):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.rooms: dict[str, RoomKey] = {}

    def known(self, room: RoomKey) -> RoomKey:
        return self.rooms.setdefault(f"{room.party}/{room.id}", room)

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(self.known(room), due)


@breaks("rooms_are_told_apart")
class IgnoresCase(Wrong):
    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(RoomKey(room.party.lower(), room.id), due)


@breaks("changed_returns_at_once")
class TakesItsTime(Wrong):
    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        threading.Event().wait(0.001)
        super().changed(room, due)


@breaks("changed_returns_at_once", "told_nothing_new")
class Raises(Wrong):
    """Raises at the second change of a room."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.rooms: set[RoomKey] = set()

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if room in self.rooms:
            raise KeyError(room)
        self.rooms.add(room)
        super().changed(room, due)


# --- once for each answer ----------------------------------------------------


@breaks("each_alarm_of_a_room", "an_answer_within_wake", "more_than_a_page", "generated_sequences")
class OneAlarmForEachRoom(Wrong):
    """Takes a room that has rung for one that has no more alarms."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.rung: set[RoomKey] = set()

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(room, None if room in self.rung else due)

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        def wake_once(room: RoomKey) -> None:
            self.rung.add(room)
            wake(room)

        await super().run(wake_once, upcoming)


@breaks("an_answer_that_has_passed")
class ForgetsAnAnswerOfThePast(ForgetsThePast):
    pass


@breaks("an_answer_within_wake")
class ForgetsAfterTheWake(Wrong):
    """Takes a room off its list when the wake has returned, and the answer with it."""

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        def wake_and_forget(room: RoomKey) -> None:
            wake(room)
            self.changed(room, None)

        await super().run(wake_and_forget, upcoming)


@breaks("no_second_wake_before_the_answer", "an_answer_counts_more_than_what_is_stored")
class Polls(AlarmScheduler):
    """Looks every second for what is due in the store, and listens to nobody."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        return

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        while True:
            for row in await upcoming(None, 10_000):
                if row.due <= self.clock.now():
                    wake(row.room)
            await self.clock.sleep(SECOND)


@breaks("a_slow_room_holds_up_nobody")
class OneAfterAnother(Wrong):
    """Wakes a room when the one before it has answered."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.loop._max_waking = 1


@breaks("wakes_in_the_loop")
class WakesFromAThread(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        def wake_elsewhere(room: RoomKey) -> None:
            thread = threading.Thread(target=wake, args=(room,))
            thread.start()
            thread.join()

        await super().run(wake_elsewhere, upcoming)


# --- reading -----------------------------------------------------------------


@breaks("more_than_a_page")
class ReadsOnePage(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        async def first_page(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            return await upcoming(after, limit) if after is None else ()

        await super().run(wake, first_page)


@breaks("more_than_a_page")
class ReadsOneLargePage(Sleepy):
    """Takes a page of a thousand for all that there is."""

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        async def large_page(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            return await upcoming(after, 1000)

        await super().run(wake, large_page)


@breaks("changed_while_it_reads")
class BelievesWhatItReads(Sleepy):
    """Takes what it reads for newer than what it is told."""

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        rows = await upcoming(None, 10_000)
        self.due |= {row.room: row.due for row in rows}

        async def nothing(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            await checkpoint()
            return ()

        await super().run(wake, nothing)


@breaks("a_read_that_fails")
class EndsWithTheStore(Sleepy):
    """Lets the error of a read out of ``run``."""


@breaks("a_read_that_fails")
class TakesAFailureForNothing(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        async def all_is_well(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            try:
                return await upcoming(after, limit)
            except Exception:
                return ()

        await super().run(wake, all_is_well)


@breaks("a_read_that_fails")
class TriesAgainAtOnce(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        async def stubborn(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            while True:
                try:
                    return await upcoming(after, limit)
                except BackendError:
                    continue

        await super().run(wake, stubborn)


# --- its life ----------------------------------------------------------------


@breaks("runs_until_it_is_cancelled")
class EndsWhenThereIsNothingToDo(Wrong):
    """Takes the last ring for its own end."""

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        with anyio.CancelScope() as scope:

            def wake_and_leave(room: RoomKey) -> None:
                wake(room)
                scope.cancel()

            await super().run(wake_and_leave, upcoming)


@breaks("ends_wherever_it_is")
class FinishesItsSleep(Sleepy):
    @override
    async def sleep(self, when: datetime) -> None:
        with anyio.CancelScope(shield=True):
            await super().sleep(when)


@breaks("ends_wherever_it_is")
class RaisesAtItsEnd(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        try:
            await super().run(wake, upcoming)
        finally:
            raise RuntimeError("cancelled")


@breaks("ends_wherever_it_is")
class LeavesATask(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        current_loop().spawn(anyio.sleep_forever, copy_context())
        await super().run(wake, upcoming)


@breaks("wakes_nobody_after_its_end")
class WakesOn(Sleepy):
    """Wakes what is overdue as soon as it is told of it, whether it runs or not."""

    wake: Wake | None = None

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        super().changed(room, due)
        if self.wake is not None and due is not None and due <= self.clock.now():
            self.wake(room)

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        self.wake = wake
        await super().run(wake, upcoming)


@breaks("wakes_nobody_after_its_end")
class RaisesWhenToldAfterItsEnd(Wrong):
    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        def refuse(room: RoomKey, due: datetime | None, /) -> None:
            raise RuntimeError("closed")

        try:
            await super().run(wake, upcoming)
        finally:
            self.changed = refuse  # type: ignore[method-assign]


@breaks("runs_again")
class RunsOnce(Wrong):
    has_run = False

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        if self.has_run:
            raise RuntimeError("it has run")
        self.has_run = True
        await super().run(wake, upcoming)


@breaks("runs_again")
class RemembersWhatItKnew(Sleepy):
    """Takes what it knew of its first run for newer than what is stored at the second."""


class Contract(AlarmSchedulerContract):
    patience = 0.05

    def __init__(self, make: Callable[[Clock], AlarmScheduler]) -> None:
        self.make = make

    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return self.make(clock)


@pytest.mark.parametrize(("case", "mutant"), MUTANTS)
def test_a_wrong_scheduler_is_caught(case: str, mutant: Callable[[Clock], AlarmScheduler]) -> None:
    contract = Contract(mutant)
    contract.loops = in_turn(MUTANTS.index((case, mutant)), "asyncio", "trio")
    with pytest.raises(BrokenContractError):
        getattr(contract, case)()


def test_every_case_catches_somebody() -> None:
    assert set(CASES) == {case for case, _ in MUTANTS}


def test_a_wrapper_that_changes_nothing_is_right() -> None:
    contract: Any = Contract(Wrong)
    contract.patience = 20
    contract.loops = in_turn(0, "asyncio", "trio")
    for case in CASES:
        getattr(contract, case)()
