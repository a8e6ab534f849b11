"""What all tests share: the loops they run on, and how hypothesis explores."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.util import find_spec
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
    # What uvicorn takes where it is installed, as few of those who test here have it.
    **({"uvloop": ("asyncio", {"use_uvloop": True})} if find_spec("uvloop") is not None else {}),
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
hypothesis.settings.register_profile("here", deadline=None, max_examples=20)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("here"), derandomize=True, database=None, print_blob=True
)
hypothesis.settings.register_profile(THOROUGH, deadline=None, max_examples=1000, database=None, print_blob=True)


EAGER_MATTERS = (
    "tests/runtime/engine/",
    "tests/runtime/test_cancel_everywhere.py",
    "tests/runtime/test_connections.py",
    "tests/runtime/test_runtime.py",
    "tests/test_native.py",
)
"""Whose tests are about tasks that begin: of events, connections and the runtime's own life."""

PAIRS = {
    "asyncio": {"file", "patient", "suspending", "stays", "strict"},
    "trio": {"memory", "inline", "hibernates"},
    "eager": {"memory", "inline", "hibernates"},
}
"""The stores, and the kinds of rooms, that the tests of each loop run on."""

WAYS = {way for ways in PAIRS.values() for way in ways}
TURNS = ("asyncio", "trio")


def params(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec else {}


def loop_of(item: pytest.Item) -> str | None:
    values = params(item).values()
    return next((name for name, backend in BACKENDS.items() if any(backend is value for value in values)), None)


def function_of(item: pytest.Item) -> object:
    return item.parent, getattr(item, "originalname", item.name)


def case_of(item: pytest.Item) -> object:
    """Give what tells a test from those of the same function, but for loop and store."""
    # By identity: what the index in ``callspec`` counts changes from one pytest to another.
    values = sorted(params(item).items(), key=lambda each: each[0])
    return [(name, id(value)) for name, value in values if name != "anyio_backend" and not is_way(value)]


def is_way(value: object) -> bool:
    return isinstance(value, str) and value in WAYS


def needless_pairs(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Give the tests that would hardly find anything new: what they try on one loop, others try on the other one.

    No store knows which loop it is on, but where it comes back from its thread, which its own tests and its contract try on
    every loop. So all the loops with all the stores, and with all the cases of a test, are many combinations that find
    nothing new: it is enough that each test has been on either loop, and on each store. Of several cases of one test each
    next one has the other loop, and uvloop has none. All of them are run by ``-m "not slow"``, as CI does once.
    """
    on_loops = [item for item in items if loop_of(item) is not None]
    cases: dict[object, list[object]] = {}
    for item in on_loops:
        known = cases.setdefault(function_of(item), [])
        if case_of(item) not in known and not item.get_closest_marker("slow"):
            known.append(case_of(item))
    for item in on_loops:
        loop, known, case = loop_of(item), cases[function_of(item)], case_of(item)
        way = next(filter(is_way, params(item).values()), None)
        is_another_turn = len(known) > 1 and case in known and loop != TURNS[known.index(case) % len(TURNS)]
        is_unseen = not item.nodeid.startswith(EAGER_MATTERS) if loop == "eager" else is_another_turn
        if loop == "uvloop" or is_unseen or (way is not None and way not in PAIRS[str(loop)]):
            yield item


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
    """Say what takes minutes, and give it that time; and what is tried on one loop by others."""
    for item in list(needless_pairs(items)):
        item.add_marker(pytest.mark.pairs)
    for item in items:
        if is_thorough(config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
