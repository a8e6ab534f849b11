"""What a host is told that looks into a runtime: its figures at one moment, and why a room is awake.

Owns these values, which are frozen, and how they read as text.

Promises nothing about the next moment.

Must never count by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import attrs

from partyroom.types import RoomKey

__all__ = ["PartyStatistics", "Statistics", "StoredStatistics", "WhyAwake"]


@attrs.frozen(kw_only=True)
class PartyStatistics:
    """The figures of one party at one moment of a runtime's life."""

    awake: int
    """Rooms in memory."""
    waking: int
    """Those of them whose ``on_start`` has not ended (G2)."""
    hibernating: int
    """Rooms that sleep while clients are connected to them (G20)."""
    clients: int
    """Clients that are connected, to either."""


@attrs.frozen(kw_only=True)
class Statistics:
    """The figures of one moment in a runtime's life: of what is in memory."""

    awake: int
    """Rooms in memory."""
    waking: int
    """Those of them whose ``on_start`` has not ended (G2)."""
    busy: int
    """Those of them in which an event waits or runs."""
    idle: int
    """Those of them that will sleep when they have been idle for long enough."""
    running: int
    """Events that have left a mailbox and not ended; what is nested in one is part of it."""
    waiting: int
    """Events that wait in a mailbox, or for a place in it."""
    commits: int
    """Commits that the backend was asked for since the runtime was entered, again or not; what waits of one room goes as one."""
    groups: int
    """In how many calls."""
    parties: Mapping[str, PartyStatistics]
    """The same by party."""


@attrs.frozen(kw_only=True)
class StoredStatistics:
    """What is stored of one party, at one moment."""

    rooms: int
    """Rooms that have something stored."""
    asleep: int
    """Those of them that are not in memory."""
    due: int
    """Alarms that wait for their time, or for their next retry."""
    late: int
    """Those of them whose time has come, and that have not rung."""
    paused: int
    """Alarms that were paused."""
    failed: int
    """Alarms that are kept after their last retry (G12)."""


@attrs.frozen(kw_only=True)
class WhyAwake:
    """Why a room is in memory. True if it is; as text, a line for each reason."""

    room: RoomKey
    is_awake: bool = False
    running: str | None = None
    """The event that runs."""
    running_for: timedelta | None = None
    """For how long its handler has run, in monotonic time; ``None`` if the room is being claimed for it still."""
    waits_for: tuple[str, ...] = ()
    """The events of other rooms that the running one waits for."""
    waiting: tuple[str, ...] = ()
    """The events that wait, in order."""
    tasks: tuple[str, ...] = ()
    """The background tasks that run, by name (G6a)."""
    uncommitted: int = 0
    """How many ended events wait for a commit to be answered (G4)."""
    clients: int = 0
    """How many clients keep it awake; 0 if it hibernates (G20)."""
    sleeps_at: datetime | None = None
    """When it will sleep if nothing comes before, in UTC; ``None`` if something keeps it awake."""

    def __bool__(self) -> bool:
        return self.is_awake

    def __str__(self) -> str:
        if not self.is_awake:
            return f"{self.room} is asleep"
        return "\n".join((f"{self.room} is awake:", *(f"  {reason}" for reason in self.reasons())))

    def reasons(self) -> tuple[str, ...]:
        """Give a line for each reason; none for a room that is asleep."""
        age = "" if self.running_for is None else f" for {self.running_for.total_seconds():.3f} s"
        calls = f", and waits for {', '.join(self.waits_for)}" if self.waits_for else ""
        lines = (
            self.running and f"{self.running} runs{age}{calls}",
            self.waiting and f"events that wait: {', '.join(self.waiting)}",
            self.tasks and f"background tasks that run: {', '.join(self.tasks)}",
            self.uncommitted and f"ended events that wait for a commit: {self.uncommitted}",
            self.clients and f"clients that are connected, while it does not hibernate: {self.clients}",
            self.sleeps_at and f"nothing; it sleeps at {self.sleeps_at:%Y-%m-%d %H:%M:%SZ}",
        )
        return tuple(line for line in lines if isinstance(line, str) and line)
