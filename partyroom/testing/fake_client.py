"""A client under test: what it was sent lies in its inbox, to be looked at without waiting.

Owns one connection that a test has opened, and all that has come over it.

Promises that nothing is read before the test asks, so that a client which never
asks is one that never reads (G21).

Must never wait for a message that does not come, but in ``receive``, and there
no longer than anything goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import final

from typing_extensions import override

from partyroom.connections import RoomClient
from partyroom.errors import ConnectionClosedError
from partyroom.protocols import Client
from partyroom.testing.fake_clock import FakeClock
from partyroom.types import RoomKey

__all__ = ["FakeClient"]

Complain = Callable[[str, str, RoomKey], Awaitable[Exception]]


@final
class FakeClient:
    """A client with an inbox; ``await harness.connect(room)`` gives one."""

    def __init__(
        self,
        room: RoomKey,
        client: Client,
        connecting: AbstractAsyncContextManager[Client],
        *,
        clock: FakeClock,
        settle: Callable[[], Awaitable[None]],
        complain: Complain,
    ) -> None:
        assert isinstance(client, RoomClient)
        self.room = room
        """Whose client it is."""
        self._client = client
        self._connecting = connecting
        self._clock = clock
        self._settle = settle
        self._complain = complain
        self._received: list[str | bytes] = []
        self._seen = 0

    @override
    def __repr__(self) -> str:
        return f"<FakeClient {self.id!r} of {self.room}>"

    @property
    def id(self) -> str:
        """The connection's id."""
        return self._client.id

    @property
    def inbox(self) -> list[str | bytes]:
        """All messages that have come so far, in order."""
        self._received += self._client.inbox.take_all()
        return self._received

    @property
    def closed(self) -> ConnectionClosedError | None:
        """How the connection ended; ``None`` while it is open."""
        return self._client.inbox.closed

    async def send(self, message: str | bytes, /) -> None:
        """Send a message; returns when the room's mailbox has taken it."""
        await self._client.send(message)

    async def receive(self) -> str | bytes:
        """Give the next message that was not asked for yet, and wait for it.

        Raises :class:`ConnectionClosedError` after the last, and an ``AssertionError`` if none comes and nothing else goes
        on for the clock's ``stall_timeout``, in real seconds: time is moved by another task, or by ``harness.auto()``.
        """
        if self._seen == len(self.inbox) and not await self._clock.ends(self._receive_one):
            seen = (
                f"nothing for {self._clock.patience:g} real seconds, and time does not move by itself: see Harness.auto"
            )
            raise await self._complain(f"client {self.id!r} receives a message", seen, self.room)
        self._seen += 1
        return self._received[self._seen - 1]

    async def _receive_one(self) -> None:
        self._received.append(await self._client.receive())

    async def received(self) -> list[str | bytes]:
        """Settle, and give the messages that have come since this was last asked, in order."""
        await self._settle()
        new = self.inbox[self._seen :]
        self._seen = len(self._received)
        return new

    async def expect(self, *messages: str | bytes) -> None:
        """Settle, and raise an ``AssertionError`` unless exactly these messages have come since this was last asked."""
        new = await self.received()
        if new != list(messages):
            seen = f"{new}" if self.closed is None else f"{new}, then {self.closed}"
            raise await self._complain(f"client {self.id!r} receives {list(messages)}", seen, self.room)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Hang up; doing it twice is harmless."""
        await self._client.close(code, reason)

    async def leave(self) -> None:
        """Leave the connection's block, as the end of the test does."""
        await self._connecting.__aexit__(None, None, None)
