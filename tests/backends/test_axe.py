"""Nothing is lost under the axe; and the axe itself would notice if something were."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from partyroom import JsonCodec, RoomKey
from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import to_micros
from tests.backends import axe
from tests.backends.axe import Axe, Child, Dice, Tally, await_line, await_writes
from tests.backends.axe_books import AxeError, Books, Stored, judge_ledger, open_rings
from tests.backends.axe_child import (
    CLOSE,
    MARK,
    Churn,
    Ledger,
    Order,
    Rings,
    alarm_key,
    live,
    runtime_of,
    text,
    write_key,
)
from tests.sizes import sizes

CODEC = JsonCodec()
LEDGER = RoomKey("ledger", "1")
CHURN = RoomKey("churn", "1")

ROOM = "(SELECT number FROM rooms WHERE party = ? AND id = ?)"
LATER = datetime(2100, 1, 1, tzinfo=UTC)
DUE = to_micros(LATER)
FOUR = AlarmRecord("0123456789abcdef", payload=b"4")

Statement = tuple[str, tuple[object, ...]]

WHOLE = re.compile(r"([\d,]+) kills .*; ([\d,]+) acknowledged writes checked; ([\d,]+) alarms checked; \d+ files whole")


def counted(told: str) -> list[int]:
    """Give what a run counted."""
    sys.stdout.write(told)
    found = WHOLE.search(told)
    assert found
    return [int(count.replace(",", "")) for count in found.groups()]


# --- the axe -----------------------------------------------------------------


@sizes(
    "asked",
    {"kills": 4, "writes": 80, "alarms": 80, "seed": 7},
    {"kills": 200, "writes": 20_000, "alarms": 10_000},
)
def test_kills_lose_nothing(asked: dict[str, int]) -> None:
    command = [sys.executable, "-m", axe.__name__, *(f"--{name}={number}" for name, number in asked.items())]
    ran = subprocess.run(command, cwd=axe.ROOT, check=False, stdout=subprocess.PIPE, text=True)
    kills, writes, alarms = counted(ran.stdout)
    assert (0, asked["kills"]) == (ran.returncode, kills)
    assert writes >= asked["writes"]
    assert alarms >= asked["alarms"]


def test_a_run_that_checked_less_than_asked_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == axe.main(["--kills", "0", "--writes", "5", "--alarms", "6", "--seed", "1"])
    assert capsys.readouterr().out.splitlines() == [
        "0 kills (); 0 acknowledged writes checked; 0 alarms checked; 0 files whole (seed 1)",
        "0 writes, where 5 were asked",
        "0 alarms, where 6 were asked",
    ]
    assert ["2 kills, where 3 were asked"] == Tally(Counter(working=2)).shortfalls(kills=3, writes=0, alarms=0)


def test_the_same_seed_gives_the_same_throws() -> None:
    throws = [Dice(3).below(6) for _ in range(2)]
    dice = Dice(3)
    assert throws == [throws[0]] * 2
    assert set(range(6)) == {dice.below(6) for _ in range(100)}
    assert all(0 <= dice.seconds(0.01) < 0.01 for _ in range(100))


# --- what a process must not do ----------------------------------------------


def test_a_process_that_ends_by_itself_is_noticed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Child("asyncio") as child:
        child.order(Order(str(tmp_path / "nowhere" / "rooms.db")))
        with pytest.raises(AxeError, match="ended by itself; what it said stands on its error output"):
            await_line(child, Books(), "closing")
        child._process.wait(axe.PATIENCE)
        with pytest.raises(AxeError, match="ended by itself, with code 1"):
            child.kill()
    assert "its folder does not exist" in capfd.readouterr().err


def test_a_process_that_says_nothing_is_noticed() -> None:
    with Child("asyncio", patience=0.001) as child, pytest.raises(AxeError, match=r"said nothing for 0\.001 seconds"):
        child.hear()


def test_a_run_that_fails_leaves_no_process_behind(tmp_path: Path) -> None:
    struck = Axe(tmp_path / "nowhere", Dice(1))
    with pytest.raises(AxeError):
        struck.swing(1)
    struck.close()
    assert struck._next._process.returncode is not None


def test_a_process_that_is_told_to_leaves_its_file_in_order(tmp_path: Path) -> None:
    path, books = tmp_path / "rooms.db", Books()
    with Child("asyncio") as child:
        child.order(Order(str(path)))
        await_writes(child, books, 100)
        child.tell(CLOSE)
        await_line(child, books, "closed")
        child.let_go()
    assert ["rooms.db", "rooms.db-lock"] == sorted(left.name for left in tmp_path.iterdir())
    assert books.count() >= 100
    assert books.judge(path)


# --- what a file must not hold -----------------------------------------------


async def life(path: Path) -> Books:
    """Have two rooms write for a while; give what was acknowledged, with alarms still to come."""
    books = Books()
    Ledger.awaited = None
    async with runtime_of(Order(str(path))) as runtime:
        ledger, churn = runtime.parties["ledger"].get(LEDGER.id), runtime.parties["churn"].get(CHURN.id)
        for _ in range(8):
            books.note(LEDGER, await ledger.call(Ledger.write))
            books.note(CHURN, await churn.call(Churn.write))
    return books


async def ring_out(path: Path, books: Books) -> None:
    """Have all alarms ring."""
    await live(Order(str(path), rings=open_rings(books.judge(path))))
    assert 0 == open_rings(books.judge(path))


@pytest.mark.anyio
async def test_a_whole_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    books = await life(path)
    rooms = books.judge(path)
    assert {LEDGER: 8, CHURN: 8} == {room: stored.number for room, stored in rooms.items()}
    assert 16 == books.count()
    assert 0 < open_rings(rooms) <= 8 + 2
    await ring_out(path, books)
    await ring_out(path, books)


def test_a_file_that_was_never_made_holds_nothing(tmp_path: Path) -> None:
    path, books = tmp_path / "rooms.db", Books()
    assert {} == books.judge(path)
    path.touch()
    assert {} == books.judge(path)
    books.note(LEDGER, 1)
    with pytest.raises(AxeError, match="ledger/1: write 1 was acknowledged, the file ends with 0"):
        books.judge(path)


def test_a_number_that_is_acknowledged_again_is_a_write_that_was_lost() -> None:
    books = Books()
    books.note(LEDGER, 1)
    with pytest.raises(AxeError, match="ledger/1: write 1 was acknowledged twice: the first one has been lost"):
        books.note(LEDGER, 1)


@pytest.fixture(scope="module")
def rung(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Books]:
    """Give a whole file in which all alarms have rung, and what was acknowledged."""

    async def write_and_ring(path: Path) -> Books:
        books = await life(path)
        await ring_out(path, books)
        return books

    path = tmp_path_factory.mktemp("rung") / "rooms.db"
    books = anyio.run(write_and_ring, path)
    return path.read_bytes(), books


@pytest.fixture
def whole(rung: tuple[bytes, Books], tmp_path: Path) -> tuple[Path, Books]:
    """Give such a file of one's own."""
    path = tmp_path / "rooms.db"
    path.write_bytes(rung[0])
    return path, rung[1]


