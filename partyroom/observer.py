"""Who looks on: what a runtime tells an observer of events, wakes, alarms and commits.

Owns the contract of an observer, and the frozen values that it is told.

Promises that what has begun also ends, in the same task and context, and that
an observer which raises breaks nothing: the first error is logged, the rest are
silent.

Must never be asked anything: an observer looks on, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import attrs

from partyroom.types import Alarm, RoomKey

__all__ = ["AlarmOutcome", "CommitInfo", "EventInfo", "EventKind", "Observer"]

EventKind: TypeAlias = Literal[
    "alarm",
    "alarm_failed",
    "call",
    "close",
    "connect",
    "error",
    "message",
    "request",
    "run",
    "start",
    "steer",
]
"""What an event is: a callback of the room, a ``call``, a ``ctx.run``, or an alarm steered by a handle (``steer``)."""


@attrs.frozen(eq=False)
class EventInfo:
    """One event, as an observer knows it: the same object from its being asked for to its end, and equal to no other."""

    room: RoomKey
    kind: EventKind
    name: str
    """What is shown of it in errors and logs: ``on_message``, ``Counter.increment``."""
    cause: EventInfo | None = None
    """The event that this one comes from: the one that calls it, that wakes the room (for ``on_start``), or that failed
    (for ``on_error`` and ``on_alarm_failed``). ``None`` if the host or the runtime asked for it."""

    def __str__(self) -> str:
        return f"{self.room} {self.name}"


@attrs.frozen
class AlarmOutcome:
    """What becomes of an alarm that rang, in the commit of its event."""

    status: Literal["rang", "retrying", "failed", "replaced", "interrupted"]
    """``rang``: the handler returned. ``retrying``: it raised, and rings again. ``failed``: it raised for the last time.
    ``replaced``: it raised after ``sync()`` had stored an alarm of that name, which stands. ``interrupted``: the room
    broke or the runtime closed meanwhile, and the alarm stays as it was (G12)."""
    next_time: datetime | None
    """When an alarm of that name rings next, in UTC, if that is known: its retry, its next occurrence, or as it was set again."""
    error: BaseException | None = attrs.field(default=None, eq=False)


@attrs.frozen(eq=False)
class CommitInfo:
    """What the backend is asked to store in one call. The same object at its beginning and its end."""

    rooms: tuple[RoomKey, ...]
    """The rooms whose commits go together, each atomic for itself; one that only ends its claim is among them."""
    events: tuple[EventInfo, ...]
    """The events that are stored by it, of each room in order. One that called ``sync()`` is there for each part."""


@runtime_checkable
class Observer(Protocol):
    """What looks on at all that happens in a runtime: ``Runtime(..., observer=...)``. To be subclassed; every method has a default.

    All methods are called in the runtime's thread and must neither wait nor take long: rooms wait for them. They must
    not use the runtime. A clock of the observer's own measures what lies between a beginning and its end.

    What begins also ends, in the same task and in the same context, so that a context variable may be set at the
    beginning and *reset* at the end: the code of the room, and what it logs, sees it in between. Events of different rooms
    overlap, those of one room do not, but for one that is nested in another (G1). An observer that raises an ``Exception``
    breaks nothing: the first is logged. Any other error ends the runtime, as one of a room's code would. Without an
    observer nothing of this is called, or costs anything.

    The order for one event: ``event_asked``; ``wake_began``, the event ``on_start``, ``wake_ended`` if the room has to be
    woken; ``event_began``, its handler, ``event_ended``; ``commit_began``, ``commit_ended`` if it has written something.
    """

    def event_asked(self, event: EventInfo, /) -> None:
        """Hear that a host or a room asks for an event: called in the context of whoever asks.

        The event may never begin: its caller may leave (G6), or the runtime end. So what is remembered of it had better be
        held by a weak reference to it. Alarms, ``on_start``, ``on_error`` and ``on_alarm_failed`` are asked for by nobody.
        """
        return

    def event_began(self, event: EventInfo, /) -> None:
        """Hear that a handler is about to run: called in the context that it will run in, which is the runtime's own."""
        return

    def event_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
        """Hear that a handler has ended, and with which error, if any: then nothing of it is stored or sent (G3).

        What it has written is not durable yet. An event that failed before its handler (the room could not be woken)
        begins and ends at once.
        """
        return

    def alarm_began(self, event: EventInfo, alarm: Alarm, /) -> None:
        """Hear which alarm an event rings, right after the event's beginning: its name, time, lateness and retries."""
        return

    def alarm_ended(self, event: EventInfo, alarm: Alarm, outcome: AlarmOutcome, /) -> None:
        """Hear what becomes of an alarm that rang, right before the event's end. It is stored by the event's commit."""
        return

    def wake_began(self, event: EventInfo, /) -> None:
        """Hear that a room is being woken for an event: constructor, then ``on_start`` to its end (G2)."""
        return

    def wake_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
        """Hear that a room is awake, or could not be woken, which fails the event."""
        return

    def room_slept(self, room: RoomKey, /) -> None:
        """Hear that a room's instance is gone: the room sleeps, or was aborted, cut or broken. Leaving the runtime tells of none."""
        return

    def commit_began(self, commit: CommitInfo, /) -> None:
        """Hear that the backend is asked to store something. At most one commit is going on at a time."""
        return

    def commit_ended(self, commit: CommitInfo, errors: Mapping[RoomKey, BaseException], /) -> None:
        """Hear what the backend has answered: the errors by room, none for those whose events are durable now.

        If the call as a whole failed, all rooms have its error, and each commit is tried again for itself: those are
        commits of their own.
        """
        return
