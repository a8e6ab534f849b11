"""Five rooms with faults as people make them, each found by the kit; and the same rooms mended, in which it finds nothing.

Each test prints how many commits, crashes or orders it went through, and fails
below a stated count: a kit that looks at less finds less.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from partyroom import Alarm, Room
from partyroom.errors import BrokenInvariantError
from partyroom.testing import Harness, every_crash, many_orders
from tests.sizes import is_thorough

pytestmark = pytest.mark.anyio

Check = Callable[[Harness], Awaitable[None]]
START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SEEDS = 100 if is_thorough() else 30


async def crashes(scenario: Check, invariant: Check, parties: Mapping[str, Any]) -> str:
    return str(await every_crash(scenario, invariant, parties=parties))


async def orders(scenario: Check, invariant: Check, parties: Mapping[str, Any]) -> str:
    return str(await many_orders(scenario, invariant, parties=parties, seeds=range(SEEDS)))


async def strict(scenario: Check, invariant: Check, parties: Mapping[str, Any]) -> str:
    async with Harness(parties, strict_hibernation=True) as harness:
        await scenario(harness)
        await harness.settle()
        await invariant(harness)
        events = len(harness.log)
    return f"{events} events"


def counts(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


# --- a read and a write in two events ----------------------------------------


class SplitCounter(Room):
    """Its callers read, and then write what they computed: two events, and anything may come in between."""

    async def read(self) -> int:
        return await self.ctx.storage.get("total", 0)

    async def write(self, total: int) -> None:
        await self.ctx.storage.put("total", total)


class WholeCounter(Room):
    async def increment(self) -> None:
        await self.ctx.storage.put("total", await self.ctx.storage.get("total", 0) + 1)


async def increment_in_two(harness: Harness) -> None:
    room = harness.parties["counter"].get("a")

    async def increment() -> None:
        total = await room.call(SplitCounter.read)
        await room.call(SplitCounter.write, total + 1)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(increment)


async def increment_in_one(harness: Harness) -> None:
    room = harness.parties["counter"].get("a")
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(room.call, WholeCounter.increment)


async def two_are_counted(harness: Harness) -> None:
    assert {"total": 2} == await harness.stored(harness.parties["counter"].get("a"))


# --- an alarm re-armed before the work is stored ------------------------------


class Invoices(Room):
    """Writes an invoice every hour; a crash after it has set the next alarm loses this one."""

    async def begin(self) -> None:
        await self.ctx.storage.set_alarm(timedelta(hours=1))

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.set_alarm(alarm.scheduled_time + timedelta(hours=1))
        await self.ctx.storage.sync()
        await self.write()

    async def write(self) -> None:
        await self.ctx.storage.put("invoices", await self.ctx.storage.get("invoices", 0) + 1)


class InvoicesInOne(Invoices):
    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.set_alarm(alarm.scheduled_time + timedelta(hours=1))
        await self.write()


async def three_hours(harness: Harness) -> None:
    await harness.parties["invoices"].get("a").call(Invoices.begin)
    await harness.advance(timedelta(hours=3))


async def each_hour_has_its_invoice(harness: Harness) -> None:
    room = harness.parties["invoices"].get("a")
    stored = await harness.stored(room)
    alarms = [each.due for each in await harness.pending() if each.kind == "alarm"]
    if alarms:
        hours = (alarms[0] - START) // timedelta(hours=1)
        assert hours - 1 == stored.get("invoices", 0), f"the next alarm is at {alarms[0].isoformat()}"


# --- a timer kept in memory only ---------------------------------------------


class Session(Room):
    """Ends a minute after it began, by a task that a crash takes with it."""

    async def begin(self) -> None:
        await self.ctx.storage.put("user", "ann")
        self.ctx.start_soon(self.expire)

    async def expire(self) -> None:
        await self.ctx.clock.sleep(MINUTE)
        await self.ctx.run(self.ctx.storage.delete_all)


class LastingSession(Session):
    async def begin(self) -> None:
        await self.ctx.storage.put("user", "ann")
        await self.ctx.storage.set_alarm(MINUTE)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()


async def a_session(harness: Harness) -> None:
    await harness.parties["session"].get("a").call(Session.begin)
    await harness.advance(2 * MINUTE)


async def it_has_ended(harness: Harness) -> None:
    assert {} == await harness.stored(harness.parties["session"].get("a"))


# --- a message sent before `sync` --------------------------------------------


class Post(Room):
    async def deliver(self, letter: str) -> None:
        letters: list[str] = await self.ctx.storage.get("letters", [])
        await self.ctx.storage.put("letters", [*letters, letter])

    async def deliver_once(self, ring: str, letter: str) -> None:
        if ring not in await self.ctx.storage.get("rings", []):
            await self.ctx.storage.put("rings", [*await self.ctx.storage.get("rings", []), ring])
            await self.deliver(letter)


class Order(Room):
    """Has a letter sent, and then stores that it was; a crash in between sends it again."""

    async def place(self) -> None:
        await self.ctx.storage.set_alarm(MINUTE)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.parties["post"].get("office").call(Post.deliver, f"thank you, {self.ctx.id}")
        await self.ctx.storage.put("thanked", True)


class OrderOnce(Order):
    async def on_alarm(self, alarm: Alarm) -> None:
        office = self.ctx.parties["post"].get("office")
        await office.call(Post.deliver_once, alarm.id, f"thank you, {self.ctx.id}")
        await self.ctx.storage.put("thanked", True)


async def an_order(harness: Harness) -> None:
    await harness.parties["order"].get("a").call(Order.place)
    await harness.advance(MINUTE)


async def at_most_one_letter(harness: Harness) -> None:
    stored = await harness.stored(harness.parties["post"].get("office"))
    assert stored.get("letters", []) in ([], ["thank you, a"])


# --- a count kept in an attribute --------------------------------------------


class Visits(Room):
    """Counts in an attribute, which another instance knows nothing of."""

    count = 0

    async def visit(self) -> None:
        self.count += 1
        await self.ctx.storage.put("count", self.count)


class LastingVisits(Visits):
    async def on_start(self) -> None:
        self.count = await self.ctx.storage.get("count", 0)


async def three_visits(harness: Harness) -> None:
    for _ in range(3):
        await harness.parties["visits"].get("a").call(Visits.visit)


async def three_are_counted(harness: Harness) -> None:
    assert {"count": 3} == await harness.stored(harness.parties["visits"].get("a"))


BUGS = {
    "a read and a write in two events": (
        orders,
        (increment_in_two, two_are_counted, {"counter": SplitCounter}),
        (increment_in_one, two_are_counted, {"counter": WholeCounter}),
        [SEEDS, 1],
    ),
    "an alarm re-armed before the work is stored": (
        crashes,
        (three_hours, each_hour_has_its_invoice, {"invoices": Invoices}),
        (three_hours, each_hour_has_its_invoice, {"invoices": InvoicesInOne}),
        [4, 12],
    ),
    "a timer kept in memory only": (
        crashes,
        (a_session, it_has_ended, {"session": Session}),
        (a_session, it_has_ended, {"session": LastingSession}),
        [2, 6],
    ),
    "a message sent before sync": (
        crashes,
        (an_order, at_most_one_letter, {"order": Order, "post": Post}),
        (an_order, at_most_one_letter, {"order": OrderOnce, "post": Post}),
        [3, 9],
    ),
    "a count kept in an attribute": (
        strict,
        (three_visits, three_are_counted, {"visits": Visits}),
        (three_visits, three_are_counted, {"visits": LastingVisits}),
        [3],
    ),
}

every_bug = pytest.mark.parametrize(("look", "planted", "mended", "at_least"), BUGS.values(), ids=BUGS)


@every_bug
async def test_a_planted_bug_is_found(look: Any, planted: Any, mended: Any, at_least: list[int]) -> None:
    with pytest.raises(AssertionError) as caught:
        await look(*planted)
    print(caught.value.summary if isinstance(caught.value, BrokenInvariantError) else caught.value)  # noqa: T201 - the counts are to be seen


@every_bug
async def test_the_mended_room_passes_and_enough_was_tried(
    look: Any, planted: Any, mended: Any, at_least: list[int]
) -> None:
    report = await look(*mended)
    print(report)  # noqa: T201 - the counts are to be seen
    assert all(seen >= wanted for seen, wanted in zip(counts(report), at_least, strict=True)), report
