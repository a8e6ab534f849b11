"""A file looked at: the same answers as its owner gives, one moment long, and nothing changed by it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from partyroom.backends import _file_view
from partyroom.backends._file_view import FileFacts, FileView
from partyroom.backends._sqlite_schema import VERSION
from partyroom.backends.file import FileBackend
from partyroom.errors import (
    BackendClosedError,
    BackendCorruptError,
    BackendError,
    BackendReadOnlyError,
    BackendVersionError,
)
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("draft", "a")
B = RoomKey("draft", "b")
C = RoomKey("game", "c")
D = RoomKey("reminder", "d")


async def store(backend: StorageBackend, room: RoomKey, values: Mapping[str, bytes | None], *alarms: AlarmRow) -> None:
    rows = {alarm.name: alarm for alarm in alarms}
    commit = Commit(room, await backend.claim(room), values, rows, release=True)
    assert [None] == list(await backend.commit([commit]))


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "rooms.db"
    async with FileBackend(path) as backend:
        await store(backend, A, {"k1": b"1", "k2": b"22", "l": b"333"}, AlarmRow(A, "", 30, b"x"))
        await store(backend, B, {"k": b""}, AlarmRow(B, "n", 10, b"y"), AlarmRow(B, "o", None, b"z"))
        await store(backend, C, {"k": b"4444"})
        await store(backend, D, {}, AlarmRow(D, "", 10, b"w"), AlarmRow(D, "p", None, b"v"))
    return path


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Give all files of a folder, with what is in them and when they were changed."""
    return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in sorted(folder.iterdir())}


async def answers(store: StorageBackend) -> list[object]:
    """Ask everything that a store can be asked."""
    ranges = [KeyRange(), KeyRange("k2"), KeyRange("k", "l"), KeyRange(reverse=True), KeyRange("a", "b")]
    cursors = [None, AlarmCursor(10, B, "n"), AlarmCursor(30, A, "")]
    return [
        *[dict(await store.read(A, keys)) for keys in ([], ["k1"], ["k1", "l", "none"])],
        *[list(await store.scan(A, keys, limit)) for keys in ranges for limit in (1, 100)],
        *[list(await store.room_alarms(room)) for room in (A, B, C, D)],
        *[list(await store.due_alarms(before, after, n)) for before in (None, 30) for after in cursors for n in (1, 9)],
        *[list(await store.parked_alarms("draft", after, 9)) for after in (None, ("b", "n"), ("b", "o"))],
        *[list(await store.rooms("draft", keys, limit)) for keys in ranges for limit in (1, 100)],
    ]


async def test_it_answers_as_the_owner_does(path: Path) -> None:
    async with FileBackend(path) as backend, FileView(path) as view:
        assert await answers(backend) == await answers(view)


async def test_a_link_to_a_file_shows_what_the_file_does(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    async with FileBackend(path) as backend:
        await store(backend, A, {"k1": b"not moved out of the log yet"})
        async with FileView(link) as view:
            assert await answers(backend) == await answers(view)
            assert os.getpid() == (await view.facts()).owner


async def test_a_look_for_faults_can_be_cancelled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file_view, "STEP", 1)
    async with FileView(path) as view:
        with anyio.CancelScope() as scope:
            await view.faults(scope.cancel)
        assert scope.cancelled_caught
        assert [] == await view.faults(lambda: None), "and the file can be looked at as before"


