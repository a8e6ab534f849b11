"""How the suite itself is run: what a run takes up that is asked for what takes minutes, and where files are kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

WAY = re.compile(r"\b(?:asyncio|eager|trio|uvloop|memory|file|patient)\b-?")
"""The loop or the store in the name of a test."""


def collect(cache: Path, *options: str) -> list[str]:
    """Have a pytest of its own collect tests; give their names."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-q", "-o", f"cache_dir={cache}", *options],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    sys.stdout.write(ran.stdout)
    return [line.partition("::")[2] for line in ran.stdout.splitlines() if "::" in line]


def test_a_run_of_what_takes_minutes_takes_up_what_hypothesis_explores_and_keeps_bytecode_among_pytests_own_things(
    tmp_path: Path,
) -> None:
    expected = "test_a_retry_is_never_before_its_delay_and_never_outside_the_calendar"
    assert [expected] == collect(tmp_path, "-m", "slow", "tests/core/test_retry.py")
    assert list((tmp_path / "d" / "bytecode").rglob("test_retry*.pyc"))


def test_by_default_each_case_of_each_test_is_run_though_not_on_every_loop_and_store(tmp_path: Path) -> None:
    file = "tests/runtime/test_alarms_repeating.py"
    every, default = collect(tmp_path, "-m", "not slow", file), collect(tmp_path, file)
    assert {WAY.sub("", name) for name in every} == {WAY.sub("", name) for name in default}
    assert set(default) < set(every)
    assert len(default) < len(every) / 2
