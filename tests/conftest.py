"""What all tests share: the loops they run on, and how hypothesis explores."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

import hypothesis
import pytest


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
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")
