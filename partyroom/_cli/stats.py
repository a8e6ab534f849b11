"""``stats``: a file in figures.

Owns the figures of a file, and those of each party.

Promises figures of one moment, between two commits.

Must never read a value.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from partyroom._cli.progress import Progress
from partyroom._cli.screen import OK, Screen
from partyroom._cli.sights import iso, sight
from partyroom._cli.stores import view_of
from partyroom._cli.table import Column, table
from partyroom._cli.text import counted, moment, relative, size, width
from partyroom._cli.verb import LOOKS, Verb, file_option, on_loop
from partyroom._cli.walk import each_due, each_parked, each_room
from partyroom._core.instants import to_micros
from partyroom.backends._file_view import FileFacts, FileView

__all__ = ["VERB"]

ALARMS: Final = ("pending", "retrying", "paused", "failed", "unreadable")

COLUMNS: Final = (
    Column("party"),
    *(Column(title, figures=True) for title in ("rooms", "keys", "bytes", *ALARMS, "late")),
    Column("next rings", whole=True),
)
STORED: Final = 4
"""How many of them are of what is stored, and not of the alarms."""


@attrs.define
class PartyFigures:
    """The figures of one party."""

    name: str
    rooms: int = 0
    keys: int = 0
    bytes: int = 0
    alarms: Counter[str] = attrs.Factory(Counter[str])
    late: int = 0
    next: int | None = None


def stats_options(parser: ArgumentParser) -> None:
    """Take which file is counted."""
    file_option(parser)
    parser.add_argument("--json", action="store_true", help="print one object of JSON")


async def stats(arguments: Namespace, screen: Screen) -> int:
    """Print the figures of a file."""
    async with view_of(arguments.file) as view:
        facts = await view.facts()
        parties = await _count(view, screen)
    if arguments.json:
        screen.emit(attrs.asdict(facts) | {"parties": [_facts(each) for each in parties.values()]})
        return OK
    for line in _lines(arguments.file, facts):
        screen.say(line)
    if parties:
        screen.say()
        for line in _tables([_cells(each, screen.clock.now()) for each in parties.values()], screen.width):
            screen.say(line)
    return OK


async def _count(view: FileView, screen: Screen) -> dict[str, PartyFigures]:
    parties = {name: PartyFigures(name) for name in await view.parties()}
    with Progress(screen, "counting rooms", await view.count_rooms()) as progress:
        for party in parties.values():
            async for room in each_room(view, party.name):
                keys, size_of = await view.size_of(room)
                party.rooms += 1
                party.keys += keys
                party.bytes += size_of
                progress.step()
            async for row in each_parked(view, party.name):
                party.alarms[sight(row, screen.clock.now()).status] += 1
    async for row in each_due(view):
        seen, party = sight(row, screen.clock.now()), parties[row.room.party]
        party.alarms[seen.status] += 1
        party.late += seen.is_late
        party.next = row.due if party.next is None else party.next
    return parties


def _lines(file: str, facts: FileFacts) -> list[str]:
    written = to_micros(datetime.fromtimestamp(facts.written, UTC))
    owner = "nobody" if facts.owner is None else f"process {facts.owner}"
    return [
        f"{file}: {size(facts.file_bytes)}, {size(facts.free_bytes)} of it free; log beside it {size(facts.log_bytes)}",
        f"written {moment(written)}, opened {counted(facts.openings, 'time')}, last by {owner}",
        *(
            [f"{counted(facts.unswept_entries, 'entry', 'entries')} of cleared rooms wait to be swept away"]
            if facts.unswept_entries
            else []
        ),
    ]


def _tables(rows: Sequence[Sequence[str]], space: int | None) -> list[str]:
    """Give one table, or two that are narrow enough: what is stored, and below it the alarms."""
    whole = list(table(COLUMNS, rows, space))
    if space is None or max(map(width, whole)) <= space:
        return whole
    stored = table(COLUMNS[:STORED], [row[:STORED] for row in rows], space)
    alarms = table((COLUMNS[0], *COLUMNS[STORED:]), [(row[0], *row[STORED:]) for row in rows], space)
    return [*stored, "", *alarms]


def _cells(party: PartyFigures, now: datetime) -> tuple[str, ...]:
    stored = (party.rooms, party.keys, party.bytes)
    alarms = (*(party.alarms[status] for status in ALARMS), party.late)
    return (
        party.name,
        *(f"{figure:,}" for figure in stored),
        # Without a nought, a column in which there are none goes, and the others have room.
        *(f"{figure:,}" if figure else "" for figure in alarms),
        "" if party.next is None else relative(party.next, now),
    )


def _facts(party: PartyFigures) -> dict[str, object]:
    return {
        "party": party.name,
        "rooms": party.rooms,
        "keys": party.keys,
        "bytes": party.bytes,
        "alarms": {status: party.alarms[status] for status in ALARMS},
        "late": party.late,
        "next": iso(party.next),
    }


VERB: Final = Verb(
    "stats",
    "print a file's figures, and those of each party",
    f"Count what a file holds. {LOOKS}",
    ("stats rooms.db",),
    stats_options,
    on_loop(stats),
)
