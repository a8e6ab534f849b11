"""Faults of a file: each a clear error about which file, and the backend goes on when the fault is gone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from partyroom._core.instants import HIGHEST, LOWEST
from partyroom.backends import _sqlite_schema
from partyroom.backends._file_view import FileView
from partyroom.backends._sqlite_schema import VERSION
from partyroom.backends.file import FileBackend
from partyroom.errors import (
    BackendCorruptError,
    BackendError,
    BackendFullError,
    BackendLockedError,
    BackendReadOnlyError,
    BackendVersionError,
    CommitError,
)
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
B = RoomKey("party", "b")
C = RoomKey("party", "c")


async def put(backend: FileBackend, room: RoomKey = A, **values: bytes) -> CommitError | None:
    (answer,) = await backend.commit([Commit(room, await backend.claim(room), values, {})])
    return answer


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


async def opening(path: Path) -> BackendError:
    """Give the error that opening ends in, having seen that it left the bytes as they were and no lock behind."""
    before = content(path)
    with pytest.raises(BackendError) as caught:
        await FileBackend(path).__aenter__()
    with pytest.raises(type(caught.value)):
        await FileBackend(path).__aenter__()
    assert before == content(path)
    return caught.value


# --- what cannot be opened ---------------------------------------------------


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    error = await opening(tmp_path / "nowhere" / "rooms.db")
    assert f"{tmp_path / 'nowhere' / 'rooms.db'}: its folder does not exist" == str(error)


async def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = await opening(tmp_path / "file" / "rooms.db")
    assert type(error) is BackendError
    assert str(error).startswith(f"{tmp_path / 'file' / 'rooms.db'}: ")


async def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    error = await opening(tmp_path)
    assert f"{tmp_path}: the file cannot be opened" in str(error)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "rooms.db").write_bytes(b"precious " * 1000)
    error = await opening(tmp_path / "rooms.db")
    assert type(error) is BackendCorruptError
    assert "rooms.db: the file is no database" in str(error)


@pytest.mark.parametrize("mark", ["CREATE TABLE theirs (x)", "PRAGMA user_version = 3", "PRAGMA application_id = 9"])
async def test_a_database_of_another_program(tmp_path: Path, mark: str) -> None:
    with closing(sqlite3.connect(tmp_path / "rooms.db")) as other:
        other.execute(mark)
    error = await opening(tmp_path / "rooms.db")
    assert type(error) is BackendCorruptError
    assert "rooms.db: the file is the database of another program; nothing was changed" in str(error)


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "rooms.db").touch()
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert await put(backend, k=b"v") is None


async def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "rooms.db")) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    error = await opening(tmp_path / "rooms.db")
    assert type(error) is BackendVersionError
    assert f"the file has version {VERSION + 1}, this library reads up to {VERSION}; nothing was changed" in str(error)


async def test_a_file_system_without_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite in memory is the one place at hand that has none.
    def connect(_path: str) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    monkeypatch.setattr(_sqlite_schema, "connect", connect)
    with pytest.raises(BackendError, match=r"rooms.db: its file system takes no write-ahead log; use a local disk"):
        await FileBackend(tmp_path / "rooms.db").__aenter__()


# --- what cannot be written --------------------------------------------------


@contextmanager
def nobody() -> Generator[Path]:
    """Give a folder of one's own, in a process that may not write to just anything."""
    we = os.geteuid()
    they = we or 65534
    with TemporaryDirectory() as folder:
        os.chown(folder, they, -1)
        os.seteuid(they)
        try:
            yield Path(folder)
        finally:
            Path(folder).chmod(0o700)
            os.seteuid(we)


posix_only = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files are another thing on this system")


@posix_only
async def test_a_folder_that_cannot_be_written() -> None:
    with nobody() as folder:
        folder.chmod(0o500)
        error = await opening(folder / "rooms.db")
        assert type(error) is BackendReadOnlyError
        assert f"{folder}/rooms.db: {folder}/rooms.db-lock cannot be written: Permission denied" == str(error)


