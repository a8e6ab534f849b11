"""Things that are gathered and sent on together, again and again until it works.

Shows an alarm whose handler raises: what it wrote is taken back, the alarm is retried, and its id stays the same, so
that the other side can tell a retry from a new batch.

    python -m partyroom.examples.batch
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
from typing_extensions import override

from partyroom import Alarm, Room, RoomContext
from partyroom.testing import Harness

GATHERED_FOR = timedelta(seconds=10)

Send = Callable[[str, list[object]], Awaitable[None]]
"""Sends a batch on, with an id that says which it is; raises if that fails."""


class Batch(Room):
    """Gathers what is added."""

    @override
    def __init__(self, ctx: RoomContext, send: Send) -> None:
        super().__init__(ctx)
        self.send = send

    async def add(self, thing: object) -> None:
        """Add something to the next batch."""
        number = await self.ctx.storage.get("added", 0)
        await self.ctx.storage.put_many({"added": number + 1, f"thing:{number:09}": thing})
        if await self.ctx.storage.get_alarm() is None:
            await self.ctx.storage.set_alarm(GATHERED_FOR)

    async def on_alarm(self, alarm: Alarm) -> None:
        things = await self.ctx.storage.list(prefix="thing:")
        await self.ctx.storage.delete_many(things)
        await self.send(alarm.id, list(things.values()))


async def main() -> None:
    """Send to somebody who is out at first."""
    failures = ["busy", "still busy"]

    async def send(batch_id: str, things: list[object]) -> None:
        print("batch", batch_id, things, f"-> {failures[0]}" if failures else "-> taken")
        if failures:
            raise ConnectionError(failures.pop(0))

    async with Harness({"batch": lambda ctx: Batch(ctx, send)}) as harness:
        batch = harness.parties["batch"].get("mail")
        for thing in ("a", "b"):
            await batch.call(Batch.add, thing)
        with harness.expect_error(ConnectionError):
            await harness.advance(timedelta(minutes=1))
        print("left:", await harness.stored(batch))


if __name__ == "__main__":
    logging.getLogger("partyroom").setLevel(logging.CRITICAL)  # what is raised is logged; here it is printed
    anyio.run(main)
