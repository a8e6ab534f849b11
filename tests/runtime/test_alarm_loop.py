"""The shipped scheduler: at the right time, in order, bounded, and asleep when there is nothing to do."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from partyroom._alarm_loop import TURN, AlarmLoop
from partyroom._native import OneShot, current_loop
from partyroom._work import Work
from partyroom.clock import SystemClock
from partyroom.errors import BackendError
from partyroom.protocols import Clock, Upcoming
from partyroom.types import RoomKey, Timer
from tests.sizes import sizes

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def room(number: int) -> RoomKey:
    return RoomKey("party", f"{number:07}")


def row(seconds: float, number: int, name: str = "") -> Upcoming:
    return Upcoming(at(seconds), room(number), name)


class Sleeper:
    def __init__(self, due: float, timer: Timer, shot: OneShot[None]) -> None:
        self.due = due
        self.timer = timer
        self.shot = shot

    @property
    def rank(self) -> tuple[float, RoomKey, str]:
        return self.due, self.timer.room or RoomKey("", ""), self.timer.name


class HandClock(Clock):
    """Time that stands still until it is moved: to the next sleeper, and on when all that it woke has come to rest."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.seconds = 0.0
        self.sleepers: list[Sleeper] = []

    def now(self) -> datetime:
        return at(self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep_until(self, when: datetime, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - it never changes
        await self.sleep(when - self.now(), timer=timer)

    async def sleep(self, duration: timedelta, /, *, timer: Timer = Timer()) -> None:  # noqa: B008 - it never changes
        if duration <= timedelta():
            return
        shot: OneShot[None] = current_loop().one_shot()
        shot.on_done = self.work.take
        sleeper = Sleeper(self.monotonic() + duration.total_seconds(), timer, shot)
        self.sleepers.append(sleeper)
        try:
            await shot.wait()
        finally:
            if shot.done:
                self.work.give()
            else:
                self.sleepers.remove(sleeper)

    def pending(self) -> list[tuple[float, Timer]]:
        return [(sleeper.due, sleeper.timer) for sleeper in sorted(self.sleepers, key=lambda sleeper: sleeper.rank)]

    async def settle(self) -> None:
        # A cancelled sleep is over when its task has had a turn.
        for _ in range(5):
            await checkpoint()
        await self.work.wait_idle()

    def ring(self) -> None:
        """Wake the first sleeper, at its time."""
        sleeper = min(self.sleepers, key=lambda sleeper: sleeper.rank)
        self.sleepers.remove(sleeper)
        self.seconds = max(self.seconds, sleeper.due)
        sleeper.shot.set(None)

    async def advance_to(self, seconds: float) -> None:
        await self.settle()
        while any(sleeper.due <= seconds for sleeper in self.sleepers):
            self.ring()
            await self.settle()
        self.seconds = seconds


class World:
    """Stored alarms, the loop that rings them, and the diary of what was rung when."""

    def __init__(self, *rows: Upcoming, lookahead: int = 100, max_waking: int = 100) -> None:
        self.work = Work(current_loop())
        self.clock = HandClock(self.work)
        self.loop = AlarmLoop(self.clock, self.work, lookahead=lookahead, max_waking=max_waking)
        self.rows = set(rows)
        self.diary: list[tuple[float, RoomKey]] = []
        self.reads: list[Upcoming | None] = []
        self.answers = True
        """Whether a woken room rings at once."""

    @property
    def rung(self) -> list[RoomKey]:
        return [each for _, each in self.diary]

    def next_of(self, key: RoomKey) -> datetime | None:
        return min((each.due for each in self.rows if each.room == key), default=None)

    def set(self, seconds: float, number: int, name: str = "") -> None:
        self.rows = {each for each in self.rows if (each.room, each.name) != (room(number), name)}
        self.rows.add(row(seconds, number, name))
        self.loop.changed(room(number), self.next_of(room(number)))

    def delete(self, number: int) -> None:
        self.rows = {each for each in self.rows if each.room != room(number)}
        self.loop.changed(room(number), None)

    def wake(self, key: RoomKey) -> None:
        self.diary.append((self.clock.seconds, key))
        if self.answers:
            self.answer(key)

    def answer(self, key: RoomKey) -> None:
        """Ring what is due first in a room, and say what is next."""
        first = min((each for each in self.rows if each.room == key), default=None)
        if first is not None and first.due <= self.clock.now():
            self.rows.remove(first)
        self.loop.changed(key, self.next_of(key))

    async def upcoming(self, after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        self.reads.append(after)
        assert 1 == self.work.count, "a read is work"
        await checkpoint()
        return [each for each in sorted(self.rows) if after is None or each > after][:limit]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.loop.run, self.wake, self.upcoming)
            await self.clock.settle()
            yield
            tasks.cancel_scope.cancel()
        assert [] == self.clock.sleepers
        assert 0 == self.work.count


# --- when --------------------------------------------------------------------


async def test_a_room_is_woken_at_its_time_and_never_before() -> None:
    world = World(row(10, 1))
    async with world.running():
        await world.clock.advance_to(9.999999)
        assert [] == world.diary
        await world.clock.advance_to(10)
        assert [(10, room(1))] == world.diary
        await world.clock.advance_to(100)
        assert [(10, room(1))] == world.diary


async def test_the_sleep_says_for_which_room_it_is() -> None:
    world = World(row(10, 1), row(5, 2))
    async with world.running():
        assert [(5, Timer(room(2), "alarm"))] == world.clock.pending()


async def test_a_sleep_that_its_clock_says_is_over_counts_as_work_before_it_is_seen_to_be() -> None:
    world = World(row(10, 1))
    async with world.running():
        assert not world.loop.is_called(Timer(room(1), "alarm")), "as another loop on the same clock may have it"
        assert 0 == world.work.count
        [(_, timer)] = world.clock.pending()
        assert world.loop.is_called(timer)
        assert 1 == world.work.count
        # A change that comes now ends the sleep as well.
        world.set(5, 2)
        assert 1 == world.work.count
        await world.clock.settle()
        assert [(5, Timer(room(2), "alarm"))] == world.clock.pending()


async def test_what_is_overdue_at_the_start_rings_at_once_in_due_order() -> None:
    world = World(row(-1, 3), row(-2, 9), row(-1, 2), row(0, 1), row(1, 4))
    async with world.running():
        assert [(0, room(9)), (0, room(2)), (0, room(3)), (0, room(1))] == world.diary


async def test_a_room_with_many_alarms_is_woken_for_each() -> None:
    world = World(row(1, 1, "a"), row(1, 1, "b"), row(3, 1, "c"))
    async with world.running():
        await world.clock.advance_to(5)
        assert [(1, room(1)), (1, room(1)), (3, room(1))] == world.diary


async def test_an_alarm_that_is_set_nearer_than_all_others_is_not_slept_through() -> None:
    world = World(row(10, 1))
    async with world.running():
        world.set(5, 2)
        assert 1 == world.work.count, "it has something to do until it sleeps again"
        await world.clock.advance_to(20)
        assert [(5, room(2)), (10, room(1))] == world.diary


async def test_the_first_alarm_after_none_at_all_rings() -> None:
    world = World()
    async with world.running():
        world.set(5, 2)
        await world.clock.advance_to(5)
        assert [(5, room(2))] == world.diary


async def test_an_alarm_set_for_the_past_rings_now() -> None:
    world = World(row(10, 1))
    async with world.running():
        await world.clock.advance_to(7)
        world.set(3, 2)
        await world.clock.settle()
        assert [(7, room(2))] == world.diary


async def test_changes_heard_of_before_it_runs_count() -> None:
    world = World()
    world.set(5, 2)
    async with world.running():
        await world.clock.advance_to(5)
        assert [(5, room(2))] == world.diary


async def test_a_moved_alarm_rings_at_its_new_time_only() -> None:
    world = World(row(10, 1), row(12, 2))
    async with world.running():
        world.set(15, 1)
        await world.clock.advance_to(20)
        assert [(12, room(2)), (15, room(1))] == world.diary


async def test_a_deleted_alarm_does_not_ring() -> None:
    world = World(row(10, 1), row(12, 2))
    async with world.running():
        world.delete(1)
        await world.clock.advance_to(20)
        assert [(12, room(2))] == world.diary


async def test_putting_an_alarm_off_wakes_nobody() -> None:
    world = World(row(10, 1))
    async with world.running():
        before = world.clock.sleepers[:]
        for seconds in range(11, 20):
            world.set(seconds, 1)
        await world.clock.settle()
        assert before == world.clock.sleepers


@pytest.mark.parametrize("earlier", [(10, 0), (9, 7)])
async def test_a_change_between_the_clocks_ring_and_the_loops_turn_is_heard(earlier: tuple[float, int]) -> None:
    world = World(row(10, 5))
    async with world.running():
        world.clock.ring()
        world.set(*earlier)
        await world.clock.settle()
        assert [room(earlier[1]), room(5)] == world.rung


async def test_an_alarm_that_comes_and_goes_between_the_clocks_ring_and_the_loops_turn_is_none() -> None:
    world = World(row(10, 5))
    async with world.running():
        world.clock.ring()
        world.set(9, 7)
        world.delete(7)
        await world.clock.settle()
        assert [room(5)] == world.rung


async def test_after_all_alarms_have_gone_at_once_the_next_one_rings() -> None:
    world = World(row(10, 1))
    async with world.running():
        world.set(5, 2)
        world.delete(1)
        world.delete(2)
        await world.clock.settle()
        world.set(3, 3)
        await world.clock.advance_to(20)
        assert [(3, room(3))] == world.diary


async def test_a_handler_that_sets_its_alarm_for_now_is_woken_again() -> None:
    world = World(row(1, 1))
    world.answers = False
    async with world.running():
        await world.clock.advance_to(1)
        world.set(1, 1)
        await world.clock.settle()
        assert [(1, room(1)), (1, room(1))] == world.diary


async def test_a_room_is_not_woken_again_before_it_has_answered() -> None:
    world = World(row(1, 1, "a"), row(2, 1, "b"))
    world.answers = False
    async with world.running():
        await world.clock.advance_to(9)
        assert [(1, room(1))] == world.diary
        world.answer(room(1))
        await world.clock.settle()
        assert [(1, room(1)), (9, room(1))] == world.diary


# --- how many ----------------------------------------------------------------


async def test_no_more_rooms_are_waking_than_may() -> None:
    world = World(*(row(0, number) for number in range(10)), max_waking=3)
    world.answers = False
    async with world.running():
        assert [room(0), room(1), room(2)] == world.rung
        assert 0 == world.work.count, "it waits for answers without a token"
        world.answer(room(1))
        await world.clock.settle()
        assert [room(0), room(1), room(2), room(3)] == world.rung
        for number in (0, 2, 3):
            world.answer(room(number))
        await world.clock.settle()
        assert [room(number) for number in range(7)] == world.rung


async def test_a_slow_room_holds_up_nobody_else() -> None:
    world = World(row(1, 1), row(2, 2), row(3, 3))
    world.answers = False
    async with world.running():
        await world.clock.advance_to(5)
        assert [(1, room(1)), (2, room(2)), (3, room(3))] == world.diary


async def test_a_burst_lets_others_run() -> None:
    world = World(*(row(0, number) for number in range(4 * TURN)), lookahead=1000)
    seen: set[int] = set()

    async def look() -> None:
        while len(world.diary) < 4 * TURN:
            seen.add(len(world.diary))
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        async with world.running():
            await world.clock.settle()
    # trio shuffles whose turn it is, so that not every stop need be seen.
    assert seen & {TURN, 2 * TURN, 3 * TURN}
    assert seen <= {0, TURN, 2 * TURN, 3 * TURN}


async def test_what_is_due_beyond_the_lookahead_is_read_when_the_rest_has_rung() -> None:
    world = World(*(row(number, number) for number in range(1, 11)), lookahead=4)
    async with world.running():
        assert [None] == world.reads
        await world.clock.advance_to(20)
        assert [(number, room(number)) for number in range(1, 11)] == world.diary
        assert [None, row(4, 4), row(8, 8)] == world.reads


@sizes("many", 200, 1000)
async def test_what_is_set_beyond_the_lookahead_is_not_held_and_yet_rings(many: int) -> None:
    world = World(*(row(number, number) for number in range(1, 5)), lookahead=4)
    async with world.running():
        for number in range(100, 104):
            world.set(number, number)
        assert 4 == len(world.loop._queue)
        for number in range(104, many):
            world.set(number, number)
        await world.clock.advance_to(110)
        assert [*range(1, 5), *range(100, 111)] == [seconds for seconds, _ in world.diary]


async def test_an_answer_after_which_nothing_is_held_has_the_next_read() -> None:
    world = World(*(row(0, number) for number in range(4)), lookahead=2, max_waking=1)
    world.answers = False
    async with world.running():
        assert [room(0)] == world.rung
        world.delete(1)
        await world.clock.settle()
        world.answer(room(0))
        await world.clock.settle()
        assert [room(0), room(2)] == world.rung


async def test_what_has_passed_is_held_also_beyond_the_lookahead() -> None:
    world = World(*(row(-9, number) for number in range(8)), lookahead=4, max_waking=2)
    world.answers = False
    async with world.running():
        # Not stored: nobody knows what is, after a refused commit.
        world.loop.changed(room(50), at(0))
        world.answers = True
        for number in range(2):
            world.answer(room(number))
        await world.clock.settle()
        assert [*(room(number) for number in range(8)), room(50)] == world.rung


async def test_what_is_stored_nowhere_is_held_also_beyond_the_lookahead() -> None:
    world = World(*(row(number, number) for number in range(1, 6)), lookahead=2)
    async with world.running():
        # One that is held, one that is not read yet, and one that the index does not have: all are to look again later.
        for number in (2, 4, 50):
            world.loop.hold(room(number), at(3))
        await world.clock.advance_to(9)
        assert [(1, room(1)), (3, room(2)), (3, room(3)), (3, room(4)), (3, room(50)), (4, room(4)), (5, room(5))] == (
            world.diary
        )


@sizes("ringing", 1500, 30_000)
async def test_of_a_million_pending_alarms_only_the_next_are_held(ringing: int) -> None:
    pending = 1_000_000
    world = World(lookahead=1000)

    async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        begin = 0 if after is None else int(after.room.id) + 1
        return [row(number / 1000, number) for number in range(begin, min(begin + limit, pending))]

    world.upcoming = upcoming  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        world.clock.seconds = ringing / 1000 - 0.001
        tasks.start_soon(world.loop.run, world.wake, world.upcoming)
        await world.clock.settle()
        tasks.cancel_scope.cancel()
    assert [room(number) for number in range(ringing)] == world.rung
    assert world.loop._queue.size <= 2000


# --- the backend -------------------------------------------------------------


async def test_a_backend_that_fails_is_asked_again_after_longer_and_longer_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(row(1, 1))
    failures = 12
    read = world.upcoming
    times: list[float] = []

    async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        times.append(world.clock.seconds)
        if len(times) <= failures:
            message = f"no disk {len(times)}"
            raise BackendError(message)
        return await read(after, limit)

    world.upcoming = upcoming  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "partyroom"):
        async with world.running():
            assert [(0.1, Timer(None, "refill"))] == world.clock.pending()
            assert 0 == world.work.count
            await world.clock.advance_to(1000)
    waits = [round(later - earlier, 3) for earlier, later in pairwise(times)]
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 25.6, 25.6, 25.6] == waits
    assert [room(1)] == world.rung
    assert ["the next alarms cannot be read; trying again until they can"] == caplog.messages
    assert "no disk 1" in caplog.text


