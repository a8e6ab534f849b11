"""The demo: it keeps its promises on real processes, and says so when one is broken."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, final

import anyio
import attrs
import pytest
from typing_extensions import override

from partyroom._cli import demo, demo_process
from partyroom._cli.demo import Demo, judge
from partyroom._cli.demo_story import PROMISES, Report, Stored, Story, Verdict, verdicts
from partyroom._cli.screen import Screen
from partyroom.clock import SystemClock
from partyroom.protocols import Clock
from partyroom.types import Timer
from tests.cli.command_line import NOW

NOBODY = Timer()
KEEP = timedelta(milliseconds=700)
"""As long as two Pythons may take to start; one that takes longer rings at once, which is on time as well."""


def screen() -> tuple[Screen, StringIO]:
    out = StringIO()
    return Screen(out=out, err=StringIO(), input=StringIO(), clock=SystemClock(), chance=int), out


def broken(found: list[Verdict]) -> set[str]:
    return {verdict.promise for verdict in found if not verdict.kept}


@final
class Ahead(Clock):
    """The system's clock, some time ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead
        self.system = SystemClock()

    @override
    def now(self) -> datetime:
        return self.system.now() + self.ahead

    @override
    def monotonic(self) -> float:
        return self.system.monotonic()

    @override
    async def sleep_until(self, when: datetime, /, *, timer: Timer = NOBODY) -> None:
        await self.system.sleep_until(when - self.ahead)

    @override
    async def sleep(self, duration: timedelta, /, *, timer: Timer = NOBODY) -> None:
        await self.system.sleep(duration)


# --- with real processes -----------------------------------------------------


def test_the_demo_keeps_every_promise_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "partyroom", "demo"]
    temporary = {name: str(tmp_path) for name in ("TMPDIR", "TEMP", "TMP")}
    ran = subprocess.run(
        command,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **temporary},
    )
    told = f"{len(PROMISES)} of {len(PROMISES)} promises were kept\n"
    assert (0, "", True) == (ran.returncode, ran.stderr, ran.stdout.endswith(told)), ran.stdout
    assert [] == list(tmp_path.iterdir())


