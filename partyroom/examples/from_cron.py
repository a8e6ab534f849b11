"""Reminders in a program that does not stay: it sets alarms and ends, and the operating system's cron rings them.

Shows the crontab line, which names the function below that gives the runtime:

    * * * * *  cd /srv/app && python -m partyroom ring-due partyroom.examples.from_cron:make_runtime

Nothing has to run in between. A handler that raises is retried at cron's next call after its time, by the same policy.

    python -m partyroom.examples.from_cron "put the kettle on" 90
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from os import environ

import anyio

from partyroom import Alarm, Room, Runtime
from partyroom.backends.file import FileBackend


class Reminders(Room):
    """One person's reminders."""

    async def remind(self, text: str, after: timedelta) -> None:
        """Set a reminder."""
        await self.ctx.storage.set_alarm(after, name=text)

    async def on_alarm(self, alarm: Alarm) -> None:
        print(f"{self.ctx.id}: {alarm.name}")  # cron sends what is printed by mail
        told: list[object] = await self.ctx.storage.get("told", [])
        await self.ctx.storage.put("told", [*told, alarm.name])


def make_runtime() -> Runtime:
    """Make the runtime, for this program and for cron. It rings by hand: else whoever comes first would ring all."""
    return Runtime(
        {"reminders": Reminders}, backend=FileBackend(environ.get("REMINDERS", "reminders.db")), alarms="manual"
    )


async def main(text: str = "put the kettle on", seconds: str = "90") -> None:
    """Set one reminder, and end."""
    async with make_runtime() as runtime:
        await runtime.parties["reminders"].get("ann").call(Reminders.remind, text, timedelta(seconds=float(seconds)))
        print("the next one rings at", await runtime.next_alarm())


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:3]))
