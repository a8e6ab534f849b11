"""Rooms for programs without an event loop: Flask, scripts, notebooks.

Owns one thread with one event loop, in which a runtime lives, and the same verbs
without ``async``: a caller waits in its own thread.

Promises that any number of threads may use it at once, that errors are raised
to the caller as a room raised them, that it closes by itself when the program
ends, and that a forked child, which has no such thread, is told so.

Must never run a room's code in a caller's thread: rooms have one thread, whoever
asks. One file belongs to one process: a second one is told who has it
(:class:`~partyroom.BackendLockedError`).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from functools import partial
from threading import Event as ThreadEvent
from threading import Lock, Thread, get_ident
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, final

import attrs
from anyio import Event, run
from anyio.from_thread import BlockingPortal
from typing_extensions import override

from partyroom._services import RoomFactory
from partyroom.errors import ConnectionClosedError, RuntimeClosedError, RuntimeStateError
from partyroom.observer import Observer
from partyroom.protocols import AlarmScheduler, Client, Clock, Codec, Party, RoomHandle, StorageBackend
from partyroom.runtime import Runtime
from partyroom.statistics import Statistics, StoredStatistics, WhyAwake
from partyroom.types import AlarmInfo, Limits, RingReport

__all__ = ["BlockingClient", "BlockingParty", "BlockingRoomHandle", "BlockingRuntime"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@final
class BlockingRuntime:
    """All the rooms of one process, for code that waits: ``with BlockingRuntime({...}, backend=...) as runtime``.

    Constructing one opens nothing, so that it may stand at the top of a module. ``with``, or :meth:`open` for programs
    that have no place for a block, opens the backend and rings what is overdue; leaving it, :meth:`close`, or the end of
    the program handles what was accepted, commits it and closes the clients. It may be opened again after that.

    The options are those of :class:`~partyroom.Runtime`; ``loop`` is the event loop of its thread. Alarms ring in the
    background; with ``alarms="manual"`` nothing rings but by :meth:`ring_due`, while the calling thread waits.

    May be used from any thread. In a child that was forked it raises :class:`~partyroom.RuntimeStateError`: open one
    there, after the fork, with a file of its own.
    """

    def __init__(
        self,
        parties: Mapping[str, RoomFactory],
        *,
        backend: StorageBackend,
        loop: Literal["asyncio", "trio"] = "asyncio",
        clock: Clock | None = None,
        scheduler: AlarmScheduler | None = None,
        alarms: Literal["auto", "manual"] = "auto",
        limits: Limits | None = None,
        codec: Codec | None = None,
        idle_timeout: timedelta = timedelta(seconds=10),
        max_awake: int | None = None,
        close_timeout: timedelta = timedelta(seconds=10),
        observer: Observer | None = None,
    ) -> None:
        self._runtime = Runtime(
            parties,
            backend=backend,
            clock=clock,
            scheduler=scheduler,
            alarms=alarms,
            limits=limits,
            codec=codec,
            idle_timeout=idle_timeout,
            max_awake=max_awake,
            close_timeout=close_timeout,
            observer=observer,
        )
        self._loop = loop
        self._lock = Lock()
        self._engine: _LoopThread | None = None
        self._parties = _Parties(self._ask, self._runtime.parties)

    @override
    def __repr__(self) -> str:
        return f"<Blocking{repr(self._runtime)[1:]}"

    # --- its life ------------------------------------------------------------

    def open(self) -> Self:
        """Open the runtime; raise what its backend raises, or :class:`RuntimeStateError` if it is open."""
        with self._lock:
            if self._engine is not None:
                self._engine.check_process()
                message = "this runtime is open already"
                raise RuntimeStateError(message)
            self._engine = _LoopThread(self._runtime, self._loop)
            try:
                self._engine.start()
            except BaseException:
                self._engine = None
                raise
        atexit.register(self._close_at_exit)
        return self

    def close(self) -> None:
        """Close the runtime, and return when it has closed; harmless if it is not open."""
        with self._lock:
            engine, self._engine = self._engine, None
            if engine is None:
                return
            atexit.unregister(self._close_at_exit)
            engine.check_process()
            engine.stop()

    def _close_at_exit(self) -> None:
        engine = self._engine
        # A forked child ends with a copy of this, and without the thread that it would wait for.
        if engine is not None and engine.is_of_this_process():
            self.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _ask(self, fn: Callable[[], Awaitable[T]]) -> T:
        engine = self._engine
        if engine is None:
            message = "the runtime is not open: use it inside `with`, or call open()"
            raise RuntimeClosedError(message)
        return engine.ask(fn)

    # --- what a host asks for ------------------------------------------------

    @property
    def parties(self) -> Mapping[str, BlockingParty]:
        """The parties, by name; an unknown one is an :class:`~partyroom.UnknownPartyError`."""
        return self._parties

    def ring_due(self, limit: int | None = None) -> RingReport:
        """Ring what is due now, and return when all of it is committed; see :meth:`partyroom.Runtime.ring_due`."""
        return self._ask(partial(self._runtime.ring_due, limit))

    def next_alarm(self) -> datetime | None:
        """Give when the next alarm is due, in UTC; ``None`` if there is none."""
        return self._ask(self._runtime.next_alarm)

    def wait_idle(self) -> None:
        """Return when nothing is in flight."""
        self._ask(self._runtime.wait_idle)

    def statistics(self) -> Statistics:
        """Give the figures of this moment."""

        async def ask() -> Statistics:
            return self._runtime.statistics()

        return self._ask(ask)

    def stored_statistics(self) -> Mapping[str, StoredStatistics]:
        """Count the rooms and alarms that are stored, by party; see :meth:`partyroom.Runtime.stored_statistics`."""
        return self._ask(self._runtime.stored_statistics)

    def why_awake(self, room: BlockingRoomHandle, /) -> WhyAwake:
        """Say why a room is in memory; see :meth:`partyroom.Runtime.why_awake`."""
        handle = self._runtime.parties[room.party].get(room.id)

        async def ask() -> WhyAwake:
            return self._runtime.why_awake(handle)

        return self._ask(ask)


Ask = Callable[[Callable[[], Awaitable[Any]]], Any]
"""Runs an async function in the runtime's thread, and waits for it."""


