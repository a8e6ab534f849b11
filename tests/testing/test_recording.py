"""The backend that tells what it was asked for."""

from __future__ import annotations

import pytest
from anyio import create_task_group

from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BackendError, FencedError
from partyroom.testing.faults import FaultyBackend
from partyroom.testing.recording import Effect, RecordingBackend
from partyroom.types import AlarmRow, Commit, KeyRange, RoomKey

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
EVERYTHING = KeyRange()


async def test_it_lists_every_call_with_what_it_was_given_and_gave() -> None:
    recording = RecordingBackend(MemoryBackend())
    ring, parked = AlarmRow(A, "ring", 1), AlarmRow(A, "parked", None)
    async with recording:
        fence = await recording.claim(A)
        commit = Commit(A, fence, {"k": b"1"}, {"ring": ring, "parked": parked})
        await recording.commit([commit])
        await recording.read(A, {"k": 1}.keys())
        await recording.scan(A, EVERYTHING, 9)
        await recording.room_alarms(A)
        await recording.due_alarms(5, None, 9)
        await recording.parked_alarms("party", None, 9)
        await recording.rooms("party", EVERYTHING, 9)
    expected = [
        Effect("open"),
        Effect("claim", (A,), 1),
        Effect("commit", ((commit,),), (None,)),
        Effect("read", (A, ("k",)), {"k": b"1"}),
        Effect("scan", (A, EVERYTHING, 9), [("k", b"1")]),
        Effect("room_alarms", (A,), [parked, ring]),
        Effect("due_alarms", (5, None, 9), [ring]),
        Effect("parked_alarms", ("party", None, 9), [parked]),
        Effect("rooms", ("party", EVERYTHING, 9), ["a"]),
        Effect("close"),
    ]
    assert expected == recording.effects


async def test_it_lists_refusals_and_errors_by_their_class() -> None:
    faulty = FaultyBackend(MemoryBackend())
    recording = RecordingBackend(faulty)
    async with recording:
        refused = Commit(A, 7, {"k": b"1"}, {})
        stored = Commit(A, await recording.claim(A), {"k": b"2"}, {})
        await recording.commit([refused, stored])
        faulty.fail()
        with pytest.raises(BackendError):
            await recording.commit([stored])
    group, alone = recording.of("commit")
    assert ((FencedError, None), BackendError) == (group.result, alone.result)
    assert [stored] == recording.commits


async def test_it_lists_a_call_when_it_has_ended() -> None:
    faulty = FaultyBackend(MemoryBackend())
    recording = RecordingBackend(faulty)
    async with recording, create_task_group() as group:
        with faulty.hold("scan") as hold:
            group.start_soon(recording.scan, A, EVERYTHING, 1)
            await hold.arrived()
            await recording.read(A, [])
    assert ["open", "read", "scan", "close"] == [effect.call for effect in recording.effects]


async def test_what_the_caller_changes_later_is_not_in_the_list() -> None:
    async with RecordingBackend(MemoryBackend()) as recording:
        values: dict[str, bytes | None] = {"k": b"1"}
        await recording.commit([Commit(A, await recording.claim(A), values, {})])
        values.clear()
    assert [{"k": b"1"}] == [commit.values for commit in recording.commits]
