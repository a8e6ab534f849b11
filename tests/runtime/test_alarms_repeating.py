"""Recurrences through the engine: on their grid, declared at every start, missed, failing, ended, steered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from partyroom import Alarm, Cron, Every, RetryPolicy, RoomHandle, StorageBackend
from partyroom.recurrence import Recurrence
from partyroom.testing import FakeClock, Harness
from tests.runtime.boxes import Step, do, put
from tests.runtime.towers import DAY, HOUR, MINUTE, SECOND, START, TICK, Bell, Tower, fail, nothing, seconds
from tests.sizes import sizes

pytestmark = pytest.mark.anyio

HOURLY = Every(HOUR)


def every(recurrence: Recurrence, **options: Any) -> Step:
    return lambda storage: storage.set_alarm(recurrence, **options)


def hours(tower: Tower) -> list[float]:
    return [when / 3600 for when in tower.rang()]


@sizes("days", 1, 30)
async def test_a_recurrence_rings_again_and_again(bells: Harness, bell: RoomHandle, tower: Tower, days: int) -> None:
    await do(bell, every(HOURLY, payload="x"))
    await bells.advance(days * DAY)
    assert [float(number) for number in range(1, 24 * days + 1)] == hours(tower)
    assert 24 * days == len({alarm.id for alarm in tower.alarms})
    assert {("x", 0, 0, timedelta())} == {(a.payload, a.retry_count, a.missed, a.lateness) for a in tower.alarms}
    assert 1 == len(await bell.list_alarms())


async def test_it_keeps_to_its_grid_however_long_the_handler_takes(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def slow(bell: Bell, _alarm: Alarm) -> None:
        await bell.ctx.clock.sleep(10 * MINUTE)

    tower.on_alarm = slow
    await do(bell, every(HOURLY), every(Every(HOUR, anchor=START + 15 * MINUTE), name="anchored"))
    await bells.advance(4 * HOUR)
    assert [1.0, 2.0, 3.0, 4.0] == [hour for hour in hours(tower) if not hour % 1]
    assert [0.25, 1.25, 2.25, 3.25] == [hour for hour in hours(tower) if hour % 1]


async def test_a_handler_that_takes_longer_than_the_distance_is_told_what_it_missed(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def slow(bell: Bell, _alarm: Alarm) -> None:
        await bell.ctx.clock.sleep(150 * SECOND)

    tower.on_alarm = slow
    await do(bell, every(Every(MINUTE)))
    await bells.advance(10 * MINUTE)
    # Those that pass while it runs are none of its business; what it goes on with is the next after its end.
    assert [60.0, 240.0, 420.0, 600.0] == tower.rang()
    assert {0} == {alarm.missed for alarm in tower.alarms}


async def test_it_may_follow_a_calendar_of_some_place(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    """The clocks of Oslo go forward on the last Sunday of March: nine o'clock is an hour earlier from then on."""
    await do(bell, every(Cron("0 9 * * mon", tz="Europe/Oslo")))
    await bells.advance_to(datetime(2030, 4, 9, tzinfo=UTC))
    rang = [alarm.scheduled_time for alarm in tower.alarms]
    assert datetime(2030, 1, 7, 8, tzinfo=UTC) == rang[0]
    assert {7 * DAY, 7 * DAY - HOUR} == {later - earlier for earlier, later in pairwise(rang)}
    assert datetime(2030, 4, 8, 7, tzinfo=UTC) == rang[-1]


# --- declared at every start --------------------------------------------------


@pytest.mark.parametrize("recurrence", [HOURLY, Every(HOUR, anchor=START - 1000 * HOUR), Cron("0 * * * *")], ids=str)
async def test_on_start_may_declare_it_every_time(
    bells: Harness, bell: RoomHandle, tower: Tower, recurrence: Recurrence
) -> None:
    async def declare(bell: Bell) -> None:
        await bell.storage.set_alarm(recurrence)

    tower.on_start = declare
    await bell.call(nothing)
    for _ in range(7):
        await bells.advance(25 * MINUTE)
        await bells.restart()
        await bell.call(nothing)
        assert 1 == len(await bell.list_alarms())
    assert [1.0, 2.0] == hours(tower)


