"""What a verb of the command line is: a name, a sentence, an example, its options, and what it does.

Owns the shape that every command has, and the options that several of them share.

Promises that a person finds the same word for the same thing at every verb.

Must never know which verbs there are.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs
from anyio import run

from partyroom._cli.screen import Screen
from partyroom._core.tagged_json import has_utf8

__all__ = [
    "LOOKS",
    "STOPPED",
    "Verb",
    "alarm_option",
    "file_option",
    "name_option",
    "on_loop",
    "path_option",
    "room_options",
]

LOOKS: Final = "It only reads, and may be used while a program runs on the file."
STOPPED: Final = "No program may run on the store meanwhile."
"""What most verbs say about themselves, one or the other."""


class OptionGroup(Protocol):
    """What options can be added to: a parser, or a group of one."""

    def add_argument(
        self,
        flag: str,
        /,
        *,
        type: Callable[[str], str],  # noqa: A002 - argparse's word
        nargs: str,
        const: str,
        metavar: str,
        help: str,  # noqa: A002 - argparse's word
    ) -> object:
        """Add one option."""
        ...


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


def path_option(text: str) -> str | None:
    """Give the path that a person names, or ``None`` for ``-``, which stands for a stream wherever people type."""
    return None if text == "-" else text


def name_option(text: str) -> str:
    """Give a stored name as a person types it; refuses bytes that are no text, for which a store has no form."""
    if not has_utf8(text):
        raise ArgumentTypeError(f"{text!r} has no UTF-8 form")
    return text


def room_options(parser: ArgumentParser) -> None:
    """Take the name of one room."""
    parser.add_argument("party", type=name_option, metavar="PARTY", help="the name of the room's party")
    parser.add_argument("id", type=name_option, metavar="ID", help="the room's id")


def alarm_option(parser: OptionGroup, what: str) -> None:
    """Take the name of one alarm; without a name it is the one that has none."""
    told = f"{what}; without NAME the unnamed one"
    parser.add_argument("--alarm", type=name_option, nargs="?", const="", metavar="NAME", help=told)
