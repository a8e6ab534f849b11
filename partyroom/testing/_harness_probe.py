"""What a harness knows of the events in its rooms.

Owns the log of events, the errors of rooms, and which events a commit holds.

Promises that the log is in an order that does not depend on the loop: by time,
then room, then the order in that room.

Must never change what happens, but for what the harness was asked to change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from random import Random  # noqa: TID251 - chance by a seed, which a test gives
from typing import Any, Final, final

from anyio.lowlevel import cancel_shielded_checkpoint
from typing_extensions import override

from partyroom._core.units import Event
from partyroom._native import Loop, OneShot, current_loop
from partyroom._services import Probe
from partyroom.errors import RuntimeClosedError
from partyroom.testing.fake_clock import FakeClock
from partyroom.testing.log import LoggedEvent, RoomError
from partyroom.types import RoomKey

__all__ = ["HarnessProbe"]

TURNS: Final = (0, 0, 0, 0, 1, 1, 2, 3, 5, 20)
"""How many turns of others a task may wait when orders are shuffled: mostly none or few, and now and then so many that
others finish all they had in hand."""


@final
class HarnessProbe(Probe):
    """Looks on for one harness."""

    def __init__(self, clock: FakeClock, *, sleeps_at_once: bool, stir: Random | None) -> None:
        self._clock = clock
        self._sleeps_at_once = sleeps_at_once
        self._stir = stir
        self._is_looking = True
        self._begun: dict[Event, datetime] = {}
        self._log: list[LoggedEvent] = []
        self._in_order: list[LoggedEvent] = []
        self._sealed: defaultdict[RoomKey, list[str]] = defaultdict(list)
        self.errors: list[RoomError] = []

    # --- what a runtime tells ------------------------------------------------

    @property
    @override
    def sleeps_at_once(self) -> bool:
        return self._sleeps_at_once

    @override
    def loop(self) -> Loop:
        loop = current_loop()
        if self._stir is not None:
            loop.stir, loop.tie = _stirring(self._stir), self._stir.random
            loop.one_shot = _stirred(loop.one_shot, loop.stir)
        return loop

    @override
    def event_began(self, event: Event, /) -> None:
        self._clock.event_went_on()
        if event.parent is not None:
            # It is part of the event that it is nested in, which stands in the log.
            return
        self._begun[event] = self._clock.now()

    @override
    def event_ended(self, event: Event, /) -> None:
        self._clock.event_went_on()
        began = self._begun.pop(event, None)
        if began is not None and self._is_looking:
            outcome = "ok" if event.error is None else type(event.error).__name__
            self._log.append(LoggedEvent(began, event.place.key, event.name, outcome))

    @override
    def event_sealed(self, event: Event, /) -> None:
        self._sealed[event.place.key].append(event.name)

    @override
    def event_failed(self, event: Event, error: BaseException, /, *, heard: bool) -> None:
        if self._is_looking and not isinstance(error, RuntimeClosedError):
            self.errors.append(RoomError(self._clock.now(), event.place.key, event.name, error, heard))

    # --- what a harness asks -------------------------------------------------

    @property
    def log(self) -> list[LoggedEvent]:
        """What has ended, by time, then room, then the order in that room."""
        if len(self._in_order) != len(self._log):
            self._in_order = sorted(self._log, key=lambda each: (each.at, each.room))
        return self._in_order

    @property
    def order(self) -> tuple[tuple[RoomKey, str], ...]:
        """What has ended, in the order in which it did."""
        return tuple((each.room, each.event) for each in self._log)

    def take_sealed(self, room: RoomKey) -> list[str]:
        """Give the names of the room's events whose writes were handed on to be committed since the last time."""
        return self._sealed.pop(room, [])

    def look_away(self) -> None:
        """Hear of nothing more: what a killed runtime still does, a killed process would not."""
        self._is_looking = False

    def look_on(self) -> None:
        """Hear of a new run, and know nothing of what was cut off in the last."""
        self._is_looking = True
        self._begun.clear()
        self._sealed.clear()


def _stirring(random: Random) -> Callable[[], Awaitable[None]]:
    async def stir() -> None:
        for _ in range(random.choice(TURNS)):
            await cancel_shielded_checkpoint()

    return stir


def _stirred(base: type[OneShot[Any]], stir: Callable[[], Awaitable[None]]) -> type[OneShot[Any]]:
    """Give a one-shot whose waiter goes on when it is woken, or a few turns later."""

    class StirredOneShot(base):  # type: ignore[misc, valid-type]
        __slots__ = ()

        @override
        def _sleep(self) -> Iterator[Any]:
            yield from super()._sleep()
            yield from stir().__await__()

    return StirredOneShot
