"""When an alarm whose handler raised rings again.

Owns the one computation behind :class:`~partyroom.RetryPolicy`.

Promises the delays of G12, for any number of retries and any lengths that a
policy may name: nothing overflows, and no retry is earlier than its delay.

Must never read a clock or roll a die: both are arguments.
"""

from __future__ import annotations

from typing import Final

from partyroom._core.instants import HIGHEST, length_micros
from partyroom.types import RetryPolicy

__all__ = ["next_retry"]

DOUBLINGS: Final = 67
"""So often can the shortest length be doubled before it is longer than the longest one."""


def next_retry(policy: RetryPolicy, retry_count: int, now: int, chance: float) -> int | None:
    """Give when to ring again after a failure, in microseconds since 1970-01-01 UTC, or ``None`` for no more retries.

    ``retry_count`` says how many retries there have been before this failure, ``chance`` (0 up to 1) how much of the
    policy's jitter to add.
    """
    if retry_count >= policy.max_retries:
        return None
    delay = min(length_micros(policy.first_delay) << min(retry_count, DOUBLINGS), length_micros(policy.max_delay))
    jitter = delay * policy.jitter * chance
    if jitter < HIGHEST:
        delay += int(jitter)
    return min(now + delay, HIGHEST)
