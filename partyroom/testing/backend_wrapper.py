"""A backend that stands before another one, and has every call pass through one place.

Owns the passing on. What is done on the way is decided by subclasses: all calls
alike in :meth:`BackendWrapper.around`, or one of them by overriding it.

Promises to change nothing by itself: arguments, results, errors and
cancellation go through as they are.

Must never keep anything of what passes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Literal, ParamSpec, Self, TypeVar

from anyio import CancelScope
from typing_extensions import override

from partyroom.errors import CommitError
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["BackendWrapper", "Call"]

P = ParamSpec("P")
T = TypeVar("T")

Call = Literal[
    "open", "close", "claim", "commit", "read", "scan", "room_alarms", "due_alarms", "parked_alarms", "rooms"
]
"""What a backend can be asked for, under the names of its methods; entering it is ``open``, leaving it ``close``."""


class BackendWrapper(StorageBackend):
    """Passes everything on to ``backend``."""

    def __init__(self, backend: StorageBackend) -> None:
        self.backend = backend

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.backend!r})"

    async def around(self, _call: Call, proceed: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See one call through: ``proceed`` is the backend's own method. Override to do something before, after or instead."""
        return await proceed(*args, **kwargs)

    @override
    async def __aenter__(self) -> Self:
        is_open = False

        async def enter() -> None:
            nonlocal is_open
            await self.backend.__aenter__()
            is_open = True

        try:
            await self.around("open", enter)
        except BaseException:
            # Whoever cannot enter this has nothing to leave: so what went wrong behind the opening closes it.
            if is_open:
                with CancelScope(shield=True):
                    await self.backend.__aexit__(None, None, None)
            raise
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        await self.around("close", self.backend.__aexit__, exc_type, exc, traceback)

    @override
    async def claim(self, room: RoomKey, /) -> int:
        return await self.around("claim", self.backend.claim, room)

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await self.around("commit", self.backend.commit, commits)

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        return await self.around("read", self.backend.read, room, keys)

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return await self.around("scan", self.backend.scan, room, keys, limit)

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return await self.around("room_alarms", self.backend.room_alarms, room)

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        return await self.around("due_alarms", self.backend.due_alarms, before, after, limit)

    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        return await self.around("parked_alarms", self.backend.parked_alarms, party, after, limit)

    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        return await self.around("rooms", self.backend.rooms, party, ids, limit)
