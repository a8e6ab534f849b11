"""What one awake room knows of what is stored, after all its sealed commits.

Owns the room's view of its values, its alarms, and the way to the backend for
what neither says.

Promises that a read sees every sealed commit of the room, confirmed or not
(G16), and that what was read once costs next to nothing the second time.

Must never know of the running event, whose layers are laid over what is told here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import final

from partyroom._core.alarm_table import AlarmTable
from partyroom._core.pages import Page
from partyroom._core.read_cache import UNKNOWN, CacheBudget, RoomView, Unknown
from partyroom._core.units import Writes
from partyroom.protocols import StorageBackend
from partyroom.types import KeyRange, RoomKey

__all__ = ["RoomState"]


@final
class RoomState:
    """The stored state of one room, as its next event will find it."""

    __slots__ = ("_alarms", "_backend", "_budget", "_confirmed", "_key", "_resets", "_view")

    def __init__(self, key: RoomKey, backend: StorageBackend, budget: CacheBudget) -> None:
        self._key = key
        self._backend = backend
        self._budget = budget
        self._view: RoomView | None = None
        """Made when it is first needed: a room that only rings looks at no value."""
        self._alarms: AlarmTable | None = None
        self._confirmed = 0
        self._resets = 0

    def reset(self) -> None:
        """Know nothing any more: the claim has ended, or a commit was refused and what was computed on it is gone."""
        self.close()
        self._alarms = None
        self._resets += 1

    def close(self) -> None:
        """Give back what the cache holds: the room goes to sleep."""
        if self._view is not None:
            self._view.close()
            self._view = None

    # --- values --------------------------------------------------------------

    def _open(self) -> RoomView:
        if self._view is None:
            self._view = RoomView(self._budget)
        return self._view

    def known(self, key: str) -> bytes | Unknown | None:
        """Give the value of a key, ``None`` if it is known to be absent, or ``UNKNOWN``."""
        return UNKNOWN if self._view is None else self._view.lookup(key)

    async def read(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """Give the values of keys of which nothing is known: ``None`` for those that there are none of."""
        view = self._open()
        view.begin_read()
        try:
            return view.learn_many(keys, await self._backend.read(self._key, keys))
        finally:
            view.end_read()

    async def page(self, keys: KeyRange, limit: int, read: int) -> Page:
        """Give the first entries of a range, at most ``limit``; where nothing is known of them, ``read`` are read at once."""
        view = self._open()
        gap = view.first_gap(keys)
        if gap is None:
            return view.page(keys, limit)
        view.begin_read()
        try:
            rows = await self._backend.scan(self._key, gap, read)
            view.learn_range(gap, rows, complete=len(rows) < read)
            return view.page(keys, limit)
        finally:
            view.end_read()

    # --- alarms --------------------------------------------------------------

    @property
    def known_alarms(self) -> AlarmTable | None:
        """The room's alarms, if they have been read."""
        return self._alarms

    async def alarms(self) -> AlarmTable:
        """Give the room's alarms, read once."""
        if self._alarms is not None:
            return self._alarms
        resets = self._resets
        table = AlarmTable(await self._backend.room_alarms(self._key))
        if self._resets != resets:
            # A commit was refused meanwhile: whether this is still true, nobody knows.
            return table
        # Another branch may have read them, and changed them.
        if self._alarms is None:
            self._alarms = table
        return self._alarms

    def next_due(self) -> int | None:
        """Give when the room's next alarm is, in microseconds, as far as its alarms have been read."""
        first = None if self._alarms is None else self._alarms.first()
        return None if first is None else first.due

    # --- what is sealed and stored -------------------------------------------

    def apply(self, number: int, writes: Writes) -> None:
        """Take over what a sealed event writes."""
        if writes.values or writes.clear:
            self._open().apply(number, writes.values, clear=writes.clear)
        if writes.clear:
            self._alarms = AlarmTable()
        if writes.alarms:
            # Whoever changes an alarm has read them all before.
            assert self._alarms is not None
            self._alarms.apply(writes.alarms)

    def confirm(self, number: int) -> None:
        """Hear that everything up to a sealed event is durable."""
        view = self._view
        if view is not None:
            for each in range(self._confirmed + 1, number + 1):
                view.confirm(each)
        self._confirmed = number