async def test_declaring_what_is_declared_costs_no_commit(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, every(HOURLY, payload=[1], spread=MINUTE, retry=RetryPolicy(max_retries=1)))
    commits = bells.runtime.statistics().commits
    await do(bell, every(HOURLY, payload=[1], spread=MINUTE, retry=RetryPolicy(max_retries=1)))
    assert commits == bells.runtime.statistics().commits


async def test_declaring_it_anew_takes_a_new_payload_and_keeps_the_time(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    await do(bell, every(HOURLY, payload="old"))
    await bells.advance(30 * MINUTE)
    await do(bell, every(HOURLY, payload="new"))
    await bells.advance(30 * MINUTE)
    assert [("new", START + HOUR)] == [(alarm.payload, alarm.scheduled_time) for alarm in tower.alarms]


async def test_another_definition_begins_anew(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, every(HOURLY))
    await bells.advance(30 * MINUTE)
    await do(bell, every(Every(HOUR, grace=DAY)))
    await bells.advance(2 * HOUR)
    assert [1.5, 2.5] == hours(tower)


async def test_declaring_it_between_retries_keeps_the_retry(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def fail_first(bell: Bell, alarm: Alarm) -> None:
        if not alarm.is_retry:
            raise LookupError

    tower.on_alarm = fail_first
    await do(bell, every(HOURLY))
    await bells.advance(HOUR)
    await do(bell, every(HOURLY))
    assert ["retrying"] == [each.status for each in await bell.list_alarms()]
    await bells.advance(HOUR)
    assert [3600.0, 3602.0, 7200.0] == tower.rang()


# --- missed -------------------------------------------------------------------


async def after_an_outage(store: StorageBackend, tower: Tower, recurrence: Recurrence) -> Harness:
    """Set a recurrence at hour 0, and give a harness that begins at half past five."""
    async with Harness({"bell": tower.bell}, backend=store) as harness:
        await do(harness.parties["bell"].get("a"), every(recurrence))
    # Of another seed: it is another process, with ids of its own.
    return Harness({"bell": tower.bell}, backend=store, clock=FakeClock(START + 5.5 * HOUR), seed=1)


def told(tower: Tower) -> list[tuple[float, int, float]]:
    """Give of each ring the hour that it was for, how many were missed, and how many hours late it was."""
    return [((seconds(a.scheduled_time) or 0.0) / 3600, a.missed, a.lateness / HOUR) for a in tower.alarms]


async def test_missed_occurrences_ring_once_by_default(store: StorageBackend, tower: Tower) -> None:
    async with await after_an_outage(store, tower, HOURLY) as harness:
        await harness.run_due()
        assert [(1.0, 4, 4.5)] == told(tower)
        await harness.advance(HOUR)
        assert (6.0, 0, 0.0) == told(tower)[-1]
        assert [5.5, 6.0] == hours(tower)


async def test_missed_occurrences_ring_each_if_that_is_asked_for(store: StorageBackend, tower: Tower) -> None:
    async with await after_an_outage(store, tower, Every(HOUR, missed="each")) as harness:
        await harness.run_due()
        assert [(float(hour), 0, 5.5 - hour) for hour in range(1, 6)] == told(tower)
        assert 5 == len({alarm.id for alarm in tower.alarms})
        await harness.advance(30 * MINUTE)
        assert (6.0, 0, 0.0) == told(tower)[-1]


async def test_occurrences_older_than_the_grace_are_skipped(store: StorageBackend, tower: Tower) -> None:
    async with await after_an_outage(store, tower, Every(HOUR, missed="each", grace=1.5 * HOUR)) as harness:
        await harness.run_due()
        assert [(4.0, 3, 1.5), (5.0, 0, 0.5)] == told(tower)


async def test_with_all_of_them_too_old_the_next_one_rings_at_its_time(store: StorageBackend, tower: Tower) -> None:
    async with await after_an_outage(store, tower, Every(HOUR, grace=29 * MINUTE)) as harness:
        await harness.run_due()
        assert [] == tower.alarms
        assert START + 6 * HOUR == await harness.runtime.next_alarm()
        await harness.advance(HOUR)
        assert [(6.0, 5, 0.0)] == told(tower)


async def test_a_wall_clock_that_goes_back_rings_no_occurrence_twice(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    await do(bell, every(HOURLY))
    await bells.advance(HOUR)
    bells.clock.set_wall(START + 30 * MINUTE)
    await bells.advance(4 * HOUR)
    assert [1.0, 2.0, 3.0, 4.0] == [hour for hour, _, _ in told(tower)]


# --- failing ------------------------------------------------------------------


async def test_it_goes_on_after_its_last_retry_and_remembers_the_error_until_one_goes_well(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    tower.on_alarm = fail
    await do(bell, every(HOURLY))
    await bells.advance(HOUR + 5 * MINUTE)
    assert [0, 1, 2, 3, 4, 5, 6] == [alarm.retry_count for alarm in tower.alarms]
    assert "a failed" == tower.book[-1][1]
    [info] = await bell.list_alarms()
    assert ("pending", START + 2 * HOUR, 0, "LookupError: the rope is torn", "error", START + HOUR + 126 * SECOND) == (
        info.status,
        info.next_time,
        info.retry_count,
        info.last_error,
        info.last_outcome,
        info.last_time,
    )
    assert [] == await bells.parties["bell"].failed_alarms()
    tower.on_alarm = nothing
    await bells.advance(HOUR)
    [info] = await bell.list_alarms()
    assert (None, "success", START + 2 * HOUR) == (info.last_error, info.last_outcome, info.last_time)
    assert 2 == len({alarm.id for alarm in tower.alarms})


async def test_retries_that_outlast_the_distance_skip_what_passes_meanwhile(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def fail_five_times(_bell: Bell, alarm: Alarm) -> None:
        if alarm.retry_count < 5:
            raise LookupError

    tower.on_alarm = fail_five_times
    await do(bell, every(Every(10 * SECOND)))
    await bells.advance(90 * SECOND)
    assert [10.0, 12.0, 16.0, 24.0, 40.0, 72.0, 80.0, 82.0, 86.0] == tower.rang()
    assert [0, 0, 0, 1, 3, 6, 0, 0, 0] == [alarm.missed for alarm in tower.alarms]


# --- ended and changed --------------------------------------------------------

ENDS: list[tuple[list[Step], list[float]]] = [
    ([lambda storage: storage.delete_alarm()], [1.0]),
    ([lambda storage: storage.delete_all()], [1.0]),
    ([lambda storage: storage.delete_alarm(), lambda storage: storage.sync()], [1.0]),
    ([lambda storage: storage.delete_all(), lambda storage: storage.sync()], [1.0]),
    ([lambda storage: storage.set_alarm(90 * MINUTE)], [1.0, 2.5]),
    ([every(HOURLY)], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ([every(HOURLY), lambda storage: storage.sync()], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ([every(Every(2 * HOUR))], [1.0, 3.0, 5.0]),
    ([lambda storage: storage.delete_alarm(), every(HOURLY)], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ([put(key=1), lambda storage: storage.sync()], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ([lambda storage: storage.set_alarm(HOUR, name="other")], [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]),
]


@pytest.mark.parametrize(("steps", "rang"), ENDS)
async def test_what_its_handler_does_to_it_counts(
    bells: Harness, bell: RoomHandle, tower: Tower, steps: list[Step], rang: list[float]
) -> None:
    async def once(bell: Bell, _alarm: Alarm) -> None:
        if len(tower.alarms) == 1:
            for step in steps:
                await step(bell.storage)

    tower.on_alarm = once
    await do(bell, every(HOURLY))
    await bells.advance(5 * HOUR)
    assert rang == hours(tower)


@pytest.mark.parametrize("syncs", [False, True])
async def test_deleted_by_a_handler_that_then_raises(
    bells: Harness, bell: RoomHandle, tower: Tower, *, syncs: bool
) -> None:
    """What was deleted and not stored is taken back; what was stored stands: it is retried, and does not go on."""

    async def delete_and_fail(bell: Bell, alarm: Alarm) -> None:
        if len(tower.alarms) == 1:
            await bell.storage.delete_alarm()
            if syncs:
                await bell.storage.sync()
            raise LookupError

    tower.on_alarm = delete_and_fail
    await do(bell, every(HOURLY))
    await bells.advance(3 * HOUR)
    assert ([3600.0, 3602.0] if syncs else [3600.0, 3602.0, 7200.0, 10800.0]) == tower.rang()


async def test_a_change_by_a_handler_that_raises_is_taken_back(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def change_and_fail(bell: Bell, alarm: Alarm) -> None:
        if len(tower.alarms) == 1:
            await bell.storage.set_alarm(Every(DAY))
            raise LookupError

    tower.on_alarm = change_and_fail
    await do(bell, every(HOURLY))
    await bells.advance(3 * HOUR)
    assert [3600.0, 3602.0, 7200.0, 10800.0] == tower.rang()


# --- steered ------------------------------------------------------------------


async def test_a_paused_recurrence_goes_on_with_its_next_occurrence(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    await do(bell, every(HOURLY))
    assert await bell.pause_alarm()
    assert [("paused", None, HOURLY)] == [(e.status, e.next_time, e.recurrence) for e in await bell.list_alarms()]
    await bells.restart()
    await do(bell, every(HOURLY))
    await bells.advance(3.5 * HOUR)
    assert [] == tower.book
    assert await bell.resume_alarm()
    await bells.advance(HOUR)
    assert [4.0] == hours(tower)


async def test_a_recurrence_rung_by_hand_keeps_its_grid(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, every(HOURLY))
    await bells.advance(20 * MINUTE)
    assert await bell.ring_alarm()
    await bells.run_due()
    assert [1200.0] == tower.rang()
    await bells.advance(2 * HOUR)
    assert [1200.0, 3600.0, 7200.0] == tower.rang()


async def test_a_recurrence_whose_time_has_come_to_an_end_is_gone(store: StorageBackend, tower: Tower) -> None:
    clock = FakeClock(datetime(9999, 12, 31, 21, 30, tzinfo=UTC))
    async with Harness({"bell": tower.bell}, backend=store, clock=clock) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, every(HOURLY), every(Every(HOUR), name="paused"))
        await harness.advance(2 * HOUR)
        assert 4 == len(tower.alarms)
        assert [] == await bell.list_alarms()


async def test_a_paused_recurrence_that_has_come_to_an_end_is_gone_when_it_is_resumed(
    store: StorageBackend, tower: Tower
) -> None:
    clock = FakeClock(datetime(9999, 12, 31, 21, 30, tzinfo=UTC))
    async with Harness({"bell": tower.bell}, backend=store, clock=clock) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, every(HOURLY))
        await bell.pause_alarm()
        await harness.advance(2.4 * HOUR)
        assert await bell.resume_alarm()
        assert [] == await bell.list_alarms()


async def test_a_skipped_last_occurrence_ends_it(store: StorageBackend, tower: Tower) -> None:
    """Its time was too long ago to ring at all, and there is no other."""
    last = datetime(9999, 12, 31, 20, tzinfo=UTC)
    async with Harness({"bell": tower.bell}, backend=store, clock=FakeClock(last)) as harness:
        await do(harness.parties["bell"].get("a"), every(Every(2 * HOUR + TICK, grace=timedelta())))
    clock = FakeClock(datetime(9999, 12, 31, 23, tzinfo=UTC))
    async with Harness({"bell": tower.bell}, backend=store, clock=clock) as harness:
        await harness.run_due()
        assert [] == tower.alarms
        assert [] == await harness.parties["bell"].get("a").list_alarms()
