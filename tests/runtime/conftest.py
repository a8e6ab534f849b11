"""Rooms for tests of storage and alarms: in a harness on each kind of store, and in a quick one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from partyroom import RoomHandle, StorageBackend
from partyroom.testing import Harness
from tests.runtime.boxes import STORES, Box, make_store
from tests.runtime.towers import Tower


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


@pytest.fixture
def tower() -> Tower:
    return Tower()


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StorageBackend:
    return make_store(request.param, tmp_path)


@pytest.fixture
async def bells(store: StorageBackend, tower: Tower, anyio_backend: object) -> AsyncIterator[Harness]:
    """Give rooms that do what the tower says; what they raise does not fail the test."""
    async with Harness({"bell": tower.bell}, backend=store, fail_on_errors=False) as harness:
        yield harness


@pytest.fixture
def bell(bells: Harness) -> RoomHandle:
    return bells.parties["bell"].get("a")
