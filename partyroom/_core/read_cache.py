"""What an awake room knows of its stored values, as they are after all its sealed commits.

Owns the known values of one room (:class:`RoomView`), which keys and ranges are known to be absent, and which of all
that the store does not have yet; and how much of it all rooms together may hold (:class:`CacheBudget`).

Promises that what it tells is what the store will say once every sealed commit is durable (G16): what a read brings
never covers what was sealed since the read began, and what is not durable yet is never forgotten. Anything else may be
forgotten at any time, and is then unknown, not absent.

Must never know of the running event, whose writes nobody else may see: ``pages.merge`` lays them over what is told here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, final

from partyroom._core.known_ranges import EVERYTHING, NOTHING, covers, first_gap, first_part, joined
from partyroom._core.pages import Page, behind, rest_of, until
from partyroom.types import KeyRange

__all__ = ["UNKNOWN", "CacheBudget", "RoomView", "Unknown"]

ENTRY_BYTES: Final = 200
"""What a known key costs besides its text and its value: two objects' heads and a place in a dict."""


class Unknown(Enum):
    """The type of :data:`UNKNOWN`."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""What is told of a key of which nothing is known."""

MAX_BOUNDS: Final = 64
"""How many bounds of known ranges are kept: they are not counted as bytes, and each new range copies them."""


