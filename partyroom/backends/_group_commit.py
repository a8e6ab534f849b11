"""Claims, and the way of commits through a writer thread: gathered, applied as one, answered in one hop.

Owns who holds which room under which fence, the writer thread, the commits on
their way, and what happens when a group fails. How a group is applied is the
store's: all of its commits in order, or none and an exception.

Promises that a commit is applied under its room's current claim only; that a
group which fails is tried again commit by commit, in order, so that one's fault
is not another's; that what a room committed after a commit of its own that
failed is refused too, for it was computed on it; and that whoever has claimed a
room reads everything that an earlier claim stored.

Must never hold a commit back for others to come, nor let a busy loop keep the
thread from the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from threading import Lock
from typing import Final, Protocol, final

from anyio import Event

from partyroom._native import Loop, OneShot
from partyroom.backends._thread import WorkerThread
from partyroom.errors import BackendError, BackendLockedError, BackendReadOnlyError, CommitError, FencedError
from partyroom.types import Commit, RoomKey

__all__ = ["GroupStore", "GroupWriter", "backend_errors"]

EPOCH_BITS: Final = 40
"""Fences between two openings: enough for a million claims a second over twelve days, and below SQLite's integers."""

TICK: Final = 0.001
"""Seconds from one look at the calls in flight to the next, longer on a busy loop: once in each of its turns."""
HASTE: Final = 16
"""For how many ticks the loop makes haste after it has seen a call that outlasted one."""
GIVEN_WAY: Final = 0.000_01
"""Seconds for which the loop stands aside; with what the system adds, 60 us, in which a thread wakes up and goes on."""


