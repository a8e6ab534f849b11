"""A file that stands under its name only when all of it is there.

Owns the place where it is written meanwhile: a folder of its own, beside the name.

Promises that nothing which stood under the name, or beside it, is touched; that a failure leaves nothing behind; and
that a process which is killed leaves that folder at most, and is in no later one's way.

Must never know what is written.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from errno import EEXIST
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["new_file"]


@contextmanager
def new_file(target: Path) -> Generator[Path]:
    """Give a path to write to in the body, behind which all of it stands at ``target``; :class:`FileExistsError` if something does."""
    if os.path.lexists(target):
        raise FileExistsError(EEXIST, os.strerror(EEXIST), str(target))
    with _folder_beside(target) as folder:
        unfinished = Path(folder) / target.name
        yield unfinished
        # An empty file takes the name, and is replaced as a whole: so nothing is overwritten, on any system.
        target.touch(exist_ok=False)
        try:
            unfinished.replace(target)
        except BaseException:
            target.unlink()
            raise
    _sync(target.parent)


def _folder_beside(target: Path) -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="unfinished-", dir=target.parent)
    except OSError as error:
        # What was asked for is what a person knows.
        error.filename = str(target)
        raise


def _sync(folder: Path) -> None:
    """Make a name durable. Systems that have no such call do it by themselves."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
