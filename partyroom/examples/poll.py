"""A poll that closes by itself.

Shows a room that is called with methods of its own, one vote for each voter, and an alarm as the closing hour.

    python -m partyroom.examples.poll
"""

from __future__ import annotations

import json
from datetime import timedelta

import anyio

from partyroom import Alarm, Connection, Room
from partyroom.testing import Harness


class Poll(Room):
    """One question; clients send the option they vote for, and are told how it stands."""

    async def open(self, question: str, options: list[str], closes_in: timedelta) -> None:
        """Begin the poll; whoever watches is told."""
        await self.ctx.storage.delete_all()
        await self.ctx.storage.put_many({"question": question, "options": options, "open": True})
        await self.ctx.storage.set_alarm(closes_in)
        self.ctx.broadcast(await self.standing())

    async def on_connect(self, connection: Connection) -> None:
        connection.send(await self.standing())

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if await self.ctx.storage.get("open", False) and message in await self.ctx.storage.get("options"):
            # A voter who changes their mind has one vote all the same.
            await self.ctx.storage.put(f"vote:{sender.id}", message)
            self.ctx.broadcast(await self.standing())

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.put("open", False)
        self.ctx.broadcast(await self.standing())

    async def standing(self) -> str:
        """Give the poll as JSON: the question, the votes for each option, whether it is open."""
        votes = list((await self.ctx.storage.list(prefix="vote:")).values())
        options: list[str] = await self.ctx.storage.get("options", [])
        found = await self.ctx.storage.get_many(["open", "question"])
        return json.dumps({**found, "votes": {option: votes.count(option) for option in options}})


async def main() -> None:
    """Ask two people."""
    async with Harness({"poll": Poll}) as harness:
        poll = harness.parties["poll"].get("lunch")
        await poll.call(Poll.open, "Where to?", ["here", "there"], timedelta(minutes=5))
        async with poll.connect(id="ann") as ann, poll.connect(id="bob") as bob:
            await ann.send("here")
            await bob.send("there")
            await bob.send("here")
            await harness.advance(timedelta(minutes=5))
            await bob.send("there")
        print(await poll.call(Poll.standing))


if __name__ == "__main__":
    anyio.run(main)
