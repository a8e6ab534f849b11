"""The one sleeper for all timers of a line: what it counts as, and what it sleeps for."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from partyroom._native import current_loop
from partyroom._timers import Timers
from partyroom._work import Work
from partyroom.types import Timer

pytestmark = pytest.mark.anyio


async def test_a_sleep_that_its_clock_says_is_over_counts_as_work_before_it_is_seen_to_be() -> None:
    slept: list[Timer] = []

    async def sleep(_due: int, timer: Timer) -> None:
        slept.append(timer)
        await anyio.sleep_forever()

    async def rest() -> None:
        # A cancelled sleep is over when its task has had a turn.
        for _ in range(5):
            await checkpoint()

    loop = current_loop()
    work = Work(loop)
    timers = Timers(loop, work, lambda: 0, sleep)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timers.run)
        late = timers.call_at(10, slept.clear, "timeout", None, "late").timer
        await rest()
        assert 0 == work.count
        assert not timers.is_called(Timer(None, "timeout", "late")), "as another line on the same clock may have it"
        assert 0 == work.count
        assert timers.is_called(late)
        assert 1 == work.count
        # What comes before it ends the sleep as well.
        early = timers.call_at(5, slept.clear, "timeout", None, "early").timer
        assert 1 == work.count
        await rest()
        assert [late, early] == slept
        assert 0 == work.count
        tasks.cancel_scope.cancel()
    assert 0 == work.count
