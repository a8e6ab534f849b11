"""One listing of a room's values, page by page: the event's own layers, over what is known, over what is stored.

Owns the place that a listing has reached, and how much it reads at a time.

Promises G16 and G17: entries come in order, each once, and as they are when
they are given, whatever the event writes meanwhile; that a large room never
holds the loop for more than some milliseconds; and that memory is bounded by a
page, or by one value where that is larger.

Must never outlive the event in which it began.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, final

from anyio import Event
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.key_orders import KeyOrders
from partyroom._core.page_size import PageSize
from partyroom._core.pages import Page, behind, merge
from partyroom._core.units import Unit
from partyroom._room_state import RoomState
from partyroom.types import KeyRange

__all__ = ["Listing", "Scan"]

TURN: Final = 256
"""After how many entries others have a turn: decoding them takes a millisecond, or two."""
NOTHING: Final = Page((), None)


@final
class Listing:
    """The entries of a range, a page at a time.

    ``unit`` gives the unit of the running code, or raises; ``orders`` is what the room remembers of one event's keys.
    ``wanted`` says how many entries are needed, if that is known.
    """

    __slots__ = ("_given", "_orders", "_read", "_state", "_take", "_unit", "left")

    def __init__(
        self,
        unit: Callable[[], Unit],
        state: RoomState,
        orders: KeyOrders,
        keys: KeyRange | None,
        wanted: int | None = None,
    ) -> None:
        self._unit = unit
        self._state = state
        self._orders = orders
        self._read = PageSize(wanted)
        self._take = self._read.entries
        self._given = 0
        self.left = keys
        """What is left of the range; ``None`` for nothing."""

    async def next_page(self) -> Sequence[tuple[str, bytes | None]]:
        """Give the next entries, with ``None`` for keys that the event has deleted; none if nothing is left."""
        if self.left is None:
            return ()
        if self._given >= TURN:
            self._given = 0
            await checkpoint()
        below = NOTHING
        if not _is_cleared(self._unit()):
            below = await self._state.page(self.left, self._take, self._read.entries)
        # Looked at only now: what other branches of the event have written during the read is newer than its answer.
        rows, self.left = self._lay_over(self.left, below, self._unit())
        self._given += len(rows)
        self._read.learn(rows)
        self._take = self._read.entries
        return rows

    def _lay_over(self, keys: KeyRange, below: Page, unit: Unit) -> Page:
        layers: list[dict[str, bytes | None]] = []
        for writes in unit.layers():
            layers.insert(0, writes.values)
            if writes.clear:
                below = NOTHING
                break
        if not layers:
            return below
        return merge(keys, below, list(zip(layers, self._orders.of(layers), strict=True)), self._take)

    def go_on_with(self, keys: KeyRange) -> None:
        """Give ``keys`` next, an entry at first: what was given of them is not true any more, and soon may be so again."""
        self.left = keys
        self._take = 1


def _is_cleared(unit: Unit) -> bool:
    return any(writes.clear for writes in unit.layers())


@final
class Scan(AsyncIterator[tuple[str, Any]]):
    """Iterates over a range, an entry at a time.

    A class, and no generator: whoever leaves its loop early need not close it, and tasks may share one.
    """

    __slots__ = ("_decode", "_left", "_listing", "_page", "_reading", "_seen", "_unit")

    def __init__(
        self,
        unit: Callable[[], Unit],
        state: RoomState,
        orders: KeyOrders,
        keys: KeyRange | None,
        decode: Callable[[str, bytes], Any],
    ) -> None:
        self._unit = unit
        self._decode = decode
        self._listing = Listing(unit, state, orders, keys)
        self._left = keys
        """What has not been given yet."""
        self._page: deque[tuple[str, bytes | None]] = deque()
        self._seen: Sequence[tuple[int, int, object]] | None = None
        """What the layers' keys were when the page was read."""
        self._reading: Event | None = None
        """Set when the page that is being read has come, or has failed."""

    @override
    async def __anext__(self) -> tuple[str, Any]:
        while self._left is not None:
            unit = self._unit()
            if self._seen is not None and self._seen != _keys_of(unit):
                # Keys have come since, perhaps behind the last one of the page.
                self._page.clear()
                self._listing.go_on_with(self._left)
            entry = self._next_of_page(unit, self._left)
            if entry is not None:
                return entry
            await self._read_on()
        raise StopAsyncIteration

    async def _read_on(self) -> None:
        """Read the next page. What another task of the event reads is waited for instead: a page read twice is given twice."""
        if self._reading is not None:
            await self._reading.wait()
            return
        self._reading = reading = Event()
        try:
            self._left = self._listing.left
            self._page.extend(await self._listing.next_page())
            self._seen = _keys_of(self._unit())
        finally:
            self._reading = None
            reading.set()

    def _next_of_page(self, unit: Unit, left: KeyRange) -> tuple[str, Any] | None:
        while self._page:
            key, data = self._page.popleft()
            self._left = behind(left, key)
            data = _newest(unit, key, data)
            if data is not None:
                return key, self._decode(key, data)
        return None


def _newest(unit: Unit, key: str, data: bytes | None) -> bytes | None:
    for writes in unit.layers():
        if key in writes.values:
            return writes.values[key]
    return data


def _keys_of(unit: Unit) -> Sequence[tuple[int, int, object]]:
    """Give what differs whenever the keys of an event's layers do: none of them ever loses one, but by being replaced."""
    # By their ids first: what replaces them when all is deleted may soon be equal to them. Held, so that no id is taken.
    return [(id(writes.values), len(writes.values), writes.values) for writes in unit.layers()]
