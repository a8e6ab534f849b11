"""The example of a backend of one's own, judged by the contract."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typing_extensions import override

from partyroom.errors import BackendError, BackendFullError, CommitError
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_contract import BackendContract
from partyroom.types import Commit, KeyRange, RoomKey

pytest.importorskip("lmdb", reason="the extra `lmdb` is not installed")
from partyroom.examples.lmdb_backend import lmdb_backend
from tests.sizes import in_turn

A = RoomKey("party", "a")
MAP_SIZE = 2**26


class TestLmdbBackend(BackendContract):
    """It has no part in what its adapter does on a loop, which is judged by the adapter's own tests on each."""

    loops = in_turn(0, "asyncio", "trio")
    sequences = 2
    path: Path

    @override
    def make_backend(self) -> StorageBackend:
        self.path = self.folder / "rooms.lmdb"
        return lmdb_backend(str(self.path), map_size=MAP_SIZE)

    @override
    def reopen(self, backend: StorageBackend, /) -> StorageBackend:
        return lmdb_backend(str(self.path), map_size=MAP_SIZE)

    @override
    def crash(self, backend: StorageBackend, /) -> StorageBackend:
        self.path = Path(shutil.copy(self.path, self.path.with_name(f"{self.path.name}+")))
        return lmdb_backend(str(self.path), map_size=MAP_SIZE)


@pytest.mark.slow
class TestLmdbBackendAtLength(TestLmdbBackend):
    sequences = 100


@pytest.mark.anyio
async def test_a_full_file_refuses_what_is_too_much_and_goes_on(tmp_path: Path) -> None:
    async with lmdb_backend(str(tmp_path / "rooms.lmdb"), map_size=2**16) as backend:
        fence = await backend.claim(A)
        small, large = (Commit(A, fence, {"k": bytes(size)}, {}) for size in (100, 2**17))
        (refusal,) = await backend.commit([large])
        assert (CommitError, BackendFullError) == (type(refusal), type(refusal and refusal.__cause__))
        assert [None] == await backend.commit([small])


@pytest.mark.anyio
@pytest.mark.parametrize("reverse", [False, True])
async def test_long_keys_that_begin_alike_are_listed_in_order_up_to_any_of_them(
    tmp_path: Path, *, reverse: bool
) -> None:
    """LMDB does not hold them whole."""
    keys = [f"{'k' * 300}{number:02}" for number in range(20)]
    async with lmdb_backend(str(tmp_path / "rooms.lmdb")) as backend:
        await backend.commit([Commit(A, await backend.claim(A), dict.fromkeys(keys, b"1"), {})])
        found = await backend.scan(A, KeyRange(keys[2], keys[18], reverse), 100)
    assert sorted(keys[2:18], reverse=reverse) == [key for key, _ in found]


@pytest.mark.anyio
async def test_a_folder_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "never" / "rooms.lmdb"
    with pytest.raises(BackendError, match=r"rooms\.lmdb"):
        await lmdb_backend(str(path)).__aenter__()
