"""Nothing is told before it is safe (G4), and a refused commit is not survived by memory (G5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom import (
    Alarm,
    BackendError,
    Commit,
    CommitError,
    Connection,
    ConnectionClosedError,
    Room,
    RoomBrokenError,
    RoomKey,
    Runtime,
)
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend, RecordingBackend
from partyroom.testing.backend_wrapper import BackendWrapper
from tests.runtime.engine.running import (
    Box,
    Caller,
    SuspendingBackend,
    arrive,
    awake,
    get,
    nothing,
    put,
    running,
    until,
)

pytestmark = pytest.mark.anyio

A, B = RoomKey("box", "a"), RoomKey("box", "b")


async def put_and_say(room: Room, value: int) -> int:
    await room.ctx.storage.put("k", value)
    room.ctx.broadcast(str(value))
    return value


# --- told when it is safe ----------------------------------------------------


async def test_a_reply_and_a_message_leave_when_the_commit_is_durable_and_not_before(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:
            with backend.hold() as hold:
                caller = Caller(group, room.call, put_and_say, 1)
                receiver = Caller(group, client.receive)
                await hold.arrived()
                await runtime.parties["box"].get("other").call(nothing)
                assert not caller.has_ended
                assert not receiver.has_ended
            assert 1 == await caller.outcome()
            assert "1" == await receiver.outcome()


async def test_what_keeps_a_room_from_resting_is_told(backend: FaultyBackend) -> None:
    gate = anyio.Event()

    async def watch() -> None:
        await gate.wait()

    async def begin(room: Room) -> None:
        room.ctx.start_soon(watch)

    async def stay(room: Room) -> None:
        await gate.wait()

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        await room.call(begin)
        with backend.hold() as hold:
            await arrive(group, runtime, room, put, "k", 1)
            await hold.arrived()
            await arrive(group, runtime, room, stay)
            await arrive(group, runtime, room, nothing)
            await until(lambda: len(runtime.describe_work()) == 4 and "runs" in runtime.describe_work()[0])
            runs, waits, ended, background = runtime.describe_work()
            assert "stay runs" in runs
            assert "nothing waits" in waits
            assert "box/a: ended events that wait for a commit: 1" == ended
            assert background.startswith("box/a: background tasks that run: ")
            assert "watch" in background
        gate.set()


async def test_later_events_run_on_what_will_be_stored_and_their_outputs_wait_in_turn(backend: FaultyBackend) -> None:
    async def fail(room: Room) -> None:
        raise KeyError(await get(room, "k"))

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            calls: list[tuple[Any, ...]] = [(put, "k", 1), (get, "k"), (fail,), (put, "k", 2)]
            callers = [await arrive(group, runtime, room, *each) for each in calls]
            await hold.arrived()
            await until(lambda: len(awake(runtime, room).gate) == 4)
            assert not any(caller.has_ended for caller in callers)
        assert None is await callers[0].outcome()
        assert 1 == await callers[1].outcome()
        assert isinstance(await callers[2].outcome(), KeyError)
        assert None is await callers[3].outcome()
        assert {"k": 2} == await room.stored()


async def test_what_gathers_while_a_group_is_committed_goes_as_one(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        box = runtime.parties["box"]
        with backend.hold() as hold:
            Caller(group, box.get("a").call, put, "k", 0)
            await hold.arrived()
            for number in range(20):
                Caller(group, box.get(f"r{number % 4}").call, put, f"k{number}", number)
            await until(lambda: sum(len(each.gate) for each in runtime.engine().all_awake()) == 21)
        await runtime.wait_idle()
        # The second group has one commit for each of four rooms.
        assert 5 == runtime.statistics().commits
        assert 2 == runtime.statistics().groups


async def test_a_call_to_another_room_waits_until_the_callers_earlier_events_are_durable(
    backend: FaultyBackend,
) -> None:
    begun: list[str] = []

    async def be_called(room: Room) -> None:
        begun.append(room.ctx.id)

    async def call_b(room: Room) -> None:
        begun.append("calling")
        await room.ctx.parties["box"].get("b").call(be_called)

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            Caller(group, room.call, put, "k", 1)
            await hold.arrived()
            caller = Caller(group, room.call, call_b)
            await until(lambda: begun)
            for _ in range(20):
                await checkpoint()
            assert ["calling"] == begun
        assert None is await caller.outcome()
        assert ["calling", "b"] == begun


async def test_a_call_does_not_wait_for_its_own_events_writes(backend: FaultyBackend) -> None:
    async def write_and_call(room: Room) -> None:
        await room.ctx.storage.put("k", 1)
        await room.ctx.parties["box"].get("b").call(put, "k", 2)
        raise ZeroDivisionError

    async with running({"box": Box}, backend) as runtime:
        room, other = runtime.parties["box"].get("a"), runtime.parties["box"].get("b")
        with pytest.raises(ZeroDivisionError):
            await room.call(write_and_call)
        assert {} == await room.stored()
        assert {"k": 2} == await other.stored()


async def test_the_first_event_may_call_other_rooms_while_what_on_start_wrote_is_stored(
    backend: FaultyBackend,
) -> None:
    class Starter(Room):
        async def on_start(self) -> None:
            await self.ctx.storage.put("started", True)

        async def call_box(self) -> None:
            await self.ctx.parties["box"].get("b").call(nothing)

    async with running({"starter": Starter, "box": Box}, backend) as runtime:
        await runtime.parties["starter"].get("a").call(Starter.call_box)


# --- refused -----------------------------------------------------------------


async def test_all_whose_outputs_waited_hear_that_the_room_broke_and_the_next_starts_from_what_is_stored(
    backend: FaultyBackend,
) -> None:
    async def fail(room: Room) -> None:
        raise KeyError

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        await room.call(put, "k", 0)
        with backend.hold() as hold:
            backend.fail_until_healed(room=A)
            calls: list[tuple[Any, ...]] = [(put, "k", 1), (put, "k", 2), (get, "k"), (fail,)]
            callers = [await arrive(group, runtime, room, *each) for each in calls]
            await hold.arrived()
            await until(lambda: len(awake(runtime, room).gate) == 4)
        errors = [await caller.outcome() for caller in callers]
        assert [RoomBrokenError] * 4 == [type(error) for error in errors]
        assert len({id(error) for error in errors}) == 4
        assert all(isinstance(error.__cause__, BackendError) for error in errors)
        backend.heal()
        assert 0 == await room.call(get, "k")


async def test_a_handler_that_runs_on_what_is_refused_is_cancelled_whatever_it_makes_of_that(
    backend: FaultyBackend,
) -> None:
    async def wait_and_swallow(room: Room) -> str:
        with suppress(BaseException):
            await anyio.sleep_forever()
        return "swallowed"

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            backend.fail_until_healed()
            Caller(group, room.call, put, "k", 1)
            await hold.arrived()
            running_one = await arrive(group, runtime, room, wait_and_swallow)
            await until(lambda: awake(runtime, room).running)
            queued = await arrive(group, runtime, room, get, "k")
        assert isinstance(await running_one.outcome(), RoomBrokenError)
        backend.heal()
        assert None is await queued.outcome()


async def test_another_instance_goes_on_and_the_old_ones_attributes_are_gone(backend: FaultyBackend) -> None:
    class Counter(Room):
        count = 0

        async def add(self) -> int:
            self.count += 1
            await self.ctx.storage.put("count", self.count)
            return self.count

    async with running({"box": Counter}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        assert 1 == await room.call(Counter.add)
        backend.refuse(A)
        with pytest.raises(RoomBrokenError, match="box/a: a commit was refused"):
            await room.call(Counter.add)
        assert 1 == await room.call(Counter.add)


async def test_the_clients_of_a_room_that_broke_are_closed_with_1011_and_the_next_instance_hears_of_it(
    backend: FaultyBackend,
) -> None:
    closed: list[tuple[int, bool]] = []

    class Listener(Room):
        async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
            closed.append((code, was_clean))

    async with running({"box": Listener}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:
            backend.refuse(A)
            with pytest.raises(RoomBrokenError):
                await room.call(put_and_say, 1)
            with pytest.raises(ConnectionClosedError) as caught:
                await client.receive()
            assert 1011 == caught.value.code
            with pytest.raises(ConnectionClosedError):
                await client.send("too late")
        await runtime.wait_idle()
        assert [(1011, False)] == closed


async def test_ones_refusal_is_not_anothers(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        box = runtime.parties["box"]
        backend.refuse(A, 2)
        with backend.hold() as hold:
            first = Caller(group, box.get("a").call, put, "k", 1)
            await hold.arrived()
            refused, stored = (Caller(group, box.get(name).call, put, "k", 2) for name in "ab")
            await until(lambda: sum(len(each.gate) for each in runtime.engine().all_awake()) == 3)
        assert None is await first.outcome()
        assert isinstance(await refused.outcome(), RoomBrokenError)
        assert None is await stored.outcome()
        assert [{"k": 1}, {"k": 2}] == [await box.get(name).stored() for name in "ab"]


async def test_a_group_that_raises_is_tried_again_commit_by_commit(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        box = runtime.parties["box"]
        with backend.hold() as hold:
            Caller(group, box.get("c").call, put, "k", 1)
            await hold.arrived()
            callers = [await arrive(group, runtime, box.get("a"), put, f"k{number}", 1) for number in range(3)]
            callers.append(await arrive(group, runtime, box.get("b"), put, "k", 2))
            await until(lambda: sum(len(each.gate) for each in runtime.engine().all_awake()) == 5)
            # The group; then what a has in it.
            backend.fail()
            backend.fail(nth=2, room=A)
        assert [RoomBrokenError, RoomBrokenError, RoomBrokenError, None] == [
            None if (each := await caller.outcome()) is None else type(each) for caller in callers
        ]
        assert {} == await box.get("a").stored()
        assert {"k": 2} == await box.get("b").stored()


async def test_events_that_may_be_stored_already_are_not_stored_again_one_by_one(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            Caller(group, room.call, put, "k", 0)
            await hold.arrived()
            callers = [await arrive(group, runtime, room, put, "k", number) for number in (1, 2, 3)]
            await until(lambda: sum(len(each.gate) for each in runtime.engine().all_awake()) == 4)
            # The three are stored, as nobody hears; then all goes wrong from the second question on.
            backend.lose_answer()
            backend.fail(nth=3, room=A, times=9)
        outcomes = [await caller.outcome() for caller in callers]
        backend.heal()
        assert {"k": 3} == await room.stored(), f"once, and never an earlier one again: {outcomes}"


async def test_a_commit_whose_answer_was_lost_is_asked_for_again_and_stands(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        backend.lose_answer()
        await room.call(put, "k", 1)
        assert {"k": 1} == await room.stored()


async def test_the_room_is_claimed_again_after_it_broke() -> None:
    faulty = FaultyBackend(MemoryBackend())
    recording = RecordingBackend(faulty)
    async with running({"box": Box}, recording) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(put, "k", 1)
        faulty.refuse(A)
        with pytest.raises(RoomBrokenError):
            await room.call(put, "k", 2)
        await room.call(put, "k", 3)
        assert [1, 2] == [effect.result for effect in recording.of("claim")]
        assert [1, 2] == [commit.fence for commit in recording.commits]


async def test_a_caller_of_another_room_hears_that_its_own_earlier_events_were_refused(backend: FaultyBackend) -> None:
    async def call_b(room: Room) -> None:
        await room.ctx.parties["box"].get("b").call(put, "k", 1)

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            backend.fail_until_healed(room=A)
            Caller(group, room.call, put, "k", 1)
            await hold.arrived()
            caller = Caller(group, room.call, call_b)
            await until(lambda: len(awake(runtime, room).gate) == 2)
        assert isinstance(await caller.outcome(), RoomBrokenError)
        assert {} == await runtime.parties["box"].get("b").stored()
        backend.heal()


@pytest.mark.parametrize("way", ["call", "connect"])
async def test_a_handler_that_is_shielded_from_its_cancellation_tells_no_other_room_of_what_was_refused(
    backend: FaultyBackend, way: str
) -> None:
    async def read_and_tell(room: Room) -> None:
        value, b = await get(room, "k"), room.ctx.parties["box"].get("b")
        try:
            await anyio.sleep_forever()
        finally:
            with pytest.raises(RoomBrokenError), anyio.CancelScope(shield=True):
                if way == "call":
                    await b.call(put, "k", value)
                else:
                    await b.connect(id=str(value)).__aenter__()

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            backend.fail_until_healed(room=A)
            await arrive(group, runtime, room, put, "k", 1)
            await hold.arrived()
            caller = await arrive(group, runtime, room, read_and_tell)
            await until(lambda: awake(runtime, room).running)
        assert isinstance(await caller.outcome(), RoomBrokenError)
        assert None is runtime.engine().awake(B)
        backend.heal()


# --- backends that break their contract, or are interrupted -------------------


class OddBackend(BackendWrapper):
    """A backend whose commits a test does itself."""

    def __init__(self, commit: Callable[[Sequence[Commit]], Any], *, suspends: bool) -> None:
        super().__init__(SuspendingBackend(MemoryBackend()) if suspends else MemoryBackend())
        self.odd_commit = commit
        self.is_odd = True

    @override
    def commit(self, commits: Sequence[Commit], /) -> Any:
        return self.odd_commit(commits) if self.is_odd else super().commit(commits)


both_kinds = pytest.mark.parametrize("suspends", [False, True], ids=["inline", "suspending"])


async def answer(value: Any, *, suspends: bool) -> Any:
    if suspends:
        await checkpoint()
    return value


@both_kinds
@pytest.mark.parametrize("answers", [None, [], [None, None], [True], 7])
async def test_a_backend_that_answers_nonsense_breaks_the_room_and_no_more(answers: Any, suspends: bool) -> None:
    odd = OddBackend(lambda _: answer(answers, suspends=suspends), suspends=suspends)
    async with running({"box": Box}, odd) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(RoomBrokenError, match="the backend answered one commit with"):
            await room.call(put, "k", 1)
        odd.is_odd = False
        await room.call(put, "k", 2)
        assert {"k": 2} == await room.stored()


@both_kinds
async def test_a_backend_whose_commit_is_not_async_breaks_the_room_and_no_more(suspends: bool) -> None:
    odd = OddBackend(lambda _: [None], suspends=suspends)
    async with running({"box": Box}, odd) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        callers = [Caller(group, room.call, put, "k", number) for number in range(3)]
        assert [RoomBrokenError] * 3 == [type(await caller.outcome()) for caller in callers]
        odd.is_odd = False
        await room.call(put, "k", 2)


async def cancelled() -> None:
    """Raise a cancellation that nobody asked for."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except BaseException as error:
            raised = error
            raise
    raise raised  # pyright: ignore[reportGeneralTypeIssues]


