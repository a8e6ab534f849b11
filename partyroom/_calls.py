"""How an event is asked for and waited for: by a host, by another room, or along one's own chain.

Owns the difference between the three. A host waits for a reply that is safe
(G4). A room that calls another waits for its own earlier events first, and may
be called back by it: that call is nested, and runs at once (G1).

Promises that a caller who leaves withdraws an event that has not begun and
changes nothing about one that has (G6), that nested events of one event run one
at a time, and that a wait which would never end is a ``DeadlockError`` (G1).

Must never run a handler of the mailbox: that is the room's worker's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from anyio import CancelScope

from partyroom._core.mailbox import Mailbox
from partyroom._core.output_gate import OutputGate
from partyroom._core.units import CURRENT, Event, Unit, find_cycle, find_way_back
from partyroom._native import OneShot
from partyroom._services import Services
from partyroom.errors import DeadlockError, LimitExceededError, RoomBrokenError
from partyroom.protocols import Room
from partyroom.types import RoomKey

__all__ = ["CallableRoom", "arrive", "await_earlier", "perform"]

Run = Callable[[Any], Awaitable[Any]]
"""Runs a handler: takes the room's instance."""


class CallableRoom(Protocol):
    """A room as its callers see it."""

    key: RoomKey
    running: Event | None
    services: Services
    mailbox: Mailbox
    gate: OutputGate
    instance: Room | None

    def post(self, event: Event, /) -> bool:
        """Let an event wait; say whether the mailbox had a place for it."""
        ...

    def seal(self, event: Event, /) -> None:
        """Let an event leave when everything before it is durable."""
        ...


async def perform(room: CallableRoom, kind: str, name: str, run: Run, subject: object = None) -> Any:  # noqa: ANN401 - the handler's own result
    """Have ``run`` run as an event of ``room``, and give its result."""
    unit = CURRENT.get()
    if unit is not None and unit.is_live:
        back = find_way_back(unit, room)
        if back is not None:
            return await _nest(room, back, unit, Event(room, kind, name, run, parent=back, caller=unit))
        return await _call(room, unit, Event(room, kind, name, run, caller=unit), subject)
    event = Event(room, kind, name, run)
    event.subject = subject
    if room.services.loop.stir is not None:
        await arrive(room.services)
    return await _ask(room, event)


async def arrive(services: Services) -> None:
    """Let other callers go first, as often as a test of many orders likes; counted, so that time stands still meanwhile."""
    stir = services.loop.stir
    assert stir is not None
    services.work.take()
    try:
        await stir()
    finally:
        services.work.give()


async def _ask(room: CallableRoom, event: Event) -> Any:  # noqa: ANN401
    """Let an event wait in the mailbox, and wait for its reply."""
    reply: OneShot[Any] = room.services.loop.one_shot()
    event.reply = reply
    room.post(event)
    try:
        return await room.services.work.wait(reply)
    except BaseException:
        if not event.begun:
            room.mailbox.withdraw(event)
        raise


async def _call(room: CallableRoom, unit: Unit, event: Event, subject: object) -> Any:  # noqa: ANN401
    """Call another room from inside an event."""
    event.subject = subject
    _check_depth(room, event)
    await await_earlier(unit)
    _check_cycle(room, unit, room.running)
    caller = unit.event
    _link(caller, event)
    try:
        return await _ask(room, event)
    except BaseException:
        event.waiting = False
        await _await_nested(room.services, caller)
        raise
    finally:
        _unlink(caller, event)


async def await_earlier(unit: Unit) -> None:
    """Wait until all earlier events of the caller's room are durable: a call is an output (G4)."""
    home: Any = unit.place
    if home.gate.is_open:
        return
    barrier = Event(home, "barrier", "call")
    reply: OneShot[None] = home.services.loop.one_shot()
    barrier.reply = reply
    home.seal(barrier)
    await home.services.work.wait(reply)


async def _nest(room: CallableRoom, back: Unit, unit: Unit, event: Event) -> Any:  # noqa: ANN401
    """Run a call that came back along its own chain, in the event that waits for it."""
    _check_depth(room, event)
    host, caller = back.event, unit.event
    _link(caller, event)
    try:
        await _take_turn(room, host, event, unit)
        try:
            return await _run_nested(room, back, event)
        finally:
            _pass_turn(host)
    finally:
        _unlink(caller, event)


async def _run_nested(room: CallableRoom, back: Unit, event: Event) -> Any:  # noqa: ANN401
    """Run a nested handler in a savepoint; shielded, since its writes are half of somebody else's event."""
    event.begun = True
    token = CURRENT.set(event)
    try:
        with CancelScope(shield=True):
            assert event.run is not None
            result = await event.run(room.instance)
    finally:
        event.open = False
        CURRENT.reset(token)
    if event.root.cut is not None:
        message = f"{room.key}: the event that {event.name} returned to was ended: {event.root.cut}"
        raise RoomBrokenError(message) from event.root.cut
    event.merge_into(back)
    return result


async def _take_turn(room: CallableRoom, host: Event, event: Event, unit: Unit) -> None:
    """Wait until no other nested event runs in ``host``."""
    if host.nested is None:
        host.nested = event
        return
    _check_cycle(room, unit, host.nested)
    turn: OneShot[None] = room.services.loop.one_shot()
    if host.turns is None:
        host.turns = []
    waiter = (event, turn)
    host.turns.append(waiter)
    try:
        await room.services.work.wait(turn)
    except BaseException:
        if turn.done:
            _pass_turn(host)
        else:
            host.turns.remove(waiter)
        raise


def _pass_turn(host: Event) -> None:
    """Let the next nested event of ``host`` run, or nobody; tell those on the way who only wait for the end of this one."""
    host.nested = None
    while host.turns and host.nested is None:
        host.nested, turn = host.turns.pop(0)
        turn.set(None)


async def _await_nested(services: Services, caller: Event) -> None:
    """After a cancelled call: wait for what it left running inside the caller, so that never two pieces of one event run at once."""
    if caller.nested is None:
        return
    turn: OneShot[None] = services.loop.one_shot()
    if caller.turns is None:
        caller.turns = []
    caller.turns.append((None, turn))
    with CancelScope(shield=True):
        await services.work.wait(turn)


def _link(caller: Event, event: Event) -> None:
    if caller.calls is None:
        caller.calls = []
    caller.calls.append(event)


def _unlink(caller: Event, event: Event) -> None:
    event.waiting = False
    assert caller.calls is not None
    caller.calls.remove(event)


def _check_depth(room: CallableRoom, event: Event) -> None:
    limit = room.services.limits.call_depth
    if event.depth > limit:
        raise LimitExceededError("call_depth", event.depth, limit, str(event))


def _check_cycle(room: CallableRoom, unit: Unit, target: Event | None) -> None:
    cycle = find_cycle(unit, target)
    if cycle is not None:
        raise DeadlockError((*map(str, cycle), str(room.key)))
