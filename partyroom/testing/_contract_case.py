"""What every case of a backend's contract stands on: what an author gives, and the store that a case gets.

Owns :class:`Contract`, the base of all groups of cases, and the rooms and rows
that cases of several groups use.

Promises that each case runs on a new, empty store, and leaves nothing behind in
the file system.

Must never know a clause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio
from typing_extensions import override

from partyroom.errors import BrokenContractError
from partyroom.protocols import StorageBackend
from partyroom.testing._contract_suite import Suite, case
from partyroom.testing._contract_trial import Trial, judged
from partyroom.types import AlarmRow, Limits, RoomKey

__all__ = ["ODD_ROOMS", "ODD_TEXTS", "ROUNDS", "A", "B", "Contract", "alarm", "case", "rows"]

A: Final = RoomKey("party", "a")
B: Final = RoomKey("party", "b")

ODD_TEXTS: Final = (
    *("", "\0", "\0\0", "\0a", "a", "a\0", "a\0\0", "a\0b", "aa", "A", "AA", "b"),
    *(
        " ",
        " a",
        "a ",
        "\n",
        "\t",
        "%",
        "_",
        "a%",
        "a_",
        "*",
        "?",
        "'",
        '"',
        "\\",
        "/",
        "..",
        ":",
        ";",
        "--",
        "\x7f",
        "\x80",
    ),
    *("0", "00", "1", "01", "1.0", "-1", "null", "None", "True"),
    # Equal to some after a change of case, or once composed.
    *("é", "e\u0301", "É", "ß", "ss", "\u0130", "i", "\u212b", "\u00e5", "\ufb01", "fi", "\u200b", "\ufeff"),
    # In UTF-16, what begins at U+10000 comes before what begins at U+E000.
    *("\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0001f600a", "\U0010ffff"),
)
"""Texts that stores have been seen to mix up, drop, or put in a wrong order."""

ODD_ROOMS: Final = (
    *(
        RoomKey("party", "a"),
        RoomKey("part", "ya"),
        RoomKey("party", "aa"),
        RoomKey("party", "a\0"),
        RoomKey("party", "A"),
    ),
    *(RoomKey("party/a", "b"), RoomKey("party", "a/b"), RoomKey("party:a", "b"), RoomKey("party", "a:b")),
    *(RoomKey("party\0", "a"), RoomKey("party", "\0a"), RoomKey("Party", "a"), RoomKey("party", "\U0001f600")),
)
"""Rooms whose names run into each other if they are put together carelessly."""

ROUNDS: Final = 10
"""How often two things that run at the same time are tried, in so many ways of going on in turn."""


class Contract(Suite):
    """What an author of a backend gives, and the way of running cases."""

    longest_key: int = Limits().key_bytes
    """How many bytes of UTF-8 a key or an alarm's name may have. What is less than the default must be told to users."""
    longest_id: int = Limits().room_id_bytes
    """How many bytes of UTF-8 a room's id may have. What is less than the default must be told to users."""
    longest_value: int = Limits().value_bytes
    """How many bytes a value may have. What is less than the default must be told to users."""
    seed: int = 0
    """The seed of the first generated sequence; the next ones count on from it."""
    sequences: int = 20
    """How many sequences are generated."""
    steps: int = 50
    """How many operations each of them has."""

    folder: Path
    """While ``make_backend`` runs: an empty folder for this store alone, which is removed when the case is over."""

    # --- what an author of a backend gives ------------------------------------

    # Not abstract: pytest passes over abstract classes in silence, and a suite without it would judge nothing.
    def make_backend(self) -> StorageBackend:
        """Make a new store that is empty and shares nothing with any other; open nothing yet."""
        raise NotImplementedError(f"{type(self).__name__} has no make_backend, which makes the store to be judged")

    def reopen(self, backend: StorageBackend, /) -> StorageBackend:
        """Give what a later process would open: the data of ``backend``, which was left. By default the same object."""
        return backend

    def crash(self, backend: StorageBackend, /) -> StorageBackend:
        """Give a store of what a process that died now would leave. By default as ``reopen``.

        ``backend`` is still open, no call of it is running, and it is left right after this. A store in files can copy
        them here, so that whatever leaving would still write is not in the copy.
        """
        return self.reopen(backend)

    def fault(self, _backend: StorageBackend, /) -> AbstractContextManager[object] | None:
        """Make every commit fail inside the block, as a full disk or a cut line would; ``None`` if there is no way to."""
        return None

    # --- how it runs ----------------------------------------------------------

    def new_backend(self) -> StorageBackend:
        """Make a store in a folder of its own."""
        self.folder = self._root / str(next(self._numbers))
        self.folder.mkdir()
        return self.make_backend()

    @override
    def found_on(
        self, loop: str, clause: str, case: Callable[[Trial], Awaitable[None]], /
    ) -> BrokenContractError | None:
        # What a broken store keeps open on Windows cannot be removed there, and is no finding.
        with TemporaryDirectory(prefix="partyroom-", ignore_cleanup_errors=True) as root:
            self._root = Path(root)
            self._numbers = count()
            return anyio.run(judged, self, clause, case, backend=loop)

    _root: Path
    _numbers: Iterator[int]


def alarm(room: RoomKey, name: str, due: int | None) -> AlarmRow:
    """Make one alarm, with bytes of its own."""
    return AlarmRow(room, name, due, f"{name} at {due}".encode())


def rows(room: RoomKey, **due: int | None) -> dict[str, AlarmRow | None]:
    """Make alarms of a room by name, each with its due time and bytes of its own; without a due time it is parked."""
    return {name: alarm(room, name, when) for name, when in due.items()}
