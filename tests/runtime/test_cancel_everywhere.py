"""Cancel everywhere: a host that is cancelled at its k-th checkpoint, for every k, leaves all of an event or nothing.

From entering the runtime to leaving it: after each cancellation the same store is
opened again, by a fresh runtime, and has to make sense.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope
from typing_extensions import override

from partyroom import Alarm, Connection, Room, Runtime, StorageBackend
from partyroom.errors import RoomAbortedError
from tests.runtime.boxes import STORES, make_store

pytestmark = pytest.mark.anyio

MONTH = timedelta(days=30)


class Steps:
    """Runs a coroutine, and has ``stop`` called at its ``nth`` checkpoint, from 1."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], nth: int, stop: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._nth = nth
        self._stop = stop
        self.taken = 0

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                told = step(value)
            except StopIteration:
                return
            self.taken += 1
            if self.taken == self._nth:
                self._stop()
            try:
                step, value = self._coroutine.send, (yield told)
            except BaseException as error:
                step, value = self._coroutine.throw, error


class Diary(Room):
    """Each of its events writes a line, how many lines there are, and an alarm of the line's name."""

    hibernate = True

    async def note(self, line: str) -> str:
        lines: list[str] = await self.ctx.storage.get("lines", [])
        await self.ctx.storage.put("lines", [*lines, line])
        await self.ctx.storage.set_alarm(MONTH, name=line)
        await self.ctx.storage.put("count", len(lines) + 1)
        return line

    async def note_twice(self, line: str) -> str:
        await self.note(f"{line}, begun")
        async with self.ctx.storage.transaction():
            return await self.note(f"{line}, ended")

    async def note_in_stages(self, line: str) -> str:
        await self.note(f"{line}, announced")
        await self.ctx.storage.sync()
        return await self.note(line)

    async def note_there_first(self, other: str, line: str) -> str:
        await self.ctx.parties["diary"].get(other).call(Diary.note, line)
        return await self.note(line)

    async def note_back(self, other: str, line: str) -> str:
        return await self.ctx.parties["diary"].get(other).call(Diary.note_there_first, self.ctx.id, line)

    async def cut_at(self, nth: int, method: Callable[..., Coroutine[Any, Any, Any]], *args: str) -> int:
        """Run a method, and end the event at its ``nth`` checkpoint; give how many it had, if it had fewer."""

        def cut() -> None:
            with suppress(RoomAbortedError):
                self.ctx.abort("cut")

        steps = Steps(method(self, *args), nth, cut)
        await steps
        return steps.taken

    async def on_alarm(self, alarm: Alarm) -> None:
        """Take an alarm; in these tests none comes near."""

    async def on_connect(self, connection: Connection) -> None:
        await self.note(f"{connection.id} comes")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.send(await self.note(str(message)))

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        await self.note(f"{connection.id} goes")


Told = list[tuple[str, str]]
"""Rooms, and lines that they said were stored."""


async def call(runtime: Runtime, told: Told) -> None:
    room = runtime.parties["diary"].get("a")
    told.append(("a", await room.call(Diary.note, "first")))
    told.append(("a", await room.call(Diary.note_twice, "second")))
    told.append(("a", await room.call(Diary.note_in_stages, "third")))


async def call_across(runtime: Runtime, told: Told) -> None:
    room = runtime.parties["diary"].get("a")
    told.append(("a", await room.call(Diary.note_there_first, "b", "there and here")))
    told.append(("b", await room.call(Diary.note_back, "b", "there and back")))


async def talk(runtime: Runtime, told: Told) -> None:
    async with runtime.parties["diary"].get("a").connect(id="ann") as client:
        told.append(("a", "ann comes"))
        for message in ("hi", "ho"):
            await client.send(message)
            told.append(("a", str(await client.receive())))


async def read_and_steer(runtime: Runtime, told: Told) -> None:
    room = runtime.parties["diary"].get("a")
    told.append(("a", await room.call(Diary.note, "x")))
    assert {"count": 1, "lines": ["x"]} == await room.stored()
    assert await room.pause_alarm("x")
    assert await room.resume_alarm("x")
    await runtime.wait_idle()


async def check(runtime: Runtime, told: Told) -> None:
    for room_id in ("a", "b"):
        room = runtime.parties["diary"].get(room_id)
        stored = await room.stored()
        lines: list[str] = stored.get("lines", [])
        # G3, G13: of each event all of it, alarms included.
        assert len(lines) == stored.get("count", 0)
        assert sorted(lines) == sorted(str(each.name) for each in await room.list_alarms())
        assert len(set(lines)) == len(lines)
        assert ("second, begun" in lines) == ("second, ended" in lines)
        assert "third" not in lines or "third, announced" in lines
        # G4: what was told was stored.
        assert {line for told_by, line in told if told_by == room_id} <= set(lines)
        # And nothing is stuck.
        assert "at last" == await room.call(Diary.note, "at last")
    here, there = [(await runtime.parties["diary"].get(each).stored())["lines"] for each in "ab"]
    # Rooms are not atomic together, but a call comes before what follows it.
    assert "there and here" not in here or "there and here" in there
    assert "there and back" not in there or "there and back" in here


@pytest.mark.parametrize("scenario", [call, call_across, talk, read_and_steer])
@pytest.mark.parametrize("store", STORES)
async def test_a_host_that_is_cancelled_at_any_checkpoint_leaves_all_of_an_event_or_nothing(
    scenario: Callable[[Runtime, Told], Awaitable[None]], store: str, tmp_path: Path
) -> None:
    nth = taken = 0
    while taken >= nth:
        nth += 1
        folder = tmp_path / f"{nth}"
        folder.mkdir()
        backend = make_store(store, folder)
        told: Told = []
        with CancelScope() as scope:
            steps = Steps(_live(backend, scenario, told), nth, scope.cancel)
            await steps
        async with Runtime({"diary": Diary}, backend=backend) as runtime:
            await check(runtime, told)
        taken = steps.taken
    print(scenario.__name__, store, "cancelled at", nth - 1, "checkpoints")  # noqa: T201 - the counts are to be seen
    assert nth > 3


async def _live(backend: StorageBackend, scenario: Callable[[Runtime, Told], Awaitable[None]], told: Told) -> None:
    async with Runtime({"diary": Diary}, backend=backend) as runtime:
        await scenario(runtime, told)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        (Diary.note, ["first"]),
        (Diary.note_twice, ["second"]),
        (Diary.note_in_stages, ["third"]),
        (Diary.note_there_first, ["b", "there and here"]),
        (Diary.note_back, ["b", "there and back"]),
    ],
)
@pytest.mark.parametrize("store", STORES)
async def test_an_event_that_is_ended_at_any_of_its_checkpoints_is_stored_whole_or_not_at_all(
    method: Callable[..., Coroutine[Any, Any, Any]], args: list[str], store: str, tmp_path: Path
) -> None:
    nth, taken = 0, None
    while taken is None or taken >= nth:
        nth += 1
        folder = tmp_path / f"{nth}"
        folder.mkdir()
        backend = make_store(store, folder)
        taken = None
        async with Runtime({"diary": Diary}, backend=backend) as runtime:
            with suppress(RoomAbortedError):
                taken = await runtime.parties["diary"].get("a").call(Diary.cut_at, nth, method, *args)
        async with Runtime({"diary": Diary}, backend=backend) as runtime:
            await check(runtime, [])
    print(method.__name__, store, "cut at", nth - 1, "checkpoints")  # noqa: T201 - the counts are to be seen
    assert store != "patient" or nth > 1
