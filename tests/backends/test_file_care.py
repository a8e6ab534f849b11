"""The care for a file: cleared rooms are swept away, space is given back, the log stays bounded, versions move on."""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from partyroom.backends import _sqlite_care, _sqlite_schema
from partyroom.backends._sqlite_care import FileCare
from partyroom.backends._sqlite_schema import connect, open_writer
from partyroom.backends.file import FileBackend
from partyroom.errors import BackendError
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

A = RoomKey("party", "a")
B = RoomKey("party", "b")


def count(path: Path, table: str, where: str = "true") -> int:
    with closing(sqlite3.connect(path)) as connection:
        ((number,),) = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}")
        return int(number)


async def fill(backend: FileBackend, room: RoomKey, keys: int, size: int = 10) -> int:
    fence = await backend.claim(room)
    values = {f"k{number:06}": b"%d" % number * size for number in range(keys)}
    assert [None] == await backend.commit([Commit(room, fence, values, {})])
    return fence


def care_of(backend: FileBackend) -> FileCare:
    assert backend._opened is not None
    return backend._opened.store._care


async def rest(backend: FileBackend) -> None:
    """Return when the writer thread has nothing left to do."""
    await backend.commit([])
    care = care_of(backend)
    while care._sweeping or care._vacuuming or care._deleted >= _sqlite_care.DELETIONS:
        await anyio.lowlevel.checkpoint()
    await backend.commit([])
    await backend.commit([])


# --- cleared rooms -----------------------------------------------------------


