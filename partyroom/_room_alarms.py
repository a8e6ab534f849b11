"""A room's alarms, as its code sets, reads and steers them.

Owns the verbs on alarms that a room's storage has, and what both they and the
verbs on values need: the running event, and the way of a value to bytes.

Promises that what is done to an alarm is part of the event's own writes (G13),
that the ringing one reads as unset (G11), and that an alarm which nobody would
hear is refused at once (G14).

Must never decide when a room is woken: it is told after the commit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from typing_extensions import override

from partyroom._core.alarm_life import look_at, new_row, pause, plain_row, resume, ring_again
from partyroom._core.alarm_table import AlarmTable
from partyroom._core.instants import from_micros, to_micros
from partyroom._core.keys import check_name
from partyroom._core.units import Place, Unit, Writes, unit_of
from partyroom._room_state import RoomState
from partyroom._services import Services
from partyroom.errors import (
    AlarmTimeError,
    DecodeError,
    LimitExceededError,
    NoHandlerError,
    NotStorableError,
)
from partyroom.protocols import AlarmInfos, Room, Storage
from partyroom.recurrence import Recurrence
from partyroom.types import AlarmRow, RetryPolicy

__all__ = ["RoomAlarms", "StorageOwner"]

NO_SPREAD: Final = timedelta()
TIMES: Final = (timedelta, datetime)
"""What says when, but for a recurrence. A tuple, once: a union is made each time, which takes longer than to look."""


class StorageOwner(Place, Protocol):
    """A room as its storage sees it."""

    services: Services
    state: RoomState
    instance: Room | None

    def can_ring(self) -> bool:
        """Say whether the room's class has an ``on_alarm``."""
        ...

    async def sync(self, unit: Unit, /) -> None:
        """Commit what the running event has done so far."""
        ...


