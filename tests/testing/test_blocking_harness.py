"""The harness without ``async``: the same verbs, on either loop, in a thread that ends with the block."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from partyroom import Alarm, Connection, Every, RetryPolicy, Room
from partyroom.errors import ConnectRejectedError, ExpectationError, RuntimeStateError, UnknownPartyError
from partyroom.testing import BlockingHarness, FakeClock, Fired, Harness
from partyroom.types import RoomKey

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

Loop = Literal["asyncio", "trio"]
on_both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


class Draft(Room):
    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if message == "boom":
            raise KeyError(message)
        await self.ctx.storage.put("text", message)
        await self.ctx.storage.set_alarm(timedelta(days=30))
        sender.send(f"kept {message!r}")

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()

    async def on_request(self, request: Any) -> Any:
        return [request, await self.ctx.storage.get("text")]

    async def nap(self, seconds: float, *, then: str) -> str:
        await self.ctx.clock.sleep(timedelta(seconds=seconds))
        return then


@on_both_loops
def test_a_draft_expires(loop: Loop) -> None:
    with BlockingHarness({"draft": Draft}, loop=loop) as harness:
        room = harness.parties["draft"].get("alice")
        client = room.connect(id="me")
        client.send("Dear diary")
        client.expect("kept 'Dear diary'")
        client.close()
        harness.advance(timedelta(days=29))
        assert {"text": "Dear diary"} == harness.stored(room) == room.stored()
        assert ["alice"] == harness.parties["draft"].rooms()
        harness.advance_to(START + timedelta(days=30))
        assert {} == harness.stored(room)
        harness.assert_idle()
        assert "on_alarm" == harness.log[-1].event
        assert "alarm" == harness.fired[-1].kind
        assert "<BlockingHarness of draft at 2030-01-31T00:00:00+00:00>" == repr(harness)
        assert ("<BlockingRoom draft/alice>", "alice", "draft") == (repr(room), room.id, room.party)


@on_both_loops
def test_a_call_that_sleeps_lets_time_pass(loop: Loop) -> None:
    with BlockingHarness({"draft": Draft}, loop=loop) as harness:
        assert "morning" == harness.parties["draft"].get("a").call(Draft.nap, 3600, then="morning")
        assert START + timedelta(hours=1) == harness.now() == harness.clock.now()
        assert ["ask", None] == harness.parties["draft"].get("a").request("ask")


@on_both_loops
def test_every_verb_is_there(loop: Loop) -> None:
    with BlockingHarness({"draft": Draft}, loop=loop, clock=FakeClock(), idle_timeout=timedelta(days=99)) as harness:
        room = harness.parties["draft"].get("a")
        harness.wake(room)
        assert harness.is_awake(room)
        assert harness.may_sleep(room)
        harness.put_to_sleep(room)
        assert not harness.is_awake(room)
        client = harness.connect(room, id="ann", tags=["early"])
        assert "ann" == client.id
        assert not harness.may_sleep(room)
        client.send("hi")
        assert ["kept 'hi'"] == client.received() == client.inbox
        assert client.closed is None
        assert client.id
        harness.crash()
        assert client.closed is not None
        assert ["alarm"] == [each.kind for each in harness.pending() if each.room == RoomKey("draft", "a")]
        harness.restart()
        harness.settle()
        harness.run_due()
        harness.expect_quiet(MINUTE)
        harness.jump(MINUTE)
        assert Fired(START + timedelta(days=30), RoomKey("draft", "a"), "alarm", "") == harness.advance_to_next()
        assert [] == harness.run_until_idle()
        assert {} == harness.stored(room)
        assert 1 == len(harness.parties)
        assert ["draft"] == list(harness.parties)
        with pytest.raises(UnknownPartyError):
            harness.parties["chat"]


def test_it_has_the_verbs_of_the_harness_but_for_those_that_need_a_loop() -> None:
    verbs = {name for name in vars(Harness) if not name.startswith("_")}
    missing = verbs - set(vars(BlockingHarness))
    # How it is killed, and who looks on, is the kit's own; time moves by itself where a call has to wait for it.
    assert {"abandon", "auto", "backend", "is_open", "kill", "pending_lines", "probe", "revive"} == missing


def test_alarms_ring_by_hand_too() -> None:
    with BlockingHarness({"draft": Draft}, alarms="manual") as harness:
        harness.parties["draft"].get("a").connect().send("hi")
        harness.advance(timedelta(days=31))
        assert 1 == harness.ring_due().rung


def test_errors_are_listed_expected_and_otherwise_fail_the_test() -> None:
    with BlockingHarness({"draft": Draft}) as harness:
        client = harness.parties["draft"].get("a").connect()
        with harness.expect_error(KeyError):
            client.send("boom")
        client.send("boom")
        assert 1 == len(harness.errors)
        with pytest.raises(ExpectationError, match="KeyError: 'boom'"):
            harness.close()


def test_an_error_in_the_body_leaves_as_it_is_and_the_thread_ends() -> None:
    before = threading.active_count()
    with pytest.raises(LookupError), BlockingHarness({"draft": Draft}) as harness:
        harness.parties["draft"].get("a").connect().send("boom")
        raise LookupError
    assert before == threading.active_count()


def test_it_is_opened_once_at_a_time_and_used_inside_only() -> None:
    harness = BlockingHarness({"draft": Draft})
    with pytest.raises(RuntimeStateError, match="this harness is not open"):
        harness.settle()
    with harness, pytest.raises(RuntimeStateError, match="this harness is open already"):
        harness.open()
    with harness:
        harness.settle()


class Club(Room):
    """Lets members in, and has an alarm that rings again and again, and one that fails."""

    async def on_connect(self, connection: Connection) -> None:
        if connection.id == "stranger":
            connection.close(4403, "members only")
        connection.send("welcome")

    async def open(self) -> None:
        await self.ctx.storage.set_alarm(Every(MINUTE), name="bell")
        await self.ctx.storage.set_alarm(MINUTE, name="bill", retry=RetryPolicy(max_retries=0))

    async def on_alarm(self, alarm: Alarm) -> None:
        if alarm.name == "bill":
            raise LookupError(alarm.name)
        self.ctx.broadcast("ding")


@on_both_loops
def test_alarms_are_seen_and_steered(loop: Loop) -> None:
    with BlockingHarness({"club": Club}, loop=loop) as harness:
        party = harness.parties["club"]
        room = party.get("chess")
        room.call(Club.open)
        assert (
            ["bell", "bill"]
            == [each.name for each in room.list_alarms()]
            == [each.name for each in party.list_alarms()]
        )
        with harness.expect_error(LookupError):
            harness.advance(MINUTE)
        assert ["bell", "bill"] == [each.name for each in room.list_alarms()]
        assert ["bill"] == [each.name for each in party.failed_alarms()]
        assert room.pause_alarm("bell")
        assert ["bell", "bill"] == [each.name for each in party.parked_alarms()]
        assert [] == party.list_alarms()
        assert room.resume_alarm("bell")
        assert room.ring_alarm("bell")
        assert room.delete_alarm("bill")
        assert not room.delete_alarm("bill")
        assert ["bell"] == [each.name for each in room.list_alarms()]


@on_both_loops
def test_a_client_receives_and_time_passes_as_far_as_it_has_to(loop: Loop) -> None:
    with BlockingHarness({"club": Club}, loop=loop, fail_on_errors=False) as harness:
        room = harness.parties["club"].get("chess")
        room.call(Club.open)
        with room.connect() as client:
            assert "welcome" == client.receive()
            assert START == harness.now()
            assert "ding" == client.receive()
            assert START + MINUTE == harness.now()
        assert client.closed is not None
        with room.connect() as gone:
            harness.crash()
        assert gone.closed is not None
        with pytest.raises(ConnectRejectedError, match="members only"):
            room.connect(id="stranger")
