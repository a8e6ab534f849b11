"""The pytest plugin's front: installed beside the package, so that a run which asks for no fixture of it imports nothing.

Owns the fixtures' names, and which framework's event loop a test runs on.

Promises that pytest's own start pays for this file only.

Must never import the library by itself: pytest imports this file in every run of
everybody who has the library installed.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from importlib import import_module
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any

import pytest

__all__ = ["blocking_harness", "fake_clock", "harness", "harness_options", "parties", "pytest_configure"]

LOOP_SCOPES = ("function", "class", "module", "package", "session")
"""How long a loop of pytest-asyncio's may live: for one test, or for all of these."""


@pytest.fixture
def parties() -> dict[str, Any]:
    """Say what stands behind each party's name. To be overridden, in the test's module or its conftest.py."""
    message = "define a fixture `parties` that gives the parties under test, such as {'draft': Draft}"
    raise pytest.UsageError(message)


@pytest.fixture
def harness_options() -> dict[str, Any]:
    """Give further options of the harness, as HarnessOptions has them. To be overridden."""
    return {}


@pytest.fixture
def fake_clock(harness_options: dict[str, Any]) -> object:
    """Give the clock that the test's harness runs on."""
    return harness_options.get("clock") or import_module("partyroom.testing").FakeClock()


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> object:
    """Give an open harness of the fixture ``parties``, for tests that are coroutines; it is closed at the end of the test."""
    return request.getfixturevalue(f"_partyroom_harness_{_framework(request)}")


def _framework(request: pytest.FixtureRequest) -> str:
    """Say whose event loop the test runs on."""
    if "anyio_backend" in request.fixturenames:
        return "anyio"
    if request.node.get_closest_marker("trio") and request.config.pluginmanager.has_plugin("trio"):
        return "trio"
    if iscoroutinefunction(request.function) and request.config.pluginmanager.has_plugin("asyncio"):
        return f"asyncio_{_loop_scope(request)}"
    message = "the fixture `harness` is for tests that are coroutines and run by anyio, asyncio or trio; see `blocking_harness`"
    raise pytest.UsageError(message)


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Say which of pytest-asyncio's loops the test runs on: a harness belongs to the loop that it was opened in."""
    marker = request.node.get_closest_marker("asyncio")
    scope: str | None = None if marker is None else marker.kwargs.get("loop_scope")
    return scope or str(request.config.getini("asyncio_default_test_loop_scope"))


@pytest.fixture
def blocking_harness(parties: object, harness_options: dict[str, Any], fake_clock: object) -> Generator[Any]:
    """Give an open harness for tests without ``async``."""
    kit: Any = import_module("partyroom.testing")
    with kit.BlockingHarness(parties, **{**harness_options, "clock": fake_clock}) as opened:
        yield opened


async def _open_harness(parties: object, harness_options: dict[str, Any], fake_clock: object) -> AsyncGenerator[Any]:
    # Opened here and closed there: some frameworks run the two halves of a fixture in different tasks.
    opened: Any = import_module("partyroom.testing").Harness(parties, **{**harness_options, "clock": fake_clock})
    await opened.open()
    yield opened
    await opened.close()


_partyroom_harness_anyio = pytest.fixture(_open_harness, name="_partyroom_harness_anyio")


def pytest_configure(config: pytest.Config) -> None:
    """Define the fixture in the terms of each framework that is there."""
    decorators: dict[str, Callable[..., object]] = {}
    if config.pluginmanager.has_plugin("asyncio") and "pytest_asyncio" in sys.modules:
        fixture = sys.modules["pytest_asyncio"].fixture
        decorators |= {f"asyncio_{scope}": partial(fixture, loop_scope=scope) for scope in LOOP_SCOPES}
    if config.pluginmanager.has_plugin("trio") and "pytest_trio" in sys.modules:
        decorators["trio"] = sys.modules["pytest_trio"].trio_fixture
    for name, decorate in decorators.items():
        config.pluginmanager.register(_plugin(f"_partyroom_harness_{name}", decorate), f"partyroom_{name}")


def _plugin(fixture: str, decorate: Callable[..., object]) -> ModuleType:
    """Make a plugin of one fixture; pytest looks for fixtures in modules."""

    async def opened(parties: object, harness_options: dict[str, Any], fake_clock: object) -> AsyncGenerator[Any]:
        async for each in _open_harness(parties, harness_options, fake_clock):
            yield each

    opened.__name__ = fixture
    plugin = ModuleType(fixture)
    setattr(plugin, fixture, decorate(opened))
    return plugin
