"""Cases of time: when a room is woken, and before whom.

Owns the clauses about due times, their order, and changes of them.

Promises to judge a wake by the clock that the scheduler was given.

Must never ask for an order among rooms that are due at one instant.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from partyroom.testing._contract_case import ODD_ROOMS
from partyroom.testing._scheduler_case import A, B, C, SchedulerSuite, case, rooms
from partyroom.testing._scheduler_trial import SchedulerTrial

__all__ = ["ChangeCases", "TimeCases"]

NEVER: Final = datetime.max.replace(tzinfo=UTC)


class TimeCases(SchedulerSuite):
    """A room is woken in time, whenever that is."""

    @case
    async def test_at_its_time(self, trial: SchedulerTrial) -> None:
        """A room is woken when its alarm is due by the wall clock: at that time or after, never before."""
        async with trial.running():
            trial.set(A, 5)
            await trial.until(10)
            await trial.expect_woken("an alarm set for 5", (5, A))

    @case
    async def test_stored_before_it_runs(self, trial: SchedulerTrial) -> None:
        """What was stored before `run` began is read with `upcoming`, and woken at its time."""
        trial.store(A, 5)
        trial.store(B, 3)
        async with trial.running():
            await trial.until(10)
            await trial.expect_woken("alarms stored for 5 and 3", (5, A), (3, B))

    @case
    async def test_overdue_at_the_start(self, trial: SchedulerTrial) -> None:
        """What is overdue when `run` begins is woken at once, in the order of its due times."""
        due = [(-number, room) for number, room in enumerate(rooms(20), 1)]
        for ticks, room in due:
            trial.store(room, ticks)
        async with trial.running():
            await trial.until(0)
            await trial.expect_woken("at the start", *due)

    @case
    async def test_set_for_the_past(self, trial: SchedulerTrial) -> None:
        """An alarm that is set for a time that has passed is woken at once."""
        trial.store(B, 100)
        async with trial.running():
            await trial.until(5)
            trial.set(A, 2)
            await trial.until(5)
            await trial.expect_woken("an alarm set for 2 at 5", (2, A))

    @case
    async def test_the_first_after_none(self, trial: SchedulerTrial) -> None:
        """An alarm that is set when there was none at all is woken at its time."""
        async with trial.running():
            await trial.until(2)
            trial.set(A, 5)
            await trial.until(6)
            await trial.expect_woken("the first alarm", (5, A))
            trial.set(A, 9)
            await trial.until(10)
            await trial.expect_woken("the next one", (9, A))

    @case
    async def test_sooner_than_all_others(self, trial: SchedulerTrial) -> None:
        """An alarm that is set for sooner than all others is not slept through."""
        trial.store(A, 9)
        async with trial.running():
            await trial.until(2)
            trial.set(B, 5)
            await trial.until(7)
            await trial.expect_woken("one set for 5 while there was one for 9", (5, B))
            await trial.until(10)
            await trial.expect_woken("the other one", (9, A))

    @case
    async def test_in_due_order(self, trial: SchedulerTrial) -> None:
        """Rooms are woken in the order of their due times, in whatever order these were stored or set."""
        due = [(1 + place * 7 % 20, room) for place, room in enumerate(rooms(20))]
        for ticks, room in due[::2]:
            trial.store(room, ticks)
        async with trial.running():
            for ticks, room in due[1::2]:
                trial.set(room, ticks)
            await trial.until(21)
            await trial.expect_woken("twenty alarms", *due)

    @case
    async def test_many_at_one_instant(self, trial: SchedulerTrial) -> None:
        """All rooms that are due at one instant are woken, each of them once."""
        every = rooms(200)
        for room in every[::2]:
            trial.store(room, 5)
        async with trial.running():
            for room in every[1::2]:
                trial.set(room, 5)
            await trial.until(6)
            await trial.expect_woken("two hundred alarms", *((5, room) for room in every))

    @case
    async def test_far_away(self, trial: SchedulerTrial) -> None:
        """An alarm may be as far away as a datetime can be."""
        async with trial.running():
            trial.set_for(A, NEVER)
            trial.set(B, 5)
            await trial.until(9)
            await trial.expect_woken("one for the year 9999, one for 5", (5, B))

    @case
    async def test_the_wall_clock_set_forward(self, trial: SchedulerTrial) -> None:
        """What is due because the wall clock was set forward is woken within a minute."""
        if trial.can_jump:
            trial.store(A, 200)
            async with trial.running():
                trial.set_wall(400)
                await trial.pass_by(60)
                await trial.expect_woken("the clock set from 0 to 400", (200, A), late=260)

    @case
    async def test_the_wall_clock_set_back(self, trial: SchedulerTrial) -> None:
        """What is not due any more because the wall clock was set back is not woken before it is due again."""
        if trial.can_jump:
            trial.store(A, 200)
            async with trial.running():
                trial.set_wall(-200)
                await trial.pass_by(300)
                await trial.expect_woken("300 after the clock was set from 0 to -200")
                await trial.until(200)
                await trial.expect_woken("when it is due", (200, A))


class ChangeCases(SchedulerSuite):
    """What a scheduler was told last is what counts."""

    @case
    async def test_moved_later(self, trial: SchedulerTrial) -> None:
        """An alarm that is moved to a later time is woken then, and not at the earlier one."""
        trial.store(A, 4)
        async with trial.running():
            await trial.until(1)
            trial.set(A, 8)
            await trial.until(9)
            await trial.expect_woken("moved from 4 to 8", (8, A))

    @case
    async def test_moved_sooner(self, trial: SchedulerTrial) -> None:
        """An alarm that is moved to a sooner time is woken then, and not again at the later one."""
        trial.store(A, 8)
        async with trial.running():
            await trial.until(1)
            trial.set(A, 4)
            await trial.until(10)
            await trial.expect_woken("moved from 8 to 4", (4, A))

    @case
    async def test_moved_again_and_again(self, trial: SchedulerTrial) -> None:
        """An alarm that is moved a thousand times is woken once, at its last time."""
        async with trial.running():
            for number in range(1000):
                trial.set(A, 3 + number * 7 % 20)
            trial.set(A, 6)
            await trial.until(25)
            await trial.expect_woken("moved a thousand times, at last to 6", (6, A))

    @case
    async def test_deleted(self, trial: SchedulerTrial) -> None:
        """A room whose alarm is deleted is not woken."""
        trial.store(A, 4)
        async with trial.running():
            trial.set(B, 4)
            trial.set(C, 5)
            await trial.until(1)
            trial.delete(A)
            trial.delete(B)
            await trial.until(9)
            await trial.expect_woken("two deleted, one left", (5, C))

    @case
    async def test_deleted_and_set_again(self, trial: SchedulerTrial) -> None:
        """An alarm that is set again after it was deleted is woken at its new time."""
        trial.store(A, 4)
        async with trial.running():
            trial.delete(A)
            trial.set(A, 6)
            trial.set(B, 3)
            trial.delete(B)
            trial.set(B, 3)
            await trial.until(9)
            await trial.expect_woken("deleted, and set again", (3, B), (6, A))

    @case
    async def test_changed_before_it_runs(self, trial: SchedulerTrial) -> None:
        """What it is told before `run` begins counts."""
        trial.set(A, 5)
        trial.set(B, 2)
        trial.set(B, 7)
        trial.set(C, 3)
        trial.delete(C)
        async with trial.running():
            await trial.until(9)
            await trial.expect_woken("set, moved and deleted before it ran", (5, A), (7, B))

    @case
    async def test_told_nothing_new(self, trial: SchedulerTrial) -> None:
        """Being told twice of one time, or of no alarm where there was none, changes nothing."""
        trial.store(A, 5)
        async with trial.running():
            for _ in range(3):
                trial.set(A, 5)
                trial.delete(B)
            await trial.until(9)
            await trial.expect_woken("told three times", (5, A))

    @case
    async def test_rooms_are_told_apart(self, trial: SchedulerTrial) -> None:
        """Each room has an alarm of its own, also where party and id run into each other if they are put together carelessly."""
        due = [(number, room) for number, room in enumerate(ODD_ROOMS, 3)]
        for ticks, room in due:
            trial.store(room, 100 - ticks)
        async with trial.running():
            for ticks, room in due:
                trial.set(room, ticks)
            await trial.until(len(due) + 4)
            await trial.expect_woken("odd rooms", *due)

    @case
    async def test_changed_returns_at_once(self, trial: SchedulerTrial) -> None:
        """`changed` returns at once and never raises: it is called for every commit that moves an alarm."""

        def move_a_thousand_times() -> None:
            for number in range(1000):
                trial.set(A, 100 + number)

        async with trial.running():
            seconds = trial.seconds_of(move_a_thousand_times)
            trial.expect("a thousand calls of it: do they take less than a second", expected=True, seen=seconds < 1)
