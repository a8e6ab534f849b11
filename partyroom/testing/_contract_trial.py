"""One case of the contract, on one store: what it does to the store, and the words for what goes wrong.

Owns the store of the case: opening, closing and reopening it, the claims taken
in it, and the comparison of what was expected with what was seen.

Promises that whatever a store does wrong, an unexpected exception and a call
that never returns included, ends as a :class:`BrokenContractError` that names
the clause, and that the store is left whatever happens; but for a call that cannot
be cancelled.

Must never know the clauses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, final

from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint
from typing_extensions import get_protocol_members

from partyroom.errors import BrokenContractError, CommitError, FencedError
from partyroom.protocols import StorageBackend
from partyroom.testing._contract_suite import found_by, shown, shown_apart, shown_error
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["ALL", "EVERYTHING", "Hooks", "Trial", "cancelled_after", "checkpoints", "judged", "together"]

ALL: Final = 2**31 - 1
"""A limit above everything that a case stores."""

EVERYTHING: Final = KeyRange()
"""All keys, or all ids."""


class Hooks(Protocol):
    """Where the stores of a case come from: see :class:`~partyroom.testing.backend_contract.BackendContract`."""

    patience: float

    def new_backend(self) -> StorageBackend:
        """Make an empty store."""
        ...

    def reopen(self, backend: StorageBackend, /) -> StorageBackend:
        """Make a store of the data of one that was left."""
        ...

    def crash(self, backend: StorageBackend, /) -> StorageBackend:
        """Make a store of what a process that died now would leave."""
        ...


@final
class Trial:
    """The store that a case judges. The verbs that a case needs most; for the others there is ``backend``."""

    def __init__(self, hooks: Hooks, clause: str) -> None:
        self.clause = clause
        self.backend = hooks.new_backend()
        self._hooks = hooks
        self._is_open = False
        self._fences: dict[RoomKey, int] = {}

    # --- opening and closing -------------------------------------------------

    async def enter(self) -> None:
        """Open the store."""
        entered = await self.backend.__aenter__()
        self._is_open = True
        self.expect("entering the store: what `async with ... as` gives", "the store", _the_store(entered))

    async def leave(self) -> None:
        """Close the store, if it is open."""
        if self._is_open:
            self._is_open = False
            self._fences.clear()
            await self.backend.__aexit__(None, None, None)

    async def reopen(self) -> None:
        """Close the store, and open it as a later process would."""
        await self.leave()
        self.backend = self._hooks.reopen(self.backend)
        await self.enter()

    async def crash(self) -> None:
        """Go on with what a process that died now would leave."""
        survivor = self._hooks.crash(self.backend)
        await self.leave()
        self.backend = survivor
        await self.enter()

    # --- writing -------------------------------------------------------------

    async def claim(self, room: RoomKey) -> int:
        """Take a room."""
        fence = self._fences[room] = await self.backend.claim(room)
        return fence

    async def commit_of(
        self,
        room: RoomKey,
        values: Mapping[str, bytes | None] | None = None,
        alarms: Mapping[str, AlarmRow | None] | None = None,
        *,
        clear: bool = False,
        release: bool = False,
    ) -> Commit:
        """Make a commit under the room's claim, which is taken first if there is none."""
        fence = self._fences[room] if room in self._fences else await self.claim(room)
        return Commit(room, fence, values or {}, alarms or {}, clear, release)

    async def write(
        self,
        room: RoomKey,
        values: Mapping[str, bytes | None] | None = None,
        alarms: Mapping[str, AlarmRow | None] | None = None,
        *,
        clear: bool = False,
    ) -> None:
        """Commit something, and expect that it is stored."""
        commit = await self.commit_of(room, values, alarms, clear=clear)
        await self.store([commit], f"committing to {room} under its claim")

    async def store(self, commits: Sequence[Commit], when: str) -> None:
        """Commit a group, and expect that all of it is stored."""
        self.expect(f"{when}: the answers", [None] * len(commits), await self.answers(commits))

    async def answers(self, commits: Sequence[Commit]) -> list[type[CommitError] | None]:
        """Commit a group; give the class of each answer, of which a subclass is as good."""
        return [self._kind(answer) for answer in await self.backend.commit(commits)]

    def _kind(self, answer: object) -> type[CommitError] | None:
        if answer is None:
            return None
        if not isinstance(answer, CommitError):
            expected = "None or a CommitError for each commit"
            raise BrokenContractError(self.clause, "committing: one of the answers", expected, shown(answer))
        return FencedError if isinstance(answer, FencedError) else type(answer)

    # --- reading -------------------------------------------------------------

    async def values(self, room: RoomKey) -> dict[str, bytes]:
        """Give all values of a room, as a scan shows them."""
        return dict(await self.backend.scan(room, EVERYTHING, ALL))

    async def expect_room(
        self, when: str, room: RoomKey, values: Mapping[str, bytes], alarms: Mapping[str, AlarmRow | None] | None = None
    ) -> None:
        """Expect that a room holds these values and alarms, and nothing else."""
        named = sorted((alarms or {}).items())
        self.expect(f"{when}: reading the keys of {room}", values, dict(await self.backend.read(room, tuple(values))))
        self.expect(
            f"{when}: scanning {room}", sorted(values.items()), list(await self.backend.scan(room, EVERYTHING, ALL))
        )
        self.expect(
            f"{when}: the alarms of {room}", [row for _, row in named], list(await self.backend.room_alarms(room))
        )

    # --- judging -------------------------------------------------------------

    def expect(self, when: str, expected: object, seen: object) -> None:
        """Compare; raise :class:`BrokenContractError` if they differ."""
        if expected != seen:
            raise BrokenContractError(self.clause, when, *shown_apart(expected, seen))

    async def expect_error(self, when: str, kind: type[Exception], call: Callable[[], Awaitable[object]]) -> None:
        """Expect that a call raises an error of this kind."""
        try:
            result = await call()
        except kind:
            return
        except Exception as error:
            raise BrokenContractError(self.clause, when, kind.__name__, shown_error(error)) from error
        raise BrokenContractError(self.clause, when, kind.__name__, f"no error, but {shown(result)}")


