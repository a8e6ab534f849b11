"""How a test learns that something in it waits for what no clock brings.

Owns the look, now and then in real time, at whether what is waited for goes on.

Promises that a wait in which nothing goes on ends, soon after so many real
seconds and not before; that one look is armed at a time, however often is waited.

Must never be what says whether time may move: that is counted, not watched.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, final

from anyio import CancelScope

from partyroom._native import Loop

__all__ = ["StallWatch"]

LOOKS: Final = 2
"""So many looks in a row that see the same see a stall."""


@final
class StallWatch:
    """Cancels waits in which nothing goes on for ``patience`` real seconds; ``describe`` says what there is to go on."""

    def __init__(self, patience: float, describe: Callable[[], list[str]]) -> None:
        if patience <= 0:
            message = f"stall_timeout must be positive, not {patience}"
            raise ValueError(message)
        self.patience = patience
        self._describe = describe
        self._scopes: list[CancelScope] = []
        self.waits = 0
        """How often was waited: what goes on, if nothing else does."""
        self._loop: Loop | None = None
        self._seen: tuple[int, list[str]] | None = None
        self._unchanged = 0

    @contextmanager
    def scope(self, loop: Loop) -> Generator[CancelScope]:
        """Open a scope for waits; it is cancelled when nothing goes on in it."""
        self.waits += 1
        with CancelScope() as scope:
            self._scopes.append(scope)
            if self._loop is None or self._loop.token != loop.token:
                self._unchanged = 0
                self._arm(loop)
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    def _arm(self, loop: Loop) -> None:
        self._loop = loop
        loop.call_later(self.patience / LOOKS, self._look)

    def _look(self) -> None:
        """Compare with the last look."""
        loop, self._loop = self._loop, None
        if loop is None or not self._scopes:
            return
        seen = (self.waits, self._describe())
        self._unchanged = self._unchanged + 1 if seen == self._seen else 0
        self._seen = seen
        if self._unchanged < LOOKS:
            self._arm(loop)
            return
        for scope in self._scopes:
            scope.cancel()
