"""Many alarms at one instant: in due order, bounded, fair, and asleep again afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from anyio import Event, create_task_group
from typing_extensions import override

from partyroom import Alarm, Every, Limits, RoomKey, Runtime, StorageBackend
from partyroom._core.instants import to_micros
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FakeClock, Harness
from partyroom.testing._set_up import SteadyRandom
from partyroom.types import AlarmRow, Commit
from tests.runtime.boxes import do, make_store
from tests.runtime.towers import DAY, HOUR, MINUTE, SECOND, START, Bell, Tower, ring_at, seconds
from tests.sizes import sizes

pytestmark = pytest.mark.anyio


async def with_alarms(
    backend: StorageBackend, number: int, distance: timedelta = timedelta(), start: datetime = START + MINUTE
) -> list[str]:
    """Store an alarm for each of some rooms; give their ids, which are in due order."""
    ids = [f"{each:05}" for each in range(number)]
    async with backend:
        commits: list[Commit] = []
        for place, room_id in enumerate(ids):
            room = RoomKey("bell", room_id)
            due = to_micros(start + place * distance)
            row = AlarmRow(room, "", due, b'{"id":"%016x"}' % place)
            commits.append(Commit(room, await backend.claim(room), {}, {"": row}, release=True))
        await backend.commit(commits)
    return ids


def rooms(tower: Tower) -> list[str]:
    return [what.partition(" ")[0] for _, what in tower.book]


@sizes("number", 200, 10_000)
async def test_all_that_is_due_at_one_instant_rings_in_order_and_leaves_no_room_awake(
    anyio_backend: object, tower: Tower, number: int
) -> None:
    backend = MemoryBackend()
    ids = await with_alarms(backend, number)
    limits = Limits(max_waking=100, alarm_lookahead=150)
    async with Harness({"bell": tower.bell}, backend=backend, limits=limits) as harness:
        await harness.advance(MINUTE)
        assert ids == rooms(tower)
        assert {60.0} == set(tower.rang())
        assert 0 == harness.runtime.statistics().awake
        assert await harness.runtime.next_alarm() is None


@pytest.mark.parametrize("kind", ["memory", "file", "patient"])
@sizes("number", 300, 10_000)
async def test_after_an_outage_all_ring_at_once_in_order_within_bounds(
    tmp_path: Path, anyio_backend: object, tower: Tower, kind: str, number: int
) -> None:
    """On the system's clock, where rings overlap as far as the store takes its time."""
    backend = make_store(kind, tmp_path)
    ids = await with_alarms(backend, number, distance=SECOND, start=datetime(2020, 1, 1, tzinfo=UTC))
    most, done = 0, Event()

    async def write(bell: Bell, _alarm: Alarm) -> None:
        nonlocal most
        most = max(most, runtime.statistics().awake)
        await bell.storage.put("rang", True)
        if len(tower.alarms) == number:
            done.set()

    tower.on_alarm = write
    limits = Limits(max_waking=50, alarm_lookahead=150)
    async with Runtime({"bell": tower.bell}, backend=backend, limits=limits) as runtime:
        await done.wait()
        await runtime.wait_idle()
        assert ids == sorted(rooms(tower))
        # Those that are waking at the same time can overtake each other.
        assert all(abs(place - int(room)) < limits.max_waking for place, room in enumerate(rooms(tower)))
        # A room that has answered leaves memory when its commit has been heard of.
        assert most <= 2 * limits.max_waking
        assert 0 == runtime.statistics().awake
        assert kind == "memory" or runtime.statistics().groups < runtime.statistics().commits / 5
        assert await runtime.next_alarm() is None
        assert {"rang": True} == await runtime.parties["bell"].get(ids[-1]).stored()


async def test_many_that_are_overdue_ring_at_start_in_order_of_due_time(anyio_backend: object, tower: Tower) -> None:
    backend = MemoryBackend()
    ids = await with_alarms(backend, 200, -SECOND)
    clock = FakeClock(START + DAY)
    async with Harness({"bell": tower.bell}, backend=backend, clock=clock, limits=Limits(alarm_lookahead=7)) as harness:
        await harness.run_due()
        assert list(reversed(ids)) == rooms(tower)


