"""The one way to the backend for writes: one ``commit`` at a time, the next group gathering meanwhile.

Owns the commits that wait, and which of them the backend is asked for now. The
commits of one room that wait together go as one: they were computed on each
other, so they are stored together or not at all.

Promises that each room's commits reach the backend in order, that each event is
answered once, and that a group which failed as a whole is tried again commit by
commit, so that one room's fault is not another's (G5); and that of events which may be stored already none is stored
again without those behind it, or a room would find halves of both.

Must never drop a commit that was handed in, unless its room says that it broke.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, final

from anyio import get_cancelled_exc_class

from partyroom._core.units import Event, Writes
from partyroom._native import Loop, OneShot
from partyroom._workers import Job, Worker
from partyroom.errors import BackendError, CommitError
from partyroom.protocols import StorageBackend
from partyroom.types import Commit, RoomKey

__all__ = ["Committer", "CommittingRoom", "are_answers"]

T = TypeVar("T")

Watch: TypeAlias = Callable[
    [Awaitable[Sequence[CommitError | None]], Sequence[RoomKey], Sequence[Event]],
    Awaitable[Sequence[CommitError | None]],
]
"""Sees what the backend is asked for, of which rooms and events, and gives its answers."""


class CommittingRoom(Protocol):
    """A room that hands in commits and hears of their fate."""

    key: RoomKey
    fence: int

    def stored(self, number: int, /) -> None:
        """Hear that everything up to the commit of this number is durable."""
        ...

    def refused(self, error: BaseException, /) -> None:
        """Hear that a commit was refused, or that its outcome is unknown: whatever waits of this room is dropped."""
        ...


@final
class _Batch:
    """What waits of one room: the writes of one event, or of several in a row, and the end of its claim."""

    __slots__ = ("_is_answered", "event", "is_doubtful", "number", "parts", "release", "room", "writes")

    def __init__(self, room: CommittingRoom, event: Event | None) -> None:
        self.room = room
        self.event = event
        """Whose writes they are, of the first if they are of several; ``None`` if there is only a claim to be ended."""
        self.writes = Writes() if event is None else event.layer()
        self.number = 0 if event is None else event.sealed_as
        self.parts: list[Event] | None = None
        """All events, if there are several."""
        self.is_doubtful = False
        """Whether nobody knows if these are stored already."""
        self.release = event is None
        """Whether the room's claim ends with these."""
        self._is_answered = False

    def add(self, event: Event) -> None:
        """Lay a later event's writes over these."""
        if self.parts is None:
            assert self.event is not None
            self.parts = [self.event]
            first, self.writes = self.writes, Writes()
            self.writes.absorb(first)
        self.parts.append(event)
        self.writes.absorb(event.layer())
        self.number = event.sealed_as

    def commit(self) -> Commit:
        room, writes = self.room, self.writes
        return Commit(room.key, room.fence, writes.values, writes.alarms, writes.clear, self.release)

    def split(self) -> list[_Batch]:
        """Give the same writes event by event, if none of them is stored."""
        if self.parts is None or self.is_doubtful:
            return [self]
        split = [_Batch(self.room, event) for event in self.parts]
        split[-1].release = self.release
        return split

    def events(self) -> Iterable[Event]:
        """Give the events that are stored by it, in order."""
        if self.parts is not None:
            return self.parts
        return () if self.event is None else (self.event,)

    def confirm(self) -> None:
        """Hear that it is durable."""
        self._is_answered = True
        # Who slept in between does not care: either way the old claim has ended.
        if self.event is not None:
            self.room.stored(self.number)

    def refuse(self, error: BaseException) -> None:
        """Hear that it is not, or that nobody knows; harmless once it is answered."""
        if not self._is_answered and self.event is not None:
            self.room.refused(error)
        self._is_answered = True

    def settle(self) -> None:
        """Hear that each of its parts was answered for itself."""
        self._is_answered = True


