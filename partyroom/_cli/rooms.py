"""``rooms``: which rooms a file holds, how large they are, and when they ring next.

Owns the list of rooms.

Promises the order of the store: by party, then by id.

Must never read a value.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from typing import Final

import attrs

from partyroom._cli.listing import Form, list_options, show_list
from partyroom._cli.screen import OK, Screen
from partyroom._cli.sights import iso
from partyroom._cli.stores import view_of
from partyroom._cli.table import Column
from partyroom._cli.text import moment, relative
from partyroom._cli.verb import LOOKS, Verb, file_option, name_option, on_loop
from partyroom._cli.walk import each_room
from partyroom.backends._file_view import FileView
from partyroom.types import RoomKey

__all__ = ["VERB"]

COLUMNS: Final = (
    *(Column("party"), Column("room"), Column("keys", figures=True), Column("bytes", figures=True)),
    *(Column("alarms", figures=True), Column("next rings", whole=True), Column("at (UTC)", whole=True, spare=True)),
)


@attrs.frozen
class RoomSight:
    """One stored room."""

    room: RoomKey
    keys: int
    bytes: int
    alarms: int
    """How many, failed and paused ones included."""
    due: int | None
    """When the next one rings, in microseconds since 1970-01-01 UTC."""


def rooms_options(parser: ArgumentParser) -> None:
    """Take which rooms are listed, and how."""
    file_option(parser)
    parser.add_argument("--party", type=name_option, metavar="NAME", help="only rooms of this party")
    parser.add_argument("--prefix", type=name_option, metavar="TEXT", default="", help="only rooms whose ids begin so")
    list_options(parser)


async def rooms(arguments: Namespace, screen: Screen) -> int:
    """List rooms."""
    async with view_of(arguments.file) as view:
        found = _find(view, arguments.party, arguments.prefix)
        form = Form(COLUMNS, partial(_cells, now=screen.clock.now()), _facts)
        shown = await show_list(screen, arguments, found, form)
    if not shown:
        screen.remark("no rooms")
    return OK


async def _find(view: FileView, party: str | None, prefix: str) -> AsyncGenerator[RoomSight]:
    for name in await view.parties() if party is None else [party]:
        async for room in each_room(view, name, prefix=prefix):
            keys, size = await view.size_of(room)
            alarms = await view.room_alarms(room)
            due = min((row.due for row in alarms if row.due is not None), default=None)
            yield RoomSight(room, keys, size, len(alarms), due)


def _cells(seen: RoomSight, now: datetime) -> tuple[str, ...]:
    return (
        *(seen.room.party, seen.room.id, f"{seen.keys:,}", f"{seen.bytes:,}", str(seen.alarms or "")),
        *(("", "") if seen.due is None else (relative(seen.due, now), moment(seen.due))),
    )


def _facts(seen: RoomSight) -> dict[str, object]:
    return {
        "party": seen.room.party,
        "room": seen.room.id,
        "keys": seen.keys,
        "bytes": seen.bytes,
        "alarms": seen.alarms,
        "next": iso(seen.due),
    }


VERB: Final = Verb(
    "rooms",
    "list rooms: keys, bytes, next alarm",
    f"List the rooms of a file, by party and id. {LOOKS}",
    ("rooms rooms.db --party draft --prefix a", "rooms rooms.db --json"),
    rooms_options,
    on_loop(rooms),
)
