"""The system's clock: never early, never long without a look at the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from partyroom.clock import STRETCH, SystemClock, sleep_out

CLOCK = SystemClock()
MOMENT = timedelta(milliseconds=2)


def test_the_time_is_in_utc_and_goes_on() -> None:
    before = datetime.now(UTC)
    now = CLOCK.now()
    assert UTC is now.tzinfo
    assert before <= now <= datetime.now(UTC)
    assert CLOCK.monotonic() <= CLOCK.monotonic()


@pytest.mark.anyio
async def test_a_sleep_is_never_early_on_either_line() -> None:
    for _ in range(5):
        when = CLOCK.now() + MOMENT
        await CLOCK.sleep_until(when)
        assert CLOCK.now() >= when
        end = CLOCK.monotonic() + MOMENT.total_seconds()
        await CLOCK.sleep(MOMENT)
        assert CLOCK.monotonic() >= end


@pytest.mark.anyio
@pytest.mark.parametrize("length", [timedelta(), timedelta(microseconds=-1), timedelta.min])
async def test_nothing_to_wait_for_returns_without_yielding(length: timedelta) -> None:
    when = CLOCK.now() + max(length, timedelta(days=-1))
    # A cancelled scope raises at the first yield.
    reached = False
    with CancelScope() as scope:
        scope.cancel()
        await CLOCK.sleep(length)
        await CLOCK.sleep_until(when)
        reached = True
        await checkpoint()
    assert reached
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_a_sleep_can_be_cancelled() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await CLOCK.sleep_until(datetime.max.replace(tzinfo=UTC))
    assert scope.cancelled_caught
    with CancelScope() as scope:
        scope.cancel()
        await CLOCK.sleep(timedelta.max)
    assert scope.cancelled_caught


class Time:
    """A line of time that moves by what is slept, and by jumps on the way."""

    def __init__(self, end: float, jumps: dict[int, float]) -> None:
        self.now = 0.0
        self.end = end
        self.jumps = jumps
        self.slept: list[float] = []

    def rest(self) -> float:
        return self.end - self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + self.jumps.get(len(self.slept), 0.0)
        self.slept.append(seconds)


@pytest.mark.anyio
async def test_a_long_sleep_looks_at_the_time_after_every_stretch() -> None:
    time = Time(150.0, {})
    await sleep_out(time.rest, time.sleep)
    assert [STRETCH, STRETCH, 30.0] == time.slept


@pytest.mark.anyio
async def test_a_timer_that_ends_early_is_slept_out() -> None:
    time = Time(10.0, {0: -0.25})
    await sleep_out(time.rest, time.sleep)
    assert [10.0, 0.25] == time.slept


@pytest.mark.anyio
async def test_a_jump_of_the_clock_is_noticed_within_a_stretch() -> None:
    ahead = Time(86_400.0, {0: 86_400.0})
    await sleep_out(ahead.rest, ahead.sleep)
    assert [STRETCH] == ahead.slept
    back = Time(30.0, {0: -60.0})
    await sleep_out(back.rest, back.sleep)
    assert [30.0, 60.0] == back.slept
