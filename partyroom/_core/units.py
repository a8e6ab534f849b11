"""Units of work: an event, an event nested in it, a transaction inside either.

Owns what one event has written and sent so far, layer by layer, and the links
between events that wait for each other across rooms: who called whom, whose
turn it is, and which cycle of waits would never end.

Promises that a layer is merged into its parent whole or dropped whole (G3),
that a call that comes back is found along the links of live calls only (G1),
and that a wait which closes a cycle is seen before it begins (G1).

Must never wait, look at a clock, or know how a handler is run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from copy import copy
from typing import Any, Final, Literal, Protocol

from typing_extensions import override

from partyroom.errors import OutsideEventError
from partyroom.types import AlarmRow, RoomKey

__all__ = [
    "CURRENT",
    "Event",
    "Kind",
    "Output",
    "Place",
    "Run",
    "Unit",
    "Writes",
    "check_is_left",
    "current_unit",
    "find_cycle",
    "find_way_back",
    "stems_from",
    "unit_of",
]

Output = Callable[[], None]
"""Something that leaves the room once everything before it is durable."""

Run = Callable[[Any], Any]
"""Runs a handler: takes the awake room, gives an awaitable."""

Kind = Literal[
    "alarm_failed",
    "barrier",
    "call",
    "close",
    "commit",
    "connect",
    "error",
    "message",
    "request",
    "ring",
    "run",
    "start",
    "steer",
    "sync",
    "task",
    "wake",
]
"""What an event is. ``wake`` is a ring that found no alarm to ring; ``barrier``, ``sync``, ``commit`` and ``task`` run no handler."""


class Place(Protocol):
    """The room that an event belongs to, as far as links between events need to know it."""

    key: RoomKey
    running: Event | None
    """The event of its mailbox that the room handles now."""


class Writes:
    """What one unit has written: a layer over what lies below it."""

    __slots__ = ("alarms", "clear", "values")

    def __init__(self) -> None:
        self.values: dict[str, bytes | None] = {}
        self.alarms: dict[str, AlarmRow | None] = {}
        self.clear = False
        """Whether everything below this layer is deleted."""

    def delete_all(self) -> None:
        """Forget what was written so far, and cover everything below."""
        self.values = {}
        self.alarms = {}
        self.clear = True

    def absorb(self, above: Writes) -> None:
        """Lay another layer over this one, for good."""
        if above.clear:
            self.delete_all()
        self.values.update(above.values)
        self.alarms.update(above.alarms)

    def __bool__(self) -> bool:
        return self.clear or bool(self.values) or bool(self.alarms)


class Unit:
    """A transaction, or the base of an event: one layer of writes and outputs."""

    __slots__ = ("open", "outputs", "parent", "place", "writes")

    def __init__(self, place: Place, parent: Unit | None) -> None:
        self.place = place
        self.parent = parent
        """The unit of the same room that this one is part of."""
        self.writes: Writes | None = None
        self.outputs: list[Output] | None = None
        self.open = True
        """Whether this unit has not ended."""

    @property
    def event(self) -> Event:
        """The innermost event that this unit is part of; an event is part of itself."""
        assert self.parent is not None
        return self.parent.event

    @property
    def root(self) -> Event:
        """The event of the mailbox that this unit will be stored with."""
        assert self.parent is not None
        return self.parent.root

    @property
    def is_live(self) -> bool:
        """Whether code of this unit may still read, write and send: neither it nor what it is part of has ended."""
        return self.open and (self.parent is None or self.parent.is_live)

    def layer(self) -> Writes:
        """Give this unit's layer, made at the first write."""
        if self.writes is None:
            self.writes = Writes()
        return self.writes

    def send(self, output: Output) -> None:
        """Keep an output until this unit's event is durable."""
        if self.outputs is None:
            self.outputs = []
        self.outputs.append(output)

    def merge_into(self, parent: Unit) -> None:
        """End well: what this unit wrote and sent is the parent's now.

        Raises :class:`OutsideEventError` if the parent has ended before, so that nothing is lost in silence.
        """
        if not parent.is_live:
            message = f"{self.place.key}: what this was part of has ended before it; nothing of it is stored"
            raise OutsideEventError(message)
        if self.writes is not None:
            parent.layer().absorb(self.writes)
        for output in self.outputs or ():
            parent.send(output)

    def layers(self) -> Iterator[Writes]:
        """Give the layers of this unit and those it is part of, the innermost first."""
        unit: Unit | None = self
        while unit is not None:
            if unit.writes is not None:
                yield unit.writes
            unit = unit.parent


