"""Lists: as a table for a person, as lines of JSON for a machine.

Owns how many rows are shown, and what is said about the others.

Promises that a machine gets all rows as they are found, however many there are; that a person gets a table of the
first of them; and that nothing is left out without a word.

Must never know what its rows are about.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Generic, TypeVar

import attrs

from partyroom._cli.screen import Screen
from partyroom._cli.table import Column, table

__all__ = ["Form", "list_options", "positive", "show_list"]

T = TypeVar("T")

SCREENFUL: Final = 100
"""How many rows a person gets who has not said how many."""


def list_options(parser: ArgumentParser) -> None:
    """Let a machine ask, and let anybody say how much is wanted."""
    parser.add_argument("--json", action="store_true", help="print an object of JSON a line instead of a table")
    parser.add_argument("--limit", type=positive, metavar="N", help=f"show at most N ({SCREENFUL}; with --json, all)")


def positive(text: str) -> int:
    """Give the number that a text says; raise ``ValueError`` for one that is not positive."""
    number = int(text)
    if number <= 0:
        raise ValueError(text)
    return number


@attrs.frozen
class Form(Generic[T]):
    """How one kind of thing is shown."""

    columns: Sequence[Column]
    cells: Callable[[T], Sequence[str]]
    """Gives its row in a table."""
    facts: Callable[[T], Mapping[str, object]]
    """Gives it for machines."""


async def show_list(
    screen: Screen, arguments: Namespace, found: AsyncGenerator[T], form: Form[T], *, title: str = ""
) -> int:
    """Show what is found, as far as it is wanted, under a title if it is a table; give how much was shown."""
    limit: int | None = arguments.limit
    if limit is None and not arguments.json:
        limit = SCREENFUL
    rows: list[Sequence[str]] = []
    shown = 0
    is_cut = False
    async with aclosing(found):
        async for each in found:
            if shown == limit:
                is_cut = True
                break
            shown += 1
            if arguments.json:
                screen.emit(form.facts(each))
            else:
                rows.append(form.cells(each))
    if rows:
        if title:
            screen.say(title)
        for line in table(form.columns, rows, screen.width):
            screen.say(line)
    if is_cut:
        screen.remark(f"only the first {shown:,} are shown; --limit N shows more")
    return shown
