"""Tables that fit the terminal.

Owns how rows become lines: widths, order of giving way, alignment, and what goes altogether where it is narrow.

Promises that figures are never cut, that texts give way from the longest on and show that they were cut, and that no
line is wider than the terminal, unless not even the shortest form fits.

Must never know what its rows are about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from partyroom._cli.text import cut, one_line, width

__all__ = ["Column", "table"]

GAP: Final = "  "
SHORTEST: Final = 8
"""To how many columns a text may be cut."""


@attrs.frozen
class Column:
    """One column."""

    title: str
    figures: bool = False
    """Whether it holds figures, which stand to the right and are never cut."""
    whole: bool = False
    """Whether it is never cut for another reason: half a time is none."""
    spare: bool = False
    """Whether it goes where there is no room for it: another column says the same in short."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int | None) -> Iterator[str]:
    """Give the lines of a table, titles first, without columns in which nothing stands.

    ``space`` is how wide it may be, ``None`` for as wide as it is.
    """
    used = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    columns = [columns[place] for place in used]
    cells = [[column.title for column in columns], *([one_line(row[place]) for place in used] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    if space is not None:
        space -= len(GAP) * (len(columns) - 1)
        _give_way(widths, columns, space)
        if sum(widths) > space and any(column.spare for column in columns):
            yield from _without_spare(columns, cells[1:], space + len(GAP) * (len(columns) - 1))
            return
    for row in cells:
        yield GAP.join(map(_place, row, columns, widths)).rstrip()


def _without_spare(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> Iterator[str]:
    kept = [place for place, column in enumerate(columns) if not column.spare]
    return table([columns[place] for place in kept], [[row[place] for place in kept] for row in rows], space)


def _give_way(widths: list[int], columns: Sequence[Column], space: int) -> None:
    """Narrow columns of text, the widest first, until all fit or none can be narrowed."""
    texts = [place for place, column in enumerate(columns) if not column.figures and not column.whole]
    while sum(widths) > space:
        widest = max(texts, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= max(SHORTEST, width(columns[widest].title)):
            return
        widths[widest] -= 1


def _place(cell: str, column: Column, columns: int) -> str:
    shown = cell if column.figures or column.whole else cut(cell, columns)
    space = " " * (columns - width(shown))
    return space + shown if column.figures else shown + space
