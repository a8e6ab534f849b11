"""Sequences of operations that nobody has thought of, compared with the model.

Owns how they are run, and how a finding is told.

Promises that a finding names the seed, and the fewest operations that were found to lead to it.

Must never take longer than ``sequences`` and ``steps`` say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from partyroom.errors import BrokenContractError
from partyroom.testing._contract_case import Contract, case
from partyroom.testing._contract_sequences import Operation, Run, make_sequence, shorten
from partyroom.testing._contract_trial import Trial, judged

__all__ = ["GeneratedCases"]


class GeneratedCases(Contract):
    """A store does what the model does, whatever is asked of it in whatever order."""

    @case
    async def test_generated_sequences(self, trial: Trial) -> None:
        """A store shows what the model does after each of the operations of a generated sequence."""
        for seed in range(self.seed, self.seed + self.sequences):
            operations = make_sequence(seed, self.steps)
            find = partial(self._find, trial.clause)
            if await find(operations) is not None:
                shortest = await shorten(operations, find)
                found = await find(shortest)
                raise _described(trial.clause, seed, len(operations), shortest, found)

    async def _find(self, clause: str, operations: Sequence[Operation]) -> BrokenContractError | None:
        """Run a sequence on a new store; give what it finds."""

        async def run(trial: Trial) -> None:
            both = Run(trial)
            for operation in operations:
                await operation.run(both)

        return await judged(self, clause, run)


def _described(
    clause: str, seed: int, steps: int, operations: Sequence[Operation], found: BrokenContractError | None
) -> BrokenContractError:
    """Tell how a sequence can be run again, and what it found."""
    listed = "".join(f"\n    {number}. {operation}" for number, operation in enumerate(operations, 1))
    told = f"seed {seed}, {steps} steps, of which these are enough:{listed}"
    if found is None:
        return BrokenContractError(clause, told, "the same each time", "a finding once, and none the next time")
    error = BrokenContractError(clause, f"{told}\n  at:       {found.when}", found.expected, found.seen)
    error.__cause__ = found.__cause__
    return error
