"""A calendar of reminders: any number of named alarms in one room, once or again and again.

Shows alarms with names and payloads, recurring ones, and a list of what is to come.

    python -m partyroom.examples.scheduler
"""

from __future__ import annotations

from datetime import datetime, timedelta

import anyio

from partyroom import Alarm, Every, Room
from partyroom.testing import Harness


class Calendar(Room):
    """One person's reminders."""

    async def remind(self, name: str, when: datetime | timedelta | Every, text: str) -> None:
        """Set a reminder; one of the same name is replaced."""
        await self.ctx.storage.set_alarm(when, name=name, payload=text)

    async def cancel(self, name: str) -> None:
        """Forget a reminder."""
        await self.ctx.storage.delete_alarm(name)

    async def on_alarm(self, alarm: Alarm) -> None:
        told: list[object] = await self.ctx.storage.get("told", [])
        await self.ctx.storage.put("told", [*told, [alarm.scheduled_time, alarm.name, alarm.payload]])
        self.ctx.broadcast(f"{alarm.name}: {alarm.payload}")


async def main() -> None:
    """Let a day with three reminders pass."""
    async with Harness({"calendar": Calendar}) as harness:
        calendar = harness.parties["calendar"].get("ann")
        await calendar.call(Calendar.remind, "tea", Every(timedelta(hours=6)), "put the kettle on")
        await calendar.call(Calendar.remind, "call", timedelta(hours=8), "call Bob")
        await calendar.call(Calendar.remind, "nap", timedelta(hours=9), "sleep")
        await calendar.call(Calendar.cancel, "nap")
        await harness.advance(timedelta(hours=13))
        for when, name, text in (await harness.stored(calendar))["told"]:
            print(f"{when:%H:%M} {name}: {text}")
        print("to come:", [info.name for info in await calendar.list_alarms()])


if __name__ == "__main__":
    anyio.run(main)
