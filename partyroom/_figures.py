"""What a host is told that looks at a runtime: how many rooms do what, and why one of them is awake.

Owns the counting, of what is in memory and of what is stored.

Promises that looking wakes nothing, changes nothing, and holds up no room.

Must never keep what it counts: it is the figure of one moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from partyroom._core.alarm_life import status_of
from partyroom._core.instants import to_micros
from partyroom._room_runner import RoomRunner
from partyroom.connections import Connections
from partyroom.protocols import StorageBackend
from partyroom.statistics import PartyStatistics, StoredStatistics, WhyAwake
from partyroom.types import AlarmCursor, KeyRange, RoomKey

__all__ = ["count_parties", "count_stored", "explain"]

PAGE: Final = 1000
"""How many rooms or alarms are read at a time."""


def count_parties(
    parties: Iterable[str], rooms: Mapping[RoomKey, RoomRunner], connections: Mapping[RoomKey, Connections]
) -> dict[str, PartyStatistics]:
    """Count the rooms in memory, and those that sleep while clients are connected, by party."""
    awake: Counter[str] = Counter()
    waking: Counter[str] = Counter()
    hibernating: Counter[str] = Counter()
    clients: Counter[str] = Counter()
    for key, room in rooms.items():
        awake[key.party] += 1
        waking[key.party] += room.is_waking
        clients[key.party] += len(room.connections)
    for key, each in connections.items():
        # Those of a room that has woken since are counted above.
        if key not in rooms:
            hibernating[key.party] += 1
            clients[key.party] += len(each)
    return {
        party: PartyStatistics(
            awake=awake[party], waking=waking[party], hibernating=hibernating[party], clients=clients[party]
        )
        for party in parties
    }


def explain(room: RoomRunner, monotonic: float, sleeps_at: datetime | None) -> WhyAwake:
    """Say what keeps a room awake."""
    running = room.running
    since = None if running is None else running.since
    return WhyAwake(
        room=room.key,
        is_awake=True,
        running=None if running is None else running.name,
        running_for=None if since is None else timedelta(seconds=monotonic - since),
        waits_for=() if running is None else tuple(map(str, running.calls or ())),
        waiting=tuple(event.name for event in room.mailbox),
        tasks=tuple(sorted(task.name for task in room.background)),
        # The part that ``sync()`` stores, and what holds up a call until then, are of the event that runs.
        uncommitted=sum(event.kind not in {"barrier", "sync"} for event in room.gate),
        clients=0 if room.hibernates else len(room.connections),
        sleeps_at=sleeps_at,
    )


async def count_stored(
    backend: StorageBackend,
    parties: Collection[str],
    is_awake: Callable[[RoomKey], bool],
    now: datetime,
    limit: int = PAGE,
) -> dict[str, StoredStatistics]:
    """Count what is stored, by party, in pages of ``limit`` rooms or alarms."""
    waiting, late = await _count_due(backend, to_micros(now), limit)
    return {
        party: StoredStatistics(
            **await _count_rooms(backend, party, is_awake, limit),
            **await _count_parked(backend, party, limit),
            due=waiting[party],
            late=late[party],
        )
        for party in parties
    }


async def _count_rooms(
    backend: StorageBackend, party: str, is_awake: Callable[[RoomKey], bool], limit: int
) -> dict[str, int]:
    rooms, asleep = 0, 0
    page = await backend.rooms(party, KeyRange(), limit)
    while page:
        rooms += len(page)
        asleep += sum(not is_awake(RoomKey(party, each)) for each in page)
        page = () if len(page) < limit else await backend.rooms(party, KeyRange(page[-1] + "\0"), limit)
    return {"rooms": rooms, "asleep": asleep}


async def _count_due(backend: StorageBackend, now: int, limit: int) -> tuple[Counter[str], Counter[str]]:
    waiting: Counter[str] = Counter()
    late: Counter[str] = Counter()
    page = await backend.due_alarms(None, None, limit)
    while page:
        waiting.update(row.room.party for row in page)
        late.update(row.room.party for row in page if row.due is not None and row.due <= now)
        last = page[-1]
        assert last.due is not None
        page = (
            ()
            if len(page) < limit
            else await backend.due_alarms(None, AlarmCursor(last.due, last.room, last.name), limit)
        )
    return waiting, late


async def _count_parked(backend: StorageBackend, party: str, limit: int) -> dict[str, int]:
    found: Counter[str] = Counter()
    page = await backend.parked_alarms(party, None, limit)
    while page:
        found.update(map(status_of, page))
        last = page[-1]
        page = () if len(page) < limit else await backend.parked_alarms(party, (last.room.id, last.name), limit)
    return {"paused": found["paused"], "failed": found["failed"]}
