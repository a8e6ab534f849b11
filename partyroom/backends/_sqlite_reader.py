"""The readers' side of a file: questions asked on the loop's own thread.

Owns the reading connections, one for each question that is being answered, and
the SQL of every question.

Promises that an answer shows one state between two commits and waits for no
writer; that it takes a few microseconds of the loop and no worker thread, which
costs ten times as much (measured: 8 us against 100); and that the loop may run
after every so many rows, so that a long answer never stalls it.

Must never write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar, final

from anyio.lowlevel import checkpoint

from partyroom.backends._file_place import FilePlace
from partyroom.backends._sqlite_faults import FAULTS, told
from partyroom.backends._sqlite_rows import alarm_of, value_of
from partyroom.backends._sqlite_schema import open_reader
from partyroom.types import AlarmCursor, AlarmRow, KeyRange, RoomKey

__all__ = ["SqliteReader"]

SLICE_ROWS: Final = 256
"""How many rows are read before the loop may run: some 0.2 ms of small ones."""
SLICE_BYTES: Final = 1024 * 1024
"""How many bytes of values are read before the loop may run: some 0.5 ms."""
MAX_KEYS: Final = 128
"""How many keys are asked for at once: some 0.3 ms."""

_OF_ROOM: Final = "FROM entries WHERE room = (SELECT number FROM rooms WHERE party = ? AND id = ?)"
_ONE_VALUE: Final = f"SELECT value {_OF_ROOM} AND key = ?"
_ENTRIES: Final = f"SELECT key, value {_OF_ROOM}"
_ALARMS: Final = "SELECT party, id, name, due, data FROM alarms"

T = TypeVar("T")
_ReadRow: TypeAlias = Callable[[Any], tuple[T, int]]


@final
class SqliteReader:
    """One file's reading connections."""

    def __init__(self, place: FilePlace) -> None:
        self._place = place
        self._free: list[sqlite3.Connection] = []
        self._all: list[sqlite3.Connection] = []

    # --- one room ------------------------------------------------------------

    async def read(self, room: RoomKey, keys: Collection[str]) -> dict[str, bytes]:
        """Give the values of those keys that exist."""
        if len(keys) == 1:
            (key,) = keys
            return self._read_one(room, key)
        found: list[tuple[str, bytes]] = []
        with self._snapshot() as connection:
            for some in _some_of(tuple(keys)):
                found += await _rows(connection.execute(_reading(len(some)), (*room, *some)), _entry)
                if len(keys) > MAX_KEYS:
                    await checkpoint()
        return dict(found)

    def _read_one(self, room: RoomKey, key: str) -> dict[str, bytes]:
        """Read one key in the straightest way: this is what a room does that was just woken."""
        connection = self._free.pop() if self._free else self._open()
        try:
            row = connection.execute(_ONE_VALUE, (*room, key)).fetchone()
            found = {} if row is None else {key: value_of(row[0])}
        except FAULTS as error:
            self._drop(connection)
            raise told(error, self._place.path) from error
        self._free.append(connection)
        return found

    async def scan(self, room: RoomKey, keys: KeyRange, limit: int) -> list[tuple[str, bytes]]:
        """Give the first entries of a range of keys."""
        where, bounds = _bounds("key", keys)
        statement = f"{_ENTRIES} AND {where} ORDER BY key {_direction(keys)} LIMIT ?"
        return await self._fetch(statement, (*room, *bounds, limit), _entry)

    async def room_alarms(self, room: RoomKey) -> list[AlarmRow]:
        """Give all alarms of a room, by name."""
        return await self._alarms("WHERE party = ? AND id = ? ORDER BY name", room)

    # --- all rooms -----------------------------------------------------------

    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int) -> list[AlarmRow]:
        """Give the first alarms that are due, in the order of (due, room, name)."""
        # Both indexes are named: with few alarms in the file, SQLite cannot know that there will be many.
        where, values = "INDEXED BY alarms_due WHERE due IS NOT NULL", list[object]()
        if before is not None:
            where += " AND due < ?"
            values.append(before)
        if after is not None:
            where += " AND (due, party, id, name) > (?, ?, ?, ?)"
            values += (after.due, *after.room, after.name)
        return await self._alarms(f"{where} ORDER BY due, party, id, name LIMIT ?", (*values, limit))

    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int) -> list[AlarmRow]:
        """Give the first alarms of a party that are never due, in the order of (room id, name)."""
        where = "INDEXED BY alarms_parked WHERE due IS NULL AND party = ?"
        if after is None:
            return await self._alarms(f"{where} ORDER BY id, name LIMIT ?", (party, limit))
        return await self._alarms(f"{where} AND (id, name) > (?, ?) ORDER BY id, name LIMIT ?", (party, *after, limit))

    async def rooms(self, party: str, ids: KeyRange, limit: int) -> list[str]:
        """Give the first ids, in a range of them, of rooms that hold something."""
        where, bounds = _bounds("id", ids)
        # Each half is walked along its index, and the two are merged: no sort, and no more rows than are asked for.
        halves = [f"SELECT id FROM {table} WHERE party = ? AND {where}" for table in ("rooms", "alarms")]  # noqa: S608
        statement = f"{' UNION '.join(halves)} ORDER BY id {_direction(ids)} LIMIT ?"
        return await self._fetch(statement, (party, *bounds, party, *bounds, limit), _id)

    async def _alarms(self, where: str, parameters: Sequence[object]) -> list[AlarmRow]:
        return await self._fetch(f"{_ALARMS} {where}", parameters, _alarm)

    # --- connections ---------------------------------------------------------

    def close(self) -> None:
        """Close all connections; an answer that is being read ends with :class:`BackendClosedError`."""
        while self._all:
            self._all.pop().close()
        self._free.clear()

    async def _fetch(self, statement: str, parameters: Sequence[object], read: _ReadRow[T]) -> list[T]:
        """Give an answer, each row of it read by ``read``. One statement shows one state of the file by itself."""
        connection = self._free.pop() if self._free else self._open()
        try:
            cursor = connection.execute(statement, parameters)
            try:
                return await _rows(cursor, read)
            finally:
                # Closed meanwhile, it has nothing to end.
                with suppress(sqlite3.ProgrammingError):
                    cursor.close()
                    self._free.append(connection)
        except FAULTS as error:
            self._drop(connection)
            raise told(error, self._place.path) from error

    @contextmanager
    def _snapshot(self) -> Generator[sqlite3.Connection]:
        """Lend a connection that shows one state of the file for as long as it is lent.

        Each is lent to one at a time: two on one connection would both see the older state, and one of them may have
        been asked after a commit that the other must not see.
        """
        connection = self._free.pop() if self._free else self._open()
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                # Closed meanwhile, it has nothing to end.
                with suppress(sqlite3.ProgrammingError):
                    connection.execute("ROLLBACK")
                    self._free.append(connection)
        except FAULTS as error:
            self._drop(connection)
            raise told(error, self._place.path) from error

    def _drop(self, connection: sqlite3.Connection) -> None:
        """Close a connection in which something has failed: the next question has a fresh one, and none is left behind."""
        for lent in (self._free, self._all):
            if connection in lent:
                lent.remove(connection)
        connection.close()

    def _open(self) -> sqlite3.Connection:
        self._place.check()
        connection = open_reader(self._place.path)
        self._all.append(connection)
        return connection


