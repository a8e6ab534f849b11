"""The state machine: it passes a room that is right, and finds what is wrong with two that are not."""

from __future__ import annotations

import re
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, rule, run_state_machine_as_test

from partyroom import Alarm, Connection, Room
from partyroom._services import RoomFactory
from partyroom.errors import ConnectRejectedError
from partyroom.testing.blocking_rooms import BlockingClient, BlockingRoom
from partyroom.testing.state_machine import Call, RoomMachine

FEW = settings(max_examples=12, stateful_step_count=15, deadline=None)
# The same examples in every run: some of a hundred that chance chooses find nothing.
FIND = settings(
    max_examples=100, stateful_step_count=15, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
)


class Counter(Room):
    async def increment(self, by: int) -> int:
        total: int = await self.ctx.storage.get("total", 0) + by
        await self.ctx.storage.put("total", total)
        await self.ctx.storage.set_alarm(timedelta(minutes=1))
        return total

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.send(str(await self.increment(len(message))))

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.put("rung", await self.ctx.storage.get("rung", 0) + 1)


class ForgetfulCounter(Counter):
    """Keeps its total in an attribute."""

    total = 0

    async def increment(self, by: int) -> int:
        self.total += by
        await self.ctx.storage.put("total", self.total)
        return self.total


class TouchyCounter(Counter):
    """Cannot stand a message."""

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        raise ValueError(message)


class Counters(RoomMachine):
    """Compares every counter with a sum of its own."""

    parties: ClassVar[Mapping[str, RoomFactory]] = {"counter": Counter}
    messages: ClassVar[Mapping[str, st.SearchStrategy[str | bytes]]] = {
        "counter": st.sampled_from(["", "a", "!", b"xyz"])
    }
    calls: ClassVar[Mapping[str, Sequence[Call]]] = {"counter": [(Counter.increment, st.tuples(st.integers(-3, 3)))]}

    def __init__(self) -> None:
        super().__init__()
        self.totals: Counts[str] = Counts()
        self.seen: set[str] = set()

    def sent(self, room: BlockingRoom, client: BlockingClient, message: str | bytes, /) -> None:
        self.totals[room.id] += len(message)
        client.expect(str(self.totals[room.id]))

    def called(
        self, room: BlockingRoom, method: Callable[..., object], args: tuple[Any, ...], result: object, /
    ) -> None:
        self.totals[room.id] += args[0]
        assert self.totals[room.id] == result

    @invariant()
    def totals_are_right(self) -> None:
        for room_id, total in self.totals.items():
            stored = self.harness.stored(self.harness.parties["counter"].get(room_id))
            assert total == stored.get("total", 0)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_room_that_is_right_passes(loop: str) -> None:
    run_state_machine_as_test(type("Machine", (Counters,), {"loop": loop}), settings=FEW)


def test_a_room_without_messages_or_calls_is_put_through_the_rest() -> None:
    run_state_machine_as_test(type("Machine", (Counters,), {"messages": {}, "calls": {}}), settings=FEW)


@given(st.data())
@settings(max_examples=1)
def test_what_is_sent_and_what_is_called_is_told(data: st.DataObject) -> None:
    machine = Counters()
    machine.connect(data=data)
    for step in (machine.send, machine.call):
        step(data=data)
        machine.totals_are_right()
    assert machine.totals
    machine.teardown()


@pytest.mark.parametrize("room", [ForgetfulCounter, TouchyCounter])
def test_a_room_that_is_wrong_is_found(room: type[Room]) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(type("Machine", (Counters,), {"parties": {"counter": room}}), settings=FIND)


class Closer(Room):
    """Hangs up on everybody who says anything."""

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.close(4000)


