"""What waits for one client, between its room and whoever hands it on.

Owns the messages that a room has sent and a client has not taken, and how the
connection has ended, once it has.

Promises that messages are taken in the order in which they were sent, that no
more wait than the limits allow (G21), and that whoever takes them learns of each
at once: a task that waits for it, or a host that has asked to be called.

Must never call a room, or know what becomes of a client that does not keep up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

from partyroom._native import Loop, OneShot
from partyroom._work import Work
from partyroom.errors import ConnectionClosedError
from partyroom.types import Limits

__all__ = ["Inbox", "message_size"]


@final
class Inbox:
    """What waits for one client: bounded, with one consumer at a time. Empty, it costs nothing but itself."""

    __slots__ = ("_bytes", "_limits", "_loop", "_messages", "_receiver", "_tell", "_work", "closed")

    def __init__(self, loop: Loop, work: Work, limits: Limits) -> None:
        self._loop = loop
        self._work = work
        self._limits = limits
        self._messages: deque[str | bytes] | None = None
        self._bytes = 0
        self._receiver: OneShot[None] | None = None
        self._tell: Callable[[], None] | None = None
        self.closed: ConnectionClosedError | None = None
        """Why nothing more comes, once that is so."""

    def put(self, message: str | bytes, size: int) -> bool:
        """Let a message of so many bytes wait for the client; say whether there was room for it."""
        if self._messages is None:
            self._messages = deque()
        if len(self._messages) >= self._limits.outgoing_messages or self._bytes + size > self._limits.outgoing_bytes:
            return False
        self._messages.append(message)
        self._bytes += size
        self._call()
        return True

    def close(self, error: ConnectionClosedError) -> None:
        """Let nothing more come; what waits can still be received."""
        if self.closed is None:
            self.closed = error
            self._call()

    def _call(self) -> None:
        if self._receiver is not None:
            self._receiver.set(None)
        if self._tell is not None:
            self._tell()

    def when_told(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called for each message that comes to wait, and when nothing more comes; not for what is so already."""
        self._tell = tell

    @property
    def has_news(self) -> bool:
        """Whether a message waits, or nothing more comes."""
        return self._messages is not None or self.closed is not None

    def pop(self) -> str | bytes | None:
        """Take out the next message; ``None`` if none waits."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._bytes -= message_size(message)
        if not self._messages:
            self._messages = None
        return message

    def take_all(self) -> list[str | bytes]:
        """Take out what waits, and wait for nothing."""
        messages, self._messages, self._bytes = self._messages, None, 0
        return list(messages or ())

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits for a message."""
        return self._receiver is not None and not self._receiver.done

    def fail(self, error: Exception) -> None:
        """Have the task that waits for a message, as one must, raise, and keep whatever comes; for the testing kit."""
        assert self._receiver is not None
        self._receiver.fail(error)

    async def get(self) -> str | bytes:
        """Wait for the next message, or raise why there will be none."""
        while (message := self.pop()) is None:
            if self.closed is not None:
                raise ConnectionClosedError(self.closed.code, self.closed.reason)
            if self._receiver is not None:
                error = "another task is receiving from this client already"
                raise RuntimeError(error)
            self._receiver = self._loop.one_shot()
            try:
                await self._work.wait(self._receiver)
            finally:
                self._receiver = None
        return message


def message_size(message: str | bytes) -> int:
    """Give how many bytes a message is, as text in UTF-8."""
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode(errors="replace"))
