"""A backend at whose n-th commit a runtime is killed.

Owns the count of commits and the moment of the crash: before the commit, after
it but before anybody is told, or right after it was told.

Promises that what is durable after the crash is exactly the commits up to that
moment, whatever else the rooms had sealed.

Must never crash anything itself: it calls whoever does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Literal, NoReturn, TypeAlias, final

from anyio import Event
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._native import current_loop
from partyroom.errors import BackendError, CommitError
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_wrapper import BackendWrapper
from partyroom.types import Commit, RoomKey

__all__ = ["CrashMoment", "CrashingBackend"]

CrashMoment: TypeAlias = Literal["before", "unanswered", "answered"]
"""Before the commit reaches the store; when it is durable, and nobody was told; when all who wait for it were told."""


@final
class CrashingBackend(BackendWrapper):
    """Counts the commits that store something, and has ``kill`` called at the ``nth`` of them; never, if that is 0."""

    def __init__(
        self, backend: StorageBackend, hear: Callable[[Commit], None], *, nth: int = 0, moment: CrashMoment = "before"
    ) -> None:
        super().__init__(backend)
        self._hear = hear
        self._nth = nth
        self._moment = moment
        self.kill: Callable[[], None] = lambda: None
        self.may_kill: Callable[[], bool] = lambda: True
        """Whether there is a runtime to kill: there is none while a scenario restarts it."""
        self.commits = 0
        """How many commits there were."""
        self.reached = False
        """Whether the moment has come: nothing more is stored then."""
        self.killed = Event()
        self._answerable: set[RoomKey] = set()

    def let_go(self) -> None:
        """Crash nothing any more."""
        self._nth = 0
        self.reached = False

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        if self.reached:
            return await self._commit_late(commits)
        for index, commit in enumerate(commits):
            if not (commit.values or commit.alarms or commit.clear):
                continue
            self.commits += 1
            self._hear(commit)
            if self.commits == self._nth:
                return await self._crash(commits, index)
        return await self.backend.commit(commits)

    async def _crash(self, commits: Sequence[Commit], index: int) -> Sequence[CommitError | None]:
        self.reached = True
        stored = commits[: index if self._moment == "before" else index + 1]
        answers: Sequence[CommitError | None] = await self.backend.commit(stored) if stored else ()
        if self._moment != "answered":
            self._kill()
            await _never()
        current_loop().spawn(self._kill_soon, copy_context())
        if len(stored) == len(commits):
            return answers
        # Only some of the group may be told. Whoever asked with one call for all will ask again for each.
        self._answerable = {commit.room for commit in stored}
        message = "a crash comes between two commits of one group"
        raise BackendError(message)

    async def _commit_late(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        if all(commit.room in self._answerable for commit in commits):
            return await self.backend.commit(commits)
        return await _never()

    async def _kill_soon(self) -> None:
        # Whoever is told has a turn, and so has whoever they tell.
        await checkpoint()
        await checkpoint()
        while not self.may_kill():
            await checkpoint()
        self._kill()

    def _kill(self) -> None:
        self._answerable = set()
        self.kill()
        self.killed.set()


async def _never() -> NoReturn:
    """Wait until cancelled, as all that waits is by a crash."""
    while True:
        await Event().wait()
