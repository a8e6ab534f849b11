"""``delete``: a room, one of its values or one of its alarms, while no program runs.

Owns the way out of a store.

Promises that what is deleted goes in one commit, and is told; and that nothing else is touched.

Must never delete more than one room.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from partyroom._cli.screen import FOUND, OK, Screen
from partyroom._cli.stores import backend_option, writer_of
from partyroom._cli.text import counted, one_line
from partyroom._cli.verb import STOPPED, Verb, alarm_option, file_option, name_option, on_loop, room_options
from partyroom._cli.walk import each_entry
from partyroom._cli.writing import Change, write
from partyroom.protocols import StorageBackend
from partyroom.types import RoomKey

__all__ = ["VERB"]


def delete_options(parser: ArgumentParser) -> None:
    """Take what is deleted."""
    file_option(parser)
    room_options(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--key", type=name_option, metavar="KEY", help="delete only the value of this key")
    alarm_option(what, "delete only this alarm")
    backend_option(parser)


async def delete(arguments: Namespace, screen: Screen) -> int:
    """Delete what is named."""
    room = RoomKey(arguments.party, arguments.id)
    named = one_line(str(room))
    async with writer_of(arguments.file, arguments.backend) as backend:
        change, what = await _change(backend, room, arguments)
        if change is None:
            screen.remark(f"{named} has no {what}")
            return FOUND
        await write(backend, [change])
    screen.say(f"deleted {what} of {named}")
    return OK


async def _change(backend: StorageBackend, room: RoomKey, arguments: Namespace) -> tuple[Change | None, str]:
    """Give what is to be done, if there is anything to do, and its name."""
    if arguments.key is not None:
        key: str = arguments.key
        there = key in await backend.read(room, [key])
        return Change(room, {key: None}) if there else None, f"value {key!r}"
    alarms = [row.name for row in await backend.room_alarms(room)]
    if arguments.alarm is not None:
        name: str = arguments.alarm
        return Change(room, alarms={name: None}) if name in alarms else None, f"alarm {name!r}" if name else "alarm"
    values = [key async for key, _ in each_entry(backend, room)]
    if not values and not alarms:
        return None, "value and no alarm"
    return Change(room, clear=True), f"{counted(len(values), 'value')} and {counted(len(alarms), 'alarm')}"


VERB: Final = Verb(
    "delete",
    "delete a room, a value or an alarm",
    f"Delete a room with all it has, or one value or alarm of it. Exit code 1 if it is not there. {STOPPED}",
    (
        "delete rooms.db draft bob",
        "delete rooms.db draft bob --key text",
        "delete rooms.db draft bob --alarm expiry",
    ),
    delete_options,
    on_loop(delete),
)
