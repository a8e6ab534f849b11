"""Every crash there is: a scenario is run again for each of its commits, and killed there.

Owns the counting of a scenario's commits, the crash at each of them, what comes
after it, and the report.

Promises that every commit of the scenario is crashed at in every moment asked
for; that what a room finds after the crash is what was durable then, and nothing
else; and that a failure names the commit, what it would have stored, and the event.

Must never let one run see anything of another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from itertools import product
from typing import Final, TypeAlias, final

import attrs
from anyio import CancelScope
from typing_extensions import Unpack, override

from partyroom._core.instants import from_micros
from partyroom._services import RoomFactory
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BrokenInvariantError, ClockStalledError, PartyroomError
from partyroom.protocols import Codec
from partyroom.testing._crashing_backend import CrashingBackend, CrashMoment
from partyroom.testing._failures import Moment
from partyroom.testing._fresh_backends import check_is_fresh, check_maker
from partyroom.testing.harness import Harness
from partyroom.testing.options import BackendFactory, RuntimeOptions
from partyroom.types import Commit

__all__ = ["CrashPoint", "CrashReport", "Scenario", "every_crash"]

Scenario: TypeAlias = Callable[[Harness], Awaitable[object]]
"""Does something with rooms, or checks something of them; given a harness of its own."""

MOMENTS: Final[tuple[CrashMoment, ...]] = ("before", "unanswered", "answered")
IN_WORDS: Final[Mapping[CrashMoment, str]] = {
    "before": "before it was stored",
    "unanswered": "when it was stored, and nobody was told",
    "answered": "when it was stored, and right after it was told",
}


@attrs.frozen
class CrashPoint:
    """One commit of a scenario, and a moment of it."""

    number: int
    """The how-manieth commit, from 1."""
    moment: CrashMoment
    room: str
    events: tuple[str, ...]
    """The events whose writes the commit holds; several of one room may go as one."""
    stores: tuple[str, ...]
    """What the commit stores, a line each."""

    @override
    def __str__(self) -> str:
        what = "\n    ".join(self.stores)
        events = ", ".join(self.events) or "an event"
        return (
            f"crash at commit {self.number}, {IN_WORDS[self.moment]}: {self.room}, {events}, which stores\n    {what}"
        )


@attrs.frozen
class CrashReport:
    """What :func:`every_crash` went through."""

    commits: int
    """How many commits the scenario has."""
    crashes: int
    """How many runs were killed."""

    @override
    def __str__(self) -> str:
        return f"{self.commits} commits, {self.crashes} crashes"


async def every_crash(
    scenario: Scenario,
    invariant: Scenario,
    *,
    parties: Mapping[str, RoomFactory],
    backend: BackendFactory = MemoryBackend,
    let_pass: timedelta = timedelta(hours=1),
    moments: Sequence[CrashMoment] = MOMENTS,
    **options: Unpack[RuntimeOptions],
) -> CrashReport:
    """Run a scenario, killing the runtime at each of its commits in turn, and check that an invariant holds afterwards.

    ``await scenario(harness)`` is run once to count its commits, and then again for each commit and each of
    ``moments``, on a fresh backend that ``backend()`` makes. At the crash the scenario is cancelled, as the process that
    it stands for is gone; the runtime starts again on what was durable; ``let_pass`` of virtual time passes, so that
    alarms and their retries ring; then ``await invariant(harness)`` is to raise if something is wrong. Raises
    :class:`BrokenInvariantError`, with an entry for each crash after which it did, the last one being the first that
    stalls (:class:`ClockStalledError`).
    """
    if not moments:
        message = f"every_crash needs a moment to crash at, one or more of {', '.join(map(repr, MOMENTS))}"
        raise ValueError(message)
    check_maker("every_crash", backend)
    runs = _Runs(scenario, invariant, parties, backend, let_pass, options)
    commits = await runs.run_whole()
    await check_is_fresh("every_crash", backend, parties)
    failures: list[str] = []
    first: Exception | None = None
    crashes = 0
    for number, moment in product(range(1, commits + 1), moments):
        crashed, failure = await runs.run_to(number, moment)
        crashes += crashed
        if failure is not None:
            first = first or failure.error
            failures.append(f"{failure.point}\n  then:     {failure.told}")
            if isinstance(failure.error, ClockStalledError):
                # Each stall takes seconds of real time: all crashes together, minutes.
                break
    report = CrashReport(commits, crashes)
    if failures:
        message = (
            f"the invariant does not hold after {len(failures)} of {report.crashes} crashes ({report.commits} commits)"
        )
        raise BrokenInvariantError(message, tuple(failures)) from first
    return report


@attrs.frozen
class _Failure:
    """What went wrong after one crash."""

    point: CrashPoint
    error: Exception
    told: str


@final
@attrs.frozen
class _Runs:
    """The runs of one scenario."""

    _scenario: Scenario
    _invariant: Scenario
    _parties: Mapping[str, RoomFactory]
    _backend: BackendFactory
    _let_pass: timedelta
    _options: RuntimeOptions

    async def run_whole(self) -> int:
        """Run the scenario without a crash; give how many commits it has."""
        backend = CrashingBackend(self._backend(), lambda _commit: None)
        harness = Harness(self._parties, backend=backend, **self._options)
        moment, what = Moment(harness), "the scenario fails"
        try:
            async with harness:
                with moment.noted():
                    await self._scenario(harness)
                    await harness.settle()
                    commits, what = backend.commits, "the invariant does not hold"
                    await self._check(harness)
        except Exception as error:
            message = f"{what} even without a crash"
            raise BrokenInvariantError(message, (moment.tell(error),)) from error
        return commits

    async def _check(self, harness: Harness) -> None:
        await harness.advance(self._let_pass)
        await self._invariant(harness)

    async def run_to(self, number: int, crash: CrashMoment) -> tuple[bool, _Failure | None]:
        """Run the scenario up to a crash, and what comes after it; give whether it came so far, and what went wrong."""
        points: list[CrashPoint] = []

        def hear(commit: Commit) -> None:
            points.append(_point(harness, commit, len(points) + 1, crash))

        backend = CrashingBackend(self._backend(), hear, nth=number, moment=crash)
        harness = Harness(self._parties, backend=backend, **self._options)
        moment = Moment(harness)
        try:
            async with harness:
                with moment.noted():
                    if not await self._run_and_crash(harness, backend):
                        return False, None
                    backend.let_go()
                    await harness.revive()
                    await self._check(harness)
        except Exception as error:
            if len(points) < number:
                message = f"the scenario fails before its commit {number}, and did not at first"
                raise BrokenInvariantError(message, (moment.tell(error),)) from error
            return True, _Failure(points[number - 1], error, moment.tell(error))
        return True, None

    async def _run_and_crash(self, harness: Harness, backend: CrashingBackend) -> bool:
        """Run the scenario until it is killed; say whether it was."""
        scope = CancelScope()

        def kill() -> None:
            harness.kill(f"every_crash, at commit {backend.commits}")
            scope.cancel()

        backend.kill = kill
        backend.may_kill = lambda: harness.is_open
        try:
            # Within, for what tasks of a scenario raise comes in one group with their cancellation.
            with scope:
                await self._scenario(harness)
                await harness.settle()
        except Exception:
            # What a scenario does of itself it did in the whole run too: this is how it learns of the crash.
            if not backend.reached:
                raise
        if backend.reached:
            with CancelScope(shield=True):
                await backend.killed.wait()
        return backend.reached


def _point(harness: Harness, commit: Commit, number: int, moment: CrashMoment) -> CrashPoint:
    codec = harness.runtime.codec
    stores = ["everything deleted"] if commit.clear else []
    for key, value in commit.values.items():
        stores.append(f"{key!r} deleted" if value is None else f"{key!r}: {_decoded(codec, value)}")
    for name, row in commit.alarms.items():
        alarm = f"alarm {name!r}" if name else "the alarm"
        if row is None:
            stores.append(f"{alarm} deleted")
        else:
            when = "kept without a time" if row.due is None else f"at {from_micros(row.due).isoformat()}"
            stores.append(f"{alarm} {when}")
    events = harness.probe.take_sealed(commit.room)
    return CrashPoint(number, moment, str(commit.room), tuple(events), tuple(stores))


def _decoded(codec: Codec, value: bytes) -> str:
    try:
        return repr(codec.decode(value))
    except PartyroomError:
        return repr(value)
