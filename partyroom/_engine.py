"""Who is awake: the rooms of one run of a runtime, from its entering to its leaving.

Owns the awake rooms, the connections of sleeping ones, the workers, timers and
commits that they share, and the order in which idle rooms go to sleep.

Promises that there is at most one awake room of a key, that a room sleeps only
when nothing keeps it awake (G20), that nothing is rung that is not due (G8),
and that closing handles what was accepted before it ends what is left.

Must never outlive its run: a runtime that is entered again gets a new engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from logging import Logger
from random import Random  # noqa: TID251 - the type of what is given
from typing import Any, Final, final

import attrs
from anyio import CancelScope
from anyio.abc import TaskGroup

from partyroom._alarm_loop import AlarmLoop
from partyroom._committer import Committer
from partyroom._core.instants import from_micros, length, length_micros, to_micros
from partyroom._core.read_cache import CacheBudget
from partyroom._core.units import Event
from partyroom._due_alarms import DueAlarms
from partyroom._figures import count_parties, count_stored, explain
from partyroom._idle_rooms import IdleRooms
from partyroom._log import about
from partyroom._native import Loop, OneShot
from partyroom._room_clock import ClockParts
from partyroom._room_runner import RoomRunner
from partyroom._run_tasks import RunTasks
from partyroom._scheduling import Scheduling
from partyroom._services import AwakeRoom, Keeper, Probe, RoomFactory, Services
from partyroom._timers import Timers, ticks
from partyroom._work import Work
from partyroom._workers import Workers
from partyroom.connections import Connections, RoomConnection
from partyroom.errors import ConnectionClosedError, RuntimeClosedError
from partyroom.protocols import AlarmScheduler, Clock, Codec, Party, StorageBackend
from partyroom.statistics import Statistics, StoredStatistics, WhyAwake
from partyroom.types import AlarmRow, Limits, RingFailure, RingReport, RoomKey, Timer

__all__ = ["Engine", "Settings"]

GOING_AWAY: Final = 1001
"""The close code of an end-point that goes away (RFC 6455, 7.4.1)."""
SERVICE_RESTART: Final = 1012
"""The close code of an end-point that comes back (RFC 6455's registry: Service Restart)."""


@attrs.frozen(kw_only=True, eq=False)
class Settings:
    """What a runtime was constructed with."""

    factories: Mapping[str, RoomFactory]
    backend: StorageBackend
    clock: Clock
    scheduler: AlarmScheduler | None
    rings: bool
    """Whether alarms ring by themselves."""
    limits: Limits
    codec: Codec
    idle_timeout: timedelta
    max_awake: int | None
    close_timeout: timedelta
    random: Random
    log: Logger
    probe: Probe | None = None


@final
class Engine(Keeper):
    """One run of a runtime. Its tasks are shielded from the host's cancellation: they end when it has closed."""

    def __init__(self, settings: Settings, parties: Mapping[str, Party], loop: Loop, tasks: TaskGroup) -> None:
        self._settings = settings
        self._parties = parties
        self._tasks = RunTasks(tasks, loop)
        self._rooms: dict[RoomKey, RoomRunner] = {}
        self._connections: dict[RoomKey, Connections] = {}
        self._busy = 0
        self._rested: OneShot[None] | None = None
        self._ringing = CancelScope(shield=True)
        self.loop = loop
        self.closing = False
        """Whether nothing new is taken from hosts."""
        self._is_crashed = False
        self._is_over = False
        """Whether nothing new is taken from rooms either."""
        self.work = Work(loop)
        self.workers = Workers(loop, self.work, self._tasks.start)
        watch = None if settings.probe is None else settings.probe.around_commit
        self._committer = Committer(settings.backend, loop, self.workers.submit, self.fail, watch)
        clock = settings.clock
        self.alarms = DueAlarms(
            settings.backend, settings.factories, clock, settings.log, settings.limits.alarm_lookahead
        )
        self._monotonic = Timers(loop, self.work, self._ticks, self._sleep)
        self._idle = IdleRooms(self._monotonic, clock.monotonic, settings.idle_timeout, self._put_all_to_sleep)
        self._wall = Timers(loop, self.work, lambda: to_micros(clock.now()), self._sleep_until)
        self.scheduling = self._make_scheduling()
        self.services = Services(
            loop=loop,
            work=self.work,
            clock=ClockParts(clock, loop, self.work, self._monotonic, self._wall),
            monotonic=clock.monotonic,
            backend=settings.backend,
            committer=self._committer,
            workers=self.workers,
            cache=CacheBudget(settings.limits.cache_bytes, settings.limits.room_cache_bytes),
            codec=settings.codec,
            limits=settings.limits,
            random=settings.random,
            log=settings.log,
            keeper=self,
            scheduling=self.scheduling,
            spawn=self._tasks.spawn,
            probe=settings.probe,
        )

    def _make_scheduling(self) -> Scheduling:
        settings, limits = self._settings, self._settings.limits
        if not settings.rings:
            return Scheduling(None, None, settings.clock, settings.log)
        if settings.scheduler is not None:
            return Scheduling(settings.scheduler, settings.scheduler.changed, settings.clock, settings.log)
        loop = AlarmLoop(settings.clock, self.work, lookahead=limits.alarm_lookahead, max_waking=limits.max_waking)
        return Scheduling(loop, loop.hold, settings.clock, settings.log)

    # --- tasks and time ------------------------------------------------------

    def start(self) -> None:
        """Start the tasks that run as long as the engine does."""
        self._tasks.keep_running(self._monotonic.run, CancelScope(shield=True))
        self._tasks.keep_running(self._wall.run, CancelScope(shield=True))
        scheduler = self.scheduling.scheduler
        if scheduler is not None:
            self._tasks.keep_running(lambda: scheduler.run(self._wake, self.alarms.upcoming), self._ringing)

    @property
    def error(self) -> BaseException | None:
        """What ended the runtime, if it was no host's doing."""
        return self._tasks.error

    def fail(self, error: BaseException, /) -> None:
        """End the runtime by an error that is none of a room."""
        self._tasks.fail(error)

    def _ticks(self) -> int:
        return ticks(self._settings.clock.monotonic())

    async def _sleep(self, due: int, timer: Timer) -> None:
        await self._settings.clock.sleep(length(due - self._ticks()), timer=timer)

    async def _sleep_until(self, due: int, timer: Timer) -> None:
        await self._settings.clock.sleep_until(from_micros(due), timer=timer)

    # --- rooms ---------------------------------------------------------------

    @property
    def parties(self) -> Mapping[str, Party]:
        """All parties, by name."""
        return self._parties

    def check_accepts(self) -> None:
        """Raise :class:`RuntimeClosedError` if nothing is taken any more from the code that asks."""
        if self.closing and (self._is_over or not self.work.is_counted_here()):
            message = "the runtime is closing"
            raise RuntimeClosedError(message)

    def room(self, key: RoomKey, /) -> RoomRunner:
        """Give the room of a key, awake from now on, to post something at once: whoever waits first asks again."""
        if self.closing:
            self.check_accepts()
        return self._room(key)

    def _room(self, key: RoomKey) -> RoomRunner:
        room = self._rooms.get(key)
        if room is None:
            connections = self._connections.get(key)
            if connections is None:
                connections = Connections(key, self._connection_left)
            self._bound_awake(1)
            room = RoomRunner(key, self.services, self._settings.factories[key.party], connections)
            self._rooms[key] = room
        return room

    def awake(self, key: RoomKey, /) -> RoomRunner | None:
        """Give the room of a key if it is awake."""
        return self._rooms.get(key)

    def all_awake(self) -> list[RoomRunner]:
        """Give the rooms in memory."""
        return list(self._rooms.values())

    def room_busy(self, room: AwakeRoom, /) -> None:
        """Hear that a room has something to do."""
        self._busy += 1
        self._idle.discard(room)

    def room_rests(self, _room: AwakeRoom, /) -> None:
        """Hear that a room has nothing to do for now."""
        self._busy -= 1
        if self._rested is not None:
            self._look_for_rest()

    def task_ended(self) -> None:
        """Hear that a background task of some room has ended."""
        self._look_for_rest()

    def room_may_sleep(self, room: AwakeRoom, /) -> None:
        """Hear that nothing keeps a resting room awake: it sleeps later, or at once if only its alarm had woken it."""
        if self.closing or room in self._idle:
            return
        if self.sleeps_at_once(room):
            # Whoever says so is a worker, or calls one: its claim ends in that one's task.
            self._forget(room)
            return
        self._idle.add(room)
        self._bound_awake(0)

    def sleeps_at_once(self, room: AwakeRoom, /) -> bool:
        """Say whether a room sleeps as soon as nothing keeps it awake: only its alarm had woken it, or a test wants that."""
        probe = self._settings.probe
        is_for_alarm = room.only_rang and not self._rings_soon(room)
        return not self.closing and (is_for_alarm or (probe is not None and probe.sleeps_at_once))

    def _rings_soon(self, room: AwakeRoom) -> bool:
        due = room.state.next_due()
        return due is not None and due - to_micros(self._settings.clock.now()) < self._idle.timeout

    def _put_all_to_sleep(self, rooms: Sequence[AwakeRoom]) -> None:
        slept = sum(map(self.put_to_sleep, rooms))
        if slept > len(self._rooms):
            # A dict that was large stays large, however little is left in it.
            self._rooms = dict(self._rooms)

    def put_to_sleep(self, room: AwakeRoom) -> bool:
        """Let a room leave memory, if nothing keeps it awake; say whether it did."""
        # One that may not, after all, is told of again as soon as it may.
        self._idle.discard(room)
        if not room.may_sleep or self._rooms.get(room.key) is not room:
            return False
        self._forget(room)
        self._committer.call_worker()
        return True

    def _forget(self, room: AwakeRoom) -> None:
        del self._rooms[room.key]
        if len(room.connections):
            self._connections[room.key] = room.connections
        else:
            self._connections.pop(room.key, None)
        room.sleep()

    def _bound_awake(self, coming: int) -> None:
        limit = self._settings.max_awake
        while limit is not None and len(self._rooms) + coming > limit and (room := self._idle.longest()) is not None:
            self.put_to_sleep(room)

    def _connection_left(self, connection: RoomConnection, code: int, reason: str, was_clean: bool) -> None:  # noqa: FBT001
        if not self.closing:
            self._room(connection.room).post_close(connection, code, reason, was_clean=was_clean)

    # --- errors --------------------------------------------------------------

    def event_failed(self, event: Event, error: BaseException, /) -> None:
        """Log an error that nobody else will hear of."""
        heard = (event.reply is not None and event.kind != "message") or isinstance(error, RuntimeClosedError)
        if self._settings.probe is not None:
            self._settings.probe.event_failed(event, error, heard=heard)
        if heard or self._is_crashed:
            return
        self._settings.log.error("%s failed", event, exc_info=error, extra=about(event.place.key, event.name))

    # --- alarms --------------------------------------------------------------

    def _wake(self, key: RoomKey) -> None:
        if not self.closing:
            self._room(key).ring()

    async def ring_due(self, limit: int | None) -> RingReport:
        """Ring what is due now, in due order, and wait until all of it is stored."""
        rung = 0
        failed: list[RingFailure] = []
        ringing: deque[tuple[AlarmRow, OneShot[Any]]] = deque()
        for row in await self.alarms.due_now(limit):
            if len(ringing) == self._settings.limits.max_waking:
                rung += await self._hear(*ringing.popleft(), failed)
            reply: OneShot[Any] = self.loop.one_shot()
            self._room(row.room).ring(row, reply=reply)
            ringing.append((row, reply))
        while ringing:
            rung += await self._hear(*ringing.popleft(), failed)
        return RingReport(rung, tuple(failed), await self.alarms.next_time())

    async def _hear(self, row: AlarmRow, reply: OneShot[Any], failed: list[RingFailure]) -> int:
        """Wait for one ring; give 1 if it rang well."""
        try:
            return int(await self.work.wait(reply) is not None)
        except Exception as error:  # noqa: BLE001 - it stands in the report
            failed.append(RingFailure(row.room, row.name or None, error))
            return 0

    # --- the end -------------------------------------------------------------

    def begin_closing(self) -> None:
        """Take nothing more from hosts, and close in a task that no cancellation of the host can reach."""
        if not self.closing:
            self.closing = True
            self.work.take()
            self._tasks.keep_running(self._close, CancelScope(shield=True))

    async def _close(self) -> None:
        """Handle what was accepted, commit it, close the clients; at the deadline, end what still runs."""
        self._ringing.cancel()
        due = self._ticks() + length_micros(self._settings.close_timeout)
        deadline = self._monotonic.call_at(due, self._cut_off, "close", None)
        await self._committer.wait_quiet()
        while self._busy:
            await self._next_rest()
        await self._end_background_tasks()
        deadline.cancel()
        self._let_go(ConnectionClosedError(GOING_AWAY, "the runtime was closed"))
        self._stop()

    async def _end_background_tasks(self) -> None:
        """Cancel them, and handle what they ask for on their way out."""
        while self._busy or any(room.background for room in self._rooms.values()):
            if not self._busy:
                for room in self._rooms.values():
                    room.discard()
            await self._next_rest()

    async def _next_rest(self) -> None:
        """Wait until no room has anything to do, or a background task has ended, and all that was sealed is answered."""
        # The token of the closing is given back while rooms move, and taken again before this goes on.
        rested = self._rested = self.loop.one_shot()
        rested.on_done = self.work.take
        self.work.give()
        await rested
        await self._committer.wait_quiet()

    def _look_for_rest(self) -> None:
        if self._rested is not None and not self._busy:
            rested, self._rested = self._rested, None
            rested.set(None)

    def _cut_off(self) -> None:
        """End what the deadline finds running, and say what it was, and which ended events have still to be stored."""
        self._is_over = True
        for room in list(self._rooms.values()):
            names = ", ".join(each.name for each in (*room.unfinished(), *room.background))
            if names:
                text = "%s: cut off by the runtime's closing: %s"
                self._settings.log.warning(text, room.key, names, extra=about(room.key, names))
                room.cut_off(RuntimeClosedError(f"{room.key}: the runtime was closed before the event had ended"))
            if not room.gate.is_open:
                text = "%s: the runtime's closing waits for the backend, which has not answered a commit"
                self._settings.log.warning(text, room.key, extra=about(room.key))

    def _let_go(self, error: ConnectionClosedError) -> None:
        self._is_over = True
        for room in self._rooms.values():
            self._connections[room.key] = room.connections
        for connections in self._connections.values():
            for connection in connections.select():
                connection.inbox.close(error)

    def _stop(self) -> None:
        """End the tasks that only the engine's own end ends."""
        self.workers.stop()
        self._tasks.stop()

    def crash(self, error: RuntimeClosedError) -> None:
        """Stop at once, as a killed process would: nothing more is committed, and callers get ``error``."""
        if not self.closing:
            self.closing = True
            self.work.take()
        self._is_crashed = True
        self._committer.abandon()
        for room in self._rooms.values():
            room.crash(error)
        self._let_go(ConnectionClosedError(SERVICE_RESTART, "the runtime crashed"))
        self._stop()

    # --- looking in ----------------------------------------------------------

    def describe_work(self) -> list[str]:
        """Say what is in flight, a line each."""
        return [line for room in self._rooms.values() for line in room.describe_work()]

    def describe_connections(self) -> list[str]:
        """Say who is connected, a line for each room."""
        return [f"{each.key}: connected clients: {len(each)}" for each in self._all_connections() if len(each)]

    def all_connections(self) -> list[RoomConnection]:
        """Give the open connections of all rooms, awake or asleep."""
        return [connection for each in self._all_connections() for connection in each.select()]

    def _all_connections(self) -> Iterable[Connections]:
        return ({room.key: room.connections for room in self._rooms.values()} | self._connections).values()

    def pending_timers(self) -> list[tuple[datetime, Timer]]:
        """Give what waits on the clock in memory: when (wall time, if nobody corrects it), and what it is."""
        now, passed = self._settings.clock.now(), self._ticks()
        found = [(now + length(entry.due - passed), entry.timer) for entry in self._monotonic.pending()]
        found += [(from_micros(entry.due), entry.timer) for entry in self._wall.pending()]
        return found

    def is_called(self, timer: Timer) -> bool:
        """Hear that the clock is about to end a sleep; say whether it is one of this run's own tasks, which counts from here on."""
        scheduler = self.scheduling.scheduler
        if timer.kind == "alarm" and isinstance(scheduler, AlarmLoop):
            return scheduler.is_called(timer)
        return self._monotonic.is_called(timer) or self._wall.is_called(timer)

    def is_cancelled(self, timer: Timer) -> bool:
        """Say whether a timer that is slept for is no longer wanted, so that its end means nothing."""
        return self._monotonic.is_cancelled(timer) or self._wall.is_cancelled(timer)

    def statistics(self) -> Statistics:
        """Give the figures of this moment."""
        rooms = self._rooms.values()
        return Statistics(
            awake=len(rooms),
            waking=sum(room.is_waking for room in rooms),
            busy=self._busy,
            idle=sum(map(self._is_idle, rooms)),
            running=sum(room.running is not None for room in rooms),
            waiting=sum(len(room.mailbox) for room in rooms),
            commits=self._committer.commits,
            groups=self._committer.groups,
            parties=count_parties(self._parties, self._rooms, self._connections),
        )

    async def stored_statistics(self) -> dict[str, StoredStatistics]:
        """Count what is stored, by party."""
        settings = self._settings
        return await count_stored(settings.backend, self._parties, self._rooms.__contains__, settings.clock.now())

    def why_awake(self, key: RoomKey) -> WhyAwake:
        """Say what keeps a room awake, or that nothing does."""
        room = self._rooms.get(key)
        if room is None:
            return WhyAwake(room=key)
        clock = self._settings.clock
        rest = self._idle.rest(room) if self._is_idle(room) else None
        return explain(room, clock.monotonic(), None if rest is None else clock.now() + rest)

    def _is_idle(self, room: RoomRunner) -> bool:
        """Say whether a room stays awake for nothing but to be there when it is asked again."""
        # One that was idle may have been kept awake since by a task that was started outside of any event.
        return room in self._idle and room.may_sleep