def meddler(*statements: str) -> Callable[[str], None]:
    """Make what does something to the file that no room would do."""

    def meddle(path: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return meddle


@pytest.mark.parametrize(
    ("meddle", "keep", "expected"),
    [
        pytest.param(
            meddler("DELETE FROM alarms"),
            KEEP,
            {
                "a room is awake before its alarm",
                "it knows its id in the alarm",
                "it reaches another party's room",
                "it reads what was stored before",
                "the alarm is never early",
                "it is never lost, and on time",
                "it rings once",
                "delete_all takes the alarm too",
            },
            marks=pytest.mark.slow,
        ),
        (
            meddler("""UPDATE entries SET value = CAST('"Dear liar"' AS BLOB)""", "UPDATE alarms SET due = 0"),
            # What rings at once is early for certain only if its time is far away.
            timedelta(minutes=1),
            {"it reads what was stored before", "the alarm is never early"},
        ),
    ],
)
def test_a_promise_that_is_broken_is_told(
    meddle: Callable[[str], None], keep: timedelta, expected: set[str], tmp_path: Path
) -> None:
    shown, out = screen()
    told = Demo(shown, str(tmp_path / "rooms.db"), keep, meddle).run()
    assert expected == broken(verdicts(told)), out.getvalue()
    assert 1 == judge(told, shown)
    kept = len(PROMISES) - len(expected)
    assert out.getvalue().endswith(f"{kept} of {len(PROMISES)} promises were kept\n")
    assert len(expected) == out.getvalue().count("BROKEN")


def test_a_process_that_fails_at_once_keeps_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown, out = screen()
    assert 1 == judge(Demo(shown, str(tmp_path / "none" / "rooms.db"), KEEP).run(), shown)
    assert out.getvalue().endswith(f"0 of {len(PROMISES)} promises were kept\n")
    assert "its folder does not exist" in capfd.readouterr().err


def interrupt(path: Path, started: list[subprocess.Popen[str]]) -> None:
    with demo._process("first", str(path), "9") as (process, reports):
        started.append(process)
        next(reports)
        raise KeyboardInterrupt


def test_a_demo_that_is_interrupted_leaves_no_process(tmp_path: Path) -> None:
    started: list[subprocess.Popen[str]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "rooms.db", started)
    assert [False] == [process.returncode in {None, 0} for process in started]


# --- both lives in this process ----------------------------------------------


@pytest.mark.anyio
async def test_whoever_waits_for_an_alarm_that_does_not_ring_is_let_go() -> None:
    clock = SystemClock()
    with anyio.CancelScope() as waiting:
        await demo_process._cancel_at(clock.now(), clock, waiting)
    assert waiting.cancel_called


@pytest.mark.anyio
async def test_the_second_life_finds_what_the_first_has_left(tmp_path: Path) -> None:
    path = str(tmp_path / "rooms.db")
    first, second = StringIO(), StringIO()
    clock = SystemClock()
    async with anyio.create_task_group() as tasks:

        def report(what: str, /, **facts: object) -> None:
            demo_process.report_to(first, clock, what, **facts)
            if what == "safe":
                tasks.cancel_scope.cancel()

        tasks.start_soon(demo_process.first_life, path, timedelta(days=1), clock, report)
    told = [Report.read(line) for line in first.getvalue().splitlines()]
    assert ["began", "constructor", "on_start", "safe"] == [each.what for each in told]
    due = datetime.fromisoformat(told[-1].facts["due"])
    later = Ahead(timedelta(days=1))
    await demo_process.second_life(path, due, later, partial(demo_process.report_to, second, later))
    reports = [Report.read(line) for line in second.getvalue().splitlines()]
    assert ["began", "opened", "constructor", "on_start", "on_alarm", "called", "ended"] == [
        each.what for each in reports
    ]
    assert {"text": demo_process.TEXT} == reports[4].facts["stored"]


# --- the judgement -----------------------------------------------------------


def story(**changes: Any) -> Story:
    """Give the story of a run in which all is well, but for some changes."""

    def report(what: str, seconds: float = 0, pid: int = 2, **facts: object) -> Report:
        return Report(what, NOW + timedelta(seconds=seconds), pid, facts)

    where: dict[str, Any] = {"party": "draft", "id": "alice"}
    due = (NOW + timedelta(seconds=2)).isoformat()
    began = (NOW + timedelta(seconds=2.001)).isoformat()
    stored = {"text": "Dear diary"}
    good = Story(
        [report("began", pid=1), report("safe", pid=1, **where, stored=stored, due=due)],
        -9,
        Stored(dict(stored), [NOW + timedelta(seconds=2)], {}),
        [
            report("opened", 1, awake=0),
            report("constructor", 2, **where),
            report("on_start", 2, **where),
            report("on_alarm", 2, **where, began=began, connections=0, stored=stored),
            report("called", 2, party="counter", id="all", answer=1),
            report("ended", 2),
        ],
        Stored({}, [], {"expired": 1}),
    )
    return attrs.evolve(good, **changes)


def without(chapter: list[Report], *names: str) -> list[Report]:
    return [report for report in chapter if report.what not in names]


def changed(chapter: list[Report], what: str, **facts: object) -> list[Report]:
    return [attrs.evolve(each, facts={**each.facts, **facts}) if each.what == what else each for each in chapter]


GOOD = story()


def test_a_story_in_which_all_is_well_keeps_every_promise() -> None:
    assert set() == broken(verdicts(GOOD))


@pytest.mark.parametrize(
    ("told", "promise"),
    [
        (
            story(after_kill=Stored({"text": "else"}, [NOW + timedelta(seconds=2)], {})),
            "what is acknowledged is safe",
        ),
        (story(exit_code=0), "what is acknowledged is safe"),
        (story(after_kill=None), "what is acknowledged is safe"),
        (story(after_kill=Stored({"text": "Dear diary"}, [], {})), "value and alarm stored together"),
        (story(after_kill=Stored({}, [NOW + timedelta(seconds=2)], {})), "value and alarm stored together"),
        (story(second=changed(GOOD.second, "opened", awake=1)), "a room is awake before its alarm"),
        (story(second=without(GOOD.second, "on_start")), "a room is awake before its alarm"),
        (story(second=changed(GOOD.second, "constructor", id="")), "it knows its id in the alarm"),
        (
            story(second=[attrs.evolve(each, pid=1) for each in GOOD.second]),
            "it knows its id in the alarm",
        ),
        (story(second=without(GOOD.second, "called")), "it reaches another party's room"),
        (story(at_end=Stored({}, [], {})), "it reaches another party's room"),
        (story(second=changed(GOOD.second, "on_alarm", stored={})), "it reads what was stored before"),
        (
            story(second=changed(GOOD.second, "on_alarm", began=(NOW + timedelta(seconds=1.999)).isoformat())),
            "the alarm is never early",
        ),
        (story(second=without(GOOD.second, "on_alarm")), "it is never lost, and on time"),
        (
            story(second=changed(GOOD.second, "on_alarm", began=(NOW + timedelta(seconds=3.1)).isoformat())),
            "it is never lost, and on time",
        ),
        (story(second=changed(GOOD.second, "on_alarm", connections=1)), "it is never lost, and on time"),
        (story(second=[*GOOD.second, *GOOD.second[3:4]]), "it rings once"),
        (story(at_end=Stored({}, [NOW], {"expired": 1})), "it rings once"),
        (story(at_end=Stored({"text": ""}, [], {"expired": 1})), "delete_all takes the alarm too"),
    ],
)
def test_what_was_not_seen_as_promised_is_a_broken_promise(told: Story, promise: str) -> None:
    assert promise in broken(verdicts(told))


def test_a_late_start_of_the_second_process_is_not_a_late_alarm() -> None:
    opened = [attrs.evolve(each, at=NOW + timedelta(seconds=9)) for each in GOOD.second[:1]]
    rang = changed(GOOD.second[1:], "on_alarm", began=(NOW + timedelta(seconds=9.5)).isoformat())
    assert set() == broken(verdicts(story(second=[*opened, *rang])))
