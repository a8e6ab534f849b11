"""A store in memory: for tests, and for rooms that need not outlive their process.

Owns the values, the alarms and the claims of all rooms, as dictionaries. The
orders that listings need (keys of a room, rooms of a party, alarms by due time)
are sorted when somebody asks for them, and kept in order from then on.

Promises what every backend promises, "durable" meaning that the data stays as
long as the object does: one that was left and is entered again shows what was
committed. No method ever suspends, so nothing here can be cancelled halfway.

Must never hand out, or keep, anything that a caller could change.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, final

import attrs
from typing_extensions import override

from partyroom.errors import BackendClosedError, BackendError, CommitError, FencedError
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["MemoryBackend"]

FEW: Final = 64
"""Up to so many changes are put into a sorted list one by one: each moves memory, which costs about a hundredth of sorting anew."""


class _Ordered(Protocol):
    """What can be sorted."""

    def __lt__(self, other: Any, /) -> bool:  # noqa: ANN401 - as the standard library has it
        ...


T = TypeVar("T", bound=_Ordered)


@final
class _Sorted(Generic[T]):
    """The order of some entries that are kept elsewhere, each of them once.

    Nothing is held until the order is asked for; later changes gather until it is asked for again. An entry that comes
    and goes in between leaves nothing behind, and once more has changed than there was, nothing is held any more.
    """

    __slots__ = ("_entries", "_gone", "_new", "_order")

    def __init__(self, entries: Callable[[], Iterable[T]]) -> None:
        self._entries = entries
        self._order: list[T] | None = None
        self._new: set[T] = set()
        self._gone: set[T] = set()

    def add(self, entry: T) -> None:
        """Hear of an entry that was not there."""
        if self._order is None:
            return
        if entry in self._gone:
            self._gone.remove(entry)
        else:
            self._new.add(entry)
            self._bound()

    def remove(self, entry: T) -> None:
        """Hear that an entry is not there any more."""
        if self._order is None:
            return
        if entry in self._new:
            self._new.remove(entry)
        else:
            self._gone.add(entry)
            self._bound()

    def _bound(self) -> None:
        """Give up an order of which little is left: from here on changes cost nothing, and sorting anew no more than now."""
        assert self._order is not None
        if len(self._new) + len(self._gone) > len(self._order) + FEW:
            self._order = None
            self._new.clear()
            self._gone.clear()

    def between(self, low: T, high: T | None, limit: int, *, reverse: bool = False) -> list[T]:
        """Give the first ``limit`` entries ``e`` with ``low <= e < high``, counted from the end with ``reverse``."""
        order = self._settle()
        first = bisect_left(order, low)
        last = len(order) if high is None else max(first, bisect_left(order, high))
        if reverse:
            return order[max(first, last - limit) : last][::-1]
        return order[first : min(last, first + limit)]

    def _settle(self) -> list[T]:
        order, new, gone = self._order, self._new, self._gone
        if order is None:
            order = self._order = sorted(self._entries())
        elif len(new) + len(gone) <= FEW:
            for entry in gone:
                del order[bisect_left(order, entry)]
            for entry in new:
                insort(order, entry)
        else:
            order[:] = [entry for entry in order if entry not in gone]
            order.extend(new)
            order.sort()
        new.clear()
        gone.clear()
        return order


@final
@attrs.define(eq=False)
class _StoredRoom:
    """What is stored of one room."""

    values: dict[str, bytes] = attrs.field(factory=dict[str, bytes])
    alarms: dict[str, AlarmRow] = attrs.field(factory=dict[str, AlarmRow])
    keys: _Sorted[str] | None = None
    """The order of the keys, once somebody has listed them."""


@final
class MemoryBackend(StorageBackend):
    """Keeps rooms in memory, for as long as this object lives: leaving and entering it again loses nothing.

    The fastest there is, and not durable: what a process must not lose belongs into a ``FileBackend``.
    """

    def __init__(self) -> None:
        self._open = False
        self._rooms: dict[RoomKey, _StoredRoom] = {}
        self._claims: dict[RoomKey, int] = {}
        self._fences = count(1)
        self._by_id: _Sorted[tuple[str, ...]] = _Sorted(self._rooms.keys)
        self._by_due: _Sorted[tuple[Any, ...]] = _Sorted(self._due_entries)
        self._parked: _Sorted[tuple[str, ...]] = _Sorted(self._parked_entries)

    @override
    async def __aenter__(self) -> Self:
        if self._open:
            message = "this MemoryBackend is open already: a store belongs to one runtime at a time"
            raise BackendError(message)
        self._open = True
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self._open = False
        self._claims.clear()

    # --- one room ------------------------------------------------------------

    @override
    async def claim(self, room: RoomKey, /) -> int:
        self._check_open()
        fence = self._claims[room] = next(self._fences)
        return fence

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        self._check_open()
        stored = self._rooms.get(room)
        if stored is None:
            return {}
        values = stored.values
        return {key: values[key] for key in keys if key in values}

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        self._check_open()
        stored = self._rooms.get(room)
        if stored is None:
            return []
        values = stored.values
        if stored.keys is None:
            stored.keys = _Sorted(values.keys)
        return [(key, values[key]) for key in stored.keys.between(keys.start, keys.end, limit, reverse=keys.reverse)]

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        self._check_open()
        stored = self._rooms.get(room)
        return [] if stored is None else [stored.alarms[name] for name in sorted(stored.alarms)]

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        self._check_open()
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> CommitError | None:
        room = commit.room
        if self._claims.get(room) != commit.fence:
            return FencedError(f"{room}: fence {commit.fence} is not the room's claim; nothing of the commit is stored")
        if commit.release:
            del self._claims[room]
            if not self._claims:
                # A dict that was large stays large, however little is left in it.
                self._claims = {}
        if not (commit.clear or commit.values or commit.alarms):
            return None
        stored = self._rooms.get(room)
        if stored is None:
            stored = self._rooms[room] = _StoredRoom()
            self._by_id.add(room)
        if commit.clear:
            self._clear(stored)
        if commit.values:
            _put(stored, commit.values)
        for name, row in commit.alarms.items():
            self._set_alarm(room, stored.alarms, name, row)
        if not stored.values and not stored.alarms:
            del self._rooms[room]
            self._by_id.remove(room)
        return None

    def _clear(self, stored: _StoredRoom) -> None:
        stored.values.clear()
        stored.keys = None
        for row in stored.alarms.values():
            self._forget_alarm(row)
        stored.alarms.clear()

    def _set_alarm(self, room: RoomKey, alarms: dict[str, AlarmRow], name: str, row: AlarmRow | None) -> None:
        old = alarms.pop(name, None)
        if old is not None:
            self._forget_alarm(old)
        if row is None:
            return
        alarms[name] = row
        if row.due is None:
            self._parked.add((*room, name))
        else:
            self._by_due.add((row.due, room, name))

    def _forget_alarm(self, row: AlarmRow) -> None:
        if row.due is None:
            self._parked.remove((*row.room, row.name))
        else:
            self._by_due.remove((row.due, row.room, row.name))

    # --- all rooms -----------------------------------------------------------

    # The first text behind another is that text with a NUL behind it: so an exclusive place becomes an inclusive one.

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        self._check_open()
        low = () if after is None else (after.due, after.room, after.name + "\0")
        high = None if before is None else (before,)
        return [self._rooms[room].alarms[name] for _, room, name in self._by_due.between(low, high, limit)]

    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        self._check_open()
        low = (party,) if after is None else (party, after[0], after[1] + "\0")
        found = self._parked.between(low, (party + "\0",), limit)
        return [self._rooms[RoomKey(party, room_id)].alarms[name] for _, room_id, name in found]

    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        self._check_open()
        high = (party + "\0",) if ids.end is None else (party, ids.end)
        return [room_id for _, room_id in self._by_id.between((party, ids.start), high, limit, reverse=ids.reverse)]

    # --- inside --------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._open:
            message = "this MemoryBackend is not open: use it inside its `async with`"
            raise BackendClosedError(message)

    def _rows(self) -> Iterator[AlarmRow]:
        for stored in self._rooms.values():
            yield from stored.alarms.values()

    def _due_entries(self) -> Iterator[tuple[Any, ...]]:
        return ((row.due, row.room, row.name) for row in self._rows() if row.due is not None)

    def _parked_entries(self) -> Iterator[tuple[str, ...]]:
        return ((*row.room, row.name) for row in self._rows() if row.due is None)


def _put(stored: _StoredRoom, changes: Mapping[str, bytes | None]) -> None:
    values, order = stored.values, stored.keys
    for key, value in changes.items():
        if value is None:
            if values.pop(key, None) is not None and order is not None:
                order.remove(key)
        else:
            if order is not None and key not in values:
                order.add(key)
            values[key] = value
