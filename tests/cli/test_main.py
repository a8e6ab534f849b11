"""The command line as a whole: help, errors, exit codes, pipes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

import pytest
from typing_extensions import override

from partyroom import __main__
from partyroom._cli import import_
from partyroom._cli.dump import RoomContent
from partyroom._cli.main import PROGRAM, VERBS
from partyroom._cli.screen import INTERRUPTED, USUAL_WIDTH
from partyroom._cli.walk import PAGE
from partyroom.types import RoomKey
from tests.cli.command_line import StoredRoom, alarm, make_file, run

HOUR = timedelta(hours=1)
NAMES = [verb.name for verb in VERBS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_file(tmp_path / "rooms.db", StoredRoom(RoomKey("draft", "käse"), {"k": 1}))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(name, "--help")
    assert 0 == ended.value.code
    assert f"example:\n  {PROGRAM} {name}" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("name", NAMES)
def test_help_fits_the_terminal_but_for_examples_in_a_narrow_one(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        run(name, "--help")
    told = capsys.readouterr().out.partition("example:" if columns < 80 else "nothing")[0]
    assert [] == [line for line in told.splitlines() if len(line) > columns]


@pytest.mark.parametrize("columns", [1, 2])
def test_a_terminal_that_is_narrower_than_any_word_ends_no_command(
    columns: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert 0 == run("rooms", path, width=columns).code


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    told = capsys.readouterr().out
    assert [] == [verb.name for verb in VERBS if f"    {verb.name}" not in told or verb.summary[:20] not in told]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["rooms"], "the following arguments are required: FILE"),
        (["rooms", "x", "--limit", "0"], "argument --limit: invalid positive value: '0'"),
        (["rooms", "x", "--limit", "many"], "argument --limit: invalid positive value: 'many'"),
        (["alarms", "x", "--late", "--failed"], "not allowed with argument --late"),
        (["show", "x", "p\udcff", "r"], r"argument PARTY: 'p\udcff' has no UTF-8 form"),
        (["rooms", "x", "--prefix", "\udcff"], r"argument --prefix: '\udcff' has no UTF-8 form"),
        (["delete", "x", "p", "r", "--alarm", "\udcff"], r"argument --alarm: '\udcff' has no UTF-8 form"),
    ],
)
def test_what_makes_no_sense_is_told_with_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert (2, True) == (ended.value.code, told in capsys.readouterr().err)


@pytest.mark.parametrize("name", ["rooms", "alarms", "stats", "check", "timeline", "export"])
def test_a_file_that_is_not_there_is_told_in_a_line(tmp_path: Path, name: str) -> None:
    ran = run(name, tmp_path / "none.db")
    assert (2, "", f"partyroom {name}: {tmp_path / 'none.db'}: there is no such file\n") == (ran.code, ran.out, ran.err)
    assert [] == list(tmp_path.iterdir())


def test_a_file_that_is_none_of_ours_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"Dear diary" * 1000)
    ran = run("rooms", tmp_path / "text")
    assert (2, 1) == (ran.code, ran.err.count("\n"))
    assert ran.err.startswith(f"partyroom rooms: {tmp_path / 'text'}: the file is no database")


def test_a_fault_of_the_system_is_told_in_a_line(path: Path, tmp_path: Path) -> None:
    where = tmp_path / "none" / "x"
    ran = run("export", path, "-o", where)
    assert (2, f"partyroom export: {where}: No such file or directory\n") == (ran.code, ran.err)


class Failing(StringIO):
    """A stream that cannot be written to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, _text: str) -> int:
        raise self.error


