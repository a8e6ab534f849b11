"""The README keeps its word: its commands are there, and every Python block is a program that runs on both loops."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from partyroom import Connection, Room, RoomContext, Runtime, Storage
from partyroom.asgi import PartyApp

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {f"line {TEXT.count(chr(10), 0, found.start()) + 2}": found[1] for found in BLOCK.finditer(TEXT)}

COMMANDS = re.findall(r"^(python3 -m venv .+)$", TEXT, re.MULTILINE)

# A program for a host that lives on asyncio brings its loop along.
RUNS = [
    (place, loop)
    for place in PROGRAMS
    for loop in ("asyncio", "trio")
    if loop == "asyncio" or "import asyncio" not in PROGRAMS[place]
]


def test_one_command_shows_the_demo_and_one_runs_the_tests() -> None:
    demo, tests = COMMANDS
    assert demo.endswith("-m partyroom demo")
    assert ".[test]" in tests
    assert tests.endswith("-m pytest")


def async_tests(names: dict[str, Any]) -> list[Callable[[], Any]]:
    return [value for name, value in names.items() if name.startswith("test_") and inspect.iscoroutinefunction(value)]


@pytest.mark.parametrize(("place", "loop"), RUNS)
def test_a_python_block_is_a_whole_program(
    place: str, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(anyio.run, backend=loop)
    monkeypatch.setattr(anyio, "run", run)
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[place], encoding="utf-8")
    for test in async_tests(runpy.run_path(str(program), run_name="__main__")):
        run(test)


def test_every_name_that_a_program_of_partykit_is_to_use_here_is_there() -> None:
    section = TEXT.split("## Coming from PartyKit")[1].split("\n## ")[0]
    here = " ".join(line.split(" | ")[1] for line in section.splitlines() if " | " in line)
    faces = {"ctx": RoomContext, "storage": Storage, "connection": Connection, "runtime": Runtime}
    for face, name in re.findall(r"`(?:async with )?(ctx|storage|connection|runtime)\.(\w+)", here):
        assert hasattr(faces[face], name), f"{face}.{name}"
    for callback in set(re.findall(r"`(on_\w+|connection_tags|hibernate)\b", here)):
        assert hasattr(Room, callback), callback
    for option in re.findall(r"(on_before_\w+)=", here):
        assert option in inspect.signature(PartyApp).parameters
