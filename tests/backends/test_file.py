"""The life of a file: opening, the lock, other processes, forks, cancellation, backup."""

from __future__ import annotations

import errno
import os
import runpy
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from partyroom.backends import _file_lock
from partyroom.backends._sqlite_backup import write_backup
from partyroom.backends._sqlite_schema import APPLICATION_ID, VERSION
from partyroom.backends.file import FileBackend
from partyroom.errors import BackendClosedError, BackendError, BackendLockedError
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
B = RoomKey("party", "b")


async def store(backend: FileBackend, room: RoomKey = A, **values: bytes) -> None:
    assert [None] == await backend.commit([Commit(room, await backend.claim(room), values, {})])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def pragma(backend: FileBackend, name: str) -> object:
    """Ask the writing connection, when its thread is at rest."""
    await backend.commit([])
    await backend.commit([])
    assert backend._opened is not None
    found: tuple[object] = backend._opened.store._connection.execute(f"PRAGMA {name}").fetchone()
    return found[0]


# --- constructing and opening ------------------------------------------------


async def test_constructing_opens_nothing(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "rooms.db")
    assert [] == names_in(tmp_path)
    assert f"FileBackend('{tmp_path / 'rooms.db'}', durability='full')" == repr(backend)


async def test_a_relative_path_counts_from_where_it_was_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = FileBackend("rooms.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with backend:
        assert (tmp_path / "rooms.db").exists()


async def test_a_durability_that_is_none_is_refused(tmp_path: Path) -> None:
    wrong: Any = "none"
    with pytest.raises(ValueError, match="'full' or 'normal', not 'none'"):
        FileBackend(tmp_path / "rooms.db", durability=wrong)


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
async def test_durability_says_when_the_disk_is_waited_for(tmp_path: Path, durability: Any, synchronous: int) -> None:
    async with FileBackend(tmp_path / "rooms.db", durability=durability) as backend:
        await store(backend, k=b"v")
        assert synchronous == await pragma(backend, "synchronous")


async def test_a_new_file_is_marked_as_ours_and_can_give_space_back(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert APPLICATION_ID == await pragma(backend, "application_id")
        assert VERSION == await pragma(backend, "user_version")
        assert "wal" == await pragma(backend, "journal_mode")
    async with FileBackend(tmp_path / "rooms.db") as backend:
        assert 2 == await pragma(backend, "auto_vacuum")


async def test_leaving_leaves_one_file_and_its_lock(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
    assert ["rooms.db", "rooms.db-lock"] == names_in(tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("partyroom-")]


async def test_what_was_committed_is_there_when_it_is_entered_again(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "rooms.db")
    for number in range(3):
        async with backend:
            fence = await backend.claim(A)
            await backend.commit([Commit(A, fence, {f"k{number}": b"v"}, {})])
            assert number + 1 == len(await backend.scan(A, KeyRange(), 10))


async def test_entered_twice_it_says_so_and_stays_open(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        with pytest.raises(BackendError, match="is open already"):
            await backend.__aenter__()
        await store(backend, k=b"v")


async def test_before_and_after_it_is_closed(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "rooms.db")
    for _ in range(2):
        for refused in (
            backend.claim(A),
            backend.commit([]),
            backend.read(A, ["k"]),
            backend.scan(A, KeyRange(), 1),
            backend.room_alarms(A),
            backend.due_alarms(None, None, 1),
            backend.parked_alarms("party", None, 1),
            backend.rooms("party", KeyRange(), 1),
            backend.backup(tmp_path / "backup.db"),
        ):
            with pytest.raises(BackendClosedError, match=r"rooms.db is not open"):
                await refused
        async with backend:
            pass
        await backend.__aexit__(None, None, None)


@pytest.mark.parametrize("loops", [("asyncio", "asyncio"), ("trio", "asyncio"), ("asyncio", "trio")])
def test_a_file_whose_loop_has_ended_can_be_left_in_another(tmp_path: Path, loops: tuple[str, str]) -> None:
    backend = FileBackend(tmp_path / "rooms.db")

    async def enter() -> None:
        await backend.__aenter__()
        await store(backend, k=b"v")

    async def leave_and_enter_again() -> None:
        await backend.__aexit__(None, None, None)
        async with backend:
            assert {"k": b"v"} == await backend.read(A, ["k"])

    anyio.run(enter, backend=loops[0])
    anyio.run(leave_and_enter_again, backend=loops[1])


# --- the lock ----------------------------------------------------------------


def start(code: str, path: Path) -> subprocess.Popen[str]:
    """Run a program of one's own, which is given a path."""
    command = [sys.executable, "-W", "ignore", "-c", dedent(code), str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@asynccontextmanager
async def another_process(path: Path) -> AsyncGenerator[subprocess.Popen[str]]:
    """Run a process that has the file open, until it is killed."""
    code = """
        import sys, anyio
        from partyroom.backends.file import FileBackend
        from partyroom.types import Commit, RoomKey
        async def main():
            async with FileBackend(sys.argv[1]) as backend:
                room = RoomKey("party", "theirs")
                await backend.commit([Commit(room, await backend.claim(room), {"k": b"v"}, {})])
                print("open", flush=True)
                await anyio.sleep_forever()
        anyio.run(main)
    """
    with start(code, path) as process:
        assert process.stdout is not None
        try:
            assert "open\n" == await anyio.to_thread.run_sync(process.stdout.readline)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_one_process_at_a_time_and_it_is_named_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    async with another_process(path) as process:
        with pytest.raises(BackendLockedError) as caught:
            await FileBackend(path).__aenter__()
        assert process.pid == caught.value.pid
        assert f"{path} is open for writing in process {process.pid}" in str(caught.value)
    async with FileBackend(path) as backend:
        assert {"k": b"v"} == await backend.read(RoomKey("party", "theirs"), ["k"])


@pytest.mark.skipif(os.name != "posix", reason="links take a privilege on this system")
@pytest.mark.parametrize("way", ["rooms.db", "link.db", "folder/../rooms.db", "linked/rooms.db"])
async def test_one_backend_at_a_time_whatever_way_leads_to_the_file(tmp_path: Path, way: str) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "rooms.db")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path)
    async with FileBackend(tmp_path / "rooms.db") as first:
        with pytest.raises(BackendLockedError) as caught:
            await FileBackend(tmp_path / way).__aenter__()
        assert os.getpid() == caught.value.pid
        await store(first, k=b"v")
    async with FileBackend(tmp_path / way) as second:
        assert {"k": b"v"} == await second.read(A, ["k"])


async def test_a_disk_that_has_no_locks_is_told_apart_from_a_lock_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as fault:
        fault.setattr(_file_lock, "_lock", refuse)
        with pytest.raises(BackendError, match=r"rooms.db: it cannot be locked \(No locks available\)") as caught:
            await FileBackend(tmp_path / "rooms.db").__aenter__()
    assert not isinstance(caught.value, BackendLockedError)


async def test_others_can_read_meanwhile(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
        with closing(sqlite3.connect(f"file:{tmp_path / 'rooms.db'}?mode=ro", uri=True)) as reader:
            assert [(b"v",)] == reader.execute("SELECT value FROM entries").fetchall()
        await store(backend, k=b"w")


async def test_an_owner_without_a_readable_id_is_another_process(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db"):
        (tmp_path / "rooms.db-lock").write_text("?")
        with pytest.raises(BackendLockedError, match="in another process") as caught:
            await FileBackend(tmp_path / "rooms.db").__aenter__()
        assert caught.value.pid is None


async def test_the_lock_is_had_though_its_owner_cannot_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _length: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as fault:
        fault.setattr("os.ftruncate", full)
        async with FileBackend(tmp_path / "rooms.db") as backend:
            await store(backend, k=b"v")


# --- forks -------------------------------------------------------------------


async def test_a_forked_child_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence = await backend.claim(A)
        parent = os.getpid()
        with monkeypatch.context() as forked:
            forked.setattr("os.getpid", lambda: -1)
            with pytest.raises(BackendClosedError, match=f"opened by process {parent}, which forked this one"):
                await backend.commit([Commit(A, fence, {"k": b"v"}, {})])
        assert [None] == await backend.commit([Commit(A, fence, {"k": b"v"}, {})])


async def test_leaving_in_a_forked_child_leaves_the_parents_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await FileBackend(tmp_path / "rooms.db").__aenter__()
    parents = backend._opened
    assert parents is not None
    with monkeypatch.context() as forked:
        forked.setattr("os.getpid", lambda: -1)
        await backend.__aexit__(None, None, None)
    with pytest.raises(BackendLockedError):
        await FileBackend(tmp_path / "rooms.db").__aenter__()
    await parents.stop()


FORKING = """
    import os, sys, anyio
    from partyroom.backends.file import FileBackend
    async def main():
        await FileBackend(sys.argv[1]).__aenter__()
        if os.fork() == 0:
            print("forked", flush=True)
            sys.stdin.readline()
            os._exit(0)
        os._exit(1)
    anyio.run(main)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on this system")
def test_on_windows_a_byte_far_behind_the_owners_id_is_locked_so_that_others_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for what Windows locks with, so that the way there is tried on other systems too."""
    fcntl: Any = pytest.importorskip("fcntl")
    locked = list[tuple[int, int, int]]()

    def locking(descriptor: int, mode: int, count: int) -> None:
        locked.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with monkeypatch.context() as windows:
        windows.setattr(sys, "platform", "win32")
        windows.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
        FileLock: Any = runpy.run_path(str(_file_lock.__file__))["FileLock"]  # noqa: N806 - a class
    path = tmp_path / "rooms.db"
    first, second = FileLock(str(path)), FileLock(str(path))
    first.acquire()
    assert f"{os.getpid()}\n" == Path(f"{path}-lock").read_text(encoding="ascii")
    with pytest.raises(BackendLockedError) as refused:
        second.acquire()
    assert os.getpid() == refused.value.pid
    first.release()
    second.acquire()
    second.release()
    assert [(1 << 30, 2, 1)] * 3 == locked


async def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_died(tmp_path: Path) -> None:
    with start(FORKING, tmp_path / "rooms.db") as parent:
        assert parent.stdout is not None
        assert "forked\n" == await anyio.to_thread.run_sync(parent.stdout.readline)
        assert 1 == await anyio.to_thread.run_sync(parent.wait)
        # The child lives: it waits for a line.
        async with FileBackend(tmp_path / "rooms.db") as backend:
            await store(backend, k=b"v")


async def test_what_a_child_forgets_is_not_unlocked(tmp_path: Path) -> None:
    first = _file_lock.FileLock(str(tmp_path / "rooms.db"))
    first.acquire()
    try:
        inherited = os.dup(first._descriptor or 0)
        _file_lock._forget_all()
        with pytest.raises(BackendLockedError):
            _file_lock.FileLock(str(tmp_path / "rooms.db")).acquire()
        os.close(inherited)
    finally:
        first.release()


# --- cancellation ------------------------------------------------------------


async def test_a_cancelled_commit_is_whole_and_harms_no_other(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        fence_a, fence_b = await backend.claim(A), await backend.claim(B)
        for number in range(20):
            value = b"%d" % number
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(backend.commit, [Commit(A, fence_a, {"k": value, "l": value}, {})])
                    await anyio.lowlevel.checkpoint()
                    scope.cancel()
            assert [None] == await backend.commit([Commit(B, fence_b, {"k": value}, {})])
            assert dict.fromkeys(["k", "l"], value) == await backend.read(A, ["k", "l"])


async def test_opening_that_is_cancelled_is_finished_first(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "rooms.db")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.__aenter__)
        tasks.cancel_scope.cancel()
    await backend.__aexit__(None, None, None)
    async with FileBackend(tmp_path / "rooms.db") as again:
        await store(again, k=b"v")


# --- backup ------------------------------------------------------------------


async def test_a_backup_holds_everything_and_opens_like_the_file(tmp_path: Path) -> None:
    alarm = AlarmRow(B, "n", 5, b"data")
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
        await backend.commit([Commit(B, await backend.claim(B), {}, {"n": alarm})])
        await backend.backup(tmp_path / "backup.db")
        await store(backend, k=b"later")
    assert ["backup.db", "rooms.db", "rooms.db-lock"] == names_in(tmp_path)
    async with FileBackend(tmp_path / "backup.db") as copy:
        assert {"k": b"v"} == await copy.read(A, ["k"])
        assert [alarm] == await copy.due_alarms(None, None, 10)


async def test_a_backup_shows_one_state_while_rooms_run(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        rooms = [RoomKey("party", f"{number}") for number in range(20)]
        fences = [await backend.claim(room) for room in rooms]
        done = False

        async def run() -> None:
            number = 0
            while not done:
                number += 1
                value = b"%d" % number * 500
                # One group is one transaction: all rooms show the same number, or the copy is torn.
                await backend.commit(
                    [Commit(room, fence, {"k": value}, {}) for room, fence in zip(rooms, fences, strict=True)]
                )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            for number in range(5):
                await backend.backup(tmp_path / f"{number}.db")
            done = True
    for number in range(5):
        async with FileBackend(tmp_path / f"{number}.db") as copy:
            assert 1 >= len({(await copy.read(room, ["k"])).get("k") for room in rooms})
            assert "ok" == await pragma(copy, "integrity_check")


async def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "backup.db").write_bytes(b"precious")
    async with FileBackend(tmp_path / "rooms.db") as backend:
        with pytest.raises(BackendError, match=r"backup.db: there is something already"):
            await backend.backup(tmp_path / "backup.db")
        assert b"precious" == (tmp_path / "backup.db").read_bytes()


async def test_a_backup_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        with pytest.raises(BackendError, match=r"backup.db: the backup cannot be written: No such file"):
            await backend.backup(tmp_path / "nowhere" / "backup.db")


async def test_a_backup_touches_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "backup.db-unfinished").write_bytes(b"precious")
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
        await backend.backup(tmp_path / "backup.db")
    assert b"precious" == (tmp_path / "backup.db-unfinished").read_bytes()
    async with FileBackend(tmp_path / "backup.db") as copy:
        assert {"k": b"v"} == await copy.read(A, ["k"])


class StoppedError(Exception):
    """A copy is stopped in the middle."""


async def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(*_how_far: int) -> None:
        assert not (tmp_path / "backup.db").exists(), "half of it has no name, whatever becomes of the other half"
        raise StoppedError

    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
        before = names_in(tmp_path)
        with pytest.raises(StoppedError):
            write_backup(str(tmp_path / "rooms.db"), tmp_path / "backup.db", stop)
        assert before == names_in(tmp_path)
        await store(backend, k=b"w")


async def test_a_backup_of_a_file_at_rest_makes_nothing_beside_it(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
    seen: list[list[str]] = []
    (tmp_path / "elsewhere").mkdir()
    before = names_in(tmp_path)
    write_backup(
        str(tmp_path / "rooms.db"), tmp_path / "elsewhere" / "backup.db", lambda *_: seen.append(names_in(tmp_path))
    )
    assert [before] == seen
    async with FileBackend(tmp_path / "elsewhere" / "backup.db") as copy:
        assert {"k": b"v"} == await copy.read(A, ["k"])


async def test_a_backup_leaves_a_dead_process_s_log_as_it_is(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    async with FileBackend(tmp_path / "rooms.db") as backend:
        await store(backend, k=b"v")
        before = {name: (tmp_path / name).read_bytes() for name in ("rooms.db", "rooms.db-wal")}
    for name, content in before.items():
        (left / name).write_bytes(content)
    write_backup(str(left / "rooms.db"), tmp_path / "backup.db")
    assert before == {name: (left / name).read_bytes() for name in before}
    async with FileBackend(tmp_path / "backup.db") as copy:
        assert {"k": b"v"} == await copy.read(A, ["k"])


async def test_a_file_of_another_version_can_be_backed_up(tmp_path: Path) -> None:
    async with FileBackend(tmp_path / "rooms.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "rooms.db")) as file:
        file.execute(f"PRAGMA user_version = {VERSION + 1}")
    write_backup(str(tmp_path / "rooms.db"), tmp_path / "backup.db")
    with closing(sqlite3.connect(tmp_path / "backup.db")) as copy:
        assert (VERSION + 1,) == copy.execute("PRAGMA user_version").fetchone()


async def test_what_is_no_file_of_this_library_is_not_backed_up(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(BackendError, match=r"empty.db: the file is no database of this library"):
        write_backup(str(tmp_path / "empty.db"), tmp_path / "backup.db")
    assert ["empty.db"] == names_in(tmp_path)


@pytest.mark.parametrize("log", ["-wal", "-journal"])
async def test_a_backup_is_not_laid_beside_the_log_of_a_file_that_is_gone(tmp_path: Path, log: str) -> None:
    (tmp_path / f"backup.db{log}").write_bytes(b"")
    async with FileBackend(tmp_path / "rooms.db") as backend:
        with pytest.raises(BackendError, match=rf"backup.db{log} is left of another file"):
            await backend.backup(tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()


async def test_a_name_that_is_taken_while_a_backup_is_written_stays_as_it_is(tmp_path: Path) -> None:
    def take(*_how_far: int) -> None:
        (tmp_path / "backup.db").write_bytes(b"precious")

    async with FileBackend(tmp_path / "rooms.db"):
        with pytest.raises(BackendError, match=r"there is something already"):
            write_backup(str(tmp_path / "rooms.db"), tmp_path / "backup.db", take)
    assert b"precious" == (tmp_path / "backup.db").read_bytes()


async def test_a_backup_that_cannot_take_its_name_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    async with FileBackend(tmp_path / "rooms.db") as backend:
        before = names_in(tmp_path)
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(BackendError, match=r"backup.db: the backup cannot be written: No space left"):
            await backend.backup(tmp_path / "backup.db")
        assert before == names_in(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="folders have no handles on this system")
async def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    async with FileBackend(tmp_path / "rooms.db") as backend:
        monkeypatch.setattr("os.fsync", refuse)
        await backend.backup(tmp_path / "backup.db")
    assert (tmp_path / "backup.db").exists()
