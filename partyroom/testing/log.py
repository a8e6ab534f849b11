"""What a harness tells of the events in its rooms: that they ended, and what they raised.

Owns the two records that a test reads.

Promises that both say which room, which event and when, and read well in a failing test.

Must never hold behaviour.
"""

from __future__ import annotations

from datetime import datetime

import attrs
from typing_extensions import override

from partyroom.types import RoomKey

__all__ = ["LoggedEvent", "RoomError"]


@attrs.frozen
class LoggedEvent:
    """One event that has ended."""

    at: datetime
    """When it began, in virtual wall time."""
    room: RoomKey
    event: str
    """What ran: ``on_message``, ``Counter.increment``, ``on_alarm`` ..."""
    outcome: str
    """``ok``, or the name of the error's class."""

    @override
    def __str__(self) -> str:
        return f"{self.at.isoformat()} {self.room} {self.event}: {self.outcome}"


@attrs.frozen
class RoomError:
    """One exception that a room raised."""

    at: datetime
    """When, in virtual wall time."""
    room: RoomKey
    event: str
    error: BaseException = attrs.field(eq=False)
    heard: bool
    """Whether a caller, or the room's own ``on_error``, was told of it."""

    @override
    def __str__(self) -> str:
        return f"{self.at.isoformat()} {self.room} {self.event}: {type(self.error).__name__}: {self.error}"
