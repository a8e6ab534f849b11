"""The runtime: all the rooms of one process.

Owns the life of a runtime (constructed, entered, left, entered again), and what
a host asks of all its rooms at once.

Promises that constructing one opens nothing, that leaving it handles what was
accepted and loses nothing that was answered, and that an error in the body of
its ``async with`` leaves as it is (G6b).

Must never run a room's code: that is the engine's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from random import Random  # noqa: TID251 - jitter and ids are the runtime's own
from types import MappingProxyType, TracebackType
from typing import Literal, Self, cast, final

import attrs
from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup
from typing_extensions import override

from partyroom._core.callback_names import slips_of
from partyroom._core.keys import check_limit, check_name
from partyroom._engine import Engine, Settings
from partyroom._handles import Parties, PartyOf
from partyroom._log import about
from partyroom._native import current_loop
from partyroom._services import Probe, RoomFactory
from partyroom._watching import Watch
from partyroom.clock import SystemClock
from partyroom.codec import JsonCodec
from partyroom.errors import (
    RuntimeClosedError,
    RuntimeStateError,
)
from partyroom.observer import Observer
from partyroom.protocols import AlarmScheduler, Clock, Codec, Party, RoomHandle, StorageBackend
from partyroom.statistics import Statistics, StoredStatistics, WhyAwake
from partyroom.types import Limits, RingReport, RoomKey, Timer

__all__ = ["Runtime"]


@final
class Runtime:
    """All the rooms of one process: wakes, feeds, evicts and closes them.

    Constructing one opens nothing, so that it may stand at the top of a module. ``async with`` opens the backend and
    rings what is overdue; leaving refuses new events, handles what the mailboxes hold, commits it, and closes the
    clients with 1001. It may be entered again after that, but not twice at once, and is used from the loop that entered
    it only: anything else is a :class:`RuntimeStateError`.

    ``parties`` names what stands behind each party: a :class:`Room` class, or any callable that takes the context and
    gives a room. A method of such a class that looks like a callback and is none (``onMessage``, ``on_mesage``) is told
    of in the log. ``backend`` says how durable the rooms are. With ``alarms="manual"`` nothing rings but by
    :meth:`ring_due`. An idle room sleeps after ``idle_timeout``, or earlier when more than ``max_awake`` are awake.
    ``close_timeout`` is how long leaving waits for events to end before it ends them; what had ended is stored all the
    same, however long the backend takes. ``random`` is where jitter and ids come from. ``observer`` hears of all events,
    wakes, alarms and commits (:class:`~partyroom.observer.Observer`).
    """

    def __init__(
        self,
        parties: Mapping[str, RoomFactory],
        *,
        backend: StorageBackend,
        clock: Clock | None = None,
        scheduler: AlarmScheduler | None = None,
        alarms: Literal["auto", "manual"] = "auto",
        limits: Limits | None = None,
        codec: Codec | None = None,
        idle_timeout: timedelta = timedelta(seconds=10),
        max_awake: int | None = None,
        close_timeout: timedelta = timedelta(seconds=10),
        random: Random | None = None,
        observer: Observer | None = None,
    ) -> None:
        _check_parties(parties)
        _check_backend(backend)
        _check_alarms(alarms)
        if max_awake is not None and max_awake < 1:
            message = f"max_awake must be at least 1, not {max_awake}"
            raise ValueError(message)
        _check_length("idle_timeout", idle_timeout)
        _check_length("close_timeout", close_timeout)
        _check_limits(limits)
        _check_observer(observer)
        log = logging.getLogger("partyroom")
        _tell_slips(parties, log)
        self._settings = Settings(
            factories=dict(parties),
            backend=backend,
            clock=clock or SystemClock(),
            scheduler=scheduler,
            rings=alarms == "auto",
            limits=limits or Limits(),
            codec=codec or JsonCodec(),
            idle_timeout=idle_timeout,
            max_awake=max_awake,
            close_timeout=close_timeout,
            random=random or Random(),  # noqa: S311 - jitter and ids, no secrets
            log=log,
        )
        self._observer = observer
        self._parties = MappingProxyType(
            Parties({name: PartyOf(self, check_name(name, 1024, "runtime", "party name")) for name in parties})
        )
        self._engine: Engine | None = None
        self._tasks: TaskGroup | None = None
        self._entered = False

    @override
    def __repr__(self) -> str:
        state = "closed" if self._engine is None else "closing" if self._engine.closing else "open"
        return f"<Runtime of {', '.join(self._settings.factories)}, {state}>"

    # --- its life ------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "this runtime is entered already"
            raise RuntimeStateError(message)
        self._entered = True
        try:
            await self._settings.backend.__aenter__()
            try:
                await self._start()
            except BaseException:
                await self._close_backend()
                raise
        except BaseException:
            self._entered = False
            raise
        return self

    async def _start(self) -> None:
        settings, probe = self._settings, self._settings.probe
        if self._observer is not None:
            probe = Watch(self._observer, probe, settings.log, self._fail)
            settings = attrs.evolve(settings, probe=probe)
        loop = current_loop() if probe is None else probe.loop()
        tasks = await create_task_group().__aenter__()
        self._tasks = tasks
        self._engine = Engine(settings, self._parties, loop, tasks)
        self._engine.start()

    def _fail(self, error: BaseException) -> None:
        assert self._engine is not None
        self._engine.fail(error)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        engine, tasks = self._engine, self._tasks
        assert engine is not None
        assert tasks is not None
        try:
            # The closing goes on in a task of its own, whoever cancels this one: leaving the group waits for its end.
            engine.begin_closing()
            tasks.cancel_scope.shield = True
            # The body's error is none of the group's, so that it leaves as it is (G6b).
            await tasks.__aexit__(None, None, None)
        finally:
            try:
                await self._close_backend(is_failing=exc is not None)
            finally:
                self._engine = self._tasks = None
                self._entered = False
                engine.work.end()
        if engine.error is not None:
            raise engine.error

    async def _close_backend(self, *, is_failing: bool = True) -> None:
        """Close the backend, whoever cancels this; an error of it never takes the place of another one."""
        with CancelScope(shield=True):
            try:
                await self._settings.backend.__aexit__(None, None, None)
            except Exception:
                if not is_failing:
                    raise
                self._settings.log.exception("the backend could not be closed", extra=about())

    def running(self) -> Engine | None:
        """Give the engine if there is one, also while it closes; for the testing kit."""
        return self._engine

    def instrument(self, probe: Probe) -> None:
        """Have a probe look on from the next entering; for the testing kit."""
        self._settings = attrs.evolve(self._settings, probe=probe)

    def engine(self) -> Engine:
        """Give the running engine; raise if there is none, or none for the code that asks. For the library's own use."""
        engine = self._engine
        if engine is None:
            message = "the runtime is not open: use it inside `async with`"
            raise RuntimeClosedError(message)
        if not engine.loop.is_running_here():
            message = "the runtime was entered in another event loop or thread"
            raise RuntimeStateError(message)
        engine.check_accepts()
        return engine

    # --- what a host asks for ------------------------------------------------

    @property
    def parties(self) -> Mapping[str, Party]:
        """The parties, by name; an unknown one is an :class:`UnknownPartyError`."""
        return self._parties

    @property
    def alarms(self) -> Literal["auto", "manual"]:
        """Whether alarms ring by themselves, or by :meth:`ring_due` only.

        May be set while the runtime is not open, by a host that takes over one which was made for another: a cron job
        rings by hand what a server's runtime would ring by itself. Open, it is a :class:`RuntimeStateError`.
        """
        return "auto" if self._settings.rings else "manual"

    @alarms.setter
    def alarms(self, alarms: Literal["auto", "manual"]) -> None:
        _check_alarms(alarms)
        if self._entered:
            message = "alarms cannot be set while the runtime is open"
            raise RuntimeStateError(message)
        self._settings = attrs.evolve(self._settings, rings=alarms == "auto")

    @property
    def limits(self) -> Limits:
        """How large things may get (G18)."""
        return self._settings.limits

    @property
    def codec(self) -> Codec:
        """What turns values into bytes."""
        return self._settings.codec

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""
        return self._settings.clock

    @property
    def backend(self) -> StorageBackend:
        """Where the rooms are stored."""
        return self._settings.backend

    async def ring_due(self, limit: int | None = None) -> RingReport:
        """Ring what is due now, retries included, in due order, and return when all of it is committed.

        At most ``limit`` alarms; what is armed again meanwhile is not among them. A handler's error stands in the
        report. For hosts that decide themselves when alarms ring (``alarms="manual"``).
        """
        return await self.engine().ring_due(None if limit is None else check_limit(limit, "ring_due"))

    async def next_alarm(self) -> datetime | None:
        """Give when the next alarm is due, in UTC; ``None`` if there is none."""
        return await self.engine().alarms.next_time()

    async def wait_idle(self) -> None:
        """Return when nothing is in flight: no event waits or runs, no output waits for a commit, no background task moves."""
        if self._engine is not None:
            await self._engine.work.wait_idle()

    def is_idle(self) -> bool:
        """Say whether nothing is in flight; a runtime that is not open has nothing."""
        return self._engine is None or not self._engine.work.count

    def describe_work(self) -> list[str]:
        """Say what is in flight, a line each: which room, which event, whether it runs or waits."""
        return [] if self._engine is None else self._engine.describe_work()

    def pending_timers(self) -> list[tuple[datetime, Timer]]:
        """Give what waits on the clock in memory: when (wall time, if nobody corrects it), and what it is.

        Alarms are not among it: they wait in the backend.
        """
        return [] if self._engine is None else self._engine.pending_timers()

    def statistics(self) -> Statistics:
        """Give the figures of this moment: of rooms in memory, events and commits.

        It reads nothing, and looks at each room in memory once. What is stored is counted by :meth:`stored_statistics`.
        """
        return self.engine().statistics()

    async def stored_statistics(self) -> Mapping[str, StoredStatistics]:
        """Count the rooms and alarms that are stored, by party: asleep, due, late, failed.

        It reads the ids of all rooms and all alarms, a page at a time, while everything goes on: with a million of them
        that is some seconds, and what changes meanwhile is counted as it was or as it is.
        """
        return await self.engine().stored_statistics()

    def why_awake(self, room: RoomHandle, /) -> WhyAwake:
        """Say why a room is in memory: by fields for a program, by lines for a person; false if it is asleep.

        An event that runs or waits, background tasks, commits that were not answered, clients that it has to be awake
        for; or nothing any more, and until when it stays all the same. Looking wakes no room.
        """
        return self.engine().why_awake(RoomKey(room.party, room.id))


