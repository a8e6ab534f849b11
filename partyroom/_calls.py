"""How an event is asked for and waited for: by a host, by another room, or along one's own chain.

Owns the difference between the three. A host waits for a reply that is safe
(G4). A room that calls another waits for its own earlier events first, and may
be called back by it: that call is nested, and runs at once (G1).

Promises that a caller who leaves withdraws an event that has not begun and
changes nothing about one that has (G6), that nested events of one event run one
at a time, and that a wait which would never end is a ``DeadlockError`` (G1).

Must never run a handler of the mailbox, which is the room's worker's, nor hold
a room over a wait: it may have left memory meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import Any

from anyio import CancelScope, get_cancelled_exc_class

from partyroom._core.units import (
    CURRENT,
    Event,
    Kind,
    Run,
    Unit,
    check_is_left,
    current_unit,
    find_cycle,
    find_way_back,
    stems_from,
)
from partyroom._handlers import begin_handler
from partyroom._native import OneShot
from partyroom._services import AwakeRoom, Services
from partyroom.errors import DeadlockError, EventCancelledError, LimitExceededError, RoomBrokenError
from partyroom.types import RoomKey

__all__ = ["deliver", "perform"]


def perform(
    services: Services, key: RoomKey, kind: Kind, name: str, run: Run, *, subject: object = None
) -> Awaitable[Any]:
    """Have ``run`` run as an event of a room, and give its result; to be awaited at once."""
    unit = current_unit()
    if unit is not None:
        return _call(services, unit, key, kind, name, run, subject)
    if services.loop.stir is not None:
        return _ask_stirred(services, key, kind, name, run, subject)
    return _ask(Event(services.keeper.room(key), kind, name, run, subject=subject))


async def deliver(services: Services, key: RoomKey, run: Run, subject: object) -> None:
    """Have a client's message wait in a room's mailbox; return when it has a place there (G6)."""
    unit = current_unit()
    if unit is not None:
        await _await_earlier(unit)
    elif services.loop.stir is not None:
        await _arrive(services)
    room = services.keeper.room(key)
    event = Event(room, "message", "on_message", run, subject=subject)
    if services.probe is not None:
        services.probe.event_asked(event)
    if not room.post(event):
        await _wait_outside(room, event, unit)


async def _ask_stirred(  # noqa: PLR0917 - what makes an event
    services: Services, key: RoomKey, kind: Kind, name: str, run: Run, subject: object
) -> Any:  # noqa: ANN401 - the handler's own result
    await _arrive(services)
    return await _ask(Event(services.keeper.room(key), kind, name, run, subject=subject))


async def _arrive(services: Services) -> None:
    """Let other callers go first, as often as a test of many orders likes; counted, so that time stands still meanwhile."""
    stir = services.loop.stir
    assert stir is not None
    services.work.take()
    try:
        await stir()
    finally:
        services.work.give()


# --- through the mailbox -----------------------------------------------------


async def _ask(event: Event) -> Any:  # noqa: ANN401 - the handler's own result
    """Let an event wait in its room's mailbox, and wait for its reply."""
    room = _room_of(event)
    if room.services.probe is not None:
        room.services.probe.event_asked(event)
    reply: OneShot[Any] = room.services.loop.one_shot()
    event.reply = reply
    room.post(event)
    try:
        return await room.services.work.wait(reply)
    except BaseException:
        if not reply.done:
            # Nobody hears of the outcome any more: an error is the log's.
            event.reply = None
            room.withdraw(event)
        raise


async def _wait_outside(room: AwakeRoom, event: Event, unit: Unit | None) -> None:
    """Wait until an event has a place in a full mailbox."""
    place: OneShot[None] = room.services.loop.one_shot()
    event.reply = place
    try:
        if unit is None:
            await room.services.work.wait(place)
        else:
            await _wait_linked(room, event, unit)
    except BaseException:
        if not place.done:
            room.withdraw(event)
        raise


async def _wait_linked(room: AwakeRoom, event: Event, unit: Unit) -> None:
    _check_cycle(unit, room.running)
    _link(unit, event)
    try:
        await room.services.work.wait(event.reply)
    finally:
        _unlink(unit, event)


async def _call(  # noqa: PLR0917 - what makes an event, once the room may be asked
    services: Services, unit: Unit, key: RoomKey, kind: Kind, name: str, run: Run, subject: object
) -> Any:  # noqa: ANN401 - the handler's own result
    """Call a room from inside an event: another one, or one that waits along the chain of this event's callers."""
    _check_depth(services, unit, f"{key} {name}")
    if unit.place is not services.keeper.awake(key):
        await _await_earlier(unit)
    back = None if kind == "connect" else _way_back(services, unit, key)
    if back is not None:
        return await _nest(services, Event(back.place, kind, name, run, parent=back, caller=unit), unit, back)
    room = services.keeper.room(key)
    event = Event(room, kind, name, run, caller=unit, subject=subject)
    _check_cycle(unit, room.running)
    _link(unit, event)
    try:
        return await _ask(event)
    finally:
        await _leave(unit, event)


