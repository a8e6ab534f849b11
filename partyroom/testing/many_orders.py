"""Many orders of one scenario: whatever may happen in any order happens in an order that a seed decides.

Owns the runs of a scenario under many seeds, and the report.

Promises that a failing seed alone makes the same run again, on the same loop and
a backend in memory; that with each seed equal timers, arriving events and woken
tasks are shuffled anew; and that nothing happens which could not happen in earnest.

Must never let one run see anything of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import attrs
from typing_extensions import Unpack, override

from partyroom._services import RoomFactory
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BrokenInvariantError, ClockStalledError
from partyroom.testing._failures import Moment
from partyroom.testing._fresh_backends import check_is_fresh, check_maker
from partyroom.testing.crash_points import Scenario
from partyroom.testing.harness import Harness
from partyroom.testing.options import BackendFactory, RuntimeOptions

__all__ = ["OrdersReport", "many_orders"]

SECOND = 2
"""The first run that could see what another has stored."""
LAST = 20
"""How many events of a failing run are shown."""


@attrs.frozen
class OrdersReport:
    """What :func:`many_orders` went through."""

    seeds: int
    """How many seeds were tried."""
    orders: int
    """In how many different orders events ended."""

    @override
    def __str__(self) -> str:
        return f"{self.seeds} seeds, {self.orders} different orders"


async def many_orders(
    scenario: Scenario,
    invariant: Scenario,
    *,
    parties: Mapping[str, RoomFactory],
    seeds: Iterable[int] = range(100),
    backend: BackendFactory = MemoryBackend,
    let_pass: timedelta = timedelta(hours=1),
    **options: Unpack[RuntimeOptions],
) -> OrdersReport:
    """Run a scenario once for each seed, which decides the order of all that has none, and check an invariant after each.

    Shuffled are timers that are due at one instant (alarms of several rooms overlap, as in earnest), events that arrive
    from different tasks of the scenario, and tasks that are woken together. After ``await scenario(harness)``,
    ``let_pass`` of virtual time passes; then ``await invariant(harness)`` is to raise if something is wrong. Raises
    :class:`BrokenInvariantError`, with an entry for each seed after which it did, the last one being the first that stalls
    (:class:`ClockStalledError`); ``seeds=[17]`` makes the run of seed 17 again, and
    ``Harness(..., seed=17, shuffled=True)`` the harness that it had.
    """
    check_maker("many_orders", backend)
    orders: set[tuple[object, ...]] = set()
    failures: list[str] = []
    first: Exception | None = None
    tried = 0
    for seed in seeds:
        tried += 1
        if tried == SECOND:
            await check_is_fresh("many_orders", backend, parties)
        harness = Harness(parties, backend=backend(), seed=seed, shuffled=True, **options)
        moment = Moment(harness)
        try:
            async with harness:
                with moment.noted():
                    await scenario(harness)
                    await harness.advance(let_pass)
                    await invariant(harness)
        except Exception as error:  # noqa: BLE001 - whatever is raised is what went wrong
            first = first or error
            failures.append(_failure(seed, harness, moment.tell(error)))
            if isinstance(error, ClockStalledError):
                # Each stall takes seconds of real time: all seeds together, minutes.
                break
        finally:
            orders.add(harness.probe.order)
    if not tried:
        message = "many_orders needs a seed to try, such as seeds=range(100)"
        raise ValueError(message)
    report = OrdersReport(tried, len(orders))
    if failures:
        message = f"the invariant does not hold with {len(failures)} of {report}"
        raise BrokenInvariantError(message, tuple(failures)) from first
    return report


def _failure(seed: int, harness: Harness, told: str) -> str:
    events = "\n    ".join(f"{room} {event}" for room, event in harness.probe.order[-LAST:]) or "none"
    return f"seed {seed} (again: seeds=[{seed}]): {told}\n  the last events, as they ended:\n    {events}"