async def _rows(cursor: sqlite3.Cursor, read: _ReadRow[T]) -> list[T]:
    """Read an answer to its end, in slices."""
    rows: list[T] = []
    weight = 0
    for row in cursor:
        item, size = read(row)
        rows.append(item)
        weight += size
        if weight >= SLICE_BYTES or len(rows) % SLICE_ROWS == 0:
            weight = 0
            await checkpoint()
    return rows


def _some_of(keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Cut keys into parts that are not too many, each filled up to a power of two: so statements stay few."""
    for start in range(0, len(keys), MAX_KEYS):
        part = keys[start : start + MAX_KEYS]
        size = 1 << (len(part) - 1).bit_length()
        yield part + part[-1:] * (size - len(part))


@cache
def _reading(keys: int) -> str:
    return f"{_ENTRIES} AND key IN ({', '.join('?' * keys)})"


def _bounds(column: str, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
    if keys.end is None:
        return f"{column} >= ?", (keys.start,)
    return f"{column} >= ? AND {column} < ?", (keys.start, keys.end)


def _direction(keys: KeyRange) -> str:
    return "DESC" if keys.reverse else "ASC"


# How rows are read: what becomes of one, and how many bytes of it are large.


def _entry(row: tuple[str, object]) -> tuple[tuple[str, bytes], int]:
    key, value = row
    data = value_of(value)
    return (key, data), len(data)


def _alarm(row: tuple[str, str, str, object, object]) -> tuple[AlarmRow, int]:
    alarm = alarm_of(row)
    return alarm, len(alarm.data)


def _id(row: tuple[str]) -> tuple[str, int]:
    return row[0], 0
