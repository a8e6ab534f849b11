"""What a host sees that looks at a runtime: its figures, and why a room is awake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import pytest

from partyroom import PartyStatistics, Room, RoomKey, StoredStatistics, WhyAwake
from partyroom._figures import count_stored
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend, Harness
from tests.runtime.engine.running import Box, Caller, arrive, nothing, put, until
from tests.runtime.towers import HOUR, MINUTE, START, Tower, fail

pytestmark = pytest.mark.anyio


class Sleeper(Room):
    """Hibernates: its clients do not keep it awake."""

    hibernate = True


def waiting_for(event: anyio.Event) -> Callable[[Room], Awaitable[None]]:
    async def wait(_room: Room) -> None:
        await event.wait()

    return wait


# --- why a room is awake -----------------------------------------------------


async def test_a_sleeping_room_is_awake_for_nothing() -> None:
    async with Harness({"box": Box}) as harness:
        room = harness.parties["box"].get("a")
        why = harness.runtime.why_awake(room)
        assert not why
        assert WhyAwake(room=RoomKey("box", "a")) == why
        assert () == why.reasons()
        assert "box/a is asleep" == str(why)
        assert not harness.is_awake(room)


async def test_an_idle_room_says_until_when_it_stays() -> None:
    async with Harness({"box": Box}) as harness:
        room = harness.parties["box"].get("a")
        await room.call(nothing)
        await harness.advance(timedelta(seconds=4))
        why = harness.runtime.why_awake(room)
        assert why
        assert START + timedelta(seconds=10) == why.sleeps_at
        assert "box/a is awake:\n  nothing; it sleeps at 2030-01-01 00:00:10Z" == str(why)
        await harness.advance(timedelta(seconds=6))
        assert not harness.runtime.why_awake(room)


async def test_a_running_event_is_named_with_its_age_and_those_behind_it_wait() -> None:
    gate = anyio.Event()

    async def wait(room: Room) -> None:
        await room.ctx.clock.sleep(HOUR)

    async with Harness({"box": Box}) as harness, anyio.create_task_group() as group:
        room = harness.parties["box"].get("a")
        await arrive(group, harness.runtime, room, wait)
        await arrive(group, harness.runtime, room, nothing)
        await arrive(group, harness.runtime, room, put, "k", 1)
        await harness.advance(MINUTE)
        why = harness.runtime.why_awake(room)
        assert why.running is not None
        assert why.running.endswith("wait")
        assert (MINUTE, ("nothing", "put")) == (why.running_for, why.waiting)
        assert f"  {why.running} runs for 60.000 s\n  events that wait: nothing, put" == str(why).partition("\n")[2]
        gate.set()
        await harness.advance(HOUR)


async def test_an_event_that_waits_for_another_room_says_which() -> None:
    gate = anyio.Event()
    wait = waiting_for(gate)

    async def call(room: Room) -> None:
        await room.ctx.parties["box"].get("b").call(wait)

    async with Harness({"box": Box}) as harness, anyio.create_task_group() as group:
        room = harness.parties["box"].get("a")
        await arrive(group, harness.runtime, room, call)
        await until(lambda: harness.runtime.why_awake(room).waits_for)
        (event,) = harness.runtime.why_awake(room).waits_for
        assert event.startswith("box/b ")
        assert f", and waits for {event}" in str(harness.runtime.why_awake(room))
        gate.set()


async def test_a_room_that_is_being_claimed_has_a_running_event_without_an_age() -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=backend) as harness, anyio.create_task_group() as group:
        room = harness.parties["box"].get("a")
        with backend.hold("claim") as hold:
            Caller(group, room.call, nothing)
            await hold.arrived()
            why = harness.runtime.why_awake(room)
            assert ("nothing", None) == (why.running, why.running_for)
            assert "  nothing runs" == str(why).partition("\n")[2]
            assert 1 == harness.runtime.statistics().parties["box"].waking
            hold.release()


async def test_background_tasks_clients_and_commits_keep_a_room_awake() -> None:
    gate = anyio.Event()
    backend = FaultyBackend(MemoryBackend())

    async def start(room: Room) -> None:
        room.ctx.start_soon(gate.wait)

    async with Harness({"box": Box}, backend=backend) as harness:
        room = harness.parties["box"].get("a")
        async with room.connect(), anyio.create_task_group() as group:
            await room.call(start)
            with backend.hold() as hold:
                caller = Caller(group, room.call, put, "k", 1)
                await hold.arrived()
                why = harness.runtime.why_awake(room)
                assert (1, 1, 1, None) == (len(why.tasks), why.uncommitted, why.clients, why.sleeps_at)
                assert why.tasks[0].endswith("Event.wait")
                assert [
                    f"background tasks that run: {why.tasks[0]}",
                    "ended events that wait for a commit: 1",
                    "clients that are connected, while it does not hibernate: 1",
                ] == list(why.reasons())
                hold.release()
            await caller.outcome()
            gate.set()
            await harness.settle()


async def test_a_task_that_is_started_outside_of_any_event_keeps_an_idle_room_awake() -> None:
    gate = anyio.Event()
    rooms: list[Room] = []

    async def note(room: Room) -> None:
        rooms.append(room)

    async with Harness({"box": Box}) as harness:
        room = harness.parties["box"].get("a")
        await room.call(note)
        rooms[0].ctx.start_soon(gate.wait)
        why = harness.runtime.why_awake(room)
        assert (1, None) == (len(why.tasks), why.sleeps_at)
        assert 0 == harness.runtime.statistics().idle
        gate.set()
        await harness.settle()
        assert harness.runtime.why_awake(room).sleeps_at is not None
        assert 1 == harness.runtime.statistics().idle


async def test_what_holds_up_a_call_and_what_sync_stores_are_no_ended_events() -> None:
    backend = FaultyBackend(MemoryBackend())

    async def call(room: Room) -> None:
        await room.ctx.parties["box"].get("b").call(nothing)

    async def sync(room: Room) -> None:
        await room.ctx.storage.put("k", 2)
        await room.ctx.storage.sync()

    async with Harness({"box": Box}, backend=backend) as harness, anyio.create_task_group() as group:
        room = harness.parties["box"].get("a")
        await room.call(nothing)
        (gate,) = (each.gate for each in harness.runtime.engine().all_awake())
        with backend.hold() as hold:
            Caller(group, room.call, put, "k", 1)
            await hold.arrived()
            caller: Caller[None] = Caller(group, room.call, call)
            await until(lambda: 2 == len(gate))
            assert 1 == harness.runtime.why_awake(room).uncommitted
            hold.release()
        await caller.outcome()
        with backend.hold() as hold:
            Caller(group, room.call, sync)
            await hold.arrived()
            assert 0 == harness.runtime.why_awake(room).uncommitted
            hold.release()


async def test_clients_keep_no_room_awake_that_hibernates() -> None:
    async with Harness({"sleeper": Sleeper}) as harness:
        room = harness.parties["sleeper"].get("a")
        async with room.connect():
            why = harness.runtime.why_awake(room)
            assert 0 == why.clients
            assert why.sleeps_at is not None
            await harness.advance(MINUTE)
            assert not harness.runtime.why_awake(room)
            expected = PartyStatistics(awake=0, waking=0, hibernating=1, clients=1)
            assert expected == harness.runtime.statistics().parties["sleeper"]
            await room.call(nothing)
            expected = PartyStatistics(awake=1, waking=0, hibernating=0, clients=1)
            assert expected == harness.runtime.statistics().parties["sleeper"]


# --- the figures -------------------------------------------------------------


async def test_the_figures_of_a_moment_are_of_rooms_events_and_commits() -> None:
    gate = anyio.Event()
    wait = waiting_for(gate)
    async with Harness({"box": Box, "sleeper": Sleeper}) as harness, anyio.create_task_group() as group:
        a, b = harness.parties["box"].get("a"), harness.parties["sleeper"].get("b")
        await b.call(put, "k", 1)
        for fn in (wait, nothing, nothing):
            await arrive(group, harness.runtime, a, fn)
        figures = harness.runtime.statistics()
        assert (2, 0, 1, 1, 1, 2) == (
            figures.awake,
            figures.waking,
            figures.busy,
            figures.idle,
            figures.running,
            figures.waiting,
        )
        assert (1, 1) == (figures.commits, figures.groups)
        assert {
            "box": PartyStatistics(awake=1, waking=0, hibernating=0, clients=0),
            "sleeper": PartyStatistics(awake=1, waking=0, hibernating=0, clients=0),
        } == figures.parties
        gate.set()


async def test_a_commit_that_is_tried_again_is_asked_for_again() -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=backend) as harness:
        backend.fail()
        await harness.parties["box"].get("a").call(put, "k", 1)
        figures = harness.runtime.statistics()
        assert (2, 2) == (figures.commits, figures.groups)


async def test_what_is_stored_is_counted_by_party() -> None:
    tower = Tower()
    tower.on_alarm = fail

    async def arm(room: Room) -> None:
        storage = room.ctx.storage
        await storage.put("k", 1)
        await storage.set_alarm(timedelta(), name="late")
        await storage.set_alarm(HOUR, name="later")
        await storage.set_alarm(HOUR, name="paused")
        await storage.pause_alarm("paused")

    harness = Harness({"bell": tower.bell, "box": Box}, alarms="manual", fail_on_errors=False)
    async with harness:
        bells = [harness.parties["bell"].get(each) for each in "ab"]
        for bell in bells:
            await bell.call(arm)
        await harness.put_to_sleep(bells[0])
        assert {
            "bell": StoredStatistics(rooms=2, asleep=1, due=4, late=2, paused=2, failed=0),
            "box": StoredStatistics(rooms=0, asleep=0, due=0, late=0, paused=0, failed=0),
        } == await harness.runtime.stored_statistics()
        for _ in range(7):
            await harness.ring_due()
            await harness.advance(2 * MINUTE)
        assert 2 == (await harness.runtime.stored_statistics())["bell"].failed


async def test_more_than_a_page_is_counted_to_its_end() -> None:
    async def arm(room: Room, number: int) -> None:
        for each in range(number):
            await room.ctx.storage.set_alarm(HOUR, name=f"{each}")
            await room.ctx.storage.set_alarm(HOUR, name=f"paused {each}")
            await room.ctx.storage.pause_alarm(f"paused {each}")

    async with Harness({"bell": Tower().bell}) as harness:
        for each in range(6):
            await harness.parties["bell"].get(str(each)).call(arm, 1 + (each == 0))
        found = await count_stored(harness.runtime.backend, ["bell"], lambda _: False, START, limit=3)
    assert {"bell": StoredStatistics(rooms=6, asleep=6, due=7, late=0, paused=7, failed=0)} == found


# --- the log -----------------------------------------------------------------


async def test_a_record_of_the_log_says_its_room_and_event(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise LookupError

    async def start(room: Room) -> None:
        room.ctx.start_soon(fails)

    with caplog.at_level("ERROR", "partyroom"):
        async with Harness({"box": Box}, fail_on_errors=False) as harness:
            await harness.parties["box"].get("a").call(start)
            await harness.settle()
    ((room, event),) = [(vars(record)["room"], vars(record)["event"]) for record in caplog.records]
    assert ("box/a", "fails") == (room, event.rpartition(".")[2])
