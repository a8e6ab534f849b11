"""A session that ends half an hour after its last use, without moving an alarm at each use.

Shows a deadline that is looked at when it comes, not each time it moves: a use costs one small write, and the alarm
that rings too soon sets itself again.

    python -m partyroom.examples.lazy_session
"""

from __future__ import annotations

from datetime import timedelta

import anyio

from partyroom import Alarm, Room
from partyroom.testing import Harness

ENDS_AFTER = timedelta(minutes=30)


class Session(Room):
    """One visitor's session."""

    async def use(self) -> int:
        """Use the session; give how often it has been used."""
        uses: int = await self.ctx.storage.get("uses", 0) + 1
        await self.ctx.storage.put_many({"uses": uses, "last": self.ctx.clock.now()})
        if uses == 1:
            await self.ctx.storage.set_alarm(ENDS_AFTER)
        return uses

    async def on_alarm(self, alarm: Alarm) -> None:
        ends = await self.ctx.storage.get("last") + ENDS_AFTER
        if ends > self.ctx.clock.now():
            await self.ctx.storage.set_alarm(ends)
        else:
            await self.ctx.storage.delete_all()


async def main() -> None:
    """Use a session for an hour, then leave it."""
    async with Harness({"session": Session}) as harness:
        session = harness.parties["session"].get("s1")
        for _ in range(4):
            print("uses:", await session.call(Session.use))
            await harness.advance(timedelta(minutes=20))
        await harness.advance(timedelta(minutes=10))
        print("after half an hour:", await harness.stored(session))


if __name__ == "__main__":
    anyio.run(main)
