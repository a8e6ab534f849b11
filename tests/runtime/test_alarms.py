"""Alarms through the engine: set, moved, deleted, rung once, on their time, with the data (G7 to G11, G13, G14)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, Literal

import pytest
from anyio import Event, create_task_group, sleep_forever
from attrs import evolve

from partyroom import (
    Alarm,
    AlarmTimeError,
    Every,
    InvalidKeyError,
    LimitExceededError,
    NoHandlerError,
    NotStorableError,
    Room,
    RoomBrokenError,
    RoomContext,
    RoomHandle,
    RoomKey,
    RuntimeClosedError,
    StorageBackend,
)
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FakeClock, FaultyBackend, Harness, RecordingBackend
from tests.runtime.boxes import Step, do, put, undo
from tests.runtime.towers import DAY, HOUR, MINUTE, SECOND, START, TICK, Bell, Tower, nothing, ring_at, seconds

pytestmark = pytest.mark.anyio

GET: Step = lambda storage: storage.get_alarm()  # noqa: E731
DELETE: Step = lambda storage: storage.delete_alarm()  # noqa: E731
DELETE_ALL: Step = lambda storage: storage.delete_all()  # noqa: E731
SYNC: Step = lambda storage: storage.sync()  # noqa: E731


async def when(bell: RoomHandle, name: str | None = None) -> float | None:
    """Give when an alarm rings next, in seconds since the beginning."""
    [found] = await do(bell, lambda storage: storage.get_alarm(name))
    return seconds(found)


# --- G8: never early, never lost ----------------------------------------------


@pytest.mark.parametrize("how", ["awake", "asleep", "restarted", "crashed"])
async def test_an_alarm_rings_at_its_time_and_not_a_tick_before(
    bells: Harness, bell: RoomHandle, tower: Tower, how: str
) -> None:
    await do(bell, ring_at(MINUTE))
    if how == "asleep":
        await bells.put_to_sleep(bell)
    elif how == "restarted":
        await bells.restart()
    elif how == "crashed":
        await bells.crash()
    await bells.advance(MINUTE - TICK)
    assert [] == tower.book
    await bells.advance(TICK)
    assert [(60.0, "a rings")] == tower.book
    assert [Alarm(None, tower.alarms[0].id, START + MINUTE)] == tower.alarms
    await bells.expect_quiet(10 * DAY)


async def test_a_time_may_be_in_any_zone_and_comes_back_in_utc(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    there = timezone(timedelta(hours=-7))
    [_, found] = await do(bell, ring_at((START + HOUR).astimezone(there)), GET)
    assert (START + HOUR, UTC) == (found, found.tzinfo)
    await bells.advance(HOUR)
    assert [3600.0] == tower.rang()


async def test_what_an_event_has_deleted_it_does_not_find_again(bell: RoomHandle) -> None:
    await do(bell, ring_at(MINUTE))
    assert [None, None, None] == await do(bell, DELETE_ALL, GET, lambda storage: storage.get_alarm("named"))
    assert await when(bell) is None


@pytest.mark.parametrize("late", [timedelta(), TICK, DAY, START - datetime(1, 1, 1, tzinfo=UTC)], ids=str)
async def test_an_alarm_set_for_the_past_rings_at_once_and_once(
    bells: Harness, bell: RoomHandle, tower: Tower, late: timedelta
) -> None:
    assert START - late == (await do(bell, ring_at(-late), GET))[1]
    await bells.run_due()
    assert [0.0] == tower.rang()
    assert START - late == tower.alarms[0].scheduled_time
    assert late == tower.alarms[0].lateness
    await bells.expect_quiet(DAY)


async def test_what_a_constructor_takes_counts_as_lateness() -> None:
    clock, told, slow = FakeClock(START), list[Alarm](), list[timedelta]()

    class Late(Room):
        def __init__(self, ctx: RoomContext) -> None:
            super().__init__(ctx)
            if slow:
                clock.set_wall(clock.now() + slow[0])

        async def begin(self) -> None:
            await self.ctx.storage.set_alarm(Every(HOUR, grace=5 * MINUTE))

        async def on_alarm(self, alarm: Alarm) -> None:
            told.append(alarm)

    async with Harness({"late": Late}, clock=clock) as harness:
        room = harness.parties["late"].get("a")
        await room.call(Late.begin)
        for took in (MINUTE, 10 * MINUTE):
            await harness.put_to_sleep(room)
            slow[:] = [took]
            await harness.advance(HOUR)
    assert [(START + HOUR, MINUTE)] == [(alarm.scheduled_time, alarm.lateness) for alarm in told], (
        "then older than its grace"
    )


async def test_the_last_moment_of_the_calendar_can_be_set(bell: RoomHandle) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    assert [None, last] == await do(bell, ring_at(last), GET)


@pytest.mark.parametrize("years", [0, 30])
async def test_what_is_overdue_at_the_start_rings_in_order_of_due_time(
    store: StorageBackend, tower: Tower, years: int
) -> None:
    """In order of rooms and names where that is the same."""
    names: dict[str, list[tuple[int, str | None]]] = {
        "c": [(1, None), (5, None)],
        "a": [(2, "z"), (4, None)],
        "b": [(2, "y"), (2, "x"), (3, None)],
    }
    async with Harness({"bell": tower.bell}, backend=store, alarms="manual") as harness:
        for room, alarms in names.items():
            steps = [ring_at(number * SECOND, f"{name or ''}{number}") for number, name in alarms]
            await do(harness.parties["bell"].get(room), *steps)
    clock = FakeClock(START + HOUR + years * 365 * DAY)
    async with Harness({"bell": tower.bell}, backend=store, clock=clock) as harness:
        await harness.run_due()
        order = ["c rings 1", "a rings z2", "b rings x2", "b rings y2", "b rings 3", "a rings 4", "c rings 5"]
        assert order == [what for _, what in tower.book]
        assert {seconds(clock.now())} == {when for when, _ in tower.book}
        harness.assert_idle()


async def test_alarms_of_one_instant_ring_in_the_order_of_rooms_and_names(bells: Harness, tower: Tower) -> None:
    for room in ("b", "a", "c"):
        await do(bells.parties["bell"].get(room), ring_at(MINUTE, "2"), ring_at(MINUTE, "1"), ring_at(MINUTE))
    await bells.advance(MINUTE)
    order = [f"{room} rings{name}" for room in "abc" for name in ("", " 1", " 2")]
    assert order == [what for _, what in tower.book]


async def test_a_wall_clock_that_is_set_forward_has_what_became_overdue_rung(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    await do(bell, ring_at(HOUR))
    bells.clock.set_wall(START + 2 * HOUR)
    await bells.run_due()
    assert [7200.0] == tower.rang()
    assert [HOUR] == [alarm.lateness for alarm in tower.alarms]


async def test_a_wall_clock_that_is_set_back_makes_no_alarm_early(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    await do(bell, ring_at(HOUR))
    await bells.advance(HOUR - SECOND)
    bells.clock.set_wall(START - DAY)
    await bells.advance(DAY + HOUR - TICK)
    assert [] == tower.book
    await bells.advance(TICK)
    assert [3600.0] == tower.rang()


async def test_a_wall_clock_that_is_set_back_while_the_room_wakes_makes_no_alarm_early(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    """Between the clock's ring and the room's own look at it."""

    async def set_back(bell: Bell) -> None:
        if bells.now() == START + HOUR:
            tower.on_start = nothing
            tower.note(bell.ctx, "starts")
            bells.clock.set_wall(START)

    tower.on_start = set_back
    await do(bell, ring_at(HOUR))
    await bells.put_to_sleep(bell)
    await bells.advance(HOUR)
    assert [(3600.0, "a starts")] == tower.take()
    await bells.advance(HOUR - TICK)
    assert [] == tower.take()
    await bells.advance(TICK)
    assert [(3600.0, "a rings")] == tower.take()


async def test_a_clock_that_leaps_rings_once_and_late(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, ring_at(HOUR))
    await bells.jump(DAY)
    assert [86400.0] == tower.rang()
    assert [DAY - HOUR] == [alarm.lateness for alarm in tower.alarms]


async def test_an_alarm_that_is_always_put_off_never_rings(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    for _ in range(100):
        await do(bell, ring_at(HOUR))
        await bells.advance(HOUR - TICK)
    assert [] == tower.book
    await bells.advance(TICK)
    assert 1 == len(tower.book)


# --- G9: once, as far as storage can tell -------------------------------------


async def count(bell: Bell, _alarm: Alarm) -> None:
    await bell.storage.put("count", await bell.storage.get("count", 0) + 1)


def same_ring(one: Alarm, other: Alarm) -> bool:
    """Say whether two alarms are one that was rung twice, as the first time."""
    return evolve(one, lateness=other.lateness) == other and not other.is_retry


@pytest.fixture
def faulty(store: StorageBackend) -> FaultyBackend:
    return FaultyBackend(store)


@asynccontextmanager
async def counting(faulty: FaultyBackend, tower: Tower, alarms: Literal["auto", "manual"]) -> AsyncGenerator[Harness]:
    """Give a room that sleeps, whose alarm counts its rings, and is set in a minute."""
    tower.on_alarm = count
    async with Harness({"bell": tower.bell}, backend=faulty, alarms=alarms, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, ring_at(MINUTE, payload="x"))
        await harness.put_to_sleep(bell)
        yield harness
        faulty.heal()


@pytest.fixture
async def faulty_bells(faulty: FaultyBackend, tower: Tower, anyio_backend: object) -> AsyncIterator[Harness]:
    async with counting(faulty, tower, "auto") as harness:
        yield harness


@pytest.fixture
async def crashing_bells(faulty: FaultyBackend, tower: Tower, anyio_backend: object) -> AsyncIterator[Harness]:
    """Give the same, rung by hand, so that it is certain who rings before the crash and who after it."""
    async with counting(faulty, tower, "manual") as harness:
        yield harness


async def crash_at(harness: Harness, moment: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Have the alarm rung, crash at a moment of that, and give what is stored."""
    harness.clock.set_wall(START + MINUTE)

    async def ring() -> None:
        with suppress(RuntimeClosedError):
            await harness.ring_due()

    async with create_task_group() as tasks:
        tasks.start_soon(ring)
        await moment()
        await harness.crash()
    return await harness.parties["bell"].get("a").stored()


