"""``ring-again``: alarms that have failed, or are paused, made due again, while no program runs.

Owns the choice of alarms, and their rows from now on.

Promises that an alarm rings again with all of its retries before it, when the program runs the next time; and that one
which cannot be read stays as it is.

Must never ring one itself: that takes the program.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from partyroom._cli.screen import FOUND, OK, CommandError, Screen
from partyroom._cli.sights import sight
from partyroom._cli.stores import backend_option, parties_of, view_of, writer_of
from partyroom._cli.text import counted
from partyroom._cli.verb import STOPPED, Verb, alarm_option, file_option, name_option, on_loop
from partyroom._cli.walk import each_parked
from partyroom._cli.writing import Change, write
from partyroom._core.alarm_life import ring_again as made_due
from partyroom._core.instants import to_micros
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmRow, RoomKey

__all__ = ["VERB"]


def ring_again_options(parser: ArgumentParser) -> None:
    """Take which alarms ring again."""
    file_option(parser)
    parser.add_argument(
        "party", type=name_option, metavar="PARTY", nargs="?", help="only the failed alarms of this party"
    )
    parser.add_argument("id", type=name_option, metavar="ID", nargs="?", help="only those of this room")
    alarm_option(parser, "only this alarm of the room, also if it is paused or has not rung yet")
    backend_option(parser)


async def ring_again(arguments: Namespace, screen: Screen) -> int:
    """Make alarms due."""
    if arguments.alarm is not None and arguments.id is None:
        raise CommandError("--alarm needs PARTY and ID: names of alarms are a room's own")
    async with writer_of(arguments.file, arguments.backend) as backend:
        rows = await _rows(backend, arguments, screen)
        now = to_micros(screen.clock.now())
        due = [made_due(row, now, screen.chance()) for row in rows]
        await write(backend, [_change(room, list(some)) for room, some in groupby(due, lambda row: row.room)])
    if not rows:
        screen.remark("no alarm has failed" if arguments.party is None else "no such alarm")
        return FOUND
    screen.say(f"{counted(len(rows), 'alarm')} will ring when the program runs, or by ring-due")
    return OK


def _change(room: RoomKey, rows: Sequence[AlarmRow]) -> Change:
    return Change(room, alarms={row.name: row for row in rows})


async def _rows(backend: StorageBackend, arguments: Namespace, screen: Screen) -> list[AlarmRow]:
    """Give the alarms that are meant, those of a room together."""
    if arguments.alarm is not None:
        rows = await backend.room_alarms(RoomKey(arguments.party, arguments.id))
        return [row for row in rows if row.name == arguments.alarm]
    now = screen.clock.now()
    return [
        row
        for party in await _parties(backend, arguments)
        async for row in each_parked(backend, party)
        if arguments.id in {None, row.room.id} and sight(row, now).status == "failed"
    ]


async def _parties(backend: StorageBackend, arguments: Namespace) -> Sequence[str]:
    if arguments.backend is not None:
        return await parties_of(backend, arguments.party)
    async with view_of(arguments.file) as view:
        return await parties_of(view, arguments.party)


VERB: Final = Verb(
    "ring-again",
    "let failed alarms ring again",
    "Make alarms due that have failed, with all of their retries before them; they ring when the program runs. "
    f"Exit code 1 if there are none. {STOPPED}",
    ("ring-again rooms.db", "ring-again rooms.db draft bob", "ring-again rooms.db draft bob --alarm expiry"),
    ring_again_options,
    on_loop(ring_again),
)