@final
class _Parties(Mapping[str, "BlockingParty"]):
    """The parties by name, each with waiting verbs."""

    def __init__(self, ask: Ask, parties: Mapping[str, Party]) -> None:
        self._ask = ask
        self._parties = parties

    @override
    def __getitem__(self, name: str) -> BlockingParty:
        return BlockingParty(self._ask, self._parties[name])

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._parties)

    @override
    def __len__(self) -> int:
        return len(self._parties)


@final
class BlockingParty:
    """All the rooms of one kind."""

    def __init__(self, ask: Ask, party: Party) -> None:
        self._ask = ask
        self._party = party

    @override
    def __repr__(self) -> str:
        return repr(self._party)

    @property
    def name(self) -> str:
        """The name that the host gave it."""
        return self._party.name

    def get(self, id: str, /) -> BlockingRoomHandle:  # noqa: A002 - PartyKit's word
        """Give the handle of a room, whether or not it exists yet; see :meth:`partyroom.Party.get`."""
        return BlockingRoomHandle(self._ask, self._party.get(id))

    def rooms(self, *, prefix: str = "", start_after: str | None = None, limit: int = 1000) -> list[str]:
        """Give the ids of stored rooms, in order."""
        found: list[str] = self._ask(partial(self._party.rooms, prefix=prefix, start_after=start_after, limit=limit))
        return found

    def list_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's alarms; see :meth:`partyroom.Party.list_alarms`."""
        found: list[AlarmInfo] = self._ask(partial(self._party.list_alarms, start_after=start_after, limit=limit))
        return found

    def parked_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's alarms that will not ring by themselves; see :meth:`partyroom.Party.parked_alarms`."""
        found: list[AlarmInfo] = self._ask(partial(self._party.parked_alarms, start_after=start_after, limit=limit))
        return found

    def failed_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's failed alarms, with their errors (G12)."""
        found: list[AlarmInfo] = self._ask(partial(self._party.failed_alarms, start_after=start_after, limit=limit))
        return found


