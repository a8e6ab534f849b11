"""Space ahead in a file's write-ahead log, so that a commit does not make it longer.

Owns the end of the log's file, behind all that SQLite has written there.

Promises that nothing is written but zeros, behind the end and while nobody else
writes: SQLite takes them for what they are, the end of the log, as it does what
a log leaves there that has begun anew.

Must never look at what is in the log. It exists because a sync of a file that
grows has the file system write down its new length as well, which took 110 of
the 220 microseconds of a small commit on ext4 (`python -m benchmarks
durable-one-caller`).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final, final

__all__ = ["LogSpace"]

LOOK: Final = 64 * 1024
"""After so many written bytes it is looked whether the log has become longer: after each commit, that would cost more."""
FIRST: Final = 256 * 1024
"""How much space is made at least, and how fast a log may grow that is given any: a large commit gains nothing by it."""
MOST: Final = 4 * 1024 * 1024
"""How much is made at most; in between it is as much as there is, so that a short run writes little for nothing."""
PIECE: Final = 512 * 1024
"""How much is written at once: half a millisecond with its sync."""

_sync = getattr(os, "fdatasync", os.fsync)


@final
class LogSpace:
    """The space ahead in one file's log, which is no more than ``most`` bytes long by this; used from the writer thread."""

    def __init__(self, connection: sqlite3.Connection, path: str, most: int) -> None:
        self._connection = connection
        self._log = Path(f"{path}-wal")
        self._most = most
        self._written = 0
        """How many bytes were written since it was looked at."""
        self._length = 0
        """How long it was then."""
        self._wanted = 0
        """How much is still to be made."""

    def note(self, size: int) -> None:
        """Hear that the log may have grown by so many bytes."""
        self._written += size

    def make(self) -> bool:
        """Make a piece of what the log needs; say whether it needs more."""
        if not self._wanted and self._written >= LOOK:
            self._written = 0
            self._look()
        if self._wanted:
            self._write(min(self._wanted, PIECE))
        return self._wanted > 0

    def _look(self) -> None:
        length = self._log.stat().st_size
        grown, self._length = length - self._length, length
        if 0 < grown <= FIRST:
            self._wanted = max(0, min(max(length, FIRST), MOST, self._most - length))

    def _write(self, size: int) -> None:
        self._wanted -= size
        # Nobody else may write meanwhile, were it a shell that somebody has left open. One that does is not waited for.
        execute = self._connection.execute
        (patience,) = execute("PRAGMA busy_timeout").fetchone()
        execute("PRAGMA busy_timeout = 0")
        try:
            execute("BEGIN IMMEDIATE")
        finally:
            execute(f"PRAGMA busy_timeout = {patience}")
        try:
            with self._log.open("r+b", buffering=0) as file:
                file.seek(0, os.SEEK_END)
                file.write(bytes(size))
                _sync(file.fileno())
                self._length = file.tell()
        finally:
            self._connection.rollback()
