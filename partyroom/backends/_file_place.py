"""Where a file lies, and whether it still lies there.

Owns the identity that a path had when the file was opened.

Promises that a file which was deleted, moved or replaced while it is open is
noticed before anything is written: SQLite itself goes on with the nameless one,
and everything would be gone when it is closed.

Must never open the file: closing any handle of it drops the locks that SQLite
has on it.
"""

from __future__ import annotations

import os
from typing import final

from partyroom.errors import BackendError, BackendReadOnlyError

__all__ = ["FilePlace"]


@final
class FilePlace:
    """The place of one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(path)
        self._identity: tuple[int, int] | None = None

    def check_writable(self) -> None:
        """Refuse a file that is there and cannot be written. SQLite would open it, and leave more such files beside it."""
        effective = os.access in os.supports_effective_ids
        if self._look() is not None and not os.access(self.path, os.W_OK, effective_ids=effective):
            raise BackendReadOnlyError(f"{self.path}: the file cannot be written by this process")

    def remember(self) -> None:
        """Take what lies there now for the file."""
        self._identity = self._look()

    def check(self) -> None:
        """Refuse to go on with a file that lies there no more."""
        if self._look() != self._identity:
            raise BackendError(
                f"{self.path} has been deleted, moved or replaced while it was open; nothing is stored until it is back"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)  # noqa: PTH116 - a path object would cost more than the question
        except OSError:
            return None
        return status.st_dev, status.st_ino
