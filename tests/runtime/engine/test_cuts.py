"""What ends an event that has begun: its time limit, ``ctx.abort``, never its caller (G6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from partyroom import (
    Alarm,
    Connection,
    EventTimeoutError,
    Limits,
    Room,
    RoomAbortedError,
    RoomBrokenError,
    RoomContext,
    RoomKey,
)
from partyroom.testing import FakeClock, FaultyBackend, Harness
from tests.loops import needs_asyncio
from tests.runtime.engine.running import Box, Caller, arrive, awake, get, nothing, put, running, until

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
LIMITED = Limits(event_timeout=MINUTE, alarm_timeout=2 * MINUTE)


class Counter(Room):
    """Knows a fresh instance from one that has handled something."""

    def __init__(self, ctx: RoomContext) -> None:
        super().__init__(ctx)
        self.is_fresh = True

    async def look(self) -> bool:
        was_fresh, self.is_fresh = self.is_fresh, False
        return was_fresh

    async def sleep(self, length: timedelta) -> str:
        self.is_fresh = False
        await self.ctx.clock.sleep(length)
        return "slept"


async def outcome_after(harness: Harness, length: timedelta, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Have a call made, let time pass while it waits, and give its outcome."""
    async with anyio.create_task_group() as group:
        caller: Caller[Any] = Caller(group, call, *args)
        await until(lambda: harness.runtime.engine().all_awake() and harness.runtime.engine().all_awake()[0].running)
        await harness.advance(length)
    return await caller.outcome()


# --- time limits -------------------------------------------------------------


async def test_an_event_that_runs_too_long_fails_stores_nothing_and_its_instance_is_gone(
    backend: FaultyBackend,
) -> None:
    async with Harness({"counter": Counter}, backend=backend, limits=LIMITED) as harness:
        room = harness.parties["counter"].get("a")
        error = await outcome_after(harness, MINUTE, room.call, Counter.sleep, 2 * MINUTE)
        assert isinstance(error, EventTimeoutError)
        assert "counter/a Counter.sleep ran longer than 0:01:00" == str(error)
        assert await room.call(Counter.look)
        assert {} == await harness.stored(room)


async def test_an_event_that_ends_in_time_is_left_alone(backend: FaultyBackend) -> None:
    hour = timedelta(hours=1)
    async with Harness({"counter": Counter}, backend=backend, limits=LIMITED, idle_timeout=hour) as harness:
        room = harness.parties["counter"].get("a")
        assert "slept" == await outcome_after(harness, MINUTE, room.call, Counter.sleep, MINUTE / 2)
        await harness.advance(MINUTE)
        assert not await room.call(Counter.look)


async def test_what_the_handler_makes_of_the_cancellation_does_not_matter(backend: FaultyBackend) -> None:
    async with Harness({"counter": Counter}, backend=backend, limits=LIMITED) as harness:
        room = harness.parties["counter"].get("a")

        class Stubborn(Exception):
            pass

        async def sleep_and_raise(counter: Counter) -> None:
            try:
                await counter.ctx.clock.sleep(2 * MINUTE)
            finally:
                raise Stubborn

        async def sleep_and_return(counter: Counter) -> None:
            try:
                await counter.ctx.clock.sleep(2 * MINUTE)
            except BaseException:
                return

        async def sleep_and_write(counter: Counter) -> None:
            with pytest.raises(EventTimeoutError):
                try:
                    await counter.ctx.clock.sleep(2 * MINUTE)
                finally:
                    await counter.ctx.storage.put("k", 1)

        for handler in (sleep_and_raise, sleep_and_return, sleep_and_write):
            assert isinstance(await outcome_after(harness, MINUTE, room.call, handler), EventTimeoutError)
        assert {} == await harness.stored(room)


async def test_a_time_limit_is_an_events_own(backend: FaultyBackend) -> None:
    async with Harness({"counter": Counter}, backend=backend, limits=LIMITED) as harness:
        room = harness.parties["counter"].get("a")
        for _ in range(3):
            assert "slept" == await outcome_after(harness, MINUTE, room.call, Counter.sleep, MINUTE * 3 / 4)


