"""The events that wait for a room, and those that wait outside because it is full.

Owns the order of arrival (G1) and the bound on it (G6). What comes from the
runtime itself (alarms, closed connections, errors to hear of) is never held
back by the bound.

Promises that events leave in the order in which they came, and that one is let
in, in turn, for each that leaves.

Must never wake anybody by itself: it says who was let in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import final

from partyroom._core.units import Event

__all__ = ["Mailbox"]


@final
class Mailbox:
    """A bounded queue. Empty, it costs nothing but itself: most rooms are idle most of the time."""

    __slots__ = ("_bound", "_inside", "_outside")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._inside: deque[Event] | None = None
        self._outside: deque[Event] | None = None

    def __len__(self) -> int:
        return (len(self._inside) if self._inside else 0) + (len(self._outside) if self._outside else 0)

    def __iter__(self) -> Iterator[Event]:
        yield from self._inside or ()
        yield from self._outside or ()

    def push(self, event: Event) -> bool:
        """Take an event if there is a place, else let it wait outside; say whether it was taken."""
        if self._inside is None:
            self._inside = deque((event,))
            return True
        if len(self._inside) < self._bound:
            self._inside.append(event)
            return True
        if self._outside is None:
            self._outside = deque()
        self._outside.append(event)
        return False

    def push_always(self, event: Event) -> None:
        """Take an event of the runtime's own, whatever the bound."""
        if self._inside is None:
            self._inside = deque()
        self._inside.append(event)

    def push_first(self, event: Event) -> None:
        """Take an event that belongs to the one before it, as the next."""
        if self._inside is None:
            self._inside = deque()
        self._inside.appendleft(event)

    def pop(self) -> Event | None:
        """Take out the next event, or give ``None``."""
        if self._inside is None:
            return None
        event = self._inside.popleft()
        if not self._inside:
            self._inside = None
        return event

    def admit(self) -> Event | None:
        """Let in the next of those outside, if there is a place; give it."""
        if self._outside is None or (self._inside is not None and len(self._inside) >= self._bound):
            return None
        event = self._outside.popleft()
        if not self._outside:
            self._outside = None
        self.push_always(event)
        return event

    def withdraw(self, event: Event) -> None:
        """Take out an event that its caller no longer wants; harmless if it has left."""
        if self._outside is not None and event in self._outside:
            self._outside.remove(event)
            self._outside = self._outside or None
        elif self._inside is not None and event in self._inside:
            self._inside.remove(event)
            self._inside = self._inside or None
