"""How a runtime under test is set up.

Owns the options that a harness takes, and everything that makes one: they are
those of :class:`~partyroom.Runtime`, and the kit's own.

Promises that each has a default under which a test says nothing but its rooms.

Must never hold behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal, TypeAlias

from typing_extensions import TypedDict

from partyroom.observer import Observer
from partyroom.protocols import AlarmScheduler, Codec, StorageBackend
from partyroom.testing.fake_clock import FakeClock
from partyroom.types import Limits

__all__ = ["BackendFactory", "HarnessOptions", "RuntimeOptions"]

BackendFactory: TypeAlias = Callable[[], StorageBackend]
"""Makes a fresh, empty backend: a class such as ``MemoryBackend``, or any function."""


class RuntimeOptions(TypedDict, total=False):
    """The options of a runtime under test that have nothing to do with its order, its backend or its clock."""

    alarms: Literal["auto", "manual"]
    """``"manual"``: nothing rings but by ``ring_due``."""
    limits: Limits
    codec: Codec
    idle_timeout: timedelta
    """How long an idle room stays in memory; 10 virtual seconds by default."""
    max_awake: int | None
    close_timeout: timedelta
    observer: Observer | None
    """Hears of all events, wakes, alarms and commits, as for a runtime; none by default."""
    strict_hibernation: bool
    """Put every room to sleep whenever it may, and give it a fresh instance for each event. ``False`` by default."""
    fail_on_errors: bool
    """Raise at the end what rooms raised, nobody heard of, and ``expect_error`` did not expect. ``True`` by default."""


class HarnessOptions(RuntimeOptions, total=False):
    """All options of a harness."""

    backend: StorageBackend | BackendFactory
    """A backend, or what makes one. ``MemoryBackend`` by default."""
    clock: FakeClock
    """A clock of the test's own; by default a fresh one that begins at 2030-01-01T00:00Z."""
    scheduler: AlarmScheduler | None
    """As for a runtime."""
    seed: int
    """What ids, and with ``shuffled`` all orders, come from; 0 by default."""
    shuffled: bool
    """Whether what may happen in any order does: see ``many_orders``. ``False`` by default."""
