"""The runtime for code that waits: opened and closed by hand, by a block, or by the program's end.

Owns the place where a :class:`~partyroom.Runtime` lives, from its opening to its
closing.

Promises that it closes by itself when the program ends, that it may be opened
again after it was closed, and that whoever may not use it is told why.

Must never know how that place runs a loop.
"""

from __future__ import annotations

import atexit
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Literal, Self, TypeVar, final

from typing_extensions import override

from partyroom._services import RoomFactory
from partyroom.blocking._home import Home
from partyroom.blocking._loop_thread import LoopThread
from partyroom.blocking._own_thread import OwnThread
from partyroom.blocking.rooms import Ask, BlockingParty, BlockingRoomHandle, Parties
from partyroom.errors import RuntimeClosedError, RuntimeStateError
from partyroom.observer import Observer
from partyroom.protocols import AlarmScheduler, Clock, Codec, StorageBackend
from partyroom.runtime import Runtime
from partyroom.statistics import Statistics, StoredStatistics, WhyAwake
from partyroom.types import Limits, RingReport

__all__ = ["BlockingRuntime"]

T = TypeVar("T")


@final
class BlockingRuntime:
    """All the rooms of one process, for code that waits: ``with BlockingRuntime({...}, backend=...) as runtime``.

    Constructing one opens nothing, so that it may stand at the top of a module. ``with``, or :meth:`open` for programs
    that have no place for a block, opens the backend and rings what is overdue; leaving it, :meth:`close`, or the end of
    the program handles what was accepted, commits it and closes the clients. It may be opened again after that.

    The options are those of :class:`~partyroom.Runtime`. ``alarms`` also says in which thread the rooms live.

    ``"auto"``: in a thread of the runtime's own, on the event loop that ``loop`` names. Alarms ring in the background,
    idle rooms fall asleep, and any number of threads may use it at once. What servers want.

    ``"manual"``: in the thread that opened it, on asyncio, and in no other; it starts none. Rooms go on while a call of
    that thread waits, and stand still between two calls: alarms ring in :meth:`ring_due` and nowhere else, a message
    that :meth:`BlockingClient.send` has handed over is handled while a later call waits (:meth:`wait_idle` is one), and
    time-outs are noticed then. So handlers may use what belongs to that thread: a ``sqlite3`` connection, a window. What
    scripts, game loops and GUI programs want. Another thread is refused, and so is one in which an event loop runs (a
    notebook's cells do: ``"auto"`` there, or a :class:`~partyroom.Runtime` and ``await``). An interrupt (Ctrl-C) ends
    the call that waits, as if it had been cancelled (G6), and the runtime may be used on.

    In a child that was forked it raises :class:`~partyroom.RuntimeStateError`: open one there, after the fork, with a
    file of its own.
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
        if alarms == "manual" and loop != "asyncio":
            message = f'with alarms="manual" rooms live in the caller\'s thread, on asyncio only, not on {loop}'
            raise ValueError(message)
        self._loop = loop
        self._lock = Lock()
        self._home: Home | None = None
        self._moving: Home | None = None
        """The home that is being opened or closed, by whoever holds the lock."""
        self._parties = Parties(Ask(self._ask, self._runtime.clock), self._runtime.parties)

    @override
    def __repr__(self) -> str:
        return f"<Blocking{repr(self._runtime)[1:]}"

    # --- its life ------------------------------------------------------------

    def open(self) -> Self:
        """Open the runtime; raise what its backend raises, or :class:`RuntimeStateError` if it is open."""
        self._check_caller()
        with self._lock:
            if self._home is not None:
                self._home.check()
                message = "this runtime is open already"
                raise RuntimeStateError(message)
            home = self._moving = (
                OwnThread(self._runtime) if self._runtime.alarms == "manual" else LoopThread(self._runtime, self._loop)
            )
            try:
                home.start()
            finally:
                self._moving = None
            self._home = home
        atexit.register(self._close_at_exit)
        return self

    def close(self) -> None:
        """Close the runtime, and return when it has closed; harmless if it is not open."""
        self._check_caller()
        with self._lock:
            home = self._home
            if home is None:
                return
            home.check()
            self._moving = home
            self._home = None
            atexit.unregister(self._close_at_exit)
            try:
                home.stop()
            finally:
                self._moving = None

    def _check_caller(self) -> None:
        """Refuse a room's code before it waits for the lock: whoever holds it may be waiting for that code to end."""
        home = self._moving or self._home
        if home is not None:
            home.check()

    def _close_at_exit(self) -> None:
        home = self._home
        # A forked child ends with a copy of this, and with nothing to wait for. A program whose only user was another
        # thread, with alarms by hand, ends as by a kill: what was told as stored is.
        if home is not None and home.may_be_used():
            self.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _ask(self, fn: Callable[[], Awaitable[T]]) -> T:
        home = self._home
        if home is None:
            message = "the runtime is not open: use it inside `with`, or call open()"
            raise RuntimeClosedError(message)
        return home.ask(fn)

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
