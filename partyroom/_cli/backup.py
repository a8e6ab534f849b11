"""``backup``: a copy of a file, made while the program runs.

Owns nothing but the way to it.

Promises what :meth:`FileBackend.backup` does: one state between two commits, complete and durable once it is there,
and nothing overwritten.

Must never hold up a commit.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from partyroom._cli.progress import Progress
from partyroom._cli.screen import OK, Screen
from partyroom._cli.stores import check_file
from partyroom._cli.text import size
from partyroom._cli.verb import Verb, file_option
from partyroom.backends._sqlite_backup import write_backup

__all__ = ["VERB"]


def backup_options(parser: ArgumentParser) -> None:
    """Take what is copied, and where to."""
    file_option(parser)
    parser.add_argument("target", metavar="TARGET", help="where the copy goes; nothing may be there")


def backup(arguments: Namespace, screen: Screen) -> int:
    """Copy a file."""
    check_file(arguments.file)
    target = Path(arguments.target).absolute()
    with Progress(screen, "copying pages") as progress:
        write_backup(arguments.file, target, lambda _, left, total: progress.set(total - left, total))
    screen.say(f"{arguments.target}: {size(target.stat().st_size)}")
    return OK


VERB: Final = Verb(
    "backup",
    "copy a file, at any time",
    "Copy a file as it is at one moment, also while a program runs on it. The copy is complete once it is there.",
    ("backup rooms.db backups/monday.db",),
    backup_options,
    backup,
)
