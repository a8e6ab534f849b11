"""Rooms for programs without an event loop: Flask, scripts, notebooks.

Owns the loop in which a runtime lives, and the same verbs without ``async``.

Promises that errors are raised to the caller as a room raised them, that it
closes by itself when the program ends, and that a forked child is told that it
is not its own. With alarms in the background any number of threads may use it at
once; with alarms by hand everything happens in the thread that opened it.

Must never let a room's code wait for itself. One file belongs to one process: a
second one is told who has it (:class:`~partyroom.BackendLockedError`).
"""

from __future__ import annotations

from partyroom.blocking.rooms import BlockingClient, BlockingParty, BlockingRoomHandle
from partyroom.blocking.runtime import BlockingRuntime

__all__ = ["BlockingClient", "BlockingParty", "BlockingRoomHandle", "BlockingRuntime"]
