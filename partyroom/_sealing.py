"""What becomes of an event that has ended: its writes are handed on, its outputs wait until all before them is durable.

Owns the step from an event's end to the committer, and from the committer's
answer to the replies and messages that may leave.

Promises that nothing leaves before its own writes, and those of all earlier
events of its room, are durable (G4); that outputs leave in the order in which
their events ended; and that after a refused commit none of the later ones
leaves as if it had been stored (G5).

Must never run a handler, nor wait.
"""

from __future__ import annotations

from typing import Protocol

from partyroom._committer import CommittingRoom
from partyroom._core.instants import from_micros
from partyroom._core.output_gate import OutputGate
from partyroom._core.units import Event
from partyroom._room_state import RoomState
from partyroom._services import Services
from partyroom.errors import RoomBrokenError

__all__ = ["SealingRoom", "broken", "confirm", "fail_sealed", "seal"]


class SealingRoom(CommittingRoom, Protocol):
    """A room as its ended events see it."""

    services: Services
    state: RoomState
    gate: OutputGate
    sealed: int
    """How many events with something to store have ended: the number of the last one."""


def seal(room: SealingRoom, event: Event) -> None:
    """Let an ended event leave when everything before it, and its own writes, are durable."""
    services = room.services
    if event.writes:
        room.sealed += 1
        event.sealed_as = room.sealed
        if services.probe is not None:
            services.probe.event_sealed(event)
        room.state.apply(room.sealed, event.writes)
        services.committer.add(room, event)
    elif room.gate.is_open:
        _let_out(room, event)
        return
    services.work.take()
    room.gate.add(event)


def confirm(room: SealingRoom, number: int) -> None:
    """Hear that everything up to the commit of this number is durable: let out what waited for that."""
    room.state.confirm(number)
    moved = False
    for event in room.gate.confirm(number):
        writes = event.writes
        # Of a ring, the scheduler is told anyway.
        moved = moved or (writes is not None and event.kind != "ring" and (writes.clear or bool(writes.alarms)))
        _let_out(room, event)
        room.services.work.give()
    if moved:
        _tell_next_alarm(room)


def fail_sealed(room: SealingRoom, error: BaseException) -> None:
    """Hear that a commit was refused, or its outcome is unknown: tell everybody who waited for one of the room's."""
    for event in room.gate.shut():
        event.error = broken(room, error)
        _let_out(room, event)
        room.services.work.give()


def broken(room: SealingRoom, error: BaseException) -> RoomBrokenError:
    """Make the error that says why a room broke."""
    told = RoomBrokenError(f"{room.key}: a commit was refused, so what was computed on it is gone: {error}")
    told.__cause__ = error
    return told


def _let_out(room: SealingRoom, event: Event) -> None:
    if event.error is None:
        for output in event.outputs or ():
            output()
        if event.kind == "connect":
            event.subject.settle_in()
    if event.kind == "ring":
        _tell_next_alarm(room)
    if event.reply is None or event.kind == "message":
        return
    if event.error is None:
        event.reply.set(event.result)
    else:
        event.reply.fail(event.error)


def _tell_next_alarm(room: SealingRoom) -> None:
    """Tell the scheduler when the next alarm is; of a room that has lost its claim it has been told to look again."""
    if room.fence:
        due = room.state.next_due()
        room.services.scheduling.changed(room.key, None if due is None else from_micros(due))
