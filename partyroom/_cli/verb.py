"""What a verb of the command line is: a name, a sentence, an example, its options, and what it does.

Owns the shape that every command has, and the options that several of them share.

Promises that a person finds the same word for the same thing at every verb.

Must never know which verbs there are.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable

import attrs
from anyio import run

from partyroom._cli.screen import Screen

__all__ = ["Verb", "file_option", "json_option", "on_loop", "room_options"]


@attrs.frozen
class Verb:
    """One command."""

    name: str
    summary: str
    """One line, for the list of commands."""
    details: str
    """What one may want to know besides."""
    examples: tuple[str, ...]
    """What stands behind ``python -m partyroom`` in an example."""
    options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Screen], int]
    """Gives the exit code."""


def on_loop(main: Callable[[Namespace, Screen], Awaitable[int]]) -> Callable[[Namespace, Screen], int]:
    """Give a verb that runs in an event loop of its own."""

    def run_it(arguments: Namespace, screen: Screen) -> int:
        return run(main, arguments, screen)

    return run_it


def file_option(parser: ArgumentParser) -> None:
    """Take the file that is looked at."""
    parser.add_argument("file", metavar="FILE", help="the file of a FileBackend")


def json_option(parser: ArgumentParser) -> None:
    """Let a machine ask."""
    parser.add_argument("--json", action="store_true", help="print an object of JSON a line instead of a table")


def room_options(parser: ArgumentParser) -> None:
    """Take the name of one room."""
    parser.add_argument("party", metavar="PARTY", help="the name of the room's party")
    parser.add_argument("id", metavar="ID", help="the room's id")
