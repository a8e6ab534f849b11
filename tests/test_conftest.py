"""How the suite itself is run: what a run takes up that is asked for what takes minutes, and where files are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_run_of_what_takes_minutes_takes_up_what_hypothesis_explores_and_keeps_bytecode_among_pytests_own_things(
    tmp_path: Path,
) -> None:
    options = ["-m", "slow", "-n", "0", "--collect-only", "-q", "-o", f"cache_dir={tmp_path}"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/core/test_retry.py"],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    collected = [line.partition("::")[2] for line in ran.stdout.splitlines() if "::" in line]
    assert ["test_a_retry_is_never_before_its_delay_and_never_outside_the_calendar"] == collected, ran.stdout
    assert list((tmp_path / "d" / "bytecode").rglob("test_retry*.pyc"))
