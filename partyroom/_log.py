"""What every record in the log says beside its text.

Owns the names of those attributes: ``room`` and ``event``, as ``%(room)s`` in a
format.

Promises that every record has both, empty where there is none.

Must never decide what is logged.
"""

from __future__ import annotations

from partyroom.types import RoomKey

__all__ = ["about"]


def about(room: RoomKey | None = None, event: str = "") -> dict[str, str]:
    """Give the ``extra`` of a record about a room, or about an event of it."""
    return {"room": "" if room is None else str(room), "event": event}
