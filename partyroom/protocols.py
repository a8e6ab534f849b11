"""The contracts: what a room is given, and what authors of rooms and plug-ins supply.

Owns no behaviour. What an author supplies comes first (:class:`Room`,
:class:`StorageBackend`, :class:`AlarmScheduler`, :class:`Clock`,
:class:`Codec`), then what a room and a host are handed (:class:`RoomContext`,
:class:`Storage`, :class:`Connection`, :class:`Client`, :class:`RoomHandle`,
:class:`Party`, :class:`RoomClock`, :class:`TaskGroup`).

Promises are written at the method that keeps them, with their numbers (G1,
G2, ...) as the README lists them. Anything that has the shape serves: nothing
here has to be inherited from.

Must never import an event loop or anything below ``errors`` and ``types``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import (
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
    runtime_checkable,
)

from partyroom.errors import CommitError
from partyroom.recurrence import Recurrence
from partyroom.types import Alarm, AlarmCursor, AlarmInfo, AlarmRow, Commit, KeyRange, RetryPolicy, RoomKey, Timer

__all__ = [
    "AlarmScheduler",
    "Client",
    "Clock",
    "Codec",
    "Connection",
    "Party",
    "Room",
    "RoomClock",
    "RoomContext",
    "RoomHandle",
    "Storage",
    "StorageBackend",
    "TaskGroup",
    "Upcoming",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

AlarmInfos = list[AlarmInfo]
"""A name for what a class with a method ``list`` cannot spell."""


# --- what authors supply -----------------------------------------------------


class Room(Protocol):
    """A named object that handles one event at a time, keeps durable state and sets alarms.

    Subclass it and override the callbacks you need; any object of this shape serves as well, a missing callback being
    the default (type checkers want to see them all, or the subclass). What comes first wakes the room: constructor, then
    ``on_start``, then the event (G2). Each callback is one event: what it writes and sends takes effect together when it
    returns, and not at all if it raises (G3).
    """

    ctx: RoomContext
    """The room's identity, storage, connections and way to other rooms."""

    hibernate: bool = False
    """Whether the room may sleep while clients are connected, unnoticed by them (G20). A class attribute."""

    alarm_retry: RetryPolicy = RetryPolicy()
    """When an alarm whose handler raised rings again (G12)."""

    same_id: Literal["allow", "replace", "refuse"] = "allow"
    """What becomes of a second connection with the id of an open one: both stay, the older is closed with 1000 as soon as
    the newer is let in, or the newer is refused with 1008. Removal is by identity: the newer is never lost when the older
    closes (G19). A class attribute."""

    def __init__(self, ctx: RoomContext) -> None:
        """Keep the context. Storage cannot be used yet: that is what ``on_start`` is for."""
        self.ctx = ctx

    async def on_start(self) -> None:
        """Run once in each life of the instance, to its end, before any other event (G2).

        An event of its own. If it raises, the event that woke the room fails with that error (an alarm is not used up
        by it, but rings again later), and the next event starts afresh.
        """
        return

    async def on_connect(self, connection: Connection, /) -> None:
        """Run when a client connects, and to its end before that client's first message (G19).

        Raise :class:`ConnectRejectedError`, or close the connection, to refuse it.
        """
        return

    async def on_message(self, message: str | bytes, sender: Connection, /) -> None:
        """Run for each message of a client, in the order of arrival."""
        return

    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool, /) -> None:  # noqa: FBT001 - PartyKit's own signature
        """Run when a connection has ended and is no longer among ``ctx.get_connections()`` (G19)."""
        return

    async def on_error(self, connection: Connection, error: Exception, /) -> None:
        """Hear of an exception in ``on_connect``, ``on_message`` or ``on_close``; by default it is logged."""
        return

    async def on_request(self, request: Any, /) -> Any:  # noqa: ANN401 - the host's own types pass through
        """Answer ``handle.request(request)``. Without an override the caller gets :class:`NoHandlerError`."""
        return None

    async def on_alarm(self, alarm: Alarm, /) -> None:
        """Run when an alarm rings: never early, and again after an error (G8 to G12).

        The alarm goes away in the commit that stores what this handler did (G9).
        """
        return

    async def on_alarm_failed(self, alarm: Alarm, error: Exception, /) -> None:
        """Hear that an alarm has raised for the last time: it is kept as failed, or goes on to its next occurrence (G12).

        An event of its own, right after the one that failed. Not called again if it raises, or if the process ends.
        """
        return

    def connection_tags(self, connection: Connection, /) -> Iterable[str]:
        """Compute further tags for a connection, before ``on_connect``."""
        return ()


