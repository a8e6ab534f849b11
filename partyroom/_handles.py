"""What a host holds to reach rooms: parties, handles, and a client on its way in and out.

Owns the way from a verb of the host's to an event of the room: which handler it
runs, under which name it is shown, and how its arguments are checked.

Promises that a handle holds nothing but a name, so that making one wakes
nothing and one outlives sleep, restart and crash of its room.

Must never know how a runtime begins or ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, final

from typing_extensions import override

from partyroom._calls import deliver, perform
from partyroom._core.alarm_life import look_at
from partyroom._core.instants import to_micros
from partyroom._core.keys import check_limit, check_name, check_room_id, key_range
from partyroom._engine import Engine
from partyroom._handlers import run_method, run_on_connect, run_on_message, run_on_request
from partyroom._inbox import Inbox
from partyroom._room_storage import RoomStorage
from partyroom._services import Services
from partyroom.connections import RoomClient, RoomConnection
from partyroom.errors import ConnectRejectedError, PartyroomError, RuntimeStateError, UnknownPartyError
from partyroom.protocols import Client, Codec, Party, RoomHandle, StorageBackend
from partyroom.types import AlarmCursor, AlarmInfo, KeyRange, Limits, RoomKey

__all__ = ["OpenRuntime", "Parties", "PartyOf"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

PAGE: Final = 1000
"""How many stored entries are read at a time."""
INTERNAL_ERROR: Final = 1011
"""The close code for a client whose room failed (RFC 6455, 7.4.1)."""


class OpenRuntime(Protocol):
    """A runtime, as its handles see it."""

    @property
    def limits(self) -> Limits:
        """How large things may get (G18)."""
        ...

    @property
    def codec(self) -> Codec:
        """What turns values into bytes."""
        ...

    @property
    def backend(self) -> StorageBackend:
        """Where the rooms are stored."""
        ...

    def engine(self) -> Engine:
        """Give the running engine; raise if there is none, or none for the code that asks."""
        ...


@final
class Parties(dict[str, Party]):
    """The parties by name, for reading; a name that there is none of is said to be so."""

    def __missing__(self, name: str) -> Party:
        raise UnknownPartyError(name, tuple(self))


@final
class PartyOf(Party):
    """All the rooms of one kind."""

    __slots__ = ("_name", "_runtime")

    def __init__(self, runtime: OpenRuntime, name: str) -> None:
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
        return Handle(self._runtime, RoomKey(self._name, room_id))

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
        rows = await self._runtime.engine().alarms.rows(None, cursor, check_limit(limit, self._name), party=self._name)
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
class Handle(RoomHandle):
    """The way to one room, whether it is awake or not, and over restarts."""

    __slots__ = ("_key", "_runtime")

    def __init__(self, runtime: OpenRuntime, key: RoomKey) -> None:
        self._runtime = runtime
        self._key = key

    @override
    def __repr__(self) -> str:
        return f"<handle of {self._key}>"

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and (self._key, self._runtime) == (other._key, other._runtime)

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
        return Connecting(self._runtime, self._key, partial(_make_connection, id, uri, tags, state, request))

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
class Connecting(AbstractAsyncContextManager[Client]):
    """A client on its way in, and out again."""

    __slots__ = ("_connection", "_key", "_make", "_runtime")

    def __init__(self, runtime: OpenRuntime, key: RoomKey, make: Callable[[Services, RoomKey], RoomConnection]) -> None:
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
        if not connection.was_let_in:
            # What a later event has closed meanwhile was let in: it is to receive what was sent before that.
            closed = connection.inbox.closed
            assert closed is not None
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
