"""Groups of commits in a file: whatever way they take into it, they take effect in order."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from partyroom.backends import _sqlite_writer
from partyroom.backends._sqlite_writer import SqliteWriter
from partyroom.backends.file import FileBackend
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
B = RoomKey("party", "b")


async def holds(backend: FileBackend, room: RoomKey, **values: bytes) -> None:
    assert sorted(values.items()) == await backend.scan(room, KeyRange(), 9999)
    assert bool(values) == (room.id in await backend.rooms(room.party, KeyRange(), 9999))


def known(backend: FileBackend) -> set[RoomKey]:
    assert backend._opened is not None
    return backend._opened.store._known


@pytest.mark.parametrize("again", [False, True])
async def test_the_last_put_of_a_key_counts(tmp_path: Path, again: bool) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        if again:
            await backend.commit([Commit(A, fence, {"k": b"0"}, {})])
        puts = [Commit(A, fence, {"k": b"%d" % number}, {}) for number in range(20)]
        assert [None] * 20 == await backend.commit(puts)
        await holds(backend, A, k=b"19")


async def test_a_room_that_was_emptied_is_there_again_with_its_next_put(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        put, delete = Commit(A, fence, {"k": b"v"}, {}), Commit(A, fence, {"k": None}, {})
        clear = Commit(A, fence, {}, {}, clear=True)
        for emptied in (delete, clear):
            await backend.commit([put])
            assert {A} == known(backend)
            await backend.commit([put._replace(values={"l": b"w"})])
            await holds(backend, A, k=b"v", l=b"w")
            await backend.commit([emptied, put._replace(values={"l": None})])
            assert set() == known(backend)
            await holds(backend, A)
            await backend.commit([put])
            await holds(backend, A, k=b"v")


async def test_a_group_of_puts_and_one_of_all_kinds_end_alike(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fences = {room: await backend.claim(room) for room in (A, B)}
        for number in range(10):
            value = b"%d" % number
            alarms = {"n": AlarmRow(B, "n", number)} if number % 3 == 0 else {"n": None}
            group = [
                Commit(A, fences[A], {"k": value, f"k{number}": value}, {}),
                Commit(B, fences[B], {"k": value}, alarms if number % 2 == 0 else {}),
            ]
            assert [None, None] == await backend.commit(group)
            assert {"k": value, f"k{number}": value} == await backend.read(A, ["k", f"k{number}"])
            assert {"k": value} == await backend.read(B, ["k"])


async def test_a_room_that_another_program_deleted_is_made_again(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fences = {room: await backend.claim(room) for room in (A, B)}
        group = [Commit(room, fence, {"k": b"v"}, {}) for room, fence in fences.items()]
        await backend.commit(group)
        with closing(sqlite3.connect(tmp_path / "rooms.db")) as shell:
            shell.execute("DELETE FROM entries WHERE room = (SELECT number FROM rooms WHERE id = 'a')")
            shell.execute("DELETE FROM rooms WHERE id = 'a'")
            shell.commit()
        assert [None, None] == await backend.commit(group)
        await holds(backend, A, k=b"v")
        await holds(backend, B, k=b"v")


async def test_rooms_that_are_too_many_to_be_known_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_writer, "MAX_KNOWN", 3)
    async with FileBackend(tmp_path / "rooms.db") as backend:
        for number in range(10):
            room = RoomKey("party", f"{number}")
            fence = await backend.claim(room)
            for value in (b"v", b"w"):
                assert [None] == await backend.commit([Commit(room, fence, {"k": value}, {})])
            await holds(backend, room, k=b"w")
            assert 4 >= len(known(backend))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 100, 2047, 2048, 2049])
async def test_any_number_of_rows_is_one_group(tmp_path: Path, count: int) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        for value in (b"v", b"w"):
            values = {f"k{number:05}": value for number in range(count)}
            assert [None] == await backend.commit([Commit(A, fence, values, {})])
            await holds(backend, A, **values)


async def test_no_text_is_taken_for_another(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        rooms = [RoomKey("1", "01"), RoomKey("01", "1"), RoomKey("", "x"), RoomKey("x", "")]
        for _ in range(2):
            for room in rooms:
                values = {text: repr((room, text)).encode() for text in ("1", "01", "1.0", "", "\0", "a\0b")}
                assert [None] == await backend.commit([Commit(room, await backend.claim(room), values, {})])
        for room in rooms:
            found = await backend.scan(room, KeyRange(), 99)
            assert [(text, repr((room, text)).encode()) for text in ("", "\0", "01", "1", "1.0", "a\0b")] == found


async def test_many_deletions_are_several_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one statement, half a gigabyte of values took as much memory and three times as long."""
    execute, rows = SqliteWriter._execute, list[int]()

    def count(writer: SqliteWriter, statement: str, columns: int, cells: list[object]) -> None:
        rows.append(len(cells) // columns)
        execute(writer, statement, columns, cells)

    monkeypatch.setattr(SqliteWriter, "_execute", count)
    keys = [f"{number:03}" for number in range(600)]
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        await backend.commit([Commit(A, fence, dict.fromkeys(keys, b"v"), {})])
        assert [None] == await backend.commit([Commit(A, fence, dict.fromkeys(keys), {})])
        await holds(backend, A)
    assert [600, 256, 256, 88] == rows
