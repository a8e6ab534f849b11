"""The gate that outputs wait at until what was written before them is durable (G4).

Owns the ended events of one room whose outputs have not left, in order.

Promises that they leave in the order in which the events ended, none before its
own commit and those of all earlier events are confirmed, and that after a
refused commit none of the later ones leaves as if it had been stored (G5).

Must never send anything itself: it says what may leave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import final

from partyroom._core.units import Event

__all__ = ["OutputGate"]


@final
class OutputGate:
    """The ended events of one room that wait for commits. Open and empty, it costs nothing but itself."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Event] | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing waits, so that an event with nothing to store may leave at once."""
        return self._waiting is None

    def __len__(self) -> int:
        return 0 if self._waiting is None else len(self._waiting)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._waiting or ())

    def add(self, event: Event) -> None:
        """Let an ended event wait for its own commit and those before it."""
        if self._waiting is None:
            self._waiting = deque((event,))
        else:
            self._waiting.append(event)

    def confirm(self, number: int) -> list[Event]:
        """Hear that all commits up to ``number`` are durable; give the events that may leave now, in order."""
        leaving: list[Event] = []
        waiting = self._waiting
        while waiting and waiting[0].sealed_as <= number:
            leaving.append(waiting.popleft())
        if not waiting:
            self._waiting = None
        return leaving

    def shut(self) -> list[Event]:
        """Hear that a commit was refused; give all events that wait, which can never leave as they are."""
        waiting, self._waiting = self._waiting, None
        return list(waiting or ())
