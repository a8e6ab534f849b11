"""Rooms that call rooms: chains that come back, cycles that are named, and how deep it may go (G1, G4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from partyroom import DeadlockError, EventCancelledError, LimitExceededError, Limits, OutsideEventError, Room
from partyroom.backends.memory import MemoryBackend
from partyroom.protocols import RoomHandle
from partyroom.testing import FaultyBackend
from tests.loops import needs_asyncio
from tests.runtime.engine.running import Box, Caller, arrive, awake, get, nothing, outcomes, put, running, until

pytestmark = pytest.mark.anyio


def box(room: Room, name: str) -> RoomHandle:
    return room.ctx.parties["box"].get(name)


# --- a call that comes back --------------------------------------------------


async def test_a_call_that_comes_back_runs_at_once_and_belongs_to_the_event_that_waits(backend: FaultyBackend) -> None:
    async def there(room: Room) -> int:
        result: int = await box(room, "a").call(back)
        return result

    async def back(room: Room) -> int:
        value: int = await room.ctx.storage.get("k")
        await room.ctx.storage.put("k", value + 1)
        room.ctx.broadcast("from inside")
        return value

    async def begin(room: Room) -> tuple[int, int]:
        await room.ctx.storage.put("k", 1)
        return await box(room, "b").call(there), await get(room, "k")

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:
            assert (1, 2) == await room.call(begin)
            assert "from inside" == await client.receive()
        assert {"k": 2} == await room.stored()


async def test_what_came_back_is_undone_with_the_event_it_belongs_to(backend: FaultyBackend) -> None:
    async def there(room: Room) -> None:
        await box(room, "a").call(put, "nested", 1)

    async def begin(room: Room) -> None:
        await box(room, "b").call(there)
        assert 1 == await get(room, "nested")
        raise ZeroDivisionError

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(ZeroDivisionError):
            await room.call(begin)
        assert {} == await room.stored()


async def test_a_nested_call_that_raises_undoes_its_own_writes_and_outputs_and_its_caller_may_catch(
    backend: FaultyBackend,
) -> None:
    async def fail(room: Room) -> None:
        await room.ctx.storage.put("k", "nested")
        room.ctx.broadcast("never")
        raise KeyError

    async def there(room: Room) -> str:
        with pytest.raises(KeyError):
            await box(room, "a").call(fail)
        return "caught"

    async def begin(room: Room) -> None:
        await room.ctx.storage.put("k", "outer")
        assert "caught" == await box(room, "b").call(there)
        room.ctx.broadcast(await get(room, "k"))

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:
            await room.call(begin)
            assert "outer" == await client.receive()


async def test_its_reply_goes_back_without_waiting_for_the_commit(backend: FaultyBackend) -> None:
    async def there(room: Room) -> None:
        await box(room, "a").call(put, "k", 1)

    async def begin(room: Room) -> int:
        await box(room, "b").call(there)
        commits: int = runtime.statistics().commits
        return commits

    async with running({"box": Box}, backend) as runtime:
        assert 0 == await runtime.parties["box"].get("a").call(begin)


async def test_a_nested_call_belongs_to_the_transaction_that_waits_for_it(backend: FaultyBackend) -> None:
    async def there(room: Room) -> None:
        await box(room, "a").call(put, "k", 1)

    async def begin(room: Room) -> None:
        with pytest.raises(ZeroDivisionError):
            async with room.ctx.storage.transaction():
                await box(room, "b").call(there)
                raise ZeroDivisionError
        assert None is await get(room, "k")

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)


async def test_chains_come_back_over_any_number_of_rooms_and_more_than_once(backend: FaultyBackend) -> None:
    async def hop(room: Room, way: str, so_far: str) -> str:
        mine = so_far + room.ctx.id
        await room.ctx.storage.put(mine, True)
        return mine if not way else await box(room, way[0]).call(hop, way[1:], mine)

    async with running({"box": Box}, backend) as runtime:
        assert "abcabcbbaac" == await runtime.parties["box"].get("a").call(hop, "bcabcbbaac", "")
        found = {name: sorted(await runtime.parties["box"].get(name).stored()) for name in "abc"}
    assert {
        "a": ["a", "abca", "abcabcbba", "abcabcbbaa"],
        "b": ["ab", "abcab", "abcabcb", "abcabcbb"],
        "c": ["abc", "abcabc", "abcabcbbaac"],
    } == found


async def test_a_room_may_call_itself(backend: FaultyBackend) -> None:
    async def countdown(room: Room, number: int) -> int:
        return 0 if not number else 1 + await box(room, room.ctx.id).call(countdown, number - 1)

    async with running({"box": Box}, backend) as runtime:
        assert 5 == await runtime.parties["box"].get("a").call(countdown, 5)


async def test_nested_calls_that_come_back_at_the_same_time_run_one_after_another(backend: FaultyBackend) -> None:
    inside = 0
    most = 0

    async def add(room: Room) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        total: int = await room.ctx.storage.get("total", 0)
        await checkpoint()
        await room.ctx.storage.put("total", total + 1)
        inside -= 1

    async def there(room: Room) -> None:
        async with room.ctx.task_group() as group:
            for _ in range(5):
                group.start_soon(box(room, "a").call, add)

    async def begin(room: Room) -> Any:
        async with room.ctx.task_group() as group:
            for name in "bcd":
                group.start_soon(box(room, name).call, there)
        return await get(room, "total")

    async with running({"box": Box}, backend) as runtime:
        assert 15 == await runtime.parties["box"].get("a").call(begin)
    assert 1 == most


async def test_a_branch_that_comes_too_late_is_refused_and_nothing_is_in_flight_for_it(backend: FaultyBackend) -> None:
    async def begin(room: Room) -> None:
        async with room.ctx.task_group() as group:
            group.start_soon(checkpoint)
        with pytest.raises(RuntimeError):
            group.start_soon(checkpoint)

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)


async def test_on_start_may_call_back_whoever_woke_the_room(backend: FaultyBackend) -> None:
    class Member(Room):
        async def on_start(self) -> None:
            await self.ctx.parties["box"].get("lobby").call(put, self.ctx.id, "here")

        async def name(self) -> str:
            return self.ctx.id

    async def invite(room: Room) -> str:
        name = await room.ctx.parties["member"].get("bob").call(Member.name)
        return f"{name} is {await get(room, name)}"

    async with running({"box": Box, "member": Member}, backend) as runtime:
        assert "bob is here" == await runtime.parties["box"].get("lobby").call(invite)


async def test_a_task_that_outlives_its_event_is_a_fresh_caller(backend: FaultyBackend) -> None:
    gate = anyio.Event()
    answers: list[int] = []

    async def there(room: Room, group: anyio.abc.TaskGroup) -> None:
        async def later() -> None:
            await gate.wait()
            answers.append(await box(room, "a").call(get, "k"))

        group.start_soon(later)

    async def begin(room: Room, group: anyio.abc.TaskGroup) -> None:
        await box(room, "b").call(there, group)
        await room.ctx.storage.put("k", 1)

    async with running({"box": Box}, backend) as runtime:
        async with anyio.create_task_group() as group:
            await runtime.parties["box"].get("a").call(begin, group)
            gate.set()
        assert [1] == answers


async def test_what_came_back_into_a_transaction_that_has_ended_is_refused_and_not_lost_in_silence(
    backend: FaultyBackend,
) -> None:
    begun, gate = anyio.Event(), anyio.Event()

    async def slow(room: Room) -> None:
        await room.ctx.storage.put("k", 1)
        begun.set()
        await gate.wait()

    async def there(room: Room) -> None:
        await box(room, "a").call(slow)

    async def begin(room: Room) -> None:
        async with anyio.create_task_group() as group:
            async with room.ctx.storage.transaction():
                call = Caller(group, box(room, "b").call, there)
                await begun.wait()
            gate.set()
        assert isinstance(await call.outcome(), OutsideEventError)

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(begin)
        assert {} == await room.stored()


async def test_what_goes_on_inside_a_nested_event_that_has_ended_is_not_stored_by_halves_with_the_one_around_it(
    backend: FaultyBackend,
) -> None:
    begun, gate = anyio.Event(), anyio.Event()

    async def late(room: Room) -> None:
        await room.ctx.storage.put("first", 1)
        begun.set()
        await gate.wait()
        await room.ctx.storage.put("second", 2)

    async def begin(room: Room) -> None:
        async with anyio.create_task_group() as group:

            async def leave_behind() -> Caller[None]:
                call: Caller[None] = Caller(group, box(room, "a").call, late)
                await begun.wait()
                return call

            call = await room.ctx.run(leave_behind)
            gate.set()
        assert isinstance(await call.outcome(), OutsideEventError)

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(begin)
        assert {} == await room.stored()


async def test_a_nested_handler_that_cancels_itself_fails_that_call_only(backend: FaultyBackend) -> None:
    async def cancel(room: Room) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except BaseException as error:
                cancelled = error
                raise
        raise cancelled  # pyright: ignore[reportGeneralTypeIssues]

    async def there(room: Room) -> None:
        with pytest.raises(EventCancelledError, match=r"box/a .*cancel was cancelled by its own code"):
            await box(room, "a").call(cancel)

    async def begin(room: Room) -> None:
        await box(room, "b").call(there)

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)


# --- callers on the chain who leave ------------------------------------------


async def test_a_caller_on_the_chain_who_is_cancelled_waits_for_what_runs_nested_in_it(backend: FaultyBackend) -> None:
    steps: list[str] = []
    gate = anyio.Event()

    async def slow(room: Room) -> None:
        steps.append("nested begins")
        await gate.wait()
        await room.ctx.storage.put("k", 1)
        steps.append("nested ends")

    async def there(room: Room) -> None:
        await box(room, "a").call(slow)

    async def begin(room: Room) -> None:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:

                async def leave() -> None:
                    await until(lambda: steps)
                    scope.cancel()
                    for _ in range(10):
                        await checkpoint()
                    gate.set()

                group.start_soon(leave)
                await box(room, "b").call(there)
        steps.append("caller goes on")
        assert 1 == await get(room, "k")

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)
    assert ["nested begins", "nested ends", "caller goes on"] == steps


@pytest.mark.parametrize("way", ["called", "nested"])
async def test_a_caller_waits_for_what_runs_nested_in_it_also_if_somebody_between_the_two_has_left(
    backend: FaultyBackend, way: str
) -> None:
    begun, gate = anyio.Event(), anyio.Event()
    scope = anyio.CancelScope()
    order: list[str] = []

    async def slow(room: Room) -> None:
        begun.set()
        await gate.wait()
        await room.ctx.storage.put("k", 1)
        order.append("nested")

    async def there(room: Room) -> None:
        await box(room, "a").call(slow)

    async def leave(room: Room) -> None:
        with scope:
            await box(room, "c").call(there)
        order.append("left")

    async def begin(room: Room) -> Any:
        await box(room, "b").call(leave)
        order.append("caller")
        return await get(room, "k")

    async def around(room: Room) -> Any:
        return await box(room, "a").call(begin)

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        rooms = runtime.parties["box"]
        call = partial(rooms.get("a").call, begin) if way == "called" else partial(rooms.get("b").call, around)
        caller = Caller(group, call)
        await begun.wait()
        scope.cancel()
        await until(lambda: order)
        for _ in range(20):
            await checkpoint()
        gate.set()
        assert 1 == await caller.outcome()
    assert ["left", "nested", "caller"] == order


async def test_a_wait_for_what_runs_nested_counts_for_a_deadlock_also_if_somebody_between_has_left(
    backend: FaultyBackend,
) -> None:
    begun, gate = anyio.Event(), anyio.Event()
    scope = anyio.CancelScope()

    async def call_d(room: Room) -> None:
        begun.set()
        await box(room, "d").call(nothing)

    async def there(room: Room) -> None:
        await box(room, "a").call(call_d)

    async def leave(room: Room) -> None:
        with scope:
            await box(room, "c").call(there)

    async def begin(room: Room) -> None:
        await box(room, "b").call(leave)

    async def wait_and_call_a(room: Room) -> None:
        await gate.wait()
        await box(room, "a").call(nothing)

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        rooms = runtime.parties["box"]
        waiting = await arrive(group, runtime, rooms.get("d"), wait_and_call_a)
        await until(lambda: awake(runtime, rooms.get("d")).running)
        caller = Caller(group, rooms.get("a").call, begin)
        await begun.wait()
        await until(lambda: len(awake(runtime, rooms.get("d")).unfinished()) == 2)
        scope.cancel()
        await until(lambda: not awake(runtime, rooms.get("b")).running)
        gate.set()
        assert isinstance(await waiting.outcome(), DeadlockError)
        assert None is await caller.outcome()


async def test_a_caller_who_waits_so_goes_on_no_sooner_because_another_branch_of_its_event_calls(
    backend: FaultyBackend,
) -> None:
    steps: list[str] = []
    ended: list[bool] = []
    begun, gate = anyio.Event(), anyio.Event()

    async def slow(room: Room) -> None:
        begun.set()
        await gate.wait()
        steps.append("nested ends")

    async def there(room: Room) -> None:
        await box(room, "a").call(slow)

    async def wait(room: Room) -> None:
        await gate.wait()

    async def begin(room: Room) -> None:
        async with anyio.create_task_group() as group:
            Caller(group, box(room, "c").call, wait)
            call = Caller(group, box(room, "b").call, there)
            await begun.wait()
            call.scope.cancel()
            event = awake(runtime, runtime.parties["box"].get("a")).running
            assert event is not None
            await until(lambda: event.turns)
            for _ in range(10):
                await checkpoint()
            ended.append(call.has_ended)
            gate.set()
            await call.outcome()
            steps.append("caller goes on")

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)
    assert [False] == ended
    assert ["nested ends", "caller goes on"] == steps


async def test_a_caller_who_is_cancelled_does_not_wait_for_what_came_back_along_another_call(
    backend: FaultyBackend,
) -> None:
    gate, begun, gone = anyio.Event(), anyio.Event(), anyio.Event()

    async def slow(room: Room) -> None:
        begun.set()
        await gate.wait()

    async def there(room: Room) -> None:
        await box(room, "a").call(slow)

    async def hang(room: Room) -> None:
        await gate.wait()

    async def leave_early(room: Room) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(box(room, "c").call, hang)
                await begun.wait()
                scope.cancel()
        gone.set()

    async def begin(room: Room) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(box(room, "b").call, there)
            group.start_soon(leave_early, room)
            await gone.wait()
            gate.set()

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)


async def test_once_the_caller_has_left_a_call_that_comes_back_is_an_ordinary_event(backend: FaultyBackend) -> None:
    steps: list[str] = []
    called, gate = anyio.Event(), anyio.Event()

    async def note(room: Room, step: str) -> None:
        steps.append(step)

    async def there(room: Room) -> None:
        called.set()
        await gate.wait()
        await box(room, "a").call(note, "came back")

    async def begin(room: Room) -> None:
        async with anyio.create_task_group() as group:
            call = Caller(group, box(room, "b").call, there)
            await called.wait()
            await call.leave()
        gate.set()
        for _ in range(20):
            await checkpoint()
        steps.append("first event ends")

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(begin)
        await runtime.wait_idle()
    assert ["first event ends", "came back"] == steps


async def test_who_leaves_while_he_waits_for_his_turn_is_forgotten_and_the_next_has_it(backend: FaultyBackend) -> None:
    begun, gate = anyio.Event(), anyio.Event()

    async def slow(room: Room) -> str:
        begun.set()
        await gate.wait()
        return "slow"

    async def there(room: Room) -> list[Any]:
        async with anyio.create_task_group() as group:
            first = Caller(group, box(room, "a").call, slow)
            await begun.wait()
            second, third = (Caller(group, box(room, "a").call, put, name, 1) for name in ("second", "third"))
            host = awake(runtime, runtime.parties["box"].get("a"))
            await until(lambda: host.running and host.running.turns and len(host.running.turns) == 2)
            await second.leave()
            gate.set()
        return [await first.outcome(), await third.outcome()]

    async def begin(room: Room) -> Any:
        return await box(room, "b").call(there)

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        assert ["slow", None] == await room.call(begin)
        assert {"third": 1} == await room.stored()


@pytest.mark.parametrize("natively", [True, False], ids=["by asyncio itself", "by a scope"])
async def test_a_turn_that_was_given_to_somebody_who_leaves_at_that_moment_passes_on(
    backend: FaultyBackend, natively: bool, anyio_backend_name: str
) -> None:
    if natively:
        needs_asyncio(anyio_backend_name)
    begun = anyio.Event()
    leave: list[Callable[[], object]] = []

    def waiting() -> int:
        host = awake(runtime, runtime.parties["box"].get("a")).running
        assert host is not None
        return len(host.turns or ())

    async def come_first(room: Room) -> None:
        begun.set()
        await until(lambda: waiting() == 2)

    async def come_second(room: Room) -> None:
        await begun.wait()
        with anyio.CancelScope() as scope, suppress(asyncio.CancelledError):
            leave.append(asyncio.current_task().cancel if natively else scope.cancel)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
            await box(room, "a").call(put, "leaving", 1)

    async def come_third(room: Room) -> None:
        await begun.wait()
        await until(lambda: waiting() == 1)
        await box(room, "a").call(put, "staying", 1)

    async def there(room: Room) -> None:
        async with anyio.create_task_group() as group:
            for come in (come_second, come_third):
                group.start_soon(come, room)
            await box(room, "a").call(come_first)
            # In the very step in which the turn has passed on. A scope is told to be cancelled too late by then.
            leave[0]()

    async def begin(room: Room) -> None:
        await box(room, "b").call(there)

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(begin)
        assert {"staying"} == {*await room.stored()} - ({"leaving"} if not natively else set())


async def test_a_call_that_has_not_begun_is_withdrawn_with_its_caller(backend: FaultyBackend) -> None:
    gate = anyio.Event()

    async def wait(room: Room) -> None:
        await gate.wait()

    async def begin(room: Room) -> str:
        async with anyio.create_task_group() as group:
            call = Caller(group, box(room, "b").call, put, "k", 1)
            await until(lambda: len(awake(runtime, other).mailbox) == 1)
            await call.leave()
        return "left"

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room, other = runtime.parties["box"].get("a"), runtime.parties["box"].get("b")
        await arrive(group, runtime, other, wait)
        assert "left" == await room.call(begin)
        gate.set()
        await runtime.wait_idle()
        assert {} == await other.stored()


# --- cycles ------------------------------------------------------------------


@pytest.mark.parametrize("names", ["ab", "abc"])
async def test_rooms_that_call_each_other_in_a_circle_hear_of_a_deadlock_that_names_it(
    backend: FaultyBackend, names: str
) -> None:
    here = 0
    all_here = anyio.Event()

    async def call_next(room: Room) -> None:
        nonlocal here
        here += 1
        if here == len(names):
            all_here.set()
        await all_here.wait()
        await box(room, names[(names.index(room.ctx.id) + 1) % len(names)]).call(nothing)

    async with running({"box": Box}, backend) as runtime:
        results = await outcomes(*[partial(runtime.parties["box"].get(name).call, call_next) for name in names])
    (error,) = [each for each in results if each is not None]
    assert isinstance(error, DeadlockError)
    rooms = [each.partition(" ")[0].removeprefix("box/") for each in error.chain]
    start = names.index(rooms[0])
    assert [*names[start:], *names[:start], rooms[0]] == rooms
    assert "these wait for each other: box/" in str(error)


async def test_a_deadlock_through_on_start_is_seen(backend: FaultyBackend) -> None:
    gate, starting = anyio.Event(), anyio.Event()

    class Late(Room):
        async def on_start(self) -> None:
            starting.set()
            await gate.wait()
            await self.ctx.parties["box"].get("a").call(nothing)

        async def hello(self) -> None:
            """Be called."""

    async def call_late(room: Room) -> None:
        gate.set()
        await room.ctx.parties["late"].get("b").call(Late.hello)

    async with running({"box": Box, "late": Late}, backend) as runtime, anyio.create_task_group() as group:
        waking = Caller(group, runtime.parties["late"].get("b").call, Late.hello)
        await starting.wait()
        caller = Caller(group, runtime.parties["box"].get("a").call, call_late)
        errors = [await waking.outcome(), await caller.outcome()]
    assert 1 == sum(isinstance(error, DeadlockError) for error in errors)


async def test_a_call_that_waits_for_the_on_start_of_a_room_that_waits_for_it_is_seen(backend: FaultyBackend) -> None:
    gate, starting = anyio.Event(), anyio.Event()

    class Late(Room):
        async def on_start(self) -> None:
            starting.set()
            await gate.wait()
            await self.ctx.parties["box"].get("c").call(nothing)

        async def hello(self) -> None:
            """Be called."""

    async def call_late(room: Room) -> None:
        await room.ctx.parties["late"].get("b").call(Late.hello)

    async def call_a(room: Room) -> None:
        await starting.wait()
        await box(room, "a").call(nothing)

    async with running({"box": Box, "late": Late}, backend) as runtime, anyio.create_task_group() as group:
        parties = runtime.parties["box"]
        first = Caller(group, parties.get("a").call, call_late)
        await starting.wait()
        second = await arrive(group, runtime, parties.get("c"), call_a)
        await until(lambda: len(awake(runtime, parties.get("a")).mailbox) == 1)
        gate.set()
        errors = [await first.outcome(), await second.outcome()]
    assert [DeadlockError, type(None)] == [type(error) for error in errors]


async def test_a_wait_for_a_full_mailbox_counts_as_a_wait_for_the_room(backend: FaultyBackend) -> None:
    gate = anyio.Event()

    async def begin(room: Room) -> None:
        await gate.wait()
        await box(room, "a").call(nothing)

    async with (
        running({"box": Box}, backend, limits=Limits(mailbox=1)) as runtime,
        anyio.create_task_group() as group,
    ):
        parties = runtime.parties["box"]
        async with parties.get("b").connect() as client:

            async def send_until_full(room: Room) -> None:
                await client.send("fills the mailbox")
                gate.set()
                await client.send("waits outside")

            first = await arrive(group, runtime, parties.get("b"), begin)
            await until(lambda: awake(runtime, parties.get("b")).running)
            second = Caller(group, parties.get("a").call, send_until_full)
            errors = [error for each in (first, second) if (error := await each.outcome()) is not None]
    assert [DeadlockError] == [type(error) for error in errors]


async def test_a_room_that_sends_to_itself_more_than_its_mailbox_takes_hears_of_it(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend, limits=Limits(mailbox=1)) as runtime:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:

            async def flood(room: Room) -> None:
                await client.send("one")
                await client.send("two")

            with pytest.raises(DeadlockError):
                await room.call(flood)


async def test_nested_calls_that_wait_for_each_others_turn_hear_of_it(backend: FaultyBackend) -> None:
    begun, gate = anyio.Event(), anyio.Event()

    async def holds_the_turn(room: Room) -> None:
        begun.set()
        await gate.wait()
        await box(room, "c").call(nothing)

    async def there(room: Room) -> None:
        await box(room, "a").call(holds_the_turn)

    async def waits_for_the_turn(room: Room) -> None:
        await begun.wait()
        gate.set()
        await box(room, "a").call(nothing)

    async def begin(room: Room) -> None:
        async with room.ctx.task_group() as group:
            group.start_soon(box(room, "c").call, waits_for_the_turn)
            group.start_soon(box(room, "b").call, there)

    async with running({"box": Box}, backend) as runtime:
        with pytest.raises(ExceptionGroup) as caught:
            await runtime.parties["box"].get("a").call(begin)
    assert caught.group_contains(DeadlockError)


async def test_connecting_to_a_room_along_ones_own_chain_is_a_deadlock(backend: FaultyBackend) -> None:
    async def connect(room: Room) -> None:
        await box(room, "a").connect().__aenter__()

    async with running({"box": Box}, backend) as runtime:
        with pytest.raises(DeadlockError):
            await runtime.parties["box"].get("a").call(connect)


async def test_an_answered_wait_is_no_wait(backend: FaultyBackend) -> None:
    """A message that has found its place may be handled before its sender goes on; what it calls is no deadlock."""

    class Relay(Room):
        async def on_message(self, message: str | bytes, sender: object) -> None:
            if message == "call":
                await self.ctx.parties["box"].get("a").call(nothing)

    async with running({"box": Box, "relay": Relay}, backend, limits=Limits(mailbox=1)) as runtime:
        async with runtime.parties["relay"].get("b").connect() as client:

            async def send(room: Room) -> None:
                for _ in range(3):
                    await client.send("fill")
                await client.send("call")

            for _ in range(10):
                await runtime.parties["box"].get("a").call(send)
                await runtime.wait_idle()


# --- depth, and where tokens may be lost -------------------------------------


async def test_calls_may_nest_so_deep_and_no_deeper(backend: FaultyBackend) -> None:
    async def dig(room: Room, depth: int) -> int:
        return depth if not depth else await box(room, str(depth)).call(dig, depth - 1)

    async with running({"box": Box}, backend, limits=Limits(call_depth=5)) as runtime:
        room = runtime.parties["box"].get("top")
        assert 0 == await room.call(dig, 5)
        with pytest.raises(LimitExceededError, match=r"box/1 .*dig: 6 is over Limits.call_depth=5"):
            await room.call(dig, 6)


async def test_the_deepest_chain_that_is_allowed_fits_into_pythons_own_limit(backend: FaultyBackend) -> None:
    async def dig(room: Room, depth: int) -> int:
        return depth if not depth else await box(room, str(depth)).call(dig, depth - 1)

    async with running({"box": Box}, backend) as runtime:
        assert 0 == await runtime.parties["box"].get("top").call(dig, 64)


async def test_a_room_that_fell_asleep_while_its_caller_waited_for_his_own_commits_is_found_awake_again(
    backend: FaultyBackend,
) -> None:
    async def call_b(room: Room) -> None:
        await box(room, "b").call(put, "k", 2)

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room, other = (runtime.parties["box"].get(name) for name in "ab")
        await other.call(nothing)
        with backend.hold() as hold:
            await arrive(group, runtime, room, put, "k", 1)
            await hold.arrived()
            caller = await arrive(group, runtime, room, call_b)
            await until(lambda: len(awake(runtime, room).gate) == 2)
            assert runtime.engine().put_to_sleep(awake(runtime, other))
        assert None is await caller.outcome()
        assert {"k": 2} == await other.stored()
        assert other.id == awake(runtime, other).key.id


async def test_a_room_of_another_runtime_can_be_called_like_any_other(backend: FaultyBackend) -> None:
    async def call_there(room: Room) -> Any:
        return await theirs.parties["box"].get("a").call(call_back)

    async def call_back(room: Room) -> Any:
        return await ours.parties["box"].get("a").call(get, "k")

    async def begin(room: Room) -> Any:
        await room.ctx.storage.put("k", "ours")
        return await call_there(room)

    async with running({"box": Box}, backend) as ours, running({"box": Box}, MemoryBackend()) as theirs:
        assert "ours" == await ours.parties["box"].get("a").call(begin)
        await theirs.wait_idle()
        await ours.wait_idle()
