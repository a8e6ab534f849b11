"""Chat rooms that are forgotten a day after their last word, and a list of those that there are.

Shows a room that calls one of another party, from its alarm too, and keys that keep their order.

    python -m partyroom.examples.expiring_chat
"""

from __future__ import annotations

from datetime import timedelta

import anyio

from partyroom import Alarm, Connection, Room
from partyroom.testing import Harness

KEPT_FOR = timedelta(days=1)


class Lobby(Room):
    """The list of chat rooms: one room, ``all``, for all of them."""

    async def add(self, chat: str) -> None:
        """Put a chat on the list."""
        await self.ctx.storage.put(chat, True)

    async def remove(self, chat: str) -> None:
        """Take a chat off the list."""
        await self.ctx.storage.delete(chat)

    async def names(self) -> list[str]:
        """Give the chats that there are."""
        return list(await self.ctx.storage.list())


class Chat(Room):
    """One chat."""

    async def on_connect(self, connection: Connection) -> None:
        for message in (await self.ctx.storage.list(prefix="message:")).values():
            connection.send(message)

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        count = await self.ctx.storage.get("count", 0)
        await self.ctx.storage.put_many({"count": count + 1, f"message:{count:09}": message})
        await self.ctx.storage.set_alarm(KEPT_FOR)
        if not count:
            await self.ctx.parties["lobby"].get("all").call(Lobby.add, self.ctx.id)
        self.ctx.broadcast(message)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.parties["lobby"].get("all").call(Lobby.remove, self.ctx.id)
        await self.ctx.storage.delete_all()
        for connection in self.ctx.get_connections():
            connection.close(1000, "nobody has said anything for a day")


async def main() -> None:
    """Talk, and let a day pass."""
    async with Harness({"chat": Chat, "lobby": Lobby}) as harness:
        lobby = harness.parties["lobby"].get("all")
        async with harness.parties["chat"].get("cats").connect() as client:
            await client.send("meow")
            print("heard:", await client.receive())
        print("now:", await lobby.call(Lobby.names))
        await harness.advance(KEPT_FOR)
        print("a day later:", await lobby.call(Lobby.names))


if __name__ == "__main__":
    anyio.run(main)