async def _await_earlier(unit: Unit) -> None:
    """Wait until all earlier events of the caller's room are durable: a call is an output (G4).

    If one of them was refused, raise what the caller was cut by: it may have shielded itself from that, and the gate is
    open again.
    """
    if isinstance(unit.root.cut, RoomBrokenError):
        raise unit.root.cut_again()
    home = _room_of(unit)
    if home.gate.is_open:
        return
    reply: OneShot[None] = home.services.loop.one_shot()
    barrier = Event(home, "barrier", "call")
    barrier.reply = reply
    home.seal(barrier)
    await home.services.work.wait(reply)


def _room_of(unit: Unit) -> AwakeRoom:
    """Give the room of a unit: awake, since its code runs now, or it was just asked for."""
    room: Any = unit.place
    return room  # type: ignore[no-any-return]


def _way_back(services: Services, unit: Unit, key: RoomKey) -> Unit | None:
    room = services.keeper.awake(key)
    return None if room is None else find_way_back(unit, room)


# --- along one's own chain ---------------------------------------------------


async def _nest(services: Services, event: Event, unit: Unit, back: Unit) -> Any:  # noqa: ANN401 - the handler's own result
    """Run a call that came back along its own chain, in the event that waits for it."""
    host = back.event
    if services.probe is not None:
        services.probe.event_asked(event)
    _link(unit, event)
    try:
        await _take_turn(services, host, event, unit)
        try:
            return await _run_watched(services, event, back)
        finally:
            _pass_turn(host)
    finally:
        await _leave(unit, event)


async def _run_watched(services: Services, event: Event, back: Unit) -> Any:  # noqa: ANN401 - the handler's own result
    """Run a nested handler before the eyes of whoever looks on."""
    probe = services.probe
    if probe is None:
        return await _run_nested(event, back)
    probe.event_began(event)
    try:
        return await _run_nested(event, back)
    except BaseException as error:
        event.error = error
        raise
    finally:
        probe.event_ended(event)


async def _run_nested(event: Event, back: Unit) -> Any:  # noqa: ANN401 - the handler's own result
    """Run a nested handler in a savepoint: shielded, since its writes are half of somebody else's event."""
    room, root = _room_of(event), event.root
    result: Any = None
    event.begun = True
    token = CURRENT.set(event)
    try:
        with CancelScope(shield=True) as scope:
            event.stop = scope.cancel
            if root.cut is None:
                result = await begin_handler(event, room)
                check_is_left(event)
    except Exception:
        if root.cut is None:
            raise
    except get_cancelled_exc_class() as error:
        if root.cut is None:
            message = f"{event} was cancelled by its own code"
            raise EventCancelledError(message) from error
    finally:
        event.open = False
        CURRENT.reset(token)
    if root.cut is not None:
        raise root.cut_again()
    event.merge_into(back)
    return result


async def _take_turn(services: Services, host: Event, event: Event, unit: Unit) -> None:
    """Wait until no other nested event runs in ``host``."""
    if host.nested is None:
        host.nested = event
        return
    _check_cycle(unit, host.nested)
    turn: OneShot[None] = services.loop.one_shot()
    entry = (event, turn)
    if host.turns is None:
        host.turns = deque()
    host.turns.append(entry)
    try:
        await services.work.wait(turn)
    except BaseException:
        if turn.done:
            _pass_turn(host)
        else:
            host.turns.remove(entry)
        raise


def _pass_turn(host: Event) -> None:
    """Let the next nested event of ``host`` run, or nobody; tell those on the way who only wait for the end of this one."""
    host.nested = None
    while host.turns and host.nested is None:
        host.nested, turn = host.turns.popleft()
        turn.set(None)


async def _leave(unit: Unit, call: Event) -> None:
    """Wait no longer for a call, but for what it left running inside the caller's own event.

    Whoever waited between the two may have gone, by a cancellation of theirs. Else two pieces of one event would run at
    once, one of them in a savepoint that nobody waits for.
    """
    host, home = unit.event, _room_of(unit)
    call.waiting = False
    try:
        while host.nested is not None and _has_left(host, call):
            turn: OneShot[None] = home.services.loop.one_shot()
            if host.turns is None:
                host.turns = deque()
            host.turns.appendleft((None, turn))
            with CancelScope(shield=True):
                await home.services.work.wait(turn)
    finally:
        _unlink(unit, call)


def _has_left(host: Event, call: Event) -> bool:
    nested = [host.nested, *(event for event, _ in host.turns or ())]
    return any(event is not None and stems_from(event, call) for event in nested)


# --- what may not be waited for ----------------------------------------------


def _link(unit: Unit, event: Event) -> None:
    """Let it be known that code of ``unit`` waits for ``event``."""
    caller = unit.event
    if caller.calls is None:
        caller.calls = []
    caller.calls.append(event)


def _unlink(unit: Unit, event: Event) -> None:
    event.waiting = False
    assert unit.event.calls is not None
    unit.event.calls.remove(event)


def _check_depth(services: Services, unit: Unit, where: str) -> None:
    depth, limit = unit.event.depth + 1, services.limits.call_depth
    if depth > limit:
        raise LimitExceededError("call_depth", depth, limit, where)


def _check_cycle(unit: Unit, target: Event | None) -> None:
    cycle = find_cycle(unit, target)
    if cycle is not None:
        raise DeadlockError(tuple(map(str, cycle)))