async def test_a_backend_that_fails_again_later_is_told_of_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(*(row(number, number) for number in range(1, 4)), lookahead=1)
    read = world.upcoming
    reads = 0

    async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        nonlocal reads
        reads += 1
        if reads % 2:
            raise OSError(reads)
        return await read(after, limit)

    world.upcoming = upcoming  # type: ignore[method-assign]
    async with world.running():
        await world.clock.advance_to(1000)
    assert [room(1), room(2), room(3)] == world.rung
    assert 4 == len(caplog.messages)


async def test_what_changes_while_a_read_is_under_way_wins_over_it() -> None:
    world = World(row(5, 1), row(6, 2))
    gate = anyio.Event()
    read = world.upcoming

    async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        found = await read(after, limit)
        await gate.wait()
        return found

    world.upcoming = upcoming  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.loop.run, world.wake, world.upcoming)
        for _ in range(5):
            await checkpoint()
        world.set(7, 1)
        world.delete(2)
        gate.set()
        await world.clock.advance_to(20)
        tasks.cancel_scope.cancel()
    assert [(7, room(1))] == world.diary


# --- its end -----------------------------------------------------------------


async def sleeping(world: World) -> None:
    world.set(10, 1)


async def parked(world: World) -> None:
    world.delete(1)


async def backing_off(world: World) -> None:
    async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        raise BackendError

    world.upcoming = upcoming  # type: ignore[method-assign]


