"""The one way to the backend for writes: one ``commit`` at a time, the next group gathering meanwhile.

Owns the commits that wait, and which of them the backend is asked for now. The
commits of one room that wait together go as one: they were computed on each
other, so they are stored together or not at all.

Promises that each room's commits reach the backend in order, that each event is
answered once, and that a group which failed as a whole is tried again commit by
commit, so that one room's fault is not another's (G5).

Must never drop a commit that was handed in, unless its room says that it broke.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Protocol, final

from partyroom._core.units import Writes
from partyroom._native import Loop, OneShot
from partyroom._workers import Job, Worker
from partyroom.errors import CommitError
from partyroom.protocols import StorageBackend
from partyroom.types import Commit, RoomKey

__all__ = ["Committer", "CommittingRoom"]


class CommittingRoom(Protocol):
    """A room that hands in commits and hears of their fate."""

    key: RoomKey
    fence: int

    def stored(self, number: int, /) -> None:
        """Hear that everything up to the commit of this number is durable."""
        ...

    def refused(self, error: Exception, /) -> None:
        """Hear that a commit was refused, or that its outcome is unknown: whatever waits of this room is dropped."""
        ...


@final
class _Batch:
    """What waits of one room: the writes of one event, or of several in a row."""

    __slots__ = ("number", "parts", "release", "room", "writes")

    def __init__(self, room: CommittingRoom, writes: Writes, number: int, *, release: bool = False) -> None:
        self.room = room
        self.writes = writes
        self.number = number
        self.parts: list[tuple[Writes, int]] | None = None
        self.release = release

    def add(self, writes: Writes, number: int) -> None:
        """Lay a later event's writes over these."""
        if self.parts is None:
            self.parts = [(self.writes, self.number)]
            first, self.writes = self.writes, Writes()
            self.writes.absorb(first)
        self.parts.append((writes, number))
        self.writes.absorb(writes)
        self.number = number

    def commit(self) -> Commit:
        room, writes = self.room, self.writes
        return Commit(room.key, room.fence, writes.values, writes.alarms, writes.clear, self.release)

    def split(self) -> list[_Batch]:
        """Give the same writes event by event."""
        return [_Batch(self.room, writes, number) for writes, number in self.parts or ()] or [self]


@final
class _Step:
    """A call that was begun outside of any ``await``, and is gone on with inside one, in the same task."""

    __slots__ = ("_first", "_iterator")

    def __init__(self, iterator: Generator[Any, Any, Any], first: object) -> None:
        self._iterator = iterator
        self._first = first

    def __await__(self) -> Generator[Any, Any, Any]:
        yielded = self._first
        try:
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:  # noqa: BLE001 - the loop's answer is passed on, whatever it is
                    yielded = self._iterator.throw(error)
                else:
                    yielded = self._iterator.send(sent)
        except StopIteration as done:
            return done.value


