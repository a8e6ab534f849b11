"""The scheduler that ships: one task that sleeps on the clock for all alarms of all rooms.

Owns that task, its look-ahead into the backend's index, and the bound on how
many rooms are being woken at once.

Promises that a room is woken at its alarm's time or after, never before (G8), in
the order (due, room), one between two looks at the clock; that a failing backend
is asked again, and never ends it; and that it does nothing, and holds no token,
while nothing is due.

Must never poll, and never wait for a room: it wakes, and hears of the outcome
as of any other change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from logging import getLogger
from typing import Final, Protocol, TypeAlias, final

from anyio import CancelScope
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._core.alarm_queue import AlarmQueue, Place
from partyroom._log import about
from partyroom._native import OneShot, current_loop
from partyroom.protocols import AlarmScheduler, Clock, Upcoming
from partyroom.types import RoomKey, Timer

__all__ = ["AlarmLoop", "Tokens"]

Wake: TypeAlias = Callable[[RoomKey], None]
Read: TypeAlias = Callable[[Upcoming | None, int], Awaitable[Sequence[Upcoming]]]

TURN: Final = 64
"""After how many rooms a burst of overdue alarms lets others run: what they wake is to begin, not to pile up."""
BACK_OFF: Final = timedelta(milliseconds=100)
"""How long to wait before a failed read is tried again; doubled each time."""
BACK_OFF_DOUBLINGS: Final = 8
"""So often is it doubled: to 25.6 seconds, the most that alarms are late once the backend is back."""

LOG: Final = getLogger("partyroom")


class Tokens(Protocol):
    """The count of work in flight, as far as the loop needs it."""

    def take(self) -> None:
        """Count one more piece of work."""
        ...

    def give(self) -> None:
        """Count one as done."""
        ...


@final
class AlarmLoop(AlarmScheduler):
    """Wakes rooms when their alarms are due, from one task.

    ``lookahead`` says how many alarms are held in memory (up to twice as many for a while), ``max_waking`` how many
    rooms may have been woken without an answer. From its construction on, it holds a token of ``work`` whenever it is
    not asleep. Run again after its end, it begins anew.
    """

    def __init__(self, clock: Clock, work: Tokens, *, lookahead: int, max_waking: int) -> None:
        self._clock = clock
        self._work = work
        self._max_waking = max_waking
        self._queue = AlarmQueue(lookahead)
        self._is_up = True
        self._asleep: tuple[Place, CancelScope] | None = None
        self._timer: Timer | None = None
        """What it has last slept for."""
        self._parked: OneShot[None] | None = None
        self._failures = 0
        work.take()

    # --- what changed --------------------------------------------------------

    @override
    def changed(self, room: RoomKey, due: datetime | None, /) -> None:
        if due is not None and self._queue.is_stored(room, due) and due > self._clock.now():
            due = None
        self.hold(room, due)

    def hold(self, room: RoomKey, due: datetime | None) -> None:
        """Hear when a room is to be woken, and keep that in any case: what is stored may say something else."""
        self._queue.change(room, due)
        if self._asleep is not None:
            target, sleep = self._asleep
            # What was moved later, or deleted, does not wake the sleeper: it looks again when it wakes anyway, and
            # rooms that put their alarm off with every event would cost a cancelled sleep each time.
            if due is not None and (due, room) < target:
                self._asleep = None
                self._get_up()
                sleep.cancel()
        elif self._parked is not None and self._has_work():
            parked, self._parked = self._parked, None
            self._get_up()
            parked.set(None)

    def _has_work(self) -> bool:
        return self._next() is not None or self._queue.is_dry

    def _next(self) -> Place | None:
        """Give what may be woken next."""
        return self._queue.first() if self._queue.waking < self._max_waking else None

    # --- the token -----------------------------------------------------------

    def is_called(self, timer: Timer) -> bool:
        """Hear that the clock is about to end the sleep for ``timer``; say whether it is one of this task's.

        It holds its token from here on, so that the clock of a test need not wait for it to be seen.
        """
        if self._asleep is None or self._timer is not timer:
            return False
        self._get_up()
        return True

    def _get_up(self) -> None:
        if not self._is_up:
            self._is_up = True
            self._work.take()

    def _lie_down(self) -> None:
        """Give the token back: from here to the clock, or to a poke, nothing else can run."""
        if self._is_up:
            self._is_up = False
            self._work.give()

    # --- the one task --------------------------------------------------------

    @override
    async def run(self, wake: Wake, upcoming: Read, /) -> None:
        one_shot = current_loop().one_shot
        try:
            while True:
                if self._queue.is_dry:
                    await self._read_on(upcoming)
                elif self._next() is None:
                    parked = self._parked = one_shot()
                    self._lie_down()
                    await parked
                else:
                    with CancelScope() as sleep:
                        await self._ring(wake, sleep)
        finally:
            self._asleep = self._parked = None
            # What it knew is worth nothing to a run that begins later.
            self._queue = AlarmQueue(self._queue.lookahead)
            self._lie_down()

    async def _ring(self, wake: Wake, sleep: CancelScope) -> None:
        """Wake what is due, one room after each sleep, until nothing may be woken or a change cancels the sleep."""
        rung = 0
        while (place := self._next()) is not None:
            timer = self._timer = Timer(place[1], "alarm")
            self._asleep = place, sleep
            self._lie_down()
            await self._clock.sleep_until(place[0], timer=timer)
            if sleep.cancel_called:
                # A change came between the clock's ring and this task's turn: the scope is cancelled.
                return
            self._asleep = None
            if not self._queue.is_live(place):
                # It was moved later, or deleted, while the clock slept for it.
                continue
            wake(self._queue.take())
            rung += 1
            if not rung % TURN:
                self._get_up()
                await checkpoint()

    async def _read_on(self, upcoming: Read) -> None:
        """Read what is due next from the backend; if it fails, wait a while, longer each time."""
        self._get_up()
        after = self._queue.begin_reading()
        try:
            found = await upcoming(after, self._queue.lookahead)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises, the alarms of all rooms hang on this task
            await self._back_off(error)
        else:
            self._queue.end_reading(found)
            self._failures = 0

    async def _back_off(self, error: Exception) -> None:
        self._queue.abandon_reading()
        if not self._failures:
            LOG.error("the next alarms cannot be read; trying again until they can", exc_info=error, extra=about())
        delay = BACK_OFF * 2 ** min(self._failures, BACK_OFF_DOUBLINGS)
        self._failures += 1
        self._lie_down()
        await self._clock.sleep(delay, timer=Timer(None, "refill"))
