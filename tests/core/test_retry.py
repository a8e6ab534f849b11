"""Retries come after the delays of their policy, and a random part more (G12)."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partyroom._core.instants import HIGHEST, LOWEST, length_micros
from partyroom._core.retry import next_retry
from partyroom.types import RetryPolicy

SECOND = 1_000_000
NOW = 1_900_000_000 * SECOND

policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 10**30),
    first_delay=st.timedeltas(timedelta(microseconds=1)),
    max_delay=st.timedeltas(timedelta(microseconds=1)),
    jitter=st.floats(0, allow_nan=False),
)
instants = st.integers(LOWEST, HIGHEST)
chances = st.floats(0, 1, exclude_max=True)


def test_the_default_delays_double_from_two_seconds_to_sixty_four_and_end() -> None:
    due = [next_retry(RetryPolicy(), count, NOW, 0.0) for count in range(7)]
    assert [2, 4, 8, 16, 32, 64] == [(each - NOW) // SECOND for each in due if each is not None]
    assert due[6] is None


def test_chance_adds_up_to_a_quarter() -> None:
    assert NOW + 2 * SECOND == next_retry(RetryPolicy(), 0, NOW, 0.0)
    assert NOW + 2.25 * SECOND == next_retry(RetryPolicy(), 0, NOW, 0.5)
    latest = next_retry(RetryPolicy(), 0, NOW, 1.0 - 2**-53)
    assert latest is not None
    assert latest <= NOW + 2.5 * SECOND


def test_no_delay_is_longer_than_the_longest_before_chance() -> None:
    policy = RetryPolicy(max_retries=1000, max_delay=timedelta(seconds=10))
    assert NOW + 8 * SECOND == next_retry(policy, 2, NOW, 0.0)
    assert NOW + 10 * SECOND == next_retry(policy, 3, NOW, 0.0)
    assert NOW + 10 * SECOND == next_retry(policy, 999, NOW, 0.0)


def test_no_retries_means_none() -> None:
    assert next_retry(RetryPolicy(max_retries=0), 0, NOW, 0.0) is None


@given(policies, st.integers(0, 10**30), instants, chances)
@example(RetryPolicy(jitter=math.inf), 0, NOW, 0.5)
def test_a_retry_is_never_before_its_delay_and_never_outside_the_calendar(
    policy: RetryPolicy, count: int, now: int, chance: float
) -> None:
    due = next_retry(policy, count, now, chance)
    assert (count >= policy.max_retries) == (due is None)
    if due is not None:
        shortest = min(length_micros(policy.first_delay), length_micros(policy.max_delay))
        assert min(now + shortest, HIGHEST) <= due <= HIGHEST


@pytest.mark.parametrize("count", [63, 64, 66, 67, 68, 10**6])
def test_doubling_does_not_overflow(count: int) -> None:
    policy = RetryPolicy(max_retries=10**9, first_delay=timedelta(microseconds=1), max_delay=timedelta.max, jitter=0)
    assert HIGHEST == next_retry(policy, count, NOW, 0.0)
