"""Claims, and the way of commits through a writer thread: gathered, applied as one, answered in one hop.

Owns who holds which room under which fence, the commits in flight, and what
happens when a group fails. How a group is applied is a plain function of the
store's, called in the writer thread with commits in order: all of them, or none
and an exception.

Promises that a commit is applied under its room's current claim only; that a
group which fails is tried again commit by commit, in order, so that one's fault
is not another's; that what a room committed after a commit of its own that
failed is refused too, for it was computed on it; and that whoever has claimed a
room reads everything that an earlier claim stored.

Must never hold a commit back for others to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Final, final

from anyio import Event

from partyroom._native import Loop, OneShot
from partyroom.errors import BackendError, CommitError, FencedError
from partyroom.types import Commit, RoomKey

__all__ = ["CommitCall", "GroupCommit"]

EPOCH_BITS: Final = 40
"""Room for a million claims a second over twelve days between two openings; a fence is no larger than SQLite's integers."""


@final
class CommitCall:
    """One call of ``commit``, on its way."""

    __slots__ = ("_ended", "_rooms", "answers", "commits", "shot")

    def __init__(self, commits: Sequence[Commit], shot: OneShot[Sequence[CommitError | None]]) -> None:
        self.commits = commits
        self.shot = shot
        self.answers: Sequence[CommitError | None] = ()
        self._rooms: frozenset[RoomKey] | None = None
        self._ended: Event | None = None

    def holds(self, room: RoomKey) -> bool:
        """Say whether a commit of the room is among these."""
        if self._rooms is None:
            self._rooms = frozenset(commit.room for commit in self.commits)
        return room in self._rooms

    async def wait_answered(self) -> None:
        """Return when all of it is stored or refused; for others than the one who called."""
        if self._ended is None:
            self._ended = Event()
        await self._ended.wait()

    def answer(self) -> None:
        """Wake who waits."""
        if self._ended is not None:
            self._ended.set()
        self.shot.set(self.answers)


@final
class GroupCommit:
    """The commits of one opening of a store. ``settle`` runs in the writer thread, all else on the loop."""

    def __init__(self, loop: Loop, epoch: int, apply: Callable[[Sequence[Commit]], None]) -> None:
        self._loop = loop
        self._apply = apply
        self._fences = count((epoch << EPOCH_BITS) + 1)
        self._claims: dict[RoomKey, int] = {}
        self._ended: set[tuple[RoomKey, int]] = set()
        """Claims that ended with a commit which the loop has not heard of yet."""
        self._in_flight: deque[CommitCall] = deque()

    # --- on the loop ---------------------------------------------------------

    async def claim(self, room: RoomKey) -> int:
        """Take a room. Commits under an earlier claim are refused from now on; those on their way are waited for."""
        fence = self._claims[room] = next(self._fences)
        for call in tuple(self._in_flight):
            if call.holds(room):
                await call.wait_answered()
        return fence

    def begin(self, commits: Sequence[Commit]) -> CommitCall:
        """Make a call of some commits; it is to be handed to the writer thread at once."""
        call = CommitCall(commits, self._loop.one_shot())
        self._in_flight.append(call)
        return call

    def _answer(self, number: int) -> None:
        """Answer the oldest calls, which the writer thread has settled."""
        for _ in range(number):
            call = self._in_flight.popleft()
            self._end_claims(call)
            call.answer()

    def _end_claims(self, call: CommitCall) -> None:
        if not self._ended:
            return
        for commit in call.commits:
            claim = (commit.room, commit.fence)
            if claim in self._ended:
                self._ended.discard(claim)
                # A later claim of the same room is not what has ended.
                if self._claims.get(commit.room) == commit.fence:
                    del self._claims[commit.room]

    # --- in the writer thread ------------------------------------------------

    def settle(self, calls: Sequence[CommitCall]) -> Callable[[], None]:
        """Apply all commits of some calls, and give what is to be called on the loop."""
        answers = self._settle([commit for call in calls for commit in call.commits])
        start = 0
        for call in calls:
            end = start + len(call.commits)
            call.answers = answers[start:end]
            start = end
        return partial(self._answer, len(calls))

    def _settle(self, commits: Sequence[Commit]) -> list[CommitError | None]:
        answers = [self._admit(commit) for commit in commits]
        try:
            self._apply_some([commit for commit, error in zip(commits, answers, strict=True) if error is None])
        except Exception:  # noqa: BLE001 - tried again one by one, and told to each
            self._settle_apart(commits, answers)
        return answers

    def _admit(self, commit: Commit) -> CommitError | None:
        room, fence = commit.room, commit.fence
        if self._claims.get(room) != fence or (room, fence) in self._ended:
            return FencedError(
                f"{room}: fence {fence} is not the room's claim any more; nothing of the commit is stored"
            )
        if commit.release:
            self._ended.add((room, fence))
        return None

    def _apply_some(self, commits: Sequence[Commit]) -> None:
        # A commit that only ends a claim touches no disk.
        writing = [commit for commit in commits if commit.values or commit.alarms or commit.clear]
        if writing:
            self._apply(writing)

    def _settle_apart(self, commits: Sequence[Commit], answers: list[CommitError | None]) -> None:
        failed: dict[RoomKey, Exception] = {}
        for index, commit in enumerate(commits):
            if answers[index] is not None:
                continue
            error = failed.get(commit.room) or self._try(commit)
            if error is not None:
                failed[commit.room] = error
                answers[index] = _refusal(commit, error)
                self._ended.discard((commit.room, commit.fence))

    def _try(self, commit: Commit) -> Exception | None:
        try:
            self._apply_some([commit])
        except Exception as error:  # noqa: BLE001 - told to the one who committed
            return error
        return None


def _refusal(commit: Commit, cause: Exception) -> CommitError:
    error = CommitError(f"{commit.room}: nothing of the commit is stored: {cause}")
    error.__cause__ = cause if isinstance(cause, BackendError) else _wrapped(cause)
    return error


def _wrapped(cause: Exception) -> BackendError:
    error = BackendError(f"{type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
