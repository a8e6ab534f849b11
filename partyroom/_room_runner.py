"""One awake room: one event at a time, from its mailbox to its output gate.

Owns the room's instance and its life, the event that runs now, and what happens
when an event ends: its writes are sealed and handed on to be committed, its
outputs wait at the gate.

Promises G1 to G6 and G9 to G12 for its one room: an event begins when the one
before it has ended, what it wrote and sent takes effect together or not at all,
nothing is told before it is safe, and a refused commit throws away whatever was
computed on it.

Must never read the time or the backend except through what it is given, and
never import what keeps it awake: it is told whom to call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, Final, NoReturn, final

from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from partyroom._core.mailbox import Mailbox
from partyroom._core.output_gate import OutputGate
from partyroom._core.units import CURRENT, Event, Unit
from partyroom._ringing import conclude, find_due, keep_ringing, set_ringing
from partyroom._room_clock import microseconds
from partyroom._room_context import Context
from partyroom._room_state import RoomState
from partyroom._services import RoomFactory, Services
from partyroom._timers import Entry
from partyroom._work import HOLDER, Holder
from partyroom._workers import Worker
from partyroom.connections import Connections, RoomConnection
from partyroom.errors import (
    ConnectRejectedError,
    EventCancelledError,
    EventTimeoutError,
    RoomAbortedError,
    RoomBrokenError,
    RuntimeClosedError,
)
from partyroom.protocols import Room
from partyroom.types import Alarm, AlarmRow, RoomKey, Timer

__all__ = ["RoomRunner", "callback"]

TURN: Final = 64
"""After how many events without a wait a busy room lets others run."""
REPLACED: Final = 1000
"""The close code for a client whose place a newer connection of its id has taken: normal, so that it does not come back."""
POLICY_VIOLATION: Final = 1008
"""The close code for a client whose id is in use (RFC 6455, 7.4.1)."""
INTERNAL_ERROR: Final = 1011
"""The close code for a client whose room broke (RFC 6455, 7.4.1)."""


def callback(instance: object, name: str) -> Callable[..., Awaitable[Any]] | None:
    """Give a room's callback if its class has it: a missing or inherited default is ``None``."""
    found: Any = getattr(instance, name, None)
    if found is None or getattr(found, "__func__", found) is getattr(Room, name):
        return None
    return found  # type: ignore[no-any-return]


@final
class _Background:
    """One task that a room started beside its events."""

    __slots__ = ("ended_by_room", "name", "scope", "task")

    def __init__(self, name: str) -> None:
        self.name = name
        self.task: object = None
        """The loop's own task, once it runs."""
        self.scope = CancelScope(shield=True)
        self.ended_by_room = False


