"""The suite that judges backends: who can run it, what it says, and how long it takes to say it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import isabstract
from itertools import count
from pathlib import Path
from typing import Any, Self, cast

import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BrokenContractError
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_contract import BackendContract
from partyroom.testing.backend_wrapper import BackendWrapper
from partyroom.testing.scheduler_contract import AlarmSchedulerContract
from partyroom.types import Commit, KeyRange, RoomKey

ROOT = Path(__file__).parents[2]

CASES = [name for name in dir(BackendContract) if name.startswith("test_")]


class TestMemoryBackend(BackendContract):
    @override
    def make_backend(self) -> StorageBackend:
        return MemoryBackend()


class Contract(BackendContract):
    """The contract of whatever a test hands in."""

    def __init__(self, make: Callable[[], StorageBackend] = MemoryBackend) -> None:
        self.make = make
        self.folders: list[Path] = []

    @override
    def make_backend(self) -> StorageBackend:
        self.folders.append(self.folder)
        assert [] == list(self.folder.iterdir())
        (self.folder / "data").write_bytes(b"")
        return self.make()


def test_contracts_need_no_test_runner_and_unittest_can_run_them_and_without_trio_on_asyncio_alone() -> None:
    program = """
import sys
sys.modules["trio"] = None
from partyroom.backends.memory import MemoryBackend
from partyroom._alarm_loop import AlarmLoop
from partyroom._native import current_loop
from partyroom._work import Work
from partyroom.testing.backend_contract import BackendContract
from partyroom.testing.scheduler_contract import AlarmSchedulerContract
print(*sorted({"pytest", "unittest", "hypothesis"} & {*sys.modules}), "imported"); import unittest
class MemoryTest(BackendContract, unittest.TestCase):
    make_backend = staticmethod(MemoryBackend)
class LoopTest(AlarmSchedulerContract, unittest.TestCase):
    def make_scheduler(self, clock): return AlarmLoop(clock, Work(current_loop()), lookahead=100, max_waking=100)
print(*(unittest.defaultTestLoader.loadTestsFromTestCase(each).countTestCases() for each in (MemoryTest, LoopTest)))
result = unittest.TestResult()
unittest.TestSuite([MemoryTest("test_odd_keys"), LoopTest("test_at_its_time")]).run(result)
print(result.testsRun, result.wasSuccessful())

class Contract(BackendContract):
    def make_backend(self): raise LookupError
try: Contract().test_atomic()
except LookupError: print("asyncio")
Contract.loops = ("trio",)
Contract().test_atomic()
"""
    ran = subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    of_schedulers = [name for name in dir(AlarmSchedulerContract) if name.startswith("test_")]
    assert ["imported", f"{len(CASES)} {len(of_schedulers)}", "2 True", "asyncio"] == ran.stdout.splitlines()


def test_without_docstrings_a_clause_goes_by_the_name_of_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Python is told to drop them."""
    monkeypatch.setattr(BackendContract.test_bytes_are_kept_exactly, "__doc__", None)
    found = broken(Contract(Doubling), "test_bytes_are_kept_exactly")
    assert found.clause.startswith("test_bytes_are_kept_exactly (test_bytes_are_kept_exactly, on ")


def test_every_case_states_its_clause() -> None:
    for case in CASES:
        clause = getattr(BackendContract, case).__doc__
        assert clause.endswith("."), clause
        assert "\n" not in clause, clause


def test_a_suite_that_makes_no_store_is_not_passed_over() -> None:
    class Misspelt(BackendContract):
        """Has a ``make_store``, which nobody calls."""

    assert not isabstract(Misspelt)
    with pytest.raises(NotImplementedError, match="^Misspelt has no make_backend, which makes"):
        Misspelt().test_atomic()


def test_every_store_has_an_empty_folder_of_its_own_that_goes_away() -> None:
    contract = Contract()
    contract.sequences = 2
    contract.test_generated_sequences()
    assert 2 * (1 + 2) == len(set(contract.folders))
    assert [] == [folder for folder in contract.folders if folder.exists()]


