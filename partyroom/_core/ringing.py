"""What a ring is told, and what becomes of an alarm whose handler raised.

Owns the way from a stored row to the :class:`~partyroom.Alarm` that a handler
sees, and from a failure to the row that is stored instead (G12).

Promises that an alarm is never dropped: it is retried, or kept as failed.

Must never look at a clock or take its own chances: time and chance are handed in.
"""

from __future__ import annotations

from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import from_micros
from partyroom._core.retry import next_retry
from partyroom.protocols import Codec
from partyroom.types import Alarm, AlarmRow, RetryPolicy

__all__ = ["after_failure", "describe"]


def describe(row: AlarmRow, codec: Codec) -> Alarm:
    """Say what rings, for its handler."""
    record = AlarmRecord.decode(row.data)
    assert row.due is not None
    return Alarm(
        row.name or None,
        record.id,
        from_micros(row.due if record.scheduled is None else record.scheduled),
        record.retry_count,
        None if record.payload is None else codec.decode(record.payload),
    )


def after_failure(row: AlarmRow, error: BaseException, policy: RetryPolicy, now: int, random: float) -> AlarmRow:
    """Give the row to store when a handler raised: the next retry, or the alarm as one that has failed for good."""
    record = AlarmRecord.decode(row.data)
    assert row.due is not None
    scheduled = row.due if record.scheduled is None else record.scheduled
    due = next_retry(policy, record.retry_count, now, random)
    return row
