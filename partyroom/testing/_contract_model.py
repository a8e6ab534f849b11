"""What a right store holds: the simplest thing that keeps the contract, to compare others with.

Owns the values, the alarms and the claims as plain dictionaries, and answers
every question by looking at all of them.

Promises to be obviously right; it is neither fast nor a backend.

Must never share code with a store that is judged by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar, final

import attrs

from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["Model"]

V = TypeVar("V")


@final
@attrs.define(eq=False)
class Model:
    """A store as the contract has it."""

    values: dict[RoomKey, dict[str, bytes]] = attrs.field(factory=dict[RoomKey, dict[str, bytes]])
    alarms: dict[RoomKey, dict[str, AlarmRow]] = attrs.field(factory=dict[RoomKey, dict[str, AlarmRow]])
    claims: dict[RoomKey, int] = attrs.field(factory=dict[RoomKey, int])
    """The fences that count."""
    lost: dict[RoomKey, int] = attrs.field(factory=dict[RoomKey, int])
    """The latest fence of each room that counts no longer."""
    highest: dict[RoomKey, int] = attrs.field(factory=dict[RoomKey, int])
    """The latest fence of each room."""

    def claim(self, room: RoomKey, fence: int) -> None:
        """Hear of the fence that was given for a room."""
        self.unclaim(room)
        self.claims[room] = self.highest[room] = fence

    def unclaim(self, room: RoomKey) -> None:
        """End a room's claim, if there is one."""
        if room in self.claims:
            self.lost[room] = self.claims.pop(room)

    def close(self) -> None:
        """End all claims, as leaving a store does."""
        for room in tuple(self.claims):
            self.unclaim(room)

    def commit(self, commit: Commit) -> bool:
        """Apply a commit, if its fence counts; say whether it does."""
        if self.claims.get(commit.room) != commit.fence:
            return False
        if commit.release:
            self.unclaim(commit.room)
        if commit.clear:
            self.values[commit.room], self.alarms[commit.room] = {}, {}
        self.values[commit.room] = _changed(self.values.get(commit.room, {}), commit.values)
        self.alarms[commit.room] = _changed(self.alarms.get(commit.room, {}), commit.alarms)
        return True

    def read(self, room: RoomKey, keys: tuple[str, ...]) -> dict[str, bytes]:
        """Give the values of those keys that exist."""
        return {key: value for key, value in self.values.get(room, {}).items() if key in keys}

    def scan(self, room: RoomKey, keys: KeyRange, limit: int) -> list[tuple[str, bytes]]:
        """Give the first entries of a range."""
        values = self.values.get(room, {})
        return [(key, values[key]) for key in _first(values, keys, limit)]

    def room_alarms(self, room: RoomKey) -> list[AlarmRow]:
        """Give a room's alarms, by name."""
        return [row for _, row in sorted(self.alarms.get(room, {}).items())]

    def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int) -> list[AlarmRow]:
        """Give the first alarms that have a due time, by (due, room, name)."""
        rows = {AlarmCursor(row.due, row.room, row.name): row for row in self._rows() if row.due is not None}
        places = [
            place
            for place in sorted(rows)
            if (before is None or place.due < before) and (after is None or place > after)
        ]
        return [rows[place] for place in places[:limit]]

    def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int) -> list[AlarmRow]:
        """Give the first alarms of a party without a due time, by (room id, name)."""
        rows = {(row.room.id, row.name): row for row in self._rows() if row.due is None and row.room.party == party}
        return [rows[place] for place in sorted(rows) if after is None or place > after][:limit]

    def rooms(self, party: str, ids: KeyRange, limit: int) -> list[str]:
        """Give the first ids of rooms that hold something."""
        held = {
            room.id for things in (self.values, self.alarms) for room in things if things[room] and room.party == party
        }
        return _first(held, ids, limit)

    def _rows(self) -> Iterator[AlarmRow]:
        for alarms in self.alarms.values():
            yield from alarms.values()


def _changed(things: Mapping[str, V], changes: Mapping[str, V | None]) -> dict[str, V]:
    """Give some things with changes laid over them, ``None`` taking one away."""
    changed = {**things, **changes}
    return {name: thing for name, thing in changed.items() if thing is not None}


def _first(texts: Collection[str], within: KeyRange, limit: int) -> list[str]:
    """Give the first texts of a range, in its order."""
    found = [text for text in texts if within.start <= text and (within.end is None or text < within.end)]
    return sorted(found, reverse=within.reverse)[:limit]
