"""What was acknowledged, and whether a file holds it: the axe's own look at a file, by SQL alone.

Owns the list of acknowledged writes, and every sentence that is said of a broken promise.

Promises that a file passes only if each acknowledged write is there, every room shows whole events and nothing else,
each alarm that was set is either stored as its room says or has rung once for each of its times, and SQLite finds no
damage.

Must never change the file, nor read it by the library's own backend, which it judges.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs

from partyroom import AlarmInfo, AlarmRow, JsonCodec, RoomKey
from partyroom._core.alarm_life import look_at
from tests.backends.axe_child import BEAT, MARK, alarm_key, churned, mark_of, rings_of, text, write_key

CODEC: Final = JsonCodec()


class AxeError(AssertionError):
    """A promise was broken, or a process did what it must not."""


def expect(expected: object, seen: object, what: str) -> None:
    """Raise unless both are the same."""
    if expected != seen:
        raise AxeError(f"{what}: expected {_short(expected)}, found {_short(seen)}")


def _short(value: object) -> str:
    return f"{value!r:.200}"


@attrs.define
class Stored:
    """What a file holds of one room."""

    values: dict[str, Any] = attrs.field(factory=dict[str, Any])
    alarms: dict[str | None, AlarmInfo] = attrs.field(factory=dict[str | None, AlarmInfo])

    @property
    def number(self) -> int:
        """How many writes the room has stored."""
        return int(self.values.get("n", 0))


def look(path: Path) -> dict[RoomKey, Stored]:
    """Read the whole file as it stands between two commits, and look for damage; a process may be at work on it.

    One may also have died before it made the file, or the tables in it.
    """
    rooms: dict[RoomKey, Stored] = defaultdict(Stored)
    if not path.exists():
        return rooms
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as file:
        try:
            file.execute("BEGIN")
            expect([("ok",)], file.execute("PRAGMA integrity_check").fetchall(), "SQLite's integrity check")
            if file.execute("PRAGMA user_version").fetchone() != (0,):
                _read(file, rooms)
        except sqlite3.DatabaseError as error:
            raise AxeError(f"{path.name} cannot be read: {error}") from error
    return rooms


def _read(file: sqlite3.Connection, rooms: dict[RoomKey, Stored]) -> None:
    entries = "SELECT party, id, key, value FROM entries JOIN rooms ON number = room WHERE party NOT NULL"
    for party, id_, key, value in file.execute(entries):
        rooms[RoomKey(party, id_)].values[key] = CODEC.decode(value)
    for party, id_, name, due, data in file.execute("SELECT party, id, name, due, data FROM alarms"):
        alarm = look_at(AlarmRow(RoomKey(party, id_), name, due, data), CODEC)
        rooms[alarm.room].alarms[alarm.name] = alarm


@attrs.define(eq=False)
class Books:
    """All writes to one file that were acknowledged."""

    acknowledged: dict[RoomKey, set[int]] = attrs.field(factory=lambda: defaultdict(set))

    def note(self, room: RoomKey, number: int) -> None:
        """Hear of an acknowledged write."""
        if number in self.acknowledged[room]:
            raise AxeError(f"{room}: write {number} was acknowledged twice: the first one has been lost")
        self.acknowledged[room].add(number)

    def count(self) -> int:
        """Give how many writes were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def judge(self, path: Path) -> dict[RoomKey, Stored]:
        """Look at the file, and raise :class:`AxeError` at the first thing that is not as promised."""
        rooms = look(path)
        for room in self.acknowledged.keys() | rooms.keys():
            stored = rooms[room]
            latest = max(self.acknowledged[room], default=0)
            if stored.number < latest:
                raise AxeError(f"{room}: write {latest} was acknowledged, the file ends with {stored.number}")
            JUDGES[room.party](stored, str(room))
        return rooms


def open_rings(rooms: dict[RoomKey, Stored]) -> int:
    """Give how many rings the alarms of all ledgers have before them."""
    return sum(
        rings_of(number) - len(stored.values[alarm_key(number)]["rung"])
        for room, stored in rooms.items()
        if room.party == "ledger"
        for number in range(1, stored.number + 1)
    )


def judge_churn(stored: Stored, room: str) -> None:
    """See that a churning room holds exactly what its last write left."""
    number = stored.number
    expect(churned(number) if number else {}, stored.values, f"{room}: values after write {number}")
    marks = {name: alarm.scheduled_time for name, alarm in stored.alarms.items()}
    expect({MARK: mark_of(number)} if number else {}, marks, f"{room}: alarms after write {number}")


def judge_ledger(stored: Stored, room: str) -> None:
    """See that a ledger holds all of its writes whole, and that each write's alarm is stored or has rung."""
    values, alarms, numbers = dict(stored.values), dict(stored.alarms), range(1, stored.number + 1)
    last = values.pop("last", None)
    expect(text(stored.number) if numbers else None, last, f"{room}: the value that write {stored.number} replaced")
    beats = values.pop("beat", None)
    expect(
        False,
        bool(beats and beats["again"]),
        f"{room}: whether a recurrence rang again for a time that it had rung for",
    )
    if numbers or beats:
        beat = alarms.pop(BEAT, None)
        expect("pending", beat and beat.status, f"{room}: the recurring alarm")
    values.pop("n", None)
    for number in numbers:
        expect(text(number), values.pop(write_key(number), None), f"{room}: the value of write {number}")
        judge_alarm(
            number, values.pop(alarm_key(number), None), alarms.pop(str(number), None), f"{room}: write {number}"
        )
    expect({}, values, f"{room}: values that no event wrote")
    expect([], sorted(map(str, alarms.keys() - {BEAT})), f"{room}: alarms that no event set")


def judge_alarm(number: int, booked: Any, stored: AlarmInfo | None, what: str) -> None:
    """See that a write's alarm rang once for each of its times, and is stored if and as its room says."""
    if booked is None:
        raise AxeError(f"{what}: nothing is known of its alarm, which was set in the same event")
    due, rung = booked["due"], booked["rung"]
    expect(
        [], [str(time) for time, times in rung.items() if times != 1], f"{what}: times for which its alarm rang twice"
    )
    expect(due is None, len(rung) == rings_of(number), f"{what}: whether its alarm has rung for the last time")
    expect(due, stored and stored.scheduled_time, f"{what}: the time of its alarm")
    expect(number if due else None, stored and stored.payload, f"{what}: the payload of its alarm")
    expect(due is not None, bool(stored and stored.next_time), f"{what}: whether its alarm will ring")


JUDGES: Final = {"ledger": judge_ledger, "churn": judge_churn}
