"""Stateful rooms for any Python program: one event at a time, durable state, and alarms that wake them.

The face of the library: everything that a program imports, but the backends
(:mod:`partyroom.backends.memory`, :mod:`partyroom.backends.file`), what a host
mounts (:mod:`partyroom.asgi`, :mod:`partyroom.blocking`) and the testing kit
(:mod:`partyroom.testing`).

The map of the house, from the ground up; an import only ever points down:

- ``errors``, ``types``, ``recurrence``: the words. ``protocols``: the contracts, to be read from top to bottom;
  ``observer``, ``statistics``: what looks on, and what it sees.
- ``_core``: decisions without input and output: keys, layers of writes, the read cache, the mailbox, the output gate,
  the order of alarms, retries, recurrences.
- ``_native``, ``_work``, ``_timers``, ``_workers``, ``_committer``, ``_room_clock``, ``_room_state``, ``_alarm_loop``,
  ``connections``, ``clock``, ``codec``, ``backends``: effects, one each.
- ``_services``, ``_watching``, ``_room_alarms``, ``_room_storage``, ``_calls``, ``_ringing``, ``_sealing``,
  ``_room_context``, ``_room_runner``: one awake room, one event at a time.
- ``_due_alarms``, ``_figures``, ``_idle_rooms``, ``_run_tasks``, ``_engine``: who is awake, and until when.
- ``_handles``, ``runtime``: what a host holds.

A message: ``_handles`` handle -> ``_room_runner`` event -> the author's Room -> ``_room_storage`` put -> ``_core.units``
layer -> the handler returns -> ``_sealing`` -> ``_committer`` -> the backend's ``commit`` -> ``_core.output_gate``
-> reply and messages leave.

An alarm: ``_room_alarms`` set_alarm, in the event's own commit -> ``_alarm_loop`` is told -> ``_core.alarm_queue`` ->
``clock`` sleep_until -> ``_engine`` wakes the room -> ``_room_runner`` -> ``Room.on_alarm`` -> returned: gone in the
handler's own commit; raised: ``_core.retry``.

Must never load what a program did not ask for: no event loop, no SQLite, no testing kit. What makes rooms run
(:class:`Runtime`, :class:`JsonCodec`, :class:`SystemClock`), and what looks at it, is loaded when it is first named,
so that a module which only writes rooms pays for words and contracts alone; ``__init__.pyi`` tells type checkers what
that is.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from partyroom.errors import (
    AlarmTimeError,
    BackendClosedError,
    BackendCorruptError,
    BackendError,
    BackendFullError,
    BackendLockedError,
    BackendReadOnlyError,
    BackendVersionError,
    BrokenContractError,
    BrokenInvariantError,
    ClockStalledError,
    CommitError,
    ConnectionClosedError,
    ConnectRejectedError,
    DeadlockError,
    DecodeError,
    EndlessTimersError,
    EventCancelledError,
    EventTimeoutError,
    ExpectationError,
    FencedError,
    InvalidKeyError,
    InvalidRecurrenceError,
    InvalidRoomIdError,
    LimitExceededError,
    MissingExtraError,
    NoHandlerError,
    NotStorableError,
    OutsideEventError,
    PartyroomError,
    RoomAbortedError,
    RoomBrokenError,
    RuntimeClosedError,
    RuntimeCrashedError,
    RuntimeStateError,
    UnknownPartyError,
    WrongRoomError,
)
from partyroom.protocols import (
    AlarmScheduler,
    Client,
    Clock,
    Codec,
    Connection,
    Party,
    Room,
    RoomClock,
    RoomContext,
    RoomHandle,
    Storage,
    StorageBackend,
    TaskGroup,
    Upcoming,
)
from partyroom.recurrence import Cron, Every
from partyroom.types import (
    Alarm,
    AlarmCursor,
    AlarmInfo,
    AlarmRow,
    Commit,
    KeyRange,
    Limits,
    RetryPolicy,
    RingFailure,
    RingReport,
    RoomKey,
    Timer,
)

__all__ = [
    "Alarm",
    "AlarmCursor",
    "AlarmInfo",
    "AlarmOutcome",
    "AlarmRow",
    "AlarmScheduler",
    "AlarmTimeError",
    "BackendClosedError",
    "BackendCorruptError",
    "BackendError",
    "BackendFullError",
    "BackendLockedError",
    "BackendReadOnlyError",
    "BackendVersionError",
    "BrokenContractError",
    "BrokenInvariantError",
    "Client",
    "Clock",
    "ClockStalledError",
    "Codec",
    "Commit",
    "CommitError",
    "CommitInfo",
    "ConnectRejectedError",
    "Connection",
    "ConnectionClosedError",
    "Cron",
    "DeadlockError",
    "DecodeError",
    "EndlessTimersError",
    "EventCancelledError",
    "EventInfo",
    "EventTimeoutError",
    "Every",
    "ExpectationError",
    "FencedError",
    "InvalidKeyError",
    "InvalidRecurrenceError",
    "InvalidRoomIdError",
    "JsonCodec",
    "KeyRange",
    "LimitExceededError",
    "Limits",
    "MissingExtraError",
    "NoHandlerError",
    "NotStorableError",
    "Observer",
    "OutsideEventError",
    "Party",
    "PartyStatistics",
    "PartyroomError",
    "RetryPolicy",
    "RingFailure",
    "RingReport",
    "Room",
    "RoomAbortedError",
    "RoomBrokenError",
    "RoomClock",
    "RoomContext",
    "RoomHandle",
    "RoomKey",
    "Runtime",
    "RuntimeClosedError",
    "RuntimeCrashedError",
    "RuntimeStateError",
    "Statistics",
    "Storage",
    "StorageBackend",
    "StoredStatistics",
    "SystemClock",
    "TaskGroup",
    "Timer",
    "UnknownPartyError",
    "Upcoming",
    "WhyAwake",
    "WrongRoomError",
]

LATE: Final = {
    "AlarmOutcome": "partyroom.observer",
    "CommitInfo": "partyroom.observer",
    "EventInfo": "partyroom.observer",
    "JsonCodec": "partyroom.codec",
    "Observer": "partyroom.observer",
    "PartyStatistics": "partyroom.statistics",
    "Runtime": "partyroom.runtime",
    "Statistics": "partyroom.statistics",
    "StoredStatistics": "partyroom.statistics",
    "SystemClock": "partyroom.clock",
    "WhyAwake": "partyroom.statistics",
}
"""What is loaded when it is first named, and from where."""

AlarmOutcome: Any
CommitInfo: Any
EventInfo: Any
JsonCodec: Any
Observer: Any
PartyStatistics: Any
Runtime: Any
Statistics: Any
StoredStatistics: Any
SystemClock: Any
WhyAwake: Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever stands under that name
    """Load one of the late names (PEP 562); it stands here from then on."""
    if name not in LATE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: Any = getattr(import_module(LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what is here, loaded or not."""
    return sorted({*globals(), *__all__})
