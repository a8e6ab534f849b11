"""A disk that is really full: whoever needs space is told, nobody else notices, and all goes on when there is space again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from io import RawIOBase
from pathlib import Path

import anyio
import attrs
import pytest

from partyroom import Alarm, JsonCodec, Room, RoomHandle, Runtime
from partyroom.backends.file import FileBackend
from partyroom.errors import BackendError, BackendFullError, CommitError, ConnectionClosedError, RoomBrokenError
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("diary", "a")
B = RoomKey("diary", "b")
C = RoomKey("diary", "c")

LARGE = 1024 * 1024
LITTLE = 256 * 1024
"""Space for what is small, and for nothing large."""

needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="a disk of one's own takes Linux and root"
)


@attrs.frozen
class Disk:
    """A place for a file, with an end to it."""

    path: Path
    full: Callable[[FileBackend, int], AbstractContextManager[None]]
    """Leave the file so many bytes to grow by, until the end of the block."""


@contextmanager
def mounted(folder: Path) -> Generator[Disk]:
    """Give a disk of 8 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder / "rooms.db", lambda _, left: filled(folder / "filler", left))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(file: RawIOBase) -> None:
    while True:
        file.write(bytes(4096))


@contextmanager
def filled(filler: Path, left: int) -> Generator[None]:
    """Fill a disk with a file."""
    with filler.open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left on device"):
            fill(file)
        file.truncate(file.tell() - left)
    yield
    filler.unlink()


@contextmanager
def limited(backend: FileBackend, left: int) -> Generator[None]:
    """Let a file grow by so many pages and no more: SQLite tells the same as when the disk is full."""
    assert backend._opened is not None
    connection = backend._opened.store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + left // 4096}")
    yield
    connection.execute("PRAGMA max_page_count = 1000000")


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Disk]:
    with mounted(tmp_path) as disk:
        yield disk


@pytest.fixture(params=[pytest.param("mounted", marks=needs_mount), "limited"])
def disk(request: pytest.FixtureRequest) -> Disk:
    if request.param == "mounted":
        found: Disk = request.getfixturevalue("small_disk")
        return found
    path: Path = request.getfixturevalue("tmp_path")
    return Disk(path / "rooms.db", limited)


def is_full(error: BaseException | None, path: Path) -> bool:
    """Say whether a commit was refused for want of space, in words that name the file."""
    assert isinstance(error, CommitError)
    assert isinstance(error.__cause__, BackendFullError)
    return f"{path}: there is no space left" in str(error)


# --- the backend -------------------------------------------------------------


async def claims(backend: FileBackend) -> dict[RoomKey, int]:
    return {room: await backend.claim(room) for room in (A, B, C)}


async def test_of_a_group_what_does_not_fit_is_refused_and_nothing_else(disk: Disk) -> None:
    async with FileBackend(disk.path) as backend:
        fences = await claims(backend)
        large = Commit(B, fences[B], {"k": b"x" * LARGE}, {"n": AlarmRow(B, "n", 1)})
        group = [Commit(A, fences[A], {"k": b"1"}, {}), large, Commit(C, fences[C], {"k": b"2"}, {})]
        with disk.full(backend, LITTLE):
            first, second, third = await backend.commit(group)
            assert is_full(second, disk.path)
            assert (None, None) == (first, third)
            assert {"k": b"1"} == await backend.read(A, ["k"])
            assert [] == await backend.due_alarms(None, None, 10)
            assert [None] == await backend.commit([Commit(A, fences[A], {"k": b"3"}, {})])
        assert [None] == await backend.commit([large])
    async with FileBackend(disk.path) as backend:
        assert [b"3", b"x" * LARGE, b"2"] == [(await backend.read(room, ["k"]))["k"] for room in fences]


@needs_mount
async def test_without_any_space_all_commits_are_refused_and_reads_go_on(small_disk: Disk) -> None:
    async with FileBackend(small_disk.path) as backend:
        fences = await claims(backend)
        assert [None] == await backend.commit([Commit(A, fences[A], {"k": b"1"}, {})])
        group = [Commit(room, fence, {"k": b"2", "l": b"2"}, {}) for room, fence in fences.items()]
        with small_disk.full(backend, 0):
            for _ in range(3):
                assert all(is_full(answer, small_disk.path) for answer in await backend.commit(group))
                assert [("k", b"1")] == await backend.scan(A, KeyRange(), 10)
        assert [None] * 3 == await backend.commit(group)
        assert [("k", b"2"), ("l", b"2")] == await backend.scan(A, KeyRange(), 10)


@needs_mount
async def test_a_full_disk_keeps_no_file_from_being_left_and_opened_when_there_is_space(small_disk: Disk) -> None:
    async with FileBackend(small_disk.path) as backend:
        fences = await claims(backend)
        assert [None] == await backend.commit([Commit(A, fences[A], {"k": b"x" * LARGE}, {})])
        full = small_disk.full(backend, 0)
        full.__enter__()
    for path in (small_disk.path, small_disk.path.with_name("new.db")):
        with pytest.raises(BackendError, match=f"{path}: .*(space|failed)"):
            await FileBackend(path).__aenter__()
    full.__exit__(None, None, None)
    async with FileBackend(small_disk.path) as again:
        assert {"k": b"x" * LARGE} == await again.read(A, ["k"])
    async with FileBackend(small_disk.path.with_name("new.db")) as new:
        assert [] == await new.rooms("diary", KeyRange(), 10)


# --- the engine --------------------------------------------------------------


