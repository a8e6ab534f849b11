"""What every contract stands on: cases that are methods, the loops they run on, and the words for what they find.

Owns :class:`Suite`, the base of all contracts, :func:`case`, which makes of an
async case the method that pytest and unittest call, and :func:`found_by`, which
makes a finding of whatever goes wrong.

Promises that each case runs on each loop that is installed, and that whatever
goes wrong, an unexpected exception and a call that never returns included, ends
as a :class:`~partyroom.errors.BrokenContractError` that names the clause; but for
a call that cannot be cancelled either, which only whoever runs the suite can end.

Must never know what is judged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from inspect import cleandoc
from typing import Any, Final, TypeVar

import anyio
from anyio import move_on_after  # noqa: TID251 - what hangs is judged in real time

from partyroom.errors import BrokenContractError

__all__ = ["Suite", "case", "found_by", "shown", "shown_apart", "shown_error"]

S = TypeVar("S", bound="Suite")
T = TypeVar("T")

SHOWN: Final = 1000
"""How many characters of a value a message shows."""
LEAD: Final = 200
"""How many of them come before the place where two values part."""


def case(body: Callable[[S, T], Awaitable[None]]) -> Callable[[S], None]:
    """Make of a case the method that runs it on each loop. Its docstring is the clause that it judges."""

    def test(self: S) -> None:
        self.judge(test.__name__, test.__doc__, partial(body, self))

    # Not functools.wraps: pytest would look through it and take the trial for a fixture.
    test.__name__ = body.__name__
    test.__qualname__ = body.__qualname__
    test.__module__ = body.__module__
    test.__doc__ = body.__doc__
    return test


class Suite(ABC):
    """A contract: its cases, and the way of running them."""

    loops: Sequence[str] = ("asyncio", "trio")
    """The event loops to run on; one that is not installed is left out."""
    patience: float = 30.0
    """After how many seconds of real time a case that has not ended is taken for one that hangs. One that waits where it
    cannot be cancelled, in a shield or in blocking code, hangs the run: a time-out of the runner's (pytest-timeout) ends it."""

    def judge(self, name: str, clause: str | None, case: Callable[[Any], Awaitable[None]]) -> None:
        """Run a case on each loop; raise what it found wrong."""
        for loop in [loop for loop in self.loops if _is_installed(loop)]:
            found = self.found_on(loop, f"{cleandoc(clause or name)} ({name}, on {loop})", case)
            if found is not None:
                raise found from found.__cause__

    @abstractmethod
    def found_on(self, loop: str, clause: str, case: Callable[[Any], Awaitable[None]], /) -> BrokenContractError | None:
        """Run a case on one loop, on something new; give what it found wrong."""


async def found_by(patience: float, clause: str, step: Callable[[], Awaitable[None]]) -> BrokenContractError | None:
    """Run a step of a case; give what it found wrong."""
    try:
        with move_on_after(patience) as scope:
            await step()
    except BrokenContractError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, what is judged should not have raised it
        found = BrokenContractError(clause, "running the case", "no error", shown_error(error))
        found.__cause__ = error
        return found
    if scope.cancelled_caught:
        return BrokenContractError(
            clause, "running the case", f"an end within {patience:g} s", "a call that does not return"
        )
    return None


def shown(value: object) -> str:
    """Give the words for a value."""
    return _cut(repr(value), 0)


def shown_apart(expected: object, seen: object) -> tuple[str, str]:
    """Give the words for two values that differ: of long ones, those around the place where they part."""
    texts = repr(expected), repr(seen)
    alike = next((place for place, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
    return _cut(texts[0], alike), _cut(texts[1], alike)


def _cut(text: str, place: int) -> str:
    if len(text) <= SHOWN:
        return text
    begin = max(0, min(place - LEAD, len(text) - SHOWN))
    end = begin + SHOWN
    return f"{'...' * bool(begin)}{text[begin:end]}{'...' * (end < len(text))} ({len(text)} characters)"


def shown_error(error: BaseException) -> str:
    """Give the words for an error."""
    return f"{type(error).__name__}: {error}"


@cache
def _is_installed(loop: str) -> bool:
    async def nothing() -> None:
        return

    try:
        anyio.run(nothing, backend=loop)
    except LookupError:
        return False
    return True
