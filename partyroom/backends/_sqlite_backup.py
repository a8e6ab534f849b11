"""A copy of a file, made while rooms run.

Owns how a backup is written.

Promises that a copy shows one state between two commits, that it stands under
its name only when it is complete and durable, and that nothing which stood
there before is touched, nor the file that is copied, nor its log.

Must never hold up a commit.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from partyroom.backends._file_view import OpenedFile
from partyroom.backends._new_file import new_file
from partyroom.backends._sqlite_faults import faults_of
from partyroom.errors import BackendError

__all__ = ["write_backup"]

STEP_PAGES: Final = 1024
"""How many pages (4 MB) are copied before it is told how far the copy has come."""


Told: TypeAlias = Callable[[int, int, int], object]
"""Hears now and then how a copy goes: SQLite's status, how many pages are left, how many there are."""


def write_backup(path: str, target: Path, told: Told | None = None) -> None:
    """Copy the file at ``path`` to ``target``, which must not exist."""
    for log in (f"{target}-wal", f"{target}-journal"):
        if os.path.lexists(log):
            raise BackendError(f"{log} is left of another file, and SQLite would take it for a part of the copy")
    try:
        with new_file(target) as unfinished:
            _copy(path, unfinished, told)
    except FileExistsError as error:
        raise BackendError(f"{target}: there is something already; a backup overwrites nothing") from error
    except OSError as error:
        raise BackendError(f"{target}: the backup cannot be written: {error.strerror}") from error


def _copy(path: str, unfinished: Path, told: Told | None) -> None:
    # Its read transaction is one state for the whole copy: without that, every commit would have it begin again.
    with (
        closing(OpenedFile(Path(path).resolve())) as source,
        faults_of(str(unfinished)),
        closing(sqlite3.connect(unfinished, isolation_level=None)) as copy,
    ):
        source.connection.backup(copy, pages=STEP_PAGES, progress=told)
