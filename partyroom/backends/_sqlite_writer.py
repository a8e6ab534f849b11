"""The writer's side of a file: a group of commits in one statement.

Owns the one connection that writes, in the writer thread.

Promises that a group is one transaction and one sync of the disk, and reaches
SQLite in one call: each call gives up Python's global lock and has to win it
back, which a busy event loop makes a matter of milliseconds. So a group is one
``INSERT`` of many rows: of entries, if it is nothing but puts into rooms that
are there, or else into a view whose triggers put each where it belongs.

Must never look at anything but what it is told to write.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeAlias, final

from partyroom.backends._file_lock import FileLock
from partyroom.backends._file_place import FilePlace
from partyroom.backends._sqlite_care import FileCare
from partyroom.backends._sqlite_faults import FAULTS, faults_of, told
from partyroom.backends._sqlite_schema import Durability, open_writer
from partyroom.types import Commit, RoomKey

__all__ = ["SqliteWriter"]

_PUT: Final = 1
_DELETE: Final = 2
_CLEAR: Final = 3
_SET_ALARM: Final = 4
_DELETE_ALARM: Final = 5

_Cell: TypeAlias = Any  # int | str | bytes | None: what a column takes is known where a row is made

MAX_ROWS: Final = 2048
"""The most rows of one statement; a prepared one costs about 0.5 KB a row. A larger group is several in a transaction."""
MAX_DELETING: Final = 256
"""The most rows of one that deletes more values than that: SQLite holds every page of them in memory until it ends."""
MAX_KNOWN: Final = 100_000
"""How many rooms are known to be there before they are forgotten, all at once."""

# Half the time of a row of the view. A room that is not there fails it as a whole, by what `room` must not be.
_PUTS: Final = """
    WITH put (party, id, key, value) AS (VALUES {})
    INSERT INTO entries (room, key, value)
        SELECT number, put.key, put.value
            FROM put LEFT JOIN rooms ON rooms.party = put.party AND rooms.id = put.id
            WHERE put.party IS NOT NULL
        ON CONFLICT (room, key) DO UPDATE SET value = excluded.value
"""
_CHANGES: Final = "INSERT INTO change VALUES {}"

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
        self._known: set[RoomKey] = set()
        """Rooms that are there as far as one knows; nothing but speed hangs on it."""

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
        try:
            if not self._put(commits):
                self._change(commits)
        except FAULTS as error:
            raise told(error, self._path) from error

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

    def _put(self, commits: Sequence[Commit]) -> bool:
        """Write commits that are nothing but puts into known rooms; say whether they were."""
        cells: list[_Cell] = []
        add = cells.extend
        known = self._known
        for room, _, values, alarms, clear, _ in commits:
            if clear or alarms or room not in known:
                return False
            party, room_id = room
            for key, value in values.items():
                if value is None:
                    return False
                add((party, room_id, key, value))
        try:
            self._insert(_PUTS, 4, cells, MAX_ROWS)
        except sqlite3.IntegrityError:
            self._known.clear()
            return False
        self._care.note(rows=len(cells) // 4, size=_size(cells[3::4]))
        return True

    def _change(self, commits: Sequence[Commit]) -> None:
        """Write any commits."""
        cells = _changes_of(commits)
        kinds = cells[::6]
        self._insert(_CHANGES, 6, cells, MAX_DELETING if kinds.count(_DELETE) > MAX_DELETING else MAX_ROWS)
        deleted = kinds.count(_DELETE) + kinds.count(_DELETE_ALARM)
        self._care.note(rows=len(kinds), size=_size(cells[4::6]), deleted=deleted, cleared=_CLEAR in kinds)
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        for commit in commits:
            if commit.clear or None in commit.values.values():
                self._known.discard(commit.room)
            elif commit.values:
                self._known.add(commit.room)

    def _insert(self, statement: str, columns: int, cells: list[_Cell], rows: int) -> None:
        """Insert rows, which follow each other in ``cells``: in one statement, or in several of ``rows`` in a transaction."""
        most = rows * columns
        if len(cells) <= most:
            self._execute(statement, columns, cells)
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(cells), most):
                self._execute(statement, columns, cells[start : start + most])
            self._connection.execute("COMMIT")
        except BaseException:
            # Not as a statement: after the worst of errors SQLite itself has rolled back.
            self._connection.rollback()
            raise

    def _execute(self, statement: str, columns: int, cells: list[_Cell]) -> None:
        rows = len(cells) // columns
        size = _SIZES[bisect_left(_SIZES, rows)]
        self._connection.execute(_filled(statement, columns, size), cells + [None] * ((size - rows) * columns))


def _teach(connection: sqlite3.Connection) -> None:
    """Make the view that takes changes, for this connection only."""
    connection.execute("PRAGMA temp_store = memory")
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
def _filled(statement: str, columns: int, rows: int) -> str:
    """Give a statement with a question mark for each cell. What is too many rows is left empty, and then nothing."""
    row = f"({', '.join('?' * columns)})"
    return statement.format(", ".join([row] * rows))


def _changes_of(commits: Sequence[Commit]) -> list[_Cell]:
    """Give the rows of the view for some commits, in the order in which they take effect, one after another."""
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


def _size(values: Sequence[_Cell]) -> int:
    """Give the bytes of some values and alarms."""
    return sum(map(len, [value for value in values if value]))