def change(path: Path, *statements: Statement) -> None:
    """Change one row with each statement."""
    with closing(sqlite3.connect(path)) as file:
        assert [1] * len(statements) == [file.execute(*statement).rowcount for statement in statements]
        file.commit()


def put(room: RoomKey, key: str, value: object) -> Statement:
    return f"UPDATE entries SET value = ? WHERE room = {ROOM} AND key = ?", (CODEC.encode(value), *room, key)


def add(room: RoomKey, key: str, value: object) -> Statement:
    return f"INSERT INTO entries (value, room, key) VALUES (?, {ROOM}, ?)", (CODEC.encode(value), *room, key)


def drop(room: RoomKey, key: str) -> Statement:
    return f"DELETE FROM entries WHERE room = {ROOM} AND key = ?", (*room, key)


def book(number: int, *, due: datetime | None, rung: Rings) -> Statement:
    return put(LEDGER, alarm_key(number), {"due": due, "rung": rung})


def set_alarm(room: RoomKey, name: str, due: int | None, record: AlarmRecord) -> Statement:
    return "INSERT INTO alarms VALUES (?, ?, ?, ?, ?)", (*room, name, due, record.encode())


def drop_alarm(name: str) -> Statement:
    return "DELETE FROM alarms WHERE name = ?", (name,)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (put(LEDGER, "n", 7), "ledger/1: write 8 was acknowledged, the file ends with 7"),
        (put(LEDGER, "n", 9), "ledger/1: the value that write 9 replaced: expected '9:9:"),
        (put(LEDGER, "last", text(7)), "ledger/1: the value that write 8 replaced: expected '8:8:"),
        (drop(LEDGER, "last"), "ledger/1: the value that write 8 replaced: expected '8:8:.*, found None"),
        (drop(LEDGER, write_key(3)), "ledger/1: the value of write 3: expected '3:3:.*, found None"),
        (put(LEDGER, write_key(3), text(4)), "ledger/1: the value of write 3: expected '3:3:"),
        (drop(LEDGER, alarm_key(3)), "ledger/1: write 3: nothing is known of its alarm"),
        (add(LEDGER, "other", 1), "ledger/1: values that no event wrote: expected {}, found {'other': 1}"),
        (put(LEDGER, "beat", {"last": LATER, "again": True}), "ledger/1: whether a recurrence rang again"),
        (book(4, due=None, rung={LATER: 2}), "ledger/1: write 4: times for which its alarm rang twice"),
        (book(4, due=None, rung={}), "ledger/1: write 4: whether its alarm has rung for the last time"),
        (book(4, due=LATER, rung={}), "ledger/1: write 4: the time of its alarm: expected datetime.*, found None"),
        (
            set_alarm(LEDGER, "other", DUE, FOUR),
            r"ledger/1: alarms that no event set: expected \[\], found \['other'\]",
        ),
        (drop_alarm("beat"), "ledger/1: the recurring alarm: expected 'pending', found None"),
        (drop(CHURN, "k8"), "churn/1: values after write 8"),
        (put(CHURN, "k8", text(7)), "churn/1: values after write 8"),
        (put(CHURN, "n", 9), "churn/1: values after write 9"),
        (drop_alarm("mark"), "churn/1: alarms after write 8: expected .*, found {}"),
        (("UPDATE alarms SET due = due + 1 WHERE name = 'mark'", ()), "churn/1: alarms after write 8"),
        (set_alarm(CHURN, "other", DUE, FOUR), "churn/1: alarms after write 8"),
    ],
)
def test_what_is_missing_torn_or_too_much_is_noticed(whole: tuple[Path, Books], changed: Statement, words: str) -> None:
    path, books = whole
    change(path, changed)
    with pytest.raises(AxeError, match=words):
        books.judge(path)


