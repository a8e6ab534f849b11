"""The life of one alarm: set, rung, retried, repeated, paused, kept.

Owns what an alarm's row becomes at each of these steps, and what its handler is
told.

Promises that no step loses an alarm: one that rang goes away, or on to its next
occurrence; one whose handler raised is retried, then kept with its error (G12),
while a recurrence goes on; and that setting a recurrence again, as it is, keeps
its next time.

Must never read a clock or roll a die. ``now`` is in microseconds since
1970-01-01 UTC, ``number`` a random one of 64 bits, ``chance`` a random one from
0 up to 1.
"""

from __future__ import annotations

from datetime import timedelta
from traceback import format_exception_only
from typing import Final, Literal

from partyroom._core.alarm_record import AlarmRecord, usual_record
from partyroom._core.instants import HIGHEST, alarm_time, from_micros, length, length_micros
from partyroom._core.recurrence import count_since, first_after, next_after
from partyroom._core.retry import next_retry
from partyroom.errors import AlarmTimeError, DecodeError, MissingExtraError
from partyroom.protocols import Codec
from partyroom.recurrence import Cron, Every, Recurrence
from partyroom.types import Alarm, AlarmInfo, AlarmRow, RetryPolicy, RoomKey

__all__ = [
    "after_failure",
    "after_success",
    "catch_up",
    "describe",
    "is_given_up",
    "look_at",
    "new_row",
    "only_once",
    "pause",
    "plain_row",
    "resume",
    "ring_again",
    "rings_once",
    "status_of",
]

ERROR_LENGTH: Final = 1000
"""How many characters of an error are kept."""
RECURRENCES: Final = (Every, Cron)
"""A tuple, once: ``Every | Cron`` makes a union each time, which takes longer than to look."""


def _scheduled(row: AlarmRow, record: AlarmRecord) -> int:
    """Give the time that an alarm was set for. One that is not due says it in its record."""
    return record.scheduled if record.scheduled is not None else row.due or 0


def _row(row: AlarmRow, record: AlarmRecord, scheduled: int, due: int | None) -> AlarmRow:
    own = None if scheduled == due else scheduled
    if own != record.scheduled:
        record = record._replace(scheduled=own)
    return AlarmRow(row.room, row.name, due, record.encode())


def _spread_row(row: AlarmRow, record: AlarmRecord, scheduled: int, chance: float) -> AlarmRow:
    """Give the row of an alarm that rings at its time or, by its spread, at random after it."""
    return _row(row, record, scheduled, min(scheduled + int(record.spread * chance), HIGHEST))


def _identity(number: int) -> str:
    return f"{number:016x}"


# --- set ---------------------------------------------------------------------


def plain_row(  # noqa: PLR0917 - asked for each alarm, so without the cost of names
    room: RoomKey, name: str, when: object, now: int, number: int, payload: bytes | None
) -> AlarmRow:
    """Give the row of an alarm as nearly all are, and those that are moved with every event: it rings once, at its time.

    Raises :class:`AlarmTimeError`.
    """
    return AlarmRow(room, name, alarm_time(when, now), usual_record(number, payload))


def new_row(
    room: RoomKey,
    name: str,
    when: object,
    now: int,
    *,
    number: int,
    payload: bytes | None = None,
    retry: RetryPolicy | None = None,
    spread: timedelta = timedelta(),
    chance: float = 0.0,
    current: AlarmRow | None = None,
    ringing: AlarmRow | None = None,
) -> AlarmRow:
    """Give the row of an alarm that is set, for ``when``: an aware ``datetime``, a ``timedelta`` from now, or a recurrence.

    ``spread`` is the longest random delay of each ring. ``current`` is the row of that name which stands, ``ringing``
    the one that rings now, in its own handler: if one of them has the same recurrence, that goes on (its next time is
    kept, or follows the one that rings), else it begins now. What goes on keeps its last outcome, which is a success for
    the one that rings: should its handler raise, this row is not stored. Raises :class:`AlarmTimeError`.
    """
    if not isinstance(when, RECURRENCES):
        if retry is None and not spread:
            return plain_row(room, name, when, now, number, payload)
        record = AlarmRecord(_identity(number), payload, retry=retry, spread=length_micros(spread))
        return _spread_row(AlarmRow(room, name, None), record, alarm_time(when, now), chance)
    row = AlarmRow(room, name, None)
    record = AlarmRecord(_identity(number), payload, recurrence=when, retry=retry, spread=length_micros(spread))
    kept = None if current is None else _decoded(current)
    if current is not None and kept is not None and kept.recurrence == when and not kept.failed:
        return current._replace(data=kept._replace(payload=payload, retry=retry, spread=record.spread).encode())
    rung = None if ringing is None else AlarmRecord.decode(ringing.data)
    if ringing is not None and rung is not None and rung.recurrence == when:
        first = _next(when, ringing, _scheduled(ringing, rung), now)
        record = record._replace(last=now)
    else:
        first = first_after(when, now)
    if first is None:
        message = f"{when!r} does not occur between now and the year 9999"
        raise AlarmTimeError(message)
    return _spread_row(row, record, first, chance)


