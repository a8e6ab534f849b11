"""The file backend keeps the contract, with crashes and with a fault that comes and goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from typing_extensions import override

from partyroom.backends.file import Durability, FileBackend
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_contract import BackendContract
from tests.sizes import in_turn


@contextmanager
def moved_away(file: Path) -> Generator[None]:
    """Have a file somewhere else for a while."""
    away = file.rename(f"{file}-away")
    try:
        yield
    finally:
        away.rename(file)


class TestFileBackend(BackendContract):
    """The shipped contract, on a file in a folder of its own."""

    sequences = 2
    durability: ClassVar[Durability] = "full"

    @override
    def make_backend(self) -> StorageBackend:
        self.file = self.folder / "rooms.db"
        return FileBackend(self.file, durability=self.durability)

    @override
    def reopen(self, backend: StorageBackend) -> StorageBackend:
        return FileBackend(self.file, durability=self.durability)

    @override
    def crash(self, backend: StorageBackend) -> StorageBackend:
        # What closing would do is not done to the copy: it finds a log, as after a kill.
        left = self.file.with_name(f"{self.file.name}-after-a-crash")
        shutil.copyfile(self.file, left)
        shutil.copyfile(f"{self.file}-wal", f"{left}-wal")
        self.file = left
        return FileBackend(left, durability=self.durability)

    @override
    def fault(self, _backend: StorageBackend) -> AbstractContextManager[None] | None:
        # Where a file that is open can be moved away, that is one.
        return moved_away(self.file) if os.name == "posix" else None


class TestFileBackendWithNormalDurability(TestFileBackend):
    """A crash of the process loses nothing either way."""

    loops = in_turn(0, "asyncio", "trio")

    durability: ClassVar[Durability] = "normal"


@pytest.mark.slow
class TestFileBackendAtLength(TestFileBackend):
    """Many more sequences."""

    sequences = 300
