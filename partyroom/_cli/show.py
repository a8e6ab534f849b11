"""``show``: one room from inside: its values and its alarms' payloads decoded, and what handlers have raised.

Owns the picture of one room.

Promises that a value which cannot be decoded here is shown as it is stored, with the reason.

Must never wake the room.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pprint import pformat
from typing import Final

import attrs

from partyroom._cli.listing import Form, list_options, show_list
from partyroom._cli.packing import pack
from partyroom._cli.screen import FOUND, OK, Screen
from partyroom._cli.sights import ALARMS, Sight, sight
from partyroom._cli.stores import codec_of, codec_option, view_of
from partyroom._cli.table import Column
from partyroom._cli.text import counted, cut, lines, one_line
from partyroom._cli.verb import LOOKS, Verb, file_option, name_option, on_loop, room_options
from partyroom._cli.walk import each_entry
from partyroom.backends._file_view import FileView
from partyroom.errors import DecodeError
from partyroom.protocols import Codec
from partyroom.types import RoomKey

__all__ = ["VERB"]

COLUMNS: Final = (Column("key"), Column("bytes", figures=True), Column("value"))
COLUMNS_OF_ALARMS: Final = (
    *(Column("rings", whole=True), Column("at (UTC)", whole=True, spare=True)),
    *(Column("alarm"), Column("repeats"), Column("last ring", whole=True)),
    *(Column("tries", figures=True), Column("payload")),
)
VALUE_COLUMNS: Final = 200
"""How much of a value is shown where no terminal says how much there is room for; ``--key`` shows all of it."""
PAGE_COLUMNS: Final = 80
"""How wide a value is laid out where no terminal says how wide it is."""


@attrs.frozen
class Entry:
    """One stored value."""

    room: RoomKey
    key: str
    data: bytes


def show_options(parser: ArgumentParser) -> None:
    """Take which room is shown, and how its values are read."""
    file_option(parser)
    room_options(parser)
    parser.add_argument(
        "--key", type=name_option, metavar="KEY", help="show the whole value of this key, and nothing else"
    )
    codec_option(parser)
    list_options(parser)


async def show(arguments: Namespace, screen: Screen) -> int:
    """Show a room."""
    room = RoomKey(arguments.party, arguments.id)
    named = one_line(str(room))
    codec = codec_of(arguments.codec)
    async with view_of(arguments.file) as view:
        if arguments.key is not None:
            return await _show_value(view, room, arguments, codec, screen)
        keys, size = await view.size_of(room)
        # As everywhere: in the order in which they ring, then those that do not.
        rows = sorted(await view.room_alarms(room), key=lambda row: (row.due is None, row.due or 0))
        seen = [sight(row, screen.clock.now()) for row in rows]
        if not keys and not seen:
            screen.remark(f"there is no room {named}")
            return FOUND
        form = Form(COLUMNS, partial(_cells, codec=codec), _facts)
        title = f"{named}: {counted(keys, 'key')}, {counted(size, 'byte')}\n"
        await show_list(screen, arguments, _entries(view, room), form, title=title)
        title = f"{'' if keys else named}\n{counted(len(seen), 'alarm')}\n"
        alarms = Form(COLUMNS_OF_ALARMS, partial(_alarm_cells, codec=codec), ALARMS.facts)
        await show_list(screen, arguments, _each(seen), alarms, title=title)
    if not arguments.json:
        _tell_errors(seen, screen)
    return OK


def _tell_errors(alarms: Sequence[Sight], screen: Screen) -> None:
    """Say what handlers have raised, at full length: in a table it would be cut where it becomes interesting."""
    for each in alarms:
        if each.error is not None:
            screen.say(f"\n{f'alarm {each.row.name!r}' if each.row.name else 'the alarm'}: {lines(each.error)}")


async def _entries(view: FileView, room: RoomKey) -> AsyncGenerator[Entry]:
    async for key, data in each_entry(view, room):
        yield Entry(room, key, data)


async def _each(alarms: Sequence[Sight]) -> AsyncGenerator[Sight]:
    for each in alarms:
        yield each


def _cells(entry: Entry, codec: Codec) -> tuple[str, ...]:
    return entry.key, f"{len(entry.data):,}", cut(_decoded(entry.data, codec, repr), VALUE_COLUMNS)


def _alarm_cells(seen: Sight, codec: Codec) -> tuple[str, ...]:
    rings, at, _room, name, repeated, last, tries, _error = ALARMS.cells(seen)
    payload = "" if seen.payload is None else cut(_decoded(seen.payload, codec, repr), VALUE_COLUMNS)
    return rings, at, name, repeated, last, tries, payload


def _facts(entry: Entry) -> dict[str, object]:
    return {"party": entry.room.party, "room": entry.room.id, "key": entry.key, "value": pack(entry.data)}


def _decoded(data: bytes, codec: Codec, written: Callable[[object], str]) -> str:
    try:
        return written(codec.decode(data))
    except DecodeError as error:
        return f"{data.decode(errors='backslashreplace')} ({error})"


async def _show_value(view: FileView, room: RoomKey, arguments: Namespace, codec: Codec, screen: Screen) -> int:
    data = (await view.read(room, [arguments.key])).get(arguments.key)
    if data is None:
        screen.remark(f"{one_line(str(room))} has no key {arguments.key!r}")
        return FOUND
    if arguments.json:
        screen.emit(_facts(Entry(room, arguments.key, data)))
    else:
        screen.say(lines(_decoded(data, codec, partial(pformat, width=screen.width or PAGE_COLUMNS))))
    return OK


VERB: Final = Verb(
    "show",
    "show one room: its values and alarms",
    f"Show what a room has stored, values decoded. {LOOKS} Exit code 1 if there is no such room or key.",
    ("show rooms.db draft alice", "show rooms.db draft alice --key text", "show rooms.db card 7 --codec app:codec"),
    show_options,
    on_loop(show),
)
