"""What every case of the contract stands on: what an author gives, and how a case is run on each loop.

Owns :class:`Contract`, the base of all groups of cases, :func:`case`, which
makes of an async case the method that pytest and unittest call, and the rooms
and rows that cases of several groups use.

Promises that each case runs on a new, empty store, on each loop that is
installed, and leaves nothing behind in the file system.

Must never know a clause.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from inspect import cleandoc
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import anyio

from partyroom.protocols import StorageBackend
from partyroom.testing._contract_trial import Trial, judged
from partyroom.types import AlarmRow, Limits, RoomKey

__all__ = ["ODD_ROOMS", "ODD_TEXTS", "ROUNDS", "A", "B", "Contract", "alarm", "case", "rows"]

C = TypeVar("C", bound="Contract")

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


def case(body: Callable[[C, Trial], Awaitable[None]]) -> Callable[[C], None]:
    """Make of a case the method that runs it on each loop. Its docstring is the clause that it judges."""

    def test(self: C) -> None:
        self.judge(test.__name__, test.__doc__, partial(body, self))

    # Not functools.wraps: pytest would look through it and take the trial for a fixture.
    test.__name__ = body.__name__
    test.__qualname__ = body.__qualname__
    test.__module__ = body.__module__
    test.__doc__ = body.__doc__
    return test


class Contract(ABC):
    """What an author of a backend gives, and the way of running cases."""

    loops: Sequence[str] = ("asyncio", "trio")
    """The event loops to run on; one that is not installed is left out."""
    patience: float = 30.0
    """After how many seconds of real time a case that has not ended is taken for one that hangs."""
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

    @abstractmethod
    def make_backend(self) -> StorageBackend:
        """Make a new store that is empty and shares nothing with any other; open nothing yet."""

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

    def judge(self, name: str, clause: str | None, case: Callable[[Trial], Awaitable[None]]) -> None:
        """Run a case on each loop; raise what it found wrong."""
        for loop in [loop for loop in self.loops if _is_installed(loop)]:
            words = f"{cleandoc(clause or name)} ({name}, on {loop})"
            # What a broken store keeps open on Windows cannot be removed there, and is no finding.
            with TemporaryDirectory(prefix="partyroom-", ignore_cleanup_errors=True) as root:
                self._root = Path(root)
                self._numbers = count()
                found = anyio.run(judged, self, words, case, backend=loop)
            if found is not None:
                raise found from found.__cause__

    _root: Path
    _numbers: Iterator[int]


def alarm(room: RoomKey, name: str, due: int | None) -> AlarmRow:
    """Make one alarm, with bytes of its own."""
    return AlarmRow(room, name, due, f"{name} at {due}".encode())


def rows(room: RoomKey, **due: int | None) -> dict[str, AlarmRow | None]:
    """Make alarms of a room by name, each with its due time and bytes of its own; without a due time it is parked."""
    return {name: alarm(room, name, when) for name, when in due.items()}


@cache
def _is_installed(loop: str) -> bool:
    async def nothing() -> None:
        return

    try:
        anyio.run(nothing, backend=loop)
    except LookupError:
        return False
    return True
