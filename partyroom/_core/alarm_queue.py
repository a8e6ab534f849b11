"""Which room is to be woken next: the alarms that are due soon, of all rooms.

Owns a bounded look-ahead into the backend's index: for each room that is held,
when its next alarm is due. Everything due up to the *horizon* is held; what is
due later waits in the backend, and is read when nothing up to the horizon is
left.

Promises that rooms come out in the order (due, room); that no stored alarm is
overlooked, in whatever order reads and changes arrive; and that the memory used
depends on the look-ahead, neither on how many alarms are pending nor on how
often one of them is moved.

Must never be the only one who knows an alarm: whatever is dropped here is
stored, and read again before its time has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, TypeAlias, final

from partyroom.protocols import Upcoming
from partyroom.types import RoomKey

__all__ = ["AlarmQueue", "Place"]

Place: TypeAlias = tuple[datetime, RoomKey]
"""A room's place in the order of waking."""

SPARE: Final = 64
"""A heap with fewer dead entries than this is never worth cleaning."""


@final
class AlarmQueue:
    """Rooms by the due time of their next alarm, as far as ``lookahead`` of them.

    A room that was taken is *waking* until the next :meth:`change` of it, and does not come out again before.
    """

    __slots__ = (
        "_complete",
        "_cursor",
        "_due",
        "_entries",
        "_heap",
        "_horizon",
        "_lookahead",
        "_touched",
        "_waking",
    )

    def __init__(self, lookahead: int) -> None:
        self._lookahead = lookahead
        self._due: dict[RoomKey, datetime] = {}
        # A room stands in the heap at its due time or earlier: moving it later, the usual thing, leaves the heap alone.
        self._entries: dict[RoomKey, datetime] = {}
        self._heap: list[Place] = []
        self._waking: set[RoomKey] = set()
        self._horizon: Place | None = None
        self._complete = False
        self._cursor: Upcoming | None = None
        self._touched: set[RoomKey] | None = None

    def __len__(self) -> int:
        return len(self._due)

    @property
    def size(self) -> int:
        """How many entries use memory, those of moved and deleted alarms included."""
        return len(self._heap)

    @property
    def waking(self) -> int:
        """How many rooms were taken and have not been heard of since."""
        return len(self._waking)

    # --- what comes out ------------------------------------------------------

    def first(self) -> Place | None:
        """Give the place of the room to wake next; ``None`` if none is held up to the horizon.

        The same object as before, if nothing came before it meanwhile.
        """
        heap = self._heap
        while heap:
            place = heap[0]
            due, room = place
            if self._entries.get(room) is not due:
                heappop(heap)
            elif self._due[room] != due:
                self._entries[room] = self._due[room]
                heapreplace(heap, (self._due[room], room))
            else:
                return place if self._covers(place) else None
        return None

    def take(self) -> RoomKey:
        """Take out the room that :meth:`first` gave: it is waking from now on."""
        _, room = heappop(self._heap)
        del self._due[room], self._entries[room]
        self._waking.add(room)
        return room

    def _covers(self, place: Place) -> bool:
        return self._complete or (self._horizon is not None and place <= self._horizon)

    # --- what comes in -------------------------------------------------------

    def is_stored(self, room: RoomKey, due: datetime) -> bool:
        """Say whether a change of ``room`` to ``due`` may be forgotten, because it will be read when its time has come near.

        The answer to a waking may say something else than what is stored, and what is changed during a read may be
        missed by it: both have to be held. So has what has passed, but the time is not known here.
        """
        return not self._covers((due, room)) and self._touched is None and room not in self._waking

    def change(self, room: RoomKey, due: datetime | None) -> None:
        """Hold that a room is due next at ``due``, or that it need not be held; it is not waking any more."""
        self._waking.discard(room)
        if self._touched is not None:
            self._touched.add(room)
        if due is None:
            self._due.pop(room, None)
            self._entries.pop(room, None)
            return
        self._put(room, due)
        if len(self._due) > 2 * self._lookahead:
            self._trim()

    def _put(self, room: RoomKey, due: datetime) -> None:
        self._due[room] = due
        entry = self._entries.get(room)
        if entry is not None and entry <= due:
            return
        self._entries[room] = due
        heappush(self._heap, (due, room))
        if len(self._heap) > 2 * len(self._due) + SPARE:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(due, room) for room, due in self._due.items()]
        heapify(self._heap)
        self._entries = dict(self._due)

    def _trim(self) -> None:
        """Keep the nearest half, and see less far.

        Rooms that answered with something else than what is stored may be among those that are dropped. Hence the
        next read begins at the beginning, and one that is under way is worth nothing.
        """
        nearest = sorted((due, room) for room, due in self._due.items())[: self._lookahead]
        self._due = {room: due for due, room in nearest}
        self._rebuild()
        if self._covers(nearest[-1]):
            self._horizon = nearest[-1]
        self._complete = False
        self._cursor = None
        self._touched = None

    # --- reading on ----------------------------------------------------------

    @property
    def is_dry(self) -> bool:
        """Whether nothing is left up to the horizon, while there may be more behind it: time to read on."""
        return not self._complete and self._touched is None and self.first() is None

    @property
    def lookahead(self) -> int:
        """How many alarms to read at once."""
        return self._lookahead

    def begin_reading(self) -> Upcoming | None:
        """Give the place to read on from, exclusive; from now on, changes win over what is read."""
        self._touched = set()
        return self._cursor

    def end_reading(self, found: Sequence[Upcoming]) -> None:
        """Take in what was read, in its order: ``lookahead`` alarms, or fewer if there are no more."""
        if self._touched is None:
            return
        known, self._touched = self._touched | self._waking, None
        self._complete = len(found) < self._lookahead
        if not self._complete:
            self._cursor = found[-1]
            self._horizon = (found[-1].due, found[-1].room)
        for due, room, _ in found:
            # A room's first alarm counts, and what is known of it is newer than what was read.
            if room not in known and room not in self._due:
                self._put(room, due)
        if len(self._due) > 2 * self._lookahead:
            self._trim()

    def abandon_reading(self) -> None:
        """Forget a read that failed; the next one begins at the same place."""
        self._touched = None
