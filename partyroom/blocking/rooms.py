"""What reaches rooms from code that waits: parties, handles and clients, with the verbs of the others without ``async``.

Owns nothing: each verb is handed to the loop in which the runtime lives.

Promises that errors are raised to the caller as a room raised them.

Must never know which thread that loop runs in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, final

from anyio import CancelScope, create_task_group
from typing_extensions import override

from partyroom.errors import ConnectionClosedError, RuntimeClosedError
from partyroom.protocols import Client, Clock, Party, RoomHandle
from partyroom.types import AlarmInfo

__all__ = ["Ask", "BlockingClient", "BlockingParty", "BlockingRoomHandle", "Parties"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@final
class Ask:
    """The way to where the runtime lives: runs an async function there, and waits for it."""

    __slots__ = ("_ask", "clock")

    def __init__(self, ask: Callable[[Callable[[], Awaitable[Any]]], Any], clock: Clock) -> None:
        self._ask = ask
        self.clock = clock
        """The runtime's own, by which whoever waits there gives up."""

    def __call__(self, fn: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what the function gives
        """Run it, and give its result."""
        return self._ask(fn)


@final
class Parties(Mapping[str, "BlockingParty"]):
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

    def receive(self, *, timeout: timedelta | None = None) -> str | bytes:
        """Wait for the next message; raises :class:`ConnectionClosedError` after the last one.

        With ``timeout`` it gives up after that time, by the runtime's clock, and raises ``TimeoutError``. The message that
        comes then is the next one to be received.
        """
        if timeout is None:
            message: str | bytes = self._ask(self._client.receive)
            return message
        _check_length(timeout)
        found: str | bytes | Exception | None = self._ask(partial(self._receive_within, timeout))
        if found is None:
            error = f"{self._client!r}: no message within {timeout}"
            raise TimeoutError(error)
        if isinstance(found, Exception):
            raise found
        return found

    async def _receive_within(self, length: timedelta) -> str | bytes | Exception | None:
        """Give what comes in time: a message, or why there is none."""
        found: str | bytes | Exception | None = None
        async with create_task_group() as tasks:
            tasks.start_soon(self._cancel_after, length, tasks.cancel_scope)
            try:
                found = await self._client.receive()
            except Exception as error:  # noqa: BLE001 - raised where it is not put into a group
                found = error
            tasks.cancel_scope.cancel()
        return found

    async def _cancel_after(self, length: timedelta, scope: CancelScope) -> None:
        await self._ask.clock.sleep(length)
        scope.cancel()

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


def _check_length(timeout: object) -> None:
    if not isinstance(timeout, timedelta):
        message = f"timeout must be a timedelta, not {type(timeout).__name__}"
        raise TypeError(message)
