"""Ranges of keys: what a listing gives (G17), what a scan sees of what is written meanwhile, and what large rooms cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from partyroom import BackendError, Limits, OutsideEventError, Room, RoomHandle, Storage
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend, Harness, RecordingBackend
from tests.runtime.boxes import Box, PatientBackend, Step, by, do, everywhere, make_store, put, undo

pytestmark = pytest.mark.anyio

LETTERS = {letter: number for number, letter in enumerate("abcdef")}
ALL: dict[str, Any] = {}


RANGES: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdef"),
    ({"start": "b"}, "bcdef"),
    ({"start": "bb"}, "cdef"),
    ({"start_after": "b"}, "cdef"),
    ({"start_after": "bb"}, "cdef"),
    ({"start_after": ""}, "abcdef"),
    ({"end": "c"}, "ab"),
    ({"end": "cc"}, "abc"),
    ({"end": ""}, ""),
    ({"start": "c", "end": "c"}, ""),
    ({"start": "d", "end": "b"}, ""),
    ({"start": "b", "end": "e"}, "bcd"),
    ({"reverse": True}, "fedcba"),
    ({"start": "b", "end": "e", "reverse": True}, "dcb"),
    ({"start_after": "b", "reverse": True}, "fedc"),
    ({"limit": 2}, "ab"),
    ({"limit": 2, "reverse": True}, "fe"),
    ({"limit": 2, "start": "b", "end": "e", "reverse": True}, "dc"),
    ({"limit": 6}, "abcdef"),
    ({"limit": 2**70}, "abcdef"),
    ({"prefix": "b"}, "b"),
    ({"prefix": "b", "start": "a", "end": "z"}, "b"),
    ({"prefix": "b", "start": "c"}, ""),
    ({"prefix": "b", "end": "b"}, ""),
    ({"prefix": "x"}, ""),
]


async def test_a_range_holds_what_its_bounds_say(harness: Harness, box: RoomHandle) -> None:
    async def read(room: Room) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for bounds, _ in RANGES:
            listed = await room.ctx.storage.list(**bounds)
            assert listed == {key: LETTERS[key] for key in listed}
            unlimited = {name: bound for name, bound in bounds.items() if name != "limit"}
            scanned = [key async for key, _ in room.ctx.storage.scan(**unlimited)]
            found[str(bounds)] = "".join(listed), "".join(scanned[: bounds.get("limit")])
        return found

    expected = {str(bounds): (keys, keys) for bounds, keys in RANGES}
    assert [expected] * 4 == await everywhere(harness, box, by(put(**LETTERS)), read)


async def test_a_prefix_is_intersected_with_the_bounds(harness: Harness, box: RoomHandle) -> None:
    keys = ["j", "job", "job:", "job:1", "job:10", "job:2", "job;", "k", "\U0010ffff", "\U0010ffff1"]
    read = by(
        lambda storage: storage.list(prefix="job:"),
        lambda storage: storage.list(prefix="job:", start_after="job:1", end="job:2"),
        lambda storage: storage.list(prefix="\U0010ffff"),
        lambda storage: storage.list(prefix="job:", reverse=True, limit=1),
    )
    seen = await everywhere(harness, box, by(lambda storage: storage.put_many(dict.fromkeys(keys, 1))), read)
    expected = [["job:", "job:1", "job:10", "job:2"], ["job:10"], ["\U0010ffff", "\U0010ffff1"], ["job:2"]]
    assert [expected] * 4 == [[list(found) for found in each] for each in seen]


async def test_a_listing_lays_the_events_writes_over_what_is_stored(harness: Harness, box: RoomHandle) -> None:
    async def change(room: Room) -> tuple[list[str], list[str], list[str]]:
        storage = room.ctx.storage
        await storage.put_many({"aa": 1, "c": "new", "zz": 1})
        await storage.delete_many(["a", "b", "f"])
        async with storage.transaction():
            await storage.put("b", "again")
            await storage.delete("e")
            first = await storage.list(limit=3)
            last = await storage.list(limit=3, reverse=True)
        return list(first), list(last), [f"{key}{value}" for key, value in (await storage.list()).items()]

    await do(box, put(**LETTERS))
    await harness.put_to_sleep(box)
    expected = (["aa", "b", "c"], ["zz", "d", "c"], ["aa1", "bagain", "cnew", "d3", "zz1"])
    assert expected == await box.call(change)
    assert [expected[2]] == [[f"{key}{value}" for key, value in (await harness.stored(box)).items()]]


# --- scans --------------------------------------------------------------------


async def scanned(storage: Storage, at: str, step: Step, bounds: Mapping[str, Any] = ALL) -> str:
    """Scan, take a step at one key, and give the keys that were seen."""
    seen = ""
    async for key, _ in storage.scan(**bounds):
        seen += key
        if key == at:
            await step(storage)
    return seen


async def move(storage: Storage) -> None:
    await storage.delete_many(["a", "d"])
    await storage.put_many({"bb": 1, "aa": 1})


async def undone(storage: Storage) -> None:
    await undo(storage, lambda storage: storage.delete_all())


SCANS: list[tuple[str, Step, dict[str, Any], str]] = [
    ("b", put(c="new"), {}, "abcdef"),
    ("b", put(bb=1), {}, "abbbcdef"),
    ("f", put(g=1), {}, "abcdefg"),
    ("f", put(a=1, ff=1), {"end": "f\0"}, "abcdef"),
    ("b", put(aa=1), {}, "abcdef"),
    ("b", put(aa=1), {"reverse": True}, "fedcbaaa"),
    ("a", put(A=1), {"reverse": True}, "fedcbaA"),
    ("b", lambda storage: storage.delete("c"), {}, "abdef"),
    ("b", lambda storage: storage.delete("b"), {}, "abcdef"),
    ("b", lambda storage: storage.delete_all(), {}, "ab"),
    ("b", move, {}, "abbbcef"),
    ("e", move, {"reverse": True}, "fecbbbaa"),
    ("b", lambda storage: storage.sync(), {}, "abcdef"),
    ("b", undone, {}, "abcdef"),
]


async def test_a_scan_sees_what_is_written_ahead_of_it(harness: Harness) -> None:
    """Over what is stored, over what is known, and over what the same event has just written again."""
    before: dict[str, list[Step]] = {
        "stored": [],
        "known": [lambda storage: storage.list()],
        "written": [lambda storage: storage.delete_all(), put(**LETTERS)],
    }
    expected: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name, steps in before.items():
        for number, (at, step, bounds, keys) in enumerate(SCANS):
            room = harness.parties["box"].get(f"{name} {number}")
            await do(room, put(**LETTERS))
            await harness.put_to_sleep(room)
            expected[room.id] = keys
            scan = partial(scanned, at=at, step=step, bounds=bounds)
            seen[room.id] = (await do(room, *steps, scan))[-1]
    assert expected == seen


async def test_a_scan_sees_a_key_that_was_deleted_before_and_is_written_ahead_of_it(
    harness: Harness, box: RoomHandle
) -> None:
    await do(box, put(**LETTERS))
    steps: list[Step] = [lambda storage: storage.delete("d"), partial(scanned, at="b", step=put(d=1))]
    assert [True, "abcdef"] == await do(box, *steps)


@pytest.mark.parametrize("again", [ALL, {"a": 1}], ids=["nothing", "a value"])
async def test_a_scan_sees_that_all_is_deleted_and_the_same_written_again(
    harness: Harness, box: RoomHandle, again: Mapping[str, int]
) -> None:
    async def begin_anew(storage: Storage) -> None:
        await storage.delete_all()
        await storage.put_many(again)

    await do(box, put(**LETTERS))
    await harness.put_to_sleep(box)
    assert [None, "a"] == await do(box, put(**again), partial(scanned, at="a", step=begin_anew))


async def test_a_scan_sees_what_a_nested_event_writes_ahead_of_it(harness: Harness, box: RoomHandle) -> None:
    async def call_itself(storage: Storage) -> None:
        with pytest.raises(ZeroDivisionError):
            await box.call(by(put(d=1, x=1), lambda _: 1 // 0))  # type: ignore[arg-type, return-value]
        await box.call(by(put(bb=1, d=1), lambda storage: storage.delete("c")))

    await do(box, put(**LETTERS))
    steps: list[Step] = [lambda storage: storage.delete("d"), partial(scanned, at="b", step=call_itself)]
    assert [True, "abbbdef"] == await do(box, *steps)


async def test_every_value_may_be_changed_during_a_scan(harness: Harness, box: RoomHandle) -> None:
    many = {f"{number:04}": number for number in range(500)}

    async def double(room: Room) -> int:
        count = 0
        async for key, value in room.ctx.storage.scan():
            await room.ctx.storage.put(key, value * 2)
            count += 1
        return count

    await do(box, lambda storage: storage.put_many(many))
    await harness.put_to_sleep(box)
    assert 500 == await box.call(double)
    assert {key: value * 2 for key, value in many.items()} == await harness.stored(box)


async def test_a_scan_may_be_left_early_and_two_may_go_on_side_by_side(harness: Harness, box: RoomHandle) -> None:
    async def read(room: Room) -> list[str]:
        one, other = room.ctx.storage.scan(), room.ctx.storage.scan(reverse=True)
        return [(await anext(one))[0] + (await anext(other))[0] for _ in range(3)]

    await do(box, put(**LETTERS))
    assert ["af", "be", "cd"] == await box.call(read)


async def test_tasks_that_share_a_scan_are_given_each_entry_once_and_in_order(
    harness: Harness, box: RoomHandle
) -> None:
    many = {f"{number:04}": number for number in range(500)}

    async def share(room: Room) -> list[str]:
        given: list[str] = []
        scan = room.ctx.storage.scan()

        async def take() -> None:
            async for key, _ in scan:
                given.append(key)
                await checkpoint()

        async with create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(take)
        return given

    await do(box, lambda storage: storage.put_many(many))
    await harness.put_to_sleep(box)
    assert list(many) == await box.call(share)


async def test_a_shared_scan_goes_on_where_the_read_of_one_task_has_failed(anyio_backend: object) -> None:
    faulty = FaultyBackend(MemoryBackend())
    failed: list[BackendError] = []

    async def share(room: Room) -> list[str]:
        given: list[str] = []
        scan = room.ctx.storage.scan()

        async def take() -> None:
            try:
                given.extend([key async for key, _ in scan])
            except BackendError as error:
                failed.append(error)

        faulty.fail("scan")
        async with create_task_group() as tasks:
            tasks.start_soon(take)
            tasks.start_soon(take)
        return given

    async with Harness({"box": Box}, backend=PatientBackend(faulty)) as harness:
        room = harness.parties["box"].get("1")
        await do(room, put(**LETTERS))
        await harness.put_to_sleep(room)
        assert list(LETTERS) == await room.call(share)
        assert 1 == len(failed)


async def test_a_scan_of_nothing_ends_at_once(harness: Harness, box: RoomHandle) -> None:
    async def read(room: Room) -> list[Any]:
        ranges: list[dict[str, Any]] = [{}, {"end": ""}, {"prefix": "x"}]
        return [each for bounds in ranges async for each in room.ctx.storage.scan(**bounds)]

    assert [] == await box.call(read)


async def test_a_scan_ends_with_its_event(quick_box: RoomHandle) -> None:
    async def begin(room: Room) -> AsyncIterator[tuple[str, Any]]:
        scan = room.ctx.storage.scan()
        assert ("a", 0) == await anext(scan)
        return scan

    async def go_on(_room: Room) -> None:
        with pytest.raises(OutsideEventError, match="box/a: a scan ends with the event in which it began"):
            await anext(scan)

    await do(quick_box, put(**LETTERS))
    scan = await quick_box.call(begin)
    with pytest.raises(OutsideEventError):
        await anext(scan)
    await quick_box.call(go_on)


# --- large rooms --------------------------------------------------------------


async def turns_of_others(room: Room, step: Step) -> tuple[int, Any]:
    """Give how often another task had a turn while a step was taken, and the step's result."""
    turns = 0
    found: list[Any] = []

    async def other() -> None:
        nonlocal turns
        while not found:
            turns += 1
            await checkpoint()

    async with create_task_group() as tasks:
        tasks.start_soon(other)
        while not turns:
            await checkpoint()
        turns = 0
        found.append(await step(room.ctx.storage))
    return turns, found[0]


