"""A backend that goes wrong on purpose.

Owns :class:`FaultyBackend`, which fails, refuses, tears, holds or delays the
calls that it was told to, or loses their answers, before any backend.

Promises that a fault strikes exactly the calls it was armed for, counted from
the moment of arming, and that all others pass untouched. Nothing is left to
chance or to time, so that a run with faults can be repeated.

Must never store anything itself: what is durable is in the backend behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, Self, TypeVar, final, get_args

import attrs
from anyio import Event
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom.errors import BackendError, ClockStalledError, CommitError
from partyroom.protocols import StorageBackend
from partyroom.testing._stall_watch import StallWatch
from partyroom.testing.backend_wrapper import BackendWrapper, Call
from partyroom.types import Commit, RoomKey

__all__ = ["FaultyBackend", "Hold"]

P = ParamSpec("P")
T = TypeVar("T")

Proceed = Callable[..., Awaitable[Any]]

CALLS: Final[tuple[str, ...]] = get_args(Call)
FOREVER: Final = 2**63
"""More calls than anybody makes."""


@final
class Hold:
    """A call that is held where :meth:`FaultyBackend.hold` put it. As a context manager, it lets go at the end of the block."""

    def __init__(self, watch: StallWatch) -> None:
        self._watch = watch
        self._arrived = Event()
        self._released = Event()

    async def arrived(self) -> None:
        """Return when the call is being held; :class:`ClockStalledError` if it does not come, and no other call does either."""
        await self._watch.see_through(self._arrived.wait)

    def release(self) -> None:
        """Let the call go on; if it has not come yet, it will not stop here."""
        self._released.set()

    async def stop_here(self) -> None:
        """Wait, as the call that is held, until released."""
        self._arrived.set()
        await self._released.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.release()


class _Act(Protocol):
    """What a fault does to a call: it is given the way on, and the call's arguments."""

    async def __call__(self, proceed: Proceed, /, *args: Any) -> Any:  # noqa: ANN401 - of any of the calls
        ...


@attrs.define(eq=False)
class _Fault:
    """A fault that is armed."""

    call: Call
    room: RoomKey | None
    wait: int
    """How many calls more pass before it strikes."""
    times: int
    """How many calls it strikes then."""
    act: _Act

    def __str__(self) -> str:
        where = f"the {self.call}" if self.room is None else f"the {self.call} of {self.room}"
        when = f"number {self.wait + 1} from now" if self.wait else "that comes next"
        often = "always" if self.times > FOREVER // 2 else f"{self.times} times" if self.times > 1 else "once"
        return f"{where} {when}, {often}"

    def strikes(self, call: Call, args: Sequence[object]) -> bool:
        """Say whether it strikes a call, and count it."""
        if call != self.call or (self.room is not None and self.room not in _rooms_of(call, args)):
            return False
        if self.wait:
            self.wait -= 1
            return False
        self.times -= 1
        return True


