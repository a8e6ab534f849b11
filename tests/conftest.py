"""What all tests share: the loops they run on, and how hypothesis explores."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.sizes import THOROUGH


def _new_loop(task_factory: Any) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(task_factory)
    return loop


# Python 3.12 brought eager tasks: they run before `start_soon` returns, which turns many orders round.
EAGER: Any = getattr(asyncio, "eager_task_factory", None)

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"loop_factory": partial(_new_loop, None)}),
    "eager": ("asyncio", {"loop_factory": partial(_new_loop, EAGER)}),
    "trio": ("trio", {}),
}


# As wide as the anyio plugin's own fixture: hypothesis refuses fixtures that it cannot set up for each example.
@pytest.fixture(
    scope="module",
    params=[pytest.param(value, id=name) for name, value in BACKENDS.items() if name != "eager" or EAGER],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Give the loops that every test marked ``anyio`` runs on, one after the other."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


MEMORY, ENOUGH = Path("/dev/shm"), 2**30


# A slow machine is no failure. On CI the examples are the same in every run, so that red means changed code.
hypothesis.settings.register_profile("here", deadline=None, max_examples=30)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("here"), derandomize=True, database=None, print_blob=True
)
hypothesis.settings.register_profile(THOROUGH, deadline=None, max_examples=1000, database=None, print_blob=True)


EAGER_MATTERS = (
    "tests/backends/test_threaded.py",
    "tests/hosts/test_beside.py",
    "tests/hosts/test_lifespan.py",
    "tests/runtime/engine/",
    "tests/runtime/test_alarm_loop.py",
    "tests/runtime/test_cancel_everywhere.py",
    "tests/runtime/test_connections.py",
    "tests/runtime/test_runtime.py",
    "tests/test_native.py",
    "tests/testing/test_harness.py",
)
"""Whose tests are about tasks that begin: of events, connections, the alarm loop, commits and the runtime's own life."""

WAYS = {"memory", "file", "patient", "inline", "suspending", "stays", "hibernates", "strict"}
"""The stores, and the kinds of rooms, that tests run on one after the other."""

PAIRS = {"asyncio": WAYS - {"memory"}, "eager": {"memory", "inline", "hibernates"}, "trio": WAYS - {"file", "patient"}}
"""Those of them that the tests of each loop run on."""


def is_a_needless_pair(item: pytest.Item) -> bool:
    """Say whether a test would run on a loop that it does not see, or on a store that it has been on with another loop.

    No store knows which loop it is on, but where it comes back from its thread, which its own tests and its contract try on
    every loop. So all the loops with all the stores are many combinations that find nothing new: it is enough that each
    test has been on each loop, and on each store. The others are left for a run of what takes minutes.
    """
    callspec = getattr(item, "callspec", None)
    values: list[object] = list(callspec.params.values()) if callspec else []
    loop = next((name for name, backend in BACKENDS.items() if any(backend is value for value in values)), None)
    if loop == "eager" and not item.nodeid.startswith(EAGER_MATTERS):
        return True
    way = next((value for value in values if isinstance(value, str) and value in WAYS), None)
    return loop is not None and way is not None and way not in PAIRS[loop]


def is_thorough(config: pytest.Config) -> bool:
    return bool("slow" == config.getoption("-m"))


def pytest_configure(config: pytest.Config) -> None:
    """Say how much hypothesis explores, before any test is imported that says how much of that it wants; and where files are.

    No test takes a machine's power away, so that what they write needs no disk, which takes milliseconds for every commit.
    Where Python is told to leave no bytecode beside the sources, it is kept among pytest's own things: without any, each of
    the processes that tests start, and each run, would compile everything anew.
    """
    kept: pytest.Cache | None = getattr(config, "cache", None)
    if sys.dont_write_bytecode and kept is not None:
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = os.fspath(kept.mkdir("bytecode"))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH:
        os.environ["TMPDIR"] = tempfile.tempdir = os.fspath(MEMORY)
    profile = "ci" if os.environ.get("CI") else "here"
    hypothesis.settings.load_profile(THOROUGH if is_thorough(config) else profile)


def pytest_collection_finish() -> None:
    """Keep the collector from looking through thousands of tests again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say what takes minutes, and give it that time."""
    for item in items:
        if is_a_needless_pair(item):
            item.add_marker(pytest.mark.slow)
        if is_thorough(config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