@final
class Committer:
    """Groups what rooms hand in, and has it committed."""

    def __init__(self, backend: StorageBackend, loop: Loop, submit: Callable[[Job], None]) -> None:
        self._backend = backend
        self._loop = loop
        self._submit = submit
        self._waiting: dict[CommittingRoom, _Batch] = {}
        self._busy = False
        self._asked = False
        self._quiet: list[OneShot[None]] = []
        self.commits = 0
        """How many commits the backend was asked for."""
        self.groups = 0
        """In how many calls."""

    def add(self, room: CommittingRoom, writes: Writes, number: int) -> None:
        """Have an event's writes committed, behind those of the same room that wait already."""
        batch = self._waiting.get(room)
        if batch is None:
            self._waiting[room] = _Batch(room, writes, number)
        else:
            batch.add(writes, number)

    def add_release(self, room: CommittingRoom) -> None:
        """Have a room's claim ended, when it has gone to sleep and has nothing else waiting."""
        self._waiting[room] = _Batch(room, Writes(), 0, release=True)
        self.call_worker()

    def drop(self, room: CommittingRoom) -> None:
        """Forget what waits of a room that broke: it was computed on what is not stored."""
        self._waiting.pop(room, None)

    def abandon(self) -> None:
        """Commit nothing more: a crash was asked for."""
        self._waiting = {}

    def call_worker(self) -> None:
        """Have a worker see to what waits, for those who are no workers themselves."""
        if self._waiting and not self._busy and not self._asked:
            self._asked = True
            self._submit(self)

    async def work(self, _worker: Worker) -> None:
        """See to what waits."""
        self._asked = False
        rest = self.begin()
        if rest is not None:
            await rest

    def begin(self) -> Awaitable[None] | None:
        """Commit what waits, unless that is going on already.

        A backend that does not wait (memory) is done on return. Else the rest is given, to be awaited in the very task
        that called: so a lone commit costs no further task, and no switch to one.
        """
        if self._busy or not self._waiting:
            return None
        self._busy = True
        while self._waiting:
            group = self._take()
            iterator: Any = self._backend.commit([batch.commit() for batch in group]).__await__()
            try:
                first = next(iterator)
            except StopIteration as done:
                again = self._answer(group, done.value)
            except Exception:  # noqa: BLE001 - answered one by one
                again = group
            else:
                return self._go_on(group, _Step(iterator, first))
            if again:
                return self._go_on(again, None)
        self._end_turn()
        return None

    def _end_turn(self) -> None:
        self._busy = False
        if self._quiet:
            quiet, self._quiet = self._quiet, []
            for shot in quiet:
                shot.set(None)

    async def wait_quiet(self) -> None:
        """Return when nothing waits and no commit is going on."""
        while self._waiting or self._busy:
            shot: OneShot[None] = self._loop.one_shot()
            self._quiet.append(shot)
            self.call_worker()
            await shot.wait()

    def _take(self) -> list[_Batch]:
        group = list(self._waiting.values())
        self._waiting = {}
        self.commits += len(group)
        self.groups += 1
        return group

    async def _go_on(self, group: list[_Batch], step: Awaitable[Any] | None) -> None:
        """See a group through, and then those that gathered meanwhile."""
        try:
            again = group if step is None else await self._ask(group, step)
            while True:
                for batch in again:
                    await self._ask_apart(batch)
                if not self._waiting:
                    return
                group = self._take()
                again = await self._ask(group, self._backend.commit([batch.commit() for batch in group]))
        finally:
            self._end_turn()

    async def _ask(self, group: list[_Batch], answers: Awaitable[Sequence[CommitError | None]]) -> list[_Batch]:
        """Hear a group's answers; give those that are to be tried again apart."""
        try:
            return self._answer(group, await answers)
        except Exception:  # noqa: BLE001 - answered one by one
            return group

    def _answer(self, group: list[_Batch], answers: Sequence[CommitError | None]) -> list[_Batch]:
        if len(answers) != len(group):
            return group
        again = []
        for batch, error in zip(group, answers, strict=True):
            if batch.release:
                # The room sleeps, or has been claimed anew since: either way the old claim has ended.
                continue
            if error is None:
                batch.room.stored(batch.number)
            elif batch.parts is not None:
                again.append(batch)
            else:
                batch.room.refused(error)
        return again

    async def _ask_apart(self, batch: _Batch) -> None:
        """Try a batch again alone, its events one by one and in order, up to the first that is refused."""
        if batch.release:
            await self._ask_one(batch)
            return
        for part in batch.split():
            error = await self._ask_one(part)
            if error is not None:
                part.room.refused(error)
                return
            part.room.stored(part.number)

    async def _ask_one(self, batch: _Batch) -> Exception | None:
        try:
            (error,) = await self._backend.commit([batch.commit()])
        except Exception as raised:  # noqa: BLE001 - told to the room
            return raised
        return error
