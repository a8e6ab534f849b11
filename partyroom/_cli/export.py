"""``export``: rooms as lines of JSON, for another store, another tool, or a person.

Owns the way out.

Promises that a file gives all of it as it was at one moment, between two commits, also while a program runs; and that
what was exported can be imported into any store, alarms included, to the byte.

Must never leave half a dump under the name that was asked for.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from partyroom._cli.dump import FIRST, Totals, alarm_line, last_line, value_line
from partyroom._cli.progress import Progress
from partyroom._cli.screen import OK, CommandError, Screen
from partyroom._cli.stores import backend_option, parties_of, store_of
from partyroom._cli.text import counted
from partyroom._cli.verb import LOOKS, Verb, file_option, name_option, on_loop, path_option
from partyroom._cli.walk import each_entry, each_room
from partyroom.backends._file_view import FileView
from partyroom.backends._new_file import new_file
from partyroom.protocols import StorageBackend
from partyroom.types import RoomKey

__all__ = ["VERB"]

Emit: TypeAlias = Callable[[Mapping[str, object]], None]


def export_options(parser: ArgumentParser) -> None:
    """Take what is exported, and where to."""
    file_option(parser)
    parser.add_argument("party", type=name_option, metavar="PARTY", nargs="?", help="only rooms of this party")
    parser.add_argument("id", type=name_option, metavar="ID", nargs="?", help="only this room")
    parser.add_argument(
        "-o", "--output", type=path_option, metavar="DUMP", help="where to write, instead of to the screen"
    )
    backend_option(parser)


async def export(arguments: Namespace, screen: Screen) -> int:
    """Export rooms."""
    # Around the store, which may say at its end that what was read is of no one moment.
    with _output(arguments.output, screen) as emit:
        async with store_of(arguments.file, arguments.backend) as store:
            total = await store.count_rooms() if isinstance(store, FileView) and arguments.party is None else None
            with Progress(screen, "exporting rooms", total) as progress:
                totals = await _export(store, arguments, emit, progress)
    screen.remark(
        f"exported {counted(totals.rooms, 'room')}, {counted(totals.values, 'value')}, {counted(totals.alarms, 'alarm')}"
    )
    return OK


async def _export(store: StorageBackend, arguments: Namespace, emit: Emit, progress: Progress) -> Totals:
    totals = Totals()
    # Before the first line: where the store cannot tell which parties there are, nothing is written.
    parties = await parties_of(store, arguments.party)
    emit(FIRST)
    async for room in _rooms(store, parties, arguments.id):
        before = totals.values + totals.alarms
        async for key, data in each_entry(store, room):
            emit(value_line(room, key, data))
            totals.values += 1
        for row in await store.room_alarms(room):
            emit(alarm_line(row))
            totals.alarms += 1
        totals.rooms += totals.values + totals.alarms > before
        progress.step()
    emit(last_line(totals))
    return totals


async def _rooms(store: StorageBackend, parties: Sequence[str], room_id: str | None) -> AsyncIterator[RoomKey]:
    for party in parties:
        if room_id is not None:
            yield RoomKey(party, room_id)
            continue
        async for room in each_room(store, party):
            yield room


@contextmanager
def _output(path: str | None, screen: Screen) -> Generator[Emit]:
    """Give where lines go."""
    if path is None:
        yield screen.emit
        return
    try:
        with new_file(Path(path)) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
            yield lambda line: print(json.dumps(line, ensure_ascii=False), file=file)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise CommandError(f"{path}: there is something already; an export overwrites nothing") from error


VERB: Final = Verb(
    "export",
    "write rooms as lines of JSON",
    "Write rooms, with their alarms, as lines of JSON that any store can import. " + LOOKS,
    (
        "export rooms.db -o rooms.jsonl",
        "export rooms.db draft alice",
        "export redis://here draft --backend app:redis",
    ),
    export_options,
    on_loop(export),
)
