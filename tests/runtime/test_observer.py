"""What an observer is told: events, wakes, alarms and commits, each from its beginning to its end."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom import (
    Alarm,
    AlarmOutcome,
    Commit,
    CommitError,
    CommitInfo,
    Connection,
    EventInfo,
    Every,
    Observer,
    RetryPolicy,
    Room,
    RoomBrokenError,
    RoomKey,
    Runtime,
    RuntimeCrashedError,
)
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend, Harness
from partyroom.testing.backend_wrapper import BackendWrapper
from tests.runtime.engine.running import Box, Caller, arrive, nothing, put, until
from tests.runtime.towers import HOUR, MINUTE, START, Tower, fail

pytestmark = pytest.mark.anyio

A = RoomKey("box", "a")
B = RoomKey("box", "b")


class Book(Observer):
    """Notes all that it is told, a line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.alarms: list[tuple[Alarm, AlarmOutcome]] = []
        self.seen: list[EventInfo] = []

    def take(self) -> list[str]:
        """Give what was noted, and begin a new page."""
        lines, self.lines = self.lines, []
        return lines

    @override
    def event_asked(self, event: EventInfo, /) -> None:
        self.lines.append(f"asked {event}")

    @override
    def event_began(self, event: EventInfo, /) -> None:
        self.seen.append(event)
        self.lines.append(f"began {event}")

    @override
    def event_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
        assert event in self.seen
        self.lines.append(f"ended {event}{'' if error is None else f': {type(error).__name__}'}")

    @override
    def alarm_began(self, event: EventInfo, alarm: Alarm, /) -> None:
        self.lines.append(f"rings {event.room} {alarm.name}")

    @override
    def alarm_ended(self, event: EventInfo, alarm: Alarm, outcome: AlarmOutcome, /) -> None:
        self.alarms.append((alarm, outcome))
        self.lines.append(f"{outcome.status} {event.room} {alarm.name}")

    @override
    def wake_began(self, event: EventInfo, /) -> None:
        self.lines.append(f"wakes {event.room} for {event.name}")

    @override
    def wake_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
        self.lines.append(f"woke {event.room}{'' if error is None else f': {type(error).__name__}'}")

    @override
    def room_slept(self, room: RoomKey, /) -> None:
        self.lines.append(f"slept {room}")

    @override
    def commit_began(self, commit: CommitInfo, /) -> None:
        events = ", ".join(event.name for event in commit.events)
        self.lines.append(f"commits {' '.join(map(str, commit.rooms))}: {events}")

    @override
    def commit_ended(self, commit: CommitInfo, errors: Mapping[RoomKey, BaseException], /) -> None:
        said = "".join(f" {room}: {type(error).__name__}" for room, error in errors.items())
        self.lines.append(f"committed {len(commit.events)}{said}")


class Guest(Room):
    """A room that has every callback, and fails at each message."""

    @override
    async def on_start(self) -> None:
        await self.ctx.storage.put("woken", True)

    @override
    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        raise LookupError(message)

    @override
    async def on_error(self, connection: Connection, error: Exception) -> None:
        return


@pytest.fixture
def book() -> Book:
    return Book()


async def test_a_call_is_told_from_its_asking_to_its_commit(book: Book) -> None:
    async with Harness({"box": Box}, observer=book) as harness:
        room = harness.parties["box"].get("a")
        await room.call(put, "k", 1)
        assert [
            "asked box/a put",
            "wakes box/a for put",
            "woke box/a",
            "began box/a put",
            "ended box/a put",
            "commits box/a: put",
            "committed 1",
        ] == book.take()
        await room.call(nothing)
        assert ["asked box/a nothing", "began box/a nothing", "ended box/a nothing"] == book.take()
        await harness.put_to_sleep(room)
        assert ["slept box/a", "commits box/a: ", "committed 0"] == book.take()


async def test_a_runtime_without_a_harness_tells_of_sleep_too(book: Book) -> None:
    async with Runtime({"box": Box}, backend=MemoryBackend(), max_awake=1, observer=book) as runtime:
        for room in "ab":
            await runtime.parties["box"].get(room).call(nothing)
        await runtime.wait_idle()
        assert ["slept box/a"] == [line for line in book.lines if line.startswith("slept")]


