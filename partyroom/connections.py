"""Connections: the room's end and the client's end of each.

Owns which connections a room has, and each connection's id, tags, address and
state, which outlive the room's instance (G20).

Promises that one slow or dead client never holds up a room (G21), and that a
connection is removed by identity, never by its id (G19).

Must never run a room's callbacks: it says what happened to whom it was told to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Final, final

from typing_extensions import override

from partyroom._core.keys import check_name
from partyroom._core.units import Place, unit_of
from partyroom._inbox import Inbox, message_size
from partyroom.errors import ConnectionClosedError, LimitExceededError, NotStorableError, OutsideEventError
from partyroom.protocols import Client, Codec, Connection
from partyroom.types import Limits, RoomKey

__all__ = ["Connections", "RoomClient", "RoomConnection", "check_message"]

ABNORMAL: Final = 1006
"""The close code for a client that left without saying so (RFC 6455, 7.4.1)."""
TRY_AGAIN_LATER: Final = 1013
"""The close code for a client that does not keep up (RFC 6455's registry: Try Again Later)."""


@final
class RoomConnection(Connection):
    """The room's end of one connection."""

    __slots__ = (
        "_abandoned",
        "_accepted",
        "_codec",
        "_home",
        "_id",
        "_limits",
        "_request",
        "_state",
        "_tags",
        "_uri",
        "inbox",
        "room",
    )

    def __init__(
        self,
        room: RoomKey,
        inbox: Inbox,
        codec: Codec,
        limits: Limits,
        *,
        id: str,  # noqa: A002 - PartyKit's word
        uri: str,
        tags: Iterable[str],
        request: object,
    ) -> None:
        self.room = room
        """Whose connection it is."""
        self.inbox = inbox
        """What waits for the client."""
        self._home: Connections | None = None
        self._codec = codec
        self._limits = limits
        self._id = id
        self._uri = uri
        self._tags = check_tags(tags, limits, str(self))
        self._request = request
        self._state: bytes | None = None
        self._accepted = False
        self._abandoned = False

    @override
    def __repr__(self) -> str:
        return f"<Connection {self._id!r} of {self.room}>"

    @override
    def __str__(self) -> str:
        return f"{self.room} connection {self._id!r}"

    @property
    @override
    def id(self) -> str:
        return self._id

    @property
    @override
    def uri(self) -> str:
        return self._uri

    @property
    @override
    def tags(self) -> frozenset[str]:
        return self._tags

    @property
    @override
    def request(self) -> Any:
        return self._request

    @property
    @override
    def state(self) -> Any:
        return None if self._state is None else self._codec.decode(self._state)

    @override
    def set_state(self, value: object, /) -> None:
        where = str(self)
        try:
            state = self._codec.encode(value)
        except NotStorableError as error:
            raise NotStorableError(f"state of {where}", error.path, error.reason) from None
        if len(state) > self._limits.state_bytes:
            raise LimitExceededError("state_bytes", len(state), self._limits.state_bytes, where)
        self._state = state

    @override
    def send(self, message: str | bytes, /) -> None:
        check_message(message)
        unit_of(self._place(), "a message was sent").send(partial(self.deliver, message, message_size(message)))

    @override
    def close(self, code: int = 1000, reason: str = "") -> None:
        unit_of(self._place(), "a connection was closed").send(partial(self.end, code, reason, was_clean=True))

    def _place(self) -> Place:
        """Give the awake room; raise if there is none, so that no event of it can be running."""
        if self._home is None or self._home.place is None:
            message = f"{self} was used while the room is not awake"
            raise OutsideEventError(message)
        return self._home.place

    def deliver(self, message: str | bytes, size: int) -> None:
        """Hand a message of so many bytes to the client; close the connection if it does not keep up (G21)."""
        if self.inbox.closed is None and not self.inbox.put(message, size):
            self.end(TRY_AGAIN_LATER, "too many messages wait to be received", was_clean=False)

    def end(self, code: int, reason: str, *, was_clean: bool) -> None:
        """End the connection from the room's side: it is none of the room's at once."""
        if self.inbox.closed is None:
            # Whoever ends it is the room, which had it join its connections first.
            assert self._home is not None
            self._home.discard(self)
            self.hang_up(code, reason, was_clean=was_clean)

    def hang_up(self, code: int, reason: str, *, was_clean: bool) -> None:
        """End the connection from the client's side: it is the room's until the messages sent before are handled."""
        if self.inbox.closed is None:
            self.inbox.close(ConnectionClosedError(code, reason))
            # A connection that never was let in does not leave either.
            if self._accepted and self._home is not None:
                self._home.left(self, code, reason, was_clean)

    def join(self, home: Connections) -> None:
        """Learn whose connection it is to be."""
        self._home = home

    def is_open(self) -> bool:
        """Say whether it is one of the room's."""
        return self._home is not None and self in self._home

    @property
    def was_let_in(self) -> bool:
        """Whether the room has let it in, however it has ended since."""
        return self._accepted

    def settle_in(self) -> None:
        """Be let in, now that ``on_connect`` is done and safe; unless the room closed it there, which refuses it."""
        if self.inbox.closed is None:
            self._accepted = True
        if self._abandoned:
            self.hang_up(ABNORMAL, "", was_clean=False)

    def abandon(self) -> None:
        """Hear that the client has left before it was let in: the room hears of its end as soon as it has let it in."""
        self._abandoned = True
        if self._accepted:
            self.hang_up(ABNORMAL, "", was_clean=False)

    def add_tags(self, tags: Iterable[str]) -> None:
        """Add the room's own tags. Raises :class:`InvalidKeyError`, :class:`LimitExceededError`, adding none."""
        self._tags = check_tags(tags, self._limits, str(self), self._tags)

    def forget_request(self) -> None:
        """Let go of the host's object, when ``on_connect`` has ended."""
        self._request = None


def check_tags(tags: Iterable[str], limits: Limits, where: str, others: frozenset[str] = frozenset()) -> frozenset[str]:
    """Give the tags of a connection as a set with ``others``, each checked as a name, and not too many of them."""
    if isinstance(tags, str):
        message = f"{where}: tags are several, as in ({tags!r},), not one str"
        raise TypeError(message)
    checked = [check_name(tag, limits.key_bytes, where, "tag") for tag in tags]
    if not checked:
        # Most connections have none, and a set of their own would cost each 200 bytes.
        return others
    together = others.union(checked)
    if len(together) > limits.tags:
        raise LimitExceededError("tags", len(together), limits.tags, where)
    return together


def check_message(message: object) -> None:
    """Refuse what is no message."""
    if not isinstance(message, str | bytes):
        error = f"a message is str or bytes, not {type(message).__name__}"
        raise TypeError(error)


@final
class RoomClient(Client):
    """The client's end of one connection, in the host's hands."""

    __slots__ = ("_connection", "_deliver")

    def __init__(self, connection: RoomConnection, deliver: Callable[[RoomConnection, str | bytes], Any]) -> None:
        self._connection = connection
        self._deliver = deliver

    @override
    def __repr__(self) -> str:
        return f"<Client of {self._connection!r}>"

    @property
    @override
    def id(self) -> str:
        return self._connection.id

    @override
    async def send(self, message: str | bytes, /) -> None:
        check_message(message)
        closed = self._connection.inbox.closed
        if closed is not None:
            raise ConnectionClosedError(closed.code, closed.reason)
        await self._deliver(self._connection, message)

    @property
    def inbox(self) -> Inbox:
        """What waits for this client; for the testing kit."""
        return self._connection.inbox

    @override
    async def receive(self) -> str | bytes:
        return await self._connection.inbox.get()

    # Not an async generator: one that is left in the middle has to be closed, and costs a frame for each client.
    @override
    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        """Give the next message; ends when the connection has ended."""
        try:
            return await self._connection.inbox.get()
        except ConnectionClosedError:
            raise StopAsyncIteration from None

    @override
    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._connection.hang_up(code, reason, was_clean=code != ABNORMAL)


@final
class Connections:
    """The connections of one room, awake or asleep."""

    __slots__ = ("_open", "key", "left", "place")

    def __init__(self, key: RoomKey, left: Callable[[RoomConnection, int, str, bool], None]) -> None:
        self.key = key
        self._open: dict[RoomConnection, None] = {}
        self.left = left
        """Is told when a connection that was let in has ended: with its code, its reason and whether that was clean."""
        self.place: Place | None = None
        """The awake room, if it is awake."""

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, connection: object) -> bool:
        return connection in self._open

    def add(self, connection: RoomConnection) -> None:
        """Let a connection be one of the room's."""
        self._open[connection] = None

    def discard(self, connection: RoomConnection) -> None:
        """Let a connection be none of the room's; harmless if it is none."""
        self._open.pop(connection, None)

    def select(self, tag: str | None = None) -> Sequence[RoomConnection]:
        """Give the open connections, the oldest first; with ``tag``, those that have it."""
        if tag is None:
            return tuple(self._open)
        return tuple(connection for connection in self._open if tag in connection.tags)

    def find(self, id: str) -> RoomConnection | None:  # noqa: A002 - PartyKit's word
        """Give the newest open connection of that id."""
        for connection in reversed(self._open):
            if connection.id == id:
                return connection
        return None

    def older(self, connection: RoomConnection) -> Sequence[RoomConnection]:
        """Give the open connections that have the same id as this one."""
        return tuple(each for each in self._open if each.id == connection.id and each is not connection)

    def others(self, without: Collection[str | Connection]) -> Sequence[RoomConnection]:
        """Give the open connections but some, named by id or themselves."""
        if not without:
            return tuple(self._open)
        if isinstance(without, str | RoomConnection):
            message = f"{self.key}: without takes several ids or connections, as in ({without!r},)"
            raise TypeError(message)
        return tuple(each for each in self._open if each not in without and each.id not in without)