def test_a_client_that_was_hung_up_on_sends_no_more() -> None:
    class Closers(RoomMachine):
        parties: ClassVar[Mapping[str, RoomFactory]] = {"closer": Closer}
        messages: ClassVar[Mapping[str, st.SearchStrategy[str | bytes]]] = {"closer": st.just("hi")}

    run_state_machine_as_test(Closers, settings=FEW)

    @given(st.data())
    @settings(max_examples=2)
    def send_twice(data: st.DataObject) -> None:
        machine = Closers()
        machine.connect(data=data)
        machine.send(data=data)
        assert [True] == [client.closed is not None for _, client in machine.clients]
        machine.send(data=data)
        machine.teardown()

    send_twice()


class Strict(Room):
    """Lets some in, and does some of what it is asked for."""

    async def on_connect(self, connection: Connection) -> None:
        if await self.ctx.storage.get("closed", False):
            connection.close(4403, "closed")

    async def close(self, number: int) -> None:
        if number:
            raise LookupError(number)
        await self.ctx.storage.put("closed", True)


class Stricts(RoomMachine):
    parties: ClassVar[Mapping[str, RoomFactory]] = {"strict": Strict}
    messages: ClassVar[Mapping[str, st.SearchStrategy[str | bytes]]] = {"strict": st.just("hi")}
    calls: ClassVar[Mapping[str, Sequence[Call]]] = {"strict": [(Strict.close, st.tuples(st.integers(0, 1)))]}
    heard: ClassVar[list[str]] = []

    def refused(self, room: BlockingRoom, error: ConnectRejectedError, /) -> None:
        self.heard.append(f"{room.party}: {error.reason}")


class Forgiving(Stricts):
    def failed(
        self, room: BlockingRoom, method: Callable[..., object], args: tuple[Any, ...], error: Exception, /
    ) -> None:
        assert isinstance(error, LookupError)
        self.heard.append(f"{room.party}: {error}")


def test_a_room_may_let_nobody_in_and_refuse_a_call_where_that_is_forgiven() -> None:
    Stricts.heard.clear()
    run_state_machine_as_test(Forgiving, settings=settings(FIND, max_examples=25))
    assert {"strict: closed", "strict: 1"} == set(Stricts.heard)


def test_what_a_call_raises_fails_the_example_and_says_which() -> None:
    with pytest.raises(LookupError) as caught:
        run_state_machine_as_test(Stricts, settings=FIND)
    notes = "\n".join(caught.value.__notes__)
    assert re.search(r"raised by strict/[ab] in close\(1,\); RoomMachine\.failed may forgive it", notes)


class Prepared(RoomMachine):
    """Begins with rooms in a bundle of its own, and looks at them from the beginning."""

    parties: ClassVar[Mapping[str, RoomFactory]] = {"counter": Counter}
    rooms: ClassVar[Bundle[BlockingRoom]] = Bundle("rooms")

    @initialize(target=rooms)
    def first(self) -> BlockingRoom:
        return self.harness.parties["counter"].get("a")

    @rule(room=rooms)
    def look(self, room: BlockingRoom) -> None:
        assert {} == room.stored()

    @invariant(check_during_init=True)
    def nothing_is_stored(self) -> None:
        assert [] == self.harness.parties["counter"].rooms()


def test_rules_that_begin_an_example_and_invariants_before_them_have_the_harness() -> None:
    run_state_machine_as_test(Prepared, settings=FEW)


def test_what_a_rule_raises_is_told_also_if_a_room_has_raised_before() -> None:
    class Expecting(RoomMachine):
        parties: ClassVar[Mapping[str, RoomFactory]] = {"touchy": TouchyCounter}
        messages: ClassVar[Mapping[str, st.SearchStrategy[str | bytes]]] = {"touchy": st.just("no number")}

        def sent(self, room: BlockingRoom, client: BlockingClient, message: str | bytes, /) -> None:
            assert client.inbox, "an answer was expected"

    with pytest.raises(AssertionError, match="an answer was expected"):
        run_state_machine_as_test(Expecting, settings=FIND)


def test_a_machine_that_never_began_has_nothing_to_end() -> None:
    Counters().teardown()
