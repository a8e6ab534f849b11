"""The suite that judges schedulers: the shipped one passes it, anybody can run it, and it says what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from inspect import isabstract

import anyio
import pytest
from typing_extensions import override

from partyroom._alarm_loop import AlarmLoop
from partyroom._native import current_loop
from partyroom._work import Work
from partyroom.errors import BrokenContractError
from partyroom.protocols import AlarmScheduler, Clock, Upcoming
from partyroom.testing.scheduler_contract import AlarmSchedulerContract
from partyroom.types import RoomKey
from tests.sizes import in_turn

CASES = [name for name in dir(AlarmSchedulerContract) if name.startswith("test_")]


def alarm_loop(clock: Clock, *, lookahead: int = 100) -> AlarmLoop:
    return AlarmLoop(clock, Work(current_loop()), lookahead=lookahead, max_waking=100)


class TestAlarmLoop(AlarmSchedulerContract):
    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return alarm_loop(clock)


class TestAlarmLoopThatSeesNotFar(AlarmSchedulerContract):
    loops = in_turn(1, "asyncio", "trio")

    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return alarm_loop(clock, lookahead=3)


@pytest.mark.slow
class TestAlarmLoopOnTheSystemsClock(AlarmSchedulerContract):
    on_real_time = True
    tick = timedelta(milliseconds=200)

    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return alarm_loop(clock)


def test_time_may_be_real() -> None:
    contract = TestAlarmLoopOnTheSystemsClock()
    contract.tick = timedelta(milliseconds=20)
    contract.test_at_its_time()


def test_a_suite_that_makes_no_scheduler_is_not_passed_over() -> None:
    class Misspelt(AlarmSchedulerContract):
        """Has a ``make``, which nobody calls."""

    assert not isabstract(Misspelt)
    with pytest.raises(BrokenContractError, match="NotImplementedError: Misspelt has no make_scheduler, which makes"):
        Misspelt().test_at_its_time()


def test_every_case_states_its_clause() -> None:
    for case in CASES:
        clause = getattr(AlarmSchedulerContract, case).__doc__
        assert clause.endswith("."), clause
        assert "\n" not in clause, clause


class Early(AlarmScheduler):
    """Wakes whatever it is told of."""

    wake: Callable[[RoomKey], None] | None = None

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if self.wake is not None and due is not None:
            self.wake(room)

    @override
    async def run(
        self,
        wake: Callable[[RoomKey], None],
        upcoming: Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]],
        /,
    ) -> None:
        self.wake = wake
        await anyio.sleep_forever()


class Hasty(Early):
    """Wakes at once, and only once."""

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        wake, self.wake = self.wake, None
        if wake is not None:
            wake(room)


class Never(Early):
    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        return


class Broken(Early):
    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        message = "no such room"
        raise KeyError(message)


class Late(Early):
    """Looks every six seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.due: dict[RoomKey, datetime] = {}

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if due is not None:
            self.due[room] = due

    @override
    async def run(
        self,
        wake: Callable[[RoomKey], None],
        upcoming: Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]],
        /,
    ) -> None:
        while True:
            await self.clock.sleep(timedelta(seconds=6))
            for room in [room for room, due in self.due.items() if due <= self.clock.now()]:
                del self.due[room]
                wake(room)


class Contract(AlarmSchedulerContract):
    """The contract of whatever a test hands in."""

    def __init__(self, make: Callable[[Clock], AlarmScheduler]) -> None:
        self.make = make

    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return self.make(clock)


CLAUSE = (
    "A room is woken when its alarm is due by the wall clock: at that time or after, never before. (test_at_its_time, on"
    " asyncio)\n"
)
THEN = "at 2030-01-01T00:00:10+00:00 (virtual)"
WOKEN = f"rooms woken, with latest=0:00:00, {THEN}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda _: Early(),
            f"  when:     an alarm set for 5: {WOKEN}\n  expected: ['party/a']\n  seen:     ['party/a', 'party/a'",
        ),
        (
            lambda _: Hasty(),
            f"  when:     an alarm set for 5: the time of party/a, {THEN}\n  expected: its due time or after\n  seen:     0:00:05 early",
        ),
        (
            lambda _: Never(),
            f"  when:     an alarm set for 5: {WOKEN}\n  expected: ['party/a']\n  seen:     []",
        ),
        (
            Late,
            f"  when:     an alarm set for 5: the time of party/a, {THEN}\n  expected: at most 0:00:00 late\n  seen:     0:00:01 late",
        ),
        (
            lambda _: Broken(),
            "  when:     running the case\n  expected: no error\n  seen:     KeyError: 'no such room'",
        ),
    ],
)
def test_what_is_broken_is_told_in_words(make: Callable[[Clock], AlarmScheduler], words: str) -> None:
    contract = Contract(make)
    if "[]" in words:
        # Nothing comes, which is told as soon as may be; of the others all comes, on the slowest machine as well.
        contract.patience = 0.1
    with pytest.raises(BrokenContractError) as caught:
        contract.test_at_its_time()
    assert str(caught.value).startswith(CLAUSE + words)


def test_one_that_says_how_late_it_is_may_be_so() -> None:
    contract = Contract(Late)
    contract.latest = timedelta(seconds=6)
    contract.test_at_its_time()


def test_a_generated_sequence_is_told_with_its_seed_and_its_steps() -> None:
    contract = Contract(lambda _: Never())
    contract.patience = 0.1
    with pytest.raises(BrokenContractError, match=r"seed 0, \d+ steps:\n") as caught:
        contract.test_generated_sequences()
    assert "set 000" in caught.value.when


class OnRealTime(Contract):
    on_real_time = True
    tick = timedelta(milliseconds=1)
    patience = 0.2


def test_on_real_time_a_finding_has_to_come_again_with_more_time() -> None:
    made = 0

    def make(clock: Clock) -> AlarmScheduler:
        nonlocal made
        made += 1
        return Never() if made == 1 else alarm_loop(clock)

    OnRealTime(make).test_at_its_time()
    assert 2 + 1 == made
    with pytest.raises(BrokenContractError):
        OnRealTime(lambda _: Never()).test_at_its_time()
