"""Every crash of a scenario: counted, killed at, restarted on what was durable, and reported by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from partyroom import Alarm, Codec, Connection, JsonCodec, Room, RoomKey, StorageBackend
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BackendError, BrokenInvariantError, ClockStalledError, DecodeError, RuntimeCrashedError
from partyroom.testing import CrashReport, FaultyBackend, Harness, every_crash
from partyroom.testing._crashing_backend import CrashingBackend
from partyroom.types import Commit

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "file"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StorageBackend]:
    if request.param == "memory":
        return MemoryBackend
    numbers = itertools.count()
    return lambda: FileBackend(tmp_path / f"{next(numbers)}.db")


class Counter(Room):
    async def increment(self) -> int:
        total: int = await self.ctx.storage.get("total", 0) + 1
        await self.ctx.storage.put("total", total)
        return total

    async def increment_later(self, seconds: float) -> None:
        await self.ctx.storage.set_alarm(timedelta(seconds=seconds))

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.increment()

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.send(str(await self.increment()))

    async def clear(self) -> None:
        await self.ctx.storage.delete_all()
        await self.ctx.storage.set_alarm(MINUTE, name="again")

    async def forget(self) -> None:
        await self.ctx.storage.delete("total")
        await self.ctx.storage.delete_alarm()


PARTIES = {"counter": Counter}


async def nothing(_harness: Harness) -> None:
    pass


async def test_a_reply_that_was_given_is_durable_at_every_crash(backend: Callable[[], StorageBackend]) -> None:
    """G4, held at every commit: whoever was told a total finds no smaller one."""
    told: list[int] = []

    async def scenario(harness: Harness) -> None:
        told.clear()
        for _ in range(4):
            total = await harness.parties["counter"].get("a").call(Counter.increment)
            told.append(total)

    found: list[tuple[int, int]] = []

    async def invariant(harness: Harness) -> None:
        stored = (await harness.stored(harness.parties["counter"].get("a"))).get("total", 0)
        found.append((len(told), stored))
        assert stored >= len(told)

    report = await every_crash(scenario, invariant, parties=PARTIES, backend=backend)
    print(report)  # noqa: T201 - the counts are to be seen
    assert CrashReport(4, 12) == report
    # The whole run, and then before, unanswered and answered for each commit. A reply that has left is heard of.
    expected = [(4, 4)]
    for number in range(4):
        expected += [(number, number), (number, number + 1), (number + 1, number + 1)]
    assert expected == found


async def test_a_message_that_was_sent_is_durable_at_every_crash(backend: Callable[[], StorageBackend]) -> None:
    inboxes: list[list[str | bytes]] = [[]]

    async def scenario(harness: Harness) -> None:
        client = await harness.connect(harness.parties["counter"].get("a"))
        inboxes[0] = client.inbox
        for _ in range(3):
            await client.send("more")
        await client.received()

    async def invariant(harness: Harness) -> None:
        stored = (await harness.stored(harness.parties["counter"].get("a"))).get("total", 0)
        assert stored >= len(inboxes[0])

    assert (await every_crash(scenario, invariant, parties=PARTIES, backend=backend)).commits >= 1


async def test_alarms_ring_once_after_every_crash(backend: Callable[[], StorageBackend]) -> None:
    """G8 and G9, held at every commit."""

    async def scenario(harness: Harness) -> None:
        for name in "abc":
            await harness.parties["counter"].get(name).call(Counter.increment_later, 60)
        await harness.advance(MINUTE)

    async def invariant(harness: Harness) -> None:
        harness.assert_idle()
        for name in "abc":
            assert await harness.stored(harness.parties["counter"].get(name)) in ({}, {"total": 1})

    assert CrashReport(6, 18) == await every_crash(scenario, invariant, parties=PARTIES, backend=backend)


async def test_a_failure_names_commit_moment_event_and_what_would_have_been_stored() -> None:
    async def scenario(harness: Harness) -> None:
        room = harness.parties["counter"].get("a")
        await room.call(Counter.increment)
        await room.call(Counter.increment_later, 7200)
        await room.call(Counter.clear)
        await room.call(Counter.increment)
        await room.call(Counter.forget)

    async def invariant(harness: Harness) -> None:
        if harness.log[-1].event != "Counter.forget":
            message = "always, but in the whole run"
            raise LookupError(message)

    with pytest.raises(BrokenInvariantError) as caught:
        await every_crash(scenario, invariant, parties=PARTIES, let_pass=timedelta(), moments=["before", "unanswered"])
    assert "the invariant does not hold after 8 of 10 crashes (5 commits)" == caught.value.summary
    assert isinstance(caught.value.__cause__, LookupError)
    raised = f"test_crash_points.py:{invariant.__code__.co_firstlineno + 3} in invariant: raise LookupError(message)"
    when = "at:       2030-01-01T00:00:00+00:00 (virtual)\n  pending:  "
    then = f"\n  then:     LookupError: always, but in the whole run\n  raised:   {raised}\n  {when}nothing"
    assert (
        "crash at commit 1, before it was stored: counter/a, Counter.increment, which stores\n    'total': 1" + then,
        "crash at commit 1, when it was stored, and nobody was told: counter/a, Counter.increment, which stores\n    'total': 1"
        + then,
        "crash at commit 2, before it was stored: counter/a, Counter.increment_later, which stores\n"
        "    the alarm at 2030-01-01T02:00:00+00:00" + then,
    ) == caught.value.failures[:3]
    assert "    everything deleted\n    alarm 'again' at 2030-01-01T00:01:00+00:00" in caught.value.failures[4]
    assert "    'total' deleted\n    the alarm deleted" in str(caught.value) or len(caught.value.failures) == 8


async def test_the_moments_to_crash_at_can_be_chosen() -> None:
    async def scenario(harness: Harness) -> None:
        await harness.parties["counter"].get("a").call(Counter.increment)

    report = await every_crash(scenario, nothing, parties=PARTIES, moments=["answered"])
    assert "1 commits, 1 crashes" == str(report)


async def test_runs_on_one_store_are_refused_for_they_would_see_each_other(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await harness.parties["counter"].get("a").call(Counter.increment)

    with pytest.raises(ValueError, match="every_crash needs an empty backend for each run, .* holds counter/a from"):
        await every_crash(scenario, nothing, parties=PARTIES, backend=lambda: FileBackend(tmp_path / "one.db"))


async def test_a_backend_where_one_is_to_be_made_is_refused_in_words() -> None:
    made: Any = MemoryBackend()
    with pytest.raises(TypeError, match="every_crash needs what makes an empty backend .*, not one MemoryBackend"):
        await every_crash(nothing, nothing, parties=PARTIES, backend=made)


async def test_an_invariant_that_never_holds_is_no_matter_of_crashes() -> None:
    async def invariant(_harness: Harness) -> None:
        raise LookupError

    with pytest.raises(BrokenInvariantError, match="does not hold even without a crash\n\nLookupError\n"):
        await every_crash(nothing, invariant, parties=PARTIES)


async def test_a_scenario_that_fails_by_itself_is_no_matter_of_the_invariant() -> None:
    async def scenario(_harness: Harness) -> None:
        raise LookupError

    with pytest.raises(BrokenInvariantError, match="^the scenario fails even without a crash\n\nLookupError\n"):
        await every_crash(scenario, nothing, parties=PARTIES)


async def test_an_error_of_the_scenario_itself_is_not_taken_for_a_crash() -> None:
    runs = 0

    async def scenario(harness: Harness) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise LookupError
        await harness.parties["counter"].get("a").call(Counter.increment)

    told = r"the scenario fails before its commit 1, and did not at first\n\nLookupError\n  raised:   .* in scenario: raise LookupError"
    with pytest.raises(BrokenInvariantError, match=told):
        await every_crash(scenario, nothing, parties=PARTIES)


async def test_a_scenario_may_crash_and_restart_its_harness_itself() -> None:
    async def scenario(harness: Harness) -> None:
        room = harness.parties["counter"].get("a")
        for again in (harness.crash, harness.restart, harness.crash):
            await room.call(Counter.increment)
            await again()

    assert CrashReport(3, 9) == await every_crash(scenario, nothing, parties=PARTIES)


async def test_a_crash_that_several_tasks_of_a_scenario_learn_of_is_no_failure_of_it() -> None:
    async def scenario(harness: Harness) -> None:
        async with harness.auto(), anyio.create_task_group() as tasks:
            for room_id in "ab":
                tasks.start_soon(harness.parties["counter"].get(room_id).call, Counter.increment)
            tasks.start_soon(harness.clock.sleep, MINUTE)

    assert CrashReport(2, 6) == await every_crash(scenario, nothing, parties=PARTIES)


async def test_the_first_crash_after_which_all_stalls_is_the_last_one() -> None:
    async def scenario(harness: Harness) -> None:
        await harness.parties["counter"].get("a").call(Counter.increment)

    async def invariant(harness: Harness) -> None:
        if not await harness.stored(harness.parties["counter"].get("a")):
            raise ClockStalledError("time cannot move")

    with pytest.raises(BrokenInvariantError, match=r"after 1 of 1 crashes \(1 commits\)"):
        await every_crash(scenario, invariant, parties=PARTIES)


async def test_a_scenario_that_comes_less_far_than_at_first_is_counted_as_far_as_it_comes() -> None:
    runs = 0

    async def scenario(harness: Harness) -> None:
        nonlocal runs
        runs += 1
        for _ in range(3 if runs == 1 else 1):
            await harness.parties["counter"].get("a").call(Counter.increment)

    assert CrashReport(3, 3) == await every_crash(scenario, nothing, parties=PARTIES)


async def test_a_scenario_learns_of_the_crash_and_is_cancelled() -> None:
    seen: list[str] = []

    async def scenario(harness: Harness) -> None:
        try:
            await harness.parties["counter"].get("a").call(Counter.increment)
        except RuntimeCrashedError:
            seen.append("crashed")
            try:
                await anyio.sleep_forever()
            finally:
                seen.append("cancelled")

    await every_crash(scenario, nothing, parties=PARTIES, moments=["before", "unanswered"])
    assert ["crashed", "cancelled"] * 2 == seen


async def test_what_a_codec_cannot_read_is_shown_as_it_is() -> None:
    class Unreadable(Codec):
        def encode(self, value: object, /) -> bytes:
            return JsonCodec().encode(value)

        def decode(self, data: bytes, /) -> Any:
            message = "not now"
            raise DecodeError(message)

    class Writer(Room):
        async def write(self) -> None:
            await self.ctx.storage.put("k", "v")

    async def scenario(harness: Harness) -> None:
        await harness.parties["writer"].get("a").call(Writer.write)

    checks: list[Harness] = []

    async def invariant(harness: Harness) -> None:
        checks.append(harness)
        assert 1 == len(checks)

    with pytest.raises(BrokenInvariantError, match=r"which stores\n    'k': b'\"v\"'"):
        await every_crash(scenario, invariant, parties={"writer": Writer}, codec=Unreadable())


# --- the backend that crashes ------------------------------------------------


def commit(room: str, key: str = "k") -> Commit:
    return Commit(RoomKey("p", room), 1, {key: b"1"}, {})


@attrs.define
class Killed:
    times: int = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.mark.parametrize(("moment", "durable"), [("before", ["a"]), ("unanswered", ["a", "b"])])
async def test_a_crash_within_a_group_leaves_those_before_it(moment: Any, durable: list[str]) -> None:
    inner, heard, killed = MemoryBackend(), list[Commit](), Killed()
    backend = CrashingBackend(inner, heard.append, nth=2, moment=moment)
    backend.kill = killed
    async with backend:
        group = [commit(room)._replace(fence=await backend.claim(RoomKey("p", room))) for room in "abc"]
        with anyio.CancelScope() as scope:
            backend.kill = scope.cancel
            await backend.commit(group)
        assert scope.cancelled_caught
        assert durable == [room for room in "abc" if await inner.read(RoomKey("p", room), ["k"])]
    assert ["a", "b"] == [each.room.id for each in heard]


async def test_a_crash_after_an_answer_within_a_group_answers_only_those_that_are_stored() -> None:
    inner, killed = MemoryBackend(), Killed()
    backend = CrashingBackend(inner, lambda _commit: None, nth=2, moment="answered")
    backend.kill = killed
    async with backend:
        group = [commit(room)._replace(fence=await backend.claim(RoomKey("p", room))) for room in "abc"]
        with pytest.raises(BackendError):
            await backend.commit(group)
        assert [None] == list(await backend.commit(group[:1]))
        assert [None] == list(await backend.commit(group[1:2]))
        assert 0 == killed.times
        await backend.killed.wait()
        assert 1 == killed.times
        with anyio.move_on_after(0) as late:
            await backend.commit(group[2:])
        assert late.cancelled_caught
        assert [True, True, False] == [bool(await inner.read(RoomKey("p", room), ["k"])) for room in "abc"]
        backend.let_go()
        assert [None] == list(await backend.commit(group[2:]))


async def test_a_crash_after_an_answer_waits_for_a_runtime_that_can_be_killed() -> None:
    killed, restarts = Killed(), iter([True, True, False])
    backend = CrashingBackend(MemoryBackend(), lambda _commit: None, nth=1, moment="answered")
    backend.kill, backend.may_kill = killed, lambda: not next(restarts)
    async with backend:
        await backend.commit([commit("a")._replace(fence=await backend.claim(RoomKey("p", "a")))])
        await backend.killed.wait()
    assert (1, []) == (killed.times, list(restarts))


async def test_a_commit_that_stores_nothing_is_not_counted() -> None:
    backend = CrashingBackend(MemoryBackend(), lambda _commit: None, nth=1)
    async with backend:
        await backend.commit([Commit(RoomKey("p", "a"), await backend.claim(RoomKey("p", "a")), {}, {}, release=True)])
    assert 0 == backend.commits


async def test_a_kept_alarm_is_shown_as_one_without_a_time() -> None:
    class Failing(Room):
        async def arm(self) -> None:
            await self.ctx.storage.set_alarm(MINUTE)

        async def on_alarm(self, alarm: Alarm) -> None:
            raise OSError

    async def scenario(harness: Harness) -> None:
        await harness.parties["failing"].get("a").call(Failing.arm)
        await harness.advance(timedelta(hours=1))

    async def invariant(harness: Harness) -> None:
        assert len(harness.log) == 8

    with pytest.raises(BrokenInvariantError) as raised:
        await every_crash(
            scenario,
            invariant,
            parties={"failing": Failing},
            fail_on_errors=False,
            moments=["before"],
            let_pass=timedelta(),
        )
    assert any("the alarm kept without a time" in failure for failure in raised.value.failures)


async def test_backends_of_ones_own_are_wrapped_too() -> None:
    async def scenario(harness: Harness) -> None:
        await harness.parties["counter"].get("a").call(Counter.increment)

    report = await every_crash(
        scenario, nothing, parties=PARTIES, backend=lambda: FaultyBackend(MemoryBackend()), strict_hibernation=True
    )
    assert CrashReport(1, 3) == report
