"""A room's storage: what its code reads and writes, laid over what is known and what is stored.

Owns the way of a value from an author's hands to bytes and back, and the order
in which the layers are looked through: the running event's own writes, then
what its room knows of all sealed commits, then the backend.

Promises G15 to G18: values are copied in and out, reads see every earlier write
of the room, ranges are ordered by their keys' UTF-8 bytes, and every refusal
names the room, the key and the limit.

Must never write anything: what was written is handed on when the event is sealed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar, final, overload

from typing_extensions import override

from partyroom._core.alarm_life import look_at, new_row, pause, resume, ring_again
from partyroom._core.instants import from_micros, to_micros
from partyroom._core.keys import check_key, check_limit, check_name, key_range
from partyroom._core.pages import Page
from partyroom._core.read_cache import UNKNOWN, Unknown
from partyroom._core.units import CURRENT, Place, Unit, unit_of
from partyroom._room_state import RoomState
from partyroom._services import Services
from partyroom.errors import LimitExceededError, NoHandlerError, NotStorableError
from partyroom.protocols import AlarmInfos, Storage
from partyroom.recurrence import Recurrence
from partyroom.types import AlarmRow, KeyRange, RetryPolicy

__all__ = ["RoomStorage", "StorageOwner"]

T = TypeVar("T")

Rows = list[AlarmRow]
"""A name for what a class with a method ``list`` cannot spell."""

PAGE: Final = 1000
"""How many entries are read at a time: a page of small values keeps the loop for a few milliseconds at most."""


class StorageOwner(Place, Protocol):
    """A room as its storage sees it."""

    services: Services
    state: RoomState

    def can_ring(self) -> bool:
        """Say whether the room's class has an ``on_alarm``."""
        ...

    async def sync(self, unit: Unit, /) -> None:
        """Commit what the running event has done so far."""
        ...


