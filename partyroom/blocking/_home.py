"""Where a runtime lives whose host waits: what that place has to do.

Owns :class:`Home`, and the look at which process it is.

Promises that a forked child, which has a copy of it and nothing that runs, is
told so.

Must never run anything itself.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from partyroom.errors import RuntimeStateError
from partyroom.runtime import Runtime

__all__ = ["ROOMS_OWN_CODE", "Home"]

T = TypeVar("T")

ROOMS_OWN_CODE = "a room's code uses self.ctx, and must not wait for its own thread"


class Home(ABC):
    """Where a runtime lives, from its opening to its closing."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._process = os.getpid()

    @abstractmethod
    def start(self) -> None:
        """Open the runtime; raise what that raises."""

    @abstractmethod
    def ask(self, fn: Callable[[], Awaitable[T]], /) -> T:
        """Run an async function there, and wait for it; an interrupted wait withdraws it, as far as G6 lets it."""

    @abstractmethod
    def stop(self) -> None:
        """Close the runtime, and return when nothing of it is left; raise what closing raised."""

    def check(self) -> None:
        """Refuse to be used where it cannot be."""
        if self._process != os.getpid():
            message = f"this runtime lives in process {self._process}; a forked child must open one of its own"
            raise RuntimeStateError(message)

    def may_be_used(self) -> bool:
        """Say whether it can be used here."""
        try:
            self.check()
        except RuntimeStateError:
            return False
        return True
