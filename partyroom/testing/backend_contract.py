"""The contract of :class:`~partyroom.StorageBackend`, as a suite that judges any implementation.

Owns :class:`BackendContract`: one case for each clause, and sequences of
operations that are compared with a model. Subclass it with a factory, and hand
it to pytest or to unittest; it needs neither.

Promises that each case runs on a new, empty store, on each loop that is
installed, and that a finding is a :class:`~partyroom.errors.BrokenContractError`
whose words say which clause is broken, what was expected and what was seen.

Must never ask for more than the contract says: a backend that passes may be
slow, and may keep its data in any form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from inspect import cleandoc
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import anyio
from anyio import CancelScope, create_task_group

from partyroom.errors import BackendClosedError, BackendError, BrokenContractError, CommitError, FencedError
from partyroom.protocols import StorageBackend
from partyroom.testing._contract_sequences import Operation, Run, make_sequence, shorten
from partyroom.testing._contract_trial import ALL, EVERYTHING, Trial, checkpoints, judged, rows, together
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, Limits, RoomKey

__all__ = ["BackendContract"]

C = TypeVar("C", bound="BackendContract")

A: Final = RoomKey("party", "a")
B: Final = RoomKey("party", "b")

ODD_TEXTS: Final = (
    *("", "\0", "\0\0", "\0a", "a", "a\0", "a\0\0", "a\0b", "aa", "A", "AA", "b"),
    *(" ", " a", "a ", "\n", "\t", "%", "_", "a%", "a_", "*", "?", "'", '"', "\\", "/", "..", ":", ";", "--", "\x7f", "\x80"),
    *("0", "00", "1", "01", "1.0", "-1", "null", "None", "True"),
    # Equal to some after a change of case, or once composed.
    *("é", "e\u0301", "É", "ß", "ss", "\u0130", "i", "\u212b", "\u00e5", "\ufb01", "fi", "\u200b", "\ufeff"),
    # In UTF-16, what begins at U+10000 comes before what begins at U+E000.
    *("\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0001f600a", "\U0010ffff"),
)
"""Texts that stores have been seen to mix up, drop, or put in a wrong order."""

ODD_BYTES: Final = (b"", b"\0", b"\0\0", bytes(range(256)), b"\xff\xfe", b"\x80", b"text", b"1", b"1.0", b"null", b"a\r\nb ")
"""Values that stores have been seen to change."""

ODD_ROOMS: Final = (
    *(RoomKey("party", "a"), RoomKey("part", "ya"), RoomKey("party", "aa"), RoomKey("party", "a\0"), RoomKey("party", "A")),
    *(RoomKey("party/a", "b"), RoomKey("party", "a/b"), RoomKey("party:a", "b"), RoomKey("party", "a:b")),
    *(RoomKey("party\0", "a"), RoomKey("party", "\0a"), RoomKey("Party", "a"), RoomKey("party", "\U0001f600")),
)
"""Rooms whose names run into each other if they are put together carelessly."""

EARLIEST: Final = -62_135_596_800_000_000
"""0001-01-01, the first time that a ``datetime`` can tell."""
LATEST: Final = 253_402_300_799_999_999
"""9999-12-31, the last one."""

ROUNDS: Final = 10
"""How often two things that run at the same time are tried, in so many ways of going on in turn."""


def _case(judge: Callable[[C, Trial], Awaitable[None]]) -> Callable[[C], None]:
    """Make of a case the method that runs it on each loop. Its docstring is the clause that it judges."""

    def test(self: C) -> None:
        self.judge(test.__name__, test.__doc__, partial(judge, self))

    # Not functools.wraps: pytest would look through it and take the trial for a fixture.
    test.__name__ = vars(judge).get("__name__") or getattr(judge, "__name__", "test")
    test.__doc__ = judge.__doc__
    return test
