"""How far a long work has come, for a person who watches.

Owns one line of the error stream, written over and over, and gone at the end.

Promises that nothing is written where nobody watches, nor more than ten times a second, nor for work that is done
within a moment.

Must never be needed to understand a result.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self, final

from partyroom._cli.screen import Screen

__all__ = ["Progress"]

PAUSE: Final = 0.1
"""Seconds from one look to the next, and before the first."""
COLUMNS: Final = 24
"""Of the bar."""


@final
class Progress:
    """Counts what is done, of a total that may be unknown (``None``)."""

    def __init__(self, screen: Screen, what: str, total: int | None = None) -> None:
        self._screen = screen
        self._what = what
        self._total = total
        self._done = 0
        self._shown = 0
        self._next = screen.clock.monotonic() + PAUSE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        if self._shown:
            self._write("")

    def step(self, count: int = 1) -> None:
        """Count some more as done."""
        self.set(self._done + count)

    def set(self, done: int, total: int | None = None) -> None:
        """Hear how much is done, and of how much if that was not known."""
        self._done = done
        self._total = self._total if total is None else total
        if self._screen.is_watched and self._screen.clock.monotonic() >= self._next:
            self._next = self._screen.clock.monotonic() + PAUSE
            self._write(self._text())

    def _text(self) -> str:
        if not self._total:
            return f"{self._what}: {self._done:,}"
        part = min(1.0, self._done / self._total)
        bar = "#" * int(part * COLUMNS)
        whole = f"{self._what}: [{bar:.<{COLUMNS}}] {part:4.0%}  {self._done:,} of {self._total:,}"
        return whole if len(whole) < self._screen.watched_width else f"{self._what}: {part:.0%}"

    def _write(self, text: str) -> None:
        """Write over what was written before, and stay at the beginning of the line."""
        err = self._screen.err
        err.write(f"\r{text:<{self._shown}}\r")
        err.flush()
        self._shown = len(text)