@final
class CacheBudget:
    """How many bytes the views of all rooms of a runtime may hold, and who gives way when it is too much.

    ``total_bytes`` is ``Limits.cache_bytes``, ``room_bytes`` is ``Limits.room_cache_bytes``. What is not durable yet
    counts, and is kept all the same: the bounds can be exceeded by that, and by what outstanding reads may need.
    """

    __slots__ = ("_offers", "room_bytes", "total_bytes", "used_bytes")

    def __init__(self, total_bytes: int, room_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.room_bytes = room_bytes
        self.used_bytes = 0
        self._offers: OrderedDict[RoomView, None] = OrderedDict()
        """The views that may have something to give up, the one that has learnt nothing for longest first."""

    def offer(self, view: RoomView) -> None:
        """Hear that a view has something that it could forget, and keep the bound."""
        self._offers[view] = None
        self._offers.move_to_end(view)
        self.keep()

    def keep(self) -> None:
        """Keep the bound: the views that have learnt nothing for longest forget all they can."""
        while self.used_bytes > self.total_bytes and self._offers:
            view, _ = self._offers.popitem(last=False)
            view.forget()

    def leave(self, view: RoomView, size: int) -> None:
        """Hear that a view is gone."""
        self._offers.pop(view, None)
        self.used_bytes -= size


@final
class RoomView:
    """What one room knows of its values. Thrown away (:meth:`close`) when the room sleeps or breaks.

    A sealed commit is told by :meth:`apply`, and by :meth:`confirm` when it is durable. What is unknown is read from
    the store between :meth:`begin_read` and :meth:`end_read`, and learnt in between; meanwhile nothing is forgotten,
    so that what was sealed during the read, and is newer than its answer, is still there to win.
    """

    __slots__ = ("_budget", "_bytes", "_known", "_order", "_reads", "_sealed", "_threshold", "values")

    def __init__(self, budget: CacheBudget) -> None:
        self.values: dict[str, bytes | None] = {}
        """The known keys: their values, or ``None`` for those known to be absent. For looking up only."""
        self._known = NOTHING
        """The ranges in which every key that exists is among ``values``."""
        self._order: list[str] | None = None
        """The known keys in order; ``None`` until it is asked for."""
        self._sealed: dict[int, Collection[str]] | None = None
        """The keys of each commit that is not durable yet, by its number."""
        self._reads = 0
        self._bytes = 0
        self._threshold = budget.room_bytes
        """From how many bytes on it is worth looking for something to forget."""
        self._budget = budget

    # --- what is known -------------------------------------------------------

    def lookup(self, key: str) -> bytes | Unknown | None:
        """Give the value of a key, ``None`` if it is known to be absent, or ``UNKNOWN``."""
        found = self.values.get(key, UNKNOWN)
        return None if found is UNKNOWN and covers(self._known, key) else found

    def first_gap(self, keys: KeyRange) -> KeyRange | None:
        """Give the unknown range with which a range begins, in its own order; ``None`` if it begins with a known one."""
        return first_gap(self._known, keys)

    def page(self, keys: KeyRange, limit: int) -> Page:
        """Give the first entries of a range that begins with a known one, at most ``limit``, and what is left of it."""
        part = first_part(self._known, keys)
        order = self._ordered()
        low = bisect_left(order, part.start)
        high = len(order) if part.end is None else bisect_left(order, part.end)
        rows: list[tuple[str, bytes]] = []
        for place in range(high - 1, low - 1, -1) if keys.reverse else range(low, high):
            key = order[place]
            data = self.values[key]
            if data is None:
                continue
            if len(rows) == limit:
                return Page(rows, behind(keys, rows[-1][0]))
            rows.append((key, data))
        return Page(rows, rest_of(keys, part))

    def _ordered(self) -> list[str]:
        if self._order is None:
            self._order = sorted(self.values)
        return self._order

    # --- what the room does --------------------------------------------------

    def apply(self, number: int, values: Mapping[str, bytes | None], *, clear: bool = False) -> None:
        """Take over what a commit was sealed with: values to set, keys to delete (``None``), or all deleted first.

        ``number`` is higher than any before. ``values`` must not change any more.
        """
        if clear:
            self._drop_all()
            self._known = EVERYTHING
        for key, data in values.items():
            self._store(key, data)
        if self._sealed is None:
            self._sealed = {}
        self._sealed[number] = values
        self._shrink()
        self._budget.keep()

    def confirm(self, number: int) -> None:
        """Hear that a sealed commit is durable, and all before it: the store will tell all of it from now on."""
        if self._sealed is None:
            return
        keys = self._sealed.pop(number, ())
        self._drop_absent(keys)
        if not self._sealed:
            self._sealed = None
            self._threshold = self._budget.room_bytes
        self._offer()

    def _drop_absent(self, keys: Collection[str]) -> None:
        """Leave it to known ranges to tell that keys are absent: a queue would leave a trail, walked by each listing."""
        # A read may be about to bring an old value of such a key, and ranges are forgotten more easily than keys.
        if not self._known or self._reads:
            return
        sealed = self._sealed or {}
        for key in keys:
            if self.values.get(key, UNKNOWN) is not None or not covers(self._known, key):
                continue
            if not any(key in later for later in sealed.values()):
                self._remove(key)

    # --- what the store says -------------------------------------------------

    def begin_read(self) -> None:
        """Forget nothing until :meth:`end_read`: the store is being read."""
        self._reads += 1

    def end_read(self) -> None:
        """End a read, whether it brought something or not."""
        self._reads -= 1
        self._offer()

    def learn(self, key: str, data: bytes | None) -> bytes | None:
        """Take over what the store says of a key (``None``: it is absent), unless newer is known. Give what holds."""
        known = self.lookup(key)
        if known is not UNKNOWN:
            return known
        self._store(key, data)
        return data

    def learn_many(self, keys: Iterable[str], found: Mapping[str, bytes]) -> dict[str, bytes | None]:
        """Take over what the store says of several keys, those that it did not find being absent. Give what holds."""
        return {key: self.learn(key, found.get(key)) for key in keys}

    def learn_range(self, gap: KeyRange, rows: Sequence[tuple[str, bytes]], *, complete: bool) -> None:
        """Take over what the store says of a range, unless newer is known: its first entries, in its order.

        ``complete`` says whether they are all. The beginning of the range is known afterwards.
        """
        for key, data in rows:
            self.learn(key, data)
        told = gap if complete else until(gap, rows[-1][0])
        known = joined(self._known, told)
        self._known = known if len(known) <= MAX_BOUNDS else joined(NOTHING, told)

    # --- what is forgotten ---------------------------------------------------

    def forget(self) -> None:
        """Forget all that the store could tell again; nothing while it is being read."""
        if not self._reads:
            self._shrink_to(0)

    def close(self) -> None:
        """Give everything back to the budget. Reads may end later; what they bring is of no use to anybody."""
        budget = self._budget
        budget.leave(self, self._bytes)
        if self._reads:
            self._budget = CacheBudget(budget.total_bytes, budget.room_bytes)

    def _offer(self) -> None:
        self._shrink()
        self._budget.offer(self)

    def _shrink(self) -> None:
        if self._bytes > self._threshold and not self._reads:
            # A quarter more than needed, and again after growing by a quarter: looking at all keys has to pay.
            self._shrink_to(self._budget.room_bytes * 3 // 4)
            self._threshold = max(self._budget.room_bytes, self._bytes * 5 // 4)

    def _shrink_to(self, size: int) -> None:
        """Forget the oldest keys that the store could tell again."""
        unconfirmed = set[str]().union(*self._sealed.values()) if self._sealed else ()
        for key in [key for key in self.values if key not in unconfirmed]:
            if self._bytes <= size:
                break
            self._grow(-_size(key, self.values.pop(key)))
            # Ranges count on their keys. Nothing known since an unconfirmed deletion of all can be forgotten, nor then
            # is its range.
            self._known = NOTHING
        self._order = None
        # A dict that was large stays large, however little is left in it.
        self.values = dict(self.values)

    def _drop_all(self) -> None:
        self.values = {}
        self._order = None
        self._grow(-self._bytes)

    def _store(self, key: str, data: bytes | None) -> None:
        size = _size(key, data)
        if key in self.values:
            size -= _size(key, self.values[key])
        elif self._order is not None:
            insort(self._order, key)
        self.values[key] = data
        self._grow(size)

    def _remove(self, key: str) -> None:
        self._grow(-_size(key, self.values.pop(key)))
        if self._order is not None:
            del self._order[bisect_left(self._order, key)]

    def _grow(self, size: int) -> None:
        self._bytes += size
        self._budget.used_bytes += size


def _size(key: str, data: bytes | None) -> int:
    return ENTRY_BYTES + len(key) + (0 if data is None else len(data))
