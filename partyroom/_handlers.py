"""The way from an event to its author's code.

Owns how a room's callbacks and methods are found and called: one function for
each kind of event, which takes the room's instance last.

Promises that a method is looked up by its name on the instance, so that
overrides win, that a callback which a class does not have costs nothing, and
that a handler which cannot be awaited is said to be so.

Must never know when it is called, or what becomes of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from partyroom._core.functions import awaited, check_function, not_awaitable
from partyroom._core.units import Event
from partyroom._services import AwakeRoom
from partyroom.connections import Connections, RoomConnection
from partyroom.errors import ConnectRejectedError, NoHandlerError, WrongRoomError
from partyroom.protocols import Room
from partyroom.types import Alarm

__all__ = [
    "begin_handler",
    "callback",
    "run_method",
    "run_on_alarm_failed",
    "run_on_close",
    "run_on_connect",
    "run_on_error",
    "run_on_message",
    "run_on_request",
]

T = TypeVar("T")

REPLACED: Final = 1000
"""The close code for a client whose place a newer connection of its id has taken: normal, so that it does not come back."""
POLICY_VIOLATION: Final = 1008
"""The close code for a client whose id is in use (RFC 6455, 7.4.1)."""


def callback(instance: object, name: str) -> Callable[..., Awaitable[Any]] | None:
    """Give a room's callback if its class has it: a missing or inherited default is ``None``."""
    found: Any = getattr(instance, name, None)
    if found is None or getattr(found, "__func__", found) is getattr(Room, name):
        return None
    return found  # type: ignore[no-any-return]


def begin_handler(event: Event, room: AwakeRoom) -> Awaitable[Any]:
    """Call an event's handler, and give what is to be awaited for its result."""
    assert event.run is not None
    running: Awaitable[Any] = event.run(room)
    if not hasattr(running, "__await__"):
        raise not_awaitable(event, running)
    return running


# --- what a caller asks for --------------------------------------------------


def run_method(
    method: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any], room: AwakeRoom
) -> Awaitable[T]:
    """Call a method by its name, so that an override wins, or a function with the room as its first argument."""
    instance: Any = room.instance
    name = getattr(method, "__name__", "")
    for base in type(instance).__mro__:
        if base.__dict__.get(name) is method:
            return getattr(instance, name)(*args, **kwargs)  # type: ignore[no-any-return]
    check_function(method, "call")
    owner = getattr(method, "__qualname__", "").rpartition("<locals>.")[2].rpartition(".")[0]
    if owner and hasattr(method, "__self__"):
        message = f"call takes {method.__qualname__} itself, not a method that is bound to an object"
        raise WrongRoomError(message)
    if owner:
        message = f"{method.__qualname__} is no method of {type(instance).__qualname__}"
        raise WrongRoomError(message)
    return method(instance, *args, **kwargs)


def run_on_request(request: object, room: AwakeRoom) -> Awaitable[Any]:
    """Have ``on_request`` answer; raise :class:`NoHandlerError` if there is none."""
    on_request = callback(room.instance, "on_request")
    if on_request is None:
        message = f"{type(room.instance).__qualname__} has no on_request"
        raise NoHandlerError(message)
    return on_request(request)


# --- what happens to connections ---------------------------------------------


async def run_on_connect(connection: RoomConnection, room: AwakeRoom) -> None:
    """Let a connection in, unless the room refuses it."""
    instance: Any = room.instance
    connection.join(room.connections)
    try:
        tags = getattr(instance, "connection_tags", None)
        if tags is not None:
            connection.add_tags(tags(connection))
        _settle_same_id(room.connections, connection, getattr(instance, "same_id", Room.same_id))
        room.connections.add(connection)
        on_connect = callback(instance, "on_connect")
        if on_connect is not None:
            await awaited(on_connect(connection), room, "on_connect")
    finally:
        connection.forget_request()


def _settle_same_id(connections: Connections, connection: RoomConnection, policy: str) -> None:
    """Do as the room says about open connections of the same id; one that is replaced goes when the new one is let in."""
    if policy == "allow":
        return
    older = connections.older(connection)
    if older and policy == "refuse":
        raise ConnectRejectedError(POLICY_VIOLATION, "this connection id is in use")
    for each in older:
        each.close(REPLACED, "replaced by a newer connection of the same id")


async def run_on_message(connection: RoomConnection, message: str | bytes, room: AwakeRoom) -> None:
    """Handle a client's message, unless the room has closed the connection since."""
    on_message = callback(room.instance, "on_message")
    if on_message is not None and connection.is_open():
        await awaited(on_message(message, connection), room, "on_message")


async def run_on_close(connection: RoomConnection, code: int, reason: str, was_clean: bool, room: AwakeRoom) -> None:  # noqa: FBT001 - PartyKit's own order
    """Tell the room that a connection has ended; it is none of the room's from here on (G19)."""
    room.connections.discard(connection)
    on_close = callback(room.instance, "on_close")
    if on_close is not None:
        await awaited(on_close(connection, code, reason, was_clean), room, "on_close")


async def run_on_error(connection: RoomConnection, error: Exception, room: AwakeRoom) -> None:
    """Tell the room of an error in a connection's callback."""
    on_error = callback(room.instance, "on_error")
    if on_error is not None:
        await awaited(on_error(connection, error), room, "on_error")


async def run_on_alarm_failed(alarm: Alarm, error: BaseException | None, room: AwakeRoom) -> None:
    """Tell the room that an alarm has raised for the last time."""
    on_alarm_failed = callback(room.instance, "on_alarm_failed")
    if on_alarm_failed is not None:
        await awaited(on_alarm_failed(alarm, error), room, "on_alarm_failed")
