"""Parties, rooms and clients for tests without ``async``: the verbs of the asynchronous ones, each waited for.

Owns nothing but the names: what is done is done by the harness, which says how
(:class:`Driver`).

Promises that each call returns when what it asked for is done and nothing is in
flight, so that such a test sees rooms at rest only.

Must never wait by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, final

from typing_extensions import override

from partyroom.errors import ConnectionClosedError
from partyroom.protocols import Party, RoomHandle
from partyroom.testing.fake_client import FakeClient
from partyroom.testing.harness import Harness
from partyroom.types import AlarmInfo

__all__ = ["BlockingClient", "BlockingParties", "BlockingParty", "BlockingRoom", "Driver"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Driver(Protocol):
    """The harness, as these ask it."""

    harness: Harness
    """The harness itself, of which the loop's own code may be asked."""

    def do(self, fn: Callable[..., Awaitable[T]], /, *args: object) -> T:
        """Run any async function in the loop, and settle."""
        ...

    def do_in_time(self, fn: Callable[[], Awaitable[T]], /) -> T:
        """Run an async function in the loop, let time pass while it waits for a room, and settle."""
        ...


@final
class BlockingClient:
    """A client with an inbox. As a context manager, it hangs up at the end of the block."""

    def __init__(self, client: FakeClient, harness: Driver) -> None:
        self._client = client
        self._harness = harness

    @override
    def __repr__(self) -> str:
        return f"<BlockingClient {self.id!r} of {self._client.room}>"

    @property
    def id(self) -> str:
        """The connection's id."""
        return self._client.id

    @property
    def inbox(self) -> list[str | bytes]:
        """All messages that have come so far, in order."""
        return self._client.inbox

    @property
    def closed(self) -> ConnectionClosedError | None:
        """How the connection ended; ``None`` while it is open."""
        return self._client.closed

    def send(self, message: str | bytes, /) -> None:
        """Send a message, and settle."""
        self._harness.do(self._client.send, message)

    def receive(self) -> str | bytes:
        """Give the next message that was not asked for yet; time passes as far as it has to. See :meth:`FakeClient.receive`."""
        return self._harness.do_in_time(self._client.receive)

    def received(self) -> list[str | bytes]:
        """Give the messages that have come since this was last asked, in order."""
        return self._harness.do(self._client.received)

    def expect(self, *messages: str | bytes) -> None:
        """Raise an ``AssertionError`` unless exactly these messages have come since this was last asked."""
        self._harness.do(self._client.expect, *messages)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Hang up, and settle."""
        self._harness.do(self._client.close, code, reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        # A crash, or the harness's own end, has closed it within the block.
        if self.closed is None:
            self.close()


@final
class BlockingRoom:
    """The way to one room: the verbs of :class:`~partyroom.RoomHandle`, each of which waits and settles."""

    def __init__(self, handle: RoomHandle, harness: Driver) -> None:
        self.handle = handle
        """The room's handle, for code of the loop's own."""
        self._harness = harness

    @override
    def __repr__(self) -> str:
        return f"<BlockingRoom {self.handle.party}/{self.handle.id}>"

    @property
    def id(self) -> str:
        """The room's id."""
        return self.handle.id

    @property
    def party(self) -> str:
        """The name of the room's party."""
        return self.handle.party

    def call(self, method: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method of the room as an event, and settle. If it sleeps on ``ctx.clock``, time passes as far as it has to."""

        async def call() -> T:
            return await self.handle.call(method, *args, **kwargs)

        return self._harness.do_in_time(call)

    def request(self, request: object, /) -> Any:  # noqa: ANN401 - the host's own types
        """Have ``on_request`` answer, and settle; time as for ``call``."""
        return self._harness.do_in_time(partial(self.handle.request, request))

    def stored(self) -> dict[str, Any]:
        """Read the room's committed values, without waking it."""
        return self._harness.do(self.handle.stored)

    def connect(
        self,
        *,
        id: str | None = None,  # noqa: A002 - PartyKit's word
        uri: str = "",
        tags: Iterable[str] = (),
        state: object = None,
        request: object = None,
    ) -> BlockingClient:
        """Connect a client that stays until it is closed or the test ends."""
        connect = partial(
            self._harness.harness.connect, self.handle, id=id, uri=uri, tags=tags, state=state, request=request
        )
        return BlockingClient(self._harness.do(connect), self._harness)

    def list_alarms(self) -> list[AlarmInfo]:
        """Give all alarms of the room; see :meth:`partyroom.RoomHandle.list_alarms`."""
        return self._harness.do(self.handle.list_alarms)

    def ring_alarm(self, name: str | None = None, /) -> bool:
        """Have an alarm ring now; see :meth:`partyroom.RoomHandle.ring_alarm`."""
        return self._harness.do(self.handle.ring_alarm, name)

    def pause_alarm(self, name: str | None = None, /) -> bool:
        """Keep an alarm from ringing; see :meth:`partyroom.RoomHandle.pause_alarm`."""
        return self._harness.do(self.handle.pause_alarm, name)

    def resume_alarm(self, name: str | None = None, /) -> bool:
        """Let a paused alarm ring again; see :meth:`partyroom.RoomHandle.resume_alarm`."""
        return self._harness.do(self.handle.resume_alarm, name)

    def delete_alarm(self, name: str | None = None, /) -> bool:
        """Delete an alarm; see :meth:`partyroom.RoomHandle.delete_alarm`."""
        return self._harness.do(self.handle.delete_alarm, name)


@final
class BlockingParty:
    """All the rooms of one kind."""

    def __init__(self, name: str, harness: Driver) -> None:
        self.name = name
        """The name that the test gave it."""
        self._harness = harness

    def get(self, id: str, /) -> BlockingRoom:  # noqa: A002 - PartyKit's word
        """Give the way to a room, whether or not it exists yet."""
        return BlockingRoom(self._party.get(id), self._harness)

    def rooms(self, *, prefix: str = "", start_after: str | None = None, limit: int = 1000) -> list[str]:
        """Give the ids of stored rooms, in order."""
        return self._harness.do(partial(self._party.rooms, prefix=prefix, start_after=start_after, limit=limit))

    def list_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's alarms that will ring; see :meth:`partyroom.Party.list_alarms`."""
        return self._harness.do(partial(self._party.list_alarms, start_after=start_after, limit=limit))

    def parked_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's alarms that will not ring by themselves; see :meth:`partyroom.Party.parked_alarms`."""
        return self._harness.do(partial(self._party.parked_alarms, start_after=start_after, limit=limit))

    def failed_alarms(self, *, start_after: AlarmInfo | None = None, limit: int = 1000) -> list[AlarmInfo]:
        """Give the party's failed alarms, with their errors (G12)."""
        return self._harness.do(partial(self._party.failed_alarms, start_after=start_after, limit=limit))

    @property
    def _party(self) -> Party:
        return self._harness.harness.parties[self.name]


@final
class BlockingParties(Mapping[str, BlockingParty]):
    """All parties, by name."""

    def __init__(self, harness: Driver) -> None:
        self._harness = harness

    @override
    def __getitem__(self, name: str) -> BlockingParty:
        return BlockingParty(self._harness.harness.parties[name].name, self._harness)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._harness.harness.parties)

    @override
    def __len__(self) -> int:
        return len(self._harness.harness.parties)