async def count(storage: Storage, **bounds: Any) -> int:
    return sum([1 async for _ in storage.scan(**bounds)])


MANY = {f"{number:05}": number for number in range(10_000)}


READS: list[tuple[Step, object]] = [
    (lambda storage: storage.list(), MANY),
    (count, 10_000),
    (lambda storage: storage.get_many(MANY), MANY),
]


@pytest.mark.parametrize(("step", "expected"), READS, ids=["list", "scan", "get_many"])
async def test_reading_a_large_room_gives_others_turns(
    quick: Harness, quick_box: RoomHandle, step: Step, expected: object
) -> None:
    """From the store, from what is known, and from what the event has just written."""
    await do(quick_box, lambda storage: storage.put_many(MANY))
    await quick.put_to_sleep(quick_box)
    for _ in ("stored", "known"):
        turns, found = await quick_box.call(turns_of_others, step)
        assert expected == found
        assert turns >= 8
    await do(quick_box, lambda storage: storage.delete_all())

    async def write_and_read(room: Room) -> tuple[int, Any]:
        await room.ctx.storage.put_many(MANY)
        return await turns_of_others(room, step)

    turns, found = await quick_box.call(write_and_read)
    assert expected == found
    assert turns >= 8


async def test_a_large_room_is_deleted_in_one_event(harness: Harness, box: RoomHandle) -> None:
    await do(box, lambda storage: storage.put_many(MANY))
    await harness.put_to_sleep(box)
    await do(box, lambda storage: storage.delete_all(), put(a=1))
    assert {"a": 1} == await harness.stored(box)
    await harness.restart()
    assert [{"a": 1}] == await do(box, lambda storage: storage.list())