@pytest.mark.parametrize(
    ("due", "record", "words"),
    [
        (DUE + 1, FOUR, "the time of its alarm: expected datetime.*, found datetime"),
        (DUE, FOUR._replace(payload=b"5"), "the payload of its alarm: expected 4, found 5"),
        (None, FOUR._replace(scheduled=DUE, failed=True), "whether its alarm will ring: expected True, found False"),
    ],
)
def test_an_alarm_that_is_not_as_it_was_set_is_noticed(
    whole: tuple[Path, Books], due: int | None, record: AlarmRecord, words: str
) -> None:
    path, books = whole
    change(path, book(4, due=LATER, rung={}), set_alarm(LEDGER, "4", DUE, FOUR))
    books.judge(path)
    change(path, drop_alarm("4"), set_alarm(LEDGER, "4", due, record))
    with pytest.raises(AxeError, match=f"ledger/1: write 4: {words}"):
        books.judge(path)


@pytest.mark.anyio
async def test_an_alarm_that_rings_before_its_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    books = await life(path)
    async with runtime_of(Order(str(path))) as runtime:
        await runtime.parties["churn"].get(CHURN.id).ring_alarm(MARK)
        await runtime.wait_idle()
    with pytest.raises(AxeError, match=r"churn/1: values after write 8: .*'mark has rung'"):
        books.judge(path)


def test_a_room_that_was_woken_and_nothing_else_is_whole() -> None:
    judge_ledger(Stored(), "ledger/1")


def test_a_damaged_file_is_noticed(whole: tuple[Path, Books]) -> None:
    path, books = whole
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA writable_schema = ON")
        file.execute("DELETE FROM sqlite_schema WHERE name = 'alarms_due'")
        file.commit()
    with pytest.raises(AxeError, match="SQLite's integrity check: expected "):
        books.judge(path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(AxeError, match=r"rooms\.db cannot be read: file is not a database"):
        books.judge(path)