async def test_a_crash_before_the_handlers_commit_rings_again_and_uses_up_no_retry(
    faulty: FaultyBackend, crashing_bells: Harness, tower: Tower
) -> None:
    assert {} == await crash_at(crashing_bells, faulty.hold("commit").arrived)
    assert 1 == (await crashing_bells.ring_due()).rung
    assert {"count": 1} == await crashing_bells.stored(crashing_bells.parties["bell"].get("a"))
    [first, second] = tower.alarms
    assert same_ring(first, second)
    assert 0 == (await crashing_bells.ring_due()).rung


async def test_a_crash_after_the_handlers_commit_does_not_ring_again(
    faulty: FaultyBackend, crashing_bells: Harness, tower: Tower
) -> None:
    """Also when nobody was told yet that it is stored."""
    assert {"count": 1} == await crash_at(crashing_bells, faulty.hold_answer("commit").arrived)
    assert 0 == (await crashing_bells.ring_due()).rung
    assert 1 == len(tower.alarms)


async def test_a_crash_inside_the_handler_rings_again(crashing_bells: Harness, tower: Tower) -> None:
    is_inside = Event()

    async def stop(bell: Bell, alarm: Alarm) -> None:
        await count(bell, alarm)
        if len(tower.alarms) == 1:
            is_inside.set()
            await sleep_forever()

    tower.on_alarm = stop
    assert {} == await crash_at(crashing_bells, is_inside.wait)
    assert 1 == (await crashing_bells.ring_due()).rung
    assert {"count": 1} == await crashing_bells.stored(crashing_bells.parties["bell"].get("a"))
    assert same_ring(*tower.alarms)


