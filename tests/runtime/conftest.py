"""Rooms for tests of storage and alarms: in a harness on each kind of store, and in a quick one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from partyroom import RoomHandle
from partyroom.testing import Harness
from tests.runtime.boxes import STORES, Box, make_store


@pytest.fixture(params=STORES)
async def harness(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: object) -> AsyncIterator[Harness]:
    async with Harness({"box": Box}, backend=make_store(request.param, tmp_path)) as harness:
        yield harness


@pytest.fixture
def box(harness: Harness) -> RoomHandle:
    return harness.parties["box"].get("a")


@pytest.fixture
async def quick(anyio_backend: object) -> AsyncIterator[Harness]:
    """Give rooms in memory, for what no store has a part in."""
    async with Harness({"box": Box}) as harness:
        yield harness


@pytest.fixture
def quick_box(quick: Harness) -> RoomHandle:
    return quick.parties["box"].get("a")
