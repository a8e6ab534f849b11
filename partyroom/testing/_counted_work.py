"""What a clock of a test knows of a runtime: whether time may move, and if not, why.

Owns the questions that a fake clock asks (:class:`CountedWork`), a runtime's
answers to them (:class:`RuntimeWork`), and those of several together
(:class:`AllWork`).

Promises that the answers are exact: they come from the runtime's own count of
what is in flight, on every loop and across threads.

Must never change anything in the runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, final

from typing_extensions import override

from partyroom._core.instants import from_micros
from partyroom._core.units import Event
from partyroom._engine import Engine
from partyroom._room_runner import RoomRunner
from partyroom.connections import RoomConnection
from partyroom.runtime import Runtime
from partyroom.testing._waiting_places import waiting_place
from partyroom.testing.timers import Pending
from partyroom.types import RoomKey, Timer

__all__ = ["AllWork", "CountedWork", "RuntimeWork"]

ASKED: Final = {"call", "request", "steer", "connect", "ring"}
"""The kinds of events that a host asks for, and waits for the outcome of."""
NEVER: Final = datetime.max.replace(tzinfo=UTC)


class CountedWork(Protocol):
    """Something that counts its work in flight."""

    def is_idle(self) -> bool:
        """Say whether nothing is in flight."""
        ...

    async def wait_idle(self) -> None:
        """Return when nothing is in flight."""
        ...

    def describe(self) -> list[str]:
        """Say what is in flight, a line each."""
        ...

    def pending_timers(self) -> list[tuple[datetime, Timer]]:
        """Give what waits in memory for its time, whoever sleeps for it."""
        ...

    def rings(self, room: RoomKey, due: datetime) -> bool:
        """Say whether an alarm of ``room`` may still ring at ``due``; a scheduler may sleep on for one that was deleted since."""
        ...

    def is_cancelled(self, timer: Timer) -> bool:
        """Say whether a timer of this is still slept for, though nobody wants it any more."""
        ...

    def is_called(self, timer: Timer) -> bool:
        """Hear that a sleep ends; say whether whoever sleeps is one of these, and is counted as in flight from here on."""
        ...

    def next_alarm(self) -> tuple[datetime, RoomKey] | None:
        """Give which alarm rings next, as far as that is known here."""
        ...

    def is_awaited(self) -> bool:
        """Say whether code of the host waits for something of this."""
        ...

    def awaited_calls(self) -> list[Event]:
        """Give what code of the host has called and waits for."""
        ...

    def awaited_inboxes(self) -> list[RoomConnection]:
        """Give the connections on which code of the host waits for a message."""
        ...

    def sleeps(self) -> bool:
        """Say whether a room sleeps on the clock."""
        ...

    def when_awaited(self, call: Callable[[], None] | None) -> None:
        """Have ``call`` called whenever code of the host begins to wait; ``None`` for no more."""
        ...


@final
class RuntimeWork(CountedWork):
    """The work in flight of one runtime, from one entering of it to the next."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._knows_alarms = False
        self.due: dict[RoomKey, datetime] = {}
        """When each room's next alarm is due, once :meth:`learn_alarms` was called."""

    async def learn_alarms(self, engine: Engine, *, rings: bool) -> None:
        """Read when which room's next alarm is due, and hear of every change; ``rings``: whether they ring by themselves."""
        rows = await engine.alarms.all_rows(None)
        self.due.clear()
        self.due.update((row.room, from_micros(row.due)) for row in reversed(rows) if row.due is not None)
        self._knows_alarms = rings
        engine.scheduling.listener = self._hear_of_alarm

    def _hear_of_alarm(self, room: RoomKey, due: datetime | None) -> None:
        if due is None:
            self.due.pop(room, None)
        else:
            self.due[room] = due

    def _engine(self) -> Engine | None:
        return self._runtime.running()

    @override
    def is_idle(self) -> bool:
        engine = self._engine()
        return engine is None or not engine.work.count

    @override
    async def wait_idle(self) -> None:
        engine = self._engine()
        if engine is not None:
            await engine.work.wait_idle()

    @override
    def describe(self) -> list[str]:
        engine = self._engine()
        if engine is None:
            return []
        asleep = {timer.room for _, timer in engine.pending_timers() if timer.kind == "sleep"}
        lines = [line for room in engine.all_awake() for line in self._describe(room, is_asleep=room.key in asleep)]
        return lines or ([f"{engine.work.count} pieces of the runtime's own work"] if engine.work.count else [])

    def _describe(self, room: RoomRunner, *, is_asleep: bool) -> list[str]:
        lines: list[str] = []
        for what, since, task in room.tasks():
            name = str(what) if isinstance(what, Event) else f"{room.key} background task {what}"
            line = f"{name} {_age(since, room.services.monotonic())}"
            place = waiting_place(task)
            if place:
                line += f", and waits at {place}"
            if is_asleep:
                line += " (it sleeps on ctx.clock outside of the handler's own task: open branches by ctx.task_group())"
            lines.append(line)
        lines += [f"{event} waits for its turn" for event in room.mailbox]
        if not room.gate.is_open:
            lines.append(f"{room.key}: ended events that wait for a commit: {len(room.gate)}")
        return lines

    @override
    def pending_timers(self) -> list[tuple[datetime, Timer]]:
        return self._runtime.pending_timers()

    @override
    def rings(self, room: RoomKey, due: datetime) -> bool:
        return not self._knows_alarms or self.due.get(room, NEVER) <= due

    @override
    def is_cancelled(self, timer: Timer) -> bool:
        engine = self._engine()
        return engine is not None and engine.is_cancelled(timer)

    @override
    def is_called(self, timer: Timer) -> bool:
        engine = self._engine()
        return engine is not None and engine.is_called(timer)

    @override
    def next_alarm(self) -> tuple[datetime, RoomKey] | None:
        return min((due, room) for room, due in self.due.items()) if self._knows_alarms and self.due else None

    @override
    def is_awaited(self) -> bool:
        engine = self._engine()
        return engine is not None and engine.work.hosts > 0

    @override
    def sleeps(self) -> bool:
        return any(timer.kind == "sleep" for _, timer in self.pending_timers())

    @override
    def awaited_inboxes(self) -> list[RoomConnection]:
        engine = self._engine()
        return [] if engine is None else [each for each in engine.all_connections() if each.inbox.is_awaited]

    @override
    def awaited_calls(self) -> list[Event]:
        engine = self._engine()
        rooms = [] if engine is None else engine.all_awake()
        events = (event for room in rooms for event in room.unfinished())
        return [each for each in events if each.kind in ASKED and each.caller is None and _is_waited_for(each)]

    @override
    def when_awaited(self, call: Callable[[], None] | None) -> None:
        engine = self._engine()
        if engine is not None:
            engine.work.on_host_waits = call