class Diary(Room):
    """Remembers in memory what it wrote, as rooms may."""

    text: str | None = None

    async def write(self, text: str) -> None:
        self.text = text
        await self.ctx.storage.put("text", text)
        await self.ctx.storage.set_alarm(timedelta(days=30), name=text[:5])
        self.ctx.broadcast(text[:5])

    async def remember(self) -> tuple[str | None, dict[str, str], list[str | None]]:
        """Give what is remembered, what is stored, and the names of the alarms."""
        alarms = [alarm.name for alarm in await self.ctx.storage.list_alarms()]
        return self.text, await self.ctx.storage.list(), alarms

    async def ring(self) -> None:
        await self.ctx.storage.set_alarm(timedelta(), name="now")

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.put("rung", "x" * LARGE)


FRESH = (None, {"text": "first"}, ["first"])
"""A room that was woken anew, and has what it stored before the disk was full."""


@asynccontextmanager
async def diaries(disk: Disk) -> AsyncGenerator[tuple[Runtime, FileBackend, list[RoomHandle]]]:
    """Run three rooms, each of which has written something small."""
    backend = FileBackend(disk.path)
    async with Runtime({"diary": Diary}, backend=backend, alarms="manual") as runtime:
        rooms = [runtime.parties[room.party].get(room.id) for room in (A, B, C)]
        for room in rooms:
            await room.call(Diary.write, "first")
        yield runtime, backend, rooms


async def write_at_once(texts: dict[RoomHandle, str]) -> dict[RoomHandle, Exception | None]:
    """Have rooms write; give what each caller was told."""
    told: dict[RoomHandle, Exception | None] = {}

    async def write(room: RoomHandle, text: str) -> None:
        try:
            await room.call(Diary.write, text)
        except RoomBrokenError as error:
            told[room] = error
        else:
            told[room] = None

    async with anyio.create_task_group() as tasks:
        for room, text in texts.items():
            tasks.start_soon(write, room, text)
    return told


async def test_only_the_room_that_needs_space_breaks_and_begins_anew(disk: Disk) -> None:
    async with diaries(disk) as (_, backend, (a, b, c)):
        with disk.full(backend, LITTLE):
            told = await write_at_once({a: "again", b: "x" * LARGE, c: "again"})
            error = told.pop(b)
            assert {a: None, c: None} == told
            assert isinstance(error, RoomBrokenError)
            assert is_full(error.__cause__, disk.path)
            assert FRESH == await b.call(Diary.remember)
            assert ("again", {"text": "again"}, ["first", "again"]) == await a.call(Diary.remember)
            await b.call(Diary.write, "small")
        await b.call(Diary.write, "x" * LARGE)
    async with FileBackend(disk.path) as stored:
        assert ["again", "x" * LARGE, "again"] == [
            JsonCodec().decode((await stored.read(room, ["text"]))["text"]) for room in (A, B, C)
        ]
        assert ["first", "small", "xxxxx"] == [alarm.name for alarm in await stored.room_alarms(B)]


async def test_clients_of_a_room_that_broke_see_nothing_of_the_event_and_are_closed(disk: Disk) -> None:
    async with diaries(disk) as (_, backend, (a, b, _)), a.connect() as other, b.connect() as client:
        with disk.full(backend, LITTLE):
            await write_at_once({a: "again", b: "x" * LARGE})
            with pytest.raises(ConnectionClosedError) as caught:
                await client.receive()
            assert 1011 == caught.value.code
            assert "again" == await other.receive()


@needs_mount
async def test_without_any_space_every_room_that_writes_breaks_and_every_room_reads(small_disk: Disk) -> None:
    async with diaries(small_disk) as (_, backend, rooms):
        with small_disk.full(backend, 0):
            for _ in range(3):
                told = await write_at_once(dict.fromkeys(rooms, "second" * 1000))
                assert [RoomBrokenError] * 3 == [type(error) for error in told.values()]
                assert [FRESH] * 3 == [await room.call(Diary.remember) for room in rooms]
        assert [None] * 3 == list((await write_at_once(dict.fromkeys(rooms, "third"))).values())
        assert [{"text": "third"}] * 3 == [await room.stored() for room in rooms]


async def test_an_alarm_whose_ring_could_not_be_stored_rings_again(disk: Disk) -> None:
    async with diaries(disk) as (runtime, backend, (_, room, _)):
        with disk.full(backend, LITTLE):
            await room.call(Diary.ring)
            for _ in range(2):
                report = await runtime.ring_due()
                (failure,) = report.failed
                assert isinstance(failure.error, RoomBrokenError)
                assert is_full(failure.error.__cause__, disk.path)
                assert [("now", 0), ("first", 0)] == [
                    (alarm.name, alarm.retry_count) for alarm in await room.list_alarms()
                ]
        assert 1 == (await runtime.ring_due()).rung
        assert {"text": "first", "rung": "x" * LARGE} == await room.stored()
        assert ["first"] == [alarm.name for alarm in await room.list_alarms()]


@needs_mount
async def test_a_runtime_is_left_in_order_while_the_disk_is_full(small_disk: Disk) -> None:
    async with diaries(small_disk) as (_, backend, (room, _, _)):
        await room.call(Diary.write, "x" * LARGE)
        full = small_disk.full(backend, 0)
        full.__enter__()
    full.__exit__(None, None, None)
    async with FileBackend(small_disk.path) as stored:
        assert LARGE < len((await stored.read(A, ["text"]))["text"])