async def test_a_refused_commit_rings_again_later_and_uses_up_no_retry(
    faulty: FaultyBackend, faulty_bells: Harness, tower: Tower
) -> None:
    """It is asked for again after longer and longer times: the disk may be full for hours."""
    faulty.refuse(RoomKey("bell", "a"), times=9)
    await faulty_bells.advance(MINUTE)
    assert [60.0] == tower.rang()
    await faulty_bells.advance(HOUR)
    waits = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]
    assert waits == [later - earlier for earlier, later in pairwise(tower.rang())]
    assert {"count": 1} == await faulty_bells.stored(faulty_bells.parties["bell"].get("a"))
    assert all(same_ring(tower.alarms[0], alarm) for alarm in tower.alarms)
    await faulty_bells.expect_quiet(DAY)


async def test_after_a_ring_went_well_the_next_refused_commit_is_the_first_again(
    faulty: FaultyBackend, faulty_bells: Harness, tower: Tower
) -> None:
    bell = faulty_bells.parties["bell"].get("a")
    for times in (3, 1):
        tower.take()
        faulty.refuse(RoomKey("bell", "a"), times=times)
        await faulty_bells.advance(HOUR)
        await do(bell, ring_at(MINUTE))
        await faulty_bells.put_to_sleep(bell)
        assert [2.0, 4.0, 8.0][:times] == [later - earlier for earlier, later in pairwise(tower.rang())]