@final
class _Begun(Generic[T]):
    """What is left of a call that was begun outside of any ``await``, and is gone on with inside one, in the same task."""

    __slots__ = ("_first", "_iterator")

    def __init__(self, iterator: Generator[Any, Any, T], first: object) -> None:
        self._iterator = iterator
        self._first = first

    def __await__(self) -> Generator[Any, Any, T]:
        # As ``yield from`` would (PEP 380), for which it is too late: an awaitable may give any iterator.
        yielded = self._first
        try:
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:
                    if not hasattr(self._iterator, "throw"):
                        raise
                    yielded = self._iterator.throw(error)
                else:
                    yielded = next(self._iterator) if sent is None else self._iterator.send(sent)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


@final
class Committer:
    """Groups what rooms hand in, and has it committed."""

    def __init__(
        self,
        backend: StorageBackend,
        loop: Loop,
        submit: Callable[[Job], None],
        fail: Callable[[BaseException], None],
        watch: Watch | None = None,
    ) -> None:
        self._backend = backend
        self._loop = loop
        self._submit = submit
        self._fail = fail
        """Is told of what is no failure of a commit: an interrupt that came while one was made."""
        self._watch = watch
        self._waiting: dict[CommittingRoom, _Batch] = {}
        self._is_busy = False
        self._is_asked = False
        self._is_abandoned = False
        self._quiet: list[OneShot[None]] = []
        self.commits = 0
        """How many commits the backend was asked for."""
        self.groups = 0
        """In how many calls."""

    # --- what rooms hand in --------------------------------------------------

    def add(self, room: CommittingRoom, event: Event) -> None:
        """Have an event's writes committed, behind those of the same room that wait already. Somebody has to ``begin``."""
        batch = self._waiting.get(room)
        if batch is not None:
            batch.add(event)
        elif not self._is_abandoned:
            self._waiting[room] = _Batch(room, event)

    def add_release(self, room: CommittingRoom) -> None:
        """Have a room's claim ended, with what waits of it or by itself; it hands in no more. Somebody has to ``begin``."""
        batch = self._waiting.get(room)
        if batch is not None:
            batch.release = True
        elif not self._is_abandoned:
            self._waiting[room] = _Batch(room, None)

    def drop(self, room: CommittingRoom) -> None:
        """Forget what waits of a room that broke: it was computed on what is not stored."""
        self._waiting.pop(room, None)

    def abandon(self) -> None:
        """Commit nothing more: a crash was asked for."""
        self._is_abandoned = True
        self._waiting = {}

    # --- who sees to it ------------------------------------------------------

    def call_worker(self) -> None:
        """Have a worker see to what waits, for those who are no workers themselves, or do not leave their event yet."""
        if self._waiting and not self._is_busy and not self._is_asked:
            self._is_asked = True
            self._submit(self)

    async def work(self, _worker: Worker) -> None:
        """See to what waits."""
        self._is_asked = False
        rest = self.begin()
        if rest is not None:
            await rest

    def begin(self) -> Awaitable[None] | None:
        """Commit what waits, unless that is going on already.

        A backend that does not wait (memory) is done on return. Else the rest is given, to be awaited in the very task
        that called: so a lone commit costs no further task, and no switch to one.
        """
        if self._is_busy or not self._waiting:
            return None
        self._is_busy = True
        while self._waiting:
            group = self._take()
            step = self._step(group)
            if step is not None:
                return self._go_on(group, step)
        self._end_turn()
        return None

    def _ask(self, group: list[_Batch]) -> Awaitable[Sequence[CommitError | None]]:
        """Give the backend's answer, to be awaited."""
        self.commits += len(group)
        self.groups += 1
        asked = self._backend.commit([batch.commit() for batch in group])
        if self._watch is None:
            return asked
        events = [event for batch in group for event in batch.events()]
        return self._watch(asked, [batch.room.key for batch in group], events)

    def _step(self, group: list[_Batch]) -> Awaitable[None] | None:
        """Ask the backend for a group; give what is left to be awaited, if it did not answer at once."""
        try:
            try:
                iterator = self._ask(group).__await__()
                first = next(iterator)
            except StopIteration as done:
                again = self._answer(group, done.value)
            except Exception:  # noqa: BLE001 - nothing is known of any of them: each is asked for again, apart
                again = _doubted(group)
            else:
                return self._hear(group, _Begun(iterator, first))
        except BaseException as error:  # noqa: BLE001 - an interrupt, or a scheduler's: handed on, and the turn ends
            self._give_up(group, error)
            return None
        return self._ask_apart(again) if again else None

    async def _go_on(self, group: list[_Batch], step: Awaitable[None]) -> None:
        """See a group through, and then those that gathered meanwhile."""
        try:
            await step
            while self._waiting:
                group = self._take()
                await self._hear(group)
        except BaseException as error:
            self._give_up(group, error)
            if isinstance(error, get_cancelled_exc_class()):
                raise
        finally:
            self._end_turn()

    def _take(self) -> list[_Batch]:
        group = list(self._waiting.values())
        self._waiting = {}
        return group

    def _end_turn(self) -> None:
        self._is_busy = False
        if self._waiting:
            # This turn came to a bad end.
            self.call_worker()
        if self._quiet:
            quiet, self._quiet = self._quiet, []
            for shot in quiet:
                shot.set(None)

    async def wait_quiet(self) -> None:
        """Return when nothing waits and no commit is going on."""
        while self._waiting or self._is_busy:
            shot: OneShot[None] = self._loop.one_shot()
            self._quiet.append(shot)
            self.call_worker()
            await shot

    # --- what the backend answers --------------------------------------------

    async def _hear(self, group: list[_Batch], step: _Begun[Sequence[CommitError | None]] | None = None) -> None:
        """Have a group committed, or go on with that, and tell the rooms."""
        try:
            given = await (step or self._ask(group))
        except Exception:  # noqa: BLE001 - nothing is known of any of them: each is asked for again, apart
            again = _doubted(group)
        else:
            again = self._answer(group, given)
        await self._ask_apart(again)

    def _answer(self, group: list[_Batch], answers: Sequence[CommitError | None]) -> list[_Batch]:
        """Tell the rooms what became of a group; give those of whom nothing is known yet."""
        if isinstance(answers, list) and answers == [None] * len(group):
            # All are stored, as nearly always.
            for batch in group:
                batch.confirm()
            return []
        if not are_answers(answers, len(group)):
            return _doubted(group)
        again: list[_Batch] = []
        for batch, error in zip(group, answers, strict=True):
            if error is None:
                batch.confirm()
            elif batch.parts is None:
                batch.refuse(error)
            else:
                again.append(batch)
        return again

    async def _ask_apart(self, again: list[_Batch]) -> None:
        """Try batches again alone: the events of one that was refused one by one and in order, up to the first that is."""
        for batch in again:
            for part in batch.split():
                error = await self._ask_one(part)
                if error is not None:
                    part.refuse(error)
                    break
                part.confirm()
            batch.settle()

    async def _ask_one(self, batch: _Batch) -> Exception | None:
        try:
            answers = await self._ask([batch])
        except Exception as raised:  # noqa: BLE001 - told to the room
            return raised
        if not are_answers(answers, 1):
            message = f"the backend answered one commit with {answers!r}"
            return BackendError(message)
        return answers[0]

    def _give_up(self, group: list[_Batch], error: BaseException) -> None:
        """Tell the rooms of a group that nobody will know what became of it, but for those that know already (G5)."""
        for batch in group:
            batch.refuse(error)
        if not isinstance(error, get_cancelled_exc_class()):
            self._fail(error)


def _doubted(group: list[_Batch]) -> list[_Batch]:
    for batch in group:
        batch.is_doubtful = True
    return group


def are_answers(answers: Any, number: int) -> bool:  # noqa: ANN401 - whatever a plug-in gives
    """Say whether a backend's answers are such: one that breaks its contract must not break the rooms' order."""
    try:
        return len(answers) == number and all(error is None or isinstance(error, Exception) for error in answers)
    except TypeError:
        return False
