"""The form in which rooms travel between stores: lines of JSON, one for each value and each alarm.

Owns that form, in both directions: a first line that says what it is, then the rooms, each in one piece, and a last
line that says how much there was.

Promises that what is read is what was written, to the byte; that the lines are for people and their tools as well
(plain values stand as they are); and that a dump which was cut off is noticed.

Must never know where rooms come from or go to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, final

import attrs

from partyroom._cli.packing import pack, unpack
from partyroom._cli.screen import CommandError
from partyroom._core.instants import alarm_time, from_micros
from partyroom.types import AlarmRow, RoomKey

__all__ = ["FIRST", "RoomContent", "Totals", "alarm_line", "last_line", "read_dump", "value_line"]

VERSION: Final = 1
FIRST: Final[Mapping[str, object]] = {"partyroom": "rooms", "version": VERSION}
"""The first line."""

Line: TypeAlias = dict[str, object]


@attrs.define
class Totals:
    """How much was written or read."""

    rooms: int = 0
    values: int = 0
    alarms: int = 0


@attrs.define
class RoomContent:
    """All that a room holds."""

    room: RoomKey
    values: dict[str, bytes] = attrs.Factory(dict[str, bytes])
    alarms: dict[str, AlarmRow] = attrs.Factory(dict[str, AlarmRow])
    size: int = 0
    """How many bytes of values and records these are."""


# --- written -----------------------------------------------------------------


def value_line(room: RoomKey, key: str, data: bytes) -> Line:
    """Give the line of a value."""
    return {"party": room.party, "room": room.id, "key": key, "value": pack(data)}


def alarm_line(row: AlarmRow) -> Line:
    """Give the line of an alarm."""
    record, line_feed, payload = row.data.partition(b"\n")
    due = None if row.due is None else from_micros(row.due).isoformat()
    line: Line = {
        "party": row.room.party,
        "room": row.room.id,
        "alarm": row.name or None,
        "due": due,
        "record": pack(record),
    }
    return line | ({"payload": pack(payload)} if line_feed else {})


def last_line(totals: Totals) -> Line:
    """Give the last line."""
    return {"end": attrs.asdict(totals)}


# --- read --------------------------------------------------------------------


def read_dump(lines: Iterable[str]) -> Iterator[RoomContent]:
    """Give the rooms of one or more dumps, in their order.

    Raises :class:`CommandError`, with the line's number, for what is no dump, is cut off, or holds a room twice.
    """
    reader = _Reader()
    for number, text in enumerate(lines, 1):
        try:
            room = reader.take(json.loads(text)) if text.strip() else None
        except (LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise CommandError(f"line {number} is none of a dump of rooms: {error}") from error
        if room is not None:
            yield room
    if not reader.is_complete:
        raise CommandError("the dump is cut off: its last line is missing")


@final
class _Reader:
    """What was read of a dump so far."""

    def __init__(self) -> None:
        self.is_complete = False
        self._is_open = False
        self._totals = Totals()
        self._room: RoomContent | None = None
        self._seen: set[RoomKey] = set()

    def take(self, line: Mapping[str, Any]) -> RoomContent | None:
        """Take the next line; give the room that has come to its end with it."""
        if not self._is_open:
            self._begin(line)
            return None
        if "end" in line:
            return self._end(line["end"])
        room = RoomKey(_text(line["party"]), _text(line["room"]))
        done = None
        if self._room is None or self._room.room != room:
            done, self._room = self._room, self._enter(room)
        self._put(self._room, line)
        return done

    def _begin(self, line: Mapping[str, Any]) -> None:
        if line != FIRST:
            raise ValueError(f"it begins with {FIRST}")
        self._is_open, self.is_complete, self._totals = True, False, Totals()

    def _end(self, totals: object) -> RoomContent | None:
        if totals != attrs.asdict(self._totals):
            raise ValueError(f"its end speaks of {totals}, and there were {attrs.asdict(self._totals)}")
        self._is_open, self.is_complete = False, True
        done, self._room = self._room, None
        return done

    def _enter(self, room: RoomKey) -> RoomContent:
        if room in self._seen:
            raise ValueError(f"{room} comes twice")
        self._seen.add(room)
        self._totals.rooms += 1
        return RoomContent(room)

    def _put(self, content: RoomContent, line: Mapping[str, Any]) -> None:
        if "key" in line:
            content.values[_text(line["key"])] = data = unpack(line["value"])
            self._totals.values += 1
        else:
            row = _alarm(content.room, line)
            content.alarms[row.name], data = row, row.data
            self._totals.alarms += 1
        content.size += len(data)


def _alarm(room: RoomKey, line: Mapping[str, Any]) -> AlarmRow:
    name = "" if line["alarm"] is None else _text(line["alarm"])
    due = None if line["due"] is None else alarm_time(datetime.fromisoformat(line["due"]), now=0)
    data = unpack(line["record"])
    return AlarmRow(room, name, due, data + b"\n" + unpack(line["payload"]) if "payload" in line else data)


def _text(name: object) -> str:
    if type(name) is not str:
        raise TypeError(f"{name!r} is no text")
    # Refuses what has no UTF-8 form.
    name.encode()
    return name
