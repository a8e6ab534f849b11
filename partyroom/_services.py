"""What every room of a runtime shares, and what it asks its runtime for.

Owns nothing: it is the list of a room's dependencies, handed to it whole.

Promises that what a room needs from above is named here, as calls that point
up, so that no room imports the runtime.

Must never hold the state of one room.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from logging import Logger
from random import Random  # noqa: TID251 - the type of what is given
from typing import Protocol

import attrs

from partyroom._committer import Committer
from partyroom._core.output_gate import OutputGate
from partyroom._core.read_cache import CacheBudget
from partyroom._core.units import Event, Place
from partyroom._native import Loop
from partyroom._room_clock import ClockParts
from partyroom._room_state import RoomState
from partyroom._scheduling import Scheduling
from partyroom._work import Work
from partyroom._workers import Workers
from partyroom.connections import Connections
from partyroom.errors import CommitError
from partyroom.protocols import Codec, Party, Room, RoomContext, StorageBackend
from partyroom.types import Limits, RoomKey

__all__ = ["AwakeRoom", "Keeper", "Probe", "RoomFactory", "Services"]

RoomFactory = Callable[[RoomContext], Room]
"""What stands behind a party's name: a class, or anything that takes the context and gives a room."""


class AwakeRoom(Place, Protocol):
    """A room in memory, as those see it who ask something of it. To be looked up when it is needed, never kept."""

    services: Services
    gate: OutputGate
    connections: Connections
    state: RoomState
    only_rang: bool
    """Whether nothing but its alarm has woken the room."""
    instance: Room | None
    """The author's own object; ``None`` while the room is not started."""

    @property
    def context(self) -> RoomContext:
        """What its author's code is given."""
        ...

    def post(self, event: Event, /) -> bool:
        """Let an event wait; say whether the mailbox had a place for it. Else its reply is set when there is one."""
        ...

    def withdraw(self, event: Event, /) -> None:
        """Take out an event that its caller no longer wants; harmless if it has begun."""
        ...

    def seal(self, event: Event, /) -> None:
        """Let an event leave when everything before it is durable."""
        ...

    @property
    def may_sleep(self) -> bool:
        """Whether nothing keeps the room awake."""
        ...

    def sleep(self) -> None:
        """Leave memory."""
        ...


class Keeper(Protocol):
    """What a room tells whoever keeps it awake."""

    @property
    def parties(self) -> Mapping[str, Party]:
        """All parties, by name."""
        ...

    def room(self, key: RoomKey, /) -> AwakeRoom:
        """Give the room of a key, awake from now on, to post something at once. Raises :class:`RuntimeClosedError`."""
        ...

    def awake(self, key: RoomKey, /) -> AwakeRoom | None:
        """Give the room of a key if it is awake."""
        ...

    def room_busy(self, room: AwakeRoom, /) -> None:
        """Hear that a room has something to do."""
        ...

    def room_rests(self, room: AwakeRoom, /) -> None:
        """Hear that a room has nothing to do for now."""
        ...

    def room_may_sleep(self, room: AwakeRoom, /) -> None:
        """Hear that nothing keeps a resting room awake."""
        ...

    def sleeps_at_once(self, room: AwakeRoom, /) -> bool:
        """Say whether a room sleeps as soon as nothing keeps it awake."""
        ...

    def task_ended(self) -> None:
        """Hear that a background task of some room has ended."""
        ...

    def event_failed(self, event: Event, error: BaseException, /) -> None:
        """Hear of every error that came out of a room's code, or of the runtime's hold on it."""
        ...

    def fail(self, error: BaseException, /) -> None:
        """Hear of what is no error of a room: an interrupt, a bug. The runtime ends by it."""
        ...


class Probe(Protocol):
    """What sees all that happens in a runtime, for an observer or the testing kit, and decides what is free to be decided."""

    @property
    def sleeps_at_once(self) -> bool:
        """Whether a room leaves memory whenever it may, and loses its instance between any two events."""
        ...

    def loop(self) -> Loop:
        """Give the loop's native parts, for the runtime to use."""
        ...

    def event_began(self, event: Event, /) -> None:
        """Hear that a handler is about to run, of an event or of one that is nested in it (``event.parent``)."""
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

    def event_asked(self, event: Event, /) -> None:
        """Hear that an event is asked for, in the context of whoever asks."""
        return

    def wake_began(self, event: Event, /) -> None:
        """Hear that a room is to be started for an event."""
        return

    def wake_ended(self, event: Event, error: BaseException | None, /) -> None:
        """Hear that it is, or that it failed."""
        return

    def room_slept(self, room: RoomKey, /) -> None:
        """Hear that a started instance is thrown away."""
        return

    def around_commit(
        self,
        asked: Awaitable[Sequence[CommitError | None]],
        rooms: Sequence[RoomKey],
        events: Sequence[Event],
        /,
    ) -> Awaitable[Sequence[CommitError | None]]:
        """See what the backend is asked to commit, before and after; give its answers."""
        return asked


@attrs.frozen(eq=False)
class Services:
    """One runtime's parts, as its rooms use them."""

    loop: Loop
    work: Work
    clock: ClockParts
    monotonic: Callable[[], float]
    """The clock's own: asked for each event."""
    backend: StorageBackend
    committer: Committer
    workers: Workers
    cache: CacheBudget
    codec: Codec
    limits: Limits
    random: Random
    log: Logger
    keeper: Keeper
    scheduling: Scheduling
    spawn: Callable[[Callable[..., Awaitable[None]], tuple[object, ...]], None]
    """Starts a task in the runtime's task group, in the current context."""
    probe: Probe | None = None