async def reading(world: World) -> None:
    async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        never: OneShot[Sequence[Upcoming]] = current_loop().one_shot()
        return await never.wait()

    world.upcoming = upcoming  # type: ignore[method-assign]


@pytest.mark.parametrize("state", [sleeping, parked, backing_off, reading])
async def test_it_can_be_cancelled_wherever_it_waits_and_leaves_no_token(
    state: Callable[[World], Awaitable[None]],
) -> None:
    world = World()
    await state(world)
    assert 1 == world.work.count, "from its construction until it first sleeps"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.loop.run, world.wake, world.upcoming)
        for _ in range(5):
            await checkpoint()
        assert (state is reading) == bool(world.work.count)
        tasks.cancel_scope.cancel()
    assert 0 == world.work.count
    world.loop.changed(room(1), at(-1))
    assert 0 == world.work.count, "what comes after its end is nobody's work"


async def test_with_nothing_pending_it_waits_without_a_look_at_the_clock() -> None:
    world = World()
    async with world.running():
        assert [] == world.clock.pending()
        world.delete(7)
        assert 0 == world.work.count
        await world.clock.settle()
        assert [] == world.clock.pending()
        assert 0 == world.work.count


# --- on the system's clock ---------------------------------------------------


async def test_on_the_systems_clock_nothing_is_early_and_a_burst_is_in_order() -> None:
    clock = SystemClock()
    work = Work(current_loop())
    loop = AlarmLoop(clock, work, lookahead=100, max_waking=10)
    due = clock.now() + timedelta(milliseconds=5)
    rows = [Upcoming(due, room(number), "") for number in range(100)]
    woken: list[RoomKey] = []
    lateness: list[timedelta] = []
    with CancelScope() as scope:

        async def upcoming(after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
            return rows if after is None else ()

        def wake(key: RoomKey) -> None:
            woken.append(key)
            lateness.append(clock.now() - due)
            loop.changed(key, None)
            if len(woken) == len(rows):
                scope.cancel()

        await loop.run(wake, upcoming)
    assert [each.room for each in rows] == woken
    assert timedelta() <= min(lateness)
