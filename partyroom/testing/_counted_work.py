"""What a clock of a test knows of a runtime: whether time may move, and if not, why.

Owns the questions that a fake clock asks (:class:`CountedWork`), and a runtime's
answers to them (:class:`RuntimeWork`).

Promises that the answers are exact: they come from the runtime's own count of
what is in flight, on every loop and across threads.

Must never change anything in the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, final

from typing_extensions import override

from partyroom._core.units import Event
from partyroom._engine import Engine
from partyroom._room_runner import RoomRunner
from partyroom.runtime import Runtime
from partyroom.testing._waiting_places import waiting_place
from partyroom.types import RoomKey, Timer

__all__ = ["CountedWork", "RuntimeWork"]

NEVER: Final = datetime.max.replace(tzinfo=UTC)


class CountedWork(Protocol):
    """Something that counts its work in flight."""

    def is_idle(self) -> bool:
        """Say whether nothing is in flight."""
        ...

    async def wait_idle(self) -> None:
        """Return when nothing is in flight."""
        ...

    def describe(self) -> list[str]:
        """Say what is in flight, a line each."""
        ...

    def pending_timers(self) -> list[tuple[datetime, Timer]]:
        """Give what waits in memory for its time, whoever sleeps for it."""
        ...

    def rings(self, room: RoomKey, due: datetime) -> bool:
        """Say whether an alarm of ``room`` may still ring at ``due``; a scheduler may sleep on for one that was deleted since."""
        ...

    def next_alarm(self) -> tuple[datetime, RoomKey] | None:
        """Give which alarm rings next, as far as that is known here."""
        ...

    def is_awaited(self) -> bool:
        """Say whether code of the host waits for something of this."""
        ...

    def when_awaited(self, call: Callable[[], None] | None) -> None:
        """Have ``call`` called whenever code of the host begins to wait; ``None`` for no more."""
        ...


@final
class RuntimeWork(CountedWork):
    """The work in flight of one runtime, from one entering of it to the next.

    ``age`` says for how long an event has run, ``due`` when a room's next alarm is due, if somebody keeps count of that.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        age: Callable[[Event], timedelta | None] | None = None,
        due: Mapping[RoomKey, datetime] | None = None,
    ) -> None:
        self._runtime = runtime
        self._age = age
        self._due = due

    def _engine(self) -> Engine | None:
        return self._runtime.running()

    @override
    def is_idle(self) -> bool:
        engine = self._engine()
        return engine is None or not engine.work.count

    @override
    async def wait_idle(self) -> None:
        engine = self._engine()
        if engine is not None:
            await engine.work.wait_idle()

    @override
    def describe(self) -> list[str]:
        engine = self._engine()
        if engine is None:
            return []
        asleep = {timer.room for _, timer in engine.pending_timers() if timer.kind == "sleep"}
        lines = [line for room in engine.all_awake() for line in self._describe(room, is_asleep=room.key in asleep)]
        return lines or ([f"{engine.work.count} pieces of the runtime's own work"] if engine.work.count else [])

    def _describe(self, room: RoomRunner, *, is_asleep: bool) -> list[str]:
        lines: list[str] = []
        for what, task in room.tasks():
            age = self._age(what) if self._age is not None and isinstance(what, Event) else None
            line = f"{what if isinstance(what, Event) else f'{room.key} {what}'} {'runs' if age is None else f'has run for {age}'}"
            place = waiting_place(task)
            if place:
                line += f", and waits at {place}"
            if is_asleep:
                line += " (it sleeps on ctx.clock outside of the handler's own task: open branches by ctx.task_group())"
            lines.append(line)
        lines += [f"{event} waits for its turn" for event in room.mailbox]
        if not room.gate.is_open:
            lines.append(f"{room.key}: {len(room.gate)} ended events wait for a commit")
        return lines

    @override
    def pending_timers(self) -> list[tuple[datetime, Timer]]:
        return self._runtime.pending_timers()

    @override
    def rings(self, room: RoomKey, due: datetime) -> bool:
        return self._due is None or self._due.get(room, NEVER) <= due

    @override
    def next_alarm(self) -> tuple[datetime, RoomKey] | None:
        return min((due, room) for room, due in self._due.items()) if self._due else None

    @override
    def is_awaited(self) -> bool:
        engine = self._engine()
        return engine is not None and engine.work.hosts > 0

    @override
    def when_awaited(self, call: Callable[[], None] | None) -> None:
        engine = self._engine()
        if engine is not None:
            engine.work.on_host_waits = call
