"""The fake clock: settles first, is inclusive, wakes one at a time in order, and says why when it cannot."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from partyroom import Alarm, EventTimeoutError, Limits, Room, RoomHandle, Runtime
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import ClockStalledError, EndlessTimersError, ExpectationError
from partyroom.testing import FakeClock, FaultyBackend, Fired, Harness, Pending
from partyroom.testing._counted_work import RuntimeWork
from partyroom.testing._stall_watch import StallWatch, StandstillWatch
from partyroom.testing._waiting_places import waiting_place
from partyroom.types import RoomKey, Timer

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Watch(Room):
    """Notes when what rings, and does what it is called for."""

    async def on_alarm(self, alarm: Alarm) -> None:
        rung: list[Any] = await self.ctx.storage.get("rung", [])
        await self.ctx.storage.put("rung", [*rung, [alarm.name, (self.ctx.clock.now() - START).total_seconds()]])

    async def arm(self, seconds: float, name: str | None = None) -> None:
        await self.ctx.storage.set_alarm(timedelta(seconds=seconds), name=name)

    async def disarm(self) -> None:
        await self.ctx.storage.delete_alarm()

    async def sleep(self, seconds: float) -> float:
        before = self.ctx.clock.monotonic()
        await self.ctx.clock.sleep(timedelta(seconds=seconds))
        return self.ctx.clock.monotonic() - before


class Metronome(Room):
    """Arms itself again and again."""

    every = MINUTE

    async def arm(self) -> None:
        await self.ctx.storage.set_alarm(self.every)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.arm()


class Hasty(Metronome):
    every = timedelta()


async def rung(harness: Harness, room_id: str = "a") -> list[Any]:
    found: list[Any] = (await harness.stored(harness.parties["watch"].get(room_id))).get("rung", [])
    return found


def harness(**options: Any) -> Harness:
    return Harness({"watch": Watch, "metronome": Metronome, "hasty": Hasty}, **options)


# --- alone -------------------------------------------------------------------


async def test_time_starts_where_it_is_told_and_stands_still() -> None:
    clock = FakeClock(datetime(2026, 5, 17, 12, tzinfo=UTC))
    assert datetime(2026, 5, 17, 12, tzinfo=UTC) == clock.now()
    assert 0 == clock.monotonic()
    assert "<FakeClock at 2026-05-17T12:00:00+00:00>" == repr(clock)
    await clock.settle()
    assert datetime(2026, 5, 17, 12, tzinfo=UTC) == clock.now()


async def test_advance_moves_both_lines_of_time_and_to_the_microsecond() -> None:
    clock = FakeClock()
    await clock.advance(timedelta(days=30, microseconds=1))
    assert START + timedelta(days=30, microseconds=1) == clock.now()
    assert 30 * 86400 + 0.000001 == clock.monotonic()
    await clock.advance_to(START + timedelta(days=31))
    assert START + timedelta(days=31) == clock.now()


@pytest.mark.parametrize("move", [FakeClock.advance, FakeClock.jump])
async def test_time_does_not_go_back(move: Any) -> None:
    with pytest.raises(ValueError, match="time does not go back, not even by 0:00:01: FakeClock.set_wall"):
        await move(FakeClock(), -SECOND)


async def test_a_time_is_aware_and_a_length_of_time_is_no_number() -> None:
    clock, naive = FakeClock(), datetime(2030, 1, 2)  # noqa: DTZ001 - on purpose
    with pytest.raises(ValueError, match="is naive, so it names no instant"):
        FakeClock(naive)
    with pytest.raises(ValueError, match="is naive, so it names no instant"):
        await clock.advance_to(naive)
    with pytest.raises(ValueError, match="is naive, so it names no instant"):
        clock.set_wall(naive)
    for number in (60, 60.0):
        with pytest.raises(TypeError, match="a length of time is a timedelta, not (int|float)"):
            await clock.advance(number)  # type: ignore[arg-type]
    assert START == clock.now()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ties": "random"}, "ties must be 'key' or 'shuffle', not 'random'"),
        ({"max_timers": 0}, "max_timers must be at least 1, not 0"),
        ({"stall_timeout": 0}, "stall_timeout must be positive, not 0"),
    ],
)
async def test_a_wrong_option_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FakeClock(**options)


async def sleepers(clock: FakeClock, log: list[str], **durations: float) -> None:
    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(timedelta(seconds=seconds), timer=Timer(RoomKey("test", name), "sleep"))
        log.append(f"{name} at {clock.monotonic():g}")

    async with anyio.create_task_group() as tasks:
        for name, seconds in durations.items():
            tasks.start_soon(sleep, name, seconds)
        await clock.advance(timedelta(seconds=5))


async def test_sleepers_wake_in_order_each_at_its_own_time_ties_by_name_the_last_moment_included() -> None:
    log: list[str] = []
    await sleepers(FakeClock(), log, d=5, c=3, b=1, a=3)
    assert ["b at 1", "a at 3", "c at 3", "d at 5"] == log


async def test_ties_can_be_shuffled_by_a_seed_which_decides_the_order_alone() -> None:
    orders: set[tuple[str, ...]] = set()
    for seed in range(20):
        log: list[str] = []
        again: list[str] = []
        await sleepers(FakeClock(ties="shuffle", seed=seed), log, a=1, b=1, c=1)
        await sleepers(FakeClock(ties="shuffle", seed=seed), again, c=1, b=1, a=1)
        assert log == again
        orders.add(tuple(log))
    assert 6 == len(orders)


async def test_a_sleep_that_is_cancelled_leaves_nothing_behind() -> None:
    clock = FakeClock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, SECOND)
        tasks.start_soon(clock.sleep_until, at(2))
        await clock.settle()
        assert [at(1), at(2)] == [each.due for each in clock.pending()]
        tasks.cancel_scope.cancel()
    assert [] == clock.pending()
    await clock.advance(MINUTE)
    assert [] == clock.fired


async def test_a_sleep_for_a_time_that_has_come_still_waits_for_its_turn() -> None:
    clock = FakeClock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep_until, START - SECOND)
        tasks.start_soon(clock.sleep, timedelta())
        await clock.settle()
        assert [] == clock.fired
        await clock.run_due()
        assert 2 == len(clock.fired)


async def test_advance_to_next_wakes_one_and_says_whom_or_none() -> None:
    clock = FakeClock()
    assert await clock.advance_to_next() is None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, SECOND)
        assert Fired(at(1), None, "", "") == await clock.advance_to_next()
    assert "2030-01-01T00:00:01+00:00" == str(clock.fired[0])


async def test_what_is_called_by_the_clock_can_be_cancelled_once_or_twice() -> None:
    clock, called = FakeClock(), list[int]()
    cancel = clock.call_at(at(1), Timer(None, "alarm"), lambda: called.append(1))
    clock.call_at(at(2), Timer(None, "alarm"), lambda: called.append(2))
    cancel()
    cancel()
    await clock.advance(MINUTE)
    assert [2] == called


async def test_two_tasks_that_move_one_clock_take_turns() -> None:
    clock = FakeClock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.advance, MINUTE)
        tasks.start_soon(clock.advance, MINUTE)
    assert 120 == clock.monotonic()


# --- with a runtime ----------------------------------------------------------


async def test_a_runtime_of_ones_own_is_attached_and_detached_by_hand() -> None:
    clock = FakeClock()
    async with Runtime({"watch": Watch}, backend=MemoryBackend(), clock=clock) as runtime:
        clock.attach(runtime)
        room = runtime.parties["watch"].get("a")
        await room.call(Watch.arm, 60)
        await clock.advance(MINUTE)
        assert [[None, 60]] == (await room.stored())["rung"]
        clock.detach(runtime)
        clock.detach(runtime)
    clock.attach(runtime)
    await clock.settle()
    assert [] == clock.pending()


async def test_advance_settles_first_so_that_what_was_just_posted_is_armed_before_time_moves() -> None:
    async with harness() as rooms, anyio.create_task_group() as tasks:
        room = rooms.parties["watch"].get("a")
        tasks.start_soon(lambda: room.call(Watch.arm, 60))
        await rooms.advance(MINUTE)
        assert [[None, 60]] == await rung(rooms)


async def test_advance_is_inclusive_and_not_a_microsecond_early() -> None:
    async with harness() as rooms:
        await rooms.parties["watch"].get("a").call(Watch.arm, 60)
        await rooms.advance(MINUTE - timedelta(microseconds=1))
        assert [] == await rung(rooms)
        await rooms.advance(timedelta(microseconds=1))
        assert [[None, 60]] == await rung(rooms)


async def test_what_is_armed_on_the_way_rings_on_the_way() -> None:
    async with harness() as rooms:
        await rooms.parties["metronome"].get("a").call(Metronome.arm)
        await rooms.advance(timedelta(hours=1))
        rings = [each.at for each in rooms.fired if each.kind == "alarm"]
        assert [at(60 * n) for n in range(1, 61)] == rings


async def test_alarms_due_together_ring_by_room_then_name_one_at_a_time() -> None:
    async with harness() as rooms:
        for room_id, name in (("b", "y"), ("a", "z"), ("b", "x"), ("a", None)):
            await rooms.parties["watch"].get(room_id).call(Watch.arm, 60, name)
        await rooms.advance(MINUTE)
        assert [[None, 60], ["z", 60]] == await rung(rooms, "a")
        assert [["x", 60], ["y", 60]] == await rung(rooms, "b")
        assert ["a", "a", "b", "b"] == [each.room.id for each in rooms.fired if each.kind == "alarm" and each.room]


async def test_run_due_rings_what_is_due_now_and_lets_no_time_pass() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, -60)
        await room.call(Watch.arm, 60, "later")
        await rooms.run_due()
        assert [[None, 0]] == await rung(rooms)
        assert START == rooms.now()


async def test_advance_to_next_goes_from_one_timer_to_the_next() -> None:
    async with harness(idle_timeout=timedelta(hours=1)) as rooms:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, 60, "one")
        await room.call(Watch.arm, 90, "two")
        assert Fired(at(60), RoomKey("watch", "a"), "alarm", "") == await rooms.advance_to_next()
        assert Fired(at(90), RoomKey("watch", "a"), "alarm", "") == await rooms.advance_to_next()
        assert [["one", 60], ["two", 90]] == await rung(rooms)
        while (fired := await rooms.advance_to_next()) is not None:
            assert "idle" == fired.kind


async def test_an_alarm_that_was_deleted_or_put_off_is_not_waited_for() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, 60)
        await room.call(Watch.arm, 120)
        await rooms.put_to_sleep(room)
        await rooms.run_until_idle()
        assert [at(120)] == [each.at for each in rooms.fired if each.kind == "alarm"]
        await room.call(Watch.arm, 60)
        await room.call(Watch.disarm)
        await rooms.put_to_sleep(room)
        assert [] == await rooms.run_until_idle()
        while (fired := await rooms.advance_to_next()) is not None:
            assert "idle" == fired.kind
        assert at(130) == rooms.now()


async def test_a_deadline_that_was_not_needed_is_slept_for_but_neither_pending_nor_rung() -> None:
    async with harness(alarms="manual") as rooms:
        for number in range(100):
            room = rooms.parties["watch"].get(f"{number}")
            await room.call(Watch.arm, 0)
            await rooms.put_to_sleep(room)
        assert 100 == (await rooms.ring_due()).rung
        # The limit of an alarm's handler, 15 minutes, that none of them came near to.
        assert {"idle"} >= {each.kind for each in rooms.clock.pending()}
        await rooms.run_until_idle()
        assert START == rooms.now()
        await rooms.advance(timedelta(hours=1))
        assert {"idle"} >= {each.kind for each in rooms.fired}


async def test_an_alarm_that_nobody_can_handle_is_not_waited_for() -> None:
    clock, backend = FakeClock(), MemoryBackend()
    async with Harness({"watch": Watch}, clock=clock, backend=backend) as rooms:
        await rooms.parties["watch"].get("a").call(Watch.arm, 60)
    async with Harness({"watch": Room}, clock=clock, backend=backend) as rooms:
        await rooms.run_until_idle()
        assert START + MINUTE == rooms.now()
        assert [Pending(at(60), RoomKey("watch", "a"), "alarm", "")] == [
            each for each in await rooms.pending() if each.kind == "alarm"
        ]


async def test_pending_lists_all_that_waits_for_its_time_in_order() -> None:
    async with harness() as rooms, anyio.create_task_group() as tasks:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, 60, "one")
        await room.call(Watch.arm, 30, "two")
        tasks.start_soon(lambda: rooms.parties["watch"].get("b").call(Watch.sleep, 5))
        assert [
            Pending(at(5), RoomKey("watch", "b"), "sleep", ""),
            Pending(at(10), RoomKey("watch", "a"), "idle", ""),
            Pending(at(30), RoomKey("watch", "a"), "alarm", "two"),
            Pending(at(60), RoomKey("watch", "a"), "alarm", "one"),
        ] == await rooms.pending()
        assert "2030-01-01T00:00:30+00:00 watch/a alarm two" == str((await rooms.pending())[2])
        await rooms.advance(MINUTE)


# --- handlers that wait on it ------------------------------------------------


class Sleeper(Room):
    async def nap(self, seconds: float) -> float:
        await self.ctx.clock.sleep(timedelta(seconds=seconds))
        return (self.ctx.clock.now() - START).total_seconds()

    async def nap_until(self, seconds: float) -> float:
        await self.ctx.clock.sleep_until(at(seconds))
        return (self.ctx.clock.now() - START).total_seconds()

    async def give_up(self, seconds: float) -> str:
        async with self.ctx.clock.move_on_after(timedelta(seconds=seconds)):
            await self.nap(60)
            return "slept"
        return f"gave up at {self.ctx.clock.monotonic():g}"

    async def fail(self, seconds: float) -> None:
        async with self.ctx.clock.fail_after(timedelta(seconds=seconds)):
            await self.nap(60)

    async def branch(self) -> list[float]:
        ends: list[float] = []

        async def nap(seconds: float) -> None:
            ends.append(await self.nap(seconds))

        async with self.ctx.task_group() as branches:
            for seconds in (3, 1, 2):
                branches.start_soon(nap, seconds)
        return ends

    async def branch_alone(self) -> None:
        async with anyio.create_task_group() as branches:
            branches.start_soon(self.nap, 1)

    async def background(self) -> None:
        self.ctx.start_soon(self.tick)

    async def tick(self) -> None:
        for _ in range(3):
            await self.ctx.clock.sleep(SECOND)
            await self.ctx.run(self.note)

    async def note(self) -> None:
        ticks: list[float] = await self.ctx.storage.get("ticks", [])
        await self.ctx.storage.put("ticks", [*ticks, self.ctx.clock.monotonic()])

    async def wait_for_something_real(self) -> None:
        await anyio.sleep(3600)

    async def background_real(self) -> None:
        self.ctx.start_soon(self.wait_for_something_real)


async def awaited(rooms: Harness, method: Any, *args: Any, within: float = 60) -> Any:
    """Call, and let time pass until the answer is there."""
    answers: list[Any] = []

    async def ask() -> None:
        try:
            answers.append(await rooms.parties["sleeper"].get("a").call(method, *args))
        except TimeoutError as error:
            answers.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await rooms.advance(timedelta(seconds=within))
    return answers[0]


@pytest.mark.parametrize(
    ("method", "argument", "answer"),
    [
        (Sleeper.nap, 5, 5),
        (Sleeper.nap, 0, 0),
        (Sleeper.nap_until, 7, 7),
        (Sleeper.nap_until, -7, 0),
        (Sleeper.give_up, 5, "gave up at 5"),
        (Sleeper.give_up, 61, "slept"),
        (Sleeper.fail, 5, "sleeper/a: not done within 0:00:05"),
        (Sleeper.fail, 61, None),
    ],
)
async def test_a_handler_sleeps_and_times_out_on_the_clock(method: Any, argument: float, answer: object) -> None:
    async with Harness({"sleeper": Sleeper}) as rooms:
        assert answer == await awaited(rooms, method, argument)


async def test_branches_of_the_rooms_own_task_group_sleep_side_by_side() -> None:
    async with Harness({"sleeper": Sleeper}) as rooms:
        assert [1, 2, 3] == await awaited(rooms, Sleeper.branch)


async def test_a_background_task_sleeps_and_comes_back_as_events() -> None:
    async with Harness({"sleeper": Sleeper}) as rooms:
        room = rooms.parties["sleeper"].get("a")
        await room.call(Sleeper.background)
        await rooms.advance(MINUTE)
        assert {"ticks": [1, 2, 3]} == await rooms.stored(room)


# --- what cannot be ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "place"),
    [
        (Sleeper.wait_for_something_real, "in wait_for_something_real: await anyio.sleep(3600)"),
        (Sleeper.branch_alone, "open branches by ctx.task_group()"),
        (Sleeper.background_real, "in wait_for_something_real: await anyio.sleep(3600)"),
    ],
)
async def test_a_wait_that_is_not_on_the_clock_is_an_error_that_names_it(method: Any, place: str) -> None:
    async with Harness({"sleeper": Sleeper}, clock=FakeClock(stall_timeout=0.02)) as rooms:
        message = await stall_of(rooms, method)
    assert "sleeper/a" in message
    assert method.__name__.removeprefix("background_") in message
    assert place in message
    assert "2030-01-01T00:00:00+00:00 (virtual)" in message


async def stall_of(rooms: Harness, method: Any) -> str:
    """Call something that does not end; give what the clock says to it."""
    messages: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_quietly, rooms, method)
        with pytest.raises(ClockStalledError) as caught:
            await rooms.advance(MINUTE)
        messages.append(str(caught.value))
        await rooms.crash()
    return messages[0]


async def call_quietly(rooms: Harness, method: Any) -> None:
    with suppress(Exception):
        await rooms.parties["sleeper"].get("a").call(method)


async def test_a_stall_says_since_when_in_virtual_time() -> None:
    class Late(Sleeper):
        async def nap_and_hang(self) -> None:
            await self.ctx.clock.sleep(SECOND)
            await anyio.sleep(3600)

    async with Harness({"sleeper": Late}, clock=FakeClock(stall_timeout=0.02)) as rooms:
        message = await stall_of(rooms, Late.nap_and_hang)
    assert "Late.nap_and_hang has run for 0:00:01 (virtual), and waits at test_fake_clock.py:" in message


class Napper(Room):
    async def nap(self) -> str:
        await self.ctx.clock.sleep(SECOND)
        return "rested"


async def test_a_call_that_waits_for_time_which_nobody_lets_pass_says_so_instead_of_hanging() -> None:
    async with Harness({"napper": Napper}, clock=FakeClock(stall_timeout=0.02)) as harness:
        room = harness.parties["napper"].get("a")
        with pytest.raises(ClockStalledError) as caught:
            await room.call(Napper.nap)
        assert "expected napper/a Napper.nap to end, and nobody has let time pass for 0.02 real seconds" in str(
            caught.value
        )
        assert "2030-01-01T00:00:01+00:00 napper/a sleep" in str(caught.value)
        # The room itself is none the worse.
        await harness.advance(SECOND)
        async with harness.auto():
            assert "rested" == await room.call(Napper.nap)
        assert [] == harness.clock._work.calls_that_sleep()


def test_a_standstill_is_one_look_at_which_nothing_has_gone_on_since_the_one_before() -> None:
    steps, given_up = [0], list[int]()
    first: Any = SimpleNamespace(looks=[])
    first.call_later = lambda seconds, look: first.looks.append((seconds, look))
    watch = StandstillWatch(5.0, lambda: steps[0], lambda: given_up.append(steps[0]))

    def look() -> None:
        # Several, so that a loop that a debugger has held up misses one, and what was waiting has its turn before the last.
        seconds, call = first.looks.pop()
        assert (1.0, []) == (seconds, first.looks)
        call()

    watch.begin(first)
    watch.begin(first)
    steps[0] = 1
    for _ in range(5):
        look()
        assert [] == given_up
    look()
    assert ([1], []) == (given_up, first.looks)
    # Begun anew; what an old loop has planned means nothing in the next one.
    watch.begin(first)
    second: Any = SimpleNamespace(call_later=lambda _seconds, _look: None)
    watch.begin(second)
    look()
    assert [1] == given_up


class Reminder(Room):
    async def hang(self) -> None:
        await anyio.sleep_forever()

    async def remind(self) -> None:
        await self.ctx.storage.set_alarm(SECOND)

    async def on_alarm(self, alarm: Alarm) -> None:
        self.ctx.broadcast("remember")


async def test_a_call_that_waits_for_what_no_clock_brings_says_where_instead_of_hanging() -> None:
    with pytest.raises(ClockStalledError) as caught:
        async with Harness({"reminder": Reminder}, clock=FakeClock(stall_timeout=0.05)) as harness:
            await harness.parties["reminder"].get("a").call(Reminder.hang)
    assert "time cannot move" in str(caught.value)
    assert "reminder/a Reminder.hang has run for 0:00:00 (virtual), and waits at test_fake_clock.py:" in str(
        caught.value
    )


async def test_a_message_that_time_would_bring_is_missed_by_name_instead_of_for_ever() -> None:
    async with Harness({"reminder": Reminder}, clock=FakeClock(stall_timeout=0.05)) as harness:
        room = harness.parties["reminder"].get("a")
        async with room.connect(id="ann") as client:
            await room.call(Reminder.remind)
            with pytest.raises(ClockStalledError) as caught:
                await client.receive()
            assert "expected a message for reminder/a connection 'ann', and nobody has let time pass" in str(
                caught.value
            )
            assert "2030-01-01T00:00:01+00:00 reminder/a alarm" in str(caught.value)
            # The connection itself is none the worse.
            await harness.advance(SECOND)
            assert "remember" == await client.receive()


async def test_a_message_that_a_stuck_room_owes_is_missed_with_the_line_at_which_that_waits() -> None:
    errors: list[Exception] = []

    async def catch(wait: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            await wait(*args)
        except ClockStalledError as error:
            errors.append(error)

    harness = Harness({"reminder": Reminder}, clock=FakeClock(stall_timeout=0.05))
    await harness.open()
    room = harness.parties["reminder"].get("a")
    async with room.connect() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(catch, room.call, Reminder.hang)
        tasks.start_soon(catch, client.receive)
    await harness.abandon()
    assert ["and waits at test_fake_clock.py:" in str(error) for error in errors] == [True, True]


async def test_while_time_is_moved_it_is_the_mover_who_looks_whether_anything_goes_on() -> None:
    clock, told = FakeClock(stall_timeout=0.01), list[str]()
    async with Harness({"napper": Napper}, clock=clock) as harness, anyio.create_task_group() as tasks:

        async def nap() -> None:
            told.append(await harness.parties["napper"].get("a").call(Napper.nap))

        watch = clock._standstill
        assert watch is not None
        async with clock._lock():
            tasks.start_soon(nap)
            for is_watched in (True, False):
                while (watch._loop is not None) != is_watched:
                    await checkpoint()
        await clock.advance(SECOND)
        await harness.settle()
        assert ["rested"] == told


async def test_events_of_rooms_and_new_waits_say_that_something_goes_on_while_time_stands_still() -> None:
    async with Harness({"reminder": Reminder}) as harness:
        assert harness.clock._standstill is not None
        steps = harness.clock._standstill._steps
        room = harness.parties["reminder"].get("a")
        async with room.connect() as client, harness.auto():
            seen = [steps()]
            await room.call(Reminder.remind)
            seen.append(steps())
            assert "remember" == await client.receive()
            seen.append(steps())
        assert sorted(set(seen)) == seen


async def test_a_runtime_that_has_become_busy_while_another_one_was_waited_for_is_waited_for_as_well() -> None:
    clock, told = FakeClock(), list[str]()
    first, second = (Runtime({"reminder": Reminder}, backend=MemoryBackend(), clock=clock) for _ in range(2))

    async def take_turns(room: Room) -> str:
        for _ in range(10):
            await checkpoint()
        return room.ctx.id

    async def ask_both() -> None:
        for runtime, name in ((second, "of the second"), (first, "of the first")):
            told.append(await runtime.parties["reminder"].get(name).call(take_turns))

    async with first, second, anyio.create_task_group() as tasks:
        for runtime in (first, second):
            clock.attach(runtime)
        tasks.start_soon(ask_both)
        await clock.settle()
        assert ["of the second", "of the first"] == told


async def test_a_stalled_alarm_is_named_with_the_line_at_which_it_waits() -> None:
    class Stuck(Room):
        async def begin(self) -> None:
            await self.ctx.storage.set_alarm(SECOND)

        async def on_alarm(self, alarm: Alarm) -> None:
            await anyio.sleep_forever()

    async with Harness({"stuck": Stuck}, clock=FakeClock(stall_timeout=0.02), fail_on_errors=False) as harness:
        await harness.parties["stuck"].get("a").call(Stuck.begin)
        with pytest.raises(ClockStalledError, match=r"stuck/a on_alarm .* waits at \S+:\d+ in on_alarm: await anyio"):
            await harness.advance(SECOND)
        await harness.crash()


async def test_a_stalled_background_task_is_named_with_its_age() -> None:
    class Late(Sleeper):
        async def nap_and_hang(self) -> None:
            await self.ctx.clock.sleep(SECOND)
            self.ctx.start_soon(self.hang)
            await self.ctx.clock.sleep(2 * SECOND)

        async def hang(self) -> None:
            await self.ctx.clock.sleep(3 * SECOND)
            await anyio.sleep(3600)

    async with Harness({"sleeper": Late}, clock=FakeClock(stall_timeout=0.02)) as rooms:
        message = await stall_of(rooms, Late.nap_and_hang)
    assert re.search(
        r"sleeper/a background task \S+Late\.hang has run for 0:00:03 \(virtual\), and waits at \S+:\d+ in hang: await anyio",
        message,
    )


async def test_a_runtime_that_was_attached_by_hand_tells_ages_too() -> None:
    is_over = anyio.Event()

    async def wait_for_the_test(_room: Room) -> None:
        await is_over.wait()

    clock = FakeClock(stall_timeout=0.02)
    async with (
        Runtime({"sleeper": Sleeper}, backend=MemoryBackend(), clock=clock) as runtime,
        anyio.create_task_group() as tasks,
    ):
        clock.attach(runtime)
        tasks.start_soon(runtime.parties["sleeper"].get("a").call, wait_for_the_test)
        await anyio.lowlevel.checkpoint()
        with pytest.raises(ClockStalledError, match=r"wait_for_the_test has run for 0:00:00 \(virtual\), and waits at"):
            await clock.settle()
        is_over.set()


async def test_what_a_stalled_room_has_still_to_do_is_listed() -> None:
    async with (
        Harness({"sleeper": Sleeper}, clock=FakeClock(stall_timeout=0.02)) as rooms,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(call_quietly, rooms, Sleeper.wait_for_something_real)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(call_quietly, rooms, Sleeper.note)
        with pytest.raises(ClockStalledError, match=r"Sleeper\.note waits for its turn"):
            await rooms.settle()
        await rooms.crash()


async def test_a_commit_that_does_not_come_back_is_listed() -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness({"sleeper": Sleeper}, clock=FakeClock(stall_timeout=0.02), backend=backend) as rooms:
        async with anyio.create_task_group() as tasks:
            with backend.hold():
                tasks.start_soon(call_quietly, rooms, Sleeper.note)
                with pytest.raises(ClockStalledError, match="sleeper/a: ended events that wait for a commit: 1"):
                    await rooms.settle()
        assert {"ticks": [0]} == await rooms.stored(rooms.parties["sleeper"].get("a"))


async def test_a_task_in_which_no_code_of_an_author_waits_is_named_without_a_place() -> None:
    class Lazy(Room):
        async def start(self) -> None:
            self.ctx.start_soon(anyio.sleep, 3600)

    async with Harness({"sleeper": Lazy}, clock=FakeClock(stall_timeout=0.02)) as rooms:
        assert "\n  sleeper/a background task sleep has run for 0:00:00 (virtual)\n" in await stall_of(
            rooms, Lazy.start
        )
    assert "" == waiting_place(object())
    ended = anyio.lowlevel.checkpoint()
    await ended
    assert "" == waiting_place(SimpleNamespace(coro=ended))


async def test_a_runtime_that_is_not_open_has_nothing_in_flight() -> None:
    work = RuntimeWork(Runtime({"watch": Watch}, backend=MemoryBackend()))
    await work.wait_idle()
    work.when_awaited(None)
    assert (True, False, [], []) == (work.is_idle(), work.is_awaited(), work.describe(), work.pending_timers())


async def test_only_a_wait_in_which_nothing_changes_is_a_stall() -> None:
    begun: list[int] = []
    watch = StallWatch(0.01, lambda: [f"{len(begun) // 2}"], lambda: OSError("stalled"))

    async def wait() -> None:
        begun.append(watch.steps)
        if len(begun) < 10:
            await anyio.sleep_forever()
        elif len(begun) < 12:
            watch.steps += 1
            await anyio.sleep_forever()

    # In two looks in a row nothing else is to be seen, from the second on: the third begins nothing.
    with pytest.raises(OSError, match="stalled"):
        await watch.see_through(wait)
    assert 3 == len(begun)
    begun[:] = [0] * 9
    await watch.see_through(wait)
    assert 12 == len(begun)


async def test_a_room_that_rings_without_end_is_named() -> None:
    with pytest.raises(EndlessTimersError, match=r"hasty/a: expected an end .* more than max_timers=100 of 'alarm'"):
        async with harness(clock=FakeClock(max_timers=100)) as rooms:
            await rooms.parties["hasty"].get("a").call(Metronome.arm)
            await rooms.advance(MINUTE)


# --- the other ways to move --------------------------------------------------


async def test_run_until_idle_goes_on_until_only_idle_rooms_wait_and_gives_what_rang() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, 60)
        await room.call(Watch.arm, 3600, "late")
        fired = await rooms.run_until_idle()
        assert ["idle", "alarm", "alarm"] == [each.kind for each in fired]
        assert at(3600) == rooms.now()
        assert [] == await rooms.run_until_idle()


async def test_run_until_idle_wakes_who_sleeps_behind_a_deadline_that_is_due_at_the_same_instant() -> None:
    ended: list[str] = []

    async def sleep_elsewhere(room: Room, seconds: float) -> None:
        await room.ctx.parties["watch"].get("c").call(Watch.sleep, seconds)
        ended.append("never")

    async def call(room: RoomHandle, method: Callable[..., Awaitable[object]]) -> None:
        with suppress(EventTimeoutError):
            await room.call(method, 60)
        ended.append(room.id)

    async with harness(limits=Limits(event_timeout=MINUTE)) as rooms, anyio.create_task_group() as group:
        group.start_soon(call, rooms.parties["watch"].get("a"), Watch.sleep)
        group.start_soon(call, rooms.parties["watch"].get("b"), sleep_elsewhere)
        await rooms.advance_to_next()
        assert ["a"] == ended
        assert ["timeout", "sleep"] == [each.kind for each in await rooms.pending()][:2]
        await rooms.run_until_idle()
        assert ["a", "b"] == ended
        assert at(60) == rooms.now()


async def test_run_until_idle_ends_where_nobody_sleeps_for_what_is_still_to_come() -> None:
    clock = FakeClock()
    work: Any = SimpleNamespace(
        is_idle=lambda: True,
        wait_idle=checkpoint,
        is_cancelled=lambda _timer: False,
        pending_timers=lambda: [(at(60), Timer(RoomKey("watch", "a"), "alarm"))],
        next_alarm=lambda: None,
    )
    clock.attach_work("somebody's", work)
    assert [] == await clock.run_until_idle()
    assert START == clock.now()


async def test_run_until_idle_is_not_kept_going_by_rooms_that_will_leave_memory() -> None:
    async with harness() as rooms:
        await rooms.wake(rooms.parties["watch"].get("a"))
        assert [] == await rooms.run_until_idle()
        assert START == rooms.now()


async def test_run_until_idle_ends_with_an_error_at_its_limit_or_at_too_many_rings() -> None:
    async with harness(clock=FakeClock(max_timers=100)) as rooms:
        await rooms.parties["metronome"].get("a").call(Metronome.arm)
        with pytest.raises(EndlessTimersError, match=r"metronome/a: .* still pending after 1:00:00"):
            await rooms.run_until_idle(limit=timedelta(hours=1))
        with pytest.raises(EndlessTimersError, match=r"metronome/a: .* more than max_timers=100"):
            await rooms.run_until_idle()


async def test_a_jump_rings_nothing_on_the_way_and_what_became_overdue_after_it_late() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, 60, "one")
        await room.call(Watch.arm, 30, "two")
        await room.call(Watch.arm, 9999, "three")
        await rooms.jump(timedelta(hours=1))
        assert [["two", 3600], ["one", 3600]] == await rung(rooms)


async def test_a_corrected_wall_clock_moves_alarms_and_leaves_monotonic_time() -> None:
    async with harness() as rooms:
        await rooms.parties["watch"].get("a").call(Watch.arm, 60)
        rooms.clock.set_wall(at(-3600))
        assert 0 == rooms.clock.monotonic()
        await rooms.advance(MINUTE)
        assert [] == await rung(rooms)
        rooms.clock.set_wall(at(61))
        assert [] == await rung(rooms)
        await rooms.run_due()
        assert [[None, 61]] == await rung(rooms)
        assert 60 == rooms.clock.monotonic()


async def test_expect_quiet_lets_time_pass_and_complains_of_any_ring() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        await room.call(Watch.arm, 3600)
        await rooms.expect_quiet(timedelta(minutes=59))
        assert at(59 * 60) == rooms.now()
        with pytest.raises(ExpectationError) as caught:
            await rooms.expect_quiet(timedelta(minutes=1))
        assert "no event for 0:01:00" == caught.value.expected
        alarm, event = caught.value.seen.splitlines()
        assert "2030-01-01T01:00:00+00:00 watch/a alarm" == alarm
        assert "2030-01-01T01:00:00+00:00 watch/a on_alarm: ok" == event
        assert "watch/a" == caught.value.room


async def test_expect_quiet_of_a_clock_alone_complains_of_any_ring() -> None:
    clock = FakeClock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, SECOND)
        with pytest.raises(ExpectationError) as caught:
            await clock.expect_quiet(MINUTE)
    assert ("nothing rings for 0:01:00", "2030-01-01T00:00:01+00:00") == (caught.value.expected, caught.value.seen)
    await clock.expect_quiet(MINUTE)


async def test_expect_quiet_of_a_harness_complains_of_any_event() -> None:
    async with Harness({"sleeper": Sleeper}) as rooms, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: rooms.parties["sleeper"].get("a").call(Sleeper.give_up, 5))
        with pytest.raises(ExpectationError) as caught:
            await rooms.expect_quiet(MINUTE)
        assert ("no event for 0:01:00", "sleeper/a") == (caught.value.expected, caught.value.room)
        assert "sleeper/a Sleeper.give_up: ok" in caught.value.seen


# --- by itself ---------------------------------------------------------------


async def test_auto_lets_time_pass_while_the_test_waits_for_a_room() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        async with rooms.auto():
            assert 3600 == await room.call(Watch.sleep, 3600)
            assert at(3600) == rooms.now()
            assert 60 == await room.call(Watch.sleep, 60)
        assert at(3660) == rooms.now()


async def test_auto_lets_time_pass_while_the_test_sleeps_on_the_clock() -> None:
    async with harness() as rooms:
        await rooms.parties["watch"].get("a").call(Watch.arm, 60)
        async with rooms.auto():
            await rooms.clock.sleep(timedelta(seconds=90))
        assert [[None, 60]] == await rung(rooms)
        assert at(90) == rooms.now()


async def test_auto_stands_still_while_the_test_waits_for_anything_else() -> None:
    async with harness() as rooms:
        await rooms.parties["metronome"].get("a").call(Metronome.arm)
        async with rooms.auto():
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
        assert START == rooms.now()


async def test_auto_waits_for_somebody_to_wait_for_something() -> None:
    async with harness() as rooms:
        client = await rooms.connect(rooms.parties["watch"].get("a"))
        await rooms.put_to_sleep(rooms.parties["watch"].get("b"))
        async with rooms.auto(), anyio.create_task_group() as tasks:
            tasks.start_soon(client.receive)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(rooms.clock.sleep, MINUTE)
            await rooms.clock.sleep(MINUTE)
            tasks.cancel_scope.cancel()
        assert at(60) == rooms.now()


async def test_inside_auto_a_test_may_move_time_as_well_and_they_take_turns() -> None:
    async with harness() as rooms:
        room = rooms.parties["watch"].get("a")
        answers: list[float] = []

        async def sleep(seconds: float) -> None:
            answers.append(await rooms.parties["watch"].get(f"{seconds}").call(Watch.sleep, seconds))

        async with rooms.auto(), anyio.create_task_group() as tasks:
            for seconds in (1, 2, 3, 4, 5):
                tasks.start_soon(sleep, seconds)
            for _ in range(5):
                await rooms.advance(SECOND)
        assert [1, 2, 3, 4, 5] == sorted(answers)
        await room.call(Watch.disarm)


async def test_auto_ends_with_an_error_when_too_much_time_passes() -> None:
    async with harness() as rooms:
        await rooms.parties["metronome"].get("a").call(Metronome.arm)
        client = await rooms.connect(rooms.parties["watch"].get("a"))
        with pytest.raises(EndlessTimersError, match="somebody still waits after 1:00:00"):
            async with rooms.auto(limit=timedelta(hours=1)):
                await client.receive()
        assert at(3600) == rooms.now()


async def test_auto_ends_with_an_error_when_a_room_rings_without_end() -> None:
    async with Harness({"hasty": Hasty, "watch": Watch}, clock=FakeClock(max_timers=20)) as harness:
        with pytest.raises(EndlessTimersError, match=r"hasty/a: expected an end of its timers"):
            async with harness.auto():
                await harness.parties["hasty"].get("a").call(Hasty.arm)
                await harness.parties["watch"].get("a").call(Watch.sleep, 1)


async def test_an_error_in_the_body_of_auto_leaves_as_it_is() -> None:
    async with harness() as rooms:
        with pytest.raises(KeyError):
            async with rooms.auto():
                raise KeyError
