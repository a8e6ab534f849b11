"""The runtime: all the rooms of one process, and the handles that reach them.

Owns the life of a runtime (constructed, entered, left, entered again), its
parties, and what a host holds to reach a room.

Promises that constructing one opens nothing, that leaving it handles what was
accepted and loses nothing that was answered, and that an error in the body of
its ``async with`` leaves as it is (G6b).

Must never run a room's code: that is the engine's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from random import Random  # noqa: TID251 - jitter and ids are the runtime's own
from types import MappingProxyType, TracebackType
from typing import Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar, final

import attrs
from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup
from typing_extensions import override

from partyroom._calls import deliver, perform
from partyroom._core.alarm_life import look_at
from partyroom._core.instants import to_micros
from partyroom._core.keys import check_limit, check_name, check_room_id, key_range
from partyroom._engine import Engine, Settings
from partyroom._handlers import run_method, run_on_connect, run_on_message, run_on_request
from partyroom._inbox import Inbox
from partyroom._log import about
from partyroom._native import current_loop
from partyroom._room_storage import RoomStorage
from partyroom._services import Probe, RoomFactory, Services
from partyroom._watching import Watch
from partyroom.clock import SystemClock
from partyroom.codec import JsonCodec
from partyroom.connections import RoomClient, RoomConnection
from partyroom.errors import (
    ConnectRejectedError,
    PartyroomError,
    RuntimeClosedError,
    RuntimeStateError,
    UnknownPartyError,
)
from partyroom.observer import Observer
from partyroom.protocols import AlarmScheduler, Client, Clock, Codec, Party, RoomHandle, StorageBackend
from partyroom.statistics import Statistics, StoredStatistics, WhyAwake
from partyroom.types import AlarmCursor, AlarmInfo, KeyRange, Limits, RingReport, RoomKey, Timer

__all__ = ["Runtime"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

PAGE: Final = 1000
"""How many stored entries are read at a time."""
INTERNAL_ERROR: Final = 1011
"""The close code for a client whose room failed (RFC 6455, 7.4.1)."""


@final
class Runtime:
    """All the rooms of one process: wakes, feeds, evicts and closes them.

    Constructing one opens nothing, so that it may stand at the top of a module. ``async with`` opens the backend and
    rings what is overdue; leaving refuses new events, handles what the mailboxes hold, commits it, and closes the
    clients with 1001. It may be entered again after that, but not twice at once, and is used from the loop that entered
    it only: anything else is a :class:`RuntimeStateError`.

    ``parties`` names what stands behind each party: a :class:`Room` class, or any callable that takes the context and
    gives a room. ``backend`` says how durable the rooms are. With ``alarms="manual"`` nothing rings but by
    :meth:`ring_due`. An idle room sleeps after ``idle_timeout``, or earlier when more than ``max_awake`` are awake.
    ``close_timeout`` is how long leaving waits for events to end before it ends them. ``random`` is where jitter and
    ids come from. ``observer`` hears of all events, wakes, alarms and commits (:class:`~partyroom.observer.Observer`).
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
        _check_alarms(alarms)
        if max_awake is not None and max_awake < 1:
            message = f"max_awake must be at least 1, not {max_awake}"
            raise ValueError(message)
        for name, length in (("idle_timeout", idle_timeout), ("close_timeout", close_timeout)):
            if length < timedelta():
                message = f"{name} must not be negative, not {length}"
                raise ValueError(message)
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
            log=logging.getLogger("partyroom"),
        )
        self._observer = observer
        self._parties = MappingProxyType(
            _Parties({name: _Party(self, check_name(name, 1024, "runtime", "party name")) for name in parties})
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
            probe = Watch(self._observer, probe, settings.log)
            settings = attrs.evolve(settings, probe=probe)
        loop = current_loop() if probe is None else probe.loop()
        tasks = await create_task_group().__aenter__()
        self._tasks = tasks
        self._engine = Engine(settings, self._parties, loop, tasks)
        self._engine.start()

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

    def crash(self, error: RuntimeClosedError) -> None:
        """Stop as a killed process would, for tests: nothing more is committed, and whoever waits gets ``error``.

        The ``async with`` still has to be left. See ``partyroom.testing.Harness.crash``.
        """
        self.engine().crash(error)

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
        return await self.engine().next_alarm()

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


def _check_alarms(alarms: str) -> None:
    if alarms not in {"auto", "manual"}:
        message = f"alarms must be 'auto' or 'manual', not {alarms!r}"
        raise ValueError(message)


class _Parties(dict[str, Party]):
    """The parties by name, for reading; a name that there is none of is said to be so."""

    def __missing__(self, name: str) -> Party:
        raise UnknownPartyError(name, tuple(self))


@final
class _Party(Party):
    """All the rooms of one kind."""

    __slots__ = ("_name", "_runtime")

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._name = name

    @override
    def __repr__(self) -> str:
        return f"<party {self._name}>"

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def get(self, id: str, /) -> RoomHandle:
        room_id = check_room_id(id, self._runtime.limits.room_id_bytes, self._name)
        return _Handle(self._runtime, RoomKey(self._name, room_id))

    @override
    async def rooms(self, *, prefix: str = "", start_after: str | None = None, limit: int = 1000) -> list[str]:
        self._runtime.engine()
        ids = key_range(prefix=prefix, start=None, start_after=start_after, end=None, reverse=False)
        if ids is None:
            return []
        return list(await self._runtime.backend.rooms(self._name, ids, check_limit(limit, self._name)))

    @override
    async def list_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        cursor = None
        if start_after is not None and start_after.next_time is not None:
            cursor = AlarmCursor(to_micros(start_after.next_time), start_after.room, start_after.name or "")
        rows = await self._runtime.engine().due_rows(None, cursor, check_limit(limit, self._name), party=self._name)
        return [look_at(row, self._runtime.codec) for row in rows]

    @override
    async def parked_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        self._runtime.engine()
        after = None if start_after is None else (start_after.room.id, start_after.name or "")
        rows = await self._runtime.backend.parked_alarms(self._name, after, check_limit(limit, self._name))
        return [look_at(row, self._runtime.codec) for row in rows]

    @override
    async def failed_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        wanted = check_limit(limit, self._name)
        found: list[AlarmInfo] = []
        page = await self.parked_alarms(start_after=start_after, limit=PAGE)
        while page:
            found += [each for each in page if each.status == "failed"]
            if len(found) >= wanted or len(page) < PAGE:
                break
            page = await self.parked_alarms(start_after=page[-1], limit=PAGE)
        return found[:wanted]


@final
class _Handle(RoomHandle):
    """The way to one room, whether it is awake or not, and over restarts."""

    __slots__ = ("_key", "_runtime")

    def __init__(self, runtime: Runtime, key: RoomKey) -> None:
        self._runtime = runtime
        self._key = key

    @override
    def __repr__(self) -> str:
        return f"<handle of {self._key}>"

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handle) and (self._key, self._runtime) == (other._key, other._runtime)

    @override
    def __hash__(self) -> int:
        return hash(self._key)

    @property
    @override
    def id(self) -> str:
        return self._key.id

    @property
    @override
    def party(self) -> str:
        return self._key.party

    @override
    async def call(self, method: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        name = getattr(method, "__qualname__", None) or repr(method)
        run = partial(run_method, method, args, kwargs)
        result: T = await perform(self._runtime.engine().services, self._key, "call", name, run)
        return result

    @override
    async def request(self, request: object, /) -> Any:
        run = partial(run_on_request, request)
        return await perform(self._runtime.engine().services, self._key, "request", "on_request", run)

    @override
    def connect(
        self,
        *,
        id: str | None = None,
        uri: str = "",
        tags: Iterable[str] = (),
        state: object = None,
        request: object = None,
    ) -> AbstractAsyncContextManager[Client]:
        return _Connecting(self._runtime, self._key, partial(_make_connection, id, uri, tags, state, request))

    @override
    async def stored(self) -> dict[str, Any]:
        self._runtime.engine()
        backend, decode = self._runtime.backend, self._runtime.codec.decode
        found: dict[str, Any] = {}
        rows = await backend.scan(self._key, KeyRange(), PAGE)
        while rows:
            found.update((key, decode(data)) for key, data in rows)
            if len(rows) < PAGE:
                break
            rows = await backend.scan(self._key, KeyRange(rows[-1][0] + "\0"), PAGE)
        return found

    # --- alarms, seen and steered from outside -------------------------------

    async def _steer(self, name: str, step: Callable[[RoomStorage], Awaitable[T]]) -> T:
        """Do something to the room's alarms as an event of the room, without starting it."""
        services = self._runtime.engine().services
        result: T = await perform(services, self._key, "steer", name, lambda room: step(room.context.storage))
        return result

    @override
    async def list_alarms(self) -> list[AlarmInfo]:
        return await self._steer("list_alarms", lambda storage: storage.list_alarms())

    @override
    async def ring_alarm(self, name: str | None = None, /) -> bool:
        return await self._steer("ring_alarm", lambda storage: storage.ring_alarm(name))

    @override
    async def pause_alarm(self, name: str | None = None, /) -> bool:
        return await self._steer("pause_alarm", lambda storage: storage.pause_alarm(name))

    @override
    async def resume_alarm(self, name: str | None = None, /) -> bool:
        return await self._steer("resume_alarm", lambda storage: storage.resume_alarm(name))

    @override
    async def delete_alarm(self, name: str | None = None, /) -> bool:
        return await self._steer("delete_alarm", lambda storage: storage.discard_alarm(name))


@final
class _Connecting(AbstractAsyncContextManager[Client]):
    """A client on its way in, and out again."""

    __slots__ = ("_connection", "_key", "_make", "_runtime")

    def __init__(self, runtime: Runtime, key: RoomKey, make: Callable[[Services, RoomKey], RoomConnection]) -> None:
        self._runtime = runtime
        self._key = key
        # Let go of as soon as the connection is made: a host holds this for as long as its client stays.
        self._make: Callable[[Services, RoomKey], RoomConnection] | None = make
        self._connection: RoomConnection | None = None

    @override
    async def __aenter__(self) -> Client:
        services = self._runtime.engine().services
        make, self._make = self._make, None
        if make is None:
            message = "a connection is entered once: ask the handle for another one"
            raise RuntimeStateError(message)
        connection = make(services, self._key)
        try:
            await perform(
                services, self._key, "connect", "on_connect", partial(run_on_connect, connection), subject=connection
            )
        except PartyroomError:
            raise
        except Exception as error:
            # The room's own fault refuses the client as well: the cause is for the host to see, not for the client.
            rejected = ConnectRejectedError(INTERNAL_ERROR, "on_connect failed")
            raise rejected from error
        except BaseException:
            connection.abandon()
            raise
        closed = connection.inbox.closed
        if closed is not None:
            raise ConnectRejectedError(closed.code, closed.reason)
        self._connection = connection
        return RoomClient(connection, self._deliver)

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        assert self._connection is not None
        self._connection.hang_up(1000, "", was_clean=True)

    async def _deliver(self, connection: RoomConnection, message: str | bytes) -> None:
        services = self._runtime.engine().services
        await deliver(services, self._key, partial(run_on_message, connection, message), connection)


def _make_connection(  # noqa: PLR0917 - what connect() was given
    id: str | None,  # noqa: A002 - PartyKit's word
    uri: str,
    tags: Iterable[str],
    state: object,
    request: object,
    services: Services,
    key: RoomKey,
) -> RoomConnection:
    limits = services.limits
    connection_id = f"{services.random.getrandbits(96):024x}" if id is None else id
    connection = RoomConnection(
        key,
        Inbox(services.loop, services.work, limits),
        services.codec,
        limits,
        id=check_name(connection_id, limits.key_bytes, key, "connection id"),
        uri=uri,
        tags=tags,
        request=request,
    )
    if state is not None:
        connection.set_state(state)
    return connection
