"""The library's own promises, under every crash and in many orders: what the kit does to others, it does to its own house."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from typing_extensions import override

from partyroom import Alarm, Connection, Every, RetryPolicy, Room, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import ConnectionClosedError, ConnectRejectedError, DeadlockError, RuntimeClosedError
from partyroom.testing import Harness, every_crash, many_orders
from tests.sizes import sizes

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
in_many_orders = sizes("seeds", 8, 200)


@pytest.fixture(params=["memory", "file"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StorageBackend]:
    if request.param == "memory":
        return MemoryBackend
    numbers = itertools.count()
    return lambda: FileBackend(tmp_path / f"{next(numbers)}.db")


class Ledger(Room):
    """Moves money between two accounts, in smaller units and in stages."""

    async def open(self) -> None:
        await self.ctx.storage.put_many({"a": 100, "b": 0})

    async def move(self, amount: int) -> None:
        await self.ctx.storage.put("a", await self.ctx.storage.get("a") - amount)
        async with self.ctx.storage.transaction():
            await self.ctx.storage.put("b", await self.ctx.storage.get("b") + amount)

    async def move_in_stages(self, amount: int) -> None:
        await self.ctx.storage.put("announced", amount)
        await self.ctx.storage.sync()
        await self.move(amount)
        await self.ctx.storage.delete("announced")

    async def fail_to_move(self) -> None:
        await self.move(1)
        raise OSError


async def test_an_event_is_stored_whole_or_not_at_all(backend: Callable[[], StorageBackend]) -> None:
    """G3."""

    async def scenario(harness: Harness) -> None:
        ledger = harness.parties["ledger"].get("a")
        await ledger.call(Ledger.open)
        await ledger.call(Ledger.move, 10)
        with pytest.raises(OSError):  # noqa: PT011 - any will do
            await ledger.call(Ledger.fail_to_move)
        await ledger.call(Ledger.move_in_stages, 20)

    async def invariant(harness: Harness) -> None:
        stored = await harness.stored(harness.parties["ledger"].get("a"))
        assert stored.get("a", 100) + stored.get("b", 0) == 100
        assert "announced" not in stored or 90 == stored["a"]

    report = await every_crash(scenario, invariant, parties={"ledger": Ledger}, backend=backend)
    print(report)  # noqa: T201 - the counts are to be seen
    assert (4, 12) == (report.commits, report.crashes)


class Clockwork(Room):
    """Named alarms, some of which fail at first."""

    async def arm(self, failures: int) -> None:
        await self.ctx.storage.put("failures", failures)
        for number in range(3):
            await self.ctx.storage.set_alarm(MINUTE, name=f"{number}")

    async def on_alarm(self, alarm: Alarm) -> None:
        rung: list[str | None] = await self.ctx.storage.get("rung", [])
        await self.ctx.storage.put("rung", [*rung, alarm.name])
        if alarm.retry_count < await self.ctx.storage.get("failures"):
            raise OSError


@sizes("failures", 1, 0, 2)
async def test_every_alarm_rings_once_as_far_as_storage_can_tell(
    backend: Callable[[], StorageBackend], failures: int
) -> None:
    """G8, G9, G12."""

    async def scenario(harness: Harness) -> None:
        await harness.parties["clockwork"].get("a").call(Clockwork.arm, failures)
        await harness.advance(MINUTE + timedelta(seconds=10))

    async def invariant(harness: Harness) -> None:
        stored = await harness.stored(harness.parties["clockwork"].get("a"))
        assert sorted(stored.get("rung", [])) in ([], ["0", "1", "2"])
        assert ("rung" in stored) == ("failures" in stored)
        harness.assert_idle()
        # A crash uses up no retry, and repeats none that is stored.
        assert all(isinstance(each.error, OSError) for each in harness.errors)
        harness.errors.clear()

    report = await every_crash(scenario, invariant, parties={"clockwork": Clockwork}, backend=backend)
    print(report)  # noqa: T201 - the counts are to be seen
    assert report.commits >= 4 + 3 * failures


class Tally(Room):
    hibernate = True

    async def add(self, number: int) -> int:
        total: int = await self.ctx.storage.get("total", 0) + number
        await self.ctx.storage.put("total", total)
        return total

    async def add_here_and_there(self, other: str) -> None:
        await self.add(1)
        await self.ctx.parties["tally"].get(other).call(Tally.add, 1)

    async def back_and_forth(self, other: str) -> None:
        await self.add(1)
        await self.ctx.parties["tally"].get(other).call(Tally.back, self.ctx.id)

    async def back(self, caller: str) -> None:
        await self.ctx.parties["tally"].get(caller).call(Tally.add, 1)

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.send(str(await self.add(1)))


async def stored_total(harness: Harness, room_id: str) -> int:
    total: int = (await harness.stored(harness.parties["tally"].get(room_id))).get("total", 0)
    return total


@pytest.mark.parametrize("options", [{}, {"strict_hibernation": True}, {"max_awake": 1}])
@in_many_orders
async def test_what_many_callers_add_is_the_sum_in_every_order(options: Any, seeds: int) -> None:
    """G1, with rooms that sleep all the time, or have to make room for each other."""

    async def scenario(harness: Harness) -> None:
        async def add(room_id: str) -> None:
            for _ in range(3):
                await harness.parties["tally"].get(room_id).call(Tally.add, 1)

        async with anyio.create_task_group() as tasks:
            for room_id in "aabbcc":
                tasks.start_soon(add, room_id)

    async def invariant(harness: Harness) -> None:
        assert [6, 6, 6] == [await stored_total(harness, room_id) for room_id in "abc"]
        harness.assert_idle()

    report = await many_orders(scenario, invariant, parties={"tally": Tally}, seeds=range(seeds), **options)
    print(report)  # noqa: T201 - the counts are to be seen
    assert report.orders >= 0.75 * seeds


@in_many_orders
async def test_calls_in_a_circle_end_in_an_answer_or_in_an_error_that_names_it_in_every_order(seeds: int) -> None:
    """G1: never in a hang, and what an error ended is not stored."""
    done: list[str] = []
    named: list[bool] = []

    async def scenario(harness: Harness) -> None:
        done.clear()

        async def call(method: Any, room_id: str, other: str) -> None:
            try:
                await harness.parties["tally"].get(room_id).call(method, other)
            except DeadlockError as error:
                named.append(f"tally/{room_id}" in str(error))
            else:
                done.append(f"{method.__name__} {room_id}")

        async with anyio.create_task_group() as tasks:
            for method in (Tally.add_here_and_there, Tally.back_and_forth):
                tasks.start_soon(call, method, "a", "b")
                tasks.start_soon(call, method, "b", "a")

    async def invariant(harness: Harness) -> None:
        assert all(named)
        expected = 2 * len(done)
        total = await stored_total(harness, "a") + await stored_total(harness, "b")
        # A call to another room is not undone when its caller's event fails (G4), so there may be more.
        assert total >= expected
        harness.assert_idle()

    report = await many_orders(scenario, invariant, parties={"tally": Tally}, seeds=range(seeds))
    print(report)  # noqa: T201 - the counts are to be seen
    assert report.orders >= 5


@in_many_orders
async def test_what_was_answered_before_a_restart_is_stored_in_every_order(
    backend: Callable[[], StorageBackend], seeds: int
) -> None:
    """The runtime's life: what was accepted is handled, and nobody is left without an answer."""
    answers: list[int] = []

    async def scenario(harness: Harness) -> None:
        answers.clear()

        async def add() -> None:
            for _ in range(4):
                try:
                    answers.append(await harness.parties["tally"].get("a").call(Tally.add, 1))
                except RuntimeClosedError:
                    return

        async def talk() -> None:
            try:
                client = await harness.connect(harness.parties["tally"].get("a"))
                for _ in range(4):
                    await client.send("more")
                    answers.append(int(await client.receive()))
            except (ConnectRejectedError, ConnectionClosedError, RuntimeClosedError):
                return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add)
            tasks.start_soon(add)
            tasks.start_soon(talk)
            tasks.start_soon(harness.crash if harness.seed % 2 else harness.restart)

    async def invariant(harness: Harness) -> None:
        assert len(set(answers)) == len(answers)
        assert await stored_total(harness, "a") >= max(answers, default=0)

    report = await many_orders(scenario, invariant, parties={"tally": Tally}, seeds=range(seeds), backend=backend)
    print(report)  # noqa: T201 - the counts are to be seen
    assert seeds == report.seeds


