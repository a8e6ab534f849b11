"""One file, several processes: one owns it, the next is told which, and all may look."""

from __future__ import annotations

from pathlib import Path

import pytest

from partyroom.backends._file_view import FileView
from partyroom.errors import BackendLockedError, BackendReadOnlyError
from partyroom.types import Commit, KeyRange, RoomKey
from tests.backends.axe import Child, await_line, await_writes
from tests.backends.axe_books import Books
from tests.backends.axe_child import Order, runtime_of
from tests.sizes import sizes

ROOM = RoomKey("ledger", "0")


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(str(tmp_path / "rooms.db"))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_whoever_comes_second_is_told_the_owner_until_that_is_killed(
    order: Order, capfd: pytest.CaptureFixture[str]
) -> None:
    books, runtime = Books(), runtime_of(order)
    with Child("asyncio") as owner, Child("trio") as second:
        owner.order(order)
        await_writes(owner, books, 20)
        for _ in range(3):
            with pytest.raises(BackendLockedError) as caught:
                await runtime.__aenter__()
            assert (order.path, owner.pid) == (caught.value.path, caught.value.pid)
            # The one who has it does not notice.
            await_writes(owner, books, 20)
        second.order(order)
        await_line(second, books, "opening")
        assert "" == second.hear()
        assert f"{order.path} is open for writing in process {owner.pid}" in capfd.readouterr().err
        await_writes(owner, books, 20)
        owner.kill()
        await_line(owner, books, "")
    async with runtime:
        stored = await runtime.parties[ROOM.party].get(ROOM.id).stored()
    assert stored["n"] >= max(books.acknowledged[ROOM])
    books.judge(Path(order.path))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@sizes("loop", "trio", "asyncio")
async def test_another_process_reads_whole_states_while_rooms_write_and_one_for_as_long_as_it_looks(
    order: Order, loop: str
) -> None:
    books, found = Books(), list[int]()
    with Child(loop) as owner:
        owner.order(order)
        for _ in range(5):
            await_writes(owner, books, 50)
            rooms = books.judge(Path(order.path))
            found.append(sum(stored.number for stored in rooms.values()))
        assert sorted(set(found)) == found
        assert found[0] >= 50
        async with FileView(order.path) as view:
            before = await view.scan(ROOM, KeyRange(), 1000)
            assert owner.pid == (await view.facts()).owner
            with pytest.raises(BackendReadOnlyError):
                await view.commit([Commit(ROOM, 1, {"n": b"0"}, {})])
            await_writes(owner, books, 200)
            assert before == await view.scan(ROOM, KeyRange(), 1000)
        async with FileView(order.path) as view:
            assert len(before) < len(await view.scan(ROOM, KeyRange(), 1000))