@final
class FaultyBackend(BackendWrapper):
    """Wraps any backend, and goes wrong where it is told to.

    ::

        faulty = FaultyBackend(MemoryBackend())
        faulty.fail("commit", nth=3)                    # the third call of commit from now on raises
        faulty.refuse(RoomKey("counter", "a"))          # the next commit of that room is refused, the others of its group pass
        with faulty.hold("commit") as hold:             # the next commit stops before anything is stored
            await hold.arrived()
            ...

    Every fault strikes the ``nth`` call from now on of its kind, or of those that concern ``room``. Of a group of
    commits, which is one call, each room in it is concerned. Several faults of one call strike one inside the other, the
    one that was armed first outermost. What has not struck stands in :attr:`armed`. Who waits for a call to be held,
    while none is made for ``stall_timeout`` real seconds, is told so.
    """

    def __init__(self, backend: StorageBackend, *, stall_timeout: float = 5.0) -> None:
        super().__init__(backend)
        self._stall_timeout = stall_timeout
        self.calls: Counter[Call] = Counter()
        """How many calls of each kind there were."""
        self._faults: list[_Fault] = []
        self._holds: list[Hold] = []

    def fail(
        self,
        call: Call = "commit",
        nth: int = 1,
        *,
        room: RoomKey | None = None,
        times: int = 1,
        error: Exception | None = None,
    ) -> None:
        """Raise ``error`` (by default a :class:`BackendError`) instead of doing anything, in ``times`` calls in a row.

        A runtime tries a group of commits that has failed again, commit by commit: for a commit that is not stored,
        ``times=2``, or :meth:`refuse`.
        """
        raised = error or BackendError(f"a {call} that FaultyBackend was told to fail")

        async def act(_proceed: Proceed, /, *_args: object) -> object:
            raise raised

        self._arm(call, nth, room, act, times)

    def fail_until_healed(
        self, call: Call = "commit", *, room: RoomKey | None = None, error: Exception | None = None
    ) -> None:
        """Raise in all calls until :meth:`heal`, as a full disk would."""
        self.fail(call, room=room, times=FOREVER, error=error)

    def lose_answer(
        self, call: Call = "commit", nth: int = 1, *, room: RoomKey | None = None, error: Exception | None = None
    ) -> None:
        """Do what was asked, then raise: the outcome is unknown to the caller, as after a cut line."""
        raised = error or BackendError(f"the answer to a {call}, which FaultyBackend was told to lose")

        async def act(proceed: Proceed, /, *args: object) -> object:
            await proceed(*args)
            raise raised

        self._arm(call, nth, room, act)

    def refuse(self, room: RoomKey, nth: int = 1, *, times: int = 1, error: CommitError | None = None) -> None:
        """Refuse what the group has of this room, with ``error``, and pass on the other commits of the group."""
        refusal = error or CommitError(f"{room}: a commit that FaultyBackend was told to refuse")

        async def act(proceed: Proceed, /, *args: Any) -> object:  # noqa: ANN401 - of any of the calls
            (commits,) = args
            passed = iter(await proceed([commit for commit in commits if commit.room != room]))
            return [refusal if commit.room == room else next(passed) for commit in commits]

        self._arm("commit", nth, room, act, times)

    def tear(self, nth: int = 1, *, room: RoomKey | None = None) -> None:
        """Store the first half of the values of each commit and none of its alarms, and answer as if all were stored.

        No backend may do that: it is for tests that should notice.
        """

        async def act(proceed: Proceed, /, *args: Any) -> object:  # noqa: ANN401 - of any of the calls
            (commits,) = args
            return await proceed([_torn(commit) for commit in commits])

        self._arm("commit", nth, room, act)

    def hold(self, call: Call = "commit", nth: int = 1, *, room: RoomKey | None = None) -> Hold:
        """Stop the call before anything is done, until released. Cancelled there, it does nothing."""
        hold = self._new_hold(call, nth, room)

        async def act(proceed: Proceed, /, *args: object) -> object:
            await hold.stop_here()
            return await proceed(*args)

        self._arm(call, nth, room, act)
        return hold

    def hold_answer(self, call: Call = "commit", nth: int = 1, *, room: RoomKey | None = None) -> Hold:
        """Stop the call when all is done and nobody is told yet, until released."""
        hold = self._new_hold(call, nth, room)

        async def act(proceed: Proceed, /, *args: object) -> object:
            answer = await proceed(*args)
            await hold.stop_here()
            return answer

        self._arm(call, nth, room, act)
        return hold

    def delay(
        self, call: Call = "commit", nth: int = 1, *, room: RoomKey | None = None, turns: int = 10, times: int = 1
    ) -> None:
        """Let everything else run ``turns`` times before the call goes on. In turns, not in seconds: nothing here takes time."""

        async def act(proceed: Proceed, /, *args: object) -> object:
            for _ in range(turns):
                await checkpoint()
            return await proceed(*args)

        self._arm(call, nth, room, act, times)

    @property
    def armed(self) -> Sequence[str]:
        """What was armed and is still to strike, in words: a test whose fault never came has tried nothing."""
        return tuple(map(str, self._faults))

    def heal(self) -> None:
        """Disarm all faults, and release all that is held."""
        self._faults.clear()
        for hold in self._holds:
            hold.release()
        self._holds.clear()

    @override
    async def around(self, call: Call, proceed: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.calls[call] += 1
        struck = [fault for fault in self._faults if fault.strikes(call, args)]
        self._faults = [fault for fault in self._faults if fault.times]
        way: Proceed = proceed
        for fault in reversed(struck):
            way = _through(fault.act, way)
        result: T = await way(*args, **kwargs)
        return result

    def _arm(self, call: Call, nth: int, room: RoomKey | None, act: _Act, times: int = 1) -> None:
        if call not in CALLS:
            # It would never strike, and its test would see nothing of it.
            message = f"a backend has no call {call!r}; it has {', '.join(CALLS)}"
            raise ValueError(message)
        if nth < 1 or times < 1:
            message = f"nth and times count from 1, not {min(nth, times)}"
            raise ValueError(message)
        self._faults.append(_Fault(call, room, nth - 1, times, act))

    def _new_hold(self, call: Call, nth: int, room: RoomKey | None) -> Hold:
        what = f"{call} number {nth} of {room or 'any room'} from when it was to be held"
        hold = Hold(StallWatch(self._stall_timeout, self._describe_calls, partial(self._stalled, what)))
        self._holds.append(hold)
        return hold

    def _describe_calls(self) -> list[str]:
        return [f"{call}: {times}" for call, times in self.calls.items()]

    def _stalled(self, what: str) -> ClockStalledError:
        message = (
            f"nothing goes on: expected {what}, and saw no call for {self._stall_timeout:g} real seconds\n"
            f" all calls so far:\n  {', '.join(self._describe_calls()) or 'none'}"
        )
        return ClockStalledError(message)


def _through(act: _Act, way: Proceed) -> Proceed:
    async def pass_on(*args: Any) -> object:  # noqa: ANN401 - of any of the calls
        return await act(way, *args)

    return pass_on


def _rooms_of(call: Call, args: Sequence[Any]) -> set[RoomKey]:
    """Give the rooms that a call concerns."""
    if call == "commit":
        return {commit.room for commit in args[0]}
    return {args[0]} if call in {"claim", "read", "scan", "room_alarms"} else set()


def _torn(commit: Commit) -> Commit:
    kept = list(commit.values.items())[: len(commit.values) // 2]
    return commit._replace(values=dict(kept), alarms={})
