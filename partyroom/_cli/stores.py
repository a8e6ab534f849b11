"""Stores as the command line names them: a file to look at, or whatever a factory makes of a text.

Owns the way from an argument to an open store, and the lookup of an author's own modules.

Promises that what cannot be found or made is told in one line, whatever an author's module raised.

Must never open a file for writing that is only to be looked at.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from partyroom._cli.screen import CommandError
from partyroom.backends._file_view import FileView
from partyroom.backends.file import FileBackend
from partyroom.codec import JsonCodec
from partyroom.protocols import Codec, StorageBackend

__all__ = [
    "backend_option",
    "check_file",
    "codec_of",
    "codec_option",
    "found_object",
    "parties_of",
    "store_of",
    "view_of",
    "writer_of",
]


def check_file(path: str) -> None:
    """Refuse a file that is not there: SQLite would make one."""
    if not Path(path).is_file():
        raise CommandError(f"{path}: there is no such file")


def view_of(path: str) -> FileView:
    """Give a file to look at."""
    check_file(path)
    return FileView(path)


def backend_option(parser: ArgumentParser) -> None:
    """Let a store be another than a file of this library."""
    parser.add_argument(
        "--backend",
        metavar="MODULE:FACTORY",
        help="what makes the store: called with FILE, which may be any text then, such as a URL",
    )


def store_of(place: str, factory: str | None) -> StorageBackend:
    """Give the store at a place, to be entered: a file to look at, or what a factory makes."""
    return view_of(place) if factory is None else _made(place, factory)


async def parties_of(store: StorageBackend, party: str | None) -> Sequence[str]:
    """Give the parties that are meant: the one that is named, or all that the store has, if it can tell."""
    if party is not None:
        return [party]
    if isinstance(store, FileView):
        return await store.parties()
    raise CommandError("PARTY must be given: only a file of this library can list its parties")


def writer_of(place: str, factory: str | None, *, is_new: bool = False) -> StorageBackend:
    """Give the store at a place, to be entered for writing; ``is_new`` says that it need not be there."""
    if factory is not None:
        return _made(place, factory)
    if not is_new:
        check_file(place)
    return FileBackend(place)


def _made(place: str, factory: str) -> StorageBackend:
    make = found_object(factory)
    if not callable(make):
        raise CommandError(f"{factory} is no factory: it cannot be called")
    try:
        made = make(place)
    except Exception as error:
        raise CommandError(f"{factory}({place!r}) raised {type(error).__name__}: {error}") from error
    if not isinstance(made, StorageBackend):
        raise CommandError(f"{factory}({place!r}) gave no storage backend, but {type(made).__name__}")
    return made


def codec_option(parser: ArgumentParser) -> None:
    """Let values be decoded as the program does it."""
    parser.add_argument(
        "--codec",
        metavar="MODULE:CODEC",
        help="the program's own codec, if it has one: to read values of classes that are registered there",
    )


def codec_of(name: str | None) -> Codec:
    """Give the codec of that name, or the default one."""
    if name is None:
        return JsonCodec()
    codec: Any = found_object(name)
    if isinstance(codec, type):
        raise CommandError(f"{name} is a class, and no codec yet: name one that is made of it")
    if not callable(getattr(codec, "decode", None)):
        raise CommandError(f"{name} is no codec: it has no decode")
    found: Codec = codec
    return found


def found_object(name: str) -> object:
    """Give what ``MODULE:NAME`` names."""
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise CommandError(f"{name!r} is no MODULE:NAME, such as myapp.rooms:runtime")
    try:
        found: Any = import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise CommandError(f"{name} cannot be found: {type(error).__name__}: {error}") from error
    return found
