"""Storage against a plain dict: any events, in any situation, read what a dict would say (G3, G15 to G17)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

import pytest
from anyio import Event, create_task_group
from anyio.abc import TaskGroup
from hypothesis import example, given
from hypothesis import strategies as st

from partyroom import Room, RoomHandle, Storage, StorageBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import RuntimeClosedError
from partyroom.testing import FaultyBackend, Harness
from partyroom.testing.backend_wrapper import BackendWrapper
from tests.runtime.boxes import Box, PatientBackend, do, make_store
from tests.sizes import examples

pytestmark = pytest.mark.anyio

Op = tuple[Any, ...]

KEYS = [first + second for first in "abc" for second in "xyz"]
MANY = {f"b{number:03}": number for number in range(150)}
"""More than one page."""

keys = st.sampled_from(KEYS)
bounds = st.fixed_dictionaries(
    {},
    optional={
        "prefix": st.sampled_from(["", "a", "b", "b1", "z"]),
        "start": st.sampled_from(["", "ay", "b07", "c"]),
        "end": st.sampled_from(["b", "b1", "cz", ""]),
        "reverse": st.booleans(),
    },
)
limits = st.none() | st.integers(1, 4)
leaves: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.just("put"), keys, st.integers(0, 9)),
    st.tuples(st.just("put_many"), st.dictionaries(keys, st.integers(10, 19), max_size=3)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("delete_many"), st.lists(keys, max_size=4)),
    st.tuples(st.just("delete_all")),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("get_many"), st.lists(keys, max_size=4)),
    st.tuples(st.just("list"), bounds, limits),
    st.tuples(st.just("scan"), bounds, limits),
    st.tuples(st.just("sync")),
)


def units(inner: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
    return st.tuples(st.sampled_from(["transaction", "nested"]), st.lists(inner, max_size=5), st.booleans())


ops = st.lists(st.recursive(leaves, units, max_leaves=8), max_size=6)
events = st.tuples(st.just("event"), ops, st.booleans())
programs = st.lists(
    st.one_of(events, events, st.tuples(st.sampled_from(["settle", "hold", "sleep", "restart", "crash"]))), max_size=8
)


class FailedError(Exception):
    """Raised where the program says so."""


@final
class Model:
    """What a plain dict says to each operation."""

    def __init__(self, state: dict[str, int]) -> None:
        self.state = state
        self.durable = dict(state)
        """What a crash leaves of an event that has not ended."""

    def event(self, steps: list[Op], *, fails: bool, is_held: bool) -> list[Any]:
        before = dict(self.state)
        self.durable = before
        seen = self.steps(steps, depth=1 if is_held else 0)
        if fails:
            self.state = dict(self.durable)
        return seen

    def steps(self, steps: list[Op], *, depth: int) -> list[Any]:
        return [self.step(kind, *args, depth=depth) for kind, *args in steps]

    def step(self, kind: str, *args: Any, depth: int) -> Any:
        if kind in {"transaction", "nested"}:
            steps, fails = args
            before = dict(self.state)
            seen = self.steps(steps, depth=depth + 1)
            if fails:
                self.state = before
            return seen
        if kind == "sync":
            if not depth:
                self.durable = dict(self.state)
            return None
        return LEAVES[kind](self.state, *args)


def list_of(state: dict[str, int], bounds: dict[str, Any], limit: int | None) -> list[tuple[str, int]]:
    found = [
        (key, value)
        for key, value in sorted(state.items(), reverse=bounds.get("reverse", False))
        if key.startswith(bounds.get("prefix", ""))
        and key >= bounds.get("start", "")
        and ("end" not in bounds or key < bounds["end"])
    ]
    return found[:limit]


def delete_many(state: dict[str, int], names: list[str]) -> int:
    return sum(state.pop(name, None) is not None for name in set(names))


def get_many(state: dict[str, int], names: list[str]) -> dict[str, int]:
    return {name: state[name] for name in sorted(set(names)) if name in state}


LEAVES: dict[str, Callable[..., Any]] = {
    "put": lambda state, key, value: state.update({key: value}),
    "put_many": lambda state, values: state.update(values),
    "delete": lambda state, key: state.pop(key, None) is not None,
    "delete_many": delete_many,
    "delete_all": lambda state: state.clear(),
    "get": lambda state, key: state.get(key),
    "get_many": get_many,
    "list": list_of,
    "scan": list_of,
}


@final
class Rooms:
    """Takes the same steps in a room."""

    def __init__(self, box: RoomHandle, *, is_held: bool) -> None:
        self.box = box
        self.is_held = is_held

    async def event(self, room: Room, steps: list[Op], seen: list[list[Any]], *, fails: bool, ended: Event) -> None:
        try:
            seen.append(await self.steps(room.ctx.storage, steps, depth=1 if self.is_held else 0))
            end(fails=fails)
        finally:
            ended.set()

    async def steps(self, storage: Storage, steps: list[Op], *, depth: int) -> list[Any]:
        return [await self.step(storage, kind, *args, depth=depth) for kind, *args in steps]

    async def step(self, storage: Storage, kind: str, *args: Any, depth: int) -> Any:
        if kind == "transaction":
            return await self.transaction(storage, *args, depth=depth)
        if kind == "nested":
            return await self.nested(*args, depth=depth)
        if kind == "sync":
            # Refused in parts of an event, and without an end while commits are held.
            return None if depth else await storage.sync()
        if kind == "list":
            return list((await storage.list(**args[0], limit=args[1])).items())
        if kind == "scan":
            found = [entry async for entry in storage.scan(**args[0])]
            return found[: args[1]]
        return await getattr(storage, kind)(*args)

    async def transaction(self, storage: Storage, steps: list[Op], fails: bool, *, depth: int) -> list[Any]:
        seen: list[Any] = []
        with suppress(FailedError):
            async with storage.transaction():
                seen = await self.steps(storage, steps, depth=depth + 1)
                end(fails=fails)
        return seen

    async def nested(self, steps: list[Op], fails: bool, *, depth: int) -> list[Any]:
        seen: list[Any] = []

        async def run(room: Room) -> None:
            seen.extend(await self.steps(room.ctx.storage, steps, depth=depth + 1))
            end(fails=fails)

        with suppress(FailedError):
            await self.box.call(run)
        return seen


def end(*, fails: bool) -> None:
    if fails:
        raise FailedError


async def run_event(rooms: Rooms, steps: list[Op], *, fails: bool, tasks: TaskGroup) -> list[Any]:
    """Run an event to its end, without waiting for its commit; give what it has seen."""
    seen: list[list[Any]] = []
    ended = Event()

    async def call() -> None:
        async def event(room: Room) -> None:
            await rooms.event(room, steps, seen, fails=fails, ended=ended)

        with suppress(FailedError, RuntimeClosedError):
            await rooms.box.call(event)

    tasks.start_soon(call)
    await ended.wait()
    return seen[0]


async def play(harness: Harness, faulty: FaultyBackend, program: list[Op], start: dict[str, int]) -> None:
    box = harness.parties["box"].get("a")
    await do(box, lambda storage: storage.put_many(start))
    model = Model(dict(start))
    safe: dict[str, int] | None = None
    async with create_task_group() as tasks:
        for kind, *args in program:
            if kind == "event":
                steps, fails = args
                expected = model.event(steps, fails=fails, is_held=safe is not None)
                rooms = Rooms(box, is_held=safe is not None)
                assert expected == await run_event(rooms, steps, fails=fails, tasks=tasks)
                continue
            if kind == "crash":
                # What waits behind the commit that is held is gone.
                model.state = dict(model.state if safe is None else safe)
                if safe is None:
                    await harness.settle()
                await harness.crash()
            faulty.heal()
            safe = None
            await harness.settle()
            if kind == "hold":
                faulty.hold("commit")
                safe = dict(model.state)
            elif kind == "sleep":
                await harness.put_to_sleep(box)
            elif kind == "restart":
                await harness.restart()
            assert model.state == await box.stored()
        faulty.heal()
    assert model.state == await harness.stored(box)


EVERYTHING: list[Op] = [
    (
        "event",
        [
            ("put", "ax", 1),
            ("put_many", {"by": 10, "bz": 11}),
            ("sync",),
            ("transaction", [("delete", "ax"), ("sync",)], True),
            ("nested", [("delete_many", ["by", "cz"])], True),
            ("nested", [("get", "ax"), ("get_many", ["ax", "cz"])], False),
            ("list", {"prefix": "b", "start": "b07", "end": "c", "reverse": True}, 2),
            ("scan", {}, 2),
            ("scan", {}, None),
        ],
        False,
    ),
    ("sleep",),
    ("event", [("delete_all",), ("sync",), ("put", "az", 2)], True),
    ("restart",),
    ("settle",),
    ("crash",),
    ("hold",),
    ("event", [("put", "ax", 3), ("sync",)], False),
    ("crash",),
]
"""In which everything happens that the model knows of, whatever hypothesis thinks of."""


@pytest.mark.parametrize("wrap", [BackendWrapper, PatientBackend], ids=["memory", "patient"])
@example(EVERYTHING, MANY)
@given(programs, st.sampled_from([{}, MANY, {"ax": 1, "bz": 2}]))
@examples(few=10, many=1000)
async def test_rooms_in_memory_read_what_a_dict_would(
    wrap: Callable[[StorageBackend], StorageBackend], program: list[Op], start: dict[str, int]
) -> None:
    faulty = FaultyBackend(wrap(MemoryBackend()))
    async with Harness({"box": Box}, backend=faulty, fail_on_errors=False) as harness:
        await play(harness, faulty, program, start)


@given(programs, st.sampled_from([{}, MANY, {"ax": 1, "bz": 2}]))
@examples(few=3, many=200)
async def test_rooms_on_a_file_read_what_a_dict_would(
    tmp_path_factory: pytest.TempPathFactory, program: list[Op], start: dict[str, int]
) -> None:
    faulty = FaultyBackend(make_store("file", tmp_path_factory.mktemp("rooms")))
    async with Harness({"box": Box}, backend=faulty, fail_on_errors=False) as harness:
        await play(harness, faulty, program, start)