class Lobby(Room):
    """Notes who comes and goes."""

    hibernate = True

    async def note(self, line: str) -> None:
        await self.ctx.storage.put("log", [*await self.ctx.storage.get("log", []), line])

    async def on_connect(self, connection: Connection) -> None:
        await self.note(f"{connection.id} comes")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        await self.note(f"{sender.id} says {str(message)!r}")

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        assert connection not in self.ctx.get_connections()
        await self.note(f"{connection.id} goes")


@pytest.mark.parametrize("strict", [False, True])
@in_many_orders
async def test_a_connection_comes_speaks_and_goes_in_this_order_in_every_order(strict: bool, seeds: int) -> None:
    """G19, G20."""

    async def scenario(harness: Harness) -> None:
        async def visit(name: str) -> None:
            async with harness.parties["lobby"].get("a").connect(id=name) as client:
                await client.send("hi")
                await client.send("bye")

        async with anyio.create_task_group() as tasks:
            for name in "xyz":
                tasks.start_soon(visit, name)

    async def invariant(harness: Harness) -> None:
        log: list[str] = (await harness.stored(harness.parties["lobby"].get("a")))["log"]
        for name in "xyz":
            expected = [f"{name} comes", f"{name} says 'hi'", f"{name} says 'bye'", f"{name} goes"]
            assert expected == [line for line in log if line[0] == name]
        harness.assert_idle()

    report = await many_orders(
        scenario,
        invariant,
        parties={"lobby": Lobby},
        seeds=range(seeds),
        strict_hibernation=strict,
        let_pass=timedelta(),
    )
    print(report)  # noqa: T201 - the counts are to be seen
    assert report.orders >= 5


