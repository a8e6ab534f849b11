"""The tasks that a room starts beside its events.

Owns the background tasks of one room (G6a): their scopes, and the tokens that
they hold.

Promises that a task belongs to no event, that its error is logged and breaks
nothing else, and that it is cancelled when the instance that started it goes.

Must never touch the room's storage or its events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from typing import final

from anyio import CancelScope, get_cancelled_exc_class

from partyroom._core.functions import awaited
from partyroom._core.units import CURRENT, Event, Place
from partyroom._services import Services
from partyroom._work import HOLDER, Holder
from partyroom.errors import RoomAbortedError

__all__ = ["BackgroundTask", "BackgroundTasks"]


@final
class BackgroundTask:
    """One of them."""

    __slots__ = ("name", "scope", "since", "task")

    def __init__(self, name: str, since: float) -> None:
        self.name = name
        self.since = since
        """When it was started, in monotonic seconds."""
        self.task: object = None
        """The loop's own task, once it runs."""
        self.scope = CancelScope(shield=True)


@final
class BackgroundTasks:
    """All of one room."""

    __slots__ = ("_ended", "_place", "_services", "_tasks")

    def __init__(self, place: Place, services: Services, ended: Callable[[], None]) -> None:
        self._place = place
        self._services = services
        self._ended = ended
        """Is called whenever one has ended."""
        self._tasks: set[BackgroundTask] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[BackgroundTask]:
        return iter(self._tasks)

    def start(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Start a task at once, in the context of whoever starts it, but outside of any event."""
        background = BackgroundTask(getattr(fn, "__qualname__", repr(fn)), self._services.monotonic())
        self._tasks.add(background)
        self._services.work.take()
        context = copy_context()
        context.run(CURRENT.set, None)
        context.run(self._services.spawn, self._run, (background, fn, args))

    def cancel(self) -> None:
        """End all tasks: the instance that they belong to goes."""
        for background in self._tasks:
            background.scope.cancel()

    async def _run(
        self, background: BackgroundTask, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        work = self._services.work
        background.task = self._services.loop.current_task()
        HOLDER.set(Holder(background.task, work))
        try:
            with background.scope:
                await awaited(fn(*args), self._place, background.name)
        except RoomAbortedError:
            # The author's own doing, which has ended this task as well.
            pass
        except (Exception, get_cancelled_exc_class()) as error:  # noqa: BLE001 - it breaks nothing else
            self._services.keeper.event_failed(Event(self._place, "task", background.name), error)
        finally:
            self._tasks.discard(background)
            self._ended()
            work.give()