@runtime_checkable
class StorageBackend(Protocol):
    """A store for rooms: small, with one way to write.

    An async context manager that may be entered again after it was left, and then shows what was durable. All methods
    are called from one event loop, several at once; reads may overlap a running ``commit``, and each shows a state
    between two commits. The runtime has at most one ``commit`` outstanding, so whatever waits meanwhile comes as one
    group. Any call may be cancelled: a commit is then stored whole or not at all, and the store goes on.

    Errors are :class:`BackendError` or a subclass of it, whose message says what happened to which file; the backend
    must be usable again as soon as the fault is gone. Not open: :class:`BackendClosedError`. ``partyroom.testing``
    ships ``BackendContract``, which judges an implementation.
    """

    async def __aenter__(self) -> Self:
        """Open the store; raise a :class:`BackendError` if that is impossible."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close the store. What was committed stays."""
        ...

    async def claim(self, room: RoomKey, /) -> int:
        """Take the room and give the *fence* to commit with: higher than any given for this room before.

        From then on a commit of that room with any other fence is refused. A claim ends when a commit that says
        ``release`` is durable, whether or not that stores anything else, and when the store is closed.
        """
        ...

    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        """Give the values of those of ``keys`` that exist, bytes exactly as they were put."""
        ...

    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        """Give the first ``limit`` entries of a range, in its order: fewer only if there are no more."""
        ...

    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        """Apply a group of commits in order: each whole or not at all, all of them durable on return.

        The answer has one entry for each commit, in order: ``None`` for one that is durable, else why it was refused
        (:class:`FencedError` for a lost claim). One's refusal is not another's. If the whole call raises, nothing is
        known: the runtime tries the commits again one by one, and a commit applied twice must be as one applied once.
        """
        ...

    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        """Give all alarms of a room, parked ones included, by name."""
        ...

    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        """Give the first ``limit`` alarms that have a due time, of all rooms, ordered by (due, room, name).

        ``before`` is exclusive, in microseconds since 1970-01-01 UTC, ``None`` for no bound; ``after`` is the place
        to go on from, exclusive, ``None`` for the beginning.
        """
        ...

    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        """Give the first ``limit`` alarms of a party without a due time, ordered by (room id, name).

        ``after`` is the (room id, name) to go on from, exclusive, ``None`` for the beginning.
        """
        ...

    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        """Give the first ``limit`` ids in a range of the party's rooms that hold a value or an alarm, in its order."""
        ...


class Upcoming(NamedTuple):
    """One stored alarm that will ring: when (UTC), in which room, under which name (``""`` for none)."""

    due: datetime
    room: RoomKey
    name: str