async def test_on_start_has_a_limit_of_its_own_and_fails_the_event_that_waits_for_it(backend: FaultyBackend) -> None:
    class Slow(Counter):
        async def on_start(self) -> None:
            await self.ctx.clock.sleep(2 * MINUTE)

    async with Harness({"slow": Slow}, backend=backend, limits=LIMITED) as harness:
        room = harness.parties["slow"].get("a")
        error = await outcome_after(harness, MINUTE, room.call, Counter.look)
        assert isinstance(error, EventTimeoutError)
        assert "slow/a on_start ran longer than 0:01:00" == str(error)


async def test_an_on_start_that_swallows_its_cancellation_has_failed_all_the_same(backend: FaultyBackend) -> None:
    class Slow(Counter):
        async def on_start(self) -> None:
            try:
                await self.ctx.clock.sleep(2 * MINUTE)
            except BaseException:
                return

    async with Harness({"slow": Slow}, backend=backend, limits=LIMITED) as harness:
        room = harness.parties["slow"].get("a")
        assert isinstance(await outcome_after(harness, MINUTE, room.call, Counter.look), EventTimeoutError)


async def test_an_alarm_has_more_time_and_running_out_of_it_is_a_failure_that_is_retried(
    backend: FaultyBackend,
) -> None:
    rung: list[int] = []

    class Ringer(Room):
        async def set(self) -> None:
            await self.ctx.storage.set_alarm(MINUTE)

        async def on_alarm(self, alarm: Alarm) -> None:
            rung.append(alarm.retry_count)
            if not alarm.is_retry:
                await self.ctx.clock.sleep(3 * MINUTE)

    async with Harness({"ringer": Ringer}, backend=backend, limits=LIMITED) as harness:
        await harness.parties["ringer"].get("a").call(Ringer.set)
        with harness.expect_error(EventTimeoutError, "ringer/a on_alarm ran longer than 0:02:00"):
            await harness.advance(3 * MINUTE)
        await harness.advance(MINUTE)
        assert [0, 1] == rung


async def test_a_nested_call_ends_with_the_event_it_belongs_to(backend: FaultyBackend) -> None:
    heard: list[str] = []

    class Chain(Room):
        async def begin(self) -> None:
            await self.ctx.parties["chain"].get("b").call(Chain.there)

        async def there(self) -> str:
            try:
                await self.ctx.parties["chain"].get("a").call(Chain.hang)
            except EventTimeoutError as error:
                heard.append(str(error))
            return "went on"

        async def hang(self) -> None:
            await anyio.sleep_forever()

    async with Harness({"chain": Chain}, backend=backend, limits=Limits(event_timeout=MINUTE)) as harness:
        room = harness.parties["chain"].get("a")
        async with anyio.create_task_group() as group:
            caller = Caller(group, room.call, Chain.begin)
            engine = harness.runtime.engine()
            await until(lambda: any(each.running and each.running.nested for each in engine.all_awake()))
            for each in engine.all_awake():
                if each.key.id == "a":
                    assert each.running is not None
                    each.cut(EventTimeoutError("too long"))
            error = await caller.outcome()
        assert isinstance(error, EventTimeoutError)
        await harness.settle()
        assert ["too long"] == heard


# --- abort -------------------------------------------------------------------


class Aborter(Counter):
    async def abort(self, reason: str = "") -> None:
        self.is_fresh = False
        await self.ctx.storage.put("k", "never stored")
        self.ctx.broadcast("never sent")
        self.ctx.abort(reason)

    async def abort_and_catch(self) -> None:
        self.is_fresh = False
        with pytest.raises(RoomAbortedError):
            self.ctx.abort("caught")

    async def abort_nested(self) -> None:
        self.is_fresh = False
        with pytest.raises(RoomAbortedError):
            await self.ctx.run(self.abort, "nested")

    async def abort_from_the_background(self) -> None:
        self.is_fresh = False

        async def abort() -> None:
            await checkpoint()
            self.ctx.abort("from the background")

        self.ctx.start_soon(abort)
        await anyio.sleep_forever()

    async def abort_later(self, gate: anyio.Event) -> None:
        self.is_fresh = False

        async def abort() -> None:
            await gate.wait()
            self.ctx.abort("between events")

        self.ctx.start_soon(abort)


