"""Rows of a file as the library's own types.

Owns the look at what a row holds.

Promises that whatever SQLite reads out of a damaged file, or one that somebody else has been at, is refused as such and
never taken for something else: SQLite itself takes anything in any column.

Must never ask for a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from partyroom.backends._sqlite_faults import MisfitError
from partyroom.types import AlarmRow, RoomKey

__all__ = ["EARLIEST", "LATEST", "alarm_of", "epoch_of", "value_of"]

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a length of time is all that is wanted of it
EARLIEST: Final = (datetime.min - _EPOCH) // timedelta(microseconds=1)  # noqa: DTZ901 - as above
LATEST: Final = (datetime.max - _EPOCH) // timedelta(microseconds=1)  # noqa: DTZ901 - as above
"""Between which microseconds since 1970 an alarm can be due: those of the years 1 to 9999."""


def value_of(data: object) -> bytes:
    """Give a stored value."""
    if type(data) is not bytes:
        raise MisfitError("somebody has stored a value that is no bytes")
    return data


def alarm_of(row: tuple[str, str, str, object, object]) -> AlarmRow:
    """Give the alarm of a row: party, id, name, due, data."""
    party, room_id, name, due, data = row
    if not (due is None or type(due) is int):
        raise MisfitError("somebody has stored an alarm at no time")
    if due is not None:
        # What lies outside all calendars is at their end. One that cannot be told would keep all others from ringing.
        due = min(max(due, EARLIEST), LATEST)
    if type(data) is not bytes:
        # Refused by whoever reads its record: here, the alarms of all rooms would be refused with it.
        data = data.encode() if type(data) is str else b""
    return AlarmRow(RoomKey(party, room_id), name, due, data)


def epoch_of(rows: Sequence[Any]) -> int:
    """Give how often a file was opened. Without that, fences could be given twice."""
    if len(rows) != 1 or type(rows[0][0]) is not int:
        raise MisfitError("it is not written there any more how often it was opened")
    return int(rows[0][0])
