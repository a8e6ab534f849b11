"""What a fake clock tells of timers: that one rang, and that one waits.

Owns the two records that a test reads.

Promises that both say when, which room and what for, and read well in a failing test.

Must never hold behaviour.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import attrs
from typing_extensions import override

from partyroom.types import RoomKey

__all__ = ["BACKGROUND", "NOBODY", "Fired", "Pending"]

BACKGROUND: Final = frozenset({"idle", "timeout"})
"""Timers whose ring is no purpose of anybody's: rooms that will leave memory, deadlines that will not be needed."""
NOBODY: Final = RoomKey("", "")
"""Stands before every room, for timers of none."""


@attrs.frozen
class Fired:
    """One sleeper that was woken."""

    at: datetime
    """The wall time at which it was woken, in UTC."""
    room: RoomKey | None
    kind: str
    """What it slept for: ``alarm``, ``sleep`` (on ``ctx.clock``), ``timeout``, ``idle`` (a room that may leave memory) ..."""
    name: str

    @property
    def is_background(self) -> bool:
        """Whether it was nobody's purpose: such as an idle room that has left memory."""
        return self.kind in BACKGROUND

    @override
    def __str__(self) -> str:
        return _line(self.at, self.room, self.kind, self.name)


@attrs.frozen
class Pending:
    """Something that will happen when time passes."""

    due: datetime
    """When, in UTC; for what waits on monotonic time, if nobody corrects the wall clock."""
    room: RoomKey | None
    kind: str
    """As in :class:`Fired`."""
    name: str

    @property
    def is_background(self) -> bool:
        """Whether it is nobody's purpose: such as an idle room that will leave memory."""
        return self.kind in BACKGROUND

    @property
    def rank(self) -> tuple[datetime, RoomKey, str, str]:
        """Its place in the order (due, room, kind, name)."""
        return self.due, self.room or NOBODY, self.kind, self.name

    @override
    def __str__(self) -> str:
        return _line(self.due, self.room, self.kind, self.name)


def _line(when: datetime, room: RoomKey | None, kind: str, name: str) -> str:
    return " ".join(filter(None, (when.isoformat(), str(room or ""), kind, name)))