async def test_abort_fails_the_event_and_throws_the_instance_away_but_no_client(backend: FaultyBackend) -> None:
    async with running({"aborter": Aborter}, backend) as runtime:
        room = runtime.parties["aborter"].get("a")
        async with room.connect() as client:
            with pytest.raises(RoomAbortedError, match="aborter/a: aborted: I had enough"):
                await room.call(Aborter.abort, "I had enough")
            with pytest.raises(RoomAbortedError, match="^aborter/a: aborted$"):
                await room.call(Aborter.abort)
            assert await room.call(Counter.look)
            assert {} == await room.stored()
            assert [] == client.inbox.take_all()  # type: ignore[attr-defined]
            assert None is client.inbox.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize("handler", [Aborter.abort_and_catch, Aborter.abort_nested, Aborter.abort_from_the_background])
async def test_an_event_that_was_aborted_fails_wherever_that_came_from(
    backend: FaultyBackend, handler: Callable[[Aborter], Awaitable[None]]
) -> None:
    async with running({"aborter": Aborter}, backend) as runtime:
        room = runtime.parties["aborter"].get("a")
        with pytest.raises(RoomAbortedError):
            await room.call(handler)
        assert await room.call(Counter.look)


async def test_abort_from_a_background_task_between_events_throws_the_instance_away(backend: FaultyBackend) -> None:
    gate = anyio.Event()
    async with running({"aborter": Aborter}, backend) as runtime:
        room = runtime.parties["aborter"].get("a")
        await room.call(Aborter.abort_later, gate)
        assert not await room.call(Counter.look)
        gate.set()
        await runtime.wait_idle()
        assert await room.call(Counter.look)


@pytest.mark.parametrize("where", ["constructor", "on_start"])
async def test_abort_while_the_room_starts_fails_the_event_that_woke_it(backend: FaultyBackend, where: str) -> None:
    attempts: list[str] = []

    class Doubter(Room):
        def __init__(self, ctx: RoomContext) -> None:
            super().__init__(ctx)
            attempts.append("constructor")
            if where == "constructor" and len(attempts) == 1:
                ctx.abort("not yet")

        async def on_start(self) -> None:
            if where == "on_start" and len(attempts) == 1:
                self.ctx.abort("not yet")

        async def hello(self) -> str:
            return "hello"

    async with running({"doubter": Doubter}, backend) as runtime:
        room = runtime.parties["doubter"].get("a")
        with pytest.raises(RoomAbortedError, match="not yet"):
            await room.call(Doubter.hello)
        assert "hello" == await room.call(Doubter.hello)
        assert 2 == len(attempts)


async def test_the_second_reason_to_end_an_event_is_too_late(backend: FaultyBackend) -> None:
    async def abort_twice(room: Room) -> None:
        for reason in ("first", "second"):
            with pytest.raises(RoomAbortedError):
                room.ctx.abort(reason)

    async with running({"box": Box}, backend) as runtime:
        with pytest.raises(RoomAbortedError, match="first"):
            await runtime.parties["box"].get("a").call(abort_twice)


async def test_an_aborted_message_is_heard_by_on_error_of_a_fresh_instance(backend: FaultyBackend) -> None:
    heard: list[tuple[bool, str]] = []

    class Listener(Counter):
        async def on_message(self, message: str | bytes, sender: Connection) -> None:
            self.is_fresh = False
            self.ctx.abort("message")

        async def on_error(self, connection: Connection, error: Exception) -> None:
            heard.append((self.is_fresh, str(error)))

    async with (
        running({"listener": Listener}, backend) as runtime,
        runtime.parties["listener"].get("a").connect() as client,
    ):
        await client.send("x")
    assert [(True, "listener/a: aborted: message")] == heard


# --- nested, and broken ------------------------------------------------------


