"""How the options of a harness become a runtime.

Owns the defaults of a runtime under test, as far as they differ from those in
earnest.

Promises that two runtimes of the same options do the same: no jitter, and ids by
seed.

Must never enter what it makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from random import Random  # noqa: TID251 - chance by a seed, which a test gives

from typing_extensions import override

from partyroom._services import RoomFactory
from partyroom.backends.memory import MemoryBackend
from partyroom.protocols import AlarmScheduler, StorageBackend
from partyroom.runtime import Runtime
from partyroom.testing._fresh_backends import is_backend
from partyroom.testing.fake_clock import FakeClock
from partyroom.testing.options import BackendFactory, HarnessOptions

__all__ = ["SteadyRandom", "check_options", "make_runtime"]


class SteadyRandom(Random):
    """Chance without the part that tests would have to allow for: no jitter, and ids by seed."""

    @override
    def random(self) -> float:
        return 0.0


def check_options(options: HarnessOptions) -> None:
    """Refuse an option that there is none of: misspelt, it would be as if it were not there."""
    known = sorted(HarnessOptions.__optional_keys__)
    unknown = [name for name in options if name not in known]
    if unknown:
        message = f"a harness has no option {', '.join(unknown)}; it has {', '.join(known)}"
        raise TypeError(message)
    _check_clock(options.get("clock"))


def _check_clock(clock: object) -> None:
    if clock is not None and not isinstance(clock, FakeClock):
        message = f"a harness runs on a FakeClock, which a test can move, not on a {type(clock).__name__}"
        raise TypeError(message)


def make_runtime(
    parties: Mapping[str, RoomFactory], clock: FakeClock, scheduler: AlarmScheduler | None, options: HarnessOptions
) -> Runtime:
    """Make the runtime of a harness, on this clock, with a scheduler of the kit's own or the test's."""
    return Runtime(
        parties,
        backend=_make_backend(options.get("backend", MemoryBackend)),
        clock=clock,
        scheduler=scheduler,
        alarms=options.get("alarms", "auto"),
        limits=options.get("limits"),
        codec=options.get("codec"),
        idle_timeout=options.get("idle_timeout", timedelta(seconds=10)),
        max_awake=options.get("max_awake"),
        close_timeout=options.get("close_timeout", timedelta(seconds=10)),
        random=SteadyRandom(options.get("seed", 0)),
        observer=options.get("observer"),
    )


def _make_backend(backend: StorageBackend | BackendFactory) -> StorageBackend:
    """Give the backend that was given, or a fresh one of its maker."""
    if is_backend(backend):
        return backend
    if not callable(backend):
        message = (
            f"backend must be a storage backend, or what makes one, such as MemoryBackend, not {type(backend).__name__}"
        )
        raise TypeError(message)
    return backend()
