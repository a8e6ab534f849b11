"""What a run that went wrong tells: what was raised, by which line, at what virtual time, and what was still pending.

Owns the words of one failure in the reports of :func:`~partyroom.testing.every_crash`
and :func:`~partyroom.testing.many_orders`.

Promises that a bare ``assert`` is told with its line, so that no report is empty;
and that what an error says by itself is not said twice.

Must never change what is raised.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast, final

from partyroom.errors import ClockStalledError, EndlessTimersError, ExpectationError
from partyroom.testing._waiting_places import raising_place
from partyroom.testing.harness import Harness

__all__ = ["Moment", "in_words"]


@final
class Moment:
    """When something went wrong in a harness, and what was pending then."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._facts = ""

    @contextmanager
    def noted(self) -> Generator[None]:
        """Look at the harness if the block raises, while it is open still."""
        try:
            yield
        except Exception as error:
            # These say it themselves.
            if not isinstance(error, ExpectationError | ClockStalledError | EndlessTimersError):
                pending = "\n            ".join(self._harness.pending_lines()) or "nothing"
                self._facts = f"\n  at:       {self._harness.now().isoformat()} (virtual)\n  pending:  {pending}"
            raise

    def tell(self, error: BaseException) -> str:
        """Say what was raised, and when."""
        return in_words(error) + self._facts


def in_words(error: BaseException) -> str:
    """Say what was raised, and by which line of a test or a room; of a group, each of what is in it."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(in_words(each) for each in group.exceptions)
    text = str(error)
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = raising_place(error)
    return f"{told}\n  raised:   {place}" if place else told
