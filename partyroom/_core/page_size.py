"""How many entries of a listing to read next.

Owns that one number, from page to page.

Promises that a page of small values is large enough for reading it to pay, and
that one of large values does not hold more than a few of them in memory.

Must never know what is read, but for its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

__all__ = ["PageSize"]

FIRST: Final = 64
"""What is read without knowing how large values are: of the largest allowed ones, 128 MiB."""
LARGEST: Final = 1024
"""To decode so many small values takes a few milliseconds, for which nobody else on the loop has a turn."""
PAGE_BYTES: Final = 1024 * 1024
"""What a page should hold at most. A single value may be larger."""
GROWTH: Final = 4


@final
class PageSize:
    """The size of the next page, in entries."""

    __slots__ = ("entries",)

    def __init__(self, wanted: int | None = None) -> None:
        self.entries = FIRST if wanted is None else min(wanted, FIRST)
        """How many entries to ask for next."""

    def learn(self, rows: Sequence[tuple[str, bytes | None]]) -> None:
        """Hear what a page has brought."""
        size = sum(len(data) for _, data in rows if data)
        fitting = len(rows) * PAGE_BYTES // size if size else LARGEST
        self.entries = max(1, min(self.entries * GROWTH, fitting, LARGEST))
