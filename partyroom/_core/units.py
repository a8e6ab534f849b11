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

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, Protocol

from partyroom.types import AlarmRow, RoomKey

__all__ = ["CURRENT", "Event", "Output", "Place", "Unit", "Writes", "find_cycle", "find_way_back"]

Output = Callable[[], None]
"""Something that leaves the room once everything before it is durable."""


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

    __slots__ = ("event", "open", "outputs", "parent", "place", "root", "writes")

    event: Event
    """The innermost event that this unit is part of; an event is part of itself."""
    root: Event
    """The event of the mailbox that this unit will be stored with."""

    def __init__(self, place: Place, parent: Unit | None) -> None:
        self.place = place
        self.parent = parent
        """The unit of the same room that this one is part of."""
        if parent is not None:
            self.event = parent.event
            self.root = parent.root
        self.writes: Writes | None = None
        self.outputs: list[Output] | None = None
        self.open = True
        """Whether this unit has not ended."""

    @property
    def is_live(self) -> bool:
        """Whether code of this unit may still read, write and send."""
        return self.open and self.event.open and self.root.open

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
        """End well: what this unit wrote and sent is the parent's now."""
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
    """One event of a room, or a call nested in one."""

    __slots__ = (
        "begun",
        "caller",
        "calls",
        "cut",
        "depth",
        "error",
        "kind",
        "name",
        "nested",
        "reply",
        "result",
        "ringing",
        "run",
        "sealed_as",
        "subject",
        "turns",
        "waiting",
    )

    def __init__(
        self,
        place: Place,
        kind: str,
        name: str,
        run: Callable[[Any], Any] | None = None,
        *,
        parent: Unit | None = None,
        caller: Unit | None = None,
    ) -> None:
        super().__init__(place, parent)
        self.event = self
        if parent is None:
            self.root = self
        self.kind = kind
        self.name = name
        """What is shown of it in errors and logs: ``on_message``, ``Counter.increment``."""
        self.run = run
        """Runs the handler: takes the room, gives an awaitable."""
        self.subject: Any = None
        """What the event is about: its connection or its alarm."""
        self.caller = caller
        """The unit of another event that waits for this one, or ``None``."""
        self.depth: int = 0 if caller is None else caller.event.depth + 1
        """How many calls between rooms lie above this event."""
        self.waiting = caller is not None
        """Whether the caller still waits: a link of the chain lives no longer."""
        self.begun = False
        self.cut: BaseException | None = None
        """Why the runtime ended this event before its handler did: what its caller gets, whatever the handler does."""
        self.calls: list[Event] | None = None
        """The events that code of this one waits for now."""
        self.nested: Event | None = None
        """The nested event that runs in this one now: one at a time."""
        self.turns: list[Any] | None = None
        """Those that wait for the nested event to end, in order."""
        self.reply: Any = None
        """Where the caller waits, or ``None``."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.ringing: AlarmRow | None = None
        """The alarm that this event rings: it reads as unset, and goes in this event's commit (G9, G11)."""
        self.sealed_as = 0
        """The number of the commit that stores this event; 0 if it has nothing to store."""

    def __str__(self) -> str:
        return f"{self.place.key} {self.name}"


CURRENT: Final[ContextVar[Unit | None]] = ContextVar("partyroom_unit", default=None)
"""The unit that the running code belongs to, whichever handle it uses."""


def find_way_back(unit: Unit, place: Place) -> Unit | None:
    """Find the unit of ``place`` that waits, along a chain of live calls, for ``unit`` (G1); itself, if it is of ``place``."""
    step: Unit | None = unit
    while step is not None:
        if step.place is place:
            return step
        event = step.event
        step = event.caller if event.waiting else None
    return None


def find_cycle(unit: Unit, target: Event | None) -> list[Event] | None:
    """Say whether ``target`` waits, directly or through others, for an event that waits for ``unit`` (G1).

    ``target`` is the event whose end a new wait of ``unit`` would depend on: the running one of the room that it
    calls. Gives the cycle, beginning with ``unit``'s own event, or ``None``. A wait for a full mailbox counts as one
    for the room's running event, and a nested event that waits for its turn as one for the nested event that runs.
    """
    mine = _waiting_for(unit)
    seen: set[Event] = set()
    todo: list[tuple[Event, list[Event]]] = [] if target is None else [(target, [unit.event])]
    while todo:
        event, path = todo.pop()
        if event in seen:
            continue
        seen.add(event)
        path = [*path, event]
        if event in mine:
            return path
        for call in event.calls or ():
            awaited = _awaited(call)
            if awaited is not None:
                todo.append((awaited, path))
    return None


def _waiting_for(unit: Unit) -> set[Event]:
    """Give the events that cannot end before ``unit`` does, its own among them."""
    found: set[Event] = set()
    step: Unit | None = unit
    while step is not None:
        found.add(step.event)
        found.add(step.root)
        step = step.event.caller if step.event.waiting else None
    return found


def _awaited(call: Event) -> Event | None:
    """Give the event whose end a live call depends on."""
    if call.begun:
        return call
    if call.parent is not None:
        return call.parent.event.nested
    return call.place.running