@pytest.fixture
def failing(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Give a way to run a command whose output fails; it gives the exit code."""

    def run_it(error: BaseException) -> int:
        monkeypatch.setattr(sys, "stdout", Failing(error))
        monkeypatch.setattr(sys, "argv", ["partyroom", "rooms", str(path)])
        return __main__.run()

    return run_it


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), INTERRUPTED, ""),
        (OSError("the disk is gone"), 2, "partyroom rooms: the disk is gone\n"),
    ],
)
def test_what_ends_a_command_gives_its_exit_code(
    error: BaseException,
    code: int,
    told: str,
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code == failing(error)
    assert told == capsys.readouterr().err


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """Give a way to run a command at which a person presses Ctrl-C when its first line comes; it gives the code and the output."""

    class Interrupting(StringIO):
        """A stream whose reader presses Ctrl-C at its first word."""

        @override
        def write(self, text: str) -> int:
            if not self.getvalue():
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    def run_it(*arguments: object) -> tuple[int, str]:
        out = Interrupting()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "argv", ["partyroom", *map(str, arguments)])
        return __main__.run(), out.getvalue()

    # Whoever runs the tests may want to hear nothing of it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield run_it
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", ["rooms", "export", "alarms"])
def test_ctrl_c_ends_a_long_look_soon(
    interrupted: Callable[..., tuple[int, str]], tmp_path: Path, command: str
) -> None:
    rooms = (RoomKey("p", f"{number}") for number in range(1200))
    path = make_file(tmp_path / "rooms.db", *(StoredRoom(room, {"k": 1}, [alarm(room, HOUR)]) for room in rooms))
    json = [] if command == "export" else ["--json"]
    code, out = interrupted(command, path, *json)
    assert (INTERRUPTED, True) == (code, out.count("\n") <= PAGE)


def test_ctrl_c_ends_the_look_at_a_long_dump_soon(
    interrupted: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [RoomContent(RoomKey("p", f"{number}")) for number in range(9)]
    looked_at: list[RoomContent] = []

    def look_at(room: RoomContent) -> RoomContent:
        looked_at.append(room)
        return room

    def read_and_press(_file: TextIO) -> Iterator[RoomContent]:
        signal.raise_signal(signal.SIGINT)
        yield from map(look_at, rooms)

    monkeypatch.setattr(import_, "read_dump", read_and_press)
    (tmp_path / "dump").touch()
    assert (INTERRUPTED, "") == interrupted("import", tmp_path / "new.db", tmp_path / "dump", "--replace")
    assert rooms[:1] == looked_at


# --- the streams -------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_stream_that_is_closed_ends_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    dump = tmp_path / "dump"
    path = make_file(tmp_path / "rooms.db", StoredRoom(RoomKey("p", "r"), {"k": 1}))
    monkeypatch.setattr(sys, stream, None)
    for arguments in (["export", path, "-o", dump], ["import", tmp_path / "new.db", dump], ["check", path]):
        monkeypatch.setattr(sys, "argv", ["partyroom", *map(str, arguments)])
        assert 0 == __main__.run()
    monkeypatch.setattr(sys, "argv", ["partyroom", "import", str(path)])
    if stream == "stdin":
        assert 2 == __main__.run(), "what comes through no pipe is no dump"
    getattr(sys, stream).close()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes]]:
    """Give a way to run a command on a stream of some encoding; it gives the exit code, and what was written."""

    def run_it(*arguments: object, encoding: str = "utf-8") -> tuple[int, bytes]:
        written = BytesIO()
        monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding))
        monkeypatch.setattr(sys, "argv", ["partyroom", *map(str, arguments)])
        code = __main__.run()
        sys.stdout.flush()
        return code, written.getvalue()

    return run_it


def test_text_that_a_terminal_cannot_show_ends_no_command(shell: Callable[..., tuple[int, bytes]], path: Path) -> None:
    code, written = shell("rooms", path, encoding="ascii")
    assert (0, True) == (code, rb"k\xe4se" in written)


def test_lines_for_machines_are_json_in_any_encoding(shell: Callable[..., tuple[int, bytes]], path: Path) -> None:
    for encoding in ("ascii", "utf-8"):
        _, written = shell("rooms", path, "--json", encoding=encoding)
        assert "käse" == json.loads(written.decode(encoding))["room"]


def test_a_table_takes_the_width_that_it_is_given(
    shell: Callable[..., tuple[int, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "rooms.db", StoredRoom(RoomKey("draft", "a" * 200), {"k": 1}))
    monkeypatch.setenv("COLUMNS", "60")
    lines = shell("rooms", path)[1].decode().splitlines()
    assert (True, "a…") == (len(lines[1]) <= 60, re.findall("a…", lines[1])[0])


@pytest.mark.parametrize(("told", "columns"), [(40, 40), (0, USUAL_WIDTH)])
def test_progress_fits_the_terminal_that_is_watched(
    told: int, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "err").open("w") as watched:
        assert USUAL_WIDTH == __main__._columns(watched), "it is no terminal"
        monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: os.terminal_size((told, 20)))
        assert columns == __main__._columns(watched)
    assert USUAL_WIDTH == __main__._columns(StringIO())


# --- the process -------------------------------------------------------------


def test_a_command_ends_its_process_with_its_exit_code(path: Path) -> None:
    command = [sys.executable, "-m", "partyroom", "show", str(path), "draft", "x"]
    ran = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, text=True)
    assert (1, "", "there is no room draft/x\n") == (ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="there, a pipe without a reader is any fault")
def test_a_reader_who_leaves_early_ends_a_command_without_a_word(tmp_path: Path) -> None:
    path = make_file(tmp_path / "rooms.db", *(StoredRoom(RoomKey("p", f"{n}" * 99), {"k": n}) for n in range(1000)))
    command = [sys.executable, "-m", "partyroom", "rooms", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (b"", __main__.SIGPIPE) == (process.stderr.read(), process.wait())
