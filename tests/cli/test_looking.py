"""The look inside a file: rooms, alarms, one room, its soundness, its figures."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from partyroom._core.instants import to_micros
from partyroom.backends.file import FileBackend
from partyroom.codec import JsonCodec
from partyroom.recurrence import Cron, Every
from partyroom.types import RoomKey
from tests.cli.command_line import ENCODE, NOW, StoredRoom, alarm, make_file, put, run

ALICE = RoomKey("draft", "alice")
BOB = RoomKey("draft", "bob")
SEVEN = RoomKey("game", "7")
LATE, SOON = timedelta(hours=-2), timedelta(minutes=90)


@attrs.frozen
class Card:
    suit: str


codec = JsonCodec([Card])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    failed: dict[str, Any] = {"scheduled": to_micros(NOW), "retry_count": 7, "error": "ValueError: no", "failed": True}
    seven_ago, set_back = to_micros(NOW) - 7_000_000, to_micros(NOW) + 60_000_000
    tick = {"paused": to_micros(NOW), "recurrence": Every(timedelta(minutes=5)), "last": set_back}
    return make_file(
        tmp_path / "rooms.db",
        StoredRoom(ALICE, {"text": "Dear diary", "tags": {"a"}}, [alarm(ALICE, SOON, payload=ENCODE([1]))]),
        StoredRoom(
            BOB,
            {"text": "hm"},
            [
                alarm(BOB, None, **failed),
                alarm(BOB, None, "tick", **tick),
                alarm(BOB, timedelta(seconds=8), "again", retry_count=2, error="OSError: gone", last=seven_ago),
            ],
        ),
        StoredRoom(SEVEN, {}, [alarm(SEVEN, LATE, recurrence=Cron("0 9 * * mon", tz="Europe/Oslo"))]),
    )


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return make_file(tmp_path / "empty.db")


def damage(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


# --- rooms -------------------------------------------------------------------


def test_rooms_are_listed_by_party_and_id(path: Path) -> None:
    assert [
        "party  room   keys  bytes  alarms  next rings     at (UTC)",
        "draft  alice     2     26       1  in 1 h 30 min  2030-01-01 01:30:00Z",
        "draft  bob       1      4       3  in 8 s         2030-01-01 00:00:08Z",
        "game   7         0      0       1  2 h late       2029-12-31 22:00:00Z",
    ] == run("rooms", path).lines


def test_rooms_are_listed_for_machines(path: Path) -> None:
    assert [
        {
            "party": "draft",
            "room": "bob",
            "keys": 1,
            "bytes": 4,
            "alarms": 3,
            "next": "2030-01-01T00:00:08+00:00",
        }
    ] == run("rooms", path, "--party", "draft", "--prefix", "b", "--json").facts


def test_a_list_that_is_cut_says_so(path: Path) -> None:
    ran = run("rooms", path, "--limit", 2)
    assert (3, "only the first 2 are shown; --limit N shows more\n") == (len(ran.lines), ran.err)
    assert "" == run("rooms", path, "--limit", 3).err


def test_a_machine_gets_all_rooms_and_a_person_a_hundred(tmp_path: Path) -> None:
    many = make_file(tmp_path / "many.db", *(StoredRoom(RoomKey("p", f"{n:03}"), {"k": n}) for n in range(101)))
    assert (101, "") == (len(run("rooms", many, "--json").facts), run("rooms", many, "--json").err)
    assert 101 == len(run("rooms", many).lines)
    assert "only the first 100 are shown; --limit N shows more\n" == run("rooms", many).err


def test_more_rooms_than_a_page_are_all_listed(tmp_path: Path) -> None:
    many = make_file(tmp_path / "many.db", *(StoredRoom(RoomKey("p", f"{n:04}"), {"k": n}) for n in range(1000)))
    assert [f"{n:04}" for n in range(1000)] == [each["room"] for each in run("rooms", many, "--json").facts]


def test_a_file_without_rooms_says_so(empty: Path) -> None:
    ran = run("rooms", empty)
    assert (0, "", "no rooms\n") == (ran.code, ran.out, ran.err)


# --- alarms ------------------------------------------------------------------


def test_alarms_are_listed_in_the_order_in_which_they_ring(path: Path) -> None:
    assert [
        (
            "rings          at (UTC)              room         alarm  repeats                       last ring       tries  "
            "error"
        ),
        "2 h late       2029-12-31 22:00:00Z  game/7              cron 0 9 * * mon Europe/Oslo",
        (
            "in 8 s         2030-01-01 00:00:08Z  draft/bob    again                                failed 7 s ago      2  "
            "OSError: gone"
        ),
        "in 1 h 30 min  2030-01-01 01:30:00Z  draft/alice",
        (
            "failed                               draft/bob                                         failed              7  "
            "ValueError: no"
        ),
        "paused                               draft/bob    tick   every 5 min                   ok 1 min ahead",
    ] == run("alarms", path).lines


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--late"], ["game/7"]),
        (["--failed"], ["draft/bob"]),
        (["--party", "game"], ["game/7"]),
        (["--party", "draft", "--late"], []),
        (["--party", "draft", "--limit", "2"], ["draft/bob again", "draft/alice"]),
    ],
)
def test_alarms_are_chosen(path: Path, options: list[str], expected: list[str]) -> None:
    facts = run("alarms", path, "--json", *options).facts
    assert expected == [" ".join(filter(None, (f"{each['party']}/{each['room']}", each["alarm"]))) for each in facts]


def test_an_alarm_is_described_for_machines(path: Path) -> None:
    assert {
        "party": "draft",
        "room": "alice",
        "alarm": None,
        "status": "pending",
        "late": False,
        "due": "2030-01-01T01:30:00+00:00",
        "scheduled": "2030-01-01T01:30:00+00:00",
        "repeats": None,
        "tries": 0,
        "last": None,
        "outcome": None,
        "error": None,
        "payload": [1],
    } == run("alarms", path, "--json").facts[2]


def test_how_an_alarm_last_rang_is_told_to_machines(path: Path) -> None:
    facts = {each["alarm"]: (each["outcome"], each["last"]) for each in run("alarms", path, "--json").facts[1:]}
    assert {
        None: ("error", None),
        "again": ("error", "2029-12-31T23:59:53+00:00"),
        "tick": ("success", "2030-01-01T00:01:00+00:00"),
    } == facts


def test_an_alarm_that_cannot_be_read_hides_no_other(path: Path) -> None:
    damage(path, "UPDATE alarms SET data = x'ff' WHERE party = 'game'")
    first, second, *_ = run("alarms", path, "--json").facts
    assert ("unreadable", "no record of an alarm: b'\\xff'") == (first["status"], first["error"])
    assert "retrying" == second["status"]
    assert "unreadable" == run("alarms", path).lines[1].split()[0]


def test_a_file_without_alarms_says_so(empty: Path) -> None:
    ran = run("alarms", empty)
    assert (0, "", "no alarms\n") == (ran.code, ran.out, ran.err)


def test_more_alarms_than_a_page_are_all_listed(tmp_path: Path) -> None:
    room = RoomKey("p", "r")
    due = [alarm(room, timedelta(seconds=n // 3), f"{n:04}") for n in range(1000)]
    parked = [alarm(room, None, f"p{n:03}", failed=True) for n in range(600)]
    many = make_file(tmp_path / "many.db", StoredRoom(room, {}, [*due, *parked]))
    assert [row.name for row in (*due, *parked)] == [each["alarm"] for each in run("alarms", many, "--json").facts]


# --- one room ----------------------------------------------------------------


def test_a_room_is_shown_with_its_values_and_alarms(path: Path) -> None:
    assert [
        *("draft/alice: 2 keys, 26 bytes", ""),
        "key   bytes  value",
        "tags     14  {'a'}",
        "text     12  'Dear diary'",
        *("", "1 alarm", ""),
        "rings          at (UTC)              payload",
        "in 1 h 30 min  2030-01-01 01:30:00Z  [1]",
    ] == run("show", path, "draft", "alice").lines


def test_what_a_handler_raised_is_told_whole_below_the_room(path: Path) -> None:
    lines = run("show", path, "draft", "bob", width=40).lines
    assert ["", "alarm 'again': OSError: gone", "", "the alarm: ValueError: no"] == lines[-4:]
    assert [
        "rings   at (UTC)              alarm  repeats      last ring       tries",
        "in 8 s  2030-01-01 00:00:08Z  again               failed 7 s ago      2",
        "failed                                            failed              7",
        "paused                        tick   every 5 min  ok 1 min ahead",
    ] == run("show", path, "draft", "bob").lines[7:11]


def test_a_room_that_has_alarms_only_is_shown(path: Path) -> None:
    assert ["game/7", "1 alarm", ""] == run("show", path, "game", "7").lines[:3]


def test_a_room_is_shown_to_machines(path: Path) -> None:
    values = [
        {"party": "draft", "room": "alice", "key": "tags", "value": {"$set": ["a"]}},
        {"party": "draft", "room": "alice", "key": "text", "value": "Dear diary"},
    ]
    *found, last = run("show", path, "draft", "alice", "--json").facts
    assert (values, "pending") == (found, last["status"])


def test_a_room_that_is_not_there_is_said_to_be_so(path: Path) -> None:
    ran = run("show", path, "draft", "carol")
    assert (1, "", "there is no room draft/carol\n") == (ran.code, ran.out, ran.err)


def test_one_value_is_shown_as_a_whole(tmp_path: Path) -> None:
    value = ["x" * 60, "y" * 60]
    path = make_file(tmp_path / "rooms.db", StoredRoom(ALICE, {"k": value}))
    assert [f"['{'x' * 60}',", f" '{'y' * 60}']"] == run("show", path, "draft", "alice", "--key", "k").lines
    assert [{"party": "draft", "room": "alice", "key": "k", "value": value}] == run(
        "show", path, "draft", "alice", "--key", "k", "--json"
    ).facts


def test_a_long_value_is_cut_in_the_list(tmp_path: Path) -> None:
    path = make_file(tmp_path / "rooms.db", StoredRoom(ALICE, {"k": "x" * 1000}))
    assert f"k    1,002  '{'x' * 198}…" == run("show", path, "draft", "alice").lines[-1]


def test_a_key_that_is_not_there_is_said_to_be_so(path: Path) -> None:
    ran = run("show", path, "draft", "alice", "--key", "none")
    assert (1, "", "draft/alice has no key 'none'\n") == (ran.code, ran.out, ran.err)


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    return make_file(tmp_path / "cards.db", StoredRoom(SEVEN, {"card": codec.encode(Card("hearts"))}))


def test_a_value_of_an_unknown_class_is_shown_as_it_is_stored(cards: Path) -> None:
    shown = run("show", cards, "game", "7").lines[-1].split("  ")[-1]
    assert """{"$Card":{"suit":"hearts"}} (no class is registered under the name 'Card')""" == shown


def test_a_value_is_decoded_by_the_programs_own_codec(cards: Path) -> None:
    shown = run("show", cards, "game", "7", "--codec", f"{__name__}:codec").lines[-1].split("  ")[-1]
    assert "Card(suit='hearts')" == shown


def test_nothing_that_is_stored_can_command_the_terminal(tmp_path: Path) -> None:
    red = "\x1b[31m"
    room = RoomKey(red, "\u202eroom")
    errors = alarm(room, None, failed=True, error=f"ValueError: {red}\nand more")
    path = make_file(tmp_path / "rooms.db", StoredRoom(room, {"text": red, "raw": red.encode() + b"\nmore"}, [errors]))
    asked = [run("show", path, *room, *more) for more in ([], ["--key", "raw"], ["--key", "none"])]
    asked += [run(verb, path, red, "none") for verb in ("show", "delete")]
    asked += [run("delete", path, *room)]
    told = [*(each.out for each in asked), *(each.err for each in asked)]
    assert [] == [text for text in told if not all(line.isprintable() for line in text.split("\n"))]
    assert asked[0].out.endswith("\nthe alarm: ValueError: \\x1b[31m\nand more\n"), (
        "in lines of its own, as it was raised"
    )
    assert asked[1].out.startswith("\\x1b[31m\nmore (these bytes are no JSON")


# --- check -------------------------------------------------------------------


def test_a_sound_file_is_said_to_be_so(tmp_path: Path) -> None:
    path = make_file(tmp_path / "rooms.db", StoredRoom(ALICE, {"text": "x"}, [alarm(ALICE, SOON)]))
    ran = run("check", path)
    size = f"{path.stat().st_size / 1024:.1f}"
    assert (0, [f"{path}: {size} KB, 1 room, 1 value, 1 alarm", "nothing is wrong"]) == (ran.code, ran.lines)


def findings(path: Path, *options: str) -> list[tuple[str, int, str, str]]:
    ran = run("check", path, "--json", *options)
    found = [(each["weight"], each["times"], each["first"], each["what"]) for each in ran.facts]
    assert ran.code == any(weight == "wrong" for weight, *_ in found)
    return found


def test_failed_alarms_are_wrong_and_late_ones_a_remark(path: Path) -> None:
    assert [
        ("wrong", 1, "draft/bob alarm", "the alarm has failed: ValueError: no"),
        ("note", 1, "game/7 alarm", "the alarm is late: nobody rings it"),
    ] == findings(path)
    assert [
        "       times  first at         what",
        "wrong      1  draft/bob alarm  the alarm has failed: ValueError: no",
    ] == (run("check", path).lines[1:3])


def test_what_only_the_programs_codec_reads_is_a_remark_without_it(cards: Path) -> None:
    reason = "no class is registered under the name 'Card' (--codec reads it as the program does)"
    assert [("note", 1, "game/7 'card'", reason)] == findings(cards)
    assert [] == findings(cards, "--codec", f"{__name__}:codec")


def test_what_the_programs_codec_cannot_read_is_wrong(path: Path) -> None:
    damage(path, "UPDATE entries SET value = x'7b'")
    [(weight, times, first, what), *_] = findings(path, "--codec", f"{__name__}:codec")
    assert ("wrong", 3, "draft/alice 'tags'") == (weight, times, first)
    assert what.startswith("these bytes are no JSON of this codec")


def test_payloads_are_read_as_values_are(tmp_path: Path) -> None:
    rows = [alarm(ALICE, SOON, "n", payload=b"{")]
    path = make_file(tmp_path / "rooms.db", StoredRoom(ALICE, {}, rows))
    assert [("wrong", "draft/alice alarm 'n'")] == [
        (weight, first) for weight, _, first, _ in findings(path, "--codec", f"{__name__}:codec")
    ]


def test_an_alarm_that_cannot_be_read_is_wrong(path: Path) -> None:
    damage(path, "UPDATE alarms SET data = x'ff' WHERE party = 'game'")
    assert ("wrong", 1, "game/7 alarm", "no record of an alarm: b'\\xff'") in findings(path)


def test_an_alarm_that_takes_an_extra_is_a_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [alarm(ALICE, SOON, recurrence=Cron("59 23 31 12 *"))]
    path = make_file(tmp_path / "rooms.db", StoredRoom(ALICE, {}, rows))
    monkeypatch.setitem(sys.modules, "cronsim", None)
    reason = "Cron needs the package cronsim: install partyroom[cron]"
    assert [("note", 1, "draft/alice alarm", reason)] == findings(path)


def test_damage_is_wrong_and_ends_the_look(path: Path) -> None:
    damage(path, "INSERT INTO entries (room, key, value) VALUES (99, 'k', x'')")
    assert [("wrong", 1, "the file", "entries of no room: 1")] == findings(path)


def test_a_file_that_is_none_of_ours_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"Dear diary" * 1000)
    [(weight, _, first, what)] = findings(tmp_path / "text.db")
    assert ("wrong", "the file") == (weight, first)
    assert "the file is no database" in what


# --- stats -------------------------------------------------------------------


def test_a_file_is_counted_by_party(path: Path) -> None:
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    size = f"{path.stat().st_size / 1024:.1f}"
    assert [
        f"{path}: {size} KB, 0 B of it free; log beside it 0 B",
        f"written {written:%Y-%m-%d %H:%M:%S}Z, opened 1 time, last by process {os.getpid()}",
        "",
        "party  rooms  keys  bytes  pending  retrying  paused  failed  late  next rings",
        "draft      2     3     30        1         1       1       1        in 8 s",
        "game       1     0      0        1                               1  2 h late",
    ] == run("stats", path).lines


def test_figures_that_a_terminal_is_too_narrow_for_are_two_tables(path: Path) -> None:
    assert [
        "",
        "party  rooms  keys  bytes",
        "draft      2     3     30",
        "game       1     0      0",
        "",
        "party  pending  retrying  paused  failed  late  next rings",
        "draft        1         1       1       1        in 8 s",
        "game         1                               1  2 h late",
    ] == run("stats", path, width=60).lines[2:]


def test_a_file_without_rooms_has_figures_of_its_own_only(empty: Path) -> None:
    empty.with_name("empty.db-lock").unlink()
    assert "opened 1 time, last by nobody" == run("stats", empty).lines[1].split(", ", 1)[1]
    assert 2 == len(run("stats", empty).lines)


def test_what_waits_to_be_swept_away_is_told(path: Path) -> None:
    damage(path, "UPDATE rooms SET party = NULL, id = NULL WHERE id = 'alice'")
    assert "2 entries of cleared rooms wait to be swept away" == run("stats", path).lines[2]


def test_a_file_is_counted_for_machines(path: Path) -> None:
    [found] = run("stats", path, "--json").facts
    assert (path.stat().st_size, 1) == (found["file_bytes"], found["openings"])
    assert {
        "party": "game",
        "rooms": 1,
        "keys": 0,
        "bytes": 0,
        "late": 1,
        "next": "2029-12-31T22:00:00+00:00",
        "alarms": {"pending": 1, "retrying": 0, "paused": 0, "failed": 0, "unreadable": 0},
    } == found["parties"][1]


# --- beside a running program ------------------------------------------------


LOOKS = """
import json, sys
from tests.cli.command_line import run
for verb in ("rooms", "alarms", "check", "stats", "timeline", "export"):
    ran = run(verb, sys.argv[1])
    print(json.dumps([verb, ran.code, ran.out, ran.err]))
"""


def test_looks_are_taken_while_a_program_runs_on_the_file(path: Path) -> None:
    # In a process of their own, as it is in life.
    command = [sys.executable, "-c", LOOKS, str(path)]

    async def look() -> subprocess.CompletedProcess[bytes]:
        async with FileBackend(path) as backend:
            await put(backend, StoredRoom(SEVEN, {"k": "new"}))
            ran = await anyio.run_process(command, cwd=Path(__file__).parents[2])
            await put(backend, StoredRoom(SEVEN, {"k": "newer"}))
            return ran

    looks = [json.loads(line) for line in anyio.run(look).stdout.splitlines()]
    assert ["rooms", "alarms", "check", "stats", "timeline", "export"] == [verb for verb, *_ in looks]
    for verb, code, out, err in looks:
        assert "" == err or verb == "export"
        assert code == (verb == "check"), verb
        assert ("3 rooms" if verb == "check" else "game") in out
