"""The harness for tests without ``async``: the same verbs, and a loop in a thread of its own.

Owns that thread, and the verbs of the harness; those of parties, rooms and clients
are :mod:`~partyroom.testing.blocking_rooms`'s.

Promises that each call returns when what it asked for is done and nothing is in
flight, so that such a test sees rooms at rest only; and that the loop ends with
the block.

Must never be used from two threads at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, final

from anyio.from_thread import BlockingPortal, start_blocking_portal
from typing_extensions import Unpack, override

from partyroom._services import RoomFactory
from partyroom.errors import RuntimeStateError
from partyroom.testing.blocking_rooms import BlockingClient, BlockingParties, BlockingParty, BlockingRoom
from partyroom.testing.fake_clock import FakeClock
from partyroom.testing.harness import Harness
from partyroom.testing.log import LoggedEvent, RoomError
from partyroom.testing.options import HarnessOptions
from partyroom.testing.timers import Fired, Pending
from partyroom.types import RingReport

__all__ = ["BlockingHarness"]

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@final
class BlockingHarness:
    """A :class:`~partyroom.testing.Harness` without ``async``; ``loop`` says which kind runs in its thread.

    ``with BlockingHarness({"draft": Draft}) as harness`` gives the parties. The other options are those of the harness.
    """

    def __init__(
        self,
        parties: Mapping[str, RoomFactory],
        *,
        loop: Literal["asyncio", "trio"] = "asyncio",
        **options: Unpack[HarnessOptions],
    ) -> None:
        self.harness = Harness(parties, **options)
        """The harness itself, for code of the loop's own."""
        self._loop = loop
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    @override
    def __repr__(self) -> str:
        return f"<BlockingHarness of {', '.join(self.parties)} at {self.now().isoformat()}>"

    # --- its life ------------------------------------------------------------

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        if exc is None:
            self.close()
        else:
            self._end(self.harness.abandon)

    def open(self) -> None:
        """Start the loop and open the runtime; the block form does this."""
        if self._portal is not None:
            message = "this harness is open already"
            raise RuntimeStateError(message)
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal(backend=self._loop))
            stack.callback(self._forget)
            self.do(self.harness.open)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the runtime and end the loop; raises what :meth:`Harness.close` raises."""
        self._end(self.harness.close)

    def _end(self, end: Callable[[], Awaitable[None]]) -> None:
        if self._portal is not None:
            with self._stack:
                self.do(end)

    def _forget(self) -> None:
        self._portal = None

    def do(self, fn: Callable[..., Awaitable[T]], /, *args: object) -> T:
        """Run any async function in the loop, and settle."""

        async def run() -> T:
            result = await fn(*args)
            if self.harness.is_open:
                await self.harness.settle()
            return result

        if self._portal is None:
            message = "this harness is not open: use it inside `with`"
            raise RuntimeStateError(message)
        return self._portal.call(run)

    def do_in_time(self, fn: Callable[[], Awaitable[T]], /) -> T:
        """Run an async function in the loop, let time pass while it waits for a room, and settle."""

        async def run() -> T:
            async with self.harness.auto():
                return await fn()

        return self.do(run)

    # --- time ----------------------------------------------------------------

    @property
    def clock(self) -> FakeClock:
        """The clock that all of it runs on."""
        return self.harness.clock

    def now(self) -> datetime:
        """Give the wall time, in UTC."""
        return self.harness.now()

    def settle(self) -> None:
        """Wait until nothing is in flight; time stands still."""
        self.do(self.harness.settle)

    def advance(self, duration: timedelta) -> None:
        """Let time pass, waking whatever is due on the way, one at a time."""
        self.do(self.harness.advance, duration)

    def advance_to(self, when: datetime) -> None:
        """Let time pass until a wall time."""
        self.do(self.harness.advance_to, when)

    def advance_to_next(self) -> Fired | None:
        """Let time pass to whatever comes next, and let that happen alone."""
        return self.do(self.harness.advance_to_next)

    def run_due(self) -> None:
        """Let happen what is due now."""
        self.do(self.harness.run_due)

    def run_until_idle(self, *, limit: timedelta = timedelta(days=366)) -> list[Fired]:
        """Let time pass until nothing waits for it but idle rooms."""
        return self.do(partial(self.harness.run_until_idle, limit=limit))

    def jump(self, duration: timedelta) -> None:
        """Let time leap, as when a laptop's lid was closed."""
        self.do(self.harness.jump, duration)

    def expect_quiet(self, duration: timedelta) -> None:
        """Let time pass, and raise an ``AssertionError`` if any event happened."""
        self.do(self.harness.expect_quiet, duration)

    def ring_due(self, limit: int | None = None) -> RingReport:
        """Ring what is due now, by hand."""
        return self.do(self.harness.ring_due, limit)

    def pending(self) -> list[Pending]:
        """Give what will happen when time passes, in order."""
        return self.do(self.harness.pending)

    @property
    def fired(self) -> list[Fired]:
        """Who was woken by the clock, in order, since the beginning."""
        return self.harness.fired

    # --- rooms ---------------------------------------------------------------

    @property
    def parties(self) -> Mapping[str, BlockingParty]:
        """The parties, by name."""
        return BlockingParties(self)

    def connect(
        self,
        room: BlockingRoom,
        *,
        id: str | None = None,  # noqa: A002 - PartyKit's word
        uri: str = "",
        tags: Iterable[str] = (),
        state: object = None,
        request: object = None,
    ) -> BlockingClient:
        """Connect a client that stays until it is closed or the test ends; ``room.connect`` is the same."""
        return room.connect(id=id, uri=uri, tags=tags, state=state, request=request)

    def stored(self, room: BlockingRoom) -> dict[str, Any]:
        """Read a room's committed values without waking it."""
        return self.do(self.harness.stored, room.handle)

    def wake(self, room: BlockingRoom) -> None:
        """Have a room come into memory; nothing if it is awake."""
        self.do(self.harness.wake, room.handle)

    def put_to_sleep(self, room: BlockingRoom) -> None:
        """Have a room leave memory now; an ``AssertionError`` says what keeps it awake."""
        self.do(self.harness.put_to_sleep, room.handle)

    def may_sleep(self, room: BlockingRoom) -> bool:
        """Say whether a room is asleep, or nothing keeps it awake."""
        return self.harness.may_sleep(room.handle)

    def is_awake(self, room: BlockingRoom) -> bool:
        """Say whether a room is in memory."""
        return self.harness.is_awake(room.handle)

    def restart(self) -> None:
        """Close the runtime and open it again."""
        self.do(self.harness.restart)

    def crash(self) -> None:
        """Kill the runtime, and start it again on what was durable."""
        self.do(self.harness.crash)

    # --- what has happened ---------------------------------------------------

    @property
    def log(self) -> list[LoggedEvent]:
        """The events that have ended, by time, then room, then the order in that room."""
        return self.harness.log

    @property
    def errors(self) -> list[RoomError]:
        """What rooms raised, in order; what is taken out is forgiven."""
        return self.harness.errors

    def expect_error(self, expected: type[E], match: str = "") -> AbstractContextManager[list[E]]:
        """Expect that a room raises such an error inside the block."""
        return self.harness.expect_error(expected, match)

    def assert_idle(self) -> None:
        """Raise an ``AssertionError`` if there is an event, connection, background task or pending alarm."""
        self.harness.assert_idle()