@both_kinds
async def test_a_commit_that_was_cancelled_by_somebody_else_breaks_the_room_and_the_others_are_seen_to(
    suspends: bool,
) -> None:
    async def cancel(_commits: Sequence[Commit]) -> None:
        if suspends:
            await checkpoint()
        await cancelled()

    odd = OddBackend(cancel, suspends=suspends)
    async with running({"box": Box}, odd) as runtime, anyio.create_task_group() as group:
        room, other = runtime.parties["box"].get("a"), runtime.parties["box"].get("b")
        with pytest.raises(RoomBrokenError):
            await room.call(put, "k", 1)
        odd.is_odd = False
        callers = [Caller(group, each.call, put, "k", 2) for each in (room, other)]
        assert [None, None] == [await caller.outcome() for caller in callers]


@both_kinds
async def test_an_interrupt_in_a_commit_ends_the_runtime_and_leaves_it_as_it_is(suspends: bool) -> None:
    async def interrupt(_commits: Sequence[Commit]) -> None:
        if suspends:
            await checkpoint()
        raise KeyboardInterrupt

    async with anyio.create_task_group() as group:
        runtime = Runtime({"box": Box}, backend=OddBackend(interrupt, suspends=suspends))
        with pytest.raises(KeyboardInterrupt):
            async with runtime:
                caller = Caller(group, runtime.parties["box"].get("a").call, put, "k", 1)
                await anyio.sleep_forever()
        assert isinstance(await caller.outcome(), RoomBrokenError)