@final
class RoomRunner:
    """One awake room."""

    __slots__ = (
        "_active",
        "_background",
        "_deadline",
        "_factory",
        "_sealed",
        "_started",
        "_worker",
        "connections",
        "context",
        "fence",
        "gate",
        "instance",
        "key",
        "mailbox",
        "only_rang",
        "running",
        "services",
        "state",
    )

    def __init__(self, key: RoomKey, services: Services, factory: RoomFactory, connections: Connections) -> None:
        self.key = key
        self.services = services
        self.state = RoomState(key, services.backend, services.cache)
        self.connections = connections
        connections.place = self
        self.mailbox = Mailbox(services.limits.mailbox)
        self.gate = OutputGate()
        self.context = Context(self)
        self.instance: Room | None = None
        self.running: Event | None = None
        self.fence = 0
        """The number to commit with; 0 while the room is not claimed."""
        self.only_rang = True
        """Whether nothing but its alarm has woken the room, so that it may sleep again at once."""
        self._factory = factory
        self._started = False
        self._active = False
        self._sealed = 0
        self._worker: Worker | None = None
        self._background: set[_Background] | None = None
        self._deadline: Entry | None = None

    def __repr__(self) -> str:
        return f"<room {self.key}>"

    # --- what comes in -------------------------------------------------------

    def post(self, event: Event) -> bool:
        """Let an event wait; say whether the mailbox had a place for it."""
        taken = self.mailbox.push(event)
        self.only_rang = False
        self._activate()
        return taken

    def post_own(self, event: Event) -> None:
        """Let an event of the runtime's own wait, whatever the bound."""
        self.mailbox.push_always(event)
        self._activate()

    def _activate(self) -> None:
        if not self._active:
            self._active = True
            self.services.work.take()
            self.services.keeper.room_busy(self)
            self.services.workers.submit(self)

    @property
    def is_active(self) -> bool:
        """Whether an event waits or runs."""
        return self._active

    @property
    def may_sleep(self) -> bool:
        """Whether nothing keeps the room awake: no event, no background task, no unanswered commit, no client it has to be awake for."""
        if self._active or self._background or not self.gate.is_open:
            return False
        return not self.connections or bool(getattr(self.instance, "hibernate", False))

    def _may_forget(self) -> bool:
        """Say whether another instance could take over after this event."""
        return not self._background and (not self.connections or bool(getattr(self.instance, "hibernate", False)))

    # --- the worker's way through the events ---------------------------------

    async def work(self, worker: Worker) -> None:
        """Handle what waits, until nothing does, or another worker has taken over."""
        self._worker = worker
        services = self.services
        for _ in range(TURN):
            if worker.scope.cancel_called or not worker.is_clean():
                # This worker's scope is spent: a commit must not be awaited in it.
                services.committer.call_worker()
                self._hand_over()
                return
            rest = services.committer.begin()
            if rest is not None:
                # The backend takes its time. Another worker goes on with the room, this one sees the commits through.
                self._hand_over()
                await rest
                return
            event = self.mailbox.pop()
            if event is None:
                self._rest()
                return
            admitted = self.mailbox.admit()
            if admitted is not None and admitted.kind == "message":
                admitted.reply.set(None)
            await self._handle(event)
            if services.probe is not None and services.probe.sleeps_at_once and self._may_forget():
                self.discard()
        self._hand_over()
        await checkpoint()

    def _hand_over(self) -> None:
        if len(self.mailbox):
            self.services.workers.submit(self)
        else:
            self._rest()

    def _rest(self) -> None:
        self._active = False
        self.services.keeper.room_rests(self)
        self._settle()
        self.services.work.give()

    def _settle(self) -> None:
        """Say so, if nothing keeps the room awake."""
        if self.may_sleep:
            self.services.keeper.room_may_sleep(self)

    async def _handle(self, event: Event) -> None:
        event.begun = True
        try:
            if event.kind == "ring":
                if not await self._prepare_ring(event):
                    return
            elif event.kind == "steer":
                await self.claim()
            elif not self._started:
                await self._start(event)
            self._begin(event)
            assert event.run is not None
            event.result = await event.run(self.instance)
        except Exception as error:  # noqa: BLE001 - told to whoever waits for the event
            event.error = error
        except BaseException as error:
            self._interrupt(event, error)
            if self._is_ours(error):
                return
            raise
        finally:
            CURRENT.set(None)
            self._finish(event)

    def _begin(self, event: Event) -> None:
        """Let what runs from here on be part of ``event``."""
        limits = self.services.limits
        self.running = event
        self._limit_time(event, limits.alarm_timeout if event.kind == "ring" else limits.event_timeout)
        CURRENT.set(event)
        if self.services.probe is not None:
            self.services.probe.event_began(event)

    def _interrupt(self, event: Event, error: BaseException) -> None:
        """Give an event that ended by something else than an ``Exception`` an error to tell."""
        if event.error is not None:
            return
        message = f"{event} was cancelled by its own code"
        event.error = EventCancelledError(message)
        event.error.__cause__ = error

    def _is_ours(self, error: BaseException) -> bool:
        """Say whether this is a cancellation that only the handler knows of: the worker goes on."""
        assert self._worker is not None
        return isinstance(error, get_cancelled_exc_class()) and not self._worker.scope.cancel_called

    def _limit_time(self, event: Event, limit: timedelta | None) -> None:
        if limit is None:
            return
        clock = self.services.clock
        self._deadline = clock.monotonic_timers.call_at(
            clock.ticks() + microseconds(limit),
            Timer(self.key, "timeout", event.name),
            partial(self._time_out, event, limit),
        )

    def _time_out(self, event: Event, limit: timedelta) -> None:
        message = f"{event} ran longer than {limit}"
        self.cut(EventTimeoutError(message), event)

    def cut(self, error: BaseException, event: Event | None = None) -> None:
        """End the running event now: it fails with ``error``, whatever its handler makes of the cancellation."""
        running = self.running
        if running is None or (event is not None and event is not running) or running.cut is not None:
            return
        running.cut = error
        # From here to the event's end the worker moves, even if its handler was waiting with its token given back.
        self.services.work.take()
        assert self._worker is not None
        self._worker.scope.cancel()

    def unfinished(self) -> list[Event]:
        """Give the event that runs and those that wait."""
        return [*([] if self.running is None else [self.running]), *self.mailbox]

    def cut_off(self, error: RuntimeClosedError) -> None:
        """End everything that was not done in time."""
        while (event := self.mailbox.pop() or self.mailbox.admit()) is not None:
            if event.reply is not None:
                event.reply.fail(error)
        self.cut(error)

    def crash(self, error: RuntimeClosedError) -> None:
        """Tell everybody who waits that nobody will answer; what ran is cancelled, what was not stored is gone."""
        for event in [*self.unfinished(), *self.gate.shut()]:
            if event.reply is not None:
                event.reply.fail(error)
        self.cut_off(error)

    def describe_work(self) -> list[str]:
        """Say what keeps the room from resting."""
        lines = [f"{event} {'runs' if event is self.running else 'waits'}" for event in self.unfinished()]
        if not self.gate.is_open:
            lines.append(f"{self.key}: {len(self.gate)} ended events wait for a commit")
        if self._background:
            lines.append(f"{self.key}: {len(self._background)} background tasks run")
        return lines

    def tasks(self) -> list[tuple[Event | str, object]]:
        """Give what runs, and in which of the loop's own tasks: the running event, and the names of background tasks."""
        found: list[tuple[Event | str, object]] = [(each.name, each.task) for each in self._background or ()]
        if self.running is not None and self._worker is not None:
            found.insert(0, (self.running, self._worker.task))
        return found

    def can_ring(self) -> bool:
        """Say whether the room's class has an ``on_alarm``."""
        return callback(self.instance, "on_alarm") is not None

    # --- the instance's life -------------------------------------------------

    async def claim(self) -> None:
        """Take the room, if it is not taken yet."""
        if not self.fence:
            self.fence = await self.services.backend.claim(self.key)

    async def _start(self, event: Event) -> None:
        """Wake the room for ``event``: constructor, then ``on_start`` to its end, as an event of its own (G2)."""
        await self.claim()
        self.instance = self._factory(self.context)
        on_start = callback(self.instance, "on_start")
        if on_start is not None:
            await self._run_start(on_start, event)
        self._started = True

    async def _run_start(self, on_start: Callable[[], Awaitable[Any]], waiting: Event) -> None:
        event = Event(self, "start", "on_start")
        event.begun = True
        self._begin(event)
        try:
            await on_start()
        except BaseException as error:
            event.error = error
            raise
        finally:
            CURRENT.set(None)
            self._finish(event)
            # The event that woke the room may wait for long, and this worker is busy with it.
            self.services.committer.call_worker()
            if event.error is not None:
                self.discard()
                waiting.error = event.cut
        if event.error is not None:
            raise event.error

    def discard(self) -> None:
        """Throw the instance away: the next event starts a fresh one. Clients stay connected (G3)."""
        self.instance = None
        self._started = False
        for background in self._background or ():
            if not background.ended_by_room:
                background.ended_by_room = True
                self.services.work.take()
                background.scope.cancel()

    def sleep(self) -> None:
        """Leave memory; called by the keeper, when nothing keeps the room awake."""
        self.discard()
        self.connections.place = None
        self.state.close()
        if self.fence:
            self.services.committer.add_release(self)

    # --- the end of an event -------------------------------------------------

    def _finish(self, event: Event) -> None:
        event.open = False
        self.running = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if event.cut is not None:
            event.error = event.cut
        if event.error is not None:
            event.writes = event.outputs = None
        if event.ringing is not None:
            self._conclude_ring(event)
        if self.services.probe is not None:
            self.services.probe.event_ended(event)
        self.seal(event)
        if event.error is not None:
            self._report(event, event.error)
        if event.cut is not None:
            self.discard()
            self.services.work.give()

    def seal(self, event: Event) -> None:
        """Let an ended event leave when everything before it, and its own writes, are durable (G4)."""
        writes = event.writes
        if writes:
            self._sealed += 1
            event.sealed_as = self._sealed
            if self.services.probe is not None:
                self.services.probe.event_sealed(event)
            self.state.apply(self._sealed, writes)
            self.services.committer.add(self, writes, self._sealed)
        elif self.gate.is_open:
            self._let_out(event)
            return
        self.services.work.take()
        self.gate.add(event)

    def _let_out(self, event: Event) -> None:
        if event.error is None:
            for output in event.outputs or ():
                output()
        if event.kind == "connect" and event.error is None:
            event.subject.settle_in()
        elif event.kind == "ring":
            self.services.keeper.alarm_changed(self.key, self.state.next_due())
        if event.reply is None or event.kind == "message":
            return
        if event.error is None:
            event.reply.set(event.result)
        else:
            event.reply.fail(event.error)

    def stored(self, number: int) -> None:
        """Hear that everything up to the commit of this number is durable."""
        self.state.confirm(number)
        moved = False
        for event in self.gate.confirm(number):
            writes = event.writes
            moved = moved or (writes is not None and (writes.clear or bool(writes.alarms)))
            self._let_out(event)
            self.services.work.give()
        if moved:
            self.services.keeper.alarm_changed(self.key, self.state.next_due())
        self._settle()

    def refused(self, error: Exception) -> None:
        """Hear that a commit was refused, or that its outcome is unknown: nothing computed on it survives (G5)."""
        message = f"{self.key}: a commit was refused, so what was computed on it is gone: {error}"
        broken = RoomBrokenError(message)
        broken.__cause__ = error
        self.services.committer.drop(self)
        self.fence = 0
        self.state.reset()
        self.discard()
        for event in self.gate.shut():
            if event.error is None:
                event.error = broken
            self._let_out(event)
            self.services.work.give()
        self.services.keeper.event_failed(Event(self, "commit", "commit"), broken)
        for connection in self.connections.select():
            connection.end(INTERNAL_ERROR, "the room broke", was_clean=False)
        self.cut(broken)
        # Nobody knows which alarms are stored now: the room is to look.
        self.services.keeper.alarm_changed(self.key, self.services.clock.clock.now())
        self._settle()

    def _report(self, event: Event, error: BaseException) -> None:
        """Let ``on_error`` hear of an error in a connection's callback, as the very next event; tell the keeper of any."""
        if event.kind == "start" or isinstance(error, ConnectRejectedError):
            # The event that woke the room fails with the same error, and is reported; a refusal is no fault.
            return
        on_error = callback(self.instance, "on_error")
        if event.kind in {"connect", "message", "close"} and on_error is not None and isinstance(error, Exception):
            heard = Event(self, "error", "on_error", partial(_run_on_error, event.subject, error))
            heard.subject = event.subject
            self.mailbox.push_first(heard)
            if self.services.probe is not None:
                self.services.probe.event_failed(event, error, heard=True)
            return
        self.services.keeper.event_failed(event, error)

    # --- alarms --------------------------------------------------------------

    def ring(self, row: AlarmRow | None = None, *, reply: Any = None) -> None:  # noqa: ANN401 - a one-shot
        """Have an alarm rung if it is due: ``row``, unless it was moved since, or whichever is due first."""
        event = Event(self, "ring", "on_alarm")
        event.subject = row
        event.reply = reply
        self.post_own(event)

    async def _prepare_ring(self, event: Event) -> bool:
        """Look what is due, wake the room for it, and look again: it may have been moved meanwhile (G11)."""
        wanted: AlarmRow | None = event.subject
        event.subject = None
        try:
            await self.claim()
            row = await find_due(self, wanted)
            if row is None:
                return False
            if not self._started:
                await self._start(event)
                row = await find_due(self, row)
        except BaseException:
            # Not the alarm's fault, so no retry of it is used up: it is stored as it was.
            event.kind = "wake"
            self.services.keeper.ring_failed_to_start(self.key)
            raise
        if row is None:
            return False
        on_alarm = callback(self.instance, "on_alarm")
        if on_alarm is None:
            event.kind = "wake"
            self.services.keeper.alarm_without_handler(self.key, type(self.instance))
            return False
        return set_ringing(self, event, row, on_alarm)

    def _conclude_ring(self, event: Event) -> None:
        alarm, error = event.subject, event.error
        if conclude(self, event) and isinstance(alarm, Alarm) and callback(self.instance, "on_alarm_failed") is not None:
            self.mailbox.push_first(Event(self, "alarm_failed", "on_alarm_failed", partial(_run_on_alarm_failed, alarm, error)))

    # --- what a room asks for ------------------------------------------------

    async def sync(self, unit: Unit) -> None:
        """Commit what the running event has done so far (G3)."""
        if unit.parent is not None:
            message = f"{self.key}: sync() inside a transaction or a nested event"
            raise RuntimeError(message)
        part = Event(self, "sync", "sync")
        part.writes, unit.writes = unit.writes, None
        part.outputs, unit.outputs = unit.outputs, None
        part.open = False
        part.reply = self.services.loop.one_shot()
        if part.writes is not None and unit.event.ringing is not None:
            keep_ringing(unit.event, part.writes)
        self.seal(part)
        self.services.committer.call_worker()
        await self.services.work.wait(part.reply)

    def abort(self, reason: str) -> NoReturn:
        """Throw the instance away, and end the running event."""
        error = RoomAbortedError(f"{self.key}: aborted{': ' if reason else ''}{reason}")
        if self.running is None:
            self.discard()
        else:
            self.cut(error)
        raise error

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Start a background task, outside of any event (G6a)."""
        background = _Background(getattr(fn, "__qualname__", repr(fn)))
        if self._background is None:
            self._background = set()
        self._background.add(background)
        self.services.work.take()
        context = copy_context()
        context.run(CURRENT.set, None)
        context.run(self.services.spawn, self._run_background, (background, fn, args))

    async def _run_background(
        self, background: _Background, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        services = self.services
        background.task = services.loop.current_task()
        HOLDER.set(Holder(background.task))
        try:
            with background.scope:
                await fn(*args)
        except Exception as error:  # noqa: BLE001 - it breaks nothing else
            services.keeper.event_failed(Event(self, "task", background.name), error)
        finally:
            assert self._background is not None
            self._background.discard(background)
            self._settle()
            services.work.give()
            if background.ended_by_room:
                services.work.give()

    # --- connections ---------------------------------------------------------

    def post_message(self, connection: RoomConnection, message: str | bytes) -> Event | None:
        """Let a client's message wait; give the event if there is no place for it yet, with a reply that says when."""
        event = Event(self, "message", "on_message", partial(self._run_on_message, connection, message))
        event.subject = connection
        if self.post(event):
            return None
        event.reply = self.services.loop.one_shot()
        return event

    def post_close(self, connection: RoomConnection, code: int, reason: str, was_clean: bool) -> None:  # noqa: FBT001
        """Let the news that a connection has ended wait, behind its messages."""
        event = Event(self, "close", "on_close", partial(self._run_on_close, connection, code, reason, was_clean))
        event.subject = connection
        self.post_own(event)

    async def run_on_connect(self, connection: RoomConnection, instance: Room) -> None:
        """Let a connection in, as an event's handler."""
        try:
            tags = getattr(instance, "connection_tags", None)
            if tags is not None:
                connection.add_tags(tags(connection))
            self._settle_same_id(connection, getattr(instance, "same_id", Room.same_id))
            self.connections.add(connection)
            on_connect = callback(instance, "on_connect")
            if on_connect is not None:
                await on_connect(connection)
        except BaseException:
            self.connections.discard(connection)
            raise
        finally:
            connection.forget_request()

    def _settle_same_id(self, connection: RoomConnection, policy: str) -> None:
        """Do as the room says about open connections of the same id; one that is replaced goes when the new one is let in."""
        if policy == "allow":
            return
        older = self.connections.older(connection)
        if older and policy == "refuse":
            raise ConnectRejectedError(POLICY_VIOLATION, "this connection id is in use")
        for each in older:
            each.close(REPLACED, "replaced by a newer connection of the same id")

    async def _run_on_message(self, connection: RoomConnection, message: str | bytes, instance: Room) -> None:
        on_message = callback(instance, "on_message")
        if on_message is not None and connection in self.connections:
            await on_message(message, connection)

    async def _run_on_close(
        self, connection: RoomConnection, code: int, reason: str, was_clean: bool, instance: Room  # noqa: FBT001
    ) -> None:
        self.connections.discard(connection)
        on_close = callback(instance, "on_close")
        if on_close is not None:
            await on_close(connection, code, reason, was_clean)


async def _run_on_alarm_failed(alarm: Alarm, error: BaseException | None, instance: Room) -> None:
    assert isinstance(error, Exception)
    await instance.on_alarm_failed(alarm, error)


async def _run_on_error(connection: RoomConnection, error: Exception, instance: Room) -> None:
    await instance.on_error(connection, error)
