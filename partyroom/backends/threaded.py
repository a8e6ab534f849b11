"""The adapter for stores whose client blocks: write plain functions, get a backend.

Owns two threads, one that writes and one that reads, the claims, and the
grouping: all commits that wait, of all rooms, are applied as one.

Promises what :class:`~partyroom.protocols.StorageBackend` asks for, if the store
keeps what :class:`BlockingStore` asks for. A group that fails is tried again
commit by commit, so that one's fault is not another's; a read never waits for a
write.

Must never call the store from the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, final

from typing_extensions import override

from partyroom._native import Loop, OneShot, current_loop
from partyroom.backends._group_commit import GroupWriter, backend_errors
from partyroom.backends._thread import WorkerThread
from partyroom.errors import BackendClosedError, BackendError, CommitError
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["BlockingStore", "ThreadedBackend"]

T = TypeVar("T")


class BlockingStore(Protocol):
    """What the author of a store writes: plain functions that may block.

    ``open``, ``apply`` and ``close`` are called from one thread, the reading functions from one other, so that a read
    and a write may go on at the same time; a read shows a state between two calls of ``apply``. Keys, ids and names are
    ``str`` without lone surrogates, else anything (empty, with NULs, with emoji), and are ordered by their UTF-8 bytes.

    Any exception tells of a fault; raise a :class:`BackendError` of the fitting kind where there is one. The store must
    be usable again when the fault is gone.
    """

    def open(self) -> int:
        """Open the store; give a number that is higher than at any opening before, kept in the store itself."""
        ...

    def close(self) -> None:
        """Close the store; what was applied stays. It may be opened again."""
        ...

    def apply(self, commits: Sequence[Commit], /) -> None:
        """Apply commits in order, all of them in one transaction that is durable on return; or raise, and apply none.

        Of each commit in turn: with ``clear``, delete all values and alarms of the room; then set the values, a value
        of ``None`` deleting the key; then set the alarms, a row of ``None`` deleting the one of that name. Claims need
        no look: a commit under a claim that is lost never comes here.
        """
        ...

    def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        """Give the values of those of ``keys`` that exist."""
        ...

    def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        """Give the first ``limit`` entries of a range, in its order."""
        ...

    def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        """Give all alarms of a room, parked ones included, by name."""
        ...

    def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        """Give the first ``limit`` alarms with a due time below ``before``, behind ``after``, by (due, room, name)."""
        ...

    def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        """Give the first ``limit`` alarms of a party without a due time, behind ``after``, by (room id, name)."""
        ...

    def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        """Give the first ``limit`` ids in a range of the party's rooms that hold a value or an alarm, in its order."""
        ...


@final
class ThreadedBackend(StorageBackend):
    """Makes a backend of a store with a blocking client.

    A lone commit costs two changes of thread, some 70 us, beside what the store takes; a read costs the same. Fences
    grow within one opening and from one to the next; they do not keep out another process, which is the store's own
    matter. Cancelling a call leaves it to go on in its thread, with nobody to hear the answer.
    """

    def __init__(self, store: BlockingStore) -> None:
        self._store = store
        self._opened: _OpenStore | None = None

    @override
    def __repr__(self) -> str:
        return f"ThreadedBackend({self._store!r})"

    @override
    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise BackendError(f"{self!r} is open already: a store belongs to one runtime at a time")
        self._opened = opened = _OpenStore(self._store, current_loop())
        try:
            await opened.start()
        except BaseException:
            self._opened = None
            raise
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            await opened.stop()

    @override
    async def claim(self, room: RoomKey, /) -> int:
        return await self._open().writer.claim(room)

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await self._open().writer.commit(commits)

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        return await self._open().ask(partial(self._store.read, room, keys))

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return await self._open().ask(partial(self._store.scan, room, keys, limit))

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return await self._open().ask(partial(self._store.room_alarms, room))

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        return await self._open().ask(partial(self._store.due_alarms, before, after, limit))

    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        return await self._open().ask(partial(self._store.parked_alarms, party, after, limit))

    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        return await self._open().ask(partial(self._store.rooms, party, ids, limit))

    def _open(self) -> _OpenStore:
        opened = self._opened
        if opened is None:
            raise BackendClosedError(f"{self!r} is not open: use it inside its `async with`")
        if opened.pid != os.getpid():
            raise BackendClosedError(
                f"{self!r} was opened by process {opened.pid}, which forked this one: open another after a fork"
            )
        return opened


@final
class _Question(Generic[T]):
    """One read on its way."""

    __slots__ = ("_answer", "_ask", "_error", "shot")

    def __init__(self, ask: Callable[[], T], shot: OneShot[T]) -> None:
        self._ask = ask
        self._answer: Any = None
        self._error: BackendError | None = None
        self.shot = shot

    def run(self) -> None:
        """Ask the store; in the reading thread."""
        try:
            with backend_errors():
                self._answer = self._ask()
        except BackendError as error:
            self._error = error

    def tell(self) -> None:
        """Hand out the answer; on the loop."""
        if self._error is None:
            self.shot.set(self._answer)
        else:
            self.shot.fail(self._error)


@final
class _OpenStore:
    """One opening of a store: its two threads."""

    def __init__(self, store: BlockingStore, loop: Loop) -> None:
        self.pid = os.getpid()
        self._loop = loop
        self.writer = GroupWriter(_Writing(store), loop)
        self._reader: WorkerThread[_Question[Any]] = WorkerThread("partyroom-reader", _Reading(self._tell), loop)

    async def start(self) -> None:
        """Open the store, in the writing thread."""
        await self.writer.start()
        try:
            await self._reader.start()
        except BaseException:
            await self.writer.stop()
            raise

    async def stop(self) -> None:
        """Have everything done that was handed in, then close the store."""
        try:
            await self._reader.stop()
        finally:
            await self.writer.stop()

    async def ask(self, ask: Callable[[], T]) -> T:
        """Have a question answered in the reading thread."""
        question: _Question[T] = _Question(ask, self._loop.one_shot())
        self._reader.submit(question)
        return await question.shot.wait()

    def _tell(self, questions: list[_Question[Any]]) -> None:
        def tell() -> None:
            for question in questions:
                question.tell()

        self._reader.hand_back(tell)


@final
class _Writing:
    """The store as the writing thread sees it: what it asks for, and nothing to do besides."""

    def __init__(self, store: BlockingStore) -> None:
        self.open = store.open
        self.apply = store.apply
        self.close = store.close

    def rest(self) -> bool:
        """There is nothing to do."""
        return False


@final
class _Reading:
    """The duty of the reading thread."""

    def __init__(self, tell: Callable[[list[_Question[Any]]], None]) -> None:
        self._tell = tell

    def open(self) -> None:
        """There is nothing to open."""

    def run(self, jobs: list[_Question[Any]]) -> None:
        """Answer what waits, and hand it back in one hop."""
        for question in jobs:
            question.run()
        self._tell(jobs)

    def rest(self) -> bool:
        """There is nothing to do."""
        return False

    def close(self) -> None:
        """There is nothing to close."""
