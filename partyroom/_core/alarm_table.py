"""The alarms of one awake room, as they will be when all its sealed commits are stored.

Owns the rows by name, and which of them is due first.

Promises that the first due row is found without looking at all of them, unless
the first one itself was moved or deleted.

Must never know what a row's data says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from partyroom.types import AlarmRow

__all__ = ["AlarmTable"]


@final
class AlarmTable:
    """Alarm rows by name, ``""`` for the one without a name."""

    __slots__ = ("_first", "_known", "rows")

    def __init__(self, rows: Iterable[AlarmRow] = ()) -> None:
        self.rows: dict[str, AlarmRow] = {row.name: row for row in rows}
        self._first: AlarmRow | None = None
        self._known = False

    def first(self) -> AlarmRow | None:
        """Give the row that is due first, by due time and then name; ``None`` if none is due ever."""
        if not self._known:
            due = [(row.due, row.name) for row in self.rows.values() if row.due is not None]
            self._first = self.rows[min(due)[1]] if due else None
            self._known = True
        return self._first

    def apply(self, changes: Mapping[str, AlarmRow | None]) -> None:
        """Take in what a sealed event sets, and deletes (``None``)."""
        for name, row in changes.items():
            self._change(name, row)

    def _change(self, name: str, row: AlarmRow | None) -> None:
        if self._first is not None and self._first.name == name:
            self._first, self._known = None, False
        if row is None:
            self.rows.pop(name, None)
            return
        self.rows[name] = row
        if row.due is None or not self._known:
            return
        first = self._first
        if first is None or first.due is None or (row.due, row.name) < (first.due, first.name):
            self._first = row