async def judged(hooks: Hooks, clause: str, case: Callable[[Trial], Awaitable[None]]) -> BrokenContractError | None:
    """Run a case on a new store; give what it found wrong."""
    trial = Trial(hooks, clause)

    async def live() -> None:
        await trial.enter()
        await case(trial)

    found = await found_by(hooks.patience, clause, live)
    closing = await found_by(hooks.patience, clause, trial.leave)
    return found or closing


async def together(*calls: Callable[[], Awaitable[None]]) -> None:
    """Run some calls at the same time; raise the first error as it is."""
    errors: list[Exception] = []

    async def guarded(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - raised below, out of the task group's wrapping
            errors.append(error)
            group.cancel_scope.cancel()

    async with create_task_group() as group:
        for call in calls:
            group.start_soon(guarded, call)
    if errors:
        raise errors[0]


async def cancelled_after(turns: int, call: Callable[[], Awaitable[object]]) -> None:
    """Begin a call, and cancel it after so many turns, unless it has ended by then."""
    scope = CancelScope()

    async def begin() -> None:
        with scope:
            await call()

    async with create_task_group() as group:
        group.start_soon(begin)
        await checkpoints(turns)
        scope.cancel()


async def checkpoints(number: int) -> None:
    """Let the others run so many times."""
    for _ in range(number):
        await checkpoint()


def _the_store(entered: object) -> str:
    """Say whether what was entered is a store, and if not, what is missing."""
    if isinstance(entered, StorageBackend):
        return "the store"
    missing = sorted(get_protocol_members(StorageBackend) - set(dir(entered)))
    return f"{shown(entered)}, which has no {', '.join(missing)}"
