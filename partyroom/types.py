"""The values that travel between the parts: frozen, comparable, without behaviour of their own.

Owns the words that contracts are written in: which room, which alarm, what one
commit holds, which limits hold. Everything here is immutable and may be shared.

Promises that the orders given here (of rooms, of keys, of alarms) are the
orders of the UTF-8 bytes of their texts, which for Python's ``str`` is the
order of ``<``.

Must never import anything of the library but ``errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

import attrs

from partyroom.recurrence import Recurrence

__all__ = [
    "Alarm",
    "AlarmCursor",
    "AlarmInfo",
    "AlarmRow",
    "Commit",
    "KeyRange",
    "Limits",
    "RetryPolicy",
    "RingFailure",
    "RingReport",
    "RoomKey",
    "Timer",
]


class RoomKey(NamedTuple):
    """Which room: the name of its party and its id. Ordered by party, then id, each by UTF-8 bytes."""

    party: str
    id: str

    def __str__(self) -> str:
        return f"{self.party}/{self.id}"


@attrs.frozen
class Alarm:
    """What an alarm handler is told about the alarm that rings."""

    name: str | None
    """The name it was set with; ``None`` for the room's one alarm without a name."""
    id: str
    """The same over all retries of one ring, different for any other: for calls that must be idempotent."""
    scheduled_time: datetime
    """The time it was set for, in UTC; retries keep it."""
    retry_count: int = 0
    """How many times this ring has failed before."""
    payload: Any = None
    """The value given to ``set_alarm``, copied."""
    missed: int = 0
    """How many occurrences of a recurrence get no ring of their own: they passed unrung, and this ring stands for them,
    or they were older than its grace. Those of a ``Cron`` are counted up to 1,000."""
    lateness: timedelta = timedelta()
    """How long after ``scheduled_time`` the handler begins: next to nothing, unless nobody was there to ring."""

    @property
    def is_retry(self) -> bool:
        """Whether this ring has failed before."""
        return self.retry_count > 0


@attrs.frozen
class AlarmInfo:
    """What is known of one alarm, for whoever looks at it."""

    room: RoomKey
    name: str | None
    """``None`` for the alarm without a name."""
    status: Literal["pending", "retrying", "paused", "failed"]
    """Waiting for its time, for its next retry, for being resumed, or kept after its last retry."""
    next_time: datetime | None
    """When it rings next, in UTC; ``None`` for one that is paused or has failed."""
    scheduled_time: datetime
    """The time it was set for, in UTC."""
    recurrence: Recurrence | None
    """How it repeats; ``None`` for one that rings once."""
    payload: Any
    """A copy of the value it was set with."""
    retry_count: int
    """How often the handler has raised for this ring."""
    last_outcome: Literal["success", "error"] | None
    """Whether its handler returned or raised when it last rang; ``None`` if it has not rung since it was set. One that
    rings once is gone when it has rung well; a recurrence that is set again as it is goes on, and keeps what is known."""
    last_time: datetime | None
    """When its handler last returned or raised, in UTC; ``None`` if it has not rung since it was set."""
    last_error: str | None
    """What its handler raised when it last rang, ``None`` if it returned; of an alarm that cannot be read, the reason."""


@attrs.frozen
class KeyRange:
    """The keys ``k`` with ``start <= k < end``, in ascending order of UTF-8 bytes or, with ``reverse``, descending."""

    start: str = ""
    end: str | None = None
    """Exclusive; ``None`` for no upper bound."""
    reverse: bool = False


class AlarmRow(NamedTuple):
    """One stored alarm. Its policy travels in ``data``, which a backend keeps exactly and never reads."""

    room: RoomKey
    name: str
    """``""`` for the alarm without a name."""
    due: int | None
    """When to ring next, in microseconds since 1970-01-01 UTC (negative before); ``None`` for one that is kept but never due."""
    data: bytes = b""


class AlarmCursor(NamedTuple):
    """A place in the order of due alarms: by due time, then room, then name."""

    due: int
    room: RoomKey
    name: str


class Commit(NamedTuple):
    """Everything that one event of one room stores: the only way in which anything is ever written.

    A backend applies it whole or not at all, and applying it twice is the same as applying it once.
    """

    room: RoomKey
    fence: int
    """The number that ``claim`` gave; a commit with a lower one than the room's latest is refused."""
    values: Mapping[str, bytes | None]
    """Keys to set, with their new bytes, and keys to delete, with ``None``."""
    alarms: Mapping[str, AlarmRow | None]
    """Alarms to set, by name, and alarms to delete, with ``None``."""
    clear: bool = False
    """Whether all values and alarms of the room are deleted first, before ``values`` and ``alarms`` are applied."""
    release: bool = False
    """Whether the claim ends with this commit: the fence is worth nothing once it is durable."""


