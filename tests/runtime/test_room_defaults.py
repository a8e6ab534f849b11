"""What a room that overrides nothing does, asked for by one that overrides everything."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from partyroom import Alarm, Connection, RetryPolicy, Room, RoomContext, Runtime
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import Harness

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


class Heir(Room):
    """Hands on whatever comes, and notes that it came."""

    alarm_retry = RetryPolicy(max_retries=0)
    heard: list[str]

    async def on_start(self) -> None:
        self.heard.append("start")
        await super().on_start()

    @override
    def connection_tags(self, connection: Connection) -> Iterable[str]:
        return super().connection_tags(connection)

    async def on_connect(self, connection: Connection) -> None:
        self.heard.append(f"connect {sorted(connection.tags)}")
        await super().on_connect(connection)

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        self.heard.append(f"message {message!s}")
        await super().on_message(message, sender)
        if message == "bad":
            raise LookupError

    async def on_error(self, connection: Connection, error: Exception) -> None:
        self.heard.append(f"error {error!r}")
        await super().on_error(connection, error)

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        self.heard.append(f"close {code}")
        await super().on_close(connection, code, reason, was_clean)

    async def on_request(self, request: Any) -> Any:
        self.heard.append(f"request {request}")
        return await super().on_request(request)

    async def on_alarm(self, alarm: Alarm) -> None:
        self.heard.append("alarm")
        await super().on_alarm(alarm)
        raise OSError

    @override
    async def on_alarm_failed(self, alarm: Alarm, error: Exception) -> None:
        self.heard.append(f"failed {error!r}")
        await super().on_alarm_failed(alarm, error)


async def test_whatever_comes_the_default_does_nothing_and_says_nothing() -> None:
    Heir.heard = []

    async def arm(room: Room) -> None:
        await room.ctx.storage.set_alarm(MINUTE)

    async with Harness({"heir": Heir}, fail_on_errors=False) as harness:
        room = harness.parties["heir"].get("a")
        client = await harness.connect(room)
        await client.send("hello")
        await client.send("bad")
        await client.close()
        assert await room.request("?") is None
        await room.call(arm)
        await harness.advance(MINUTE)
        assert {} == await harness.stored(room)
        assert [] == client.inbox
    told = ["start", "connect []", "message hello", "message bad", "error LookupError()", "close 1000"]
    # It has slept until its alarm.
    assert [*told, "request ?", "start", "alarm", "failed OSError()"] == Heir.heard


class Mute:
    """As little as a room can be."""

    def __init__(self, ctx: RoomContext) -> None:
        self.ctx = ctx

    async def on_alarm(self, alarm: Alarm) -> None:
        """Take an alarm."""


class Leaving(Room):
    """Goes away in the middle of whatever it handles."""

    alarm_retry = RetryPolicy(max_retries=0)

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        self.ctx.abort("enough")

    async def on_alarm(self, alarm: Alarm) -> None:
        self.ctx.abort("enough")

    async def on_error(self, connection: Connection, error: Exception) -> None:
        """Hear of it, if it were still there."""

    @override
    async def on_alarm_failed(self, alarm: Alarm, error: Exception) -> None:
        """Hear of it, if it were still there."""


async def test_who_comes_after_an_instance_that_left_need_not_hear_what_it_would_have_heard() -> None:
    async def arm(room: Room) -> None:
        await room.ctx.storage.set_alarm(timedelta(seconds=1))

    made: list[Any] = []

    def make(ctx: RoomContext) -> Any:
        made.append(Leaving(ctx) if len(made) % 2 == 0 else Mute(ctx))
        return made[-1]

    async with Harness({"room": make}, fail_on_errors=False) as harness:
        room = harness.parties["room"].get("a")
        client = await harness.connect(room)
        await client.send("hello")
        await harness.settle()
        assert [Leaving, Mute] == [type(each) for each in made]
        await client.close()
        await harness.put_to_sleep(room)
        await room.call(arm)
        await harness.advance(timedelta(seconds=1))
        assert [Leaving, Mute, Leaving, Mute] == [type(each) for each in made]
        assert ["failed"] == [each.status for each in await room.list_alarms()]


async def test_by_hand_as_well_an_alarm_waits_where_nobody_takes_it() -> None:
    class Armed(Room):
        async def on_start(self) -> None:
            if self.is_broken:
                raise LookupError

        is_broken = False

        async def on_alarm(self, alarm: Alarm) -> None:
            """Take an alarm."""

    class Broken(Armed):
        is_broken = True

    class Deaf(Room):
        """Has lost its on_alarm."""

    async def arm(room: Room) -> None:
        await room.ctx.storage.set_alarm(timedelta(seconds=-1))

    backend = MemoryBackend()
    async with Runtime({"room": Armed}, backend=backend, alarms="manual") as runtime:
        await runtime.parties["room"].get("a").call(arm)
        due = await runtime.next_alarm()
    for party in (Deaf, Broken):
        async with Runtime({"room": party}, backend=backend, alarms="manual") as runtime:
            assert 0 == (await runtime.ring_due()).rung
            assert due == await runtime.next_alarm()
