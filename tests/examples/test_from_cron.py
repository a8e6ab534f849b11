"""The example that cron rings, as real processes: one sets the alarm, another rings it, a third finds nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from partyroom.examples import from_cron

LINE = "-m partyroom ring-due partyroom.examples.from_cron:make_runtime"


def run(folder: Path, *arguments: str) -> str:
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


def test_cron_rings_what_a_program_has_set_that_is_long_gone(tmp_path: Path) -> None:
    assert LINE in str(from_cron.__doc__)
    for text, seconds in (("put the kettle on", "0"), ("call Bob", "86400")):
        said = run(tmp_path, "-m", "partyroom.examples.from_cron", text, seconds)
        assert said.startswith("the next one rings at 2")
    assert ["ann: put the kettle on", "rang 1 alarm, 0 failed; the next is due in 23 h"] == [
        line.split(" 59 min")[0] for line in run(tmp_path, *LINE.split()).splitlines()
    ]
    assert run(tmp_path, *LINE.split()).startswith("rang 0 alarms, 0 failed; the next is due in 23 h")
    shown = run(tmp_path, "-m", "partyroom", "show", str(tmp_path / "reminders.db"), "reminders", "ann")
    assert "['put the kettle on']" in shown
