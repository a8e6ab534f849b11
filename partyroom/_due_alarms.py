"""Which alarms are due, as the backend has them: of all parties that are there.

Owns the way through the backend's index of due alarms, page by page.

Promises that alarms come in due order, and that those of a party which is not
registered wait, are told in the log once, and hide no others (G14).

Must never ring anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from logging import Logger
from typing import final

from partyroom._core.instants import EPOCH, from_micros, to_micros
from partyroom._log import about
from partyroom.protocols import Clock, StorageBackend, Upcoming
from partyroom.types import AlarmCursor, AlarmRow

__all__ = ["DueAlarms"]


@final
class DueAlarms:
    """The alarms that are due next. ``page`` is how many are read at a time where all are wanted."""

    def __init__(self, backend: StorageBackend, parties: Collection[str], clock: Clock, log: Logger, page: int) -> None:
        self._backend = backend
        self._parties = parties
        self._clock = clock
        self._log = log
        self._page = page
        self._told: set[str] = set()

    async def rows(
        self, before: int | None, cursor: AlarmCursor | None, limit: int, *, party: str | None = None
    ) -> list[AlarmRow]:
        """Read the next alarms of one party, or of all that there are."""
        found: list[AlarmRow] = []
        while len(found) < limit:
            rows = await self._backend.due_alarms(before, cursor, limit)
            for row in rows:
                if row.room.party not in self._parties:
                    self._tell(row)
                elif party is None or row.room.party == party:
                    found.append(row)
            if len(rows) < limit:
                break
            cursor = _behind(rows[-1])
        return found[:limit]

    async def all_rows(self, before: int | None) -> list[AlarmRow]:
        """Read all alarms that are due before a time."""
        found: list[AlarmRow] = []
        cursor: AlarmCursor | None = None
        while True:
            rows = await self.rows(before, cursor, self._page)
            found.extend(rows)
            if len(rows) < self._page:
                return found
            cursor = _behind(rows[-1])

    async def due_now(self, limit: int | None) -> list[AlarmRow]:
        """Read what is due now, to its end: what is armed again meanwhile is not part of this."""
        before = to_micros(self._clock.now()) + 1
        return await self.all_rows(before) if limit is None else await self.rows(before, None, limit)

    async def upcoming(self, after: Upcoming | None, limit: int) -> Sequence[Upcoming]:
        """Read what a scheduler looks ahead to."""
        cursor = None if after is None else AlarmCursor(to_micros(after.due), after.room, after.name)
        found: list[Upcoming] = []
        due, when = None, EPOCH
        for row in await self.rows(None, cursor, limit):
            assert row.due is not None
            if row.due != due:
                # Once for all that are due at one instant, which may be thousands.
                due, when = row.due, from_micros(row.due)
            found.append(Upcoming(when, row.room, row.name))
        return found

    async def next_time(self) -> datetime | None:
        """Give when the next alarm is due."""
        upcoming = await self.upcoming(None, 1)
        return upcoming[0].due if upcoming else None

    def _tell(self, row: AlarmRow) -> None:
        party = row.room.party
        if party not in self._told:
            self._told.add(party)
            self._log.warning(
                "alarms of the party %r wait: it is not registered", party, extra=about(row.room, "on_alarm")
            )


def _behind(row: AlarmRow) -> AlarmCursor:
    assert row.due is not None
    return AlarmCursor(row.due, row.room, row.name)
