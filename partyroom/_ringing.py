"""How an alarm rings in its room: looked up, begun as an event, and concluded in that event's own commit.

Owns the step from a due alarm to the handler, and from the handler's outcome to
what is stored of the alarm.

Promises that an alarm which was moved or deleted meanwhile does not ring
(G11), that one which rang goes away, or on to its next occurrence, with what its
handler wrote (G9), and that one which raised is retried or kept (G12), also if
what was stored of it cannot be read.

Must never decide when a room is woken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from partyroom._core.alarm_life import (
    after_failure,
    after_success,
    catch_up,
    describe,
    is_given_up,
    only_once,
    rings_once,
)
from partyroom._core.alarm_table import AlarmTable
from partyroom._core.instants import to_micros
from partyroom._core.units import Event, Place, Writes
from partyroom._room_state import RoomState
from partyroom._services import Services
from partyroom.errors import RoomBrokenError, RuntimeClosedError
from partyroom.protocols import Room
from partyroom.types import Alarm, AlarmRow, RetryPolicy, RoomKey

__all__ = ["RingingRoom", "conclude", "find_due", "keep_ringing", "now", "set_ringing"]

NUMBER: Final = 64
"""How many random bits name a ring."""


class RingingRoom(Protocol):
    """A room as its alarms see it."""

    key: RoomKey
    services: Services
    state: RoomState
    instance: Room | None


def now(room: RingingRoom) -> int:
    """Give the time as alarms are stored with it."""
    return to_micros(room.services.clock.clock.now())


def find_due(table: AlarmTable, wanted: AlarmRow | None, until: int) -> AlarmRow | None:
    """Give the alarm that is due first, or the wanted one if it was not moved; ``None`` if it is not due ``until`` then."""
    row = table.first() if wanted is None else table.rows.get(wanted.name)
    if row is None or row.due is None or row.due > until:
        return None
    return row if wanted is None or row.due == wanted.due else None


def set_ringing(room: RingingRoom, event: Event, row: AlarmRow, on_alarm: Callable[[Alarm], Awaitable[Any]]) -> bool:
    """Let an event ring an alarm; ``False`` if its time was too long ago to ring at all, and the event only stores that."""
    # Not when it was looked up: a store, a constructor and ``on_start`` may have taken their time since.
    begin = now(room)
    try:
        random = room.services.random
        current = catch_up(row, begin, random.getrandbits(NUMBER), random.random())
        if current is None or current.due is None or current.due > begin:
            event.layer().alarms[row.name] = current
            return False
        event.ringing = current
        alarm = describe(current, room.services.codec, begin)
    except Exception:
        # Bytes that cannot be read: this alarm's own failure, so that it holds up no other.
        event.ringing = row
        raise

    def run(_room: Place) -> Awaitable[Any]:
        return on_alarm(alarm)

    event.subject, event.run = alarm, run
    return True


def keep_ringing(event: Event, writes: Writes) -> None:
    """For ``sync()`` in a handler: leave the ringing alarm to the event's end (G11).

    One that the handler has set again stands, and a raise is not retried; one that it has deleted does not go on.
    """
    row = event.ringing
    assert row is not None
    if writes.alarms.get(row.name) is not None:
        event.ringing = None
    elif writes.clear:
        event.ringing = only_once(row)
        writes.alarms[row.name] = row
    elif row.name in writes.alarms:
        event.ringing = only_once(row)
        del writes.alarms[row.name]


def conclude(room: RingingRoom, event: Event) -> bool:
    """Write what becomes of the alarm that rang; say whether it was given up after its last retry."""
    row, error = event.ringing, event.error
    assert row is not None
    if error is None:
        writes = event.layer()
        if row.name not in writes.alarms:
            is_last = writes.clear or rings_once(row)
            writes.alarms[row.name] = None if is_last else _after_success(room, row)
        return False
    if isinstance(event.cut, RoomBrokenError | RuntimeClosedError):
        # Not the handler's fault, unlike the same errors of another room that it let out: the alarm is stored as it
        # was, and rings again.
        return False
    event.writes = Writes()
    event.writes.alarms[row.name] = kept = _after_failure(room, row, error)
    return kept.due is None or is_given_up(kept)


def _after_success(room: RingingRoom, row: AlarmRow) -> AlarmRow | None:
    random = room.services.random
    return after_success(row, now(room), random.getrandbits(NUMBER), random.random())


def _after_failure(room: RingingRoom, row: AlarmRow, error: BaseException) -> AlarmRow:
    random = room.services.random
    try:
        policy: RetryPolicy = getattr(room.instance, "alarm_retry", Room.alarm_retry)
        return after_failure(row, error, policy, now(room), random.getrandbits(NUMBER), random.random())
    except Exception:  # noqa: BLE001 - what cannot be read, row or policy, cannot be retried: it is kept as it is
        return row._replace(due=None)
