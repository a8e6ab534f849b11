"""The lock that makes one file belong to one process.

Owns a side file next to the database, ``<file>-lock``, an exclusive lock of the
operating system on it, and the process id written into it.

Promises that there is one holder at a time, also within one process and through
any symbolic link or relative path to the same file (not by another name of it,
a hard link: SQLite keeps a log for each name); that the lock ends with its
process, however that dies, and is not kept alive by a forked child; and that the
loser learns the holder's process id. The side file stays: deleting it would let
two processes lock two files of one name.

Must never touch the database itself: closing any handle of a file drops the
locks that SQLite has on it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, final
from weakref import WeakSet

from partyroom.errors import BackendError, BackendFullError, BackendLockedError, BackendReadOnlyError

__all__ = ["FileLock"]

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30
    """Locks are mandatory on Windows: a byte far behind the text is locked, so that the text can be read."""

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # Not lockf: its locks go away when any handle of the file is closed, and do not keep out this very process.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # A forked child inherits the handle, and the lock with it: it would outlive the parent. (Windows has no forks.)
    os.register_at_fork(after_in_child=lambda: _forget_all())  # noqa: PLW0108 - it is not there yet


@final
class FileLock:
    """An exclusive lock for one path, held from ``acquire`` to ``release``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise :class:`BackendLockedError` at once if somebody has it."""
        descriptor = _open(f"{self._path}-lock", self._path)
        try:
            _lock(descriptor)
        except OSError as error:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            if error.errno not in _TAKEN:
                raise BackendError(f"{self._path}: it cannot be locked ({error.strerror}); use a local disk") from error
            raise BackendLockedError(self._path, pid) from error
        # For the one who comes too late to read; a full disk is no reason not to have the lock.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        self._descriptor = descriptor
        _HELD.add(self)

    def release(self) -> None:
        """Give the lock back; harmless if it is not held."""
        _HELD.discard(self)
        self.forget()

    def forget(self) -> None:
        """Drop the handle. In a forked child this leaves the lock with the parent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_TAKEN: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})
"""What a system says of a lock that somebody has. Anything else is a fault of its own, as on a disk that has no locks."""

_HELD: WeakSet[FileLock] = WeakSet()


def _forget_all() -> None:
    """Drop in a forked child what belongs to its parent."""
    for lock in tuple(_HELD):
        lock.forget()


_KINDS: Final[Mapping[int | None, type[BackendError]]] = {
    errno.EACCES: BackendReadOnlyError,
    errno.EPERM: BackendReadOnlyError,
    errno.EROFS: BackendReadOnlyError,
    errno.ENOSPC: BackendFullError,
}


def _open(side: str, path: str) -> int:
    try:
        # No child that runs another program inherits it: Python opens files so.
        return os.open(side, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError as error:
        raise BackendError(f"{path}: its folder does not exist") from error
    except OSError as error:
        kind = _KINDS.get(error.errno, BackendError)
        raise kind(f"{path}: {side} cannot be written: {error.strerror}") from error


def _read_pid(descriptor: int) -> int | None:
    with suppress(OSError, ValueError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        return int(os.read(descriptor, 32))
    return None
