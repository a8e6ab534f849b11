"""How a test learns that something in it waits for what no clock brings, or for time that nobody lets pass.

Owns the look, now and then in real time, at whether what is waited for goes on.

Promises that a wait in which nothing goes on ends, after so many real seconds and
not before; and that a wait which ends earlier was not disturbed: no task of
:class:`StallWatch` runs beside it, so that an order which a seed decided stays as
it is.

Must never be what says whether time may move: that is counted, not watched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

from anyio import move_on_after  # noqa: TID251 - real time, on purpose: it says when the given one stands still

from partyroom._native import Loop

__all__ = ["StallWatch", "StandstillWatch"]

LOOKS: Final = 5
"""In how many looks a standstill is seen: a loop that a debugger held up has missed one of them, and the others are to come."""


@final
class StallWatch:
    """Ends waits in which nothing goes on for ``patience`` real seconds, with what ``complain()`` gives.

    ``describe()`` says what there is to go on.
    """

    def __init__(self, patience: float, describe: Callable[[], list[str]], complain: Callable[[], Exception]) -> None:
        if patience <= 0:
            message = f"stall_timeout must be positive, not {patience}"
            raise ValueError(message)
        self.patience = patience
        self._describe = describe
        self._complain = complain
        self.steps = 0
        """How often something has gone on, of which nothing may be left to see."""

    async def see_through(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await ``wait()``, which is begun again after each look; raise ``complain()`` if nothing goes on."""
        if not await self.ends(wait):
            raise self._complain()

    async def ends(self, wait: Callable[[], Awaitable[None]]) -> bool:
        """Await ``wait()`` likewise; say whether it ended: two looks in a row that see the same see a stall."""
        seen: tuple[int, list[str]] | None = None
        while True:
            with move_on_after(self.patience / 2):
                await wait()
                return True
            before, seen = seen, (self.steps, self._describe())
            if seen == before:
                return False


@final
class StandstillWatch:
    """Calls ``give_up()`` once nothing has gone on for ``patience`` real seconds, as ``steps()`` counts it.

    On trio a task of its own waits for that: not for where a seed decides the order of tasks.
    """

    def __init__(self, patience: float, steps: Callable[[], int], give_up: Callable[[], None]) -> None:
        self._patience = patience
        self._steps = steps
        self._give_up = give_up
        self._loop: Loop | None = None
        """In which a look is planned."""

    def begin(self, loop: Loop) -> None:
        """Plan a look, unless one is planned in this loop."""
        if self._loop is not loop:
            self._loop = loop
            self._plan(loop)

    def _plan(self, loop: Loop) -> None:
        self._look_later(loop, self._steps(), LOOKS)

    def _look_later(self, loop: Loop, seen: int, looks: int) -> None:
        loop.call_later(self._patience / LOOKS, partial(self._look, loop, seen, looks - 1))

    def _look(self, loop: Loop, seen: int, looks: int) -> None:
        if self._loop is not loop:
            # A clock may outlive its loop, and this is the old one.
            return
        if self._steps() != seen:
            self._plan(loop)
            return
        if looks:
            self._look_later(loop, seen, looks)
            return
        self._loop = None
        self._give_up()