class AlarmScheduler(Protocol):
    """What decides when rooms with due alarms are woken: one runtime's, and used from its event loop only.

    It is an index and no store: alarms live in the rooms' own commits, so whatever a scheduler forgets or gets wrong
    can be read again with ``upcoming``. Waking a room too early or twice rings nothing that is not due, for the room
    looks for itself (G8, G9); it costs a wake.

    A room's *next alarm* is the one that :meth:`changed` told last; of a room that it told nothing of, the first one that
    ``upcoming`` gives. What a scheduler keeps:

    *In time.* A room is woken when its next alarm is due by the wall clock: at that time or after, never before, also if
    that clock was set in between, either way. What has passed is woken at once: what was overdue when ``run`` began, and
    what is set for the past. A time may be as far away as a ``datetime`` can be.

    *In order.* Of what is due, the earlier comes first. Rooms that are due at one instant come in any order, each once.

    *As told last.* A moved alarm is woken at its new time only, a deleted one not at all. A change counts also before
    ``run`` has begun, and during a read: it is newer than what that read gives, or what is stored.

    *Once for each answer.* A room that was woken is not woken again before the next :meth:`changed` of it, which is its
    answer: rings are not counted against the bound of its mailbox. A room that does not answer holds up no other; how
    many may be waking at once may be bounded.

    *On and on.* A read that raises is tried again later. ``run`` ends by being cancelled and in no other way, soon,
    wherever it waits; from then on nobody is woken, and no task of it is left. It may be called again, and begins anew
    with what is stored.

    ``partyroom.testing`` ships ``AlarmSchedulerContract``, which judges an implementation.
    """

    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        """Hear that a room's next alarm is now ``due`` (UTC), or that it has none, or none that could be rung.

        Called after the commit that changed it, from the runtime's event loop, also before ``run`` has begun and after
        it has ended. Every ``wake`` is answered by a call of this, when the ring is over or has failed, at the earliest
        before ``wake`` has returned: a time that has passed asks for another wake at once, and a later time than is
        stored means that the room cannot start now. Must return at once and never raise.
        """
        ...

    async def run(
        self,
        wake: Callable[[RoomKey], None],
        upcoming: Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]],
        /,
    ) -> None:
        """Call ``wake(room)`` when a room's next alarm is due, until cancelled.

        ``await upcoming(after, limit)`` reads the next stored alarms, at most ``limit``, in the order (due, room, name),
        beginning after the given one; those of parties that the runtime does not have are left out. It raises what the
        backend raises. ``wake`` is called in the thread of the event loop, and returns at once. An error that leaves
        ``run`` ends the runtime.
        """
        ...


class Clock(Protocol):
    """The one place that knows the time, on two lines that may part.

    *Wall time* decides alarms; *monotonic time* decides idle time, time-outs and back-off within a process. ``timer``
    says who waits, for clocks that put those in order who sleep on them; any other clock ignores it.
    """

    def now(self) -> datetime:
        """Give the wall time, in UTC. It may jump either way."""
        ...

    def monotonic(self) -> float:
        """Give the monotonic time, in seconds from an arbitrary beginning. It never goes back."""
        ...

    async def sleep_until(self, when: datetime, /, *, timer: Timer = ...) -> None:
        """Return at ``when`` in wall time or after, never before; at once if it has come."""
        ...

    async def sleep(self, duration: timedelta, /, *, timer: Timer = ...) -> None:
        """Return after ``duration`` in monotonic time or later, never earlier; at once if it is not positive."""
        ...


class Codec(Protocol):
    """Turns values into bytes and back.

    What ``decode(encode(value))`` gives must be equal to ``value``, of the same type, and share nothing mutable with
    it; anything else is refused by ``encode`` (G15).
    """

    def encode(self, value: object, /) -> bytes:
        """Give the bytes of a value, and nothing else that holds bytes or text: that is refused.

        Raise :class:`NotStorableError` (its ``key`` empty) for a value that cannot be kept.
        """
        ...

    def decode(self, data: bytes, /) -> Any:  # noqa: ANN401 - an author's own values
        """Give a fresh value; raise :class:`DecodeError` for bytes that ``encode`` has not made."""
        ...


# --- what a room and a host are handed ---------------------------------------


