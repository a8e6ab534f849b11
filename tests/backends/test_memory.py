"""What the memory backend promises beyond the contract: it never waits, it holds no more than what is stored, it sorts late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from partyroom.backends.memory import FEW, MemoryBackend
from partyroom.errors import BackendError
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
EVERYTHING = KeyRange()
ALL = 2**31 - 1


@pytest.fixture
async def memory(anyio_backend: object) -> AsyncIterator[MemoryBackend]:
    async with MemoryBackend() as backend:
        yield backend


async def put(memory: MemoryBackend, fence: int, values: dict[str, bytes | None]) -> None:
    assert [None] == await memory.commit([Commit(A, fence, values, {})])


async def set_alarm(memory: MemoryBackend, fence: int, due: int | None) -> None:
    assert [None] == await memory.commit([Commit(A, fence, {}, {"": AlarmRow(A, "", due)})])


def test_no_method_ever_suspends() -> None:
    memory = MemoryBackend()
    commit = Commit(A, 1, {"k": b"1"}, {"": AlarmRow(A, "", 1)})
    steps: Sequence[Callable[[], Any]] = [
        memory.__aenter__,
        lambda: memory.claim(A),
        lambda: memory.commit([commit]),
        lambda: memory.read(A, ["k"]),
        lambda: memory.scan(A, EVERYTHING, 1),
        lambda: memory.room_alarms(A),
        lambda: memory.due_alarms(None, None, 1),
        lambda: memory.parked_alarms("party", None, 1),
        lambda: memory.rooms("party", EVERYTHING, 1),
        lambda: memory.__aexit__(None, None, None),
    ]
    for step in steps:
        with pytest.raises(StopIteration):
            step().send(None)


async def test_it_belongs_to_one_runtime_at_a_time(memory: MemoryBackend) -> None:
    with pytest.raises(BackendError, match="open already"):
        await memory.__aenter__()


async def test_replacing_an_alarm_again_and_again_holds_no_more_than_one(memory: MemoryBackend) -> None:
    fence = await memory.claim(A)
    await set_alarm(memory, fence, 0)
    assert 1 == len(await memory.due_alarms(None, None, ALL))
    for due in range(1, 1000):
        await set_alarm(memory, fence, due)
        await set_alarm(memory, fence, None)
        await set_alarm(memory, fence, due)
    assert (1, 1) == (len(memory._by_due._new), len(memory._by_due._gone))
    assert (0, 0) == (len(memory._parked._new), len(memory._parked._gone))
    assert [AlarmRow(A, "", 999)] == await memory.due_alarms(None, None, ALL)


async def test_a_room_that_is_empty_is_forgotten(memory: MemoryBackend) -> None:
    fence = await memory.claim(A)
    await put(memory, fence, {"k": b"1"})
    await set_alarm(memory, fence, 1)
    await put(memory, fence, {"k": None})
    await memory.commit([Commit(A, fence, {}, {"": None}, release=True)])
    assert ({}, {}) == (memory._rooms, memory._claims)


@pytest.mark.parametrize("changes", [1, FEW, FEW + 1, 10 * FEW])
async def test_the_order_of_keys_is_right_after_few_changes_and_after_many(memory: MemoryBackend, changes: int) -> None:
    fence = await memory.claim(A)
    expected: set[str] = set()
    for turn in range(10):
        for step in range(changes):
            # A fixed disorder, in which every key comes and goes.
            key = str((turn * changes + step) * 7919 % (changes * 3))
            expected ^= {key}
            await put(memory, fence, {key: b"" if key in expected else None})
        assert sorted(expected) == [key for key, _ in await memory.scan(A, EVERYTHING, ALL)]


async def test_a_key_that_goes_and_comes_back_between_two_scans_is_listed_once(memory: MemoryBackend) -> None:
    fence = await memory.claim(A)
    await put(memory, fence, {"a": b"1", "b": b"1"})
    await memory.scan(A, EVERYTHING, ALL)
    await put(memory, fence, {"a": None, "c": b"1"})
    await put(memory, fence, {"a": b"2", "c": None})
    assert [("a", b"2"), ("b", b"1")] == await memory.scan(A, EVERYTHING, ALL)