@final
class BlockingRoomHandle:
    """What reaches one room: the verbs of :class:`~partyroom.RoomHandle`, each of which waits."""

    def __init__(self, ask: Ask, handle: RoomHandle) -> None:
        self._ask = ask
        self._handle = handle

    @override
    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def id(self) -> str:
        """The room's id."""
        return self._handle.id

    @property
    def party(self) -> str:
        """The name of the room's party."""
        return self._handle.party

    def call(self, method: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async method of the room's class as an event, and give its result; see :meth:`partyroom.RoomHandle.call`."""
        result: T = self._ask(partial(self._handle.call, method, *args, **kwargs))
        return result

    def request(self, request: object, /) -> Any:  # noqa: ANN401 - the host's own types
        """Have ``on_request`` answer; both pass through untouched."""
        return self._ask(partial(self._handle.request, request))

    def connect(
        self,
        *,
        id: str | None = None,  # noqa: A002 - PartyKit's word
        uri: str = "",
        tags: Iterable[str] = (),
        state: object = None,
        request: object = None,
    ) -> AbstractContextManager[BlockingClient]:
        """Connect a client for as long as the block runs; see :meth:`partyroom.RoomHandle.connect`."""
        return _Connecting(
            self._ask, partial(self._handle.connect, id=id, uri=uri, tags=tuple(tags), state=state, request=request)
        )

    def stored(self) -> dict[str, Any]:
        """Read the room's committed values, ordered by key, without waking it."""
        found: dict[str, Any] = self._ask(self._handle.stored)
        return found

    def list_alarms(self) -> list[AlarmInfo]:
        """Give all alarms of the room; see :meth:`partyroom.RoomHandle.list_alarms`."""
        found: list[AlarmInfo] = self._ask(self._handle.list_alarms)
        return found

    def ring_alarm(self, name: str | None = None, /) -> bool:
        """Have an alarm ring now; see :meth:`partyroom.RoomHandle.ring_alarm`."""
        return bool(self._ask(partial(self._handle.ring_alarm, name)))

    def pause_alarm(self, name: str | None = None, /) -> bool:
        """Keep an alarm from ringing; see :meth:`partyroom.RoomHandle.pause_alarm`."""
        return bool(self._ask(partial(self._handle.pause_alarm, name)))

    def resume_alarm(self, name: str | None = None, /) -> bool:
        """Let a paused alarm ring again; see :meth:`partyroom.RoomHandle.resume_alarm`."""
        return bool(self._ask(partial(self._handle.resume_alarm, name)))

    def delete_alarm(self, name: str | None = None, /) -> bool:
        """Delete an alarm; see :meth:`partyroom.RoomHandle.delete_alarm`."""
        return bool(self._ask(partial(self._handle.delete_alarm, name)))


@final
class _Connecting(AbstractContextManager["BlockingClient"]):
    """A client on its way in, and out again."""

    def __init__(self, ask: Ask, connect: Callable[[], Any]) -> None:
        self._ask = ask
        self._connect = connect
        self._connecting: Any = None

    @override
    def __enter__(self) -> BlockingClient:
        self._connecting = self._connect()
        return BlockingClient(self._ask, self._ask(self._connecting.__aenter__))

    @override
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        # A runtime that was closed within the block has closed the connection.
        with suppress(RuntimeClosedError):
            self._ask(partial(self._connecting.__aexit__, None, None, None))


@final
class BlockingClient:
    """The client's end of a connection."""

    def __init__(self, ask: Ask, client: Client) -> None:
        self._ask = ask
        self._client = client

    @override
    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def id(self) -> str:
        """The connection's id."""
        return self._client.id

    def send(self, message: str | bytes, /) -> None:
        """Hand a message to the room; returns when its mailbox has taken it."""
        self._ask(partial(self._client.send, message))

    def receive(self) -> str | bytes:
        """Wait for the next message; raises :class:`ConnectionClosedError` after the last one."""
        message: str | bytes = self._ask(self._client.receive)
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Iterate over the messages until the connection ends."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosedError:
                return
            yield message

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection."""
        self._ask(partial(self._client.close, code, reason))


@attrs.define(eq=False)
class _LoopThread:
    """The thread in which a runtime lives, from its opening to its closing."""

    runtime: Runtime
    loop: str
    _process: int = attrs.field(factory=os.getpid)
    _portal: BlockingPortal | None = None
    _stopped: Event | None = None
    _error: BaseException | None = None
    _thread: Thread = attrs.field(init=False)
    _ready: ThreadEvent = attrs.field(factory=ThreadEvent)

    def start(self) -> None:
        """Open the runtime in a thread of its own; raise what that raises."""
        # A daemon, so that a program may end without leaving the runtime: it is closed at exit.
        self._thread = Thread(target=self._main, name="partyroom", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def _main(self) -> None:
        try:
            run(self._live, backend=self.loop)
        except BaseException as error:  # noqa: BLE001 - raised where the runtime is opened or closed
            self._error = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        # The way in closes last: who waits for a message is told by the runtime's closing that there will be none.
        async with BlockingPortal() as self._portal:
            try:
                async with self.runtime:
                    self._stopped = Event()
                    self._ready.set()
                    await self._stopped.wait()
            except Exception as error:  # noqa: BLE001 - told as it is, and not in the portal's group
                self._error = error

    def stop(self) -> None:
        """Close the runtime, and wait for the thread; raise what closing raised."""
        assert self._portal is not None
        assert self._stopped is not None
        self._portal.start_task_soon(self._set_stopped)
        self._thread.join()
        if self._error is not None:
            raise self._error

    async def _set_stopped(self) -> None:
        assert self._stopped is not None
        self._stopped.set()

    def is_of_this_process(self) -> bool:
        """Say whether the thread is this process's, and not its parent's."""
        return self._process == os.getpid()

    def check_process(self) -> None:
        """Refuse to be used in a forked child."""
        if not self.is_of_this_process():
            message = f"this runtime lives in process {self._process}; a forked child must open one of its own"
            raise RuntimeStateError(message)

    def ask(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the thread, and wait for it; an interrupted wait withdraws it, as far as G6 lets it."""
        self.check_process()
        if get_ident() == self._thread.ident:
            message = "a room's code uses self.ctx, and must not wait for its own thread"
            raise RuntimeStateError(message)
        assert self._portal is not None
        try:
            future = self._portal.start_task_soon(fn)
        except RuntimeError as error:
            message = "the runtime is closed"
            raise RuntimeClosedError(message) from error
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