@pytest.mark.anyio
async def test_a_cleared_room_is_empty_at_once_and_swept_away_later(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        fence = await fill(backend, A, 3000)
        alarm = AlarmRow(A, "n", 1)
        commit = Commit(A, fence, {"new": b"v"}, {"n": alarm}, clear=True)
        assert [None] == await backend.commit([commit])
        assert [("new", b"v")] == await backend.scan(A, KeyRange(), 9999)
        assert [alarm] == await backend.room_alarms(A)
        await rest(backend)
        assert (1, 1) == (count(path, "entries"), count(path, "rooms"))
        assert [("new", b"v")] == await backend.scan(A, KeyRange(), 9999)


@pytest.mark.anyio
async def test_a_cleared_room_that_stays_empty_is_no_room(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        fence = await fill(backend, A, 10)
        assert [None] == await backend.commit([Commit(A, fence, {}, {}, clear=True)])
        assert [] == await backend.rooms("party", KeyRange(), 10)
        await rest(backend)
        assert (0, 0) == (count(path, "entries"), count(path, "rooms"))


@pytest.mark.anyio
async def test_a_room_cleared_again_and_again_never_shows_what_it_held_before(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        for number in range(50):
            values = {f"{number}-{key}": b"v" for key in range(50)}
            assert [None] == await backend.commit([Commit(A, fence, values, {}, clear=True)])
            assert sorted(values) == [key for key, _ in await backend.scan(A, KeyRange(), 999)]


@pytest.mark.anyio
async def test_commits_of_other_rooms_wait_for_one_small_piece_of_a_sweep_only(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fences = {A: await fill(backend, A, 5000), B: await backend.claim(B)}
        assert [None] == await backend.commit([Commit(A, fences[A], {}, {}, clear=True)])
        care = care_of(backend)
        assert [None] == await backend.commit([Commit(B, fences[B], {"k": b"v"}, {})])
        assert care._sweeping
        await rest(backend)
        assert {"k": b"v"} == await backend.read(B, ["k"])


@pytest.mark.anyio
async def test_a_sweep_that_was_cut_short_is_gone_on_with_by_the_next_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rooms.db"

    def nothing(_self: FileCare) -> bool:
        return False

    with monkeypatch.context() as lazy:
        lazy.setattr(FileCare, "piece", nothing)
        async with FileBackend(path) as backend:
            fence = await fill(backend, A, 500)
            await backend.commit([Commit(A, fence, {"k": b"v"}, {}, clear=True)])
    assert 501 == count(path, "entries")
    async with FileBackend(path) as backend:
        await rest(backend)
        assert 1 == count(path, "entries")
        assert [("k", b"v")] == await backend.scan(A, KeyRange(), 10)


def test_the_more_cleared_rooms_wait_the_more_is_swept_at_once(tmp_path: Path) -> None:
    with taking_care(tmp_path / "rooms.db") as (care, connection):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO rooms VALUES (?, NULL, NULL)", [(room,) for room in range(300)])
        entries = [(room, f"k{key}", b"v") for room in range(300) for key in range(20)]
        connection.executemany("INSERT INTO entries (room, key, value) VALUES (?, ?, ?)", entries)
        connection.execute("COMMIT")
        pieces = 0
        while care.piece():
            pieces += 1
        assert (0,) == connection.execute("SELECT count(*) FROM entries").fetchone()
        assert pieces < len(entries) / _sqlite_care.SWEEP_ROWS / 5


# --- space -------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("clear", [True, False])
async def test_space_is_given_back_after_deletions(tmp_path: Path, clear: bool) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        fence = await fill(backend, A, 3000, 500)
        await fill(backend, B, 10)
    full = path.stat().st_size
    assert 3_000_000 < full
    async with FileBackend(path) as backend:
        fence = await backend.claim(A)
        gone: dict[str, bytes | None] = {} if clear else {f"k{number:06}": None for number in range(3000)}
        assert [None] == await backend.commit([Commit(A, fence, gone, {}, clear=clear)])
        await rest(backend)
    assert path.stat().st_size < full / 2
    async with FileBackend(path) as backend:
        assert 10 == len(await backend.scan(B, KeyRange(), 100))


# --- the log -----------------------------------------------------------------


@pytest.mark.anyio
async def test_the_log_stays_bounded_under_constant_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_care, "LOG_BYTES", 400_000)
    monkeypatch.setattr(_sqlite_care, "LOG_PAGES", 200)
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        largest = 0
        for number in range(250):
            values = {f"k{(number * 7 + key) % 500}": b"%d" % number * 100 for key in range(20)}
            assert [None] == await backend.commit([Commit(A, fence, values, {})])
            largest = max(largest, (tmp_path / "rooms.db-wal").stat().st_size)
        # Each commit writes several pages: without a care the log would hold thousands, and the file none of the values.
        assert 0 < largest < 4096 * 1000
        assert (tmp_path / "rooms.db").stat().st_size > 100_000


@contextmanager
def taking_care(path: Path) -> Generator[tuple[FileCare, sqlite3.Connection]]:
    connection, _ = open_writer(str(path), "full")
    with closing(connection):
        care = FileCare(connection, str(path), "full")
        yield care, connection
        care.end()


def backfilled(path: Path) -> tuple[int, int]:
    """Give how many pages of the log were moved, and how many there are, as SQLite's shared memory has it."""
    # https://sqlite.org/walformat.html#the_wal_index_header: mxFrame and nBackfill.
    shared = Path(f"{path}-shm").read_bytes()
    ((pages,), (moved,)) = struct.unpack_from("=I", shared, 16), struct.unpack_from("=I", shared, 96)
    return moved, pages


def write_pages(connection: sqlite3.Connection, care: FileCare, pages: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('much', ?)", (bytes(4096 * pages),))
    care.note(rows=1, size=4096 * pages)


def test_what_was_moved_is_never_moved_beside_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite up to 3.51.2 loses commits where that meets a commit which begins the log anew.
    path, seen = tmp_path / "rooms.db", list[tuple[int, int]]()
    begun, go_on = threading.Event(), threading.Event()
    move = _sqlite_care._move_log

    def move_later(*arguments: Any) -> None:
        seen.append(backfilled(path))
        begun.set()
        assert go_on.wait(10)
        seen.append(backfilled(path))
        move(*arguments)

    monkeypatch.setattr(_sqlite_care, "_move_log", move_later)
    monkeypatch.setattr(_sqlite_care, "LOG_BYTES", 400_000)
    monkeypatch.setattr(_sqlite_care, "LOG_PAGES", 50)
    with taking_care(path) as (care, connection):
        write_pages(connection, care, 100)
        moved, pages = backfilled(path)
        assert moved == pages > 100
        assert not care.piece()
        assert begun.wait(10)
        # While another is to move it, the writer does not, and begins nothing anew.
        write_pages(connection, care, 100)
        assert not care.piece()
        go_on.set()
        care.end()
        assert 2 == len(seen)
        assert all(moved < pages for moved, pages in seen)
        assert seen[0][1] + 100 <= seen[1][1]
        # From here on it is the writer's again, until as much was written once more.
        monkeypatch.setattr(_sqlite_care, "LOG_BYTES", 10_000_000)
        assert not care.piece()
        write_pages(connection, care, 100)
        moved, pages = backfilled(path)
        assert moved == pages


def test_where_no_thread_is_to_be_had_the_log_is_left_to_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with taking_care(tmp_path / "rooms.db") as (care, _connection):
        care.note(rows=100_000, size=0)
        monkeypatch.setattr("threading.Thread.start", refuse)
        assert not care.piece()


def test_a_log_that_cannot_be_moved_stays(tmp_path: Path) -> None:
    with taking_care(tmp_path / "rooms.db") as (care, connection):
        connection.execute("INSERT INTO meta VALUES ('more', 1)")
        _sqlite_care._move_log(str(tmp_path / "nowhere" / "rooms.db"), "full")
        assert not care.piece()


def test_care_that_fails_is_put_off_and_leaves_commits_durable(tmp_path: Path) -> None:
    with taking_care(tmp_path / "rooms.db") as (care, connection):
        connection.execute("INSERT INTO rooms VALUES (1, NULL, NULL)")
        care.note(rows=1, size=0, cleared=True)
        with closing(connect(str(tmp_path / "rooms.db"))) as shell:
            connection.execute("PRAGMA busy_timeout = 1")
            shell.execute("BEGIN IMMEDIATE")
            assert not care.piece()
        assert (2,) == connection.execute("PRAGMA synchronous").fetchone()
        assert care.piece()
        assert not care.piece()
        assert (2,) == connection.execute("PRAGMA synchronous").fetchone()


# --- versions ----------------------------------------------------------------

VERSION_1 = """
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
    INSERT INTO meta VALUES ('epoch', 7);
    CREATE TABLE rooms (number INTEGER PRIMARY KEY, party TEXT, id TEXT, UNIQUE (party, id));
    INSERT INTO rooms VALUES (3, 'party', 'a'), (4, NULL, NULL);
    CREATE TABLE entries (
        place INTEGER PRIMARY KEY, room INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (room, key)
    );
    INSERT INTO entries VALUES (9, 3, 'k', x'76'), (10, 4, 'swept', x'77');
    CREATE TABLE alarms (
        party TEXT, id TEXT, name TEXT, due INTEGER, data BLOB NOT NULL, PRIMARY KEY (party, id, name)
    ) WITHOUT ROWID;
    CREATE INDEX alarms_due ON alarms (due, party, id, name) WHERE due IS NOT NULL;
    CREATE INDEX alarms_parked ON alarms (party, id, name) WHERE due IS NULL;
    INSERT INTO alarms VALUES ('party', 'b', '', 5, x'00'), ('party', 'b', 'parked', NULL, x'01');
    PRAGMA application_id = 1347571533;
    PRAGMA user_version = 1;
"""


def make(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.mark.anyio
@pytest.mark.parametrize("script", [VERSION_1])
async def test_a_file_of_each_earlier_version_opens_with_all_that_it_holds(tmp_path: Path, script: str) -> None:
    make(tmp_path / "rooms.db", script)
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert 8 << 40 < await backend.claim(A)
        assert ["a", "b"] == await backend.rooms("party", KeyRange(), 10)
        assert [("k", b"v")] == await backend.scan(A, KeyRange(), 10)
        assert [AlarmRow(B, "", 5, b"\0"), AlarmRow(B, "parked", None, b"\1")] == await backend.room_alarms(B)
        await rest(backend)
    assert 1 == count(tmp_path / "rooms.db", "entries")


def test_a_new_file_is_what_a_file_of_the_latest_version_is(tmp_path: Path) -> None:
    def shape(path: Path) -> set[str]:
        with closing(sqlite3.connect(path)) as connection:
            return {" ".join(sql.split()) for (sql,) in connection.execute("SELECT sql FROM sqlite_schema") if sql}

    make(tmp_path / "kept.db", VERSION_1)
    connection, _ = open_writer(str(tmp_path / "new.db"), "full")
    connection.close()
    assert shape(tmp_path / "kept.db") == shape(tmp_path / "new.db")


def steps(*more: object) -> Iterable[object]:
    return (*_sqlite_schema.MIGRATIONS, *more)


def test_a_migration_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE second (x)")

    make(tmp_path / "rooms.db", VERSION_1)
    monkeypatch.setattr(_sqlite_schema, "MIGRATIONS", steps(second))
    monkeypatch.setattr(_sqlite_schema, "VERSION", 2)
    for _ in range(2):
        connection, _ = open_writer(str(tmp_path / "rooms.db"), "full")
        with closing(connection):
            assert (2,) == connection.execute("PRAGMA user_version").fetchone()
            assert [] == connection.execute("SELECT * FROM second").fetchall()


def test_a_migration_that_fails_leaves_the_file_at_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE second (x)")
        connection.execute("CREATE TABLE entries (x)")

    make(tmp_path / "rooms.db", VERSION_1)
    with monkeypatch.context() as newer:
        newer.setattr(_sqlite_schema, "MIGRATIONS", steps(second))
        newer.setattr(_sqlite_schema, "VERSION", 2)
        with pytest.raises(BackendError, match="table entries already exists"):
            open_writer(str(tmp_path / "rooms.db"), "full")
    connection, epoch = open_writer(str(tmp_path / "rooms.db"), "full")
    with closing(connection):
        assert (1, 8) == (*connection.execute("PRAGMA user_version").fetchone(), epoch)
        assert 0 == count(tmp_path / "rooms.db", "sqlite_schema", "name = 'second'")
