"""Where a command talks to: its streams, how wide they are, and who else is in the room.

Owns :class:`Screen`, the exit codes, and the error that a person is told in one line.

Promises that text for people and lines for machines never mix: results go to the output stream, everything else
(progress, remarks, errors) to the error stream.

Must never be asked what to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, TextIO

import attrs

from partyroom.protocols import Clock

__all__ = ["FAILED", "FOUND", "INTERRUPTED", "OK", "USUAL_WIDTH", "CommandError", "Screen"]

OK: Final = 0
"""All is well."""
FOUND: Final = 1
"""The command did its work, and something is wrong with what it looked at, or a ring failed."""
FAILED: Final = 2
"""The command could not do its work: it was asked for the impossible, or the file, the disk or a module stood in its way."""
INTERRUPTED: Final = 130
"""A person pressed Ctrl-C: what a shell gives for it."""

USUAL_WIDTH: Final = 80
"""How many columns a terminal has that does not say how many."""


class CommandError(Exception):
    """What was asked for cannot be done; its text is what a person is told, in one line."""


@attrs.frozen(kw_only=True)
class Screen:
    """The world as a command sees it."""

    out: TextIO
    """For results."""
    err: TextIO
    """For everything else."""
    input: TextIO
    """What comes through a pipe."""
    clock: Clock
    chance: Callable[[], int]
    """Gives 64 random bits, others each time: the name of a ring."""
    width: int | None = None
    """How many columns a table may take; ``None`` if nobody's eyes are meant."""
    is_watched: bool = False
    """Whether somebody sees the error stream as it is written, so that progress is worth showing."""
    watched_width: int = USUAL_WIDTH
    """How many columns a line of progress may take: one that the terminal wraps cannot be written over."""

    def say(self, text: str = "") -> None:
        """Print one or more lines of the result."""
        print(text, file=self.out)

    def emit(self, facts: Mapping[str, object]) -> None:
        """Print one result for machines: an object of JSON in a line."""
        # A terminal or a pipe that cannot take every character gets escapes, which say the same.
        is_narrow = (self.out.encoding or "utf-8").lower() not in {"utf-8", "utf8"}
        print(json.dumps(facts, ensure_ascii=is_narrow), file=self.out)

    def remark(self, text: str) -> None:
        """Print a line beside the result."""
        print(text, file=self.err)
