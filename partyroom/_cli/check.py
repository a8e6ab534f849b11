"""``check``: whether a file is sound, and whether everything in it can be read.

Owns the look at every page, value and alarm of a file.

Promises that whatever is wrong is told and makes the exit code 1, each kind of it once with how often it was met; and
that what only the program itself could judge (values that take its own codec) is a remark.

Must never mend anything.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from datetime import timedelta
from typing import Final, Literal, TypeAlias, final

import attrs

from partyroom._cli.progress import Progress
from partyroom._cli.screen import FOUND, OK, Screen
from partyroom._cli.sights import Sight, sight
from partyroom._cli.stores import codec_of, codec_option, view_of
from partyroom._cli.table import Column, table
from partyroom._cli.text import counted, size
from partyroom._cli.verb import LOOKS, Verb, file_option, on_loop
from partyroom._cli.walk import each_due, each_entry, each_parked, each_room
from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import from_micros
from partyroom.backends._file_view import FileView
from partyroom.errors import BackendCorruptError, DecodeError, MissingExtraError
from partyroom.protocols import Codec
from partyroom.types import AlarmRow, RoomKey

__all__ = ["VERB"]

Weight: TypeAlias = Literal["wrong", "note"]

COLUMNS: Final = (Column(""), Column("times", figures=True), Column("first at"), Column("what"))
PATIENCE: Final = timedelta(minutes=1)
"""How late an alarm may be without a remark: as late as a jump of the wall clock can make it while a program runs."""


def check_options(parser: ArgumentParser) -> None:
    """Take which file is checked, and how its values are read."""
    file_option(parser)
    codec_option(parser)
    parser.add_argument("--json", action="store_true", help="print an object of JSON for each finding")


async def check(arguments: Namespace, screen: Screen) -> int:
    """Check a file."""
    codec, is_own = codec_of(arguments.codec), arguments.codec is not None
    inspection = Inspection(codec, "wrong" if is_own else "note")
    try:
        async with view_of(arguments.file) as view:
            await _inspect(view, inspection, screen)
    except BackendCorruptError as error:
        inspection.find("wrong", "the file", str(error))
    inspection.tell(arguments, screen)
    return FOUND if inspection.is_wrong else OK


async def _inspect(view: FileView, inspection: Inspection, screen: Screen) -> None:
    with Progress(screen, "checking the file") as progress:
        faults = await view.faults(progress.step)
    for fault in faults:
        inspection.find("wrong", "the file", fault)
    if faults:
        # What would be read from here on may be anything.
        return
    with Progress(screen, "reading rooms", await view.count_rooms()) as progress:
        for party in await view.parties():
            async for room in each_room(view, party):
                async for key, data in each_entry(view, room):
                    inspection.see_value(room, key, data)
                inspection.rooms += 1
                progress.step()
            async for row in each_parked(view, party):
                inspection.see_alarm(row, screen)
    async for row in each_due(view):
        inspection.see_alarm(row, screen)
    inspection.file_bytes = (await view.facts()).file_bytes


@final
@attrs.define(eq=False)
class Inspection:
    """What was looked at, and what was found."""

    codec: Codec
    unreadable: Weight
    """What a value weighs that the codec cannot read: it may not be the program's own."""
    rooms: int = 0
    values: int = 0
    alarms: int = 0
    file_bytes: int = 0
    _found: dict[tuple[Weight, str], tuple[str, int]] = attrs.Factory(dict[tuple[Weight, str], tuple[str, int]])
    """Where each finding was first, and how often."""

    @property
    def is_wrong(self) -> bool:
        """Whether anything is wrong."""
        return any(weight == "wrong" for weight, _ in self._found)

    def find(self, weight: Weight, where: str, what: str) -> None:
        """Note something."""
        first, times = self._found.get((weight, what), (where, 0))
        self._found[weight, what] = first, times + 1

    def see_value(self, room: RoomKey, key: str, data: bytes) -> None:
        """Look at a value."""
        self.values += 1
        self._decode(f"{room} {key!r}", data)

    def see_alarm(self, row: AlarmRow, screen: Screen) -> None:
        """Look at an alarm."""
        self.alarms += 1
        where = f"{row.room} alarm {row.name!r}" if row.name else f"{row.room} alarm"
        try:
            AlarmRecord.decode(row.data)
        except MissingExtraError as error:
            self.find("note", where, str(error))
        except DecodeError as error:
            self.find("wrong", where, str(error))
        else:
            self._judge(where, sight(row, screen.clock.now()))

    def _judge(self, where: str, seen: Sight) -> None:
        if seen.payload is not None:
            self._decode(where, seen.payload)
        due = seen.row.due
        if seen.status == "failed":
            self.find("wrong", where, f"the alarm has failed: {seen.error}")
        elif due is not None and from_micros(due) < seen.now - PATIENCE:
            self.find("note", where, "the alarm is late: nobody rings it")

    def _decode(self, where: str, data: bytes) -> None:
        try:
            self.codec.decode(data)
        except DecodeError as error:
            hint = " (--codec reads it as the program does)" if self.unreadable == "note" else ""
            self.find(self.unreadable, where, f"{error}{hint}")

    def tell(self, arguments: Namespace, screen: Screen) -> None:
        """Print what was found."""
        if arguments.json:
            for (weight, what), (first, times) in self._found.items():
                screen.emit({"weight": weight, "what": what, "times": times, "first": first})
            return
        screen.say(
            f"{arguments.file}: {size(self.file_bytes)}, {counted(self.rooms, 'room')}, {counted(self.values, 'value')}, "
            f"{counted(self.alarms, 'alarm')}"
        )
        rows = [
            (weight, f"{times:,}", first, what)
            for (weight, what), (first, times) in sorted(self._found.items(), key=lambda each: each[0], reverse=True)
        ]
        for line in table(COLUMNS, rows, screen.width) if rows else ["nothing is wrong"]:
            screen.say(line)


VERB: Final = Verb(
    "check",
    "check whether a file is sound and everything in it can be read",
    "Look at every page, value and alarm of a file. Exit code 1 if something is wrong: damage, bytes that cannot "
    f"be read, alarms that have failed. {LOOKS}",
    ("check rooms.db", "check rooms.db --codec app:codec"),
    check_options,
    on_loop(check),
)
