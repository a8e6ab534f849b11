"""A draft that is kept for thirty days after its last change, and shown to whoever comes back to it.

Shows an alarm that every write moves, and ``delete_all``, which leaves a room as new.

    python -m partyroom.examples.expiring_draft
"""

from __future__ import annotations

from datetime import timedelta

import anyio

from partyroom import Alarm, Connection, Room
from partyroom.testing import Harness

KEPT_FOR = timedelta(days=30)


class Draft(Room):
    """One person's draft."""

    async def on_connect(self, connection: Connection) -> None:
        connection.send(await self.ctx.storage.get("text", ""))

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        await self.ctx.storage.put("text", message)
        await self.ctx.storage.set_alarm(KEPT_FOR)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()


async def main() -> None:
    """Let thirty days pass in no time."""
    async with Harness({"draft": Draft}) as harness:
        room = harness.parties["draft"].get("alice")
        async with room.connect() as client:
            await client.send("Dear diary")
        await harness.advance(KEPT_FOR - timedelta(seconds=1))
        print("a second before:", await harness.stored(room))
        await harness.advance(timedelta(seconds=1))
        print("thirty days after:", await harness.stored(room))


if __name__ == "__main__":
    anyio.run(main)
