"""Connections: who is let in, who is there, who hears what, and how it ends (G19 to G21).

Every test runs in rooms that stay awake with their clients, in rooms that hibernate, and in rooms that are put to sleep
between all events: one set of rules for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

import anyio
import attrs
import pytest
from typing_extensions import Unpack, override

from partyroom import (
    Alarm,
    Connection,
    ConnectionClosedError,
    ConnectRejectedError,
    InvalidKeyError,
    LimitExceededError,
    Limits,
    NotStorableError,
    OutsideEventError,
    Room,
    RoomAbortedError,
    RoomContext,
    RoomHandle,
    RuntimeStateError,
)
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend, Harness, HarnessOptions
from partyroom.testing.faults import Hold
from tests.sizes import sizes

pytestmark = pytest.mark.anyio


@attrs.define(eq=False)
class Play:
    """What the rooms of a test do, and what they have heard; it outlives their instances."""

    mode: str
    same_id: Literal["allow", "replace", "refuse"] = "allow"
    tags: Callable[[Connection], Iterable[str]] = lambda _: ()
    on_connect: Callable[[Hall, Connection], Awaitable[None]] | None = None
    on_message: Callable[[Hall, str | bytes, Connection], Awaitable[None]] | None = None
    on_close: Callable[[Hall, Connection], Awaitable[None]] | None = None
    on_error: Callable[[Hall, Connection, Exception], Awaitable[None]] | None = None
    heard: list[Any] = attrs.Factory(list[Any])
    instances: int = 0
    seen_by_constructor: list[str] = attrs.Factory(list[str])

    def hall(self, ctx: RoomContext) -> Hall:
        """Make the room."""
        return Hall(ctx, self)

    @asynccontextmanager
    async def open(self, **options: Unpack[HarnessOptions]) -> AsyncGenerator[tuple[Harness, RoomHandle]]:
        """Open a harness in this mode, and give a room of it."""
        options["strict_hibernation"] = self.mode == "strict"
        async with Harness({"hall": self.hall, "deaf": Deaf, "desk": Desk}, **options) as harness:
            yield harness, harness.parties["hall"].get("a")


class Hall(Room):
    """Does what its play says, and notes down how connections end."""

    def __init__(self, ctx: RoomContext, play: Play) -> None:
        super().__init__(ctx)
        self.play = play
        self.hibernate = play.mode != "stays"
        self.same_id = play.same_id
        play.instances += 1
        play.seen_by_constructor = sorted(each.id for each in ctx.get_connections())

    @override
    def connection_tags(self, connection: Connection) -> Iterable[str]:
        return self.play.tags(connection)

    async def on_connect(self, connection: Connection) -> None:
        if self.play.on_connect is not None:
            await self.play.on_connect(self, connection)

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        assert self.play.on_message is not None
        await self.play.on_message(self, message, sender)

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        self.play.heard.append((connection.id, code, reason, was_clean))
        if self.play.on_close is not None:
            await self.play.on_close(self, connection)

    async def on_alarm(self, alarm: Alarm) -> None:
        self.play.heard.append(alarm.name)

    async def on_error(self, connection: Connection, error: Exception) -> None:
        self.play.heard.append((connection.id, str(error)))
        if self.play.on_error is not None:
            await self.play.on_error(self, connection, error)


class Deaf(Room):
    """Fails at every message, and has no on_error."""

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.send("never sent")
        error = "a secret"
        raise ValueError(error)


class Desk(Room):
    """Takes complaints."""

    async def complain(self, caller: RoomHandle, word: str) -> str:
        complaints = [*await self.ctx.storage.get("complaints", ()), word]
        await self.ctx.storage.put("complaints", complaints)
        if word == "refused":
            raise SpoilError(word)
        return await self.ctx.parties["hall"].get(caller.id).call(acknowledge, len(complaints))


async def acknowledge(hall: Hall, number: int) -> str:
    """Be called back along the chain."""
    await hall.ctx.storage.put("acknowledged", number)
    return f"complaint {number} of {hall.ctx.id}"


class SpoilError(Exception):
    """What the rooms of these tests raise."""


@pytest.fixture(params=["stays", "hibernates", "strict"])
def play(request: pytest.FixtureRequest) -> Play:
    return Play(request.param)


async def echo(_hall: Hall, message: str | bytes, sender: Connection) -> None:
    sender.send(message)


async def ids(hall: Hall, tag: str | None = None) -> list[str]:
    """Give who is there, as an event."""
    return [each.id for each in hall.ctx.get_connections(tag)]


async def say(hall: Hall, message: str | bytes, *without: str) -> None:
    hall.ctx.broadcast(message, without=without)


# --- let in ------------------------------------------------------------------


async def test_a_client_is_in_when_on_connect_is_done_and_safe(play: Play) -> None:
    async def on_connect(hall: Hall, connection: Connection) -> None:
        await hall.ctx.clock.sleep(timedelta(seconds=1))
        await hall.ctx.storage.put("in", connection.id)
        connection.send("welcome")

    play.on_connect = on_connect
    async with play.open() as (harness, room), harness.auto(), room.connect(id="ann") as client:
        assert {"in": "ann"} == await harness.stored(room)
        assert "welcome" == await client.receive()


async def test_a_connection_knows_what_it_was_connected_with_and_its_request_only_until_it_is_in(play: Play) -> None:
    async def note(_hall: Hall, connection: Connection) -> None:
        play.heard.append(
            (connection.id, connection.uri, sorted(connection.tags), connection.state, connection.request)
        )

    async def note_again(hall: Hall, _message: str | bytes, sender: Connection) -> None:
        await note(hall, sender)

    play.on_connect, play.on_message = note, note_again
    async with play.open() as (harness, room):
        client = await harness.connect(
            room, id="ann", uri="ws://x/a", tags=("host",), state={"n": 1}, request=("headers", "user")
        )
        assert "ann" == client.id
        await client.send("again")
        await harness.settle()
    known = ("ann", "ws://x/a", ["host"], {"n": 1})
    assert [(*known, ("headers", "user")), (*known, None)] == play.heard[:2]


async def test_a_connection_without_an_id_gets_one_of_its_own(play: Play) -> None:
    async with play.open() as (harness, room):
        first, second = await harness.connect(room), await harness.connect(room)
        assert first.id != second.id
        assert [first.id, second.id] == await room.call(ids)


async def test_a_way_in_is_entered_once(play: Play) -> None:
    async with play.open() as (_, room):
        way = room.connect()
        async with way:
            pass
        with pytest.raises(RuntimeStateError, match="entered once"):
            await way.__aenter__()


async def test_a_room_tags_connections_and_finds_them_by_tag(play: Play) -> None:
    play.tags = lambda connection: ["vip"] if connection.id == "ann" else []
    async with play.open() as (harness, room):
        for name in ("ann", "bob"):
            await harness.connect(room, id=name, tags=("all",))
        assert ["ann"] == await room.call(ids, "vip")
        assert ["ann", "bob"] == await room.call(ids, "all")
        assert [] == await room.call(ids, "nobody")


@pytest.mark.parametrize(
    ("tags", "wrong"), [("vip", TypeError), (("",), InvalidKeyError), (("a", "b", "c"), LimitExceededError)]
)
async def test_tags_that_cannot_be_are_refused_whoever_gives_them(
    play: Play, tags: Any, wrong: type[Exception]
) -> None:
    async with play.open(limits=Limits(tags=2)) as (harness, room):
        with pytest.raises(wrong):
            await harness.connect(room, tags=tags)
        play.tags = lambda _: tags
        with pytest.raises((wrong, ConnectRejectedError)):
            await harness.connect(room)
        assert [] == await room.call(ids)


# --- refused -----------------------------------------------------------------


async def test_a_room_refuses_by_raising_and_nothing_is_left_of_it(play: Play) -> None:
    async def refuse(hall: Hall, connection: Connection) -> None:
        assert ["ann"] == await ids(hall)
        connection.send("never sent")
        await hall.ctx.storage.put("k", 1)
        raise ConnectRejectedError(4001, "not today")

    play.on_connect = refuse
    async with play.open() as (harness, room):
        with pytest.raises(ConnectRejectedError) as refused:
            await harness.connect(room, id="ann")
        assert (4001, "not today", None) == (refused.value.code, refused.value.reason, refused.value.__cause__)
        assert [] == await room.call(ids)
        assert {} == await harness.stored(room)
    assert [] == play.heard


async def test_a_room_refuses_by_closing_and_keeps_what_it_has_written(play: Play) -> None:
    async def close(hall: Hall, connection: Connection) -> None:
        await hall.ctx.storage.put("k", 1)
        connection.close(4002, "full")

    play.on_connect = close
    async with play.open() as (harness, room):
        with pytest.raises(ConnectRejectedError) as refused:
            await harness.connect(room)
        assert (4002, "full") == (refused.value.code, refused.value.reason)
        assert [] == await room.call(ids)
        assert {"k": 1} == await harness.stored(room)
    assert [] == play.heard


async def test_an_error_refuses_and_tells_the_host_why_but_not_the_client(play: Play) -> None:
    async def fail(_hall: Hall, _connection: Connection) -> None:
        raise SpoilError("a secret")

    play.on_connect = fail
    async with play.open() as (harness, room):
        with pytest.raises(ConnectRejectedError) as refused:
            await harness.connect(room, id="ann")
        assert (1011, "on_connect failed") == (refused.value.code, refused.value.reason)
        assert isinstance(refused.value.__cause__, SpoilError)
        await harness.settle()
        assert [] == await room.call(ids)
    assert [("ann", "a secret")] == play.heard


# --- two of one id -----------------------------------------------------------


async def test_two_of_one_id_may_both_stay_and_the_newer_is_never_lost(play: Play) -> None:
    async def find(hall: Hall) -> object:
        found = hall.ctx.get_connection("ann")
        return None if found is None else found.state

    async with play.open() as (harness, room):
        old, new = [await harness.connect(room, id="ann", state=state) for state in ("old", "new")]
        assert "new" == await room.call(find)
        await old.close()
        await harness.settle()
        assert "new" == await room.call(find)
        assert ["ann"] == await room.call(ids)
        await room.call(say, "hello")
        await new.expect("hello")
        assert [] == await old.received()
        await new.close()
        await harness.settle()
        assert None is await room.call(find)


async def test_the_newer_takes_the_place_of_the_older_when_it_is_in(play: Play) -> None:
    play.same_id = "replace"
    async with play.open() as (harness, room):
        old, new = [await harness.connect(room, id="ann") for _ in range(2)]
        assert old.closed is not None
        assert 1000 == old.closed.code
        await harness.settle()
        assert ["ann"] == await room.call(ids)
        await room.call(say, "hello")
        await new.expect("hello")
    assert ("ann", 1000, "replaced by a newer connection of the same id", True) == play.heard[0]


async def test_an_older_one_stays_if_the_newer_is_not_let_in(play: Play) -> None:
    async def refuse(hall: Hall, _connection: Connection) -> None:
        if len(hall.ctx.get_connections()) > 1:
            raise ConnectRejectedError(4001)

    play.same_id, play.on_connect, play.on_message = "replace", refuse, echo
    async with play.open() as (harness, room):
        old = await harness.connect(room, id="ann")
        with pytest.raises(ConnectRejectedError):
            await harness.connect(room, id="ann")
        await old.send("still here")
        await old.expect("still here")


async def test_the_newer_is_refused_while_the_older_is_open(play: Play) -> None:
    play.same_id = "refuse"
    async with play.open() as (harness, room):
        old = await harness.connect(room, id="ann")
        with pytest.raises(ConnectRejectedError) as refused:
            await harness.connect(room, id="ann")
        assert 1008 == refused.value.code
        assert ["ann"] == await room.call(ids)
        await old.close()
        await harness.settle()
        await harness.connect(room, id="ann")


# --- the end -----------------------------------------------------------------


async def test_a_room_hears_how_each_connection_ended(play: Play) -> None:
    async def close(_hall: Hall, message: str | bytes, sender: Connection) -> None:
        sender.close(4000, str(message))

    play.on_message = close
    async with play.open() as (harness, room):
        said, broke_off, left, thrown_out = [await harness.connect(room, id=str(n)) for n in range(4)]
        await said.close(1001, "bye")
        await broke_off.close(1006)
        await left.leave()
        await thrown_out.send("out")
        await harness.settle()
        assert thrown_out.closed is not None
        assert (4000, "out") == (thrown_out.closed.code, thrown_out.closed.reason)
    assert [("0", 1001, "bye", True), ("1", 1006, "", False), ("2", 1000, "", True), ("3", 4000, "out", True)] == (
        play.heard
    )


async def test_a_connection_is_none_of_the_room_s_when_on_close_runs_and_its_messages_came_before(play: Play) -> None:
    async def note(hall: Hall, connection: Connection) -> None:
        play.heard.append((await ids(hall), hall.ctx.get_connection(connection.id), connection.state))
        # Harmless: there is nobody to hear it.
        connection.send("too late")

    async def count(_hall: Hall, _message: str | bytes, sender: Connection) -> None:
        sender.set_state(sender.state + 1)

    play.on_close, play.on_message = note, count
    async with play.open() as (harness, room):
        ann = await harness.connect(room, id="ann", state=0)
        await harness.connect(room, id="bob")
        for _ in range(3):
            await ann.send("x")
        await ann.close()
        await harness.settle()
        assert (["bob"], None, 3) == play.heard[1]


async def test_a_message_behind_the_end_is_not_handled(play: Play) -> None:
    async def close(_hall: Hall, message: str | bytes, sender: Connection) -> None:
        play.heard.append(message)
        sender.close(4000)

    play.on_message = close
    async with play.open() as (harness, room):
        ann = await harness.connect(room, id="ann")
        await ann.send("first")
        await ann.send("second")
        await harness.settle()
        with pytest.raises(ConnectionClosedError):
            await ann.send("third")
    assert ["first", ("ann", 4000, "", True)] == play.heard


async def test_what_was_sent_before_the_end_is_received_before_it(play: Play) -> None:
    async def part(_hall: Hall, _message: str | bytes, sender: Connection) -> None:
        sender.send("one")
        sender.send("two")
        sender.close(4000, "done")

    play.on_message = part
    async with play.open() as (_, room), room.connect() as client:
        await client.send("go")
        assert "one" == await client.receive()
        assert ["two"] == [message async for message in client]
        with pytest.raises(ConnectionClosedError) as ended:
            await client.receive()
        assert (4000, "done") == (ended.value.code, ended.value.reason)


async def test_who_is_let_in_and_closed_by_the_next_event_was_let_in_all_the_same(play: Play) -> None:
    async def welcome(hall: Hall, connection: Connection) -> None:
        await hall.ctx.storage.put("in", connection.id)
        connection.send("welcome")

    async def part(hall: Hall) -> None:
        for each in hall.ctx.get_connections():
            each.close(4000, "done")

    play.on_connect = welcome
    faulty = FaultyBackend(MemoryBackend())
    async with play.open(backend=faulty) as (_, room), anyio.create_task_group() as tasks:
        with faulty.hold_answer("commit") as hold:
            # Both leave together, when this commit is answered.
            tasks.start_soon(hold_and_part, hold, room, part)
            async with room.connect(id="ann") as client:
                assert "welcome" == await client.receive()
                with pytest.raises(ConnectionClosedError) as ended:
                    await client.receive()
        assert (4000, "done") == (ended.value.code, ended.value.reason)
    assert [("ann", 4000, "done", True)] == play.heard


async def hold_and_part(hold: Hold, room: RoomHandle, part: Callable[[Hall], Awaitable[None]]) -> None:
    """Have another event run while the commit of the one before is not answered."""
    await hold.arrived()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.call, part)
        await anyio.wait_all_tasks_blocked()
        hold.release()


# --- errors ------------------------------------------------------------------


async def test_on_error_hears_of_every_error_as_the_very_next_event(play: Play) -> None:
    async def fail(_hall: Hall, message: str | bytes, sender: Connection) -> None:
        if message == "good":
            play.heard.append(message)
            return
        sender.send("never sent")
        raise SpoilError(message)

    async def fail_at_the_end(_hall: Hall, connection: Connection) -> None:
        raise SpoilError(f"{connection.id} left")

    play.on_message, play.on_close = fail, fail_at_the_end
    async with play.open() as (harness, room):
        ann = await harness.connect(room, id="ann")
        await ann.send("bad")
        await ann.send("good")
        await ann.expect()
        await ann.close()
        await harness.settle()
    assert [("ann", "bad"), "good", ("ann", 1000, "", True), ("ann", "ann left")] == play.heard


async def fail(_hall: Hall, message: str | bytes, sender: Connection) -> None:
    sender.send("never sent")
    raise SpoilError(message)


async def test_on_error_may_call_other_rooms_which_may_call_back(play: Play) -> None:
    async def complain(hall: Hall, connection: Connection, error: Exception) -> None:
        desk = hall.ctx.parties["desk"].get("front")
        me = hall.ctx.parties["hall"].get(hall.ctx.id)
        connection.send(await desk.call(Desk.complain, me, str(error)))
        assert 1 == await hall.ctx.storage.get("acknowledged")
        with pytest.raises(SpoilError, match="refused"):
            await desk.call(Desk.complain, me, "refused")

    play.on_message, play.on_error = fail, complain
    async with play.open() as (harness, room):
        client = await harness.connect(room)
        with harness.expect_error(SpoilError, "refused"):
            await client.send("bad")
            await client.expect("complaint 1 of a")
        assert {"acknowledged": 1} == await harness.stored(room)
        assert {"complaints": ["bad"]} == await harness.stored(harness.parties["desk"].get("front"))
        assert [] == [each for each in harness.errors if not each.heard]


async def test_on_error_is_an_event_like_any_other(play: Play) -> None:
    """It stores, sets alarms, sends to all, starts tasks and lists the rooms of other parties; all of it at once or not at all."""

    async def recover(hall: Hall, connection: Connection, error: Exception) -> None:
        ctx = hall.ctx
        async with ctx.storage.transaction():
            await ctx.storage.put("error", str(error))
        await ctx.storage.set_alarm(timedelta(minutes=1), name="repair")
        await ctx.storage.sync()
        ctx.broadcast(f"{connection.id} spoilt it")
        ctx.start_soon(ctx.clock.sleep, timedelta(seconds=1))
        await ctx.clock.sleep(timedelta(seconds=1))
        play.heard.append((await ctx.parties["desk"].rooms(), await ctx.parties["hall"].rooms()))
        if error.args == ("twice",):
            await ctx.storage.put("error", "never stored")
            await ctx.storage.delete_alarm("repair")
            ctx.broadcast("never sent")
            raise SpoilError("again")

    play.on_message, play.on_error = fail, recover
    async with play.open() as (harness, room):
        ann, bob = await harness.connect(room, id="ann"), await harness.connect(room, id="bob")
        await ann.send("bad")
        await harness.advance(timedelta(seconds=1))
        for each in (ann, bob):
            await each.expect("ann spoilt it")
        assert {"error": "bad"} == await harness.stored(room)
        assert [("repair", harness.now() + timedelta(seconds=59))] == [
            (each.name, each.next_time) for each in await room.list_alarms()
        ]
        await harness.advance(timedelta(minutes=2))
        with harness.expect_error(SpoilError, "again"):
            await bob.send("twice")
            await harness.advance(timedelta(seconds=1))
        assert {"error": "twice"} == await harness.stored(room), "what it stored by sync stands, the rest is taken back"
        for each in (ann, bob):
            await each.expect()
    assert [("ann", "bad"), ([], ["a"]), "repair", ("bob", "twice"), ([], ["a"])] == play.heard[:5]


async def test_without_on_error_the_log_has_room_event_and_traceback_and_the_client_nothing(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async with play.open() as (harness, _):
        with harness.expect_error(ValueError, "a secret"):
            client = await harness.connect(harness.parties["deaf"].get("d"))
            await client.send("hello")
            await client.expect()
            assert None is client.closed
    record = next(each for each in caplog.records if each.levelno == logging.ERROR)
    assert "deaf/d on_message failed" in record.getMessage()
    assert record.exc_info is not None
    assert "a secret" in caplog.text
    assert "Traceback" in caplog.text


# --- state -------------------------------------------------------------------


async def test_a_state_is_copied_in_and_out_and_stays(play: Play) -> None:
    async def change(_hall: Hall, message: str | bytes, sender: Connection) -> None:
        if message == "set":
            state = {"list": [1]}
            sender.set_state(state)
            state["list"].append(2)
            sender.state["list"].append(3)
        sender.send(str(sender.state))

    play.on_message = change
    async with play.open() as (harness, room):
        ann = await harness.connect(room)
        await ann.send("set")
        await ann.send("get")
        await ann.expect("{'list': [1]}", "{'list': [1]}")


@pytest.mark.parametrize(
    ("state", "wrong", "match"),
    [("x" * 101, LimitExceededError, "state_bytes"), ({"a": object()}, NotStorableError, "state of .*'ann'.*object")],
)
async def test_a_state_that_cannot_be_kept_is_refused_and_the_one_before_stays(
    play: Play, state: object, wrong: type[Exception], match: str
) -> None:
    async def change(_hall: Hall, _message: str | bytes, sender: Connection) -> None:
        with pytest.raises(wrong, match=match):
            sender.set_state(state)
        sender.send(str(sender.state))

    play.on_message = change
    async with play.open(limits=Limits(state_bytes=100)) as (harness, room):
        ann = await harness.connect(room, id="ann", state="before")
        await ann.send("x")
        await ann.expect("before")
        with pytest.raises(wrong, match=match):
            await harness.connect(room, id="ann", state=state)


# --- sleep -------------------------------------------------------------------


@sizes("clients_of_a_room", 100, 300)
async def test_hundreds_of_clients_notice_nothing_of_their_room_s_sleep(play: Play, clients_of_a_room: int) -> None:
    async def answer(hall: Hall, message: str | bytes, sender: Connection) -> None:
        sender.send(f"{sender.id} {sender.uri} {','.join(sender.tags)} {sender.state} {message!s}")
        sender.set_state(sender.state + 1)
        assert sender in hall.ctx.get_connections(sender.id)

    play.on_message = answer
    play.tags = lambda connection: [connection.id]
    names = [str(number) for number in range(clients_of_a_room)]
    async with play.open() as (harness, room):
        clients = [await harness.connect(room, id=name, uri=f"u{name}", state=0) for name in names]
        for turn in range(3):
            await harness.advance(timedelta(hours=1))
            assert (1 if play.mode == "stays" else 0) == harness.runtime.statistics().awake
            for client in clients[::20]:
                await client.send("hi")
                await client.expect(f"{client.id} u{client.id} {client.id} {turn} hi")
        await room.call(say, "everybody")
        assert {("everybody",)} == {tuple((await client.received())[-1:]) for client in clients}
        assert play.instances == 1 if play.mode == "stays" else play.instances > 3
        assert names == sorted(await room.call(ids), key=int)


async def test_a_constructor_sees_the_connections_that_are_there_already(play: Play) -> None:
    async def abort(hall: Hall) -> None:
        hall.ctx.abort("afresh")

    async with play.open() as (harness, room):
        for name in ("ann", "bob"):
            await harness.connect(room, id=name)
        with pytest.raises(RoomAbortedError):
            await room.call(abort)
        assert ["ann", "bob"] == await room.call(ids)
        assert ["ann", "bob"] == play.seen_by_constructor


async def test_an_end_wakes_a_room_that_sleeps(play: Play) -> None:
    async with play.open() as (harness, room):
        ann = await harness.connect(room, id="ann")
        await harness.advance(timedelta(hours=1))
        await ann.close(4000, "enough")
        await harness.settle()
        assert [("ann", 4000, "enough", True)] == play.heard
        assert [] == await room.call(ids)


async def test_a_connection_is_of_no_use_outside_of_events(play: Play) -> None:
    async def note(_hall: Hall, connection: Connection) -> None:
        play.heard.append(connection)

    play.on_connect = note
    async with play.open() as (harness, room):
        await harness.connect(room)
        connection: Connection = play.heard.pop()
        for asleep in (False, True):
            if asleep:
                await harness.advance(timedelta(hours=1))
            with pytest.raises(OutsideEventError):
                connection.send("x")
            with pytest.raises(OutsideEventError):
                connection.close()


# --- messages ----------------------------------------------------------------


async def test_text_and_bytes_pass_as_they_are_and_nothing_else(play: Play) -> None:
    async def give_back(_hall: Hall, message: str | bytes, sender: Connection) -> None:
        wrong: Any = bytearray(b"x")
        with pytest.raises(TypeError):
            sender.send(wrong)
        sender.send(message)

    play.on_message = give_back
    async with play.open() as (harness, room):
        ann = await harness.connect(room)
        for message in ("", "é🎉", b"", b"\x00\xff"):
            await ann.send(message)
        await ann.expect("", "é🎉", b"", b"\x00\xff")
        wrong: Any = 1
        with pytest.raises(TypeError):
            await ann.send(wrong)


async def test_a_broadcast_reaches_all_but_those_it_leaves_out_in_order(play: Play) -> None:
    async def leave_out(hall: Hall, message: str | bytes, sender: Connection) -> None:
        hall.ctx.broadcast(message, without=(sender,))
        with pytest.raises(TypeError, match="several"):
            hall.ctx.broadcast("x", without="ann")

    play.on_message = leave_out
    async with play.open() as (harness, room):
        ann, bob, cat = [await harness.connect(room, id=name) for name in ("ann", "bob", "cat")]
        await ann.send("1")
        await room.call(say, "2", "bob", "nobody")
        await room.call(say, "3")
        await ann.expect("2", "3")
        await bob.expect("1", "3")
        await cat.expect("1", "2", "3")


@pytest.mark.parametrize("limits", [Limits(outgoing_messages=5), Limits(outgoing_bytes=10)])
async def test_who_does_not_read_is_closed_and_holds_up_nobody(play: Play, limits: Limits) -> None:
    async with play.open(limits=limits) as (harness, room):
        slow, ann = [await harness.connect(room, id=name) for name in ("slow", "ann")]
        for number in range(6):
            await room.call(say, str(number) * 2)
            await ann.expect(str(number) * 2)
        assert slow.closed is not None
        assert 1013 == slow.closed.code
        assert ["00", "11", "22", "33", "44"] == slow.inbox
        assert ["ann"] == await room.call(ids)
        assert [("slow", 1013, "too many messages wait to be received", False)] == play.heard


async def test_one_task_at_a_time_receives_for_a_client(play: Play) -> None:
    async with play.open() as (harness, room), room.connect() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another task"):
            await client.receive()
        await room.call(say, "enough")
        await harness.settle()


# --- other rooms -------------------------------------------------------------


async def test_rooms_call_rooms_from_every_callback_of_a_connection(play: Play) -> None:
    async def keep(hall: Hall, word: str) -> None:
        await hall.ctx.storage.put(word, 1)

    async def tell(hall: Hall, word: str) -> None:
        await hall.ctx.parties["hall"].get("book").call(keep, word)

    async def on_connect(hall: Hall, _connection: Connection) -> None:
        await tell(hall, "connect")

    async def on_message(hall: Hall, _message: str | bytes, _sender: Connection) -> None:
        await tell(hall, "message")

    async def on_close(hall: Hall, _connection: Connection) -> None:
        await tell(hall, "close")

    play.on_connect, play.on_message, play.on_close = on_connect, on_message, on_close
    async with play.open() as (harness, room):
        ann = await harness.connect(room)
        await ann.send("x")
        await ann.close()
        await harness.settle()
        book = harness.parties["hall"].get("book")
        assert {"close": 1, "connect": 1, "message": 1} == await harness.stored(book)
