"""``import``: rooms from lines of JSON into a store, while no program runs.

Owns the way in.

Promises that a dump is read to its end before anything is written, so that one which is damaged or cut off changes
nothing; that each room is stored whole; that no room which is there already is touched, unless it is to be replaced;
and that what was stored is read again and compared.

Must never merge two rooms.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Final, TextIO

from anyio.lowlevel import checkpoint

from partyroom._cli.dump import RoomContent, read_dump
from partyroom._cli.progress import Progress
from partyroom._cli.screen import OK, CommandError, Screen
from partyroom._cli.stores import backend_option, writer_of
from partyroom._cli.text import counted
from partyroom._cli.verb import STOPPED, Verb, file_option, on_loop, path_option
from partyroom._cli.walk import each_entry
from partyroom._cli.writing import Change, write
from partyroom.protocols import StorageBackend
from partyroom.types import KeyRange, RoomKey

__all__ = ["VERB"]

GROUP_BYTES: Final = 1024 * 1024
GROUP_ROOMS: Final = 500
"""How much is stored with one sync of the disk, at most."""
NAMED: Final = 3
"""How many of the rooms that stand in the way are named."""


def import_options(parser: ArgumentParser) -> None:
    """Take what is imported, and where to."""
    file_option(parser)
    told = "what `export` has written; without it, what comes through a pipe"
    parser.add_argument("dump", type=path_option, metavar="DUMP", nargs="?", help=told)
    parser.add_argument(
        "--replace", action="store_true", help="replace rooms that are there already, each of them whole"
    )
    backend_option(parser)


async def import_rooms(arguments: Namespace, screen: Screen) -> int:
    """Import rooms."""
    with _input(arguments.dump, screen) as file:
        async with writer_of(arguments.file, arguments.backend, is_new=True) as backend:
            total = await _check(backend, file, arguments, screen)
            file.seek(0)
            await _import(backend, file, total, screen)
    return OK


async def _check(backend: StorageBackend, file: TextIO, arguments: Namespace, screen: Screen) -> int:
    """Read a dump to its end; give how many rooms it has. Refuses rooms that stand in the way."""
    in_the_way: list[RoomKey] = []
    total = 0
    with Progress(screen, "checking rooms") as progress:
        for content in read_dump(file):
            total += 1
            # A dump may be large, and a store that answers at once gives Ctrl-C no chance.
            await checkpoint()
            if not arguments.replace and await _is_there(backend, content.room):
                in_the_way.append(content.room)
            progress.step()
    if in_the_way:
        named = ", ".join(str(room) for room in in_the_way[:NAMED])
        more = ", ..." if len(in_the_way) > NAMED else ""
        raise CommandError(f"nothing was imported: {named}{more} are there already; --replace replaces them")
    return total


async def _is_there(backend: StorageBackend, room: RoomKey) -> bool:
    return bool(await backend.scan(room, KeyRange(), 1) or await backend.room_alarms(room))


async def _import(backend: StorageBackend, file: TextIO, total: int, screen: Screen) -> None:
    values = alarms = 0
    with Progress(screen, "importing rooms", total) as progress:
        for group in _groups(read_dump(file)):
            await write(backend, [Change(each.room, each.values, each.alarms, clear=True) for each in group])
            for content in group:
                await _compare(backend, content)
                values += len(content.values)
                alarms += len(content.alarms)
            progress.step(len(group))
    screen.say(
        f"imported {counted(total, 'room')}, {counted(values, 'value')}, {counted(alarms, 'alarm')}; "
        "all of it was read again and compared"
    )


def _groups(contents: Iterator[RoomContent]) -> Iterator[list[RoomContent]]:
    """Put rooms together until they are of some size."""
    group: list[RoomContent] = []
    size = 0
    for content in contents:
        group.append(content)
        size += content.size
        if size >= GROUP_BYTES or len(group) == GROUP_ROOMS:
            yield group
            group, size = [], 0
    if group:
        yield group


async def _compare(backend: StorageBackend, content: RoomContent) -> None:
    values = {key: data async for key, data in each_entry(backend, content.room)}
    alarms = {row.name: row for row in await backend.room_alarms(content.room)}
    if (values, alarms) != (content.values, content.alarms):
        raise CommandError(f"{content.room} is not as it was exported: the store has changed it")


@contextmanager
def _input(path: str | None, screen: Screen) -> Generator[TextIO]:
    """Give the lines of a dump, as a file that can be read twice."""
    if path is not None:
        # What is no UTF-8 is noticed line by line.
        with Path(path).open(encoding="utf-8", errors="surrogateescape") as file, _readable_twice(file) as dump:
            yield dump
        return
    if screen.input.isatty():
        raise CommandError("DUMP is missing, and nothing comes through a pipe")
    with _spooled(screen.input) as dump:
        yield dump


def _readable_twice(file: TextIO) -> AbstractContextManager[TextIO]:
    """Give a file as it is, unless its name stands for a pipe, as a shell's ``<(zcat dump.gz)`` does."""
    return nullcontext(file) if file.seekable() else _spooled(file)


@contextmanager
def _spooled(stream: TextIO) -> Generator[TextIO]:
    with TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as spool:
        copyfileobj(stream, spool)
        spool.seek(0)
        yield spool


VERB: Final = Verb(
    "import",
    "read rooms from lines of JSON",
    f"Store rooms that were exported, each of them whole, in a file that need not be there. {STOPPED}",
    ("import rooms.db rooms.jsonl", "import rooms.lmdb rooms.jsonl --backend app:lmdb --replace"),
    import_options,
    on_loop(import_rooms),
)
