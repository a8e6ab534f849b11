"""What tests of alarms share: rooms that ring as a test says, and the book in which they note it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, final

from typing_extensions import override

from partyroom import Alarm, Room, RoomContext, Storage
from tests.runtime.boxes import Step

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
TICK: Final = timedelta(microseconds=1)


def seconds(when: datetime | None) -> float | None:
    """Give a time as seconds since the tests' beginning."""
    return None if when is None else (when - START).total_seconds()


async def nothing(_room: Any, *_args: object) -> None:
    return


@final
class Tower:
    """What the bells of one test do when they start, ring and fail, and what they did."""

    def __init__(self) -> None:
        self.book: list[tuple[float, str]] = []
        """When (in seconds since the beginning) which room did what."""
        self.alarms: list[Alarm] = []
        """What rang."""
        self.on_construct: Callable[[Bell], None] = lambda _: None
        self.on_start: Callable[[Bell], Awaitable[None]] = nothing
        self.on_alarm: Callable[[Bell, Alarm], Awaitable[None]] = nothing
        self.on_failed: Callable[[Bell, Alarm, Exception], Awaitable[None]] = nothing

    def bell(self, ctx: RoomContext) -> Bell:
        return Bell(ctx, self)

    def note(self, ctx: RoomContext, what: str) -> None:
        self.book.append((seconds(ctx.clock.now()) or 0.0, f"{ctx.id} {what}"))

    def rang(self) -> list[float]:
        """Give when an alarm rang, whichever, in seconds since the beginning."""
        return [when for when, what in self.book if " rings" in what]

    def take(self) -> list[tuple[float, str]]:
        """Give what was noted, and begin a new page."""
        found, self.book = self.book, []
        return found


class Bell(Room):
    """A room that does what its tower says."""

    def __init__(self, ctx: RoomContext, tower: Tower) -> None:
        super().__init__(ctx)
        self.tower = tower
        tower.on_construct(self)

    @property
    def storage(self) -> Storage:
        return self.ctx.storage

    @override
    async def on_start(self) -> None:
        await self.tower.on_start(self)

    @override
    async def on_alarm(self, alarm: Alarm) -> None:
        self.tower.note(self.ctx, " ".join(filter(None, ("rings", alarm.name, "again" * alarm.is_retry))))
        self.tower.alarms.append(alarm)
        await self.tower.on_alarm(self, alarm)

    @override
    async def on_alarm_failed(self, alarm: Alarm, error: Exception) -> None:
        self.tower.note(self.ctx, f"failed {alarm.name or ''}".strip())
        await self.tower.on_failed(self, alarm, error)


def ring_at(when: datetime | timedelta, name: str | None = None, payload: object = None) -> Step:
    """Set an alarm."""
    return lambda storage: storage.set_alarm(when, name=name, payload=payload)


async def fail(_bell: Bell, _alarm: Alarm) -> None:
    """Ring badly."""
    message = "the rope is torn"
    raise LookupError(message)
