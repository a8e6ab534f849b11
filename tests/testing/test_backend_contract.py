"""The stores that the library supplies, judged by the contract that it ships."""

from __future__ import annotations

from typing_extensions import override

from partyroom.backends.memory import MemoryBackend
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_contract import BackendContract


class TestMemoryBackend(BackendContract):
    @override
    def make_backend(self) -> StorageBackend:
        return MemoryBackend()
