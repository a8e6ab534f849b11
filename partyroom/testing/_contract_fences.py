"""Cases of claims: who may write, who may not any more, and what a new holder sees.

Owns the clauses about ``claim``, fences and releases.

Promises to try a lost claim before, during and after another's.

Must never rely on how large a fence is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from partyroom.errors import CommitError, FencedError
from partyroom.testing._contract_case import ODD_ROOMS, ROUNDS, A, B, Contract, alarm, case, rows
from partyroom.testing._contract_trial import Trial, checkpoints, together
from partyroom.types import AlarmRow, Commit, RoomKey

__all__ = ["FenceCases"]


class FenceCases(Contract):
    """A commit counts only under its room's current claim."""

    @case
    async def test_fences_grow(self, trial: Trial) -> None:
        """Each claim of a room gives a higher fence than any before it, after a release and after a reopening too."""
        fences = [await trial.claim(A), await trial.claim(A)]
        await trial.store([await trial.commit_of(A, {"k": b"1"}, release=True)], "releasing the room")
        fences.append(await trial.claim(A))
        await trial.reopen()
        fences.append(await trial.claim(A))
        await trial.claim(B)
        fences.append(await trial.claim(A))
        await trial.crash()
        fences.append(await trial.claim(A))
        trial.expect("claiming six times: fences that are not above the one before", [], _not_growing(fences))

    @case
    async def test_fenced_before_a_claim(self, trial: Trial) -> None:
        """A commit to a room that nobody has claimed is refused, whatever number it carries."""
        await trial.claim(B)
        for fence in (-1, 0, 1, 2, 2**40):
            await _expect_refused(
                trial, Commit(A, fence, {"k": b"1"}, rows(A, ring=1)), f"fence {fence} in an unclaimed room"
            )
        await trial.expect_room("after refused commits", A, {})

    @case
    async def test_fenced_during_anothers_claim(self, trial: Trial) -> None:
        """Once another has claimed the room, a commit with any other fence than that one's is refused."""
        await trial.write(A, {"k": b"first"})
        first = await trial.commit_of(A, {"k": b"late"}, rows(A, late=1), clear=True)
        second = await trial.claim(A)
        await _expect_refused(trial, first, "the lost claim's fence")
        await _expect_refused(trial, first._replace(fence=second + 1), "a fence that was never given")
        await trial.expect_room("after refused commits", A, {"k": b"first"})
        await trial.write(A, {"k": b"second"})
        await _expect_refused(trial, first, "the lost claim's fence, after a commit of the new one")
        await trial.expect_room("after that", A, {"k": b"second"})

    @case
    async def test_fenced_after_anothers_claim(self, trial: Trial) -> None:
        """A claim that was lost stays lost when the one that took it has ended."""
        first = await trial.commit_of(A, {"k": b"late"})
        await trial.claim(A)
        await trial.store([await trial.commit_of(A, {"k": b"second"}, release=True)], "the second claim's last commit")
        await _expect_refused(trial, first, "the first claim's fence, after the second was released")
        await trial.expect_room("after refused commits", A, {"k": b"second"})

    @case
    async def test_fenced_after_release(self, trial: Trial) -> None:
        """A commit that releases is stored, and ends the claim: the next one with its fence is refused, in the same call too."""
        last = await trial.commit_of(A, {"k": b"last"}, rows(A, ring=1), release=True)
        late = Commit(A, last.fence, {"k": b"late"}, {})
        expected = [None, FencedError]
        trial.expect("committing a release and one behind it", expected, await trial.answers([last, late]))
        await _expect_refused(trial, late, "the released fence, in the next call")
        await trial.expect_room("after it", A, {"k": b"last"}, rows(A, ring=1))
        await trial.claim(B)
        await trial.store([Commit(B, await trial.claim(B), {}, {}, release=True)], "a release that writes nothing")
        late = await trial.commit_of(B, {"k": b"late"})
        await _expect_refused(trial, late, "the released fence, after a release that wrote nothing")

    @case
    async def test_a_refused_release_ends_nothing(self, trial: Trial) -> None:
        """A release by one that has lost the room is refused, and the claim of the one that has it goes on."""
        lost = await trial.commit_of(A, {"k": b"late"}, release=True)
        await trial.claim(A)
        await _expect_refused(trial, lost, "a release under a lost claim")
        await trial.write(A, {"k": b"1"})
        await trial.expect_room("after the holder's commit", A, {"k": b"1"})

    @case
    async def test_claims_are_of_one_room(self, trial: Trial) -> None:
        """A claim or a release of one room changes nothing about another's."""
        for room in ODD_ROOMS:
            await trial.claim(room)
        commits = [await trial.commit_of(room, {"k": b"1"}) for room in ODD_ROOMS]
        await trial.store([await trial.commit_of(RoomKey("party", "gone"), release=True)], "releasing another room")
        await trial.store(commits, "committing to rooms that were claimed before it")

    @case
    async def test_claims_at_the_same_time(self, trial: Trial) -> None:
        """Rooms may be claimed at the same time, also while another is committed to and released: each claim counts."""
        for turn in range(ROUNDS):
            release = await trial.commit_of(A, {"k": b"1"}, release=True)

            async def claim(room: RoomKey, turn: int = turn) -> None:
                await checkpoints(turn)
                await trial.claim(room)

            rooms = [room for room in ODD_ROOMS if room != A]
            releasing = partial(trial.store, [release], "releasing a room while others are claimed")
            await together(releasing, *(partial(claim, room) for room in rooms))
            commits = [await trial.commit_of(room, {"k": b"1"}) for room in rooms]
            await trial.store(commits, "committing to rooms that were claimed at the same time")
            await trial.claim(A)

    @case
    async def test_claims_end_when_it_is_left(self, trial: Trial) -> None:
        """A claim ends when the store is left: after a reopening its fence is refused, before and after a new claim."""
        commit = await trial.commit_of(A, {"k": b"late"})
        await trial.reopen()
        await _expect_refused(trial, commit, "a fence from before the reopening")
        await trial.claim(A)
        await _expect_refused(trial, commit, "a fence from before the reopening, after a new claim")
        await trial.expect_room("after refused commits", A, {})

    @case
    async def test_a_claim_during_a_commit(self, trial: Trial) -> None:
        """Whoever has claimed a room reads everything that is stored under an earlier claim: nothing comes in behind."""
        for turn in range(ROUNDS):
            await trial.write(A, {"k": b"old"}, rows(A, ring=1))
            commit = await trial.commit_of(A, {"k": b"new"}, rows(A, ring=2))
            answer, *seen = await _raced(trial, commit, turn)
            stored = "new" if answer is None else "old"
            expected = ({"k": stored.encode()}, [alarm(A, "ring", 2 if answer is None else 1)])
            when = f"a claim at turn {turn} of a commit that was answered {answer and answer.__name__}"
            trial.expect(f"reading right after {when}, and later", [expected, expected], seen)


Seen = tuple[dict[str, bytes], list[AlarmRow]]


async def _raced(trial: Trial, commit: Commit, turns: int) -> tuple[type[CommitError] | None, Seen, Seen]:
    """Begin a commit and claim its room after so many turns; give its answer, what the claimer saw, and what is there later."""
    answers: list[type[CommitError] | None] = []
    seen: list[Seen] = []

    async def look() -> None:
        seen.append((await trial.values(commit.room), list(await trial.backend.room_alarms(commit.room))))

    async def write() -> None:
        answers.extend(await trial.answers([commit]))

    async def claim() -> None:
        await checkpoints(turns)
        await trial.claim(commit.room)
        await look()

    await together(write, claim)
    await look()
    return answers[0], seen[0], seen[1]


async def _expect_refused(trial: Trial, commit: Commit, when: str) -> None:
    trial.expect(f"committing with {when}", [FencedError], await trial.answers([commit]))


def _not_growing(fences: Sequence[int]) -> list[tuple[int, int]]:
    return [(before, after) for before, after in pairwise(fences) if after <= before]
