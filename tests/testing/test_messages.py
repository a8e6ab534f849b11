"""The way out of a failing test is its message: what was expected and seen, which room, at what virtual time, what was pending.

Every assertion of the kit about rooms is provoked here, and its message held to these five parts.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, TypeAlias

import anyio
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from typing_extensions import override

from partyroom import Alarm, AlarmScheduler, Clock, Connection, Every, Room
from partyroom._services import RoomFactory
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import (
    BrokenContractError,
    BrokenInvariantError,
    ClockStalledError,
    EndlessTimersError,
    ExpectationError,
)
from partyroom.testing import (
    AlarmSchedulerContract,
    BlockingHarness,
    FakeClock,
    FaultyBackend,
    Harness,
    every_crash,
    many_orders,
)
from partyroom.testing._contract_suite import shown_apart
from partyroom.testing._failures import in_words
from partyroom.testing.state_machine import Call, RoomMachine

pytestmark = pytest.mark.anyio

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Box(Room):
    @override
    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if message == "fail":
            raise KeyError(message)
        self.ctx.broadcast(f"got {message!r}")

    @override
    async def on_alarm(self, alarm: Alarm) -> None:
        if alarm.name == "again":
            await self.ctx.storage.set_alarm(timedelta(), name="again")

    async def put(self) -> None:
        await self.ctx.storage.put("k", 1)

    async def arm(self, seconds: float, name: str = "tea") -> None:
        await self.ctx.storage.set_alarm(timedelta(seconds=seconds), name=name)

    async def repeat(self) -> None:
        await self.ctx.storage.set_alarm(Every(HOUR))

    async def begin(self) -> None:
        self.ctx.start_soon(self.doze)

    async def doze(self) -> None:
        await self.ctx.clock.sleep(HOUR)

    async def hang(self) -> None:
        await anyio.sleep_forever()


PARTIES: Mapping[str, RoomFactory] = {"box": Box}
Provoke: TypeAlias = Callable[[], Awaitable[object]]


def harness(**options: Any) -> Harness:
    return Harness(PARTIES, clock=FakeClock(stall_timeout=0.02, max_timers=20), **options)


async def with_a_room(act: Callable[[Harness, Any], Awaitable[object]], **options: Any) -> None:
    """Have a room whose alarm waits, and do something with it."""
    async with harness(**options) as rooms:
        room = rooms.parties["box"].get("a")
        await room.call(Box.arm, 5000.0, "later")
        await rooms.advance(MINUTE)
        await act(rooms, room)


async def expect_quiet(rooms: Harness, room: Any) -> None:
    await room.call(Box.arm, 5.0)
    await rooms.expect_quiet(MINUTE)


async def expect_quiet_of_the_clock(rooms: Harness, room: Any) -> None:
    await room.call(Box.arm, 5.0)
    await rooms.clock.expect_quiet(MINUTE)


async def put_to_sleep(rooms: Harness, room: Any) -> None:
    await room.call(Box.begin)
    await rooms.put_to_sleep(room)


async def put_to_sleep_with_a_client(rooms: Harness, room: Any) -> None:
    await rooms.connect(room)
    await rooms.put_to_sleep(room)


async def assert_idle(rooms: Harness, _room: Any) -> None:
    rooms.assert_idle()


async def expect_error(rooms: Harness, room: Any) -> None:
    with rooms.expect_error(ValueError):
        client = await rooms.connect(room)
        await client.send("fail")
        await rooms.settle()


async def raise_what_nobody_hears(rooms: Harness, room: Any) -> None:
    client = await rooms.connect(room)
    await client.send("fail")


async def expect_another_message(rooms: Harness, room: Any) -> None:
    client = await rooms.connect(room)
    await client.send("hello")
    await client.expect("goodbye")


async def receive_what_does_not_come(rooms: Harness, room: Any) -> None:
    client = await rooms.connect(room)
    await client.receive()


async def stall(rooms: Harness, room: Any) -> None:
    await during(room, Box.hang, partial(rooms.advance, MINUTE))


async def during(room: Any, method: Any, act: Callable[[], Awaitable[object]]) -> None:
    """Do something while a call runs that does not end; what that raises leaves as it is."""
    found: list[ClockStalledError] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_quietly, room, method)
        await anyio.wait_all_tasks_blocked()
        try:
            await act()
        except ClockStalledError as error:
            found.append(error)
        tasks.cancel_scope.cancel()
    raise found[0]


async def stall_in_a_background_task(rooms: Harness, room: Any) -> None:
    async def begin(box: Box) -> None:
        box.ctx.start_soon(box.hang)

    await room.call(begin)
    await rooms.advance(MINUTE)


async def stall_in_the_backend(rooms: Harness, _room: Any) -> None:
    backend = rooms.backend
    assert isinstance(backend, FaultyBackend)
    with backend.hold("claim"):
        await during(rooms.parties["box"].get("b"), Box.put, rooms.settle)


async def call_quietly(room: Any, method: Any) -> None:
    with suppress(Exception):
        await room.call(method)


async def arm_without_end(rooms: Harness, room: Any) -> None:
    await room.call(Box.arm, 5.0, "again")
    await rooms.advance(MINUTE)


async def run_what_never_ends(rooms: Harness, room: Any) -> None:
    await room.call(Box.repeat)
    await rooms.run_until_idle(limit=5 * HOUR)


async def wait_without_end(rooms: Harness, room: Any) -> None:
    await room.call(Box.repeat)
    client = await rooms.connect(room)
    async with rooms.auto(limit=5 * HOUR):
        await client.receive()


async def put_and_arm(rooms: Harness) -> None:
    room = rooms.parties["box"].get("a")
    await room.call(Box.arm, 5000.0, "later")
    await room.call(Box.put)


async def holds_nothing(rooms: Harness) -> None:
    assert await rooms.stored(rooms.parties["box"].get("a")) == {"k": 1}, "k is gone"


async def never_holds(rooms: Harness) -> None:
    assert not await rooms.stored(rooms.parties["box"].get("a"))


async def is_idle(rooms: Harness) -> None:
    rooms.assert_idle()


class Machine(RoomMachine):
    parties = PARTIES
    messages: ClassVar[Mapping[str, st.SearchStrategy[str | bytes]]] = {"box": st.just("fail")}


async def machine() -> None:
    options = settings(max_examples=200, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    await anyio.to_thread.run_sync(partial(run_state_machine_as_test, Machine, settings=options))


def use_a_harness_without_async() -> None:
    with BlockingHarness(PARTIES) as rooms:
        room = rooms.parties["box"].get("a")
        room.call(Box.arm, 5000.0, "later")
        client = room.connect(id="ann")
        client.send("hello")
        client.expect("goodbye")


class Never(AlarmScheduler):
    @override
    def changed(self, room: object, due: object, /) -> None:
        """Hear of it."""

    @override
    async def run(self, wake: object, upcoming: object, /) -> None:
        await anyio.sleep_forever()


class NeverContract(AlarmSchedulerContract):
    patience = 0.02
    loops: Sequence[str] = ("asyncio",)

    @override
    def make_scheduler(self, clock: Clock, /) -> AlarmScheduler:
        return Never()


LATER = "2030-01-01T01:23:20+00:00 box/a alarm"
NOW = "2030-01-01T00:01:00+00:00 (virtual)"

MESSAGES: dict[str, tuple[Provoke, type[AssertionError], list[str]]] = {
    "expect_quiet": (
        partial(with_a_room, expect_quiet),
        ExpectationError,
        ["expected: no event for 0:01:00", "00:01:05+00:00 box/a alarm", "box/a on_alarm: ok", LATER, "00:02:00"],
    ),
    "expect_quiet of the clock": (
        partial(with_a_room, expect_quiet_of_the_clock),
        ExpectationError,
        ["expected: nothing rings for 0:01:00", "seen:     2030-01-01T00:01:05+00:00 box/a alarm", LATER, "00:02:00"],
    ),
    "put_to_sleep": (
        partial(with_a_room, put_to_sleep),
        ExpectationError,
        ["expected: the room can leave memory", "background tasks that run: Box.doze", LATER, NOW],
    ),
    "put_to_sleep with a client": (
        partial(with_a_room, put_to_sleep_with_a_client),
        ExpectationError,
        ["expected: the room can leave memory", "connected clients: 1, and it does not hibernate", LATER, NOW],
    ),
    "assert_idle": (
        partial(with_a_room, assert_idle),
        ExpectationError,
        [
            "expected: no event, connection, background task or pending alarm",
            f"box/a: an alarm rings at {LATER[:25]}",
            LATER,
            NOW,
        ],
    ),
    "expect_error": (
        partial(with_a_room, expect_error),
        ExpectationError,
        ["expected: a room raises ValueError", "box/a on_message: KeyError: 'fail'", LATER, NOW],
    ),
    "an error that nobody hears of": (
        partial(with_a_room, raise_what_nobody_hears),
        ExpectationError,
        ["expected: no room raises what nobody hears of", "box/a on_message: KeyError: 'fail'", LATER, NOW],
    ),
    "a client's expect": (
        partial(with_a_room, expect_another_message),
        ExpectationError,
        ["receives ['goodbye']", """seen:     ["got 'hello'"]""", LATER, NOW],
    ),
    "a client's receive": (
        partial(with_a_room, receive_what_does_not_come),
        ExpectationError,
        ["receives a message", "seen:     nothing for 0.02 real seconds", "see Harness.auto", LATER, NOW],
    ),
    "a stall": (
        partial(with_a_room, stall),
        ClockStalledError,
        ["expected everything to end", "box/a Box.hang has run for 0:00:00 (virtual), and waits at", LATER, NOW],
    ),
    "a stall in a background task": (
        partial(with_a_room, stall_in_a_background_task),
        ClockStalledError,
        [
            "expected everything to end",
            "box/a background task Box.hang has run for 0:00:00 (virtual), and waits at",
            LATER,
            NOW,
        ],
    ),
    "a stall in the backend": (
        partial(with_a_room, stall_in_the_backend, backend=FaultyBackend(MemoryBackend())),
        ClockStalledError,
        ["expected everything to end", "box/b Box.put has not begun: its room is still being claimed", LATER, NOW],
    ),
    "timers without end": (
        partial(with_a_room, arm_without_end),
        EndlessTimersError,
        [
            "box/a: expected an end of its timers",
            "saw none: more than max_timers=20 of 'alarm'",
            "box/a alarm",
            "2030-01-01T00:01:05+00:00 (virtual)",
        ],
    ),
    "run_until_idle": (
        partial(with_a_room, run_what_never_ends),
        EndlessTimersError,
        [
            "box/a: expected an end of its timers",
            "saw none: still pending after 5:00:00",
            "06:01:00+00:00 box/a alarm",
            "2030-01-01T05:01:00+00:00 (virtual)",
        ],
    ),
    "auto": (
        partial(with_a_room, wait_without_end),
        EndlessTimersError,
        [
            "box/a: expected an end of its timers",
            "saw none: somebody still waits after 5:00:00",
            "box/a alarm",
            "2030-01-01T05:01:00+00:00 (virtual)",
        ],
    ),
    "every_crash": (
        partial(every_crash, put_and_arm, holds_nothing, parties=PARTIES, let_pass=MINUTE),
        BrokenInvariantError,
        [
            "the invariant does not hold after 4 of 6 crashes (2 commits)",
            "crash at commit 2, before it was stored: box/a",
            "'k': 1\n  then:     AssertionError: k is gone",
            "in holds_nothing: assert await rooms.stored",
            LATER,
            NOW,
        ],
    ),
    "every_crash without a crash": (
        partial(every_crash, put_and_arm, is_idle, parties=PARTIES, let_pass=MINUTE),
        BrokenInvariantError,
        [
            "does not hold even without a crash",
            "expected: no event, connection",
            "box/a: an alarm rings at",
            LATER,
            NOW,
        ],
    ),
    "many_orders": (
        partial(many_orders, put_and_arm, never_holds, parties=PARTIES, seeds=[7], let_pass=MINUTE),
        BrokenInvariantError,
        [
            "the invariant does not hold with 1 of 1 seeds",
            "seed 7 (again: seeds=[7]): AssertionError: assert not",
            "in never_holds: assert not await rooms.stored",
            "box/a Box.put",
            LATER,
            NOW,
        ],
    ),
    "a state machine": (
        machine,
        ExpectationError,
        [
            "expected: no room raises what nobody hears of",
            "on_message: KeyError: 'fail'",
            "box/",
            "(virtual)",
            "pending:",
        ],
    ),
    "a harness without async": (
        partial(anyio.to_thread.run_sync, use_a_harness_without_async),
        ExpectationError,
        ["client 'ann' receives ['goodbye']", """seen:     ["got 'hello'"]""", LATER, "00:00:00+00:00 (virtual)"],
    ),
    "a scheduler's contract": (
        partial(anyio.to_thread.run_sync, NeverContract().test_at_its_time),
        BrokenContractError,
        [
            "expected: ['party/a']",
            "seen:     []",
            "rooms woken, with latest=0:00:00, at 2030-01-01T00:00:10+00:00 (virtual)",
            "pending:  2030-01-01T00:00:05+00:00 party/a alarm",
        ],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_has_its_five_parts(name: str) -> None:
    provoke, kind, parts = MESSAGES[name]
    with pytest.raises(kind) as caught:
        await provoke()
    message = str(caught.value)
    assert [] == [part for part in parts if part not in message], message
    assert re.search(r"expected|the invariant does not hold", message)
    assert re.search(r"\b(seen|saw|still in flight|raised)\b", message)
    assert re.search(r"(box|party)/[ab]", message)
    assert re.search(r"2030-[0-9-]+T[0-9:]+\+00:00 \(virtual\)", message)
    assert re.search(r"pending: *\S", message.replace("\n", " ")), "and what was still pending"


def test_long_values_are_shown_where_they_part() -> None:
    alike = list(range(1000))
    expected, seen = shown_apart([*alike, "expected"], [*alike, "seen", *alike])
    assert expected.startswith("...")
    assert "'expected'] (" in expected
    assert "999, 'seen', 0, 1" in seen
    assert "... (" in seen
    assert ("[1]", "[2]") == shown_apart([1], [2])


def test_an_error_that_no_line_of_an_author_raised_is_told_without_one() -> None:
    assert "KeyError: 'x'" == in_words(KeyError("x"))
    assert "OSError; ValueError: no" == in_words(ExceptionGroup("both", [OSError(), ValueError("no")]))


async def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(
        ValueError, match="every_crash needs a moment to crash at, one or more of 'before', 'unanswered'"
    ):
        await every_crash(put_and_arm, is_idle, parties=PARTIES, moments=[])
    with pytest.raises(ValueError, match="many_orders needs a seed to try"):
        await many_orders(put_and_arm, is_idle, parties=PARTIES, seeds=[])


def test_a_machine_that_could_not_do_what_it_says_is_refused() -> None:
    class Nothing(RoomMachine):
        pass

    class Strange(RoomMachine):
        parties = PARTIES
        calls: ClassVar[Mapping[str, Sequence[Call]]] = {"bax": [(Box.put, st.tuples())]}

    with pytest.raises(TypeError, match=r"Nothing names no `parties`: say what is under test"):
        Nothing()
    with pytest.raises(TypeError, match=r"Strange\.calls names 'bax', which is none of its parties: 'box'"):
        Strange()


def test_a_client_without_async_is_shown_with_its_room() -> None:
    with BlockingHarness(PARTIES) as rooms:
        assert "<BlockingClient 'ann' of box/a>" == repr(rooms.parties["box"].get("a").connect(id="ann"))
