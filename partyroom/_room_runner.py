"""One awake room: one event at a time, from its mailbox to its output gate.

Owns the event that runs now, and what happens when an event ends: its writes are
sealed and handed on to be committed, its outputs wait at the gate. The instance
that events run in is :class:`~partyroom._room_life.RoomLife`'s.

Promises G1 to G6 and G9 to G12 for its one room: an event begins when the one
before it has ended, what it wrote and sent takes effect together or not at all,
nothing is told before it is safe, and a refused commit throws away whatever was
computed on it.

Must never read the time or the backend except through what it is given, and
never import what keeps it awake: it is told whom to call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast, final

from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.instants import length_micros
from partyroom._core.mailbox import Mailbox
from partyroom._core.output_gate import OutputGate
from partyroom._core.units import CURRENT, Event, Unit, check_is_left
from partyroom._handlers import begin_handler, callback, run_on_alarm_failed, run_on_close, run_on_error
from partyroom._ringing import conclude, find_due, keep_ringing, now, set_ringing
from partyroom._room_life import RoomLife
from partyroom._sealing import broken, confirm, fail_sealed, seal
from partyroom._services import RoomFactory, Services
from partyroom._timers import Entry, ticks
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
from partyroom.types import Alarm, AlarmRow, RoomKey

__all__ = ["RoomRunner"]

TURN: Final = 64
"""After how many events without a wait a busy room lets others run."""
INTERNAL_ERROR: Final = 1011
"""The close code for a client whose room broke (RFC 6455, 7.4.1)."""


@final
class RoomRunner(RoomLife):
    """One awake room."""

    __slots__ = ("_deadline", "_is_active", "_worker", "gate", "mailbox", "sealed")

    def __init__(self, key: RoomKey, services: Services, factory: RoomFactory, connections: Connections) -> None:
        super().__init__(key, services, factory, connections)
        self.mailbox = Mailbox(services.limits.mailbox)
        self.gate = OutputGate()
        self.sealed = 0
        self._is_active = False
        self._worker: Worker | None = None
        self._deadline: Entry | None = None

    # --- what comes in -------------------------------------------------------

    def post(self, event: Event) -> bool:
        """Let an event wait; say whether the mailbox had a place for it. Else its reply is set when there is one."""
        is_inside = self.mailbox.push(event)
        self.only_rang = False
        self._activate()
        return is_inside

    def post_own(self, event: Event) -> None:
        """Let an event of the runtime's own wait, whatever the bound."""
        self.mailbox.push_always(event)
        self._activate()

    def post_close(self, connection: RoomConnection, code: int, reason: str, *, was_clean: bool) -> None:
        """Let the news that a connection has ended wait, behind its messages."""
        run = partial(run_on_close, connection, code, reason, was_clean)
        event = Event(self, "close", "on_close", run, subject=connection)
        if self.services.probe is not None:
            self.services.probe.event_asked(event)
        self.post_own(event)

    def ring(self, row: AlarmRow | None = None, *, reply: Any = None) -> None:  # noqa: ANN401 - a one-shot
        """Have an alarm rung if it is due: ``row``, unless it was moved since, or whichever is due first."""
        event = Event(self, "ring", "on_alarm", subject=row)
        event.reply = reply
        self.post_own(event)

    def withdraw(self, event: Event) -> None:
        """Take out an event that its caller no longer wants; harmless if it has begun."""
        if not event.begun:
            self.mailbox.withdraw(event)
            self._let_in()

    def _activate(self) -> None:
        if not self._is_active:
            self._is_active = True
            self.services.work.take()
            self.services.keeper.room_busy(self)
            self.services.workers.submit(self)

    def _let_in(self) -> None:
        """Give the place that has become free to the next of those who wait outside."""
        admitted = self.mailbox.admit()
        if admitted is not None and admitted.kind == "message":
            admitted.reply.set(None)

    # --- what it is doing ----------------------------------------------------

    @property
    def is_waking(self) -> bool:
        """Whether something is to be done in it, and it is not started yet."""
        return self._is_active and not self._is_started

    @property
    def may_sleep(self) -> bool:
        """Whether nothing keeps the room awake: no event, no background task, no unanswered commit, no client it has to be awake for."""
        return not self._is_active and self.gate.is_open and self.may_forget()

    def unfinished(self) -> list[Event]:
        """Give the event that runs and those that wait."""
        return [*([] if self.running is None else [self.running]), *self.mailbox]

    def tasks(self) -> list[tuple[Event | str, float | None, object]]:
        """Give what runs, since when, and in which of the loop's own tasks: the running event, and background tasks by name."""
        found: list[tuple[Event | str, float | None, object]] = [
            (each.name, each.since, each.task) for each in self.background
        ]
        if self.running is not None and self._worker is not None:
            found.insert(0, (self.running, self.running.since, self._worker.task))
        return found

    def describe_work(self) -> list[str]:
        """Say what keeps the room from resting."""
        lines = [f"{event} {'runs' if event is self.running else 'waits'}" for event in self.unfinished()]
        if not self.gate.is_open:
            lines.append(f"{self.key}: ended events that wait for a commit: {len(self.gate)}")
        if self._background:
            names = ", ".join(sorted(each.name for each in self._background))
            lines.append(f"{self.key}: background tasks that run: {names}")
        return lines

    # --- the worker's way through the events ---------------------------------

    async def work(self, worker: Worker) -> None:
        """Handle what waits, until nothing does, or another worker has taken over."""
        self._worker = worker
        committer = self.services.committer
        handled = 0
        while True:
            rest = committer.begin()
            if rest is not None:
                # The backend takes its time. Another worker goes on with the room, this one sees the commits through.
                self._hand_over(worker)
                await rest
                return
            event = self.mailbox.pop()
            if event is None:
                worker.job = None
                self._rest()
                # If the room has left memory by that, its release is seen through in this very task.
                rest = committer.begin()
                if rest is not None:
                    await rest
                return
            if self.mailbox.outside is not None:
                self._let_in()
            await self._handle(event)
            if not worker.may_go_on():
                # Nothing more may be awaited in this one.
                self._hand_over(worker)
                committer.call_worker()
                return
            handled += 1
            if not handled % TURN:
                await checkpoint()

    def _hand_over(self, worker: Worker) -> None:
        worker.job = None
        if len(self.mailbox):
            self.services.workers.submit(self)
        else:
            self._rest()

    def _rest(self) -> None:
        self._is_active = False
        self.services.keeper.room_rests(self)
        self._settle()
        self.services.work.give()

    def _settle(self) -> None:
        """Say so, if nothing keeps the room awake."""
        if self.may_sleep:
            self.services.keeper.room_may_sleep(self)

    async def _handle(self, event: Event) -> None:
        event.begun = True
        self.running = event
        try:
            if self._is_ready_for(event) or await self._prepare(event):
                event.result = await self._begin(event)
                if CURRENT.get() is not event:
                    check_is_left(event)
        except Exception as error:  # noqa: BLE001 - told to whoever waits for the event
            event.error = error
        except BaseException as error:
            self._interrupt(event, error)
            if self._is_cut_short(error):
                raise
        finally:
            CURRENT.set(None)
            self._finish(event)

    def _is_ready_for(self, event: Event) -> bool:
        """Say whether an event may begin at once, as most do: awake, and no alarm to look for."""
        return self._is_started and event.kind != "ring" and not self.is_leaving

    async def _prepare(self, event: Event) -> bool:
        """Wake the room as far as an event needs it; ``False`` if there is nothing left to handle."""
        if event.kind == "ring":
            return await self._prepare_ring(event)
        if event.kind == "steer":
            await self.claim()
        else:
            await self.wake(event)
        return True

    def _begin(self, event: Event) -> Awaitable[Any]:
        """Let what runs from here on be part of ``event``; give what is to be awaited for its result."""
        services = self.services
        limits = services.limits
        limit = limits.alarm_timeout if event.kind == "ring" else limits.event_timeout
        CURRENT.set(event)
        event.since = services.monotonic()
        if limit is not None:
            due = ticks(event.since) + length_micros(limit)
            timers = services.clock.monotonic_timers
            self._deadline = timers.call_at(due, partial(self._time_out, event, limit), "timeout", self.key, event.name)
        if services.probe is not None:
            services.probe.event_began(event)
        return begin_handler(event, self)

    # --- an event that is ended from outside ---------------------------------

    def _time_out(self, event: Event, limit: timedelta) -> None:
        self.cut(EventTimeoutError(f"{event} ran longer than {limit}"))

    def cut(self, error: BaseException) -> None:
        """End the running event now: it fails with ``error``, whatever its handler makes of the cancellation."""
        running = self.running
        if running is None or running.cut is not None:
            return
        running.cut = error
        assert self._worker is not None
        self._worker.scope.cancel()
        nested = running.nested
        while nested is not None:
            # What came back along the chain runs in tasks of other rooms, shielded from them: it ends with this event.
            if nested.stop is not None:
                nested.stop()
            nested = nested.nested

    def _break_off(self, error: RoomBrokenError) -> None:
        """End the running event, since what it was computed on is gone: also if it is ending for another reason already.

        For that would have a ring that failed store its retry, and nothing can be stored any more.
        """
        running = self.running
        if running is not None and running.cut is not None:
            running.cut = error
        self.cut(error)

    def cut_off(self, error: RuntimeClosedError) -> None:
        """End everything that was not done in time."""
        while (event := self.mailbox.pop()) is not None:
            self.mailbox.admit()
            if event.reply is not None:
                event.reply.fail(error)
        self.cut(error)
        if self._background:
            self._background.cancel()

    def crash(self, error: RuntimeClosedError) -> None:
        """Tell everybody who waits that nobody will answer; what ran is cancelled, what was not stored is gone."""
        for event in self.gate.shut():
            if event.reply is not None:
                event.reply.fail(error)
            self.services.work.give()
        if self.running is not None and self.running.reply is not None:
            self.running.reply.fail(error)
        self.cut_off(error)

    @override
    def abort(self, reason: str) -> Exception:
        error = RoomAbortedError(f"{self.key}: aborted{': ' if reason else ''}{reason}")
        if self.running is None:
            self.discard()
        else:
            self.cut(error)
        return error

    def _interrupt(self, event: Event, error: BaseException) -> None:
        """Give an event that ended by something else than an ``Exception`` an error to tell."""
        rest = _uncancelled(error)
        if event.error is None:
            event.error = rest if isinstance(rest, Exception) else _cancelled(event, error)
        if rest is not None and not isinstance(rest, Exception):
            self.services.keeper.fail(rest)

    def _is_cut_short(self, error: BaseException) -> bool:
        """Say whether this is the cancellation of the worker's own scope; any other one is the handler's, and ends with it."""
        assert self._worker is not None
        return isinstance(error, get_cancelled_exc_class()) and self._worker.scope.cancel_called

    @override
    async def run_start(self, on_start: Callable[[], Awaitable[Any]], waiting: Event) -> None:
        # As if called by the event that waits for it: whoever waits for that one, waits for this one.
        event = Event(self, "start", "on_start", lambda _: on_start(), caller=waiting)
        event.begun = True
        waiting.calls = [event]
        self.running = event
        try:
            await self._begin(event)
            check_is_left(event)
        except BaseException as error:
            event.error = error
            raise
        finally:
            CURRENT.set(None)
            waiting.calls = None
            self._finish(event)
            self.running = waiting
            waiting.error = event.cut
            # What it wrote is not waited for, but should not wait for the end of the next event either.
            self.services.committer.call_worker()
        if event.error is not None:
            raise event.error

    # --- the end of an event -------------------------------------------------

    def _finish(self, event: Event) -> None:
        event.open = False
        self.running = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if event.error is not None or event.cut is not None or event.ringing is not None or event.kind == "close":
            self._conclude(event)
        probe = self.services.probe
        if probe is not None:
            probe.event_ended(event)
        if event.kind == "ring":
            # That is how a ring which found its alarm is told from one which did not.
            event.result = event.subject
        seal(self, event)
        if event.kind == "ring" and event.sealed_as:
            self._leave_with_it()
        if event.error is not None:
            self._report(event, event.error)
        if event.cut is not None or (
            probe is not None and probe.sleeps_at_once and event.kind != "start" and self.may_forget()
        ):
            self.discard()

    def _conclude(self, event: Event) -> None:
        """Decide what an event comes to: one that failed has written and sent nothing, but what becomes of its alarm."""
        if event.cut is not None:
            event.error = event.cut
        if event.error is not None:
            event.writes = event.outputs = None
        if event.kind == "close" or (event.kind == "connect" and event.error is not None):
            # Also where the handler was not reached.
            self.connections.discard(event.subject)
        if event.ringing is not None and conclude(self, event):
            self._tell_given_up(event)

    def _leave_with_it(self) -> None:
        """Have the claim end with the ring that was just sealed, if the room will sleep once that is stored.

        A commit of its own for each release would be half of what a burst of alarms costs the backend.
        """
        if not len(self.mailbox) and self.may_forget() and self.services.keeper.sleeps_at_once(self):
            self.is_leaving = True
            self.release()

    @override
    def release(self) -> None:
        self.services.committer.add_release(self)

    def seal(self, event: Event) -> None:
        """Let an ended event leave when everything before it, and its own writes, are durable (G4)."""
        seal(self, event)

    def stored(self, number: int) -> None:
        """Hear that everything up to the commit of this number is durable."""
        confirm(self, number)
        if self.is_leaving and number == self.sealed:
            self.lose_claim()
        if not self._is_active:
            self._settle()

    def refused(self, error: BaseException) -> None:
        """Hear that a commit was refused, or that its outcome is unknown: nothing computed on it survives (G5)."""
        self.services.committer.drop(self)
        # What waits for the end of the claim was computed on nothing of it, and goes on.
        is_computed = self._left is None
        self.lose_claim()
        fail_sealed(self, error)
        self.services.keeper.event_failed(Event(self, "commit", "commit"), broken(self, error))
        for connection in self.connections.select():
            connection.end(INTERNAL_ERROR, "the room broke", was_clean=False)
        if is_computed:
            self._break_off(broken(self, error))
        # Which alarms are stored now, nobody knows: the room is to look, but not at once. A full disk would have one ring
        # again and again without a pause.
        self.services.scheduling.failed_to_start(self.key)
        self._settle()

    def _report(self, event: Event, error: BaseException) -> None:
        """Let ``on_error`` hear of an error in a connection's callback, as the very next event; tell the keeper of any other."""
        if event.kind == "start" or (event.kind == "connect" and isinstance(error, ConnectRejectedError)):
            # The event that woke the room fails with the same error, and is reported; a refusal is no fault.
            return
        is_heard = event.kind in {"connect", "message", "close"} and self._hears("on_error")
        # A room does not hear of its own breaking, or of the runtime's end.
        if not is_heard or not isinstance(error, Exception) or isinstance(error, RoomBrokenError | RuntimeClosedError):
            self.services.keeper.event_failed(event, error)
            return
        heard = Event(self, "error", "on_error", partial(run_on_error, event.subject, error), subject=event.subject)
        heard.follows = event
        self.mailbox.push_first(heard)
        if self.services.probe is not None:
            self.services.probe.event_failed(event, error, heard=True)

    def _hears(self, name: str) -> bool:
        """Say whether the room has a callback for how an event came to its end; an object that raises if asked has none."""
        try:
            return callback(self.instance, name) is not None
        except Exception as error:  # noqa: BLE001 - there is no event any more that could fail by it
            self.services.keeper.event_failed(Event(self, "error", name), error)
            return False

    # --- alarms --------------------------------------------------------------

    async def _prepare_ring(self, event: Event) -> bool:
        """Look what is due, wake the room for it, and look again: it may have been moved meanwhile (G11)."""
        wanted: AlarmRow | None = event.subject
        event.subject = None
        try:
            await self.claim()
            until = now(self)
            row = find_due(await self.state.alarms(), wanted, until)
            if row is None:
                return False
            if not self._is_started and await self.wake(event):
                # It may have set an alarm.
                row = find_due(await self.state.alarms(), row, until)
            on_alarm = callback(self.instance, "on_alarm")
        except BaseException:
            # Not the alarm's fault, so no retry of it is used up: it is stored as it was.
            event.kind = "wake"
            self.services.scheduling.failed_to_start(self.key)
            raise
        if row is None:
            return False
        if on_alarm is None:
            event.kind = "wake"
            self.services.scheduling.no_handler(self.key, type(self.instance))
            return False
        return set_ringing(self, event, row, on_alarm)

    def _tell_given_up(self, event: Event) -> None:
        """Let the room hear of an alarm that has raised for the last time."""
        alarm, error = event.subject, event.error
        if isinstance(alarm, Alarm) and self._hears("on_alarm_failed"):
            failed = Event(self, "alarm_failed", "on_alarm_failed", partial(run_on_alarm_failed, alarm, error))
            failed.follows = event
            self.mailbox.push_first(failed)

    # --- what a room asks for ------------------------------------------------

    @override
    async def sync(self, unit: Unit) -> None:
        if unit.parent is not None:
            message = f"{self.key}: sync() inside a transaction or a nested event"
            raise RuntimeError(message)
        part = Event(self, "sync", "sync")
        part.follows = unit.event
        part.writes, unit.writes = unit.writes, None
        part.outputs, unit.outputs = unit.outputs, None
        part.open = False
        part.reply = self.services.loop.one_shot()
        if part.writes is not None and unit.event.ringing is not None:
            keep_ringing(unit.event, part.writes)
        seal(self, part)
        self.services.committer.call_worker()
        await self.services.work.wait(part.reply)

    @override
    def task_ended(self) -> None:
        self.services.keeper.task_ended()
        self._settle()
        self.services.committer.call_worker()


def _uncancelled(error: BaseException) -> BaseException | None:
    """Give what of an error is no cancellation: trio's nurseries put both into one group."""
    cancelled = get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(cancelled)[1]
    return None if isinstance(error, cancelled) else error


def _cancelled(event: Event, error: BaseException) -> EventCancelledError:
    told = EventCancelledError(f"{event} was cancelled by its own code, or interrupted")
    told.__cause__ = error
    return told
