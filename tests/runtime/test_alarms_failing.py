"""Alarms whose handler raises, whose room does not start, and that cannot be read: retried, kept, never lost (G9, G12, G14)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope, create_task_group

from partyroom import (
    Alarm,
    AlarmInfo,
    EventTimeoutError,
    Every,
    Limits,
    RetryPolicy,
    Room,
    RoomBrokenError,
    RoomContext,
    RoomHandle,
    RoomKey,
    StorageBackend,
)
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FakeClock, FaultyBackend, Harness
from partyroom.types import AlarmRow, Commit
from tests.runtime.boxes import Step, do, make_store, put
from tests.runtime.towers import DAY, HOUR, MINUTE, SECOND, START, TICK, Bell, Tower, fail, nothing, ring_at, seconds

pytestmark = pytest.mark.anyio

DEFAULT_WAITS = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
"""What Durable Objects wait, without the part that is random."""


def waits(tower: Tower) -> list[float]:
    return [later - earlier for earlier, later in pairwise(tower.rang())]


async def failed(harness: Harness) -> list[AlarmInfo]:
    return await harness.parties["bell"].failed_alarms()


# --- retried ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["awake", "asleep", "restarted", "crashed"])
async def test_a_raising_handler_is_retried_and_its_alarm_then_kept(
    bells: Harness, bell: RoomHandle, tower: Tower, how: str
) -> None:
    """The count and the next time survive whatever happens between two tries."""
    tower.on_alarm = fail
    await do(bell, put(key=1), ring_at(MINUTE, payload="x"))
    await bells.advance(MINUTE)
    for number, wait in enumerate(DEFAULT_WAITS, 1):
        assert [("retrying", 60.0, number)] == [
            (each.status, seconds(each.scheduled_time), each.retry_count) for each in await bell.list_alarms()
        ]
        if how == "asleep":
            await bells.put_to_sleep(bell)
        elif how == "restarted":
            await bells.restart()
        elif how == "crashed":
            await bells.crash()
        await bells.advance(wait * SECOND - TICK)
        assert number == len(tower.alarms)
        await bells.advance(TICK)
    assert DEFAULT_WAITS == waits(tower)
    assert [(number, number > 0) for number in range(7)] == [(each.retry_count, each.is_retry) for each in tower.alarms]
    assert 1 == len({(each.id, each.scheduled_time, each.payload) for each in tower.alarms})
    [kept] = await failed(bells)
    assert kept == AlarmInfo(
        room=RoomKey("bell", "a"),
        name=None,
        status="failed",
        next_time=None,
        scheduled_time=START + MINUTE,
        recurrence=None,
        payload="x",
        retry_count=7,
        last_outcome="error",
        last_time=START + MINUTE + sum(DEFAULT_WAITS) * SECOND,
        last_error="LookupError: the rope is torn",
    )
    assert [kept] == await bell.list_alarms() == await bells.parties["bell"].parked_alarms()
    assert [None] == await do(bell, lambda storage: storage.get_alarm())
    await bells.expect_quiet(DAY)
    await bells.restart()
    assert [kept] == await failed(bells)
    bells.assert_idle()


async def test_between_retries_the_next_one_is_what_is_told(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    """Never a time that will not ring (G10)."""
    tower.on_alarm = fail
    await do(bell, ring_at(MINUTE))
    await bells.advance(MINUTE)
    for wait in DEFAULT_WAITS:
        [told] = await do(bell, lambda storage: storage.get_alarm())
        assert bells.now() + wait * SECOND == told == await bells.runtime.next_alarm()
        await bells.advance_to(told)


async def test_a_retry_that_goes_well_ends_it(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def fail_twice(bell: Bell, alarm: Alarm) -> None:
        await bell.storage.put("tries", alarm.retry_count)
        if alarm.retry_count < 2:
            raise LookupError

    tower.on_alarm = fail_twice
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert [60.0, 62.0, 66.0] == tower.rang()
    assert {"tries": 2} == await bells.stored(bell)
    bells.assert_idle()


CHANGES: list[tuple[Step, list[float], int]] = [
    (ring_at(START + 61 * SECOND + TICK), [60.0, 61.000001], 0),
    (ring_at(START + MINUTE), [60.0, 60.0], 0),
    (ring_at(START), [60.0, 60.0], 0),
    (ring_at(HOUR), [60.0, 3660.0], 0),
    (ring_at(START + 62 * SECOND), [60.0, 62.0], 0),
    (lambda storage: storage.delete_alarm(), [60.0], 0),
    (lambda storage: storage.delete_all(), [60.0], 0),
    (lambda storage: storage.ring_alarm(), [60.0, 60.0], 0),
    (ring_at(HOUR, "other"), [60.0, 62.0, 3660.0], 1),
]


@pytest.mark.parametrize(("step", "rang", "retried"), CHANGES)
async def test_setting_or_deleting_the_alarm_meanwhile_replaces_the_retry(
    bells: Harness, bell: RoomHandle, tower: Tower, step: Step, rang: list[float], *, retried: int
) -> None:
    """Sooner than the retry, too: workerd has that one wait for it."""

    async def fail_first(bell: Bell, _alarm: Alarm) -> None:
        if len(tower.alarms) == 1:
            raise LookupError

    tower.on_alarm = fail_first
    await do(bell, ring_at(MINUTE))
    await bells.advance(MINUTE)
    await do(bell, step)
    await bells.advance(DAY)
    assert rang == tower.rang()
    assert retried == sum(alarm.is_retry for alarm in tower.alarms)
    assert [] == await bell.list_alarms()


async def test_a_room_says_when_its_alarms_are_retried_and_an_alarm_for_itself(
    store: StorageBackend, tower: Tower
) -> None:
    class Patient(Bell):
        alarm_retry = RetryPolicy(max_retries=3, first_delay=HOUR, max_delay=2 * HOUR)

    tower.on_alarm = fail
    own = RetryPolicy(max_retries=2, first_delay=10 * SECOND)
    never = RetryPolicy(max_retries=0)

    def make(ctx: RoomContext) -> Patient:
        return Patient(ctx, tower)

    async with Harness({"bell": make}, backend=store, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        steps: list[Step] = [
            ring_at(timedelta()),
            lambda storage: storage.set_alarm(timedelta(), name="own", retry=own),
            lambda storage: storage.set_alarm(timedelta(), name="never", retry=never),
        ]
        await do(bell, *steps)
        await harness.restart()
        await harness.advance(DAY)
        book = {
            name: [when for when, what in tower.book if what.startswith(f"a rings{name}")]
            for name in ("", " own", " never")
        }
        assert [0.0, 3600.0, 10800.0, 18000.0] == [when for when in book[""] if when not in {10.0, 30.0}][2:]
        assert ([0.0, 10.0, 30.0], [0.0]) == (book[" own"], book[" never"])
        assert [(None, 4), ("never", 1), ("own", 3)] == [
            (each.name, each.retry_count) for each in await failed(harness)
        ]


# --- what counts as a failure -------------------------------------------------


async def too_long(bell: Bell, _alarm: Alarm) -> None:
    await bell.storage.put("began", True)
    await bell.ctx.clock.sleep(HOUR)


async def abort(bell: Bell, _alarm: Alarm) -> None:
    await bell.storage.put("began", True)
    bell.ctx.abort("enough")


async def cancel_itself(bell: Bell, _alarm: Alarm) -> None:
    await bell.storage.put("began", True)
    with CancelScope() as scope:
        scope.cancel()
        await bell.ctx.clock.sleep(SECOND)
    raise KeyError(scope.cancelled_caught)


async def group(bell: Bell, _alarm: Alarm) -> None:
    async with create_task_group() as tasks:
        tasks.start_soon(fail, bell, _alarm)


async def set_wrongly(bell: Bell, _alarm: Alarm) -> None:
    wrong: Any = 3
    await bell.storage.set_alarm(wrong)


FAILURES: list[tuple[Callable[[Bell, Alarm], Awaitable[None]], str, float]] = [
    (fail, "LookupError: the rope is torn", 0),
    (too_long, "EventTimeoutError: bell/a on_alarm ran longer than 0:15:00", 900),
    (abort, "RoomAbortedError: bell/a: aborted: enough", 0),
    (cancel_itself, "KeyError: True", 0),
    (group, "ExceptionGroup: ", 0),
    (set_wrongly, "AlarmTimeError: bell/a alarm: a time is an aware datetime", 0),
]


@pytest.mark.parametrize(("handler", "error", "lasts"), FAILURES)
async def test_a_failure_uses_up_a_retry_and_stores_nothing(
    bells: Harness,
    bell: RoomHandle,
    tower: Tower,
    handler: Callable[[Bell, Alarm], Awaitable[None]],
    *,
    error: str,
    lasts: float,
) -> None:
    tower.on_alarm = handler
    await do(bell, ring_at(MINUTE))
    await bells.advance(MINUTE + lasts * SECOND)
    [info] = await bell.list_alarms()
    assert ("retrying", 1, bells.now() + 2 * SECOND) == (info.status, info.retry_count, info.next_time)
    assert (info.last_error or "").replace("partyroom.errors.", "").startswith(error)
    assert {} == await bells.stored(bell)
    await bells.advance(HOUR * 3)
    assert 7 == len(tower.alarms)
    assert ["failed"] == [each.status for each in await bell.list_alarms()]


async def test_the_time_limit_of_a_handler_is_the_runtimes(store: StorageBackend, tower: Tower) -> None:
    tower.on_alarm = too_long
    limits = Limits(alarm_timeout=MINUTE, event_timeout=SECOND)
    async with Harness({"bell": tower.bell}, backend=store, limits=limits) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, ring_at(timedelta()))
        with harness.expect_error(EventTimeoutError, "bell/a on_alarm ran longer than 0:01:00"):
            await harness.advance(MINUTE)
        await do(bell, lambda storage: storage.delete_alarm())


async def test_without_a_time_limit_a_handler_runs_as_long_as_it_likes(store: StorageBackend, tower: Tower) -> None:
    async def slow(bell: Bell, _alarm: Alarm) -> None:
        await bell.ctx.clock.sleep(DAY)
        await bell.storage.put("done", True)

    tower.on_alarm = slow
    async with Harness({"bell": tower.bell}, backend=store, limits=Limits(alarm_timeout=None)) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, ring_at(timedelta()))
        await harness.advance(DAY)
        assert {"done": True} == await harness.stored(bell)


async def test_a_handler_that_is_ended_loses_its_instance_and_the_retry_gets_a_fresh_one(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    instances: list[Bell] = []

    async def note(bell: Bell, alarm: Alarm) -> None:
        instances.append(bell)
        if not alarm.is_retry:
            bell.ctx.abort()

    tower.on_alarm = note
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert 2 == len({id(each) for each in instances})


async def test_a_handler_that_raises_keeps_its_instance(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    instances: list[Bell] = []

    async def note(bell: Bell, alarm: Alarm) -> None:
        instances.append(bell)
        if alarm.retry_count < 2:
            raise LookupError

    tower.on_alarm = note
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert 3 == len(instances)
    assert 1 == len({id(each) for each in instances[1:]})


async def test_an_error_of_another_room_is_the_handlers_own(store: StorageBackend, tower: Tower) -> None:
    """Also one that, of its own room, would say that the ring did not count."""
    faulty = FaultyBackend(store)

    async def call(bell: Bell, _alarm: Alarm) -> None:
        await bell.ctx.parties["bell"].get("other").call(write)

    async def write(room: Bell) -> None:
        await room.storage.put("key", 1)

    tower.on_alarm = call
    async with Harness({"bell": tower.bell}, backend=faulty, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, ring_at(MINUTE))
        faulty.refuse(RoomKey("bell", "other"), times=100)
        await harness.advance(HOUR)
        assert DEFAULT_WAITS == waits(tower)
        [kept] = await failed(harness)
        assert "RoomBrokenError: bell/other" in (kept.last_error or "")


# --- kept ---------------------------------------------------------------------


async def exhaust(harness: Harness, tower: Tower) -> None:
    """Let the alarms that are due fail until they are kept."""
    tower.on_alarm = fail
    await harness.advance(5 * MINUTE)
    tower.on_alarm = nothing
    tower.take()


async def test_a_failed_alarm_is_rung_again_with_all_of_its_retries_before_it(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    await do(bell, ring_at(MINUTE, "named", "x"))
    await exhaust(bells, tower)
    tower.on_alarm = fail
    assert await bell.ring_alarm("named")
    began = seconds(bells.now())
    await bells.advance(HOUR)
    assert DEFAULT_WAITS == waits(tower)
    assert began == tower.rang()[0]
    assert {("named", "x", START + MINUTE)} == {(each.name, each.payload, each.scheduled_time) for each in tower.alarms}
    assert 2 == len({alarm.id for alarm in tower.alarms})
    tower.on_alarm = nothing
    assert await bell.ring_alarm("named")
    await bells.run_due()
    assert [] == await bell.list_alarms()


DELETIONS: list[Step] = [lambda storage: storage.delete_alarm("named"), lambda storage: storage.delete_all()]


@pytest.mark.parametrize("step", DELETIONS)
async def test_a_failed_alarm_can_be_deleted(bells: Harness, bell: RoomHandle, tower: Tower, step: Step) -> None:
    await do(bell, ring_at(MINUTE, "named"))
    await exhaust(bells, tower)
    assert 1 == len(await failed(bells))
    await do(bell, step)
    assert [] == await failed(bells)
    assert [] == await bells.parties["bell"].rooms()


async def test_a_failed_alarm_is_replaced_by_setting_it(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, ring_at(MINUTE))
    await exhaust(bells, tower)
    await do(bell, ring_at(MINUTE))
    assert [("pending", 0, None)] == [
        (each.status, each.retry_count, each.last_error) for each in await bell.list_alarms()
    ]
    await bells.advance(MINUTE)
    assert 1 == len(tower.rang())


async def test_failed_alarms_are_listed_by_room_and_name_page_by_page(bells: Harness, tower: Tower) -> None:
    for room in ("b", "a"):
        await do(bells.parties["bell"].get(room), *(ring_at(timedelta(), name) for name in ("y", None, "x")))
        await do(bells.parties["bell"].get(room), ring_at(DAY, "pending"), ring_at(DAY, "paused"))
        await bells.parties["bell"].get(room).pause_alarm("paused")
    await exhaust(bells, tower)
    expected = [(room, name) for room in ("a", "b") for name in (None, "x", "y")]
    party = bells.parties["bell"]
    assert expected == [(each.room.id, each.name) for each in await party.failed_alarms()]
    seen: list[AlarmInfo] = []
    while page := await party.failed_alarms(start_after=seen[-1] if seen else None, limit=2):
        seen += page
    assert expected == [(each.room.id, each.name) for each in seen]
    assert 8 == len(await party.parked_alarms())


async def test_a_room_learns_of_the_final_failure_right_after_it(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    told: list[tuple[Alarm, str]] = []

    async def note(bell: Bell, alarm: Alarm, error: Exception) -> None:
        told.append((alarm, repr(error)))
        assert ["failed"] == [each.status for each in await bell.storage.list_alarms()]
        await bell.storage.put("told", True)
        await bell.storage.set_alarm(DAY, name="another way")

    tower.on_failed = note
    tower.on_alarm = fail
    await do(bell, ring_at(MINUTE, payload="x"))
    await bells.advance(HOUR)
    assert [(tower.alarms[-1], "LookupError('the rope is torn')")] == told
    assert ["a rings again", "a failed"] == [what for _, what in tower.book[-2:]]
    assert {"told": True} == await bells.stored(bell)
    assert ["another way", None] == [each.name for each in await bell.list_alarms()]


async def test_on_alarm_failed_may_set_the_alarm_again(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def again(bell: Bell, alarm: Alarm, _error: Exception) -> None:
        await bell.storage.set_alarm(DAY)

    tower.on_failed = again
    tower.on_alarm = fail
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert [] == await failed(bells)
    assert ["pending"] == [each.status for each in await bell.list_alarms()]


async def test_a_raising_on_alarm_failed_is_not_called_again_and_the_alarm_is_kept(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def raise_too(_bell: Bell, _alarm: Alarm, _error: Exception) -> None:
        raise ZeroDivisionError

    tower.on_failed = raise_too
    tower.on_alarm = fail
    await do(bell, ring_at(MINUTE))
    await bells.advance(DAY)
    assert 1 == len([what for _, what in tower.book if "failed" in what])
    assert 1 == len(await failed(bells))
    assert ["ZeroDivisionError"] == [
        type(each.error).__name__ for each in bells.errors if each.event == "on_alarm_failed"
    ]


async def test_a_final_failure_that_ends_the_instance_is_told_to_the_next(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    tower.on_alarm = abort
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert "a failed" == tower.book[-1][1]


# --- a room that does not start -----------------------------------------------


@pytest.mark.parametrize("where", ["constructor", "on_start"])
async def test_a_room_that_does_not_start_is_woken_again_later_and_uses_up_no_retry(
    bells: Harness, bell: RoomHandle, tower: Tower, where: str
) -> None:
    starts: list[float] = []

    def construct(_bell: Bell) -> None:
        starts.append((bells.now() - START).total_seconds())
        if where == "constructor" and len(starts) <= 12:
            raise LookupError

    async def start(_bell: Bell) -> None:
        if len(starts) <= 12:
            raise LookupError

    await do(bell, ring_at(MINUTE))
    await bells.put_to_sleep(bell)
    tower.on_construct, tower.on_start = construct, start
    await bells.advance(DAY)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert [*(2.0**number for number in range(1, 11)), 1024.0, 1024.0] == pauses
    [alarm] = tower.alarms
    assert (0, START + MINUTE) == (alarm.retry_count, alarm.scheduled_time)
    bells.assert_idle()


async def test_a_room_that_does_not_start_keeps_its_alarm_over_a_restart(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def start(_bell: Bell) -> None:
        raise LookupError

    await do(bell, ring_at(MINUTE))
    await bells.put_to_sleep(bell)
    tower.on_start = start
    await bells.advance(HOUR)
    tower.on_start = nothing
    await bells.restart()
    await bells.run_due()
    assert [3660.0 - 60.0] == tower.rang()
    assert [0] == [alarm.retry_count for alarm in tower.alarms]


async def test_a_backend_that_does_not_answer_delays_a_ring_and_loses_none(store: StorageBackend, tower: Tower) -> None:
    faulty = FaultyBackend(store)
    async with Harness({"bell": tower.bell}, backend=faulty, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, ring_at(MINUTE))
        await harness.restart()
        faulty.fail("claim")
        faulty.fail("room_alarms")
        await harness.advance(HOUR)
        assert [66.0] == tower.rang()
        assert [0] == [alarm.retry_count for alarm in tower.alarms]


async def test_a_room_that_breaks_keeps_its_alarm_however_little_is_looked_ahead(
    store: StorageBackend, tower: Tower
) -> None:
    """Also where the time to look again lies behind all that is known of alarms (G8)."""
    faulty = FaultyBackend(store)
    limits = Limits(alarm_lookahead=2)
    async with Harness({"bell": tower.bell}, backend=faulty, limits=limits, fail_on_errors=False) as harness:
        bells = [harness.parties["bell"].get(name) for name in "abcd"]
        for number, bell in enumerate(bells):
            await do(bell, ring_at(number * MINUTE + SECOND))
        await harness.restart()
        await harness.advance(MINUTE)
        faulty.refuse(RoomKey("bell", "b"))
        with pytest.raises(RoomBrokenError):
            await do(bells[1], put(key=1))
        await harness.advance(HOUR)
        assert [1.0, 62.0, 121.0, 181.0] == tower.rang()


# --- what cannot be read ------------------------------------------------------


async def stored_rows(*rows: AlarmRow) -> MemoryBackend:
    backend = MemoryBackend()
    room = RoomKey("bell", "a")
    async with backend:
        fence = await backend.claim(room)
        await backend.commit([Commit(room, fence, {}, {row.name: row for row in rows}, release=True)])
    return backend


def row(name: str, data: bytes, due: int | None = 0) -> AlarmRow:
    micros = None if due is None else int((START + due * SECOND).timestamp()) * 1_000_000
    return AlarmRow(RoomKey("bell", "a"), name, micros, data)


GOOD = b'{"id":"0123456789abcdef"}'


async def test_a_record_that_cannot_be_read_is_kept_and_holds_up_no_other(anyio_backend: object, tower: Tower) -> None:
    backend = await stored_rows(row("bad", b"{", 0), row("good", GOOD, 1), row("later", b"[]", 3600))
    async with Harness({"bell": tower.bell}, backend=backend, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        infos = await bell.list_alarms()
        assert [("bad", "pending"), ("good", "pending"), ("later", "pending")] == [(i.name, i.status) for i in infos]
        assert ["DecodeError" in str(info.last_error) for info in infos] == [True, False, True]
        await harness.advance(2 * SECOND)
        assert [(1.0, "a rings good")] == tower.book
        [bad] = await failed(harness)
        assert ("bad", "failed", None) == (bad.name, bad.status, bad.next_time)
        assert "no record of an alarm: b'{'" in str(bad.last_error)
        assert ["DecodeError"] == [type(each.error).__name__ for each in harness.errors]
        assert ["later", "bad"] == [each.name for each in await bell.list_alarms()]
        assert ["later"] == [each.name for each in await harness.parties["bell"].list_alarms()]

        async def steer(room: Bell) -> None:
            for verb in (room.storage.ring_alarm, room.storage.pause_alarm, room.storage.resume_alarm):
                with pytest.raises(ValueError, match="bell/a alarm 'later': no record of an alarm"):
                    await verb("later")

        await bell.call(steer)
        assert await bell.delete_alarm("bad")
        await do(bell, lambda storage: storage.set_alarm(Every(HOUR), name="later"))
        assert ["later"] == [each.name for each in await bell.list_alarms()]


async def test_a_payload_that_cannot_be_read_fails_alone_and_is_told(anyio_backend: object, tower: Tower) -> None:
    backend = await stored_rows(row("bad", GOOD + b"\n{", 0), row("good", GOOD + b"\n[1]", 1))
    async with Harness({"bell": tower.bell}, backend=backend, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        assert [("bad", None), ("good", [1])] == [(each.name, each.payload) for each in await bell.list_alarms()]
        await harness.advance(HOUR)
        assert [(1.0, "a rings good")] == tower.book
        [bad] = await failed(harness)
        assert ("bad", 7, None) == (bad.name, bad.retry_count, bad.payload)
        assert 7 == len(harness.errors)
        # Whoever can read it by then rings it again.
        assert await bell.ring_alarm("bad")


async def test_an_alarm_that_could_be_read_again_rings_as_of_now(anyio_backend: object, tower: Tower) -> None:
    """One that was kept without a time, because nobody could read the one it had."""
    backend = await stored_rows(row("", GOOD, None))
    async with Harness({"bell": tower.bell}, backend=backend) as harness:
        bell = harness.parties["bell"].get("a")
        await harness.advance(HOUR)
        assert ["failed"] == [each.status for each in await bell.list_alarms()]
        assert await bell.ring_alarm()
        await harness.run_due()
        assert [START + HOUR] == [alarm.scheduled_time for alarm in tower.alarms]


# --- nobody there to ring (G14) -----------------------------------------------


class Silent(Room):
    """Has no ``on_alarm``."""


async def test_an_alarm_in_a_class_that_has_lost_its_on_alarm_waits_and_is_logged_once(
    store: StorageBackend, tower: Tower, caplog: pytest.LogCaptureFixture
) -> None:
    async with Harness({"bell": tower.bell}, backend=store) as harness:
        for room in "abc":
            await do(harness.parties["bell"].get(room), ring_at(MINUTE), ring_at(HOUR, "later"))
    clock = FakeClock(START)
    async with Harness({"bell": Silent}, backend=store, clock=clock) as harness:
        await harness.advance(DAY)
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "bell/a: an alarm is due, but Silent has no on_alarm; it waits" == record.getMessage()
        assert 6 == len(await harness.parties["bell"].list_alarms())
        report = await harness.ring_due()
        assert (0, ()) == (report.rung, report.failed)
    async with Harness({"bell": tower.bell}, backend=store, clock=clock) as harness:
        await harness.run_due()
        assert 6 == len(tower.alarms)
        assert {0} == {alarm.retry_count for alarm in tower.alarms}


async def test_an_alarm_of_a_party_that_is_not_registered_waits_and_is_logged_once(
    tmp_path: Path, tower: Tower, caplog: pytest.LogCaptureFixture, anyio_backend: object
) -> None:
    store = make_store("file", tmp_path)
    async with Harness({"bell": tower.bell, "gone": tower.bell}, backend=store) as harness:
        for room in "abc":
            await do(harness.parties["gone"].get(room), ring_at(MINUTE))
        await do(harness.parties["bell"].get("a"), ring_at(HOUR))
    clock = FakeClock(START)
    async with Harness({"bell": tower.bell}, backend=store, clock=clock, limits=Limits(alarm_lookahead=1)) as harness:
        assert START + HOUR == await harness.runtime.next_alarm()
        await harness.advance(DAY)
        assert [(3600.0, "a rings")] == tower.take()
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "alarms of the party 'gone' wait: it is not registered" == record.getMessage()
        assert await harness.runtime.next_alarm() is None
        assert 0 == (await harness.ring_due()).rung
    async with Harness({"gone": tower.bell}, backend=store, clock=clock) as harness:
        await harness.run_due()
        assert ["a rings", "b rings", "c rings"] == [what for _, what in tower.book]