async def test_a_commit_whose_answer_is_lost_counts_once(
    faulty: FaultyBackend, faulty_bells: Harness, tower: Tower
) -> None:
    faulty.lose_answer("commit")
    await faulty_bells.advance(HOUR)
    assert {"count": 1} == await faulty_bells.stored(faulty_bells.parties["bell"].get("a"))
    assert 1 == len(tower.alarms)


async def test_a_ring_that_runs_when_an_earlier_commit_is_refused_is_rung_again(
    faulty: FaultyBackend, faulty_bells: Harness, tower: Tower
) -> None:
    """What it had read is not stored."""
    bell = faulty_bells.parties["bell"].get("a")
    seen: list[object] = []

    async def look(bell: Bell, _alarm: Alarm) -> None:
        seen.append(await bell.storage.get("key"))
        await bell.ctx.clock.sleep(SECOND)

    tower.on_alarm = look
    hold = faulty.hold("commit")
    faulty.refuse(RoomKey("bell", "a"))
    async with create_task_group() as tasks:

        async def write() -> None:
            with pytest.raises(RoomBrokenError):
                await do(bell, put(key=1), ring_at(-SECOND))

        async def move() -> None:
            await faulty_bells.advance(MINUTE)

        tasks.start_soon(write)
        await hold.arrived()
        tasks.start_soon(move)
        hold.release()
    await faulty_bells.advance(HOUR)
    assert seen[-1] is None
    assert 1 == len([alarm for alarm in tower.alarms if alarm.payload == "x"])
    assert await faulty_bells.runtime.next_alarm() is None


# --- G10: one for each name ---------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(MINUTE, HOUR), (HOUR, MINUTE), (MINUTE, MINUTE)])
async def test_setting_an_alarm_replaces_the_one_of_that_name(
    bells: Harness, bell: RoomHandle, tower: Tower, first: timedelta, second: timedelta
) -> None:
    await do(bell, ring_at(first, payload=1), ring_at(first, "named", 1))
    await do(bell, ring_at(second, payload=2), ring_at(second, "named", 2))
    assert [second.total_seconds()] * 2 == [await when(bell), await when(bell, "named")]
    await bells.advance(DAY)
    assert [second.total_seconds()] * 2 == tower.rang()
    assert [(None, 2), ("named", 2)] == [(alarm.name, alarm.payload) for alarm in tower.alarms]


