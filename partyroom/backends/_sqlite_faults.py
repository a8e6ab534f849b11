"""SQLite's errors, turned into the library's own at one border.

Owns which error of SQLite means which of ours, and the words that say what
happened to which file.

Promises that nothing of ``sqlite3`` leaves a backend but as the cause of an
error of ours.

Must never decide what happens next.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

from partyroom.errors import (
    BackendClosedError,
    BackendCorruptError,
    BackendError,
    BackendFullError,
    BackendLockedError,
    BackendReadOnlyError,
)

__all__ = ["FAULTS", "MisfitError", "faults_of", "told"]

FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What the module raises about a file; the second one where a message of SQLite's quotes what damage has left of a text."""


class MisfitError(sqlite3.DatabaseError):
    """SQLite has read something that no program of this library has written."""


_PRIMARY: Final = 0xFF
"""The byte of an error code that says what kind it is; the others say where it was met."""

_KINDS: Final[Mapping[int, tuple[type[BackendError], str]]] = {
    sqlite3.SQLITE_FULL: (BackendFullError, "there is no space left"),
    sqlite3.SQLITE_READONLY: (BackendReadOnlyError, "the file or its folder cannot be written"),
    sqlite3.SQLITE_PERM: (BackendReadOnlyError, "the file or its folder cannot be written"),
    sqlite3.SQLITE_CORRUPT: (BackendCorruptError, "the file is damaged"),
    sqlite3.SQLITE_NOTADB: (BackendCorruptError, "the file is no database"),
    sqlite3.SQLITE_CANTOPEN: (BackendError, "the file cannot be opened"),
    sqlite3.SQLITE_IOERR: (BackendError, "reading or writing the file failed"),
}


@contextmanager
def faults_of(path: str) -> Generator[None]:
    """Turn what SQLite raises about the file in the body into an error of ours."""
    try:
        yield
    except FAULTS as error:
        raise told(error, path) from error


def told(error: Exception, path: str) -> BackendError:
    """Make the error of ours that tells of one of SQLite's."""
    if isinstance(error, sqlite3.ProgrammingError):
        return BackendClosedError(f"{path} was closed meanwhile")
    if isinstance(error, MisfitError):
        return BackendCorruptError(f"{path}: {error}")
    if isinstance(error, UnicodeDecodeError):
        return BackendCorruptError(f"{path}: the file is damaged ({error})")
    if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
        # The one of them that the module raises by itself: a text that is none.
        return BackendCorruptError(f"{path}: the file is damaged ({error})")
    # Errors that the module raises by itself carry no code.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BackendLockedError(path)
    kind, what = _KINDS.get(code, (BackendError, "SQLite failed"))
    return kind(f"{path}: {what} ({getattr(error, 'sqlite_errorname', type(error).__name__)}: {error})")
