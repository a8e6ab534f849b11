"""Cases of answers, reads and endings: what a scheduler owes to rooms that ring, to a store that fails, to a runtime that closes.

Owns the clauses about wakes and their answers, about ``upcoming``, and about
``run``'s beginning and end.

Promises to answer as a runtime does: in a later turn, or at once, or never.

Must never ask how many rooms may be waking at once, beyond a few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio import Event

from partyroom.testing._scheduler_case import A, B, C, D, SchedulerSuite, case, rooms
from partyroom.testing._scheduler_trial import SchedulerTrial

__all__ = ["AnswerCases", "LifeCases", "ReadCases"]

LARGEST_PAGE: Final = 2000
"""Up to so many alarms in one read it is tried whether the next page is read: more would take seconds."""
MANY: Final = 100
"""So many reads at once are no patience with a store that fails."""


class AnswerCases(SchedulerSuite):
    """A wake is answered by ``changed``."""

    @case
    async def test_each_alarm_of_a_room(self, trial: SchedulerTrial) -> None:
        """A room with several alarms is woken for each of them: the answer to one wake says when the next is due."""
        for ticks, name in ((1, "a"), (1, "b"), (4, "c")):
            trial.store(A, ticks, name)
        trial.store(B, 3)
        async with trial.running():
            await trial.until(9)
            await trial.expect_woken("three alarms of one room", (1, A), (1, A), (3, B), (4, A))

    @case
    async def test_an_answer_that_has_passed(self, trial: SchedulerTrial) -> None:
        """An answer that says a time which has passed asks for another wake at once."""
        trial.silent.add(A)
        trial.store(A, 3)
        async with trial.running():
            await trial.until(5)
            await trial.expect_woken("an alarm for 3", (3, A))
            trial.set(A, 2)
            await trial.until(5)
            await trial.expect_woken("answered with 2 at 5", (2, A))

    @case
    async def test_no_second_wake_before_the_answer(self, trial: SchedulerTrial) -> None:
        """A room that was woken is not woken again before it has answered, however long that takes."""
        trial.silent.add(A)
        trial.store(A, 1, "first")
        trial.store(A, 3, "second")
        trial.store(B, 6)
        async with trial.running():
            await trial.until(8)
            await trial.expect_woken("two alarms of a room that has not answered", (1, A), (6, B))
            trial.answer(A)
            await trial.until(8)
            await trial.expect_woken("after its answer", (3, A))

    @case
    async def test_an_answer_counts_more_than_what_is_stored(self, trial: SchedulerTrial) -> None:
        """What it was told last counts, also where what is stored is sooner: a room that cannot start is to be woken later."""
        trial.silent.update((A, B))
        trial.store(A, 1)
        trial.store(B, 1)
        trial.store(C, 3)
        async with trial.running():
            await trial.until(2)
            await trial.expect_woken("two alarms for 1", (1, A), (1, B))
            trial.scheduler.changed(A, trial.at(6))
            trial.scheduler.changed(B, None)
            await trial.until(9)
            await trial.expect_woken("one is to be woken at 6, the other not at all", (3, C), (6, A))

    @case
    async def test_a_slow_room_holds_up_nobody(self, trial: SchedulerTrial) -> None:
        """A room that does not answer holds up no other room's alarm."""
        trial.silent.update((A, B))
        for ticks, room in ((1, A), (1, B), (3, C)):
            trial.store(room, ticks)
        async with trial.running():
            await trial.until(4)
            await trial.expect_woken("the first two do not answer", (1, A), (1, B), (3, C))
            trial.set(C, 5)
            await trial.until(6)
            await trial.expect_woken("nor do they later", (5, C))

    @case
    async def test_an_answer_within_wake(self, trial: SchedulerTrial) -> None:
        """A room may answer before `wake` has returned."""
        trial.answers_at_once = True
        for ticks, name in ((1, "a"), (1, "b"), (4, "c")):
            trial.store(A, ticks, name)
        trial.store(B, 3)
        async with trial.running():
            await trial.until(9)
            await trial.expect_woken("three alarms of one room", (1, A), (1, A), (3, B), (4, A))

    @case
    async def test_wakes_in_the_loop(self, trial: SchedulerTrial) -> None:
        """`wake` is called in the thread of the runtime's event loop."""
        trial.store(A, -1)
        async with trial.running():
            trial.set(B, 2)
            await trial.until(3)
            await trial.expect_woken("an alarm stored, and one set", (-1, A), (2, B))