def _decoded(row: AlarmRow) -> AlarmRecord | None:
    """Give the record of a row; ``None`` if it cannot be read, so that whoever sets the alarm again replaces it."""
    try:
        return AlarmRecord.decode(row.data)
    except (DecodeError, MissingExtraError):
        return None


def _next(recurrence: Recurrence, row: AlarmRow, scheduled: int, now: int) -> int | None:
    """Give the occurrence that follows the one that rang."""
    if now < scheduled and row.due is not None and row.due < scheduled:
        # It was rung by hand before its time, which is still to come. Not so if the clock was set back while it rang.
        return scheduled
    return next_after(recurrence, scheduled, scheduled if recurrence.missed == "each" else now)


# --- rung --------------------------------------------------------------------


def rings_once(row: AlarmRow) -> bool:
    """Say whether an alarm that rang is gone by that."""
    return AlarmRecord.decode(row.data).recurrence is None


def catch_up(row: AlarmRow, now: int, number: int, chance: float) -> AlarmRow | None:
    """Skip the occurrences that are older than their recurrence's grace, before a due alarm rings.

    Gives the row to ring, or to store if it is not due any more; ``None`` if there are no more occurrences. A ring
    that is being retried is never skipped. What is skipped may have rung without a commit, so that the occurrence after
    it has an id of its own. Raises :class:`DecodeError` for a row that cannot be read.
    """
    record = AlarmRecord.decode(row.data)
    recurrence = record.recurrence
    if recurrence is None or recurrence.grace is None or row.due is None or record.retry_count:
        return row
    oldest = now - length_micros(recurrence.grace)
    scheduled = _scheduled(row, record)
    # Either may be the later one: a spread delays the ring, and by hand it is rung before its time.
    if max(row.due, scheduled) >= oldest:
        return row
    following = next_after(recurrence, scheduled, oldest - 1)
    if following is None:
        return None
    missed = record.missed + 1 + count_since(recurrence, scheduled, oldest - 1)
    return _spread_row(row, record._replace(id=_identity(number), missed=missed), following, chance)


def describe(row: AlarmRow, codec: Codec, now: int) -> Alarm:
    """Say what rings, for its handler. Raises :class:`DecodeError` for a row, or a payload, that cannot be read."""
    record = AlarmRecord.decode(row.data)
    scheduled = _scheduled(row, record)
    missed = record.missed
    if record.recurrence is not None and record.recurrence.missed == "once":
        missed += count_since(record.recurrence, scheduled, now)
    return Alarm(
        row.name or None,
        record.id,
        from_micros(scheduled),
        record.retry_count,
        None if record.payload is None else codec.decode(record.payload),
        missed,
        length(max(0, now - scheduled)),
    )


def after_success(row: AlarmRow, now: int, number: int, chance: float) -> AlarmRow | None:
    """Give what is stored of an alarm whose handler returned and did not set it: its next occurrence, or nothing."""
    return _go_on(row, AlarmRecord.decode(row.data), now, number, chance, error=None)


def after_failure(  # noqa: PLR0917 - everything that it depends on is given
    row: AlarmRow, error: BaseException, policy: RetryPolicy, now: int, number: int, chance: float
) -> AlarmRow:
    """Give what is stored of an alarm whose handler raised: its retry, by its own policy or the room's.

    After the last retry it is kept as failed, without a due time; a recurrence goes on instead, with the error in its
    record.
    """
    record = AlarmRecord.decode(row.data)
    scheduled = _scheduled(row, record)
    due = next_retry(record.retry or policy, record.retry_count, now, chance)
    following = _go_on(row, record, now, number, chance, error=_text(error)) if due is None else None
    if following is not None:
        return following
    failed = record._replace(retry_count=record.retry_count + 1, error=_text(error), failed=due is None, last=now)
    return _row(row, failed, scheduled, due)