@posix_only
async def test_a_file_that_cannot_be_written() -> None:
    with nobody() as folder:
        async with FileBackend(folder / "rooms.db") as backend:
            await put(backend, k=b"v")
        (folder / "rooms.db").chmod(0o400)
        error = await opening(folder / "rooms.db")
        assert type(error) is BackendReadOnlyError
        assert f"{folder}/rooms.db: the file cannot be written by this process" == str(error)
        (folder / "rooms.db").chmod(0o600)
        async with FileBackend(folder / "rooms.db") as backend:
            assert {"k": b"v"} == await backend.read(A, ["k"])


# --- faults that come and go -------------------------------------------------


def connection_of(backend: FileBackend) -> sqlite3.Connection:
    assert backend._opened is not None
    return backend._opened.store._connection


@contextmanager
def full_disk(backend: FileBackend) -> Generator[None]:
    """Let the file grow by two pages and no more: SQLite tells the same as when the disk is full."""
    connection = connection_of(backend)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    yield
    connection.execute("PRAGMA max_page_count = 1000000")


async def test_a_full_disk_refuses_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert await put(backend, small=b"v") is None
        fences = {room: await backend.claim(room) for room in (A, B, C)}
        large = Commit(B, fences[B], {"large": b"x" * 100_000}, {"n": AlarmRow(B, "n", 1)})
        with full_disk(backend):
            answers = await backend.commit(
                [Commit(A, fences[A], {"k": b"1"}, {}), large, Commit(C, fences[C], {"k": b"2"}, {})]
            )
            assert [None, None] == [answers[0], answers[2]]
            assert type(answers[1]) is CommitError
            assert type(answers[1].__cause__) is BackendFullError
            assert f"{tmp_path / 'rooms.db'}: there is no space left" in str(answers[1])
            assert {"k": b"1"} == await backend.read(A, ["k"])
            assert ["a", "c"] == await backend.rooms("party", KeyRange(), 10)
            assert [] == await backend.room_alarms(B)
        assert [None] == await backend.commit([large])
        assert {"large": b"x" * 100_000} == await backend.read(B, ["large"])


@contextmanager
def failing_disk(size: int) -> Generator[None]:
    """Have the system refuse to write beyond the first bytes of any file, which SQLite takes for an I/O error."""
    resource: Any = pytest.importorskip("resource", reason="this system has no limits of that kind")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_an_io_error_refuses_what_cannot_be_written_and_nothing_else(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert await put(backend, small=b"v") is None
        fences = {room: await backend.claim(room) for room in (A, B)}
        large = Commit(B, fences[B], {"large": bytes(2_000_000)}, {"n": AlarmRow(B, "n", 1)})
        with failing_disk(1_000_000):
            answers = await backend.commit([large, Commit(A, fences[A], {"k": b"1"}, {})])
            assert [CommitError, type(None)] == [type(answer) for answer in answers]
            assert f"{tmp_path / 'rooms.db'}: reading or writing the file failed (SQLITE_IOERR" in str(answers[0])
            assert {"k": b"1"} == await backend.read(A, ["k"])
            assert [] == await backend.room_alarms(B)
        assert [None] == await backend.commit([large])
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert {"large": bytes(2_000_000)} == await backend.read(B, ["large"])


async def test_a_group_of_many_statements_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        many = Commit(A, fence, {f"k{number:05}": b"v" * 100 for number in range(5000)}, {})
        with full_disk(backend):
            (answer,) = await backend.commit([many])
            assert isinstance(answer, CommitError)
            assert [] == await backend.scan(A, KeyRange(), 1)
        assert [None] == await backend.commit([many])
        assert 5000 == len(await backend.scan(A, KeyRange(), 9999))


@pytest.mark.parametrize(
    ("commit", "words"),
    [
        (Commit(B, 0, {"k": b"v"}, {"n": AlarmRow(B, "n", 2**70)}), "OverflowError"),
        (Commit(B, 0, {"\ud800": b"v"}, {}), "UnicodeEncodeError"),
    ],
)
async def test_what_sqlite_cannot_take_is_refused_alone(tmp_path: Path, commit: Commit, words: str) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence_a, fence_b = await backend.claim(A), await backend.claim(B)
        answers = await backend.commit([commit._replace(fence=fence_b), Commit(A, fence_a, {"k": b"v"}, {})])
        assert answers[0] is not None
        assert words in str(answers[0])
        assert answers[1] is None
        assert ["a"] == await backend.rooms("party", KeyRange(), 10)


async def test_a_file_that_another_program_has_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_schema, "BUSY_SECONDS", 0.01)
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fences = {room: await backend.claim(room) for room in (A, B)}
        group = [Commit(room, fence, {"k": b"v"}, {}) for room, fence in fences.items()]
        with closing(sqlite3.connect(tmp_path / "rooms.db")) as shell:
            shell.execute("BEGIN IMMEDIATE")
            answers = await backend.commit(group)
            assert [BackendLockedError] * 2 == [type(answer.__cause__) for answer in answers if answer is not None]
            assert "rooms.db is open for writing in another process" in str(answers[0])
            assert {} == await backend.read(A, ["k"])
        assert [None, None] == await backend.commit(group)