class Event(Unit):
    """One event of a room, or a call nested in one.

    Most events have little of what an event can have, and there is one for each message: so the defaults stand on the
    class, and making one sets next to nothing.
    """

    subject: Any = None
    """What the event is about: its connection or its alarm."""
    follows: Event | None = None
    """The event that this one comes from without being called by it: the one that failed, or that ``sync`` is a part of."""
    seen: Any = None
    """What an observer knows it by, if there is one."""
    caller: Unit | None = None
    """The unit of another event that waits for this one, or ``None``."""
    depth: int = 0
    """How many calls lie above this event."""
    waiting: bool = False
    """Whether the caller still waits: a link of the chain lives no longer."""
    is_inside: bool = False
    """Whether it has a place in its room's mailbox."""
    begun: bool = False
    since: float | None = None
    """When its handler began, in monotonic seconds."""
    cut: BaseException | None = None
    """Why the runtime ended this event before its handler did: what its caller gets, whatever the handler does."""
    calls: list[Event] | None = None
    """The events that code of this one waits for now."""
    nested: Event | None = None
    """The nested event that runs in this one now: one at a time."""
    turns: deque[tuple[Event | None, Any]] | None = None
    """Those that wait for the nested event to end, in order: with the event that is to run then, or none."""
    stop: Callable[[], object] | None = None
    """Cancels the code of a nested event, which runs in another room's task."""
    reply: Any = None
    """Where the caller waits, or ``None``."""
    result: Any = None
    error: BaseException | None = None
    ringing: AlarmRow | None = None
    """The alarm that this event rings: it reads as unset, and goes in this event's commit (G9, G11)."""
    sealed_as: int = 0
    """The number of the commit that stores this event; 0 if it has nothing to store."""

    def __init__(
        self,
        place: Place,
        kind: Kind,
        name: str,
        run: Run | None = None,
        *,
        parent: Unit | None = None,
        caller: Unit | None = None,
        subject: Any = None,  # noqa: ANN401 - a connection, an alarm, or what a host says it is about
    ) -> None:
        super().__init__(place, parent)
        if subject is not None:
            self.subject = subject
        self.kind: Kind = kind
        self.name = name
        """What is shown of it in errors and logs: ``on_message``, ``Counter.increment``."""
        self.run = run
        if caller is not None:
            self.caller = caller
            self.depth = caller.event.depth + 1
            self.waiting = True

    def __str__(self) -> str:
        return f"{self.place.key} {self.name}"

    # No attributes: an event that named itself would be garbage that only the collector frees, a third of a busy
    # runtime's time.

    @property
    @override
    def event(self) -> Event:
        return self

    @property
    @override
    def root(self) -> Event:
        return self if self.parent is None else self.parent.root

    def cut_again(self) -> BaseException:
        """Give a fresh error that says why this event was cut, for code of it that still runs; the first one stays its cause."""
        assert self.cut is not None
        error = copy(self.cut)
        error.__cause__ = self.cut
        return error


CURRENT: Final[ContextVar[Unit | None]] = ContextVar("partyroom_unit", default=None)
"""The unit that the running code was begun in, whichever handle it uses."""


def current_unit() -> Unit | None:
    """Give the innermost unit that has not ended, of those that the running code belongs to.

    A task that outlives its transaction belongs to the event around it; one that outlives its event, to none (G1).
    """
    return _innermost_live(CURRENT.get())


