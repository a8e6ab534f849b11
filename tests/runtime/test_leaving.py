"""A room that was woken for its alarm alone: its claim ends with the commit of the ring, and what comes meanwhile waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio import create_task_group
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from partyroom import Alarm, CommitError, Every, RoomHandle, RoomKey, RuntimeClosedError, StorageBackend
from partyroom.testing import FaultyBackend, Harness, RecordingBackend
from tests.runtime.boxes import do, put
from tests.runtime.towers import HOUR, MINUTE, SECOND, Bell, Tower, fail, nothing, ring_at

pytestmark = pytest.mark.anyio

A = RoomKey("bell", "a")


@pytest.fixture
def faulty(store: StorageBackend) -> FaultyBackend:
    return FaultyBackend(store)


@pytest.fixture
def recording(faulty: FaultyBackend) -> RecordingBackend:
    return RecordingBackend(faulty)


@pytest.fixture
async def sleepers(
    faulty: FaultyBackend, recording: RecordingBackend, tower: Tower, anyio_backend: object
) -> AsyncIterator[Harness]:
    """Give bells of which one is asleep, with an alarm in a minute that counts what it finds."""

    async def count(bell: Bell, _alarm: Alarm) -> None:
        await bell.storage.put("count", 1 + await bell.storage.get("count", 0))

    async def note_start(bell: Bell) -> None:
        tower.note(bell.ctx, "starts")

    tower.on_alarm, tower.on_start = count, note_start
    async with Harness({"bell": tower.bell}, backend=recording, fail_on_errors=False) as harness:
        bell = harness.parties["bell"].get("a")
        await do(bell, ring_at(MINUTE))
        await harness.put_to_sleep(bell)
        tower.take()
        yield harness
        faulty.heal()


@pytest.fixture
def sleeper(sleepers: Harness) -> RoomHandle:
    return sleepers.parties["bell"].get("a")


def commits(recording: RecordingBackend) -> list[tuple[bool, bool]]:
    """Say of each commit since then whether it stored something of an alarm, and whether it ended the claim.

    Those that only end one are nothing that anybody waits for, so they come when they come.
    """
    stored = [commit for commit in recording.commits if commit.values or commit.alarms]
    return [(bool(commit.alarms), commit.release) for commit in stored[1:]]


@asynccontextmanager
async def leaving(sleepers: Harness, faulty: FaultyBackend) -> AsyncGenerator[TaskGroup]:
    """Hold the commit of the ring, for the body to do what it wants meanwhile; it is let go behind that."""
    async with create_task_group() as tasks:
        with faulty.hold("commit") as hold:
            tasks.start_soon(sleepers.clock.advance, MINUTE)
            await hold.arrived()
            yield tasks


async def turns() -> None:
    """Let everything else go on as far as it can without an answer of the disk."""
    for _ in range(10):
        await checkpoint()


async def test_the_commit_of_the_ring_ends_the_claim(
    sleepers: Harness, sleeper: RoomHandle, recording: RecordingBackend
) -> None:
    await sleepers.advance(MINUTE)
    assert [(True, True)] == commits(recording)
    assert not sleepers.runtime.statistics().awake
    assert {"count": 1} == await sleeper.stored()


async def test_a_room_that_rings_again_soon_keeps_its_claim(
    sleepers: Harness, sleeper: RoomHandle, recording: RecordingBackend, tower: Tower
) -> None:
    tower.on_alarm = lambda bell, _: bell.storage.set_alarm(SECOND) if len(tower.alarms) < 3 else nothing(bell)
    await sleepers.advance(HOUR)
    assert [(True, False), (True, False), (True, True)] == commits(recording)
    assert [60.0, 61.0, 62.0] == tower.rang()


async def test_a_room_that_others_need_keeps_its_claim(
    sleepers: Harness, sleeper: RoomHandle, recording: RecordingBackend
) -> None:
    await do(sleeper, put(seen=True))
    await do(sleeper, ring_at(SECOND))
    await sleepers.advance(SECOND)
    assert [(False, False), (True, False), (True, False)] == commits(recording)
    assert 1 == sleepers.runtime.statistics().awake


async def test_a_ring_that_failed_for_good_is_told_before_the_claim_ends(
    sleepers: Harness, recording: RecordingBackend, tower: Tower
) -> None:
    tower.on_alarm = fail
    await sleepers.advance(10 * HOUR)
    assert "a failed" == tower.book[-1][1]
    starts = sum(what == "a starts" for _, what in tower.book)
    # The last one had something to hear of, and ended its claim behind that.
    assert starts == 1 + sum(release for _, release in commits(recording))
    assert (True, False) == commits(recording)[-1]


@pytest.mark.parametrize("what", ["call", "ring"])
async def test_what_comes_while_it_leaves_waits_and_begins_anew(  # noqa: PLR0917 - fixtures
    sleepers: Harness, sleeper: RoomHandle, faulty: FaultyBackend, recording: RecordingBackend, tower: Tower, what: str
) -> None:
    found: list[object] = []

    async def ask() -> None:
        if what == "ring":
            await sleeper.ring_alarm()
        found.extend(await do(sleeper, lambda storage: storage.get("count"), put(asked=True)))

    async with leaving(sleepers, faulty) as tasks:
        tasks.start_soon(ask)
        await turns()
        assert [] == found
        assert ["a starts", "a rings"] == [note for _, note in tower.book]
    assert [1] == found[:1]
    assert ["a starts", "a rings", "a starts"] == [note for _, note in tower.book]
    assert [(True, True), (False, False)] == commits(recording)[:2]
    assert {"count": 1, "asked": True} == await sleeper.stored()


async def test_if_that_commit_is_refused_the_alarm_rings_again_and_what_waits_goes_on(
    sleepers: Harness, sleeper: RoomHandle, faulty: FaultyBackend, tower: Tower
) -> None:
    found: list[object] = []

    async def ask() -> None:
        found.extend(await do(sleeper, lambda storage: storage.get("count")))

    faulty.refuse(A, error=CommitError("the disk is full"))
    async with leaving(sleepers, faulty) as tasks:
        tasks.start_soon(ask)
        await turns()
    assert [None] == found
    await sleepers.advance(MINUTE)
    assert {"count": 1} == await sleeper.stored()
    assert [60.0, 62.0] == tower.rang()


async def test_closing_waits_for_a_room_that_leaves_and_for_what_waits_behind_it(
    sleepers: Harness, sleeper: RoomHandle, faulty: FaultyBackend
) -> None:
    async with leaving(sleepers, faulty) as tasks:
        tasks.start_soon(do, sleeper, put(asked=True))
        await turns()
        tasks.start_soon(sleepers.restart)
        await turns()
    assert {"count": 1, "asked": True} == await sleeper.stored()


async def test_a_crash_while_it_leaves_tells_whoever_waits(
    sleepers: Harness, sleeper: RoomHandle, faulty: FaultyBackend, tower: Tower
) -> None:
    errors: list[BaseException] = []

    async def ask() -> None:
        with pytest.raises(RuntimeClosedError) as caught:
            await do(sleeper, put(asked=True))
        errors.append(caught.value)

    async with leaving(sleepers, faulty) as tasks:
        tasks.start_soon(ask)
        await turns()
        await sleepers.crash()
    assert 1 == len(errors)
    await sleepers.run_due()
    assert {"count": 1} == await sleeper.stored()


async def test_a_recurrence_goes_on_from_a_room_that_leaves_each_time(
    sleepers: Harness, sleeper: RoomHandle, recording: RecordingBackend, tower: Tower
) -> None:
    await do(sleeper, lambda storage: storage.set_alarm(Every(HOUR)))
    await sleepers.put_to_sleep(sleeper)
    await sleepers.advance(24 * HOUR)
    assert [(True, True)] * 24 == commits(recording)[1:]
    assert 24 == (await sleeper.stored())["count"]