@posix_only
async def test_a_vanished_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    async with FileBackend(tmp_path / "folder" / "rooms.db") as backend:
        assert await put(backend, k=b"v") is None
        assert {"k": b"v"} == await backend.read(A, ["k"])
        (tmp_path / "folder").rename(tmp_path / "away")
        with pytest.raises(
            BackendError, match=r"folder/rooms.db has been deleted, moved or replaced while it was open"
        ):
            await put(backend, k=b"w")
        assert {"k": b"v"} == await backend.read(A, ["k"])
        (tmp_path / "away").rename(tmp_path / "folder")
        assert await put(backend, k=b"w") is None


@posix_only
async def test_a_file_that_another_has_taken_the_place_of(tmp_path: Path) -> None:
    backend = await FileBackend(tmp_path / "rooms.db").__aenter__()
    assert await put(backend, k=b"v") is None
    (tmp_path / "rooms.db").rename(tmp_path / "away")
    (tmp_path / "rooms.db").touch()
    with pytest.raises(BackendError, match="replaced"):
        await put(backend, k=b"w")
    # Nor is anything read from the wrong one.
    with pytest.raises(BackendError, match="replaced"):
        await backend.read(A, ["k"])
    (tmp_path / "away").replace(tmp_path / "rooms.db")
    await backend.__aexit__(None, None, None)


# --- damage ------------------------------------------------------------------


@asynccontextmanager
async def damaged(path: Path) -> AsyncGenerator[FileBackend]:
    """Open a file whose entries have been scribbled over, but not its other tables."""
    async with FileBackend(path) as backend:
        fence = await backend.claim(A)
        await backend.commit([Commit(A, fence, {f"k{number:05}": b"v" * 100 for number in range(2000)}, {})])
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entries'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    async with FileBackend(path) as backend:
        yield backend


async def test_a_damaged_page_is_told_by_reads_and_commits_and_harms_no_others(tmp_path: Path) -> None:
    async with damaged(tmp_path / "rooms.db") as backend:
        for reading in (
            backend.read(A, ["k00000"]),
            backend.read(A, ["k00000", "k00001"]),
            backend.scan(A, KeyRange(), 5000),
        ):
            with pytest.raises(BackendCorruptError, match=r"rooms.db: the file is damaged"):
                await reading
        answers = await backend.commit(
            [
                Commit(A, await backend.claim(A), {"k00000": b"w"}, {}),
                Commit(B, await backend.claim(B), {}, {"n": AlarmRow(B, "n", 1)}),
            ]
        )
        assert answers[0] is not None
        assert type(answers[0].__cause__) is BackendCorruptError
        assert answers[1] is None
        assert ["a", "b"] == await backend.rooms("party", KeyRange(), 10)