async def scans_of(room: RoomHandle, recording: RecordingBackend, step: Step) -> list[Any]:
    """Give how many entries a step asks the store for, time and again."""
    before = len(recording.of("scan"))
    await do(room, step)
    return [effect.arguments[2] for effect in recording.of("scan")[before:]]


async def test_a_listing_reads_what_it_needs(anyio_backend: object) -> None:
    recording = RecordingBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=recording, limits=Limits(room_cache_bytes=1)) as harness:
        box = harness.parties["box"].get("a")
        await do(box, lambda storage: storage.put_many(MANY))
        await harness.put_to_sleep(box)
        assert [1] == await scans_of(box, recording, lambda storage: storage.list(limit=1))
        assert [64, 256] == await scans_of(box, recording, lambda storage: storage.list(limit=100))
        everything = await scans_of(box, recording, lambda storage: storage.list())
        assert len(everything) < 20
        assert max(everything) <= 1024
        assert [64] == (await scans_of(box, recording, lambda storage: anext(storage.scan())))


async def test_pages_of_large_values_are_small(anyio_backend: object) -> None:
    recording = RecordingBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=recording, limits=Limits(room_cache_bytes=1)) as harness:
        box = harness.parties["box"].get("a")
        large = {f"{number:03}": "x" * 400_000 for number in range(80)}
        await do(box, lambda storage: storage.put_many(large))
        await harness.put_to_sleep(box)
        assert [64, *[2] * 9] == await scans_of(box, recording, count)


