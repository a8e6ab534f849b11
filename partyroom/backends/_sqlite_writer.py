"""The writer's side of a file: a group of commits in one statement.

Owns the one connection that writes, from the thread that it lives in.

Promises that a group is one transaction and one sync of the disk, and reaches
SQLite in one call: each call gives up Python's global lock and has to win it
back, which a busy event loop makes a matter of milliseconds. So a group is one
``INSERT`` of many rows into a view, whose triggers put them where they belong.

Must never read a clock, nor be called from two threads at once.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, TypeAlias, final

from partyroom.backends._file_lock import FileLock
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
_NOTHING: Final[tuple[_Cell, ...]] = (None,) * _COLUMNS

MAX_ROWS: Final = 2048
"""The most rows of one statement; a prepared one costs about 0.5 KB a row. A larger group is several in a transaction."""

# Temporary, so that no file holds anything that another version of the library would have to know.
_VIEW: Final = (
    "CREATE TEMP VIEW change (what, party, id, name, value, due) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL WHERE 0"
)
# The number of a room is higher than any that has been given up and not been swept yet.
_TRIGGERS: Final = {
    _PUT: """
        INSERT INTO rooms (number, party, id)
            SELECT 1 + max((SELECT ifnull(max(number), 0) FROM rooms), (SELECT ifnull(max(number), 0) FROM given_up)),
                new.party, new.id
            WHERE NOT EXISTS (SELECT 1 FROM rooms WHERE party = new.party AND id = new.id);
        INSERT INTO entries (room, key, value)
            SELECT number, new.name, new.value FROM rooms WHERE party = new.party AND id = new.id
            ON CONFLICT (room, key) DO UPDATE SET value = excluded.value;
    """,
    _DELETE: """
        DELETE FROM entries
            WHERE room = (SELECT number FROM rooms WHERE party = new.party AND id = new.id) AND key = new.name;
        DELETE FROM rooms
            WHERE party = new.party AND id = new.id AND NOT EXISTS (SELECT 1 FROM entries WHERE room = rooms.number);
    """,
    _CLEAR: """
        INSERT INTO given_up SELECT number FROM rooms WHERE party = new.party AND id = new.id;
        DELETE FROM rooms WHERE party = new.party AND id = new.id;
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
    """One file's writing connection."""

    def __init__(self, path: str, durability: Durability) -> None:
        self._path = path
        self._durability: Durability = durability
        self._lock = FileLock(path)
        self._connection: sqlite3.Connection

    def open(self) -> int:
        """Take the lock and open the file; give its epoch."""
        self._lock.acquire()
        try:
            self._connection, epoch = open_writer(self._path, self._durability)
        except BaseException:
            self._lock.release()
            raise
        self._connection.execute(_VIEW)
        for what, statements in _TRIGGERS.items():
            self._connection.execute(
                f"CREATE TEMP TRIGGER change_{what} INSTEAD OF INSERT ON change WHEN new.what = {what}"
                f" BEGIN {statements} END"
            )
        return epoch

    def apply(self, commits: Sequence[Commit]) -> None:
        """Write all of some commits in one transaction and make it durable; or raise, and nothing is written."""
        rows = list(_rows_of(commits))
        with faults_of(self._path):
            if len(rows) <= MAX_ROWS:
                self._insert(rows)
            else:
                self._insert_many(rows)

    def _insert_many(self, rows: Sequence[tuple[_Cell, ...]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(rows), MAX_ROWS):
                self._insert(rows[start : start + MAX_ROWS])
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after the worst of errors.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, rows: Sequence[tuple[_Cell, ...]]) -> None:
        size = _SIZES[bisect_left(_SIZES, len(rows))]
        cells = [cell for row in rows for cell in row]
        cells.extend(_NOTHING * (size - len(rows)))
        self._connection.execute(_statement(size), cells)

    def close(self) -> None:
        """Close the file, what is in the log moving into it; then let go of the lock."""
        try:
            with faults_of(self._path):
                self._connection.close()
        finally:
            self._lock.release()

    def rest(self) -> bool:
        """There is nothing to do."""
        return False


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


def _rows_of(commits: Sequence[Commit]) -> Iterator[tuple[_Cell, ...]]:
    """Give the changes of some commits, in the order in which they take effect."""
    for commit in commits:
        party, id_ = commit.room
        if commit.clear:
            yield (_CLEAR, party, id_, None, None, None)
        for key, value in commit.values.items():
            yield (_DELETE if value is None else _PUT, party, id_, key, value, None)
        for name, alarm in commit.alarms.items():
            if alarm is None:
                yield (_DELETE_ALARM, party, id_, name, None, None)
            else:
                yield (_SET_ALARM, party, id_, name, alarm.data, alarm.due)