async def test_one_object_stands_for_an_event_from_its_asking_to_its_commit() -> None:
    seen: list[EventInfo] = []

    class Looker(Observer):
        @override
        def event_asked(self, event: EventInfo, /) -> None:
            seen.append(event)

        @override
        def event_began(self, event: EventInfo, /) -> None:
            seen.append(event)

        @override
        def event_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
            seen.append(event)

        @override
        def commit_began(self, commit: CommitInfo, /) -> None:
            seen.extend(commit.events)

    async with Harness({"box": Box}, observer=Looker()) as harness:
        await harness.parties["box"].get("a").call(put, "k", 1)
        assert 4 == len(seen)
        assert 1 == len(set(seen))
        assert (A, "call", "put", None) == (seen[0].room, seen[0].kind, seen[0].name, seen[0].cause)


async def test_the_callbacks_of_a_connection_are_events_and_what_follows_from_one_says_so(book: Book) -> None:
    async with Harness({"guest": Guest}, observer=book, fail_on_errors=False) as harness:
        async with harness.parties["guest"].get("a").connect() as client:
            await client.send("fail")
            await harness.settle()
        await harness.settle()
    kinds = [(event.kind, None if event.cause is None else event.cause.name) for event in book.seen]
    assert [
        ("start", "on_connect"),
        ("connect", None),
        ("message", None),
        ("error", "on_message"),
        ("close", None),
    ] == kinds
    assert "ended guest/a on_message: LookupError" in book.lines
    assert {"asked guest/a on_connect", "asked guest/a on_message", "asked guest/a on_close"} == {
        line for line in book.lines if line.startswith("asked")
    }


async def test_a_call_between_rooms_and_one_that_comes_back_name_the_event_that_they_come_from(book: Book) -> None:
    async def there(room: Room) -> None:
        await room.ctx.parties["box"].get("b").call(back)

    async def back(room: Room) -> None:
        await room.ctx.parties["box"].get("a").call(put, "k", 1)

    async with Harness({"box": Box}, observer=book) as harness:
        await harness.parties["box"].get("a").call(there)
    names = [
        re.sub(r"test_\w+\.<locals>\.", "", line)
        for line in book.lines
        if line.split()[0] in {"asked", "began", "ended", "commits"}
    ]
    assert [
        "asked box/a there",
        "began box/a there",
        "asked box/b back",
        "began box/b back",
        "asked box/a put",
        "began box/a put",
        "ended box/a put",
        "ended box/b back",
        "ended box/a there",
        "commits box/a: there",
    ] == names[:10]
    there_, back_, put_ = book.seen
    assert (back_, there_) == (put_.cause, back_.cause)


async def test_a_nested_event_that_raises_is_told_with_its_error(book: Book) -> None:
    async def fails(room: Room) -> None:
        raise LookupError

    async def caller(room: Room) -> None:
        with pytest.raises(LookupError):
            await room.ctx.run(fails, room)

    async with Harness({"box": Box}, observer=book) as harness:
        await harness.parties["box"].get("a").call(caller)
    ends = [line.rpartition(".")[2] for line in book.lines if line.startswith("ended")]
    assert ["fails: LookupError", "caller"] == ends
    assert "run" == book.seen[1].kind


async def test_an_event_of_a_room_that_cannot_be_woken_begins_and_ends_at_once(book: Book) -> None:
    class Sick(Room):
        @override
        async def on_start(self) -> None:
            raise LookupError

    async with Harness({"sick": Sick}, observer=book, fail_on_errors=False) as harness:
        with pytest.raises(LookupError):
            await harness.parties["sick"].get("a").call(nothing)
    assert [
        "asked sick/a nothing",
        "wakes sick/a for nothing",
        "began sick/a on_start",
        "ended sick/a on_start: LookupError",
        "woke sick/a: LookupError",
        "began sick/a nothing",
        "ended sick/a nothing: LookupError",
    ] == book.lines[:7]


