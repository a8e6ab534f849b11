"""Spans of OpenTelemetry for events, calls between rooms, wakes, alarms and commits: ``pip install partyroom[otel]``.

Owns the spans between their beginnings and their ends, and the contexts that
their children need.

Promises that an event's span is a child of whatever span was current where the
event was asked for, be it a host's or another room's; that it is the current one
in the room's own code; and that what is never ended, because it never began,
leaves nothing behind.

Must never choose an exporter, nor how much is sampled: that is the host's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import Token
from typing import Final, final
from weakref import WeakKeyDictionary

import attrs
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    get_tracer,
    set_span_in_context,
)
from typing_extensions import override

from partyroom.errors import ConnectRejectedError
from partyroom.observer import AlarmOutcome, CommitInfo, EventInfo, Observer
from partyroom.types import Alarm, RoomKey

__all__ = ["OpenTelemetryObserver"]

SCOPE: Final = "partyroom"


@attrs.frozen(eq=False)
class _Open:
    """A span that is current in the code between its beginning and its end."""

    span: Span
    token: Token[Context]

    def end(self, error: BaseException | None) -> None:
        detach(self.token)
        _end(self.span, error)


@final
class OpenTelemetryObserver(Observer):
    """Makes a span of each event: ``Runtime(..., observer=OpenTelemetryObserver())``.

    The spans nest as the work does: a request of the host, below it the event that answers it (``chat on_request``), below
    that the events of the rooms that it calls, and below each event the commit that stores it (``chat commit``). Where a
    room has to be woken, a span (``chat wake``) stands beside its event's, with ``on_start`` below. An alarm that rings in a
    sleeping room stands below its waking; any other begins a trace of its own, as nobody has asked for it. A commit
    that stores several events has a span below each.

    Spans have the attributes ``partyroom.party``, ``partyroom.room``, ``partyroom.event``, and those of the alarm or the
    commit. An event that raised has its error, as has a refused commit; a client that a room does not let in is no error.

    ``tracer_provider`` is the global one unless given. All is as cheap as the tracer: one that samples nothing makes no spans.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer: Tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)
        # By weak reference: an event may never begin, and what hangs on one that has ended lives as long as it is needed.
        self._parents: WeakKeyDictionary[EventInfo, Context] = WeakKeyDictionary()
        self._contexts: WeakKeyDictionary[EventInfo, Context] = WeakKeyDictionary()
        self._events: dict[EventInfo, _Open] = {}
        self._wakes: dict[EventInfo, _Open] = {}
        self._commits: dict[CommitInfo, list[tuple[RoomKey, Span]]] = {}

    def _open(self, name: str, event: EventInfo, parent: Context) -> tuple[_Open, Context]:
        attributes = {
            "partyroom.party": event.room.party,
            "partyroom.room": event.room.id,
            "partyroom.event": event.name,
        }
        # Without the room's id: names are for grouping.
        span = self._tracer.start_span(f"{event.room.party} {name}", parent, attributes=attributes)
        context = set_span_in_context(span, parent)
        return _Open(span, attach(context)), context

    def _parent(self, event: EventInfo) -> Context:
        """Give the context that an event is to stand in: of who asked, of the waking that it is part of, or of its cause."""
        asked = self._parents.get(event)
        if asked is not None:
            return asked
        if event.cause is None:
            return _apart()
        return get_current() if event.cause in self._wakes else self._contexts.get(event.cause, _apart())

    # --- events --------------------------------------------------------------

    @override
    def event_asked(self, event: EventInfo, /) -> None:
        self._parents[event] = get_current()

    @override
    def event_began(self, event: EventInfo, /) -> None:
        self._events[event], self._contexts[event] = self._open(event.name, event, self._parent(event))
        self._parents.pop(event, None)

    @override
    def event_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
        self._events.pop(event).end(error)

    @override
    def alarm_began(self, event: EventInfo, alarm: Alarm, /) -> None:
        self._events[event].span.set_attributes(
            {
                "partyroom.alarm.name": alarm.name or "",
                "partyroom.alarm.id": alarm.id,
                "partyroom.alarm.scheduled_time": alarm.scheduled_time.isoformat(),
                "partyroom.alarm.lateness": alarm.lateness.total_seconds(),
                "partyroom.alarm.retry_count": alarm.retry_count,
            }
        )

    @override
    def alarm_ended(self, event: EventInfo, alarm: Alarm, outcome: AlarmOutcome, /) -> None:
        span = self._events[event].span
        span.set_attribute("partyroom.alarm.outcome", outcome.status)
        if outcome.next_time is not None:
            span.set_attribute("partyroom.alarm.next_time", outcome.next_time.isoformat())

    # --- rooms ---------------------------------------------------------------

    @override
    def wake_began(self, event: EventInfo, /) -> None:
        self._wakes[event], context = self._open("wake", event, self._parent(event))
        # What nobody has asked for stands below its waking.
        self._parents.setdefault(event, context)

    @override
    def wake_ended(self, event: EventInfo, error: BaseException | None, /) -> None:
        self._wakes.pop(event).end(error)

    # --- commits -------------------------------------------------------------

    @override
    def commit_began(self, commit: CommitInfo, /) -> None:
        spans = self._commits[commit] = []
        for event in commit.events:
            spans.append((event.room, self._commit_span(event, commit)))  # noqa: PERF401 - those before one that raises are ended too

    def _commit_span(self, event: EventInfo, commit: CommitInfo) -> Span:
        attributes: dict[str, str | int] = {
            "partyroom.party": event.room.party,
            "partyroom.room": event.room.id,
            "partyroom.commit.events": len(commit.events),
            "partyroom.commit.rooms": len(commit.rooms),
        }
        parent = self._contexts.get(event, Context())
        return self._tracer.start_span(f"{event.room.party} commit", parent, attributes=attributes)

    @override
    def commit_ended(self, commit: CommitInfo, errors: Mapping[RoomKey, BaseException], /) -> None:
        # All of them, also if one raises.
        with ExitStack() as ends:
            for room, span in self._commits.pop(commit):
                ends.callback(_end, span, errors.get(room))


def _apart() -> Context:
    """Give the runtime's own context without the span that it may have been entered in: what begins there begins a trace."""
    return set_span_in_context(INVALID_SPAN)


def _end(span: Span, error: BaseException | None) -> None:
    try:
        if error is not None and not isinstance(error, ConnectRejectedError):
            # Without its text at first: an error may raise when it is asked for that.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
    finally:
        span.end()
