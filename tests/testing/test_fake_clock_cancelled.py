"""Code that was cancelled: time waits until it has gone on, and no longer, for it may sleep once more on its way out."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest

from partyroom import Alarm, Limits, Room
from partyroom.errors import EventTimeoutError, RuntimeClosedError, RuntimeCrashedError
from partyroom.testing import Harness

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)


class Slow(Room):
    """Sleeps for ten seconds or, if it is cancelled, for two more until it ends."""

    async def sleep(self) -> None:
        try:
            await self.ctx.clock.sleep(10 * SECOND)
        finally:
            with anyio.CancelScope(shield=True):
                await self.ctx.clock.sleep(2 * SECOND)

    async def after_a_deadline(self) -> float:
        async with self.ctx.clock.move_on_after(SECOND):
            await self.sleep()
        return self.ctx.clock.monotonic()

    async def after_a_deadline_around_branches(self) -> float:
        async with self.ctx.clock.move_on_after(SECOND), self.ctx.task_group() as tasks:
            tasks.start_soon(self.sleep)
            tasks.start_soon(self.sleep)
        return self.ctx.clock.monotonic()

    async def after_an_error_beside_branches(self) -> float:
        with pytest.raises(ExceptionGroup):
            async with self.ctx.task_group() as tasks:
                tasks.start_soon(self.sleep)
                await self.ctx.clock.sleep(SECOND)
                raise ConnectionError
        return self.ctx.clock.monotonic()

    async def after_a_branch_has_cancelled(self) -> float:
        async with self.ctx.task_group() as tasks:
            with anyio.CancelScope() as scope:

                async def cancel() -> None:
                    await self.ctx.clock.sleep(SECOND)
                    scope.cancel()

                tasks.start_soon(cancel)
                await self.sleep()
        return self.ctx.clock.monotonic()

    async def after_a_deadline_around_a_call_that_comes_back(self) -> float:
        async with self.ctx.clock.move_on_after(SECOND):
            await self.ctx.parties["slow"].get("other").call(Slow.call_back, self.ctx.id)
        return self.ctx.clock.monotonic()

    async def call_back(self, room: str) -> None:
        await self.ctx.parties["slow"].get(room).call(Slow.sleep_for_three)

    async def sleep_for_three(self) -> None:
        await self.ctx.clock.sleep(3 * SECOND)

    async def insist(self) -> None:
        with anyio.CancelScope(shield=True):
            for _ in range(3):
                with suppress(RuntimeClosedError):
                    await self.ctx.clock.sleep(10 * SECOND)

    async def ring(self) -> None:
        await self.ctx.storage.set_alarm(timedelta())

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.sleep()

    async def start(self) -> None:
        self.ctx.start_soon(self.sleep)


@pytest.mark.parametrize(
    "method",
    [
        Slow.after_a_deadline,
        Slow.after_a_deadline_around_branches,
        Slow.after_an_error_beside_branches,
        Slow.after_a_branch_has_cancelled,
        Slow.after_a_deadline_around_a_call_that_comes_back,
    ],
)
async def test_a_handler_that_was_cancelled_may_sleep_on_its_way_out(method: Any) -> None:
    async with Harness({"slow": Slow}) as harness, harness.auto():
        for number in range(12):  # which of two tasks trio runs first is chance
            room = harness.parties["slow"].get(str(number))
            begun = harness.clock.monotonic()
            assert await room.call(method) == begun + 3


async def test_an_alarm_that_ran_too_long_may_sleep_on_its_way_out() -> None:
    async with Harness({"slow": Slow}, limits=Limits(alarm_timeout=SECOND)) as harness:
        room = harness.parties["slow"].get("a")
        with harness.expect_error(EventTimeoutError):
            await room.call(Slow.ring)
            await harness.advance(3 * SECOND)
        (alarm,) = await room.list_alarms()
        assert (alarm.status, alarm.last_time) == ("retrying", harness.now())
        assert await room.delete_alarm()


async def test_a_background_task_whose_instance_goes_may_sleep_on_its_way_out() -> None:
    async with Harness({"slow": Slow}) as harness:
        await harness.parties["slow"].get("a").call(Slow.start)
        await harness.restart()
        assert harness.clock.monotonic() == 2


async def test_code_of_a_killed_runtime_that_is_shielded_does_not_sleep_on() -> None:
    async with Harness({"slow": Slow}) as harness:
        room = harness.parties["slow"].get("a")
        await room.call(Slow.start)

        async def call() -> None:
            with pytest.raises(RuntimeCrashedError):
                await room.call(Slow.insist)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await harness.advance(11 * SECOND)  # both are in their shields
            await harness.crash()
        assert harness.clock.monotonic() == 11
        harness.assert_idle()