class Beats(Room):
    """Counts the occurrences of a recurring alarm, and gives up on another one."""

    alarm_retry = RetryPolicy(max_retries=2)

    async def begin(self) -> None:
        await self.ctx.storage.put("rung", [])
        await self.ctx.storage.set_alarm(Every(MINUTE), name="beat")
        await self.ctx.storage.set_alarm(MINUTE, name="broken")

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.put("rung", [*await self.ctx.storage.get("rung"), alarm.scheduled_time])
        if alarm.name == "broken":
            raise OSError

    @override
    async def on_alarm_failed(self, alarm: Alarm, error: BaseException | None) -> None:
        await self.ctx.storage.put("given up", [*await self.ctx.storage.get("given up", []), alarm.name])


async def test_a_recurrence_skips_nothing_and_an_alarm_is_given_up_once_after_every_crash(
    backend: Callable[[], StorageBackend],
) -> None:
    """G9, G12: a recurrence is set again in the commit of its ring, and what failed for good is kept."""

    async def scenario(harness: Harness) -> None:
        await harness.parties["beats"].get("a").call(Beats.begin)
        await harness.advance(3 * MINUTE)

    async def invariant(harness: Harness) -> None:
        room = harness.parties["beats"].get("a")
        stored = await harness.stored(room)
        if stored:
            passed = (harness.now() - START) // MINUTE
            assert [START + number * MINUTE for number in range(1, passed + 1)] == stored["rung"]
            assert {"beat": "pending", "broken": "failed"} == {
                each.name: each.status for each in await room.list_alarms()
            }
            # Telling the room is an event of its own, behind the commit that gives the alarm up: a crash may come between.
            assert stored.get("given up", ["broken"]) == ["broken"]
        assert all(isinstance(each.error, OSError) for each in harness.errors)
        harness.errors.clear()

    report = await every_crash(scenario, invariant, parties={"beats": Beats}, backend=backend, let_pass=2 * MINUTE)
    print(report)  # noqa: T201 - the counts are to be seen
    assert report.commits >= 8


