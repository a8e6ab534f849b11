"""The example that cron rings: one process sets an alarm, another rings it, and whoever comes next finds nothing to do."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from partyroom.examples import from_cron

LINE = "-m partyroom ring-due partyroom.examples.from_cron:make_runtime"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give a way to run a program as Python would, in this process; it gives what was printed."""

    def run(module: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setenv("REMINDERS", str(tmp_path / "reminders.db"))
        with suppress(SystemExit):
            runpy.run_module(module, run_name="__main__")
        return capsys.readouterr().out

    return run


def process(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=40,
        env=os.environ | {"REMINDERS": str(folder / "reminders.db")},
    )
    assert "" == done.stderr
    return done.stdout


def test_cron_rings_what_a_program_has_set_that_is_long_gone(tmp_path: Path, here: Callable[..., str]) -> None:
    assert LINE in str(from_cron.__doc__)
    said = process(tmp_path, "-m", "partyroom.examples.from_cron", "put the kettle on", "0")
    assert said.startswith("the next one rings at 2")
    assert here("partyroom.examples.from_cron", "call Bob", "86400").startswith("the next one rings at 2")
    assert ["ann: put the kettle on", "rang 1 alarm, 0 failed; the next is due in 23 h"] == [
        line.split(" 59 min")[0] for line in process(tmp_path, *LINE.split()).splitlines()
    ]
    assert here("partyroom.__main__", *LINE.split()[2:]).startswith("rang 0 alarms, 0 failed; the next is due in 23 h")
    shown = here("partyroom.__main__", "show", str(tmp_path / "reminders.db"), "reminders", "ann")
    assert "['put the kettle on']" in shown