@final
class RoomStorage(Storage):
    """One room's storage."""

    __slots__ = ("_room",)

    def __init__(self, room: StorageOwner) -> None:
        self._room = room

    @override
    def __repr__(self) -> str:
        return f"<storage of {self._room.key}>"

    def _unit(self) -> Unit:
        return unit_of(self._room, "storage was used")

    def _key(self, key: object) -> str:
        return check_key(key, self._room.services.limits.key_bytes, self._room.key)

    # --- one value -----------------------------------------------------------

    @overload
    async def get(self, key: str, /) -> Any: ...
    @overload
    async def get(self, key: str, /, default: T) -> T: ...
    @override
    async def get(self, key: str, /, default: object = None) -> object:
        unit = self._unit()
        data = await self._find(unit, self._key(key))
        return default if data is None else self._room.services.codec.decode(data)

    @override
    async def put(self, key: str, value: object, /) -> None:
        unit = self._unit()
        key = self._key(key)
        unit.layer().values[key] = self._encode(key, value)

    @override
    async def delete(self, key: str, /) -> bool:
        unit = self._unit()
        key = self._key(key)
        existed = await self._find(unit, key) is not None
        unit.layer().values[key] = None
        return existed

    def _encode(self, key: str, value: object) -> bytes:
        services = self._room.services
        try:
            data = services.codec.encode(value)
        except NotStorableError as error:
            where = f"{self._room.key} {key!r}"
            raise NotStorableError(where, error.path, error.reason) from None
        if len(data) > services.limits.value_bytes:
            where = f"{self._room.key} {key!r}"
            raise LimitExceededError("value_bytes", len(data), services.limits.value_bytes, where)
        return data

    async def _find(self, unit: Unit, key: str) -> bytes | None:
        data = self._known(unit, key)
        if data is UNKNOWN:
            return (await self._room.state.read((key,)))[key]
        return data

    def _known(self, unit: Unit, key: str) -> bytes | Unknown | None:
        """Look a key up in the event's layers, then in what the room knows; ``UNKNOWN`` if neither says."""
        step: Unit | None = unit
        while step is not None:
            writes = step.writes
            if writes is not None:
                if key in writes.values:
                    return writes.values[key]
                if writes.clear:
                    return None
            step = step.parent
        return self._room.state.known(key)

    # --- several values ------------------------------------------------------

    @override
    async def get_many(self, keys: Iterable[str], /) -> dict[str, Any]:
        found = await self._find_many(self._unit(), sorted({self._key(key) for key in keys}))
        decode = self._room.services.codec.decode
        return {key: decode(data) for key, data in found.items() if data is not None}

    @override
    async def put_many(self, values: Mapping[str, object], /) -> None:
        unit = self._unit()
        encoded = {self._key(key): self._encode(key, value) for key, value in values.items()}
        unit.layer().values.update(encoded)

    @override
    async def delete_many(self, keys: Iterable[str], /) -> int:
        unit = self._unit()
        wanted = sorted({self._key(key) for key in keys})
        found = await self._find_many(unit, wanted)
        unit.layer().values.update(dict.fromkeys(wanted))
        return sum(data is not None for data in found.values())

    async def _find_many(self, unit: Unit, keys: list[str]) -> dict[str, bytes | None]:
        known = {key: self._known(unit, key) for key in keys}
        unknown = [key for key, data in known.items() if data is UNKNOWN]
        read = await self._room.state.read(unknown) if unknown else {}
        return {key: read[key] if data is UNKNOWN else data for key, data in known.items()}

    # --- ranges --------------------------------------------------------------

    @override
    async def list(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> dict[str, Any]:
        unit = self._unit()
        keys = self._range(prefix, start, start_after, end, reverse=reverse)
        left = None if limit is None else check_limit(limit, self._room.key)
        decode = self._room.services.codec.decode
        found: dict[str, Any] = {}
        while keys is not None:
            page, keys = await self._page(unit, keys, PAGE if left is None else min(left, PAGE))
            found.update((key, decode(data)) for key, data in page)
            if left is not None:
                left -= len(page)
                if left <= 0:
                    break
        return found

    @override
    async def scan(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[tuple[str, Any]]:
        keys = self._range(prefix, start, start_after, end, reverse=reverse)
        decode = self._room.services.codec.decode
        while keys is not None:
            page, keys = await self._page(self._unit(), keys, PAGE)
            for key, data in page:
                yield key, decode(data)

    def _range(
        self, prefix: str, start: str | None, start_after: str | None, end: str | None, *, reverse: bool
    ) -> KeyRange | None:
        return key_range(prefix=prefix, start=start, start_after=start_after, end=end, reverse=reverse)

    async def _page(self, unit: Unit, keys: KeyRange, limit: int) -> Page:
        """Give the next entries of a range, some ``limit`` of them, and the range that is left, if any."""
        return await self._room.state.page(keys, limit, reversed(tuple(unit.layers())))

    # --- the whole, and parts of the event -----------------------------------

    @override
    async def delete_all(self) -> None:
        self._unit().layer().delete_all()

    @override
    def transaction(self) -> AbstractAsyncContextManager[None]:
        return _Transaction(self._unit())

    @override
    async def sync(self) -> None:
        await self._room.sync(self._unit())

    # --- alarms --------------------------------------------------------------

    def _name(self, name: object) -> str:
        if name is None:
            return ""
        return check_name(name, self._room.services.limits.key_bytes, self._room.key)

    @override
    async def get_alarm(self, name: str | None = None, /) -> datetime | None:
        row = await self._find_alarm(self._unit(), self._name(name))
        return None if row is None or row.due is None else from_micros(row.due)

    @override
    async def set_alarm(
        self,
        when: datetime | timedelta | Recurrence,
        /,
        *,
        name: str | None = None,
        payload: object = None,
        retry: RetryPolicy | None = None,
        spread: timedelta = timedelta(),
    ) -> None:
        unit = self._unit()
        row_name = self._name(name)
        if not self._room.can_ring():
            message = f"{self._room.key}: the room has no on_alarm, so that an alarm could not ring"
            raise NoHandlerError(message)
        random = self._room.services.random
        ringing = unit.root.ringing
        unit.layer().alarms[row_name] = new_row(
            self._room.key,
            row_name,
            when,
            self._now(),
            number=random.getrandbits(64),
            payload=None if payload is None else self._encode("alarm payload", payload),
            retry=retry,
            spread=spread,
            chance=random.random() if spread else 0.0,
            current=await self._find_alarm(unit, row_name),
            ringing=ringing if ringing is not None and ringing.name == row_name else None,
        )

    @override
    async def delete_alarm(self, name: str | None = None, /) -> None:
        await self.discard_alarm(name)

    async def discard_alarm(self, name: str | None) -> bool:
        """Delete an alarm; say whether there was one."""
        unit = self._unit()
        row_name = self._name(name)
        existed = await self._find_alarm(unit, row_name) is not None
        unit.layer().alarms[row_name] = None
        return existed

    @override
    async def list_alarms(self) -> AlarmInfos:
        rows = await self._all_alarms(self._unit())
        rows.sort(key=lambda row: (row.due is None, row.due, row.name))
        codec = self._room.services.codec
        return [look_at(row, codec) for row in rows]

    @override
    async def ring_alarm(self, name: str | None = None, /) -> bool:
        number = self._room.services.random.getrandbits(64)
        return await self._steer(name, lambda row: ring_again(row, self._now(), number))

    @override
    async def pause_alarm(self, name: str | None = None, /) -> bool:
        return await self._steer(name, pause)

    @override
    async def resume_alarm(self, name: str | None = None, /) -> bool:
        chance = self._room.services.random.random()
        return await self._steer(name, lambda row: resume(row, self._now(), chance))

    async def _steer(self, name: str | None, step: Callable[[AlarmRow], AlarmRow | None]) -> bool:
        """Make a step in an alarm's life; say whether it was one."""
        unit = self._unit()
        row_name = self._name(name)
        row = await self._find_alarm(unit, row_name)
        stepped = None if row is None else step(row)
        if row is None or stepped == row:
            return False
        unit.layer().alarms[row_name] = stepped
        return True

    def _now(self) -> int:
        return to_micros(self._room.services.clock.clock.now())

    async def _find_alarm(self, unit: Unit, name: str) -> AlarmRow | None:
        # Read in any case: an event that changes an alarm is sealed only when all are known.
        table = await self._room.state.alarms()
        for writes in unit.layers():
            if name in writes.alarms:
                return writes.alarms[name]
            if writes.clear:
                return None
        ringing = unit.root.ringing
        if ringing is not None and ringing.name == name:
            return None
        return table.rows.get(name)

    async def _all_alarms(self, unit: Unit) -> Rows:
        found: dict[str, AlarmRow | None] = dict((await self._room.state.alarms()).rows)
        if unit.root.ringing is not None:
            found[unit.root.ringing.name] = None
        for writes in reversed(tuple(unit.layers())):
            if writes.clear:
                found.clear()
            found.update(writes.alarms)
        return [row for row in found.values() if row is not None]


@final
class _Transaction(AbstractAsyncContextManager[None]):
    """A savepoint: a unit inside the event, for the code of one block and of the tasks begun in it."""

    __slots__ = ("_outer", "_token", "_unit")

    def __init__(self, outer: Unit) -> None:
        self._outer = outer
        self._unit: Unit | None = None
        self._token: Token[Unit | None] | None = None

    @override
    async def __aenter__(self) -> None:
        self._unit = Unit(self._outer.place, self._outer)
        self._token = CURRENT.set(self._unit)

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        unit = self._unit
        assert unit is not None
        assert self._token is not None
        CURRENT.reset(self._token)
        unit.open = False
        if exc is None:
            unit.merge_into(self._outer)
