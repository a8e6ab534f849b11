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

import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar, final

from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.key_orders import KeyOrders
from partyroom._core.keys import check_key, check_limit, key_range
from partyroom._core.page_size import PageSize
from partyroom._core.read_cache import UNKNOWN, Unknown
from partyroom._core.units import CURRENT, Event, Unit
from partyroom._room_alarms import RoomAlarms, StorageOwner
from partyroom._room_listing import Listing, Scan
from partyroom.errors import (
    DecodeError,
    InvalidKeyError,
    OutsideEventError,
)
from partyroom.types import KeyRange

__all__ = ["RoomStorage"]

T = TypeVar("T")

PAGE: Final = 1000
"""After how many values that were asked for by key others have a turn: a page of small ones takes a few milliseconds."""


@final
class RoomStorage(RoomAlarms):
    """One room's storage."""

    __slots__ = ("_orders",)

    def __init__(self, room: StorageOwner) -> None:
        super().__init__(room)
        self._orders: KeyOrders | None = None

    @override
    def __repr__(self) -> str:
        return f"<storage of {self._room.key}>"

    def _key(self, key: object) -> str:
        return check_key(key, self._room.services.limits.key_bytes, self._room.key)

    def _keys(self, keys: Iterable[str]) -> builtins.list[str]:
        """Give several keys in order, each once."""
        if isinstance(keys, str | bytes):
            message = f"{self._room.key}: keys must be several, not the one {type(keys).__name__} {keys!r:.60}"
            raise InvalidKeyError(message)
        return sorted({self._key(key) for key in keys})

    # --- one value -----------------------------------------------------------

    @override
    async def get(self, key: str, /, default: Any = None) -> Any:
        unit = self._unit()
        key = self._key(key)
        data = await self._find(unit, key)
        return default if data is None else self._decode(key, data)

    @override
    async def put(self, key: str, value: object, /) -> None:
        unit = self._unit()
        key = self._key(key)
        unit.layer().values[key] = self._encode(value, key)

    @override
    async def delete(self, key: str, /) -> bool:
        unit = self._unit()
        key = self._key(key)
        if await self._find(unit, key) is None:
            return False
        self._layer(unit).values[key] = None
        return True

    def _decode(self, key: str, data: bytes) -> Any:  # noqa: ANN401 - an author's own value
        try:
            return self._room.services.codec.decode(data)
        except DecodeError as error:
            message = f"{self._room.key} {key!r}: {error}"
            raise DecodeError(message) from error

    async def _find(self, unit: Unit, key: str) -> bytes | None:
        data = self._known(unit, key)
        if data is not UNKNOWN:
            return data
        return self._newest(unit, key, (await self._room.state.read((key,)))[key])

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

    def _newest(self, unit: Unit, key: str, read: T | None) -> bytes | T | None:
        """Give what holds after a read, during which other branches of the event may have written."""
        # What a unit wrote that has ended may have been dropped.
        data = self._known(unit, key) if unit.is_live else UNKNOWN
        return read if data is UNKNOWN else data

    # --- several values ------------------------------------------------------

    @override
    async def get_many(self, keys: Iterable[str], /) -> dict[str, Any]:
        left = self._keys(keys)
        found: dict[str, Any] = {}
        while left:
            found.update((key, self._decode(key, data)) for key, data in await self._find_many(left[:PAGE]))
            left = left[PAGE:]
            if left:
                await checkpoint()
        return found

    @override
    async def put_many(self, values: Mapping[str, object], /) -> None:
        unit = self._unit()
        self._check_mapping(values)
        encoded: dict[str, bytes] = {}
        for key, value in values.items():
            checked = self._key(key)
            encoded[checked] = self._encode(value, checked)
        unit.layer().values.update(encoded)

    def _check_mapping(self, values: object) -> None:
        if not isinstance(values, Mapping):
            message = f"{self._room.key}: put_many takes a mapping of keys to values, not {type(values).__name__}"
            raise InvalidKeyError(message)

    @override
    async def delete_many(self, keys: Iterable[str], /) -> int:
        wanted = self._keys(keys)
        # The store tells that a value is there by giving it: so not all of them at once.
        size = PageSize()
        gone: builtins.list[str] = []
        start = 0
        while start < len(wanted):
            found = await self._find_many(wanted[start : start + size.entries])
            gone += [key for key, _ in found]
            start += size.entries
            size.learn(found)
            if start < len(wanted):
                await checkpoint()
        unit = self._unit()
        # Of the first pages, others may have deleted some since.
        gone = [key for key in gone if self._known(unit, key) is not None]
        unit.layer().values.update(dict.fromkeys(gone))
        return len(gone)

    async def _find_many(self, keys: builtins.list[str]) -> builtins.list[tuple[str, bytes]]:
        """Give those of several keys that exist, with their bytes."""
        unit = self._unit()
        found = {key: self._known(unit, key) for key in keys}
        unknown = [key for key, data in found.items() if data is UNKNOWN]
        if unknown:
            found |= await self._room.state.read(unknown)
            found = {key: self._newest(unit, key, data) for key, data in found.items()}
        return [(key, data) for key, data in found.items() if data is not None and data is not UNKNOWN]

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
        self._unit()
        keys = self._range(prefix, start, start_after, end, reverse=reverse)
        left = None if limit is None else check_limit(limit, self._room.key)
        listing = Listing(self._unit, self._room.state, self._key_orders(), keys, left)
        found: dict[str, Any] = {}
        while listing.left is not None and left != 0:
            rows = [(key, data) for key, data in await listing.next_page() if data is not None][:left]
            found.update((key, self._decode(key, data)) for key, data in rows)
            left = None if left is None else left - len(rows)
        return found

    @override
    def scan(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[tuple[str, Any]]:
        unit = self._unit()
        keys = self._range(prefix, start, start_after, end, reverse=reverse)
        same_event = partial(self._unit_of, unit.root)
        return Scan(same_event, self._room.state, self._key_orders(), keys, self._decode)

    def _key_orders(self) -> KeyOrders:
        if self._orders is None:
            self._orders = KeyOrders()
        return self._orders

    def _unit_of(self, root: Event) -> Unit:
        unit = self._unit()
        if unit.root is not root:
            message = f"{self._room.key}: a scan ends with the event in which it began"
            raise OutsideEventError(message)
        return unit

    def _range(
        self, prefix: str, start: str | None, start_after: str | None, end: str | None, *, reverse: bool
    ) -> KeyRange | None:
        return key_range(
            prefix=prefix, start=start, start_after=start_after, end=end, reverse=reverse, where=self._room.key
        )

    # --- the whole, and parts of the event -----------------------------------

    @override
    async def delete_all(self) -> None:
        self._unit().layer().delete_all()

    @override
    def transaction(self) -> AbstractAsyncContextManager[None]:
        return _Transaction(self._unit)

    @override
    async def sync(self) -> None:
        await self._room.sync(self._unit())


@final
class _Transaction(AbstractAsyncContextManager[None]):
    """A savepoint: a unit inside the event, for the code of one block and of the tasks begun in it."""

    __slots__ = ("_current", "_token", "_unit")

    def __init__(self, unit: Callable[[], Unit]) -> None:
        self._current = unit
        self._unit: Unit | None = None
        self._token: Token[Unit | None] | None = None

    @override
    async def __aenter__(self) -> None:
        outer = self._current()
        if self._unit is not None:
            message = f"{outer.place.key}: this transaction was entered before; storage.transaction() gives another"
            raise RuntimeError(message)
        self._unit = Unit(outer.place, outer)
        self._token = CURRENT.set(self._unit)

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        unit = self._unit
        assert unit is not None
        assert self._token is not None
        try:
            CURRENT.reset(self._token)
        except ValueError:
            # Another task closes it than began it: of a generator that nobody has closed, the loop does so. The task that
            # began it writes into it still, and is told at its event's end.
            if exc is not None:
                return
            message = f"{unit.place.key}: a transaction is left by the task that entered it"
            raise RuntimeError(message) from None
        unit.open = False
        if exc is None:
            assert unit.parent is not None
            unit.merge_into(unit.parent)
