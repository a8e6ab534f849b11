"""``ring-due``: what is due rings once, and the command ends with what came of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from typing_extensions import override

from partyroom import Alarm, MissingExtraError, Room, Runtime, RuntimeStateError
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from tests.cli.command_line import run

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
LATER = datetime(9999, 1, 1, tzinfo=UTC)


class Draft(Room):
    async def write(self, name: str | None, when: datetime) -> None:
        await self.ctx.storage.set_alarm(when, name=name)

    @override
    async def on_alarm(self, alarm: Alarm, /) -> None:
        if alarm.name == "bad":
            raise ValueError("no\nway")
        await self.ctx.storage.put("rung", alarm.name or "")


class App:
    """What a program's module has; tests look it up under ``app`` here."""

    runtime: Runtime
    number = 7

    @staticmethod
    def make() -> Runtime:
        return app.runtime

    @staticmethod
    def broken() -> Runtime:
        raise MissingExtraError("no such thing")


app = App()


async def fill(runtime: Runtime, **alarms: datetime) -> None:
    runtime.alarms = "manual"
    async with runtime:
        for name, when in alarms.items():
            await runtime.parties["draft"].get(name).call(Draft.write, None if name == "plain" else name, when)


async def stored(runtime: Runtime, name: str) -> dict[str, object]:
    async with runtime:
        return await runtime.parties["draft"].get(name).stored()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    app.runtime = Runtime({"draft": Draft}, backend=FileBackend(tmp_path / "rooms.db"))
    return tmp_path / "rooms.db"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_is_due_rings(path: Path, loop: str) -> None:
    anyio.run(lambda: fill(app.runtime, plain=LONG_AGO, later=LATER))
    ran = run("ring-due", f"{__name__}:app.make", "--loop", loop)
    assert (0, "") == (ran.code, ran.err)
    assert ran.out.startswith("rang 1 alarm, 0 failed; the next is due in ")
    assert ran.out.endswith(", at 9999-01-01 00:00:00Z\n")
    assert {"rung": ""} == anyio.run(stored, app.runtime, "plain")
    assert {} == anyio.run(stored, app.runtime, "later")
    assert "rang 0 alarms, 0 failed" in run("ring-due", f"{__name__}:app.runtime").out


def test_a_runtime_that_rings_by_itself_rings_by_hand_here(path: Path) -> None:
    anyio.run(lambda: fill(app.runtime, a=LONG_AGO, b=LONG_AGO, c=LONG_AGO))
    app.runtime.alarms = "auto"
    ran = run("ring-due", f"{__name__}:app.runtime", "--limit", 2)
    assert "rang 2 alarms, 0 failed; the next is due 3653 d late, at 2020-01-01 00:00:00Z\n" == ran.out
    assert "rang 1 alarm, 0 failed; no other is set\n" == run("ring-due", f"{__name__}:app.runtime").out


def test_a_handler_that_raises_makes_the_exit_code(path: Path) -> None:
    anyio.run(lambda: fill(app.runtime, bad=LONG_AGO, plain=LONG_AGO))
    ran = run("ring-due", f"{__name__}:app.runtime")
    assert 1 == ran.code
    assert ran.lines[0].startswith("rang 1 alarm, 1 failed; the next is due ")
    assert [r"  draft/bad alarm 'bad': ValueError: no\nway"] == ran.lines[1:]


def test_a_machine_is_told_all_of_it(path: Path) -> None:
    anyio.run(lambda: fill(app.runtime, bad=LONG_AGO, plain=LONG_AGO))
    [report] = run("ring-due", f"{__name__}:app.runtime", "--json").facts
    failed = {"party": "draft", "room": "bad", "alarm": "bad", "error": "ValueError: no\nway"}
    assert (1, [failed]) == (report["rung"], report["failed"])
    assert timedelta() < datetime.fromisoformat(report["next"]) - LONG_AGO
    app.runtime = Runtime({}, backend=MemoryBackend())
    assert [{"rung": 0, "failed": [], "next": None}] == run("ring-due", f"{__name__}:app.runtime", "--json").facts


def test_a_failure_of_an_alarm_without_a_name_names_its_room(tmp_path: Path) -> None:
    class Bad(Draft):
        @override
        async def on_alarm(self, alarm: Alarm, /) -> None:
            raise ValueError("no")

    app.runtime = Runtime({"draft": Bad}, backend=FileBackend(tmp_path / "rooms.db"))
    anyio.run(lambda: fill(app.runtime, plain=LONG_AGO))
    assert ["  draft/plain: ValueError: no"] == run("ring-due", f"{__name__}:app.runtime").lines[1:]


def test_a_file_that_is_in_use_rings_nothing(path: Path) -> None:
    async def beside() -> tuple[int, str]:
        async with FileBackend(path):
            ran = await anyio.to_thread.run_sync(run, "ring-due", f"{__name__}:app.runtime")
            return ran.code, ran.err

    code, told = anyio.run(beside)
    assert (2, 1) == (code, told.count("\n"))
    assert "is open for writing in this very process" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"{__name__}:app.number", f"{__name__}:app.number is no Runtime, and gives none, but int"),
        (f"{__name__}:Draft", f"{__name__}:Draft() raised TypeError: "),
        (f"{__name__}:app.broken", f"{__name__}:app.broken() raised MissingExtraError: no such thing"),
        (f"{__name__}:App", f"{__name__}:App is no Runtime, and gives none, but App"),
        (
            "no_such_app:runtime",
            "no_such_app:runtime cannot be found: ModuleNotFoundError: No module named 'no_such_app'",
        ),
    ],
)
def test_what_gives_no_runtime_is_told(name: str, told: str) -> None:
    ran = run("ring-due", name)
    assert (2, "", 1) == (ran.code, ran.out, ran.err.count("\n"))
    assert ran.err.startswith(f"partyroom ring-due: {told}")


async def set_while_open(runtime: Runtime) -> None:
    async with runtime:
        runtime.alarms = "manual"


def test_how_alarms_ring_is_settled_before_a_runtime_is_opened(path: Path) -> None:
    with pytest.raises(RuntimeStateError, match="cannot be set while the runtime is open"):
        anyio.run(set_while_open, app.runtime)
    assert "auto" == app.runtime.alarms
    app.runtime.alarms = "manual"
    assert "manual" == app.runtime.alarms


def test_alarms_ring_in_one_of_two_ways(path: Path) -> None:
    sometimes: Any = "sometimes"
    with pytest.raises(ValueError, match="alarms must be 'auto' or 'manual', not 'sometimes'"):
        app.runtime.alarms = sometimes
