"""The committer by itself: what it does when a backend answers nonsense, or a turn of it comes to a bad end (G5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from partyroom import BackendError, CommitError, RoomKey
from partyroom._committer import Committer
from partyroom._core.units import Event
from partyroom._native import current_loop

pytestmark = pytest.mark.anyio


class Desk:
    """A room as the committer sees it; it notes what it hears."""

    def __init__(self, name: str) -> None:
        self.key = RoomKey("desk", name)
        self.fence = 1
        self.running: Event | None = None
        self.heard: list[object] = []
        self.sealed = 0

    def stored(self, number: int) -> None:
        self.heard.append(number)

    def refused(self, error: BaseException) -> None:
        self.heard.append(error)

    def event(self) -> Event:
        """Give an ended event with something to store."""
        event = Event(self, "call", "write")
        event.layer().values["key"] = b"1"
        self.sealed += 1
        event.sealed_as = self.sealed
        return event


class Bench:
    """A committer with a backend that answers as a test says, and what it asked of others."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.submitted: list[object] = []
        self.failed: list[BaseException] = []
        backend: Any = self
        self.committer = Committer(backend, current_loop(), self.submitted.append, self.failed.append)

    async def commit(self, commits: Sequence[object]) -> Any:
        self.asked.append(len(commits))
        answer = self.answers.pop(0)
        if isinstance(answer, anyio.Event):
            await answer.wait()
            answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_answers_that_are_none_make_each_commit_be_asked_for_again_alone() -> None:
    bench, one, two = Bench([None], [None], "nonsense"), Desk("one"), Desk("two")
    for desk in (one, two):
        bench.committer.add(desk, desk.event())
    rest = bench.committer.begin()
    assert rest is not None
    await rest
    assert [2, 1, 1] == bench.asked
    assert [1] == one.heard
    (error,) = two.heard
    assert isinstance(error, BackendError)
    assert "answered one commit with 'nonsense'" in str(error)


async def test_several_events_that_are_refused_as_one_commit_are_asked_for_one_by_one() -> None:
    refusal, later = CommitError("too much"), CommitError("too much alone")
    bench, one, two = Bench([refusal, None], [None], [later]), Desk("one"), Desk("two")
    for desk in (one, one, one, two):
        bench.committer.add(desk, desk.event())
    rest = bench.committer.begin()
    assert rest is not None
    await rest
    assert [2, 1, 1] == bench.asked
    assert ([1, later], [1]) == (one.heard, two.heard)


async def test_what_gathered_while_a_turn_came_to_a_bad_end_has_a_worker_called_for_it() -> None:
    gate = anyio.Event()
    bench, one, two = Bench(gate, SystemExit(1)), Desk("one"), Desk("two")
    bench.committer.add(one, one.event())
    rest = bench.committer.begin()
    assert rest is not None
    bench.committer.add(two, two.event())
    gate.set()
    await rest
    assert [SystemExit] == [type(error) for error in bench.failed]
    assert [SystemExit] == [type(error) for error in one.heard]
    assert ([bench.committer], []) == (bench.submitted, two.heard)


async def test_one_that_was_abandoned_takes_nothing_more() -> None:
    bench, desk = Bench(), Desk("one")
    bench.committer.abandon()
    bench.committer.add(desk, desk.event())
    bench.committer.add_release(desk)
    assert bench.committer.begin() is None
    assert ([], []) == (bench.asked, desk.heard)


class Plain:
    """An answer whose ``__await__`` gives an iterator and no generator, as any may."""

    def __init__(self) -> None:
        self.left = 3

    def __await__(self) -> Any:
        return self

    def __next__(self) -> None:
        self.left -= 1
        if not self.left:
            raise StopIteration([None])


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_answer_that_is_awaited_through_a_plain_iterator_is_heard_once(is_cancelled: bool) -> None:
    asked: list[object] = []

    def commit(commits: object) -> Plain:
        asked.append(commits)
        return Plain()

    async def main() -> Desk:
        bench, desk = Bench(), Desk("one")
        bench.commit = commit  # type: ignore[assignment, method-assign]
        bench.committer.add(desk, desk.event())
        rest = bench.committer.begin()
        assert rest is not None
        with anyio.CancelScope() as scope:
            if is_cancelled:
                scope.cancel()
            await rest
        return desk

    (heard,) = anyio.run(main).heard
    assert isinstance(heard, asyncio.CancelledError) if is_cancelled else heard == 1
    assert 1 == len(asked)
