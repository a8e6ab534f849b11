"""The example of a host's own scheduler, judged by the contract, and with rooms on a file."""

from __future__ import annotations

import runpy
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from partyroom import (
    Alarm,
    AlarmScheduler,
    Client,
    Clock,
    Connection,
    RetryPolicy,
    Room,
    RoomKey,
    Runtime,
    Upcoming,
)
from partyroom.backends.file import FileBackend
from partyroom.testing import AlarmSchedulerContract, FakeClock

pytest.importorskip("apscheduler", reason="the extra `apscheduler` is not installed")
from apscheduler import AsyncScheduler

from partyroom.examples import host_scheduler
from partyroom.examples.host_scheduler import HostScheduler
from tests.sizes import in_turn


class TestHostScheduler(AlarmSchedulerContract):
    """It lives on APScheduler's time, which is the system's: what needs a clock that jumps is left out."""

    patience = 5.0
    on_real_time = True
    tick = timedelta(milliseconds=8)
    loops = in_turn(0, "asyncio", "trio")

    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return HostScheduler(AsyncScheduler(), look_ahead=3 * self.tick)

    @override
    def opened(self, scheduler: AlarmScheduler, /) -> AbstractAsyncContextManager[object]:
        assert isinstance(scheduler, HostScheduler)
        return running(scheduler.host)


@asynccontextmanager
async def running(host: AsyncScheduler) -> AsyncGenerator[AsyncScheduler]:
    async with host:
        await host.start_in_background()
        yield host


def test_what_was_moved_later_is_looked_at_again_and_what_was_taken_back_is_forgotten() -> None:
    clock, woken, host = FakeClock(), list[RoomKey](), AsyncScheduler()
    start = clock.now()
    moved, left, gone = (RoomKey("egg", name) for name in ("moved", "left", "gone"))

    def at(seconds: float) -> datetime:
        return start + timedelta(seconds=seconds)

    scheduler = HostScheduler(host)
    scheduler.changed(moved, at(1))
    scheduler.clock = clock
    scheduler.begin(woken.append)
    scheduler.horizon = scheduler.next_read = at(100)
    for room, *seconds in ((moved, 20, 10), (left, 10, 50), (gone, 10, 120)):
        for each in seconds:
            scheduler.changed(room, at(each))
    assert at(10) == scheduler.call
    clock.set_wall(at(10))
    scheduler.called(at(9))
    assert [] == woken
    scheduler.called(at(10))
    assert [moved] == woken
    scheduler.changed(moved, None)
    # Where it was before it was moved sooner, there is nothing any more.
    clock.set_wall(at(20))
    scheduler.called(at(20))
    assert ([moved], at(50)) == (woken, scheduler.call)
    clock.set_wall(at(50))
    scheduler.called(at(50))
    assert ([moved, left], at(100)) == (woken, scheduler.call)


@pytest.mark.anyio
async def test_what_is_due_soon_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_scheduler, "PAGE", 2)
    clock, woken, host = FakeClock(), list[RoomKey](), AsyncScheduler()
    stored = [Upcoming(clock.now(), RoomKey("egg", name), "") for name in "abcde"]

    async def upcoming(after: Upcoming | None, limit: int) -> list[Upcoming]:
        first = 0 if after is None else stored.index(after) + 1
        return stored[first : first + limit]

    scheduler = HostScheduler(host)
    scheduler.clock = clock
    scheduler.begin(woken.append)
    await scheduler.read(upcoming)
    scheduler.called(clock.now())
    assert [each.room for each in stored] == woken


def test_it_is_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(host_scheduler.__file__), run_name="__main__")
    assert "soft is done\nhard is done\n" == capsys.readouterr().out


class Egg(Room):
    async def on_connect(self, connection: Connection) -> None:
        connection.send("done" if await self.ctx.storage.get("done", 0) else "boiling")

    async def boil(self, how_long: timedelta) -> None:
        await self.ctx.storage.set_alarm(how_long)

    async def on_alarm(self, alarm: Alarm) -> None:
        if not alarm.is_retry:
            raise ConnectionError("no gas")
        await self.ctx.storage.put("done", alarm.retry_count)
        self.ctx.broadcast("done")


Egg.alarm_retry = RetryPolicy(first_delay=timedelta(milliseconds=10))


async def until_done(egg: Client) -> None:
    while await egg.receive() != "done":
        pass


@pytest.mark.anyio
async def test_rooms_on_a_file_ring_by_the_hosts_scheduler_after_a_restart_too(tmp_path: Path) -> None:
    def runtime(**options: Any) -> Runtime:
        return Runtime({"egg": Egg}, backend=FileBackend(tmp_path / "rooms.db"), **options)

    async with running(AsyncScheduler()) as host:
        async with runtime(scheduler=HostScheduler(host)) as first:
            early, late = (first.parties["egg"].get(name) for name in ("early", "late"))
            async with early.connect() as client:
                await early.call(Egg.boil, timedelta(milliseconds=20))
                await late.call(Egg.boil, timedelta(milliseconds=400))
                await until_done(client)
        # On a machine that is busy the late one may have rung in the first of both lives.
        async with (
            runtime(scheduler=HostScheduler(host)) as second,
            second.parties["egg"].get("late").connect() as client,
        ):
            await until_done(client)
    async with runtime(alarms="manual") as third:
        assert {"done": 1} == await third.parties["egg"].get("late").stored()
