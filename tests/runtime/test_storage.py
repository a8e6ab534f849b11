"""Storage as a room sees it: every sentence of G15 to G18, in memory, on a file, and on a store that suspends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

import pytest
from anyio import create_task_group

from partyroom import (
    InvalidKeyError,
    LimitExceededError,
    Limits,
    NotStorableError,
    OutsideEventError,
    Room,
    RoomAbortedError,
    RoomContext,
    RoomHandle,
    RoomKey,
    Storage,
)
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import DecodeError
from partyroom.testing import FaultyBackend, Harness
from partyroom.types import Commit
from tests.runtime.boxes import Box, Step, by, do, everywhere, make_store, nothing, put

pytestmark = pytest.mark.anyio

KEY = RoomKey("box", "a")
NAN = math.nan


async def listing(storage: Storage) -> list[str]:
    """Give the keys in their order, as a list and as a scan give it, which must be the same."""
    found = await storage.list()
    assert list(found.items()) == [entry async for entry in storage.scan()]
    return list(found)


# --- G15: keys and values -----------------------------------------------------


async def test_keys_are_ordered_by_their_utf_8_bytes(harness: Harness, box: RoomHandle) -> None:
    keys = ["", "\0", " ", "A", "Z", "a", "a\0", "aa", "é", "\u0800", "\ud7ff", "\ue000", "\uffee", "\U0001f600"]
    assert keys == sorted(keys, key=str.encode)
    seen = await everywhere(
        harness, box, by(lambda storage: storage.put_many(dict.fromkeys(reversed(keys), 1))), by(listing)
    )
    assert [[keys]] * 4 == seen


async def test_a_member_of_a_str_enum_is_the_text_that_it_is(harness: Harness, box: RoomHandle) -> None:
    class Color(StrEnum):
        RED = "red"

    write = by(lambda storage: storage.put(Color.RED, 1))
    seen = await everywhere(harness, box, write, by(lambda storage: storage.get("red"), listing))
    assert [[1, ["red"]]] * 4 == seen
    assert {str} == {type(key) for [keys] in [await do(box, listing)] for key in keys}


VALUES = [
    None,
    True,
    0,
    -(2**70),
    0.1,
    -0.0,
    math.inf,
    "",
    "\0\ud7ff\U0001f600",
    b"\0\xff",
    [1, [2, (3, 4)], {"a": {5}}],
    (),
    {1: "int", "1": "str", (1, 2): "tuple", None: "none"},
    {1, 2},
    frozenset({"a"}),
    datetime(2030, 1, 1, tzinfo=UTC),
    datetime(2030, 1, 1, 12, 30, 0, 1),  # noqa: DTZ001 - a naive one is a value like any other
    date(2030, 1, 1),
    time(12, 30),
    timedelta(days=-1, microseconds=1),
    Decimal("1.50"),
    UUID(int=7),
]


async def test_what_comes_back_is_equal_and_of_the_type_of_what_went_in(harness: Harness, box: RoomHandle) -> None:
    values = {f"{number:02}": value for number, value in enumerate(VALUES)}

    async def write(room: Room) -> None:
        for key, value in values.items():
            await room.ctx.storage.put(key, value)

    async def read(room: Room) -> list[list[Any]]:
        storage = room.ctx.storage
        scanned = [value async for _, value in storage.scan()]
        listed, several = await storage.list(), await storage.get_many(values)
        return [[await storage.get(key) for key in values], [*listed.values()], [*several.values()], scanned]

    def looks(values: Sequence[object]) -> list[tuple[object, type, str]]:
        return [(value, type(value), repr(value)) for value in values]

    for ways in await everywhere(harness, box, write, read):
        assert [looks(VALUES)] * 4 == [looks(found) for found in ways]


async def test_not_a_number_comes_back_as_such(harness: Harness, box: RoomHandle) -> None:
    seen = await everywhere(harness, box, by(put(key=NAN)), by(lambda storage: storage.get("key")))
    assert all(math.isnan(found) for [found] in seen)


async def test_values_are_copied_in_when_they_are_put(harness: Harness, box: RoomHandle) -> None:
    async def write(room: Room) -> None:
        value = {"a": [1]}
        await room.ctx.storage.put("one", value)
        await room.ctx.storage.put_many({"many": value})
        value["a"].append(2)

    seen = await everywhere(harness, box, write, by(lambda storage: storage.list()))
    assert [[{"many": {"a": [1]}, "one": {"a": [1]}}]] * 4 == seen


async def test_values_are_copied_out(harness: Harness, box: RoomHandle) -> None:
    async def read(room: Room) -> dict[str, Any]:
        storage = room.ctx.storage
        (await storage.get("key")).append(2)
        (await storage.get_many(["key"]))["key"].append(2)
        (await storage.list())["key"].append(2)
        async for _, value in storage.scan():
            value.append(2)
        return await storage.list()

    assert [{"key": [1]}] * 4 == await everywhere(harness, box, by(put(key=[1])), read)


async def test_checkers_are_told_that_a_default_says_the_type_but_for_none(box: RoomHandle) -> None:
    async def get(room: Room) -> None:
        storage = room.ctx.storage
        assert_type(await storage.get("key"), Any)
        # Not None: there may be a value.
        assert_type(await storage.get("key", None), Any)
        assert_type(await storage.get("key", 1), int)

    await box.call(get)


async def test_a_default_is_given_as_it_is_for_a_missing_key_only(harness: Harness, box: RoomHandle) -> None:
    default: list[int] = []

    async def read(room: Room) -> tuple[Any, bool, Any]:
        storage = room.ctx.storage
        return (
            await storage.get("missing"),
            await storage.get("missing", default) is default,
            await storage.get("none", 1),
        )

    assert [(None, True, None)] * 4 == await everywhere(harness, box, by(put(none=None)), read)


async def test_get_many_gives_those_that_there_are_once_and_in_order(harness: Harness, box: RoomHandle) -> None:
    async def read(room: Room) -> tuple[dict[str, Any], list[str]]:
        found = await room.ctx.storage.get_many(iter(["c", "none", "a", "missing", "a"]))
        return found, list(found)

    write = by(put(c=3, a=1, b=2, none=None))
    assert [({"a": 1, "c": 3, "none": None}, ["a", "c", "none"])] * 4 == await everywhere(harness, box, write, read)
    assert [{}] == await do(box, lambda storage: storage.get_many([]))


async def test_delete_says_whether_there_was_one(harness: Harness, box: RoomHandle) -> None:
    delete: Step = lambda storage: storage.delete("a")  # noqa: E731 - a step like the others
    assert [False, None, True, False] == await do(box, delete, put(a=None), delete, delete)
    await do(box, put(a=1))
    assert [True] == await do(box, delete)
    assert [False] == await do(box, delete)
    await do(box, put(a=1))
    await harness.put_to_sleep(box)
    assert [True, False] == await do(box, delete, delete)
    await harness.restart()
    assert [False] == await do(box, delete)


async def test_delete_many_says_how_many_there_were(harness: Harness, box: RoomHandle) -> None:
    delete: Step = lambda storage: storage.delete_many(iter(["a", "b", "a", "missing"]))  # noqa: E731
    assert [None, 2, 0] == await do(box, put(a=1, b=None, c=3), delete, delete)
    await do(box, put(a=1, b=2))
    await harness.put_to_sleep(box)
    assert [2, 0, {"c": 3}] == await do(box, delete, delete, lambda storage: storage.list())


async def test_what_was_absent_costs_no_commit_to_delete(box: RoomHandle, harness: Harness) -> None:
    await do(box, put(a=1))
    commits = harness.runtime.statistics().commits
    steps: list[Step] = [
        lambda storage: storage.delete("b"),
        lambda storage: storage.delete_many(["b"]),
        lambda storage: storage.delete_alarm(),
    ]
    assert [False, 0, None] == await do(box, *steps)
    assert commits == harness.runtime.statistics().commits


async def test_of_branches_that_delete_at_once_one_is_told_of_each_value(harness: Harness, box: RoomHandle) -> None:
    many = {f"{number:03}": number for number in range(200)}

    async def at_once(storage: Storage, step: Step) -> list[int]:
        told: list[int] = []

        async def take() -> None:
            told.append(await step(storage))

        async with create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(take)
        return sorted(told)

    async def delete(storage: Storage) -> list[int]:
        one = await at_once(storage, lambda storage: storage.delete("one"))
        return one + await at_once(storage, lambda storage: storage.delete_many(many))

    await do(box, put(one=1, **many))
    await harness.put_to_sleep(box)
    *ones, few, some, most = (await do(box, delete))[0]
    assert [False, False, True] == ones
    assert len(many) == few + some + most


async def test_a_read_tells_what_another_branch_has_written_meanwhile(anyio_backend: object) -> None:
    faulty = FaultyBackend(MemoryBackend())

    async def read(storage: Storage, step: Step) -> Any:
        told: list[Any] = []

        async def get() -> None:
            told.append(await step(storage))

        with faulty.hold_answer("read") as hold:
            async with create_task_group() as tasks:
                tasks.start_soon(get)
                await hold.arrived()
                await storage.put_many({"a": "new"})
                await storage.delete("b")
                hold.release()
        return told[0]

    steps: list[Step] = [
        lambda storage: storage.get("a"),
        lambda storage: storage.get_many(["a", "b", "c"]),
        lambda storage: storage.delete("b"),
        lambda storage: storage.delete_many(["a", "b", "c"]),
    ]
    async with Harness({"box": Box}, backend=faulty) as harness:
        told: list[Any] = []
        for number, step in enumerate(steps):
            room = harness.parties["box"].get(str(number))
            await do(room, put(a="old", b="old", c="old"))
            await harness.put_to_sleep(room)
            told += await do(room, partial(read, step=step))
        assert ["new", {"a": "new", "c": "old"}, False, 2] == told


async def test_put_many_stores_all_or_none(harness: Harness, box: RoomHandle) -> None:
    async def write(room: Room) -> str:
        with pytest.raises(NotStorableError) as caught:
            await room.ctx.storage.put_many({"a": 1, "b": {"deep": [object()]}, "c": 3})
        return str(caught.value)

    assert "cannot store \"box/a 'b'\": value['deep'][0] is of type object" in (await box.call(write))[:80]
    assert [{}] == await do(box, lambda storage: storage.list())


@pytest.mark.parametrize("made", ["text", bytearray(b"1"), None])
async def test_what_a_codec_makes_must_be_bytes(anyio_backend: object, tmp_path: Path, made: object) -> None:
    """A file would keep a text, and not give it back."""

    class Careless:
        def encode(self, value: object, /) -> Any:
            return made if value == "made" else b"1"

        def decode(self, data: bytes, /) -> int:
            return int(data)

    async def write(room: Room) -> str:
        await room.ctx.storage.put("key", 1)
        with pytest.raises(NotStorableError) as caught:
            await room.ctx.storage.put_many({"other": 1, "key": "made"})
        return str(caught.value)

    async with Harness({"box": Box}, backend=make_store("file", tmp_path), codec=Careless()) as harness:
        room = harness.parties["box"].get("a")
        expected = f"cannot store \"box/a 'key'\": value is {type(made).__name__} from the codec, not bytes"
        assert expected == await room.call(write)
        await harness.put_to_sleep(room)
        assert [{"key": 1}] == await do(room, lambda storage: storage.list())


async def test_what_cannot_be_kept_is_refused_and_the_old_value_stays(harness: Harness, box: RoomHandle) -> None:
    async def write(room: Room) -> Any:
        await room.ctx.storage.put("key", "old")
        with pytest.raises(NotStorableError) as caught:
            await room.ctx.storage.put("key", {"a": [1, object()]})
        assert ("box/a 'key'", "value['a'][1]") == (caught.value.key, caught.value.path)
        return await room.ctx.storage.get("key")

    assert "old" == await box.call(write)
    assert {"key": "old"} == await harness.stored(box)


async def test_stored_bytes_that_nobody_can_read_name_their_key_and_hold_up_no_other(anyio_backend: object) -> None:
    backend = MemoryBackend()
    async with backend:
        fence = await backend.claim(KEY)
        await backend.commit([Commit(KEY, fence, {"bad": b"{", "good": b"1"}, {}, release=True)])
    async with Harness({"box": Box}, backend=backend) as harness:
        box = harness.parties["box"].get("a")
        reads: list[Step] = [
            lambda storage: storage.get("bad"),
            lambda storage: storage.list(),
            lambda storage: storage.get_many(["bad"]),
        ]
        for read in reads:
            with pytest.raises(DecodeError, match="box/a 'bad'"):
                await do(box, read)
        assert [1, True] == await do(box, lambda storage: storage.get("good"), lambda storage: storage.delete("bad"))
        assert {"good": 1} == await harness.stored(box)


async def test_a_scan_goes_on_behind_a_value_that_nobody_can_read(anyio_backend: object) -> None:
    backend = MemoryBackend()
    async with backend:
        fence = await backend.claim(KEY)
        await backend.commit([Commit(KEY, fence, {"a": b"{", "b": b"1"}, {}, release=True)])

    async def read(room: Room) -> tuple[str, Any]:
        scan = room.ctx.storage.scan()
        with pytest.raises(DecodeError, match="box/a 'a'"):
            await anext(scan)
        return await anext(scan)

    async with Harness({"box": Box}, backend=backend) as harness:
        assert ("b", 1) == await harness.parties["box"].get("a").call(read)


async def test_rooms_and_parties_never_see_each_other(anyio_backend: object) -> None:
    async with Harness({"box": Box, "bo": Box}) as harness:
        one, two = harness.parties["box"].get("a"), harness.parties["box"].get("aa")
        other = harness.parties["bo"].get("xa")
        await do(one, put(key=1))
        await do(two, put(key=2))
        await do(other, put(key=3))
        await do(two, lambda storage: storage.delete_all())
        assert [{"key": 1}, {}, {"key": 3}] == [await harness.stored(room) for room in (one, two, other)]


async def test_names_of_the_librarys_own_are_never_among_a_rooms_keys(harness: Harness, box: RoomHandle) -> None:
    """G7."""
    write = by(put(id="mine"), lambda storage: storage.set_alarm(timedelta(days=1), name="wake", payload=[1]))
    assert [[["id"]]] * 4 == await everywhere(harness, box, write, by(listing))
    assert {"id": "mine"} == await harness.stored(box)


# --- G16: reads see every earlier write ---------------------------------------


async def test_reads_see_what_is_committed_and_what_is_not(anyio_backend: object) -> None:
    """While a commit is on its way, with another one gathered behind it."""
    faulty = FaultyBackend(MemoryBackend())
    async with Harness({"box": Box}, backend=faulty) as harness:
        box = harness.parties["box"].get("a")
        await do(box, put(a=0, b=0, c=0, d=0))
        await harness.put_to_sleep(box)
        seen: list[Any] = []

        async def event(number: int) -> None:
            async def look(room: Room) -> None:
                seen.append(await room.ctx.storage.list())
                await room.ctx.storage.put_many({"abc"[number]: number, f"new{number}": number})
                await room.ctx.storage.delete("d" if number == 2 else "missing")

            await box.call(look)

        with faulty.hold("commit") as hold:
            async with create_task_group() as tasks:
                tasks.start_soon(event, 1)
                await hold.arrived()
                tasks.start_soon(event, 2)
                await harness.parties["box"].get("b").call(nothing)
                assert {"a": 0, "b": 0, "c": 0, "d": 0} == await box.stored()
                hold.release()
        assert [{"a": 0, "b": 0, "c": 0, "d": 0}, {"a": 0, "b": 1, "c": 0, "d": 0, "new1": 1}] == seen
        assert {"a": 0, "b": 1, "c": 2, "new1": 1, "new2": 2} == await harness.stored(box)


async def test_an_event_that_raises_leaves_nothing_to_be_read(harness: Harness, box: RoomHandle) -> None:
    async def fail(room: Room) -> None:
        await room.ctx.storage.delete_all()
        await room.ctx.storage.put("b", 2)
        assert {"b": 2} == await room.ctx.storage.list()
        raise LookupError

    await do(box, put(a=1))
    with pytest.raises(LookupError):
        await box.call(fail)
    assert [{"a": 1}] == await do(box, lambda storage: storage.list())
    assert {"a": 1} == await harness.stored(box)


async def test_branches_of_an_event_read_what_the_others_write(harness: Harness, box: RoomHandle) -> None:
    """Also when they all ask for what nobody has read yet."""

    async def branches(room: Room) -> list[Any]:
        seen: list[Any] = []

        async def branch(number: int) -> None:
            seen.append(await room.ctx.storage.get("a"))
            await room.ctx.storage.put(f"b{number}", number)

        async with create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(branch, number)
        return [*seen, await room.ctx.storage.list()]

    await do(box, put(a=1))
    await harness.put_to_sleep(box)
    assert [1, 1, 1, {"a": 1, "b0": 0, "b1": 1, "b2": 2}] == await box.call(branches)


# --- G18: limits, and other bad input -----------------------------------------

BAD_KEYS: list[tuple[object, type[Exception], str]] = [
    (1, InvalidKeyError, "box/a: key must be a str, not int"),
    (None, InvalidKeyError, "box/a: key must be a str, not NoneType"),
    (b"a", InvalidKeyError, "box/a: key must be a str, not bytes"),
    ("\ud800", InvalidKeyError, r"box/a: key must have a UTF-8 form, and '\ud800' has none"),
    ("k" * 2049, LimitExceededError, f"box/a key '{'k' * 59}: 2049 is over Limits.key_bytes=2048"),
    ("é" * 1025, LimitExceededError, f"box/a key '{'é' * 59}: 2050 is over Limits.key_bytes=2048"),
]


KEYED: dict[str, Callable[[Storage, Any], Awaitable[object]]] = {
    "get": lambda storage, key: storage.get(key),
    "get with a default": lambda storage, key: storage.get(key, 1),
    "put": lambda storage, key: storage.put(key, 1),
    "delete": lambda storage, key: storage.delete(key),
    "get_many": lambda storage, key: storage.get_many(["a", key]),
    "put_many": lambda storage, key: storage.put_many({"a": 2, key: 1}),
    "delete_many": lambda storage, key: storage.delete_many(["a", key]),
}


@pytest.mark.parametrize("verb", KEYED.values(), ids=KEYED)
async def test_a_bad_key_is_refused_by_name_and_nothing_is_lost(
    quick: Harness, quick_box: RoomHandle, verb: Callable[[Storage, Any], Awaitable[object]]
) -> None:
    async def use(room: Room) -> None:
        await room.ctx.storage.put("b", 1)
        for key, error, message in BAD_KEYS:
            with pytest.raises(error) as caught:
                await verb(room.ctx.storage, key)
            assert message == str(caught.value)

    await do(quick_box, put(a=1))
    await quick_box.call(use)
    assert {"a": 1, "b": 1} == await quick.stored(quick_box)


BAD_RANGES: list[tuple[dict[str, Any], str]] = [
    ({"limit": 0}, "box/a: limit must be a positive int, not 0"),
    ({"limit": -1}, "box/a: limit must be a positive int, not -1"),
    ({"limit": True}, "box/a: limit must be a positive int, not bool"),
    ({"limit": 1.0}, "box/a: limit must be a positive int, not float"),
    ({"limit": "1"}, "box/a: limit must be a positive int, not str"),
    ({"start": "a", "start_after": "a"}, "box/a: start and start_after cannot both be given"),
    ({"start": 1}, "box/a: start must be a str, not int"),
    ({"start_after": 1}, "box/a: start_after must be a str, not int"),
    ({"end": b""}, "box/a: end must be a str, not bytes"),
    ({"prefix": None}, "box/a: prefix must be a str, not NoneType"),
    ({"prefix": "\udfff"}, r"box/a: prefix must have a UTF-8 form, and '\udfff' has none"),
]


async def test_a_bad_range_is_refused_by_name(quick_box: RoomHandle) -> None:
    async def use(room: Room) -> None:
        for bounds, message in BAD_RANGES:
            with pytest.raises(InvalidKeyError) as caught:
                await room.ctx.storage.list(**bounds)
            assert message == str(caught.value)
            if "limit" not in bounds:
                # Where it is called, not where it is first iterated over.
                with pytest.raises(InvalidKeyError) as caught:
                    room.ctx.storage.scan(**bounds)
                assert message == str(caught.value)

    await quick_box.call(use)


async def test_bounds_may_be_longer_than_any_key(quick_box: RoomHandle) -> None:
    await do(quick_box, put(k=1))
    assert [{"k": 1}] == await do(quick_box, lambda storage: storage.list(start="a" * 5000, end="z" * 5000))


@pytest.mark.parametrize("one", ["name", b"name"])
async def test_one_key_where_several_are_meant_is_refused(quick_box: RoomHandle, one: Any) -> None:
    async def use(room: Room) -> None:
        message = rf"box/a: keys must be several, not the one \w+ {one!r}"
        with pytest.raises(InvalidKeyError, match=message):
            await room.ctx.storage.get_many(one)
        with pytest.raises(InvalidKeyError, match=message):
            await room.ctx.storage.delete_many(one)

    await quick_box.call(use)


async def test_put_many_takes_a_mapping(quick_box: RoomHandle) -> None:
    async def use(room: Room) -> None:
        pairs: Any = [("a", 1)]
        with pytest.raises(InvalidKeyError, match="box/a: put_many takes a mapping of keys to values, not list"):
            await room.ctx.storage.put_many(pairs)

    await quick_box.call(use)


async def test_the_limits_themselves_are_within_them(anyio_backend: object, tmp_path: Path) -> None:
    limits = Limits(key_bytes=5, value_bytes=10)
    async with Harness({"box": Box}, limits=limits, backend=make_store("file", tmp_path)) as harness:
        box = harness.parties["box"].get("a")

        async def use(room: Room) -> None:
            await room.ctx.storage.put("éé1", "12345678")
            with pytest.raises(LimitExceededError) as caught:
                await room.ctx.storage.put("k", "123456789")
            assert ("value_bytes", 11, 10, "box/a 'k'") == (
                caught.value.limit,
                caught.value.size,
                caught.value.allowed,
                caught.value.where,
            )
            with pytest.raises(LimitExceededError, match=r"box/a 'l': 11 is over Limits\.value_bytes=10"):
                await room.ctx.storage.put_many({"k": 1, "l": "123456789"})
            with pytest.raises(LimitExceededError, match=r"box/a key 'éééa': 7 is over Limits\.key_bytes=5"):
                await room.ctx.storage.put("éééa", 1)

        await box.call(use)
        assert {"éé1": "12345678"} == await harness.stored(box)


async def test_a_value_of_the_largest_size_is_kept(harness: Harness, box: RoomHandle) -> None:
    limit = Limits().value_bytes
    value = "x" * (limit - 2)

    async def refuse(room: Room) -> None:
        with pytest.raises(LimitExceededError, match=f"box/a 'key': {limit + 1} is over"):
            await room.ctx.storage.put("key", value + "x")

    seen = await everywhere(harness, box, by(put(key=value)), by(lambda storage: storage.get("key")))
    assert all(found == value for [found] in seen)
    await box.call(refuse)
    assert value == (await harness.stored(box))["key"]


# --- outside an event (G6a) ---------------------------------------------------

VERBS: dict[str, Step] = {
    "get": lambda storage: storage.get("a"),
    "put": lambda storage: storage.put("a", 1),
    "delete": lambda storage: storage.delete("a"),
    "get_many": lambda storage: storage.get_many(["a"]),
    "put_many": lambda storage: storage.put_many({}),
    "delete_many": lambda storage: storage.delete_many([]),
    "list": lambda storage: storage.list(end=""),
    "scan": lambda storage: anext(storage.scan()),
    "delete_all": lambda storage: storage.delete_all(),
    "transaction": lambda storage: storage.transaction().__aenter__(),
    "sync": lambda storage: storage.sync(),
    "get_alarm": lambda storage: storage.get_alarm(),
    "set_alarm": lambda storage: storage.set_alarm(timedelta(1)),
    "delete_alarm": lambda storage: storage.delete_alarm(),
    "list_alarms": lambda storage: storage.list_alarms(),
    "ring_alarm": lambda storage: storage.ring_alarm(),
    "pause_alarm": lambda storage: storage.pause_alarm(),
    "resume_alarm": lambda storage: storage.resume_alarm(),
}


def test_every_verb_of_storage_is_among_those_that_are_tried() -> None:
    assert set(VERBS) == {name for name in vars(Storage) if not name.startswith("_")}


async def test_storage_outside_an_event_says_so(quick: Harness, quick_box: RoomHandle) -> None:
    leaked: list[Storage] = []
    seen: list[str] = []

    async def background(storage: Storage) -> None:
        for name, verb in VERBS.items():
            with pytest.raises(OutsideEventError) as caught:
                await verb(storage)
            seen.append(f"{name}: {caught.value}")

    async def leak(room: Room) -> None:
        leaked.append(room.ctx.storage)
        room.ctx.start_soon(background, room.ctx.storage)

    why = "box/a: storage was used outside an event of this room; use `await ctx.run(...)` from a background task"
    await quick_box.call(leak)
    await quick.settle()
    assert [f"{name}: {why}" for name in VERBS] == seen
    await background(leaked[0])
    # One room's event is none of another's.
    await quick.parties["box"].get("b").call(lambda _: background(leaked[0]))
    assert 3 * len(VERBS) == len(seen)
    assert {} == await quick.stored(quick_box)


async def test_storage_cannot_be_used_in_a_constructor(anyio_backend: object) -> None:
    class Hasty(Box):
        def __init__(self, ctx: RoomContext) -> None:
            super().__init__(ctx)
            ctx.storage.transaction().__aenter__().send(None)

    async with Harness({"box": Hasty}) as harness:
        with pytest.raises(OutsideEventError, match="box/a: storage was used outside an event"):
            await harness.parties["box"].get("a").call(nothing)


async def test_storage_in_an_event_that_was_ended_says_why(quick: Harness, quick_box: RoomHandle) -> None:
    async def stubborn(room: Room) -> None:
        with pytest.raises(RoomAbortedError):
            room.ctx.abort("enough")
        with pytest.raises(RoomAbortedError, match="enough"):
            await room.ctx.storage.put("a", 1)

    with pytest.raises(RoomAbortedError, match="enough"):
        await quick_box.call(stubborn)
    assert {} == await quick.stored(quick_box)


async def test_a_storage_shows_whose_it_is(quick_box: RoomHandle) -> None:
    assert "<storage of box/a>" == await quick_box.call(shown)


async def shown(room: Room) -> str:
    return repr(room.ctx.storage)


# --- alarms, where a room takes none ------------------------------------------


class Silent(Room):
    """Has no ``on_alarm``."""


async def test_a_room_without_on_alarm_reads_and_deletes_alarms_all_the_same(anyio_backend: object) -> None:
    async with Harness({"silent": Silent}) as harness:
        steps: list[Step] = [lambda storage: storage.get_alarm(), lambda storage: storage.delete_alarm()]
        assert [None, None] == await do(harness.parties["silent"].get("a"), *steps)
