"""Events: one at a time, awake before anything, all or nothing (G1 to G3, G6)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from partyroom import (
    Alarm,
    Connection,
    ConnectRejectedError,
    EventCancelledError,
    NoHandlerError,
    OutsideEventError,
    Room,
    RoomContext,
    RoomHandle,
    Runtime,
    WrongRoomError,
)
from partyroom.testing import FaultyBackend
from tests.loops import needs_asyncio
from tests.runtime.engine.running import Box, Caller, awake, get, nothing, outcomes, put, running, until
from tests.sizes import sizes

pytestmark = pytest.mark.anyio


# --- G1: one at a time --------------------------------------------------------


def is_waiting(runtime: Runtime, room: RoomHandle, count: int) -> bool:
    return len(awake(runtime, room).mailbox) == count


async def test_an_event_ends_before_the_next_begins(backend: FaultyBackend) -> None:
    inside = 0
    most = 0

    async def work(room: Room) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await room.ctx.storage.put("k", inside)
        await checkpoint()
        inside -= 1

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await outcomes(*[partial(room.call, work)] * 10)
    assert 1 == most


async def test_events_are_handled_in_the_order_of_their_arrival(backend: FaultyBackend) -> None:
    heard: list[Any] = []
    gate = anyio.Event()

    class Listener(Room):
        async def on_message(self, message: str | bytes, sender: Connection) -> None:
            heard.append(message)

        async def say(self, number: int) -> None:
            heard.append(number)

        async def wait(self) -> None:
            await gate.wait()

    async with running({"listener": Listener}, backend) as runtime:
        room = runtime.parties["listener"].get("a")
        async with room.connect() as client, anyio.create_task_group() as group:
            Caller(group, room.call, Listener.wait)
            await until(lambda: awake(runtime, room).running)
            for number in range(3):
                await client.send(str(number))
                Caller(group, room.call, Listener.say, number)
                await until(partial(is_waiting, runtime, room, 2 * number + 2))
            gate.set()
    assert ["0", 0, "1", 1, "2", 2] == heard


async def test_calls_that_are_made_in_one_turn_of_the_loop_are_all_answered(backend: FaultyBackend) -> None:
    async def add(room: Room, number: int) -> int:
        total: int = await room.ctx.storage.get("total", 0) + number
        await room.ctx.storage.put("total", total)
        return total

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        # As many as a busy room handles without a wait, and one more and one less: the last one is stored as well.
        for count in (63, 64, 65, 128):
            await room.call(put, "total", 0)
            assert list(range(1, count + 1)) == sorted(await outcomes(*[partial(room.call, add, 1)] * count))  # pyright: ignore[reportArgumentType]
        assert {"total": 128} == await room.stored()


async def test_a_room_names_itself(backend: FaultyBackend) -> None:
    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(nothing)
        assert "<room box/a>" == repr(awake(runtime, room))


@sizes("calls", 400, 1000)
async def test_a_busy_room_lets_others_run(backend: FaultyBackend, calls: int) -> None:
    handled: list[str] = []

    async def note(room: Room) -> None:
        handled.append(room.ctx.id)

    async with running({"box": Box}, backend) as runtime:
        busy, other = runtime.parties["box"].get("busy"), runtime.parties["box"].get("other")
        await outcomes(*[partial(busy.call, note)] * calls, partial(other.call, note))
    assert handled.index("other") < calls * 0.9


async def test_a_room_goes_on_after_a_handler_that_raised(backend: FaultyBackend) -> None:
    async def fail(room: Room) -> None:
        raise KeyError(room.ctx.id)

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(KeyError, match="a"):
            await room.call(fail)
        assert None is await room.call(nothing)


async def test_rooms_do_not_wait_for_each_other(backend: FaultyBackend) -> None:
    gate = anyio.Event()

    async def wait(room: Room) -> None:
        await gate.wait()

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        waiting = Caller(group, runtime.parties["box"].get("a").call, wait)
        await runtime.parties["box"].get("b").call(nothing)
        assert not waiting.has_ended
        gate.set()


# --- G2: awake before anything ------------------------------------------------


async def test_a_room_is_constructed_then_started_to_the_end_then_handles_its_first_event(
    backend: FaultyBackend,
) -> None:
    steps: list[str] = []

    class Slow(Room):
        def __init__(self, ctx: RoomContext) -> None:
            steps.append("constructor")
            super().__init__(ctx)

        async def on_start(self) -> None:
            steps.append("on_start begins")
            await self.ctx.storage.get("k")
            await checkpoint()
            steps.append("on_start ends")

        async def first(self) -> None:
            steps.append("event")

    async with running({"slow": Slow}, backend) as runtime:
        await outcomes(*[partial(runtime.parties["slow"].get("a").call, Slow.first)] * 2)
    assert ["constructor", "on_start begins", "on_start ends", "event", "event"] == steps


async def test_a_party_may_be_any_callable_that_gives_a_room(backend: FaultyBackend) -> None:
    class Greeter(Room):
        def __init__(self, ctx: RoomContext, greeting: str) -> None:
            super().__init__(ctx)
            self.greeting = greeting

        async def greet(self) -> str:
            return f"{self.greeting}, {self.ctx.id}"

    async with running({"greeter": lambda ctx: Greeter(ctx, "Hello")}, backend) as runtime:
        assert "Hello, Bob" == await runtime.parties["greeter"].get("Bob").call(Greeter.greet)


async def test_a_room_may_be_an_object_of_that_shape_and_no_more(backend: FaultyBackend) -> None:
    class Shape:
        def __init__(self, ctx: RoomContext) -> None:
            self.ctx = ctx

        async def double(self, number: int) -> int:
            return 2 * number

    shape: Any = Shape
    async with running({"shape": shape}, backend) as runtime:
        room = runtime.parties["shape"].get("a")
        assert 4 == await room.call(Shape.double, 2)
        async with room.connect() as client:
            await client.send("nobody listens")
            await runtime.wait_idle()
        with pytest.raises(NoHandlerError, match="Shape has no on_request"):
            await room.request("?")


async def test_an_object_that_raises_where_a_callback_is_missing_fails_its_own_events_only(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    class Shape:
        def __init__(self, ctx: RoomContext) -> None:
            self.ctx = ctx
            self.parts: dict[str, Any] = {"hibernate": False, "on_start": None, "on_connect": None, "on_close": None}
            self.parts |= {"connection_tags": None, "same_id": "allow"}

        def __getattr__(self, name: str) -> Any:
            return self.parts[name]

        async def on_message(self, message: str, _sender: Connection) -> None:
            raise ZeroDivisionError(message)

    shape: Any = Shape
    async with running({"shape": shape}, backend) as runtime:
        room = runtime.parties["shape"].get("a")
        async with room.connect() as client:
            await client.send("by zero")
            await runtime.wait_idle()
            with pytest.raises(KeyError, match="on_request"):
                await room.request("?")
    assert ["shape/a on_error failed", "shape/a on_message failed"] == [record.message for record in caplog.records]


async def test_a_constructor_that_raises_fails_the_event_and_the_next_one_starts_afresh(
    backend: FaultyBackend,
) -> None:
    made: list[Room] = []

    class Fragile(Room):
        def __init__(self, ctx: RoomContext) -> None:
            super().__init__(ctx)
            made.append(self)
            if len(made) == 1:
                raise ZeroDivisionError

        async def which(self) -> int:
            return made.index(self)

    async with running({"fragile": Fragile}, backend) as runtime:
        room = runtime.parties["fragile"].get("a")
        with pytest.raises(ZeroDivisionError):
            await room.call(Fragile.which)
        assert 1 == await room.call(Fragile.which)


async def test_an_on_start_that_raises_fails_the_event_that_woke_the_room_and_no_other(backend: FaultyBackend) -> None:
    class Fragile(Room):
        starts = 0

        async def on_start(self) -> None:
            Fragile.starts += 1
            await self.ctx.storage.put("starts", Fragile.starts)
            if Fragile.starts == 1:
                raise ZeroDivisionError

        async def count(self) -> int:
            return Fragile.starts

    async with running({"fragile": Fragile}, backend) as runtime:
        room = runtime.parties["fragile"].get("a")
        answers = await outcomes(*[partial(room.call, Fragile.count)] * 3)
        assert [2, 2] == [each for each in answers if isinstance(each, int)]
        assert 1 == sum(isinstance(each, ZeroDivisionError) for each in answers)
        assert {"starts": 2} == await room.stored()


async def test_what_on_start_wrote_stays_when_the_first_event_raises(backend: FaultyBackend) -> None:
    class Starter(Room):
        async def on_start(self) -> None:
            await self.ctx.storage.put("started", True)

        async def fail(self) -> None:
            await self.ctx.storage.put("failed", True)
            raise KeyError

    async with running({"starter": Starter}, backend) as runtime:
        room = runtime.parties["starter"].get("a")
        with pytest.raises(KeyError):
            await room.call(Starter.fail)
        assert {"started": True} == await room.stored()


async def test_what_on_start_wrote_is_stored_while_the_first_event_waits(backend: FaultyBackend) -> None:
    gate = anyio.Event()

    class Starter(Room):
        async def on_start(self) -> None:
            await self.ctx.storage.put("started", True)

        async def wait(self) -> None:
            await gate.wait()

    async with running({"starter": Starter}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["starter"].get("a")
        Caller(group, room.call, Starter.wait)
        while {"started": True} != await room.stored():
            await checkpoint()
        gate.set()


async def test_identity_works_in_every_callback(backend: FaultyBackend) -> None:
    seen: list[tuple[str, str, str]] = []

    class Curious(Room):
        def __init__(self, ctx: RoomContext) -> None:
            super().__init__(ctx)
            self.look("constructor")

        def look(self, where: str) -> None:
            assert "curious" == self.ctx.parties["curious"].name
            seen.append((where, self.ctx.party, self.ctx.id))

        async def on_start(self) -> None:
            self.look("on_start")

        async def on_connect(self, connection: Connection) -> None:
            self.look("on_connect")

        async def on_message(self, message: str | bytes, sender: Connection) -> None:
            self.look("on_message")

        async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
            self.look("on_close")

        async def on_request(self, request: object) -> None:
            self.look("on_request")

    async with running({"curious": Curious}, backend) as runtime:
        room = runtime.parties["curious"].get("a")
        async with room.connect() as client:
            await client.send("?")
        await room.request("?")
    where = ["constructor", "on_start", "on_connect", "on_message", "on_close", "on_request"]
    assert [(each, "curious", "a") for each in where] == seen


# --- G3: all or nothing -------------------------------------------------------


async def test_a_handler_that_raises_stores_nothing_and_sends_nothing(backend: FaultyBackend) -> None:
    async def fail(room: Room) -> None:
        await room.ctx.storage.put("k", 1)
        room.ctx.broadcast("never")
        for connection in room.ctx.get_connections():
            connection.send("never")
            connection.close()
        raise ZeroDivisionError

    async def say(room: Room) -> None:
        room.ctx.broadcast("once")

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        async with room.connect() as client:
            with pytest.raises(ZeroDivisionError):
                await room.call(fail)
            assert {} == await room.stored()
            await room.call(say)
            assert "once" == await client.receive()


async def test_attributes_are_not_rolled_back_and_the_instance_stays(backend: FaultyBackend) -> None:
    class Counter(Room):
        count = 0

        async def fail(self) -> None:
            self.count += 1
            raise ZeroDivisionError

        async def read(self) -> int:
            return self.count

    async with running({"counter": Counter}, backend) as runtime:
        room = runtime.parties["counter"].get("a")
        with pytest.raises(ZeroDivisionError):
            await room.call(Counter.fail)
        assert 1 == await room.call(Counter.read)


async def test_a_handler_that_caught_its_own_error_stores_what_it_wrote(backend: FaultyBackend) -> None:
    async def recover(room: Room) -> None:
        await room.ctx.storage.put("k", 1)
        with pytest.raises(KeyError):
            raise KeyError

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(recover)
        assert {"k": 1} == await room.stored()


# --- what is called ----------------------------------------------------------


class Base(Room):
    async def name(self) -> str:
        return "base"


class Derived(Base):
    async def name(self) -> str:
        return "derived"


async def test_a_method_is_looked_up_by_name_so_that_overrides_win(backend: FaultyBackend) -> None:
    async with running({"base": Base, "derived": Derived}, backend) as runtime:
        assert ["base", "derived"] == [await party.get("a").call(Base.name) for party in runtime.parties.values()]


async def test_a_method_of_a_class_that_the_room_is_none_of_is_refused(backend: FaultyBackend) -> None:
    async with running({"base": Base}, backend) as runtime:
        with pytest.raises(WrongRoomError, match=r"Derived\.name is no method of Base"):
            await runtime.parties["base"].get("a").call(Derived.name)


async def test_arguments_and_results_pass_uncopied(backend: FaultyBackend) -> None:
    argument: list[int] = []

    async def give_back(room: Room, /, *args: object, **kwargs: object) -> tuple[object, ...]:
        return (*args, *kwargs.values())

    async with running({"box": Box}, backend) as runtime:
        result = await runtime.parties["box"].get("a").call(give_back, argument, key=argument)
    assert argument is result[0]
    assert argument is result[1]


async def test_any_callable_that_takes_the_room_can_be_called(backend: FaultyBackend) -> None:
    async def add(number: int, room: Room, other: int) -> int:
        return number + other

    async with running({"box": Box}, backend) as runtime:
        assert 3 == await runtime.parties["box"].get("a").call(partial(add, 1), 2)


async def test_a_function_that_is_not_async_is_said_to_be_so(backend: FaultyBackend) -> None:
    def plain(room: Room) -> int:
        return 1

    wrong: Any = plain
    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(
            TypeError, match=r"box/a .*plain gave int, which cannot be awaited: write it with `async def`"
        ):
            await room.call(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: "name", r"^call takes an async function and its arguments, not str$"),
        (
            lambda: Base(cast("Any", None)).name,
            r"^call takes Base\.name itself, not a method that is bound to an object$",
        ),
        (
            lambda: Base(cast("Any", None)).name(),
            r"^call takes a function and its arguments, call\(fn, 1\), not what calling it",
        ),
    ],
    ids=["a name", "a bound method", "a coroutine"],
)
async def test_what_is_no_method_is_refused_in_words(
    backend: FaultyBackend, wrong: Callable[[], Any], message: str
) -> None:
    async with running({"base": Base}, backend) as runtime:
        with pytest.raises(TypeError, match=message):
            await runtime.parties["base"].get("a").call(wrong())


@pytest.mark.parametrize("callback", ["on_message", "on_close"])
async def test_a_callback_that_is_not_async_is_said_to_be_so(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture, callback: str
) -> None:
    plain: Any = type("Plain", (Room,), {callback: lambda *_: None})
    async with running({"plain": plain}, backend) as runtime:
        async with runtime.parties["plain"].get("a").connect() as client:
            await client.send("hello")
        await runtime.wait_idle()
    assert f"plain/a {callback} gave NoneType, which cannot be awaited: write it with `async def`" in caplog.text


async def test_an_on_connect_that_is_not_async_lets_nobody_in_and_is_the_cause(backend: FaultyBackend) -> None:
    plain: Any = type("Plain", (Room,), {"on_connect": lambda *_: None})
    async with running({"plain": plain}, backend) as runtime:
        with pytest.raises(ConnectRejectedError) as refused:
            await runtime.parties["plain"].get("a").connect().__aenter__()
    assert "plain/a on_connect gave NoneType, which cannot be awaited" in str(refused.value.__cause__)


async def test_a_coroutine_is_refused_where_a_function_is_wanted(backend: FaultyBackend) -> None:
    async def task() -> None:
        """Do nothing."""

    async def start_soon(room: Room) -> None:
        room.ctx.start_soon(cast("Any", task()))

    async def branch(room: Room) -> None:
        async with room.ctx.task_group() as branches:
            with pytest.raises(TypeError, match=r"^start_soon takes a function and its arguments"):
                branches.start_soon(cast("Any", task()))

    async def run(room: Room) -> None:
        await room.ctx.run(cast("Any", task()))

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(TypeError, match=r"start_soon\(fn, 1\), not what calling it gives, start_soon\(fn\(1\)\)$"):
            await room.call(start_soon)
        await room.call(branch)
        with pytest.raises(TypeError, match=r"^run takes a function and its arguments, run\(fn, 1\)"):
            await room.call(run)


async def test_an_awaitable_that_cannot_be_closed_is_refused_as_a_coroutine_is(backend: FaultyBackend) -> None:
    class Future:
        def __await__(self) -> Any:
            """Be awaited, by nobody."""

    async def run(room: Room) -> None:
        await room.ctx.run(cast("Any", Future()))

    async with running({"box": Box}, backend) as runtime:
        with pytest.raises(TypeError, match=r"^run takes a function and its arguments, run\(fn, 1\)"):
            await runtime.parties["box"].get("a").call(run)


async def test_a_background_task_that_is_not_async_is_said_to_be_so(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def plain() -> None:
        """Do nothing."""

    async def start_soon(room: Room) -> None:
        room.ctx.start_soon(cast("Any", plain))

    async with running({"box": Box}, backend) as runtime:
        await runtime.parties["box"].get("a").call(start_soon)
        await runtime.wait_idle()
    assert re.search(r"box/a test_.*plain gave NoneType, which cannot be awaited", caplog.text)


async def test_an_alarm_handler_that_is_not_async_is_said_to_be_so(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(Room):
        def on_alarm(self, alarm: Alarm) -> None:  # type: ignore[override]
            """Do nothing."""

        async def begin(self) -> None:
            await self.ctx.storage.set_alarm(timedelta())

    wrong: Any = Plain
    async with running({"plain": wrong}, backend) as runtime:
        room = runtime.parties["plain"].get("a")
        await room.call(Plain.begin)
        await until(lambda: "on_alarm gave" in caplog.text)
    assert "plain/a on_alarm gave NoneType, which cannot be awaited: write it with `async def`" in caplog.text


async def test_a_request_goes_to_on_request_and_its_answer_comes_back_untouched(backend: FaultyBackend) -> None:
    class Echo(Room):
        async def on_request(self, request: object) -> object:
            return request

    async with running({"echo": Echo, "box": Box}, backend) as runtime:
        question = object()
        assert question is await runtime.parties["echo"].get("a").request(question)
        with pytest.raises(NoHandlerError, match="Box has no on_request"):
            await runtime.parties["box"].get("a").request(question)


# --- handlers that are cancelled by themselves -------------------------------


async def test_a_handlers_own_cancel_scope_is_its_own(backend: FaultyBackend) -> None:
    async def give_up(room: Room) -> str:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        await room.ctx.storage.put("k", 1)
        return "went on"

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        assert "went on" == await room.call(give_up)
        assert {"k": 1} == await room.stored()


async def test_a_cancellation_out_of_a_handler_fails_that_event_only(backend: FaultyBackend) -> None:
    async def raise_it(room: Room) -> None:
        await room.ctx.storage.put("k", 1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except BaseException as error:
                cancelled = error
                raise
        raise cancelled  # pyright: ignore[reportGeneralTypeIssues]

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(EventCancelledError, match="raise_it was cancelled by its own code"):
            await room.call(raise_it)
        assert {} == await room.stored()
        assert None is await room.call(nothing)


async def cancel_own_task(then: Callable[[], Awaitable[object]] | None = None) -> None:
    """Cancel the running task by asyncio's own means, which know nothing of scopes."""
    asyncio.current_task().cancel()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    if then is not None:
        await then()