def _age(since: float | None, monotonic: float) -> str:
    if since is None:
        return "has not begun: its room is still being claimed in the backend"
    return f"has run for {timedelta(seconds=monotonic - since)} (virtual)"


def _is_waited_for(event: Event) -> bool:
    """Say whether somebody waits for the outcome of an event, and has not heard of it."""
    return event.reply is not None and not event.reply.done


@final
class AllWork:
    """The work of everything that holds a clock back, under the keys that it was attached by."""

    def __init__(self) -> None:
        self._parts: dict[object, CountedWork] = {}

    def attach(self, key: object, work: CountedWork) -> None:
        """Ask one more."""
        self._parts[key] = work

    def detach(self, key: object) -> None:
        """Ask it no more; harmless if it never was."""
        self._parts.pop(key, None)

    def is_idle(self) -> bool:
        """Say whether nothing is in flight anywhere."""
        for work in self._parts.values():  # noqa: SIM110 - asked after every timer, and all() takes twice as long
            if not work.is_idle():
                return False
        return True

    async def wait_idle(self) -> None:
        """Return when each had nothing in flight, one after the other."""
        for work in tuple(self._parts.values()):
            await work.wait_idle()

    def describe(self) -> list[str]:
        """Say what is in flight, a line each."""
        return [line for work in self._parts.values() for line in work.describe()]

    def pending(self) -> list[Pending]:
        """Give what waits for its time, as far as that is known: timers in memory, and the next alarm of each."""
        found: list[Pending] = []
        for work in self._parts.values():
            found += [Pending(due, *timer) for due, timer in work.pending_timers()]
            alarm = work.next_alarm()
            if alarm is not None:
                found.append(Pending(*alarm, "alarm", ""))
        return found

    def is_meant(self, timer: Timer, due: int) -> bool:
        """Say whether the end of a sleep means anything: one may sleep on for what was deleted or cancelled since."""
        parts = self._parts.values()
        if timer.kind != "alarm" or timer.room is None or not parts:
            return not any(work.is_cancelled(timer) for work in parts)
        when = from_micros(due)
        for work in parts:  # noqa: SIM110 - asked for every timer, as above
            if work.rings(timer.room, when):
                return True
        return False

    def is_called(self, timer: Timer) -> bool:
        """Hear that a sleep ends; say whether any of them counts whoever sleeps as in flight from here on."""
        for work in self._parts.values():  # noqa: SIM110 - as above
            if work.is_called(timer):
                return True
        return False

    def is_awaited(self) -> bool:
        """Say whether code of a host waits for something of any of them."""
        return any(work.is_awaited() for work in self._parts.values())

    def when_awaited(self, call: Callable[[], None] | None) -> None:
        """Have ``call`` called whenever code of a host begins to wait; ``None`` for no more."""
        for work in self._parts.values():
            work.when_awaited(call)

    def awaited_calls(self) -> list[Event]:
        """Give what code of a host has called and waits for."""
        return [event for work in self._parts.values() for event in work.awaited_calls()]

    def calls_that_sleep(self) -> list[Event]:
        """Give what code of a host has called and waits for, where a room sleeps on the clock."""
        return [event for work in self._parts.values() if work.sleeps() for event in work.awaited_calls()]

    def awaited_inboxes(self) -> list[RoomConnection]:
        """Give the connections on which code of a host waits for a message."""
        return [connection for work in self._parts.values() for connection in work.awaited_inboxes()]
