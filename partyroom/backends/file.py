"""The store in one file, on the standard library's ``sqlite3``.

Owns the life of an open file: its lock, its writer thread, its readers.

Promises what :class:`~partyroom.protocols.StorageBackend` asks for, with all
commits that wait, of all rooms, in one transaction and one sync of the disk. A
file belongs to one process at a time; any other may read it meanwhile.

Must never keep a room's data in memory: what is read twice is kept by the
runtime's cache, and the disk's by the operating system.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, final

from anyio import to_thread
from typing_extensions import override

from partyroom._native import current_loop
from partyroom.backends._file_place import FilePlace
from partyroom.backends._group_commit import GroupWriter
from partyroom.backends._sqlite_backup import write_backup
from partyroom.backends._sqlite_reader import SqliteReader
from partyroom.backends._sqlite_schema import Durability
from partyroom.backends._sqlite_writer import SqliteWriter
from partyroom.errors import BackendClosedError, BackendError, CommitError
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["Durability", "FileBackend"]


@final
class FileBackend(StorageBackend):
    """Keeps rooms in one file, durable at every commit.

    ``path`` is made if it is not there; its folder must be. Beside it lie ``path-wal`` and ``path-shm`` while it is
    open (SQLite's write-ahead log, which may take some 64 MB) and ``path-lock``, which stays. The file must be on a
    local disk, and be opened by one of its names only: a hard link is another name, a symbolic link is not. Other
    programs may read it meanwhile, but none may move its log, as replicators of SQLite files do: up to SQLite 3.51.2
    that can lose commits (https://sqlite.org/wal.html#walresetbug).

    ``durability="full"`` waits for the disk at every commit: what a commit acknowledged survives a crash of the
    process, of the system and a power cut. ``"normal"`` waits for it only now and then: a crash of the process still
    loses nothing and the file is never damaged, but a crash of the system or a power cut may lose the last commits
    before it, acknowledged ones included.

    Constructing opens nothing. A relative path counts from the folder that is current then. Entering takes the file's
    lock: :class:`BackendLockedError` names the process that has it.
    """

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability = "full") -> None:
        if durability not in {"full", "normal"}:
            raise ValueError(f"durability must be 'full' or 'normal', not {durability!r}")
        self._path = Path(path).absolute()
        self._durability: Durability = durability
        self._opened: _OpenFile | None = None

    @override
    def __repr__(self) -> str:
        return f"FileBackend({str(self._path)!r}, durability={self._durability!r})"

    @override
    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise BackendError(f"{self._path} is open already: a store belongs to one runtime at a time")
        self._opened = opened = _OpenFile(self._path, self._durability)
        try:
            await opened.writer.start()
        except BaseException:
            self._opened = None
            raise
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            await opened.stop()

    @override
    async def claim(self, room: RoomKey, /) -> int:
        return await self._open().writer.claim(room)

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        return await self._open().reader.read(room, keys)

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return await self._open().reader.scan(room, keys, limit)

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        opened = self._open()
        # Here and not in the writer thread, for which each call of the system is a chance to lose the global lock.
        opened.place.check()
        return await opened.writer.commit(commits)

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return await self._open().reader.room_alarms(room)

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        return await self._open().reader.due_alarms(before, after, limit)

    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        return await self._open().reader.parked_alarms(party, after, limit)

    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        return await self._open().reader.rooms(party, ids, limit)

    async def backup(self, path: str | os.PathLike[str], /) -> None:
        """Write a copy of the whole file, as it is at one moment between two commits; rooms run on meanwhile.

        The copy is durable and complete once it stands under ``path``, and can be opened like the file itself. Whatever
        is there already is left alone: :class:`BackendError`. It takes a worker thread and a second for some hundred
        megabytes; the log grows meanwhile. Cancelling waits for its end.
        """
        await to_thread.run_sync(write_backup, self._open().place.path, Path(path).absolute())  # noqa: ASYNC240 - asks no disk

    def _open(self) -> _OpenFile:
        opened = self._opened
        if opened is None:
            raise BackendClosedError(f"{self._path} is not open: use the FileBackend inside its `async with`")
        if opened.pid != os.getpid():
            raise BackendClosedError(
                f"{self._path} was opened by process {opened.pid}, which forked this one: open it anew after a fork"
            )
        return opened


@final
class _OpenFile:
    """One opening of a file."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.pid = os.getpid()
        self.place = FilePlace(path)
        self.reader = SqliteReader(self.place)
        self.store = SqliteWriter(self.place, durability)
        self.writer = GroupWriter(self.store, current_loop())

    async def stop(self) -> None:
        """Have everything written that was handed in, and close the file."""
        self.reader.close()
        await self.writer.stop()
