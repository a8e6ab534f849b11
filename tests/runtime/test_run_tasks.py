"""The tasks of one run: what of their errors is kept, and what ends them."""

from __future__ import annotations

import anyio
import pytest
from anyio import CancelScope

from partyroom._native import current_loop
from partyroom._run_tasks import RunTasks

pytestmark = pytest.mark.anyio


async def test_the_first_error_ends_the_run_and_is_kept_and_a_later_one_is_not() -> None:
    async def fail_late() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError

    async def fail() -> None:
        raise LookupError

    async with anyio.create_task_group() as group:
        tasks = RunTasks(group, current_loop())
        tasks.start(fail_late)
        await anyio.wait_all_tasks_blocked()
        tasks.start(fail)
    assert isinstance(tasks.error, LookupError)


async def test_what_runs_as_long_as_the_run_ends_with_it_and_a_cancelled_task_is_no_error() -> None:
    async with anyio.create_task_group() as group:
        tasks = RunTasks(group, current_loop())
        tasks.keep_running(anyio.sleep_forever, CancelScope())
        await anyio.wait_all_tasks_blocked()
        tasks.stop()
    assert tasks.error is None
    async with anyio.create_task_group() as group:
        tasks = RunTasks(group, current_loop())
        tasks.start(anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert tasks.error is None