class Storage(Protocol):
    """A room's durable key-value storage and its alarms (G8 to G18).

    Usable inside an event of the room only, else :class:`OutsideEventError`. Keys are ``str``, ordered by their UTF-8
    bytes; values are copied in and out. Reads see every earlier write of the room. What an event writes is stored when
    it returns, all of it or nothing.
    """

    @overload
    async def get(self, key: str, /, default: None = None) -> Any: ...  # noqa: ANN401 - an author's own values
    @overload
    async def get(self, key: str, /, default: T) -> T: ...
    async def get(self, key: str, /, default: object = None) -> object:
        """Give a copy of the value, or ``default`` if there is none; a stored ``None`` is not missing."""
        ...

    async def put(self, key: str, value: object, /) -> None:
        """Set a value, copied now. Raises :class:`NotStorableError` or :class:`LimitExceededError`, storing nothing."""
        ...

    async def delete(self, key: str, /) -> bool:
        """Delete a value; say whether there was one."""
        ...

    async def get_many(self, keys: Iterable[str], /) -> dict[str, Any]:
        """Give copies of those values that exist, in the order of their keys."""
        ...

    async def put_many(self, values: Mapping[str, object], /) -> None:
        """Set several values: all, or none if one cannot be stored."""
        ...

    async def delete_many(self, keys: Iterable[str], /) -> int:
        """Delete several values; say how many there were."""
        ...

    async def list(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Give the entries of a range, ordered by key (G17).

        ``start`` is inclusive, ``start_after`` and ``end`` are exclusive, ``prefix`` is intersected with them.
        ``reverse`` turns only the order of the output, ``limit`` counts from its beginning. Without bounds it is the
        whole room; see ``scan`` for large ones.
        """
        ...

    def scan(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over a range as ``list`` orders it, reading page by page. Writes made meanwhile, ahead of it, are seen."""
        ...

    async def delete_all(self) -> None:
        """Delete all values and all alarms of the room (G13). What is written after it, in the same event, stays."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Open a smaller unit inside the event: if the body raises, its writes and outputs are undone (G3). Nests.

        It is left by the task that entered it, and before the event ends. One that a generator has entered is left when
        that is closed (``contextlib.aclosing``): an event that ends before fails (``RuntimeError``), for what it wrote
        since would be lost.
        """
        ...

    async def sync(self) -> None:
        """Commit what the event has done so far, let its outputs go, and return when it is durable (G3).

        A later raise undoes only what came after. Refused (``RuntimeError``) inside ``transaction`` and in a nested event.
        """
        ...

    async def get_alarm(self, name: str | None = None, /) -> datetime | None:
        """Give when the alarm of that name rings next, in UTC; ``None`` if it does not, so never a time that will not ring (G10)."""
        ...

    async def set_alarm(
        self,
        when: datetime | timedelta | Recurrence,
        /,
        *,
        name: str | None = None,
        payload: object = None,
        retry: RetryPolicy | None = None,
        spread: timedelta = timedelta(),
    ) -> None:
        """Set the alarm of that name, replacing the one there is (G10).

        ``when`` is an aware ``datetime`` in any zone, a ``timedelta`` from now, or a recurrence (:class:`Every`,
        :class:`Cron`); the past rings at once. Setting a recurrence that is set already keeps its next time, so that
        ``on_start`` may declare schedules at every start. ``payload`` is copied. ``retry`` is this alarm's own policy;
        without it, the room's ``alarm_retry`` holds. ``spread`` is the longest random delay of each ring, for alarms
        of many rooms that would all ring at once. Stored in the event's own commit (G13). Raises
        :class:`AlarmTimeError` for any other ``when``, :class:`NoHandlerError` if the room has no ``on_alarm`` (G14).
        """
        ...

    async def delete_alarm(self, name: str | None = None, /) -> None:
        """Delete the alarm of that name, its retries included, or a failed one; nothing happens if there is none.

        In its own handler it ends the recurrence of the alarm that rings.
        """
        ...

    async def list_alarms(self) -> AlarmInfos:
        """Give all alarms of the room, failed and paused ones included: by next time, then by name, those without one last.

        In its own handler the alarm that rings is not among them, until it is set again (G11).
        """
        ...

    async def ring_alarm(self, name: str | None = None, /) -> bool:
        """Have the alarm of that name ring now, pending, paused or failed, with all of its retries before it again.

        A recurrence goes on as if it had not been. Say whether there is such an alarm.
        """
        ...

    async def pause_alarm(self, name: str | None = None, /) -> bool:
        """Keep the alarm of that name from ringing until it is resumed; say whether there is one that would ring."""
        ...

    async def resume_alarm(self, name: str | None = None, /) -> bool:
        """Let a paused alarm ring again: at its time, or at once if that has passed; a recurrence at its next occurrence.

        Say whether there is a paused alarm of that name.
        """
        ...


class Connection(Protocol):
    """The room's end of a connection. It outlives the instance when the room hibernates (G20)."""

    @property
    def id(self) -> str:
        """The connection's id: given by the host, else random."""
        ...

    @property
    def uri(self) -> str:
        """The address that the host gave, or ``""``."""
        ...

    @property
    def tags(self) -> frozenset[str]:
        """The host's tags and those of ``connection_tags``."""
        ...

    @property
    def request(self) -> Any:  # noqa: ANN401 - the host's own type
        """What the host handed to ``connect``; ``None`` once ``on_connect`` has ended."""
        ...

    @property
    def state(self) -> Any:  # noqa: ANN401 - an author's own value
        """A copy of the state; ``None`` until it is set."""
        ...

    def set_state(self, value: object, /) -> None:
        """Replace the state, copied now and bounded by ``Limits.state_bytes``. It survives sleep, not the process."""
        ...

    def send(self, message: str | bytes, /) -> None:
        """Send a message when the event returns and is safe (G4). Never waits (G21). To one that has ended: nothing happens."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, after the messages sent before, when the event returns and is safe."""
        ...


class Client(Protocol):
    """The client's end of a connection, which the host holds."""

    @property
    def id(self) -> str:
        """The connection's id."""
        ...

    async def send(self, message: str | bytes, /) -> None:
        """Hand a message to the room; returns when its mailbox has taken it, and waits while that is full (G6).

        Raises :class:`ConnectionClosedError` when the connection has ended.
        """
        ...

    async def receive(self) -> str | bytes:
        """Wait for the next message; raises :class:`ConnectionClosedError` after the last one."""
        ...

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the messages until the connection ends."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection; returns when the room's mailbox has taken the news. Doing it twice is harmless.

        1006 is how a host says that the client has left without a word: the room hears that it was not clean.
        """
        ...


class RoomHandle(Protocol):
    """What a host, or another room, holds to reach one room. Making one wakes nothing."""

    @property
    def id(self) -> str:
        """The room's id."""
        ...

    @property
    def party(self) -> str:
        """The name of the room's party."""
        ...

    def connect(
        self,
        *,
        id: str | None = None,  # noqa: A002 - PartyKit's word
        uri: str = "",
        tags: Iterable[str] = (),
        state: object = None,
        request: object = None,
    ) -> AbstractAsyncContextManager[Client]:
        """Connect a client: enters when ``on_connect`` is done and safe (G19), closes the connection on leaving.

        ``id`` is random unless given. ``request`` is any object of the host's, for ``on_connect`` to look at. Raises
        :class:`ConnectRejectedError` if the room refuses.
        """
        ...

    async def request(self, request: object, /) -> Any:  # noqa: ANN401 - the host's own types
        """Have ``on_request`` answer; both pass through untouched. Raises :class:`NoHandlerError` if the room has none."""
        ...

    async def call(self, method: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async method of the room's class, or any async function whose first parameter is the room, as an event.

        Returns its result, uncopied, when the event is done and safe (G4, G6); raises what it raised. A method is
        looked up by name on the instance, so that overrides win; one of another class is a :class:`WrongRoomError`.
        Cancelling the caller withdraws an event that has not begun, and changes nothing about one that has.
        """
        ...

    async def stored(self) -> dict[str, Any]:
        """Read the room's committed values, ordered by key, without waking it."""
        ...

    async def list_alarms(self) -> list[AlarmInfo]:
        """Give the room's alarms, as :meth:`Storage.list_alarms` does, without starting the room."""
        ...

    async def ring_alarm(self, name: str | None = None, /) -> bool:
        """Have an alarm ring now, as :meth:`Storage.ring_alarm` does; returns when that is stored, not when it has rung."""
        ...

    async def pause_alarm(self, name: str | None = None, /) -> bool:
        """Keep an alarm from ringing, as :meth:`Storage.pause_alarm` does, without starting the room."""
        ...

    async def resume_alarm(self, name: str | None = None, /) -> bool:
        """Let a paused alarm ring again, as :meth:`Storage.resume_alarm` does, without starting the room."""
        ...

    async def delete_alarm(self, name: str | None = None, /) -> bool:
        """Delete an alarm, also a failed one, without starting the room; say whether there was one."""
        ...


class Party(Protocol):
    """All the rooms of one kind."""

    @property
    def name(self) -> str:
        """The name that the host gave it."""
        ...

    def get(self, id: str, /) -> RoomHandle:  # noqa: A002 - PartyKit's word
        """Give the handle of a room, whether or not it exists yet. Raises :class:`InvalidRoomIdError`, :class:`LimitExceededError`."""
        ...

    async def rooms(self, *, prefix: str = "", start_after: str | None = None, limit: int = 1000) -> list[str]:
        """Give the ids of stored rooms, those that hold a value or an alarm, in order."""
        ...

    async def list_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's alarms that will ring, by time, room and name; ``start_after`` is the last one of the page before."""
        ...

    async def parked_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's alarms that will not ring by themselves, failed or paused, by room and name."""
        ...

    async def failed_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's failed alarms, with their errors, by room and name (G12)."""
        ...


class TaskGroup(Protocol):
    """What ``ctx.task_group()`` gives: a task group whose branches the runtime counts."""

    def start_soon(self, fn: Callable[..., Awaitable[object]], /, *args: object) -> None:
        """Start a branch; the block ends when all have."""
        ...


class RoomClock(Protocol):
    """The runtime's clock as a room sees it: waiting on it is counted, so that a fake clock knows it may move."""

    def now(self) -> datetime:
        """Give the wall time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Give the monotonic time, in seconds."""
        ...

    async def sleep(self, duration: timedelta, /) -> None:
        """Wait in monotonic time; no other event of the room runs meanwhile."""
        ...

    async def sleep_until(self, when: datetime, /) -> None:
        """Wait until a wall time has come."""
        ...

    def fail_after(self, duration: timedelta, /) -> AbstractAsyncContextManager[None]:
        """Cancel the body after a time, and raise ``TimeoutError``."""
        ...

    def move_on_after(self, duration: timedelta, /) -> AbstractAsyncContextManager[None]:
        """Cancel the body after a time, and go on behind it."""
        ...


class RoomContext(Protocol):
    """What a room is given: its identity and everything it can do. Identity works everywhere (G7)."""

    @property
    def id(self) -> str:
        """The room's id."""
        ...

    @property
    def party(self) -> str:
        """The name of the room's party."""
        ...

    @property
    def storage(self) -> Storage:
        """The room's storage and alarms."""
        ...

    @property
    def parties(self) -> Mapping[str, Party]:
        """The runtime's parties, by name: the way to other rooms, from every callback."""
        ...

    @property
    def clock(self) -> RoomClock:
        """The runtime's clock."""
        ...

    def get_connections(self, tag: str | None = None, /) -> Sequence[Connection]:
        """Give the open connections, the oldest first; with ``tag``, those that have it."""
        ...

    def get_connection(self, id: str, /) -> Connection | None:  # noqa: A002 - PartyKit's word
        """Give the newest open connection of that id, or ``None``."""
        ...

    def broadcast(self, message: str | bytes, /, without: Collection[str | Connection] = ()) -> None:
        """Send a message to all open connections but ``without`` (ids or connections), when the event is safe (G4, G21)."""
        ...

    def start_soon(self, fn: Callable[..., Awaitable[object]], /, *args: object) -> None:
        """Start a background task at once. It keeps the room awake, and is cancelled when the instance goes (G6a).

        It is not part of the event: it is not undone by a raise, and reaches the room's storage by ``run`` only.
        """
        ...

    def task_group(self) -> AbstractAsyncContextManager[TaskGroup]:
        """Open a task group for branches of this event that wait on the clock or on other rooms."""
        ...

    async def run(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn`` as an event of this room, and give its result when it is safe: the way back from a background task."""
        ...

    def abort(self, reason: str = "", /) -> NoReturn:
        """Throw the instance away: the running event fails with :class:`RoomAbortedError` and stores nothing (G3)."""
        ...
