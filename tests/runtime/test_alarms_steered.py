"""Alarms seen and steered: listed, rung, paused, resumed, deleted, from the room and from its host, and rung by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from anyio import create_task_group

from partyroom import (
    Alarm,
    AlarmInfo,
    Every,
    InvalidKeyError,
    RingReport,
    RoomHandle,
    RoomKey,
    RuntimeClosedError,
    StorageBackend,
)
from partyroom.testing import Harness
from tests.runtime.boxes import Step, do, put
from tests.runtime.towers import DAY, HOUR, MINUTE, SECOND, START, TICK, Bell, Tower, fail, nothing, ring_at, seconds

pytestmark = pytest.mark.anyio


def looks(infos: list[AlarmInfo]) -> list[tuple[str | None, str, float | None]]:
    return [(each.name, each.status, seconds(each.next_time)) for each in infos]


# --- seen ---------------------------------------------------------------------


async def test_a_rooms_alarms_are_listed_by_next_time_and_those_without_one_last(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    async def list_them(room: Bell) -> list[AlarmInfo]:
        return await room.storage.list_alarms()

    await do(bell, ring_at(timedelta(), "failing"))
    tower.on_alarm = fail
    await bells.advance(5 * MINUTE)
    await do(bell, ring_at(timedelta(), "retrying"))
    await bells.run_due()
    hourly = Every(HOUR, anchor=START)
    steps: list[Step] = [
        ring_at(START + DAY, payload={"a": 1}),
        ring_at(START + DAY, "b"),
        lambda storage: storage.set_alarm(hourly, name="hourly"),
        ring_at(START + HOUR, "paused", [1]),
    ]
    await do(bell, *steps)
    await bell.pause_alarm("paused")
    now = (bells.now() - START).total_seconds()
    expected: list[tuple[Any, ...]] = [
        ("retrying", "retrying", now + 2, now, None, None, 1),
        ("hourly", "pending", 3600.0, 3600.0, hourly, None, 0),
        (None, "pending", 86400.0, 86400.0, None, {"a": 1}, 0),
        ("b", "pending", 86400.0, 86400.0, None, None, 0),
        ("failing", "failed", None, 0.0, None, None, 7),
        ("paused", "paused", None, 3600.0, None, [1], 0),
    ]
    for infos in (await bell.list_alarms(), await bell.call(list_them)):
        assert {RoomKey("bell", "a")} == {each.room for each in infos}
        assert expected == [
            (*look, seconds(each.scheduled_time), each.recurrence, each.payload, each.retry_count)
            for look, each in zip(looks(infos), infos, strict=True)
        ]


async def test_what_an_event_has_not_stored_yet_is_listed_in_it_and_nowhere_else(
    bells: Harness, bell: RoomHandle
) -> None:
    async def change(room: Bell) -> list[AlarmInfo]:
        await room.storage.delete_alarm("old")
        await room.storage.set_alarm(MINUTE, name="new")
        found = await room.storage.list_alarms()
        assert ["old"] == [each.name for each in await bells.parties["bell"].list_alarms()]
        return found

    await do(bell, ring_at(HOUR, "old"))
    assert [("new", "pending", 60.0)] == looks(await bell.call(change))


async def test_a_partys_alarms_are_listed_in_due_order_page_by_page(bells: Harness) -> None:
    party = bells.parties["bell"]
    for room in ("b", "a"):
        await do(party.get(room), ring_at(MINUTE, "2"), ring_at(MINUTE), ring_at(HOUR), ring_at(SECOND, "1"))
    expected = [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("a", None), ("b", None)]
    assert expected == [(each.room.id, each.name) for each in await party.list_alarms()]
    for limit in (1, 2, 5):
        seen: list[AlarmInfo] = []
        while page := await party.list_alarms(start_after=seen[-1] if seen else None, limit=limit):
            assert len(page) <= limit
            seen += page
        assert expected == [(each.room.id, each.name) for each in seen]


async def test_each_party_lists_its_own(store: StorageBackend, tower: Tower) -> None:
    async with Harness({"bell": tower.bell, "gong": tower.bell}, backend=store) as harness:
        for party in ("bell", "gong"):
            await do(harness.parties[party].get("a"), ring_at(HOUR, party), ring_at(HOUR, f"{party} paused"))
            await harness.parties[party].get("a").pause_alarm(f"{party} paused")
        for party in ("bell", "gong"):
            assert [party] == [each.name for each in await harness.parties[party].list_alarms()]
            assert [f"{party} paused"] == [each.name for each in await harness.parties[party].parked_alarms()]


async def test_the_lists_of_a_room_that_never_was_are_empty(bells: Harness, bell: RoomHandle) -> None:
    party = bells.parties["bell"]
    assert [] == await bell.list_alarms() == await party.list_alarms() == await party.parked_alarms()
    assert [] == await party.failed_alarms()
    assert [] == await party.rooms()


LISTS: list[Callable[[Any], Awaitable[object]]] = [
    lambda party: party.list_alarms(limit=0),
    lambda party: party.parked_alarms(limit=-1),
    lambda party: party.failed_alarms(limit=0),
]


@pytest.mark.parametrize("call", LISTS, ids=["list", "parked", "failed"])
async def test_a_limit_is_positive(bells: Harness, call: Callable[[Any], Awaitable[object]]) -> None:
    with pytest.raises(InvalidKeyError, match="bell: limit must be a positive int, not"):
        await call(bells.parties["bell"])


# --- steered ------------------------------------------------------------------

Steer = Callable[[RoomHandle, str, str | None], Awaitable[bool]]


async def from_the_host(bell: RoomHandle, verb: str, name: str | None) -> bool:
    steered: bool = await getattr(bell, f"{verb}_alarm")(name)
    return steered


async def from_the_room(bell: RoomHandle, verb: str, name: str | None) -> bool:
    """Do the same in an event of the room; its ``delete_alarm`` does not say whether there was one."""
    [existed] = await do(bell, lambda storage: storage.list_alarms())
    found = name in [each.name for each in existed]
    [steered] = await do(bell, lambda storage: getattr(storage, f"{verb}_alarm")(name))
    return found if verb == "delete" else steered


steered = pytest.mark.parametrize("steer", [from_the_host, from_the_room])
named = pytest.mark.parametrize("name", [None, "named"])


@steered
@named
async def test_a_paused_alarm_does_not_ring_until_it_is_resumed(
    bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer, name: str | None
) -> None:
    await do(bell, ring_at(HOUR, name, "x"))
    assert await steer(bell, "pause", name)
    assert not await steer(bell, "pause", name)
    assert [None] == await do(bell, lambda storage: storage.get_alarm(name))
    assert await bells.runtime.next_alarm() is None
    await bells.restart()
    await bells.advance(30 * MINUTE)
    assert await steer(bell, "resume", name)
    assert not await steer(bell, "resume", name)
    await bells.advance(30 * MINUTE)
    assert [(name, "x", START + HOUR)] == [(each.name, each.payload, each.scheduled_time) for each in tower.alarms]
    assert [3600.0] == tower.rang()


@steered
async def test_a_paused_alarm_whose_time_has_passed_rings_when_it_is_resumed(
    bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer
) -> None:
    await do(bell, ring_at(HOUR))
    assert await steer(bell, "pause", None)
    await bells.advance(DAY)
    assert [] == tower.book
    assert await steer(bell, "resume", None)
    await bells.run_due()
    assert [86400.0] == tower.rang()
    assert [DAY - HOUR] == [alarm.lateness for alarm in tower.alarms]


@steered
async def test_a_paused_retry_goes_on_where_it_was(
    bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer
) -> None:
    tower.on_alarm = fail
    await do(bell, ring_at(MINUTE))
    await bells.advance(MINUTE + 2 * SECOND)
    assert await steer(bell, "pause", None)
    await bells.advance(HOUR)
    assert await steer(bell, "resume", None)
    await bells.run_due()
    assert [0, 1, 2] == [alarm.retry_count for alarm in tower.alarms]


@steered
@named
async def test_an_alarm_that_is_rung_by_hand_rings_now_and_not_again(
    bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer, name: str | None
) -> None:
    await do(bell, ring_at(HOUR, name))
    assert await steer(bell, "ring", name)
    await bells.advance(DAY)
    assert [0.0] == tower.rang()
    assert [(START + HOUR, timedelta())] == [(alarm.scheduled_time, alarm.lateness) for alarm in tower.alarms]


@steered
async def test_a_paused_alarm_can_be_rung(bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer) -> None:
    await do(bell, ring_at(HOUR))
    await steer(bell, "pause", None)
    assert await steer(bell, "ring", None)
    await bells.run_due()
    assert [0.0] == tower.rang()
    assert [] == await bell.list_alarms()


@steered
@pytest.mark.parametrize("verb", ["pause", "resume", "ring", "delete"])
async def test_steering_what_is_not_there_says_so(
    bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer, verb: str
) -> None:
    await do(bell, ring_at(HOUR, "other"))
    assert not await steer(bell, verb, None)
    assert not await steer(bell, verb, "named")
    assert [("other", "pending", 3600.0)] == looks(await bell.list_alarms())


@steered
async def test_a_deleted_alarm_does_not_ring(bells: Harness, bell: RoomHandle, tower: Tower, steer: Steer) -> None:
    await do(bell, ring_at(HOUR), ring_at(HOUR, "named"))
    assert await steer(bell, "delete", "named")
    assert not await steer(bell, "delete", "named")
    await bells.advance(DAY)
    assert ["a rings"] == [what for _, what in tower.book]


async def test_a_setting_replaces_what_was_paused(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    await do(bell, ring_at(HOUR))
    await bell.pause_alarm()
    await do(bell, ring_at(MINUTE))
    await bells.advance(DAY)
    assert [60.0] == tower.rang()


async def test_a_host_that_looks_and_steers_does_not_wake_the_room(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    """So a room whose constructor raises can be looked at, and its alarm deleted."""
    constructed: list[Bell] = []
    await do(bell, ring_at(HOUR), ring_at(HOUR, "named"))
    await bells.put_to_sleep(bell)
    tower.on_construct = constructed.append
    assert 2 == len(await bell.list_alarms())
    assert await bell.pause_alarm("named")
    assert await bell.resume_alarm("named")
    assert await bell.delete_alarm("named")
    assert await bell.ring_alarm()
    assert [] == constructed
    await bells.run_due()
    assert 1 == len(constructed)
    assert ["a rings"] == [what for _, what in tower.book]


async def test_a_host_steers_behind_what_runs(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    """A ring that has begun goes on; what is steered then is what it leaves."""

    async def slow(bell: Bell, _alarm: Alarm) -> None:
        await bell.ctx.clock.sleep(MINUTE)
        await bell.storage.set_alarm(HOUR)

    tower.on_alarm = slow
    await do(bell, ring_at(MINUTE))
    await bells.advance(MINUTE)
    paused: list[bool] = []

    async def pause() -> None:
        paused.append(await bell.pause_alarm())

    async with create_task_group() as tasks:
        tasks.start_soon(pause)
        await bells.settle()
        assert [] == paused
        await bells.advance(MINUTE)
    assert [True] == paused
    assert [(None, "paused", None)] == looks(await bell.list_alarms())


async def test_in_its_own_handler_the_ringing_alarm_cannot_be_steered(
    bells: Harness, bell: RoomHandle, tower: Tower
) -> None:
    """It reads as unset there (G11)."""
    seen: list[bool] = []

    async def steer(bell: Bell, _alarm: Alarm) -> None:
        seen.extend(
            [await bell.storage.pause_alarm(), await bell.storage.resume_alarm(), await bell.storage.ring_alarm()]
        )

    tower.on_alarm = steer
    await do(bell, lambda storage: storage.set_alarm(Every(HOUR)))
    await bells.advance(HOUR)
    assert [False, False, False] == seen
    assert [(None, "pending", 7200.0)] == looks(await bell.list_alarms())


async def test_steering_is_part_of_its_event(bells: Harness, bell: RoomHandle) -> None:
    async def pause_and_fail(room: Bell) -> None:
        await room.storage.pause_alarm()
        assert [(None, "paused", None)] == looks(await room.storage.list_alarms())
        raise LookupError

    await do(bell, ring_at(HOUR))
    with pytest.raises(LookupError):
        await bell.call(pause_and_fail)
    assert [(None, "pending", 3600.0)] == looks(await bell.list_alarms())


# --- rung by hand: a game loop, a bot that must log in first, a cron job -------


@pytest.fixture
async def manual(store: StorageBackend, tower: Tower, anyio_backend: object) -> AsyncIterator[Harness]:
    async with Harness({"bell": tower.bell}, backend=store, alarms="manual", fail_on_errors=False) as harness:
        yield harness


async def test_nothing_rings_by_itself(manual: Harness, tower: Tower) -> None:
    await do(manual.parties["bell"].get("a"), ring_at(MINUTE))
    await manual.advance(DAY)
    assert [] == tower.book
    assert START + MINUTE == await manual.runtime.next_alarm()
    assert RingReport(1, (), None) == await manual.ring_due()
    assert [86400.0] == tower.rang()
    assert await manual.runtime.next_alarm() is None
    assert RingReport(0, (), None) == await manual.ring_due()


async def test_what_is_due_rings_in_due_order_and_is_committed_when_it_returns(manual: Harness, tower: Tower) -> None:
    async def note(bell: Bell, alarm: Alarm) -> None:
        await bell.storage.put(f"rang {alarm.name}", True)

    tower.on_alarm = note
    for number, room in enumerate("cab"):
        await do(manual.parties["bell"].get(room), ring_at(number * SECOND, "x"), ring_at(number * SECOND + TICK, "y"))
    await do(manual.parties["bell"].get("a"), ring_at(MINUTE, "later"))
    manual.clock.set_wall(START + 2 * SECOND)
    report = await manual.runtime.ring_due()
    assert RingReport(5, (), START + 2 * SECOND + TICK) == report
    rang = [what for _, what in tower.book]
    assert ["c rings x", "a rings x", "b rings x"] == [what for what in rang if what.endswith("x")]
    assert ["c rings x", "c rings y"] == [what for what in rang if what.startswith("c")]
    assert {"rang x": True, "rang y": True} == await manual.parties["bell"].get("c").stored()


async def test_a_limit_counts_alarms(manual: Harness, tower: Tower) -> None:
    await do(manual.parties["bell"].get("a"), *(ring_at(number * TICK, f"{number}") for number in range(5)))
    manual.clock.set_wall(START + SECOND)
    assert RingReport(2, (), START + 2 * TICK) == await manual.ring_due(2)
    assert RingReport(2, (), START + 4 * TICK) == await manual.ring_due(2)
    assert RingReport(1, (), None) == await manual.ring_due(2)
    assert [f"a rings {number}" for number in range(5)] == [what for _, what in tower.book]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
async def test_a_limit_that_is_no_count_is_refused(manual: Harness, limit: Any) -> None:
    with pytest.raises(InvalidKeyError, match="ring_due: limit must be a positive int"):
        await manual.ring_due(limit)


async def test_what_is_armed_again_meanwhile_is_not_rung(manual: Harness, tower: Tower) -> None:
    async def again(bell: Bell, _alarm: Alarm) -> None:
        await bell.storage.set_alarm(START)
        await bell.storage.set_alarm(START, name="new")

    tower.on_alarm = again
    await do(manual.parties["bell"].get("a"), ring_at(START))
    for number in (1, 2, 2):
        tower.take()
        assert RingReport(number, (), START) == await manual.ring_due()
        assert number == len(tower.book)


async def test_what_a_ring_moves_away_is_not_rung(manual: Harness, tower: Tower) -> None:
    async def move(bell: Bell, _alarm: Alarm) -> None:
        await bell.storage.set_alarm(HOUR, name="b")
        await bell.storage.delete_alarm("c")

    tower.on_alarm = move
    await do(manual.parties["bell"].get("a"), *(ring_at(START, name) for name in "abc"))
    assert RingReport(1, (), START + HOUR) == await manual.ring_due()
    assert ["a rings a"] == [what for _, what in tower.book]


async def test_a_handlers_error_stands_in_the_report_and_its_retry_waits_for_the_next(
    manual: Harness, tower: Tower
) -> None:
    async def fail_some(bell: Bell, alarm: Alarm) -> None:
        if alarm.name in {"x", None} and not alarm.is_retry:
            await fail(bell, alarm)

    tower.on_alarm = fail_some
    await do(manual.parties["bell"].get("a"), *(ring_at(START, name) for name in ("z", None, "x")))
    report = await manual.ring_due()
    assert (1, START + 2 * SECOND) == (report.rung, report.next)
    assert [(RoomKey("bell", "a"), name) for name in (None, "x")] == [(each.room, each.name) for each in report.failed]
    assert ["LookupError('the rope is torn')"] * 2 == [repr(each.error) for each in report.failed]
    assert RingReport(0, (), START + 2 * SECOND) == await manual.ring_due()
    manual.clock.set_wall(START + 2 * SECOND)
    assert RingReport(2, (), None) == await manual.ring_due()
    assert [1, 1] == [alarm.retry_count for alarm in tower.alarms[-2:]]


async def test_a_room_that_does_not_start_stands_in_the_report_and_is_tried_again(
    manual: Harness, tower: Tower
) -> None:
    async def start(_bell: Bell) -> None:
        raise LookupError

    await do(manual.parties["bell"].get("a"), ring_at(START))
    await manual.put_to_sleep(manual.parties["bell"].get("a"))
    tower.on_start = start
    report = await manual.ring_due()
    assert (0, [LookupError], START) == (report.rung, [type(each.error) for each in report.failed], report.next)
    tower.on_start = nothing
    assert RingReport(1, (), None) == await manual.ring_due()
    assert [0] == [alarm.retry_count for alarm in tower.alarms]


@pytest.mark.parametrize("syncs", [False, True])
async def test_a_handler_that_sets_its_alarm_again_has_rung(manual: Harness, tower: Tower, *, syncs: bool) -> None:
    async def again(bell: Bell, _alarm: Alarm) -> None:
        await bell.storage.set_alarm(HOUR)
        if syncs:
            await bell.storage.sync()

    tower.on_alarm = again
    await do(manual.parties["bell"].get("a"), ring_at(START))
    assert RingReport(1, (), START + HOUR) == await manual.ring_due()


async def test_missed_occurrences_that_ring_each_ring_one_at_a_time(manual: Harness, tower: Tower) -> None:
    each = Every(HOUR, missed="each")
    await do(manual.parties["bell"].get("a"), lambda storage: storage.set_alarm(each))
    manual.clock.set_wall(START + 2.5 * HOUR)
    assert RingReport(1, (), START + 2 * HOUR) == await manual.ring_due()
    assert RingReport(1, (), START + 3 * HOUR) == await manual.ring_due()


async def test_an_occurrence_that_is_too_old_is_not_counted_as_rung(manual: Harness, tower: Tower) -> None:
    young = Every(HOUR, grace=MINUTE)
    await do(manual.parties["bell"].get("a"), lambda storage: storage.set_alarm(young))
    manual.clock.set_wall(START + 2.5 * HOUR)
    assert RingReport(0, (), START + 3 * HOUR) == await manual.ring_due()
    assert [] == tower.book


async def test_two_who_ring_at_once_ring_each_alarm_once(manual: Harness, tower: Tower) -> None:
    for room in "abc":
        await do(manual.parties["bell"].get(room), ring_at(START), ring_at(START, "x"))
    rung: list[int] = []

    async def ring() -> None:
        rung.append((await manual.ring_due()).rung)

    async with create_task_group() as tasks:
        tasks.start_soon(ring)
        tasks.start_soon(ring)
    assert 6 == sum(rung) == len(tower.book)


async def test_a_runtime_that_rings_by_itself_can_be_hurried(bells: Harness, bell: RoomHandle, tower: Tower) -> None:
    """Before the clock has moved on; nothing rings twice."""
    await do(bell, put(key=1), ring_at(START))
    assert RingReport(1, (), None) == await bells.ring_due()
    await bells.advance(DAY)
    assert [0.0] == tower.rang()


async def test_a_runtime_that_is_not_open_rings_nothing(store: StorageBackend, tower: Tower) -> None:
    harness = Harness({"bell": tower.bell}, backend=store)
    with pytest.raises(RuntimeClosedError):
        await harness.runtime.ring_due()
    with pytest.raises(RuntimeClosedError):
        await harness.runtime.next_alarm()