def change(path: Path, statement: str, *values: object) -> None:
    """Do what somebody else might who opens the file with another program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement, values)


async def test_a_value_that_is_no_bytes_is_told_and_harms_no_others(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        await put(backend, A, k=b"v", w=b"v")
        await put(backend, B, k=b"v")
        change(path, "UPDATE entries SET value = 'text' WHERE place = 1")
        for read in (backend.read(A, ["k"]), backend.read(A, ["k", "w"]), backend.scan(A, KeyRange(), 9)):
            with pytest.raises(BackendCorruptError, match=rf"{path}: somebody has stored a value that is no bytes"):
                await read
        assert {"w": b"v"} == await backend.read(A, ["w"])
        assert {"k": b"v"} == await backend.read(B, ["k"])


@pytest.mark.parametrize(("data", "expected"), [("text", b"text"), (7, b"")])
async def test_an_alarm_that_is_no_bytes_hides_no_other(tmp_path: Path, data: object, expected: bytes) -> None:
    path = tmp_path / "rooms.db"
    alarms = [AlarmRow(room, "", 5, b"data") for room in (A, B)]
    async with FileBackend(path) as backend:
        await backend.commit([Commit(row.room, await backend.claim(row.room), {}, {"": row}) for row in alarms])
        change(path, "UPDATE alarms SET data = ? WHERE id = 'a'", data)
        assert [alarms[0]._replace(data=expected), alarms[1]] == await backend.due_alarms(None, None, 9)


@pytest.mark.parametrize(("due", "told"), [(-(2**63), LOWEST), (2**63 - 1, HIGHEST)])
async def test_an_alarm_outside_all_calendars_hides_no_other(tmp_path: Path, due: int, told: int) -> None:
    path = tmp_path / "rooms.db"
    alarms = [AlarmRow(room, "", 5, b"data") for room in (A, B)]
    async with FileBackend(path) as backend:
        await backend.commit([Commit(row.room, await backend.claim(row.room), {}, {"": row}) for row in alarms])
        change(path, "UPDATE alarms SET due = ? WHERE id = 'a'", due)
        assert {alarms[0]._replace(due=told), alarms[1]} == set(await backend.due_alarms(None, None, 9))
    async with FileView(path) as view:
        assert ["alarms at no time: 1"] == await view.faults(lambda: None)


async def test_an_alarm_at_no_time_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        await backend.commit([Commit(A, await backend.claim(A), {}, {"": AlarmRow(A, "", 5, b"data")})])
        change(path, "UPDATE alarms SET due = 'noon'")
        with pytest.raises(BackendCorruptError, match="somebody has stored an alarm at no time"):
            await backend.room_alarms(A)


@pytest.mark.parametrize("statement", ["DELETE FROM meta", "UPDATE meta SET value = NULL"])
async def test_a_file_whose_openings_are_not_counted_any_more(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        await put(backend, k=b"v")
    change(path, statement)
    assert isinstance(await opening(path), BackendCorruptError), "fences might be given a second time"
    async with FileView(path) as view:
        with pytest.raises(BackendCorruptError, match="how often it was opened"):
            await view.facts()


async def test_a_text_that_is_none_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        await put(backend, k=b"v")
        change(path, "UPDATE entries SET key = CAST(x'ff' AS TEXT)")
        with pytest.raises(BackendCorruptError, match="the file is damaged"):
            await backend.scan(A, KeyRange(), 9)


async def test_damage_of_which_sqlite_itself_cannot_tell_in_words(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        await put(backend, k=b"v")
    change(path, "UPDATE sqlite_schema SET sql = CAST(x'43524541544520ff' AS TEXT), name = CAST(x'ff' AS TEXT)")
    assert isinstance(await opening(path), BackendCorruptError)
    with pytest.raises(BackendCorruptError, match="the file is damaged"):
        async with FileView(path) as view:
            await view.parties()


async def test_care_that_fails_waits_until_it_can_be_done(tmp_path: Path) -> None:
    async with damaged(tmp_path / "rooms.db") as backend:
        # Clearing touches no entry; sweeping them away meets the damage, again and again.
        assert [None] == await backend.commit([Commit(A, await backend.claim(A), {}, {}, clear=True)])
        assert [None] == await backend.commit([Commit(B, await backend.claim(B), {}, {"n": AlarmRow(B, "n", 1)})])
        assert ["b"] == await backend.rooms("party", KeyRange(), 10)