class Draft(Room):
    """Begins anew now and then: everything it had goes, alarms included."""

    async def write(self, text: str) -> None:
        await self.ctx.storage.put_many({f"{text} {number}": number for number in range(3)})
        await self.ctx.storage.set_alarm(timedelta(days=30), name=text)

    async def begin_anew(self, text: str) -> None:
        await self.ctx.storage.delete_all()
        await self.write(text)

    async def on_alarm(self, alarm: Alarm) -> None:
        """Take an alarm; in this test none comes near."""


async def test_a_room_that_deletes_all_and_begins_anew_has_the_old_or_the_new_after_every_crash(
    backend: Callable[[], StorageBackend],
) -> None:
    """G13."""

    async def scenario(harness: Harness) -> None:
        draft = harness.parties["draft"].get("a")
        await draft.call(Draft.write, "old")
        await harness.put_to_sleep(draft)
        await draft.call(Draft.begin_anew, "new")
        await draft.call(Draft.begin_anew, "newest")

    async def invariant(harness: Harness) -> None:
        draft = harness.parties["draft"].get("a")
        stored = await harness.stored(draft)
        texts = {key.partition(" ")[0] for key in stored}
        assert {f"{text} {number}": number for text in texts for number in range(3)} == stored
        assert len(texts) <= 1
        assert texts == {each.name for each in await draft.list_alarms()}

    report = await every_crash(scenario, invariant, parties={"draft": Draft}, backend=backend)
    print(report)  # noqa: T201 - the counts are to be seen
    assert (3, 9) == (report.commits, report.crashes)


class Till(Room):
    """Is called, spoken to and rung at one instant."""

    async def arm(self) -> None:
        for name in "xy":
            await self.ctx.storage.set_alarm(MINUTE, name=name)

    async def add(self, what: str) -> None:
        done: list[str] = await self.ctx.storage.get("done", [])
        # Whoever comes in between two checkpoints of this would be lost.
        await anyio.lowlevel.checkpoint()
        await self.ctx.storage.put("done", [*done, what])

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.add(f"alarm {alarm.name}")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        await self.add(str(message))


@in_many_orders
@pytest.mark.parametrize("strict", [False, True])
async def test_calls_messages_and_alarms_of_one_instant_are_each_handled_once_in_every_order(
    strict: bool, seeds: int
) -> None:
    """G1, G8, G9."""
    orders: set[tuple[str, ...]] = set()

    async def scenario(harness: Harness) -> None:
        till = harness.parties["till"].get("a")
        await till.call(Till.arm)
        client = await harness.connect(till)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(harness.advance, MINUTE)
            tasks.start_soon(lambda: till.call(Till.add, "call"))
            tasks.start_soon(client.send, "message")

    async def invariant(harness: Harness) -> None:
        done: list[str] = (await harness.stored(harness.parties["till"].get("a")))["done"]
        orders.add(tuple(done))
        assert ["alarm x", "alarm y", "call", "message"] == sorted(done)

    report = await many_orders(
        scenario, invariant, parties={"till": Till}, seeds=range(seeds), strict_hibernation=strict
    )
    print(report, "of which", len(orders), "are seen by the room")  # noqa: T201 - the counts are to be seen
    assert len(orders) >= 2
