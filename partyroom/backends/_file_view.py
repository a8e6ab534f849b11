"""A file as it is at one moment, for those who only look: no lock, nothing written, safe beside the process that owns it.

Owns one connection that cannot write, held in one read transaction from its opening to its end, and the questions that
only a file can answer: which parties there are, how large a room is, whether the file is sound.

Promises that all answers of one opening show the same state between two commits, however long the looking takes and
whatever is committed meanwhile; and that no file is changed, made or deleted by it, but for the two that SQLite keeps
beside a file which is in use, or was when its process died (``-wal`` and ``-shm``).

Must never be handed to a runtime: it refuses to claim a room.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self, final

import attrs
from anyio import get_current_task
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom.backends._sqlite_faults import faults_of
from partyroom.backends._sqlite_rows import EARLIEST, LATEST, alarm_of, epoch_of, value_of
from partyroom.backends._sqlite_schema import APPLICATION_ID, BUSY_SECONDS, VERSION
from partyroom.errors import (
    BackendClosedError,
    BackendCorruptError,
    BackendError,
    BackendReadOnlyError,
    BackendVersionError,
    CommitError,
)
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["FileFacts", "FileView", "OpenedFile"]

STEP: Final = 100_000
"""After how many of SQLite's own instructions, about a millisecond of them, a long look may say how it goes."""
FAULTS: Final = 100
"""How many faults SQLite looks for before it stops."""

_OF_ROOM: Final = "FROM entries WHERE room = (SELECT number FROM rooms WHERE party = ? AND id = ?)"
_ALARMS: Final = "SELECT party, id, name, due, data FROM alarms"
_PARTIES: Final = "SELECT party FROM rooms WHERE party NOT NULL UNION SELECT party FROM alarms ORDER BY party"
_MISFITS: Final[Mapping[str, str]] = {
    "entries of no room": "entries WHERE room NOT IN (SELECT number FROM rooms)",
    "values that are no bytes": "entries WHERE typeof(value) <> 'blob'",
    "alarms that are no bytes": "alarms WHERE typeof(data) <> 'blob'",
    "alarms at no time": (
        f"alarms WHERE typeof(due) NOT IN ('integer', 'null') OR due NOT BETWEEN {EARLIEST} AND {LATEST}"
    ),
}
"""What a program of this library never writes, though SQLite takes it: somebody else has been at the file."""


@attrs.frozen(kw_only=True)
class FileFacts:
    """What is known of a file as a whole."""

    version: int
    """Of its tables."""
    openings: int
    """How often it has been opened for writing."""
    file_bytes: int
    log_bytes: int
    """Of the write-ahead log beside it: what was committed and is not moved into the file yet, and space for more."""
    free_bytes: int
    """Space within the file that nothing uses."""
    unswept_entries: int
    """Entries of rooms that were cleared; the next process that writes sweeps them away."""
    written: float
    """When the file or its log were last written to, in seconds since 1970-01-01 UTC."""
    owner: int | None
    """The process that has the file open for writing, or had it last; ``None`` if that is not known."""