async def test_a_caller_who_leaves_early_is_told_of_no_beginning(book: Book) -> None:
    gate = anyio.Event()

    async def wait(room: Room) -> None:
        await gate.wait()

    async with Harness({"box": Box}, observer=book) as harness, anyio.create_task_group() as group:
        room = harness.parties["box"].get("a")
        first = await arrive(group, harness.runtime, room, wait)
        second = await arrive(group, harness.runtime, room, nothing)
        await second.leave()
        gate.set()
        await first.outcome()
        assert ["asked box/a nothing"] == [line for line in book.lines if line.endswith("nothing")]


async def test_rooms_that_wait_together_are_stored_together(book: Book) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=backend, observer=book) as harness:
        a, b = harness.parties["box"].get("a"), harness.parties["box"].get("b")
        with backend.hold() as hold:
            async with anyio.create_task_group() as group:
                Caller(group, a.call, put, "k", 1)
                await hold.arrived()
                for room in (a, b, a):
                    await arrive(group, harness.runtime, room, put, "k", 2)
                await until(lambda: 4 == len([line for line in book.lines if line.startswith("ended")]))
                hold.release()
    assert ["commits box/a: put", "committed 1", "commits box/a box/b: put, put, put", "committed 3"] == [
        line for line in book.lines if line.startswith("commit")
    ][:4]


async def test_a_refused_commit_is_told_with_its_room(book: Book) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=backend, observer=book, fail_on_errors=False) as harness:
        backend.refuse(A)
        with pytest.raises(RoomBrokenError):
            await harness.parties["box"].get("a").call(put, "k", 1)
        assert ["commits box/a: put", "committed 1 box/a: CommitError", "slept box/a"] == book.lines[5:8]


async def test_a_call_of_the_backend_that_fails_is_told_and_so_is_the_next_try(book: Book) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=backend, observer=book) as harness:
        backend.fail()
        await harness.parties["box"].get("a").call(put, "k", 1)
        assert [
            "commits box/a: put",
            "committed 1 box/a: BackendError",
            "commits box/a: put",
            "committed 1",
        ] == book.lines[5:]


