"""An hour of virtual time with a thousand rooms and five thousand alarms: the same lines on every loop, time after time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

import anyio

from partyroom import Alarm, Room
from partyroom.testing import Harness
from tests.conftest import BACKENDS, EAGER
from tests.sizes import sizes

START = datetime(2030, 1, 1, tzinfo=UTC)
EVERY = timedelta(minutes=12)


class Metronome(Room):
    async def begin(self) -> None:
        await self.ctx.storage.set_alarm(EVERY)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.set_alarm(EVERY)


async def hour(digests: dict[str, int], rooms: int) -> None:
    """Let an hour pass, and count the log of events and the log of timers, each digested."""
    async with Harness({"metronome": Metronome}) as harness:
        for number in range(rooms):
            await harness.parties["metronome"].get(f"{number:04}").call(Metronome.begin)
        await harness.advance_to(START + timedelta(hours=1))
        assert 5 * rooms == sum(each.kind == "alarm" for each in harness.fired)
        assert 6 * rooms == len(harness.log)
        for lines in (harness.log, harness.fired):
            digest = sha256("\n".join(map(str, lines)).encode()).hexdigest()
            digests[digest] = digests.get(digest, 0) + 1


@sizes("size", (40, 1), (1000, 40))
def test_the_logs_of_all_runs_on_all_loops_are_the_same(size: tuple[int, int]) -> None:
    rooms, runs = size
    loops: list[tuple[str, dict[str, Any]]] = [each for name, each in BACKENDS.items() if name != "eager" or EAGER]
    digests: dict[str, int] = {}
    for backend, options in loops * runs:
        anyio.run(partial(hour, digests, rooms), backend=backend, backend_options=options)
    assert [len(loops) * runs] * 2 == list(digests.values())
