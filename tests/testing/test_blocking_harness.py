"""The harness without ``async``: the same verbs, on either loop, in a thread that ends with the block."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from partyroom import Alarm, Connection, Room
from partyroom.errors import ExpectationError, RuntimeStateError, UnknownPartyError
from partyroom.testing import BlockingHarness, FakeClock, Fired
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
        client = room.connect()
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
