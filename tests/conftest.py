"""What all tests share: the loops they run on, and how hypothesis explores."""

from __future__ import annotations

import asyncio
import os
from functools import partial
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


# A slow machine is no failure. On CI the examples are the same in every run, so that red means changed code.
hypothesis.settings.register_profile("here", deadline=None, max_examples=30)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("here"), derandomize=True, database=None, print_blob=True
)
hypothesis.settings.register_profile(THOROUGH, deadline=None, max_examples=1000, database=None, print_blob=True)


def params(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def is_on_another_loop(item: pytest.Item) -> bool:
    return params(item).get("anyio_backend", BACKENDS["asyncio"]) is not BACKENDS["asyncio"]


def is_on_another_store(item: pytest.Item) -> bool:
    """Say whether a test that runs on several stores is on one that is not in memory, or that takes its time.

    No store knows which loop it is on, but where it comes back from its thread, which its own tests and its contract try on
    every loop. So all the loops with all the stores are many combinations that find nothing new: those of the plainest of
    the one with all of the other are enough, but for a run of what takes minutes.
    """
    return any(isinstance(value, str) and value in {"file", "patient"} for value in params(item).values())


def is_thorough(config: pytest.Config) -> bool:
    return bool("slow" == config.getoption("-m"))


def pytest_configure(config: pytest.Config) -> None:
    """Say how much hypothesis explores, before any test is imported that says how much of that it wants."""
    profile = "ci" if os.environ.get("CI") else "here"
    hypothesis.settings.load_profile(THOROUGH if is_thorough(config) else profile)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say what takes minutes, and give it that time."""
    for item in items:
        if is_on_another_loop(item) and is_on_another_store(item):
            item.add_marker(pytest.mark.slow)
        if is_thorough(config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
