"""The testing kit: thirty days in a millisecond, and every crash there is.

For authors of rooms: :class:`Harness` is a runtime under test, :class:`FakeClock`
its time, :class:`FakeClient` a client with an inbox; :func:`every_crash` and
:func:`many_orders` run a scenario through all that may go wrong with it.

For authors of backends: :class:`BackendContract` judges a store, and
:class:`FaultyBackend` and :class:`RecordingBackend` wrap one. For authors of
schedulers: :class:`AlarmSchedulerContract`.

Must never be imported by the library itself, nor load a test framework: what
needs one is in a module of its own.
"""

from __future__ import annotations

from partyroom.testing.backend_contract import BackendContract
from partyroom.testing.blocking_harness import BlockingHarness
from partyroom.testing.blocking_rooms import BlockingClient, BlockingParty, BlockingRoom
from partyroom.testing.crash_points import CrashPoint, CrashReport, every_crash
from partyroom.testing.fake_client import FakeClient
from partyroom.testing.fake_clock import FakeClock
from partyroom.testing.faults import FaultyBackend
from partyroom.testing.harness import Harness
from partyroom.testing.log import LoggedEvent, RoomError
from partyroom.testing.many_orders import OrdersReport, many_orders
from partyroom.testing.options import HarnessOptions
from partyroom.testing.recording import RecordingBackend
from partyroom.testing.scheduler_contract import AlarmSchedulerContract
from partyroom.testing.timers import Fired, Pending

__all__ = [
    "AlarmSchedulerContract",
    "BackendContract",
    "BlockingClient",
    "BlockingHarness",
    "BlockingParty",
    "BlockingRoom",
    "CrashPoint",
    "CrashReport",
    "FakeClient",
    "FakeClock",
    "FaultyBackend",
    "Fired",
    "Harness",
    "HarnessOptions",
    "LoggedEvent",
    "OrdersReport",
    "Pending",
    "RecordingBackend",
    "RoomError",
    "every_crash",
    "many_orders",
]
