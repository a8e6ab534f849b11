"""The backend that goes wrong where it is told to: each fault strikes the calls it was armed for, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BackendError, ClockStalledError, CommitError
from partyroom.testing.faults import FaultyBackend
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
B = RoomKey("party", "b")


@pytest.fixture
async def faulty(anyio_backend: object) -> AsyncIterator[FaultyBackend]:
    async with FaultyBackend(MemoryBackend()) as backend:
        yield backend


async def commit_to(backend: FaultyBackend, *rooms: RoomKey, value: bytes = b"1") -> Sequence[CommitError | None]:
    """Commit one value to each room, in one group."""
    commits = [Commit(room, await backend.claim(room), {"k": value}, {"": AlarmRow(room, "", 1)}) for room in rooms]
    return await backend.commit(commits)


async def stored(backend: FaultyBackend, room: RoomKey = A) -> bytes | None:
    return (await backend.backend.read(room, ["k"])).get("k")


async def test_it_changes_nothing_by_itself(faulty: FaultyBackend) -> None:
    assert [None, None] == await commit_to(faulty, A, B)
    assert {"k": b"1"} == await faulty.read(A, ["k"])
    assert [("k", b"1")] == await faulty.scan(A, KeyRange(), 1)
    assert [AlarmRow(A, "", 1)] == await faulty.room_alarms(A)
    assert [AlarmRow(A, "", 1)] == await faulty.due_alarms(None, None, 1)
    assert [] == await faulty.parked_alarms("party", None, 1)
    assert ["a", "b"] == await faulty.rooms("party", KeyRange(), 2)


async def test_it_counts_the_calls(faulty: FaultyBackend) -> None:
    await commit_to(faulty, A, B)
    assert {"open": 1, "claim": 2, "commit": 1} == faulty.calls


async def test_it_shows_what_it_wraps() -> None:
    shown = repr(FaultyBackend(MemoryBackend()))
    assert shown.startswith("FaultyBackend(<partyroom.backends.memory.MemoryBackend object"), shown


async def test_fail_raises_instead_of_the_nth_call(faulty: FaultyBackend) -> None:
    faulty.fail("commit", nth=2)
    await commit_to(faulty, A, value=b"1")
    with pytest.raises(BackendError, match="told to fail"):
        await commit_to(faulty, A, value=b"2")
    assert b"1" == await stored(faulty)
    await commit_to(faulty, A, value=b"3")
    assert b"3" == await stored(faulty)


async def test_what_has_not_struck_is_told(faulty: FaultyBackend) -> None:
    faulty.fail("commit", 2, times=2)
    faulty.fail("read", room=A)
    assert ["the commit number 2 from now, 2 times", f"the read of {A} that comes next, once"] == list(faulty.armed)
    await faulty.claim(A)
    await faulty.commit([])
    with pytest.raises(BackendError):
        await faulty.commit([])
    assert ["the commit that comes next, once", f"the read of {A} that comes next, once"] == list(faulty.armed)
    faulty.fail_until_healed("scan")
    assert "the scan that comes next, always" == faulty.armed[-1]
    faulty.heal()
    assert [] == list(faulty.armed)


async def test_fail_raises_the_given_error_so_many_times(faulty: FaultyBackend) -> None:
    error = BackendError("disk I/O error")
    faulty.fail("read", times=2, error=error)
    for _ in range(2):
        with pytest.raises(BackendError) as caught:
            await faulty.read(A, ["k"])
        assert error is caught.value
    assert {} == await faulty.read(A, ["k"])


async def test_fail_can_wait_for_a_call_that_concerns_a_room(faulty: FaultyBackend) -> None:
    faulty.fail("scan", room=B)
    assert [] == await faulty.scan(A, KeyRange(), 1)
    with pytest.raises(BackendError):
        await faulty.scan(B, KeyRange(), 1)


async def test_a_group_concerns_all_its_rooms(faulty: FaultyBackend) -> None:
    faulty.fail(room=B, nth=2)
    await commit_to(faulty, A)
    await commit_to(faulty, A, B)
    await commit_to(faulty, A)
    with pytest.raises(BackendError):
        await commit_to(faulty, A, B)


async def test_a_call_of_all_rooms_concerns_none(faulty: FaultyBackend) -> None:
    faulty.fail("due_alarms", room=A)
    assert [] == await faulty.due_alarms(None, None, 1)


async def test_opening_can_fail() -> None:
    faulty = FaultyBackend(MemoryBackend())
    faulty.fail("open")
    with pytest.raises(BackendError):
        await faulty.__aenter__()
    async with faulty:
        assert {} == await faulty.read(A, ["k"])


async def test_it_fails_until_it_is_healed(faulty: FaultyBackend) -> None:
    faulty.fail_until_healed()
    for _ in range(5):
        with pytest.raises(BackendError):
            await commit_to(faulty, A)
    faulty.heal()
    assert [None] == await commit_to(faulty, A)


async def test_lose_answer_stores_and_raises(faulty: FaultyBackend) -> None:
    faulty.lose_answer()
    with pytest.raises(BackendError, match="told to lose"):
        await commit_to(faulty, A)
    assert b"1" == await stored(faulty)


async def test_refuse_refuses_one_room_of_a_group(faulty: FaultyBackend) -> None:
    faulty.refuse(A)
    first, refused, last = await commit_to(faulty, B, A, RoomKey("party", "c"))
    assert (None, None, "party/a: a commit that FaultyBackend was told to refuse") == (first, last, str(refused))
    assert (None, b"1") == (await stored(faulty, A), await stored(faulty, B))


async def test_refuse_counts_the_groups_that_hold_the_room(faulty: FaultyBackend) -> None:
    error = CommitError("full")
    faulty.refuse(A, nth=2, times=2, error=error)
    groups: list[list[RoomKey]] = [[B], [A], [B], [A, B], [A], [A]]
    answers = [list(await commit_to(faulty, *rooms)) for rooms in groups]
    assert [[None], [None], [None], [error, None], [error], [None]] == answers


async def test_tear_stores_a_part_and_says_nothing(faulty: FaultyBackend) -> None:
    faulty.tear()
    values: dict[str, bytes | None] = {"a": b"1", "b": b"2"}
    commit = Commit(A, await faulty.claim(A), values, {"": AlarmRow(A, "", 1)})
    assert [None] == await faulty.commit([commit])
    assert ([("a", b"1")], []) == (await faulty.scan(A, KeyRange(), 9), await faulty.room_alarms(A))


async def test_hold_stops_before_anything_is_stored(faulty: FaultyBackend) -> None:
    async with create_task_group() as group:
        with faulty.hold() as hold:
            group.start_soon(commit_to, faulty, A)
            await hold.arrived()
            assert None is await stored(faulty)
    assert b"1" == await stored(faulty)


async def test_cancelled_where_it_is_held_nothing_is_stored(faulty: FaultyBackend) -> None:
    async with create_task_group() as group:
        hold = faulty.hold()
        group.start_soon(commit_to, faulty, A)
        await hold.arrived()
        group.cancel_scope.cancel()
    assert None is await stored(faulty)


async def test_hold_answer_stops_when_all_is_stored_and_nobody_told(faulty: FaultyBackend) -> None:
    told: list[object] = []

    async def commit() -> None:
        told.append(await commit_to(faulty, A))

    async with create_task_group() as group:
        hold = faulty.hold_answer()
        group.start_soon(commit)
        await hold.arrived()
        assert (b"1", []) == (await stored(faulty), told)
        hold.release()
    assert [[None]] == told


async def test_who_waits_for_a_call_that_never_comes_is_told() -> None:
    async with FaultyBackend(MemoryBackend(), stall_timeout=0.02) as faulty:
        await commit_to(faulty, B)
        with pytest.raises(ClockStalledError) as caught:
            await faulty.hold(nth=2, room=A).arrived()
    assert (
        "nothing goes on: expected commit number 2 of party/a from when it was to be held, and saw no call for 0.02 real "
        "seconds\n all calls so far:\n  open: 1, claim: 1, commit: 1"
    ) == str(caught.value)


async def test_a_hold_that_was_released_before_holds_nothing(faulty: FaultyBackend) -> None:
    faulty.hold("read").release()
    assert {} == await faulty.read(A, ["k"])


async def test_heal_releases_what_is_held(faulty: FaultyBackend) -> None:
    async with create_task_group() as group:
        hold = faulty.hold()
        group.start_soon(commit_to, faulty, A)
        await hold.arrived()
        faulty.heal()
    assert b"1" == await stored(faulty)


async def test_delay_lets_the_others_run_so_many_times(faulty: FaultyBackend) -> None:
    faulty.delay(turns=50)
    turns = 0
    async with create_task_group() as group:
        group.start_soon(commit_to, faulty, A)
        while await stored(faulty) is None:
            turns += 1
            await checkpoint()
    # The order of tasks within a turn is the loop's: one more or less.
    assert 45 <= turns <= 55


async def test_several_faults_of_one_call_strike_one_inside_the_other(faulty: FaultyBackend) -> None:
    faulty.lose_answer()
    faulty.refuse(A)
    with pytest.raises(BackendError, match="told to lose"):
        await commit_to(faulty, A, B)
    assert (None, b"1") == (await stored(faulty, A), await stored(faulty, B))


def test_a_call_that_there_is_none_of_is_refused_where_it_would_never_strike() -> None:
    misspelt: Any = "comit"
    faulty = FaultyBackend(MemoryBackend())
    for arm in (faulty.fail, faulty.fail_until_healed, faulty.lose_answer, faulty.hold):
        with pytest.raises(ValueError, match="a backend has no call 'comit'; it has open, close, claim, commit, read"):
            arm(misspelt)


@pytest.mark.parametrize(("nth", "times"), [(0, 1), (1, 0)])
def test_counting_begins_with_one(nth: int, times: int) -> None:
    faulty = FaultyBackend(MemoryBackend())
    with pytest.raises(ValueError, match="count from 1, not 0"):
        faulty.fail("commit", nth, times=times)
