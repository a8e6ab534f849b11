"""The alarms of one awake room, as they will be when all its sealed commits are stored.

Owns the rows by name, and which of them is due first.

Promises that the first due row is found without looking at all of them, also in
a room of ten thousand alarms that ring one after the other, and that an alarm
which is moved again and again costs no memory.

Must never know what a row's data says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, final

from partyroom.types import AlarmRow

__all__ = ["AlarmTable"]

SPARE: Final = 64
"""So many places of moved and deleted alarms, more than there are alarms, are never worth cleaning."""
FEW: Final = 4
"""Up to so many alarms are looked at one by one; nearly all rooms have one."""


@final
class AlarmTable:
    """Alarm rows by name, ``""`` for the one without a name."""

    __slots__ = ("_order", "rows")

    def __init__(self, rows: Iterable[AlarmRow] = ()) -> None:
        self.rows: dict[str, AlarmRow] = {row.name: row for row in rows}
        self._order: list[tuple[int, str]] | None = None
        """A heap of due times and names, if there are more than a few; places that an alarm has left are dropped when
        they come to the front."""
        if len(self.rows) > FEW:
            self._sort()

    def first(self) -> AlarmRow | None:
        """Give the row that is due first, by due time and then name; ``None`` if none is due ever."""
        if self._order is not None:
            return self._first_in(self._order)
        first: AlarmRow | None = None
        due = 0
        for row in self.rows.values():
            if row.due is None:
                continue
            if first is None or row.due < due or (row.due == due and row.name < first.name):
                first, due = row, row.due
        return first

    def _first_in(self, order: list[tuple[int, str]]) -> AlarmRow | None:
        while order:
            due, name = order[0]
            row = self.rows.get(name)
            if row is not None and row.due == due:
                return row
            heappop(order)
        return None

    def apply(self, changes: Mapping[str, AlarmRow | None]) -> None:
        """Take in what a sealed event sets, and deletes (``None``)."""
        for name, row in changes.items():
            if row is None:
                self.rows.pop(name, None)
                continue
            self.rows[name] = row
            if self._order is not None and row.due is not None:
                heappush(self._order, (row.due, name))
        size = len(self.rows)
        if size <= FEW:
            self._order = None
        elif self._order is None or len(self._order) > 2 * size + SPARE:
            self._sort()

    def _sort(self) -> None:
        self._order = [(row.due, row.name) for row in self.rows.values() if row.due is not None]
        heapify(self._order)
