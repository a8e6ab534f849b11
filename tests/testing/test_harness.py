"""The harness: the program of the README, on every loop and backend; sleep, restart, crash; and nothing that leaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from partyroom import (
    Alarm,
    ConnectionClosedError,
    Limits,
    OutsideEventError,
    Room,
    RoomBrokenError,
    RoomKey,
    RuntimeClosedError,
    RuntimeCrashedError,
    RuntimeStateError,
    StorageBackend,
    SystemClock,
    Upcoming,
)
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import ClockStalledError, ExpectationError
from partyroom.protocols import AlarmScheduler, Connection
from partyroom.testing import FakeClock, FaultyBackend, Harness, LoggedEvent
from partyroom.testing.backend_wrapper import BackendWrapper

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture(params=["memory", "file"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> StorageBackend:
    return MemoryBackend() if request.param == "memory" else FileBackend(tmp_path / "rooms.db")


class Draft(Room):
    """A draft that is kept for thirty days after its last change."""

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        await self.ctx.storage.put("text", message)
        await self.ctx.storage.set_alarm(timedelta(days=30))
        self.ctx.broadcast(f"kept {message!r}")

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()


class Counter(Room):
    count = 0
    """How often this instance was called: nothing that lasts."""

    async def on_start(self) -> None:
        await self.ctx.storage.put("starts", await self.ctx.storage.get("starts", 0) + 1)

    async def increment(self) -> int:
        self.count += 1
        await self.ctx.storage.put("total", await self.ctx.storage.get("total", 0) + 1)
        return self.count

    async def increment_and_wait(self, seconds: float) -> None:
        await self.increment()
        await self.ctx.clock.sleep(timedelta(seconds=seconds))

    async def hang(self) -> None:
        await anyio.sleep_forever()

    async def tick(self) -> None:
        self.ctx.start_soon(self.ctx.clock.sleep, timedelta(hours=1))


class Touchy(Room):
    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        raise KeyError(message)

    async def fail(self, text: str) -> None:
        raise ValueError(text)

    async def fail_later(self) -> None:
        self.ctx.start_soon(self.fail, "in the background")

    async def write(self) -> None:
        await self.ctx.storage.put("k", 1)


class Patient(Touchy):
    async def on_error(self, connection: Connection, error: Exception) -> None:
        pass


PARTIES = {"draft": Draft, "counter": Counter, "touchy": Touchy, "patient": Patient}


# --- the program of the README -----------------------------------------------


async def test_a_draft_expires(backend: StorageBackend) -> None:
    async with Harness({"draft": Draft}, backend=backend) as harness:
        room = harness.parties["draft"].get("alice")
        async with room.connect() as client:
            await client.send("Dear diary")
        await harness.advance(timedelta(days=29))
        assert {"text": "Dear diary"} == await harness.stored(room)
        await harness.advance(timedelta(days=1))
        assert {} == await harness.stored(room)
        harness.assert_idle()


async def test_the_log_of_events_is_the_same_on_every_loop_line_for_line() -> None:
    async with Harness(PARTIES) as harness:
        for name in ("b", "a"):
            client = await harness.connect(harness.parties["draft"].get(name))
            await client.send("one")
            await client.send("two")
        await harness.advance(timedelta(days=31))
        with harness.expect_error(KeyError):
            client = await harness.connect(harness.parties["touchy"].get("t"))
            await client.send("boom")
            await harness.settle()
        assert [
            "2030-01-01T00:00:00+00:00 draft/a on_connect: ok",
            "2030-01-01T00:00:00+00:00 draft/a on_message: ok",
            "2030-01-01T00:00:00+00:00 draft/a on_message: ok",
            "2030-01-01T00:00:00+00:00 draft/b on_connect: ok",
            "2030-01-01T00:00:00+00:00 draft/b on_message: ok",
            "2030-01-01T00:00:00+00:00 draft/b on_message: ok",
            "2030-01-31T00:00:00+00:00 draft/a on_alarm: ok",
            "2030-01-31T00:00:00+00:00 draft/b on_alarm: ok",
            "2030-02-01T00:00:00+00:00 touchy/t on_connect: ok",
            "2030-02-01T00:00:00+00:00 touchy/t on_message: KeyError",
        ] == list(map(str, harness.log))
        assert LoggedEvent(START, RoomKey("draft", "a"), "on_connect", "ok") == harness.log[0]
        assert harness.log is harness.log
    assert "<Harness of draft, counter, touchy, patient at 2030-02-01T00:00:00+00:00>" == repr(harness)


# --- sleep -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clock": SystemClock()}, "^a harness runs on a FakeClock, which a test can move, not on a SystemClock$"),
        ({"backend": "rooms.db"}, "^backend must be a storage backend, or what makes one, .*, not str$"),
    ],
)
def test_an_option_of_another_kind_is_refused_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Harness({"draft": Draft}, **options)


def test_an_option_that_there_is_none_of_is_refused_with_those_that_there_are() -> None:
    misspelt: Any = {"idle_time": MINUTE}
    with pytest.raises(TypeError, match=r"no option idle_time; it has alarms, backend, clock, .*idle_timeout"):
        Harness({"draft": Draft}, **misspelt)


async def test_a_room_is_put_to_sleep_and_woken_at_will(backend: StorageBackend) -> None:
    async with Harness(PARTIES, backend=backend) as harness:
        room = harness.parties["counter"].get("a")
        await harness.put_to_sleep(room)
        await harness.wake(room)
        await harness.wake(room)
        assert harness.is_awake(room)
        assert 1 == await room.call(Counter.increment)
        assert 2 == await room.call(Counter.increment)
        await harness.put_to_sleep(room)
        assert not harness.is_awake(room)
        assert 1 == await room.call(Counter.increment)
        assert {"starts": 2, "total": 3} == await harness.stored(room)


async def test_what_keeps_a_room_awake_is_named() -> None:
    async with Harness(PARTIES) as harness:
        drafts = harness.parties["draft"].get("a")
        await harness.connect(drafts)
        with pytest.raises(ExpectationError) as caught:
            await harness.put_to_sleep(drafts)
        assert "the room can leave memory" == caught.value.expected
        assert "connected clients: 1, and it does not hibernate" == caught.value.seen
        assert ("draft/a", "2030-01-01T00:00:00+00:00") == (caught.value.room, caught.value.at)
        counter = harness.parties["counter"].get("a")
        await counter.call(Counter.tick)
        with pytest.raises(ExpectationError, match="background tasks that run: CountedClock.sleep") as caught:
            await harness.put_to_sleep(counter)
        assert ("2030-01-01T01:00:00+00:00 counter/a sleep",) == caught.value.pending


async def test_an_idle_room_leaves_memory_by_itself() -> None:
    async with Harness(PARTIES, idle_timeout=MINUTE) as harness:
        room = harness.parties["counter"].get("a")
        await harness.wake(room)
        await harness.advance(MINUTE - timedelta(microseconds=1))
        assert harness.is_awake(room)
        await harness.advance(timedelta(microseconds=1))
        assert not harness.is_awake(room)


async def test_strict_hibernation_gives_every_event_a_fresh_instance(backend: StorageBackend) -> None:
    async with Harness(PARTIES, backend=backend, strict_hibernation=True) as harness:
        room = harness.parties["counter"].get("a")
        counts: list[int] = []

        async def increment() -> None:
            counts.append(await room.call(Counter.increment))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(increment)
        await harness.settle()
        assert [1, 1, 1, 1, 1] == counts
        assert not harness.is_awake(room)
        assert {"starts": 5, "total": 5} == await harness.stored(room)


async def test_strict_hibernation_lets_a_room_stay_that_may_not_sleep() -> None:
    async with Harness(PARTIES, strict_hibernation=True) as harness:
        room = harness.parties["counter"].get("a")
        client = await harness.connect(room)
        assert 1 == await room.call(Counter.increment)
        assert 2 == await room.call(Counter.increment)
        await client.close()
        await harness.settle()
        assert 1 == await room.call(Counter.increment)


# --- restart and crash -------------------------------------------------------


async def test_a_restart_keeps_what_was_accepted_and_ends_clients(backend: StorageBackend) -> None:
    async with Harness(PARTIES, backend=backend) as harness:
        room = harness.parties["draft"].get("a")
        client = await harness.connect(room)
        await client.send("Dear diary")
        await harness.restart()
        assert isinstance(client.closed, ConnectionClosedError)
        assert ["kept 'Dear diary'"] == client.inbox
        assert {"text": "Dear diary"} == await harness.stored(room)
        await harness.advance(timedelta(days=30))
        assert {} == await harness.stored(room)


async def test_a_restart_lets_time_pass_if_what_it_waits_for_sleeps() -> None:
    async with Harness(PARTIES) as harness, anyio.create_task_group() as tasks:
        room = harness.parties["counter"].get("a")
        tasks.start_soon(lambda: room.call(Counter.increment_and_wait, 5))
        await harness.settle()
        await harness.restart()
        assert START + timedelta(seconds=5) == harness.now()
        assert {"starts": 1, "total": 1} == await harness.stored(room)


async def test_a_crash_loses_what_was_not_committed_and_nothing_else(backend: StorageBackend) -> None:
    async with Harness(PARTIES, backend=backend) as harness:
        room = harness.parties["counter"].get("a")
        await room.call(Counter.increment)
        client = await harness.connect(harness.parties["draft"].get("a"))
        ended: list[type[Exception]] = []

        async def call() -> None:
            try:
                await room.call(Counter.increment_and_wait, 5)
            except RuntimeCrashedError as error:
                ended.append(type(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await harness.settle()
            await harness.crash()
        assert [RuntimeCrashedError] == ended
        assert client.closed is not None
        assert 1012 == client.closed.code
        assert {"starts": 1, "total": 1} == await harness.stored(room)
        assert 1 == await room.call(Counter.increment)
        assert {"starts": 2, "total": 2} == await harness.stored(room)


async def test_an_alarm_survives_a_crash_and_rings_late_if_time_passed_meanwhile(backend: StorageBackend) -> None:
    async with Harness(PARTIES, backend=backend) as harness:
        room = harness.parties["draft"].get("a")
        async with room.connect() as client:
            await client.send("Dear diary")
        await harness.settle()
        await harness.crash()
        assert [START + timedelta(days=30)] == [each.due for each in await harness.pending()]
        with pytest.raises(ExpectationError, match="draft/a: an alarm rings at 2030-01-31T00:00:00"):
            harness.assert_idle()
        await harness.advance(timedelta(days=30))
        assert {} == await harness.stored(room)
        harness.assert_idle()


# --- looking -----------------------------------------------------------------


async def test_a_restart_after_a_crash_that_was_cancelled_is_done_again() -> None:
    async with Harness(PARTIES) as harness:
        harness.kill("the lights went out")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await harness.revive()
        while harness.is_open:
            await anyio.lowlevel.checkpoint()
        await harness.revive()
        assert 1 == await harness.parties["counter"].get("a").call(Counter.increment)


async def test_assert_idle_names_what_is_not() -> None:
    async with Harness(PARTIES) as harness:
        harness.assert_idle()
        await harness.wake(harness.parties["counter"].get("a"))
        harness.assert_idle()
        client = await harness.connect(harness.parties["counter"].get("a"))
        with pytest.raises(ExpectationError) as caught:
            harness.assert_idle()
        assert "counter/a: connected clients: 1" == caught.value.seen
        assert "counter/a" == caught.value.room
        await client.close()
        await harness.parties["counter"].get("b").call(Counter.tick)
        with pytest.raises(ExpectationError, match="counter/b: background tasks that run: CountedClock.sleep"):
            harness.assert_idle()
        await harness.advance(timedelta(hours=1))
        harness.assert_idle()


async def test_due_alarms_ring_by_hand_when_asked_for() -> None:
    async with Harness(PARTIES, alarms="manual", shuffled=True) as harness:
        room = harness.parties["draft"].get("a")
        async with room.connect() as client:
            await client.send("Dear diary")
        await harness.advance(timedelta(days=31))
        assert {"text": "Dear diary"} == await harness.stored(room)
        assert 1 == (await harness.ring_due()).rung
        assert {} == await harness.stored(room)


async def test_a_backend_is_given_or_made() -> None:
    given = MemoryBackend()
    async with Harness(PARTIES, backend=given) as harness:
        assert given is harness.backend
    async with Harness(PARTIES, backend=MemoryBackend) as harness:
        assert isinstance(harness.backend, MemoryBackend)
    async with Harness(PARTIES, backend=lambda: given) as harness:
        assert given is harness.backend


async def test_the_runtimes_own_options_are_handed_on() -> None:
    async with Harness(PARTIES, limits=Limits(room_id_bytes=3)) as harness:
        assert 3 == harness.runtime.limits.room_id_bytes
        assert harness.parties == harness.runtime.parties


# --- clients -----------------------------------------------------------------


async def test_a_client_has_an_inbox_that_can_be_read_without_waiting() -> None:
    async with Harness(PARTIES) as harness:
        room = harness.parties["draft"].get("a")
        client = await harness.connect(room, id="me", tags=["x"], state=1, uri="/", request=object())
        assert "<FakeClient 'me' of draft/a>" == repr(client)
        assert ("me", RoomKey("draft", "a")) == (client.id, client.room)
        assert [] == client.inbox
        await client.send("one")
        await client.send("two")
        assert ["kept 'one'", "kept 'two'"] == await client.received()
        assert [] == await client.received()
        await client.send("three")
        assert "kept 'three'" == await client.receive()
        await client.send("four")
        await client.send("five")
        await harness.settle()
        assert "kept 'four'" == await client.receive()
        await client.expect("kept 'five'")
        assert 5 == len(client.inbox)
        assert client.closed is None
        await client.close(4000, "done")
        assert client.closed is not None
        assert (4000, "done") == (client.closed.code, client.closed.reason)
        with pytest.raises(ConnectionClosedError):
            await client.receive()


async def test_a_client_that_was_sent_something_else_says_what() -> None:
    async with Harness(PARTIES) as harness:
        client = await harness.connect(harness.parties["draft"].get("a"), id="me")
        await client.send("one")
        with pytest.raises(ExpectationError) as caught:
            await client.expect("kept 'two'")
        assert "client 'me' receives [\"kept 'two'\"]" == caught.value.expected
        assert "[\"kept 'one'\"]" == caught.value.seen
        assert ("2030-01-31T00:00:00+00:00 draft/a alarm",) == caught.value.pending
        await client.close()
        with pytest.raises(ExpectationError, match=r"\[\], then connection closed \(1000\)"):
            await client.expect("more")


# --- errors ------------------------------------------------------------------


async def test_an_error_that_nobody_hears_of_fails_the_test_at_its_end() -> None:
    with pytest.raises(ExpectationError) as caught:
        async with Harness(PARTIES) as harness:
            client = await harness.connect(harness.parties["touchy"].get("a"))
            await client.send("boom")
    assert "2030-01-01T00:00:00+00:00 touchy/a on_message: KeyError: 'boom'" == caught.value.seen
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_error_of_a_background_task_fails_the_test_too_unless_told_otherwise() -> None:
    with pytest.raises(ExpectationError, match="ValueError: in the background"):
        async with Harness(PARTIES) as harness:
            await harness.parties["touchy"].get("a").call(Touchy.fail_later)
    async with Harness(PARTIES, fail_on_errors=False) as harness:
        await harness.parties["touchy"].get("a").call(Touchy.fail_later)
    assert [False] == [each.heard for each in harness.errors]


async def test_an_error_that_a_caller_or_the_room_itself_hears_of_is_listed_and_harmless() -> None:
    async with Harness(PARTIES) as harness:
        with pytest.raises(ValueError, match="no"):
            await harness.parties["touchy"].get("a").call(Touchy.fail, "no")
        client = await harness.connect(harness.parties["patient"].get("a"))
        await client.send("boom")
        await harness.settle()
        assert [("Touchy.fail", True), ("on_message", True)] == [(each.event, each.heard) for each in harness.errors]


async def test_an_expected_error_is_given_and_one_that_does_not_come_is_missed() -> None:
    async with Harness(PARTIES) as harness:
        client = await harness.connect(harness.parties["touchy"].get("a"))
        with harness.expect_error(KeyError, match="bo+m") as caught:
            await client.send("boom")
            await harness.settle()
        assert ["boom"] == [error.args[0] for error in caught]
        assert [] == harness.errors
        with pytest.raises(ExpectationError, match="a room raises KeyError matching 'bang'"):
            with harness.expect_error(KeyError, match="bang"):
                await client.send("boom")
                await harness.settle()
        with (
            pytest.raises(ExpectationError, match=r"a room raises KeyError\n  seen:     no error"),
            harness.expect_error(KeyError),
        ):
            pass
        assert "boom" == harness.errors.pop().error.args[0]


async def test_a_broken_room_is_an_error_of_the_test_as_well() -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness(PARTIES, backend=backend) as harness:
        backend.refuse(RoomKey("touchy", "a"), times=2)
        with harness.expect_error(RoomBrokenError), pytest.raises(RoomBrokenError):
            await harness.parties["touchy"].get("a").call(Touchy.write)


async def test_an_error_in_the_body_leaves_as_it_is_and_nothing_is_waited_for() -> None:
    async def call(harness: Harness) -> None:
        with pytest.raises(RuntimeCrashedError, match="the runtime crashed: the test failed"):
            await harness.parties["counter"].get("a").call(Counter.hang)

    async with anyio.create_task_group() as tasks:
        with pytest.raises(LookupError, match="mine"):
            async with Harness(PARTIES) as harness:
                client = await harness.connect(harness.parties["touchy"].get("a"))
                await client.send("boom")
                tasks.start_soon(call, harness)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                raise LookupError("mine")


async def test_a_test_that_leaves_a_room_hanging_is_told_so_at_its_end() -> None:
    async def call(harness: Harness) -> None:
        # Whoever waits for the call may be told so even before the end is.
        with pytest.raises((ClockStalledError, RuntimeClosedError)):
            await harness.parties["counter"].get("a").call(Counter.hang)

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ClockStalledError, match=r"counter/a Counter\.hang has run for 0:00:00"):
            async with Harness(PARTIES, clock=FakeClock(stall_timeout=0.02)) as harness:
                tasks.start_soon(call, harness)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()


# --- its own life ------------------------------------------------------------


async def test_a_harness_is_opened_in_one_task_and_closed_in_another() -> None:
    harness = Harness(PARTIES)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(harness.open)
    room = harness.parties["draft"].get("a")
    client = await harness.connect(room)
    await client.send("hi")
    await client.expect("kept 'hi'")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(harness.close)
    assert client.closed is not None


async def test_a_harness_may_be_opened_again_and_finds_what_was_stored() -> None:
    harness = Harness(PARTIES)
    room = harness.parties["counter"].get("a")
    async with harness:
        await room.call(Counter.increment)
    async with harness:
        assert {"starts": 1, "total": 1} == await harness.stored(room)


async def test_a_harness_is_entered_once_at_a_time_and_used_inside_only() -> None:
    harness = Harness(PARTIES)
    with pytest.raises(RuntimeStateError, match="this harness is not open"):
        await harness.settle()
    async with harness:
        with pytest.raises(RuntimeStateError, match="this harness is open already"):
            await harness.open()
    await harness.abandon()


async def test_code_of_another_loop_is_told_that_it_is_not_the_harness() -> None:
    async def wait_by_itself() -> None:
        harness.auto()

    async with Harness({"draft": Draft}) as harness:
        for use in (harness.settle, harness.run_due, harness.crash, harness.restart, wait_by_itself):
            with pytest.raises(RuntimeStateError, match="this harness was opened in another event loop or thread"):
                await anyio.to_thread.run_sync(anyio.run, use)
        await harness.settle()


async def test_a_backend_that_does_not_open_is_told_as_it_is() -> None:
    class Unopenable(BackendWrapper):
        async def around(self, call: Any, proceed: Any, /, *args: Any, **kwargs: Any) -> Any:
            raise LookupError(call)

    harness = Harness(PARTIES, backend=Unopenable(MemoryBackend()))
    with pytest.raises(LookupError, match="open"):
        await harness.open()
    assert [] == harness.clock.pending()


class BadScheduler(AlarmScheduler):
    """Fails at the first change it hears of."""

    def __init__(self) -> None:
        self.hurt = anyio.Event()

    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        self.hurt.set()

    async def run(
        self,
        wake: Callable[[RoomKey], None],
        upcoming: Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]],
        /,
    ) -> None:
        await self.hurt.wait()
        raise ZeroDivisionError


class ScrupulousScheduler(BadScheduler):
    """Fails when it is ended."""

    async def run(
        self,
        wake: Callable[[RoomKey], None],
        upcoming: Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]],
        /,
    ) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError


async def test_a_plug_in_that_fails_at_the_end_fails_the_test_too() -> None:
    harness = Harness(PARTIES, scheduler=ScrupulousScheduler())
    await harness.open()
    with pytest.raises(ZeroDivisionError):
        await harness.close()


async def test_a_plug_in_that_fails_fails_the_test() -> None:
    harness = Harness(PARTIES, scheduler=BadScheduler())
    with pytest.raises(ZeroDivisionError):
        async with harness:
            client = await harness.connect(harness.parties["draft"].get("a"))
            await client.send("hi")
            while True:
                await harness.settle()


async def test_a_context_that_leaked_out_of_one_run_is_of_no_use_in_the_next() -> None:
    kept: list[Counter] = []

    class Leaky(Counter):
        async def on_start(self) -> None:
            kept.append(self)

    async with Harness({"leaky": Leaky}) as harness:
        await harness.wake(harness.parties["leaky"].get("a"))
        await harness.restart()
        with pytest.raises(OutsideEventError):
            await kept[0].ctx.storage.get("k")
