"""Reads of a file: one state each, in slices that let the loop run, and in time that depends on what is asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest

from partyroom.backends import _sqlite_schema
from partyroom.backends._sqlite_reader import MAX_KEYS, SLICE_ROWS
from partyroom.backends.file import FileBackend
from partyroom.errors import BackendClosedError, BackendError
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
B = RoomKey("party", "b")
Ask: TypeAlias = Callable[[FileBackend], Awaitable[object]]
MANY = 10 * SLICE_ROWS
KEYS = [f"k{number:05}" for number in range(MANY)]


async def fill(backend: FileBackend, room: RoomKey, value: bytes) -> int:
    fence = await backend.claim(room)
    assert [None] == await backend.commit([Commit(room, fence, dict.fromkeys(KEYS, value), {})])
    return fence


async def turns_during(backend: FileBackend, limit: int) -> int:
    """Count how often the loop runs something else during a scan."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await anyio.lowlevel.checkpoint()
        await backend.scan(A, KeyRange(), limit)
        tasks.cancel_scope.cancel()
    return turns


async def test_a_long_answer_lets_the_loop_run_after_every_slice(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await fill(backend, A, b"v")
        assert 9 <= await turns_during(backend, MANY)
        assert 2 >= await turns_during(backend, SLICE_ROWS - 1)


async def test_large_values_let_the_loop_run_more_often(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        values = {f"k{number}": b"v" * 2**20 for number in range(8)}
        await backend.commit([Commit(A, await backend.claim(A), values, {})])
        assert 7 <= await turns_during(backend, 8)


async def test_a_long_answer_shows_one_state_and_a_later_read_the_next(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await fill(backend, A, b"old")
        found: list[tuple[str, bytes]] = []
        read: dict[str, bytes] = {}

        async def scan() -> None:
            found.extend(await backend.scan(A, KeyRange(), MANY))

        async def read_all() -> None:
            read.update(await backend.read(A, KEYS))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scan)
            tasks.start_soon(read_all)
            # Both have read their first slice, and hold on to what they saw.
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            await backend.commit([Commit(A, fence, dict.fromkeys(KEYS, b"new"), {})])
            assert {KEYS[0]: b"new"} == await backend.read(A, [KEYS[0]])
        for values in ({value for _, value in found}, set(read.values())):
            assert 1 == len(values)
        assert MANY == len(found) == len(read)


@pytest.mark.parametrize("count", [0, 1, 2, 3, MAX_KEYS, MAX_KEYS + 1, 5 * MAX_KEYS])
async def test_any_number_of_keys_is_read(tmp_path: Path, count: int) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await fill(backend, A, b"v")
        wanted = [*KEYS[:count], *(f"missing {number}" for number in range(count))]
        assert dict.fromkeys(KEYS[:count], b"v") == await backend.read(A, wanted)
        assert {} == await backend.read(B, wanted)


async def test_a_cancelled_read_gives_its_connection_back(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await fill(backend, A, b"old")
        for _ in range(5):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await backend.scan(A, KeyRange(), MANY)
            assert scope.cancelled_caught
        await backend.commit([Commit(A, fence, dict.fromkeys(KEYS, b"new"), {})])
        assert {b"new"} == {value for _, value in await backend.scan(A, KeyRange(), MANY)}
        assert backend._opened is not None
        assert 1 == len(backend._opened.reader._all)


@pytest.mark.parametrize(
    "ask",
    [
        lambda backend: backend.read(A, ["k"]),
        lambda backend: backend.read(A, ["k", "l"]),
        lambda backend: backend.scan(A, KeyRange(), 1),
    ],
    ids=["one key", "keys", "range"],
)
async def test_a_read_that_fails_leaves_no_connection_behind(tmp_path: Path, ask: Ask) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert backend._opened is not None
        await backend.commit([Commit(A, await backend.claim(A), {"k": b"v"}, {})])
        found = await ask(backend)
        with closing(sqlite3.connect(tmp_path / "rooms.db", isolation_level=None)) as other:
            other.execute("ALTER TABLE entries RENAME TO hidden")
            for _ in range(3):
                with pytest.raises(BackendError, match="no such table"):
                    await ask(backend)
            assert [] == backend._opened.reader._all
            other.execute("ALTER TABLE hidden RENAME TO entries")
        assert found == await ask(backend)


async def test_a_read_that_outlives_the_file_says_so(tmp_path: Path) -> None:
    backend = await FileBackend(tmp_path / "rooms.db").__aenter__()
    await fill(backend, A, b"v")
    told = 0

    async def scan() -> None:
        nonlocal told
        with pytest.raises(BackendClosedError, match=r"rooms\.db was closed meanwhile"):
            await backend.scan(A, KeyRange(), MANY)
        told += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scan)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        await backend.__aexit__(None, None, None)
    assert 1 == told
    async with backend:
        assert MANY == len(await backend.scan(A, KeyRange(), MANY))


async def test_no_question_sorts_or_reads_more_than_it_gives(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await backend.claim(A)
        asked: list[str] = []
        assert backend._opened is not None
        await backend.read(A, ["k"])
        (connection,) = backend._opened.reader._all
        connection.set_trace_callback(asked.append)
        await backend.read(A, ["k", "l"])
        await backend.scan(A, KeyRange("a", "b", reverse=True), 5)
        await backend.scan(A, KeyRange(), 5)
        await backend.room_alarms(A)
        await backend.rooms("party", KeyRange(), 5)
        await backend.due_alarms(9, AlarmCursor(5, A, "n"), 5)
        await backend.due_alarms(None, None, 5)
        await backend.parked_alarms("party", ("a", "n"), 5)
        await backend.parked_alarms("party", None, 5)
        connection.set_trace_callback(None)
        selects = [question for question in asked if question.startswith("SELECT")]
        assert 9 == len(selects)
        for question in selects:
            plan = " / ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {question}"))
            assert "B-TREE" not in plan, question
            assert "SCAN" not in plan.replace("SCAN alarms USING INDEX", ""), question


async def test_alarms_and_ids_are_read_in_slices_too(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        rooms = [RoomKey("party", f"{number:04}") for number in range(2 * SLICE_ROWS)]
        rows = [AlarmRow(room, "", number, b"data") for number, room in enumerate(rooms)]
        await backend.commit([Commit(row.room, await backend.claim(row.room), {}, {"": row}) for row in rows])
        assert rows == await backend.due_alarms(None, None, 9999)
        assert [room.id for room in rooms] == await backend.rooms("party", KeyRange(), 9999)


async def test_sqlite_itself_may_be_used_beside(tmp_path: Path) -> None:
    # Closing a handle of a file drops its locks on some systems, unless it was SQLite that opened it.
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await fill(backend, A, b"v")
        for number in range(3):
            sqlite3.connect(tmp_path / "rooms.db").close()
            assert [None] == await backend.commit([Commit(A, fence, {"k": b"%d" % number}, {})])
            assert {"k": b"%d" % number} == await backend.read(A, ["k"])


class Refusing:
    """A connection that takes no statement."""

    is_closed = False

    def execute(self, _statement: str) -> None:
        message = "disk I/O error"
        raise sqlite3.OperationalError(message)

    def close(self) -> None:
        self.is_closed = True


def test_a_reading_connection_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing()
    monkeypatch.setattr(_sqlite_schema, "connect", lambda _path: refusing)
    with pytest.raises(BackendError, match="disk I/O error"):
        _sqlite_schema.open_reader("rooms.db")
    assert refusing.is_closed
