"""The events that wait for a room, and which of them are inside of it already.

Owns the order of arrival (G1) and the bound on how many are inside (G6). What
the runtime itself posts (alarms, closed connections, errors to hear of) has its
place in the same order, and is neither counted nor held back.

Promises that events leave in the order in which they came, inside or not, and
that the first of those outside is let in for each that leaves.

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

    __slots__ = ("_bound", "_events", "_inside", "outside")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._events: deque[Event] | None = None
        """All that wait, in order."""
        self._inside = 0
        """How many of them count against the bound."""
        self.outside: deque[Event] | None = None
        """Those of them that are not let in yet."""

    def __len__(self) -> int:
        return 0 if self._events is None else len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events or ())

    def push(self, event: Event) -> bool:
        """Let an event wait; say whether it is inside."""
        self.push_always(event)
        if self._inside < self._bound and self.outside is None:
            self._let_in(event)
            return True
        if self.outside is None:
            self.outside = deque()
        self.outside.append(event)
        return False

    def push_always(self, event: Event) -> None:
        """Let an event of the runtime's own wait, whatever the bound."""
        if self._events is None:
            self._events = deque((event,))
        else:
            self._events.append(event)

    def push_first(self, event: Event) -> None:
        """Let an event that belongs to the one before it be the next."""
        if self._events is None:
            self._events = deque()
        self._events.appendleft(event)

    def pop(self) -> Event | None:
        """Take out the next event, or give ``None``; then ask whom to let in."""
        if self._events is None:
            return None
        event = self._events.popleft()
        self._left(event)
        return event

    def withdraw(self, event: Event) -> None:
        """Take out an event that its caller no longer wants, harmless if it has left; then ask whom to let in."""
        if self._events is None or event not in self._events:
            return
        self._events.remove(event)
        if self.outside is not None and event in self.outside:
            self.outside.remove(event)
            self.outside = self.outside or None
        self._left(event)

    def admit(self) -> Event | None:
        """Let in the first of those outside if there is a place now, and give it."""
        if self.outside is None or self._inside >= self._bound:
            return None
        event = self.outside.popleft()
        self.outside = self.outside or None
        self._let_in(event)
        return event

    def _let_in(self, event: Event) -> None:
        event.is_inside = True
        self._inside += 1

    def _left(self, event: Event) -> None:
        if event.is_inside:
            event.is_inside = False
            self._inside -= 1
        if not self._events:
            self._events = None