class GroupStore(Protocol):
    """The store's side: plain functions, all called from the writer thread."""

    def open(self) -> int:
        """Open the store; give its epoch, a number higher than at any opening before."""
        ...

    def apply(self, commits: Sequence[Commit], /) -> None:
        """Apply commits in order in one transaction, durable on return; or raise, and apply none."""
        ...

    def rest(self) -> bool:
        """Do one small piece of background work, and say whether there is more. Must not raise."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


@final
class _Call:
    """One call of ``commit``, on its way."""

    __slots__ = ("_answered", "_rooms", "answers", "commits", "shot")

    def __init__(self, commits: Sequence[Commit], shot: OneShot[Sequence[CommitError | None]]) -> None:
        self.commits = commits
        self.shot = shot
        self.answers: Sequence[CommitError | None] = ()
        self._rooms: frozenset[RoomKey] | None = None
        self._answered: Event | None = None

    def holds(self, room: RoomKey) -> bool:
        """Say whether a commit of the room is among these."""
        if self._rooms is None:
            self._rooms = frozenset(commit.room for commit in self.commits)
        return room in self._rooms

    async def wait_answered(self) -> None:
        """Return when all of it is stored or refused; for others than the one who called."""
        if self._answered is None:
            self._answered = Event()
        await self._answered.wait()

    def answer(self) -> None:
        """Wake who waits."""
        if self._answered is not None:
            self._answered.set()
        self.shot.set(self.answers)


@final
class GroupWriter:
    """One opening of a store, seen from the loop; ``open``, ``run``, ``rest`` and ``close`` are its thread's duty."""

    def __init__(self, store: GroupStore, loop: Loop) -> None:
        self._store = store
        self._loop = loop
        self._thread: WorkerThread[_Call] = WorkerThread("partyroom-writer", self, loop)
        self._fences = count(1)
        self._claims: dict[RoomKey, int] = {}
        self._ended: set[tuple[RoomKey, int]] = set()
        """Claims that ended with a commit which the loop has not heard of yet."""
        self._in_flight: deque[_Call] = deque()
        self._watching = False
        self._watched: _Call | None = None
        self._haste = 0
        """For how many more ticks the loop makes haste."""

    # --- on the loop ---------------------------------------------------------

    async def start(self) -> None:
        """Open the store."""
        await self._thread.start()

    async def stop(self) -> None:
        """Have everything written that was handed in, then close the store."""
        await self._thread.stop()

    async def claim(self, room: RoomKey) -> int:
        """Take a room. Commits under an earlier claim are refused from now on; those on their way are waited for."""
        fence = self._claims[room] = next(self._fences)
        for call in tuple(self._in_flight):
            if call.holds(room):
                await call.wait_answered()
        return fence

    async def commit(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        """Have commits applied together with all others that wait. Cancelling takes nothing back."""
        call = _Call(commits, self._loop.one_shot())
        self._in_flight.append(call)
        self._thread.submit(call)
        if self._haste:
            _give_way()
        if not self._watching:
            self._watching = True
            self._loop.call_later(TICK, self._watch)
        return await call.shot.wait()

    def _watch(self) -> None:
        """Look at the oldest call in flight, tick by tick; if it takes long, make haste for a while.

        A thread that wakes up, or comes back from the disk, needs Python's global lock. A loop that computes gives it
        up every 5 ms only, or takes it again before the thread has woken. So in haste the loop stands aside for some
        moments at each tick and after each hand-over. An idle loop loses nothing by that, and an answer that comes
        within a tick is never waited for in this way.
        """
        if not self._in_flight:
            self._watching = False
            self._watched = None
            return
        if self._watched is self._in_flight[0]:
            self._haste = HASTE
        elif self._haste:
            self._haste -= 1
        if self._haste:
            _give_way()
        self._watched = self._in_flight[0]
        self._loop.call_later(TICK, self._watch)

    def _answer(self, number: int) -> None:
        """Answer the oldest calls, which the writer thread has settled."""
        for _ in range(number):
            call = self._in_flight.popleft()
            if self._ended:
                self._end_claims(call)
            call.answer()

    def _end_claims(self, call: _Call) -> None:
        for commit in call.commits:
            claim = (commit.room, commit.fence)
            if claim in self._ended:
                self._ended.discard(claim)
                # A later claim of the same room is not what has ended.
                if self._claims[commit.room] == commit.fence:
                    del self._claims[commit.room]

    # --- in the writer thread ------------------------------------------------

    def open(self) -> None:
        """Open the store."""
        with backend_errors():
            epoch = self._store.open()
        self._fences = count((epoch << EPOCH_BITS) + 1)

    def run(self, jobs: list[_Call]) -> None:
        """Settle some calls as one group, and have them answered in one hop."""
        answers = self._settle([commit for call in jobs for commit in call.commits])
        start = 0
        for call in jobs:
            end = start + len(call.commits)
            call.answers = answers[start:end]
            start = end
        self._thread.hand_back(partial(self._answer, len(jobs)))

    def rest(self) -> bool:
        """Let the store do what has no hurry."""
        return self._store.rest()

    def close(self) -> None:
        """Close the store."""
        with backend_errors():
            self._store.close()

    def _settle(self, commits: Sequence[Commit]) -> list[CommitError | None]:
        answers = self._admit(commits)
        admitted = [index for index, error in enumerate(answers) if error is None]
        try:
            self._apply([commits[index] for index in admitted])
        except (BackendLockedError, BackendReadOnlyError) as error:
            # No commit's own fault, and to find it again for each of them may take seconds each.
            for index in admitted:
                answers[index] = self._refuse(commits[index], error)
        except BackendError:
            self._settle_apart(commits, answers, admitted)
        return answers

    def _admit(self, commits: Sequence[Commit]) -> list[CommitError | None]:
        """Refuse commits without a claim. Most groups hold none, and end no claim either: a look in passing is enough."""
        claims = self._claims
        if not self._ended and all(
            claims.get(room) == fence and not release for room, fence, _, _, _, release in commits
        ):
            return [None] * len(commits)
        return [self._admit_one(commit) for commit in commits]

    def _admit_one(self, commit: Commit) -> CommitError | None:
        room, fence = commit.room, commit.fence
        if self._claims.get(room) != fence or (room, fence) in self._ended:
            return FencedError(f"{room}: fence {fence} is not the room's claim; nothing of the commit is stored")
        if commit.release:
            self._ended.add((room, fence))
        return None

    def _apply(self, commits: Sequence[Commit]) -> None:
        # A commit that only ends a claim touches no disk.
        writing = [commit for commit in commits if commit.values or commit.alarms or commit.clear]
        if not writing:
            return
        with backend_errors():
            self._store.apply(writing)

    def _settle_apart(
        self, commits: Sequence[Commit], answers: list[CommitError | None], admitted: Sequence[int]
    ) -> None:
        """Try what was admitted again, one by one: the fault may be that of one of them."""
        failed: dict[RoomKey, BackendError] = {}
        for index in admitted:
            commit = commits[index]
            error = failed.get(commit.room) or self._try(commit)
            if error is not None:
                failed[commit.room] = error
                answers[index] = self._refuse(commit, error)

    def _try(self, commit: Commit) -> BackendError | None:
        try:
            self._apply([commit])
        except BackendError as error:
            return error
        return None

    def _refuse(self, commit: Commit, cause: BackendError) -> CommitError:
        # Nothing of it has happened, so neither has the end of the claim.
        self._ended.discard((commit.room, commit.fence))
        error = CommitError(f"{commit.room}: nothing of the commit is stored: {cause}")
        error.__cause__ = cause
        return error


@contextmanager
def backend_errors() -> Generator[None]:
    """Let an error of ours pass as it is, and any other wrapped in one."""
    try:
        yield
    except BackendError:
        raise
    except BaseException as error:
        # Of any kind: a panic of a client in Rust, say, is no ``Exception``, and here it would end the thread unheard.
        raise BackendError(f"{type(error).__name__}: {error}") from error


def _give_way() -> None:
    """Stand aside, with Python's global lock given up, for some moments."""
    _NEVER.acquire(timeout=GIVEN_WAY)


_NEVER: Final = Lock()
"""Held for good: waiting for it is a way to wait that reads no clock."""
_NEVER.acquire()