@pytest.mark.parametrize("answers", [None, [], [False]])
async def test_what_a_backend_answers_that_is_no_answer_is_told_as_a_failure_of_its_call(
    answers: Any, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused(BackendWrapper):
        is_confused = True

        @override
        async def commit(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
            is_confused, self.is_confused = self.is_confused, False
            return answers if is_confused else await super().commit(commits)

    async with Harness({"box": Box}, backend=Confused(MemoryBackend()), observer=book) as harness:
        await harness.parties["box"].get("a").call(put, "k", 1)
        assert [
            "commits box/a: put",
            "committed 1 box/a: BackendError",
            "commits box/a: put",
            "committed 1",
        ] == book.lines[5:]
    assert [] == caplog.records


async def test_a_room_that_wakes_before_its_old_claim_has_ended_has_no_error(book: Book) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with (
        Harness({"box": Box}, backend=backend, observer=book) as harness,
        anyio.create_task_group() as group,
    ):
        a, b = harness.parties["box"].get("a"), harness.parties["box"].get("b")
        await a.call(nothing)
        with backend.hold() as hold:
            Caller(group, b.call, put, "k", 1)
            await hold.arrived()
            engine = harness.runtime.engine()
            (sleepy,) = [room for room in engine.all_awake() if room.key == A]
            assert engine.put_to_sleep(sleepy)
            caller: Caller[Any] = Caller(group, a.call, put, "k", 1)
            await until(lambda: "ended box/a put" in book.lines)
            hold.release()
        assert not isinstance(await caller.outcome(), Exception)
    assert ["commits box/a box/a: put", "committed 1"] == [line for line in book.lines if line.startswith("commit")][
        2:4
    ]


async def test_what_sync_stores_is_of_the_event_that_called_it(book: Book) -> None:
    async def twice(room: Room) -> None:
        await room.ctx.storage.put("k", 1)
        await room.ctx.storage.sync()
        await room.ctx.storage.put("k", 2)

    commits: list[CommitInfo] = []
    book.commit_began = commits.append  # type: ignore[method-assign]
    async with Harness({"box": Box}, observer=book) as harness:
        await harness.parties["box"].get("a").call(twice)
        assert [(book.seen[0],)] * 2 == [commit.events for commit in commits]


# --- alarms ------------------------------------------------------------------


async def arm(room: Room, when: timedelta | Every = MINUTE, retry: RetryPolicy | None = None) -> None:
    """Set an alarm, as an event."""
    await room.ctx.storage.set_alarm(when, name="tea", retry=retry)


async def test_an_alarm_is_told_with_its_lateness_and_what_becomes_of_it(book: Book, tower: Tower) -> None:
    async with Harness({"bell": tower.bell}, observer=book, fail_on_errors=False) as harness:
        room = harness.parties["bell"].get("a")
        policy = RetryPolicy(max_retries=1, first_delay=HOUR, max_delay=HOUR)
        await room.call(arm, retry=policy)
        await harness.put_to_sleep(room)
        book.take()
        tower.on_alarm = fail
        await harness.advance(MINUTE)
        lines = book.take()
        assert lines[:6] == [
            "wakes bell/a for on_alarm",
            "began bell/a on_start",
            "ended bell/a on_start",
            "woke bell/a",
            "began bell/a on_alarm",
            "rings bell/a tea",
        ]
        assert [
            "retrying bell/a tea",
            "ended bell/a on_alarm: LookupError",
            "commits bell/a: on_alarm",
            "committed 1",
        ] == lines[6:10]
        await harness.advance(HOUR)
        assert "failed bell/a tea" in book.lines
        assert ("alarm_failed", "on_alarm") == (book.seen[-1].kind, book.seen[-1].cause and book.seen[-1].cause.name)
    (first, retried), (second, failed) = book.alarms
    assert (0, timedelta(), START + MINUTE + HOUR) == (first.retry_count, first.lateness, retried.next_time)
    assert (1, HOUR, None) == (second.retry_count, second.lateness, failed.next_time)
    assert isinstance(failed.error, LookupError)


async def test_a_recurrence_is_told_when_it_rings_next_whether_it_rang_or_failed(book: Book, tower: Tower) -> None:
    async with Harness({"bell": tower.bell}, observer=book, fail_on_errors=False) as harness:
        await harness.parties["bell"].get("a").call(arm, Every(HOUR), RetryPolicy(max_retries=0))
        await harness.advance(HOUR)
        tower.on_alarm = fail
        await harness.advance(HOUR)
    assert [("rang", START + 2 * HOUR), ("failed", START + 3 * HOUR)] == [
        (outcome.status, outcome.next_time) for _, outcome in book.alarms
    ]


async def test_an_alarm_that_sync_has_set_again_stands_when_its_handler_raises(book: Book, tower: Tower) -> None:
    async def set_again(bell: Any, alarm: Alarm) -> None:
        await bell.storage.set_alarm(HOUR, name="tea")
        await bell.storage.sync()
        raise LookupError

    async with Harness({"bell": tower.bell}, observer=book, fail_on_errors=False) as harness:
        await harness.parties["bell"].get("a").call(arm)
        tower.on_alarm = set_again
        await harness.advance(MINUTE)
    assert ["replaced"] == [outcome.status for _, outcome in book.alarms]


async def test_an_alarm_that_a_broken_room_interrupts_stays_as_it_was(book: Book, tower: Tower) -> None:
    backend = FaultyBackend(MemoryBackend())

    async def wait(bell: Any, alarm: Alarm) -> None:
        await bell.ctx.storage.put("k", 1)
        await bell.ctx.storage.sync()

    async with Harness({"bell": tower.bell}, backend=backend, observer=book, fail_on_errors=False) as harness:
        await harness.parties["bell"].get("a").call(arm)
        tower.on_alarm = wait
        backend.refuse(RoomKey("bell", "a"), 2)  # the first ends its claim: it falls asleep
        await harness.advance(MINUTE)
        assert [("interrupted", START + MINUTE)] == [(outcome.status, outcome.next_time) for _, outcome in book.alarms]


async def test_a_ring_that_finds_nothing_to_ring_is_no_event(book: Book, tower: Tower) -> None:
    async with Harness({"bell": tower.bell}, observer=book, alarms="manual") as harness:
        room = harness.parties["bell"].get("a")
        await room.call(arm, timedelta())

        async def late(bell: Any) -> None:
            await bell.ctx.storage.delete_alarm("tea")

        tower.on_start = late
        await harness.put_to_sleep(room)
        book.take()
        assert 0 == (await harness.ring_due()).rung
        assert "began bell/a on_start" in book.lines
        assert [] == [line for line in book.lines if "on_alarm" in line and not line.startswith("wakes")]


# --- what an observer may do -------------------------------------------------


async def test_what_an_observer_sets_in_the_context_is_seen_by_the_handler(book: Book) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    seen: list[str] = []

    class Setter(Observer):
        @override
        def event_began(self, event: EventInfo, /) -> None:
            self.token = variable.set(event.name)

        @override
        def event_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
            variable.reset(self.token)

    async def look(room: Room) -> None:
        await checkpoint()
        seen.append(variable.get())

    async with Harness({"box": Box}, observer=Setter()) as harness:
        variable.set("the host's")
        room = harness.parties["box"].get("a")
        await room.call(look)
        worker = harness.runtime.engine().workers._idle[-1]
        await room.call(look)
        assert worker is harness.runtime.engine().workers._idle[-1]
    assert ["look"] * 2 == [name.rpartition(".")[2] for name in seen]


async def test_an_observer_that_raises_breaks_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        def __getattribute__(self, name: str) -> Any:
            def fails(*args: object) -> None:
                raise LookupError(name)

            return (
                fails
                if name.rpartition("_")[2] in {"asked", "began", "ended", "slept"}
                else super().__getattribute__(name)
            )

    with caplog.at_level(logging.ERROR, "partyroom"):
        async with Harness({"box": Box}, observer=Broken()) as harness:
            room = harness.parties["box"].get("a")
            await room.call(put, "k", 1)
            await harness.put_to_sleep(room)
            assert {"k": 1} == await room.stored()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "LookupError('event_asked')" == repr(record.exc_info[1])


@pytest.mark.parametrize("method", ["event_began", "event_ended", "commit_ended"])
async def test_an_interrupt_in_an_observer_ends_the_runtime_and_leaves_no_caller_waiting(method: str) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt(*args: object) -> None:
        raise Interrupt

    observer: Observer = type("Interrupted", (Observer,), {method: interrupt})()
    async with anyio.create_task_group() as group:
        runtime = Runtime({"box": Box}, backend=MemoryBackend(), observer=observer)
        with pytest.raises(Interrupt):
            async with runtime:
                caller: Caller[Any] = Caller(group, runtime.parties["box"].get("a").call, put, "k", 1)
                await anyio.sleep_forever()
        assert caller.has_ended
        assert caller.error is None


async def test_every_method_of_an_observer_has_a_default() -> None:
    async with Harness({"bell": (tower := Tower()).bell}, observer=type("Blind", (Observer,), {})()) as harness:
        room = harness.parties["bell"].get("a")
        await room.call(arm)
        await harness.advance(HOUR)
        await harness.put_to_sleep(room)
    assert [60.0] == tower.rang()


async def test_a_crash_is_told_as_the_error_of_what_it_ends(book: Book) -> None:
    gate = anyio.Event()

    async def wait(room: Room) -> None:
        await gate.wait()

    async with Harness({"box": Box}, observer=book) as harness, anyio.create_task_group() as group:
        caller: Caller[Any] = Caller(group, harness.parties["box"].get("a").call, wait)
        await until(lambda: any(line.startswith("began") for line in book.lines))
        await harness.crash()
        assert isinstance(await caller.outcome(), RuntimeCrashedError)
    assert [line for line in book.lines if line.startswith("ended") and line.endswith("wait: RuntimeCrashedError")]


def test_an_event_says_what_it_is() -> None:
    assert "box/a put" == str(EventInfo(A, "call", "put"))
    assert CommitInfo((A, B), ()) != CommitInfo((A, B), ())