class ReadCases(SchedulerSuite):
    """What is stored is read page by page, while it changes, from a store that may fail."""

    @case
    async def test_more_than_a_page(self, trial: SchedulerTrial) -> None:
        """All that is stored is woken, however much it is, also with one room's alarms on many pages."""
        # It reads, which tells how much it asks for at once.
        async with trial.running():
            pass
        every = rooms(max(300, min(trial.asked, LARGEST_PAGE) + 1))
        for number, room in enumerate(every):
            trial.store(room, 1 + number % 5)
        for number in range(5):
            trial.store(A, 6, f"{number:02}")
        async with trial.running():
            await trial.until(9)
            expected = [(1 + number % 5, room) for number, room in enumerate(every)] + [(6, A)] * 5
            await trial.expect_woken(f"{len(expected)} alarms, read by {trial.asked}", *expected)

    @case
    async def test_changed_while_it_reads(self, trial: SchedulerTrial) -> None:
        """What it is told while a read is under way is newer than what that read gives."""
        trial.gate = Event()
        trial.store(A, 3)
        trial.store(B, 4)
        async with trial.running():
            trial.set(A, 8)
            trial.delete(B)
            trial.set(C, 2)
            trial.gate.set()
            await trial.until(9)
            await trial.expect_woken("one moved, one deleted, one set during a read", (2, C), (8, A))

    @case
    async def test_a_read_that_fails(self, trial: SchedulerTrial) -> None:
        """A read that fails is tried again, not at once: what is stored is woken within ten minutes of the store's recovery."""
        trial.failures = MANY
        trial.store(A, 1)
        trial.store(B, 2)
        async with trial.running():
            when = f"reads that fail: are there fewer than {MANY} before time passes"
            trial.expect(when, expected=True, seen=trial.failures > 0)
            trial.failures = 2
            await trial.until(600 if trial.can_jump else 10)
            await trial.expect_woken("after three reads that failed", (1, A), (2, B), late=600)


class LifeCases(SchedulerSuite):
    """It runs from the runtime's entering to its leaving, and again."""

    @case
    async def test_runs_until_it_is_cancelled(self, trial: SchedulerTrial) -> None:
        """`run` goes on until it is cancelled, also when there is nothing left to wake."""
        trial.store(A, 1)
        async with trial.running():
            await trial.until(3)
            await trial.expect_woken("the only one", (1, A))
            await trial.until(8)
        await trial.expect_woken("nothing more")

    @case
    async def test_ends_wherever_it_is(self, trial: SchedulerTrial) -> None:
        """`run` ends soon when it is cancelled, and leaves no task, whether it sleeps, reads, waits for an answer or has nothing to do."""
        states: tuple[Callable[[SchedulerTrial], None], ...] = (_nothing, _sleeping, _waiting, _reading)
        for state in states:
            state(trial)
            async with trial.running():
                await trial.settle()
            trial.expect("after its end: tasks that it has left behind", [], trial.left)

    @case
    async def test_wakes_nobody_after_its_end(self, trial: SchedulerTrial) -> None:
        """After its end it wakes nobody, and may still be told of changes: rooms that ring while the runtime closes answer."""
        trial.store(A, 3)
        async with trial.running():
            await trial.until(1)
        trial.set(B, 0)
        trial.delete(C)
        await trial.until(5)
        await trial.expect_woken("after its end")

    @case
    async def test_runs_again(self, trial: SchedulerTrial) -> None:
        """`run` may be called again after its end, and begins anew with what is stored then."""
        trial.silent.add(C)
        for ticks, room in ((3, A), (1, C), (9, B)):
            trial.store(room, ticks)
        async with trial.running():
            await trial.until(2)
            await trial.expect_woken("the first time", (1, C))
        trial.silent.clear()
        # Nobody tells of what other programs do meanwhile.
        trial.store(A, 6)
        trial.forget(B)
        trial.store(D, 4)
        async with trial.running():
            await trial.until(10)
            await trial.expect_woken("the second time", (1, C), (4, D), (6, A))


def _nothing(_trial: SchedulerTrial) -> None:
    """Leave it nothing to do."""


def _sleeping(trial: SchedulerTrial) -> None:
    """Have it sleep."""
    trial.store(A, 1000)


def _waiting(trial: SchedulerTrial) -> None:
    """Have it wait for an answer."""
    trial.silent.add(B)
    trial.store(B, 0)


def _reading(trial: SchedulerTrial) -> None:
    """Have it read from a store that does not answer."""
    trial.gate = Event()
