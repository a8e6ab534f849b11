"""Cases of opening, closing and dying: what is refused when, and what is there afterwards.

Owns the clauses about a store's life and about durability.

Promises to die only in the ways that an author's ``crash`` and ``reopen`` offer.

Must never rely on a store that is entered twice at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from partyroom.errors import BackendClosedError
from partyroom.protocols import StorageBackend
from partyroom.testing._contract_case import A, B, Contract, alarm, case, rows
from partyroom.testing._contract_trial import ALL, EVERYTHING, Trial
from partyroom.types import Commit, RoomKey

__all__ = ["LifeCases"]


class LifeCases(Contract):
    """A store is closed, open, or left, and keeps what it answered for."""

    # --- open and closed ------------------------------------------------------

    @case
    async def test_closed_before_it_is_entered(self, trial: Trial) -> None:
        """A store that was not entered raises BackendClosedError at every call."""
        await _expect_closed(trial, self.new_backend(), "before entering")

    @case
    async def test_closed_after_it_was_left(self, trial: Trial) -> None:
        """A store that was left raises BackendClosedError at every call."""
        await trial.write(A, {"k": b"1"})
        await trial.leave()
        await _expect_closed(trial, trial.backend, "after leaving")

    @case
    async def test_entered_again(self, trial: Trial) -> None:
        """A store that was left can be entered again, and shows and takes what one that is new would."""
        for number in range(3):
            await trial.write(A, {f"k{number}": b"%d" % number})
            await trial.leave()
            await trial.enter()
            await trial.expect_room("entered again", A, {f"k{n}": b"%d" % n for n in range(number + 1)})

    # --- durable --------------------------------------------------------------

    @case
    async def test_durable_when_commit_returns(self, trial: Trial) -> None:
        """What a commit wrote is durable when it returns: a process that dies right after it loses nothing of it."""
        for number in range(3):
            await trial.write(A, {"k": b"%d" % number, f"k{number}": b""}, rows(A, due=number, parked=None))
            await trial.crash()
            values = {"k": b"%d" % number} | {f"k{n}": b"" for n in range(number + 1)}
            await trial.expect_room(f"after commit {number} and a crash", A, values, rows(A, due=number, parked=None))

    @case
    async def test_a_group_is_durable_when_commit_returns(self, trial: Trial) -> None:
        """All of a group is durable when the call returns, not only the first or the last of its commits."""
        rooms = [RoomKey("party", f"room {number}") for number in range(20)]
        commits = [await trial.commit_of(room, {"k": room.id.encode()}, rows(room, ring=1)) for room in rooms]
        await trial.store(commits, "committing a group of 20")
        await trial.crash()
        for room in rooms:
            await trial.expect_room("after a group and a crash", room, {"k": room.id.encode()}, rows(room, ring=1))

    @case
    async def test_kept_when_it_is_left(self, trial: Trial) -> None:
        """Leaving a store and opening it again, as a later process would, changes nothing of what it shows."""
        await trial.write(A, {"k": b"1", "": b""}, rows(A, due=1, parked=None))
        await trial.write(B, {}, rows(B, due=2))
        await trial.reopen()
        await trial.expect_room("reopened", A, {"k": b"1", "": b""}, rows(A, due=1, parked=None))
        await trial.expect_room("reopened", B, {}, rows(B, due=2))
        due = list(await trial.backend.due_alarms(None, None, ALL))
        trial.expect("reopened: due alarms", [alarm(A, "due", 1), alarm(B, "due", 2)], due)
        trial.expect("reopened: rooms", ["a", "b"], list(await trial.backend.rooms("party", EVERYTHING, ALL)))


async def _expect_closed(trial: Trial, backend: StorageBackend, when: str) -> None:
    calls: Mapping[str, Callable[[], Awaitable[object]]] = {
        "claim": partial(backend.claim, A),
        "commit": partial(backend.commit, [Commit(A, 1, {"k": b"1"}, {})]),
        "read": partial(backend.read, A, ["k"]),
        "scan": partial(backend.scan, A, EVERYTHING, 1),
        "room_alarms": partial(backend.room_alarms, A),
        "due_alarms": partial(backend.due_alarms, None, None, 1),
        "parked_alarms": partial(backend.parked_alarms, "party", None, 1),
        "rooms": partial(backend.rooms, "party", EVERYTHING, 1),
    }
    for name, call in calls.items():
        await trial.expect_error(f"{name} {when}", BackendClosedError, call)