class RoomAlarms(Storage):
    """The half of a room's storage that is about alarms; :class:`RoomStorage` is the whole."""

    __slots__ = ("_room",)

    def __init__(self, room: StorageOwner) -> None:
        self._room = room

    def _unit(self) -> Unit:
        return unit_of(self._room, "storage was used")

    def _layer(self, unit: Unit) -> Writes:
        """Give the layer to write to after a read: a task that has outlived its unit meanwhile belongs to what is around it."""
        return (unit if unit.is_live else self._unit()).layer()

    def _encode(self, value: object, name: str, what: str = "") -> bytes:
        """Give the bytes of a value; ``what`` and ``name`` say in errors which."""
        services = self._room.services
        try:
            data = services.codec.encode(value)
        except NotStorableError as error:
            raise NotStorableError(f"{self._room.key} {what}{name!r}", error.path, error.reason) from None
        # A store may take a text and refuse to give it back.
        if type(data) is not bytes:
            reason = f"is {type(data).__name__} from the codec, not bytes"
            raise NotStorableError(f"{self._room.key} {what}{name!r}", "value", reason)
        limit = services.limits.value_bytes
        if len(data) > limit:
            raise LimitExceededError("value_bytes", len(data), limit, f"{self._room.key} {what}{name!r}")
        return data

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
        spread: timedelta = NO_SPREAD,
    ) -> None:
        unit = self._unit()
        row_name = self._name(name)
        room = self._room
        if not room.can_ring():
            message = f"{room.key}: the room has no on_alarm, so that an alarm could not ring"
            raise NoHandlerError(message)
        room_policy = getattr(room.instance, "alarm_retry", None)
        # As nearly all are, and those that are moved with every event.
        is_plain = retry is None and spread is NO_SPREAD and room_policy is Room.alarm_retry
        if not is_plain:
            self._check_policies(row_name, retry, room_policy, spread)
        encoded = None if payload is None else self._encode(payload, row_name, "payload of alarm ")
        now = to_micros(room.services.clock.clock.now())
        # Read in any case: an event that changes an alarm is sealed only when all are known.
        table = room.state.known_alarms or await room.state.alarms()
        row: AlarmRow | None
        try:
            if is_plain and isinstance(when, TIMES):
                row = plain_row(room.key, row_name, when, now, room.services.random.getrandbits(64), encoded)
            else:
                row = self._new_row(unit, table, row_name, when, now, encoded, retry, spread)
        except AlarmTimeError as error:
            message = f"{self._alarm(row_name)}: {error}"
            raise AlarmTimeError(message) from None
        if row is not None:
            self._layer(unit).alarms[row_name] = row

    def _new_row(  # noqa: PLR0917 - all that an alarm is set with
        self,
        unit: Unit,
        table: AlarmTable,
        name: str,
        when: object,
        now: int,
        payload: bytes | None,
        retry: RetryPolicy | None,
        spread: timedelta,
    ) -> AlarmRow | None:
        """Give the row of an alarm with a policy, which may go on with what stands; ``None`` if that stays as it is."""
        random, ringing = self._room.services.random, unit.root.ringing
        current = _look_up(table, unit, name)
        row = new_row(
            self._room.key,
            name,
            when,
            now,
            number=random.getrandbits(64),
            payload=payload,
            retry=retry,
            spread=spread,
            chance=random.random() if spread else 0.0,
            current=current,
            ringing=ringing if ringing is not None and ringing.name == name else None,
        )
        return None if row == current else row

    def _check_policies(self, name: str, retry: object, room_policy: object, spread: object) -> None:
        """Refuse what is no policy, now rather than when the alarm has rung."""
        for policy, what in ((retry, "retry"), (room_policy, "the room's alarm_retry")):
            if policy is not None and not isinstance(policy, RetryPolicy):
                message = f"{self._alarm(name)}: {what} must be a RetryPolicy, not {type(policy).__name__}"
                raise TypeError(message)
        if not isinstance(spread, timedelta) or spread < timedelta():
            message = f"{self._alarm(name)}: spread must be a timedelta, and not negative, not {spread!r}"
            raise AlarmTimeError(message)

    def _alarm(self, name: str) -> str:
        """Say which alarm, for errors."""
        return f"{self._room.key} alarm {name!r}" if name else f"{self._room.key} alarm"

    @override
    async def delete_alarm(self, name: str | None = None, /) -> None:
        await self.discard_alarm(name)

    async def discard_alarm(self, name: str | None) -> bool:
        """Delete an alarm; say whether there was one."""
        unit = self._unit()
        row_name = self._name(name)
        existed = await self._find_alarm(unit, row_name) is not None
        ringing = unit.root.ringing
        if existed or (ringing is not None and ringing.name == row_name):
            self._layer(unit).alarms[row_name] = None
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
        random = self._room.services.random
        number, chance = random.getrandbits(64), random.random()
        return await self._steer(name, lambda row: resume(row, self._now(), number, chance))

    async def _steer(self, name: str | None, step: Callable[[AlarmRow], AlarmRow | None]) -> bool:
        """Make a step in an alarm's life; say whether it was one."""
        unit = self._unit()
        row_name = self._name(name)
        row = await self._find_alarm(unit, row_name)
        if row is None:
            return False
        try:
            stepped = step(row)
        except DecodeError as error:
            message = f"{self._alarm(row_name)}: {error}"
            raise DecodeError(message) from error
        if stepped == row:
            return False
        self._layer(unit).alarms[row_name] = stepped
        return True

    def _now(self) -> int:
        return to_micros(self._room.services.clock.clock.now())

    async def _find_alarm(self, unit: Unit, name: str) -> AlarmRow | None:
        return _look_up(await self._room.state.alarms(), unit, name)

    async def _all_alarms(self, unit: Unit) -> list[AlarmRow]:
        found: dict[str, AlarmRow | None] = dict((await self._room.state.alarms()).rows)
        if unit.root.ringing is not None:
            found[unit.root.ringing.name] = None
        for writes in reversed(tuple(unit.layers())):
            if writes.clear:
                found.clear()
            found.update(writes.alarms)
        return [row for row in found.values() if row is not None]


def _look_up(table: AlarmTable, unit: Unit, name: str) -> AlarmRow | None:
    """Give an alarm as the code of ``unit`` sees it: its own layers over what is stored, the ringing one unset (G11)."""
    for writes in unit.layers():
        if name in writes.alarms:
            return writes.alarms[name]
        if writes.clear:
            return None
    ringing = unit.root.ringing
    return None if ringing is not None and ringing.name == name else table.rows.get(name)