async def fail_in_a_group() -> str:
    """Have a task group of asyncio's own hear of a failure, as it does in a task that nobody has cancelled."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(3600)
    except* ZeroDivisionError:
        pass
    return "heard"


@pytest.mark.parametrize("waits", [False, True], ids=["returns", "waits"])
async def test_a_task_that_a_handler_has_cancelled_itself_serves_no_other_event(
    backend: FaultyBackend, waits: bool, anyio_backend_name: str
) -> None:
    needs_asyncio(anyio_backend_name)

    async def cancel(_room: Room) -> str:
        with suppress(asyncio.CancelledError):
            await cancel_own_task(checkpoint if waits else None)
        return "went on"

    async def fail(_room: Room) -> str:
        await checkpoint()
        return await fail_in_a_group()

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        for _ in range(3):
            assert ["went on", "heard", None] == await outcomes(
                partial(room.call, cancel), partial(room.call, fail), partial(room.call, nothing)
            )
        # And when nobody waits: the call and the cancellation reach the idle worker at once.
        assert "went on" == await room.call(cancel)
        assert "heard" == await room.call(fail)


async def test_a_background_task_that_has_cancelled_itself_ends_no_other(
    backend: FaultyBackend, anyio_backend_name: str
) -> None:
    needs_asyncio(anyio_backend_name)

    async def start(room: Room) -> None:
        room.ctx.start_soon(cancel_own_task)

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        await room.call(start)
        await runtime.wait_idle()
        assert None is await room.call(nothing)


# --- G6a: outside of events ---------------------------------------------------


async def test_storage_and_sending_need_an_event_of_that_room(backend: FaultyBackend) -> None:
    kept: list[Room] = []

    class Leaky(Room):
        def __init__(self, ctx: RoomContext) -> None:
            super().__init__(ctx)
            kept.append(self)
            with pytest.raises(OutsideEventError):
                ctx.broadcast("too early")

    async def misuse(room: Room) -> None:
        for use in (kept[0].ctx.storage.get("k"), kept[0].ctx.storage.put("k", 1)):
            with pytest.raises(OutsideEventError, match="leaky/a: storage was used outside"):
                await use

    async with running({"leaky": Leaky, "box": Box}, backend) as runtime:
        room = runtime.parties["leaky"].get("a")
        async with room.connect():
            leaked = kept[0].ctx
            with pytest.raises(OutsideEventError, match="leaky/a: storage was used outside an event of this room"):
                await leaked.storage.put("k", 1)
            with pytest.raises(OutsideEventError, match="leaky/a: a message was broadcast outside"):
                leaked.broadcast("no")
            (connection,) = leaked.get_connections()
            with pytest.raises(OutsideEventError, match="leaky/a: a message was sent outside"):
                connection.send("no")
            with pytest.raises(OutsideEventError, match="leaky/a: a connection was closed outside"):
                connection.close()
            await runtime.parties["box"].get("b").call(misuse)


async def test_a_task_that_outlives_its_event_is_outside_of_it(backend: FaultyBackend) -> None:
    gate, tried = anyio.Event(), anyio.Event()

    async def straggle(room: Room, group: anyio.abc.TaskGroup) -> None:
        async def later() -> None:
            await gate.wait()
            with pytest.raises(OutsideEventError):
                await room.ctx.storage.put("late", 1)
            tried.set()

        group.start_soon(later)
        await room.ctx.storage.put("k", 1)

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        await room.call(straggle, group)
        gate.set()
        await tried.wait()
        assert {"k": 1} == await room.stored()


async def test_ctx_run_makes_an_event_and_inside_of_one_a_savepoint(backend: FaultyBackend) -> None:
    async def outer(room: Room) -> tuple[int, Any]:
        async def double(number: int, *, key: str) -> int:
            await room.ctx.storage.put(key, number)
            return 2 * number

        async def fail() -> None:
            await room.ctx.storage.put("k", "undone")
            raise KeyError

        doubled = await room.ctx.run(double, 2, key="k")
        with pytest.raises(KeyError):
            await room.ctx.run(fail)
        return doubled, await get(room, "k")

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        assert (4, 2) == await room.call(outer)
        assert {"k": 2} == await room.stored()


async def test_a_context_whose_room_sleeps_makes_no_second_instance(backend: FaultyBackend) -> None:
    async def leak(room: Room) -> RoomContext:
        return room.ctx

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        leaked = await room.call(leak)
        await runtime.wait_idle()
        assert runtime.engine().put_to_sleep(awake(runtime, room))
        with pytest.raises(OutsideEventError, match="box/a: this instance has left memory"):
            await leaked.run(checkpoint)
        with pytest.raises(OutsideEventError, match="box/a: this instance has left memory"):
            leaked.start_soon(checkpoint)
        assert leaked is not await room.call(leak)
