"""Cases of writing: whole, in order, answered, repeatable, apart from other rooms.

Owns the clauses about ``commit``, but for its fences.

Promises to look at every listing that a write should have changed.

Must never rely on how a store groups what it is given.
"""

from __future__ import annotations

from functools import partial

from partyroom.errors import BackendError, CommitError, FencedError
from partyroom.testing._contract_case import ODD_ROOMS, ROUNDS, A, B, Contract, alarm, case, rows
from partyroom.testing._contract_trial import ALL, EVERYTHING, Trial, cancelled_after
from partyroom.types import Commit, RoomKey

__all__ = ["CommitCases"]


class CommitCases(Contract):
    """What a commit does, all of it and nothing else."""

    # --- commits --------------------------------------------------------------

    @case
    async def test_atomic(self, trial: Trial) -> None:
        """A commit is stored whole: all its values, deletions and alarms."""
        await trial.write(A, {"kept": b"1", "changed": b"1", "gone": b"1"}, rows(A, moved=10, parked=20, gone=30))
        await trial.write(
            A, {"changed": b"2", "gone": None, "new": b"2"}, rows(A, moved=11, parked=None) | {"gone": None}
        )
        values = {"kept": b"1", "changed": b"2", "new": b"2"}
        await trial.expect_room("after the second commit", A, values, rows(A, moved=11, parked=None))
        many = {f"{number:04}": b"%d" % number for number in range(5000)}
        await trial.write(A, {**many, "kept": None}, rows(A, moved=12))
        del values["kept"]
        await trial.expect_room("after one of 5,000 values", A, {**values, **many}, rows(A, moved=12, parked=None))

    @case
    async def test_atomic_when_cancelled(self, trial: Trial) -> None:
        """A commit that is cancelled is stored whole or not at all, and the store goes on."""
        old = dict.fromkeys("abcdef", b"old")
        new = dict.fromkeys("abcdef", b"new")
        for turn in range(ROUNDS):
            await trial.write(A, old, rows(A, ring=1))
            commit = await trial.commit_of(A, new, rows(A, ring=2))
            await cancelled_after(turn, partial(trial.backend.commit, [commit]))
            # Whoever has claimed the room finds no commit of an earlier claim on its way any more.
            await trial.claim(A)
            values, alarms = await trial.values(A), list(await trial.backend.room_alarms(A))
            seen = ("old" if values == old else "new" if values == new else f"part of it: {values}", alarms)
            expected = ("new", [alarm(A, "ring", 2)]) if seen[0] == "new" else ("old", [alarm(A, "ring", 1)])
            trial.expect(f"reading after a commit that was cancelled at its turn {turn}", expected, seen)

    @case
    async def test_ordered(self, trial: Trial) -> None:
        """Commits are applied in order: those of one call, and those of one call after another."""
        await trial.claim(A)
        group = [
            await trial.commit_of(A, {"put": b"1", "gone": b"1", "back": b"1"}, rows(A, moved=1, gone=1, back=1)),
            await trial.commit_of(
                A, {"put": b"2", "gone": None, "back": None}, rows(A, moved=2) | dict.fromkeys(("gone", "back"))
            ),
            await trial.commit_of(A, {"put": b"3", "back": b"3"}, rows(A, moved=None, back=3)),
        ]
        await trial.store(group, "committing three of one room in one call")
        await trial.expect_room("after the group", A, {"put": b"3", "back": b"3"}, rows(A, moved=None, back=3))
        for number in range(5):
            await trial.write(A, {"put": b"%d" % number}, rows(A, moved=number))
        await trial.expect_room("after five calls", A, {"put": b"4", "back": b"3"}, rows(A, moved=4, back=3))

    @case
    async def test_seen_when_commit_returns(self, trial: Trial) -> None:
        """A read that begins after a commit has returned shows what it wrote."""
        for number in range(20):
            value = b"%d" % number
            await trial.write(A, {"k": value}, rows(A, ring=number))
            await trial.expect_room(f"right after commit {number}", A, {"k": value}, rows(A, ring=number))
            due = list(await trial.backend.due_alarms(None, None, ALL))
            trial.expect(f"right after commit {number}: due alarms", [alarm(A, "ring", number)], due)

    @case
    async def test_idempotent(self, trial: Trial) -> None:
        """A commit that is applied twice, alone or in a group, is as one applied once."""
        await trial.write(A, {"gone": b"0", "stays": b"0"}, rows(A, gone=0))
        await trial.write(B, {"cleared": b"0"}, rows(B, cleared=0))
        group = [
            await trial.commit_of(
                A, {"k": b"1", "gone": None, "never": None}, rows(A, due=1, parked=None) | {"gone": None}
            ),
            await trial.commit_of(B, {"k": b"2"}, rows(B, due=2), clear=True),
        ]
        await trial.store(group, "committing a group")
        await trial.store(group, "committing the same group again")
        for commit in group:
            await trial.store([commit], "committing one of them alone")
        await trial.expect_room("after all that", A, {"stays": b"0", "k": b"1"}, rows(A, due=1, parked=None))
        await trial.expect_room("after all that", B, {"k": b"2"}, rows(B, due=2))
        due = list(await trial.backend.due_alarms(None, None, ALL))
        trial.expect("after all that: due alarms", [alarm(A, "due", 1), alarm(B, "due", 2)], due)

    @case
    async def test_one_answer_for_each_commit(self, trial: Trial) -> None:
        """A call answers each of its commits, in their order, and a call without commits answers none."""
        trial.expect("committing nothing", [], await trial.answers([]))
        rooms = [RoomKey("party", f"{number:03}") for number in range(300)]
        commits = [await trial.commit_of(room, {"k": room.id.encode()}) for room in rooms]
        lost = set(range(3, 300, 7))
        for number in lost:
            await trial.claim(rooms[number])
        expected = [FencedError if number in lost else None for number in range(300)]
        trial.expect("committing 300, every seventh refused", expected, await trial.answers(commits))

    @case
    async def test_one_refusal_is_not_anothers(self, trial: Trial) -> None:
        """A commit that is refused takes nothing from the others of its call."""
        refused = await trial.commit_of(B, {"k": b"refused"})
        await trial.claim(B)
        group = [
            await trial.commit_of(A, {"k": b"1"}),
            refused,
            await trial.commit_of(A, {"k": b"2"}),
            await trial.commit_of(B, {"k": b"3"}),
        ]
        expected = [None, FencedError, None, None]
        trial.expect("committing four, the second refused", expected, await trial.answers(group))
        await trial.expect_room("after it", A, {"k": b"2"})
        await trial.expect_room("after it", B, {"k": b"3"})

    @case
    async def test_nothing_to_write(self, trial: Trial) -> None:
        """A commit that changes nothing, or deletes what is not there, is stored and leaves nothing behind."""
        await trial.write(A)
        await trial.write(A, {"never": None}, {"never": None})
        await trial.write(B, {"never": None}, clear=True)
        await trial.expect_room("after commits of nothing", A, {})
        trial.expect("the rooms after it", [], list(await trial.backend.rooms("party", EVERYTHING, ALL)))

    @case
    async def test_clear(self, trial: Trial) -> None:
        """A commit that clears deletes all values and alarms of its room first, then sets its own, and touches no other room."""
        for room in (A, B):
            await trial.write(room, {"": b"0", "k": b"0", "other": b"0"}, rows(room, due=1, parked=None, other=2))
        await trial.write(A, {"k": b"1", "gone": None}, rows(A, due=3), clear=True)
        await trial.expect_room("after clearing it", A, {"k": b"1"}, rows(A, due=3))
        await trial.expect_room(
            "after clearing another", B, {"": b"0", "k": b"0", "other": b"0"}, rows(B, due=1, parked=None, other=2)
        )
        due = list(await trial.backend.due_alarms(None, None, ALL))
        trial.expect("due alarms", [alarm(B, "due", 1), alarm(B, "other", 2), alarm(A, "due", 3)], due)
        parked = list(await trial.backend.parked_alarms("party", None, ALL))
        trial.expect("parked alarms", [alarm(B, "parked", None)], parked)
        group = [await trial.commit_of(B, {"k": b"2"}, rows(B, due=4)), await trial.commit_of(B, clear=True)]
        await trial.store(group, "committing a value, then clearing, in one call")
        await trial.expect_room("after that", B, {})
        trial.expect("the rooms after that", ["a"], list(await trial.backend.rooms("party", EVERYTHING, ALL)))

    @case
    async def test_nothing_of_the_caller_is_kept(self, trial: Trial) -> None:
        """What a caller does to a commit's mappings, or to what was read, after the call, changes nothing stored."""
        values: dict[str, bytes | None] = {"k": b"1"}
        alarms = rows(A, ring=1)
        await trial.write(A, values, alarms)
        values["k"], alarms["ring"] = b"2", None
        values["more"] = b"2"
        read = await trial.backend.read(A, ["k"])
        if isinstance(read, dict):
            read.clear()
        await trial.expect_room("after the caller changed them", A, {"k": b"1"}, rows(A, ring=1))

    # --- rooms apart ----------------------------------------------------------

    @case
    async def test_isolated(self, trial: Trial) -> None:
        """No room sees, changes or deletes another's values or alarms, however alike their names are."""
        own = {room: {"k": f"{number}".encode(), str(number): b""} for number, room in enumerate(ODD_ROOMS)}
        for number, room in enumerate(ODD_ROOMS):
            await trial.write(room, own[room], rows(room, due=number, parked=None))
        for number, room in enumerate(ODD_ROOMS):
            await trial.expect_room("after writing to all", room, own[room], rows(room, due=number, parked=None))
        for number, room in enumerate(ODD_ROOMS):
            await trial.write(room, clear=True)
            await trial.expect_room("after clearing it", room, {})
            for later, other in enumerate(ODD_ROOMS[number + 1 :], number + 1):
                await trial.expect_room(
                    f"after clearing {room!r}", other, own[other], rows(other, due=later, parked=None)
                )

    # --- faults ---------------------------------------------------------------

    @case
    async def test_goes_on_after_a_fault(self, trial: Trial) -> None:
        """A commit that fails says so with a BackendError, stores all or nothing, and the store goes on when the fault is gone."""
        await trial.write(A, {"a": b"old", "b": b"old"}, rows(A, ring=1))
        fault = self.fault(trial.backend)
        if fault is None:
            return
        commit = await trial.commit_of(A, {"a": b"new", "b": b"new"}, rows(A, ring=2))
        with fault:
            answer = await _outcome(trial, commit)
        trial.expect("committing while the fault lasts: whether it failed", True, answer is not None)  # noqa: FBT003 - a value
        await trial.claim(A)
        values, alarms = await trial.values(A), list(await trial.backend.room_alarms(A))
        old = ({"a": b"old", "b": b"old"}, [alarm(A, "ring", 1)])
        new = ({"a": b"new", "b": b"new"}, [alarm(A, "ring", 2)])
        # One that was refused is not stored; of one that raised, nobody knows.
        stored = not isinstance(answer, CommitError) and values == new[0]
        trial.expect("reading after it", new if stored else old, (values, alarms))
        await trial.write(A, {"a": b"again"}, rows(A, ring=3))
        await trial.expect_room("after the next commit", A, {**values, "a": b"again"}, rows(A, ring=3))


async def _outcome(trial: Trial, commit: Commit) -> BackendError | None:
    """Commit; give how it failed, if it did."""
    try:
        (answer,) = await trial.backend.commit([commit])
    except BackendError as error:
        return error
    return answer
