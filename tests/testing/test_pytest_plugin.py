"""The fixtures, under each framework that runs coroutines; and what they cost who does not use them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from partyroom.testing import _pytest_shim
from tests.sizes import sizes

ROOT = Path(__file__).parents[2]

PROGRAM = """
from datetime import timedelta

import pytest

from partyroom import Alarm, Room
from partyroom.testing import FakeClock, Harness


class Draft(Room):
    async def on_message(self, message, sender) -> None:
        await self.ctx.storage.put("text", message)
        await self.ctx.storage.set_alarm(timedelta(days=30))

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()


@pytest.fixture
def parties():
    return {"draft": Draft}


async def check(harness, fake_clock) -> None:
    assert isinstance(harness, Harness)
    assert harness.clock is fake_clock
    room = harness.parties["draft"].get("alice")
    client = await harness.connect(room)
    await client.send("Dear diary")
    await harness.advance(timedelta(days=29))
    assert await harness.stored(room) == {"text": "Dear diary"}
    await harness.advance(timedelta(days=1))
    assert await harness.stored(room) == {}
"""

ASYNC = """
class Test{framework}:
    @pytest.mark.{framework}
    async def test_it(self, harness, fake_clock):
        await check(harness, fake_clock)

    @pytest.mark.{framework}
    async def test_nothing_leaks_from_one_test_into_the_next(self, harness, fake_clock):
        assert harness.log == []
        await check(harness, fake_clock)
"""

LOOPS = """
@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_loop_of_its_module(harness, fake_clock):
    await check(harness, fake_clock)


@pytest.mark.asyncio(loop_scope="class")
class TestOfOneLoop:
    async def test_it(self, harness, fake_clock):
        await check(harness, fake_clock)

    async def test_again(self, harness, fake_clock):
        await check(harness, fake_clock)
"""

BLOCKING = """
def test_it(blocking_harness, fake_clock):
    assert type(blocking_harness).__name__ == 'BlockingHarness'
    assert blocking_harness.clock is fake_clock
    room = blocking_harness.parties["draft"].get("alice")
    room.connect().send("Dear diary")
    blocking_harness.advance(timedelta(days=30))
    assert blocking_harness.stored(room) == {}


def test_a_clock_alone(fake_clock):
    assert type(fake_clock).__name__ == 'FakeClock'
"""

OPTIONS = """
class TestOptions:
    @pytest.fixture
    def harness_options(self):
        return {"idle_timeout": timedelta(hours=1), "clock": FakeClock(max_timers=7)}

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["trio"])
    async def test_it(self, harness, fake_clock, harness_options):
        assert harness.clock is fake_clock is harness_options["clock"]
        await harness.wake(harness.parties["draft"].get("a"))
        assert [each.due.hour for each in await harness.pending()] == [1]
"""

LATE = """
import sys
from datetime import timedelta

import pytest


def test_nothing_is_imported():
    assert not any(name.split(".")[0] == "partyroom" for name in sys.modules)


@pytest.fixture
def parties():
    import partyroom

    class Draft(partyroom.Room):
        async def on_message(self, message, sender):
            await self.ctx.storage.put("text", message)
            await self.ctx.storage.set_alarm(timedelta(days=30))

        async def on_alarm(self, alarm):
            await self.ctx.storage.delete_all()

    return {"draft": Draft}
"""

WRONG = """
import pytest

def test_that_is_no_coroutine(harness):
    pass

@pytest.mark.asyncio
async def test_without_parties(harness):
    pass
"""


ANYIO, ASYNCIO, TRIO = ("-p", "anyio"), ("-p", "asyncio"), ("-p", "trio")
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""No plugin is loaded but those that are named."""


def run(folder: Path, program: str, *options: str) -> str:
    """Run a test file in a pytest of its own; give what it wrote."""
    (folder / "test_program.py").write_text(program, encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "partyroom.testing._pytest_shim"),
        *(*options, "--rootdir", str(folder), str(folder)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", **ALONE}
    answer = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    return answer.stdout + answer.stderr


# On anyio's own plugin each of the two tests runs on both loops.
@sizes(
    "way",
    (("anyio", "asyncio", "trio"), BLOCKING + OPTIONS, [*ANYIO, *ASYNCIO, *TRIO], "11 passed"),
    (("asyncio",), LOOPS, ["-o", "asyncio_mode=auto", *ASYNCIO], "5 passed"),
    (("asyncio",), "", ["-o", "asyncio_default_test_loop_scope=session", *ASYNCIO], "2 passed"),
)
def test_the_harness_fixture_works_under_each_framework_side_by_side_and_under_one_by_itself(
    way: tuple[Sequence[str], str, Sequence[str], str], tmp_path: Path
) -> None:
    """And where it cannot be given, it says why."""
    frameworks, more, options, passed = way
    programs = [ASYNC.format(framework=framework) for framework in frameworks]
    (tmp_path / "test_wrong.py").write_text(WRONG, encoding="utf-8")
    output = run(tmp_path, "".join([PROGRAM, *programs, more]), *options)
    assert passed in output
    assert "2 errors" in output
    assert "the fixture `harness` is for tests that are coroutines" in output
    assert "define a fixture `parties` that gives the parties under test" in output


def test_a_run_that_asks_for_no_fixture_imports_nothing_of_the_library(tmp_path: Path) -> None:
    """And the blocking fixture needs no framework."""
    shim = ROOT / "partyroom" / "testing" / "_pytest_shim.py"
    (tmp_path / "_partyroom_pytest.py").write_text(shim.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_program.py").write_text(LATE + BLOCKING, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-m", "pytest", "-p", "_partyroom_pytest", "-p", "no:cacheprovider"]
    answer = subprocess.run(
        [*command, str(tmp_path)],
        cwd=tmp_path,
        env={**environment, **ALONE, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert "3 passed" in answer.stdout


def test_the_front_is_installed_beside_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = project["project"]["entry-points"]["pytest11"].values()
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {"partyroom/testing/_pytest_shim.py": f"{module}.py"} == included
    shim = (ROOT / "partyroom" / "testing" / "_pytest_shim.py").read_text(encoding="utf-8")
    assert [] == re.findall(r"^(?:from|import) partyroom", shim, re.MULTILINE)


def test_a_framework_that_is_not_there_gets_no_fixture() -> None:
    # Without a way to register one.
    config: Any = SimpleNamespace(pluginmanager=SimpleNamespace(has_plugin=lambda _name: False))
    _pytest_shim.pytest_configure(config)
