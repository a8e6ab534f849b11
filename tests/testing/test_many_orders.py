"""Many orders of one scenario: different ones, legal ones, and each made again by its seed alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest

from partyroom import Alarm, Connection, Room, RoomKey, Upcoming
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BackendError, BrokenInvariantError, ClockStalledError
from partyroom.testing import FakeClock, FaultyBackend, Harness, OrdersReport, many_orders
from partyroom.testing._shuffled_alarms import ShuffledAlarms
from tests.sizes import sizes

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


class Diary(Room):
    """Writes down what comes, in the order in which it comes."""

    async def note(self, line: str) -> None:
        lines: list[str] = await self.ctx.storage.get("lines", [])
        await self.ctx.storage.put("lines", [*lines, line])

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        await self.note(str(message))

    async def lines(self) -> list[str]:
        found: list[str] = await self.ctx.storage.get("lines", [])
        return found


class Bell(Room):
    async def arm(self) -> None:
        await self.ctx.storage.set_alarm(MINUTE)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.parties["diary"].get("a").call(Diary.note, self.ctx.id)


PARTIES = {"diary": Diary, "bell": Bell}


async def equal_timers(harness: Harness) -> None:
    for name in "xyz":
        await harness.parties["bell"].get(name).call(Bell.arm)
    await harness.restart()
    await harness.advance(MINUTE)


async def arriving_calls(harness: Harness) -> None:
    async with anyio.create_task_group() as tasks:
        for name in "xyz":
            tasks.start_soon(note, harness, name)


async def note(harness: Harness, line: str) -> None:
    await harness.parties["diary"].get("a").call(Diary.note, line)


async def arriving_messages(harness: Harness) -> None:
    clients = {name: await harness.connect(harness.parties["diary"].get("a")) for name in "xyz"}
    async with anyio.create_task_group() as tasks:
        for name, client in clients.items():
            tasks.start_soon(client.send, name)


async def woken_rooms(harness: Harness) -> None:
    """Three sleeping handlers wake at one instant and go on to one room."""
    async with anyio.create_task_group() as tasks:
        for name in "xyz":
            tasks.start_soon(harness.parties["sleeper"].get(name).call, Sleeper.nap_and_note)
        await harness.advance(MINUTE)


class Sleeper(Room):
    async def nap_and_note(self) -> None:
        await self.ctx.clock.sleep(MINUTE)
        await self.ctx.parties["diary"].get("a").call(Diary.note, self.ctx.id)


every_scenario = pytest.mark.parametrize("scenario", [equal_timers, arriving_calls, arriving_messages, woken_rooms])


async def found_orders(scenario: Any, seeds: Any) -> list[str]:
    found: list[str] = []

    async def collect(harness: Harness) -> None:
        stored = await harness.stored(harness.parties["diary"].get("a"))
        found.append("".join(stored["lines"]))

    await many_orders(scenario, collect, parties={**PARTIES, "sleeper": Sleeper}, seeds=seeds)
    return found


@every_scenario
@sizes("seeds", 40, 500)
async def test_all_orders_are_found_and_nothing_is_lost(scenario: Any, seeds: int) -> None:
    found = await found_orders(scenario, range(seeds))
    print(scenario.__name__, len(found), "runs", len(set(found)), "orders")  # noqa: T201 - the counts are to be seen
    assert {"xyz"} == {"".join(sorted(each)) for each in found}
    assert {"xyz", "xzy", "yxz", "yzx", "zxy", "zyx"} == set(found)


@every_scenario
async def test_a_seed_alone_makes_the_same_order_again(scenario: Any) -> None:
    first = await found_orders(scenario, range(4))
    assert first == await found_orders(scenario, range(4))
    assert [first[3]] == await found_orders(scenario, [3])


@sizes("seeds", 10, 200)
async def test_messages_of_one_client_stay_in_order(seeds: int) -> None:
    async def scenario(harness: Harness) -> None:
        clients = [await harness.connect(harness.parties["diary"].get("a")) for _ in range(3)]

        async def send(number: int) -> None:
            for part in range(4):
                await clients[number].send(f"{number}{part}")

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(send, number)

    async def invariant(harness: Harness) -> None:
        lines = await harness.parties["diary"].get("a").call(Diary.lines)
        for number in range(3):
            assert [f"{number}{part}" for part in range(4)] == [each for each in lines if each.startswith(str(number))]

    report = await many_orders(scenario, invariant, parties=PARTIES, seeds=range(seeds))
    assert seeds == report.seeds


@sizes("seeds", 15, 40)
async def test_a_failure_prints_its_seed_and_the_last_events(seeds: int) -> None:
    async def invariant(harness: Harness) -> None:
        lines = await harness.parties["diary"].get("a").call(Diary.lines)
        assert "z" != lines[0]

    with pytest.raises(BrokenInvariantError) as caught:
        await many_orders(arriving_calls, invariant, parties=PARTIES, seeds=range(seeds))
    print(caught.value.summary)  # noqa: T201 - the counts are to be seen
    failing = [int(each.split()[1]) for each in caught.value.failures]
    assert seeds / 8 <= len(failing) <= seeds * 3 / 4
    assert f"seed {failing[0]} (again: seeds=[{failing[0]}]): AssertionError" in caught.value.failures[0]
    assert "\n    diary/a Diary.note\n    diary/a Diary.note\n    diary/a Diary.note" in caught.value.failures[0]
    assert isinstance(caught.value.__cause__, AssertionError)
    for seed in failing[:2]:
        with pytest.raises(
            BrokenInvariantError, match=rf"does not hold with 1 of 1 seeds, 1 different orders\n\nseed {seed} "
        ):
            await many_orders(arriving_calls, invariant, parties=PARTIES, seeds=[seed])


async def test_a_scenario_that_fails_itself_is_a_failure_of_its_seed() -> None:
    async def scenario(_harness: Harness) -> None:
        raise LookupError

    async def invariant(_harness: Harness) -> None:
        """Hold."""

    told = r"seed 3 .*: LookupError\n  raised:   .* in scenario: raise LookupError\n  at:       2030-01-01T00:00:00.*\n  pending:  nothing"
    with pytest.raises(BrokenInvariantError, match=told + r"\n  the last events, as they ended:\n    none"):
        await many_orders(scenario, invariant, parties=PARTIES, seeds=[3])


async def test_the_first_seed_that_stalls_is_the_last_one() -> None:
    async def scenario(_harness: Harness) -> None:
        raise ClockStalledError("time cannot move")

    with pytest.raises(BrokenInvariantError, match="does not hold with 1 of 1 seeds, 1 different orders"):
        await many_orders(scenario, scenario, parties=PARTIES)


async def test_of_several_errors_at_once_each_is_shown() -> None:
    async def scenario(_harness: Harness) -> None:
        raise ExceptionGroup("several", [LookupError("one"), OSError("two")])

    with pytest.raises(BrokenInvariantError, match="LookupError: one; OSError: two"):
        await many_orders(scenario, scenario, parties=PARTIES, seeds=[3])


async def test_runs_on_one_store_are_refused_for_they_would_see_each_other() -> None:
    async def scenario(harness: Harness) -> None:
        await harness.parties["diary"].get("a").call(Diary.note, "line")

    async def nothing(_harness: Harness) -> None:
        """Expect nothing."""

    one = MemoryBackend()
    with pytest.raises(ValueError, match="many_orders needs an empty backend for each run, .* holds diary/a from"):
        await many_orders(scenario, nothing, parties={"diary": Diary}, backend=lambda: one, seeds=range(2))


async def test_a_backend_where_one_is_to_be_made_is_refused_in_words() -> None:
    made: Any = MemoryBackend()

    async def nothing(_harness: Harness) -> None:
        """Expect nothing."""

    with pytest.raises(TypeError, match="many_orders needs what makes an empty backend .*, not one MemoryBackend"):
        await many_orders(nothing, nothing, parties={"diary": Diary}, backend=made)


async def test_the_report_counts_seeds_and_orders() -> None:
    async def scenario(harness: Harness) -> None:
        await harness.wake(harness.parties["diary"].get("a"))

    async def invariant(_harness: Harness) -> None:
        pass

    report = await many_orders(scenario, invariant, parties=PARTIES, seeds=[1, 2], let_pass=timedelta())
    assert OrdersReport(2, 1) == report
    assert "2 seeds, 1 different orders" == str(report)


class Tally(Room):
    async def read(self) -> int:
        return await self.ctx.storage.get("total", 0)

    async def write(self, total: int) -> None:
        await self.ctx.storage.put("total", total)


class Clerk(Bell):
    """Reads and writes in two events, between which another clerk may come."""

    async def on_alarm(self, alarm: Alarm) -> None:
        tally = self.ctx.parties["tally"].get("a")
        await tally.call(Tally.write, await tally.call(Tally.read) + 1)


@pytest.mark.parametrize("way", ["advance", "run_until_idle", "auto"])
async def test_alarms_of_one_instant_in_several_rooms_overlap_in_some_orders_as_in_earnest(way: str) -> None:
    async def scenario(harness: Harness) -> None:
        for name in "xy":
            await harness.parties["clerk"].get(name).call(Clerk.arm)
        if way == "advance":
            await harness.advance(MINUTE)
        elif way == "run_until_idle":
            await harness.run_until_idle()
        else:
            async with harness.auto():
                await harness.clock.sleep(2 * MINUTE)

    async def invariant(harness: Harness) -> None:
        assert await harness.stored(harness.parties["tally"].get("a")) == {"total": 2}

    with pytest.raises(BrokenInvariantError, match=r"with \d+ of 30 seeds"):
        await many_orders(scenario, invariant, parties={"clerk": Clerk, "tally": Tally}, seeds=range(30))


async def test_alarms_that_are_moved_and_deleted_ring_in_shuffled_runs_as_in_any() -> None:
    class Mover(Room):
        async def move(self, *seconds: float) -> None:
            for each in seconds:
                await self.ctx.storage.set_alarm(timedelta(seconds=each))

        async def delete(self) -> None:
            await self.ctx.storage.delete_alarm()

        async def on_alarm(self, alarm: Alarm) -> None:
            await self.ctx.storage.put("rang", self.ctx.clock.monotonic())

    async with Harness({"mover": Mover}, shuffled=True) as harness:
        moved, deleted = harness.parties["mover"].get("moved"), harness.parties["mover"].get("deleted")
        for seconds in (60, 30, 90):
            await moved.call(Mover.move, seconds)
            await deleted.call(Mover.move, seconds)
        await deleted.call(Mover.delete)
        await harness.crash()
        await harness.advance(timedelta(hours=1))
        assert ({"rang": 90}, {}) == (await harness.stored(moved), await harness.stored(deleted))


async def test_an_alarm_that_changes_while_the_stored_ones_are_read_is_what_it_was_changed_to() -> None:
    clock, rung = FakeClock(), list[RoomKey]()
    alarms = ShuffledAlarms(clock)
    a, b = RoomKey("p", "a"), RoomKey("p", "b")

    async def upcoming(after: Upcoming | None, limit: int) -> list[Upcoming]:
        if after is not None:
            return []
        alarms.changed(a, clock.now() + 2 * MINUTE)
        return [Upcoming(clock.now() + MINUTE, each, "") for each in (a, b)]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alarms.run, rung.append, upcoming)
        await alarms.ready.wait()
        await clock.advance(MINUTE)
        assert [b] == rung
        await clock.advance(MINUTE)
        assert [b, a] == rung
        tasks.cancel_scope.cancel()


async def test_an_alarm_that_falls_due_in_a_shuffled_run_while_it_closes_rings_in_the_next() -> None:
    class Slow(Room):
        async def arm(self) -> None:
            await self.ctx.storage.set_alarm(MINUTE, name="slow")
            await self.ctx.storage.set_alarm(MINUTE + timedelta(seconds=4), name="next")

        async def on_alarm(self, alarm: Alarm) -> None:
            await self.ctx.storage.put(f"rang {alarm.name}", True)
            if alarm.name == "slow":
                # The last one holds up the closing, while the next alarm of the first has its time.
                await self.ctx.clock.sleep(timedelta(seconds=5 if self.ctx.id == "a" else 9))

    async with Harness({"slow": Slow}, shuffled=True) as harness:
        rooms = [harness.parties["slow"].get(name) for name in "ab"]
        for slow in rooms:
            await slow.call(Slow.arm)
        await harness.advance(MINUTE)
        await harness.restart()
        await harness.run_due()
        for slow in rooms:
            assert {"rang slow": True, "rang next": True} == await harness.stored(slow)


async def test_a_shuffled_run_that_cannot_read_its_alarms_fails_and_does_not_hang() -> None:
    faulty = FaultyBackend(MemoryBackend())
    with pytest.raises(BackendError, match="due_alarms"), anyio.fail_after(5):
        async with Harness(PARTIES, backend=faulty, shuffled=True) as harness:
            faulty.fail("due_alarms")
            await harness.restart()


async def test_a_harness_is_shuffled_by_hand_with_the_same_seed() -> None:
    orders: set[str] = set()
    for seed in range(8):
        async with Harness(PARTIES, seed=seed, shuffled=True) as harness:
            await equal_timers(harness)
            orders.add("".join((await harness.stored(harness.parties["diary"].get("a")))["lines"]))
            harness.assert_idle()
    assert len(orders) > 1
