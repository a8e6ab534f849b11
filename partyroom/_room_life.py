"""The life of one awake room: claimed, constructed, started, thrown away, left.

Owns the room's claim and its instance, what both are made of, and the tasks that
an instance has started beside its events.

Promises that an instance is started to its end before anything else reaches it
(G2), that one which is thrown away takes its tasks with it and leaves its
clients (G3), and that nothing is known of a room whose claim has ended, so that
whatever comes next begins anew.

Must never decide when any of it happens: that is said by the events
(:class:`~partyroom._room_runner.RoomRunner`, which is the whole of a room).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from partyroom._background import BackgroundTasks
from partyroom._core.functions import check_function
from partyroom._core.units import Event, Unit
from partyroom._handlers import callback
from partyroom._native import OneShot
from partyroom._room_context import Context
from partyroom._room_state import RoomState
from partyroom._services import Probe, RoomFactory, Services
from partyroom.connections import Connections
from partyroom.errors import OutsideEventError
from partyroom.protocols import Room
from partyroom.types import RoomKey

__all__ = ["RoomLife"]


class RoomLife(ABC):
    """One awake room, without the way of its events."""

    __slots__ = (
        "_background",
        "_factory",
        "_hibernates",
        "_is_gone",
        "_is_started",
        "_left",
        "connections",
        "context",
        "fence",
        "instance",
        "is_leaving",
        "key",
        "only_rang",
        "running",
        "services",
        "state",
    )

    def __init__(self, key: RoomKey, services: Services, factory: RoomFactory, connections: Connections) -> None:
        self.key = key
        self.services = services
        self.state = RoomState(key, services.backend, services.cache)
        self.connections = connections
        connections.place = self
        self.context = Context(self)
        self.instance: Room | None = None
        self.running: Event | None = None
        self.fence = 0
        """The number to commit with; 0 while the room is not claimed, so that nothing is known of what is stored."""
        self.only_rang = True
        """Whether nothing but its alarm has woken the room, so that it may sleep again at once."""
        self._factory = factory
        # Nobody sleeps with clients but those who hibernate: so it is known before there is an instance to ask.
        self._hibernates = len(connections) > 0
        self._is_started = False
        self._is_gone = False
        self.is_leaving = False
        """Whether its claim ends with the commit that waits now, so that what comes meanwhile begins anew behind it."""
        self._left: OneShot[None] | None = None
        """Where that waits."""
        self._background: BackgroundTasks | None = None

    def __repr__(self) -> str:
        return f"<room {self.key}>"

    @abstractmethod
    async def sync(self, unit: Unit) -> None:
        """Commit what the running event has done so far (G3)."""

    @abstractmethod
    def abort(self, reason: str) -> Exception:
        """Throw the instance away, and end the running event; give what is to be raised where that is asked for."""

    @abstractmethod
    async def run_start(self, on_start: Callable[[], Awaitable[Any]], waiting: Event) -> None:
        """Run ``on_start`` as an event of its own, for the one that waits for it."""

    @abstractmethod
    def release(self) -> None:
        """Have the claim end, with what waits to be committed or by itself."""

    @abstractmethod
    def task_ended(self) -> None:
        """Hear that a background task has ended."""

    # --- what it is ----------------------------------------------------------

    @property
    def hibernates(self) -> bool:
        """Whether clients do not keep it awake."""
        return self._hibernates

    @property
    def background(self) -> BackgroundTasks | tuple[()]:
        """The tasks that it has started beside its events."""
        return () if self._background is None else self._background

    def can_ring(self) -> bool:
        """Say whether the room's class has an ``on_alarm``."""
        return callback(self.instance, "on_alarm") is not None

    def may_forget(self) -> bool:
        """Say whether another instance could take over between two events."""
        return not self._background and (self._hibernates or not len(self.connections))

    def check_is_awake(self) -> None:
        """Refuse what is asked by code of an instance that has left memory: another may be awake by now."""
        if self._is_gone:
            message = f"{self.key}: this instance has left memory; reach the room by its handle"
            raise OutsideEventError(message)

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Start a background task, outside of any event (G6a)."""
        self.check_is_awake()
        check_function(fn, "start_soon")
        if self._background is None:
            self._background = BackgroundTasks(self, self.services, self.task_ended)
        self._background.start(fn, args)

    # --- from the claim to the started instance ------------------------------

    async def claim(self) -> None:
        """Take the room, if it is not taken yet, or about to be left."""
        if self.is_leaving:
            left = self._left = self.services.loop.one_shot()
            await left
        if not self.fence:
            self.fence = await self.services.backend.claim(self.key)

    def wake(self, event: Event) -> Awaitable[bool]:
        """Start the room for ``event``; say whether it has an ``on_start``. To be awaited at once."""
        probe = self.services.probe
        return self._start(event) if probe is None else self._start_watched(event, probe)

    async def _start_watched(self, event: Event, probe: Probe) -> bool:
        """Start the room before the eyes of whoever looks on."""
        failure: BaseException | None = None
        probe.wake_began(event)
        try:
            return await self._start(event)
        except BaseException as error:
            failure = error
            raise
        finally:
            probe.wake_ended(event, failure)

    async def _start(self, event: Event) -> bool:
        """Start the room: constructor, then ``on_start`` to its end, as an event of its own (G2)."""
        await self.claim()
        try:
            self.instance = self._factory(self.context)
            self._hibernates = bool(getattr(self.instance, "hibernate", False))
            on_start = callback(self.instance, "on_start")
            if on_start is not None:
                await self.run_start(on_start, event)
        except BaseException:
            self.discard()
            raise
        self._is_started = True
        return on_start is not None

    # --- and back ------------------------------------------------------------

    def discard(self) -> None:
        """Throw the instance away: the next event starts a fresh one. Clients stay connected (G3)."""
        if self._is_started and self.services.probe is not None:
            self.services.probe.room_slept(self.key)
        self.instance = None
        self._is_started = False
        if self._background:
            self._background.cancel()

    def lose_claim(self) -> None:
        """Hear that what is known of the room may be true no longer: the next event claims it, and begins anew."""
        self.fence = 0
        self.state.reset()
        self.discard()
        self.is_leaving = False
        if self._left is not None:
            left, self._left = self._left, None
            left.set(None)

    def sleep(self) -> None:
        """Leave memory; called by the keeper, when nothing keeps the room awake."""
        self._is_gone = True
        self.discard()
        self.connections.place = None
        self.state.close()
        # It names the room: together they would be garbage that only the collector frees.
        del self.context
        if self.fence:
            self.release()
