"""A hypothesis state machine for rooms: it sends, calls, lets time pass, puts to sleep, crashes and restarts.

Owns the rules that every room can be put through. Its author adds what they
know of their own rooms: the messages and calls that make sense, rules and
invariants.

Promises that between two rules nothing is in flight, and that an error which
nobody heard of fails the example.

Must never be imported but by a test that has hypothesis: ``import
partyroom.testing`` does without.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from partyroom._services import RoomFactory
from partyroom.errors import ConnectRejectedError
from partyroom.testing.blocking_harness import BlockingHarness
from partyroom.testing.blocking_rooms import BlockingClient, BlockingRoom
from partyroom.testing.options import HarnessOptions

__all__ = ["Call", "RoomMachine"]

Call: TypeAlias = tuple[Callable[..., Awaitable[object]], st.SearchStrategy[tuple[Any, ...]]]
"""A method of a room's class, and a strategy for the arguments it is called with."""


class RoomMachine(RuleBasedStateMachine):
    """Rooms under every order of things that hypothesis thinks of. Subclass it, and say at least ``parties``.

    ::

        class Counters(RoomMachine):
            parties = {"counter": Counter}
            calls = {"counter": [(Counter.increment, st.tuples(st.integers()))]}

            @invariant()
            def totals_are_right(self) -> None:
                ...  # look with self.harness

        TestCounters = Counters.TestCase
    """

    parties: ClassVar[Mapping[str, RoomFactory]]
    """What stands behind each party's name."""
    room_ids: ClassVar[Sequence[str]] = ("a", "b")
    """The rooms of each party."""
    messages: ClassVar[Mapping[str, st.SearchStrategy[str | bytes]]] = {}
    """By party: what its clients send. Parties without an entry get no clients."""
    calls: ClassVar[Mapping[str, Sequence[Call]]] = {}
    """By party: what its rooms are called for."""
    durations: ClassVar[st.SearchStrategy[timedelta]] = st.sampled_from(
        [
            timedelta(),
            timedelta(seconds=1),
            timedelta(minutes=1),
            timedelta(hours=1),
            timedelta(days=1),
            timedelta(days=30),
        ]
    )
    """How much time passes at once."""
    options: ClassVar[HarnessOptions] = {}
    """Options of the harness. A backend is to be a factory: each example begins with an empty one."""
    loop: ClassVar[Literal["asyncio", "trio"]] = "asyncio"

    clients: list[tuple[BlockingRoom, BlockingClient]]
    """Who is connected to which room."""

    # --- to be overridden ----------------------------------------------------

    def sent(self, room: BlockingRoom, client: BlockingClient, message: str | bytes, /) -> None:
        """Hear that a message was sent and handled."""

    def called(
        self, room: BlockingRoom, method: Callable[..., object], args: tuple[Any, ...], result: object, /
    ) -> None:
        """Hear what a call has returned."""

    def refused(self, room: BlockingRoom, error: ConnectRejectedError, /) -> None:
        """Hear that a room has let nobody in."""

    def failed(
        self, room: BlockingRoom, method: Callable[..., object], args: tuple[Any, ...], error: Exception, /
    ) -> None:
        """Hear what a call has raised: raise it again, which fails the example, or return if the room may do that."""
        error.add_note(
            f"raised by {room.party}/{room.id} in {method.__name__}{args!r}; RoomMachine.failed may forgive it"
        )
        raise error

    def lost(self) -> None:
        """Hear of a crash or a restart: clients are gone."""

    # --- rules ---------------------------------------------------------------

    def __init__(self) -> None:
        self._check()
        super().__init__()
        self.clients = []

    def _check(self) -> None:
        """Refuse a machine that could not do what it says, before hypothesis looks for the shortest way to that."""
        name = type(self).__name__
        if not hasattr(self, "parties"):
            message = f"{name} names no `parties`: say what is under test, such as parties = {{'draft': Draft}}"
            raise TypeError(message)
        for what in ("messages", "calls"):
            strange = sorted(set(getattr(self, what)) - set(self.parties))
            if strange:
                known = ", ".join(map(repr, self.parties))
                message = f"{name}.{what} names {strange[0]!r}, which is none of its parties: {known}"
                raise TypeError(message)

    @cached_property
    def harness(self) -> BlockingHarness:
        """The rooms of this example, which begins with nothing."""
        # Opened by whoever asks first: an author's own ``initialize`` rules and invariants may come before any rule.
        harness = BlockingHarness(self.parties, loop=self.loop, **self.options)
        harness.open()
        return harness

    def room(self, data: st.DataObject, parties: Sequence[str]) -> BlockingRoom:
        """Choose a room of one of these parties."""
        party = data.draw(st.sampled_from(sorted(parties)), label="party")
        return self.harness.parties[party].get(data.draw(st.sampled_from(self.room_ids), label="room"))

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        """Connect a client."""
        room = self.room(data, list(self.messages))
        try:
            client = room.connect()
        except ConnectRejectedError as error:
            self.refused(room, error)
        else:
            self.clients.append((room, client))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """Send a message."""
        room, client = data.draw(st.sampled_from(self.clients), label="client")
        if client.closed is None:
            message = data.draw(self.messages[room.party], label="message")
            client.send(message)
            self.sent(room, client, message)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        """End a connection."""
        index = data.draw(st.integers(0, len(self.clients) - 1), label="client")
        self.clients.pop(index)[1].close()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        """Call a room."""
        room = self.room(data, list(self.calls))
        method, arguments = data.draw(st.sampled_from(list(self.calls[room.party])), label="method")
        args = data.draw(arguments, label="arguments")
        try:
            result = room.call(method, *args)
        except Exception as error:  # noqa: BLE001 - whether it may raise this is its author's to say
            self.failed(room, method, args, error)
        else:
            self.called(room, method, args, result)

    @rule(data=st.data())
    def let_time_pass(self, data: st.DataObject) -> None:
        """Let time pass, ringing what is due."""
        self.harness.advance(data.draw(self.durations, label="duration"))

    @rule(data=st.data())
    def put_to_sleep(self, data: st.DataObject) -> None:
        """Put a room to sleep, if it can."""
        room = self.room(data, list(self.parties))
        if self.harness.may_sleep(room):
            self.harness.put_to_sleep(room)

    @rule()
    def crash(self) -> None:
        """Kill the runtime, and start it again."""
        self.harness.crash()
        self.clients.clear()
        self.lost()

    @rule()
    def restart(self) -> None:
        """Close the runtime, and open it again."""
        self.harness.restart()
        self.clients.clear()
        self.lost()

    def teardown(self) -> None:
        """End the example."""
        if "harness" in vars(self):
            # What a rule or an invariant raised is on its way, and counts more than what closing would raise.
            self.harness.__exit__(*sys.exc_info())