async def test_a_file_that_cannot_be_looked_through_to_its_end_says_why(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE alarms")
    async with FileView(path) as view:
        with pytest.raises(BackendError, match="no such table: alarms"):
            await view.faults(lambda: None)


async def test_looking_at_a_file_at_rest_touches_nothing(path: Path) -> None:
    before = snapshot(path.parent)
    async with FileView(path) as view:
        await answers(view)
        await view.faults(lambda: None)
        assert before == snapshot(path.parent)
    assert before == snapshot(path.parent)


async def test_a_look_shows_one_moment_while_its_owner_goes_on(path: Path) -> None:
    async with FileBackend(path) as backend:
        async with FileView(path) as view:
            await store(backend, A, {"k1": b"new"})
            assert {"k1": b"1"} == await view.read(A, ["k1"])
        async with FileView(path) as view:
            assert {"k1": b"new"} == await view.read(A, ["k1"])


async def test_what_a_dead_process_has_left_in_the_log_is_seen(path: Path, tmp_path: Path) -> None:
    async with FileBackend(path) as backend:
        await store(backend, A, {"k1": b"new"})
        left = tmp_path / "left"
        left.mkdir()
        for name in ("rooms.db", "rooms.db-wal"):
            (left / name).write_bytes((tmp_path / name).read_bytes())
    before = (left / "rooms.db").read_bytes()
    async with FileView(left / "rooms.db") as view:
        assert {"k1": b"new"} == await view.read(A, ["k1"])
    assert before == (left / "rooms.db").read_bytes()


async def write_while_looking(path: Path) -> None:
    async with FileView(path), FileBackend(path) as backend:
        await store(backend, A, {"k1": b"new"})


async def test_a_file_at_rest_that_is_written_to_meanwhile_is_noticed(path: Path) -> None:
    # Long at rest: some systems tell the times of two writes within some milliseconds as one.
    os.utime(path, (0, 0))
    with pytest.raises(BackendError, match="was written to while it was looked at; look again"):
        await write_while_looking(path)


async def test_it_cannot_write(path: Path) -> None:
    async with FileView(path) as view:
        with pytest.raises(BackendReadOnlyError, match="was opened to look at it, not to write"):
            await view.claim(A)
        with pytest.raises(BackendReadOnlyError):
            await view.commit([])


async def test_it_is_not_open_before_and_after(path: Path) -> None:
    view = FileView(path)
    assert f"FileView({str(path)!r})" == repr(view)
    for _ in range(2):
        with pytest.raises(BackendClosedError, match="is not open"):
            await view.parties()
        async with view:
            assert ["draft", "game", "reminder"] == await view.parties()
    await view.__aexit__(None, None, None)


async def test_a_room_is_measured_without_reading_it(path: Path) -> None:
    async with FileView(path) as view:
        assert [(3, 6), (1, 0), (1, 4), (0, 0)] == [await view.size_of(room) for room in (A, B, C, D)]
        assert 4 == await view.count_rooms()


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be opened"):
        await FileView(tmp_path / "none.db").__aenter__()
    assert {} == snapshot(tmp_path)


async def test_what_is_no_file_of_this_library_is_refused(tmp_path: Path) -> None:
    for name, content in (("text", b"Dear diary" * 1000), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BackendCorruptError):
            await FileView(tmp_path / name).__aenter__()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(BackendCorruptError, match="no database of this library"):
        await FileView(tmp_path / "other.db").__aenter__()


async def test_a_file_of_another_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(BackendVersionError, match=f"has version {VERSION + 1}, this library looks at {VERSION}"):
        await FileView(path).__aenter__()


# --- the file as a whole -----------------------------------------------------


async def test_a_sound_file_has_no_faults(path: Path) -> None:
    async with FileView(path) as view:
        assert [] == await view.faults(lambda: None)


async def test_faults_are_told(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO entries (room, key, value) VALUES (99, 'k', x'')")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'due IS NULL', 'due > 0') WHERE name = 'alarms_parked'"
        )
    async with FileView(path) as view:
        faults = await view.faults(lambda: None)
    assert "entries of no room: 1" == faults[-1]
    assert any("missing from index alarms_parked" in fault for fault in faults[:-1])


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE entries SET value = 'text'", "values that are no bytes: 5"),
        ("UPDATE alarms SET data = 'text' WHERE id = 'a'", "alarms that are no bytes: 1"),
        ("UPDATE alarms SET due = 'soon' WHERE id = 'a'", "alarms at no time: 1"),
    ],
)
async def test_what_somebody_else_has_written_is_told(path: Path, statement: str, fault: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)
    async with FileView(path) as view:
        assert [fault] == await view.faults(lambda: None)


async def test_a_value_that_is_no_bytes_is_never_given_out(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE entries SET value = 'text' WHERE key = 'k1'")
    async with FileView(path) as view:
        for ask in (view.read(A, ["k1"]), view.scan(A, KeyRange(), 9)):
            with pytest.raises(BackendCorruptError, match="somebody has stored a value that is no bytes"):
                await ask


async def test_a_long_look_says_that_it_goes_on(path: Path) -> None:
    async with FileBackend(path) as backend:
        await store(backend, A, {f"{number}": b"" for number in range(10_000)})
    steps: list[None] = []
    async with FileView(path) as view:
        await view.faults(lambda: steps.append(None))
    assert steps


async def facts(path: Path) -> FileFacts:
    async with FileView(path) as view:
        return await view.facts()


async def test_facts_of_a_file_at_rest(path: Path) -> None:
    content, written = snapshot(path.parent)[path.name]
    expected = FileFacts(
        version=VERSION,
        openings=1,
        file_bytes=len(content),
        log_bytes=0,
        free_bytes=0,
        unswept_entries=0,
        written=(await facts(path)).written,
        owner=os.getpid(),
    )
    assert expected == await facts(path)
    assert written / 1e9 == pytest.approx(expected.written)


async def test_facts_of_a_file_in_use(path: Path) -> None:
    async with FileBackend(path) as backend:
        await store(backend, A, {"k1": b"new"})
        found = await facts(path)
    assert 2 == found.openings
    assert 0 < found.log_bytes


async def test_facts_of_a_file_without_a_known_owner(path: Path) -> None:
    lock = path.with_name("rooms.db-lock")
    lock.write_text("somebody")
    assert None is (await facts(path)).owner
    lock.unlink()
    assert None is (await facts(path)).owner