async def test_many_large_values_are_deleted_without_being_held_at_once(anyio_backend: object) -> None:
    recording = RecordingBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=recording, limits=Limits(room_cache_bytes=1)) as harness:
        box = harness.parties["box"].get("a")
        large = {f"{number:03}": "x" * 400_000 for number in range(80)}
        await do(box, lambda storage: storage.put_many(large))
        await harness.put_to_sleep(box)
        assert [80] == await do(box, lambda storage: storage.delete_many([*large, "none"]))
        assert [64, *[2] * 8, 1] == [len(cast("Sequence[str]", read.arguments[1])) for read in recording.of("read")]
        assert {} == await harness.stored(box)


async def test_a_queue_is_drained_from_its_front(harness: Harness, box: RoomHandle) -> None:
    """Also in one event, where what was taken is still stored."""

    async def drain(room: Room) -> list[int]:
        taken: list[int] = []
        while first := await room.ctx.storage.list(limit=1):
            [(key, value)] = first.items()
            await room.ctx.storage.delete(key)
            taken.append(value)
        return taken

    await do(box, lambda storage: storage.put_many({f"{number:03}": number for number in range(200)}))
    await harness.put_to_sleep(box)
    assert list(range(200)) == await box.call(drain)
    assert {} == await harness.stored(box)


async def test_a_room_larger_than_its_cache_is_read_right(anyio_backend: object, tmp_path: Path) -> None:
    limits = Limits(room_cache_bytes=1000, cache_bytes=5000)
    async with Harness({"box": Box}, limits=limits, backend=make_store("file", tmp_path)) as harness:
        box = harness.parties["box"].get("a")
        many = {f"{number:03}": number for number in range(300)}
        await do(box, lambda storage: storage.put_many(many))
        expected = [many, [*reversed(many)], 7, 300]
        steps: list[Step] = [
            lambda storage: storage.list(),
            lambda storage: as_list(storage.list(reverse=True)),
            lambda storage: storage.get("007"),
            count,
        ]
        assert expected == await do(box, *steps)
        assert expected == await do(box, *steps)


async def as_list(listing: Awaitable[dict[str, Any]]) -> list[str]:
    return list(await listing)