async def test_nested_calls_that_wait_for_their_turn_when_the_event_is_cut_hear_why(backend: FaultyBackend) -> None:
    errors: list[BaseException | None] = []

    class Chain(Room):
        async def begin(self) -> None:
            await self.ctx.parties["chain"].get("b").call(Chain.there)

        async def there(self) -> None:
            async with anyio.create_task_group() as group:
                callers = [Caller(group, self.ctx.parties["chain"].get("a").call, Chain.hang) for _ in range(3)]
            errors.extend([caller.error for caller in callers])

        async def hang(self) -> None:
            await anyio.sleep_forever()

    async with running({"chain": Chain}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["chain"].get("a")
        caller = Caller(group, room.call, Chain.begin)
        await until(
            lambda: (
                runtime.engine().all_awake() and (host := awake(runtime, room).running) and len(host.turns or ()) == 2
            )
        )
        awake(runtime, room).cut(RoomAbortedError("enough"))
        assert isinstance(await caller.outcome(), RoomAbortedError)
        await runtime.wait_idle()
    assert ["enough"] * 3 == [str(error) for error in errors]
    assert 3 == len({id(error) for error in errors})


@pytest.mark.parametrize("failure", [asyncio.CancelledError, ZeroDivisionError])
async def test_a_nested_handler_that_fails_while_its_event_is_cut_tells_why_it_was_cut(
    backend: FaultyBackend, failure: type[BaseException], anyio_backend_name: str
) -> None:
    if failure is asyncio.CancelledError:
        needs_asyncio(anyio_backend_name)
    errors: list[BaseException | None] = []

    class Chain(Room):
        async def begin(self) -> None:
            await self.ctx.parties["chain"].get("b").call(Chain.there)

        async def there(self) -> None:
            async with anyio.create_task_group() as group:
                caller = Caller(group, self.ctx.parties["chain"].get("a").call, Chain.hang)
            errors.append(caller.error)

        async def hang(self) -> None:
            with suppress(BaseException):
                await anyio.sleep_forever()
            raise failure

    async with running({"chain": Chain}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["chain"].get("a")
        caller = Caller(group, room.call, Chain.begin)
        await until(lambda: runtime.engine().all_awake() and (host := awake(runtime, room).running) and host.nested)
        awake(runtime, room).cut(RoomAbortedError("enough"))
        assert isinstance(await caller.outcome(), RoomAbortedError)
        await runtime.wait_idle()
    assert isinstance(errors[0], RoomAbortedError)


async def test_a_nested_call_whose_turn_has_just_come_when_its_event_is_cut_hears_why_and_never_runs(
    backend: FaultyBackend,
) -> None:
    begun = anyio.Event()
    heard: list[BaseException | None] = []

    class Chain(Room):
        async def begin(self) -> None:
            await self.ctx.parties["chain"].get("b").call(Chain.there)

        async def there(self) -> None:
            async with anyio.create_task_group() as group:
                second = Caller(group, self.come_second)
                await self.ctx.parties["chain"].get("a").call(Chain.wait_for_another)
                # In the very step in which the turn has passed on.
                awake(runtime, room).cut(RoomAbortedError("enough"))
            heard.append(second.error)

        async def wait_for_another(self) -> None:
            begun.set()
            host = awake(runtime, room).running
            await until(lambda: host and host.turns)

        async def come_second(self) -> None:
            await begun.wait()
            await self.ctx.parties["chain"].get("a").call(nothing)

    async with running({"chain": Chain}, backend) as runtime:
        room = runtime.parties["chain"].get("a")
        with pytest.raises(RoomAbortedError):
            await room.call(Chain.begin)
        await runtime.wait_idle()
    assert ["enough"] == [str(error) for error in heard]


async def test_an_event_that_is_cut_while_it_waits_for_what_a_cancelled_call_left_running_ends_with_that(
    backend: FaultyBackend,
) -> None:
    scopes: list[anyio.CancelScope] = []

    class Chain(Room):
        async def begin(self) -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await self.ctx.parties["chain"].get("b").call(Chain.there)

        async def there(self) -> None:
            await self.ctx.parties["chain"].get("a").call(Chain.sleep)

        async def sleep(self) -> None:
            await self.ctx.clock.sleep(MINUTE)

    async with (
        running({"chain": Chain}, backend, clock=FakeClock()) as runtime,
        anyio.create_task_group() as group,
    ):
        room, work = runtime.parties["chain"].get("a"), runtime.engine().work
        caller = Caller(group, room.call, Chain.begin)
        await until(lambda: scopes)
        event = awake(runtime, room).running
        assert event is not None
        await until(lambda: event.nested)
        scopes[0].cancel()
        await until(lambda: event.turns and not work.count)
        awake(runtime, room).cut(RoomAbortedError("enough"))
        assert isinstance(await caller.outcome(), RoomAbortedError)
        await until(lambda: not work.count)


async def test_what_is_sealed_before_a_cut_is_stored(backend: FaultyBackend) -> None:
    async def sync_and_abort(room: Room) -> None:
        await room.ctx.storage.put("synced", 1)
        await room.ctx.storage.sync()
        await room.ctx.storage.put("after", 1)
        room.ctx.abort("now")

    async with running({"box": Box}, backend) as runtime:
        room = runtime.parties["box"].get("a")
        with pytest.raises(RoomAbortedError):
            await room.call(sync_and_abort)
        assert {"synced": 1} == await room.stored()


async def test_a_read_of_an_event_that_was_cut_by_a_refused_commit_says_so(backend: FaultyBackend) -> None:
    async def wait_and_read(room: Room) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with pytest.raises(RoomBrokenError), anyio.CancelScope(shield=True):
                await get(room, "k")

    async with running({"box": Box}, backend) as runtime, anyio.create_task_group() as group:
        room = runtime.parties["box"].get("a")
        with backend.hold() as hold:
            backend.fail_until_healed()
            await arrive(group, runtime, room, put, "k", 1)
            await hold.arrived()
            caller = await arrive(group, runtime, room, wait_and_read)
            await until(lambda: awake(runtime, room).running)
        assert isinstance(await caller.outcome(), RoomBrokenError)
        backend.heal()
        await room.call(nothing)


async def test_what_fails_while_a_cut_event_tidies_up_is_none_of_the_runtimes(backend: FaultyBackend) -> None:
    async def fail(room: Room) -> None:
        try:
            await room.ctx.clock.sleep(2 * MINUTE)
        finally:
            raise ZeroDivisionError

    async def hang(room: Room) -> None:
        async with room.ctx.task_group() as group:
            group.start_soon(fail, room)
            group.start_soon(room.ctx.clock.sleep, 2 * MINUTE)

    async with Harness({"box": Box}, backend=backend, limits=LIMITED) as harness:
        room = harness.parties["box"].get("a")
        assert isinstance(await outcome_after(harness, MINUTE, room.call, hang), EventTimeoutError)
        assert None is await room.call(nothing)


async def test_a_ring_that_is_cut_twice_the_second_time_by_a_refused_commit_is_stored_as_it_was(
    backend: FaultyBackend,
) -> None:
    told: list[int] = []

    class Bell(Room):
        async def on_alarm(self, alarm: Alarm) -> None:
            told.append(alarm.retry_count)
            if len(told) == 1:
                try:
                    self.ctx.abort("enough")
                finally:
                    with anyio.CancelScope(shield=True):
                        hold.release()
                        await until(lambda: not awake(runtime, room).fence)

    async def ring_at_once(room: Room) -> None:
        await room.ctx.storage.set_alarm(timedelta())

    async with running({"bell": Bell}, backend, alarms="manual") as runtime:
        room = runtime.parties["bell"].get("a")
        await room.call(ring_at_once)
        backend.refuse(RoomKey("bell", "a"))
        async with anyio.create_task_group() as group:
            with backend.hold() as hold:
                caller: Caller[None] = Caller(group, room.call, put, "k", 1)
                await hold.arrived()
                (failure,) = (await runtime.ring_due()).failed
        for error in (failure.error, await caller.outcome()):
            assert isinstance(error, RoomBrokenError)
        assert 1 == (await runtime.ring_due()).rung
    assert [0, 0] == told


class Walker(Room):
    """Walks from room to room, each waiting for the next, and sleeps at the end."""

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.walk(str(alarm.payload))

    async def walk(self, way: str) -> None:
        if way:
            await self.ctx.parties["walker"].get(way[0]).call(Walker.walk, way[1:])
        else:
            await self.ctx.clock.sleep(10 * MINUTE)


@pytest.mark.parametrize("way", ["b", "ba", "bab", "baba", "bca", "bcab", "babab"])
async def test_time_passes_while_an_event_that_was_cut_waits_for_what_it_left_running(way: str) -> None:
    """What came back into a room that was not cut is that room's own, and goes on to its end; so the cut one has to wait."""

    async def arm(room: Room) -> None:
        await room.ctx.storage.set_alarm(MINUTE, payload=way)

    limits = Limits(alarm_timeout=2 * MINUTE)
    ends_late = way[-1] == "b" and "a" in way
    async with Harness({"walker": Walker}, clock=FakeClock(stall_timeout=1), limits=limits) as harness:
        room = harness.parties["walker"].get("a")
        await room.call(arm)
        with harness.expect_error(EventTimeoutError):
            await harness.advance((11 if ends_late else 3) * MINUTE)
        [info] = await room.list_alarms()
        assert ("retrying", "error", 1) == (info.status, info.last_outcome, info.retry_count)
        assert harness.now() == info.last_time
        assert await room.delete_alarm()
        await harness.advance(10 * MINUTE)
        harness.assert_idle()
        harness.errors.clear()
