"""Reactions to a page, counted for everybody, at most five in ten seconds for each client.

Shows a limiter kept in the connection's state, which outlives the sleep of a room that hibernates.

    python -m partyroom.examples.reactions
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import anyio

from partyroom import Connection, Room
from partyroom.testing import Harness

ALLOWED = 5
WINDOW = timedelta(seconds=10)
KINDS = ("👍", "🎉", "🤔")


class Reactions(Room):
    """The reactions to one page."""

    hibernate = True

    async def on_connect(self, connection: Connection) -> None:
        connection.send(json.dumps(await self.ctx.storage.get("counts", {}), ensure_ascii=False))

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if message not in KINDS:
            return
        if not self.may_react(sender):
            sender.send("not so fast")
            return
        counts: dict[str, int] = await self.ctx.storage.get("counts", {})
        counts[message] = counts.get(message, 0) + 1
        await self.ctx.storage.put("counts", counts)
        self.ctx.broadcast(json.dumps(counts, ensure_ascii=False))

    def may_react(self, connection: Connection) -> bool:
        """Count a reaction, and say whether the client may have it."""
        now = self.ctx.clock.now()
        earlier: list[datetime] = connection.state or []
        recent = [each for each in earlier if now - each < WINDOW]
        if len(recent) >= ALLOWED:
            return False
        connection.set_state([*recent, now])
        return True


async def main() -> None:
    """React too often, and again later."""
    async with Harness({"reactions": Reactions}) as harness:
        page = harness.parties["reactions"].get("/about")
        async with page.connect() as client:
            for _ in range(6):
                await client.send("🎉")
            print([await client.receive() for _ in range(7)])
            await harness.advance(WINDOW)
            await client.send("👍")
            print(await client.receive())


if __name__ == "__main__":
    anyio.run(main)
