"""What all tests share: the loops they run on."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {"asyncio": ("asyncio", {}), "trio": ("trio", {})}
if sys.version_info >= (3, 12):
    BACKENDS["asyncio+eager"] = ("asyncio", {"loop_factory": _eager_loop})


@pytest.fixture(params=sorted(BACKENDS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The loops that every test marked ``anyio`` runs on."""
    return BACKENDS[request.param]
