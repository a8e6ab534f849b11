"""Rooms under test: a runtime on a fake clock, with sleep, restart and crash at hand.

Owns one runtime, the clock that it runs on, and what survives from one run of it
to the next: the backend, and the handles.

Promises that nothing moves but by the test's own doing, that a crash keeps what
was committed and nothing else, that an error which nobody heard of fails the
test, and that nothing leaks from one test into the next.

Must never reach into a backend: what is durable is what its contract shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta
from random import Random  # noqa: TID251 - chance by a seed, which a test gives
from types import TracebackType
from typing import Any, Self, TypeVar, final

from anyio import CancelScope
from typing_extensions import Unpack, override

from partyroom._core.instants import from_micros
from partyroom._native import seed_turns
from partyroom._services import RoomFactory
from partyroom.errors import ClockStalledError, ExpectationError, RuntimeCrashedError, RuntimeStateError
from partyroom.protocols import Party, RoomHandle, StorageBackend
from partyroom.testing._counted_work import RuntimeWork
from partyroom.testing._harness_probe import HarnessProbe
from partyroom.testing._held_runtime import HeldRuntime
from partyroom.testing._set_up import check_options, make_runtime
from partyroom.testing._shuffled_alarms import ShuffledAlarms
from partyroom.testing.fake_client import FakeClient
from partyroom.testing.fake_clock import FakeClock
from partyroom.testing.log import LoggedEvent, RoomError
from partyroom.testing.options import HarnessOptions
from partyroom.testing.timers import NOBODY, Fired, Pending
from partyroom.types import RingReport, RoomKey

__all__ = ["Harness"]

E = TypeVar("E", bound=BaseException)


@final
class Harness:
    """A runtime for tests: in memory unless told otherwise, on a clock that the test moves.

    ``async with Harness({"draft": Draft}) as harness`` gives the parties; ``advance`` lets time pass. Handles from
    ``harness.parties`` outlive :meth:`restart` and :meth:`crash`; clients do not (their end is 1012). Time starts at
    2030-01-01T00:00Z, retries have no jitter, and the seed is 0, unless asked otherwise: see
    :class:`~partyroom.testing.HarnessOptions`, which has the runtime's own options too.

    A harness may be opened in one task and closed in another, as the fixtures of some test frameworks are.
    """

    def __init__(self, parties: Mapping[str, RoomFactory], **options: Unpack[HarnessOptions]) -> None:
        check_options(options)
        shuffled = options.get("shuffled", False)
        self.seed = options.get("seed", 0)
        """What ids, and shuffled orders, come from."""
        self.clock = options.get("clock") or FakeClock(ties="shuffle" if shuffled else "key", seed=self.seed)
        """The clock that all of it runs on."""
        self._random = Random(self.seed) if shuffled else None  # noqa: S311 - an order, no secret
        self._probe = HarnessProbe(
            self.clock, sleeps_at_once=options.get("strict_hibernation", False), stir=self._random
        )
        self._fail_on_errors = options.get("fail_on_errors", True)
        scheduler = options.get("scheduler")
        self._rings = options.get("alarms", "auto") == "auto"
        self._alarms = ShuffledAlarms(self.clock) if shuffled and scheduler is None else None
        self.runtime = make_runtime(parties, self.clock, scheduler or self._alarms, options)
        """The runtime under test; the same one over restarts."""
        self.runtime.instrument(self._probe)
        self._held = HeldRuntime(self.runtime, self.clock)
        self._work = RuntimeWork(self.runtime)
        self._clients: list[FakeClient] = []
        self._unseed: Callable[[], None] = lambda: None

    @override
    def __repr__(self) -> str:
        return f"<Harness of {', '.join(self.parties)} at {self.now().isoformat()}>"

    # --- its life ------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        with CancelScope(shield=True):
            if exc is None:
                await self.close()
            else:
                await self.abandon()

    async def open(self) -> None:
        """Open the backend, ring nothing yet; the block form does this. To be answered by :meth:`close`, in any task."""
        if self.is_open:
            message = "this harness is open already"
            raise RuntimeStateError(message)
        self._unseed = seed_turns(self.seed) if self._random is not None else self._unseed
        self.clock.attach_work(self, self._work)
        try:
            await self._begin()
        except BaseException:
            self._leave()
            raise

    async def close(self) -> None:
        """Close the runtime: what was accepted is handled and stored.

        Raises :class:`ExpectationError` if a room raised what nobody heard of, and what ``expect_error`` did not expect.
        """
        try:
            pending = self.pending_lines()
            for client in self._clients:
                await client.leave()
            await self._held.end()
        except ClockStalledError:
            await self.abandon()
            raise
        finally:
            self._leave()
        self._check_errors(pending)

    async def abandon(self) -> None:
        """End the runtime as a crash would: what hangs in a failed test is not waited for."""
        try:
            if self.is_open:
                self.kill("the test failed")
                await self._held.end()
        finally:
            self._leave()

    def _leave(self) -> None:
        self.clock.detach(self)
        self._unseed()
        self._unseed = lambda: None

    async def _begin(self) -> None:
        self._clients = []
        self._probe.look_on()
        if self._alarms is not None:
            self._alarms.expect_run()
        engine = await self._held.begin()
        self.clock.watch_waits()
        await self._work.learn_alarms(engine, rings=self._rings)
        if self._alarms is not None and self._rings:
            await self._alarms.ready.wait()

    @property
    def is_open(self) -> bool:
        """Whether a runtime runs."""
        return self._held.is_open

    async def restart(self) -> None:
        """Close the runtime and open it again: rooms are gone from memory, clients are closed, what was accepted is stored."""
        await self.settle()
        await self._held.end()
        await self._begin()
        await self.settle()

    async def crash(self) -> None:
        """Kill the runtime, as losing its process would, and start it again on what was durable.

        Events that were not committed are gone; their callers get :class:`RuntimeCrashedError`.
        """
        self.kill("Harness.crash()")
        await self.revive()

    async def revive(self) -> None:
        """Start the runtime again, on what was durable, after :meth:`kill`."""
        # Whoever was cancelled while they saw to its end may have left nothing to be ended.
        if self.is_open:
            await self._held.end()
        await self._begin()
        await self.settle()

    def kill(self, why: str) -> None:
        """Kill the runtime at once, wherever this is called; nothing can be done with it until :meth:`revive`."""
        self._probe.look_away()
        self._held.engine_here().crash(RuntimeCrashedError(f"the runtime crashed: {why}"))

    # --- time ----------------------------------------------------------------

    def now(self) -> datetime:
        """Give the wall time, in UTC."""
        return self.clock.now()

    async def settle(self) -> None:
        """Wait until nothing is in flight; time stands still. See :meth:`FakeClock.settle`."""
        self._held.engine_here()
        await self.clock.settle()
        self._held.engine()

    async def advance(self, duration: timedelta) -> None:
        """Let time pass, waking whatever is due on the way, one at a time; see :meth:`FakeClock.advance`."""
        await self.settle()
        await self.clock.advance(duration)
        self._held.engine()

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until a wall time."""
        await self.settle()
        await self.clock.advance_to(when)
        self._held.engine()

    async def advance_to_next(self) -> Fired | None:
        """Let time pass to whatever comes next, and let that happen alone."""
        await self.settle()
        return await self.clock.advance_to_next()

    async def run_due(self) -> None:
        """Let happen what is due now."""
        await self.advance(timedelta())

    async def run_until_idle(self, *, limit: timedelta = timedelta(days=366)) -> list[Fired]:
        """Let time pass until nothing waits for it but idle rooms; see :meth:`FakeClock.run_until_idle`."""
        await self.settle()
        return await self.clock.run_until_idle(limit=limit)

    async def jump(self, duration: timedelta) -> None:
        """Let time leap, as when a laptop's lid was closed; see :meth:`FakeClock.jump`."""
        await self.settle()
        await self.clock.jump(duration)

    async def expect_quiet(self, duration: timedelta) -> None:
        """Let time pass, and raise an ``AssertionError`` if any event happened."""
        await self.settle()
        before, first = len(self.log), len(self.fired)
        await self.clock.advance(duration)
        seen: list[Fired | LoggedEvent] = [
            *(each for each in self.fired[first:] if not each.is_background),
            *self.log[before:],
        ]
        if seen:
            what = "\n".join(map(str, seen))
            raise await self._complaint(f"no event for {duration}", what, seen[0].room or NOBODY)

    def auto(self, *, limit: timedelta = timedelta(days=366)) -> AbstractAsyncContextManager[None]:
        """Let time pass by itself while the test waits for a room; see :meth:`FakeClock.auto`."""
        self._held.engine_here()
        return self.clock.auto(limit=limit)

    async def ring_due(self, limit: int | None = None) -> RingReport:
        """Ring what is due now, by hand; see :meth:`Runtime.ring_due`."""
        return await self.runtime.ring_due(limit)

    async def pending(self) -> list[Pending]:
        """Settle, and give what will happen when time passes, in order: alarms, and what waits in memory."""
        await self.settle()
        return await self._pending()

    async def _pending(self) -> list[Pending]:
        engine = self._held.engine()
        alarms = [
            Pending(from_micros(row.due), row.room, "alarm", row.name)
            for row in await engine.alarms.all_rows(None)
            if row.due is not None
        ]
        found = [each for each in self.clock.pending() if each.kind != "alarm"] + alarms
        return sorted(found, key=lambda each: each.rank)

    @property
    def fired(self) -> list[Fired]:
        """Who was woken by the clock, in order, since the beginning."""
        return self.clock.fired

    # --- rooms ---------------------------------------------------------------

    @property
    def parties(self) -> Mapping[str, Party]:
        """The parties, by name."""
        return self.runtime.parties

    @property
    def backend(self) -> StorageBackend:
        """Where the rooms are stored."""
        return self.runtime.backend

    async def stored(self, room: RoomHandle) -> dict[str, Any]:
        """Settle, and read a room's committed values without waking it."""
        await self.settle()
        return await room.stored()

    async def wake(self, room: RoomHandle) -> None:
        """Have a room come into memory, constructor and ``on_start`` included, and settle; nothing if it is awake."""
        await room.call(_nothing)
        await self.settle()

    async def put_to_sleep(self, room: RoomHandle) -> None:
        """Settle, and have a room leave memory now; an ``AssertionError`` says what keeps it awake."""
        await self.settle()
        engine = self._held.engine()
        key = RoomKey(room.party, room.id)
        awake = engine.awake(key)
        if awake is not None and not engine.put_to_sleep(awake):
            clients = len(awake.connections)
            why = awake.describe_work() or [f"connected clients: {clients}, and it does not hibernate"]
            raise await self._complaint("the room can leave memory", "\n".join(why), key)
        await self.settle()

    def may_sleep(self, room: RoomHandle) -> bool:
        """Say whether a room is asleep, or nothing keeps it awake."""
        awake = self._held.engine().awake(RoomKey(room.party, room.id))
        return awake is None or awake.may_sleep

    def is_awake(self, room: RoomHandle) -> bool:
        """Say whether a room is in memory."""
        return self._held.engine().awake(RoomKey(room.party, room.id)) is not None

    async def connect(
        self,
        room: RoomHandle,
        *,
        id: str | None = None,  # noqa: A002 - PartyKit's word
        uri: str = "",
        tags: Iterable[str] = (),
        state: object = None,
        request: object = None,
    ) -> FakeClient:
        """Connect a client with an inbox, that stays until it is closed or the test ends. Arguments as for ``room.connect``."""
        connecting = room.connect(id=id, uri=uri, tags=tags, state=state, request=request)
        client = await connecting.__aenter__()
        found = FakeClient(
            RoomKey(room.party, room.id),
            client,
            connecting,
            clock=self.clock,
            settle=self.settle,
            complain=self._complaint,
        )
        self._clients.append(found)
        return found

    # --- what has happened ---------------------------------------------------

    @property
    def log(self) -> list[LoggedEvent]:
        """The events that have ended, by time, then room, then the order in that room: the same lines on every loop."""
        return self._probe.log

    @property
    def probe(self) -> HarnessProbe:
        """What looks on, for the rest of the kit."""
        return self._probe

    @property
    def errors(self) -> list[RoomError]:
        """What rooms raised, in order. What is taken out of this list is forgiven: it does not fail the test at its end."""
        return self._probe.errors

    @contextmanager
    def expect_error(self, expected: type[E], match: str = "") -> Generator[list[E]]:
        """Expect that a room raises such an error inside the block, settled or not; give a list of those that came.

        ``match`` is searched for in the error's text, as a regular expression. The errors are taken out of
        :attr:`errors`. Raises :class:`ExpectationError` at the block's end if none came.
        """
        found: list[E] = []
        before = len(self.errors)
        yield found
        for each in self.errors[before:]:
            if isinstance(each.error, expected) and re.search(match, str(each.error)):
                found.append(each.error)
                self.errors.remove(each)
        if not found:
            seen = "\n".join(map(str, self.errors[before:])) or "no error"
            wanted = f"a room raises {expected.__name__}{f' matching {match!r}' if match else ''}"
            room = str(self.errors[before].room) if self.errors[before:] else ""
            raise ExpectationError(wanted, seen, room, self.now().isoformat(), self.pending_lines())

    def _check_errors(self, pending: tuple[str, ...]) -> None:
        unheard = [each for each in self.errors if not each.heard]
        if unheard and self._fail_on_errors:
            raise ExpectationError(
                "no room raises what nobody hears of (see Harness.expect_error)",
                "\n".join(map(str, unheard)),
                str(unheard[0].room),
                self.now().isoformat(),
                pending,
            ) from unheard[0].error

    # --- what should be ------------------------------------------------------

    def assert_idle(self) -> None:
        """Raise an ``AssertionError`` if there is an event, connection, background task or pending alarm.

        A room that awaits eviction is idle.
        """
        engine = self._held.engine()
        found = engine.describe_work() + engine.describe_connections()
        found += [f"{room}: an alarm rings at {due.isoformat()}" for room, due in sorted(self._work.due.items())]
        if found:
            raise ExpectationError(
                "no event, connection, background task or pending alarm",
                "\n".join(found),
                found[0].partition(":")[0].partition(" ")[0],
                self.now().isoformat(),
                self.pending_lines(),
            )

    def pending_lines(self) -> tuple[str, ...]:
        """Say what is known to be pending without asking the backend: what waits in memory, and each room's next alarm."""
        alarms = [Pending(due, room, "alarm", "") for room, due in self._work.due.items()]
        found = [each for each in self.clock.pending() if each.kind != "alarm"] + alarms
        return tuple(map(str, sorted(found, key=lambda each: each.rank)))

    async def _complaint(self, expected: str, seen: str, room: RoomKey) -> ExpectationError:
        pending = tuple(map(str, await self._pending()))
        return ExpectationError(expected, seen, str(room), self.now().isoformat(), pending)


async def _nothing(_room: object) -> None:
    """Be an event in which nothing happens."""
