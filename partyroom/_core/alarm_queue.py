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

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Final, TypeAlias, final

from partyroom.protocols import Upcoming
from partyroom.types import RoomKey

__all__ = ["AlarmQueue", "Place"]

Place: TypeAlias = tuple[datetime, RoomKey]
"""Where a room stands in the order of waking."""

SPARE: Final = 64
"""So many dead places more than live ones are never worth cleaning."""


class _Held:
    """A room that is held."""

    __slots__ = ("due", "place")

    def __init__(self, due: datetime, place: Place) -> None:
        self.due = due
        self.place = place
        """Where it stands: at its due time or before it. Moving it later, the usual thing, only changes ``due``."""


@final
class AlarmQueue:
    """Rooms by the due time of their next alarm, as far as ``lookahead`` of them.

    A room that was taken is *waking* until the next :meth:`change` of it, and does not come out again before.
    """

    __slots__ = ("_complete", "_cursor", "_heap", "_held", "_horizon", "_run", "_touched", "_waking", "lookahead")

    def __init__(self, lookahead: int) -> None:
        self.lookahead = lookahead
        """How many alarms to read at once; up to twice as many are held for a while."""
        self._held: dict[RoomKey, _Held] = {}
        # What was read comes in order, and leaves at the front of a run; a heap is for what was changed since.
        self._run: deque[Place] = deque()
        self._heap: list[Place] = []
        self._waking: set[RoomKey] = set()
        self._horizon: Place | None = None
        self._complete = False
        self._cursor: Upcoming | None = None
        self._touched: set[RoomKey] | None = None

    def __len__(self) -> int:
        return len(self._held)

    @property
    def size(self) -> int:
        """How many places use memory, those that moved and deleted alarms have left included."""
        return len(self._heap) + len(self._run)

    @property
    def waking(self) -> int:
        """How many rooms were taken and have not been heard of since."""
        return len(self._waking)

    # --- what comes out ------------------------------------------------------

    def first(self) -> Place | None:
        """Give the place of the room to wake next; ``None`` if none is held up to the horizon.

        The same object as before, if nothing came before it meanwhile.
        """
        run, heap = self._run, self._heap
        while run and not self.is_live(run[0]):
            run.popleft()
        while heap and not self.is_live(heap[0]):
            heappop(heap)
        if run and not (heap and heap[0] < run[0]):
            place = run[0]
        elif heap:
            place = heap[0]
        else:
            return None
        return place if self._covers(place) else None

    def is_live(self, place: Place) -> bool:
        """Say whether a room stands here and is due now; one that is due later is moved to where it belongs."""
        held = self._held.get(place[1])
        if held is None or held.place is not place:
            return False
        if held.due == place[0]:
            return True
        self._place(held, place[1])
        return False

    def take(self) -> RoomKey:
        """Take out the room that :meth:`first` gave: it is waking from now on."""
        if self._run and not (self._heap and self._heap[0] < self._run[0]):
            _, room = self._run.popleft()
        else:
            _, room = heappop(self._heap)
        del self._held[room]
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
            self._held.pop(room, None)
        else:
            self._put(room, due)

    def _put(self, room: RoomKey, due: datetime) -> None:
        held = self._held.get(room)
        if held is None:
            held = self._held[room] = _Held(due, (due, room))
            heappush(self._heap, held.place)
        else:
            held.due = due
            if due >= held.place[0]:
                return
            self._place(held, room)
        held_rooms = len(self._held)
        if len(self._heap) + len(self._run) > 2 * held_rooms + SPARE:
            self._rebuild()
        if held_rooms > 2 * self.lookahead:
            self._trim()

    def _place(self, held: _Held, room: RoomKey) -> None:
        held.place = (held.due, room)
        heappush(self._heap, held.place)

    def _rebuild(self) -> None:
        """Begin anew with one run in order."""
        self._run = deque(sorted((held.due, room) for room, held in self._held.items()))
        self._heap = []
        self._held = {place[1]: _Held(place[0], place) for place in self._run}

    def _trim(self) -> None:
        """Keep the nearest half, and see less far.

        Rooms that answered with something else than what is stored may be among those that are dropped. Hence the
        next read begins at the beginning, and one that is under way is worth nothing.
        """
        self._rebuild()
        while len(self._run) > self.lookahead:
            del self._held[self._run.pop()[1]]
        if self._covers(self._run[-1]):
            self._horizon = self._run[-1]
        self._complete = False
        self._cursor = None
        self._touched = None

    # --- reading on ----------------------------------------------------------

    @property
    def is_dry(self) -> bool:
        """Whether nothing is left up to the horizon, while there may be more behind it: time to read on."""
        return not self._complete and self._touched is None and self.first() is None

    def begin_reading(self) -> Upcoming | None:
        """Give the place to read on from, exclusive; from now on, changes win over what is read."""
        self._touched = set()
        return self._cursor

    def end_reading(self, found: Sequence[Upcoming]) -> None:
        """Take in what was read, in its order: ``lookahead`` alarms, or fewer if there are no more."""
        if self._touched is None:
            return
        known, self._touched = self._touched | self._waking, None
        self._complete = len(found) < self.lookahead
        if not self._complete:
            self._cursor = found[-1]
            self._horizon = (found[-1].due, found[-1].room)
        held = self._held
        places: list[Place] = []
        for due, room, _ in found:
            # A room's first alarm counts, and what is known of it is newer than what was read.
            if room not in held and room not in known:
                place = (due, room)
                held[room] = _Held(due, place)
                places.append(place)
        # Nothing that was held is due before these, up to the old horizon; what is held beyond it goes to the heap.
        self._heap = sorted([*self._heap, *self._run])
        self._run = deque(places)
        if len(held) > 2 * self.lookahead:
            self._trim()

    def abandon_reading(self) -> None:
        """Forget a read that failed; the next one begins at the same place."""
        self._touched = None
