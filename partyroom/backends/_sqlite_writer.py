"""The writer's side of a file: a group of commits in one statement.

Owns the one connection that writes, in the writer thread.

Promises that a group is one transaction and one sync of the disk, and reaches
SQLite in one call: each call gives up Python's global lock and has to win it
back, which a busy event loop makes a matter of milliseconds. So a group is one
``INSERT`` of many rows into a view, whose triggers put them where they belong.

Must never look at anything but what it is told to write.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, TypeAlias, final

from partyroom.backends._file_lock import FileLock
from partyroom.backends._file_place import FilePlace
from partyroom.backends._sqlite_care import FileCare
from partyroom.backends._sqlite_faults import faults_of
from partyroom.backends._sqlite_schema import Durability, open_writer
from partyroom.types import Commit

__all__ = ["SqliteWriter"]

_PUT: Final = 1
_DELETE: Final = 2
_CLEAR: Final = 3
_SET_ALARM: Final = 4
_DELETE_ALARM: Final = 5

_Cell: TypeAlias = "int | str | bytes | None"

_COLUMNS: Final = 6
_VALUE: Final = 4

MAX_ROWS: Final = 2048
"""The most rows of one statement; a prepared one costs about 0.5 KB a row. A larger group is several in a transaction."""

# Temporary, so that no file holds anything that another version of the library would have to know.
_VIEW: Final = (
    "CREATE TEMP VIEW change (what, party, id, name, value, due) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL WHERE 0"
)
# VALUES where SELECT would do: it saves a third of a row's time.
_TRIGGERS: Final = {
    _PUT: """
        INSERT INTO rooms (party, id) VALUES (new.party, new.id) ON CONFLICT DO NOTHING;
        INSERT INTO entries (room, key, value)
            VALUES ((SELECT number FROM rooms WHERE party = new.party AND id = new.id), new.name, new.value)
            ON CONFLICT (room, key) DO UPDATE SET value = excluded.value;
    """,
    _DELETE: """
        DELETE FROM entries
            WHERE room = (SELECT number FROM rooms WHERE party = new.party AND id = new.id) AND key = new.name;
        DELETE FROM rooms
            WHERE party = new.party AND id = new.id AND NOT EXISTS (SELECT 1 FROM entries WHERE room = rooms.number);
    """,
    _CLEAR: """
        UPDATE rooms SET party = NULL, id = NULL WHERE party = new.party AND id = new.id;
        DELETE FROM alarms WHERE party = new.party AND id = new.id;
    """,
    _SET_ALARM: """
        INSERT INTO alarms (party, id, name, due, data) VALUES (new.party, new.id, new.name, new.due, new.value)
            ON CONFLICT (party, id, name) DO UPDATE SET due = excluded.due, data = excluded.data;
    """,
    _DELETE_ALARM: """
        DELETE FROM alarms WHERE party = new.party AND id = new.id AND name = new.name;
    """,
}


@final
class SqliteWriter:
    """One file's writing connection. All but the constructor is called from the writer thread."""

    def __init__(self, place: FilePlace, durability: Durability) -> None:
        self._place = place
        self._path = place.path
        self._durability: Durability = durability
        self._lock = FileLock(place.path)
        self._connection: sqlite3.Connection
        self._care: FileCare

    def open(self) -> int:
        """Take the lock and open the file; give its epoch."""
        self._lock.acquire()
        try:
            self._place.check_writable()
            with faults_of(self._path):
                self._connection, epoch = open_writer(self._path, self._durability)
                _teach(self._connection)
                self._care = FileCare(self._connection, self._path, self._durability)
        except BaseException:
            self._lock.release()
            raise
        self._place.remember()
        return epoch

    def apply(self, commits: Sequence[Commit]) -> None:
        """Write all of some commits in one transaction and make it durable; or raise, and nothing is written."""
        cells = _cells_of(commits)
        with faults_of(self._path):
            if len(cells) <= MAX_ROWS * _COLUMNS:
                self._insert(cells)
            else:
                self._insert_many(cells)
        self._note(cells)

    def rest(self) -> bool:
        """Take care of the file a little; say whether there is more to do."""
        return self._care.piece()

    def close(self) -> None:
        """Close the file, what is in the log moving into it; then let go of the lock."""
        try:
            self._care.end()
            with faults_of(self._path):
                self._connection.close()
        finally:
            self._lock.release()

    def _insert(self, cells: list[_Cell]) -> None:
        rows = len(cells) // _COLUMNS
        size = _SIZES[bisect_left(_SIZES, rows)]
        self._connection.execute(_statement(size), cells + [None] * ((size - rows) * _COLUMNS))

    def _insert_many(self, cells: list[_Cell]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(cells), MAX_ROWS * _COLUMNS):
                self._insert(cells[start : start + MAX_ROWS * _COLUMNS])
            self._connection.execute("COMMIT")
        except BaseException:
            # Not as a statement: after the worst of errors SQLite itself has rolled back.
            self._connection.rollback()
            raise

    def _note(self, cells: list[_Cell]) -> None:
        kinds = cells[::_COLUMNS]
        self._care.note(
            rows=len(kinds),
            size=sum(len(value) for value in cells[_VALUE::_COLUMNS] if isinstance(value, bytes)),
            deleted=kinds.count(_DELETE) + kinds.count(_DELETE_ALARM),
            cleared=_CLEAR in kinds,
        )


def _teach(connection: sqlite3.Connection) -> None:
    """Make the view that takes changes, for this connection only."""
    connection.execute(_VIEW)
    for what, statements in _TRIGGERS.items():
        connection.execute(
            f"CREATE TEMP TRIGGER change_{what} INSTEAD OF INSERT ON change WHEN new.what = {what}"
            f" BEGIN {statements} END"
        )


def _sizes() -> Iterator[int]:
    """Give the row counts of statements: few enough to be kept prepared, close enough to waste little."""
    size = 1
    while size < MAX_ROWS:
        yield size
        if size > 1:
            yield size * 3 // 2
        size *= 2
    yield MAX_ROWS


_SIZES: Final = tuple(_sizes())


@cache
def _statement(size: int) -> str:
    row = f"({', '.join('?' * _COLUMNS)})"
    return f"INSERT INTO change VALUES {', '.join([row] * size)}"  # noqa: S608 - question marks only


def _cells_of(commits: Sequence[Commit]) -> list[_Cell]:
    """Give the rows to insert for some commits, in the order in which they take effect, one after another."""
    cells: list[_Cell] = []
    add = cells.extend
    for commit in commits:
        party, room_id = commit.room
        if commit.clear:
            add((_CLEAR, party, room_id, None, None, None))
        for key, value in commit.values.items():
            add((_DELETE if value is None else _PUT, party, room_id, key, value, None))
        for name, alarm in commit.alarms.items():
            if alarm is None:
                add((_DELETE_ALARM, party, room_id, name, None, None))
            else:
                add((_SET_ALARM, party, room_id, name, alarm.data, alarm.due))
    return cells
