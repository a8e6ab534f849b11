"""``alarms``: what rings when, what is late, what failed and why.

Owns the list of alarms.

Promises the order in which they ring; those that will not ring by themselves, paused or failed, stand behind.

Must never ring one.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Final

from partyroom._cli.listing import list_options, show_list
from partyroom._cli.screen import OK, Screen
from partyroom._cli.sights import ALARMS, Sight, sight
from partyroom._cli.stores import view_of
from partyroom._cli.verb import LOOKS, Verb, file_option, name_option, on_loop
from partyroom._cli.walk import each_due, each_parked
from partyroom._core.instants import to_micros
from partyroom.backends._file_view import FileView

__all__ = ["VERB"]


def alarms_options(parser: ArgumentParser) -> None:
    """Take which alarms are listed, and how."""
    file_option(parser)
    parser.add_argument("--party", type=name_option, metavar="NAME", help="only alarms of this party")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--late", action="store_true", help="only those whose time has come")
    which.add_argument("--failed", action="store_true", help="only those whose handler has raised for the last time")
    list_options(parser)


async def alarms(arguments: Namespace, screen: Screen) -> int:
    """List alarms."""
    async with view_of(arguments.file) as view:
        found = _find(view, arguments, screen.clock.now())
        shown = await show_list(screen, arguments, found, ALARMS)
    if not shown:
        screen.remark("no alarms")
    return OK


async def _find(view: FileView, arguments: Namespace, now: datetime) -> AsyncGenerator[Sight]:
    before = to_micros(now) + 1 if arguments.late else None
    if not arguments.failed:
        async for row in each_due(view, before):
            if arguments.party in {None, row.room.party}:
                yield sight(row, now)
    if arguments.late:
        return
    for party in await view.parties() if arguments.party is None else [arguments.party]:
        async for row in each_parked(view, party):
            seen = sight(row, now)
            if seen.status == "failed" or not arguments.failed:
                yield seen


VERB: Final = Verb(
    "alarms",
    "list alarms: what rings when, what is late, what failed and why",
    f"List the alarms of a file, in the order in which they ring. {LOOKS}",
    ("alarms rooms.db", "alarms rooms.db --failed"),
    alarms_options,
    on_loop(alarms),
)