async def test_a_slow_handler_holds_up_nobody_elses_alarm(anyio_backend: object, tower: Tower) -> None:
    async def slow(bell: Bell, _alarm: Alarm) -> None:
        if bell.ctx.id == "00000":
            await bell.ctx.clock.sleep(10 * MINUTE)
            tower.note(bell.ctx, "ends")

    tower.on_alarm = slow
    backend = MemoryBackend()
    await with_alarms(backend, 100, SECOND)
    async with Harness({"bell": tower.bell}, backend=backend, limits=Limits(max_waking=2)) as harness:
        await harness.advance(HOUR)
        assert [60.0 + number for number in range(100)] == tower.rang()
        assert (660.0, "00000 ends") == tower.book[-1]


async def test_no_more_handlers_run_at_once_than_may(anyio_backend: object, tower: Tower) -> None:
    running = most = 0

    async def wait(bell: Bell, _alarm: Alarm) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await bell.ctx.clock.sleep(SECOND)
        running -= 1

    tower.on_alarm = wait
    backend = MemoryBackend()
    ids = await with_alarms(backend, 100)
    async with Harness({"bell": tower.bell}, backend=backend, limits=Limits(max_waking=10)) as harness:
        await harness.advance(2 * MINUTE)
        assert 10 == most
        assert ids == sorted(rooms(tower))
        assert [60.0 + number // 10 for number in range(100)] == tower.rang()
        # By hand it is the same.
        running = most = 0
        for room_id in ids:
            await do(harness.parties["bell"].get(room_id), ring_at(timedelta()))
        async with create_task_group() as tasks:
            tasks.start_soon(harness.ring_due)
            await harness.settle()
            await harness.advance(MINUTE)
        assert 0 < most <= 10


async def test_a_busy_room_that_rings_is_not_put_to_sleep_and_a_woken_one_is(
    anyio_backend: object, tower: Tower
) -> None:
    backend = MemoryBackend()
    await with_alarms(backend, 2)
    async with Harness({"bell": tower.bell}, backend=backend, idle_timeout=HOUR) as harness:
        busy, woken = (harness.parties["bell"].get(f"0000{number}") for number in range(2))
        await harness.wake(busy)
        await harness.advance(MINUTE)
        assert (True, False) == (harness.is_awake(busy), harness.is_awake(woken))


async def test_a_room_that_rings_again_soon_stays_awake_until_then(anyio_backend: object, tower: Tower) -> None:
    """One that rings every second is not constructed every second."""
    constructed: list[Bell] = []
    tower.on_construct = constructed.append
    async with Harness({"bell": tower.bell}) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, lambda storage: storage.set_alarm(Every(SECOND)))
        await harness.put_to_sleep(bell)
        await harness.advance(MINUTE)
        assert 60 == len(tower.alarms)
        assert 2 == len(constructed)
        await do(bell, lambda storage: storage.delete_alarm())


class EvenRandom(SteadyRandom):
    """Chance that is spread as evenly as can be."""

    rolls = 0

    @override
    def random(self) -> float:
        EvenRandom.rolls += 1
        return EvenRandom.rolls * 0.618033988749895 % 1


async def test_a_spread_keeps_alarms_of_one_instant_apart(anyio_backend: object, tower: Tower) -> None:
    """Each is late by chance, never early, and is told the time that it was set for."""
    clock = FakeClock()
    runtime = Runtime({"bell": tower.bell}, backend=MemoryBackend(), clock=clock, random=EvenRandom())
    clock.attach(runtime)
    async with runtime:
        for number in range(100):
            await do(
                runtime.parties["bell"].get(f"{number}"),
                lambda storage: storage.set_alarm(Every(DAY, anchor=START + DAY), spread=HOUR),
            )
        await clock.advance(2 * DAY + HOUR)
        first, second = tower.rang()[:100], tower.rang()[100:]
        for day, rang in ((1, first), (2, second)):
            assert 86400.0 * day <= rang[0]
            assert rang[-1] <= 86400.0 * day + 3600.0
            assert 100 == len(set(rang))
            assert 3000.0 < rang[-1] - rang[0]
        # Another delay each time.
        assert rooms(tower)[:100] != rooms(tower)[100:]
        assert {86400.0, 172800.0} == {seconds(alarm.scheduled_time) for alarm in tower.alarms}
        assert {0} == {alarm.missed for alarm in tower.alarms}


@sizes("number", 200, 3000)
async def test_pending_alarms_cost_the_lookahead_and_no_more(anyio_backend: object, tower: Tower, number: int) -> None:
    backend = MemoryBackend()
    ids = await with_alarms(backend, number, SECOND)
    async with Harness({"bell": tower.bell}, backend=backend, limits=Limits(alarm_lookahead=10)) as harness:
        await harness.advance(HOUR)
        assert ids == rooms(tower)
        assert [60.0 + place for place in range(number)] == tower.rang()
