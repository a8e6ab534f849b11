"""What every room of a runtime shares, and what it asks its runtime for.

Owns nothing: it is the list of a room's dependencies, handed to it whole.

Promises that what a room needs from above is named here, as calls that point
up, so that no room imports the runtime.

Must never hold the state of one room.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from logging import Logger
from random import Random
from typing import Any, Protocol

import attrs

from partyroom._committer import Committer
from partyroom._core.read_cache import CacheBudget
from partyroom._core.units import Event
from partyroom._native import Loop
from partyroom._room_clock import ClockParts
from partyroom._work import Work
from partyroom._workers import Workers
from partyroom.protocols import Codec, Party, Room, RoomContext, StorageBackend
from partyroom.types import Limits, RoomKey

__all__ = ["Keeper", "Probe", "RoomFactory", "Services"]

RoomFactory = Callable[[RoomContext], Room]
"""What stands behind a party's name: a class, or anything that takes the context and gives a room."""


class Keeper(Protocol):
    """What a room tells whoever keeps it awake."""

    @property
    def parties(self) -> Mapping[str, Party]:
        """All parties, by name."""
        ...

    def room_busy(self, room: Any, /) -> None:
        """Hear that a room has something to do."""
        ...

    def room_rests(self, room: Any, /) -> None:
        """Hear that a room has nothing to do for now."""
        ...

    def room_may_sleep(self, room: Any, /) -> None:
        """Hear that nothing keeps a resting room awake."""
        ...

    def alarm_changed(self, room: RoomKey, due: datetime | None, /) -> None:
        """Hear when a room's next alarm is, after the commit that changed it and after each ring."""
        ...

    def ring_failed_to_start(self, room: RoomKey, /) -> None:
        """Hear that a room could not be woken for its alarm: it is to be rung again later (G12)."""
        ...

    def alarm_without_handler(self, room: RoomKey, room_type: type[object], /) -> None:
        """Hear that an alarm is due in a class that has no ``on_alarm``: it waits (G14)."""
        ...

    def event_failed(self, event: Event, error: BaseException, /) -> None:
        """Hear of every error that came out of a room's code, or of the runtime's hold on it."""
        ...


class Probe(Protocol):
    """What sees all that happens in a runtime, and decides what is free to be decided; for the testing kit."""

    @property
    def sleeps_at_once(self) -> bool:
        """Whether a room leaves memory whenever it may, and loses its instance between any two events."""
        ...

    def loop(self) -> Loop:
        """Give the loop's native parts, for the runtime to use."""
        ...

    def event_began(self, event: Event, /) -> None:
        """Hear that a handler is about to run."""
        ...

    def event_ended(self, event: Event, /) -> None:
        """Hear that a handler has ended: its error and its writes stand in it."""
        ...

    def event_sealed(self, event: Event, /) -> None:
        """Hear that what an event has written is handed on to be committed."""
        ...

    def event_failed(self, event: Event, error: BaseException, /, *, heard: bool) -> None:
        """Hear of an error in a room's code, and whether the room or a caller is told of it."""
        ...


@attrs.frozen(eq=False)
class Services:
    """One runtime's parts, as its rooms use them."""

    loop: Loop
    work: Work
    clock: ClockParts
    backend: StorageBackend
    committer: Committer
    workers: Workers
    cache: CacheBudget
    codec: Codec
    limits: Limits
    random: Random
    log: Logger
    keeper: Keeper
    spawn: Callable[[Callable[..., Awaitable[None]], tuple[object, ...]], None]
    """Starts a task in the runtime's task group, in the current context."""
    probe: Probe | None = None
