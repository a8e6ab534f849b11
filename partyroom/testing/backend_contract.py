"""The contract of :class:`~partyroom.StorageBackend`, as a suite that judges any implementation.

Owns :class:`BackendContract`: one case for each clause, and sequences of
operations that are compared with a model. Subclass it with a factory, and hand
it to pytest or to unittest; it needs neither.

Promises that each case runs on a new, empty store, on each loop that is
installed, and that a finding is a :class:`~partyroom.errors.BrokenContractError`
whose words say which clause is broken, what was expected and what was seen.

Must never ask for more than the contract says: a backend that passes may be
slow, and may keep its data in any form.
"""

from __future__ import annotations

from partyroom.testing._contract_alarms import AlarmCases
from partyroom.testing._contract_commits import CommitCases
from partyroom.testing._contract_fences import FenceCases
from partyroom.testing._contract_generated import GeneratedCases
from partyroom.testing._contract_life import LifeCases
from partyroom.testing._contract_reads import ReadCases

__all__ = ["BackendContract"]


class BackendContract(LifeCases, CommitCases, ReadCases, AlarmCases, FenceCases, GeneratedCases):
    """Judges a backend: subclass it, give it ``make_backend``, and have pytest or unittest run it.

    ::

        class TestMyBackend(BackendContract):          # for unittest: (BackendContract, unittest.TestCase)
            def make_backend(self) -> StorageBackend:
                return MyBackend(self.folder / "data")

    Every ``test_`` method judges one clause, on a new store on each of ``loops``; what is broken is told by a
    :class:`~partyroom.errors.BrokenContractError`. ``make_backend`` makes a new, empty store and opens nothing.

    What else may be given, if the store has it: ``reopen(backend)``, a store of the data of one that was left, if that
    is another object; ``crash(backend)``, a store of what a process that died now would leave; ``fault(backend)``, a
    context manager in which every commit fails. ``longest_key``, ``longest_id`` and ``longest_value`` are lowered by a
    store that takes less than the default :class:`~partyroom.Limits`, and ``sequences`` and ``steps`` raised for a
    longer search from ``seed`` on.
    """
