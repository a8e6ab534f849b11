"""Everything that a store holds, one after another, however much it is.

Owns the way through rooms, entries and alarms, page by page.

Promises the store's own order, and that no more than a page of it is in memory, which holds few large values. A walk
that is left in the middle has nothing to clean up; one that is cancelled (Ctrl-C) ends with its page.

Must never ask a store for anything but what its contract offers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from anyio.lowlevel import checkpoint

from partyroom._core.keys import key_range
from partyroom._core.page_size import PageSize
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, KeyRange, RoomKey

__all__ = ["each_due", "each_entry", "each_parked", "each_room"]

PAGE: Final = 500
"""How many rows are asked for at once, where all are small."""


async def each_room(backend: StorageBackend, party: str, *, prefix: str = "") -> AsyncIterator[RoomKey]:
    """Give the rooms of a party whose ids begin with a prefix, by id."""
    ids = key_range(prefix=prefix)
    while ids is not None:
        await checkpoint()
        page = await backend.rooms(party, ids, PAGE)
        for room_id in page:
            yield RoomKey(party, room_id)
        ids = key_range(start_after=page[-1], prefix=prefix) if len(page) == PAGE else None


async def each_entry(backend: StorageBackend, room: RoomKey) -> AsyncIterator[tuple[str, bytes]]:
    """Give the values of a room, by key."""
    keys: KeyRange | None = KeyRange()
    size = PageSize()
    while keys is not None:
        await checkpoint()
        asked = size.entries
        page = await backend.scan(room, keys, asked)
        size.learn(page)
        for entry in page:
            yield entry
        keys = KeyRange(page[-1][0] + "\0") if len(page) == asked else None


async def each_due(backend: StorageBackend, before: int | None = None) -> AsyncIterator[AlarmRow]:
    """Give the alarms that will ring, of all rooms, by (due, room, name); ``before`` is exclusive."""
    after: AlarmCursor | None = None
    while True:
        await checkpoint()
        page = await backend.due_alarms(before, after, PAGE)
        for row in page:
            yield row
        if len(page) < PAGE:
            return
        after = AlarmCursor(page[-1].due or 0, page[-1].room, page[-1].name)


async def each_parked(backend: StorageBackend, party: str) -> AsyncIterator[AlarmRow]:
    """Give the alarms of a party that will not ring by themselves, by (room, name)."""
    after: tuple[str, str] | None = None
    while True:
        await checkpoint()
        page = await backend.parked_alarms(party, after, PAGE)
        for row in page:
            yield row
        if len(page) < PAGE:
            return
        after = (page[-1].room.id, page[-1].name)
