"""What changes a store: ring-again, delete, import; and the ways out of it, export and backup."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, cast

import anyio
import pytest

from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import to_micros
from partyroom.backends._file_view import FileView
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.examples.lmdb_backend import lmdb_backend
from partyroom.protocols import StorageBackend
from partyroom.recurrence import Every
from partyroom.testing.faults import FaultyBackend
from partyroom.testing.recording import RecordingBackend
from partyroom.types import AlarmRow, KeyRange, RoomKey
from tests.cli.command_line import ENCODE, NOW, Ran, StoredRoom, alarm, make_file, put, run

ALICE, BOB, SEVEN = RoomKey("draft", "alice"), RoomKey("draft", "bob"), RoomKey("game", "7")
HOUR = timedelta(hours=1)
FAILED: dict[str, Any] = {"scheduled": to_micros(NOW), "retry_count": 7, "error": "ValueError: no", "failed": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_file(
        tmp_path / "rooms.db",
        StoredRoom(ALICE, {"text": "Dear diary", "raw": b"\xff\x00"}, [alarm(ALICE, HOUR, payload=ENCODE({1: 2}))]),
        StoredRoom(
            BOB,
            {"text": "hm"},
            [
                alarm(BOB, None, **FAILED),
                alarm(BOB, None, "other", **FAILED),
                alarm(BOB, None, "tick", paused=to_micros(NOW), recurrence=Every(HOUR)),
            ],
        ),
        StoredRoom(SEVEN, {}, [alarm(SEVEN, None, **FAILED)]),
    )


def facts(path: Path, room: RoomKey | None = None) -> list[Any]:
    """Give what an export tells of a file, or of one room, without its first and last line."""
    return run("export", path, *(room or ())).facts[1:-1]


def due(path: Path) -> list[str]:
    """Give which alarms are due now."""
    return [f"{each['party']}/{each['room']} {each['alarm']}" for each in run("alarms", path, "--json", "--late").facts]


# --- ring-again --------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ([], ["draft/bob None", "draft/bob other", "game/7 None"]),
        (["draft"], ["draft/bob None", "draft/bob other"]),
        (["game", "7"], ["game/7 None"]),
        (["draft", "bob", "--alarm"], ["draft/bob None"]),
        (["draft", "bob", "--alarm", "other"], ["draft/bob other"]),
        (["draft", "bob", "--alarm", "tick"], ["draft/bob tick"]),
        (["draft", "alice", "--alarm"], ["draft/alice None"]),
    ],
)
def test_alarms_are_made_due_again(path: Path, which: list[str], expected: list[str]) -> None:
    ran = run("ring-again", path, *which)
    many = "1 alarm" if len(expected) == 1 else f"{len(expected)} alarms"
    assert (0, f"{many} will ring when the program runs, or by ring-due\n") == (ran.code, ran.out)
    assert expected == due(path)


def test_an_alarm_that_rings_again_has_all_of_its_retries_before_it(path: Path) -> None:
    run("ring-again", path, "game")
    [found] = run("alarms", path, "--json", "--party", "game").facts
    assert (0, "pending") == (found["tries"], found["status"])
    assert ("error", "ValueError: no") == (found["outcome"], found["error"]), "that is how it went last, until it rings"
    record = AlarmRecord.decode(anyio.run(alarms_of, FileBackend(path), SEVEN)[0].data)
    assert "0123456789abcdef" != record.id


async def alarms_of(backend: StorageBackend, room: RoomKey) -> Sequence[Any]:
    async with backend:
        return await backend.room_alarms(room)


def test_that_no_alarm_has_failed_is_told(tmp_path: Path) -> None:
    path = make_file(tmp_path / "sound.db", StoredRoom(RoomKey("draft", "alice"), {"k": 1}))
    ran = run("ring-again", path)
    assert (1, "", "no alarm has failed\n") == (ran.code, ran.out, ran.err)


@pytest.mark.parametrize("which", [["draft", "alice"], ["draft", "alice", "--alarm", "none"], ["nobody"]])
def test_what_cannot_ring_again_is_told(path: Path, which: list[str]) -> None:
    ran = run("ring-again", path, *which)
    assert (1, "", "no such alarm\n") == (ran.code, ran.out, ran.err)


def test_the_name_of_an_alarm_needs_a_room(path: Path) -> None:
    ran = run("ring-again", path, "draft", "--alarm", "other")
    assert (2, "partyroom ring-again: --alarm needs PARTY and ID: names of alarms are a room's own\n") == (
        ran.code,
        ran.err,
    )


# --- delete ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "told", "left"),
    [
        ([], "2 values and 1 alarm", []),
        (["--key", "raw"], "value 'raw'", ["text", None]),
        (["--alarm"], "alarm", ["raw", "text"]),
    ],
)
def test_what_is_named_is_deleted(path: Path, what: list[str], told: str, left: list[str | None]) -> None:
    ran = run("delete", path, "draft", "alice", *what)
    assert (0, f"deleted {told} of draft/alice\n") == (ran.code, ran.out)
    assert left == [each.get("key") for each in facts(path, ALICE)]
    assert 4 == len(facts(path, BOB))


def test_a_named_alarm_is_deleted(path: Path) -> None:
    assert "deleted alarm 'tick' of draft/bob\n" == run("delete", path, "draft", "bob", "--alarm", "tick").out
    assert ["text", None, None] == [each.get("key") for each in facts(path, BOB)]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (["alice", "--key", "none"], "draft/alice has no value 'none'"),
        (["alice", "--alarm", "none"], "draft/alice has no alarm 'none'"),
        (["carol", "--alarm"], "draft/carol has no alarm"),
        (["carol"], "draft/carol has no value and no alarm"),
    ],
)
def test_what_is_not_there_cannot_be_deleted(path: Path, what: list[str], told: str) -> None:
    ran = run("delete", path, "draft", *what)
    assert (1, "", f"{told}\n") == (ran.code, ran.out, ran.err)


def test_what_changes_a_file_waits_for_its_program_to_end(path: Path) -> None:
    # Commands run in event loops of their own: the program's is in another thread.
    async def beside() -> list[Ran]:
        async with FileBackend(path):
            commands = (["ring-again", path], ["delete", path, "draft", "alice"], ["import", path])
            return [await anyio.to_thread.run_sync(lambda each: run(*each), command) for command in commands]

    for ran in anyio.run(beside):
        assert (2, "") == (ran.code, ran.out)
        assert f"{path} is open for writing in this very process" in ran.err
        assert 1 == ran.err.count("\n")


@pytest.mark.parametrize("verb", [["ring-again"], ["delete", "draft", "alice"]])
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, verb: list[str]) -> None:
    ran = run(verb[0], tmp_path / "none.db", *verb[1:])
    assert (2, f"partyroom {verb[0]}: {tmp_path / 'none.db'}: there is no such file\n") == (ran.code, ran.err)
    assert [] == list(tmp_path.iterdir())


# --- export and import -------------------------------------------------------

KEPT: dict[str, MemoryBackend] = {}


def memory(name: str) -> MemoryBackend:
    return KEPT.setdefault(name, MemoryBackend())


lmdb = lmdb_backend


async def contents(store: StorageBackend) -> list[object]:
    async with store:
        return [
            (room, list(await store.scan(room, KeyRange(), 100)), list(await store.room_alarms(room)))
            for room in (ALICE, BOB, SEVEN)
        ]


@pytest.mark.parametrize("factory", ["memory", "lmdb"])
def test_rooms_go_from_one_kind_of_store_to_another_and_back(path: Path, tmp_path: Path, factory: str) -> None:
    there, back, between = tmp_path / "there.jsonl", tmp_path / "back.jsonl", str(tmp_path / "other.store")
    other = f"{__name__}:{factory}"
    assert 0 == run("export", path, "-o", there).code
    told = "imported 3 rooms, 3 values, 5 alarms; all of it was read again and compared\n"
    assert told == run("import", between, there, "--backend", other).out
    dumps = [run("export", between, party, "--backend", other).out for party in ("draft", "game")]
    back.write_text("".join(dumps), encoding="utf-8")
    assert told == run("import", tmp_path / "back.db", back).out
    expected = anyio.run(contents, FileBackend(path))
    assert expected == anyio.run(contents, FileBackend(tmp_path / "back.db"))
    assert there.read_text(encoding="utf-8") == run("export", tmp_path / "back.db").out


def test_what_is_exported_is_told_beside_the_lines(path: Path) -> None:
    ran = run("export", path)
    assert (0, "exported 3 rooms, 3 values, 5 alarms\n") == (ran.code, ran.err)
    assert [{"partyroom": "rooms", "version": 1}, {"end": {"rooms": 3, "values": 3, "alarms": 5}}] == (
        [ran.facts[0], ran.facts[-1]]
    )


@pytest.mark.parametrize(
    ("which", "rooms"), [(["draft"], 2), (["draft", "bob"], 1), (["draft", "carol"], 0), (["x"], 0)]
)
def test_a_party_or_a_room_is_exported_alone(path: Path, which: list[str], rooms: int) -> None:
    assert rooms == run("export", path, *which).facts[-1]["end"]["rooms"]


RECORDED: list[RecordingBackend] = []


def recording(name: str) -> StorageBackend:
    RECORDED.append(RecordingBackend(memory(name)))
    return RECORDED[-1]


def test_an_export_holds_few_large_values_at_a_time(tmp_path: Path) -> None:
    path = make_file(tmp_path / "rooms.db", StoredRoom(ALICE, {f"{key:03}": "x" * 300_000 for key in range(150)}))
    there = ["--backend", f"{__name__}:recording"]
    assert 0 == run("import", tmp_path, *there, given=run("export", path).out).code
    RECORDED.clear()
    dump = run("export", tmp_path, "draft", *there).out
    assert run("export", path).out == dump
    assert 64 >= max(len(cast("list[object]", scan.result)) for scan in RECORDED[-1].of("scan"))


def test_an_export_overwrites_nothing(path: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    ran = run("export", path, "-o", tmp_path / "x")
    told = f"partyroom export: {tmp_path / 'x'}: there is something already; an export overwrites nothing\n"
    assert (2, told, "mine") == (ran.code, ran.err, (tmp_path / "x").read_text())


def test_an_export_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE entries SET value = CAST(x'ff' AS TEXT)")
    before = sorted(tmp_path.iterdir())
    ran = run("export", path, "-o", tmp_path / "x")
    assert (2, before) == (ran.code, sorted(tmp_path.iterdir()))


def test_an_export_of_a_file_that_somebody_began_to_write_to_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_alarms = FileView.room_alarms

    async def look_and_write(view: FileView, room: RoomKey) -> Sequence[AlarmRow]:
        os.utime(path, (1, 1))
        return await room_alarms(view, room)

    monkeypatch.setattr(FileView, "room_alarms", look_and_write)
    ran = run("export", path, "-o", tmp_path / "x")
    assert (2, f"partyroom export: {path} was written to while it was looked at; look again\n") == (ran.code, ran.err)
    assert not (tmp_path / "x").exists()


def test_a_dump_comes_through_a_pipe(path: Path, tmp_path: Path) -> None:
    assert 0 == run("import", tmp_path / "new.db", given=run("export", path).out).code
    assert 0 == run("import", tmp_path / "newer.db", "-", given=run("export", path, "-o", "-").out).code
    assert facts(path) == facts(tmp_path / "new.db")


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names on this system")
def test_a_dump_comes_through_a_pipe_with_a_name(path: Path, tmp_path: Path) -> None:
    def write() -> None:
        pipe.write_text(run("export", path).out, encoding="utf-8")

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=write)
    writer.start()
    ran = run("import", tmp_path / "new.db", pipe)
    writer.join()
    assert (0, facts(path)) == (ran.code, facts(tmp_path / "new.db"))


def test_a_person_who_gives_no_dump_is_not_waited_for(tmp_path: Path) -> None:
    ran = run("import", tmp_path / "new.db", given=None)
    assert (2, "partyroom import: DUMP is missing, and nothing comes through a pipe\n") == (ran.code, ran.err)


def test_rooms_that_are_there_stand_in_the_way(path: Path, tmp_path: Path) -> None:
    dump = run("export", path).out
    make_file(tmp_path / "new.db", StoredRoom(ALICE, {"mine": 1}), StoredRoom(SEVEN, {}, [alarm(SEVEN, HOUR)]))
    ran = run("import", tmp_path / "new.db", given=dump)
    told = "nothing was imported: draft/alice, game/7 are there already; --replace replaces them"
    assert (2, f"partyroom import: {told}\n") == (ran.code, ran.err)
    assert ["mine", None] == [each.get("key") for each in facts(tmp_path / "new.db")]
    assert 0 == run("import", tmp_path / "new.db", "--replace", given=dump).code
    assert facts(path) == facts(tmp_path / "new.db")


def test_of_many_rooms_in_the_way_a_few_are_named(tmp_path: Path) -> None:
    rooms = [StoredRoom(RoomKey("p", f"{n}"), {"k": n}) for n in range(4)]
    path = make_file(tmp_path / "rooms.db", *rooms)
    assert (
        "nothing was imported: p/0, p/1, p/2, ... are there" in run("import", path, given=run("export", path).out).err
    )


def test_a_dump_of_nothing_makes_an_empty_file(tmp_path: Path) -> None:
    dump = run("export", make_file(tmp_path / "empty.db")).out
    told = "imported 0 rooms, 0 values, 0 alarms; all of it was read again and compared\n"
    assert (told, []) == (run("import", tmp_path / "new.db", given=dump).out, facts(tmp_path / "new.db"))


def test_a_dump_that_is_cut_off_changes_nothing(path: Path, tmp_path: Path) -> None:
    dump = run("export", path).out.splitlines(keepends=True)
    ran = run("import", tmp_path / "new.db", given="".join(dump[:-1]))
    assert (2, "partyroom import: the dump is cut off: its last line is missing\n") == (ran.code, ran.err)
    assert [] == facts(tmp_path / "new.db")


def test_a_dump_of_broken_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(
        b'{"partyroom": "rooms", "version": 1}\n{"party": "\xff", "room": "r", "key": "k"}\n'
    )
    ran = run("import", tmp_path / "new.db", tmp_path / "dump")
    assert 2 == ran.code
    assert "line 2 is none of a dump of rooms" in ran.err


def test_many_rooms_are_imported_in_groups(tmp_path: Path) -> None:
    small = [StoredRoom(RoomKey("p", f"{n:04}"), {"k": n}) for n in range(1001)]
    large = [StoredRoom(RoomKey("q", f"{n}"), {"k": "x" * 700_000}) for n in range(3)]
    path = make_file(tmp_path / "rooms.db", *small, *large)
    dump = run("export", path).out
    assert "imported 1,004 rooms" in run("import", tmp_path / "new.db", given=dump).out
    assert dump == run("export", tmp_path / "new.db").out


def refusing(name: str) -> StorageBackend:
    faulty = FaultyBackend(memory(name))
    faulty.refuse(BOB)
    return faulty


def tearing(name: str) -> StorageBackend:
    faulty = FaultyBackend(memory(name))
    faulty.tear()
    return faulty


def test_a_room_that_the_store_refuses_is_named(path: Path, tmp_path: Path) -> None:
    ran = run("import", tmp_path, "--backend", f"{__name__}:refusing", given=run("export", path).out)
    assert 2 == ran.code
    assert ran.err.startswith("partyroom import: draft/bob was not stored: ")


def test_a_room_that_the_store_changes_is_noticed(path: Path, tmp_path: Path) -> None:
    ran = run("import", tmp_path, "--backend", f"{__name__}:tearing", given=run("export", path).out)
    told = "partyroom import: draft/alice is not as it was exported: the store has changed it\n"
    assert (2, told) == (ran.code, ran.err)


def test_an_export_that_cannot_tell_which_parties_there_are_writes_not_even_its_first_line(tmp_path: Path) -> None:
    told = "partyroom export: PARTY must be given: only a file of this library can list its parties\n"
    ran = run("export", tmp_path, "--backend", f"{__name__}:memory")
    assert (2, "", told) == (ran.code, ran.out, ran.err)


def test_alarms_of_another_store_ring_again_party_by_party(path: Path, tmp_path: Path) -> None:
    other = ["--backend", f"{__name__}:memory"]
    run("import", tmp_path, *other, given=run("export", path).out)
    told = "partyroom ring-again: PARTY must be given: only a file of this library can list its parties\n"
    assert told == run("ring-again", tmp_path, *other).err
    assert run("ring-again", tmp_path, "draft", *other).out.startswith("2 alarms will ring")
    assert "deleted 1 value and 3 alarms of draft/bob\n" == run("delete", tmp_path, "draft", "bob", *other).out


# --- what makes a store ------------------------------------------------------

NO_FACTORY = 7


def nothing(_place: str) -> None:
    return None


def broken(_place: str) -> StorageBackend:
    raise ZeroDivisionError("no\nway")


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("nothing", "('x') gave no storage backend, but NoneType"),
        ("broken", "('x') raised ZeroDivisionError: no\\nway"),
        ("NO_FACTORY", " is no factory: it cannot be called"),
        ("none", " cannot be found: AttributeError: module"),
    ],
)
def test_a_factory_that_makes_no_store_is_told(factory: str, told: str) -> None:
    ran = run("export", "x", "--backend", f"{__name__}:{factory}")
    assert (2, 1) == (ran.code, ran.err.count("\n"))
    assert ran.err.startswith(f"partyroom export: {__name__}:{factory}{told}")


@pytest.mark.parametrize("name", ["app", ":x", "app:", ""])
def test_a_name_that_names_nothing_is_told(name: str) -> None:
    ran = run("export", "x", "--backend", name)
    told = f"partyroom export: {name!r} is no MODULE:NAME, such as myapp.rooms:runtime\n"
    assert (2, told) == (ran.code, ran.err)


def test_a_codec_that_is_none_is_told(path: Path) -> None:
    ran = run("check", path, "--codec", f"{__name__}:NO_FACTORY")
    assert (2, f"partyroom check: {__name__}:NO_FACTORY is no codec: it has no decode\n") == (ran.code, ran.err)


def test_a_class_is_no_codec(path: Path) -> None:
    ran = run("check", path, "--codec", "partyroom:JsonCodec")
    told = "partyroom check: partyroom:JsonCodec is a class, and no codec yet: name one that is made of it\n"
    assert (2, told) == (ran.code, ran.err)


# --- backup ------------------------------------------------------------------


def test_a_file_is_copied_while_its_program_runs(path: Path, tmp_path: Path) -> None:
    async def beside() -> Ran:
        async with FileBackend(path) as backend:
            await put(backend, StoredRoom(ALICE, {"text": "newer"}))
            return await anyio.to_thread.run_sync(lambda: run("backup", path, tmp_path / "copy.db"))

    ran = anyio.run(beside)
    size = f"{(tmp_path / 'copy.db').stat().st_size / 1024:.1f} KB"
    assert (0, f"{tmp_path / 'copy.db'}: {size}\n", "") == (ran.code, ran.out, ran.err)
    assert facts(path) == facts(tmp_path / "copy.db")


def test_a_copy_tells_how_far_it_has_come(path: Path, tmp_path: Path) -> None:
    ran = run("backup", path, tmp_path / "copy.db", is_watched=True)
    assert "\rcopying pages: [########################] 100%" in ran.err


def test_a_copy_overwrites_nothing(path: Path) -> None:
    ran = run("backup", path, path)
    assert (2, f"partyroom backup: {path}: there is something already; a backup overwrites nothing\n") == (
        ran.code,
        ran.err,
    )