def _innermost_live(unit: Unit | None) -> Unit | None:
    while unit is not None and not unit.open:
        unit = unit.parent
    # One that goes on inside of what has ended belongs to nothing further out: it would be stored there by halves.
    return unit if unit is not None and unit.is_live else None


def unit_of(place: Place, what: str) -> Unit:
    """Give the unit of ``place`` that the running code belongs to, for ``what`` needs an event of it (G6a).

    Raises :class:`OutsideEventError` if there is none, and why the event was cut if it was.
    """
    unit = CURRENT.get()
    if unit is not None and not (unit.open and unit.parent is None):
        # Not the event itself, as nearly always: each read and write of a room pays for this.
        unit = _innermost_live(unit)
    if unit is None or unit.place is not place:
        message = f"{place.key}: {what} outside an event of this room; use `await ctx.run(...)` from a background task"
        raise OutsideEventError(message)
    if unit.root.cut is not None:
        raise unit.root.cut_again()
    return unit


def check_is_left(event: Event) -> None:
    """Refuse to let a handler end well, here in its own context, inside a transaction that it has not left.

    That is one of a generator which nobody has closed. What was written since would be lost in silence: it was the
    transaction's.
    """
    if current_unit() is not event and event.is_live:
        message = f"{event} ended inside a transaction: close the generator that began it, with contextlib.aclosing"
        raise RuntimeError(message)


# --- chains of calls ---------------------------------------------------------


def _caller(event: Event) -> Unit | None:
    """Give the unit that waits for an event, if its caller still does."""
    return _innermost_live(event.caller) if event.waiting else None


def find_way_back(unit: Unit, place: Place) -> Unit | None:
    """Find the unit of ``place`` that waits, along a chain of live calls, for ``unit`` (G1); itself, if it is of ``place``."""
    step: Unit | None = unit
    while step is not None and step.place is not place:
        step = _caller(step.event)
    return step


def stems_from(event: Event, call: Event) -> bool:
    """Say whether an event was called by ``call``, directly or through others, also if nobody waits any more."""
    step: Event | None = event
    while step is not None and step is not call:
        step = None if step.caller is None else step.caller.event
    return step is call


def find_cycle(unit: Unit, target: Event | None) -> list[Event] | None:
    """Say whether ``target`` waits, directly or through others, for an event that waits for ``unit`` (G1).

    ``target`` is the event whose end a new wait of ``unit`` would depend on: the running one of the room that it
    calls. Gives the events of the cycle, beginning and ending with ``unit``'s own, each waiting for the next, or
    ``None``. A wait for a full mailbox counts as one for the room's running event, and a nested event that waits for
    its turn as one for the nested event that runs.
    """
    mine = _waiting_for(unit)
    todo: list[tuple[Event, ...]] = [] if target is None else [(target,)]
    seen: set[Event] = set()
    while todo:
        path = todo.pop()
        last = path[-1]
        if last in mine:
            return [unit.event, *path, *reversed(mine[: mine.index(last)])]
        if last not in seen:
            seen.add(last)
            if last.nested is not None:
                # Looked at after the calls: they lead to it as well, unless somebody on the way has gone.
                todo.append((*path, last.nested))
            todo.extend((*path, awaited) for call in last.calls or () if (awaited := _awaited(call)) is not None)
    return None


def _waiting_for(unit: Unit) -> list[Event]:
    """Give the events that cannot end before ``unit`` does, from its own outwards."""
    found: list[Event] = []
    step: Unit | None = unit
    while step is not None:
        found.append(step.event)
        if step.root is not step.event:
            found.append(step.root)
        step = _caller(step.event)
    return found


def _awaited(call: Event) -> Event | None:
    """Give the event whose end a live call depends on; ``None`` if that is none, or it is answered already."""
    if call.reply is not None and call.reply.done:
        return None
    if call.begun:
        return call
    if call.parent is not None:
        return call.parent.event.nested
    return call.place.running
