"""Rooms under test: a runtime on a fake clock, with sleep, restart and crash at hand.

Owns one runtime at a time, the task that it lives in, the clock that it runs
on, and what survives from one run to the next: the backend, and the handles.

Promises that nothing moves but by the test's own doing, that a crash keeps what
was committed and nothing else, and that nothing leaks from one test into the next.

Must never reach into a backend: what is durable is what its contract shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, Literal, final

import attrs
from anyio import TASK_STATUS_IGNORED, CancelScope, Event, create_task_group
from anyio.abc import TaskGroup, TaskStatus
from typing_extensions import Self, override

from partyroom._core.instants import from_micros
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import RuntimeCrashedError
from partyroom.protocols import AlarmScheduler, Codec, Party, RoomHandle, StorageBackend
from partyroom.runtime import RoomFactory, Runtime
from partyroom.testing.fake_clock import FakeClock, Fired
from partyroom.types import Limits, RingReport, RoomKey

__all__ = ["Harness", "Pending"]


@attrs.frozen
class Pending:
    """Something that will happen when time passes."""

    due: datetime
    """When, in UTC."""
    room: RoomKey | None
    kind: str
    """``alarm``, or what waits in memory: ``idle`` (a room that will sleep), ``sleep``, ``timeout``."""
    name: str


class SteadyRandom(Random):
    """Chance without the part that tests would have to allow for: no jitter, and ids by seed."""

    @override
    def random(self) -> float:
        return 0.0


@final
class Harness:
    """A runtime for tests: in memory unless told otherwise, on a clock that the test moves.

    ``async with Harness({"draft": Draft}) as harness`` gives the parties; ``advance`` lets time pass. Handles from
    ``harness.parties`` outlive :meth:`restart` and :meth:`crash`; clients do not (their end is 1012). Time starts at
    2030-01-01T00:00Z, retries have no jitter, and ``seed`` is 0, unless asked otherwise. The other options are those of
    :class:`~partyroom.Runtime`.
    """

    def __init__(
        self,
        parties: Mapping[str, RoomFactory],
        *,
        backend: StorageBackend | None = None,
        clock: FakeClock | None = None,
        seed: int = 0,
        scheduler: AlarmScheduler | None = None,
        alarms: Literal["auto", "manual"] = "auto",
        limits: Limits | None = None,
        codec: Codec | None = None,
        idle_timeout: timedelta = timedelta(seconds=10),
        max_awake: int | None = None,
        close_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self.clock = clock or FakeClock()
        """The clock that all of it runs on."""
        self.runtime = Runtime(
            parties,
            backend=backend or MemoryBackend(),
            clock=self.clock,
            scheduler=scheduler,
            alarms=alarms,
            limits=limits,
            codec=codec,
            idle_timeout=idle_timeout,
            max_awake=max_awake,
            close_timeout=close_timeout,
            random=SteadyRandom(seed),
        )
        """The runtime under test; the same one over restarts."""
        self._tasks: TaskGroup | None = None
        self._stop = Event()
        self._ended = Event()
        self._alarms: dict[RoomKey, datetime] = {}

    # --- its life ------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._tasks = await create_task_group().__aenter__()
        self.clock.attach(self.runtime)
        try:
            await self._begin()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        try:
            with CancelScope(shield=True):
                await self._end()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        tasks = self._tasks
        assert tasks is not None
        self.clock.detach(self.runtime)
        tasks.cancel_scope.shield = True
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)

    async def _begin(self) -> None:
        assert self._tasks is not None
        self._stop, self._ended = Event(), Event()
        await self._tasks.start(self._live)
        engine = self.runtime.engine()
        rows = await engine.all_rows(None)
        self._alarms = {row.room: from_micros(row.due) for row in reversed(rows) if row.due is not None}
        engine.alarm_listener = self._hear_of_alarm

    def _hear_of_alarm(self, room: RoomKey, due: datetime | None) -> None:
        if due is None:
            self._alarms.pop(room, None)
        else:
            self._alarms[room] = due

    async def _live(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hold the runtime, in a task of its own: a test may restart it anywhere, whatever blocks it has open."""
        try:
            async with self.runtime:
                task_status.started()
                await self._stop.wait()
                # From the stop until here the runtime had this token; from here on it counts its closing itself.
                self.runtime.engine().work.give()
        finally:
            self._ended.set()

    async def _end(self) -> None:
        """Let the runtime close: time passes only if something that it waits for sleeps."""
        self.runtime.engine().work.take()
        self._stop.set()
        while not self._ended.is_set():
            await self.clock.settle()
            if not self._ended.is_set():
                await self.clock.advance_to_next()

    async def restart(self) -> None:
        """Close the runtime and open it again: rooms are gone from memory, clients are closed, what was accepted is stored."""
        await self.settle()
        await self._end()
        await self._begin()
        await self.settle()

    async def crash(self) -> None:
        """Kill the runtime, as losing its process would, and start it again on what was durable.

        Events that were not committed are gone; their callers get :class:`RuntimeCrashedError`.
        """
        self.runtime.crash(RuntimeCrashedError("the runtime crashed: Harness.crash()"))
        await self._end()
        await self._begin()
        await self.settle()

    # --- time ----------------------------------------------------------------

    def now(self) -> datetime:
        """Give the wall time, in UTC."""
        return self.clock.now()

    async def settle(self) -> None:
        """Wait until nothing is in flight; time stands still."""
        await self.clock.settle()

    async def advance(self, duration: timedelta) -> None:
        """Let time pass, waking whatever is due on the way, one at a time; see :meth:`FakeClock.advance`."""
        await self.clock.advance(duration)

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until a wall time."""
        await self.clock.advance_to(when)

    async def advance_to_next(self) -> Fired | None:
        """Let time pass to whatever comes next, and let that happen alone."""
        return await self.clock.advance_to_next()

    async def run_due(self) -> None:
        """Let happen what is due now."""
        await self.clock.run_due()

    async def ring_due(self, limit: int | None = None) -> RingReport:
        """Ring what is due now, by hand; see :meth:`Runtime.ring_due`."""
        return await self.runtime.ring_due(limit)

    async def pending(self) -> list[Pending]:
        """Give what will happen when time passes, in order: alarms, and what waits in memory."""
        await self.settle()
        engine = self.runtime.engine()
        found = [Pending(*each) for each in engine.pending_timers()]
        found += [Pending(from_micros(row.due), row.room, "alarm", row.name) for row in await engine.all_rows(None) if row.due is not None]
        return sorted(found, key=lambda each: (each.due, each.room or RoomKey("", ""), each.kind, each.name))

    # --- rooms ---------------------------------------------------------------

    @property
    def parties(self) -> Mapping[str, Party]:
        """The parties, by name."""
        return self.runtime.parties

    async def stored(self, room: RoomHandle) -> dict[str, Any]:
        """Settle, and read a room's committed values without waking it."""
        await self.settle()
        return await room.stored()

    async def put_to_sleep(self, room: RoomHandle) -> None:
        """Settle, and have a room leave memory now; an ``AssertionError`` says what keeps it awake."""
        await self.settle()
        engine = self.runtime.engine()
        awake = engine.awake(RoomKey(room.party, room.id))
        if awake is not None and not engine.put_to_sleep(awake):
            why = "; ".join(awake.describe_work()) or f"{len(awake.connections)} clients are connected, and it does not hibernate"
            message = f"{awake.key} cannot sleep at {self.now().isoformat()}: {why}"
            raise AssertionError(message)
        await self.settle()

    def is_awake(self, room: RoomHandle) -> bool:
        """Say whether a room is in memory."""
        return self.runtime.engine().awake(RoomKey(room.party, room.id)) is not None

    def assert_idle(self) -> None:
        """Fail unless there is no event, connection, background task or pending alarm; a room that awaits eviction is idle."""
        engine = self.runtime.engine()
        found = engine.describe_work() + engine.describe_connections()
        found += [f"{room}: an alarm rings at {due.isoformat()}" for room, due in sorted(self._alarms.items())]
        if found:
            what = "\n  ".join(found)
            message = f"not idle at {self.now().isoformat()}:\n  {what}"
            raise AssertionError(message)