def _kind_of(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _check_parties(parties: object) -> None:
    if not isinstance(parties, Mapping):
        message = f"parties must name what stands behind each, such as {{'chat': Chat}}, not {_kind_of(parties)}"
        raise TypeError(message)
    for name, factory in cast("Mapping[object, object]", parties).items():
        if not callable(factory):
            message = (
                f"party {name!r} must be a Room class, or a function that takes the context and gives a room, "
                f"not {type(factory).__name__}"
            )
            raise TypeError(message)


def _tell_slips(parties: Mapping[str, RoomFactory], log: logging.Logger) -> None:
    """Tell of methods that nothing calls; of a class, for nobody knows what a function makes."""
    for party, factory in parties.items():
        if isinstance(factory, type):
            for name, meant in slips_of(factory):
                text = "party %r: nothing calls %s.%s; is %s meant?"
                log.warning(text, party, factory.__qualname__, name, meant, extra=about(event=name))


def _check_backend(backend: object) -> None:
    # A class has all that its instances have, and opens nothing.
    if isinstance(backend, type) or not isinstance(backend, StorageBackend):
        message = (
            "backend must be a storage backend, such as MemoryBackend() or FileBackend('rooms.db'), "
            f"not {_kind_of(backend)}"
        )
        raise TypeError(message)


def _check_length(name: str, length: object) -> None:
    if not isinstance(length, timedelta):
        message = f"{name} must be a timedelta, not {type(length).__name__}"
        raise TypeError(message)
    if length < timedelta():
        message = f"{name} must not be negative, not {length}"
        raise ValueError(message)


def _check_limits(limits: object) -> None:
    if limits is not None and not isinstance(limits, Limits):
        message = f"limits must be Limits(...), not {type(limits).__name__}"
        raise TypeError(message)


def _check_observer(observer: object) -> None:
    # A class has all that its instances have, and hears of nothing.
    if observer is not None and (isinstance(observer, type) or not isinstance(observer, Observer)):
        message = f"observer must be an Observer, such as OpenTelemetryObserver(), not {_kind_of(observer)}"
        raise TypeError(message)


def _check_alarms(alarms: str) -> None:
    if alarms not in {"auto", "manual"}:
        message = f"alarms must be 'auto' or 'manual', not {alarms!r}"
        raise ValueError(message)
