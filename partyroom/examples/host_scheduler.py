"""Alarms that ring by the host's own scheduler: here APScheduler 4 (``pip install partyroom[apscheduler]``).

Shows a whole ``AlarmScheduler`` over something that calls a function at a time: the host's scheduler holds one call, for
when the next alarm is due. It is an index and no store: what rings within ``look_ahead`` is held, and the rest is read
when it has come near. And it takes nothing back: a room that moves its alarm later keeps its place in the queue, and is
looked at again when that comes, so that an alarm which moves a thousand times costs no more than one.

    python -m partyroom.examples.host_scheduler
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from logging import getLogger

import anyio
from apscheduler import AsyncScheduler
from apscheduler.triggers.date import DateTrigger
from typing_extensions import override

from partyroom import Alarm, AlarmScheduler, Clock, Room, RoomKey, Runtime, SystemClock, Upcoming
from partyroom.backends.memory import MemoryBackend

PAGE = 1000
AGAIN = timedelta(seconds=1)  # after a read that failed
NEVER = datetime.max.replace(tzinfo=UTC)

Wake = Callable[[RoomKey], None]
Read = Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]]


class HostScheduler(AlarmScheduler):
    """Wakes rooms by a running APScheduler of the host's, with a memory store, that is entered before the runtime."""

    def __init__(self, host: AsyncScheduler, *, look_ahead: timedelta = timedelta(hours=1)) -> None:
        self.host = host
        self.look_ahead = look_ahead
        self.clock: Clock = SystemClock()  # what APScheduler lives on
        self.news = anyio.Event()
        self.wake: Wake | None = None

    def begin(self, wake: Wake) -> None:
        """Know nothing yet."""
        self.wake = wake
        self.due: dict[RoomKey, datetime] = {}  # when rooms are due, as told last
        self.queue: list[tuple[datetime, RoomKey]] = []  # each of them at that time, or before it …
        self.placed: dict[RoomKey, datetime] = {}  # … namely here
        self.waking: set[RoomKey] = set()
        self.call = self.handed_on = NEVER  # when the host is to call next, and whether it knows
        self.last: Upcoming | None = None  # up to where has been read
        self.horizon = self.next_read = self.clock.now()
        self.touched: set[RoomKey] = set()  # who was told of during a read

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if self.wake is None:
            return  # it is stored, and will be read
        self.touched.add(room)
        is_answer = room in self.waking
        self.waking.discard(room)
        # Beyond the horizon it will be read; but an answer may say something else than what is stored.
        if due is None or (due >= self.horizon and not is_answer):
            self.due.pop(room, None)
        else:
            self.put(room, due)

    def put(self, room: RoomKey, due: datetime) -> None:
        """Have a room woken."""
        self.due[room] = due
        if due < self.placed.get(room, NEVER):
            self.placed[room] = due
            heappush(self.queue, (due, room))
            self.call_at(due)

    def call_at(self, when: datetime) -> None:
        """Have the host call, if it would not have done so before."""
        if when < self.call:
            self.call = when
            self.news.set()

    def called(self, when: datetime) -> None:
        """Wake who is due, the earliest first. The host calls this at ``when``."""
        if self.wake is None or when != self.call:
            return  # another call has taken the place of this one
        now = self.clock.now()
        while self.queue and self.queue[0][0] <= now:
            place, room = heappop(self.queue)
            if self.placed.get(room) == place:
                del self.placed[room]
            due = self.due.get(room)
            if due is not None and due <= now:
                del self.due[room]
                self.waking.add(room)
                self.wake(room)
            elif due is not None:
                self.put(room, due)
        self.call = self.handed_on = NEVER
        if self.queue:
            self.call_at(self.queue[0][0])
        if self.next_read > now:
            self.call_at(self.next_read)
        self.news.set()

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        task = f"partyroom {id(self):x}"
        await self.host.configure_task(task, func=self.called, max_running_jobs=None)
        self.begin(wake)
        try:
            while True:
                self.news = anyio.Event()
                if self.next_read <= self.clock.now():
                    await self.read(upcoming)
                elif self.call == self.handed_on:
                    await self.news.wait()
                else:
                    when = self.handed_on = self.call
                    await self.host.add_schedule(task, DateTrigger(when), args=[when])
        finally:
            self.wake = None

    async def read(self, upcoming: Read) -> None:
        """Read what is due within the look-ahead. What was told meanwhile is newer."""
        now = self.clock.now()
        self.horizon, self.next_read = now + self.look_ahead, now + self.look_ahead / 2
        self.touched.clear()
        try:
            while self.take(rows := await upcoming(self.last, PAGE)) and len(rows) == PAGE:
                pass
        except Exception:
            getLogger(__name__).exception("the next alarms cannot be read")
            self.next_read = now + min(AGAIN, self.look_ahead / 2)
        self.call_at(self.next_read)

    def take(self, rows: Sequence[Upcoming]) -> bool:
        """Take in a page; say whether all of it is within the horizon."""
        for row in rows:
            if row.due >= self.horizon:
                return False
            self.last = row
            if row.room not in self.touched and row.room not in self.due and row.room not in self.waking:
                self.put(row.room, row.due)
        return True


class Egg(Room):
    """Says when it is done."""

    async def boil(self, how_long: timedelta) -> None:
        """Set the alarm."""
        await self.ctx.storage.set_alarm(how_long)

    async def on_alarm(self, alarm: Alarm) -> None:
        self.ctx.broadcast(f"{self.ctx.id} is done")


async def main() -> None:
    """Boil two eggs, in a program that has a scheduler already."""
    async with AsyncScheduler() as host:
        await host.start_in_background()
        async with Runtime({"egg": Egg}, backend=MemoryBackend(), scheduler=HostScheduler(host)) as runtime:
            eggs = runtime.parties["egg"]
            async with eggs.get("hard").connect() as hard, eggs.get("soft").connect() as soft:
                await eggs.get("hard").call(Egg.boil, timedelta(seconds=0.2))
                await eggs.get("soft").call(Egg.boil, timedelta(seconds=0.1))
                print(await soft.receive())
                print(await hard.receive())


if __name__ == "__main__":
    anyio.run(main)
