"""The log has space ahead: small commits write into it, and it does not matter to anybody else."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from partyroom import Commit, RoomKey
from partyroom.backends import _sqlite_log
from partyroom.backends._sqlite_care import FileCare
from partyroom.backends._sqlite_log import FIRST, LOOK, MOST, PIECE, LogSpace
from partyroom.backends._sqlite_schema import Durability, connect, open_writer
from partyroom.backends.file import FileBackend

A = RoomKey("party", "a")
MEGABYTE = 1024 * 1024


@contextmanager
def opened(path: Path, most: int = 64 * MEGABYTE) -> Generator[tuple[LogSpace, sqlite3.Connection]]:
    connection, _ = open_writer(str(path), "full")
    with closing(connection):
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        yield LogSpace(connection, str(path), most), connection


def log_length(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def has_space(path: Path) -> bool:
    return Path(f"{path}-wal").read_bytes().endswith(bytes(LOOK))


def write(connection: sqlite3.Connection, size: int = 8) -> None:
    connection.execute("UPDATE meta SET value = randomblob(?) WHERE name = 'epoch'", (size,))


def grow(space: LogSpace, connection: sqlite3.Connection, size: int = 8) -> None:
    """Write a commit, and have it known that it is time to look."""
    write(connection, size)
    space.note(LOOK)


def make_all(space: LogSpace) -> int:
    pieces = 1
    while space.make():
        pieces += 1
    return pieces


def test_a_log_that_small_commits_have_made_longer_is_given_as_much_again(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    with opened(path) as (space, connection):
        grow(space, connection)
        length = log_length(path)
        make_all(space)
        assert length + FIRST == log_length(path)
        # What is there is used before there is more.
        grow(space, connection)
        make_all(space)
        assert length + FIRST == log_length(path)
        while log_length(path) == length + FIRST:
            write(connection)
        longer = log_length(path)
        grow(space, connection)
        make_all(space)
        assert 2 * longer <= log_length(path) < 2 * longer + MEGABYTE / 8


def test_no_more_is_made_at_once_than_a_piece_and_no_more_in_all_than_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    with opened(path, most=9 * MEGABYTE) as (space, connection):
        most_at_once = 0
        while log_length(path) < 9 * MEGABYTE:
            grow(space, connection)
            length = log_length(path)
            pieces = make_all(space)
            made = log_length(path) - length
            most_at_once = max(most_at_once, made)
            assert made <= pieces * PIECE
        assert MOST == most_at_once
        assert 9 * MEGABYTE == log_length(path)
        while log_length(path) == 9 * MEGABYTE:
            write(connection)
        grow(space, connection)
        assert 1 == make_all(space)
        assert log_length(path) < 10 * MEGABYTE


def test_it_is_not_looked_at_after_each_commit(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    with opened(path) as (space, connection):
        write(connection)
        length = log_length(path)
        space.note(LOOK - 1)
        assert not space.make()
        assert length == log_length(path)
        space.note(1)
        make_all(space)
        assert length < log_length(path)


def test_large_commits_are_given_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    with opened(path) as (space, connection):
        grow(space, connection, 2 * FIRST)
        length = log_length(path)
        assert not space.make()
        assert length == log_length(path)


def test_while_somebody_else_writes_it_is_put_off(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    with opened(path) as (space, connection):
        connection.execute("PRAGMA busy_timeout = 600000")
        grow(space, connection)
        length = log_length(path)
        with closing(connect(str(path))) as shell:
            shell.execute("BEGIN IMMEDIATE")
            # At once: a commit behind this has its own patience.
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                space.make()
        assert length == log_length(path)
        assert (600_000,) == connection.execute("PRAGMA busy_timeout").fetchone()


def test_a_disk_without_space_leaves_care_and_commits_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_sqlite_log, "_sync", refuse)
    connection, _ = open_writer(str(tmp_path / "rooms.db"), "full")
    with closing(connection):
        care = FileCare(connection, str(tmp_path / "rooms.db"), "full")
        assert not care.piece()
        write(connection)
        care.note(rows=LOOK, size=0)
        assert not care.piece()
        assert not connection.in_transaction
        write(connection)


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["full", "normal"])
async def test_what_was_written_before_a_crash_is_read_from_a_log_with_space_ahead(
    tmp_path: Path, durability: Durability
) -> None:
    path, copy = tmp_path / "rooms.db", tmp_path / "copy.db"
    async with FileBackend(path, durability=durability) as backend:
        fence = await backend.claim(A)
        for number in range(100):
            assert [None] == await backend.commit([Commit(A, fence, {"k": b"%d" % number}, {})])
        assert (durability == "full") == has_space(path), "it is made for commits that wait for the disk"
        # As a kill leaves them.
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
    async with FileBackend(copy) as backend:
        assert {"k": b"99"} == await backend.read(A, ["k"])
    with closing(sqlite3.connect(copy)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
