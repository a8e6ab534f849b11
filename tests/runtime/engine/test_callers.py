"""A caller who waits, and one who leaves (G6): full mailboxes, withdrawn events, replies that nobody hears."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta

import anyio
import attrs
import pytest
from anyio.abc import TaskGroup

from partyroom import (
    Client,
    Connection,
    ConnectionClosedError,
    EventTimeoutError,
    Limits,
    Room,
    RoomHandle,
    Runtime,
)
from partyroom.testing import FaultyBackend
from tests.loops import needs_asyncio
from tests.runtime.engine.running import Box, Caller, arrive, awake, get, nothing, put, running, until

pytestmark = pytest.mark.anyio


async def wait(room: Room, gate: anyio.Event) -> None:
    await gate.wait()


# --- callers who leave -------------------------------------------------------


async def test_cancelling_a_caller_withdraws_an_event_that_has_not_begun(backend: FaultyBackend) -> None:
    gate = anyio.Event()
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        await arrive(group, runtime, room, wait, gate)
        await until(lambda: awake(runtime, room).running)
        caller = await arrive(group, runtime, room, put, "k", 1)
        await caller.leave()
        gate.set()
        await runtime.wait_idle()
        assert {} == await room.stored()


async def test_cancelling_a_caller_changes_nothing_about_an_event_that_has_begun(backend: FaultyBackend) -> None:
    gate = anyio.Event()

    async def wait_and_write(room: Room) -> None:
        await gate.wait()
        await room.ctx.storage.put("k", 1)
        room.ctx.broadcast("done")

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:
            caller = await arrive(group, runtime, room, wait_and_write)
            await until(lambda: awake(runtime, room).running)
            await caller.leave()
            gate.set()
            assert "done" == await client.receive()
        assert {"k": 1} == await room.stored()


async def test_the_error_of_an_event_whose_caller_has_left_is_logged(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    gate = anyio.Event()

    async def wait_and_fail(room: Room) -> None:
        await gate.wait()
        raise ZeroDivisionError

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        caller = await arrive(group, runtime, room, wait_and_fail)
        await until(lambda: awake(runtime, room).running)
        await caller.leave()
        gate.set()
    (record,) = caplog.records
    assert (
        "box/a test_the_error_of_an_event_whose_caller_has_left_is_logged.<locals>.wait_and_fail failed"
        == record.message
    )
    assert record.exc_info is not None
    assert ZeroDivisionError is record.exc_info[0]


async def test_an_error_that_a_caller_hears_is_not_logged(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(room: Room) -> None:
        raise ZeroDivisionError

    async with running({"box": Box}, backend) as runtime:
        with pytest.raises(ZeroDivisionError):
            await runtime.parties["box"].get("a").call(fail)
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_caller_who_leaves_while_his_reply_waits_for_a_commit_undoes_nothing(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            caller = Caller(group, room.call, put, "k", 1)
            await hold.arrived()
            await caller.leave()
        assert 1 == await room.call(get, "k")


async def test_all_callers_may_leave_at_once(backend: FaultyBackend) -> None:
    gate = anyio.Event()
    async with running({"box": Box}, backend, limits=Limits(mailbox=2)) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        first = await arrive(group, runtime, room, wait, gate)
        await until(lambda: awake(runtime, room).running)
        others = [await arrive(group, runtime, room, put, str(number), 1) for number in range(6)]
        for caller in (*others, first):
            caller.scope.cancel()
        for caller in (*others, first):
            await caller.outcome()
        gate.set()
        assert None is await room.call(nothing)
        assert {} == await room.stored()


# --- full mailboxes ----------------------------------------------------------


class Reader(Room):
    """Reads its messages when it is told to."""

    async def on_start(self) -> None:
        self.heard: list[str | bytes] = []

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        self.heard.append(message)

    async def read(self) -> list[str | bytes]:
        return self.heard


@attrs.frozen
class Busy:
    """A room that handles an event until ``gate`` is set, and a client of it."""

    runtime: Runtime
    room: RoomHandle
    client: Client
    group: TaskGroup
    gate: anyio.Event

    def send(self, message: str) -> Caller[None]:
        """Have the client send a message in a task of its own."""
        return Caller(self.group, self.client.send, message)

    async def holds(self, number: int) -> None:
        """Wait until so many events wait, inside the mailbox and outside."""
        await until(lambda: len(awake(self.runtime, self.room).mailbox) == number)


@asynccontextmanager
async def busy_reader(backend: FaultyBackend, places: int) -> AsyncGenerator[Busy]:
    """Open a busy room whose mailbox has so many places."""
    gate = anyio.Event()
    async with (
        running({"reader": Reader}, backend, limits=Limits(mailbox=places)) as runtime,
        anyio.create_task_group() as group,
    ):
        room = runtime.parties["reader"].get("a")
        async with room.connect() as client:
            await arrive(group, runtime, room, wait, gate)
            await until(lambda: awake(runtime, room).running)
            yield Busy(runtime, room, client, group, gate)


async def test_a_client_sends_when_the_mailbox_has_taken_its_message_and_waits_while_it_is_full(
    backend: FaultyBackend,
) -> None:
    async with busy_reader(backend, places=2) as busy:
        await busy.client.send("one")
        await busy.client.send("two")
        waiting = busy.send("three")
        await busy.holds(3)
        assert not waiting.has_ended
        busy.gate.set()
        assert None is await waiting.outcome()
        assert ["one", "two", "three"] == await busy.room.call(Reader.read)


async def test_a_message_whose_sender_left_while_it_waited_outside_is_never_handled(backend: FaultyBackend) -> None:
    async with busy_reader(backend, places=1) as busy:
        await busy.client.send("one")
        leaving = busy.send("two")
        await busy.holds(2)
        staying = busy.send("three")
        await busy.holds(3)
        await leaving.leave()
        assert not staying.has_ended
        busy.gate.set()
        assert None is await staying.outcome()
        assert ["one", "three"] == await busy.room.call(Reader.read)


async def test_a_withdrawn_event_leaves_its_place_to_a_sender_who_waits(backend: FaultyBackend) -> None:
    async with busy_reader(backend, places=1) as busy:
        leaving = await arrive(busy.group, busy.runtime, busy.room, nothing)
        sending = busy.send("one")
        await busy.holds(2)
        await leaving.leave()
        assert None is await sending.outcome()
        busy.gate.set()


async def test_a_sender_who_is_cancelled_when_his_message_was_just_taken_has_sent_it(backend: FaultyBackend) -> None:
    async with busy_reader(backend, places=1) as busy:
        leaving = await arrive(busy.group, busy.runtime, busy.room, nothing)
        sending = busy.send("one")
        await busy.holds(2)
        leaving.scope.cancel()
        (event,) = [each for each in awake(busy.runtime, busy.room).mailbox if each.kind == "message"]
        await until(lambda: event.reply.done)
        sending.scope.cancel()
        await sending.outcome()
        busy.gate.set()
        assert ["one"] == await busy.room.call(Reader.read)


async def test_a_sender_who_is_cancelled_in_the_step_that_takes_his_message_has_sent_it(backend: FaultyBackend) -> None:
    async with busy_reader(backend, places=1) as busy:

        async def cancel_sender(_room: Room) -> None:
            # Its place in the mailbox is the sender's by now, and he has not heard of it.
            sending.scope.cancel()

        await arrive(busy.group, busy.runtime, busy.room, cancel_sender)
        sending = busy.send("one")
        await busy.holds(2)
        busy.gate.set()
        await sending.outcome()
        assert ["one"] == await busy.room.call(Reader.read)


async def test_a_sender_whom_asyncio_itself_cancels_in_the_step_that_takes_his_message_has_sent_it(
    backend: FaultyBackend, anyio_backend_name: str
) -> None:
    needs_asyncio(anyio_backend_name)
    async with busy_reader(backend, places=1) as busy:

        async def call_and_cancel_sender() -> None:
            try:
                await busy.room.call(nothing)
            finally:
                sending.cancel()

        leaving = Caller(busy.group, call_and_cancel_sender)
        await busy.holds(1)
        sending = asyncio.ensure_future(busy.client.send("one"))
        await busy.holds(2)
        leaving.scope.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        busy.gate.set()
        assert ["one"] == await busy.room.call(Reader.read)


# --- what leaks from one event into another ----------------------------------

VARIABLE: ContextVar[str] = ContextVar("variable", default="nobody")


async def test_no_context_variable_leaks_from_a_caller_or_from_one_event_into_the_next(backend: FaultyBackend) -> None:
    seen: list[str] = []

    async def look_and_set(room: Room, value: str) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set(value)

    VARIABLE.set("host")
    async with running({"box": Box}, backend) as runtime:
        VARIABLE.set("caller")
        room = runtime.parties["box"].get("a")
        for value in ("first", "second", "third"):
            await room.call(look_and_set, value)
    assert ["host"] * 3 == seen


async def test_no_context_variable_leaks_from_an_event_that_was_cut_short(backend: FaultyBackend) -> None:
    begun = anyio.Event()
    seen: list[str] = []

    async def set_and_hang(room: Room) -> None:
        VARIABLE.set("event")
        begun.set()
        await anyio.sleep_forever()

    async def look(room: Room) -> None:
        seen.append(VARIABLE.get())

    limits = Limits(event_timeout=timedelta(milliseconds=1))
    async with running({"box": Box}, backend, limits=limits) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        cut = Caller(group, room.call, set_and_hang)
        await begun.wait()
        await room.call(look)
        assert isinstance(await cut.outcome(), EventTimeoutError)
    assert ["nobody"] == seen


async def test_a_variable_that_was_put_back_costs_no_worker(backend: FaultyBackend) -> None:
    tasks: set[int] = set()

    async def set_and_reset(room: Room) -> None:
        token = VARIABLE.set("event")
        VARIABLE.reset(token)
        tasks.add(anyio.get_current_task().id)

    async with running({"box": Box}, backend) as runtime:
        for _ in range(10):
            await runtime.parties["box"].get("a").call(set_and_reset)
    assert 1 == len(tasks)


# --- clients outside their time ----------------------------------------------


async def test_a_client_whose_connection_has_ended_cannot_send(backend: FaultyBackend) -> None:
    async with running({"reader": Reader}, backend) as runtime:
        async with runtime.parties["reader"].get("a").connect() as client:
            await client.close(4000, "enough")
            with pytest.raises(ConnectionClosedError) as caught:
                await client.send("more")
        assert (4000, "enough") == (caught.value.code, caught.value.reason)
