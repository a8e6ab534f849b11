"""The runtime itself: what it refuses, how it is opened and left, and what it tells while nothing runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom import Observer, Room, Runtime
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import RuntimeClosedError, RuntimeStateError
from partyroom.testing import FakeClock, FaultyBackend
from partyroom.testing.backend_wrapper import BackendWrapper
from tests.runtime.boxes import Box, do, nothing, put

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)


class BrokenAtTheEndError(Exception):
    """Raised by a backend that cannot be closed."""


class UnclosableBackend(BackendWrapper):
    """Is closed, and raises all the same."""

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        raise BrokenAtTheEndError


def new_runtime(**options: Any) -> Runtime:
    options.setdefault("backend", MemoryBackend())
    return Runtime({"box": Box}, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alarms": "sometimes"}, "alarms must be 'auto' or 'manual', not 'sometimes'"),
        ({"max_awake": 0}, "max_awake must be at least 1, not 0"),
        ({"idle_timeout": -SECOND}, "idle_timeout must not be negative, not -1 day, 23:59:59"),
        ({"close_timeout": -SECOND}, "close_timeout must not be negative, not -1 day, 23:59:59"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_runtime(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "rooms.db"}, r"^backend must be a storage backend, such as .*, not str$"),
        ({"backend": MemoryBackend}, r"^backend must be a storage backend, such as .*, not the class MemoryBackend$"),
        ({"idle_timeout": 10}, "^idle_timeout must be a timedelta, not int$"),
        ({"close_timeout": 1.5}, "^close_timeout must be a timedelta, not float$"),
        ({"limits": {"mailbox": 1}}, r"^limits must be Limits\(...\), not dict$"),
        ({"observer": Observer}, r"^observer must be an Observer, such as .*, not the class Observer$"),
        ({"observer": object()}, r"^observer must be an Observer, such as .*, not object$"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_its_name_and_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        new_runtime(**options)


@pytest.mark.parametrize(
    ("parties", "message"),
    [
        ([Box], r"^parties must name what stands behind each, such as \{'chat': Chat\}, not list$"),
        (Box, r"^parties must name what stands behind each, such as .*, not the class Box$"),
        ({"box": "Box"}, r"^party 'box' must be a Room class, or a function that takes the context .*, not str$"),
    ],
)
def test_what_is_no_party_is_refused_before_a_room_is_woken(parties: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Runtime(parties, backend=MemoryBackend())


def test_before_it_is_opened_nothing_is_in_flight_and_nothing_can_be_asked() -> None:
    runtime = new_runtime(alarms="manual")
    assert "<Runtime of box, closed>" == repr(runtime)
    assert (True, [], [], None) == (
        runtime.is_idle(),
        runtime.describe_work(),
        runtime.pending_timers(),
        runtime.running(),
    )
    with pytest.raises(RuntimeClosedError, match="the runtime is not open: use it inside `async with`"):
        runtime.statistics()


async def test_waiting_until_a_closed_runtime_is_idle_takes_no_time() -> None:
    await new_runtime().wait_idle()


async def test_it_gives_what_it_was_made_with() -> None:
    backend = MemoryBackend()
    runtime = new_runtime(backend=backend)
    assert backend is runtime.backend
    assert {"box"} == set(runtime.parties)
    assert 2048 == runtime.limits.key_bytes
    assert b"1" == runtime.codec.encode(1)
    assert runtime.clock.now().tzinfo is not None


async def test_it_is_entered_once_at_a_time_and_may_be_entered_again() -> None:
    runtime = new_runtime()
    async with runtime:
        assert "<Runtime of box, open>" == repr(runtime)
        with pytest.raises(RuntimeStateError, match="this runtime is entered already"):
            await runtime.__aenter__()
        await runtime.parties["box"].get("a").call(nothing)
    async with runtime:
        await runtime.parties["box"].get("a").call(nothing)


async def test_alarms_are_switched_while_it_is_not_open() -> None:
    runtime = new_runtime()
    runtime.alarms = "manual"
    assert "manual" == runtime.alarms
    with pytest.raises(ValueError, match="alarms must be 'auto' or 'manual', not 'never'"):
        runtime.alarms = "never"  # type: ignore[assignment]
    async with runtime:
        with pytest.raises(RuntimeStateError, match="alarms cannot be set while the runtime is open"):
            runtime.alarms = "auto"
    runtime.alarms = "auto"
    assert "auto" == runtime.alarms


async def test_another_thread_is_told_that_it_is_not_the_runtimes() -> None:
    async with new_runtime() as runtime:
        with pytest.raises(RuntimeStateError, match="the runtime was entered in another event loop or thread"):
            await to_thread.run_sync(runtime.statistics)


@pytest.mark.parametrize("limit", [0, -1, True, 1.0])
async def test_a_limit_of_rings_that_is_no_count_is_refused(limit: Any) -> None:
    async with new_runtime(alarms="manual") as runtime:
        with pytest.raises((TypeError, ValueError)):
            await runtime.ring_due(limit)
        assert 0 == (await runtime.ring_due(1)).rung


async def test_a_backend_that_cannot_be_closed_is_told_to_whoever_leaves() -> None:
    with pytest.raises(BrokenAtTheEndError):
        async with new_runtime(backend=UnclosableBackend(MemoryBackend())) as runtime:
            await runtime.parties["box"].get("a").call(nothing)
    assert "<Runtime of box, closed>" == repr(runtime)


async def test_it_never_takes_the_place_of_the_bodys_own_error(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LookupError):
        async with new_runtime(backend=UnclosableBackend(MemoryBackend())):
            raise LookupError
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "the backend could not be closed" == record.getMessage()


async def test_at_the_deadline_of_closing_what_was_sealed_is_still_waited_for_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend, clock = FaultyBackend(MemoryBackend()), FakeClock()
    runtime, told = new_runtime(backend=backend, clock=clock, close_timeout=SECOND), list[Any]()

    async def put_it() -> None:
        told.append(await do(runtime.parties["box"].get("a"), put(k=1)))

    async def let_time_pass() -> None:
        await anyio.wait_all_tasks_blocked()
        await clock.advance(SECOND)
        assert [] == told
        held.release()

    async with anyio.create_task_group() as tasks, runtime:
        held = backend.hold("commit")
        tasks.start_soon(put_it)
        await held.arrived()
        tasks.start_soon(let_time_pass)
    assert [[None]] == told
    text = "box/a: the runtime's closing waits for the backend, which has not answered a commit"
    assert [text] == [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_room_that_wakes_again_while_closing_waits_for_a_commit_is_left_its_instance() -> None:
    starting, may_start = anyio.Event(), anyio.Event()

    class Worker(Room):
        async def on_start(self) -> None:
            if self.ctx.id == "late" and closing:
                starting.set()
                await may_start.wait()

        async def start(self) -> None:
            self.ctx.start_soon(self.work)

        async def work(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await (self.come_late() if self.ctx.id == "late" else self.write())

        async def write(self) -> None:
            await self.ctx.run(self.ctx.storage.put, "k", 1)

        async def come_late(self) -> None:
            await held.arrived()
            async with anyio.create_task_group() as group:
                group.start_soon(self.ctx.parties["worker"].get("late").call, Worker.tidy)
                await starting.wait()
                held.release()
                # The closing goes on, and looks round.
                for _ in range(10):
                    await checkpoint()
                may_start.set()

        async def tidy(self) -> None:
            await self.ctx.storage.put("tidied", True)

    backend, closing = FaultyBackend(MemoryBackend()), list[bool]()
    async with Runtime({"worker": Worker}, backend=backend) as runtime:
        for name in ("early", "late"):
            await runtime.parties["worker"].get(name).call(Worker.start)
        held = backend.hold("commit")
        closing.append(True)
    async with Runtime({"worker": Worker}, backend=backend) as runtime:
        assert {"tidied": True} == await runtime.parties["worker"].get("late").stored()


async def test_a_runtime_that_cannot_start_closes_its_backend_and_may_be_entered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise LookupError

    runtime = new_runtime()
    with monkeypatch.context() as strange:
        strange.setattr("partyroom.runtime.current_loop", refuse)
        with pytest.raises(LookupError):
            await runtime.__aenter__()
    async with runtime:
        await runtime.parties["box"].get("a").call(nothing)


def unlike(what: str) -> Callable[[Room], Any]:
    async def fail(_room: Room) -> None:
        raise LookupError(what)

    return fail


async def test_two_runtimes_of_one_program_know_nothing_of_each_other() -> None:
    async with new_runtime() as one, new_runtime() as other, anyio.create_task_group() as tasks:
        tasks.start_soon(one.parties["box"].get("a").call, nothing)
        with pytest.raises(LookupError, match="other"):
            await other.parties["box"].get("a").call(unlike("other"))
    assert one.is_idle()