TimerKind: TypeAlias = Literal["alarm", "idle", "timeout", "sleep", "retry", "close", "refill", ""]
"""What is waited for on a clock."""


class Timer(NamedTuple):
    """Who waits on a clock: for clocks that show, or put in order, those who sleep on them. Others ignore it."""

    room: RoomKey | None = None
    kind: TimerKind = ""
    name: str = ""


def _check_kind(instance: object, name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        message = f"{type(instance).__name__}.{name} must be of type {kind.__name__}, not {type(value).__name__}"
        raise TypeError(message)


def _positive(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    """Refuse a limit that nothing could ever keep."""
    _check_kind(instance, attribute.name, value, int)
    if value <= 0:
        message = f"{type(instance).__name__}.{attribute.name} must be positive, not {value!r}"
        raise ValueError(message)


def _positive_time(instance: object, attribute: attrs.Attribute[Any], value: timedelta | None) -> None:
    """Refuse a time limit that has always passed."""
    if value is not None:
        _check_kind(instance, attribute.name, value, timedelta)
    if value is not None and value <= timedelta():
        message = f"{type(instance).__name__}.{attribute.name} must be positive, not {value!r}"
        raise ValueError(message)


def _limit(default: int) -> int:
    return attrs.field(default=default, validator=_positive)


@attrs.frozen(kw_only=True)
class Limits:
    """How large things may get (G18). One value for a whole runtime; every error about one names the field."""

    room_id_bytes: int = _limit(1024)
    """The longest room id, in UTF-8 bytes."""
    key_bytes: int = _limit(2048)
    """The longest storage key, alarm name, connection id or tag, in UTF-8 bytes (2,048 for a key of a Durable Object)."""
    value_bytes: int = _limit(2 * 1024 * 1024)
    """The largest encoded value, in bytes (2 MiB: what Durable Objects document for their SQLite storage)."""
    state_bytes: int = _limit(16 * 1024)
    """The largest encoded state of a connection, in bytes (16 KiB, as workerd's attachments)."""
    tags: int = _limit(10)
    """The most tags of a connection."""
    mailbox: int = _limit(1000)
    """How many events may wait in a room before senders and callers wait as well."""
    call_depth: int = _limit(64)
    """How deep calls between rooms may nest."""
    outgoing_messages: int = _limit(1000)
    """How many messages may wait for one client before it is closed with 1013 (G21)."""
    outgoing_bytes: int = _limit(16 * 1024 * 1024)
    """How many bytes of messages may wait for one client before it is closed with 1013 (G21)."""
    max_waking: int = _limit(1000)
    """How many alarms may be ringing at once."""
    alarm_lookahead: int = _limit(10_000)
    """How many of the next alarms are held in memory; the others wait in the backend."""
    cache_bytes: int = _limit(64 * 1024 * 1024)
    """How many bytes the read caches of all rooms may hold together."""
    room_cache_bytes: int = _limit(4 * 1024 * 1024)
    """How many bytes the read cache of one room may hold."""
    event_timeout: timedelta | None = attrs.field(default=None, validator=_positive_time)
    """How long an event other than an alarm may run, in monotonic time; ``None`` for as long as it likes (G6)."""
    alarm_timeout: timedelta | None = attrs.field(default=timedelta(minutes=15), validator=_positive_time)
    """How long an alarm's handler may run, in monotonic time (15 minutes, as on Durable Objects); counts as a failure (G12)."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When an alarm whose handler raised rings again (G12).

    The n-th retry waits ``first_delay * 2**(n - 1)``, at most ``max_delay``, and at random up to ``jitter`` times
    that more. The defaults are those of Durable Objects: after 2, 4, 8, 16, 32 and 64 seconds, then no more.
    """

    max_retries: int = attrs.field(default=6, validator=attrs.validators.ge(0))
    first_delay: timedelta = attrs.field(default=timedelta(seconds=2), validator=_positive_time)
    max_delay: timedelta = attrs.field(default=timedelta(seconds=1024), validator=_positive_time)
    jitter: float = attrs.field(default=0.25, validator=attrs.validators.ge(0))


@attrs.frozen
class RingFailure:
    """One alarm whose handler raised during ``ring_due``."""

    room: RoomKey
    name: str | None
    error: BaseException = attrs.field(eq=False)


@attrs.frozen
class RingReport:
    """What one ``ring_due`` did."""

    rung: int
    """How many handlers returned and are stored."""
    failed: tuple[RingFailure, ...]
    """Those that raised, in due order; their retries are stored."""
    next: datetime | None
    """When the next alarm is due, in UTC, or ``None``."""
