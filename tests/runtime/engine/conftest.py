"""The two kinds of backend that every room has to live with: one that never suspends, and one that always does."""

from __future__ import annotations

import pytest

from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend
from tests.runtime.engine.running import SuspendingBackend


@pytest.fixture(params=["inline", "suspending"])
def backend(request: pytest.FixtureRequest) -> FaultyBackend:
    """Give a backend that can be told to fail."""
    return FaultyBackend(MemoryBackend() if request.param == "inline" else SuspendingBackend(MemoryBackend()))
