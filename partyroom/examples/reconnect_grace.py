"""A room that is wiped a minute after the last client has left, unless somebody comes back.

Shows an alarm that is set when a client leaves and deleted when one comes, whatever ends the connection.

    python -m partyroom.examples.reconnect_grace
"""

from __future__ import annotations

from datetime import timedelta

import anyio
from typing_extensions import override

from partyroom import Alarm, Connection, Room
from partyroom.testing import Harness

GRACE = timedelta(minutes=1)


class Table(Room):
    """Remembers what was said, for as long as somebody is there."""

    async def on_connect(self, connection: Connection) -> None:
        await self.ctx.storage.delete_alarm()
        connection.send(await self.ctx.storage.get("said", "nothing"))

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        await self.ctx.storage.put("said", message)

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        if not self.ctx.get_connections():
            await self.ctx.storage.set_alarm(GRACE)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()


async def main() -> None:
    """Leave and come back in time, then too late."""
    async with Harness({"table": Table}) as harness:
        table = harness.parties["table"].get("1")
        async with table.connect() as client:
            await client.send("hello")
        for away in (GRACE - timedelta(seconds=1), GRACE):
            await harness.advance(away)
            async with table.connect() as client:
                print(f"after {away}:", await client.receive())


if __name__ == "__main__":
    anyio.run(main)
