"""Rooms without a runtime, for tests of machines that only need to know which room an event belongs to."""

from __future__ import annotations

from partyroom._core.units import Event, Unit
from partyroom.types import RoomKey

__all__ = ["FakePlace", "event"]


class FakePlace:
    """A room that handles whatever it is told to."""

    def __init__(self, name: str) -> None:
        self.key = RoomKey("party", name)
        self.running: Event | None = None


def event(place: FakePlace | None = None, name: str = "f", *, caller: Unit | None = None) -> Event:
    return Event(place or FakePlace("a"), "call", name, caller=caller)
