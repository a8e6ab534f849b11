"""What the tests of the command line share: a command run in this process, at one fixed time, and a file to run it on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import attrs
from typing_extensions import override

from partyroom._cli.main import main
from partyroom._cli.screen import Screen
from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import to_micros
from partyroom.backends.file import FileBackend
from partyroom.codec import JsonCodec
from partyroom.protocols import Clock, StorageBackend
from partyroom.types import AlarmRow, Commit, RoomKey, Timer

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ENCODE = JsonCodec().encode
SOMEBODY = Timer()


class StillClock(Clock):
    """It is always the same time; each look at the monotonic clock makes a second pass there."""

    def __init__(self) -> None:
        self.ticks = 0.0

    @override
    def now(self) -> datetime:
        return NOW

    @override
    def monotonic(self) -> float:
        self.ticks += 1.0
        return self.ticks

    @override
    async def sleep_until(self, when: datetime, /, *, timer: Timer = SOMEBODY) -> None:
        """No command waits."""

    @override
    async def sleep(self, duration: timedelta, /, *, timer: Timer = SOMEBODY) -> None:
        """No command waits."""


@attrs.frozen
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of the result."""
        return self.out.splitlines()

    @property
    def facts(self) -> list[Any]:
        """The lines of the result, for a command that was asked for JSON."""
        return [json.loads(line) for line in self.lines]


class Terminal(StringIO):
    """A stream that a person sits at."""

    @override
    def isatty(self) -> bool:
        return True


def run(*arguments: object, given: str | None = "", width: int | None = None, is_watched: bool = False) -> Ran:
    """Run a command; ``given`` is what comes through its pipe, ``None`` if a person sits there."""
    out, err = StringIO(), StringIO()
    screen = Screen(
        out=out,
        err=err,
        input=Terminal() if given is None else StringIO(given),
        clock=StillClock(),
        chance=count().__next__,
        width=width,
        is_watched=is_watched,
    )
    code = main([str(argument) for argument in arguments], screen)
    return Ran(code, out.getvalue(), err.getvalue())


def alarm(room: RoomKey, due: timedelta | None, name: str = "", **record: Any) -> AlarmRow:
    """Give the row of an alarm that is due so long after now, with its policy and history."""
    when = None if due is None else to_micros(NOW + due)
    return AlarmRow(room, name, when, AlarmRecord("0123456789abcdef")._replace(**record).encode())


@attrs.frozen
class StoredRoom:
    """A room of a test."""

    room: RoomKey
    values: Mapping[str, object]
    """Bytes are stored as they are."""
    alarms: Sequence[AlarmRow] = ()


async def put(backend: StorageBackend, *rooms: StoredRoom) -> None:
    """Store some rooms at once."""
    commits = [
        Commit(
            each.room,
            await backend.claim(each.room),
            {key: value if isinstance(value, bytes) else ENCODE(value) for key, value in each.values.items()},
            {row.name: row for row in each.alarms},
            release=True,
        )
        for each in rooms
    ]
    assert {None} >= set(await backend.commit(commits))


def make_file(path: Path, *rooms: StoredRoom) -> Path:
    """Make a file that holds some rooms."""

    async def fill() -> None:
        async with FileBackend(path) as backend:
            await put(backend, *rooms)

    anyio.run(fill)
    return path
