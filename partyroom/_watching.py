"""What an observer is told of the engine's events, wakes, alarms and commits.

Owns the way from the engine's own events to the frozen values of
:mod:`partyroom.observer`.

Promises that an observer which raises breaks nothing, and is logged once for
each run of a runtime; that what was told to begin is told to end; and that the
testing kit's own probe, if there is one, hears everything as well.

Must never hold anything of an event that has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from logging import Logger
from typing import Final, final

from typing_extensions import override

from partyroom._committer import are_answers
from partyroom._core.alarm_life import is_given_up
from partyroom._core.instants import from_micros
from partyroom._core.units import Event
from partyroom._log import about
from partyroom._native import Loop, current_loop
from partyroom._services import Probe
from partyroom.errors import BackendError, CommitError
from partyroom.observer import AlarmOutcome, CommitInfo, EventInfo, EventKind, Observer
from partyroom.types import Alarm, AlarmRow, RoomKey

__all__ = ["Watch"]

KINDS: Final[Mapping[str, EventKind]] = {
    "alarm_failed": "alarm_failed",
    "call": "call",
    "close": "close",
    "connect": "connect",
    "error": "error",
    "message": "message",
    "request": "request",
    "ring": "alarm",
    "run": "run",
    "start": "start",
    "steer": "steer",
}
"""What an observer calls each kind of event. Of the others it is not told: they run no handler."""


@final
class Watch(Probe):
    """Looks on for an observer, during one run of a runtime."""

    def __init__(
        self, observer: Observer, inner: Probe | None, log: Logger, fail: Callable[[BaseException], None]
    ) -> None:
        self._observer = observer
        self._inner = inner
        self._log = log
        self._fail = fail
        """Is told of what is no mistake of the observer: an interrupt."""
        self._begun: set[Event] = set()
        self._has_failed = False

    def _tell(self, tell: Callable[..., None], *args: object) -> None:
        try:
            tell(*args)
        except Exception:  # noqa: BLE001 - nothing that looks on may break what it looks at
            if not self._has_failed:
                self._has_failed = True
                text = "the observer failed, which is not told again: %r"
                self._log.exception(text, self._observer, extra=about())
        except BaseException as error:  # noqa: BLE001 - the runtime ends, but not here: callers would wait for ever
            self._fail(error)

    # --- what the testing kit decides ----------------------------------------

    @property
    @override
    def sleeps_at_once(self) -> bool:
        return self._inner is not None and self._inner.sleeps_at_once

    @override
    def loop(self) -> Loop:
        return current_loop() if self._inner is None else self._inner.loop()

    # --- events --------------------------------------------------------------

    @override
    def event_asked(self, event: Event, /) -> None:
        if self._inner is not None:
            self._inner.event_asked(event)
        self._tell(self._observer.event_asked, _info(event))

    @override
    def event_began(self, event: Event, /) -> None:
        if self._inner is not None:
            self._inner.event_began(event)
        self._begin(event)

    def _begin(self, event: Event) -> None:
        self._begun.add(event)
        self._tell(self._observer.event_began, _info(event))
        if isinstance(event.subject, Alarm) and event.kind == "ring":
            self._tell(self._observer.alarm_began, _info(event), event.subject)

    @override
    def event_ended(self, event: Event, /) -> None:
        if self._inner is not None:
            self._inner.event_ended(event)
        if event.kind in KINDS and (event in self._begun or event.error is not None):
            self._end(event)

    def _end(self, event: Event) -> None:
        if event not in self._begun:
            # It failed before its handler: the room could not be woken, or an alarm not be read.
            self._begin(event)
        self._begun.discard(event)
        if isinstance(event.subject, Alarm) and event.kind == "ring":
            self._tell(self._observer.alarm_ended, _info(event), event.subject, _outcome(event))
        self._tell(self._observer.event_ended, _info(event), event.error)

    @override
    def event_sealed(self, event: Event, /) -> None:
        if self._inner is not None:
            self._inner.event_sealed(event)

    @override
    def event_failed(self, event: Event, error: BaseException, /, *, heard: bool) -> None:
        if self._inner is not None:
            self._inner.event_failed(event, error, heard=heard)

    # --- rooms ---------------------------------------------------------------

    @override
    def wake_began(self, event: Event, /) -> None:
        if self._inner is not None:
            self._inner.wake_began(event)
        self._tell(self._observer.wake_began, _info(event))

    @override
    def wake_ended(self, event: Event, error: BaseException | None, /) -> None:
        if self._inner is not None:
            self._inner.wake_ended(event, error)
        self._tell(self._observer.wake_ended, _info(event), error)

    @override
    def room_slept(self, room: RoomKey, /) -> None:
        if self._inner is not None:
            self._inner.room_slept(room)
        self._tell(self._observer.room_slept, room)

    # --- commits -------------------------------------------------------------

    @override
    async def around_commit(
        self,
        asked: Awaitable[Sequence[CommitError | None]],
        rooms: Sequence[RoomKey],
        events: Sequence[Event],
        /,
    ) -> Sequence[CommitError | None]:
        commit = CommitInfo(tuple(rooms), tuple(_info(_stored(event)) for event in events))
        self._tell(self._observer.commit_began, commit)
        try:
            answers = await (asked if self._inner is None else self._inner.around_commit(asked, rooms, events))
        except BaseException as error:
            self._tell(self._observer.commit_ended, commit, dict.fromkeys(rooms, error))
            raise
        self._tell(self._end_commit, commit, answers)
        return answers

    def _end_commit(self, commit: CommitInfo, answers: Sequence[CommitError | None]) -> None:
        self._observer.commit_ended(commit, _errors(commit.rooms, answers))


def _info(event: Event) -> EventInfo:
    """Give what an observer knows an event by, made when it is first told of."""
    known: EventInfo | None = event.seen
    if known is None:
        cause = event.follows if event.caller is None else event.caller.event
        before = None if cause is None else _info(cause)
        event.seen = known = EventInfo(event.place.key, KINDS[event.kind], event.name, before)
    return known


def _stored(event: Event) -> Event:
    """Give the event that a sealed one is a part of, for ``sync()``."""
    return event.follows if event.kind == "sync" and event.follows is not None else event


def _errors(rooms: Sequence[RoomKey], answers: Sequence[CommitError | None]) -> dict[RoomKey, BaseException]:
    """Give what a backend has answered by room, as the committer takes it: what is no answer says nothing of any of them."""
    if not are_answers(answers, len(rooms)):
        message = f"the backend answered {len(rooms)} commits with {answers!r}"
        return dict.fromkeys(rooms, BackendError(message))
    # A room that has slept and woken meanwhile is there twice. What became of its events is the later answer: the earlier
    # one is of the end of its old claim.
    given = dict(zip(rooms, answers, strict=True))
    return {room: error for room, error in given.items() if error is not None}


def _outcome(event: Event) -> AlarmOutcome:
    rang: AlarmRow | None = event.ringing
    kept = None if rang is None or event.writes is None else event.writes.alarms.get(rang.name)
    next_time = None if kept is None or kept.due is None else from_micros(kept.due)
    if event.error is None:
        return AlarmOutcome("rang", next_time)
    if rang is None:
        return AlarmOutcome("replaced", None, event.error)
    if kept is None:
        return AlarmOutcome("interrupted", None if rang.due is None else from_micros(rang.due), event.error)
    has_failed = kept.due is None or is_given_up(kept)
    return AlarmOutcome("failed" if has_failed else "retrying", next_time, event.error)