@final
class FileView(StorageBackend):
    """Shows one moment of a file, from entering it on. Questions are answered on the loop's own thread, one at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Without links: what SQLite keeps beside a file is beside the file itself.
        self._path = Path(path).resolve()
        self._opened: OpenedFile | None = None

    @override
    def __repr__(self) -> str:
        return f"FileView({str(self._path)!r})"

    @override
    async def __aenter__(self) -> Self:
        opened = OpenedFile(self._path)
        if opened.version != VERSION:
            opened.close()
            raise BackendVersionError(
                f"{self._path}: the file has version {opened.version}, this library looks at {VERSION}"
            )
        self._opened = opened
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    # --- what every backend can be asked -------------------------------------

    @override
    async def claim(self, room: RoomKey, /) -> int:
        self._refuse()

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        self._refuse()

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        found = [self._entries(f"SELECT key, value {_OF_ROOM} AND key = ?", *room, key) for key in keys]
        return {key: value for rows in found for key, value in rows}

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        where, bounds, order = _within("key", keys)
        statement = f"SELECT key, value {_OF_ROOM} AND {where} ORDER BY key {order} LIMIT ?"
        return self._entries(statement, *room, *bounds, limit)

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return self._alarms("WHERE party = ? AND id = ? ORDER BY name", *room)

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        where, values = "INDEXED BY alarms_due WHERE due IS NOT NULL", list[object]()
        if before is not None:
            where += " AND due < ?"
            values.append(before)
        if after is not None:
            where += " AND (due, party, id, name) > (?, ?, ?, ?)"
            values += (after.due, *after.room, after.name)
        return self._alarms(f"{where} ORDER BY due, party, id, name LIMIT ?", *values, limit)

    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        where = "INDEXED BY alarms_parked WHERE due IS NULL AND party = ?"
        if after is None:
            return self._alarms(f"{where} ORDER BY id, name LIMIT ?", party, limit)
        return self._alarms(f"{where} AND (id, name) > (?, ?) ORDER BY id, name LIMIT ?", party, *after, limit)

    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        where, bounds, order = _within("id", ids)
        halves = [f"SELECT id FROM {table} WHERE party = ? AND {where}" for table in ("rooms", "alarms")]  # noqa: S608
        statement = f"{' UNION '.join(halves)} ORDER BY id {order} LIMIT ?"
        return [id_ for (id_,) in self._rows(statement, party, *bounds, party, *bounds, limit)]

    # --- what only a file can be asked ---------------------------------------

    async def parties(self) -> Sequence[str]:
        """Give the names of the parties that have rooms here, in order."""
        return [party for (party,) in self._rows(_PARTIES)]

    async def size_of(self, room: RoomKey) -> tuple[int, int]:
        """Give how many keys a room holds, and how many bytes of values; without reading them."""
        ((keys, size),) = self._rows(f"SELECT count(*), coalesce(sum(length(value)), 0) {_OF_ROOM}", *room)
        return keys, size

    async def count_rooms(self) -> int:
        """Give how many rooms hold a value or an alarm."""
        ((rooms,),) = self._rows(
            "SELECT count(*) FROM (SELECT party, id FROM rooms WHERE party NOT NULL UNION SELECT party, id FROM alarms)"
        )
        return int(rooms)

    async def facts(self) -> FileFacts:
        """Give what is known of the file as a whole."""
        with faults_of(str(self._path)):
            openings = epoch_of(self._rows("SELECT value FROM meta WHERE name = 'epoch'"))
        ((unswept,),) = self._rows(
            "SELECT count(*) FROM entries WHERE room IN (SELECT number FROM rooms WHERE party IS NULL)"
        )
        ((free,),) = self._rows("PRAGMA freelist_count")
        ((page,),) = self._rows("PRAGMA page_size")
        log = _status(f"{self._path}-wal")
        file = self._path.stat()
        return FileFacts(
            version=VERSION,
            openings=openings,
            file_bytes=file.st_size,
            log_bytes=0 if log is None else log.st_size,
            free_bytes=free * page,
            unswept_entries=unswept,
            written=max(file.st_mtime, 0 if log is None else log.st_mtime),
            owner=_owner(f"{self._path}-lock"),
        )

    async def faults(self, on_progress: Callable[[], None]) -> Sequence[str]:
        """Look for damage in the whole file; give a line for each fault. Takes a second for some hundred megabytes.

        ``on_progress`` is called about every millisecond meanwhile, and a cancelled look ends soon after that.
        """
        task = get_current_task()
        connection = self._open().connection

        def go_on() -> bool:
            on_progress()
            # True ends the look.
            return task.has_pending_cancellation()

        connection.set_progress_handler(go_on, STEP)
        try:
            return self._faults()
        except BackendError:
            # What ended the look, if it was cancelled; not ``checkpoint_if_cancelled``, which is blind to asyncio's own way.
            await checkpoint()
            raise
        finally:
            connection.set_progress_handler(None, 0)

    def _faults(self) -> list[str]:
        found = [str(fault) for (fault,) in self._rows(f"PRAGMA integrity_check({FAULTS})") if fault != "ok"]
        for what, where in _MISFITS.items():
            ((count,),) = self._rows(f"SELECT count(*) FROM {where}")  # noqa: S608 - constants only
            if count:
                found.append(f"{what}: {count}")
        return found

    def _entries(self, statement: str, *values: object) -> list[tuple[str, bytes]]:
        with faults_of(str(self._path)):
            return [(key, value_of(value)) for key, value in self._rows(statement, *values)]

    def _alarms(self, where: str, *values: object) -> list[AlarmRow]:
        with faults_of(str(self._path)):
            return [alarm_of(row) for row in self._rows(f"{_ALARMS} {where}", *values)]

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with faults_of(str(self._path)), closing(self._open().connection.execute(statement, values)) as cursor:
            return cursor.fetchall()

    def _open(self) -> OpenedFile:
        if self._opened is None:
            raise BackendClosedError(f"{self._path} is not open: use the FileView inside its `async with`")
        return self._opened

    def _refuse(self) -> NoReturn:
        raise BackendReadOnlyError(f"{self._path} was opened to look at it, not to write")


@final
class OpenedFile:
    """One opening of a file of ours, of whatever version, in one read transaction that neither makes nor moves a log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A file that was closed in order has no log beside it, and to read it SQLite would make one, that it could not
        # delete. So it is told that nobody writes; should somebody begin to, that is noticed at the end.
        self._resting = None if _status(f"{path}-wal") else _stamp(path)
        with faults_of(str(path)):
            self.connection = sqlite3.connect(
                f"{path.as_uri()}?mode=ro{'&immutable=1' if self._resting else ''}",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
            )
            try:
                self.connection.execute("BEGIN")
                self.version = _version(self.connection, path)
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """End it; raises :class:`BackendError` if what was read is of no one moment."""
        self.connection.close()
        if self._resting is not None and self._resting != _stamp(self._path):
            raise BackendError(f"{self._path} was written to while it was looked at; look again")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Begin to read, and refuse what is no file of ours; give the version of its tables."""
    ((mark,),) = connection.execute("PRAGMA application_id").fetchall()
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if mark != APPLICATION_ID:
        raise BackendCorruptError(f"{path}: the file is no database of this library")
    return int(version)


def _within(column: str, keys: KeyRange) -> tuple[str, tuple[str, ...], str]:
    order = "DESC" if keys.reverse else "ASC"
    if keys.end is None:
        return f"{column} >= ?", (keys.start,), order
    return f"{column} >= ? AND {column} < ?", (keys.start, keys.end), order


def _status(path: str | Path) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    """Give what changes when a file is written to; ``None`` for one that is not there."""
    status = _status(path)
    return None if status is None else (status.st_mtime_ns, status.st_size)


def _owner(lock: str) -> int | None:
    # Read and not tried: a lock that is tried is a lock that is held, if only for a moment in which its owner comes back.
    try:
        return int(Path(lock).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