async def test_an_alarm_is_there_at_once_and_gone_when_it_was_deleted(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    start = bells.now()
    steps = [GET, ring_at(MINUTE), GET, DELETE, GET, DELETE, ring_at(HOUR), ring_at(DAY, "named"), DELETE, GET]
    expected = [None, None, start + MINUTE, None, None, None, None, None, None, None]
    assert expected == await do(bell, *steps)
    assert None is await when(bell)
    await bells.advance(2 * DAY)
    assert ["a rings named"] == [what for _, what in tower.book]


async def test_an_alarm_that_is_overdue_and_has_not_begun_is_given(bells: Harness, bell: RoomHandle) -> None:
    await do(bell, ring_at(-HOUR))
    assert -3600.0 == await when(bell)


async def test_each_alarm_has_an_id_of_its_own(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, *(ring_at(MINUTE, f"{number}") for number in range(20)))
    await bells.advance(MINUTE)
    assert 20 == len({alarm.id for alarm in tower.alarms})


async def test_a_payload_is_copied_in_and_out(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    payload: dict[str, Any] = {"tags": {1, 2}, "at": START}

    async def set_it(room: Bell) -> None:
        await room.storage.set_alarm(MINUTE, payload=payload)
        payload["tags"] = "changed"

    async def change(_bell: Bell, alarm: Alarm) -> None:
        told: Any = alarm.payload
        assert {"tags": {1, 2}, "at": START} == told
        told["tags"].clear()
        if not alarm.is_retry:
            raise LookupError

    tower.on_alarm = change
    await bell.call(set_it)
    await bells.advance(HOUR)
    assert [False, True] == [alarm.is_retry for alarm in tower.alarms]


async def test_many_alarms_of_one_room_ring_in_their_order(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    numbers = [(number * 37) % 200 for number in range(200)]
    await do(bell, *(ring_at(number * SECOND, f"{number:03}") for number in numbers))
    await bells.put_to_sleep(bell)
    await bells.advance(HOUR)
    assert [(float(number), f"a rings {number:03}") for number in range(200)] == tower.book


# --- G11: in the handler ------------------------------------------------------


async def everything(bell: Bell) -> list[tuple[str | None, float | None]]:
    return [(each.name, seconds(each.next_time)) for each in await bell.storage.list_alarms()]


async def test_in_its_handler_the_ringing_alarm_reads_as_unset(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    seen: list[Any] = []

    async def look(bell: Bell, alarm: Alarm) -> None:
        seen.append((alarm.name, await bell.storage.get_alarm(alarm.name), await everything(bell)))

    tower.on_alarm = look
    await do(bell, ring_at(MINUTE), ring_at(2 * MINUTE, "named"))
    await bells.advance(HOUR)
    assert [(None, None, [("named", 120.0)]), ("named", None, [])] == seen
    assert [] == await bell.list_alarms()


@pytest.mark.parametrize(
    ("again", "rang"),
    [
        (START + HOUR, [60.0, 3600.0]),
        (HOUR, [60.0, 3660.0]),
        (timedelta(), [60.0, 60.0]),
        (START + MINUTE, [60.0, 60.0]),
        (START, [60.0, 60.0]),
        (START - 400 * DAY, [60.0, 60.0]),
    ],
    ids=str,
)
@pytest.mark.parametrize("syncs", [False, True])
async def test_set_again_in_its_handler_it_rings_again_at_any_time(
    bells: Harness, bell: RoomHandle, tower: Tower, again: datetime | timedelta, rang: list[float], *, syncs: bool
) -> None:
    """At exactly the time that rings, too: workerd loses that one."""

    async def set_again(bell: Bell, alarm: Alarm) -> None:
        if len(tower.alarms) == 1:
            await bell.storage.set_alarm(again, payload="again")
            assert await bell.storage.get_alarm() is not None
            if syncs:
                await bell.storage.sync()

    tower.on_alarm = set_again
    await do(bell, ring_at(MINUTE))
    await bells.advance(DAY)
    assert rang == tower.rang()
    first, second = tower.alarms
    assert (None, "again") == (first.payload, second.payload)
    assert first.id != second.id
    assert not second.is_retry
    bells.assert_idle()


async def test_a_handler_that_raises_takes_its_setting_back_and_is_retried(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def set_and_fail(bell: Bell, alarm: Alarm) -> None:
        await bell.storage.set_alarm(DAY, payload="again")
        await bell.storage.set_alarm(DAY, name="other")
        if not alarm.is_retry:
            raise LookupError

    tower.on_alarm = set_and_fail
    await do(bell, ring_at(MINUTE, payload="first"))
    await bells.advance(MINUTE)
    assert [(None, 62.0)] == [(each.name, seconds(each.next_time)) for each in await bell.list_alarms()]
    await bells.advance(MINUTE)
    assert [60.0, 62.0] == tower.rang()
    assert ["first", "first"] == [alarm.payload for alarm in tower.alarms]
    assert [None, "other"] == [each.name for each in await bell.list_alarms()]


async def test_deleting_in_its_handler_changes_nothing_for_an_alarm_that_rings_once(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def delete(bell: Bell, alarm: Alarm) -> None:
        await bell.storage.delete_alarm()
        if not alarm.is_retry:
            raise LookupError

    tower.on_alarm = delete
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert [60.0, 62.0] == tower.rang()
    bells.assert_idle()


async def test_set_and_deleted_again_in_its_handler_it_is_gone(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def set_and_delete(bell: Bell, _alarm: Alarm) -> None:
        await bell.storage.set_alarm(MINUTE)
        await bell.storage.delete_alarm()

    tower.on_alarm = set_and_delete
    await do(bell, ring_at(MINUTE))
    await bells.advance(HOUR)
    assert [60.0] == tower.rang()
    bells.assert_idle()


async def test_a_setting_that_a_transaction_takes_back_is_none(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def set_and_undo(bell: Bell, _alarm: Alarm) -> None:
        await undo(bell.storage, ring_at(HOUR), DELETE_ALL)
        assert await bell.storage.get_alarm() is None

    tower.on_alarm = set_and_undo
    await do(bell, ring_at(MINUTE), put(key=1))
    await bells.advance(DAY)
    assert [60.0] == tower.rang()
    assert {"key": 1} == await bells.stored(bell)
    bells.assert_idle()


@pytest.mark.parametrize(
    ("steps", "raises", "rang"),
    [
        # What a raise undoes is only what came after the sync; the alarm that rings stays until the event ends.
        ([SYNC], True, [60.0, 62.0]),
        ([put(key=1), SYNC], True, [60.0, 62.0]),
        ([DELETE, SYNC], True, [60.0, 62.0]),
        ([DELETE, SYNC], False, [60.0]),
        ([DELETE_ALL, SYNC], True, [60.0, 62.0]),
        ([DELETE_ALL, SYNC], False, [60.0]),
        ([SYNC, DELETE_ALL], True, [60.0, 62.0]),
        ([SYNC, ring_at(HOUR)], True, [60.0, 62.0]),
        ([SYNC, ring_at(HOUR)], False, [60.0, 3660.0]),
        # One that was stored anew stands, and a raise is not retried.
        ([ring_at(HOUR), SYNC], True, [60.0, 3660.0]),
        ([ring_at(HOUR), SYNC], False, [60.0, 3660.0]),
        ([DELETE_ALL, ring_at(HOUR), SYNC], True, [60.0, 3660.0]),
        ([SYNC, ring_at(HOUR), SYNC], True, [60.0, 3660.0]),
        ([ring_at(HOUR), SYNC, ring_at(2 * HOUR)], True, [60.0, 3660.0]),
        ([ring_at(HOUR), SYNC, ring_at(2 * HOUR)], False, [60.0, 7260.0]),
        ([ring_at(HOUR), SYNC, DELETE], True, [60.0, 3660.0]),
        ([ring_at(HOUR), SYNC, DELETE], False, [60.0]),
        ([ring_at(HOUR), SYNC, DELETE, SYNC], True, [60.0]),
        ([ring_at(HOUR), SYNC, DELETE_ALL], False, [60.0]),
    ],
)
async def test_sync_in_a_handler(
    bells: Harness, bell: RoomHandle, tower: Tower, steps: list[Step], rang: list[float], *, raises: bool
) -> None:
    async def ring(bell: Bell, _alarm: Alarm) -> None:
        if len(tower.alarms) > 1:
            return
        for step in steps:
            await step(bell.storage)
        if raises:
            raise LookupError

    tower.on_alarm = ring
    await do(bell, ring_at(MINUTE))
    await bells.advance(DAY)
    assert rang == tower.rang()
    assert [] == await bell.list_alarms()


async def test_a_crash_after_a_sync_in_the_handler_rings_again(
    faulty: FaultyBackend, crashing_bells: Harness, tower: Tower
) -> None:
    async def ring(bell: Bell, alarm: Alarm) -> None:
        await count(bell, alarm)
        await bell.storage.sync()
        await bell.storage.put("done", len(tower.alarms))

    tower.on_alarm = ring
    assert {"count": 1} == await crash_at(crashing_bells, faulty.hold("commit", nth=2).arrived)
    assert 1 == (await crashing_bells.ring_due()).rung
    assert {"count": 2, "done": 2} == await crashing_bells.stored(crashing_bells.parties["bell"].get("a"))


@pytest.mark.parametrize(
    ("steps", "rang"),
    [
        ([ring_at(START + HOUR)], [3600.0]),
        ([ring_at(timedelta())], [60.0]),
        ([DELETE], []),
        ([DELETE_ALL], []),
        ([ring_at(START - DAY, "before")], [60.0, 60.0]),
        ([], [60.0]),
    ],
)
async def test_what_on_start_does_to_the_alarm_that_waits_for_it_counts(
    bells: Harness, bell: RoomHandle, tower: Tower, steps: list[Step], rang: list[float]
) -> None:
    async def start(bell: Bell) -> None:
        if bells.now() == START + MINUTE:
            assert START + MINUTE == await bell.storage.get_alarm()
            for step in steps:
                await step(bell.storage)

    tower.on_start = start
    await do(bell, ring_at(MINUTE))
    await bells.put_to_sleep(bell)
    await bells.advance(DAY)
    assert rang == tower.rang()
    assert ["first" if alarm.name is None else "before" for alarm in tower.alarms] == ["first", "before"][: len(rang)]
    assert [] == await bell.list_alarms()


async def test_a_message_that_comes_before_the_ring_moves_the_alarm(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    """Both are due at one instant, and the message has been accepted first."""
    await do(bell, ring_at(MINUTE))

    async def busy(room: Bell) -> None:
        await room.ctx.clock.sleep(MINUTE)
        await room.storage.set_alarm(HOUR)

    async with create_task_group() as tasks:
        tasks.start_soon(bell.call, busy)
        await bells.settle()
        await bells.advance(MINUTE)
    await bells.advance(DAY)
    assert [3660.0] == tower.rang()


# --- G13 and G14 --------------------------------------------------------------


async def test_alarm_and_data_are_stored_together_or_not_at_all(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    async def set_and_fail(room: Bell) -> None:
        await do_all(room, put(key=2), ring_at(MINUTE, "other"), DELETE)
        raise LookupError

    async def do_all(room: Bell, *steps: Step) -> None:
        for step in steps:
            await step(room.storage)

    await do(bell, put(key=1), ring_at(HOUR))
    with pytest.raises(LookupError):
        await bell.call(set_and_fail)
    assert {"key": 1} == await bells.stored(bell)
    assert [None] == [each.name for each in await bell.list_alarms()]


async def test_alarm_and_data_are_one_commit(anyio_backend: object, tower: Tower) -> None:
    recording = RecordingBackend(MemoryBackend())
    async with Harness({"bell": tower.bell}, backend=recording) as harness:
        await do(harness.parties["bell"].get("a"), put(key=1), ring_at(HOUR))
        [commit] = recording.commits
        assert ({"key"}, {""}) == (set(commit.values), set(commit.alarms))
        await harness.advance(HOUR)
        assert [{"": None}] == [commit.alarms for commit in recording.commits[1:] if commit.alarms]


async def test_an_alarm_that_is_moved_costs_a_row_and_no_more(anyio_backend: object, tower: Tower) -> None:
    """A session that expires thirty days after its last write."""
    async with Harness({"bell": tower.bell}) as harness:
        bell = harness.parties["bell"].get("a")
        for _ in range(1000):
            await do(bell, ring_at(30 * DAY))
        assert 1 == len(await harness.parties["bell"].list_alarms())


class Silent(Room):
    """Has no ``on_alarm``."""


@pytest.mark.parametrize("name", [None, "named"])
async def test_an_alarm_in_a_room_without_on_alarm_is_refused_at_once(anyio_backend: object, name: str | None) -> None:
    async def set_it(room: Silent) -> None:
        await room.ctx.storage.put("key", 1)
        with pytest.raises(NoHandlerError, match="silent/a: the room has no on_alarm, so that an alarm could not ring"):
            await room.ctx.storage.set_alarm(MINUTE, name=name)

    async with Harness({"silent": Silent}) as harness:
        silent = harness.parties["silent"].get("a")
        await silent.call(set_it)
        assert {"key": 1} == await harness.stored(silent)


# --- bad input ----------------------------------------------------------------

BAD_TIMES: list[tuple[Any, str]] = [
    (datetime(2030, 1, 1), r"datetime.datetime\(2030, 1, 1, 0, 0\) is naive, so it names no instant"),  # noqa: DTZ001
    (0, "not int: a number could be seconds or milliseconds"),
    (1893456000.0, "not float: a number could be seconds or milliseconds"),
    (None, "a time is an aware datetime, a timedelta from now, an Every or a Cron, not NoneType"),
    ("0 9 * * *", r"not str: Cron\('0 9 \* \* \*'\) repeats by such a text, datetime.fromisoformat"),
    (START.date(), "not date"),
    (timedelta.max, "is outside years 1 to 9999 in UTC"),
    (timedelta.min, "is outside years 1 to 9999 in UTC"),
    (datetime.max.replace(tzinfo=timezone(-HOUR)), "is outside years 1 to 9999 in UTC"),
    (Every(10_000 * 366 * DAY), "does not occur between now and the year 9999"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_TIMES, ids=lambda value: str(value)[:20])
async def test_a_bad_time_is_refused_and_the_alarm_stays_as_it_was(
    bells: Harness, bell: RoomHandle, bad: Any, message: str
) -> None:
    async def set_it(room: Bell) -> None:
        with pytest.raises(AlarmTimeError, match=f"^bell/a alarm: .*{message}"):
            await room.storage.set_alarm(bad)
        with pytest.raises(AlarmTimeError, match=f"^bell/a alarm 'named': .*{message}"):
            await room.storage.set_alarm(bad, name="named")
        await room.storage.put("key", 1)

    await do(bell, ring_at(MINUTE))
    await bell.call(set_it)
    assert 60.0 == await when(bell)
    assert {"key": 1} == await bells.stored(bell)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": ""}, InvalidKeyError, "bell/a: alarm name must not be empty"),
    ({"name": 1}, InvalidKeyError, "bell/a: alarm name must be a str, not int"),
    ({"name": "n" * 2049}, LimitExceededError, r"bell/a alarm name 'n+: 2049 is over Limits.key_bytes=2048"),
    ({"payload": {"a": object()}}, NotStorableError, r"cannot store \"bell/a payload of alarm ''\": value\['a'\] "),
    ({"name": "n", "payload": "x" * 2**21}, LimitExceededError, "bell/a payload of alarm 'n': 2097154 is over"),
    ({"retry": 3}, TypeError, "bell/a alarm: retry must be a RetryPolicy, not int"),
    ({"spread": 3}, AlarmTimeError, "bell/a alarm: spread must be a timedelta, and not negative, not 3"),
    ({"spread": -SECOND}, AlarmTimeError, "bell/a alarm: spread must be a timedelta, and not negative"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS, ids=lambda value: str(value)[:20])
async def test_a_bad_option_is_refused_and_nothing_is_set(
    bells: Harness, bell: RoomHandle, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def set_it(room: Bell) -> None:
        with pytest.raises(error, match=message):
            await room.storage.set_alarm(MINUTE, **options)

    await bell.call(set_it)
    assert [] == await bell.list_alarms()


async def test_a_room_whose_retry_policy_is_none_is_told_when_it_sets_an_alarm(anyio_backend: object) -> None:
    class Wrong(Room):
        alarm_retry: Any = 3

        async def on_alarm(self, alarm: Alarm) -> None:
            """Take an alarm."""

    async def set_it(room: Room) -> None:
        with pytest.raises(TypeError, match="wrong/a alarm: the room's alarm_retry must be a RetryPolicy, not int"):
            await room.ctx.storage.set_alarm(MINUTE)

    async with Harness({"wrong": Wrong}) as harness:
        await harness.parties["wrong"].get("a").call(set_it)


async def test_any_object_of_a_rooms_shape_rings(anyio_backend: object) -> None:
    """One without a retry policy is retried by the default."""

    class Plain:
        def __init__(self, ctx: Any) -> None:
            self.ctx = ctx
            self.rings = 0

        async def on_alarm(self, _alarm: Alarm) -> None:
            self.rings += 1
            if self.rings == 1:
                raise LookupError
            await self.ctx.storage.put("rings", self.rings)

    plain: Any = Plain
    async with Harness({"plain": plain}, fail_on_errors=False) as harness:
        room = harness.parties["plain"].get("a")
        await do(room, ring_at(MINUTE))
        await harness.advance(MINUTE + 2 * SECOND)
        assert {"rings": 2} == await harness.stored(room)


async def test_a_spread_delays_a_ring_by_chance_and_never_past_the_calendar(bells: Harness, bell: RoomHandle) -> None:
    """The harness has no jitter; how much there is, is held by tests of the decision itself."""

    async def set_it(room: Bell) -> None:
        await room.storage.set_alarm(MINUTE, spread=timedelta.max)
        assert START + MINUTE == await room.storage.get_alarm()

    await bell.call(set_it)
