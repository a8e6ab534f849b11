"""What tests of one loop's own ways share."""

from __future__ import annotations

import pytest


def needs_asyncio(anyio_backend_name: str) -> None:
    """Leave out, on any other loop, a test of what asyncio does by its own means, which know nothing of scopes."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own cancellations")
