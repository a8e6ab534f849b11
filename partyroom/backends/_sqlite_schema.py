"""The tables of a file, their versions, and how a file is opened.

Owns the schema, one function for each step from a version to the next, and the
marks in the file's header: SQLite's ``application_id`` says that it is ours,
``user_version`` which version it is.

Promises that a file which is not ours, or which a newer version of the library
wrote, is refused before a byte of it is changed, and that a migration is done
whole or not at all.

Must never read or write a room.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, Literal

from partyroom.backends._sqlite_faults import faults_of
from partyroom.backends._sqlite_rows import epoch_of
from partyroom.errors import BackendCorruptError, BackendError, BackendVersionError

__all__ = ["APPLICATION_ID", "VERSION", "Durability", "connect", "open_reader", "open_writer", "wait_for_disk"]

Durability = Literal["full", "normal"]

APPLICATION_ID: Final = 0x50_52_4F_4D
"""``PROM``, in the header of every file of ours."""

BUSY_SECONDS: Final = 5.0
"""How long a write waits for another program that has the file locked, such as a shell left open in a transaction."""

READER_KILOBYTES: Final = 16 * 1024
"""How much a reading connection may keep in memory until the next commit; a third off reads from files of some size."""

# A room's entries hang on its number, so that all of them can be given up at once: the row in rooms loses its names,
# keeps the number from being used again, and goes when the last entry has been swept away. Entries lie in the order in
# which they were first put, with an index beside them: three times as fast to fill as a table clustered by room and
# key, no slower to read, and large values cost no more than their size. Alarms carry their room's texts, for that is
# the order in which they are asked for: by due time, then room, then name, without a sort.
_VERSION_1: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('epoch', 0)",
    "CREATE TABLE rooms (number INTEGER PRIMARY KEY, party TEXT, id TEXT, UNIQUE (party, id))",
    """CREATE TABLE entries (
        place INTEGER PRIMARY KEY, room INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (room, key)
    )""",
    """CREATE TABLE alarms (
        party TEXT, id TEXT, name TEXT, due INTEGER, data BLOB NOT NULL, PRIMARY KEY (party, id, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX alarms_due ON alarms (due, party, id, name) WHERE due IS NOT NULL",
    "CREATE INDEX alarms_parked ON alarms (party, id, name) WHERE due IS NULL",
)


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables of version 1 in an empty file."""
    for statement in _VERSION_1:
        connection.execute(statement)


MIGRATIONS: Final[Sequence[Callable[[sqlite3.Connection], None]]] = (_create,)
"""Each leads from the version of its index to the next."""

VERSION: Final = len(MIGRATIONS)


def open_writer(path: str, durability: Durability) -> tuple[sqlite3.Connection, int]:
    """Open the file for the one connection that writes, made or migrated where it must be; give it and its epoch.

    An epoch is higher than at any opening before.
    """
    with faults_of(path):
        connection = connect(path)
        try:
            version = _check(connection, path)
            if not version:
                # Space can be given back piece by piece only if the file was made so.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _use_log(connection, path)
            wait_for_disk(connection, durability)
            _migrate(connection, version)
            epoch = epoch_of(
                connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value").fetchall()
            )
        except BaseException:
            connection.close()
            raise
    return connection, epoch


def open_reader(path: str) -> sqlite3.Connection:
    """Open one more connection, for reading only."""
    with faults_of(path):
        connection = connect(path)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute(f"PRAGMA cache_size = -{READER_KILOBYTES}")
        except BaseException:
            connection.close()
            raise
    return connection


def connect(path: str) -> sqlite3.Connection:
    """Open one more connection."""
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def wait_for_disk(connection: sqlite3.Connection, durability: Durability) -> None:
    """Have a connection wait for the disk at every commit, or only when it must so as not to damage the file."""
    connection.execute(f"PRAGMA synchronous = {durability}")
    # On macOS, where syncing a file leaves it in the memory of the disk; of no effect elsewhere.
    connection.execute(f"PRAGMA fullfsync = {durability == 'full'}")
    connection.execute(f"PRAGMA checkpoint_fullfsync = {durability == 'full'}")


def _check(connection: sqlite3.Connection, path: str) -> int:
    """Give the version of the file, 0 for an empty one; refuse what is not ours or too new."""
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if mark != APPLICATION_ID and (mark or version or connection.execute("SELECT 1 FROM sqlite_schema").fetchone()):
        raise BackendCorruptError(f"{path}: the file is the database of another program; nothing was changed")
    if version > VERSION:
        raise BackendVersionError(
            f"{path}: the file has version {version}, this library reads up to {VERSION}; nothing was changed"
        )
    return int(version)


def _use_log(connection: sqlite3.Connection, path: str) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise BackendError(f"{path}: its file system takes no write-ahead log; use a local disk")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migrate in MIGRATIONS[version:]:
            migrate(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
