"""The care for a file, in small pieces between groups of commits.

Owns what is done for a file besides reading and writing rooms: entries of
cleared rooms are swept away, free space is given back, the log is given space
ahead, and moved into the file before it grows large.

Promises that a piece takes about a millisecond, which is all that a group may
have to wait for; that a crash in the middle leaves only more to do; that the
log stays bounded under any load, and is never moved by two at once.

Must never change what a reader sees.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from threading import Thread
from typing import Final, final

from partyroom.backends._sqlite_faults import FAULTS, faults_of
from partyroom.backends._sqlite_log import LogSpace
from partyroom.backends._sqlite_schema import VERSION, Durability, connect, wait_for_disk
from partyroom.errors import BackendError

__all__ = ["FileCare"]

LOG_PAGES: Final = 16_384
"""From how many pages (64 MB) of log on the writer itself moves what is left of it, so that it begins anew."""
LOG_BYTES: Final = 32 * 1024 * 1024
"""After how many bytes of writes, at most, the log is moved beside the writer, who then has little left to move."""
PAGE: Final = 4096
"""SQLite's page, in bytes."""
ROW_BYTES: Final = 2 * PAGE
"""What a small row may add to the log: a page of the table and one of its index."""

SWEEP_ROWS: Final = 100
"""How many entries of cleared rooms are swept away at once, and as many more for each further ``SWEEP_ROOMS``."""
SWEEP_ROOMS: Final = 10
"""Cleared rooms that may wait at the slow pace. With more it quickens, or clearing could outrun it for good."""
MAX_ROOMS: Final = 500
"""How many cleared rooms are looked at, at once."""
VACUUM_PAGES: Final = 64
"""How many free pages are given back at once."""
DELETIONS: Final = 64
"""After how many deletions it is looked whether there is space to give back."""
SPARE_PAGES: Final = 256
"""How many free pages (1 MB) a file may keep in any case."""

_CLEARED: Final = f"SELECT number FROM rooms WHERE party IS NULL LIMIT {MAX_ROOMS}"  # noqa: S608 - a constant
_COUNT_CLEARED: Final = f"SELECT count(*) FROM ({_CLEARED})"  # noqa: S608 - a constant
# A script is one call, however many rows there are, as a group of commits is, and for the same reason.
_SWEEP: Final = f"""
    DELETE FROM entries WHERE place IN (SELECT place FROM entries WHERE room IN ({_CLEARED}) LIMIT {{rows}});
    DELETE FROM rooms WHERE number IN ({_CLEARED}) AND NOT EXISTS (SELECT 1 FROM entries WHERE room = number);
"""  # noqa: S608 - constants only
_VACUUM: Final = f"PRAGMA incremental_vacuum({VACUUM_PAGES})"
_NO_NEWS: Final = f"PRAGMA user_version = {VERSION}"


@final
class FileCare:
    """What a file needs; used from the writer thread only."""

    def __init__(self, connection: sqlite3.Connection, path: str, durability: Durability) -> None:
        self._connection = connection
        self._path = path
        self._durability: Durability = durability
        self._let_writer_move(LOG_PAGES)
        connection.execute(f"PRAGMA journal_size_limit = {2 * LOG_BYTES}")
        self._written = 0
        """How many bytes the log may have grown by since it was moved."""
        self._mover: Thread | None = None
        self._space = LogSpace(connection, path, LOG_PAGES * PAGE) if durability == "full" else None
        """Made for commits that wait for the disk."""
        # An earlier opening may have left something to do.
        self._sweeping = True
        self._deleted = DELETIONS
        self._vacuuming = False

    def note(self, *, rows: int, size: int, deleted: int = 0, cleared: bool = False) -> None:
        """Hear what was written: how many rows, bytes of values, deletions, and whether rooms were cleared."""
        written = rows * ROW_BYTES + size
        self._written += written
        if self._space is not None:
            self._space.note(written)
        self._deleted += deleted
        self._sweeping = self._sweeping or cleared

    def piece(self) -> bool:
        """Do one small piece of what there is to do; say whether there is more."""
        try:
            with faults_of(self._path):
                self._move_log()
                return self._sweep() or self._vacuum() or (self._space is not None and self._space.make())
        except (BackendError, OSError):
            # The next commit meets the same fault, and tells of it. This can wait until the fault is gone.
            return False

    def end(self) -> None:
        """Let go of the file."""
        if self._mover is not None and self._mover.is_alive():
            self._mover.join()

    def _sweep(self) -> bool:
        """Sweep away some entries of rooms that were cleared."""
        if not self._sweeping:
            return False
        (rooms,) = self._connection.execute(_COUNT_CLEARED).fetchone()
        if rooms:
            self._run_lazily(_SWEEP.format(rows=SWEEP_ROWS * (1 + rooms // SWEEP_ROOMS)))
            return True
        self._deleted += DELETIONS
        self._sweeping = False
        return False

    def _vacuum(self) -> bool:
        """Give back some space, if a quarter of the file is free, and then until a sixteenth is."""
        if self._deleted < DELETIONS and not self._vacuuming:
            return False
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._vacuuming = free > max(SPARE_PAGES, pages // (16 if self._vacuuming else 4))
        self._deleted = 0
        if self._vacuuming:
            self._run_lazily(_VACUUM)
        return self._vacuuming

    def _run_lazily(self, script: str) -> None:
        """Run a script without waiting for the disk: it may be lost, and is then done again."""
        self._connection.execute("PRAGMA synchronous = normal")
        try:
            self._connection.executescript(script)
        finally:
            self._connection.execute(f"PRAGMA synchronous = {self._durability}")

    def _move_log(self) -> None:
        """Have the log moved into the file beside the writer, who goes on meanwhile.

        What was written while it was moved keeps the log from beginning anew: that is left to the writer, who does it
        by itself from a size on, and finds little to do then.
        """
        if self._mover is not None:
            if self._mover.is_alive():
                return
            self._mover = None
            self._let_writer_move(LOG_PAGES)
        if self._written < LOG_BYTES:
            return
        self._written = 0
        # Not alive until it has started: whatever fails before, the next piece gives the log back to the writer.
        self._mover = Thread(target=_move_log, args=(self._path, self._durability), name="partyroom-log", daemon=True)
        # A move that begins where all was moved already, just as a commit begins the log anew, loses that commit, in
        # SQLite up to 3.51.2 (https://sqlite.org/wal.html#walresetbug). So the writer moves nothing from here on, and
        # there is something to move, be it a page of no news.
        self._let_writer_move(0)
        self._run_lazily(_NO_NEWS)
        # Where no thread is to be had, it is left to the writer altogether.
        with suppress(RuntimeError):
            self._mover.start()

    def _let_writer_move(self, pages: int) -> None:
        """Have the writer move the log itself, in a commit that leaves so many pages of it; with 0 never."""
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")


def _move_log(path: str, durability: Durability) -> None:
    # If it fails, the log grows on, and the writer's commits are what tells of a fault.
    with suppress(*FAULTS), closing(connect(path)) as connection:
        wait_for_disk(connection, durability)
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
