"""Alarms as a person sees them: from outside, without the program that set them.

Owns what is said of one stored alarm: whether it waits, is late, is retried, is paused, has failed, or cannot be read.

Promises that one which cannot be read is shown with the reason, and hides no other.

Must never decode a payload: that takes the program's own codec.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, TypeAlias

import attrs

from partyroom._cli.listing import Form
from partyroom._cli.packing import pack
from partyroom._cli.table import Column
from partyroom._cli.text import ago, moment, relative, repeats
from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import from_micros, to_micros
from partyroom.errors import DecodeError, MissingExtraError
from partyroom.recurrence import Recurrence
from partyroom.types import AlarmRow

__all__ = ["ALARMS", "Sight", "Status", "iso", "sight"]

Status: TypeAlias = Literal["pending", "retrying", "paused", "failed", "unreadable"]


@attrs.frozen(kw_only=True)
class Sight:
    """One stored alarm at one moment."""

    row: AlarmRow
    now: datetime
    status: Status
    scheduled: int | None = None
    """The time it was set for, in microseconds since 1970-01-01 UTC."""
    recurrence: Recurrence | None = None
    tries: int = 0
    """How often its handler has raised."""
    outcome: Literal["success", "error"] | None = None
    """How it went when it last rang; ``None`` if it has not rung since it was set."""
    last: int | None = None
    """When its handler last returned or raised, in microseconds since 1970-01-01 UTC."""
    error: str | None = None
    """What the handler raised when it last rang, or why the alarm cannot be read."""
    payload: bytes | None = None
    """As the program's codec made it."""

    @property
    def is_late(self) -> bool:
        """Whether its time has come, and nobody has rung it yet."""
        return self.row.due is not None and self.row.due <= to_micros(self.now)


def sight(row: AlarmRow, now: datetime) -> Sight:
    """Look at an alarm."""
    try:
        record = AlarmRecord.decode(row.data)
    except (DecodeError, MissingExtraError) as error:
        return Sight(row=row, now=now, status="unreadable", error=str(error))
    return Sight(
        row=row,
        now=now,
        status=_status(row, record),
        scheduled=row.due if record.scheduled is None else record.scheduled,
        recurrence=record.recurrence,
        tries=record.retry_count,
        outcome=record.outcome,
        last=record.last,
        error=record.error,
        payload=record.payload,
    )


def _status(row: AlarmRow, record: AlarmRecord) -> Status:
    if row.due is None:
        return "failed" if record.paused is None else "paused"
    return "retrying" if record.retry_count else "pending"


def _last(seen: Sight) -> str:
    if seen.outcome is None:
        return ""
    word = "ok" if seen.outcome == "success" else "failed"
    return word if seen.last is None else f"{word} {ago(seen.last, seen.now)}"


def _cells(seen: Sight) -> tuple[str, ...]:
    due = seen.row.due
    return (
        seen.status if due is None or seen.status == "unreadable" else relative(due, seen.now),
        "" if due is None else moment(due),
        str(seen.row.room),
        seen.row.name,
        repeats(seen.recurrence),
        _last(seen),
        str(seen.tries or ""),
        seen.error or "",
    )


def _facts(seen: Sight) -> dict[str, object]:
    row = seen.row
    return {
        "party": row.room.party,
        "room": row.room.id,
        "alarm": row.name or None,
        "status": seen.status,
        "late": seen.is_late,
        "due": iso(row.due),
        "scheduled": iso(seen.scheduled),
        "repeats": repeats(seen.recurrence) or None,
        "tries": seen.tries,
        "last": iso(seen.last),
        "outcome": seen.outcome,
        "error": seen.error,
        "payload": None if seen.payload is None else pack(seen.payload),
    }


def iso(micros: int | None) -> str | None:
    """Give an instant (microseconds since 1970-01-01 UTC) as machines write it, exactly."""
    return None if micros is None else from_micros(micros).isoformat()


ALARMS: Final = Form(
    (
        *(Column("rings", whole=True), Column("at (UTC)", whole=True, spare=True)),
        *(Column("room"), Column("alarm"), Column("repeats")),
        *(Column("last ring", whole=True), Column("tries", figures=True), Column("error")),
    ),
    _cells,
    _facts,
)
"""How alarms are shown, wherever they are."""
