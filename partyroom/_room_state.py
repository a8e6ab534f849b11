"""What one awake room knows of what is stored, after all its sealed commits.

Owns the room's read cache, its alarms, and the way to the backend for what
neither says.

Promises that a read sees every sealed commit of the room, confirmed or not
(G16): what is not confirmed yet is laid over whatever the backend gives.

Must never know of the running event: its own layers are handed in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, final

from partyroom._core.alarm_table import AlarmTable
from partyroom._core.instants import from_micros
from partyroom._core.units import Writes
from partyroom.protocols import StorageBackend
from partyroom.types import KeyRange, RoomKey

__all__ = ["UNKNOWN", "RoomState"]

UNKNOWN: Final[Any] = object()
"""What is known of a key of which nothing is known."""


@final
class RoomState:
    """The stored state of one room, as its next event will find it."""

    __slots__ = ("_alarms", "_backend", "_complete", "_dirty", "_key", "_values")

    def __init__(self, key: RoomKey, backend: StorageBackend, cache: object) -> None:
        self._key = key
        self._backend = backend
        self.reset()

    def reset(self) -> None:
        """Know nothing: a commit was refused."""
        self._values: dict[str, bytes | None] = {}
        self._dirty: dict[str, int] = {}
        self._complete = False
        self._alarms: AlarmTable | None = None

    def forget(self) -> None:
        """Give back what the cache holds: the room goes to sleep."""
        self.reset()

    def known(self, key: str) -> Any:
        return self._values.get(key, None if self._complete else UNKNOWN)

    async def read(self, keys: Collection[str]) -> dict[str, bytes | None]:
        got = await self._backend.read(self._key, keys)
        for key in keys:
            self._values.setdefault(key, got.get(key))
        return {key: self._values[key] for key in keys}

    async def page(
        self, keys: KeyRange, limit: int, layers: Sequence[Writes]
    ) -> tuple[list[tuple[str, bytes]], KeyRange | None]:
        if self._complete:
            rows: Sequence[tuple[str, bytes]] = ()
            full = False
        else:
            rows = await self._backend.scan(self._key, keys, limit)
            full = len(rows) == limit
        merged: dict[str, bytes | None] = dict(rows)
        last = rows[-1][0] if full else None
        def covered(k: str) -> bool:
            if k < keys.start or (keys.end is not None and k >= keys.end): return False
            return last is None or (k >= last if keys.reverse else k <= last)
        for k, v in self._values.items():
            if covered(k): merged[k] = v
        for layer in reversed(layers):
            if layer.clear:
                merged = {}
                full = False; last = None
            for k, v in layer.values.items():
                if covered(k): merged[k] = v
        out = sorted(((k, v) for k, v in merged.items() if v is not None), reverse=keys.reverse)
        rest = None
        if len(out) > limit:
            out = out[:limit]; last = out[-1][0]; full = True
        if full:
            assert last is not None
            rest = KeyRange(keys.start, last, True) if keys.reverse else KeyRange(last + "\0", keys.end)
        return out, rest

    async def alarms(self) -> AlarmTable:
        if self._alarms is None:
            rows = await self._backend.room_alarms(self._key)
            if self._alarms is None: self._alarms = AlarmTable(rows)
        return self._alarms

    def next_due(self) -> datetime | None:
        if self._alarms is None: return None
        first = self._alarms.first()
        return None if first is None or first.due is None else from_micros(first.due)

    def apply(self, number: int, writes: Writes) -> None:
        if writes.clear:
            self._values = {}; self._complete = True
            self._alarms = AlarmTable()
        self._values.update(writes.values)
        if writes.alarms:
            assert self._alarms is not None
            self._alarms.apply(writes.alarms, clear=False)

    def confirm(self, number: int) -> None:
        pass
