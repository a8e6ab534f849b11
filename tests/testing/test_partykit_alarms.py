"""Every sentence of PartyKit's page on alarms, as a test through the harness.

The sentences stand in the tests' first lines. What the page excuses as a
limitation (no id, no other parties in an alarm) is a promise here (G7).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from partyroom import Alarm, Connection, Room, RoomContext, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import Harness

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)
FIVE_MINUTES = timedelta(minutes=5)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
EXPIRY_PERIOD = timedelta(days=30)

STEPS: list[str] = []
"""What the rooms of one test did, in order."""


class Reminder(Room):
    """Sets an alarm when it is told to, and notes what happens to it."""

    def __init__(self, ctx: RoomContext) -> None:
        super().__init__(ctx)
        STEPS.append(f"constructor of {ctx.id}")
        self.started = 0

    async def on_start(self) -> None:
        STEPS.append("on_start begins")
        await self.ctx.clock.sleep(timedelta())
        self.started += 1
        STEPS.append("on_start ends")

    async def set(self, when: datetime | timedelta) -> datetime | None:
        await self.ctx.storage.set_alarm(when)
        return await self.ctx.storage.get_alarm()

    async def get(self) -> datetime | None:
        return await self.ctx.storage.get_alarm()

    async def delete(self) -> None:
        await self.ctx.storage.delete_alarm()

    async def set_if_sooner(self, when: timedelta) -> None:
        next_alarm = self.ctx.clock.now() + when
        previous_alarm = await self.ctx.storage.get_alarm()
        if previous_alarm is None or next_alarm < previous_alarm:
            await self.ctx.storage.set_alarm(next_alarm)

    async def on_alarm(self, alarm: Alarm) -> None:
        STEPS.append(f"on_alarm of {self.ctx.id} at {self.ctx.clock.now().isoformat()}")


class Refresher(Reminder):
    """Refreshes something from outside, and schedules the next time."""

    async def on_alarm(self, alarm: Alarm) -> None:
        await super().on_alarm(alarm)
        await self.ctx.storage.set_alarm(FIVE_MINUTES)


class Visitor(Reminder):
    """Talks to another room from its alarm."""

    async def on_alarm(self, alarm: Alarm) -> None:
        answer = await self.ctx.parties["host"].get(f"host of {self.ctx.id}").request({"method": "POST"})
        await self.ctx.storage.put("answer", answer)


class Host(Reminder):
    async def on_request(self, request: Any) -> str:
        await self.ctx.storage.put("visits", await self.ctx.storage.get("visits", 0) + 1)
        return f"{request['method']} at {self.ctx.id}"


class Multiplexer(Room):
    """Several alarms by hand: their times are kept in storage, and the soonest is scheduled."""

    async def add(self, name: str, when: timedelta) -> None:
        await self.ctx.storage.put(f"timer:{name}", self.ctx.clock.now() + when)
        await self.schedule()

    async def cancel(self, name: str) -> None:
        await self.ctx.storage.delete(f"timer:{name}")
        await self.schedule()

    async def schedule(self) -> None:
        timers = await self.ctx.storage.list(prefix="timer:")
        if timers:
            await self.ctx.storage.set_alarm(min(timers.values()))
        else:
            await self.ctx.storage.delete_alarm()

    async def on_alarm(self, alarm: Alarm) -> None:
        for key, due in (await self.ctx.storage.list(prefix="timer:")).items():
            if due <= self.ctx.clock.now():
                await self.ctx.storage.delete(key)
                STEPS.append(f"{key} at {self.ctx.clock.now().isoformat()}")
        await self.schedule()


class RememberedId(Reminder):
    """The page's way around the missing id, as it stands there."""

    async def on_start(self) -> None:
        assert self.ctx.id
        await self.ctx.storage.put("id", self.ctx.id)

    async def on_alarm(self, alarm: Alarm) -> None:
        room_id = await self.ctx.storage.get("id")
        STEPS.append(f"{room_id} is {self.ctx.id}")


class UserSession(Room):
    """The page's expiry pattern, as it stands there."""

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        data = json.loads(message)
        await self.ctx.storage.put(data["id"], data)
        await self.ctx.storage.set_alarm(EXPIRY_PERIOD)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()

    async def next_alarm(self) -> datetime | None:
        return await self.ctx.storage.get_alarm()


