"""What a host holds: handles of rooms, and what it asks of a whole party, page by page."""

from __future__ import annotations

import pytest

from partyroom import Alarm, RetryPolicy, Room
from partyroom.testing import Harness
from tests.runtime.boxes import Box, do, put
from tests.runtime.towers import HOUR, MINUTE, ring_at

pytestmark = pytest.mark.anyio


class Failing(Room):
    """Fails at its alarm, and gives up at once."""

    alarm_retry = RetryPolicy(max_retries=0)

    async def on_alarm(self, alarm: Alarm) -> None:
        raise LookupError


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have handles ask for so little at once that a few things are more than a page."""
    monkeypatch.setattr("partyroom._handles.PAGE", 2)


async def test_a_range_that_no_id_can_be_in_holds_no_room() -> None:
    async with Harness({"box": Box}) as harness:
        await do(harness.parties["box"].get("a"), put(key=1))
        assert ["a"] == await harness.parties["box"].rooms(prefix="a")
        assert [] == await harness.parties["box"].rooms(prefix="a", start_after="b")


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("keys", [0, 1, 2, 3, 4, 5])
async def test_what_is_stored_is_given_as_a_whole_however_much_it_is(keys: int) -> None:
    stored = {f"k{number}": number for number in range(keys)}
    async with Harness({"box": Box}) as harness:
        room = harness.parties["box"].get("a")
        await do(room, put(**stored))
        assert stored == await room.stored()


@pytest.mark.usefixtures("small_pages")
async def test_failed_alarms_are_found_among_any_number_of_parked_ones() -> None:
    async with Harness({"failing": Failing}, fail_on_errors=False) as harness:
        for name in "abcdef":
            room = harness.parties["failing"].get(name)
            await do(room, ring_at(HOUR if name in "bcd" else MINUTE))
            if name in "bcd":
                await room.pause_alarm()
        await harness.advance(MINUTE)
        found = await harness.parties["failing"].failed_alarms()
        assert ["a", "e", "f"] == [each.room.id for each in found]
        assert found[:2] == await harness.parties["failing"].failed_alarms(limit=2)
        assert found[2:] == await harness.parties["failing"].failed_alarms(start_after=found[1])


async def test_handles_of_one_room_are_equal() -> None:
    async with Harness({"box": Box, "crate": Box}) as harness, Harness({"box": Box}) as other:
        boxes = harness.parties["box"]
        assert boxes.get("a") == boxes.get("a")
        assert 1 == len({boxes.get("a"), boxes.get("a")})
        for another in (boxes.get("b"), harness.parties["crate"].get("a"), other.parties["box"].get("a"), "box/a"):
            assert boxes.get("a") != another


async def test_a_handle_and_a_context_name_their_room() -> None:
    async def name(room: Room) -> str:
        return repr(room.ctx)

    async with Harness({"box": Box}) as harness:
        room = harness.parties["box"].get("a")
        assert "<handle of box/a>" == repr(room)
        assert "<context of box/a>" == await room.call(name)
