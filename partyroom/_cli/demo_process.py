"""The two processes of the demo: one that is killed, and one that opens what it left.

Owns the demo's rooms, and what a process reports of them: a line of JSON on its output for each thing that happens, as
it happens, with the time at which it did.

Promises that what is reported is what the rooms saw, and that the second process ends by itself, whether or not the
alarm has rung.

Must never know what is expected of it: the one who reads the reports judges them.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TextIO

from anyio import CancelScope, Event, create_task_group, run, sleep_forever
from typing_extensions import override

from partyroom.backends.file import FileBackend
from partyroom.clock import SystemClock
from partyroom.protocols import Clock, Room, RoomContext
from partyroom.runtime import Runtime
from partyroom.types import Alarm

__all__ = ["COUNTER", "DRAFT", "PATIENCE", "TEXT", "first_life", "main", "second_life"]

DRAFT: Final = ("draft", "alice")
COUNTER: Final = ("counter", "all")
TEXT: Final = "Dear diary"

PATIENCE: Final = timedelta(seconds=1)
"""How long after its time an alarm is waited for before it is given up."""


class Report(Protocol):
    """Tells whoever started the process what has happened."""

    def __call__(self, what: str, /, **facts: object) -> None:
        """Report one thing, with its facts."""
        ...


def report_to(stream: TextIO, clock: Clock, what: str, /, **facts: object) -> None:
    """Write one report, at once."""
    line = {"what": what, "at": clock.now().isoformat(), "pid": os.getpid(), **facts}
    print(json.dumps(line), file=stream, flush=True)


class Draft(Room):
    """Keeps a text until its alarm rings."""

    def __init__(self, ctx: RoomContext, report: Report, rung: Event) -> None:
        super().__init__(ctx)
        self.report = report
        self.rung = rung
        report("constructor", party=ctx.party, id=ctx.id)

    @override
    async def on_start(self) -> None:
        self.report("on_start", party=self.ctx.party, id=self.ctx.id)

    async def write(self, text: str, keep: timedelta) -> datetime:
        """Store a text and set the alarm that deletes it; give the alarm's time."""
        await self.ctx.storage.put("text", text)
        await self.ctx.storage.set_alarm(keep)
        due = await self.ctx.storage.get_alarm()
        assert due is not None
        return due

    @override
    async def on_alarm(self, alarm: Alarm, /) -> None:
        began = self.ctx.clock.now()
        self.rung.set()
        self.report(
            *("on_alarm",),
            party=self.ctx.party,
            id=self.ctx.id,
            began=began.isoformat(),
            connections=len(self.ctx.get_connections()),
            stored=await self.ctx.storage.list(),
        )
        party, room = COUNTER
        total = await self.ctx.parties[party].get(room).call(Counter.add, 1)
        self.report("called", party=party, id=room, answer=total)
        await self.ctx.storage.delete_all()


class Counter(Room):
    """Counts the drafts that have expired."""

    async def add(self, by: int) -> int:
        """Count some more; give how many there are."""
        total: int = await self.ctx.storage.get("expired", 0) + by
        await self.ctx.storage.put("expired", total)
        return total


def _runtime(path: str, clock: Clock, report: Report, rung: Event) -> Runtime:
    return Runtime(
        {"draft": partial(Draft, report=report, rung=rung), "counter": Counter},
        backend=FileBackend(path),
        clock=clock,
    )


async def first_life(path: str, keep: timedelta, clock: Clock, report: Report) -> None:
    """Have a room store a text and set an alarm; then do nothing, until killed."""
    report("began")
    async with _runtime(path, clock, report, Event()) as runtime:
        party, room = DRAFT
        due = await runtime.parties[party].get(room).call(Draft.write, TEXT, keep)
        report("safe", party=party, id=room, stored={"text": TEXT}, due=due.isoformat())
        await sleep_forever()


async def second_life(path: str, due: datetime, clock: Clock, report: Report) -> None:
    """Open the file and touch no room; end when the alarm has rung, or when it is too late for that."""
    report("began")
    rung = Event()
    async with _runtime(path, clock, report, rung) as runtime:
        report("opened", awake=runtime.statistics().awake)
        last = max(due, clock.now()) + PATIENCE
        async with create_task_group() as tasks:
            tasks.start_soon(_cancel_at, last, clock, tasks.cancel_scope)
            await rung.wait()
            tasks.cancel_scope.cancel()
        await runtime.wait_idle()
    report("ended")


async def _cancel_at(when: datetime, clock: Clock, scope: CancelScope) -> None:
    await clock.sleep_until(when)
    scope.cancel()


def main(arguments: list[str]) -> None:
    """Live one of the two lives: ``first FILE SECONDS`` or ``second FILE DUE``."""
    life, path, when = arguments
    clock = SystemClock()
    report = partial(report_to, sys.stdout, clock)
    if life == "first":
        run(first_life, path, timedelta(seconds=float(when)), clock, report)
    else:
        run(second_life, path, datetime.fromisoformat(when), clock, report)


if __name__ == "__main__":
    main(sys.argv[1:])