class ReadSession(UserSession):
    """The same, kept for thirty days since it was last read."""

    async def on_connect(self, connection: Connection) -> None:
        connection.send(json.dumps(await self.ctx.storage.get("note")))
        await self.ctx.storage.set_alarm(EXPIRY_PERIOD)


PARTIES = {
    "reminder": Reminder,
    "refresher": Refresher,
    "visitor": Visitor,
    "host": Host,
    "multiplexer": Multiplexer,
    "remembered": RememberedId,
    "session": UserSession,
    "read": ReadSession,
}


@pytest.fixture(params=["memory", "file", "strict"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """Run each test in memory, on a file, and with every room put to sleep between any two events."""
    STEPS.clear()
    backend: StorageBackend = FileBackend(tmp_path / "rooms.db") if request.param == "file" else MemoryBackend()
    async with Harness(PARTIES, backend=backend, strict_hibernation=request.param == "strict") as rooms:
        yield rooms


def alarms() -> list[str]:
    return [step for step in STEPS if step.startswith("on_alarm")]


def rang(*seconds: float, room_id: str = "a") -> list[str]:
    return [f"on_alarm of {room_id} at {(START + timedelta(seconds=each)).isoformat()}" for each in seconds]


# --- scheduling (R1 to R7) ---------------------------------------------------


async def test_r1_a_room_is_woken_at_the_scheduled_time(harness: Harness) -> None:
    # The page: "PartyKit allows you to schedule an alarm some time in the future, and will wake up your room at the scheduled
    # time."
    room = harness.parties["reminder"].get("a")
    await room.call(Reminder.set, FIVE_MINUTES)
    await harness.put_to_sleep(room)
    STEPS.clear()
    await harness.advance(FIVE_MINUTES - TICK)
    assert [] == STEPS
    await harness.advance(TICK)
    assert ["constructor of a", "on_start begins", "on_start ends", *rang(300)] == STEPS
    await harness.expect_quiet(DAY)


async def test_r2_a_recurring_alarm_rings_as_often_as_time_allows_in_one_go(harness: Harness) -> None:
    # The page: "This can be especially helpful for recurring tasks (cron jobs)"
    await harness.parties["refresher"].get("a").call(Reminder.set, FIVE_MINUTES)
    await harness.advance(timedelta(hours=1) - TICK)
    assert rang(*range(300, 3600, 300)) == alarms()
    await harness.advance(TICK)
    assert 12 == len(alarms())


async def test_r4_an_alarm_is_set_on_the_storage_and_is_there_at_once(harness: Harness) -> None:
    # The page: "You can schedule an alarm by calling `Party.storage.setAlarm`."
    room = harness.parties["reminder"].get("a")
    assert START + FIVE_MINUTES == await room.call(Reminder.set, FIVE_MINUTES)
    await harness.restart()
    assert START + FIVE_MINUTES == await room.call(Reminder.get)


async def test_r5_an_absolute_time_in_five_minutes_rings_then_and_not_before(harness: Harness) -> None:
    # The page: "The following method sets an alarm 5 minutes from now"
    await harness.parties["reminder"].get("a").call(Reminder.set, START + FIVE_MINUTES)
    await harness.advance(FIVE_MINUTES - TICK)
    assert [] == alarms()
    await harness.advance(TICK)
    assert rang(300) == alarms()


async def test_r6_the_callback_is_called_once_for_each_ring(harness: Harness) -> None:
    # The page: "When the alarm "rings", PartyKit will call the `onAlarm` callback in your Party server."
    await harness.parties["reminder"].get("a").call(Reminder.set, FIVE_MINUTES)
    await harness.advance(DAY)
    await harness.restart()
    await harness.crash()
    await harness.advance(DAY)
    assert rang(300) == alarms()


async def test_r7_an_alarm_set_in_the_callback_is_the_next_and_without_it_there_is_none(harness: Harness) -> None:
    # The page: "(optional) schedule next alarm in 5 minutes"
    again, once = harness.parties["refresher"].get("a"), harness.parties["reminder"].get("a")
    for room in (again, once):
        await room.call(Reminder.set, FIVE_MINUTES)
    await harness.advance(FIVE_MINUTES)
    assert START + 2 * FIVE_MINUTES == await again.call(Reminder.get)
    assert await once.call(Reminder.get) is None


# --- awake and asleep (R8 to R10) --------------------------------------------


async def test_r8_an_awake_room_rings_in_its_current_instance(harness: Harness) -> None:
    # The page: "If the room is currently "awake" (meaning that someone is connected to it ...), the `onAlarm` callback is
    # executed in the current room process."
    room = harness.parties["reminder"].get("a")
    await harness.connect(room)
    await room.call(Reminder.set, FIVE_MINUTES)
    STEPS.clear()
    await harness.advance(FIVE_MINUTES)
    assert rang(300) == STEPS


async def test_r9_and_r10_a_sleeping_room_is_constructed_and_started_before_it_rings(harness: Harness) -> None:
    # The page: "If the room is currently "asleep" ..., the PartyKit runtime will load the room into memory ... This means that
    # PartyKit will first run the room's constructor and the `onStart` method, and only then call `onAlarm`."
    room = harness.parties["reminder"].get("a")
    await room.call(Reminder.set, FIVE_MINUTES)
    for happens in (harness.put_to_sleep(room), harness.restart(), harness.crash()):
        await happens
        assert not harness.is_awake(room)
    STEPS.clear()
    await harness.advance(FIVE_MINUTES)
    assert ["constructor of a", "on_start begins", "on_start ends", *rang(300)] == STEPS


async def test_r10_an_alarm_whose_room_does_not_start_is_not_lost(tmp_path: Path) -> None:
    """The other half of "only then": if `onStart` fails, `onAlarm` is not called, and the alarm rings when it does not."""
    failures = 3

    class Moody(Reminder):
        async def on_start(self) -> None:
            nonlocal failures
            if self.ctx.clock.now() > START and failures:
                failures -= 1
                raise OSError

    STEPS.clear()
    async with Harness({"moody": Moody}) as harness:
        room = harness.parties["moody"].get("a")
        await room.call(Reminder.set, FIVE_MINUTES)
        await harness.put_to_sleep(room)
        with harness.expect_error(OSError) as errors:
            await harness.advance(DAY)
        assert 3 == len(errors)
        assert rang(300 + 2 + 4 + 8) == alarms()


# --- one at a time, and checking (R11 to R15) --------------------------------


@pytest.mark.parametrize(("first", "second"), [(60, 300), (300, 60)])
async def test_r11_and_r12_there_is_one_alarm_and_the_later_call_replaces_the_earlier(
    harness: Harness, first: float, second: float
) -> None:
    # The page: "Each PartyKit room can have only one active alarm at a time. If you call `setAlarm` while another alarm is
    # already active, the previous alarm will be canceled in favor of the new one."
    room = harness.parties["reminder"].get("a")
    await room.call(Reminder.set, timedelta(seconds=first))
    await room.call(Reminder.set, timedelta(seconds=second))
    assert 1 == len([each for each in await harness.pending() if each.kind == "alarm"])
    await harness.advance(DAY)
    assert rang(second) == alarms()


async def test_r11_the_bound_is_for_each_room(harness: Harness) -> None:
    """One alarm in each of a hundred rooms is a hundred alarms."""
    for number in range(100):
        await harness.parties["reminder"].get(f"{number:03}").call(Reminder.set, FIVE_MINUTES)
    await harness.advance(FIVE_MINUTES)
    assert [rang(300, room_id=f"{number:03}")[0] for number in range(100)] == alarms()


async def test_r13_an_alarm_that_is_set_can_be_checked(harness: Harness) -> None:
    # The page: "You can use `Party.storage.getAlarm` to check if an alarm is already set."
    room = harness.parties["reminder"].get("a")
    assert await room.call(Reminder.get) is None
    await room.call(Reminder.set, FIVE_MINUTES)
    assert START + FIVE_MINUTES == await room.call(Reminder.get)
    await room.call(Reminder.delete)
    assert await room.call(Reminder.get) is None
    await harness.expect_quiet(DAY)


async def test_r14_an_alarm_is_only_set_if_it_is_sooner_with_nothing_in_between(harness: Harness) -> None:
    # The page: "In this example, we only set the new alarm if it is happening sooner than the alarm which was set previously"
    room = harness.parties["reminder"].get("a")

    async def set_if_sooner(minutes: float) -> None:
        await room.call(Reminder.set_if_sooner, timedelta(minutes=minutes))

    async with anyio.create_task_group() as tasks:
        for minutes in (7, 5, 9, 3, 8, 3, 4):
            tasks.start_soon(set_if_sooner, minutes)
    assert START + timedelta(minutes=3) == await room.call(Reminder.get)
    await harness.advance(DAY)
    assert rang(180) == alarms()


async def test_r15_several_alarms_by_hand(harness: Harness) -> None:
    # The page: "If you need multiple concurrent alarms, you can implement this yourself by storing the alarm times in room
    # storage, and when the first alarm goes off, scheduling the next soonest alarm in the `onAlarm` callback."
    room = harness.parties["multiplexer"].get("a")
    for name, minutes in (("d", 4), ("b", 2), ("a", 1), ("c", 2), ("gone", 3)):
        await room.call(Multiplexer.add, name, timedelta(minutes=minutes))
    await room.call(Multiplexer.cancel, "gone")
    await harness.advance(timedelta(minutes=1))
    await harness.restart()
    await harness.advance(timedelta(hours=1))
    expected = (("a", 1), ("b", 2), ("c", 2), ("d", 4))
    assert [
        f"timer:{name} at {(START + timedelta(minutes=minutes)).isoformat()}" for name, minutes in expected
    ] == STEPS
    await room.call(Multiplexer.add, "last", timedelta(minutes=1))
    await room.call(Multiplexer.cancel, "last")
    await harness.expect_quiet(DAY)


# --- identity and other parties (R16 to R23) ---------------------------------


@pytest.mark.parametrize("how", ["warm", "cold", "restarted", "crashed"])
async def test_r16_and_r18_the_id_is_known_in_the_alarm(harness: Harness, how: str) -> None:
    # The page: "We aren't currently able to automatically deduce the room's `id` ... This is a temporary limitation": here it
    # is none.
    room = harness.parties["reminder"].get("the id")
    await room.call(Reminder.set, FIVE_MINUTES)
    await become(harness, "reminder", how)
    await harness.advance(FIVE_MINUTES)
    assert rang(300, room_id="the id") == alarms()
    assert {"constructor of the id"} == {step for step in STEPS if step.startswith("constructor")}


async def become(harness: Harness, party: str, how: str) -> None:
    """Let the room of the test be awake, asleep, or in a new run of its runtime."""
    if how == "warm":
        await harness.connect(harness.parties[party].get("the id"))
    elif how == "cold":
        await harness.put_to_sleep(harness.parties[party].get("the id"))
    elif how == "restarted":
        await harness.restart()
    else:
        await harness.crash()


async def test_r17_the_way_around_it_still_works(harness: Harness) -> None:
    # The page: "You can work around this limitation by storing the room `id` in room storage, and reading it from there"
    room = harness.parties["remembered"].get("a")
    await room.call(Reminder.set, FIVE_MINUTES)
    await harness.restart()
    await harness.advance(FIVE_MINUTES)
    assert "a is a" == STEPS[-1]
    assert {"id": "a"} == await harness.stored(room)


@pytest.mark.parametrize("how", ["warm", "cold", "restarted", "crashed"])
async def test_r19_to_r23_other_parties_are_there_in_the_alarm(harness: Harness, how: str) -> None:
    # The page: "However, `Party.context.parties` is not available inside `onAlarm` ... This is a temporary limitation": here it
    # is none, and no request goes through a network.
    await harness.parties["visitor"].get("the id").call(Reminder.set, FIVE_MINUTES)
    await become(harness, "visitor", how)
    await harness.advance(FIVE_MINUTES)
    assert {"answer": "POST at host of the id"} == await harness.stored(harness.parties["visitor"].get("the id"))
    assert {"visits": 1} == await harness.stored(harness.parties["host"].get("host of the id"))


# --- expiry (R3, R24 to R29) -------------------------------------------------


async def write(harness: Harness, party: str = "session", **data: Any) -> None:
    async with harness.parties[party].get("a").connect() as client:
        await client.send(json.dumps(data))


async def test_r3_and_r24_storage_is_cleaned_up_and_the_room_is_as_new(harness: Harness) -> None:
    # The page: "Sometimes, you may want to persist room storage for a limited period, and clean it up when it is no longer
    # being used."
    room = harness.parties["session"].get("a")
    await write(harness, id="note", text="hello")
    await harness.advance(EXPIRY_PERIOD)
    assert {} == await harness.stored(room)
    assert [] == await harness.parties["session"].rooms()
    assert await room.call(UserSession.next_alarm) is None
    harness.assert_idle()


async def test_r25_and_r26_each_access_moves_the_alarm_so_that_it_rings_after_the_last(harness: Harness) -> None:
    # The page: "A handy pattern is to keep updating an alarm every time you save data to storage. If the alarm ever rings, you
    # know that the room has not been accessed for that time"
    room = harness.parties["session"].get("a")
    for number in range(10):
        await write(harness, id="note", number=number)
        await harness.advance(EXPIRY_PERIOD - TICK)
        assert {"note": {"id": "note", "number": number}} == await harness.stored(room)
    await harness.advance(TICK)
    assert {} == await harness.stored(room)


async def test_r25_value_and_alarm_are_stored_together_or_not_at_all() -> None:
    """The pattern is worth nothing if one can be stored without the other (G13)."""

    class Failing(UserSession):
        async def on_message(self, message: str | bytes, sender: Connection) -> None:
            await super().on_message(message, sender)
            raise OSError

    async with Harness({"session": Failing}) as harness:
        with harness.expect_error(OSError):
            await write(harness, id="note")
            await harness.settle()
        assert {} == await harness.stored(harness.parties["session"].get("a"))
        harness.assert_idle()


async def test_r27_and_r28_data_is_deleted_when_it_has_not_been_changed_for_thirty_days(harness: Harness) -> None:
    # The page: "The above example deletes the data after it has not been changed for 30 days."
    room = harness.parties["session"].get("a")
    await write(harness, id="note", text="day 0")
    await harness.advance(20 * DAY)
    await write(harness, id="note", text="day 20")
    await harness.advance(29 * DAY)
    assert {"note": {"id": "note", "text": "day 20"}} == await harness.stored(room)
    await harness.advance(DAY)
    assert {} == await harness.stored(room)
    assert await room.call(UserSession.next_alarm) is None
    await write(harness, id="note", text="again")
    assert {"note": {"id": "note", "text": "again"}} == await harness.stored(room)


async def test_r29_data_is_kept_for_thirty_days_since_it_was_last_read(harness: Harness) -> None:
    # The page: "If you wanted to keep the data around 30 days since it was last read, you can also update the same alarm for
    # example when a user connects to the room"
    room = harness.parties["read"].get("a")
    await write(harness, "read", id="note", text="hello")
    await harness.advance(25 * DAY)
    reader = await harness.connect(room)
    await reader.expect('{"id": "note", "text": "hello"}')
    await reader.close()
    await harness.advance(30 * DAY - TICK)
    assert {"note": {"id": "note", "text": "hello"}} == await harness.stored(room)
    await harness.advance(TICK)
    assert START + 55 * DAY == harness.now()
    assert {} == await harness.stored(room)


# --- what the page does not say, and a user would expect ---------------------


async def test_an_alarm_in_the_past_rings_at_once_and_once(harness: Harness) -> None:
    await harness.parties["reminder"].get("a").call(Reminder.set, START - DAY)
    await harness.run_due()
    assert rang(0) == alarms()
    await harness.expect_quiet(DAY)


async def test_an_alarm_that_fell_due_while_nothing_ran_rings_at_start(tmp_path: Path) -> None:
    STEPS.clear()
    harness = Harness(PARTIES, backend=FileBackend(tmp_path / "rooms.db"))
    async with harness:
        await harness.parties["reminder"].get("a").call(Reminder.set, FIVE_MINUTES)
    await harness.clock.jump(DAY)
    async with harness:
        await harness.run_due()
        assert rang(86400) == alarms()
        await harness.expect_quiet(DAY)


async def test_a_handler_that_raises_is_retried_and_takes_back_what_it_wrote(harness: Harness) -> None:
    class Flaky(Reminder):
        async def on_alarm(self, alarm: Alarm) -> None:
            await super().on_alarm(alarm)
            await self.ctx.storage.put(f"try {alarm.retry_count}", alarm.is_retry)
            if alarm.retry_count < 2:
                raise OSError

    STEPS.clear()
    async with Harness({"flaky": Flaky}) as rooms:
        room = rooms.parties["flaky"].get("a")
        await room.call(Reminder.set, FIVE_MINUTES)
        with rooms.expect_error(OSError) as errors:
            await rooms.advance(DAY)
        assert 2 == len(errors)
        assert rang(300, 302, 306) == alarms()
        assert {"try 2": True} == await rooms.stored(room)
