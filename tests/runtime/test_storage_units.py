"""Parts of an event, and its whole: transactions, ``sync``, and ``delete_all`` in every place (G3, G13, G16)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import timedelta
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from partyroom import OutsideEventError, Room, RoomHandle, Storage
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend, Harness
from partyroom.testing.backend_wrapper import Call
from tests.runtime.boxes import Box, Step, do, put, undo, undone

pytestmark = pytest.mark.anyio

DELETE_ALL: Step = lambda storage: storage.delete_all()  # noqa: E731
SET_ALARM: Step = lambda storage: storage.set_alarm(timedelta(days=1))  # noqa: E731
SET_NAMED: Step = lambda storage: storage.set_alarm(timedelta(days=1), name="named")  # noqa: E731
SYNC: Step = lambda storage: storage.sync()  # noqa: E731

# --- transactions -------------------------------------------------------------


async def test_a_transaction_that_ends_well_is_part_of_its_event(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> tuple[Any, Any]:
        storage = room.ctx.storage
        await storage.put("a", 1)
        async with storage.transaction():
            await storage.put_many({"b": 2, "c": 3})
            await storage.delete("a")
            inside = await storage.list()
        return inside, await storage.list()

    assert ({"b": 2, "c": 3}, {"b": 2, "c": 3}) == await box.call(change)
    assert {"b": 2, "c": 3} == await harness.stored(box)
    with pytest.raises(ZeroDivisionError):
        await box.call(fail_after, change)
    assert {"b": 2, "c": 3} == await harness.stored(box)


async def fail_after(room: Room, change: Callable[[Room], Awaitable[object]]) -> None:
    await room.ctx.storage.put("more", 1)
    await change(room)
    raise ZeroDivisionError


async def test_a_transaction_that_raises_is_undone_alone(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> Any:
        storage = room.ctx.storage
        await storage.put("a", 1)
        await undo(
            storage,
            put(b=2),
            lambda storage: storage.delete("a"),
            lambda storage: storage.set_alarm(timedelta(1)),
            lambda storage: storage.delete_all(),
            put(c=3),
        )
        return await storage.list(), await storage.get_alarm()

    assert ({"a": 1}, None) == await box.call(change)
    assert {"a": 1} == await harness.stored(box)


async def test_transactions_nest(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> Any:
        storage = room.ctx.storage
        async with storage.transaction():
            await storage.put("outer", 1)
            await undo(storage, put(outer=2, inner=2), lambda storage: storage.delete("outer"))
            async with storage.transaction():
                await storage.put("well", 3)
            assert {"outer": 1, "well": 3} == await storage.list()
        await undo(storage, fail_well, put(gone=1))
        return await storage.list()

    async def fail_well(storage: Storage) -> None:
        async with storage.transaction():
            await storage.put("ended well", 1)

    assert {"outer": 1, "well": 3} == await box.call(change)
    assert {"outer": 1, "well": 3} == await harness.stored(box)


async def test_transactions_nest_a_hundred_deep(quick: Harness, quick_box: RoomHandle) -> None:
    async def dive(storage: Storage, depth: int) -> None:
        async with storage.transaction():
            await storage.put(f"{depth:03}", depth)
            if depth < 100:
                await dive(storage, depth + 1)
                assert 101 - depth == len(await storage.list(start=f"{depth:03}"))

    await do(quick_box, lambda storage: dive(storage, 1))
    assert 100 == len(await quick.stored(quick_box))


async def test_what_a_transaction_sends_is_undone_with_it(quick: Harness, quick_box: RoomHandle) -> None:
    async def change(room: Room) -> None:
        room.ctx.broadcast("before")
        async with undone(room.ctx.storage):
            room.ctx.broadcast("undone")
        async with room.ctx.storage.transaction():
            room.ctx.broadcast("inside")

    client = await quick.connect(quick_box)
    await quick_box.call(change)
    assert ["before", "inside"] == [await client.receive(), await client.receive()]


async def test_a_transaction_holds_what_its_own_tasks_write_and_nothing_else(
    quick: Harness, quick_box: RoomHandle
) -> None:
    async def change(room: Room) -> None:
        storage = room.ctx.storage

        async def write(key: str) -> None:
            await storage.put(key, 1)

        async with create_task_group() as outer, undone(storage):
            outer.start_soon(write, "begun inside")
            await checkpoint()
            await checkpoint()
            await storage.put("inside", 1)

        async with create_task_group() as outer:

            async def fail() -> None:
                await undo(storage, put(fails=1), lambda _: checkpoint(), lambda _: checkpoint())

            outer.start_soon(fail)
            outer.start_soon(write, "beside")

    await quick_box.call(change)
    assert {"beside": 1} == await quick.stored(quick_box)


async def test_a_task_that_outlives_its_transaction_writes_into_what_is_around_it(
    quick: Harness, quick_box: RoomHandle
) -> None:
    async def change(room: Room) -> None:
        storage = room.ctx.storage

        async def late() -> None:
            for _ in range(10):
                await checkpoint()
            await storage.put("late", 1)

        async with create_task_group() as tasks, undone(storage):
            tasks.start_soon(late)
            await storage.put("undone", 1)

    await quick_box.call(change)
    assert {"late": 1} == await quick.stored(quick_box)


async def test_a_transaction_that_outlives_what_it_is_part_of_says_that_nothing_is_stored(
    quick: Harness, quick_box: RoomHandle
) -> None:
    async def change(room: Room) -> None:
        storage = room.ctx.storage
        outer, inner = storage.transaction(), storage.transaction()
        await outer.__aenter__()
        await inner.__aenter__()
        await storage.put("a", 1)
        await outer.__aexit__(None, None, None)
        with pytest.raises(OutsideEventError, match="box/a: what this was part of has ended before it"):
            await inner.__aexit__(None, None, None)

    await quick_box.call(change)
    assert {} == await quick.stored(quick_box)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("turns", [0, 10], ids=["open", "closed by the loop"])
async def test_an_event_that_ends_inside_a_transaction_fails_and_loses_nothing_in_silence(
    quick: Harness, quick_box: RoomHandle, turns: int
) -> None:
    async def in_a_transaction(storage: Storage) -> AsyncGenerator[int]:
        async with storage.transaction():
            yield 1

    async def change(room: Room) -> None:
        await anext(in_a_transaction(room.ctx.storage))
        await room.ctx.storage.put("a", 1)
        for _ in range(turns):
            await checkpoint()

    async def change_and_call_back(room: Room) -> None:
        with pytest.raises(RuntimeError, match="box/a .*change ended inside a transaction"):
            await quick_box.call(change)
        await room.ctx.storage.put("b", 1)

    async def close(room: Room) -> None:
        async with aclosing(in_a_transaction(room.ctx.storage)) as numbers:
            await anext(numbers)
        await room.ctx.storage.put("c", 1)

    with pytest.raises(RuntimeError, match="box/a .*change ended inside a transaction: close the generator"):
        await quick_box.call(change)
    await quick_box.call(change_and_call_back)
    await quick_box.call(close)
    assert {"b": 1, "c": 1} == await quick.stored(quick_box)


async def test_a_transaction_is_left_by_the_task_that_entered_it(quick: Harness, quick_box: RoomHandle) -> None:
    async def change(room: Room) -> None:
        transaction = room.ctx.storage.transaction()
        await transaction.__aenter__()
        async with create_task_group() as tasks:
            tasks.start_soon(leave, transaction)

    async def leave(transaction: AbstractAsyncContextManager[None]) -> None:
        with pytest.raises(RuntimeError, match="box/a: a transaction is left by the task that entered it"):
            await transaction.__aexit__(None, None, None)

    with pytest.raises(RuntimeError, match="ended inside a transaction"):
        await quick_box.call(change)


@pytest.mark.parametrize(
    ("change", "reads"),
    [
        (lambda storage: storage.delete("k"), "read"),
        (lambda storage: storage.set_alarm(timedelta(days=1)), "room_alarms"),
        (lambda storage: storage.delete_alarm("named"), "room_alarms"),
        (lambda storage: storage.pause_alarm("named"), "room_alarms"),
    ],
    ids=["delete", "set_alarm", "delete_alarm", "pause_alarm"],
)
async def test_who_outlives_the_event_while_he_reads_changes_nothing_of_it(
    change: Step, reads: Call, anyio_backend: object
) -> None:
    outcomes: list[BaseException] = []

    async def change_late(storage: Storage) -> None:
        try:
            await change(storage)
        except OutsideEventError as error:
            outcomes.append(error)

    async def put_and_leave(room: Room) -> None:
        tasks.start_soon(change_late, room.ctx.storage)
        await hold.arrived()
        await room.ctx.storage.put("z", 1)

    backend = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=backend) as harness:
        box = harness.parties["box"].get("a")
        await do(box, put(k=1), SET_NAMED)
        await harness.put_to_sleep(box)
        async with create_task_group() as tasks:
            with backend.hold_answer(reads) as hold:
                await box.call(put_and_leave)
        assert 1 == len(outcomes)
        assert [{"k": 1, "z": 1}] == await do(box, lambda storage: storage.list())
        assert {"k": 1, "z": 1} == await harness.stored(box)
        assert [("named", "pending")] == [(alarm.name, alarm.status) for alarm in await box.list_alarms()]


async def test_a_transaction_is_entered_once(quick: Harness, quick_box: RoomHandle) -> None:
    async def change(room: Room) -> None:
        transaction = room.ctx.storage.transaction()
        async with transaction:
            await room.ctx.storage.put("a", 1)
        with pytest.raises(RuntimeError, match=r"box/a: this transaction was entered before"):
            await transaction.__aenter__()

    await quick_box.call(change)
    assert {"a": 1} == await quick.stored(quick_box)


async def test_alarms_are_part_of_a_transaction(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> list[Any]:
        storage = room.ctx.storage
        await storage.set_alarm(timedelta(days=1))
        await storage.set_alarm(timedelta(days=1), name="kept")
        await undo(
            storage,
            lambda storage: storage.set_alarm(timedelta(days=9)),
            lambda storage: storage.delete_alarm("kept"),
            lambda storage: storage.set_alarm(timedelta(days=9), name="undone"),
        )
        async with storage.transaction():
            await storage.set_alarm(timedelta(days=2))
        return [each.next_time for each in await storage.list_alarms()]

    start = harness.now()
    expected = [start + timedelta(days=1), start + timedelta(days=2)]
    assert expected == await box.call(change)
    assert expected == [each.next_time for each in await box.list_alarms()]


# --- sync ---------------------------------------------------------------------


async def test_sync_commits_what_was_done_so_far_and_a_raise_undoes_the_rest(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> None:
        storage = room.ctx.storage
        await storage.put_many({"a": 1, "b": 1})
        room.ctx.broadcast("one")
        await storage.sync()
        assert {"a": 1, "b": 1} == await box.stored()
        await storage.put("b", 2)
        room.ctx.broadcast("two")
        raise LookupError

    client = await harness.connect(box)
    with pytest.raises(LookupError):
        await box.call(change)
    await do(box, lambda storage: storage.put("c", 3))
    assert {"a": 1, "b": 1, "c": 3} == await harness.stored(box)
    await harness.settle()
    assert "one" == await client.receive()
    await client.close()


async def test_sync_with_nothing_to_commit_returns(harness: Harness, box: RoomHandle) -> None:
    assert [None, None, None, None] == await do(box, SYNC, put(a=1), SYNC, SYNC)
    assert {"a": 1} == await harness.stored(box)


async def test_reads_after_a_sync_see_what_it_committed(harness: Harness, box: RoomHandle) -> None:
    steps: list[Step] = [
        put(a=1, b=1),
        lambda storage: storage.sync(),
        lambda storage: storage.delete("a"),
        lambda storage: storage.list(),
        lambda storage: storage.sync(),
        lambda storage: storage.delete_all(),
        put(c=1),
        lambda storage: storage.sync(),
        lambda storage: storage.list(),
    ]
    assert [None, None, True, {"b": 1}, None, None, None, None, {"c": 1}] == await do(box, *steps)
    assert {"c": 1} == await harness.stored(box)


async def test_sync_is_refused_inside_a_transaction_and_in_a_nested_event(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> None:
        async with room.ctx.storage.transaction():
            await room.ctx.storage.put("a", 1)
            with pytest.raises(RuntimeError, match="box/a: sync"):
                await room.ctx.storage.sync()
        await box.call(nested)

    async def nested(room: Room) -> None:
        await room.ctx.storage.put("b", 1)
        with pytest.raises(RuntimeError, match="box/a: sync"):
            await room.ctx.storage.sync()

    await box.call(change)
    assert {"a": 1, "b": 1} == await harness.stored(box)


# --- delete_all ---------------------------------------------------------------


async def state(storage: Storage) -> tuple[str, list[str | None]]:
    return "".join(await storage.list()), [each.name for each in await storage.list_alarms()]


async def in_transaction(storage: Storage, *steps: Step) -> None:
    async with storage.transaction():
        for step in steps:
            await step(storage)


DELETIONS: list[tuple[list[Step], tuple[str, list[str | None]]]] = [
    ([DELETE_ALL], ("", [])),
    ([DELETE_ALL, DELETE_ALL], ("", [])),
    ([put(b=1), DELETE_ALL], ("", [])),
    ([DELETE_ALL, put(b=1)], ("b", [])),
    ([DELETE_ALL, put(a=1)], ("a", [])),
    ([put(b=1), DELETE_ALL, put(c=1)], ("c", [])),
    ([DELETE_ALL, put(b=1), DELETE_ALL, put(c=1)], ("c", [])),
    ([DELETE_ALL, put(b=1), lambda storage: storage.delete("b")], ("", [])),
    ([SET_ALARM, DELETE_ALL], ("", [])),
    ([DELETE_ALL, SET_ALARM], ("", [None])),
    ([SET_NAMED, DELETE_ALL, SET_ALARM, put(b=1)], ("b", [None])),
    ([DELETE_ALL, SET_NAMED, lambda storage: storage.delete_alarm("named")], ("", [])),
    ([lambda storage: in_transaction(storage, DELETE_ALL)], ("", [])),
    ([put(b=1), lambda storage: in_transaction(storage, put(c=1), DELETE_ALL, put(d=1))], ("d", [])),
    ([lambda storage: in_transaction(storage, DELETE_ALL, SET_NAMED), put(e=1)], ("e", ["named"])),
    ([DELETE_ALL, put(b=1), lambda storage: in_transaction(storage, DELETE_ALL, put(c=1))], ("c", [])),
    ([DELETE_ALL, put(b=1), lambda storage: undo(storage, DELETE_ALL, put(c=1))], ("b", [])),
    ([lambda storage: undo(storage, DELETE_ALL)], ("a", [None, "old"])),
    ([put(b=1), lambda storage: undo(storage, DELETE_ALL, SET_NAMED)], ("ab", [None, "old"])),
    (
        [lambda storage: in_transaction(storage, lambda storage: in_transaction(storage, DELETE_ALL), put(b=1))],
        ("b", []),
    ),
    ([DELETE_ALL, SYNC, put(b=1)], ("b", [])),
    ([put(b=1), SYNC, DELETE_ALL], ("", [])),
    ([DELETE_ALL, SYNC, SET_ALARM, DELETE_ALL, put(c=1)], ("c", [])),
    ([DELETE_ALL, put(b=1), SYNC, lambda storage: undo(storage, DELETE_ALL)], ("b", [])),
]


async def test_delete_all_deletes_what_was_written_before_it_and_nothing_else(harness: Harness) -> None:
    """G13; as the event itself, the next one, one after a sleep and one after a restart see it."""
    expected: dict[str, object] = {}
    seen: dict[str, object] = {}
    for number, (steps, left) in enumerate(DELETIONS):
        room = harness.parties["box"].get(f"{number:02}")
        await do(room, put(a=1), SET_ALARM, lambda storage: storage.set_alarm(timedelta(days=2), name="old"))
        await harness.put_to_sleep(room)
        expected[room.id] = [left] * 3
        found = [(await do(room, *steps, state))[-1], *await do(room, state)]
        await harness.put_to_sleep(room)
        seen[room.id] = [*found, *await do(room, state)]
    assert expected == seen
    await harness.restart()
    for number, (_, left) in enumerate(DELETIONS):
        assert [left] == await do(harness.parties["box"].get(f"{number:02}"), state)


async def test_in_the_event_that_deletes_all_each_value_reads_as_missing(harness: Harness, box: RoomHandle) -> None:
    await do(box, put(a=1))
    await harness.put_to_sleep(box)
    reads: list[Step] = [
        lambda storage: storage.get("a"),
        lambda storage: storage.delete("a"),
        lambda storage: storage.get_many(["a"]),
    ]
    assert [None, False, {}] == (await do(box, DELETE_ALL, *reads))[1:]


async def test_after_delete_all_the_room_is_as_new(harness: Harness, box: RoomHandle) -> None:
    await do(box, put(a=1), SET_ALARM)
    assert ["a"] == await harness.parties["box"].rooms()
    await do(box, DELETE_ALL)
    assert [] == await harness.parties["box"].rooms()
    assert await harness.runtime.next_alarm() is None
    await harness.expect_quiet(timedelta(days=3))


async def test_delete_all_of_a_room_that_holds_nothing_is_harmless(harness: Harness, box: RoomHandle) -> None:
    await do(box, DELETE_ALL)
    assert {} == await harness.stored(box)
