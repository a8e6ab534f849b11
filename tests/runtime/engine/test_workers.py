"""The pool of workers: what becomes of a job, and of the pool, when one of them comes to a bad end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from partyroom._native import current_loop
from partyroom._work import Work
from partyroom._workers import Worker, Workers

pytestmark = pytest.mark.anyio


class Job:
    """Fails at its first call, and is done at its second."""

    def __init__(self, fail: Callable[[], Awaitable[object]]) -> None:
        self._fail = fail
        self.workers: list[Worker] = []
        self.done = anyio.Event()

    async def work(self, worker: Worker, /) -> None:
        self.workers.append(worker)
        if len(self.workers) == 1:
            await self._fail()
        self.done.set()


async def raise_an_error() -> None:
    raise ZeroDivisionError


async def test_a_job_that_ends_by_an_error_is_called_again_by_another_worker() -> None:
    errors: list[Exception] = []

    def spawn(main: Callable[[], Awaitable[None]]) -> None:
        group.start_soon(keep_error, main)

    async def keep_error(main: Callable[[], Awaitable[None]]) -> None:
        try:
            await main()
        except ZeroDivisionError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        loop = current_loop()
        pool = Workers(loop, Work(loop), spawn)
        job = Job(raise_an_error)
        pool.submit(job)
        await job.done.wait()
        pool.stop()
    first, second = job.workers
    assert first is not second
    assert 1 == len(errors)
