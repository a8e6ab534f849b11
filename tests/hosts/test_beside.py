"""Tasks beside one that waits: when they begin, how they end, and that nobody returns before they have."""

from __future__ import annotations

import anyio
import pytest

from partyroom._native import current_loop
from partyroom._work import Work
from partyroom.asgi._beside import Beside

pytestmark = pytest.mark.anyio


def make() -> tuple[Beside, list[str]]:
    loop = current_loop()
    return Beside(loop, Work(loop)), []


async def test_a_task_begins_after_the_code_that_starts_it_and_counts_until_then() -> None:
    beside, seen = make()

    async def step() -> None:
        seen.append("step")

    beside.start(step, lambda: seen.append("ended"))
    seen.append("started")
    assert 1 == beside.work.count
    await beside.end()
    assert 0 == beside.work.count
    assert ["started", "step", "ended"] == seen


async def test_a_task_that_is_cancelled_ends_whether_it_has_begun_or_not() -> None:
    beside, seen = make()
    begun = beside.start(anyio.sleep_forever, lambda: seen.append("begun"))
    await anyio.wait_all_tasks_blocked()
    new = beside.start(anyio.sleep_forever, lambda: seen.append("new"))
    for _ in range(2):
        begun.cancel()
        new.cancel()
    await beside.end()
    assert ["begun", "new"] == sorted(seen)


async def test_a_task_that_the_loop_ends_is_not_waited_for() -> None:
    beside, seen = make()
    aside = beside.start(anyio.sleep_forever, lambda: seen.append("ended"))
    await anyio.wait_all_tasks_blocked()
    aside.stop()
    await beside.end()
    assert ["ended"] == seen


async def test_the_first_error_is_raised_when_all_have_ended() -> None:
    beside, seen = make()

    async def fail() -> None:
        raise ValueError(str(len(seen)))

    for _ in range(2):
        beside.start(fail, lambda: seen.append("failed"))
    assert not beside.has_failed
    with pytest.raises(ValueError, match="0"):
        await beside.end()
    assert beside.has_failed
    assert ["failed", "failed"] == seen