class BrokenScheduler:
    """Raises when it is told of an alarm, which no scheduler may."""

    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        message = f"of {room}"
        raise LookupError(message)

    async def run(self, wake: object, upcoming: object, /) -> None:
        await anyio.sleep_forever()


async def test_a_scheduler_that_raises_ends_the_runtime_and_does_not_hold_up_its_end(backend: FaultyBackend) -> None:
    class Bell(Room):
        async def on_alarm(self, alarm: Alarm) -> None:
            """Take an alarm."""

        async def begin(self) -> None:
            await self.ctx.storage.set_alarm(timedelta(hours=1))

    runtime = Runtime({"bell": Bell}, backend=backend, scheduler=BrokenScheduler())
    async with anyio.create_task_group() as group:
        with pytest.raises(LookupError, match="of bell/a"):
            async with runtime:
                group.start_soon(runtime.parties["bell"].get("a").call, Bell.begin)
                await anyio.sleep_forever()


async def test_a_backend_that_fails_to_read_fails_the_event_and_not_the_room(backend: FaultyBackend) -> None:
    class Counter(Room):
        async def on_start(self) -> None:
            self.count = 0

        async def read(self) -> int:
            self.count += 1
            await self.ctx.storage.get(f"k{self.count}")
            return self.count

    async with running({"box": Counter}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        backend.fail("read")
        with pytest.raises(BackendError):
            await room.call(Counter.read)
        assert 2 == await room.call(Counter.read)


async def test_a_backend_that_cannot_claim_fails_the_event_and_the_next_one_tries_again(
    backend: FaultyBackend,
) -> None:
    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        backend.fail("claim")
        with pytest.raises(BackendError):
            await room.call(nothing)
        await room.call(nothing)


async def test_a_refused_release_of_a_room_that_sleeps_is_nobodys_fault(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(put, "k", 1)
        await runtime.wait_idle()
        backend.refuse(A, error=CommitError("gone"))
        assert runtime.engine().put_to_sleep(awake(runtime, room))
        await runtime.wait_idle()
        backend.fail(times=2)
        await room.call(nothing)
        await runtime.wait_idle()
        assert runtime.engine().put_to_sleep(awake(runtime, room))
        await runtime.wait_idle()
        assert 1 == await room.call(get, "k")