def _go_on(
    row: AlarmRow, record: AlarmRecord, now: int, number: int, chance: float, *, error: str | None
) -> AlarmRow | None:
    """Give the next occurrence of an alarm that has rung for good; ``None`` if there is none."""
    recurrence = record.recurrence
    scheduled = _scheduled(row, record)
    following = None if recurrence is None else _next(recurrence, row, scheduled, now)
    if following is None:
        return None
    fresh = AlarmRecord(
        _identity(number),
        record.payload,
        now,
        recurrence,
        record.spread,
        record.retry,
        error=error,
        extra=record.extra,
    )
    return _spread_row(row, fresh, following, chance)


def _text(error: BaseException) -> str:
    # By the standard library: an error whose own text raises has one all the same.
    return "".join(format_exception_only(error)).strip()[:ERROR_LENGTH]


def only_once(row: AlarmRow) -> AlarmRow:
    """Give the row of a ringing alarm whose handler has deleted it: it may be retried, but does not go on."""
    return row._replace(data=AlarmRecord.decode(row.data)._replace(recurrence=None).encode())


def is_given_up(row: AlarmRow) -> bool:
    """Say whether what :func:`after_failure` gave is no retry."""
    record = AlarmRecord.decode(row.data)
    return record.failed or not record.retry_count


# --- looked at ---------------------------------------------------------------


def look_at(row: AlarmRow, codec: Codec) -> AlarmInfo:
    """Say what is known of an alarm. Of one that cannot be read, or whose payload cannot, that is the error to show."""
    error: Exception | None = None
    record, payload = AlarmRecord(""), None
    try:
        record = AlarmRecord.decode(row.data)
        payload = None if record.payload is None else codec.decode(record.payload)
    except Exception as raised:  # noqa: BLE001 - whatever a codec raises, one alarm must not hide the others
        error = raised
    status = _status(row, record)
    return AlarmInfo(
        room=row.room,
        name=row.name or None,
        status=status,
        next_time=None if row.due is None else from_micros(row.due),
        scheduled_time=from_micros(_scheduled(row, record)),
        recurrence=record.recurrence,
        payload=payload,
        retry_count=record.retry_count,
        last_outcome="error" if status == "failed" else record.outcome,
        last_time=None if record.last is None else from_micros(record.last),
        last_error=record.error if error is None else _text(error),
    )


def status_of(row: AlarmRow) -> Literal["pending", "retrying", "paused", "failed"]:
    """Say what an alarm waits for. One that cannot be read, and is not due, has failed."""
    return _status(row, _decoded(row) or AlarmRecord(""))


def _status(row: AlarmRow, record: AlarmRecord) -> Literal["pending", "retrying", "paused", "failed"]:
    if row.due is None:
        return "failed" if record.paused is None else "paused"
    return "retrying" if record.retry_count else "pending"


# --- steered by a host -------------------------------------------------------


def pause(row: AlarmRow) -> AlarmRow:
    """Give a row that does not ring until it is resumed; one that is not due stays as it is."""
    if row.due is None:
        return row
    record = AlarmRecord.decode(row.data)
    return _row(row, record._replace(paused=row.due), _scheduled(row, record), None)


def resume(row: AlarmRow, now: int, number: int, chance: float) -> AlarmRow | None:
    """Give the row of a paused alarm with its due time again; one that is not paused stays as it is.

    An alarm that would have rung meanwhile rings at once; a recurrence goes on with its next occurrence, which is a ring
    of its own, or ends (``None``) if there is none.
    """
    record = AlarmRecord.decode(row.data)
    if record.paused is None:
        return row
    due, record = record.paused, record._replace(paused=None)
    scheduled = _scheduled(row, record)
    if record.recurrence is None or due > now:
        return _row(row, record, scheduled, due)
    # Rung by hand and then paused, its own time may be still to come.
    following = scheduled if scheduled > now else next_after(record.recurrence, scheduled, now)
    if following is None:
        return None
    return _spread_row(row, record._replace(id=_identity(number), retry_count=0), following, chance)


def ring_again(row: AlarmRow, now: int, number: int) -> AlarmRow:
    """Give the row of an alarm, failed or paused or pending, that rings now, with all of its retries before it."""
    record = AlarmRecord.decode(row.data)
    fresh = record._replace(id=_identity(number), retry_count=0, failed=False, paused=None)
    # One that could not be read for a while has kept no time of its own.
    is_timeless = row.due is None and record.scheduled is None
    return _row(row, fresh, now if is_timeless else _scheduled(row, record), now)
