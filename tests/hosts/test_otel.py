"""Spans of OpenTelemetry: a host's request, the event that answers it, the rooms that it calls, and their commits."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from typing_extensions import override

from partyroom import Alarm, Connection, ConnectRejectedError, RetryPolicy, Room, RoomBrokenError, RoomKey, Runtime
from partyroom.asgi import PartyApp, Request, Response
from partyroom.backends.memory import MemoryBackend
from partyroom.blocking import BlockingRuntime
from partyroom.otel import OpenTelemetryObserver
from partyroom.testing import FaultyBackend, Harness
from tests.hosts.driver import ask, connected
from tests.runtime.engine.running import Caller, arrive, nothing, put, until

MINUTE = timedelta(minutes=1)


class Spans:
    """What was exported, as a tree."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")
        self.observer = OpenTelemetryObserver(self.provider)

    def all(self) -> list[ReadableSpan]:
        """Give all spans that have ended, by their beginnings."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all() if span.name == name]
        return span

    def tree(self) -> dict[str, Any]:
        """Give the names of the spans, each with its children."""
        return self._below(None)

    def _below(self, parent: int | None) -> dict[str, Any]:
        children = [span for span in self.all() if (None if span.parent is None else span.parent.span_id) == parent]
        return {span.name: self._below(span.context.span_id) for span in children if span.context is not None}


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return {name.removeprefix("partyroom."): value for name, value in (span.attributes or {}).items()}


class Desk(Room):
    @override
    async def on_start(self) -> None:
        return

    @override
    async def on_connect(self, connection: Connection) -> None:
        if connection.uri == "no":
            raise ConnectRejectedError(4000, "no")

    @override
    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        raise LookupError(message)

    @override
    async def on_error(self, connection: Connection, error: Exception) -> None:
        connection.send("sorry")

    @override
    async def on_request(self, request: Request) -> Response:
        with trace.get_tracer("room").start_as_current_span("of the room's own"):
            pass
        await self.ctx.storage.put("asked", True)
        await self.ctx.parties["shelf"].get("1").call(Shelf.take, self.ctx.id)
        return Response("taken")

    @override
    async def on_alarm(self, alarm: Alarm) -> None:
        raise LookupError(alarm.name)

    async def arm(self, name: str) -> None:
        await self.ctx.storage.set_alarm(MINUTE, name=name, retry=RetryPolicy(max_retries=1, first_delay=MINUTE))


class Shelf(Room):
    async def take(self, desk: str) -> None:
        await self.ctx.storage.put("taken by", desk)
        await self.ctx.parties["desk"].get(desk).call(put, "given", True)


PARTIES = {"desk": Desk, "shelf": Shelf}


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.mark.anyio
async def test_a_request_an_event_a_room_call_and_the_commits_nest(spans: Spans) -> None:
    app = PartyApp(Runtime(PARTIES, backend=MemoryBackend(), observer=spans.observer))

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        # As the instrumentation of a host does.
        with spans.tracer.start_as_current_span("GET"):
            await app(scope, receive, send)

    async with app._runtime as runtime:
        assert 200 == (await ask(traced, "GET", "/parties/desk/a")).status
        await runtime.wait_idle()
    assert {
        "GET": {
            "desk wake": {"desk on_start": {}},
            "desk on_request": {
                "shelf wake": {},
                "shelf Shelf.take": {"desk put": {}, "shelf commit": {}},
                "desk commit": {},
            },
        }
    } == {"GET": spans.tree()["GET"]}
    assert {"party": "desk", "room": "a", "event": "on_request"} == attributes(spans.named("desk on_request"))
    expected = {"party": "desk", "room": "a", "commit.events": 1, "commit.rooms": 1}
    assert expected == attributes(spans.named("desk commit"))


@pytest.mark.anyio
async def test_messages_of_a_websocket_stand_below_its_span_and_an_error_below_its_message(spans: Spans) -> None:
    app = PartyApp(Runtime(PARTIES, backend=MemoryBackend(), observer=spans.observer))

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        with spans.tracer.start_as_current_span("WS"):
            await app(scope, receive, send)

    async with app._runtime as runtime:
        async with connected(traced, "/parties/desk/a") as socket:
            await socket.text("fail")
            assert "sorry" == await socket.heard_text()
        await runtime.wait_idle()
    assert {
        "WS": {
            "desk wake": {"desk on_start": {}},
            "desk on_connect": {},
            "desk on_message": {"desk on_error": {}},
            "desk on_close": {},
        }
    } == spans.tree()
    failed = spans.named("desk on_message")
    assert (StatusCode.ERROR, "LookupError: fail") == (failed.status.status_code, failed.status.description)
    assert ["exception"] == [event.name for event in failed.events]


@pytest.mark.anyio
async def test_a_span_of_the_rooms_own_stands_below_its_event(spans: Spans) -> None:
    async def work(room: Room) -> None:
        with spans.tracer.start_as_current_span("of its own"):
            await room.ctx.storage.put("k", 1)

    async with Harness(PARTIES, observer=spans.observer) as harness:
        room = harness.parties["shelf"].get("a")
        await room.call(nothing)
        spans.exporter.clear()
        with spans.tracer.start_as_current_span("host"):
            await room.call(work)
            await room.call(nothing)
    (name, tree), (again, _) = spans.tree()["host"].items()
    assert {"of its own": {}, "shelf commit": {}} == tree
    assert ("work", "shelf nothing") == (name.rpartition(".")[2], again)


@pytest.mark.anyio
async def test_a_background_task_goes_on_below_the_event_that_started_it(spans: Spans) -> None:
    async def start(room: Room) -> None:
        room.ctx.start_soon(later, room)

    async def later(room: Room) -> None:
        await room.ctx.run(nothing, room)

    async with Harness(PARTIES, observer=spans.observer) as harness:
        with spans.tracer.start_as_current_span("host"):
            await harness.parties["shelf"].get("a").call(start)
        await harness.settle()
    ((name, tree),) = [(name, tree) for name, tree in spans.tree()["host"].items() if "wake" not in name]
    assert name.endswith("start")
    assert {"shelf nothing": {}} == tree


@pytest.mark.anyio
async def test_an_alarm_begins_a_trace_with_its_waking_and_says_what_became_of_it(spans: Spans) -> None:
    async with Harness(PARTIES, observer=spans.observer, fail_on_errors=False) as harness:
        room = harness.parties["desk"].get("a")
        await room.call(Desk.arm, "fail")
        await harness.put_to_sleep(room)
        spans.exporter.clear()
        await harness.advance(MINUTE)
        assert {"desk wake": {"desk on_start": {}, "desk on_alarm": {"desk commit": {}}}} == spans.tree()
        rang = attributes(spans.named("desk on_alarm"))
        assert ("fail", "2030-01-01T00:01:00+00:00", 0.0, 0) == (
            rang["alarm.name"],
            rang["alarm.scheduled_time"],
            rang["alarm.lateness"],
            rang["alarm.retry_count"],
        )
        assert ("retrying", "2030-01-01T00:02:00+00:00") == (rang["alarm.outcome"], rang["alarm.next_time"])
        spans.exporter.clear()
        await harness.advance(MINUTE)
        last = attributes(next(span for span in spans.all() if span.name == "desk on_alarm"))
        assert ("failed", None) == (last["alarm.outcome"], last.get("alarm.next_time"))


@pytest.mark.anyio
async def test_nothing_stands_below_the_span_that_the_runtime_was_entered_in_but_what_is_asked_there(
    spans: Spans,
) -> None:
    class Bell(Desk):
        @override
        async def on_alarm_failed(self, alarm: Alarm, error: BaseException | None) -> None:
            return

    with spans.tracer.start_as_current_span("main"):
        async with Harness({"bell": Bell}, observer=spans.observer, fail_on_errors=False) as harness:
            room = harness.parties["bell"].get("a")
            await room.call(Bell.arm, "fail")
            await harness.put_to_sleep(room)
            await harness.advance(MINUTE)
            spans.exporter.clear()
            await harness.advance(MINUTE)
            rang: dict[str, Any] = {"bell commit": {}, "bell on_alarm_failed": {}}
            assert {"bell wake": {"bell on_start": {}, "bell on_alarm": rang}} == spans.tree()
            spans.exporter.clear()
            await room.call(Desk.arm, "again")
    assert {"main": {"bell wake": {"bell on_start": {}}, "bell Desk.arm": {"bell commit": {}}}} == spans.tree()


@pytest.mark.anyio
async def test_a_room_that_is_woken_for_an_error_wakes_below_the_event_that_raised_it(spans: Spans) -> None:
    class Aborting(Desk):
        @override
        async def on_message(self, message: str | bytes, sender: Connection) -> None:
            self.ctx.abort("no more")

    async with Harness({"desk": Aborting}, observer=spans.observer, fail_on_errors=False) as harness:
        client = await harness.connect(harness.parties["desk"].get("a"))
        spans.exporter.clear()
        await client.send("abort")
        assert "sorry" == await client.receive()
        assert {"desk on_message": {"desk wake": {"desk on_start": {}, "desk on_error": {}}}} == spans.tree()


async def put_by_one_and_then_two(spans: Spans, backend: FaultyBackend, harness: Harness, group: TaskGroup) -> None:
    """Have one event committed by itself, and two together."""
    a, b = harness.parties["shelf"].get("a"), harness.parties["shelf"].get("b")
    with backend.hold() as hold:
        Caller(group, a.call, put, "k", 1)
        await hold.arrived()
        for room in (b, a):
            await arrive(group, harness.runtime, room, put, "k", 1)
        await until(lambda: 3 == len([span for span in spans.all() if span.name == "shelf put"]))
        hold.release()


@pytest.mark.anyio
async def test_a_commit_of_several_events_has_a_span_below_each(spans: Spans) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with (
        Harness(PARTIES, backend=backend, observer=spans.observer) as harness,
        anyio.create_task_group() as group,
    ):
        await put_by_one_and_then_two(spans, backend, harness, group)
    commits = [span for span in spans.all() if span.name == "shelf commit"]
    puts = {span.context.span_id for span in spans.all() if span.name == "shelf put" and span.context is not None}
    assert [1, 2, 2] == [attributes(span)["commit.events"] for span in commits]
    assert puts == {span.parent.span_id for span in commits if span.parent is not None}


@pytest.mark.anyio
async def test_a_refused_commit_has_its_error_and_a_refused_client_has_none(spans: Spans) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Harness(PARTIES, backend=backend, observer=spans.observer, fail_on_errors=False) as harness:
        backend.refuse(RoomKey("shelf", "a"))
        with pytest.raises(RoomBrokenError):
            await harness.parties["shelf"].get("a").call(put, "k", 1)
        assert StatusCode.ERROR is spans.named("shelf commit").status.status_code
        with pytest.raises(ConnectRejectedError):
            await harness.connect(harness.parties["desk"].get("a"), uri="no")
        assert StatusCode.UNSET is spans.named("desk on_connect").status.status_code


@pytest.mark.anyio
async def test_an_error_that_cannot_say_what_it_is_ends_its_span_all_the_same(spans: Spans) -> None:
    class UnspeakableError(Exception):
        @override
        def __str__(self) -> str:
            raise LookupError

    async def fails(room: Room) -> None:
        raise UnspeakableError

    async with Harness(PARTIES, observer=spans.observer, fail_on_errors=False) as harness:
        with pytest.raises(UnspeakableError):
            await harness.parties["shelf"].get("a").call(fails)
    (failed,) = [span for span in spans.all() if span.name.endswith("fails")]
    assert (StatusCode.ERROR, "UnspeakableError") == (failed.status.status_code, failed.status.description)


@pytest.mark.anyio
@pytest.mark.parametrize("moment", ["on_start", "on_end"])
async def test_a_span_that_raises_keeps_none_of_its_commit_from_ending(spans: Spans, moment: str) -> None:
    begun: list[Span] = []

    class Picky(SpanProcessor):
        @override
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            if span.name == "shelf commit":
                begun.append(span)
                if moment == "on_start" and len(begun) == 3:
                    raise LookupError

        @override
        def on_end(self, span: ReadableSpan) -> None:
            if moment == "on_end" and span.name == "shelf commit":
                raise LookupError

    spans.provider.add_span_processor(Picky())
    backend = FaultyBackend(MemoryBackend())
    async with Harness(PARTIES, backend=backend, observer=spans.observer) as harness:
        async with anyio.create_task_group() as group:
            await put_by_one_and_then_two(spans, backend, harness, group)
        await harness.settle()
    # The one that raised at its own beginning is nobody's.
    assert [True, True, moment == "on_end"] == [span.end_time is not None for span in begun[:3]]


@pytest.mark.anyio
async def test_an_event_that_never_begins_leaves_nothing_behind(spans: Spans) -> None:
    gate = anyio.Event()

    async def wait(room: Room) -> None:
        await gate.wait()

    async with Harness(PARTIES, observer=spans.observer) as harness, anyio.create_task_group() as group:
        room = harness.parties["shelf"].get("a")
        first = await arrive(group, harness.runtime, room, wait)
        second = await arrive(group, harness.runtime, room, nothing)
        await second.leave()
        gate.set()
        await first.outcome()
    del harness, first, second
    gc.collect()
    observer = spans.observer
    assert [0] * 5 == [
        len(each)
        for each in (observer._parents, observer._contexts, observer._events, observer._wakes, observer._commits)
    ]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_span_of_a_thread_that_waits_is_the_parent_too(spans: Spans, loop: Any) -> None:
    with BlockingRuntime(PARTIES, backend=MemoryBackend(), loop=loop, observer=spans.observer) as runtime:
        room = runtime.parties["shelf"].get("a")
        with spans.tracer.start_as_current_span("host"):
            room.call(put, "k", 1)
    assert {"shelf wake": {}, "shelf put": {"shelf commit": {}}} == spans.tree()["host"]