def broken(contract: BackendContract, case: str) -> BrokenContractError:
    """Give what a case finds wrong."""
    with pytest.raises(BrokenContractError) as caught:
        getattr(contract, case)()
    return caught.value


class Unreadable(BackendWrapper):
    def __init__(self) -> None:
        super().__init__(MemoryBackend())

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        message = "disk I/O error"
        raise OSError(message)


def test_an_unexpected_error_is_told_in_words_and_attached() -> None:
    found = broken(Contract(Unreadable), "test_reads_give_what_exists")
    expected = (
        "A read gives those of its keys that exist, however many it is asked for, and nothing else."
        " (test_reads_give_what_exists, on asyncio)\n"
        "  when:     running the case\n"
        "  expected: no error\n"
        "  seen:     OSError: disk I/O error"
    )
    assert (expected, OSError) == (str(found), type(found.__cause__))


def test_an_unexpected_error_while_others_run_is_no_group() -> None:
    found = broken(Contract(Unreadable), "test_reads_during_a_commit")
    assert "OSError: disk I/O error" == found.seen


class Stuck(BackendWrapper):
    def __init__(self) -> None:
        super().__init__(MemoryBackend())

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        while True:
            await checkpoint()


class WithoutInstances(BackendWrapper):
    """Answers with a class where an error is wanted."""

    def __init__(self) -> None:
        super().__init__(MemoryBackend())

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Any:
        return [answer and type(answer) for answer in await super().commit(commits)]


def test_what_a_store_lacks_is_named() -> None:
    class Unfinished:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_exc: object) -> None:
            return

        rooms = None

    found = broken(Contract(cast("Any", Unfinished)), "test_atomic")
    assert found.seen.endswith("which has no claim, commit, due_alarms, parked_alarms, read, room_alarms, scan'"), (
        found.seen
    )


def test_an_answer_that_is_no_error_is_told_as_it_is() -> None:
    found = broken(Contract(WithoutInstances), "test_fenced_after_release")
    expected = ("None or a CommitError for each commit", "<class 'partyroom.errors.FencedError'>")
    assert expected == (found.expected, found.seen)


def test_a_call_that_never_returns_is_told() -> None:
    contract = Contract(Stuck)
    contract.patience = 0.01
    found = broken(contract, "test_reads_give_what_exists")
    assert ("an end within 0.01 s", "a call that does not return") == (found.expected, found.seen)


class Doubling(BackendWrapper):
    """Gives every value twice as long as it was."""

    def __init__(self) -> None:
        super().__init__(MemoryBackend())

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return [(key, value * 2) for key, value in await super().scan(room, keys, limit)]


def test_long_values_are_cut_in_the_message() -> None:
    found = broken(Contract(Doubling), "test_bytes_are_kept_exactly")
    assert len(str(found)) < 3000
    assert "... (" in found.seen


def test_a_sequence_is_told_with_its_seed_and_as_short_as_it_can_be() -> None:
    found = broken(Contract(Doubling), "test_generated_sequences")
    seed, *operations, place = found.when.splitlines()
    assert "seed 0, 50 steps, of which these are enough:" == seed
    assert 1 == len(operations)
    assert place.startswith("  at:       Group("), place


def test_a_seed_finds_the_same_again() -> None:
    first, second = (broken(Contract(Doubling), "test_generated_sequences") for _ in range(2))
    assert str(first) == str(second)


class OnceWrong(BackendWrapper):
    """Gives a wrong answer once in a process."""

    scans = count()

    def __init__(self) -> None:
        super().__init__(MemoryBackend())

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        if next(self.scans) == 0:
            return [("wrong", b"")]
        return await super().scan(room, keys, limit)


def test_a_finding_that_does_not_come_again_is_told_as_that() -> None:
    found = broken(Contract(OnceWrong), "test_generated_sequences")
    assert ("the same each time", "a finding once, and none the next time") == (found.expected, found.seen)
